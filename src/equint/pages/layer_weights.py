"""Every layer's weights, ready to be drawn: ranges of its channels before and after, and how its grid is used."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..ir.fields import channel_means
from ..ir.model import Array, Model, QParams
from ..ir.weights import Layer
from ..maths.affine import fake_quantize, quantize
from ..maths.scales import overlap_ratio
from ..ops.layers import layers
from ..study.weights import by_channel, kind_of

FULL = 32767
"""What a layer's largest magnitude becomes where ranges are packed."""
BINS = 256
"""Most bars of a histogram."""


def layer_weights(plain: Model, quantized: Model) -> Iterator[dict[str, Any]]:
    """A row for every layer of `quantized`, in topological order.

    Args:
        plain: the float network, its BatchNorms folded, with plain grids. quantized: what a recipe made of it.

    Returns:
        tensor (the layer's output), name, type, kind, shape, channels, weights (their number);
        ranges: least, median and largest weight of every output channel in `plain`, `packed` as `FULL`-ths of `peak`;
        grid (None without one): bits, first and last integer, zero points and steps (least and largest of each);
        integers: least, median (the lower of two) and largest integer of every channel, `packed`, counted from `first`;
        histogram: `counts` of integers, `width` to a bar from `first` on, and how many integers are `used`;
        shifts: of every channel, where it has some;
        overlap, error: what `overlap` and `error` say, before and after; None where nothing is known.
    """
    sources = {layer.y: layer for layer in layers(plain.graph)}
    for layer in layers(quantized.graph):
        before = sources.get(layer.y, layer)
        model = plain if layer.y in sources else quantized
        floats, weight = model.graph.consts[before.weight], quantized.graph.consts[layer.weight]
        first, grid = model.qparams.get(before.weight), quantized.qparams.get(layer.weight)
        channels, after = by_channel(before, floats), by_channel(layer, weight)
        peak = float(np.abs(channels).max(initial=0.0))
        yield {
            "tensor": layer.y,
            "name": layer.name,
            "type": type_of(layer, weight),
            "kind": kind_of(layer, weight),
            "shape": list(weight.shape),
            "channels": len(channels),
            "weights": int(weight.size),
            "ranges": {"packed": packed(np.rint(ends(channels) * (FULL / (peak or 1.0)))), "peak": peak},
            "overlap": [None if q is None else overlap(w, q) for w, q in ((channels, first), (after, grid))],
            "error": [
                None if q is None else error(before, floats, in_float_units(m, own))
                for m, own, q in ((plain, before, first), (quantized, layer, grid))
            ],
            **({"grid": None} if grid is None else _on_grid(layer, weight, grid)),
        }


def type_of(layer: Layer, weight: Array) -> str:
    """What kind of layer it is, for people."""
    if weight.ndim == 2:
        return "dense"
    size = "×".join(map(str, weight.shape[2:]))
    kind = kind_of(layer, weight)
    word = "depthwise" if kind == "depthwise" else "grouped" if layer.groups > 1 else "conv"
    return f"{'transposed ' if layer.order == 'iok' else ''}{word} {size}"


def ends(channels: Array, lower: bool = False) -> Array:
    """Least, median (or the lower of two) and largest value of every row: `(O, 3)`."""
    if not channels.shape[1]:
        return np.zeros((len(channels), 3))
    place = (channels.shape[1] - 1) // 2
    middle = np.partition(channels, place, 1)[:, place] if lower else np.median(channels, 1)
    return np.stack([channels.min(1), middle, channels.max(1)], 1)


def overlap(channels: Array, grid: QParams) -> float:
    """Overlap ratio (WES, eq. 9) of weights `(O, n)` as their grid sees them: in steps, shifts included.

    Example:
        >>> grid = QParams(np.float32(0.5), np.int32(0), axis=0, shift=np.array([0, 1]))
        >>> overlap(np.array([[-1.0, 1.0], [-0.5, 0.5]]), grid)
        1.0
    """
    steps = np.reshape(grid.steps, (-1, 1))
    return overlap_ratio(*np.moveaxis(ends(channels / steps)[:, [0, 2]], 1, 0))


def error(layer: Layer, floats: Array, became: Array) -> float:
    """How far weights are from the float ones on average over output channels: mean √(Σ(w* − w)²/Σw²).

    Each channel is measured by its own size, so that channels of small weights, which suffer first, count as much as
    others. Channels that are all zero are left out. What became of the float weights is laid out as by `layer.unpack`.

    Example:
        >>> from ..ops.layers import tiny_graph
        >>> layer, ones = next(layers(tiny_graph())), np.ones((4, 1, 3, 3))
        >>> error(layer, ones, layer.unpack(ones * np.reshape([1.0, 1.0, 1.5, 0.5], (4, 1, 1, 1))))
        0.25
    """
    w = layer.unpack(floats).astype(np.float64)
    power, off = (np.sum(np.square(a), (-1, -2)).ravel() for a in (w, became - w))
    live = power > 0
    return float(np.mean(np.sqrt(off[live] / power[live]))) if live.any() else 0.0


def in_float_units(model: Model, layer: Layer) -> Array:
    """A layer's rounded weight in the units of the network that was read, as `layer.unpack` has it."""
    weight = model.graph.consts[layer.weight]
    view = layer.unpack(fake_quantize(weight, model.qparams[layer.weight])).astype(np.float64)
    g, o, i, _ = view.shape
    y_scale, x_scale = (model.views[n].scale if n in model.views else np.ones(1) for n in (layer.y, layer.x))
    leaves = channel_means(y_scale, layer.y_axis, g * o).reshape(g, o, 1, 1)
    enters = channel_means(x_scale, layer.x_axis, g * i).reshape(g, 1, i, 1)
    return np.asarray(view * (leaves / enters))


def _on_grid(layer: Layer, weight: Array, grid: QParams) -> dict[str, Any]:
    above = by_channel(layer, quantize(weight, grid)) - grid.qmin
    width = max(1, (grid.qmax - grid.qmin + 1) // BINS)
    counts = np.bincount(above.ravel(), minlength=grid.qmax - grid.qmin + 1)
    zeros = [int(np.min(grid.zero_point)), int(np.max(grid.zero_point))]
    steps = [float(np.min(grid.steps)), float(np.max(grid.steps))]
    found: dict[str, Any] = {
        "grid": {"bits": grid.bits, "first": grid.qmin, "last": grid.qmax, "zeros": zeros, "steps": steps},
        "integers": packed(ends(above, lower=True)),
        "histogram": {
            "width": width,
            "counts": np.add.reduceat(counts, np.arange(0, counts.size, width)).tolist(),
            "used": int(np.count_nonzero(counts)),
        },
    }
    return found if grid.shift is None else {**found, "shifts": grid.shift.astype(int).tolist()}


def packed(values: Array) -> str:
    """Whole numbers of 16 bits as base64 of little-endian bytes, modulo 2^16.

    Example:
        >>> packed(np.array([[1, -1]]))
        'AQD//w=='
    """
    return b64encode(np.asarray(values).astype(np.int64).astype("<u2").tobytes()).decode()
