"""What the taps of a layer's weights meet: which input value at which output position."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..ir.model import Array, Node
from ..ir.weights import Layer

OUTSIDE = -1
"""A tap that meets padding, or what strides leave empty."""


def met(node: Node, axis: int, taps: int, size: int) -> Array:
    """The input position that tap k of a Conv or ConvTranspose meets at output position y, along a spatial axis.

    `(Y, K)` integers, OUTSIDE where it is none. For Conv the position is stride·y + dilation·k − pad, for
    ConvTranspose (y + pad − dilation·k)/stride where that is whole.

    Args:
        axis: 0 is the first spatial one. taps, size: K, and the input's size.

    Example:
        >>> met(Node("Conv", ("x", "w"), ("y",), {"pads": [1, 1]}), 0, 3, 3).tolist()
        [[-1, 0, 1], [0, 1, 2], [1, 2, -1]]
        >>> met(Node("ConvTranspose", ("x", "w"), ("y",), {"strides": [2]}), 0, 3, 2).tolist()
        [[0, -1, -1], [-1, 0, -1], [1, -1, 0], [-1, 1, -1], [-1, -1, 1]]
    """
    stride, offsets, outputs = geometry(node, axis, taps, size)
    at = np.arange(outputs)[:, None]
    if node.op == "ConvTranspose":
        position, rest = np.divmod(at - offsets, stride)
        position = np.where(rest == 0, position, OUTSIDE)
    else:
        position = at * stride + offsets
    return np.where((position >= 0) & (position < size), position, OUTSIDE)


def share_met(node: Node, axis: int, taps: int, size: int) -> Array:
    """The share of output positions at which each tap meets the input, `(K,)`: counted without a table of all.

    Tap k meets the input where 0 ≤ stride·i + offset_k < m for an i < n: of n outputs the positions in m inputs, for
    ConvTranspose of n inputs those in m outputs.

    Example:
        >>> share_met(Node("Conv", ("x", "w"), ("y",), {"pads": [1, 1]}), 0, 3, 4).tolist()
        [0.75, 1.0, 0.75]
        >>> share_met(Node("ConvTranspose", ("x", "w"), ("y",), {"strides": [2]}), 0, 3, 2).tolist()
        [0.4, 0.4, 0.4]
    """
    stride, offsets, outputs = geometry(node, axis, taps, size)
    n, m = (size, outputs) if node.op == "ConvTranspose" else (outputs, size)
    first, last = np.maximum(-(offsets // stride), 0), np.minimum((m - 1 - offsets) // stride, n - 1)
    return np.asarray(np.maximum(last - first + 1, 0) / max(outputs, 1))


def geometry(node: Node, axis: int, taps: int, size: int) -> tuple[int, Array, int]:
    """Stride, offset dilation·k − pad of each tap, and number of output positions, along a spatial axis."""
    attrs, transposed = node.attrs, node.op == "ConvTranspose"
    stride, dilation = ((attrs.get(key) or {axis: 1})[axis] for key in ("strides", "dilations"))
    extra, asked = (attrs.get("output_padding") or {axis: 0})[axis], attrs.get("output_shape")
    span, auto, pads = (taps - 1) * dilation + 1, attrs.get("auto_pad", "NOTSET"), attrs.get("pads")
    before, after = (pads[axis], pads[len(pads) // 2 + axis]) if pads and auto != "VALID" else (0, 0)
    full = (size - 1) * stride + span + extra
    if auto in ("SAME_UPPER", "SAME_LOWER") or asked:
        spatial = asked[-len(attrs["kernel_shape"]) :] if asked and "kernel_shape" in attrs else asked
        wanted = spatial[axis] if spatial else size * stride
        total = full - wanted if transposed else max((-(-size // stride) - 1) * stride + span - size, 0)
        before = total // 2 if auto == "SAME_UPPER" else total - total // 2
        after = total - before
    outputs = full - before - after if transposed else (size + before + after - span) // stride + 1
    return stride, np.arange(taps) * dilation - before, outputs


class Windows:
    """What a layer's products read of inputs of one size, at each of its output positions.

    Patches are `(rows, G, n)`: n = I/G·K inputs and taps in the order of `Layer.unpack`, so that the layer's output at
    a row is Σ_n W_gon·patch_gn. Padding reads zero.

    Args:
        kernel: spatial sizes of the weight, `()` of a matrix product.
        sizes: spatial sizes of the layer's input, `(N, C, *sizes)` of a convolution.

    Example:
        >>> from .layers import layers, tiny_graph
        >>> x = np.arange(16.0).reshape(1, 1, 4, 4) * np.ones((1, 4, 1, 1))
        >>> windows = Windows(next(layers(tiny_graph())), (3, 3), (4, 4))
        >>> found = windows.patches(x, 99, np.random.default_rng(0))
        >>> found.shape, found[0, 0].tolist()  # the corner's neighbours
        ((16, 4, 9), [0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 4.0, 5.0])
        >>> bool(np.allclose(windows.mean(x), found.mean(0)))
        True
    """

    def __init__(self, layer: Layer, kernel: Sequence[int], sizes: Sequence[int]) -> None:
        self.layer, self.sizes, self.slides = layer, tuple(sizes), layer.node.op in ("Conv", "ConvTranspose")
        pairs = enumerate(zip(kernel, sizes, strict=True)) if self.slides else ()
        self.tables = [met(layer.node, d, k, size) for d, (k, size) in pairs]
        self.times = [_times(table, size) for table, size in zip(self.tables, sizes, strict=False)]

    def patches(self, x: Array, count: int, rng: np.random.Generator) -> Array:
        """Those at `count` positions, drawn at random, the same of every sample; all where there are no more."""
        if not self.slides:
            rows = np.moveaxis(x, self.layer.x_axis, -1)
            rows = rows.reshape(len(x) if x.ndim > 1 else 1, -1, rows.shape[-1])
            rows = rows if rows.shape[1] <= count else rows[:, _drawn(rows.shape[1], count, rng)]
            return rows.reshape(-1, 1, rows.shape[-1])
        places = [len(t) for t in self.tables]
        spots = np.unravel_index(_drawn(int(np.prod(places)), count, rng), places)
        index, inside = np.zeros((len(spots[0]), 1), np.int64), np.ones((len(spots[0]), 1), bool)
        for table, size, spot in zip(self.tables, self.sizes, spots, strict=True):
            at = table[spot]
            index = (index[:, :, None] * size + np.maximum(at, 0)[:, None, :]).reshape(len(at), -1)
            inside = (inside[:, :, None] & (at != OUTSIDE)[:, None, :]).reshape(len(at), -1)
        found = x.reshape(*x.shape[:2], -1)[:, :, index]  # (N, C, rows, K)
        if not inside.all():
            found *= inside
        return np.asarray(found.transpose(0, 2, 1, 3).reshape(len(x) * len(index), self.layer.groups, -1))

    def mean(self, x: Array) -> Array:
        """The mean of those at all positions of all samples: `(G, n)`."""
        if not self.slides:
            rows = np.moveaxis(x, self.layer.x_axis, -1)
            return np.asarray(rows.mean(tuple(range(rows.ndim - 1)), np.float64)[None, :])
        sums = x
        if all(len(times) == 1 and np.all(times == 1) for times in self.times):
            sums = x.reshape(*x.shape[:2], -1).sum(-1)
        else:
            for axis, times in reversed(list(enumerate(self.times, 2))):
                rows = np.moveaxis(sums, axis, -1)  # einsum adds in one order, whatever kernels of matrices there are
                sums = np.moveaxis(np.einsum("...s,ks->...k", rows, times.astype(x.dtype)), -1, axis)
        positions = len(x) * int(np.prod([len(t) for t in self.tables]))
        return np.asarray(sums.sum(0, np.float64).reshape(self.layer.groups, -1) / positions)


def _times(table: Array, size: int) -> Array:
    """How often each tap meets each of `size` input positions, `(K, size)`, of a table `(places, K)`."""
    met_at, tap = table != OUTSIDE, np.broadcast_to(np.arange(table.shape[1]), table.shape)
    times = np.zeros((table.shape[1], size), np.float32)
    np.add.at(times, (tap[met_at], table[met_at]), 1)
    return times


def _drawn(total: int, count: int, rng: np.random.Generator) -> Array:
    """`count` of `total` positions, none twice, in order; all where there are no more."""
    return np.arange(total) if total <= count else np.sort(rng.choice(total, count, replace=False))
