"""SQNR of noise whose ratio is known."""

import numpy as np
import pytest

from equint.maths.affine import choose_qparams, fake_quantize
from equint.maths.noise import sqnr_db
from equint.model import QSpec


def test_rounding_a_uniform_signal_loses_six_decibels_a_bit() -> None:
    """A full-range uniform signal has 20·log10(2^bits) dB over rounding noise of variance Δ²/12."""
    signal = np.random.default_rng(0).uniform(-1, 1, 200_000).astype(np.float32)
    for bits in (4, 6, 8):
        grid = choose_qparams(-1.0, 1.0, QSpec(bits, signed=False, symmetric=False))
        assert sqnr_db(signal, fake_quantize(signal, grid)) == pytest.approx(6.0206 * bits, abs=0.6)


def test_exact_and_silent_signals() -> None:
    assert sqnr_db(np.ones(3), np.ones(3)) == float("inf")
    assert sqnr_db(np.zeros(3), np.ones(3)) < -1000
