"""Proofs that float32 arithmetic computes an integer operator's results, so that fast kernels may stand in for it."""

from __future__ import annotations

import numpy as np

from ..ir.model import Array
from .fixedpoint import Rounding, thresholds

_NUDGES = (0.0, *(2.0**-k for k in range(8, 20)))


def float_path(acc: Array, factor: np.float32, nudge: np.float32) -> tuple[Array, Array]:
    """What float32 kernels make of accumulators: rounding the product and the sum, or only their sum (FMA)."""
    once = acc.astype(np.float64) * np.float64(factor) + np.float64(nudge)
    twice = (acc.astype(np.float32) * factor).astype(np.float32) + nudge
    return np.rint(twice), np.rint(once if nudge == 0 else once.astype(np.float32))


def nudge_of(mantissa: int, right: int, first: int, last: int, most: int, rounding: Rounding) -> float | None:
    """What to add to acc·factor in float32 so that rounding to even agrees with `rounding`; None: nothing is proven.

    For accumulators up to `most` whose results are clamped to first … last.

    Example:
        >>> nudge_of(3, 9, -128, 127, 1 << 12, "half_even"), nudge_of(3, 9, -128, 127, 1 << 12, "half_up")
        (0.0, 0.0009765625)
        >>> nudge_of(3, 9, -128, 127, 1 << 12, "truncate")
        -0.4990234375
    """
    every = thresholds(mantissa, right, first, last, rounding)
    ends = np.array([-most, most])
    results = first + np.searchsorted(every, ends, side="right")
    inside = (every > -most) & (every <= most)
    at, steps = every[inside], np.arange(first + 1, last + 1)[inside]
    factor = np.float32(mantissa * 2.0**-right)
    for nudge in _NUDGES:
        moved = np.float32(nudge - 0.5 if rounding == "truncate" else nudge)
        above, below, outer = (float_path(acc, factor, moved) for acc in (at, at - 1, ends))
        if (
            all(np.all(v >= steps) for v in above)
            and all(np.all(v < steps) for v in below)
            and all(np.array_equal(np.clip(v, first, last), results) for v in outer)
        ):
            return float(moved)
    return None


def slopes(at: Array, table: Array, low: int, high: int) -> tuple[Array, Array] | None:
    """(up, down), `(C,)` each, with table = clamp(round(up·x or down·x), low, high) in float32 for x > 0 and x < 0.

    None where there are none, or where `up` would be negative.

    Example:
        >>> at = np.arange(-4, 4)
        >>> [s.tolist() for s in slopes(at, np.array([[-1, -1, -1, 0, 0, 2, 4, 6]]), -8, 6)]
        [[2.0416667461395264], [0.3125]]
    """
    found = []
    for side, ends, first in ((at > 0, (low, high), 0.0), (at < 0, (-high, -low), -np.inf)):
        x, t = np.abs(at[side]), np.where(at[side] > 0, table[:, side], -table[:, side])
        least = np.max(np.where(t > ends[0], (t - 0.5) / x, first), axis=1, initial=first)
        most = np.min(np.where(t < ends[1], (t + 0.5) / x, np.inf), axis=1, initial=np.inf)
        if np.any(least > most):
            return None
        bounds = np.where(np.isinf(least), np.where(np.isinf(most), 0, most) - 1, least), most
        found.append(np.where(np.isinf(most), bounds[0] + 1, (bounds[0] + bounds[1]) / 2).astype(np.float32))
    x, slope = at.astype(np.float32), np.where(at > 0, *(f[:, None] for f in found))
    products = (slope * x, slope.astype(np.float64) * x)
    exact = all(np.array_equal(np.clip(np.rint(p), low, high), table) for p in products)
    return (found[0], found[1]) if exact else None
