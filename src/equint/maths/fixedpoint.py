"""Real factors as mantissa and exponent, and the one rounding of an integer operator."""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np

from ..errors import InvalidOption
from ..ir.model import Array
from .quantized_multiplier import PLACES, divided_by_power

Rounding = Literal["half_up", "half_even", "truncate", "half_away", "double"]
"""What becomes of the bits that a right shift drops: to nearest, ties up, to even, or away from zero; dropped as >>
does; or rounded twice as LiteRT does (`quantized_multiplier.multiplied`): at 31 places half_up, then half_away.
"""

Mantissa = Literal["provable", "nearest"]
"""Which mantissa stands for a real factor: one so near that float32 kernels can be proven exact, or the nearest."""

Arithmetic = Literal["plain", "litert"]
"""Whose operators integers are computed by: plain ones, each exact up to one rounding, or those of LiteRT."""

FLOAT32_DIGITS = 24
MOST_SHIFT = 62
"""Furthest right shift of a 64-bit product."""
_TRIES = 60


def check_format(mantissa_bits: int, exponent_bits: int, shift_bits: int, rounding: str) -> None:
    """Refuse widths and roundings that no integer operator here has. Raises EquintError: saying which there are."""
    if not 4 <= mantissa_bits <= 32 or not 2 <= exponent_bits <= 8 or not 0 <= shift_bits <= 5:
        asked = f"{mantissa_bits}, {exponent_bits} and {shift_bits} bits"
        raise InvalidOption(
            f"mantissas of 4 to 32 bits, exponents of 2 to 8 and shifts of 0 to 5 are known, not {asked}"
        )
    if rounding not in get_args(Rounding):
        raise InvalidOption(f"rounding {rounding!r} is not known; choose {', '.join(get_args(Rounding))}")


def compound(factor: float, bits: int = 32, exponent_bits: int = 6) -> tuple[int, int]:
    """(m, s) with factor ≈ m·2^(s − bits): the scale compound M·2^s of Oh et al. (2020), M = m·2^-bits in [0.5, 1).

    Raises:
        EquintError: the factor is no positive number, or its exponent does not fit into a signed `exponent_bits`.

    Example:
        >>> compound(0.75, bits=8), compound(0.001, bits=8)
        ((192, 0), (131, -9))
    """
    if not (math.isfinite(factor) and factor > 0):
        raise InvalidOption(f"scale compound {factor} is no positive number")
    fraction, exponent = math.frexp(factor)
    mantissa = round(fraction * (1 << bits))
    if mantissa == 1 << bits:
        mantissa, exponent = mantissa >> 1, exponent + 1
    if not -(1 << (exponent_bits - 1)) <= exponent < 1 << (exponent_bits - 1):
        raise InvalidOption(
            f"scale compound {factor:.3g} needs exponent {exponent}, which {exponent_bits} bits do not hold"
        )
    return mantissa, exponent


def requantize(acc: Array, mantissa: Array | int, right: Array | int, rounding: Rounding = "half_up") -> Array:
    """acc·mantissa / 2^right as integers, rounded once: exact in 64 bits.

    Args:
        acc: integers of any shape. mantissa, right: integers that broadcast against it; right in 1…62, mantissa of any
            sign.

    Raises:
        EquintError: the product would not fit into 64 bits.

    Example:
        >>> acc = np.array([-3, -1, 1, 3])
        >>> [requantize(acc, 1, 1, r).tolist() for r in ("half_up", "half_even", "truncate")]
        [[-1, 0, 1, 2], [-2, 0, 0, 2], [-2, -1, 0, 1]]
        >>> requantize(acc, 1 << 30, 32, "double").tolist()
        [-1, 0, 1, 1]
    """
    mantissa, right = np.asarray(mantissa, np.int64), np.asarray(right, np.int64)
    if rounding == "double":
        return _twice(np.asarray(acc, np.int64), mantissa, right)
    mantissa, right = reduced(mantissa, right)
    acc = np.asarray(acc, np.int64)
    most = float(np.max(np.abs(acc), initial=0)) * float(np.max(np.abs(mantissa), initial=0))
    if most + 2.0 ** float(np.max(right, initial=1)) >= 2.0**63 or np.any(right > MOST_SHIFT):
        raise InvalidOption("an accumulator times its mantissa does not fit into 64 bits")
    product = acc * mantissa
    if rounding == "truncate":
        return np.asarray(product >> right)
    if rounding == "half_away":
        return divided_by_power(product, right)
    half = np.where(right > 0, np.int64(1) << np.maximum(right - 1, 0), 0)
    if rounding == "half_even":
        half = half - np.where(right > 0, 1 - ((product >> right) & 1), 0)
    return np.asarray((product + half) >> right)


def _twice(acc: Array, mantissa: Array, right: Array) -> Array:
    """Rounded at 31 places, or all where there are fewer, and then at the rest."""
    first = np.minimum(right, PLACES)
    most = float(np.max(np.abs(acc), initial=0)) * float(np.max(np.abs(mantissa), initial=0))
    if most + 2.0**PLACES >= 2.0**63 or np.any(right > MOST_SHIFT):
        raise InvalidOption("an accumulator times its mantissa does not fit into 64 bits")
    return divided_by_power((acc * mantissa + (np.int64(1) << (first - 1))) >> first, right - first)


