"""Weight equalizing shifts (Oh et al. 2020): a power of two for every output channel, and what a choice of them costs.

Weights come as `(O, n)`: one row per output channel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..ir.model import Array, QSpec
from .affine import choose_qparams, fake_quantize
from .simplex import Simplex, search

SIMPLEX = Simplex()

PARTS = (1 / 64, 1 / 16, 1 / 4, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Shares of the rows after each of which candidates that cost too much already are dropped."""
CHUNK = 1 << 16
"""Weights that are rounded at once: what fits into a core's cache."""


@dataclass(frozen=True)
class Shifted:
    """A choice of shifts `(O,)`, the total range r̂ that gave it, its φ (`error`), and evaluations of φ, in parts."""

    shifts: Array
    total: float
    cost: float
    tried: float


def symmetric_ranges(rows: Array) -> Array:
    """r_i = 2·max(|max_i|, |min_i|): `(O,)` (Oh et al. 2020, eq. 4)."""
    return np.asarray(2 * np.abs(rows).max(1, initial=0.0), np.float64)


def shifts_of(ranges: Array, total: float | Array, most: int) -> Array:
    """S_i = floor(log2(r̂/r_i)) within 0…most (Oh et al. 2020, eq. 5); 0 for channels without weights.

    Example:
        >>> shifts_of(np.array([6.0, 3.0, 2.0, 0.0]), 6.0, 15).tolist()
        [0, 1, 1, 0]
    """
    live = ranges > 0
    fraction, exponent = np.frexp(total / np.where(live, ranges, 1.0))  # floor(log2) without its rounding
    return np.where(live, np.clip(exponent - 1, 0, most), 0).astype(np.int32)


def error(rows: Array, shifts: Array, spec: QSpec, worth: Array | None = None) -> float:
    """φ = mean (w − w*)², w* shifted, quantized on one grid and shifted back (Oh et al. 2020, Algorithm 1).

    Args:
        worth: `(O, n)`, what each squared error counts; 1 if left out, as published.

    Example:
        >>> rows = np.array([[1.0, 0.3], [0.01, 0.003]], np.float32)
        >>> error(rows, np.array([0, 6]), QSpec(8)) < error(rows, np.array([0, 0]), QSpec(8))
        True
    """
    lifted = np.ldexp(rows, shifts[:, None])
    grid = choose_qparams(lifted.min(), lifted.max(), spec)
    off = np.square(np.ldexp(fake_quantize(lifted, grid) - lifted, -shifts[:, None]), dtype=np.float64)
    return float(np.mean(off if worth is None else off * worth))


def deterministic(rows: Array, spec: QSpec, most: int, worth: Array | None = None) -> Shifted:
    """r̂ = max r_i (Oh et al. 2020, eq. 4 and 5)."""
    ranges = symmetric_ranges(rows)
    total = float(ranges.max(initial=0.0))
    shifts = shifts_of(ranges, total, most)
    return Shifted(shifts, total, error(rows, shifts, spec, worth), 1)


def nelder_mead(rows: Array, spec: QSpec, most: int, worth: Array | None = None, simplex: Simplex = SIMPLEX) -> Shifted:
    """r̂ from a simplex search that starts at max r_i (Oh et al. 2020, Algorithm 1)."""
    ranges, start = symmetric_ranges(rows), deterministic(rows, spec, most, worth)
    if start.total == 0:
        return start

    def cost(total: Array) -> float:
        return error(rows, shifts_of(ranges, float(total[0]), most), spec, worth) if total[0] > 0 else np.inf

    at, least, tried = search(cost, np.array([start.total]), simplex)
    total = float(at[0])
    return Shifted(shifts_of(ranges, total, most), total, least, tried)


def totals(ranges: Array, most: int) -> Array:
    """Every r̂ at which the pattern of shifts changes, in rising order, below twice the largest range.

    Between two of them nothing changes. Below the largest range its channel keeps shift 0, and all others are shifted
    less. From twice the largest range on, every channel is shifted once more, which changes nothing.

    Example:
        >>> totals(np.array([4.0, 1.5]), 15).tolist()
        [1.5, 3.0, 4.0, 6.0]
    """
    live = ranges[ranges > 0]
    if not live.size:
        return np.zeros(0)
    every = np.ldexp(live[:, None], np.arange(most + 1)[None, :])
    return np.asarray(np.unique(every[every < 2 * live.max()]))


