"""Positive values that were measured with much scatter, smoothed along the order that they lie in."""

from __future__ import annotations

import numpy as np

from ..ir.model import Array

OUTLYING = 10.0
"""Times above or below the geometric mean of its neighbours that a value counts for at most."""


def smoothed(at: Array, places: Array, values: Array, width: float, weights: Array | float = 1.0) -> Array:
    """Weighted mean of the values near each place: Σ_j w_j·v_j / Σ_j w_j, w_j = weights_j·exp(−(x − j)²/(2·width²)).

    x is where a place lies among the measured ones, j their numbers: neighbours count alike however far apart they are
    (Nadaraya 1964, Watson 1964). A value beyond `OUTLYING` times the weighted geometric mean counts as that.

    Args:
        at: `(K,)` places that are asked for. places: `(J,)` where values were measured, rising.
        values: `(J,)` > 0. width: standard deviation of the kernel, in measured places.
        weights: `(J,)` > 0: how much each counts.

    Example:
        >>> smoothed(np.array([0.0, 5.0]), np.array([0.0, 10.0]), np.array([1.0, 4.0]), 0.5).round(2).tolist()
        [1.36, 2.5]
    """
    number = np.arange(places.size)
    x = np.interp(at, places, number)
    weight = np.exp(-np.square(x[:, None] - number) / (2 * width**2)) * weights
    weight /= weight.sum(1, keepdims=True)
    level = np.exp(weight @ np.log(values))[:, None]
    return np.asarray((weight * np.clip(values, level / OUTLYING, level * OUTLYING)).sum(1))
