"""Weight layouts: every weighted operator seen as (group, out, in, taps).

This is the only file that knows how Conv, ConvTranspose, Gemm and MatMul store their weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from .model import Array, Name, Node


@dataclass(frozen=True)
class Layer:
    """A weighted operator with constant weights.

    `x_axis`, `y_axis` are the channel axes of input and output; `order` says how the weight is stored.
    """

    node: Node
    x: Name
    weight: Name
    bias: Name | None
    y: Name
    groups: int
    order: str  # "oik" Conv, "iok" ConvTranspose, "io" / "oi" Gemm and MatMul
    x_axis: int
    y_axis: int

    @property
    def name(self) -> str:
        """How messages name the layer."""
        return self.node.label

    def unpack(self, weight: Array) -> Array:
        """The weight as `(G, O/G, I/G, K)`, a view where the storage order allows.

        Example:
            >>> from equint.ops.layers import layers, tiny_graph
            >>> layer = next(layers(tiny_graph()))
            >>> layer.unpack(np.zeros((4, 1, 3, 3))).shape
            (4, 1, 1, 9)
        """
        if self.order in ("oi", "io"):
            return (weight if self.order == "oi" else weight.T)[None, :, :, None]
        weight = weight if self.order == "oik" else swapped(weight, self.groups)
        return weight.reshape(self.groups, len(weight) // self.groups, weight.shape[1], prod(weight.shape[2:]))

    def pack(self, view: Array, shape: tuple[int, ...]) -> Array:
        """The inverse of `unpack`: back to the stored `shape`."""
        if self.order == "iok":
            return np.ascontiguousarray(swapped(view.reshape(-1, *view.shape[2:]), self.groups).reshape(shape))
        return np.ascontiguousarray(view[0, :, :, 0].T if self.order == "io" else view.reshape(shape))

    def out_axis(self) -> int | None:
        """The stored axis that holds output channels, where one axis does (None: grouped ConvTranspose)."""
        if self.order == "iok":
            return 1 if self.groups == 1 else None
        return {"oik": 0, "oi": 0, "io": 1}[self.order]

    @property
    def weight_first(self) -> bool:
        """Whether it is a MatMul W·x: its channels lie along the last but one axis."""
        return self.x_axis == -2

    def shaped_bias(self, values: Array) -> Array:
        """`(O,)` values as the operator adds them: a column behind a MatMul whose weight comes first."""
        return values.reshape(-1, 1) if self.weight_first else values

    def channels(self, weight: Array) -> tuple[int, int]:
        """(input channels, output channels)."""
        g, o, i, _ = self.unpack(weight).shape
        return g * i, g * o


def swapped(weight: Array, groups: int) -> Array:
    """ConvTranspose's weight `(I, O/G, *k)` in Conv's order `(O, I/G, *k)`, or the other way round.

    Example:
        >>> swapped(np.array([[1, 2], [3, 4]]), 1).tolist(), swapped(np.array([[1, 2], [3, 4]]), 2).tolist()
        ([[1, 3], [2, 4]], [[1], [2], [3], [4]])
    """
    split = weight.reshape(groups, len(weight) // groups, *weight.shape[1:])
    return np.swapaxes(split, 1, 2).reshape(groups * weight.shape[1], *split.shape[1:2], *weight.shape[2:])


def as_rows(weight: Array, axis: int) -> Array:
    """A weight as `(O, n)`, its output channels being along `axis`."""
    return np.ascontiguousarray(np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1))
