"""Moments behind non-linearities agree with numerical integration, simulation and enumeration."""

from collections.abc import Callable
from math import exp, inf, pi, sqrt
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.special import expit

from equint.maths import gaussian

means, stds = st.floats(-8, 8), st.floats(0.01, 5)
bounds = st.one_of(st.just(inf), st.floats(-9, 9))


def integrated(f: Callable[[float], float], mean: float, std: float, *kinks: float) -> tuple[float, float]:
    """Mean and standard deviation of f(z), z ~ N(mean, std²), piece by piece between the kinks."""
    inner = sorted(t for t in ((k - mean) / std for k in kinks) if -12 < t < 12)
    pieces = list(zip([-12.0, *inner], [*inner, 12.0], strict=True))

    def expectation(g: Callable[[float], float]) -> float:
        weighted = lambda t: g(f(mean + std * t)) * exp(-t * t / 2) / sqrt(2 * pi)
        return sum(quad(weighted, a, b, epsabs=1e-12)[0] for a, b in pieces)

    first = expectation(lambda y: y)
    return first, sqrt(expectation(lambda y: (y - first) ** 2))


def assert_moments(
    found: tuple[NDArray[np.float64], NDArray[np.float64]], wanted: tuple[float, float], tolerance: float = 1e-6
) -> None:
    assert float(found[0]) == pytest.approx(wanted[0], rel=tolerance, abs=tolerance)
    assert float(found[1]) == pytest.approx(wanted[1], rel=tolerance, abs=tolerance)


@settings(max_examples=60)
@given(means, stds, bounds, bounds)
def test_clipped_is_the_integral(mean: float, std: float, a: float, b: float) -> None:
    lo, hi = (-a, b) if -a < b else (b, -a)
    assume(hi - lo > 1e-6)  # of less quad makes noise
    clipped = gaussian.clipped(np.array(mean), np.array(std), lo, hi)
    assert_moments(clipped, integrated(lambda z: min(max(z, lo), hi), mean, std, lo, hi))


@settings(max_examples=40)
@given(means, stds, st.floats(-0.5, 1.5))
def test_leaky_is_the_integral(mean: float, std: float, slope: float) -> None:
    leaky = gaussian.leaky(np.array(mean), np.array(std), slope)
    assert_moments(leaky, integrated(lambda z: z if z > 0 else slope * z, mean, std, 0.0))


@pytest.mark.parametrize(
    ("mean", "std", "lo", "hi", "wanted"),
    [
        (2.0, 0.0, 0.0, 6.0, (2.0, 0.0)),
        (-2.0, 0.0, 0.0, inf, (0.0, 0.0)),
        (9.0, 0.0, 0.0, 6.0, (6.0, 0.0)),
        (0.0, 0.0, 0.0, 6.0, (0.0, 0.0)),
        (1e6, 1.0, 0.0, 6.0, (6.0, 0.0)),
        (-1e6, 1.0, 0.0, inf, (0.0, 0.0)),
        (1e4, 1e-2, 0.0, inf, (1e4, 1e-2)),
        (-3.0, 2.0, -inf, inf, (-3.0, 2.0)),
        (0.0, 1.0, -inf, 0.0, (-1 / sqrt(2 * pi), sqrt(0.5 - 0.5 / pi))),
    ],
)
def test_clipped_at_the_extremes(mean: float, std: float, lo: float, hi: float, wanted: tuple[float, float]) -> None:
    assert_moments(gaussian.clipped(np.array(mean), np.array(std), lo, hi), wanted, 1e-9)


@pytest.mark.parametrize(
    ("mean", "std", "wanted"),
    [(3.0, 0.0, (3.0, 0.0)), (-3.0, 0.0, (-0.6, 0.0)), (1e3, 1e-2, (1e3, 1e-2)), (-1e3, 1e-2, (-200.0, 2e-3))],
)
def test_leaky_at_the_extremes(mean: float, std: float, wanted: tuple[float, float]) -> None:
    assert_moments(gaussian.leaky(np.array(mean), np.array(std), 0.2), wanted, 1e-5)


@settings(max_examples=20)
@given(means, st.floats(0, 2), st.sampled_from([np.tanh, expit, np.sin]))
def test_through_is_the_integral_of_smooth_curves(mean: float, std: float, f: Callable[[Any], Any]) -> None:
    wanted = integrated(f, mean, std) if std > 1e-3 else (float(f(mean)), std * abs(f(mean + 1e-4) - f(mean)) / 1e-4)
    assert_moments(gaussian.through(f, np.array(mean), np.array(std)), wanted, 1e-3)


def test_a_constant_through_a_curve_has_no_spread() -> None:
    assert_moments(gaussian.through(np.tanh, np.array(0.5), np.array(0.0)), (np.tanh(0.5), 0.0), 1e-12)


@given(means, st.floats(0, 5), means, st.floats(0, 5))
def test_product_of_independent_variables(ma: float, sa: float, mb: float, sb: float) -> None:
    """Any distributions have it: here coins that show mean ± std, whose four products can be listed."""
    products = np.array([(ma + i * sa) * (mb + j * sb) for i in (-1, 1) for j in (-1, 1)])
    found = gaussian.product((np.array(ma), np.array(sa)), (np.array(mb), np.array(sb)))
    assert_moments(found, (float(products.mean()), float(products.std())))


