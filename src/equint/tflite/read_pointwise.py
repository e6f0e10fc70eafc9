"""What is done to every value by itself: arithmetic, functions, comparisons, activations."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ..ir.model import Name
from .call import ACTIVATIONS, Call, broadcast, reads
from .draft import Axes

_BINARY = {
    "ADD": "Add", "SUB": "Sub", "MUL": "Mul", "MAXIMUM": "Max", "MINIMUM": "Min", "POW": "Pow",
    "LESS": "Less", "LESS_EQUAL": "LessOrEqual", "GREATER": "Greater", "GREATER_EQUAL": "GreaterOrEqual",
    "EQUAL": "Equal", "LOGICAL_AND": "And", "LOGICAL_OR": "Or",
}  # fmt: skip
_UNARY = {
    "ABS": "Abs", "CEIL": "Ceil", "COS": "Cos", "ELU": "Elu", "EXP": "Exp", "FLOOR": "Floor", "HARD_SWISH": "HardSwish",
    "LOG": "Log", "LOGICAL_NOT": "Not", "LOGISTIC": "Sigmoid", "NEG": "Neg", "ROUND": "Round", "SIGN": "Sign",
    "SIN": "Sin", "SQRT": "Sqrt",
}  # fmt: skip


def _with_layout(call: Call, made: Callable[..., Name]) -> None:
    """The operands in one order of axes, broadcast, and what is made of them."""
    names, axes = broadcast(call, call.values())
    call.give(made(*names), axes)


@reads(*_BINARY)
def _binary(call: Call) -> None:
    _with_layout(call, lambda a, b: call.add(_BINARY[call.operator.kind], a, b))


@reads(*_UNARY)
def _unary(call: Call) -> None:
    _with_layout(call, lambda x: call.add(_UNARY[call.operator.kind], x))


@reads(*ACTIVATIONS)
def _activation(call: Call) -> None:
    _with_layout(call, lambda x: call.activated(call.operator.kind, x))


@reads("DIV")
def _div(call: Call) -> None:
    """Of whole numbers towards zero, as ONNX has it too."""
    _with_layout(call, lambda a, b: call.add("Div", a, b))


@reads("FLOOR_DIV")
def _floor_div(call: Call) -> None:
    _with_layout(call, lambda a, b: _floored(call, a, b))


@reads("FLOOR_MOD")
def _floor_mod(call: Call) -> None:
    """a − ⌊a/b⌋·b; ONNX's Mod of whole numbers is that."""
    if call.value(0).dtype.startswith("int"):
        _with_layout(call, lambda a, b: call.add("Mod", a, b))
    else:
        _with_layout(call, lambda a, b: call.add("Sub", a, call.add("Mul", _floored(call, a, b), b)))


def _floored(call: Call, a: Name, b: Name) -> Name:
    if not call.value(0).dtype.startswith("int"):
        return call.add("Floor", call.add("Div", a, b))
    return call.add("Div", call.add("Sub", a, call.add("Mod", a, b)), b)


@reads("NOT_EQUAL")
def _not_equal(call: Call) -> None:
    _with_layout(call, lambda a, b: call.add("Not", call.add("Equal", a, b)))


@reads("SQUARED_DIFFERENCE")
def _squared_difference(call: Call) -> None:
    def made(a: Name, b: Name) -> Name:
        difference = call.add("Sub", a, b)
        return call.add("Mul", difference, difference)

    _with_layout(call, made)


@reads("SQUARE")
def _square(call: Call) -> None:
    _with_layout(call, lambda x: call.add("Mul", x, x))


@reads("RSQRT")
def _rsqrt(call: Call) -> None:
    _with_layout(call, lambda x: call.add("Reciprocal", call.add("Sqrt", x)))


@reads("ADD_N")
def _add_n(call: Call) -> None:
    _with_layout(call, lambda *names: call.add("Sum", *names))


@reads("LEAKY_RELU")
def _leaky_relu(call: Call) -> None:
    _with_layout(call, lambda x: call.add("LeakyRelu", x, alpha=float(call.option("alpha", 0.0))))


@reads("PRELU")
def _prelu(call: Call) -> None:
    _with_layout(call, lambda x, slope: call.add("PRelu", x, slope))


