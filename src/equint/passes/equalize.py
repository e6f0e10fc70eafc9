"""Cross-layer equalization on channel groups of any graph."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..graph.channels import Channels, Group, rescale, solve
from ..graph.weight_ranges import WeightRanges
from ..ir.events import Event, EventKind
from ..ir.model import Array, Model
from ..maths.scales import equalizing
from ..ops.attributes import clip_bounds
from . import Keeps, require

DEAD = 1e-5
"""A channel whose range is below this share of its layer's counts as dead: no 16-bit grid would hold it."""
SPREAD = 6.0
"""Standard deviations that an activation is taken to reach."""


@dataclass(frozen=True)
class Equalize:
    """Choose channel scales so that the weight ranges on both sides of every group meet.

    For a pair of layers this is DFQ's s = sqrt(r1/r2). A group with several givers or takers (residual
    sums, concats, shared inputs) uses the geometric means of their ranges. Groups are swept in
    topological order until no scale moves by more than `tolerance` (relative to its group).

    Sweeps run forwards and backwards in turn.

    Weights are not all that is quantized: with `activations` = λ, the giving range is r1^(1−λ)·a^λ, a being
    how far the channel's activations reach. Guards: with `stand_ins`, a channel whose weights are dead on
    one side is equalized as if it had its group's typical range there, so that it spoils neither side
    (without, a zero range keeps scale 1, as published); no scale leaves [1/max_scale, max_scale]; and no
    channel is stretched until it reaches more than `reach_limit` times as far as the upper quartile of its
    tensor (0 turns this off), so that one channel cannot set a tensor's range.

    The function is kept exactly unless `clip_reach` is finite: then channels behind a bound that all
    channels share are scaled too, if they lie that many standard deviations below it.

    Example:
        >>> from equint.ir.weights import tiny_graph
        >>> Equalize()(Model(tiny_graph())).log[-1].text
        'equalization found no free channel scales'
    """

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
            why = "; ".join(sorted(set(channels.pinned.values())))[:200] or "no layer feeds another"
            return model.noted(Event(EventKind.NOT_EQUALIZED, "", {"why": why}, "equalize", warning=True))
        ranges = WeightRanges(model, channels, DEAD if self.stand_ins else 0.0)
        reach = reaches(model, channels)
        least = np.maximum(channels.floor, 1 / self.max_scale)
        scales, sweeps, moved = self._swept(ranges, channels, reach, np.ones(channels.size), least)
        events: list[Event] = []
        if self.reach_limit:
            stretched = np.zeros(channels.size)
            for group in channels.groups:
                held = _stretched(group, ranges, reach, scales, self.reach_limit)
                stretched[group.classes] = held
                count = int(np.sum(scales[group.classes] < held))
                if count:
                    held_back = {"channels": count, "of": int(group.classes.size)}
                    events.append(Event(EventKind.CHANNELS_HELD_BACK, group.tensors[0], held_back, "equalize"))
            if events:
                least = np.maximum(least, np.minimum(stretched, self.max_scale))
                scales, more, moved = self._swept(ranges, channels, reach, np.maximum(scales, least), least)
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
        return rescale(model, channels, scales).noted(Event(EventKind.EQUALIZED, "", facts, "equalize"), *events)

    def _swept(
        self, ranges: WeightRanges, channels: Channels, reach: Array, scales: Array, least: Array
    ) -> tuple[Array, int, float]:
        """Scales after sweeping all groups until they rest; how many sweeps, and the last move in log units."""
        scales, moved, sweep = scales.copy(), 0.0, 0
        for sweep in range(1, self.sweeps + 1):
            before = scales.copy()
            for group in channels.groups[:: 1 if sweep % 2 else -1]:
                c = group.classes
                given, taken = _given_and_taken(ranges, group, scales)
                if self.stand_ins or self.activations:
                    given, taken = _met(given, taken, reach[c] / scales[c], self.activations)
                step = equalizing(given, taken)
                scales[c] = np.clip(scales[c] * step, least[c], self.max_scale)
            moves = (_unevenness(scales[g.classes] / before[g.classes]) for g in channels.groups)
            moved = max(moves, default=0.0)
            if moved <= self.tolerance:
                break
        return scales, sweep, moved


