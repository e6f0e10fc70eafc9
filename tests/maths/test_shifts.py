"""Shifts follow the paper's formulas, and the exact search finds what trying every total range finds."""

import itertools

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from numpy.typing import NDArray

from equint.ir.model import QSpec
from equint.maths.shifts import deterministic, error, exact, nelder_mead, shifts_of, symmetric_ranges, totals

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
