"""How far activations reach beyond a bound: partial moments of a heavy-tailed law.

Pre-activations of trained networks fall off like |z|^-7, not like a Gaussian: over the BatchNorm outputs of real
networks the mean of E[(z − b)²₊] at 2, 4 and 8 standard deviations is 10^-1.6, 10^-2.5 and 10^-3.7 (MobileNetV2;
docs/noise.md). Student's t with 6 degrees of freedom, scaled to the given standard deviation, gives 10^-1.6, 10^-2.5
and 10^-3.7; a Gaussian would give 10^-2.2, 10^-5.5 and 10^-16.7.
"""

from __future__ import annotations

from math import sqrt

import numpy as np

from ..model import Array

_UNIT = sqrt(2 / 3)  # scale at which t with 6 degrees of freedom has standard deviation 1
_DENSITY = 15 / (16 * sqrt(6))  # of t at 0: Γ(7/2)/(Γ(3)·√(6π))
_FAR = 40.0


def exceedance(mean: Array, std: Array, bound: Array) -> tuple[Array, Array, Array]:
    """E[(z − b)²₊], E[(z − b)₊] and P(z > b) for z of the given mean and standard deviation.

    Each is minus the derivative of the one before it with respect to b (the first: twice the second).

    Args:
        mean, std: same shape, real units, std ≥ 0.
        bound: broadcastable.

    Example:
        >>> second, first, zeroth = exceedance(np.array(0.0), np.array(1.0), np.array(0.0))
        >>> round(float(second), 6), round(float(first), 6), round(float(zeroth), 6)
        (0.5, 0.375, 0.5)
    """
    unit = np.maximum(np.asarray(std, np.float64), 1e-30) * _UNIT
    c = np.clip((bound - mean) / unit, -1e30, 1e30)
    near = np.clip(c, -_FAR, _FAR)
    q = 6 / (6 + np.square(near))
    sine = near / np.sqrt(6 + np.square(near))
    above = 0.5 * (1 - sine * (1 + q / 2 + 3 * q * q / 8))
    above4 = 0.5 * (1 - sine * (1 + q / 2))  # the same of t with 4 degrees of freedom, at c·√(4/6)
    density = _DENSITY * q**3.5
    beyond = (6 + np.square(near)) / 5 * density  # E[t; t > c]
    square = 6 * (5 / 4 * above4 - above)  # E[t²; t > c]
    first = beyond - near * above
    second = np.maximum(square - 2 * near * beyond + np.square(near) * above, 0.0)
    far, below = c > _FAR, c < -_FAR
    if np.any(far | below):
        with np.errstate(over="ignore"):
            ratio = np.where(far, _FAR / np.maximum(c, _FAR), 1.0)
            above, first, second = above * ratio**6, first * ratio**5, second * ratio**4
            first = np.where(below, -c, first)
            second = np.where(below, np.square(c) + 1 / _UNIT**2, second)
    return np.square(unit) * second, unit * first, above
