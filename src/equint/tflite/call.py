"""One operator of a file while it is converted, and the table of those that can be."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from ..errors import UnsupportedOperator
from ..ir.model import Array, Name
from .content import Operator
from .draft import Axes, Draft, Value, onnx_type, plain
from .scope import Scope

CONVERSIONS: dict[str, Callable[[Call], None]] = {}
"""How each operator that is read becomes ONNX, by its name in the schema."""


def reads(*kinds: str) -> Callable[[Callable[[Call], None]], Callable[[Call], None]]:
    """Enters a conversion in the table."""

    def entered(convert: Callable[[Call], None]) -> Callable[[Call], None]:
        CONVERSIONS.update(dict.fromkeys(kinds, convert))
        return convert

    return entered


ACTIVATIONS: dict[str, tuple[str, tuple[float | None, float | None]]] = {
    "RELU": ("Relu", (None, None)),
    "RELU6": ("Clip", (0.0, 6.0)),
    "RELU_N1_TO_1": ("Clip", (-1.0, 1.0)),
    "RELU_0_TO_1": ("Clip", (0.0, 1.0)),
    "TANH": ("Tanh", (None, None)),
}
"""What may be fused to an operator, or stand alone: ONNX's operator and its bounds."""


@dataclass(frozen=True)
class Call:
    """One operator, its operands, and the graph that its conversion is written into."""

    operator: Operator
    scope: Scope

    @property
    def draft(self) -> Draft:
        """The graph in the making."""
        return self.scope.draft

    @property
    def stem(self) -> Name:
        """What names of values within this conversion begin with: the operator's output."""
        made = [i for i in self.operator.outputs if i >= 0]
        return self.scope.names[made[0]] if made else "without an output"

    @property
    def count(self) -> int:
        """How many operands there are."""
        return len(self.operator.inputs)

    def option(self, name: str, default: Any = None) -> Any:
        """An option; `default` where the operator has no table of options."""
        return self.operator.options.get(name, default)

    def has(self, k: int) -> bool:
        """Whether an operand is there."""
        return k < self.count and self.operator.inputs[k] >= 0

    def value(self, k: int) -> Value:
        """An operand."""
        if not self.has(k):
            self.refuse(f"lacks operand {k}")
        return self.scope.value(self.operator.inputs[k])

    def values(self) -> list[Value]:
        """All operands."""
        return [self.value(k) for k in range(self.count)]

    def data(self, k: int) -> Array:
        """An operand that must be constant."""
        value = self.value(k)
        if value.data is None:
            self.refuse(f"computes its operand {k} ({value.name}), which must be constant")
        return value.data

    def ints(self, k: int) -> list[int]:
        """Whole numbers that must be constant."""
        return [int(n) for n in np.asarray(self.data(k)).reshape(-1)]

    def axis(self, axis: int, rank: int) -> int:
        """An axis counted from the front."""
        if not -rank <= axis < rank:
            self.refuse(f"has axis {axis} of a tensor with {rank} axes")
        return axis % rank

    def dims(self, k: int = 0) -> tuple[int | None, ...]:
        """The sizes of an output, as the file tells them."""
        return self.scope.graph.tensors[self.operator.outputs[k]].dims

    def plain(self, k: int) -> Name:
        """An operand in the file's order of axes."""
        value = self.value(k)
        return self.placed(value, plain(value.rank))

    def placed(self, value: Value, axes: Axes) -> Name:
        """A value in an order of axes."""
        if sorted(axes) != list(range(value.rank)):
            self.refuse(f"takes {value.name} with {value.rank} axes")
        return self.draft.placed(value, axes)

    def own(self, value: Value) -> Name:
        """A value in the order in which it lies."""
        return self.placed(value, value.axes)

    def add(self, op: str, *inputs: Name, **attrs: Any) -> Name:
        """One node with one output."""
        return self.draft.add(op, inputs, self.stem, **attrs)[0]

    def const(self, array: Any, what: str, dtype: Any = np.int64) -> Name:
        """A constant of the conversion's own."""
        return self.draft.const(np.asarray(array, dtype), f"{self.stem}/{what}")

    def cast(self, name: Name, dtype: str) -> Name:
        """A value in another type, "int64" for shapes and indices."""
        return self.add("Cast", name, to=onnx_type(dtype))

    def indices(self, k: int) -> Name:
        """An operand of whole numbers as ONNX wants them, 64 bits long."""
        value = self.value(k)
        if value.data is not None:
            return self.const(value.data, value.name.rpartition("/")[2])
        return self.plain(k) if value.dtype == "int64" else self.cast(self.plain(k), "int64")

    def give(self, name: Name, axes: Axes | None = None, k: int = 0) -> None:
        """An output is ready, but for the activation that is fused to the operator; `axes`: the file's order."""
        index = self.operator.outputs[k]
        tensor = self.scope.graph.tensors[index]
        fused = self.option("fused_activation_function", "NONE")
        if fused != "NONE":
            name = self.activated(fused, name)
        axes = plain(len(tensor.dims)) if axes is None else axes
        if sorted(axes) != list(range(len(tensor.dims))):
            self.refuse(f"makes {len(axes)} axes, and its output {tensor.name} has {len(tensor.dims)}")
        own = self.scope.names[index]
        late = index in self.scope.graph.outputs and axes != plain(len(axes))
        if name in self.draft.made and not late:
            self.draft.rename(name, own)
            name = own
        self.scope.known[index] = Value(name, axes, tensor.dims, tensor.dtype)

    def same(self, value: Value, axes: Axes, k: int = 0) -> None:
        """An output is an operand by another name, its axes perhaps in another order."""
        index = self.operator.outputs[k]
        tensor = self.scope.graph.tensors[index]
        if len(axes) != len(tensor.dims):
            self.refuse(f"makes {len(axes)} axes, and its output {tensor.name} has {len(tensor.dims)}")
        self.scope.known[index] = Value(value.name, axes, tensor.dims, tensor.dtype)

    def give_data(self, data: Array, k: int = 0) -> None:
        """An output is constant."""
        index = self.operator.outputs[k]
        data = np.asarray(data, self.scope.graph.tensors[index].dtype)
        self.scope.known[index] = Value(self.scope.names[index], plain(data.ndim), data.shape, str(data.dtype), data)

    def activated(self, kind: str, name: Name, dtype: Any = np.float32) -> Name:
        """A value behind an activation."""
        if kind not in ACTIVATIONS:
            self.refuse(f"has the activation {kind}, which is not read")
        op, bounds = ACTIVATIONS[kind]
        return self.add(op, name, *(self.const(b, kind.lower(), dtype) for b in bounds if b is not None))

    def refuse(self, why: str) -> NoReturn:
        """Says what cannot be read, and where.

        Raises:
            UnsupportedOperator: always.
        """
        number, kind = self.operator.number, self.operator.kind
        raise UnsupportedOperator(f"{self.scope.label}: operator {number}, {kind} ({self.stem}), {why}")


