"""Shifts follow the paper's formulas, and the exact search finds what trying every total range finds."""

import itertools

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from numpy.typing import NDArray
from scipy.optimize import minimize

from equint.ir.model import QSpec
from equint.maths.shifts import deterministic, error, exact, nelder_mead, shifts_of, symmetric_ranges, totals
from equint.maths.simplex import Simplex

Floats = NDArray[np.float32]
UINT8 = QSpec(8, signed=False, symmetric=False)
MOST = 15


@st.composite
def rows(draw: st.DrawFn) -> Floats:
    """Weights of up to six channels whose ranges differ by up to 2^12, some dead."""
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    shape = draw(st.integers(1, 6)), draw(st.integers(1, 9))
    widths = 2.0 ** rng.uniform(-12, 0, (shape[0], 1)) * rng.choice([0, 1], (shape[0], 1), p=[0.1, 0.9])
    skew = rng.uniform(-1, 1, (shape[0], 1))
    return np.asarray((rng.normal(size=shape) + skew) * widths, np.float32)


def paper(weights: Floats, total: float, spec: QSpec) -> tuple[list[int], float]:
    """Lines 6 to 12 of Algorithm 1, one weight after the other, with the grid nudged to hold zero."""
    shifts = []
    for row in weights:
        r = 2 * max(abs(float(row.max())), abs(float(row.min())))
        shifts.append(max((k for k in range(MOST + 1) if r > 0 and r * 2.0**k <= total), default=0))
    shifted = [[float(w) * 2**s for w in row] for row, s in zip(weights, shifts, strict=True)]
    flat = [w for row in shifted for w in row]
    low, high = min(*flat, 0.0), max(*flat, 0.0)
    step = float(np.float32((high - low) / (2**spec.bits - 1))) or 1.0
    zero = min(max(round(-low / step), 0), 2**spec.bits - 1)
    cost = 0.0
    for row, s in zip(shifted, shifts, strict=True):
        for w in row:
            q = min(max(round(w / step) + zero, 0), 2**spec.bits - 1)
            cost += ((w - step * (q - zero)) / 2**s) ** 2
    return shifts, cost / weights.size


@given(rows(), st.floats(0.01, 2.0))
def test_shifts_and_cost_are_algorithm_1(weights: Floats, share: float) -> None:
    ranges = symmetric_ranges(weights)
    total = float(ranges.max()) * share
    if total == 0 or weights.size < 2:
        return
    wanted, cost = paper(weights, total, UINT8)
    found = shifts_of(ranges, total, MOST)
    assert found.tolist() == wanted
    assert error(weights, found, UINT8) == pytest.approx(cost, rel=0.02, abs=1e-12)  # float32 decides near ties


def test_worked_shifts() -> None:
    ranges = np.array([8.0, 4.0, 4.01, 1.0, 8 / 2**20])
    assert shifts_of(ranges, 8.0, 15).tolist() == [0, 1, 0, 3, 15]
    assert shifts_of(ranges, 8.0, 3).tolist() == [0, 1, 0, 3, 3]
    assert shifts_of(ranges, 2.0, 15).tolist() == [0, 0, 0, 1, 15]


@pytest.mark.slow
@settings(max_examples=40)
@given(rows(), st.booleans())
def test_the_exact_search_is_the_least_of_all_total_ranges(weights: Floats, weighed: bool) -> None:
    worth = np.random.default_rng(0).uniform(0.01, 1, weights.shape).astype(np.float32) if weighed else None
    found = exact(weights, UINT8, MOST, worth)
    assert found.cost == error(weights, found.shifts, UINT8, worth)
    ranges = symmetric_ranges(weights)
    top = max(float(ranges.max()), 1e-9)
    for total in np.geomspace(top * 2**-13, top * 1.9999, 200):
        cost = error(weights, shifts_of(ranges, float(total), MOST), UINT8, worth)
        assert found.cost <= cost * (1 + 1e-6) + 1e-18
    for other in (deterministic, nelder_mead):
        assert found.cost <= other(weights, UINT8, MOST, worth).cost * (1 + 1e-6) + 1e-18