def reduced(mantissa: Array, right: Array, least: int = 0) -> tuple[Array, Array]:
    """The same factors with trailing zeros of the mantissas taken out, right no further down than `least`.

    Example:
        >>> [a.tolist() for a in reduced(np.array([12, -8, 0]), np.array([5, 2, 3]))]
        [[3, -2, 0], [3, 0, 3]]
    """
    lowest = np.where(mantissa == 0, 1, mantissa & -mantissa)
    zeros = np.minimum(np.log2(lowest.astype(np.float64)).astype(np.int64), right - least)
    return mantissa >> zeros, right - zeros


def float32_agrees(mantissa: int, right: int, first: int, last: int, reach: int, rounding: Rounding) -> bool:
    """Whether rint(float32(acc)·float32(mantissa/2^right)) is what `requantize` says, for every |acc| ≤ reach.

    Both rise with acc, so it is enough to look at both sides of every threshold between `first` and `last`,
    outside which the result saturates anyway. Integer kernels of onnxruntime compute the former.

    Example:
        >>> float32_agrees(3, 4, -128, 127, 1 << 20, "half_up"), float32_agrees(1, 1, -128, 127, 1 << 20, "half_up")
        (False, False)
        >>> float32_agrees(0xB504F3, 33, -128, 127, 1 << 20, "half_even")
        True
    """
    every, steps = thresholds(mantissa, right, first, last, rounding), np.arange(first + 1, last + 1)
    factor = np.float32(mantissa * 2.0**-right)
    at, below = (np.clip(side, -reach, reach) for side in (every, every - 1))
    found, before = (np.rint(acc.astype(np.float32) * factor) for acc in (at, below))
    return bool(np.all((found >= steps) == (at >= every)) and np.all((before >= steps) == (below >= every)))


def thresholds(mantissa: int, right: int, first: int, last: int, rounding: Rounding) -> Array:
    """For every step from first + 1 to last, the smallest accumulator that is requantized to it or above.

    Example:
        >>> thresholds(1, 2, 0, 3, "half_up").tolist()
        [2, 6, 10]
    """
    one, found = 1 << right, []
    if rounding == "double":
        return _thresholds_twice(mantissa, right, first, last)
    if (max(abs(first), abs(last)) + 1) * one < 1 << 62:
        steps = np.arange(first + 1, last + 1, dtype=np.int64)
        reached = steps * one - (0 if rounding == "truncate" else one >> 1) + (rounding == "half_even") * (steps % 2)
        reached += (rounding == "half_away") & (steps <= 0)
        return np.asarray(-(-reached // mantissa))
    for step in range(first + 1, last + 1):
        least = step * one if rounding == "truncate" else step * one - (one >> 1)
        least += rounding == "half_even" and step % 2 == 1  # the tie goes to the even step below
        least += rounding == "half_away" and step <= 0
        found.append(-(-least // mantissa))
    return _within_62_bits(found)


def _thresholds_twice(mantissa: int, right: int, first: int, last: int) -> Array:
    """The same for sums that are rounded twice: what the second rounding asks of the first, and that of the sums."""
    inner = min(right, PLACES)
    rest, found = right - inner, []
    for step in range(first + 1, last + 1):
        half = (1 << rest) >> 1
        least = (step << rest) - half + (rest > 0 and step <= 0)  # a tie below zero goes to the step below
        found.append(-(-((least << inner) - (1 << (inner - 1))) // mantissa))
    return _within_62_bits(found)


def _within_62_bits(values: list[int]) -> Array:
    limit = 1 << 62
    return np.array([max(-limit, min(limit, v)) for v in values], np.int64)


def provable_compound(
    factor: float,
    shifts: Array,
    first: int,
    last: int,
    reach: int,
    bits: int = 32,
    exponent_bits: int = 6,
    rounding: Rounding = "half_up",
) -> tuple[int, int]:
    """`compound`, moved by at most 2^-18 so that float32 arithmetic computes the same integers, if it can be.

    A factor that float32 holds exactly, and that never makes a tie, lets fast kernels be proven exact, for all `shifts`
    of a layer's channels, accumulators up to `reach` and results from `first` to `last`; a change this small moves no
    result by more than 2^-10 of a step. Where no factor nearby can be proven, the nearest is returned.

    Example:
        >>> m, s = provable_compound(0.001, np.array([0, 3]), -128, 127, 1 << 20)
        >>> abs(m * 2.0 ** (s - 32) / 0.001 - 1) < 2**-18
        True
    """
    plain = compound(factor, bits, exponent_bits)
    digits = min(FLOAT32_DIGITS, bits)
    rights = sorted({int(s) for s in np.ravel(shifts)})
    near, exponent = compound(factor, digits, exponent_bits)
    if digits - exponent + rights[0] < 1:  # a factor so large makes no fraction to round
        return plain
    for distance in range(_TRIES if bits >= FLOAT32_DIGITS else 1):
        mantissa = near + (distance + 1) // 2 * (1 if distance % 2 else -1)
        if not 1 << (digits - 1) <= mantissa < 1 << digits:
            continue
        if all(float32_agrees(mantissa, digits - exponent + s, first, last, reach, rounding) for s in rights):
            return mantissa << (bits - digits), exponent
    return plain
