import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from numpy.typing import NDArray
from scipy.optimize import minimize

from equint.ir.model import QSpec
from equint.maths.clipping import best_of_both, clip_error, grid_search, nelder_mead, percentile


def test_error_by_hand() -> None:
    # grid of 2 bits on [-1, 2]: -1, 0, 1, 2
    rows = np.array([[-3.0, 0.4, 1.6, 5.0]], np.float32)
    worth = np.array([[1.0, 1.0, 2.0, 0.5]])
    found = clip_error(rows, worth, np.array([-1.0]), np.array([2.0]), QSpec(2, signed=False, symmetric=False))
    assert found[0] == pytest.approx(4 + 0.16 + 2 * 0.16 + 0.5 * 9, rel=1e-6)


@pytest.mark.slow
@settings(max_examples=25)
@given(st.integers(0, 1000), st.sampled_from([2, 3, 4, 8]), st.booleans())
def test_neither_search_costs_more_than_the_extremes(seed: int, bits: int, symmetric: bool) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.standard_t(3, (2, 80)).astype(np.float32)
    worth, spec = rng.uniform(0.1, 1, rows.shape), QSpec(bits, symmetric=symmetric)
    ends = np.minimum(rows.min(1), 0), np.maximum(rows.max(1), 0)
    plain = clip_error(rows, worth, *ends, spec)
    simplex = clip_error(rows, worth, *nelder_mead(rows, worth, spec), spec)
    best = clip_error(rows, worth, *best_of_both(rows, worth, spec), spec)
    assert np.all(clip_error(rows, worth, *grid_search(rows, worth, spec), spec) <= plain)
    assert np.all(best <= plain)
    assert np.all(best <= simplex)


@pytest.mark.slow
def test_the_search_comes_near_the_least_of_a_fine_grid() -> None:
    rows = np.random.default_rng(0).laplace(size=(1, 400)).astype(np.float32)
    spec = QSpec(4, signed=False, symmetric=False)
    worth = np.ones(rows.shape)
    every = [
        clip_error(rows, worth, rows.min(1) * a, rows.max(1) * b, spec)[0]
        for a in np.linspace(0.15, 1, 120)
        for b in np.linspace(0.15, 1, 120)
    ]
    assert clip_error(rows, worth, *grid_search(rows, worth, spec), spec)[0] <= 1.02 * min(every)


@pytest.mark.slow
def test_the_simplex_ends_where_scipys_defaults_do() -> None:
    rows = np.random.default_rng(4).standard_t(3, (3, 60)).astype(np.float32)
    worth, spec = np.ones(rows.shape), QSpec(4, signed=False, symmetric=False)
    for row, own, lo, hi in zip(rows, worth, *nelder_mead(rows, worth, spec), strict=True):

        def cost(ends: NDArray[np.float64], row: NDArray[np.float32] = row, own: NDArray[np.float64] = own) -> float:
            return float(clip_error(row[None], own[None], ends[:1], ends[1:], spec)[0])

        found = minimize(cost, [float(row.min()), float(row.max())], method="Nelder-Mead")
        assert (lo, hi) == pytest.approx(tuple(found.x))


@given(st.integers(2, 400), st.floats(0.01, 30))
def test_so_many_weights_lie_beyond_a_fixed_percentile(count: int, percent: float) -> None:
    rows = np.random.default_rng(count).permutation(np.arange(-count, count + 1)).astype(np.float32)[None]
    (lo,), (hi,) = percentile(rows, percent)
    beyond = int(2 * count * percent / 100 + 1e-9)  # of 2n steps between sorted weights, so many
    assert (hi, -lo) == pytest.approx([count - 2 * count * percent / 100] * 2)
    assert beyond <= np.sum(rows > hi + 1e-6) <= beyond + 1


def test_a_fixed_percentile_holds_zero() -> None:
    (lo,), (hi,) = percentile(np.array([[1.0, 2.0, 3.0, 4.0, 5.0]], np.float32), 25.0)
    assert (lo, hi) == (0.0, 4.0)
