"""Float operators of single values: functions, arithmetic, comparisons, choices."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..ir.model import Name, Node
from ..ops.attributes import clip_bounds
from .file import TYPES
from .floats import NONE, FloatForm, Floats
from .layouts import Order, as_written


def aligned(f: Floats, names: Sequence[Name], output: Name) -> tuple[list[int], Order]:
    """Inputs in one order of the result's axes; those of fewer axes get axes of size 1 in front."""
    rank = f.rank(output)
    whole = [n for n in names if n not in f.graph.consts and f.rank(n) == rank]
    order = f.order(whole[0]) if whole else as_written(rank)
    return [_wide(f, name, rank, order) for name in names], order


def _wide(f: Floats, name: Name, rank: int, order: Order) -> int:
    shape = f.shape(name)
    wide = (1,) * (rank - len(shape)) + shape
    if name in f.graph.consts:
        value = f.graph.consts[name].astype(f.dtype(name))
        return f.file.constant(name, value if value.size == 1 else value.reshape(wide).transpose(order))
    if len(shape) == rank:
        return f.read(name, order)
    made = f.temporary(f"{name}_wide", wide, f.dtype(name))
    f.writer.reshape(f.read(name), made)
    if all(n == 1 for n in wide) or order == as_written(rank):
        return made
    turned = f.temporary(f"{name}_wide", [wide[a] for a in order], f.dtype(name))
    f.transpose(made, turned, order)
    return turned


def single(code: str, **options: Any) -> FloatForm:
    """One operator on one value."""

    def form(f: Floats, node: Node) -> None:
        order = f.order(node.inputs[0])
        f.op(code, [f.read(node.inputs[0], order)], f.made(node.outputs[0], order), **options)

    return form


def several(code: str, **options: Any) -> FloatForm:
    """One operator on two values, after another where there are more."""

    def form(f: Floats, node: Node) -> None:
        (y,) = node.outputs
        inputs, order = aligned(f, node.inputs, y)
        x = inputs[0]
        for other in inputs[1:-1]:
            x = f.apply(code, [x, other], y, **options)
        if len(inputs) == 1:
            f.put(y, x, order)
        else:
            f.op(code, [x, inputs[-1]], f.made(y, order), **options)

    return form


def composed(build: Callable[[Floats, Node, int], int]) -> FloatForm:
    """A function of one value in several operators."""

    def form(f: Floats, node: Node) -> None:
        order = f.order(node.inputs[0])
        f.put(node.outputs[0], build(f, node, f.read(node.inputs[0], order)), order)

    return form


def reciprocal(f: Floats, node: Node, x: int) -> int:
    """1/x."""
    return f.apply("DIV", [f.number(1), x], **NONE)


def softplus(f: Floats, node: Node, x: int) -> int:
    """max(x, 0) + log(1 + e^-|x|)."""
    small = f.apply("EXP", [f.apply("NEG", [f.apply("ABS", [x])])])
    return f.apply(
        "ADD", [f.apply("RELU", [x]), f.apply("LOG", [f.apply("ADD", [small, f.number(1)], **NONE)])], **NONE
    )


def mish(f: Floats, node: Node, x: int) -> int:
    """x·tanh(softplus(x))."""
    return f.apply("MUL", [x, f.apply("TANH", [softplus(f, node, x)])], **NONE)


def swish(f: Floats, node: Node, x: int) -> int:
    """x·σ(αx)."""
    alpha = float(node.attrs.get("alpha", 1.0))
    bent = x if alpha == 1 else f.apply("MUL", [x, f.number(alpha)], **NONE)
    return f.apply("MUL", [x, f.apply("LOGISTIC", [bent])], **NONE)


def softsign(f: Floats, node: Node, x: int) -> int:
    """x/(1 + |x|)."""
    return f.apply("DIV", [x, f.apply("ADD", [f.apply("ABS", [x]), f.number(1)], **NONE)], **NONE)


