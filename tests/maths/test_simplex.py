"""The simplex search beside SciPy's own defaults, and its first steps by hand."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from scipy.optimize import minimize

from equint.ir.model import Array
from equint.maths.simplex import Simplex, search


def bowl(x: Array) -> float:
    return float(np.sum((x - np.arange(1, x.size + 1)) ** 2 * np.arange(1, x.size + 1)))


@settings(max_examples=20)
@given(st.lists(st.floats(-4, 4).map(lambda v: round(v, 2)), min_size=1, max_size=3))
def test_the_defaults_are_scipys(start: list[float]) -> None:
    own = minimize(bowl, start, method="Nelder-Mead")
    at, least, tried = search(bowl, np.array(start), Simplex())
    assert (at.tolist(), least, tried) == (own.x.tolist(), own.fun, own.nfev)


def test_first_steps_by_hand() -> None:
    """(x − 3)² from 2 with a corner at 2.5: reflected to 3, expanded to 3.5, which is worse, so 3 it is."""
    seen = list[float]()

    def cost(x: Array) -> float:
        seen.append(float(x[0]))
        return bowl(x + np.array([-2.0]))

    search(cost, np.array([2.0]), Simplex(size=0.25))
    assert seen[:4] == [2.0, 2.5, 3.0, 3.5]


@pytest.mark.parametrize("tolerance", [1e-2, 1e-6])
def test_it_ends_where_both_tolerances_are_met(tolerance: float) -> None:
    loose, tight = (search(bowl, np.array([7.0, 7.0]), Simplex(0.05, *each)) for each in ((1.0, 1.0), (tolerance, 1.0)))
    assert loose[2] < tight[2]
    assert np.abs(tight[0] - [1, 2]).max() < 2 * tolerance
    by_error = search(bowl, np.array([7.0, 7.0]), Simplex(0.05, np.inf, tolerance))
    assert by_error[1] < 2 * tolerance