@given(rows())
def test_nothing_changes_between_two_totals(weights: Floats) -> None:
    ranges = symmetric_ranges(weights)
    at = totals(ranges, MOST)
    for first, second in itertools.pairwise(at):
        inside = first + 0.999 * (second - first)
        assert shifts_of(ranges, first, MOST).tolist() == shifts_of(ranges, inside, MOST).tolist()


def test_dropping_candidates_early_loses_nothing() -> None:
    weights = np.random.default_rng(3).normal(0, 2.0 ** np.random.default_rng(4).uniform(-6, 0, (300, 1)), (300, 20))
    weights = weights.astype(np.float32)
    ranges = symmetric_ranges(weights)
    every = min(error(weights, shifts_of(ranges, float(t), MOST), UINT8) for t in totals(ranges, MOST))
    assert exact(weights, UINT8, MOST).cost == pytest.approx(every, rel=1e-6)


def test_weights_of_zeros_are_not_shifted() -> None:
    nothing = np.zeros((3, 4), np.float32)
    for search in (deterministic, nelder_mead, exact):
        assert search(nothing, UINT8, MOST, None).shifts.tolist() == [0, 0, 0]


def test_algorithm_1_by_hand() -> None:
    """Three channels with extremes 6, 3.5 and −0.5; r = 12, 7, 1 and r̂ = 12: shifts 0, 0, 3.

    Shifted rows (6, −1), (3.5, −2), (−4, 2): [min, max] = [−4, 6], with 4 bits a step of 2/3 and zero at 6. In steps
    9, −1.5, 5.25, −3, −6 and 3, of which 5.25 loses 0.25 and −1.5 a half: off by 1/3, 1/6, and nothing elsewhere.
    """
    rows = np.array([[6, -1], [3.5, -2], [-0.5, 0.25]], np.float32)
    spec = QSpec(4, signed=False, symmetric=False)
    assert symmetric_ranges(rows).tolist() == [12, 7, 1]
    found = deterministic(rows, spec, MOST)
    assert (found.total, found.shifts.tolist()) == (12, [0, 0, 3])
    assert found.cost == pytest.approx((1 / 3**2 + 1 / 6**2) / 6, rel=1e-5)
    # r̂ = 7 would shift the last channel by 2 alone: the last row is (−2, 1), and [−2, 6] has a step of 8/15
    assert shifts_of(np.array([12.0, 7.0, 1.0]), 7.0, MOST).tolist() == [0, 0, 2]
    # in steps 11.25, −1.875, 6.5625, −3.75 and, shifted back by 4, −3.75 and 1.875, with zero at 4
    steps = np.array([0.25, 0.125, 0.4375, 0.25, 0.25 / 4, 0.125 / 4])
    assert error(rows, np.array([0, 0, 2]), spec) == pytest.approx(float(np.mean((steps * 8 / 15) ** 2)), rel=1e-5)


@pytest.mark.parametrize("simplex", [Simplex(), Simplex(-0.4, 1e-3, np.inf), Simplex(0.5, np.inf, 1e-9)])
def test_the_simplex_search_is_scipys(simplex: Simplex) -> None:
    weights = np.random.default_rng(1).normal(0, [[1.0], [0.7], [0.3], [0.02]], (4, 50)).astype(np.float32)
    ranges, start = symmetric_ranges(weights), deterministic(weights, UINT8, MOST)

    def cost(total: NDArray[np.float64]) -> float:
        return error(weights, shifts_of(ranges, float(total[0]), MOST), UINT8)

    wanted = minimize(
        cost,
        [start.total],
        method="Nelder-Mead",
        options={
            "initial_simplex": np.array([[start.total], [start.total * (1 + simplex.size)]]),
            "xatol": simplex.range_tolerance,
            "fatol": simplex.error_tolerance,
        },
    )
    found = nelder_mead(weights, UINT8, MOST, None, simplex)
    assert (found.total, found.cost, found.tried) == (wanted.x[0], wanted.fun, wanted.nfev)
