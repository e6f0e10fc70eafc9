"""Models in the making from a Program: nodes, constants and fresh names, and what the program's numbers say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, helper, numpy_helper

from ..errors import EquintError
from ..ir.model import Array, Name
from ..maths.affine import along_axis
from ..onnx.writer import model_proto
from .program import Program, Step

Value = Name | Array | np.generic
"""What a node reads: a tensor by name, or a constant."""

OPSET = 18


class Maker:
    """Collects the nodes and constants of a model under names that nothing else has."""

    def __init__(self, taken: Sequence[Name]) -> None:
        self.taken = set(taken)
        self.nodes: list[Any] = []
        self.consts: dict[Name, Array] = {}
        self._known: dict[tuple[str, bytes, tuple[int, ...]], Name] = {}
        self._bytes: dict[Name, list[tuple[int, Name, int]]] = {}

    def fresh(self, stem: str) -> Name:
        """A name that is not taken."""
        name, k = stem, 0
        while name in self.taken:
            name, k = f"{stem}_{k}", k + 1
        self.taken.add(name)
        return name

    def const(self, array: Array, stem: str = "c") -> Name:
        """A constant, stored once however often it is used."""
        array = np.ascontiguousarray(array).reshape(np.shape(array))
        key = (str(array.dtype), array.tobytes(), array.shape)
        if key not in self._known:
            self._known[key] = self.fresh(stem)
            self.consts[self._known[key]] = array
        return self._known[key]

    def add(self, op: str, *inputs: Value, to: Name = "", domain: str = "", **attrs: Any) -> Name:
        """One node; arrays among its inputs become constants. Returns its output, `to` or a fresh name."""
        names = [i if isinstance(i, str) else self.const(np.asarray(i)) for i in inputs]
        stem = to or next((n for n in names if n), op)
        out = to or self.fresh(f"{stem}_{op}")
        node = helper.make_node(op, names, [out], self.fresh(f"{out}_{op}_node"), domain=domain or None, **attrs)
        self.nodes.append(node)
        return out

    def cast(self, x: Name, dtype: Any, to: Name = "") -> Name:
        """The value in another type."""
        out = to or self.fresh(f"{x}_{np.dtype(dtype)}")
        node = helper.make_node("Cast", [x], [out], self.fresh(f"{out}_node"), to=_element(np.dtype(dtype)))
        self.nodes.append(node)
        return out

    def model(self, program: Program, types: Mapping[Name, np.dtype[Any]], outputs: Sequence[Name]) -> ModelProto:
        """The model; `types` of the program's inputs and of `outputs`, those without are shapes."""
        read = {i for node in self.nodes for i in node.input}
        consts = {**{n: a for n, a in program.consts.items() if n in read}, **self.consts}
        infos = [
            [
                helper.make_tensor_value_info(n, _element(types.get(n, np.dtype(np.int64))), program.shapes.get(n))
                for n in names
            ]
            for names in (program.inputs, outputs)
        ]
        initializers = [numpy_helper.from_array(np.asarray(a), n) for n, a in consts.items()]
        graph = helper.make_graph(self.nodes, program.name, infos[0], infos[1], initializers)
        return model_proto(graph, OPSET, {"com.microsoft": 1} if any(n.domain for n in self.nodes) else {})


def _element(dtype: np.dtype[Any]) -> int:
    return int(helper.np_dtype_to_tensor_dtype(dtype))


def zero_point(program: Program, name: Name) -> int:
    """The integer that stands for zero."""
    return int(program.grids[name].zero_point)


def along(values: Array, axis: int, rank: int) -> Array:
    """`()` or `(C,)` values against a tensor of this rank; one value alone is a scalar.

    Example:
        >>> along(np.arange(2), 1, 3).shape, along(np.arange(1), 1, 3).shape
        ((2, 1), ())
    """
    values = np.asarray(values)
    if values.size == 1:
        return values.reshape(())
    shape = along_axis(values, axis, rank).shape
    first = next(k for k, n in enumerate(shape) if n > 1)
    return values.reshape(shape[first:])


def rank_of(program: Program, step: Step) -> int:
    """Number of dimensions of what the step writes.

    Raises:
        EquintError: the program does not say.
    """
    if step.op in ("Conv", "ConvTranspose"):
        return int(step.arrays["weight"].ndim)
    return len(shape_of(program, step, step.outputs[0]))


def shape_of(program: Program, step: Step, name: Name) -> Sequence[Any]:
    """The shape of a tensor that the step reads or writes.

    Raises:
        EquintError: it is not known.
    """
    if name not in program.shapes:
        raise EquintError(
            f"{step.name}: the shape of {name} is not known; infer the network's shapes before lowering it"
        )
    return program.shapes[name]


def channels_of(program: Program, step: Step, name: Name) -> int:
    """Size of axis 1 of a tensor that the step reads or writes.

    Raises:
        EquintError: it is not known.
    """
    shape = shape_of(program, step, name)
    if len(shape) < 2 or not isinstance(shape[1], int):
        raise EquintError(f"{step.name}: the number of channels of {name} is not known; give the network fixed shapes")
    return shape[1]
