"""LiteRT's fixed-point arithmetic: factors as 31 binary places and a shift, and how its kernels round with them.

Where its reference kernels use what (LiteRT 2.3, tflite/kernels/internal/common.cc): everything is requantized by
MultiplyByQuantizedMultiplier, which rounds twice unless it was built with TFLITE_SINGLE_ROUNDING. ADD and SUB bring
both inputs to twice the larger scale with 20 further bits first; AVERAGE_POOL_2D divides sums of the integers
themselves; MEAN divides the multiplier.
"""

from __future__ import annotations

import math

import numpy as np

from ..errors import InvalidOption
from ..ir.model import Array

PLACES = 31
"""Binary places of a multiplier."""
SUM_BITS = 20
"""By so many bits ADD and SUB shift 8-bit inputs to the left before they scale them."""
WIDE_SUM_BITS = 15
"""The same of 16-bit inputs."""
FEW_PLACES = 15
"""Binary places of a multiplier of sums in 64 bits."""
LEAST, MOST = -31, 30
"""The exponents of a multiplier."""


def quantize_multiplier(factor: float) -> tuple[int, int]:
    """(m, e) with factor ≈ m·2^(e − 31), m in [2^30, 2^31): the nearest, ties up; (0, 0) for factors below 2^-32.

    QuantizeMultiplier of tflite/kernels/internal/quantization_util.cc.

    Raises:
        EquintError: the factor is no number from 0 on, or 2^30 and more.

    Example:
        >>> quantize_multiplier(0.75), quantize_multiplier(0.001), quantize_multiplier(2.0**-40)
        ((1610612736, 0), (1099511628, -9), (0, 0))
    """
    if not (math.isfinite(factor) and factor >= 0):
        raise InvalidOption(f"factor {factor} is no number from 0 on")
    fraction, exponent = math.frexp(factor)
    mantissa = math.floor(fraction * (1 << PLACES) + 0.5)
    if mantissa == 1 << PLACES:
        mantissa, exponent = mantissa >> 1, exponent + 1
    if exponent > MOST:
        raise InvalidOption(f"factor {factor:.3g} is too large: below 2^{MOST} are possible")
    return (0, 0) if exponent < LEAST or not mantissa else (mantissa, exponent)


def high_product(a: Array, b: Array | int) -> Array:
    """round(a·b / 2^31), ties up, of int32 values: SaturatingRoundingDoublingHighMul of gemmlowp.

    Example:
        >>> high_product(np.array([-3, 1, 3, -(2**31)]), np.array([1 << 30, 1 << 30, 1 << 30, -(2**31)])).tolist()
        [-1, 1, 2, 2147483647]
    """
    product = np.asarray(a, np.int64) * np.asarray(b, np.int64)
    return np.asarray(np.minimum((product + (1 << (PLACES - 1))) >> PLACES, (1 << PLACES) - 1))


def divided_by_power(x: Array, places: Array | int) -> Array:
    """round(x / 2^places), ties away from zero: RoundingDivideByPOT of gemmlowp.

    Example:
        >>> divided_by_power(np.array([-3, -2, -1, 1, 2, 3]), 1).tolist()
        [-2, -1, -1, 1, 1, 2]
    """
    x, places = np.asarray(x, np.int64), np.asarray(places, np.int64)
    half = np.where(places > 0, np.int64(1) << np.maximum(places - 1, 0), 0)
    return np.asarray((x + half - ((x < 0) & (places > 0))) >> places)


def multiplied(x: Array, mantissa: Array | int, exponent: Array | int, single: bool = False) -> Array:
    """x·m·2^(e − 31) as integers: MultiplyByQuantizedMultiplier, which rounds twice, or once where `single`.

    Twice: round(x·2^max(e,0)·m / 2^31), ties up, and that divided by 2^max(−e,0), ties away from zero. Once: ties up.

    Args:
        x: int32 values of any shape. mantissa, exponent: broadcast against it.

    Example:
        >>> m, e = quantize_multiplier(0.25)
        >>> x = np.array([-10, -6, 6, 10])
        >>> multiplied(x, m, e).tolist(), multiplied(x, m, e, single=True).tolist()
        ([-3, -2, 2, 3], [-2, -1, 2, 3])
    """
    x, mantissa, exponent = (np.asarray(v, np.int64) for v in (x, mantissa, exponent))
    if single:
        right = PLACES - exponent
        return np.asarray((x * mantissa + (np.int64(1) << (right - 1))) >> right)
    return divided_by_power(high_product(x << np.maximum(exponent, 0), mantissa), np.maximum(-exponent, 0))


def few_places(mantissa: int) -> int:
    """A multiplier of 31 places with the 15 that MultiplyByQuantizedMultiplier keeps for int64 sums, rounded once.

    Example:
        >>> few_places(0x40008000) == 0x40010000, few_places(0x7FFFFFFF) == 0x7FFF0000
        (True, True)
    """
    dropped = PLACES - FEW_PLACES
    most = ((1 << FEW_PLACES) - 1) << dropped
    return most if mantissa >= most else (mantissa + (1 << (dropped - 1))) >> dropped << dropped


def sum_multipliers(
    scales: tuple[float, float], result: float, bits: int = SUM_BITS
) -> tuple[tuple[int, int], tuple[int, int], float]:
    """The multipliers that ADD gives its inputs of these scales, and the factor of their sum.

    With t twice the larger scale, in float32: s_k/t each, and t/(2^bits·s_y).

    Example:
        >>> first, second, factor = sum_multipliers((0.5, 0.25), 0.5)
        >>> [m * 2.0 ** (e - 31) for m, e in (first, second)], factor * 2**20
        ([0.5, 0.25], 2.0)
    """
    a, b, y = (np.float32(s) for s in (*scales, result))
    twice = np.float64(np.float32(2) * max(a, b))
    first, second = (quantize_multiplier(float(np.float64(s) / twice)) for s in (a, b))
    return first, second, float(twice / np.float64(np.float32(1 << bits) * y))


def averaged(total: Array, count: Array | int) -> Array:
    """Sums of integers divided by how many they are, ties away from zero: AVERAGE_POOL_2D.

    Example:
        >>> averaged(np.array([-3, -1, 1, 3]), 2).tolist()
        [-2, -1, 1, 2]
    """
    total, count = np.asarray(total, np.int64), np.asarray(count, np.int64)
    return np.asarray(np.sign(total) * ((np.abs(total) + count // 2) // count))


def mean_multiplier(factor: float, count: int) -> tuple[int, int]:
    """The multiplier of s_x/s_y over `count` values as MEAN divides it: m·2^k // count, e − k, k = ⌊log2(count)⌋.

    Example:
        >>> mean_multiplier(1.0, 1), mean_multiplier(1.0, 48)
        ((1073741824, 1), (715827882, -4))
    """
    mantissa, exponent = quantize_multiplier(factor)
    shift = min(count.bit_length() - 1, 32, PLACES + exponent)
    return (mantissa << shift) // count, exponent - shift
