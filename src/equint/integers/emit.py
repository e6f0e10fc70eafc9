"""Export as integers only: a Program as ONNX without one float tensor, for runtimes and NPUs that have none.

Sums are made by ConvInteger and MatMulInteger, requantization is a multiplication and a shift in 64 bits. Both
integer operators get unsigned bytes: what is signed is moved by 128, what is wider is cut into bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np
from onnx import ModelProto, checker, helper

from ..errors import EquintError
from ..ir.model import Array, Name, QParams
from ..maths.affine import storage
from .emit_moves import move
from .maker import Maker, along, channels_of, rank_of, zero_point
from .program import LAYERS, MOVES, Program, Requantize, Step

_MOST = (1 << 63) - 1


def export_integer(program: Program) -> ModelProto:
    """The program as an ONNX model of integer operators; tensors keep their names.

    The grids of inputs, outputs and activations are in the metadata as JSON, under "equint.grids".

    Raises:
        EquintError: a step that cannot be written, or a sum beyond 32 bits; the message names the layer.

    Example:
        >>> from ..ir.model import QParams
        >>> grid = QParams(np.float32(0.5), np.int32(3), signed=False)
        >>> clip = Step("Clip", "clip", ("x",), ("y",), {"axis": 1}, {"low": np.array(3), "high": np.array(9)})
        >>> program = Program((clip,), ("x",), ("y",), {"x": grid, "y": grid}, {"x": ("N", 2), "y": ("N", 2)})
        >>> [node.op_type for node in export_integer(program).graph.node]
        ['Clip']
    """
    maker = Maker([*program.grids, *program.consts, *(o for s in program.steps for o in (*s.outputs, s.name))])
    for step in program.steps:
        emit(maker, program, step)
    proto = maker.model(program, {n: storage(q) for n, q in program.grids.items()}, program.outputs)
    helper.set_model_props(proto, {"equint.grids": json.dumps({n: _described(q) for n, q in program.grids.items()})})
    checker.check_model(proto, full_check=True)
    return proto


def _described(q: QParams) -> dict[str, Any]:
    scale, zero_point = repr(float(q.scale)), int(q.zero_point)
    return {"scale": scale, "zero_point": zero_point, "bits": q.bits, "signed": q.signed}


# What a program's numbers say


def centred_weight(step: Step) -> Array:
    """weight − weight_zero_point as int64, in the order that Conv has: (O, I/G, *k), or (O, I) for Gemm.

    A ConvTranspose is a convolution of the stretched input by its taps from last to first.

    Example:
        >>> arrays = {"weight": np.arange(3, dtype=np.uint8).reshape(1, 1, 3), "weight_zero_point": np.uint8(1)}
        >>> centred_weight(Step("ConvTranspose", "c", ("x",), ("y",), {"group": 1}, arrays)).tolist()
        [[[1, 0, -1]]]
    """
    weight = step.arrays["weight"].astype(np.int64)
    if step.op == "ConvTranspose":
        groups, (ins, outs, *kernel) = step.attrs["group"], weight.shape
        weight = np.swapaxes(weight.reshape(groups, ins // groups, outs, *kernel), 1, 2)
        weight = weight.reshape(groups * outs, ins // groups, *kernel)
        weight = np.flip(weight, tuple(range(2, weight.ndim)))
    return weight - along(step.arrays["weight_zero_point"].astype(np.int64), 0, weight.ndim)


def reach(program: Program, step: Step) -> Array:
    """Magnitude that no sum of the step's products, in whatever order, exceeds: int64, `()` or `(C,)`.

    Example:
        >>> grid = QParams(np.float32(1), np.int32(0), signed=False)
        >>> arrays = {"weight": np.array([[3, 4]]), "weight_zero_point": np.array(0), "bias": np.array([-5])}
        >>> reach(Program((), (), (), {"x": grid}), Step("Gemm", "g", ("x",), ("y",), {"axis": -1}, arrays)).tolist()
        [1790]
    """
    spans = [
        (q.qmin - int(q.zero_point), q.qmax - int(q.zero_point)) for q in map(program.grids.__getitem__, step.inputs)
    ]
    most = [max(-low, high) for low, high in spans]
    if step.op in LAYERS:
        weight = centred_weight(step).reshape(len(step.arrays["bias"]) if step.arrays["bias"].ndim else 1, -1)
        up, down = np.maximum(weight, 0).sum(1), np.maximum(-weight, 0).sum(1)
        low, high = max(0, -spans[0][0]), max(0, spans[0][1])
        sums = np.maximum(up * high + down * low, up * low + down * high)
        return np.asarray(sums + np.abs(step.arrays["bias"].astype(np.int64)))
    if step.op == "Sum":
        terms = np.abs(step.arrays["coefficients"].astype(np.int64)) * np.array(most)[:, None]
        return np.asarray(terms.sum(0) + np.abs(step.arrays["bias"].astype(np.int64)))
    if step.op == "Mul":
        return np.asarray(most[0] * most[1])
    if step.op == "AveragePool":
        largest = int(np.max(np.abs(step.arrays.get("reciprocals", np.ones(1))), initial=1))
        return np.asarray(prod(step.attrs["kernel_shape"]) * most[0] * largest)
    sizes = program.shapes.get(step.inputs[0], (None,) * 3)[2:]
    return np.asarray(most[0] * prod(n if isinstance(n, int) else 1 << 16 for n in sizes))


# Steps as integer operators


def emit(maker: Maker, program: Program, step: Step) -> None:
    """Add the nodes that compute the step's outputs from its inputs, all in the types that hold them.

    Raises:
        EquintError: no such step, or one that cannot be written.
    """
    if step.op in _SUMS:
        if step.requantize is None:
            raise EquintError(f"{step.name}: {step.op} has no requantization; lower the network again")
        acc = maker.cast(_SUMS[step.op](maker, program, step), np.int64)
        requantized(maker, program, step, acc)
    elif step.op in MOVES:
        held = program.grids.get(step.outputs[0])
        move(maker, program, step, step.inputs, step.outputs, storage(held) if held else np.dtype(np.int64))
    elif step.op in _OTHERS:
        _OTHERS[step.op](maker, program, step)
    else:
        raise EquintError(f"{step.name}: there is no integer operator {step.op!r}; lower the network again")


def requantized(maker: Maker, program: Program, step: Step, acc: Name) -> None:
    """The step's output from its accumulator, an int64 tensor."""
    how = step.requantize
    assert how is not None
    mantissa, right = _reduced(how, program.mantissa_bits)
    limit = _whole(reach(program, step)) * mantissa
    rank, axis = (rank_of(program, step) if max(limit.size, how.low.size, how.high.size) > 1 else 0), _axis(step)
    product = maker.add("Mul", acc, along(mantissa.astype(np.int64), axis, rank))
    q = rounded_shift(maker, product, right, limit, program.rounding, lambda a: along(a, axis, rank), step.name)
    q = maker.add("Add", q, np.int64(how.zero_point))
    q = maker.add("Max", q, along(how.low.astype(np.int64), axis, rank))
    q = maker.add("Min", q, along(how.high.astype(np.int64), axis, rank))
    maker.cast(q, storage(program.grids[step.outputs[0]]), step.outputs[0])


