"""How far activations reach beyond a bound: partial moments of the Laplace distribution.

Pre-activations of trained networks fall off more slowly than a Gaussian; how slowly differs from network to
network. Of the laws that were tried (docs/noise.md), those whose tail falls off exponentially chose the ranges
that measured best, and this one is the simplest of them.
"""

from __future__ import annotations

from math import sqrt

import numpy as np

from ..ir.model import Array

_DECAY = sqrt(2)  # per standard deviation


def exceedance(mean: Array, std: Array, bound: Array) -> tuple[Array, Array, Array]:
    """E[(z − b)²₊], E[(z − b)₊] and P(z > b) for z of the given mean and standard deviation.

    With c = (b − mean)/std ≥ 0 and e = exp(−√2·c) they are std²·e/2, std·e/√8 and e/2; below the mean the
    mirror image is taken off the full moments. Each is minus the derivative of the one before it with respect
    to b (the first: twice the second).

    Example:
        >>> [round(float(e), 6) for e in exceedance(np.array(0.0), np.array(1.0), np.array(0.0))]
        [0.5, 0.353553, 0.5]
    """
    std = np.maximum(np.asarray(std, np.float64), 1e-30)
    c = np.clip((bound - mean) / std, -1e30, 1e30)
    tail = np.exp(-_DECAY * np.abs(c)) / 2
    above = c >= 0
    second = np.where(above, tail, np.square(c) + 1 - tail)
    first = np.where(above, tail / _DECAY, tail / _DECAY - c)
    return np.square(std) * second, std * first, np.where(above, tail, 1 - tail)
