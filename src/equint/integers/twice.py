"""Sums that are rounded as LiteRT rounds them, twice or away from zero, in float64."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..ir.model import Name
from ..maths.quantized_multiplier import PLACES
from .program import Program, Requantize, Step

if TYPE_CHECKING:
    from .engine import Compiler, Proof
    from .steps import Sums

FLOAT64_DIGITS = 53


def holds_in_float64(how: Requantize, program: Program) -> bool:
    """Whether it rounds as LiteRT, and float64 holds all products that do not saturate, and halves of their places.

    Results of 8 bits are products below 2^9 in whole 2^-right: 9 + right binary digits, and one for the half.
    """
    right, bits = how.right(program.mantissa_bits), int(np.max(how.high) - np.min(how.low)).bit_length()
    rounds = (how.rounding or program.rounding) in ("double", "half_away")
    return rounds and int(right.max()) + max(bits, 8) + 2 <= FLOAT64_DIGITS


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


def dense_in_float64(compiler: Compiler, step: Step, how: Requantize, work: Sums) -> Proof:
    """q − z = clamp(round(acc·factor)), ties away from zero, of sums in 64 bits: FULLY_CONNECTED of int16.

    The factor is s_x·s_w/s_y itself, in float64 as LiteRT computes it.
    """
    program, add, (y,) = compiler.program, compiler.maker.add, step.outputs
    for name in step.inputs:
        compiler.integers(name)
    acc = compiler.maker.cast(work.integer(compiler.maker, program, step), np.float64)
    factor = np.ldexp(how.mantissa.astype(np.float64), -how.right(program.mantissa_bits))
    if y in program.weight_scales:
        scales = (np.asarray(s, np.float64) for s in (program.grids[step.inputs[0]].scale, program.weight_scales[y]))
        factor = np.asarray(np.multiply(*scales) / np.float64(program.grids[y].scale))
    v = add("Mul", acc, program.along(step, factor))
    near = add("Mul", add("Sign", v), add("Floor", add("Add", add("Abs", v), np.float64(0.5))))
    low, high = (program.along(step, (b - how.zero_point).astype(np.float64)) for b in (how.low, how.high))
    compiler.maker.cast(add("Min", add("Max", near, low), high), np.float32, to=compiler.named(y))
    return compiler.proven(step, "mixed", "sums in 64 bits, whose products float64 rounds as LiteRT does")