def hard_sigmoid(f: Floats, node: Node, x: int) -> int:
    """αx + β within 0 and 1."""
    alpha, beta = float(node.attrs.get("alpha", 0.2)), float(node.attrs.get("beta", 0.5))
    line = f.apply("ADD", [f.apply("MUL", [x, f.number(alpha)], **NONE), f.number(beta)], **NONE)
    return f.apply("MINIMUM", [f.apply("RELU", [line]), f.number(1)])


def elu(f: Floats, node: Node, x: int) -> int:
    """γmax(x, 0) + γα(e^min(x, 0) − 1), γ of a Selu; LiteRT's reference kernels have no ELU."""
    selu = node.op == "Selu"
    alpha = float(node.attrs.get("alpha", 1.67326319217681884765625 if selu else 1.0))
    gamma = float(node.attrs.get("gamma", 1.05070102214813232421875)) if selu else 1.0
    bent = f.apply("SUB", [f.apply("EXP", [f.apply("MINIMUM", [x, f.number(0)])]), f.number(1)], **NONE)
    below = f.apply("MUL", [bent, f.number(gamma * alpha)], **NONE)
    above = f.apply("MUL", [f.apply("RELU", [x]), f.number(gamma)], **NONE)
    return f.apply("ADD", [above, below], **NONE)


_ERF = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)


def erf(f: Floats, node: Node, x: int) -> int:
    """sgn(x)·(1 − p(t)·e^(−x²)), t = 1/(1 + 0.3275911·|x|): Abramowitz and Stegun 7.1.26, within 1.5e-7."""
    size = f.apply("ABS", [x])
    t = f.apply("ADD", [f.apply("MUL", [size, f.number(0.3275911)], **NONE), f.number(1)], **NONE)
    t = f.apply("DIV", [f.number(1), t], **NONE)
    total = f.apply("MUL", [t, f.number(_ERF[0])], **NONE)
    for factor in _ERF[1:]:
        total = f.apply("MUL", [f.apply("ADD", [total, f.number(factor)], **NONE), t], **NONE)
    bell = f.apply("EXP", [f.apply("NEG", [f.apply("MUL", [x, x], **NONE)])])
    rest = f.apply("SUB", [f.number(1), f.apply("MUL", [total, bell], **NONE)], **NONE)
    return f.apply("MUL", [f.apply("SIGN", [x]), rest], **NONE)


def gelu(f: Floats, node: Node, x: int) -> int:
    """GELU, exact or by tanh."""
    return f.apply("GELU", [x], approximate=node.attrs.get("approximate", "none") in ("tanh", b"tanh"))


def ceil(f: Floats, node: Node, x: int) -> int:
    """−⌊−x⌋; LiteRT's reference kernels have no CEIL."""
    return f.apply("NEG", [f.apply("FLOOR", [f.apply("NEG", [x])])])


def leaky(f: Floats, node: Node, x: int) -> int:
    """LEAKY_RELU."""
    return f.apply("LEAKY_RELU", [x], alpha=float(node.attrs.get("alpha", 0.01)))


def prelu(f: Floats, node: Node) -> None:
    """max(x, 0) − slopes·max(−x, 0)."""
    (x, slopes), order = aligned(f, node.inputs, node.outputs[0])
    below = f.apply("MUL", [f.apply("RELU", [f.apply("NEG", [x])]), slopes], **NONE)
    f.op("SUB", [f.apply("RELU", [x]), below], f.made(node.outputs[0], order), **NONE)


def clip(f: Floats, node: Node) -> None:
    """MAXIMUM and MINIMUM with numbers."""
    (x, *_), (y,) = node.inputs, node.outputs
    if any(i and i not in f.graph.consts for i in node.inputs[1:]):
        raise f.refuse(node, "its bounds are computed; make them constants")
    made, order = f.read(x, f.order(x)), f.order(x)
    for code, bound in zip(("MAXIMUM", "MINIMUM"), clip_bounds(f.graph, node), strict=True):
        if bound is not None and np.any(np.isfinite(bound)):
            wide = np.asarray(bound, np.float32)
            wide = wide.reshape((1,) * (len(order) - wide.ndim) + wide.shape).transpose(order)
            made = f.apply(code, [made, f.file.constant("bound", np.clip(wide, -3.4e38, 3.4e38))])
    f.put(y, made, order)


