"""Equations 5 to 9 on numbers worked out by hand, and against drawn errors."""

import numpy as np
import pytest

from equint.maths.two_layers import passed_on, sqnr, uniform_noise, weight_noise


def test_equation_6_is_the_variance_of_a_uniform_error() -> None:
    """A range of 16 in 2 bits: errors uniform over ±16/2^3 = ±2, whose variance is 4²/12."""
    assert float(uniform_noise(16.0, 2)) == pytest.approx(16 / 12)
    drawn = np.random.default_rng(0).uniform(-16 / 2**3, 16 / 2**3, 200_000)
    assert float(uniform_noise(16.0, 2)) == pytest.approx(float(np.var(drawn)), rel=0.01)
    assert uniform_noise(np.array([1.0, 2.0]), 8).tolist() == [1 / 2**16 / 12, 4 / 2**16 / 12]


def test_equations_5_to_9_of_two_layers_by_hand() -> None:
    """3×3 kernel, 2 input channels, E{X²} = 4, weights −1 to 3 in 4 bits; then two 1×1 outputs.

    ΔW1: (4/16)²/12 = 1/192, so Ỹ1 from W1: 9·2·4/192 = 3/8. Y1 from 0 to 12 in 4 bits: (12/16)²/12 = 3/64. ΣW2² are
    1 + 4 = 5 and 9: means 7·3/8 and 7·3/64. W2 of range 4 in 4 bits and E{Y1²} = 6: 1·2·6/192 = 1/16.
    """
    error = float(uniform_noise(3 - -1, 4))
    first = float(weight_noise(9, 2, 4.0, error))
    stored = float(uniform_noise(12.0, 4))
    assert (error, first, stored) == pytest.approx((1 / 192, 3 / 8, 3 / 64))
    second = np.array([[1.0, 2.0], [3.0, 0.0]])
    earlier, entering = (float(passed_on(second, noise).mean()) for noise in (first, stored))
    assert (earlier, entering) == pytest.approx((7 * 3 / 8, 7 * 3 / 64))
    own = float(weight_noise(1, 2, 6.0, uniform_noise(4.0, 4)))
    assert own == pytest.approx(1 / 16)
    assert sqnr(6.0, first, stored) == pytest.approx(6 / (27 / 64))  # SQNR_Y1
    assert sqnr(10.0, earlier, entering, own) == pytest.approx(10 / (189 / 64 + 1 / 16))  # SQNR_Y2


def test_equation_7_is_what_independent_noise_does() -> None:
    rng = np.random.default_rng(1)
    weight, noise = rng.normal(size=(3, 5)), rng.normal(0, 0.5, (5, 100_000))
    assert passed_on(weight, 0.25) == pytest.approx(np.var(weight @ noise, axis=1), rel=0.03)
