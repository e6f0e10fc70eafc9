"""Steps that compute with single values, or take them together along axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..integers.program import Step
from ..ir.model import Name
from .file import TYPES
from .layouts import Order, as_written, channels_last, without
from .writer import Form, Writer


def aligned_inputs(writer: Writer, step: Step) -> tuple[list[int], Order]:
    """All inputs in one order of the result's axes; those of fewer axes get axes of size 1 in front."""
    (y,) = step.outputs
    rank = writer.rank(y)
    whole = [n for n in step.inputs if writer.rank(n) == rank and n not in writer.program.consts]
    order = writer.place(whole[0])[1] if whole else channels_last(rank)
    return [_aligned(writer, name, rank, order) for name in step.inputs], order


def _aligned(writer: Writer, name: Name, rank: int, order: Order) -> int:
    have = writer.rank(name)
    if have == rank:
        return writer.read(name, order)
    program = writer.program
    if name in program.consts:
        value = program.consts[name]
        wide = value.reshape((1,) * (rank - have) + value.shape)
        return writer.file.constant(name, wide.transpose(order) if have else value.reshape((1,)), writer.grid(name))
    shape = (1,) * (rank - have) + writer.shape(name)
    flat = writer.read(name, as_written(have))
    made = writer.file.tensor(f"{name}_wide", shape, writer.dtype(name), writer.grid(name))
    writer.reshape(flat, made)
    if order == as_written(rank):
        return made
    turned = writer.file.tensor(f"{name}_wide", [shape[a] for a in order], writer.dtype(name), writer.grid(name))
    writer.file.operator("TRANSPOSE", [made, writer.integers("perm", order)], [turned])
    return turned


def scaled_sum(writer: Writer, step: Step) -> None:
    """ADD, or SUB."""
    inputs, order = aligned_inputs(writer, step)
    op = "SUB" if step.arrays["signs"][1] < 0 else "ADD"
    write = lambda y, kind: writer.file.operator(op, inputs, [y], fused_activation_function=kind)
    writer.finished(step, order, write)


def product(writer: Writer, step: Step) -> None:
    """MUL."""
    inputs, order = aligned_inputs(writer, step)
    write = lambda y, kind: writer.file.operator("MUL", inputs, [y], fused_activation_function=kind)
    writer.finished(step, order, write)


def rescaled(writer: Writer, step: Step) -> None:
    """A QUANTIZE from one grid to another."""
    if len(step.inputs) != 1 or not np.all(step.arrays["coefficients"] == 1) or np.any(step.arrays["bias"]):
        raise writer.refuse(step, "LiteRT has no weighted sum; quantize for a target of its arithmetic, as tflite-int8")
    x, order = writer.place(step.inputs[0])
    writer.finished(step, order, lambda y, kind: writer.file.operator("QUANTIZE", [x], [y]), fuses=False)


def clip(writer: Writer, step: Step) -> None:
    """An activation, or MAXIMUM and MINIMUM."""
    x, order = writer.place(step.inputs[0])
    grid, low, high = writer.grid(step.outputs[0]), step.arrays["low"], step.arrays["high"]
    if np.all(low <= grid.qmin) and np.all(high >= grid.qmax):
        writer.put(step.outputs[0], x, order)
        return
    writer.clamp(step, x, low, high, order)


def compared(writer: Writer, step: Step) -> None:
    """MAXIMUM or MINIMUM of two tensors after another."""
    inputs, order = aligned_inputs(writer, step)
    (y,), op = step.outputs, {"Max": "MAXIMUM", "Min": "MINIMUM"}[step.op]
    shape = [writer.shape(y)[axis] for axis in order]
    x = inputs[0]
    for k, other in enumerate(inputs[1:], 2):
        last = k == len(inputs)
        made = (
            writer.made(y, order) if last else writer.file.tensor(f"{y}_part", shape, writer.dtype(y), writer.grid(y))
        )
        writer.file.operator(op, [x, other], [made])
        x = made
    if len(inputs) == 1:
        writer.put(y, x, order)


def reduced(writer: Writer, step: Step) -> None:
    """MEAN or SUM, REDUCE_MAX or REDUCE_MIN."""
    op = {"ReduceMax": "REDUCE_MAX", "ReduceMin": "REDUCE_MIN"}.get(step.op, "SUM")
    op = "MEAN" if step.attrs.get("function") == "ReduceMean" else op
    _reduced(writer, step, op, list(step.attrs["axes"]), bool(step.attrs["keepdims"]))


def global_max_pool(writer: Writer, step: Step) -> None:
    """REDUCE_MAX over all positions."""
    _reduced(writer, step, "REDUCE_MAX", list(range(2, writer.rank(step.inputs[0]))), True)


