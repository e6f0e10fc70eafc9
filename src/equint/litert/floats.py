"""What a program computes in float, as LiteRT's float operators: what all of them need, and the walk over a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import UnsupportedOperator
from ..integers.program import Step
from ..ir.model import Array, Graph, Name, Node
from .layouts import Order, as_written, moves_nothing, stored
from .writer import Place, Writer

NONE: Mapping[str, Any] = {"fused_activation_function": "NONE"}


class Floats:
    """A step in float: its graph, and where its values are in the file.

    Attributes:
        places: where each value of the graph is, in every order that something asked for.
    """

    def __init__(self, writer: Writer, step: Step) -> None:
        self.writer, self.file, self.step = writer, writer.file, step
        self.graph: Graph = step.attrs["graph"]
        self.places: dict[Name, list[Place]] = {}
        self.sizes: dict[Name, tuple[int, ...]] = {}
        for inside, name in zip(self.graph.inputs, step.inputs, strict=True):
            self.places[inside] = real_places(writer, name)
            self.sizes[inside] = writer.shape(name)

    def refuse(self, node: Node, why: str) -> UnsupportedOperator:
        """An error that names the node."""
        return UnsupportedOperator(f"{node.label}: {why}")

    def shape(self, name: Name) -> tuple[int, ...]:
        """All sizes of a value; a batch of unknown size counts one."""
        if name in self.graph.consts:
            return self.graph.consts[name].shape
        known = self.sizes.get(name) or self.graph.shapes.get(name)
        if known is None or any(not isinstance(n, int) for n in known[1:]):
            raise UnsupportedOperator(f"{name}: its size is not known; export the network with static shapes")
        return tuple(n if isinstance(n, int) else 1 for n in known)

    def rank(self, name: Name) -> int:
        """Number of axes."""
        return len(self.shape(name))

    def dtype(self, name: Name) -> str:
        """NumPy's name of a value's type; floats of all sizes are float32."""
        const = self.graph.consts.get(name)
        kind = str(const.dtype) if const is not None else self.graph.dtypes.get(name, "float32")
        return "float32" if kind.startswith("float") else kind

    def constant(self, node: Node, k: int) -> Array | None:
        """An input that must be a constant where it is given; None where it is left out."""
        name = node.inputs[k] if k < len(node.inputs) else ""
        if not name:
            return None
        if name not in self.graph.consts:
            raise self.refuse(node, f"{name} is computed; make it a constant")
        return self.graph.consts[name]

    def ints(self, node: Node, k: int) -> list[int] | None:
        """The same as whole numbers."""
        value = self.constant(node, k)
        return None if value is None else [int(n) for n in value.ravel()]

    def order(self, name: Name) -> Order:
        """The order in which a value is already; constants come as they are written."""
        known = self.places.get(name)
        return known[0][1] if known else as_written(self.rank(name))

    def read(self, name: Name, order: Order | None = None) -> int:
        """A value in an order (as written, where none is asked for), moved into it where it is in no such."""
        order = as_written(self.rank(name)) if order is None else order
        if name in self.graph.consts:
            return self.file.constant(name, self.graph.consts[name].transpose(order).astype(self.dtype(name)))
        return ordered(self.writer, self.places[name], name, self.shape(name), self.dtype(name), order)

    def transpose(self, x: int, y: int, perm: Sequence[int]) -> None:
        """A TRANSPOSE between two tensors of the file."""
        turned(self.writer, x, y, perm)

    def ints32(self, name: str, values: int | Sequence[int] | Array) -> int:
        """An int32 constant."""
        return self.writer.integers(name, values)

    def number(self, value: float) -> int:
        """A constant of one value, with no axes."""
        return self.file.constant("number", np.asarray(value, np.float32))

    def temporary(self, stem: Name, shape: Sequence[int], dtype: str = "float32") -> int:
        """A new tensor."""
        return self.file.tensor(stem, shape, dtype)

    def made(self, name: Name, order: Order | None = None) -> int:
        """A new tensor for what a node makes."""
        order = as_written(self.rank(name)) if order is None else order
        index = self.temporary(name, stored(self.shape(name), order), self.dtype(name))
        self.put(name, index, order)
        return index

    def put(self, name: Name, index: int, order: Order) -> None:
        """Say that a value is at a place already."""
        self.places.setdefault(name, []).append((index, order))

    def op(self, code: str, inputs: Sequence[int], output: int, **options: Any) -> int:
        """One operator with one output, which it returns."""
        self.file.operator(code, inputs, [output], _FLOAT_VERSIONS.get(code, 1), **options)
        return output

    def apply(self, code: str, inputs: Sequence[int], stem: Name = "", **options: Any) -> int:
        """The same with a new tensor of the inputs' common shape."""
        shapes = [tuple(self.file.tensors[i]["shape"]) for i in inputs]
        kind = "bool" if code in _COMPARE else "float32"
        return self.op(
            code, inputs, self.temporary(stem or code.lower(), np.broadcast_shapes(*shapes), kind), **options
        )