def cast(f: Floats, node: Node) -> None:
    """CAST."""
    (x,), (y,) = node.inputs, node.outputs
    order = f.order(x)
    if f.dtype(x) == f.dtype(y):
        f.put(y, f.read(x, order), order)
        return
    kinds = [TYPES.get(f.dtype(name)) for name in (x, y)]
    if None in kinds:
        raise f.refuse(node, f"LiteRT does not convert {f.dtype(x)} to {f.dtype(y)}")
    types = {"in_data_type": kinds[0], "out_data_type": kinds[1]}
    f.op("CAST", [f.read(x, order)], f.made(y, order), **types)


def same(f: Floats, node: Node) -> None:
    """Nothing."""
    (x, *_), order = node.inputs, f.order(node.inputs[0])
    f.put(node.outputs[0], f.read(x, order), order)


def where(f: Floats, node: Node) -> None:
    """SELECT_V2."""
    inputs, order = aligned(f, node.inputs, node.outputs[0])
    f.op("SELECT_V2", inputs, f.made(node.outputs[0], order))


def modulo(f: Floats, node: Node) -> None:
    """FLOOR_MOD."""
    if node.attrs.get("fmod", 0):
        raise f.refuse(node, "LiteRT has no Mod with the sign of the dividend; use fmod = 0")
    several("FLOOR_MOD")(f, node)


def mean_of(f: Floats, node: Node) -> None:
    """ADD, and a MUL."""
    inputs, order = aligned(f, node.inputs, node.outputs[0])
    total = inputs[0]
    for other in inputs[1:]:
        total = f.apply("ADD", [total, other], **NONE)
    f.op("MUL", [total, f.number(1 / len(inputs))], f.made(node.outputs[0], order), **NONE)


_SINGLE = {
    "Abs": "ABS",
    "Neg": "NEG",
    "Exp": "EXP",
    "Log": "LOG",
    "Sqrt": "SQRT",
    "Floor": "FLOOR",
    "Round": "ROUND",
    "Sin": "SIN",
    "Cos": "COS",
    "Sign": "SIGN",
    "Relu": "RELU",
    "Sigmoid": "LOGISTIC",
    "Tanh": "TANH",
    "HardSwish": "HARD_SWISH",
    "Not": "LOGICAL_NOT",
}
_ARITHMETIC = {"Add": "ADD", "Sum": "ADD", "Sub": "SUB", "Mul": "MUL", "Div": "DIV"}
_SEVERAL = {
    "Pow": "POW",
    "Max": "MAXIMUM",
    "Min": "MINIMUM",
    "Equal": "EQUAL",
    "Greater": "GREATER",
    "Less": "LESS",
    "GreaterOrEqual": "GREATER_EQUAL",
    "LessOrEqual": "LESS_EQUAL",
    "And": "LOGICAL_AND",
    "Or": "LOGICAL_OR",
    "Xor": "NOT_EQUAL",
}
_COMPOSED = {
    "Reciprocal": reciprocal,
    "Softplus": softplus,
    "Mish": mish,
    "Swish": swish,
    "Softsign": softsign,
    "Ceil": ceil,
    "HardSigmoid": hard_sigmoid,
    "Elu": elu,
    "Selu": elu,
    "Erf": erf,
    "Gelu": gelu,
    "LeakyRelu": leaky,
}
FORMS: Mapping[str, FloatForm] = {
    **{op: single(code) for op, code in _SINGLE.items()},
    **{op: several(code, **NONE) for op, code in _ARITHMETIC.items()},
    **{op: several(code) for op, code in _SEVERAL.items()},
    **{op: composed(build) for op, build in _COMPOSED.items()},
    "PRelu": prelu,
    "Clip": clip,
    "Cast": cast,
    "Identity": same,
    "Dropout": same,
    "Where": where,
    "Mod": modulo,
    "Mean": mean_of,
}
