"""Headroom: what was measured on few samples is exceeded by others."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from ..ir.events import Event, EventKind
from ..ir.model import Graph, Growth, Model, Name, QSpec, Range
from ..maths.affine import choose_qparams
from ..maths.ranges import extent, least_noise_headroom
from ..noise.gains import gains
from ..noise.rounded import rounded_tensors
from ..ops.activations import is_clamp
from ..ops.attributes import clip_bounds
from . import Keeps, Need, Stage, needed, require

Rule = Literal["doublings", "least-noise"]
HORIZON = 64
"""Ranges need not hold more than so many samples would show, where that costs something."""
FREE = 0.05
"""Share of all activations' rounding noise that headroom may add beyond that: 0.2 dB."""
DIGITS = 9
"""Decimals of shares: what linear algebra's kernels add in another order is lost."""


@dataclass(frozen=True)
class Headroom:
    """Widen measured ranges of activations by what more samples are expected to add.

    Each end moves by `doublings` times what the last doubling of samples moved it: of tensors whose extremes have
    exponential tails every doubling adds as much (`maths/ranges.last_doubling`). Inputs of the network, and ends that a
    clip holds, stay. Ranges that were not measured on images stay.

    Attributes:
        doublings: times that there are twice as many samples.
        rule: `least-noise` takes instead, for each end, what makes the least mean squared error on new samples
            (`maths/ranges.least_noise_headroom`): much where a tensor has few values, as results and what is pooled,
            none where it has many. Where channels were scaled, each of them may be the one that exceeds its range. But
            no more than HORIZON samples would show, or what adds FREE of all rounding noise, as predicted. Where steps
            are powers of two, a range grows only if twice the step makes less noise.

    Example:
        >>> from equint.ops.layers import tiny_graph
        >>> known = Range(np.zeros(()), np.array(8.0))
        >>> model = Model(tiny_graph(), ranges={"y": known}, growth={"y": Growth(0.0, 0.125)})
        >>> float(Headroom(2.0)(model).ranges["y"].hi)
        10.0
    """

    keeps: ClassVar[Keeps] = Keeps.FLOATS
    stage: ClassVar[Stage] = Stage.BEFORE

    doublings: float = 2.0
    rule: Rule = "doublings"
    activation: QSpec | None = needed(Need.ACTIVATION, QSpec(8, signed=False, symmetric=False))

    def __post_init__(self) -> None:
        require("doublings", self.doublings, 0 < self.doublings < math.inf, "a number above 0")

    def __call__(self, model: Model) -> Model:
        open_ = {n: g for n, g in model.growth.items() if n in model.ranges and n not in model.graph.inputs}
        if self.rule == "doublings":
            moving = {n: g for n, g in open_.items() if not _full(model.ranges[n], self.activation)}
            shares = {n: (self.doublings * g.low, self.doublings * g.high) for n, g in moving.items()}
        else:
            shares = self._least_noise(model, open_)
        grown = {n: moved for n, moved in shares.items() if any(moved)}
        wider = {name: self._widened(model.graph, name, model.ranges[name], *moved) for name, moved in grown.items()}
        if not wider and self.rule == "least-noise":  # none is what serves best
            return model
        if not wider:
            why = {"why": "no range was measured on images, or none that more would widen"}
            return model.noted(Event(EventKind.NO_HEADROOM, "", why, "headroom"))
        facts = {
            "tensors": len(wider),
            **({"doublings": self.doublings} if self.rule == "doublings" else {"rule": self.rule}),
            "mean growth": float(np.mean([max(open_[n].low, open_[n].high) for n in grown])),
            "mean headroom": float(np.mean([max(moved) for moved in grown.values()])),
        }
        further = {n: _shown(g, self.doublings) if n in open_ else g for n, g in model.growth.items()}
        growth = further if self.rule == "doublings" else model.growth
        result = replace(model, ranges={**model.ranges, **wider}, growth=growth)
        return result.noted(Event(EventKind.HEADROOM, "", facts, "headroom"))

    def _least_noise(self, model: Model, known: Mapping[Name, Growth]) -> dict[Name, tuple[float, float]]:
        """By how much each end moves, as a share of it."""
        if self.activation is None:
            return {}
        steps = 2**self.activation.bits - 1
        if self.activation.power_of_two:
            return {n: _wanted_powers(model.ranges[n], g, self.activation) for n, g in known.items()}
        wanted = {name: _wanted(model, name, growth, steps) for name, growth in known.items()}
        wanted = {name: shares for name, shares in wanted.items() if any(shares)}
        free = _free(model, wanted.keys())

        def held(name: Name, share: float, doubled: float) -> float:
            shown = doubled * max(math.log2(HORIZON / (known[name].samples + 1)), 0.0)
            return min(share, max(shown, free.get(name, 0.0)))

        found = {n: (held(n, low, known[n].low), held(n, high, known[n].high)) for n, (low, high) in wanted.items()}
        return {n: (round(low, DIGITS), round(high, DIGITS)) for n, (low, high) in found.items()}

    def _widened(self, graph: Graph, name: Name, known: Range, low: float, high: float) -> Range:
        lo, hi = known.lo * (1 + low), known.hi * (1 + high)
        node = graph.producer.get(name)
        least, most = clip_bounds(graph, node) if node is not None and is_clamp(graph, node) else (None, None)
        if least is not None and most is not None:
            lo, hi = np.maximum(lo, np.minimum(least, known.lo)), np.minimum(hi, np.maximum(most, known.hi))
        return Range(np.asarray(lo), np.asarray(hi))


