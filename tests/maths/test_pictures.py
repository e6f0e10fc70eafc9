"""Generated pictures have the statistics of photographs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from equint.maths import pictures as kinds
from equint.maths.pictures import pictures

SIZE = 128


@pytest.fixture(scope="module")
def many() -> np.ndarray:
    return pictures(24, SIZE, SIZE, seed=3)


def test_amplitudes_fall_off_with_frequency_as_in_photographs(many: np.ndarray) -> None:
    """Natural scenes' amplitude spectra go as f^-0.7 to f^-1.6 (Field 1987; Tolhurst et al. 1992: 1.2 on average)."""
    window = np.hanning(SIZE)[:, None] * np.hanning(SIZE)
    grey = many.mean(1)
    power = np.square(np.abs(np.fft.fft2((grey - grey.mean((1, 2), keepdims=True)) * window))).mean(0)
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(SIZE), np.fft.fftfreq(SIZE)))
    rings = np.geomspace(4 / SIZE, 0.4, 12)
    inside = [(radius >= a) & (radius < b) for a, b in itertools.pairwise(rings)]
    slope = np.polyfit(np.log([radius[r].mean() for r in inside]), np.log([power[r].mean() for r in inside]) / 2, 1)[0]
    assert -1.6 < slope < -0.7


def test_neighbours_and_colours_are_alike_but_not_the_same(many: np.ndarray) -> None:
    rows, next_rows = many[..., :-1].ravel(), many[..., 1:].ravel()
    assert 0.8 < np.corrcoef(rows, next_rows)[0, 1] < 0.99
    red, green = many[:, 0].ravel(), many[:, 1].ravel()
    assert 0.75 < np.corrcoef(red, green)[0, 1] < 0.98


def test_pictures_differ_in_light_and_contrast_and_use_the_whole_range(many: np.ndarray) -> None:
    assert many.min() == 0
    assert many.max() == 255
    assert np.std(many.mean((1, 2, 3))) > 10
    assert np.ptp(many.std((1, 2, 3))) > 15


@pytest.mark.parametrize("kind", [kinds.clouds, kinds.stripes, kinds.spots])
def test_textures_have_no_mean_and_unit_variance(kind: object) -> None:
    for seed in range(5):
        texture = kind(np.random.default_rng(seed), 40, 56)  # type: ignore[operator]
        assert texture.shape == (40, 56)
        assert abs(texture.mean()) < 1e-9
        assert texture.std() == pytest.approx(1)


def test_pages_are_two_tones_with_strokes() -> None:
    """Ink and paper: the histogram of a page has two heaps that lie further apart than either is wide."""
    x = kinds.page(np.random.default_rng(1), 96, 96, 1)[0]
    middle = (x.min() + x.max()) / 2
    below, above = x[x < middle], x[x >= middle]
    assert min(below.size, above.size) > 0.03 * x.size
    assert abs(above.mean() - below.mean()) > 2 * max(below.std(), above.std())


def test_the_same_seed_makes_the_same_pictures_of_any_shape() -> None:
    for shape in ((17, 40, 1), (33, 24, 3)):
        height, width, channels = shape
        x = pictures(3, height, width, channels, seed=5)
        assert x.shape == (3, channels, height, width)
        assert np.isfinite(x).all()
        assert np.array_equal(x, pictures(3, height, width, channels, seed=5))
        assert not np.array_equal(x, pictures(3, height, width, channels, seed=6))
