import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import laplace

from equint.maths.noise import mismatch
from equint.maths.tails import exceedance


@pytest.mark.parametrize("bound", [-5.0, -0.3, 0.7, 3.0, 20.0])
def test_partial_moments_agree_with_quadrature(bound: float) -> None:
    law = laplace(0.4, 1.7 / np.sqrt(2))
    found = exceedance(np.array(0.4), np.array(1.7), np.array(bound))
    for power, value in zip((2, 1, 0), found, strict=True):
        expected = sum(
            quad(lambda z, p=power: (z - bound) ** p * law.pdf(z), a, b, limit=500)[0]
            for a, b in ((bound, max(bound, 0.4)), (max(bound, 0.4), max(bound, 0.4) + 80))
        )
        assert float(value) == pytest.approx(expected, rel=1e-5)


def test_mismatch_agrees_with_sampling() -> None:
    rng = np.random.default_rng(0)
    z = rng.laplace(1.0, 2.0 / np.sqrt(2), 2_000_000)
    for bound, cap in ((2.0, 6.0), (9.0, 6.0), (4.0, np.inf)):
        d = np.minimum(z, bound) - np.minimum(z, cap)
        power, _ = mismatch(np.ones(1), np.full(1, 2.0), np.array([bound]), np.array([cap]))
        assert float(power[0]) == pytest.approx(float(np.square(d).mean()), rel=0.03)
