"""What a Gaussian becomes under the non-linearities and poolings of a CNN. Elementwise on arrays."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..ir.model import Array
from .special import ndtr

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(48)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


def density(x: Array) -> Array:
    """Standard normal density φ(x)."""
    return np.asarray(np.exp(-0.5 * np.square(x)) / np.sqrt(2 * np.pi))


def between(mean: Array, std: Array, lo: Array | float, hi: Array | float) -> Array:
    """P(lo < z < hi), z ~ N(mean, std²); infinite bounds are allowed."""
    sigma = np.maximum(np.asarray(std, np.float64), 1e-30)
    return np.asarray(ndtr((hi - mean) / sigma) - ndtr((lo - mean) / sigma))


def clipped(mean: Array, std: Array, lo: Array | float, hi: Array | float) -> tuple[Array, Array]:
    """Mean and standard deviation of clip(z, lo, hi), z ~ N(mean, std²).

    With A = (lo − mean)/std, B = (hi − mean)/std (Nagel et al. 2019, appendix):
    E[x] = lo·Φ(A) + hi·(1 − Φ(B)) + mean·(Φ(B) − Φ(A)) + std·(φ(A) − φ(B)); E[x²] alike.
    Infinite bounds are allowed (ReLU is lo = 0, hi = ∞).

    Example:
        >>> m, s = clipped(np.array(0.0), np.array(1.0), 0.0, np.inf)
        >>> round(float(m), 4), round(float(s), 4)
        (0.3989, 0.5838)
    """
    mean, sigma = np.asarray(mean, np.float64), np.maximum(np.asarray(std, np.float64), 1e-30)
    with np.errstate(over="ignore"):
        a, b = (np.asarray(lo, np.float64) - mean) / sigma, (np.asarray(hi, np.float64) - mean) / sigma
    inside = ndtr(b) - ndtr(a)
    pa, pb = density(a), density(b)
    low, high = _times(lo, ndtr(a)), _times(hi, ndtr(-b))
    first = low + high + mean * inside + sigma * (pa - pb)
    # the second moment about `first`, so that nothing cancels when the mean is far larger than std
    shift = mean - first
    second = (
        _times(np.square(np.asarray(lo, np.float64) - first), ndtr(a))
        + _times(np.square(np.asarray(hi, np.float64) - first), ndtr(-b))
        + (np.square(shift) + np.square(sigma)) * inside
        + 2 * shift * sigma * (pa - pb)
        + np.square(sigma) * (_times(a, pa) - _times(b, pb))
    )
    return first, np.sqrt(np.maximum(second, 0.0))


def unclipped(mean: Array, std: Array, lo: Array | float, hi: Array | float) -> tuple[Array, Array]:
    """The Gaussian whose clip(z, lo, hi) has the given mean and standard deviation: the inverse of `clipped`.

    Where one bound alone matters, E[x]²/E[x²] tells μ/σ by a table; from there Newton steps, shortened until they help,
    in log σ and in the deviations between μ and the middle of the bounds: in these a Gaussian much wider than the
    bounds are apart is as easy as any. What is nearly always clipped has no unique inverse: the result then lies at
    most five deviations beyond the bound.

    Example:
        >>> m, s = unclipped(*clipped(np.array([0.5, 4.0]), np.array([1.0, 3.0]), 0.0, 6.0), 0.0, 6.0)
        >>> m.round(4).tolist(), s.round(4).tolist()
        ([0.5, 4.0], [1.0, 3.0])
    """
    mean, std, lo, hi = (np.asarray(a, np.float64) for a in np.broadcast_arrays(mean, std, lo, hi))
    flat = std <= 1e-9 * np.abs(mean) + 1e-30
    unit = np.where(flat, 1.0, std)  # everything below in units of the spread that is left
    target, low, high = mean / unit, lo / unit, hi / unit
    starts = [(target, np.zeros(mean.shape))]
    if np.isfinite(lo).any():
        mu, log = _unrectified(target - np.where(np.isinf(low), target, low))
        starts.append((mu + low, log))
    if np.isfinite(hi).any():
        mu, log = _unrectified(np.where(np.isinf(high), target, high) - target)
        starts.append((high - mu, log))
    mu, log = starts[0]
    miss = _miss(mu, log, low, high, target)
    for other_mu, other_log in starts[1:]:
        with np.errstate(invalid="ignore"):
            other = _miss(other_mu, other_log, low, high, target)
            better = np.abs(other).max(0) < np.abs(miss).max(0)
        mu, log, miss = np.where(better, other_mu, mu), np.where(better, other_log, log), np.where(better, other, miss)
    below = np.where(np.isfinite(low), low, np.where(np.isfinite(high), high, target))
    centre = (below + np.where(np.isfinite(high), high, below)) / 2
    at, log, open_ = np.array((mu - centre) / np.exp(log)), np.array(log), np.abs(miss).max(0) >= 1e-9
    for _ in range(40):
        if not open_.any():
            break
        before = at.copy(), log.copy()
        found = _newton(at[open_], log[open_], miss[:, open_], *(a[open_] for a in (centre, low, high, target)))
        at[open_], log[open_], miss[:, open_] = found
        open_ = (np.abs(miss).max(0) >= 1e-9) & ((at != before[0]) | (log != before[1]))  # what is stuck stays so
    mu = centre + at * np.exp(log)
    return np.where(flat, mean, unit * mu), np.where(flat, std, unit * np.exp(log))


def _newton(
    at: Array, log: Array, miss: Array, centre: Array, low: Array, high: Array, target: Array
) -> tuple[Array, Array, Array]:
    """One step of `unclipped`, shortened until it helps; where nothing does it stays."""

    def missed(at: Array, log: Array) -> Array:
        return _miss(centre + at * np.exp(log), log, low, high, target)

    by_at, by_log = ((missed(at + e, log + f) - miss) / 1e-6 for e, f in ((1e-6, 0), (0, 1e-6)))
    det = by_at[0] * by_log[1] - by_at[1] * by_log[0]
    det = np.where(np.abs(det) < 1e-12, 1e-12, det)
    step_at = np.clip((miss[0] * by_log[1] - miss[1] * by_log[0]) / det, -1, 1)
    step_log = np.clip((by_at[0] * miss[1] - by_at[1] * miss[0]) / det, -0.5, 0.5)
    for part in (1.0, 0.5, 0.1):
        new_at, new_log = at - part * step_at, np.clip(log - part * step_log, -1.0, 20.0)
        new = missed(new_at, new_log)
        better = np.abs(new).max(0) < np.abs(miss).max(0)
        at, log, miss = np.where(better, new_at, at), np.where(better, new_log, log), np.where(better, new, miss)
    return at, log, miss


def _unrectified(mean: Array) -> tuple[Array, Array]:
    """(μ, log σ) of the Gaussian whose max(z, 0) has the given mean and standard deviation 1."""
    a = np.concatenate([np.linspace(-5, 8, 1301), np.geomspace(8.01, 1e6, 400)])
    first, spread = clipped(a, np.ones(a.shape), 0.0, np.inf)
    found = np.interp(mean, first / spread, a)
    log = -np.log(np.interp(found, a, spread))
    return found * np.exp(log), log


def _miss(mu: Array, log: Array, lo: Array, hi: Array, target: Array) -> Array:
    first, second = clipped(mu, np.exp(log), lo, hi)
    return np.stack([first - target, np.log(np.maximum(second, 1e-300))])


def _times(value: Array | float, probability: Array) -> Array:
    """value · probability, with ∞ · 0 = 0."""
    value = np.asarray(value, np.float64)
    return np.where(np.isinf(value), 0.0, np.where(np.isinf(value), 0.0, value) * probability)


def leaky(mean: Array, std: Array, slope: Array | float) -> tuple[Array, Array]:
    """Mean and standard deviation of max(z, 0) + slope·min(z, 0) (LeakyReLU, PReLU)."""
    mean, sigma = np.asarray(mean, np.float64), np.maximum(np.asarray(std, np.float64), 1e-30)
    with np.errstate(over="ignore"):
        edge = -mean / sigma
    below, above, at = ndtr(edge), ndtr(-edge), density(edge)
    first = mean * above + sigma * at + slope * (mean * below - sigma * at)
    # both halves about `first`, so that nothing cancels when the mean is far larger than std
    up, down = mean - first, slope * mean - first
    bend = _times(edge, at)
    upper = np.square(sigma) * (above + bend) + 2 * up * sigma * at + np.square(up) * above
    lower = np.square(slope * sigma) * (below - bend) - 2 * slope * down * sigma * at + np.square(down) * below
    return first, np.sqrt(np.maximum(upper + lower, 0.0))


def through(f: Callable[[Array], Array], mean: Array, std: Array) -> tuple[Array, Array]:
    """Mean and standard deviation of f(z), z ~ N(mean, std²), by 48-point Gauss-Hermite quadrature.

    Example:
        >>> m, s = through(lambda z: 2 * z + 1, np.array(3.0), np.array(0.5))
        >>> round(float(m), 6), round(float(s), 6)
        (7.0, 1.0)
    """
    values = f(np.asarray(mean, np.float64)[..., None] + np.asarray(std, np.float64)[..., None] * _NODES)
    first = values @ _WEIGHTS
    return first, np.sqrt(np.maximum(np.square(values - first[..., None]) @ _WEIGHTS, 0.0))


def squared_slope(f: Callable[[Array], Array], mean: Array, std: Array) -> Array:
    """E[f'(z)²], z ~ N(mean, std²): how a function multiplies the variance of small noise in its argument.

    By the quadrature of `through`, of central differences.

    Example:
        >>> round(float(squared_slope(np.square, np.array(1.0), np.array(0.5))), 6)  # 4·E[z²]
        5.0
    """
    mean, std = np.broadcast_arrays(np.asarray(mean, np.float64), np.asarray(std, np.float64))
    z = mean[..., None] + std[..., None] * _NODES
    h = 1e-4 * np.maximum(std, 1e-3 * np.maximum(np.abs(mean), 1.0))[..., None]
    return np.asarray(np.square((f(z + h) - f(z - h)) / (2 * h)) @ _WEIGHTS)


def product(a: tuple[Array, Array], b: tuple[Array, Array]) -> tuple[Array, Array]:
    """Mean and standard deviation of the product of two independent variables (mean, std).

    var = (σa² + μa²)(σb² + μb²) − μa²μb².

    Example:
        >>> product((np.array(2.0), np.array(0.0)), (np.array(3.0), np.array(1.0)))
        (np.float64(6.0), np.float64(2.0))
    """
    (ma, sa), (mb, sb) = a, b
    return ma * mb, np.sqrt(np.square(sa * sb) + np.square(sa * mb) + np.square(sb * ma))


def averaged(std: Array, count: float) -> Array:
    """Standard deviation of the mean of `count` neighbouring positions: std·count^-0.2 (docs/moments.md).

    Neighbours are far from independent, which would be count^-0.5: the average over the poolings of real networks.
    """
    return np.asarray(std / max(float(count), 1.0) ** 0.2)


def maximum(mean: Array, std: Array, count: float) -> tuple[Array, Array]:
    """Mean and standard deviation of the largest of `count` neighbouring positions.

    Neighbours are correlated: √count of them are taken as independent. The expected maximum of n standard normals
    is Blom's Φ⁻¹((n − 0.375)/(n + 0.25)); its spread is taken as (1 + 0.6·ln n)^-½.
    """
    from scipy.special import ndtri

    n = max(float(count), 1.0) ** 0.5
    return mean + std * ndtri((n - 0.375) / (n + 0.25)), std / np.sqrt(1 + 0.6 * np.log(n))
