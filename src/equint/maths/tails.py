"""How far activations reach beyond a bound: partial moments of the logistic distribution.

Pre-activations of trained networks fall off more slowly than a Gaussian; how slowly differs from network to
network. Of the laws that were tried (docs/noise.md), the logistic one, whose tail falls off as exp(−1.81·z) in
standard deviations, chose the ranges that measured best.
"""

from __future__ import annotations

from math import pi, sqrt

import numpy as np
from scipy.special import expit, spence

from ..model import Array

_PER_STD = pi / sqrt(3)  # standard deviation of the logistic distribution of scale 1
_FAR = 600.0


def exceedance(mean: Array, std: Array, bound: Array) -> tuple[Array, Array, Array]:
    """E[(z − b)²₊], E[(z − b)₊] and P(z > b) for z of the given mean and standard deviation.

    With u = (b − mean)/scale and scale = std·√3/π they are −2·scale²·Li₂(−e^−u), scale·ln(1 + e^−u) and
    1/(1 + e^u). Each is minus the derivative of the one before it with respect to b (the first: twice the second).

    Args:
        mean, std: same shape, real units, std ≥ 0.
        bound: broadcastable.

    Example:
        >>> second, first, zeroth = exceedance(np.array(0.0), np.array(1.0), np.array(0.0))
        >>> round(float(second), 6), round(float(first), 6), round(float(zeroth), 6)
        (0.5, 0.382145, 0.5)
    """
    scale = np.maximum(np.asarray(std, np.float64), 1e-30) / _PER_STD
    u = np.clip((bound - mean) / scale, -1e30, 1e30)
    below = u < -_FAR
    second = np.where(below, np.square(u) + pi**2 / 3, -2 * spence(1 + np.exp(-np.clip(u, -_FAR, _FAR))))
    return np.square(scale) * second, scale * np.logaddexp(0, -u), expit(-u)
