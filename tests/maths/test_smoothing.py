"""Smoothed values against loops and by hand."""

import numpy as np

from equint.maths.smoothing import OUTLYING, smoothed


def test_against_loops() -> None:
    rng = np.random.default_rng(0)
    places, values = np.sort(rng.uniform(0, 100, 9)), np.exp(rng.normal(0, 0.5, 9))
    at = np.array([-5.0, places[0], 31.0, 77.7, 140.0])
    wanted = []
    for place in at:
        x = float(np.interp(place, places, range(9)))
        weights = [np.exp(-((x - j) ** 2) / (2 * 1.5**2)) for j in range(9)]
        wanted.append(sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights))
    np.testing.assert_allclose(smoothed(at, places, values, 1.5), wanted)


def test_distances_between_places_do_not_count() -> None:
    values = np.array([1.0, 8.0, 3.0])
    near, far = np.array([0.0, 1.0, 2.0]), np.array([0.0, 500.0, 501.0])
    np.testing.assert_allclose(smoothed(near, near, values, 2.0), smoothed(far, far, values, 2.0))


def test_one_that_lies_far_out_counts_as_the_limit() -> None:
    """Ten ones and a million with even weights: the geometric mean is 10^(6/11), and it counts as ten times that."""
    values = np.array([1.0] * 10 + [1e6])
    found = smoothed(np.zeros(1), np.arange(11.0), values, 1e6)
    np.testing.assert_allclose(found, (10 + OUTLYING * 10 ** (6 / 11)) / 11, rtol=1e-6)


def test_weights_make_the_mean_of_ratios_a_ratio_of_sums() -> None:
    over, under = np.array([1.0, 6.0, 10.0]), np.array([1.0, 2.0, 5.0])
    found = smoothed(np.ones(1), np.arange(3.0), over / under, 1e6, under)
    np.testing.assert_allclose(found, over.sum() / under.sum())
