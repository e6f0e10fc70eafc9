"""Range rules: from what was measured of a tensor to the range that its grid shall hold. Arrays in, numbers out."""

from __future__ import annotations

import numpy as np

from ..ir.model import Array, QSpec
from .affine import choose_qparams, fake_quantize
from .special import gammaln, wrightomega

COARSER = 8.0
"""A tensor whose grid is coarser by so much has lost three of its bits."""
CANDIDATES = 48
"""Ends that the MSE rule tries on each side, and again around the best."""


def quantile(edges: Array, counts: Array, share: float, top: bool = False) -> float:
    """The value below which `share` of a histogram lies; linear within bins, and behind a gap where one lies there.

    Args:
        edges: `(n + 1,)` ascending, real units; counts: `(n,)`.
        top: the value above which it lies: of the mirrored histogram.

    Example:
        >>> quantile(np.array([0.0, 1.0, 2.0]), np.array([3, 1]), 0.5)
        0.6666666666666666
    """
    if top:
        return -quantile(-edges[::-1], counts[::-1], share)
    total = np.concatenate([[0], np.cumsum(counts)]).astype(np.float64)
    if total[-1] == 0:
        return 0.0
    return float(np.interp(share * total[-1], total, edges))


def histogram_percentile(edges: Array, counts: Array, percent: float) -> tuple[float, float]:
    """Cut `percent` per cent of the values off on either side."""
    return quantile(edges, counts, percent / 100), quantile(edges, counts, percent / 100, top=True)


def mse(edges: Array, counts: Array, spec: QSpec) -> tuple[float, float]:
    """The range whose grid of `spec` makes the least mean squared error on a histogram.

    Every bin counts as its centre, which is meant for grids coarser than the bins. Ends are searched on a
    logarithmic scale, one side at a time, finer and finer; the extremes themselves are where the search starts, so
    that the result is never worse than min-max.

    Example:
        >>> values = np.random.default_rng(0).laplace(size=100_000)
        >>> counts, edges = np.histogram(values, 2048)
        >>> lo, hi = mse(edges, counts, QSpec(4, symmetric=False))
        >>> -5.5 < lo < -4 and 4 < hi < 5.5
        True
    """
    centres = ((edges[1:] + edges[:-1]) / 2).astype(np.float32)
    held = counts > 0
    centres, weights = centres[held], counts[held] / max(counts.sum(), 1)
    if not centres.size:
        return 0.0, 0.0
    lo, hi = min(float(edges[0]), 0.0), max(float(edges[-1]), 0.0)

    def error(low: float, high: float) -> float:
        rounded = fake_quantize(centres, choose_qparams(low, high, spec))
        return float(weights @ np.square(rounded.astype(np.float64) - centres))

    def searched(low: float, high: float, upper: bool, around: float, reach: float) -> float:
        factors = np.append(np.exp(np.linspace(-reach, reach, CANDIDATES)), 1.0)
        limit = hi if upper else lo
        ends = [limit if abs(around * f) > abs(limit) else around * f for f in factors]
        return min(ends, key=lambda e: error(low, e) if upper else error(e, high))

    low, high = lo, hi
    for reach in (4.0, 1.0, 0.3, 0.08, 0.02):
        for upper in (True, False):
            if upper and high > 0:
                high = searched(low, high, True, high, reach)
            elif not upper and low < 0:
                low = searched(low, high, False, low, reach)
    return float(low), float(high)


def last_doubling(edges: Array, counts: Array) -> float:
    """What the last doubling of samples added to their maximum: max − E[max of a random half of them].

    Of n samples x_1 ≤ … ≤ x_n the maximum of a random h = ⌊n/2⌋ is x_i with probability C(i−1, h−1)/C(n, h) (David and
    Nagaraja 2003, Order Statistics, chapter 3: a U-statistic, whatever the distribution). Where maxima have exponential
    tails, of scale β, it estimates β·ln 2, and so does the next doubling.

    Args:
        edges: `(n + 1,)` ascending, real units; counts: `(n,)` samples in each bin, which counts as its centre.

    Example:
        >>> last_doubling(np.array([0.5, 1.5, 2.5]), np.array([1, 1]))
        0.5
    """
    count = int(counts.sum())
    if count < 2:
        return 0.0
    centres, half = (edges[1:] + edges[:-1]) / 2, count // 2
    below = np.cumsum(counts).astype(np.float64)
    with np.errstate(divide="ignore"):
        chosen = np.where(below >= half, gammaln(below + 1) - gammaln(np.maximum(below - half, 0) + 1), -np.inf)
    within = np.exp(chosen - chosen[-1])  # that all of the half lie in this bin or below
    expected = float(np.diff(within, prepend=0.0) @ centres)
    return max(float(centres[counts > 0][-1]) - expected, 0.0)


def least_noise_headroom(width: float, scale: float, values: float, samples: int, steps: int) -> float:
    """How much wider a grid shall be than what samples showed, for the least mean squared error on new ones: h ≥ 0.

    Rounding costs each value (w + h)²/(12·S²), w being the width and S the steps of the grid. A new sample exceeds
    what n have shown with chance 1/(n + 1); where maxima have exponential tails of scale β, by t with density
    e^(−t/β)/β: one of its V values is then off by what lies beyond h, which costs each value
    2·β²·e^(−h/β)/((n + 1)·V). The sum is least where (w + h)·e^(h/β) = 12·S²·β/((n + 1)·V): with y = (w + h)/β,
    y + ln y = w/β + ln(12·S²/((n + 1)·V)), Wright's omega function.

    Example:
        >>> few, many = (least_noise_headroom(10.0, 1.0, values, 16, 255) for values in (2, 100_000))
        >>> round(few, 1), many  # of two values in all, one that saturates is half of what there is
        (7.2, 0.0)
    """
    if not (width > 0 and scale > 0 and values > 0):
        return 0.0
    y = wrightomega(width / scale + np.log(12 * steps**2 / ((samples + 1) * values)))
    return max(scale * float(y) - width, 0.0)


def extent(lo: float, hi: float) -> float:
    """Width of the grid that holds a range: grids hold zero."""
    return max(hi, 0.0) - min(lo, 0.0)


def lost(own: float, shared: float) -> bool:
    """Whether values that need a grid of width `own` lose three bits or more on one of width `shared`.

    Example:
        >>> lost(1.0, 640.0), lost(1.0, 2.0)
        (True, False)
    """
    return 0 < own * COARSER <= shared


def better_apart(own: float, shared: float, readers: int) -> bool:
    """Whether a joined tensor better keeps its own grid and is rounded again where it is joined.

    Rounding makes noise in proportion to width². On the shared grid its `readers` and the join all see shared²; on its
    own the readers see own², the join own² + shared²: with readers less noise in all wherever own² < shared²/2. Every
    further rounding is work, and such predictions are off by some dB, so that only what loses bits is rounded again.

    Example:
        >>> better_apart(1.0, 10.0, readers=1), better_apart(1.0, 10.0, readers=0), better_apart(1.0, 4.0, readers=1)
        (True, False, False)
    """
    return lost(own, shared) and (1 + readers) * own**2 < readers * shared**2
