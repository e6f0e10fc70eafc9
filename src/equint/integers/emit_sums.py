"""Accumulators as sums that ConvInteger and MatMulInteger make, and products, all in integers.

Both operators get unsigned bytes: what is signed is moved by 128, weights that are wider are cut into bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UnsupportedOperator
from ..ir.model import Array, Name
from ..maths.quantized_multiplier import multiplied
from .accumulators import centred_weight, scales_of, stretched_pads
from .program import Program, Step

if TYPE_CHECKING:
    from .maker import Maker


def in_bytes(maker: Maker, program: Program, name: Name) -> list[tuple[int, Name, int]]:
    """(factor, tensor of uint8, zero point) whose sum of factor·(tensor − zero point) is q − z."""
    if name not in maker.bytes:
        kind, zero = program.storage(name), program.zero_point(name)
        if kind == np.uint8:
            return [(1, name, zero)]
        if kind.itemsize > 1:
            maker.bytes[name] = _two_bytes(maker, name, kind, zero)
            return maker.bytes[name]
        moved = maker.add("Add", maker.cast(name, np.int32), np.int32(128))
        maker.bytes[name] = [(1, maker.cast(moved, np.uint8), zero + 128)]
    return maker.bytes[name]


def _two_bytes(maker: Maker, name: Name, kind: np.dtype[Any], zero: int) -> list[tuple[int, Name, int]]:
    moved = -int(np.iinfo(kind).min)
    whole = maker.add("Add", maker.cast(name, np.int32), np.int32(moved)) if moved else maker.cast(name, np.int32)
    upper = maker.add("Div", whole, np.int32(256))
    lower = maker.add("Sub", whole, maker.add("Mul", upper, np.int32(256)))
    parts = zip((1, 256), (lower, upper), ((zero + moved) % 256, (zero + moved) // 256), strict=True)
    return [(factor, maker.cast(part, np.uint8), middle) for factor, part, middle in parts]


def weight_bytes(weight: Array) -> list[tuple[int, Array, int]]:
    """(factor, uint8 array, zero point) whose sum of factor·(array − zero point) is the weight.

    Example:
        >>> [(f, a.tolist(), z) for f, a, z in weight_bytes(np.array([-3, 200]))]
        [(1, [0, 203], 3)]
        >>> [(f, (a.astype(int) - z).tolist()) for f, a, z in weight_bytes(np.array([-300, 200]))]
        [(1, [-44, -56]), (256, [-1, 1])]
    """
    low, high = min(int(weight.min(initial=0)), 0), max(int(weight.max(initial=0)), 0)
    if high - low <= 255:
        return [(1, (weight - low).astype(np.uint8), -low)]
    upper = (weight + 128) >> 8
    return [*weight_bytes(weight - 256 * upper), *((256 * f, a, z) for f, a, z in weight_bytes(upper))]


def _multiplied(maker: Maker, step: Step, parts: list[tuple[int, Name, int]], weight: Array, **attrs: Any) -> Name:
    """The sum of products as int32, or as int64 where it is made of several."""
    op = "ConvInteger" if weight.ndim > 2 else "MatMulInteger"
    terms = []
    for factor, x, zero in parts:
        for times, array, centre in weight_bytes(weight):
            sums = np.abs(array.astype(np.int64) - centre).reshape(len(array), -1).sum(1)
            if sums.max(initial=0) * 255 >= 1 << 31:
                raise UnsupportedOperator(
                    f"{step.name}: its sums do not fit into 32 bits; use fewer bits or a smaller layer"
                )
            array = array if weight.ndim > 2 else array.T
            sums32 = maker.add(op, x, array, np.uint8(zero), np.uint8(centre), **attrs)
            terms.append((factor * times, sums32))
    if len(terms) == 1:
        return terms[0][1]
    return maker.total([maker.add("Mul", maker.cast(t, np.int64), np.int64(f)) for f, t in terms])


def _biased(maker: Maker, program: Program, step: Step, acc: Name) -> Name:
    return maker.add("Add", maker.cast(acc, np.int64), program.along(step, step.arrays["bias"].astype(np.int64)))


def conv(maker: Maker, program: Program, step: Step) -> Name:
    """A ConvInteger; its padding adds nothing, for that is where the zero point goes."""
    parts, attrs = in_bytes(maker, program, step.inputs[0]), step.lists("strides", "dilations", "pads")
    acc = _multiplied(maker, step, parts, centred_weight(step), group=step.attrs["group"], **attrs)
    return _biased(maker, program, step, acc)


def conv_transpose(maker: Maker, program: Program, step: Step) -> Name:
    """A ConvInteger over the stretched input."""
    parts = in_bytes(maker, program, step.inputs[0])
    parts = [(f, stretched(maker, step, x, np.uint8(z)), z) for f, x, z in parts]
    acc = _multiplied(maker, step, parts, centred_weight(step), group=step.attrs["group"], **step.lists("dilations"))
    return _biased(maker, program, step, acc)


def stretched(maker: Maker, step: Step, x: Name, fill: np.generic) -> Name:
    """The input of a ConvTranspose with its positions `strides` apart, and padded for a plain convolution."""
    strides = step.attrs["strides"]
    n = len(strides)
    for d, stride in enumerate(strides):
        if stride > 1:
            rest = maker.add("Shape", x, start=3 + d)
            apart = maker.add("Unsqueeze", x, np.array([3 + d], np.int64))
            filled = maker.add(
                "Pad", apart, np.array([0] * (n + 3) + [0] * (3 + d) + [stride - 1] + [0] * (n - 1 - d)), fill
            )
            shape = maker.add("Concat", np.array([0] * (2 + d) + [-1]), rest, axis=0)
            x = maker.add("Reshape", filled, shape)
    before, after = stretched_pads(step)
    return maker.add("Pad", x, np.array([0, 0, *before, 0, 0, *after], np.int64), fill)


def gemm(maker: Maker, program: Program, step: Step) -> Name:
    """A MatMulInteger."""
    acc = _multiplied(maker, step, in_bytes(maker, program, step.inputs[0]), centred_weight(step))
    return _biased(maker, program, step, acc)


def centred(maker: Maker, program: Program, name: Name) -> Name:
    """q − z in 64 bits."""
    wide = maker.cast(name, np.int64)
    zero = program.zero_point(name)
    return maker.add("Sub", wide, np.int64(zero)) if zero else wide


def weighted_sum(maker: Maker, program: Program, step: Step) -> Name:
    """Products with coefficients, added in 64 bits."""
    coefficients, bias = (step.arrays[k].astype(np.int64) for k in ("coefficients", "bias"))
    pairs = zip(step.inputs, coefficients, strict=True)
    acc = maker.total([maker.add("Mul", centred(maker, program, x), program.along(step, c)) for x, c in pairs])
    return maker.add("Add", acc, program.along(step, bias)) if np.any(bias) else acc


def scaled_sum(maker: Maker, program: Program, step: Step) -> Name:
    """A table for each input, added."""
    terms = []
    for name, multiplier, exponent, sign in zip(step.inputs, *scales_of(step), strict=True):
        q, first = program.grids[name], program.grids[name].qmin
        x = np.arange(q.qmin, q.qmax + 1) - program.zero_point(name)
        entries = sign * multiplied(x << int(step.attrs["left"]), multiplier, exponent)
        index = maker.add("Sub", maker.cast(name, np.int32), np.int32(first))
        terms.append(maker.add("Gather", entries, index, axis=0))
    return maker.total(terms)


def product(maker: Maker, program: Program, step: Step) -> Name:
    """A product in 64 bits."""
    a, b = (centred(maker, program, name) for name in step.inputs)
    return maker.add("Mul", a, b)


def average_pool(maker: Maker, program: Program, step: Step) -> Name:
    """A depthwise ConvInteger by ones."""
    n, parts = program.channels(step, step.inputs[0]), in_bytes(maker, program, step.inputs[0])
    ones = np.ones((n, 1, *step.attrs["kernel_shape"]), np.int64)
    acc = _multiplied(maker, step, parts, ones, group=n, **step.lists("strides", "pads"))
    if "reciprocals" not in step.arrays:
        return acc
    return maker.add("Mul", maker.cast(acc, np.int64), step.arrays["reciprocals"].astype(np.int64))


def window_mean(maker: Maker, program: Program, step: Step) -> None:
    """Sums of q divided by how many they are."""
    (x,), (y,), counts = step.inputs, step.outputs, step.arrays["counts"].astype(np.int64)
    total = maker.add("Add", maker.cast(average_pool(maker, program, step), np.int64), program.zero_point(x) * counts)
    near = maker.add("Div", maker.add("Add", maker.add("Abs", total), counts // 2), counts)
    maker.cast(maker.add("Mul", maker.add("Sign", total), near), program.storage(y), y)


def global_pool(maker: Maker, program: Program, step: Step) -> Name:
    """A sum in 64 bits."""
    axes = np.arange(2, program.rank(step), dtype=np.int64)
    return maker.add("ReduceSum", centred(maker, program, step.inputs[0]), axes, keepdims=1)