def exact(rows: Array, spec: QSpec, most: int, worth: Array | None = None) -> Shifted:
    """The shifts of least φ that any r̂ gives.

    φ depends on r̂ through the pattern of shifts alone, of which `totals` lists all. A candidate's cost is summed up
    over parts of the rows; what exceeds the best whole cost known is dropped, for squares only add.

    Example:
        >>> rows = np.random.default_rng(0).normal(0, [[1.0], [0.3], [0.02]], (3, 50)).astype(np.float32)
        >>> exact(rows, QSpec(8), 15).cost <= nelder_mead(rows, QSpec(8), 15).cost
        True
    """
    ranges = symmetric_ranges(rows)
    if not np.any(ranges > 0):
        return deterministic(rows, spec, most, worth)
    costs = _Candidates(rows, worth, ranges, spec, most)
    order, begin = np.random.default_rng(0).permutation(len(rows)), 0
    first, every = int(np.argmin(costs.expected)), np.arange(len(rows))
    partial, alive = np.zeros(costs.totals.size), np.arange(costs.totals.size)
    best, tried = costs.of(np.array([first]), every)[0], 1.0
    for share in PARTS:
        end = max(begin, round(share * len(rows)))
        part = order[begin:end]
        partial[alive] += costs.of(alive, part)
        tried += len(part) / len(rows) * len(alive)
        alive, begin = alive[partial[alive] <= best * (1 + 1e-6)], end
    close = [first, *alive[partial[alive] <= partial[alive].min(initial=np.inf) * (1 + 1e-5)]]
    patterns = [shifts_of(ranges, float(costs.totals[k]), most) for k in close]
    exactly = [error(rows, p, spec, worth) for p in patterns]
    chosen = int(np.argmin(exactly))
    return Shifted(patterns[chosen], float(costs.totals[close[chosen]]), exactly[chosen], tried + len(close))


class _Candidates:
    """All total ranges, the grid that each leads to, and what they cost.

    As r̂ rises, one channel after the other is shifted once more: ends and noise are running maxima and sums over that.
    """

    def __init__(self, rows: Array, worth: Array | None, ranges: Array, spec: QSpec, most: int) -> None:
        self.rows, self.worth, self.most, self.live = rows, worth, most, ranges > 0
        self.totals = totals(ranges, most)
        self.of_totals, self.of_ranges = np.frexp(self.totals), np.frexp(np.where(self.live, ranges, 1.0))
        self.halves = np.ldexp(np.float32(1), -np.arange(most + 1))
        channel, times = np.nonzero(np.ldexp(ranges[:, None], np.arange(1, most + 1)) < 2 * ranges.max())
        channel, times = channel[self.live[channel]], times[self.live[channel]] + 1
        at = np.ldexp(ranges[channel], times)
        rising = np.argsort(at, kind="stable")
        channel, times, at = channel[rising], times[rising], at[rising]
        last = np.searchsorted(at, self.totals, side="right")  # events up to each candidate
        hi, lo = (
            growing.accumulate(np.append(growing.reduce(end), np.ldexp(end[channel], times)))[last]
            for end, growing in ((rows.max(1), np.maximum), (rows.min(1), np.minimum))
        )
        self.step = choose_qparams(lo, hi, spec).scale
        own = np.full(len(rows), float(rows.shape[1])) if worth is None else worth.sum(1, dtype=np.float64)
        fallen = np.append(own.sum(), -0.75 * own[channel] * 4.0 ** (1 - times))
        self.expected = np.square(self.step, dtype=np.float64) * np.cumsum(fallen)[last]

    def of(self, which: Array, part: Array) -> Array:
        """Σ worth·(w − w*)² over some rows for some candidates: `(T,)`. Grids hold all weights: nothing saturates."""
        found = np.zeros(len(which))
        height = max(1, min(len(part), CHUNK // self.rows.shape[1]))
        count = max(1, CHUNK // (self.rows.shape[1] * height))
        for top in range(0, len(part), height):
            own = part[top : top + height]
            rows, worth = self.rows[own], None if self.worth is None else self.worth[own]
            for begin in range(0, len(which), count):
                k = which[begin : begin + count]
                unit = self.step[k, None] * self.halves[self._shifts(k, own)]
                found[begin : begin + count] += squared_rounding(rows, unit, worth)
        return found

    def _shifts(self, which: Array, part: Array) -> Array:
        """`shifts_of`, for numbers already taken apart into fraction and exponent: `(T, O)`."""
        (fraction, exponent), (own, power) = self.of_totals, self.of_ranges
        found = exponent[which, None] - power[part] - (fraction[which, None] < own[part])
        return np.where(self.live[part], np.clip(found, 0, self.most), 0)


def squared_rounding(rows: Array, unit: Array, worth: Array | None = None) -> Array:
    """Σ worth·(w − unit·round(w/unit))² of rows `(O, n)` for several choices of units `(T, O)`: `(T,)`."""
    steps = rows * (1 / unit)[:, :, None]
    steps -= np.rint(steps)
    by_row = np.einsum("ton,ton->to", steps, steps if worth is None else steps * worth)
    return np.asarray(np.einsum("to,to->t", by_row, np.square(unit), dtype=np.float64))


Search = Callable[[Array, QSpec, int, Array | None], Shifted]
SEARCHES: dict[str, Search] = {"deterministic": deterministic, "nelder-mead": nelder_mead, "exact": exact}
