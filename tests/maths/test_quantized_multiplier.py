"""LiteRT's fixed-point arithmetic, against literal scalar loops with C's division and 64-bit shifts."""

import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import example, given

from equint.errors import EquintError
from equint.maths.quantized_multiplier import (
    SUM_BITS,
    averaged,
    divided_by_power,
    high_product,
    mean_multiplier,
    multiplied,
    quantize_multiplier,
    sum_multipliers,
)

INT32 = st.integers(-(2**31), 2**31 - 1)
MULTIPLIERS = st.integers(2**30, 2**31 - 1)


def c_divided(a: int, b: int) -> int:
    """C's division drops what is behind the point."""
    return abs(a) // b * (1 if a >= 0 else -1)


def scalar_high_product(a: int, b: int) -> int:
    if a == b == -(2**31):
        return 2**31 - 1
    nudge = 1 << 30 if a * b >= 0 else 1 - (1 << 30)
    return c_divided(a * b + nudge, 1 << 31)


def scalar_divided(x: int, exponent: int) -> int:
    mask = (1 << exponent) - 1
    threshold = (mask >> 1) + (1 if x < 0 else 0)
    return (x >> exponent) + (1 if (x & mask) > threshold else 0)


def scalar_multiplied(x: int, multiplier: int, shift: int, single: bool) -> int:
    if single:
        total = 31 - shift
        return (x * multiplier + (1 << (total - 1))) >> total
    left, right = max(shift, 0), max(-shift, 0)
    return scalar_divided(scalar_high_product(x << left, multiplier), right)


@given(INT32, INT32)
@example(-(2**31), -(2**31))
@example(-1, 2**30)
@example(-3, 2**30)
def test_high_products(a: int, b: int) -> None:
    assert int(high_product(np.array(a), b)) == scalar_high_product(a, b)


@given(INT32, st.integers(0, 31))
@example(-1, 1)
@example(-3, 1)
def test_division_by_a_power(x: int, places: int) -> None:
    assert int(divided_by_power(np.array(x), places)) == scalar_divided(x, places)


@given(st.integers(-(2**30), 2**30), MULTIPLIERS, st.integers(-31, 0), st.booleans())
@example(-3, 2**30, -1, False)
def test_multiplication(x: int, multiplier: int, shift: int, single: bool) -> None:
    assert int(multiplied(np.array(x), multiplier, shift, single)) == scalar_multiplied(x, multiplier, shift, single)


@given(st.integers(-255, 255), MULTIPLIERS, st.integers(1, 20), st.booleans())
def test_multiplication_by_more_than_one(x: int, multiplier: int, shift: int, single: bool) -> None:
    assert int(multiplied(np.array(x), multiplier, shift, single)) == scalar_multiplied(x, multiplier, shift, single)


def test_many_at_once_are_as_each_alone() -> None:
    rng = np.random.default_rng(0)
    x, m, e = rng.integers(-(2**25), 2**25, 999), rng.integers(2**30, 2**31, 999), rng.integers(-12, 1, 999)
    found = multiplied(x, m, e)
    assert found.tolist() == [scalar_multiplied(int(a), int(b), int(c), False) for a, b, c in zip(x, m, e, strict=True)]


@given(st.floats(2.0**-31, 2.0**29))
@example(1 - 2.0**-40)
def test_a_multiplier_is_the_nearest(factor: float) -> None:
    mantissa, exponent = quantize_multiplier(factor)
    fraction, power = math.frexp(factor)
    fixed = math.floor(fraction * 2**31 + 0.5)
    assert (mantissa, exponent) == ((fixed, power) if fixed < 2**31 else (2**30, power + 1))


def test_factors_without_multiplier() -> None:
    assert quantize_multiplier(0.0) == quantize_multiplier(2.0**-33) == (0, 0)
    for factor in (-1.0, math.inf, math.nan, 2.0**31):
        with pytest.raises(EquintError, match="factor"):
            quantize_multiplier(factor)


@given(st.integers(-(2**20), 2**20), st.integers(1, 2000))
def test_averages(total: int, count: int) -> None:
    literal = c_divided(total + count // 2, count) if total > 0 else c_divided(total - count // 2, count)
    assert int(averaged(np.array(total), count)) == literal


def test_sums_are_brought_to_one_scale() -> None:
    scales, result = (0.0123, 0.0456), 0.05
    (m, e), (n, f), factor = sum_multipliers(scales, result)
    twice = 2 * np.float32(0.0456)
    assert (m, e) == quantize_multiplier(float(np.float32(0.0123)) / float(twice))
    assert (n, f) == (2**30, 0)
    assert factor == pytest.approx(twice / (2**SUM_BITS * result), rel=1e-6)


@given(st.floats(0.01, 100), st.integers(1, 5000))
def test_a_mean_divides_its_multiplier(factor: float, count: int) -> None:
    mantissa, exponent = mean_multiplier(factor, count)
    assert 2**29 < mantissa < 2**31
    assert mantissa * 2.0 ** (exponent - 31) == pytest.approx(factor / count, rel=2.0**-29 + 2.0**-31)
