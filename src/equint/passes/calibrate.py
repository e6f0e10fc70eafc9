"""Moments and ranges of all tensors as measured on images."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import numpy as np

from ..errors import EquintError
from ..images import Images
from ..maths import ranges as rules
from ..maths.gaussian import unclipped
from ..model import Event, Graph, Model, Moments, Name, QSpec, Range
from ..moments import propagate
from ..operators import clip_bounds
from ..placement import is_activation, place
from ..statistics import Histogram, Statistics, TensorStatistics
from . import Keeps, require

Rule = Literal["min-max", "image-percentile", "percentile", "mse", "n-sigma"]


@dataclass(frozen=True)
class Calibrate:
    """Show the network images, and keep what its tensors do: mean and spread, lowest and highest value per channel.

    The range of a tensor is its channels' extremes, cut where a rule says:

    - `min-max`: nowhere.
    - `image-percentile`: at the `percent` percentile of the images' lowest values and its mirror image for the
      highest (WES: 1 %).
    - `percentile`: `percent` per cent of all values lie beyond either end.
    - `mse`: the ends whose grid makes the least mean squared error.
    - `n-sigma`: mean ± n·std per channel.

    What stands between a layer and its ReLU or clip is never stored: its moments are those that BatchNorm knows, else
    those of the Gaussian that the activation turns into what was measured. Without images nothing is done.

    Attributes:
        images: what to show the network; statistics: what was measured before, in its place.
        activation: the grid that `mse` is for.
        progress: called with the number of images done, and 0: nobody knows how many there are.

    Raises:
        EquintError: statistics of another network, or without the histograms that the rule needs.

    Example:
        >>> from equint.layout import tiny_graph
        >>> model = Calibrate(images=Images.of(np.ones((2, 4, 4, 4), np.float32)))(Model(tiny_graph()))
        >>> model.moments["y"].source, float(model.ranges["y"].hi.max())
        ('calibration', 9.0)
    """

    keeps: ClassVar[Keeps] = Keeps.FLOATS

    rule: Rule = "min-max"
    percent: float = 1.0
    n: float = 6.0
    images: Images | None = None
    statistics: Statistics | None = None
    activation: QSpec | None = field(default_factory=lambda: QSpec(8, signed=False, symmetric=False))
    progress: Callable[[int, int], None] | None = None

    def __post_init__(self) -> None:
        require("percent", self.percent, 0 <= self.percent < 50, "0 to 50")
        require("n", self.n, 0 < self.n < math.inf, "a number above 0")

    def __call__(self, model: Model) -> Model:
        found = self.statistics
        if found is None:
            if self.images is None:
                return model.noted(Event("not calibrated", "", {"why": "no images given"}, "calibrate"))
            from ..runtime.calibrate import collect

            counted = self.rule in ("percentile", "mse")
            told = self.progress
            tell = None if told is None else lambda done: told(done, 0)
            found = collect(model.graph, self.images, histograms=counted, progress=tell)
        return self._applied(model, found)

    def _applied(self, model: Model, found: Statistics) -> Model:
        graph = model.graph
        table = {name: t for name, t in found.tensors.items() if name in graph.producer or name in graph.inputs}
        for name, t in table.items():
            shape = graph.shapes.get(name)
            if shape is None or len(shape) != t.rank or shape[t.axis] != t.low.size:
                raise EquintError(f"statistics of tensor {name} are of another network; calibrate this one")
        moments = {**model.moments, **{name: t.moments for name, t in table.items()}}
        ranges = {name: self._range(name, t) for name, t in table.items()}
        for name in graph.inputs:  # a card knows better than a few images how far an input reaches
            if name in model.moments and model.moments[name].source == "given":
                ranges[name] = model.ranges[name]
        moments |= _before_activations(graph, moments)
        facts = {"images": found.images, "tensors": len(table), "ranges": self.rule}
        event = Event("measured moments and ranges", "", facts, "calibrate")
        return replace(model, moments=propagate(graph, moments), ranges={**model.ranges, **ranges}).noted(event)

    def _range(self, name: Name, t: TensorStatistics) -> Range:
        low, high = t.low, t.high
        if self.rule == "n-sigma":
            m = t.moments
            low, high = (np.clip(e.reshape(-1), low, high) for e in rules.n_sigma(m.mean, m.std, self.n))
        elif self.rule == "image-percentile":
            share = self.percent / 100
            low = np.maximum(low, rules.quantile(t.lows.edges, t.lows.counts, share))
            high = np.minimum(high, rules.quantile(t.highs.edges, t.highs.counts, 1 - share))
        elif self.rule in ("percentile", "mse"):
            h = _counted(name, t)
            if self.rule == "percentile":
                lo, hi = rules.histogram_percentile(h.edges, h.counts, self.percent)
            else:
                lo, hi = rules.mse(h.edges, h.counts, self.activation or QSpec(8, signed=False, symmetric=False))
            low, high = np.maximum(low, lo), np.minimum(high, hi)
        return Range(t.field(low), t.field(np.maximum(low, high)))


def _counted(name: Name, t: TensorStatistics) -> Histogram:
    if t.values is None:
        raise EquintError(f"the statistics hold no histogram of tensor {name}; calibrate with histograms")
    return t.values


def _before_activations(graph: Graph, found: dict[Name, Moments]) -> dict[Name, Moments]:
    """Moments of what stands between layers and activations, from what the activations put out."""
    merged, inferred = place(graph).merged, dict[Name, Moments]()
    for node in reversed(graph.nodes):
        if not is_activation(graph, node) or node.inputs[0] not in merged:
            continue
        before, after = found.get(node.inputs[0]), inferred.get(node.outputs[0]) or found.get(node.outputs[0])
        lo, hi = clip_bounds(graph, node)
        if (before is not None and before.source == "batchnorm") or after is None or lo is None or hi is None:
            continue
        if after.source != "calibration":
            continue
        shape = np.broadcast_shapes(after.mean.shape, lo.shape, hi.shape)
        mean, std = (np.broadcast_to(a, shape) for a in (after.mean, after.std))
        inferred[node.inputs[0]] = Moments(*unclipped(mean, std, lo, hi), "calibration")
    return inferred