def broadcast(call: Call, values: Iterable[Value]) -> tuple[list[Name], Axes]:
    """Operands that are to be broadcast, in one order of axes: that of a computed one of full rank.

    An operand of fewer axes is given more of size 1 in front; one of a single value is left as it is.
    """
    values = list(values)
    rank = max(value.rank for value in values)
    full = [value for value in values if value.rank == rank and value.data is None]
    axes = next((v.axes for v in full if v.axes != plain(rank)), plain(rank))
    return [_spread(call, value, axes) for value in values], axes


def _spread(call: Call, value: Value, axes: Axes) -> Name:
    rank, missing = len(axes), len(axes) - value.rank
    if value.data is not None:
        if value.data.size == 1:
            return call.draft.const(value.data.reshape(()), value.name)
        raised = value.data if axes == plain(rank) else value.data.reshape((1,) * missing + value.data.shape)
        return call.draft.const(raised if axes == plain(rank) else raised.transpose(axes), value.name)
    if not missing:
        return call.placed(value, axes)
    if all(n == 1 for n in value.dims) or axes == plain(rank):
        return call.placed(value, plain(value.rank))
    raised_name = call.add("Unsqueeze", call.placed(value, plain(value.rank)), call.const(range(missing), "axes"))
    return call.placed(Value(raised_name, plain(rank), (1,) * missing + value.dims, value.dtype), axes)
