"""Sums that are rounded as LiteRT rounds them, twice or away from zero, in float64."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..ir.model import Name
from ..maths.quantized_multiplier import PLACES
from .program import Program, Requantize, Step

if TYPE_CHECKING:
    from .engine import Compiler

FLOAT64_DIGITS = 53


def holds_in_float64(how: Requantize, program: Program) -> bool:
    """Whether it rounds as LiteRT, and float64 holds all products that do not saturate, and halves of their places.

    Results of 8 bits are products below 2^9 in whole 2^-right: 9 + right binary digits, and one for the half.
    """
    right = how.right(program.mantissa_bits)
    return (how.rounding or program.rounding) in ("double", "half_away") and int(right.max()) + 10 <= FLOAT64_DIGITS


def in_float64(compiler: Compiler, step: Step, how: Requantize, acc: Name) -> None:
    """q − z = clamp(⌊v + ½ + δ·sgn v⌋), v = acc·factor, where it rounds twice as LiteRT; with |v| for half_away.

    The first of both roundings leaves `rest` places; it moves every threshold by half of one, δ = 2^-(rest + 1),
    towards zero.
    """
    program, add, right = compiler.program, compiler.maker.add, how.right(compiler.program.mantissa_bits)
    rest = np.maximum(right - PLACES, 0)
    factor = np.ldexp(how.mantissa.astype(np.float64), -right)
    v = add("Mul", compiler.maker.cast(acc, np.float64), program.along(step, factor))
    if (how.rounding or program.rounding) == "half_away":
        near = add("Mul", add("Sign", v), add("Floor", add("Add", add("Abs", v), np.float64(0.5))))
    else:
        moved = add("Mul", add("Sign", v), program.along(step, np.where(rest > 0, np.ldexp(0.5, -rest), 0.0)))
        near = add("Floor", add("Add", add("Add", v, moved), np.float64(0.5)))
    low, high = (program.along(step, (b - how.zero_point).astype(np.float32)) for b in (how.low, how.high))
    x, y = compiler.maker.cast(near, np.float32), compiler.named(step.outputs[0])
    if low.size == high.size == 1:
        add("Clip", x, low, high, to=y)
    else:
        add("Min", add("Max", x, low), high, to=y)