@pytest.mark.parametrize("count", [1, 4, 9, 49])
def test_maximum_of_the_root_of_count_independent_variables(count: int) -> None:
    draws = np.random.default_rng(0).normal(1.0, 2.0, (200_000, round(sqrt(count)))).max(1)
    found = gaussian.maximum(np.array(1.0), np.array(2.0), count)
    assert_moments(found, (float(draws.mean()), float(draws.std())), 0.1)


def test_elementwise_on_arrays() -> None:
    mean, std, hi = np.array([[0.0], [1.0]]), np.array([[1.0], [2.0]]), np.array([1.0, 2.0, 3.0])
    first, spread = gaussian.clipped(mean, std, 0.0, hi)
    assert first.shape == spread.shape == (2, 3)
    assert_moments((first[1, 2], spread[1, 2]), integrated(lambda z: min(max(z, 0.0), 3.0), 1.0, 2.0, 0.0, 3.0))


def test_leaky_keeps_a_small_spread_beside_a_large_mean() -> None:
    _, std = gaussian.leaky(np.array([1e4, -1e4]), np.full(2, 1e-4), 0.2)
    np.testing.assert_allclose(std, [1e-4, 2e-5], rtol=1e-6)


def rebuilt(mean: float, std: float, lo: float, hi: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The Gaussian that `unclipped` finds behind the clip of one."""
    return gaussian.unclipped(*gaussian.clipped(np.array(mean), np.array(std), lo, hi), lo, hi)


@pytest.mark.slow
@settings(max_examples=300)
@given(st.floats(-3.5, 3.5), st.floats(-2, 2), st.floats(-10, 10), st.sampled_from([-1, 1]))
def test_unclipped_inverts_one_bound(distance: float, log: float, bound: float, side: int) -> None:
    """Of whatever width, from nearly nothing clipped to nearly everything."""
    std = 10**log
    mean, (lo, hi) = bound + distance * std, (bound, inf) if side == 1 else (-inf, bound)
    found_mean, found_std = rebuilt(mean, std, lo, hi)
    assert float(found_mean) == pytest.approx(mean, abs=1e-5 * std)
    assert float(found_std) == pytest.approx(std, rel=1e-5)


@pytest.mark.slow
@settings(max_examples=300)
@example(2.5, 0.6, 0.0, 6.0)
@example(-2.9, 0.5, -1.0, 2.0)
@given(st.floats(-3, 3), st.floats(-1.5, 0.6), st.floats(-10, 10), st.floats(0.1, 20))
def test_unclipped_inverts_two_bounds(distance: float, log: float, lo: float, width: float) -> None:
    """Of deviations from a thirtieth to the fourfold of what lies between the bounds."""
    std = width * 10**log
    mean = lo + (width + distance * std if distance > 0 else distance * std)
    found_mean, found_std = rebuilt(mean, std, lo, lo + width)
    assert float(found_mean) == pytest.approx(mean, abs=1e-3 * std)
    assert float(found_std) == pytest.approx(std, rel=1e-3)


@pytest.mark.slow
@given(st.lists(st.tuples(means, stds), min_size=1, max_size=9), st.sampled_from([(0.0, inf), (0.0, 6.0), (-1.0, 1.0)]))
def test_what_unclipped_finds_clips_to_what_was_given(
    pairs: list[tuple[float, float]], ends: tuple[float, float]
) -> None:
    """Even where the inverse is hardly unique."""
    mean, std = np.array(pairs).T
    given = gaussian.clipped(mean, std, *ends)
    found = gaussian.unclipped(*given, *ends)
    again = gaussian.clipped(*found, *ends)
    np.testing.assert_allclose(again[0], given[0], atol=2e-3 * float(std.max()))
    np.testing.assert_allclose(again[1], given[1], atol=2e-3 * float(std.max()))


def test_unclipped_at_the_extremes() -> None:
    for mean, std, lo, hi in ((0.0, 0.0, 0.0, inf), (6.0, 0.0, 0.0, 6.0), (-2.0, 3.0, -inf, inf), (3.0, 0.0, 0.0, 6.0)):
        assert_moments(gaussian.unclipped(np.array(mean), np.array(std), lo, hi), (mean, std), 1e-9)
    rare_mean, rare_std = rebuilt(-7.0, 1.0, 0.0, inf)
    assert float(rare_mean / rare_std) == pytest.approx(-5, rel=1e-3)


def test_unclipped_of_what_no_gaussian_clips_to_is_finite() -> None:
    """Measured moments need not be those of any clipped Gaussian."""
    mean, std = (a.ravel() for a in np.meshgrid(np.linspace(-1, 8, 19), np.geomspace(1e-6, 10, 15)))
    for lo, hi in ((0.0, inf), (0.0, 6.0), (-inf, 6.0)):
        found = gaussian.unclipped(mean, std, lo, hi)
        assert np.isfinite(found).all()
        assert (found[1] >= 0.3 * std).all()
