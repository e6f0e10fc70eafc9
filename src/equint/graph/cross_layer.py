"""Cross-layer equalization: channel scales for which the weight ranges on both sides of every group meet."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..ir.model import Array, Model
from ..maths.scales import equalizing
from ..ops.activations import clamps
from ..ops.attributes import clip_bounds
from .channels import Channels, Group
from .weight_ranges import SPREAD, WeightRanges

DEAD = 1e-5
"""A channel whose range is below this share of its layer's counts as dead: no 16-bit grid would hold it."""


@dataclass(frozen=True)
class Sweeps:
    """Sweep all groups, forwards and backwards in turn, until no scale moves by more than `tolerance`."""

    activations: float = 0.0  # λ of the giving range r1^(1−λ)·a^λ, a being how far the channel's activations reach
    most: int = 100  # sweeps at most
    tolerance: float = 1e-3
    max_scale: float = 1024.0
    stand_ins: bool = True  # channels that are dead on one side count as their group's typical there

    def __call__(
        self, ranges: WeightRanges, channels: Channels, reach: Array, scales: Array, least: Array
    ) -> tuple[Array, int, float]:
        """Scales, how many sweeps, and the last move in log units."""
        scales, moved, sweep = scales.copy(), 0.0, 0
        for sweep in range(1, self.most + 1):
            before = scales.copy()
            for group in channels.groups[:: 1 if sweep % 2 else -1]:
                c = group.classes
                given, taken = given_and_taken(ranges, group, scales)
                if self.stand_ins or self.activations:
                    given, taken = _met(given, taken, reach[c] / scales[c], self.activations)
                step = equalizing(given, taken)
                if not group.producers:  # a norm's gains are on no grid, which a factor common to all would move
                    step = step / _geometric_mean(step)
                scales[c] = np.clip(scales[c] * step, least[c], self.max_scale)
            moves = (_unevenness(scales[g.classes] / before[g.classes]) for g in channels.groups)
            moved = max(moves, default=0.0)
            if moved <= self.tolerance:
                break
        return scales, sweep, moved


def cross_layer(model: Model, channels: Channels) -> Array:
    """Scales of cross-layer equalization that weighs weights and activations alike, `(channels.size,)`."""
    rule, ones = Sweeps(activations=0.5, most=20), np.ones(channels.size)
    ranges = WeightRanges(model, channels, DEAD)
    return rule(ranges, channels, reaches(model, channels), ones, np.full(channels.size, 1 / rule.max_scale))[0]


def reaches(model: Model, channels: Channels) -> Array:
    """How far each class's activations reach from 0, but for what a ReLU or clip cuts off, `(channels.size,)`."""
    table = np.zeros(channels.size)
    for name, ids in channels.ids.items():
        moments, users = model.moments.get(name), model.graph.users(name)
        if moments is None or (users and all(map(clamps, users))):
            continue
        lo, hi = moments.mean - SPREAD * moments.std, moments.mean + SPREAD * moments.std
        node = model.graph.producer.get(name)
        if node is not None and clamps(node):
            before = model.moments.get(node.inputs[0])
            low, high = clip_bounds(model.graph, node)
            if before is not None and low is not None and high is not None:
                ends = (before.mean - SPREAD * before.std, before.mean + SPREAD * before.std)
                lo, hi = (np.clip(end, low, high) for end in ends)
        reach, classes = (a.ravel() for a in np.broadcast_arrays(np.maximum(np.abs(lo), np.abs(hi)), ids))
        np.maximum.at(table, classes, reach)
    return table


def given_and_taken(ranges: WeightRanges, group: Group, scales: Array) -> tuple[Array, Array]:
    """Geometric mean over producers of the output ranges, over consumers of the input ranges, `(n,)` each."""
    given, taken = ranges.of(group)
    size = group.classes.size
    return _mean([s.ranges(scales, size) for s in given]), _mean([s.ranges(scales, size) for s in taken])


def _mean(tables: list[Array]) -> Array:
    """Geometric mean of the tables that hold a channel (-1: without it); 0 where one of them holds 0."""
    if len(tables) == 1:
        return np.maximum(tables[0], 0.0)
    stack = np.stack(tables)
    present = stack >= 0
    with np.errstate(divide="ignore"):
        logs = np.where(present, np.log(np.maximum(stack, 0)), 0.0)
    return np.where(present.any(0), np.exp(logs.sum(0) / np.maximum(present.sum(0), 1)), 0.0)


def _met(given: Array, taken: Array, reach: Array, share: float) -> tuple[Array, Array]:
    """The ranges to equalize: r1^(1−λ)·(κ·a)^λ and r2, with stand-ins where weights are dead."""
    living, read = (given > 0) & (reach > DEAD * reach.max(initial=0.0)), taken > 0
    if not living.any() or not read.any():
        return given, taken
    stand_in = _geometric_mean(given[living] / reach[living]) * reach
    mixed = np.where(given > 0, given, 1.0) ** (1 - share) * np.where(living, stand_in, 1.0) ** share
    dead = np.where(reach > 0, stand_in, _geometric_mean(given[living]))
    typical = np.where(read, taken, _geometric_mean(taken[read]))
    return np.where(living, mixed, np.where(given > 0, given, dead)), typical


def _geometric_mean(values: Array) -> float:
    return float(np.exp(np.mean(np.log(values))))


def _unevenness(steps: Array) -> float:
    """How unlike a group's steps are, in log units: a factor common to all channels changes no grid."""
    logs = np.log(steps)
    return float(np.max(np.abs(logs - np.median(logs))))