def cross_layer(model: Model, channels: Channels) -> Array:
    """Scales of cross-layer equalization that weighs weights and activations alike, `(channels.size,)`.

    Example:
        >>> from equint.ir.weights import tiny_graph
        >>> model = Model(tiny_graph())
        >>> cross_layer(model, solve(model)).tolist()
        [1.0]
    """
    rule, ones = Equalize(activations=0.5, sweeps=20), np.ones(channels.size)
    reach, ranges = reaches(model, channels), WeightRanges(model, channels, DEAD)
    return rule._swept(ranges, channels, reach, ones, np.full(channels.size, 1 / rule.max_scale))[0]


def _unevenness(steps: Array) -> float:
    """How unlike a group's steps are, in log units: a factor common to all channels changes no grid."""
    logs = np.log(steps)
    return float(np.max(np.abs(logs - np.median(logs))))


def _met(given: Array, taken: Array, reach: Array, share: float) -> tuple[Array, Array]:
    """The ranges to equalize: r1^(1−λ)·(κ·a)^λ and r2, with stand-ins where weights are dead.

    κ is the geometric mean of r1/a over living channels, so that mixing moves no common factor. A dead
    giver counts κ·a where its bias still puts something out; what is dead otherwise counts the mean of
    its side, so that the other side is tamed.
    """
    living, read = (given > 0) & (reach > DEAD * reach.max(initial=0.0)), taken > 0
    if not living.any() or not read.any():
        return given, taken
    stand_in = _geometric_mean(given[living] / reach[living]) * reach
    mixed = np.where(given > 0, given, 1.0) ** (1 - share) * np.where(living, stand_in, 1.0) ** share
    dead = np.where(reach > 0, stand_in, _geometric_mean(given[living]))
    return np.where(living, mixed, np.where(given > 0, given, dead)), np.where(
        read, taken, _geometric_mean(taken[read])
    )


def _geometric_mean(values: Array) -> float:
    return float(np.exp(np.mean(np.log(values))))


def _stretched(group: Group, ranges: WeightRanges, reach: Array, scales: Array, limit: float) -> Array:
    """Least scale of each of the group's channels for which none reaches `limit` times the upper quartile."""
    given, taken = _given_and_taken(ranges, group, scales)
    now = reach[group.classes] / scales[group.classes]
    alive = (given > 0) & (taken > 0) & (now > 0)
    if np.sum(alive) < 4:
        return np.zeros(group.classes.size)
    bound = limit * np.quantile(now[alive], 0.75)
    return np.where(taken > 0, reach[group.classes] / bound, 0.0)


def reaches(model: Model, channels: Channels) -> Array:
    """How far each class's activations reach from 0, over all its tensors, `(channels.size,)`.

    What a ReLU or clip cuts off does not count.
    """
    table = np.zeros(channels.size)
    for name, ids in channels.ids.items():
        moments, users = model.moments.get(name), model.graph.users(name)
        if moments is None or (users and all(user.op in ("Relu", "Clip") for user in users)):
            continue
        lo, hi = moments.mean - SPREAD * moments.std, moments.mean + SPREAD * moments.std
        node = model.graph.producer.get(name)
        if node is not None and node.op in ("Relu", "Clip"):
            before = model.moments.get(node.inputs[0])
            low, high = clip_bounds(model.graph, node)
            if before is not None and low is not None and high is not None:
                ends = (before.mean - SPREAD * before.std, before.mean + SPREAD * before.std)
                lo, hi = (np.clip(end, low, high) for end in ends)
        reach, classes = (a.ravel() for a in np.broadcast_arrays(np.maximum(np.abs(lo), np.abs(hi)), ids))
        np.maximum.at(table, classes, reach)
    return table


def _given_and_taken(ranges: WeightRanges, group: Group, scales: Array) -> tuple[Array, Array]:
    """Geometric mean over givers of the output ranges, over takers of the input ranges, `(n,)` each."""
    given, taken = ranges.of(group)
    size = group.classes.size
    return _mean([s.ranges(scales, size) for s in given]), _mean([s.ranges(scales, size) for s in taken])


def _mean(tables: list[Array]) -> Array:
    """Geometric mean of the tables that hold a channel (-1: not held); 0 where one of them holds 0."""
    if len(tables) == 1:
        return np.maximum(tables[0], 0.0)
    stack = np.stack(tables)
    held = stack >= 0
    with np.errstate(divide="ignore"):
        logs = np.where(held, np.log(np.maximum(stack, 0)), 0.0)
    return np.where(held.any(0), np.exp(logs.sum(0) / np.maximum(held.sum(0), 1)), 0.0)
