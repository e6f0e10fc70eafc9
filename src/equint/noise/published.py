"""Noise of every layer as Meller et al. (2019) predict it, from ranges and energies alone: equations 5 to 9.

Unlike `noise/prediction.py`, nothing is known here of the rounding errors that were made, of signs, of what an
activation blocks, or of padding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..graph.placement import stored_as
from ..ir.fields import channel_means
from ..ir.model import Array, Model, Name, QParams
from ..ir.weights import Layer
from ..maths.two_layers import passed_on, sqnr, uniform_noise, weight_noise
from ..ops.layers import layers


@dataclass(frozen=True)
class PublishedSqnr:
    """SQNR of one layer, as ratios of powers; None where something is not quantized, or its moments are not known.

    Attributes:
        weights: at the layer's output Y, of its rounded weights (eq. 5, line 1; eq. 7, line 3).
        output: of its rounded output, behind its activation (eq. 5, line 2).
        y1: of both, behind its activation (eq. 9, SQNR_Y1).
        input: at Y, of its rounded input (eq. 7, line 2).
        earlier: at Y, of the rounded weights of the layer before it (eq. 7, line 1).
        y2: at Y, of those weights, its input and its own weights (eq. 9, SQNR_Y2).
    """

    weights: float | None = None
    output: float | None = None
    y1: float | None = None
    input: float | None = None
    earlier: float | None = None
    y2: float | None = None


def published(reference: Model, quantized: Model) -> dict[Name, PublishedSqnr]:
    """Equations 5 to 9 for every layer, by the name of its output.

    Errors are uniform over the range of each grid; where channels were rescaled, over that of the rescaled tensor, and
    signal and noise are counted in the float network's units. E{X²} of a group of channels is that group's own.

    Args:
        reference: the float network, with moments.
        quantized: the same network with grids; its channels may be rescaled.

    Example:
        >>> from equint.ir.model import Moments
        >>> from equint.ops.layers import tiny_graph
        >>> from equint.passes.quantize import Quantize
        >>> one = np.ones((1, 4, 1, 1))
        >>> model = Model(tiny_graph(), {"x": Moments(0 * one, one), "y": Moments(0 * one, 3 * one)})
        >>> found = published(model, Quantize()(model))["y"].weights  # 9/(9·E{ΔW²}), ΔW being up to 255/256/254
        >>> round(float(found) * (255 / 256 / 127) ** 2 / 12, 3)
        1.0
    """
    own, found = {layer.y: layer for layer in layers(quantized.graph)}, dict[Name, PublishedSqnr]()
    before = dict[Name, float]()
    for layer in layers(reference.graph):
        if layer.y in own:
            at = _At(reference, quantized, layer, own[layer.y])
            found[layer.y] = at.sqnr(before)
            if at.weights is not None:
                before[at.stored] = float(np.mean(at.weights))
    return found


class _At:
    """One layer of both networks; noises are variances in the quantized network's units, `(G, O)`."""

    def __init__(self, reference: Model, quantized: Model, layer: Layer, own: Layer) -> None:
        self.reference, self.quantized, self.layer = reference, quantized, layer
        self.weight = own.unpack(quantized.graph.consts[own.weight]).astype(np.float64)
        self.shape, self.stored = self.weight.shape[:2], stored_as(reference.graph, layer.y)
        self.leaves = self._scale(layer.y, layer.y_axis, self.shape[0] * self.shape[1]).reshape(self.shape)
        self.weights = self._weights(quantized.qparams.get(own.weight))

    def sqnr(self, before: Mapping[Name, float]) -> PublishedSqnr:
        """All of it; `before` holds the noise of rounded weights in each tensor that is stored."""
        signal, kept = self._energy(self.layer.y), self._energy(self.stored)
        rows = self.weight.reshape(self.shape[0] * self.shape[1], -1)
        grid, x = self.quantized.qparams.get(self.stored), self.quantized.qparams.get(self.layer.x)
        weights = None if self.weights is None else self._leaving(self.weights)
        output = None if grid is None else self._stored(float(_error(grid)))
        entering = None if x is None else self._leaving(passed_on(rows, _error(x)))
        earlier = before.get(self.layer.x)
        earlier = None if earlier is None else self._leaving(passed_on(rows, earlier))
        return PublishedSqnr(
            weights=_ratio(signal, weights),
            output=_ratio(kept, output),
            y1=_ratio(kept, weights, output),
            input=_ratio(signal, entering),
            earlier=_ratio(signal, earlier),
            y2=_ratio(signal, earlier, entering, weights),
        )

    def _weights(self, grid: QParams | None) -> Array | None:
        moments = self.reference.moments.get(self.layer.x)
        if grid is None or moments is None:
            return None
        groups, _, inputs, taps = self.weight.shape
        scale = self._scale(self.layer.x, self.layer.x_axis, groups * inputs)
        power = np.square(moments.mean) + np.square(moments.std)
        energy = channel_means(power, self.layer.x_axis, groups * inputs) / np.square(scale)
        each = energy.reshape(groups, inputs).mean(1, keepdims=True)  # E{X²} of every group
        error = _error(grid)
        error = error.reshape(self.shape) if error.size > 1 else error.reshape(1, 1)
        return np.broadcast_to(weight_noise(taps, inputs, each, error), self.shape)

    def _leaving(self, noise: Array) -> float:
        """Mean over the layer's outputs, in the float network's units."""
        return float(np.mean(noise.reshape(self.shape) * np.square(self.leaves)))

    def _stored(self, noise: float) -> float:
        view = self.quantized.views.get(self.stored)
        return noise if view is None else noise * float(np.mean(np.square(view.scale)))

    def _scale(self, name: Name, axis: int, count: int) -> Array:
        view = self.quantized.views.get(name)
        return channel_means(np.ones(1) if view is None else view.scale, axis, count)

    def _energy(self, name: Name) -> float:
        """E{Y²}, 0 where it is not known."""
        moments = self.reference.moments.get(name)
        return 0.0 if moments is None else float(np.mean(np.square(moments.mean) + np.square(moments.std)))


def _error(grid: QParams) -> Array:
    """Variance of the rounding errors on a grid, its range being what it spans: `()` or `(C,)`."""
    return uniform_noise(grid.steps.astype(np.float64) * (grid.qmax - grid.qmin), grid.bits)


def _ratio(signal: float, *noises: float | None) -> float | None:
    known = [noise for noise in noises if noise is not None]
    return sqnr(signal, *known) if signal > 0 and len(known) == len(noises) and sum(known) > 0 else None
