"""Paired comparisons against enumeration of all resamples, by hand."""

from itertools import product

import numpy as np
import pytest

from equint.ir.model import Array
from equint.maths.paired import chance, gain_db, relative_noise


def column(*values: float) -> Array:
    return np.array(values, np.float64)[:, None]


def test_places_count_alike_however_loud_they_are() -> None:
    signal, noise = np.array([[100.0, 1.0]]), np.array([[10.0, 0.3]])
    assert relative_noise(signal, noise) == pytest.approx((0.1 + 0.3) / 2)


def test_silence_without_noise_costs_nothing_and_with_noise_all() -> None:
    assert relative_noise(column(0.0), column(0.0)) == 0
    assert relative_noise(column(0.0), column(1.0)) == np.inf


def test_two_samples_by_hand() -> None:
    """Of four draws with replacement only (first, first) has less noise after: 1/4."""
    before, after = column(1.0, 1.0), column(0.5, 2.0)
    assert gain_db(column(1.0, 1.0), before, after) == pytest.approx(10 * np.log10(2.0 / 2.5))
    assert chance(column(1.0, 1.0), before, after, draws=20_000) == pytest.approx(0.25, abs=0.01)


def test_all_resamples_of_five() -> None:
    rng = np.random.default_rng(1)
    signal, before, after = (rng.gamma(2.0, size=(5, 2)) for _ in range(3))
    wins = 0
    for drawn in product(range(5), repeat=5):
        own = list(drawn)
        a, b = ((power[own].sum(0) / signal[own].sum(0)).mean() for power in (before, after))
        wins += bool(b < a)
    assert chance(signal, before, after, draws=20_000) == pytest.approx(wins / 5**5, abs=0.015)


def test_equal_candidates_and_single_samples_tell_nothing() -> None:
    assert chance(column(1.0, 2.0), column(0.1, 0.1), column(0.1, 0.1)) == 0.5
    assert chance(column(1.0), column(0.1), column(0.01)) == 0.5


def test_where_there_is_no_signal_two_that_make_noise_are_equal_and_one_that_makes_none_is_better() -> None:
    silent, noise = np.zeros((4, 1)), np.ones((4, 1))
    assert float(gain_db(silent, noise, noise)) == 0
    assert float(gain_db(silent, noise, np.zeros((4, 1)))) == np.inf
    assert float(gain_db(silent, np.zeros((4, 1)), noise)) == -np.inf
    assert chance(silent, noise, noise) == 0.5
