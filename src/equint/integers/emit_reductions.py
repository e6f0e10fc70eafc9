"""Accumulators over whole axes, and quotients, in integer operators of ONNX."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..ir.model import Name
from ..maths.integer_functions import MOST_POWER, ROOT_BITS
from .emit_moves import Move
from .emit_sums import centred, in_bytes
from .program import Program, Step
from .reductions import FRACTION_BITS, QUOTIENT_BITS, SHARE_BITS

if TYPE_CHECKING:
    from .maker import Maker

_FAR = 1 << 62
"""Added to a number to make it positive; a multiple of every power of two that divides it."""


def matmul(maker: Maker, program: Program, step: Step) -> Name:
    """A MatMulInteger of two activations, or of the bytes of wider ones, added in 64 bits."""
    left, right = (in_bytes(maker, program, name) for name in step.inputs)
    terms = [
        (f * g, maker.add("MatMulInteger", a, b, np.uint8(zero_a), np.uint8(zero_b)))
        for f, a, zero_a in left
        for g, b, zero_b in right
    ]
    if len(terms) == 1:
        return terms[0][1]
    return maker.total([maker.add("Mul", maker.cast(term, np.int64), np.int64(factor)) for factor, term in terms])


def reduce_sum(maker: Maker, program: Program, step: Step) -> Name:
    """A sum in 64 bits."""
    axes = np.array(step.attrs["axes"], np.int64)
    x = centred(maker, program, step.inputs[0])
    return maker.add("ReduceSum", x, axes, keepdims=int(step.attrs["keepdims"]))


def quotient(maker: Maker, program: Program, step: Step) -> Name:
    """A division that rounds down."""
    a, b = (centred(maker, program, name) for name in step.inputs)
    divisor = maker.add("Where", maker.add("Equal", b, np.int64(0)), np.int64(1), maker.add("Mul", b, np.int64(2)))
    wide = maker.add("Mul", a, np.int64(1 << QUOTIENT_BITS + 1))
    return maker.add("Div", maker.add("Sub", wide, maker.add("Mod", wide, divisor)), divisor)


def softmax(maker: Maker, program: Program, step: Step) -> Name:
    """Entries of the table, their sum, and a division."""
    axis, add = np.array([step.attrs["over"]], np.int64), maker.add
    x = maker.cast(step.inputs[0], np.int32)
    below = add("Sub", add("ReduceMax", x, axis, keepdims=1), x)
    e = add("Gather", step.arrays["exponentials"].astype(np.int64), below, axis=0)
    return add("Div", add("Mul", e, np.int64(1 << SHARE_BITS)), add("ReduceSum", e, axis, keepdims=1))


def normalize(maker: Maker, program: Program, step: Step) -> Name:
    """Exact statistics, a reciprocal root by table and one step of Newton's method, and one rounding."""
    add, count, groups = maker.add, np.int64(step.attrs["count"]), int(step.attrs["groups"])
    x = centred(maker, program, step.inputs[0])
    parts = add("Reshape", x, np.array([0, groups, -1], np.int64)) if groups else x
    over = np.array([2] if groups else step.attrs["axes"], np.int64)
    d = add("Mul", parts, count)
    w = add("Mul", add("ReduceSum", add("Mul", parts, parts), over, keepdims=1), count)
    if step.attrs["centred"]:
        total = add("ReduceSum", parts, over, keepdims=1)
        d, w = add("Sub", d, total), add("Sub", w, add("Mul", total, total))
    w = add("Max", add("Add", w, np.int64(step.attrs["extra"])), np.int64(1))
    root, e = _reciprocal_root(maker, step, w)
    rights = np.arange(MOST_POWER, dtype=np.int64) + ROOT_BITS - FRACTION_BITS
    product = add("Add", add("Mul", d, root), add("Gather", np.int64(1) << (rights - 1), e))
    right = maker.cast(add("Gather", rights, e), np.uint64)
    shifted = add("BitShift", maker.cast(add("Add", product, np.int64(_FAR)), np.uint64), right, direction="RIGHT")
    n = add("Sub", maker.cast(shifted, np.int64), add("Gather", np.int64(_FAR) >> rights, e))
    n = add("Reshape", n, add("Shape", x)) if groups else n
    gains, bias = (program.along(step, step.arrays[key].astype(np.int64)) for key in ("gains", "bias"))
    return add("Add", add("Mul", n, gains), bias)


def _reciprocal_root(maker: Maker, step: Step, w: Name) -> tuple[Name, Name]:
    """`equint.maths.integer_functions.reciprocal_roots`, all numbers positive."""
    add = maker.add
    powers = np.int64(1) << 2 * np.arange(1, MOST_POWER, dtype=np.int64)
    above = add("GreaterOrEqual", add("Unsqueeze", w, np.array([-1], np.int64)), powers)
    e = add("ReduceSum", maker.cast(above, np.int64), np.array([-1], np.int64), keepdims=0)
    each = np.arange(MOST_POWER)
    up, down = (np.maximum(2 * (each - 15) * sign, 0).astype(np.uint64) for sign in (-1, 1))
    u = add("BitShift", maker.cast(w, np.uint64), add("Gather", up, e), direction="LEFT")
    u = add("BitShift", u, add("Gather", down, e), direction="RIGHT")
    entry = maker.cast(add("BitShift", u, np.uint64(24), direction="RIGHT"), np.int64)
    first = add("Gather", step.arrays["roots"].astype(np.int64), add("Sub", entry, np.int64(64)))
    first_u = maker.cast(first, np.uint64)
    half = add("BitShift", add("Mul", u, first_u), np.uint64(17), direction="RIGHT")
    newton = add("Sub", np.int64(3 << 43), add("Mul", maker.cast(half, np.int64), first))
    root = add("BitShift", maker.cast(add("Mul", first, newton), np.uint64), np.uint64(36), direction="RIGHT")
    return maker.cast(root, np.int64), e


def over_axes(move: Move) -> None:
    """A ReduceMax or ReduceMin over axes that are constants."""
    axes, keep = np.array(move.step.attrs["axes"], np.int64), int(move.step.attrs["keepdims"])
    move.maker.add(move.step.op, move.inputs[0], axes, to=move.outputs[0], keepdims=keep)
