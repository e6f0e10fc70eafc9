"""One-step equalization: every channel is amplified until it meets the dominant one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..graph.channels import Group
from ..graph.dominance import Extremes, Limits
from ..graph.matching import matched
from ..ir.model import Array, Model
from ..maths.scales import matching
from . import Keeps, Stage, require


@dataclass(frozen=True)
class OneStep:
    """Amplify channels until their weights or their activations are as large as the dominant channel's.

    Meller et al. 2019, algorithm 1: C = min(kerOutMax/kerOutChMax, actOutMax/actOutChMax, S_max), layer by layer in
    topological order, the weights as earlier layers left them. No largest weight and no activation grid's range
    grows, and C ≥ 1. Layers that give the same channels (residual sums, shared weights) share one C, the least that
    any of them and any grid allows, when the last of them has its turn. Channels behind a bound that all share (ReLU6)
    are amplified as far as their range stays within it (section 5.2), unless `shared_clips` is False. A channel without
    weights or activations takes S_max, which tames the weights that read it.

    Attributes:
        s_max: the paper prints none. 16 takes at most four of the eight bits of the weights that read a channel.
    """

    stage: ClassVar[Stage] = Stage.BEFORE

    s_max: float = 16.0
    shared_clips: bool = True

    def __post_init__(self) -> None:
        require("s_max", self.s_max, 1 <= self.s_max < math.inf, "1 or more")

    @property
    def keeps(self) -> Keeps:
        """FUNCTION, or NEARLY where channels behind shared bounds are amplified: inputs may exceed the ranges."""
        return Keeps.NEARLY if self.shared_clips else Keeps.FUNCTION

    def __call__(self, model: Model) -> Model:
        return matched(model, self._rule, "one-step", self.s_max, self.shared_clips)

    def _rule(self, extremes: Extremes, group: Group, scales: Array) -> tuple[Array, Limits]:
        limits = extremes.limits(group, scales)
        return np.minimum(matching(limits.kernel, limits.activation, self.s_max), limits.room), limits
