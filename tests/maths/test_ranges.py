"""Range rules against sorted values, brute force over grids, and numbers worked by hand."""

from collections.abc import Callable
from itertools import combinations, pairwise

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.stats import norm

from equint.ir.model import QSpec
from equint.maths import ranges
from equint.maths.affine import choose_qparams, fake_quantize

Floats = NDArray[np.float64]
SHAPES: dict[str, Callable[[np.random.Generator], Floats]] = {
    "normal": lambda rng: rng.normal(size=20_000),
    "laplace": lambda rng: rng.laplace(size=20_000),
    "student": lambda rng: rng.standard_t(3, 20_000),
    "rectified": lambda rng: np.maximum(rng.normal(-0.5, 1, 20_000), 0),
    "below zero": lambda rng: -rng.exponential(2.0, 20_000),
    "far outlier": lambda rng: np.append(rng.normal(size=20_000), 40.0),
    "beside zero": lambda rng: rng.uniform(5, 6, 20_000),
    "two values": lambda rng: rng.choice([-0.25, 3.0], 20_000),
    "constant": lambda rng: np.full(100, 2.5),
    "zero": lambda rng: np.zeros(100),
}
SPECS = {
    "unsigned": QSpec(4, signed=False, symmetric=False),
    "symmetric": QSpec(4, symmetric=True),
    "8 bits": QSpec(8, signed=False, symmetric=False),
}


