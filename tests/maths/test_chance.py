"""Intervals and tests, against scipy's and against counting."""

from itertools import product
from math import inf

import numpy as np
import pytest
from scipy import stats

from equint.maths.chance import Interval, guessed, jackknife, lost_share, mcnemar, mean, needed, share, sqnr


@pytest.mark.parametrize(("lost", "won"), [(0, 0), (1, 0), (3, 9), (14, 10), (120, 80), (5, 5)])
def test_mcnemar_is_the_binomial_test_of_disagreements(lost: int, won: int) -> None:
    exact = 1.0 if lost + won == 0 else stats.binomtest(lost, lost + won, 0.5).pvalue
    assert mcnemar(lost, won) == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize(("hits", "samples"), [(0, 10), (10, 10), (376, 400), (1, 2), (1999, 2000)])
def test_shares_are_wilsons(hits: int, samples: int) -> None:
    expected = stats.binomtest(hits, samples).proportion_ci(0.95, method="wilson")
    assert share(hits, samples) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize("count", [20, 60])
@pytest.mark.parametrize(("b", "c"), [(0.02, 0.02), (0.1, 0.02), (0.3, 0.2), (0.0, 0.05)])
def test_losses_are_covered_in_nineteen_cases_of_twenty(count: int, b: float, c: float) -> None:
    """Every outcome of so many samples, weighted by how likely it is: none is drawn."""
    covered = 0.0
    for lost, won in product(range(count + 1), repeat=2):
        if lost + won <= count:
            likely = stats.multinomial.pmf([lost, won, count - lost - won], count, [b, c, 1 - b - c])
            low, high = lost_share(lost, won, count)
            covered += likely * (low <= b - c <= high)
    assert covered > 0.935


def test_losses_are_near_the_likelihood_ratio_interval_where_there_are_many() -> None:
    low, high = lost_share(140, 100, 4000)
    half = 1.96 * np.sqrt((0.06 - 0.01**2) / 4000)
    assert (low, high) == pytest.approx((0.01 - half, 0.01 + half), rel=0.01, abs=1e-4)


def test_means_are_students() -> None:
    values = np.random.default_rng(0).normal(3, 2, 17)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert mean(values) == pytest.approx((expected.low, expected.high))
    assert mean(values[:1]) is None


def test_sqnr_is_near_the_bootstraps() -> None:
    rng = np.random.default_rng(1)
    signal = rng.gamma(4, 1, (120, 2))
    noise = 0.01 * signal * rng.gamma(3, 1, (120, 2))

    def decibels(picked: np.ndarray) -> float:
        return float(-10 * np.log10((noise[picked].sum(0) / signal[picked].sum(0)).mean()))

    expected = stats.bootstrap(
        (np.arange(120),), decibels, vectorized=False, n_resamples=2000, method="percentile", rng=rng
    ).confidence_interval
    found = sqnr(signal, noise)
    assert found is not None
    assert found == pytest.approx((expected.low, expected.high), abs=0.12)
    assert found.high - found.low > 0.3


def test_sqnr_of_what_tells_nothing() -> None:
    assert sqnr(np.ones((1, 1)), np.ones((1, 1))) is None
    assert sqnr(np.ones((3, 1)), np.zeros((3, 1))) == (inf, inf)
    assert sqnr(np.ones((3, 1)), np.full((3, 1), inf)) is None
    assert sqnr(np.zeros((3, 1)), np.ones((3, 1))) is None


def test_as_many_more_decide() -> None:
    """With so many more of the same kind the interval just stays in its room."""
    lost, won, count, room = 90, 50, 1000, Interval(0.02, 0.1)
    more = needed(0.04, lost_share(lost, won, count), room, count)
    times = (count + more) / count
    low, _ = lost_share(round(lost * times), round(won * times), round(count * times))
    assert 1 < times < 3
    assert low == pytest.approx(0.02, abs=5e-4)
    assert needed(0.05, Interval(0.04, 0.06), room, 100) == 0
    assert needed(0.02, Interval(0.01, 0.03), room, 100) == inf


def test_what_is_no_mean_is_near_the_bootstraps() -> None:
    """A ratio of sums, as mIoU is."""
    rng = np.random.default_rng(2)
    top, bottom = rng.gamma(3, 1, 200), rng.gamma(5, 1, 200)

    def ratio(kept: np.ndarray) -> float:
        return float(top[kept].sum() / bottom[kept].sum())

    expected = stats.bootstrap(
        (np.arange(200),), ratio, vectorized=False, n_resamples=2000, method="percentile", rng=rng
    ).confidence_interval
    found = jackknife(ratio, 200, 20)
    assert found is not None
    assert sum(found) / 2 == pytest.approx(ratio(np.arange(200)), rel=0.01)
    assert found.high - found.low == pytest.approx(expected.high - expected.low, rel=0.5)
    assert jackknife(ratio, 1) is None


@pytest.mark.parametrize(("samples", "classes"), [(100, 2), (200, 10), (50, 1000)])
def test_guesses_are_seen_and_what_is_learned_is_not_called_one(samples: int, classes: int) -> None:
    """Every number of hits, weighted by how likely guessing, and a network right in three of four, makes it."""
    hits = np.arange(samples + 1)
    seen = np.array([guessed(int(n), samples, classes) for n in hits])
    assert seen @ stats.binom.pmf(hits, samples, 1 / classes) > 0.9
    assert seen @ stats.binom.pmf(hits, samples, 0.75) < 1e-3


def test_few_samples_call_nothing_a_guess() -> None:
    assert not any(guessed(hits, 1, classes) for hits in (0, 1) for classes in (2, 10, 1000))
