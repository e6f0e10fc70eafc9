"""Waveforms that sound, and features that go together: by what they are made of."""

import numpy as np
import pytest

from equint.maths.signals import LOWEST, QUIETEST_DB, clicks, features, noise, speech, tones, waveforms


@pytest.mark.parametrize("length", [64, 577, 8192])
def test_waveforms_reach_full_scale_and_silence(length: int) -> None:
    x = waveforms(200, length, seed=3)
    peaks = np.abs(x).max(1)
    assert x.shape == (200, length)
    assert peaks.max() == pytest.approx(1, abs=0.1)
    assert 0.01 < np.mean(peaks < 10 ** (QUIETEST_DB / 20) / 2) < 0.15  # silence
    assert np.array_equal(x, waveforms(200, length, seed=3))


def test_a_tone_is_where_its_pitch_is() -> None:
    """All energy of a chord lies at few frequencies, that of noise at many."""

    def width(x: np.ndarray) -> float:
        power = np.square(np.abs(np.fft.rfft(x * np.hanning(len(x)))))
        return float(np.sum(np.sort(power)[::-1].cumsum() < 0.9 * power.sum()) / len(power))

    narrow = [width(tones(np.random.default_rng(k), 4096)) for k in range(20)]
    wide = [width(noise(np.random.default_rng(k), 4096)) for k in range(20)]
    assert np.median(narrow) < 0.02 < np.median(wide)


@pytest.mark.parametrize("kind", [tones, speech, noise, clicks])
def test_sounds_are_louder_below_than_above(kind: object) -> None:
    """As recorded ones are: less than a fifth of the energy lies in the upper half of all frequencies."""
    assert callable(kind)
    upper = []
    for k in range(40):
        power = np.square(np.abs(np.fft.rfft(kind(np.random.default_rng(k), 4096))))
        upper.append(power[1024:].sum() / power[1:].sum())
    assert np.median(upper) < 0.2


def test_no_waveform_drifts() -> None:
    x = waveforms(64, 8192, seed=1)
    power = np.square(np.abs(np.fft.rfft(x))).sum(0)
    slow = np.fft.rfftfreq(8192) < LOWEST / 10
    assert power[slow].sum() < 0.02 * power.sum()


def test_features_of_a_sample_go_together() -> None:
    """Their sums spread further than those of independent values, as sums over embeddings do."""
    x = np.stack([features(np.random.default_rng(k), (12, 20)) for k in range(2000)])
    assert x.std() == pytest.approx(1, abs=0.05)
    assert abs(x.mean()) < 0.05
    assert x.sum((1, 2)).std() > 2 * np.sqrt(12 * 20)
