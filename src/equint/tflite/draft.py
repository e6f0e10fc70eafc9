"""An ONNX graph in the making, whose values know in which order they hold the axes of the file's tensors.

TFLite keeps channels last, ONNX first. Values are therefore converted as late as can be: each says which of the
tensor's axes its dimensions are, convolutions ask for channels first, most operators take what they are given and
count their axes in that order, and a Transpose is written only where somebody asks for another order than there is.
A TRANSPOSE of the file is no operator at all, but another name for the same value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..ir.model import Array, Name
from .content import Dims

Axes = tuple[int, ...]
"""Which axis of the file's tensor each dimension of an ONNX value is."""


def plain(rank: int) -> Axes:
    """The file's own order."""
    return tuple(range(rank))


def channels_first(rank: int) -> Axes:
    """The order in which ONNX's convolutions and pools want their input.

    Example:
        >>> channels_first(4)
        (0, 3, 1, 2)
    """
    return (0, rank - 1, *range(1, rank - 1)) if rank > 1 else plain(rank)


def without(axes: Axes, gone: Sequence[int]) -> Axes:
    """The order of what is left when some of the file's axes are dropped.

    Example:
        >>> without((0, 3, 1, 2), [1, 2])
        (0, 1)
    """
    left = sorted(set(axes) - set(gone))
    return tuple(left.index(axis) for axis in axes if axis not in gone)


def preferred(orders: Sequence[Axes]) -> int:
    """Which of some orders needs fewest Transposes later: channels first, else the file's, else the first."""
    for wanted in (channels_first, plain):
        for k, axes in enumerate(orders):
            if axes == wanted(len(axes)):
                return k
    return 0


@dataclass(frozen=True)
class Value:
    """A tensor of the file as an ONNX value.

    Attributes:
        axes: the tensor's axis that each of the value's dimensions is.
        dims: the tensor's sizes, in the file's order.
        data: what it holds where it is constant, in the file's order; it has no name then until it is placed.
    """

    name: Name
    axes: Axes
    dims: Dims
    dtype: str
    data: Array | None = None

    @property
    def rank(self) -> int:
        """How many axes it has."""
        return len(self.dims)

    def at(self, axis: int) -> int:
        """Which dimension of the value an axis of the tensor is, negative ones counted from the end."""
        return self.axes.index(axis % self.rank if self.rank else axis)


@dataclass(frozen=True)
class Drafted:
    """A node that is to be written."""

    op: str
    inputs: tuple[Name, ...]
    outputs: tuple[Name, ...]
    attrs: Mapping[str, Any]


class Draft:
    """Collects the nodes and constants of a graph under names that nothing else has.

    Attributes:
        made: names of what the operator at hand has made, which nothing outside of it has read yet.
    """

    def __init__(self, taken: set[Name] | None = None) -> None:
        self.taken: set[Name] = set() if taken is None else taken
        self.nodes: list[Drafted] = []
        self.made: set[Name] = set()
        self.consts: dict[Name, Array] = {}
        self._known: dict[tuple[str, tuple[int, ...], bytes], Name] = {}
        self._placed: dict[tuple[Name, Axes], Name] = {}

    def fresh(self, stem: str) -> Name:
        """A name that is not taken."""
        name, k = stem, 1
        while name in self.taken:
            name, k = f"{stem}_{k}", k + 1
        self.taken.add(name)
        return name

    def const(self, array: Any, stem: str) -> Name:
        """A constant, stored once however often it is used."""
        array = np.asarray(array)
        key = (str(array.dtype), array.shape, array.tobytes())
        if key not in self._known:
            self._known[key] = self.fresh(stem)
            self.consts[self._known[key]] = np.ascontiguousarray(array).reshape(array.shape)
        return self._known[key]

    def add(self, op: str, inputs: Sequence[Name], stem: str, count: int = 1, **attrs: Any) -> tuple[Name, ...]:
        """One node; returns its outputs, whose names begin with `stem`."""
        inputs = tuple(inputs)
        while inputs and not inputs[-1]:
            inputs = inputs[:-1]
        outputs = tuple(self.fresh(f"{stem}/{op}") for _ in range(count))
        self.nodes.append(Drafted(op, inputs, outputs, attrs))
        self.made.update(outputs)
        return outputs

    def placed(self, value: Value, axes: Axes, stem: str = "") -> Name:
        """The value with its dimensions in an order: a constant as it must be, others behind a Transpose if need be."""
        if value.data is not None:
            return self.const(value.data.transpose(axes), value.name)
        if value.axes == axes:
            return value.name
        key = (value.name, axes)
        if key not in self._placed:
            perm = [value.axes.index(axis) for axis in axes]
            self._placed[key] = self.add("Transpose", [value.name], stem or value.name, perm=perm)[0]
        return self._placed[key]

    def rename(self, old: Name, new: Name) -> None:
        """Another name for what the last nodes made and nothing but they have read."""
        self.made.discard(old)
        for k in range(len(self.nodes) - 1, -1, -1):
            node = self.nodes[k]
            self.nodes[k] = replace(
                node, inputs=_swapped(node.inputs, old, new), outputs=_swapped(node.outputs, old, new)
            )
            if old in node.outputs:
                return


def _swapped(names: Sequence[Name], old: Name, new: Name) -> tuple[Name, ...]:
    return tuple(new if name == old else name for name in names)


def onnx_type(dtype: str) -> int:
    """ONNX's number for one of NumPy's types."""
    from onnx import helper

    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
