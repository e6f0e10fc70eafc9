"""Cross-layer equalization on channel groups of any graph."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..graph.channels import Group, rescale, solve
from ..graph.cross_layer import DEAD, Sweeps, given_and_taken, reaches
from ..graph.gaps import gaps
from ..graph.weight_ranges import WeightRanges
from ..ir.events import Event, EventKind
from ..ir.model import Array, Model
from . import Keeps, Stage, require


@dataclass(frozen=True)
class Equalize:
    """Choose channel scales so that the weight ranges on both sides of every group meet.

    For a pair of layers this is DFQ's s = sqrt(r1/r2). A group with several producers or consumers (residual sums,
    concats, shared inputs) uses the geometric means of their ranges. Groups are swept forwards and backwards in turn
    until no scale moves by more than `tolerance` (relative to its group).

    With `activations` = λ, the giving range is r1^(1−λ)·a^λ, a being how far the channel's activations reach. With
    `stand_ins`, a channel whose weights are dead on one side counts its group's typical range there (else it keeps
    scale 1, as published). No scale leaves [1/max_scale, max_scale], and no channel is stretched until it reaches more
    than `reach_limit` times as far as the upper quartile of its tensor (0: off). With a finite `clip_reach`, channels
    that lie so many standard deviations below a bound that all share are scaled too: nearly the same function.
    """

    stage: ClassVar[Stage] = Stage.BEFORE

    activations: float = 0.0
    sweeps: int = 100
    tolerance: float = 1e-3
    max_scale: float = 1024.0
    reach_limit: float = 4.0
    clip_reach: float = math.inf
    stand_ins: bool = True

    def __post_init__(self) -> None:
        require("activations", self.activations, 0 <= self.activations <= 1, "0 to 1")
        require("sweeps", self.sweeps, self.sweeps >= 1, "1 or more")
        require("tolerance", self.tolerance, 0 < self.tolerance < math.inf, "a number above 0")
        require("max_scale", self.max_scale, 1 <= self.max_scale < math.inf, "1 or more")
        require("reach_limit", self.reach_limit, 0 <= self.reach_limit < math.inf, "0 (off) or more")
        require("clip_reach", self.clip_reach, self.clip_reach > 0, "above 0")

    @property
    def keeps(self) -> Keeps:
        """FUNCTION, or NEARLY where channels behind shared bounds are scaled."""
        return Keeps.FUNCTION if math.isinf(self.clip_reach) else Keeps.NEARLY

    def __call__(self, model: Model) -> Model:
        channels = solve(model, self.clip_reach)
        if not channels.groups:
            return model.noted(Event(EventKind.NOT_EQUALIZED, "", {"why": channels.why}, "equalize", warning=True))
        ranges = WeightRanges(model, channels, DEAD if self.stand_ins else 0.0)
        reach = reaches(model, channels)
        sweep = Sweeps(self.activations, self.sweeps, self.tolerance, self.max_scale, self.stand_ins)
        least = np.maximum(channels.floor, 1 / self.max_scale)
        scales, sweeps, moved = sweep(ranges, channels, reach, np.ones(channels.size), least)
        events: list[Event] = []
        if self.reach_limit:
            stretched = np.zeros(channels.size)
            for group in channels.groups:
                floor = _stretched(group, ranges, reach, scales, self.reach_limit)
                stretched[group.classes] = floor
                count = int(np.sum(scales[group.classes] < floor))
                if count:
                    held_back = {"channels": count, "of": int(group.classes.size)}
                    events.append(Event(EventKind.CHANNELS_HELD_BACK, group.tensors[0], held_back, "equalize"))
            if events:
                least = np.maximum(least, np.minimum(stretched, self.max_scale))
                scales, more, moved = sweep(ranges, channels, reach, np.maximum(scales, least), least)
                sweeps += more
        free = np.concatenate([g.classes for g in channels.groups])
        facts: dict[str, float] = {
            "groups": len(channels.groups),
            "channels": int(free.size),
            "left at 1": int(np.sum(scales[free] == 1)),
            "sweeps": sweeps,
            "last move": float(moved),
            "largest scale": float(np.max(np.maximum(scales[free], 1 / scales[free]))),
        }
        done = Event(EventKind.EQUALIZED, "", facts, "equalize")
        return rescale(model, channels, scales).noted(done, *events, *gaps(model, "scales", "equalize"))


def _stretched(group: Group, ranges: WeightRanges, reach: Array, scales: Array, limit: float) -> Array:
    """Least scale of each of the group's channels for which none reaches `limit` times the upper quartile."""
    given, taken = given_and_taken(ranges, group, scales)
    now = reach[group.classes] / scales[group.classes]
    alive = (given > 0) & (taken > 0) & (now > 0)
    if np.sum(alive) < 4:
        return np.zeros(group.classes.size)
    bound = limit * np.quantile(now[alive], 0.75)
    return np.where(taken > 0, reach[group.classes] / bound, 0.0)