def _reduced(how: Requantize, mantissa_bits: int) -> tuple[Array, Array]:
    """(mantissa, right) as Python's integers, for the same factor with as few bits as it needs."""
    mantissa, right = np.broadcast_arrays(how.mantissa.astype(np.int64), how.right(mantissa_bits))
    zeros = np.minimum(np.log2((mantissa & -mantissa).astype(np.float64)).astype(np.int64), right - 1)
    return _whole(mantissa >> zeros), _whole(right - zeros)


def _whole(values: Array) -> Array:
    return np.atleast_1d(np.asarray(values, np.int64)).astype(object)


def _axis(step: Step) -> int:
    return int(step.attrs.get("axis", 1))


def rounded_shift(
    maker: Maker, x: Name, right: Array, limit: Array, rounding: str, shaped: Callable[[Array], Array], label: str
) -> Name:
    """round(x / 2^right) of an int64 tensor, |x| ≤ limit; the arrays hold Python's integers.

    Raises:
        EquintError: 64 bits do not hold what is shifted.
    """
    one = _power(right)
    half = one // 2 if rounding != "truncate" else one * 0
    count = -(-(limit + half) // one) + 1  # of steps that make everything positive
    if np.any(limit + half > _MOST):
        raise EquintError(
            f"{label}: an accumulator times its mantissa does not fit into 64 bits; use a smaller mantissa"
        )
    whole = bool(np.all(limit + half + count * one <= _MOST))

    def shaped64(values: Array) -> Array:
        return shaped(np.asarray(values).astype(np.int64))

    def floor(value: Name) -> Name:
        if not whole:
            rest = maker.add("Mod", value, shaped64(one))
            return maker.add("Div", maker.add("Sub", value, rest), shaped64(one))
        positive = maker.cast(maker.add("Add", value, shaped64(count * one)), np.uint64)
        shifted = maker.add("BitShift", positive, shaped64(right).astype(np.uint64), direction="RIGHT")
        return maker.add("Sub", maker.cast(shifted, np.int64), shaped64(count))

    if rounding == "truncate":
        return floor(x)
    if rounding == "half_even":
        odd = maker.add("Mod", floor(x), np.int64(2))
        return floor(maker.add("Add", maker.add("Add", x, odd), shaped64(half - 1)))
    return floor(maker.add("Add", x, shaped64(half)))


def _power(exponents: Array) -> Array:
    return np.asarray(np.array([1 << int(e) for e in exponents.ravel()], object).reshape(exponents.shape))


def in_bytes(maker: Maker, program: Program, name: Name) -> list[tuple[int, Name, int]]:
    """(factor, tensor of uint8, zero point) whose sum of factor·(tensor − zero point) is q − z."""
    if name not in maker._bytes:
        kind, zero = storage(program.grids[name]), zero_point(program, name)
        if kind == np.uint8:
            return [(1, name, zero)]
        value = maker.cast(name, np.int32)
        if kind.kind == "i":
            offset = 128 if kind.itemsize == 1 else 1 << 15
            value, zero = maker.add("Add", value, np.int32(offset)), zero + offset
        parts = [(1, value, zero)]
        if kind.itemsize == 2:
            high, low = maker.add("Div", value, np.int32(256)), maker.add("Mod", value, np.int32(256))
            parts = [(256, high, zero >> 8), (1, low, zero & 255)]
        maker._bytes[name] = [(f, maker.cast(v, np.uint8), z) for f, v, z in parts]
    return maker._bytes[name]


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
                raise EquintError(f"{step.name}: its sums do not fit into 32 bits; use fewer bits or a smaller layer")
            array = array if weight.ndim > 2 else array.T
            sums32 = maker.add(op, x, array, np.uint8(zero), np.uint8(centre), **attrs)
            terms.append((factor * times, sums32))
    if len(terms) == 1:
        return terms[0][1]
    wide = [maker.add("Mul", maker.cast(t, np.int64), np.int64(f)) for f, t in terms]
    acc = wide[0]
    for term in wide[1:]:
        acc = maker.add("Add", acc, term)
    return acc


def _biased(maker: Maker, step: Step, acc: Name, rank: int, axis: int) -> Name:
    return maker.add("Add", maker.cast(acc, np.int64), along(step.arrays["bias"].astype(np.int64), axis, rank))


def _conv(maker: Maker, program: Program, step: Step) -> Name:
    attrs = {k: [int(i) for i in step.attrs[k]] for k in ("strides", "dilations", "pads")}
    weight, parts = centred_weight(step), in_bytes(maker, program, step.inputs[0])
    acc = _multiplied(maker, step, parts, weight, group=step.attrs["group"], **attrs)
    return _biased(maker, step, acc, weight.ndim, 1)


def _conv_transpose(maker: Maker, program: Program, step: Step) -> Name:
    weight, parts = centred_weight(step), in_bytes(maker, program, step.inputs[0])
    parts = [(f, stretched(maker, step, x, np.uint8(z)), z) for f, x, z in parts]
    acc = _multiplied(maker, step, parts, weight, group=step.attrs["group"], dilations=list(step.attrs["dilations"]))
    return _biased(maker, step, acc, weight.ndim, 1)


def stretched(maker: Maker, step: Step, x: Name, fill: np.generic) -> Name:
    """The input of a ConvTranspose with its positions `strides` apart, and padded for a plain convolution."""
    kernel, strides, dilations, pads, extra = (
        step.arrays["weight"].shape[2:],
        *(step.attrs[k] for k in ("strides", "dilations", "pads", "output_padding")),
    )
    n = len(kernel)
    for d, stride in enumerate(strides):
        if stride > 1:
            rest = maker.add("Shape", x, start=3 + d)
            apart = maker.add("Unsqueeze", x, np.array([3 + d], np.int64))
            filled = maker.add(
                "Pad", apart, np.array([0] * (n + 3) + [0] * (3 + d) + [stride - 1] + [0] * (n - 1 - d)), fill
            )
            shape = maker.add("Concat", np.array([0] * (2 + d) + [-1]), rest, axis=0)
            x = maker.add("Reshape", filled, shape)
    spread = [dilations[d] * (kernel[d] - 1) for d in range(n)]
    before = [spread[d] - pads[d] for d in range(n)]
    after = [spread[d] - pads[n + d] + extra[d] - (strides[d] - 1) for d in range(n)]
    return maker.add("Pad", x, np.array([0, 0, *before, 0, 0, *after], np.int64), fill)


def _gemm(maker: Maker, program: Program, step: Step) -> Name:
    acc = _multiplied(maker, step, in_bytes(maker, program, step.inputs[0]), centred_weight(step))
    return _biased(maker, step, acc, 1, 0)


def _centred(maker: Maker, program: Program, name: Name) -> Name:
    wide = maker.cast(name, np.int64)
    zero = zero_point(program, name)
    return maker.add("Sub", wide, np.int64(zero)) if zero else wide


def _sum(maker: Maker, program: Program, step: Step) -> Name:
    coefficients, bias = (step.arrays[k].astype(np.int64) for k in ("coefficients", "bias"))
    axis = _axis(step)
    rank = rank_of(program, step) if max(coefficients.shape[1], bias.size) > 1 else 0
    terms = [
        maker.add("Mul", _centred(maker, program, name), along(c, axis, rank))
        for name, c in zip(step.inputs, coefficients, strict=True)
    ]
    acc = terms[0]
    for term in terms[1:]:
        acc = maker.add("Add", acc, term)
    return maker.add("Add", acc, along(bias, axis, rank)) if np.any(bias) else acc


def _mul(maker: Maker, program: Program, step: Step) -> Name:
    a, b = (_centred(maker, program, name) for name in step.inputs)
    return maker.add("Mul", a, b)


def _average_pool(maker: Maker, program: Program, step: Step) -> Name:
    n, attrs = channels_of(program, step, step.inputs[0]), step.attrs
    ones = np.ones((n, 1, *attrs["kernel_shape"]), np.int64)
    parts = in_bytes(maker, program, step.inputs[0])
    acc = _multiplied(maker, step, parts, ones, group=n, strides=list(attrs["strides"]), pads=list(attrs["pads"]))
    if "reciprocals" not in step.arrays:
        return acc
    return maker.add("Mul", maker.cast(acc, np.int64), step.arrays["reciprocals"].astype(np.int64))


def _global_average_pool(maker: Maker, program: Program, step: Step) -> Name:
    axes = np.arange(2, rank_of(program, step), dtype=np.int64)
    return maker.add("ReduceSum", _centred(maker, program, step.inputs[0]), axes, keepdims=1)


_SUMS: Mapping[str, Callable[[Maker, Program, Step], Name]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "Sum": _sum,
    "Mul": _mul,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global_average_pool,
}


def _interpolate(maker: Maker, program: Program, step: Step) -> None:
    q, right = program.grids[step.inputs[0]], 2 * int(step.attrs["bits"])
    rows, columns = (step.arrays[k].astype(np.int64) for k in ("rows", "columns"))
    wide = maker.add("MatMul", maker.add("MatMul", rows, maker.cast(step.inputs[0], np.int64)), columns.T)
    limit = _whole(np.array(max(-q.qmin, q.qmax) << right))
    near = rounded_shift(maker, wide, _whole(np.array(right)), limit, program.rounding, lambda a: a, step.name)
    maker.cast(near, storage(program.grids[step.outputs[0]]), step.outputs[0])


def _table(maker: Maker, program: Program, step: Step) -> None:
    table, first = step.arrays["table"], program.grids[step.inputs[0]].qmin
    offset = np.asarray(-first, np.int32)
    if table.ndim == 2:
        starts = np.arange(len(table), dtype=np.int32) * np.int32(table.shape[1]) - np.int32(first)
        offset = along(starts, _axis(step), rank_of(program, step) if len(table) > 1 else 0)
    index = maker.cast(step.inputs[0], np.int32)
    index = maker.add("Add", index, offset) if np.any(offset) else index
    values = table.reshape(-1).astype(storage(program.grids[step.outputs[0]]))
    maker.add("Gather", values, index, to=step.outputs[0], axis=0)


def _clip(maker: Maker, program: Program, step: Step) -> None:
    (x,), (y,), low, high = step.inputs, step.outputs, step.arrays["low"], step.arrays["high"]
    kind = storage(program.grids[y])
    if low.size == high.size == 1 and kind.itemsize == 1:
        maker.add("Clip", x, low.reshape(()).astype(kind), high.reshape(()).astype(kind), to=y)
        return
    rank = rank_of(program, step) if max(low.size, high.size) > 1 else 0
    low, high = (along(b, _axis(step), rank).astype(np.int32) for b in (low, high))
    maker.cast(maker.add("Min", maker.add("Max", maker.cast(x, np.int32), low), high), kind, y)


_OTHERS: Mapping[str, Callable[[Maker, Program, Step], None]] = {
    "Interpolate": _interpolate,
    "Table": _table,
    "Clip": _clip,
}