_COMPARE = frozenset({"LESS", "LESS_EQUAL", "GREATER", "GREATER_EQUAL", "EQUAL", "NOT_EQUAL"})
_FLOAT_VERSIONS = {"FULLY_CONNECTED": 1, "TRANSPOSE_CONV": 3, "RESIZE_BILINEAR": 3, "RESIZE_NEAREST_NEIGHBOR": 3}


def turned(writer: Writer, x: int, y: int, perm: Sequence[int]) -> None:
    """A TRANSPOSE between two tensors of the file."""
    writer.file.operator("TRANSPOSE", [x, writer.integers("perm", perm)], [y], 4 if len(perm) > 4 else 1)


def ordered(writer: Writer, known: list[Place], name: Name, shape: Sequence[int], dtype: str, order: Order) -> int:
    """A value that is at known places in this order, moved into it where it is in no such."""
    for index, have in known:
        if have == order:
            return index
    index, have = known[0]
    made = writer.file.tensor(name, stored(shape, order), dtype)
    if moves_nothing(shape, have, order):
        writer.reshape(index, made)
    else:
        turned(writer, index, made, [have.index(axis) for axis in order])
    known.append((made, order))
    return made


def read_real(writer: Writer, name: Name, order: Order) -> int:
    """A tensor of the program that is float, or another that has no grid, in an order."""
    dtype = str(writer.program.storage(name))
    return ordered(writer, writer.reals[name], name, writer.shape(name), dtype, order)


def real_places(writer: Writer, name: Name) -> list[Place]:
    """Where a tensor of the program is in float: dequantized once where it is on a grid."""
    if name not in writer.reals:
        x, order = writer.place(name)
        made = writer.file.tensor(f"{name}_real", stored(writer.shape(name), order), "float32")
        writer.file.operator("DEQUANTIZE", [x], [made])
        writer.reals[name] = [(made, order)]
    return writer.reals[name]


UNWRITTEN = {
    "BitShift": "RIGHT_SHIFT",
    "GatherND": "GATHER_ND",
    "LRN": "LOCAL_RESPONSE_NORMALIZATION",
    "NonZero": "WHERE",
    "OneHot": "ONE_HOT",
    "Range": "RANGE",
    "ReverseSequence": "REVERSE_SEQUENCE",
    "ScatterND": "SCATTER_ND",
    "Unique": "UNIQUE",
}
"""Operators that LiteRT computes in float, under its names, and that equint does not write."""

FloatForm = Callable[[Floats, Node], None]


def write_floats(writer: Writer, step: Step) -> None:
    """Every operator of a step in float."""
    from .float_operators import FLOAT_FORMS

    floats = Floats(writer, step)
    lacking = [n for n in floats.graph.nodes if n.domain or n.op not in FLOAT_FORMS]
    if lacking:
        op = lacking[0].op
        said = f"LiteRT's {UNWRITTEN[op]} is not written" if op in UNWRITTEN else f"LiteRT has no operator for {op}"
        raise floats.refuse(lacking[0], f"{said}; replace it, or end the network before it")
    for node in floats.graph.nodes:
        FLOAT_FORMS[node.op](floats, node)
    for inside, name in zip(floats.graph.outputs, step.outputs, strict=True):
        writer.reals[name] = floats.places[inside]


def quantized(writer: Writer, step: Step) -> None:
    """QUANTIZE: integers of what is in float."""
    (name,), (y,) = step.inputs, step.outputs
    x, order = writer.reals[name][0]
    writer.file.operator("QUANTIZE", [x], [writer.made(y, order)])
