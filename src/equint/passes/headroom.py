"""Headroom: what was measured on few samples is exceeded by others."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ..ir.events import Event, EventKind
from ..ir.model import Graph, Model, Name, Range
from ..ops.activations import is_clamp
from ..ops.attributes import clip_bounds
from . import Keeps, Stage, require


@dataclass(frozen=True)
class Headroom:
    """Widen measured ranges of activations by what more samples are expected to add.

    Each end moves by `doublings` times what the last doubling of samples moved it: of tensors whose extremes have
    exponential tails every doubling adds as much (`maths/ranges.last_doubling`). Inputs of the network, and ends that a
    clip holds, stay. Ranges that were not measured on images stay.

    Attributes:
        doublings: times that there are twice as many samples.

    Example:
        >>> from equint.ops.layers import tiny_graph
        >>> model = Model(tiny_graph(), ranges={"y": Range(np.zeros(()), np.array(8.0))}, growth={"y": (0.0, 0.125)})
        >>> float(Headroom(2.0)(model).ranges["y"].hi)
        10.0
    """

    keeps: ClassVar[Keeps] = Keeps.FLOATS
    stage: ClassVar[Stage] = Stage.BEFORE

    doublings: float = 2.0

    def __post_init__(self) -> None:
        require("doublings", self.doublings, 0 < self.doublings < math.inf, "a number above 0")

    def __call__(self, model: Model) -> Model:
        grown = {n: g for n, g in model.growth.items() if n in model.ranges and n not in model.graph.inputs and any(g)}
        wider = {name: self._widened(model.graph, name, model.ranges[name], *grown[name]) for name in grown}
        if not wider:
            why = {"why": "no range was measured on images, or none that more would widen"}
            return model.noted(Event(EventKind.NO_HEADROOM, "", why, "headroom"))
        facts = {
            "tensors": len(wider),
            "doublings": self.doublings,
            "mean growth": float(np.mean([max(g) for g in grown.values()])),
        }
        result = replace(model, ranges={**model.ranges, **wider})
        return result.noted(Event(EventKind.HEADROOM, "", facts, "headroom"))

    def _widened(self, graph: Graph, name: Name, known: Range, low: float, high: float) -> Range:
        lo, hi = known.lo * (1 + self.doublings * low), known.hi * (1 + self.doublings * high)
        node = graph.producer.get(name)
        least, most = clip_bounds(graph, node) if node is not None and is_clamp(graph, node) else (None, None)
        if least is not None and most is not None:
            lo, hi = np.maximum(lo, np.minimum(least, known.lo)), np.minimum(hi, np.maximum(most, known.hi))
        return Range(np.asarray(lo), np.asarray(hi))
