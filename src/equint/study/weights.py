"""How well every layer's channels share the grid of its weight, and what rounding to it costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..ir.model import Array, Model, Name
from ..ir.weights import Layer
from ..maths.affine import fake_quantize
from ..maths.scales import overlap_ratio
from ..ops.layers import layers

Kind = Literal["depthwise", "pointwise", "other"]


@dataclass(frozen=True)
class WeightFit:
    """One layer's weight on its grid.

    Attributes:
        overlap: eq. 9 of Oh et al. (2020), of the weights as the grid sees them: w_i·2^S_i where channels are shifted.
        error: φ = mean (w − w*)², w* the rounded weights in their own units (Algorithm 1, line 12).
        signal: mean w².
    """

    layer: Name
    kind: Kind
    channels: int
    weights: int
    overlap: float
    error: float
    signal: float


def kind_of(layer: Layer, weight: Array) -> Kind:
    """Depthwise, pointwise (one tap, all channels: dense layers too), or other."""
    groups, _, inputs, taps = layer.unpack(weight).shape
    if groups > 1:
        return "depthwise" if inputs == 1 else "other"
    return "pointwise" if taps == 1 else "other"


def channel_ends(layer: Layer, weight: Array, shift: Array | None = None) -> tuple[Array, Array]:
    """(lowest, highest) weight of every output channel, times 2^shift: `(O,)` each."""
    rows = by_channel(layer, weight)
    lo, hi = rows.min(1), rows.max(1)
    return (lo, hi) if shift is None else (np.ldexp(lo, shift), np.ldexp(hi, shift))


def by_channel(layer: Layer, weight: Array) -> Array:
    """Weights as `(O, n)`: a row for every output channel."""
    view = layer.unpack(weight)
    return view.reshape(view.shape[0] * view.shape[1], -1)


def weight_fits(model: Model) -> Iterator[WeightFit]:
    """Every layer whose weight has a grid, in topological order."""
    for layer in layers(model.graph):
        grid = model.qparams.get(layer.weight)
        if grid is None:
            continue
        weight = model.graph.consts[layer.weight]
        lo, hi = channel_ends(layer, weight, grid.shift)
        error, signal = (
            float(np.mean(np.square(values, dtype=np.float64)))
            for values in (fake_quantize(weight, grid) - weight, weight)
        )
        kind = kind_of(layer, weight)
        yield WeightFit(layer.name, kind, lo.size, weight.size, overlap_ratio(lo, hi), error, signal)


def mean_of(fits: Sequence[WeightFit]) -> tuple[float, float]:
    """(overlap ratio, φ) of a network: means over its layers."""
    return float(np.mean([f.overlap for f in fits])), float(np.mean([f.error for f in fits]))