@reads("GELU")
def _gelu(call: Call) -> None:
    """x·Φ(x), or its approximation by tanh."""

    def made(x: Name) -> Name:
        half = call.add("Mul", x, call.const(0.5, "half", np.float32))
        if not call.option("approximate", False):
            erf = call.add("Erf", call.add("Div", x, call.const(math.sqrt(2), "sqrt2", np.float32)))
        else:
            cube = call.add("Mul", call.add("Mul", call.add("Mul", x, x), x), call.const(0.044715, "cubic", np.float32))
            inner = call.add("Mul", call.add("Add", x, cube), call.const(math.sqrt(2 / math.pi), "scale", np.float32))
            erf = call.add("Tanh", inner)
        return call.add("Mul", half, call.add("Add", erf, call.const(1, "one", np.float32)))

    _with_layout(call, made)


@reads("SELECT_V2")
def _select_v2(call: Call) -> None:
    _with_layout(call, lambda condition, a, b: call.add("Where", condition, a, b))


@reads("SELECT")
def _select(call: Call) -> None:
    """As SELECT_V2, but for a condition of one axis: it is of the first axis."""
    condition, rank = call.value(0), call.value(1).rank
    if condition.rank != 1 or rank <= 1:
        return _select_v2(call)
    shape = call.const([-1] + [1] * (rank - 1), "shape")
    column = call.add("Reshape", call.plain(0), shape)
    return call.give(call.add("Where", column, call.plain(1), call.plain(2)))


@reads("CAST")
def _cast(call: Call) -> None:
    x = call.value(0)
    wanted = call.scope.graph.tensors[call.operator.outputs[0]].dtype
    if call.operator.inputs[0] in call.scope.imaginary:  # the real part
        return call.same(x, x.axes) if wanted == "float32" else call.refuse(f"makes {wanted} of complex numbers")
    if x.data is not None:
        return call.give_data(x.data.astype(wanted))
    return call.give(call.cast(call.own(x), wanted), x.axes)


@reads("DEQUANTIZE")
def _dequantize(call: Call) -> None:
    """Of half floats: what is quantized was refused before."""
    x = call.value(0)
    if x.dtype not in ("float16", "float32"):
        call.refuse(f"takes {x.dtype}; give the float model")
    if x.data is not None:
        return call.give_data(x.data.astype(np.float32))
    return call.give(call.cast(call.own(x), "float32"), x.axes)


@reads("DENSIFY")
def _densify(call: Call) -> None:
    """Constants are dense since they were read."""
    call.give_data(call.data(0))


@reads("ZEROS_LIKE")
def _zeros_like(call: Call) -> None:
    x = call.value(0)
    if all(n is not None for n in x.dims):
        return call.give_data(np.zeros([n or 0 for n in x.dims], x.dtype))
    return call.give(call.add("Mul", call.own(x), call.const(0, "zero", x.dtype)), x.axes)


@reads("SOFTMAX")
def _softmax(call: Call) -> None:
    """exp(beta·x) in shares, along the last axis."""
    x, beta = call.value(0), float(call.option("beta", 1.0))
    name, axes = _ordered(call)
    if beta != 1:
        name = call.add("Mul", name, call.const(beta, "beta", np.float32))
    call.give(call.add("Softmax", name, axis=axes.index(x.rank - 1)), axes)


@reads("LOG_SOFTMAX")
def _log_softmax(call: Call) -> None:
    name, axes = _ordered(call)
    call.give(call.add("LogSoftmax", name, axis=axes.index(len(axes) - 1)), axes)


def _ordered(call: Call) -> tuple[Name, Axes]:
    """The operand in the order in which it lies, which must have an axis."""
    x = call.value(0)
    if not x.rank:
        call.refuse("takes a single number")
    return call.own(x), x.axes


@reads("L2_NORMALIZATION")
def _l2_normalization(call: Call) -> None:
    """x / max(√Σx², 1e-6), along the last axis."""
    name, axes = _ordered(call)
    length = call.add("ReduceL2", name, axes=[axes.index(len(axes) - 1)], keepdims=1)
    call.give(call.add("Div", name, call.add("Max", length, call.const(1e-6, "least", np.float32))), axes)


@reads("LOCAL_RESPONSE_NORMALIZATION")
def _local_response(call: Call) -> None:
    """x / (bias + alpha·Σx²)^beta over 2·radius + 1 channels; ONNX divides alpha by their number."""
    x, size = call.value(0), 2 * int(call.option("radius")) + 1
    first: Axes = (0, 3, 1, 2)
    attrs = {"alpha": float(call.option("alpha")) * size, "beta": float(call.option("beta")), "size": size}
    call.give(call.add("LRN", call.placed(x, first), bias=float(call.option("bias")), **attrs), first)