def _reduced(writer: Writer, step: Step, op: str, axes: Sequence[int], keep: bool) -> None:
    x, order = writer.place(step.inputs[0])
    over = writer.integers("axes", sorted(order.index(axis) for axis in axes))
    after = order if keep else without(order, axes)
    write = lambda y, kind: writer.file.operator(op, [x, over], [y], keep_dims=keep)
    writer.finished(step, after, write, fuses=False)


def softmax(writer: Writer, step: Step) -> None:
    """SOFTMAX over the axis that lies last."""
    (name,), axis = step.inputs, int(step.attrs["over"])
    have = writer.place(name)[1]
    order = have if have[-1] == axis else (*(a for a in have if a != axis), axis)
    x = writer.read(name, order)
    writer.finished(step, order, lambda y, kind: writer.file.operator("SOFTMAX", [x], [y], beta=1.0), fuses=False)


def normalize(writer: Writer, step: Step) -> None:
    """L2_NORMALIZATION over the axis that lies last."""
    (name,), (y,), axes = step.inputs, step.outputs, list(step.attrs["axes"])
    grid = writer.grid(y)
    good = step.attrs.get("function") == "LpNormalization" and len(axes) == 1 and writer.rank(name) <= 4
    if not good or float(grid.scale) != 1 / 128 or int(grid.zero_point) != (0 if grid.signed else 128):
        raise writer.refuse(step, "LiteRT has no operator for this norm of integers; end the network before it")
    have = writer.place(name)[1]
    order = have if have[-1] == axes[0] else (*(a for a in have if a != axes[0]), axes[0])
    x = writer.read(name, order)
    options: dict[str, Any] = {"fused_activation_function": "NONE"}
    write = lambda y, kind: writer.file.operator("L2_NORMALIZATION", [x], [y], **options)
    writer.finished(step, order, write, fuses=False)


def table(writer: Writer, step: Step) -> None:
    """The operator that a table stands for; of other functions a GATHER from it."""
    (name,), (y,), kind = step.inputs, step.outputs, step.attrs.get("function", "")
    x, order = writer.place(name)
    if kind in ("Sigmoid", "Tanh", "HardSwish"):
        op = {"Sigmoid": "LOGISTIC", "Tanh": "TANH", "HardSwish": "HARD_SWISH"}[kind]
        writer.file.operator(op, [x], [writer.made(y, order)])
    elif kind == "Gelu":
        writer.file.operator("GELU", [x], [writer.made(y, order)], approximate=False)
    elif kind in ("Elu", "Exp", "Log"):
        writer.file.operator(kind.upper(), [x], [writer.made(y, order)])
    elif kind == "LeakyRelu":
        writer.file.operator("LEAKY_RELU", [x], [writer.made(y, order)], alpha=float(step.attrs["alpha"]))
    elif kind == "PRelu":
        _prelu(writer, step, str(step.attrs["slopes"]))
    elif step.arrays["table"].ndim == 1:
        _gathered(writer, step, x, order)
    else:
        raise writer.refuse(step, "LiteRT has no table for each channel; replace it by a product and a sum")


def _prelu(writer: Writer, step: Step, slopes: Name) -> None:
    """Slopes `(C,)` along the channels, which lie last."""
    (name,), (y,), rank = step.inputs, step.outputs, writer.rank(step.inputs[0])
    order = channels_last(rank)
    value = writer.program.consts[slopes].reshape(-1)
    shape = [1] * rank
    shape[step.axis % rank] = value.size
    stored = value.reshape(shape).transpose(order)
    stored = stored.reshape(stored.shape[1:]) if rank > 1 else stored
    alpha = writer.file.constant(slopes, stored, writer.grid(slopes))
    writer.file.operator("PRELU", [writer.read(name, order), alpha], [writer.made(y, order)])


def _gathered(writer: Writer, step: Step, x: int, order: Order) -> None:
    (name,), (y,) = step.inputs, step.outputs
    shape = [writer.shape(y)[axis] for axis in order]
    wide, index = (writer.file.tensor(f"{y}_index", shape, "int32") for _ in range(2))
    writer.file.operator("CAST", [x], [wide], in_data_type=TYPES[writer.dtype(name)], out_data_type="INT32")
    first = writer.integers("first", [-writer.grid(name).qmin])
    writer.file.operator("ADD", [wide, first], [index], 1, fused_activation_function="NONE")
    entries = writer.file.constant(f"{y}_table", step.arrays["table"], writer.grid(y))
    writer.file.operator("GATHER", [entries, index], [writer.made(y, order)], axis=0)


FORMS: Mapping[str, Form] = {
    "ScaledSum": scaled_sum,
    "Mul": product,
    "Sum": rescaled,
    "Clip": clip,
    "Max": compared,
    "Min": compared,
    "ReduceSum": reduced,
    "ReduceMax": reduced,
    "ReduceMin": reduced,
    "GlobalMaxPool": global_max_pool,
    "Softmax": softmax,
    "Normalize": normalize,
    "Table": table,
}
