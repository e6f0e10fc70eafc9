"""Fixed-point factors and their rounding, against Python's whole numbers and fractions."""

from fractions import Fraction
from math import floor

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from equint.errors import EquintError
from equint.maths.fixedpoint import Rounding, compound, float32_agrees, provable_compound, requantize, thresholds

ROUNDINGS = st.sampled_from(["half_up", "half_even", "truncate", "double"])


def rounded(product: int, right: int, rounding: Rounding) -> int:
    value = Fraction(product, 1 << right)
    if rounding == "double":
        places = min(right, 31)
        rest = Fraction(floor(Fraction(product, 1 << places) + Fraction(1, 2)), 1 << (right - places))
        return floor(abs(rest) + Fraction(1, 2)) * (1 if rest >= 0 else -1)
    if rounding == "truncate":
        return floor(value)
    return floor(value + Fraction(1, 2)) if rounding == "half_up" else round(value)


@given(st.floats(2.0**-30, 2.0**30), st.sampled_from([8, 16, 24, 32]))
def test_a_compound_is_the_nearest_with_its_digits(factor: float, bits: int) -> None:
    mantissa, exponent = compound(factor, bits)
    assert 1 << (bits - 1) <= mantissa < 1 << bits
    assert abs(Fraction(mantissa) * Fraction(2) ** (exponent - bits) / Fraction(factor) - 1) <= Fraction(1, 1 << bits)


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan"), float("inf"), 2.0**32, 2.0**-34])
def test_factors_without_compound_are_refused(factor: float) -> None:
    with pytest.raises(EquintError, match="scale compound"):
        compound(factor)


@given(st.integers(-(2**30), 2**30), st.integers(1, 2**32 - 1), st.integers(1, 60), ROUNDINGS)
def test_requantize_is_exact(acc: int, mantissa: int, right: int, rounding: Rounding) -> None:
    found = requantize(np.array([acc]), mantissa, right, rounding)
    assert int(found[0]) == rounded(acc * mantissa, right, rounding)


@given(st.integers(-50, 50), st.integers(1, 6), ROUNDINGS)
def test_requantize_at_ties(half: int, right: int, rounding: Rounding) -> None:
    acc = half * (1 << (right - 1))
    assert int(requantize(np.array([acc]), 1, right, rounding)[0]) == rounded(acc, right, rounding)


def test_products_beyond_64_bits_are_refused() -> None:
    with pytest.raises(EquintError, match="64 bits"):
        requantize(np.array([2**40]), 2**32 - 1, 40)
    with pytest.raises(EquintError, match="64 bits"):
        requantize(np.array([1]), 3, 63)


@pytest.mark.slow
@given(st.integers(1, 2**24), st.integers(8, 60), ROUNDINGS)
def test_thresholds_are_where_the_result_rises(mantissa: int, right: int, rounding: Rounding) -> None:
    for step, least in zip(range(-3, 5), thresholds(mantissa, right, -4, 4, rounding), strict=True):
        assert rounded(int(least) * mantissa, right, rounding) >= step
        assert rounded((int(least) - 1) * mantissa, right, rounding) < step


@pytest.mark.slow
@given(st.integers(1 << 23, (1 << 24) - 1), st.integers(24, 34), ROUNDINGS)
def test_agreement_with_float32_is_what_trying_every_accumulator_says(
    mantissa: int, right: int, rounding: Rounding
) -> None:
    reach = 1 << 12
    acc = np.arange(-reach, reach + 1)
    fast = np.clip(np.rint(acc.astype(np.float32) * np.float32(mantissa * 2.0**-right)), -128, 127)
    slow = np.clip([rounded(int(a) * mantissa, right, rounding) for a in acc], -128, 127)
    assert float32_agrees(mantissa, right, -128, 127, reach, rounding) == bool(np.all(fast == slow))


@pytest.mark.slow
@given(st.floats(2.0**-14, 2.0**-2), st.lists(st.integers(0, 15), min_size=1, max_size=4))
def test_a_provable_compound_stays_near(factor: float, shifts: list[int]) -> None:
    mantissa, exponent = provable_compound(factor, np.array(shifts), -128, 127, 1 << 22)
    assert abs(mantissa * 2.0 ** (exponent - 32) / factor - 1) <= 2.0**-18
    assert 1 << 31 <= mantissa < 1 << 32


def test_most_compounds_can_be_proven() -> None:
    rng = np.random.default_rng(0)
    proven = 0
    for factor in 2.0 ** rng.uniform(-12, -4, 40):
        mantissa, exponent = provable_compound(float(factor), np.array([0, 2, 5]), -128, 127, 1 << 20)
        proven += all(float32_agrees(mantissa, 32 - exponent + s, -128, 127, 1 << 20, "half_up") for s in (0, 2, 5))
    assert proven >= 38


def test_a_narrow_mantissa_keeps_its_width() -> None:
    mantissa, exponent = provable_compound(0.3, np.array([0]), -128, 127, 1 << 20, bits=16)
    assert (mantissa, exponent) == compound(0.3, 16)


@pytest.mark.parametrize("factor", [0.3, 1.7e-3, 0.71])
def test_the_nearest_mantissa_is_nearer_than_the_provable_one(factor: float) -> None:
    (near, s), (provable, t) = compound(factor), provable_compound(factor, np.array([0, 3]), -128, 127, 1 << 20)
    exact = Fraction(factor) * Fraction(2) ** (32 - s)
    assert abs(near - exact) <= Fraction(1, 2)  # in units of M's last place, 2^-32
    assert s == t
    assert abs(near - exact) < abs(provable - exact) < exact / 2**18