def _shown(growth: Growth, doublings: float) -> Growth:
    """The same for ranges that have grown as with so many doublings of samples."""
    low, high = (share / (1 + doublings * share) for share in (growth.low, growth.high))
    return growth._replace(low=low, high=high, samples=round(growth.samples * 2**doublings))


def _wanted(model: Model, name: Name, growth: Growth, steps: int) -> tuple[float, float]:
    """Shares of its ends by which a range grows for the least noise on new samples."""
    known, view = model.ranges[name], model.views.get(name)
    least, most = max(-float(known.lo.min()), 0.0), max(float(known.hi.max()), 0.0)
    even = view is None or bool(np.all(view.scale == view.scale.flat[0]))
    values = growth.values * (growth.channels if even else 1)

    def share(end: float, doubled: float) -> float:
        scale = doubled * end / math.log(2)
        return least_noise_headroom(least + most, scale, values, growth.samples, steps) / end if end else 0.0

    return share(least, growth.low), share(most, growth.high)


def _full(known: Range, spec: QSpec | None) -> bool:
    """Whether a range fills a grid whose step is a power of two: it was chosen so, and any headroom would double it."""
    if spec is None or not spec.power_of_two:
        return False
    grid = choose_qparams(known.lo.min(), known.hi.max(), spec)
    return bool(np.isclose(float(known.hi.max()), grid.hi, rtol=1e-5))


def _wanted_powers(known: Range, growth: Growth, spec: QSpec) -> tuple[float, float]:
    """Shares by which a range grows: where HORIZON samples would show more, and twice the step makes less noise."""
    lo, hi = float(known.lo.min()), float(known.hi.max())
    grid = choose_qparams(lo, hi, spec)
    values = growth.values * growth.channels
    further = max(math.log2(HORIZON / (growth.samples + 1)), 0.0)
    held = hi * (1 + further * growth.high) <= grid.hi and lo * (1 + further * growth.low) >= grid.lo
    if held or not values > 0:
        return 0.0, 0.0

    def noise(factor: float) -> float:
        ends = ((-lo, -factor * grid.lo, growth.low), (hi, factor * grid.hi, growth.high))
        lost = [_exceeding(end, room, doubled) for end, room, doubled in ends if end > 0]
        return (factor * float(grid.scale)) ** 2 / 12 + sum(lost) / ((growth.samples + 1) * values)

    if noise(2.0) >= noise(1.0):
        return 0.0, 0.0
    return (1.5 * grid.lo / lo - 1 if lo < 0 else 0.0), (1.5 * grid.hi / hi - 1 if hi > 0 else 0.0)


def _exceeding(end: float, room: float, doubled: float) -> float:
    """Mean square of what new samples have beyond a grid's end, where they exceed `end` (`least_noise_headroom`)."""
    scale, over = doubled * end / math.log(2), end - room
    if not scale > 0:
        return 0.0
    return over**2 + 2 * over * scale + 2 * scale**2 if over > 0 else 2 * scale**2 * math.exp(over / scale)


def _free(model: Model, wanted: Collection[Name]) -> dict[Name, float]:
    """Shares by which ranges can grow so that together they add FREE of all rounding noise; of those that want it."""
    made = dict[Name, float]()
    for tensor in rounded_tensors(model, gains(model.graph, model.moments)):
        if tensor.name in model.ranges:
            known = model.ranges[tensor.name]
            width = extent(float(known.lo.min()), float(known.hi.max()))
            made[tensor.name] = float(np.sum(tensor.scattered * tensor.active)) * width**2
    spare = FREE * sum(made.values()) / max(len(made.keys() & wanted), 1)
    return {name: math.sqrt(1 + spare / made[name]) - 1 for name in wanted if made.get(name, 0.0) > 0}
