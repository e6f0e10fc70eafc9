"""What samples tell of others like them: 95 % intervals of losses, shares and SQNRs, and how many samples decide."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, comb, inf, isfinite, log, sqrt
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

from ..ir.model import Array
from .paired import relative_noise

Z = 1.959963984540054
"""95 % of a normal distribution lie within so many standard deviations of its mean."""


class Interval(NamedTuple):
    """Where a figure lies on other samples, in 95 % of cases."""

    low: float
    high: float


def mcnemar(lost: int, won: int) -> float:
    """How likely chance alone parts two equally good networks so far: McNemar's exact test.

    Only samples on which one is right and the other wrong tell them apart. Were both equally good, each of these would
    fall to either side as a coin does: p = min(1, 2·Σ_{k ≤ min(lost, won)} C(n, k) / 2ⁿ), n = lost + won.

    Args:
        lost, won: samples that only the one, and only the other network gets right.

    Example:
        Of ten samples that differ, two to eight: 2·(1 + 10 + 45) / 1024.

        >>> mcnemar(8, 2), mcnemar(0, 0)
        (0.109375, 1.0)
    """
    n = lost + won
    ways: int = sum(comb(n, k) for k in range(min(lost, won) + 1))
    return min(1.0, 2 * ways / (1 << n))


def lost_share(lost: int, won: int, samples: int) -> Interval:
    """By how much one hit rate lies under another on the same samples, a share from −1 to 1.

    (b − c) ± 1.96·√((b + c − (b − c)²) / N), b = (lost + 1)/N, c = (won + 1)/N, N = samples + 2: Wald's interval of
    paired shares with one sample added to each side, which holds where few differ, or none (Bonett and Price 2012).

    Args:
        lost, won: samples that only the first, and only the second network gets right.

    Example:
        Of 400 samples 14 turned wrong and 10 right, b = 15/402, c = 11/402: 1.0 ± 1.96·√(0.0646/402) = 1.0 ± 2.5 %.

        >>> [round(100 * end, 1) for end in lost_share(14, 10, 400)]
        [-1.5, 3.5]
    """
    n = samples + 2
    b, c = (lost + 1) / n, (won + 1) / n
    half = Z * sqrt((b + c - (b - c) ** 2) / n)
    return Interval(max(b - c - half, -1.0), min(b - c + half, 1.0))


def apart(before: float, after: float, samples: int) -> float:
    """By how much two hit rates must differ to be told apart where nothing says which samples each of them hits.

    Half the width of the 95 % interval of a difference of independent shares: 1.96·√((p(1 − p) + r(1 − r))/n).

    Args:
        before, after: p and r, from 0 to 1.

    Example:
        >>> round(apart(0.5, 0.5, 400), 3)
        0.069
    """
    return Z * sqrt((before * (1 - before) + after * (1 - after)) / samples)


def share(hits: int, samples: int) -> Interval:
    """A share of hits, from 0 to 1: Wilson's score interval (1927), the p with |p̂ − p| ≤ 1.96·√(p(1 − p)/n).

    Example:
        376 of 400, p̂ = 0.94: (0.94 + z²/800 ± 1.96·√(0.94·0.06/400 + z²/(4·400²))) / (1 + z²/400), z² = 3.84.

        >>> [round(100 * end, 1) for end in share(376, 400)]
        [91.2, 95.9]
    """
    p, z = hits / samples, Z * Z / samples
    middle, half = p + z / 2, Z * sqrt(p * (1 - p) / samples + z / (4 * samples))
    return Interval(max((middle - half) / (1 + z), 0.0), min((middle + half) / (1 + z), 1.0))


def guessed(hits: int, samples: int, classes: int) -> bool:
    """Whether so many hits look like guesses among C classes: `share` reaches 1/C, and not half way from there to all.

    Example:
        >>> guessed(51, 500, 10), guessed(70, 500, 10), guessed(2, 4, 2)
        (True, False, False)
    """
    low, high = share(hits, samples)
    return low <= 1 / classes and high < (1 + 1 / classes) / 2


def mean(values: Array) -> Interval | None:
    """The mean of `(N,)` values, real units: ± t·s/√N with Student's t of N − 1 degrees. None: fewer than two.

    Example:
        >>> [round(end, 2) for end in mean(np.array([1.0, 2.0, 3.0, 4.0]))]
        [0.45, 4.55]
    """
    n = len(values)
    if n < 2 or not np.isfinite(values).all():
        return None
    half = float(stdtrit(n - 1, 0.975) * values.std(ddof=1) / sqrt(n))
    return Interval(float(values.mean()) - half, float(values.mean()) + half)


GROUPS = 10
"""Of samples, of which the jackknife leaves out one at a time."""


def jackknife(statistic: Callable[[Array], float], samples: int, groups: int = GROUPS) -> Interval | None:
    """A figure that is no mean over samples, such as a precision: the jackknife that leaves out a group at a time.

    Of g groups, θ_(j) without group j: pseudo-values g·θ − (g − 1)·θ_(j), and their `mean` (Tukey 1958; Efron and
    Tibshirani 1993, chapter 11).

    Args:
        statistic: the figure of the samples of these numbers, `(K,)`.

    Returns:
        None: fewer than two samples, or a figure that is not finite.

    Example:
        Of a mean, with a group for each sample, it is the interval of `mean`.

        >>> values = np.array([1.0, 2.0, 3.0, 4.0])
        >>> [round(end, 2) for end in jackknife(lambda kept: values[kept].mean(), 4)]
        [0.45, 4.55]
    """
    each, groups = np.arange(samples), min(groups, samples)
    if groups < 2:
        return None
    without = np.array([statistic(each[each % groups != group]) for group in range(groups)])
    return mean(groups * statistic(each) - (groups - 1) * without)


def sqnr(signal: Array, noise: Array) -> Interval | None:
    """The SQNR over all samples, in dB, of `relative_noise`: a ratio's standard error by linearization.

    R = mean_p N_p/S_p moves with sample n by u_n = mean_p (N_np − R_p·S_np)/S̄_p, and
    10·log10(1/R) ± 10/ln 10 · t·s(u)/(R·√N) (Cochran 1977, section 6.3).

    Args:
        signal, noise: `(N, P)` power of each sample at each place, real units squared.

    Returns:
        None: fewer than two samples, or powers that are not finite.

    Example:
        Noise over signal is 0.1 and 0.2: R = 0.15, u = ∓0.05, 8.2 ± 4.34·12.7·0.0707/(0.15·1.41) dB.

        >>> [round(end, 1) for end in sqnr(np.ones((2, 1)), np.array([[0.1], [0.2]]))]
        [-10.2, 26.6]
    """
    n = len(signal)
    if n < 2 or not (np.isfinite(signal).all() and np.isfinite(noise).all()):
        return None
    ratio = float(relative_noise(signal, noise))
    if ratio == 0 or not isfinite(ratio):
        return Interval(inf, inf) if ratio == 0 else None
    at = np.where(signal.sum(0) > 0, signal.mean(0), 1.0)
    moved = ((noise - noise.sum(0) / np.where(signal.sum(0) > 0, signal.sum(0), 1.0) * signal) / at).mean(1)
    half = 10 / log(10) * float(stdtrit(n - 1, 0.975) * moved.std(ddof=1)) / (ratio * sqrt(n))
    db = -10 * float(np.log10(ratio))
    return Interval(db - half, db + half)


def needed(value: float, found: Interval, room: Interval, samples: int) -> float:
    """How many more samples would keep the interval of a value within the room around it.

    Intervals shrink with the root of the number: N' = N·(half/room)² on either side, more = max N' − N.

    Args:
        found: the value's interval on `samples`; room: where it is to stay. All in one unit.

    Returns:
        0: it is there already; infinite: the value stands on a border.

    Example:
        1 ± 2 shall stay within 0.5 and 2: four times as narrow below, so sixteen times as many.

        >>> needed(1.0, Interval(-1.0, 3.0), Interval(0.5, 2.0), 400)
        6000.0
    """
    most = 1.0
    for half, free in ((value - found.low, value - room.low), (found.high - value, room.high - value)):
        if half > free:
            most = max(most, (half / free) ** 2 if free > 0 else inf)
    return ceil(samples * most) - float(samples) if isfinite(most) else inf
