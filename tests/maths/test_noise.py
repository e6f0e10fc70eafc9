"""Ratios that are known, and noise formulas against noise that is made and measured."""

from itertools import pairwise

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import laplace

from equint.ir.model import QSpec
from equint.maths.affine import choose_qparams, fake_quantize
from equint.maths.noise import activation_noise, mismatch, rounding, sqnr_db

FORMATS = {
    f"{bits} bits, {'symmetric' if symmetric else 'asymmetric'}": QSpec(bits, signed=symmetric, symmetric=symmetric)
    for bits in (4, 8)
    for symmetric in (True, False)
}
formats = pytest.mark.parametrize("spec", FORMATS.values(), ids=FORMATS.keys())


def test_rounding_a_uniform_signal_loses_six_decibels_a_bit() -> None:
    """A full-range uniform signal has 20·log10(2^bits) dB over rounding noise of variance Δ²/12."""
    signal = np.random.default_rng(0).uniform(-1, 1, 200_000).astype(np.float32)
    for bits in (4, 6, 8):
        grid = choose_qparams(-1.0, 1.0, QSpec(bits, signed=False, symmetric=False))
        assert sqnr_db(signal, fake_quantize(signal, grid)) == pytest.approx(6.0206 * bits, abs=0.6)


def test_exact_and_silent_signals() -> None:
    assert sqnr_db(np.ones(3), np.ones(3)) == float("inf")
    assert sqnr_db(np.zeros(3), np.ones(3)) < -1000


# Rounding


@formats
def test_rounding_noise_of_values_inside_a_grid(spec: QSpec) -> None:
    grid = choose_qparams(-1.3, 2.1, spec)
    x = np.random.default_rng(0).uniform(-1.2, 2.0, 200_000).astype(np.float32)
    measured = np.square(fake_quantize(x, grid) - x, dtype=np.float64).mean()
    assert float(rounding(grid.scale)) == pytest.approx(measured, rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@formats
def test_activation_noise_against_rounded_inputs(granularity: str, spec: QSpec) -> None:
    """Behind a clip to [0, 1] of its size, which symmetric grids spend half their values on the wrong side of."""
    rng, (g, o, i, k), n = np.random.default_rng(0), (2, 5, 8, 9), 4000
    size = np.exp(rng.uniform(-1, 1, g * i)) if granularity == "channel" else np.ones(g * i)
    z = rng.normal(rng.normal(0, 0.5, (g * i, 1)), 0.6, (n, g * i, k))
    x = (np.clip(z, 0, 1) * size[:, None]).astype(np.float32)
    grid = choose_qparams(0.0, size if granularity == "channel" else 1.0, spec, 1 if granularity == "channel" else None)
    active = ((z > 0) & (z < 1)).mean((0, 2)).reshape(g, i)
    w = rng.normal(0, 1, (g, o, i, k))
    error = (fake_quantize(x, grid) - x).astype(np.float64).reshape(n, g, i, k)
    error -= error.mean(0)  # the bias takes up the mean
    measured = np.einsum("ngik,goik->ngo", error, w, optimize=True).var(0)
    step = grid.scale.astype(np.float64)
    found = activation_noise(step.reshape(g, 1, i) if step.ndim else step, active, np.square(w).sum(-1))
    assert found.shape == (g, o)
    np.testing.assert_allclose(found, measured, rtol=0.12)


# Clipping

PAIRS = [
    (bound, cap, both) for bound in (-0.5, 0.8, 2.0, 7.0) for cap in (0.3, 2.0, 5.0, np.inf) for both in (True, False)
]
APART = [pair for pair in PAIRS if pair[0] != pair[1]]


@pytest.mark.parametrize(("bound", "cap", "both"), PAIRS)
def test_a_wrong_bound_costs_what_quadrature_says(bound: float, cap: float, both: bool) -> None:
    """Without `both` the channel's own clip acts too, and only what is cut off before it counts."""
    mean, std = 0.4, 1.7
    law = laplace(mean, std / np.sqrt(2))

    def cost(z: float) -> float:
        wanted = min(z, cap)
        return float((min(z, bound) - wanted if both else min(wanted, bound) - wanted) ** 2 * law.pdf(z))

    edges = sorted({-60.0, mean, bound, min(cap, 80.0), 80.0})
    expected = sum(quad(cost, a, b, limit=200)[0] for a, b in pairwise(edges))
    power, _ = mismatch(np.full(1, mean), np.full(1, std), np.full(1, bound), np.full(1, cap), both)
    assert float(power[0]) == pytest.approx(expected, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize(("bound", "cap", "both"), APART)
def test_its_slope_agrees_with_differences(bound: float, cap: float, both: bool) -> None:
    mean, std, step = np.array([0.4, -1.0, 3.0]), np.array([1.7, 0.5, 1.0]), 1e-5
    bounds, caps = np.full(3, bound), np.full(3, cap)
    up, down = (mismatch(mean, std, bounds + d, caps, both)[0] for d in (step, -step))
    _, slope = mismatch(mean, std, bounds, caps, both)
    np.testing.assert_allclose(slope, (up - down) / (2 * step), rtol=1e-5, atol=1e-9)


def test_each_channel_may_have_its_own_say_in_what_is_executed() -> None:
    ones, both = np.ones(2), np.array([True, False])
    power, slope = mismatch(0 * ones, ones, 3 * ones, 2 * ones, both)
    assert power[0] > 0 < slope[0]
    assert power[1] == slope[1] == 0


def test_the_right_bound_costs_nothing() -> None:
    power, slope = mismatch(np.ones(3), np.ones(3), np.array([-1.0, 1.0, 4.0]), np.array([-1.0, 1.0, 4.0]))
    np.testing.assert_allclose(power, 0, atol=1e-15)
    np.testing.assert_allclose(slope, 0, atol=1e-15)
