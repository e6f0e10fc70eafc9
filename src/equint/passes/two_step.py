"""Two-step equalization: the next layer's weights are evened out first, then channels meet the dominant one."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ..graph.channels import Group
from ..graph.dominance import Extremes, Limits
from ..graph.matching import matched
from ..ir.model import Array, Model
from ..maths.scales import matching
from . import Keeps, Stage, require


@dataclass(frozen=True)
class TwoStep:
    """Attenuate channels that the next layer reads with small weights, then amplify all as `OneStep` does.

    Meller et al. 2019, algorithm 2. With n = sucInChMax/sucInMax (the largest over all layers that read the channel),
    dividing the next layer's weights by n evens them out and leaves their largest as it is; the layer itself is
    attenuated by n. Then one step: C = n · min(max(n·k)/(n·k), max(n·a)/(n·a)), k and a being kerOutChMax and
    actOutChMax, at most S_max. At last all are divided by the least C, where no other channel shares a weight or a grid
    with the group's, so that a common factor changes no grid's precision.

    Channels behind a bound that all share (ReLU6) are not divided by the least C and may end attenuated, to
    `attenuation` at most, "to prevent significant modification to the full-precision network results" (section 5.2):
    those that reach the bound then let more pass than they did. So their n is no smaller than that either, which is
    as far as the dominant channel can shrink; and none is attenuated for its activations, whose grid is set by
    channels that stay at the bound: C = max(min(max(n·k)/k, max(a)/a, S_max, room), `attenuation`), with room
    the factor by which a channel may grow before it meets the bound.

    Attributes:
        s_max: as in `OneStep`; no channel is attenuated below 1/s_max either.
        shared_clips: False leaves channels behind shared bounds alone.
        attenuation: least factor of channels behind shared bounds; 1 keeps their function.
        as_printed: lines 12 and 13 as printed, with k and a before the attenuation: C = min(n·max(k)/k, n·max(a)/a,
            S_max), which hands each layer the next one's imbalance; for comparison.
    """

    stage: ClassVar[Stage] = Stage.BEFORE

    s_max: float = 16.0
    shared_clips: bool = True
    attenuation: float = 0.7
    as_printed: bool = False

    def __post_init__(self) -> None:
        require("s_max", self.s_max, 1 <= self.s_max < math.inf, "1 or more")
        require("attenuation", self.attenuation, 0 < self.attenuation <= 1, "above 0, up to 1")

    @property
    def keeps(self) -> Keeps:
        """FUNCTION, or NEARLY where channels behind shared bounds are scaled."""
        return Keeps.NEARLY if self.shared_clips else Keeps.FUNCTION

    def __call__(self, model: Model) -> Model:
        return matched(model, self._rule, "two-step", self.s_max, self.shared_clips)

    def _rule(self, extremes: Extremes, group: Group, scales: Array) -> tuple[Array, Limits]:
        limits = self._limits(extremes, group, scales)
        factors = matching(limits.kernel, limits.activation, self.s_max)
        if np.any(limits.clipped):
            within = np.maximum(np.minimum(factors, limits.room), self.attenuation)
            return np.where(limits.clipped, within, factors), limits
        return factors / factors.min() if extremes.alone(group) else factors, limits

    def _limits(self, extremes: Extremes, group: Group, scales: Array) -> Limits:
        successor = extremes.successor(group, scales)
        if not self.as_printed:
            return self._attenuated(extremes, group, scales, successor)
        limits, least = extremes.limits(group, scales), np.maximum(successor, np.finfo(np.float64).tiny)
        with np.errstate(over="ignore"):
            return replace(limits, kernel=limits.kernel / least, activation=limits.activation / least)

    def _attenuated(self, extremes: Extremes, group: Group, scales: Array, successor: Array) -> Limits:
        """What holds the channels once they are attenuated as far as each may be, for weights and for activations."""
        clipped = extremes.clipped[group.classes]
        allowed = np.where(clipped, np.maximum(successor, self.attenuation), successor)
        activation = extremes.limits(group, scales, np.where(clipped, 1.0, successor)).activation
        return replace(extremes.limits(group, scales, allowed), activation=activation)