def histogram(values: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Counts and edges, without empty bins at the ends."""
    counts, edges = np.histogram(values, 2048)
    held = np.flatnonzero(counts)
    return counts[held[0] : held[-1] + 1].astype(np.int64), edges[held[0] : held[-1] + 2]


def drawn(shape: str, seed: int = 0) -> Floats:
    return SHAPES[shape](np.random.default_rng(seed))


# Quantiles


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.floats(0, 1), st.floats(0, 1))
def test_quantiles_divide_the_counts(counts: list[int], share: float, other: float) -> None:
    """Read back through the piecewise linear distribution, a quantile gives its share; from the top, what is left."""
    edges = np.cumsum([0.0, *np.random.default_rng(len(counts)).uniform(0.1, 2, len(counts))]) - 3
    found, top = (ranges.quantile(edges, np.array(counts), share, t) for t in (False, True))
    if sum(counts) == 0:
        assert found == top == 0
        return
    distribution = np.cumsum([0, *counts]) / sum(counts)
    for value, wanted in ((found, share), (top, 1 - share)):
        assert edges[0] <= value <= edges[-1]
        assert np.interp(value, edges, distribution) == pytest.approx(wanted, abs=1e-9)
    assert found <= ranges.quantile(edges, np.array(counts), other) or share > other


@pytest.mark.parametrize("percent", [0.0, 0.01, 0.5, 1.0, 20.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_percentiles_of_values(shape: str, percent: float) -> None:
    """The first values that are not cut off, up to a bin: as many as asked for lie beyond either end, and no fewer."""
    values = np.sort(drawn(shape)[-10_000:])
    counts, edges = histogram(values)
    lo, hi = ranges.histogram_percentile(edges, counts, percent)
    k = int(percent / 100 * values.size + 1e-6)
    np.testing.assert_allclose([lo, hi], [values[k], values[-1 - k]], rtol=0, atol=1.01 * (edges[1] - edges[0]))


def test_percentiles_by_hand() -> None:
    edges, counts = np.array([-1.0, 0.0, 1.0, 3.0]), np.array([10, 80, 10])
    assert ranges.histogram_percentile(edges, counts, 0.0) == (-1.0, 3.0)
    assert ranges.histogram_percentile(edges, counts, 5.0) == pytest.approx((-0.5, 2.0))
    assert ranges.histogram_percentile(edges, counts, 30.0) == pytest.approx((0.25, 0.75))
    assert ranges.quantile(edges, np.zeros(3), 0.5) == 0


def test_image_percentile_by_hand() -> None:
    """100 images whose extremes are 10, 20, …, 1000, in bins of width 1: one per cent cut off leaves 20 to 990."""
    counts, edges = np.histogram(10 * np.arange(1, 101), np.arange(9.5, 1001.0))
    assert ranges.quantile(edges, counts, 0.01) == 19.5
    assert ranges.quantile(edges, counts, 0.01, top=True) == 990.5


# Least squares


def loss(values: Floats, lo: float, hi: float, spec: QSpec) -> float:
    rounded = fake_quantize(values.astype(np.float32), choose_qparams(lo, hi, spec))
    return float(np.square(rounded - values).mean())


def brute_force(values: Floats, spec: QSpec, steps: int) -> float:
    """The least loss of all grids whose ends are some of many."""
    lo, hi = min(values.min(), 0.0), max(values.max(), 0.0)
    shares = np.geomspace(1e-2, 1, steps)
    lows, highs = (np.unique(np.append(shares * end, end)) for end in (lo, hi))
    return min(loss(values, a, b, spec) for a in lows for b in highs)


@pytest.mark.slow
@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("shape", SHAPES)
def test_mse_is_near_the_best_of_all_ranges(shape: str, spec: str) -> None:
    values = drawn(shape)[:2001]
    values = np.append(values, drawn(shape)[-1])
    counts, edges = histogram(values)
    found = loss(values, *ranges.mse(edges, counts, SPECS[spec]), SPECS[spec])
    best = brute_force(values, SPECS[spec], 16 if values.min() < 0 < values.max() else 100)
    assert found <= 1.03 * best + 1.01 * np.square(edges[1] - edges[0])


@pytest.mark.slow
@settings(max_examples=40)
@given(st.integers(0, 2**16), st.sampled_from(sorted(SHAPES)), st.sampled_from(sorted(SPECS)), st.integers(1, 3000))
def test_mse_is_never_worse_than_min_max(seed: int, shape: str, spec: str, size: int) -> None:
    """On the histogram, every bin counting as its centre; and so on the values, up to the width of a bin."""
    counts, edges = histogram(drawn(shape, seed)[-size:])
    lo, hi = ranges.mse(edges, counts, SPECS[spec])
    low, high = min(edges[0], 0.0), max(edges[-1], 0.0)
    assert low <= lo <= 0 <= hi <= high
    centres = np.repeat((edges[1:] + edges[:-1]) / 2, counts)
    assert loss(centres, lo, hi, SPECS[spec]) <= loss(centres, low, high, SPECS[spec]) * (1 + 1e-5) + 1e-12


def test_mse_cuts_an_outlier_off_and_leaves_a_uniform_distribution_alone() -> None:
    counts, edges = histogram(drawn("far outlier"))
    assert ranges.mse(edges, counts, SPECS["8 bits"])[1] > 30  # one in 20,000: rounding all others pays it
    assert ranges.mse(edges, counts, SPECS["unsigned"])[1] < 10
    counts, edges = histogram(np.linspace(-1, 1, 20_001))
    assert ranges.mse(edges, counts, SPECS["8 bits"]) == pytest.approx((-1, 1), abs=0.02)


def test_mse_of_nothing() -> None:
    assert ranges.mse(np.array([0.0, 1.0]), np.array([0]), SPECS["8 bits"]) == (0.0, 0.0)


def test_mse_of_a_normal_variable() -> None:
    """The step of the best uniform quantizer with 15 levels, from integrals over its cells."""

    def error(step: float) -> float:
        x = np.linspace(-8, 8, 40_001)
        rounded = step * np.clip(np.rint(x / step), -7, 7)
        return float(np.trapezoid(np.square(rounded - x) * norm.pdf(x), x))

    best = minimize_scalar(error, bounds=(0.1, 1.0), method="bounded")
    counts, edges = histogram(np.random.default_rng(0).normal(size=1_000_000))
    spec = QSpec(4, symmetric=True, narrow=True)
    lo, hi = ranges.mse(edges, counts, spec)
    step = float(choose_qparams(lo, hi, spec).scale)
    assert step == pytest.approx(best.x, rel=0.03)
    assert error(step) <= 1.005 * best.fun


@pytest.mark.parametrize("count", [2, 3, 8, 9])
def test_last_doubling_against_all_halves(count: int) -> None:
    """Every sample in a bin of its own, whose centre it is."""
    values = np.sort(np.random.default_rng(count).exponential(size=count)).round(2)
    edges = np.unique(np.concatenate([values - 1e-6, values + 1e-6]))
    counts = np.array([np.isclose((a + b) / 2, values, atol=1e-7).sum() for a, b in pairwise(edges)])
    expected = values[-1] - np.mean([max(half) for half in combinations(values, count // 2)])
    assert ranges.last_doubling(edges, counts) == pytest.approx(expected, abs=1e-5)


def test_one_sample_tells_of_no_growth() -> None:
    assert ranges.last_doubling(np.array([0.0, 1.0]), np.array([1])) == 0


def test_exponential_tails_grow_by_the_logarithm_of_two() -> None:
    """Maxima of many exponentials of scale β are Gumbel's: each doubling of samples adds β·ln 2 to the largest."""
    scale, added = 0.3, list[float]()
    for peaks in np.random.default_rng(0).gumbel(2.0, scale, size=(2000, 32)):
        counts, edges = np.histogram(peaks, 500)
        added.append(ranges.last_doubling(edges, counts))
    assert np.mean(added) == pytest.approx(scale * np.log(2), rel=0.08)  # three standard errors
