"""Models in the making from a Program: nodes, constants and fresh names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np
from onnx import ModelProto, helper, numpy_helper

from ..errors import UnsupportedOperator
from ..ir.model import Array, Name
from ..maths.quantized_multiplier import PLACES
from ..onnx.writer import model_proto
from .program import Program

Value = Name | Array | np.generic
"""What a node reads: a tensor by name, or a constant."""

OPSET = 18
_MOST = (1 << 63) - 1


class Maker:
    """Collects the nodes and constants of a model under names that nothing else has."""

    def __init__(self, taken: Sequence[Name]) -> None:
        self.taken = set(taken)
        self.nodes: list[Any] = []
        self.consts: dict[Name, Array] = {}
        self.opset = OPSET
        self._known: dict[tuple[str, bytes, tuple[int, ...]], Name] = {}
        self.bytes: dict[Name, list[tuple[int, Name, int]]] = {}  # of tensors that integer sums read, as their bytes

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
        out = to or self.fresh(f"{next((n for n in names if n), op)}_{op}")
        self.node(op, names, [out], domain=domain, **attrs)
        return out

    def node(self, op: str, inputs: Sequence[Name], outputs: Sequence[Name], domain: str = "", **attrs: Any) -> None:
        """One node whose tensors have names."""
        name = self.fresh(f"{outputs[0]}_{op}_node")
        self.nodes.append(helper.make_node(op, list(inputs), list(outputs), name, domain=domain or None, **attrs))

    def cast(self, x: Name, dtype: Any, to: Name = "") -> Name:
        """The value in another type."""
        out = to or self.fresh(f"{x}_{np.dtype(dtype)}")
        node = helper.make_node("Cast", [x], [out], self.fresh(f"{out}_node"), to=_element(np.dtype(dtype)))
        self.nodes.append(node)
        return out

    def total(self, terms: Sequence[Name]) -> Name:
        """The sum of tensors."""
        return reduce(lambda a, b: self.add("Add", a, b), terms)

    def rounded_shift(
        self, x: Name, right: Array, limit: Array, rounding: str, shaped: Callable[[Array], Array], label: str
    ) -> Name:
        """round(x / 2^right) of an int64 tensor, |x| ≤ limit; arrays hold Python's integers, `shaped` broadcasts them.

        Args:
            rounding: half_up, half_even, truncate; half_away from zero; double: half_up at 31 places, half_away behind.

        Raises:
            EquintError: 64 bits do not hold what is shifted.
        """
        if rounding == "double":
            first = np.asarray(np.array([min(int(e), PLACES) for e in right.ravel()], object).reshape(right.shape))
            x = self.rounded_shift(x, first, limit, "half_up", shaped, label)
            left = np.broadcast_arrays(
                limit // np.asarray([1 << int(e) for e in first.ravel()], object).reshape(first.shape) + 1
            )[0]
            return self.rounded_shift(x, right - first, left, "half_away", shaped, label)
        if rounding == "half_away":  # a tie below zero goes down: as if it lay a little lower
            below = self.cast(self.add("Less", x, np.int64(0)), np.int64)
            x = self.add("Sub", x, self.add("Mul", below, shaped((right > 0).astype(np.int64))))
            return self.rounded_shift(x, right, limit + 1, "half_up", shaped, label)
        one = np.asarray(np.array([1 << int(e) for e in right.ravel()], object).reshape(right.shape))
        half = one // 2 if rounding != "truncate" else one * 0
        count = -(-(limit + half) // one) + 1  # of steps that make everything positive
        if np.any(limit + half > _MOST):
            raise UnsupportedOperator(
                f"{label}: an accumulator times its mantissa does not fit into 64 bits; use a smaller mantissa"
            )
        whole = bool(np.all(limit + half + count * one <= _MOST))

        def shaped64(values: Array) -> Array:
            return shaped(np.asarray(values).astype(np.int64))

        def floor(value: Name) -> Name:
            if not whole:
                rest = self.add("Mod", value, shaped64(one))
                return self.add("Div", self.add("Sub", value, rest), shaped64(one))
            positive = self.cast(self.add("Add", value, shaped64(count * one)), np.uint64)
            shifted = self.add("BitShift", positive, shaped64(right).astype(np.uint64), direction="RIGHT")
            return self.add("Sub", self.cast(shifted, np.int64), shaped64(count))

        if rounding == "truncate":
            return floor(x)
        if rounding == "half_even":
            odd = self.add("Mod", floor(x), np.int64(2))
            return floor(self.add("Add", self.add("Add", x, odd), shaped64(half - 1)))
        return floor(self.add("Add", x, shaped64(half)))

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
        return model_proto(graph, self.opset, {"com.microsoft": 1} if any(n.domain for n in self.nodes) else {})


def _element(dtype: np.dtype[Any]) -> int:
    return int(helper.np_dtype_to_tensor_dtype(dtype))
