"""How pictures are prepared for a network, as it remembers: in one of the few ways in which pixels are scaled."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ..ir.model import Array, Graph, Moments, Name
from ..ir.weights import Layer
from ..maths.pictures import MEAN, STD
from ..ops.attributes import is_batchnorm
from ..ops.layers import as_layer, bias_of
from ..ops.operator import Unknown
from ..ops.table import op_of
from .moments import propagate


@dataclass(frozen=True)
class Preparation:
    """Pixels scaled to a range, with the mean and spread that photographs have then.

    Example:
        >>> Preparation(-1.0, 1.0).mean.__round__(2), Preparation(0.0, 1.0).std.__round__(2)
        (-0.08, 0.27)
    """

    lo: float
    hi: float

    @property
    def mean(self) -> float:
        return self.lo + (self.hi - self.lo) * MEAN / 255

    @property
    def std(self) -> float:
        return (self.hi - self.lo) * STD / 255


UNIT, SIGNED, BYTES = Preparation(0.0, 1.0), Preparation(-1.0, 1.0), Preparation(0.0, 255.0)
NORMALISED = Preparation(-2.4, 2.8)
"""By the mean and spread of ImageNet (−2.1 to 2.6), CIFAR (−2.4 to 2.8) or others like them."""
PREPARATIONS = (UNIT, SIGNED, NORMALISED, BYTES)
FITS, CLEARLY = 1.2, 0.7
"""How far, in spreads and doublings, what a BatchNorm remembers may lie from what a preparation makes of photographs
(0.1 to 0.8 where it is the right one, of nine networks), and by how much any other must fit worse."""
ALIKE = -0.8
"""Correlation of biases with sums of weights at which a folded BatchNorm is what makes them: they take the input's mean
out (−0.73, −0.87 and −0.98 in networks that read pixels from 0 to 1). The mean so found must be that of pixels, too."""
NEAR = 1.5
"""How many times a mean so found may be off."""
SHARED = 0.85
"""Share of their variance that neighbouring pixels, and colours, of photographs have in common."""
LEAST_CHANNELS, DEAD = 8, 1e-3
"""Fewer channels tell nothing, nor do those that spread so much less than the others."""


def remembered(graph: Graph, name: Name) -> tuple[Preparation, str] | None:
    """The preparation that the first BatchNorm saw in training, or that the first layer's biases undo, and which does.

    Example:
        >>> from ..ir.model import Node
        >>> weight = np.random.default_rng(0).normal(size=(16, 3, 3, 3)) / 255
        >>> folded = {"w": weight, "b": -117 * weight.sum((1, 2, 3))}
        >>> graph = Graph((Node("Conv", ("x", "w", "b"), ("y",)),), folded, ("x",), ("y",), {"x": ("N", 3, 32, 32)})
        >>> remembered(graph, "x")
        (Preparation(lo=0.0, hi=255.0), "the first layer's biases")
    """
    found = _from_statistics(graph, name)
    if found is not None:
        return found, "the first BatchNorm"
    found = _from_biases(graph, name)
    return None if found is None else (found, "the first layer's biases")


def _from_statistics(graph: Graph, name: Name) -> Preparation | None:
    """The preparation for which the first BatchNorm would see what it saw, whatever lies before it.

    Distance: |Δ mean|/σ + |log2 σ'/σ|, medians over the channels.
    """
    at = next((k for k, node in enumerate(graph.nodes) if is_batchnorm(node)), None)
    if at is None:
        return None
    node, ahead = graph.nodes[at], replace(graph, nodes=graph.nodes[:at])
    mean, variance = (graph.constant(i) for i in node.inputs[3:5])
    if mean is None or variance is None:
        return None
    std, distance = np.sqrt(np.maximum(variance, 0)), dict[Preparation, float]()
    alive = std > DEAD * std.max()
    if not alive.any():
        return None
    for each in PREPARATIONS:
        shape = (1,) * len(graph.shapes[name])
        known = {name: Moments(np.full(shape, each.mean), np.full(shape, each.std), "given")}
        found = propagate(ahead, known).get(node.inputs[0])
        if found is None or found.mean.ndim < 2:
            return None
        channels = (1, len(std)) + (1,) * (found.mean.ndim - 2)
        m, s = (np.broadcast_to(a, channels).reshape(-1) for a in (found.mean, found.std))
        apart = np.abs(np.log2(np.median(np.maximum(s[alive] / std[alive], 1e-30))))
        distance[each] = float(np.median(np.abs(m - mean)[alive] / std[alive]) + apart)
    best, second = sorted(distance, key=lambda each: distance[each])[:2]
    return best if distance[best] < FITS and distance[second] > distance[best] + CLEARLY else None


def _from_biases(graph: Graph, name: Name) -> Preparation | None:
    """The preparation whose mean the first layer's biases take out: b ≈ −m·Σw where a BatchNorm was folded into it.

    That tells pixels from 0 on; what has no mean leaves no trace.
    """
    for layer in first_layers(graph, name):
        weight, bias = layer.unpack(graph.consts[layer.weight]).astype(np.float64), bias_of(graph, layer)
        total, power = weight.sum((-1, -2)).reshape(-1), np.square(weight).sum((-1, -2)).reshape(-1)
        if total.size < LEAST_CHANNELS or bias.size != total.size or not np.ptp(bias) or not np.ptp(total):
            return None
        if np.corrcoef(total, bias)[0, 1] > ALIKE:
            return None
        mean = -float(total @ bias / (total @ total))
        return next((each for each in (UNIT, BYTES) if _fits(each, mean, total, power)), None)
    return None


def _fits(each: Preparation, mean: float, total: Array, power: Array) -> bool:
    """Whether photographs so prepared have about that mean, and the layer would make about unit spread of them."""
    spread = each.std * float(np.median(np.sqrt((1 - SHARED) * power + SHARED * np.square(total))))
    return each.mean / NEAR < mean < each.mean * NEAR and 1 / 4 < spread < 4


def first_layers(graph: Graph, name: Name) -> Iterator[Layer]:
    """Layers that read an input as it is, or moved."""
    same = {name}
    for node in graph.nodes:
        layer, grid = as_layer(graph, node), op_of(node).grid
        if layer is not None and layer.x in same:
            yield layer
        elif layer is None and not isinstance(grid, Unknown) and grid.keeps and node.inputs[0] in same:
            same.update(node.outputs)
