"""The simplex search of Nelder and Mead (1965) in SciPy's form, with what it starts from and when it stops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..ir.model import Array

STILL = 0.00025
"""How far the first simplex reaches along a coordinate that starts at zero."""


@dataclass(frozen=True)
class Simplex:
    """The first simplex, and the spread at which the last one has converged.

    Oh et al. (2020) stop where the error changes by less than a tolerance, and name neither it nor the simplex; these
    are SciPy's. With weights' errors below it, `error_tolerance` alone would stop at once: both must be met.

    Attributes:
        size: share of each coordinate of the start by which a corner lies further out.
        range_tolerance: largest distance of the corners' coordinates, in their unit; infinite: not asked.
        error_tolerance: largest difference of the corners' errors, in their unit; infinite: not asked.
    """

    size: float = 0.05
    range_tolerance: float = 1e-4
    error_tolerance: float = 1e-4


def search(cost: Callable[[Array], float], start: Array, how: Simplex) -> tuple[Array, float, int]:
    """Where the search ends, the cost there, and how often `cost` was evaluated; `start` is `(n,)`.

    Example:
        >>> at, least, evaluations = search(lambda x: float((x[0] - 3) ** 2), np.array([2.0]), Simplex())
        >>> round(float(at[0]), 3), evaluations < 50
        (3.0, True)
    """
    from scipy.optimize import minimize

    start = np.asarray(start, np.float64)
    corners = np.tile(start, (start.size + 1, 1))
    k = np.arange(start.size)
    corners[k + 1, k] = np.where(start == 0, STILL, (1 + how.size) * start)
    found = minimize(
        cost,
        start,
        method="Nelder-Mead",
        options={"initial_simplex": corners, "xatol": how.range_tolerance, "fatol": how.error_tolerance},
    )
    return np.asarray(found.x), float(found.fun), int(found.nfev)
