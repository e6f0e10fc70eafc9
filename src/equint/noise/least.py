"""The search for the scales and ranges of least predicted noise."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from ..ir.model import Array
from ..maths.descent import Descent
from .objective import Noise, Objective

TRIAL_STEPS = 10
"""Steps from every start before the worst is given up, and so on; and after ranges have taken other powers of two."""
ROUND_STEPS = 50
"""Steps of a round: between two choices of shifts, and of weights that may leave their ranges."""
WORTH = 1e-3
"""A round that takes a smaller share of the noise away is the last."""
LIMIT = 20.0
"""Log-scales stay within ±20: beyond, float32 weights would lose digits."""
GRID, FLAT, DIGITS = 2.0**-14, 2.0**-30, 30
"""Steps of logarithms, of the objective, and binary digits of slopes, that the descent knows: what processors round
differently is lost."""
AT_A_TIME = 0.1
"""Share of the ranges without a power of two yet that take one before the others make up for it."""
OTHERS = 400
"""Where more ranges must have powers of two, as with one for each channel, no others are tried."""


@dataclass(frozen=True)
class _Point:
    """Variables, the shifts chosen beside them, the noise that both predict, and the descent that led there."""

    noise: float
    x: Array
    shifts: Array
    descent: Descent | None = None


def least(objective: Objective, starts: list[Array], iterations: int) -> tuple[Array, Noise, int]:
    """The best variables found, the noise of the best, and the steps taken.

    L-BFGS from every start, the worst given up one by one. Where steps must be powers of two, ranges then take theirs
    a few at a time, those first that have the least to go, and what is still free makes up for it; in the end each is
    tried at twice and half its step.

    Args:
        starts: scales of all classes, `(channels.size,)` each.
        iterations: steps of a descent, and about so many of the best in all.
    """
    search = _Search(objective, iterations)
    tried = [search.at(search.within(objective.start(s))) for s in starts]
    ways = tried if len(tried) > 1 else []
    while ways:
        ways = sorted((search.further(point, TRIAL_STEPS) for point in ways), key=_noise)
        tried, ways = [*tried, ways[0]], ways[:-1]
    best = search.in_rounds(min(tried, key=_noise))
    if objective.powers:
        best = search.with_other_powers(search.with_powers(best))
    objective.restore(best.shifts)
    return best.x, objective(best.x)[0], search.steps


class _Search:
    """Descents of one objective. Counts `steps`; what it has tried last is left behind in the objective."""

    def __init__(self, objective: Objective, iterations: int) -> None:
        self.objective, self.iterations, self.steps = objective, iterations, 0
        self.free = objective.free.size

    def within(self, x: Array) -> Array:
        """Variables inside their bounds: those of the descent itself would make it twice as slow."""
        held = GRID * np.rint(x / GRID)
        held[self.objective.settled] = x[self.objective.settled]
        return np.concatenate([np.clip(held[: self.free], -LIMIT, LIMIT), held[self.free :]])

    def at(self, x: Array, descent: Descent | None = None) -> _Point:
        """A point, with the shifts that serve it best."""
        self.objective.choose_shifts(x)
        noise = self.objective(x)[0].total  # true noise: a descent leaves shifts behind
        return _Point(noise, x, self.objective.chosen, descent)

    def further(self, now: _Point, count: int) -> _Point:
        self.objective.restore(now.shifts)
        with np.errstate(over="ignore", invalid="ignore"):  # a step may go so far that the noise is infinite
            # other shifts make it another function
            descent = now.descent if now.descent and not self.objective.shifted else Descent(self._logarithm, now.x)
            self.steps += descent.run(min(count, self.iterations))
        return self.at(self.within(descent.x), descent)

    def in_rounds(self, now: _Point) -> _Point:
        best = now
        for _ in range(max(self.iterations // ROUND_STEPS, 1)):
            last, now = now, self.further(now, ROUND_STEPS)
            best = min(best, now, key=_noise)
            gained = last.noise - now.noise
            if 0 <= gained < WORTH * last.noise:  # other shifts may make it worse for a while
                break
        return best

    def with_powers(self, now: _Point) -> _Point:
        """The same with steps that are powers of two."""
        left = dict(enumerate(self.objective.powers))
        while left:
            chosen = self.objective.with_powers(now.x)
            away = np.abs(chosen - now.x)
            near = sorted(left, key=lambda k: float(np.max(away[left[k]])))
            ends = np.concatenate([left.pop(k) for k in near[: math.ceil(len(near) * AT_A_TIME)]])
            self.objective.settled = np.concatenate([self.objective.settled, ends])
            x = now.x.copy()
            x[ends] = chosen[ends]
            now = self.further(self.at(x), TRIAL_STEPS)
        return self.in_rounds(now)

    def with_other_powers(self, now: _Point) -> _Point:
        """The same with other powers where they make less noise, one range after the other."""
        ranges = self.objective.powers
        for ends in ranges if len(ranges) <= OTHERS else []:
            for octave in (np.log(2), -np.log(2)):
                x = now.x.copy()
                x[ends] += octave
                now = min(now, self.further(self.at(x), TRIAL_STEPS), key=_noise)
        return self.in_rounds(replace(now, descent=None))

    def _logarithm(self, x: Array) -> tuple[float, Array]:
        """What descents see: the logarithm of the noise, and its gradient."""
        held, free = self.within(x), self.free
        noise, gradient = self.objective(held)
        total = max(noise.total, 1e-100)
        if not np.isfinite(total):  # beyond what floats hold: nothing to go to
            return np.inf, np.zeros_like(x)
        slopes = np.where(np.abs(x[:free]) > LIMIT, 0.0, gradient[:free])
        return FLAT * round(np.log(total) / FLAT), _same(np.concatenate([slopes, gradient[free:]]) / total)


def _noise(point: _Point) -> float:
    return point.noise


def _same(values: Array) -> Array:
    """`values` to so many digits of the largest that processors which add in another order agree on them."""
    step = np.ldexp(1.0, int(np.frexp(np.max(np.abs(values), initial=0.0))[1]) - DIGITS)
    return np.asarray(step * np.rint(values / step)) if step > 0 and np.isfinite(step) else values
