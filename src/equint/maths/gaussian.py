"""What a Gaussian becomes under the non-linearities and poolings of a CNN. Elementwise on arrays."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import ndtr

from ..model import Array

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(48)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


def density(x: Array) -> Array:
    """Standard normal density φ(x).

    Example:
        >>> round(float(density(np.float64(0))), 4)
        0.3989
    """
    return np.asarray(np.exp(-0.5 * np.square(x)) / np.sqrt(2 * np.pi))


def between(mean: Array, std: Array, lo: Array | float, hi: Array | float) -> Array:
    """P(lo < z < hi), z ~ N(mean, std²); infinite bounds are allowed.

    Example:
        >>> round(float(between(np.array(0.0), np.array(1.0), -1.0, 1.0)), 4)
        0.6827
    """
    sigma = np.maximum(np.asarray(std, np.float64), 1e-30)
    return np.asarray(ndtr((hi - mean) / sigma) - ndtr((lo - mean) / sigma))


def clipped(mean: Array, std: Array, lo: Array | float, hi: Array | float) -> tuple[Array, Array]:
    """Mean and standard deviation of clip(z, lo, hi), z ~ N(mean, std²).

    With A = (lo − mean)/std, B = (hi − mean)/std (Nagel et al. 2019, appendix):
    E[x] = lo·Φ(A) + hi·(1 − Φ(B)) + mean·(Φ(B) − Φ(A)) + std·(φ(A) − φ(B)); E[x²] alike.
    Infinite bounds are allowed (ReLU is lo = 0, hi = ∞).

    Args:
        mean, std: same shape, real units, std ≥ 0.
        lo, hi: broadcastable bounds.

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


def _times(value: Array | float, probability: Array) -> Array:
    """value · probability, with ∞ · 0 = 0."""
    value = np.asarray(value, np.float64)
    return np.where(np.isinf(value), 0.0, np.where(np.isinf(value), 0.0, value) * probability)


def leaky(mean: Array, std: Array, slope: Array | float) -> tuple[Array, Array]:
    """Mean and standard deviation of max(z, 0) + slope·min(z, 0) (LeakyReLU, PReLU).

    Example:
        >>> m, s = leaky(np.array(0.0), np.array(1.0), 1.0)
        >>> round(float(m), 6), round(float(s), 6)
        (0.0, 1.0)
    """
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

    Args:
        f: elementwise function; smooth ones are integrated to rounding.

    Example:
        >>> m, s = through(lambda z: 2 * z + 1, np.array(3.0), np.array(0.5))
        >>> round(float(m), 6), round(float(s), 6)
        (7.0, 1.0)
    """
    values = f(np.asarray(mean, np.float64)[..., None] + np.asarray(std, np.float64)[..., None] * _NODES)
    first = values @ _WEIGHTS
    return first, np.sqrt(np.maximum(np.square(values - first[..., None]) @ _WEIGHTS, 0.0))


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
    """Standard deviation of the mean of `count` neighbouring positions.

    Neighbours in a feature map are far from independent, so the spread falls as count^-0.2 and not as
    count^-0.5: the average over the global poolings of real networks (docs/moments.md).

    Example:
        >>> float(averaged(np.array(1.0), 32))
        0.5
    """
    return np.asarray(std / max(float(count), 1.0) ** 0.2)


def maximum(mean: Array, std: Array, count: float) -> tuple[Array, Array]:
    """Mean and standard deviation of the largest of `count` neighbouring positions.

    Neighbours are correlated: √count of them are taken as independent. The expected maximum of n standard normals
    is Blom's Φ⁻¹((n − 0.375)/(n + 0.25)); its spread is taken as (1 + 0.6·ln n)^-½.

    Example:
        >>> m, s = maximum(np.array(0.0), np.array(1.0), 1)
        >>> abs(float(m)) < 1e-9, float(s)
        (True, 1.0)
    """
    from scipy.special import ndtri

    n = max(float(count), 1.0) ** 0.5
    return mean + std * ndtri((n - 0.375) / (n + 0.25)), std / np.sqrt(1 + 0.6 * np.log(n))
