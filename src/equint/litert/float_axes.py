"""Float operators along whole axes: reductions, shares, norms, the largest and where it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ..ir.model import Array, Node
from ..ops.attributes import reduced_axes
from ..ops.norms import norm_of
from .file import TYPES
from .floats import NONE, FloatForm, Floats
from .layouts import Order, as_written, stored, without


def _axes(f: Floats, node: Node) -> list[int]:
    axes = reduced_axes(f.graph, node, f.rank(node.inputs[0]))
    if axes is None:
        raise f.refuse(node, "its axes are computed; make them constants")
    return axes


def reduce(f: Floats, x: int, order: Order, axes: Sequence[int], code: str, keep: bool, made: int) -> int:
    """A reduction of a tensor of the file in an order, onto another."""
    over = f.ints32("axes", sorted(order.index(a) for a in axes))
    return f.op(code, [x, over], made, keep_dims=keep)


def kept(f: Floats, x: int, order: Order, axes: Sequence[int], code: str) -> int:
    """The same with axes of size 1, as a new tensor."""
    shape = list(f.file.tensors[x]["shape"])
    for axis in axes:
        shape[order.index(axis)] = 1
    return reduce(f, x, order, axes, code, True, f.temporary(code.lower(), shape))


def reduction(code: str, before: Callable[[Floats, int], int] | None = None, after: str = "") -> FloatForm:
    """One of a value, or of a function of it; `after` is an operator on the result."""

    def form(f: Floats, node: Node) -> None:
        (x, *_), (y,) = node.inputs, node.outputs
        axes, order = _axes(f, node), f.order(x)
        keep = bool(node.attrs.get("keepdims", 1))
        if (not axes or (node.attrs.get("noop_with_empty_axes", 0) and len(node.inputs) < 2)) and code != "none":
            f.put(y, f.read(x, order), order)
            return
        given = f.read(x, order)
        given = given if before is None else before(f, given)
        last = order if keep else without(order, axes)
        if after:
            part = f.temporary(y, [f.shape(y)[a] for a in last])
            f.op(after, [reduce(f, given, order, axes, code, keep, part)], f.made(y, last))
        else:
            reduce(f, given, order, axes, code, keep, f.made(y, last))

    return form


def _squared(f: Floats, x: int) -> int:
    return f.apply("MUL", [x, x], **NONE)


def softmax(f: Floats, node: Node) -> None:
    """SOFTMAX or LOG_SOFTMAX over the axis that lies last; over several, of a RESHAPE."""
    (x,), (y,) = node.inputs, node.outputs
    old, rank, shape = f.graph.opset < 13, f.rank(x), f.shape(x)
    axis = int(node.attrs.get("axis", 1 if old else -1)) % rank
    code, options = ("SOFTMAX", {"beta": 1.0}) if node.op == "Softmax" else ("LOG_SOFTMAX", {})
    if old and axis != rank - 1 and any(n != 1 for n in shape[axis + 1 :]):
        flat = (int(np.prod(shape[:axis])), int(np.prod(shape[axis:])))
        given, made = (f.temporary(y, flat) for _ in range(2))
        f.writer.reshape(f.read(x), given)
        f.writer.reshape(f.op(code, [given], made, **options), f.made(y))
        return
    have = f.order(x)
    order = have if have[-1] == axis else (*(a for a in have if a != axis), axis)
    f.op(code, [f.read(x, order)], f.made(y, order), **options)


def _against(f: Floats, values: Array, order: Order) -> int:
    """Numbers that broadcast against a value in an order."""
    wide = values.reshape((1,) * (len(order) - values.ndim) + values.shape).astype(np.float32)
    return f.file.constant("numbers", wide.transpose(order))


def norm(f: Floats, node: Node) -> None:
    """(x − mean)/√(variance + ε)·gain + bias: MEAN, SUB, MUL, RSQRT."""
    (x, *_), (y, *rest) = node.inputs, node.outputs
    known = norm_of(f.graph, node, f.shape(x))
    if known is None or any(rest):
        raise f.refuse(node, f"{node.op} of this kind has no form in LiteRT; make its scale and bias constants")
    order = f.order(x) if not known.groups else as_written(f.rank(x))
    given, axes, inner = f.read(x, order), known.axes, order
    if known.groups:
        n, channels, *sizes = f.shape(x)
        shape = (n, known.groups, channels // known.groups * int(np.prod(sizes)))
        grouped = f.temporary(y, shape)
        f.writer.reshape(given, grouped)
        given, axes, inner = grouped, (2,), as_written(3)
    if known.centred:
        given = f.apply("SUB", [given, kept(f, given, inner, axes, "MEAN")], **NONE)
    power = kept(f, _squared(f, given), inner, axes, "MEAN")
    if known.epsilon:
        power = f.apply("ADD", [power, f.number(known.epsilon)], **NONE)
    made = f.apply("MUL", [given, f.apply("RSQRT", [power])], **NONE)
    if known.groups:
        back = f.temporary(y, f.shape(x))
        f.writer.reshape(made, back)
        made = back
    if np.any(known.gain != 1):
        made = f.apply("MUL", [made, _against(f, known.gain, order)], **NONE)
    if np.any(known.bias != 0):
        made = f.apply("ADD", [made, _against(f, known.bias, order)], **NONE)
    f.put(y, made, order)


def standardize(f: Floats, node: Node) -> None:
    """(x − mean)/(deviation + 1e-9) over some axes: MeanVarianceNormalization."""
    (x,), (y,), order = node.inputs, node.outputs, f.order(node.inputs[0])
    axes = [int(a) % f.rank(x) for a in node.attrs.get("axes", [0, 2, 3])]
    given = f.read(x, order)
    given = f.apply("SUB", [given, kept(f, given, order, axes, "MEAN")], **NONE)
    spread = f.apply("SQRT", [kept(f, _squared(f, given), order, axes, "MEAN")])
    f.op("DIV", [given, f.apply("ADD", [spread, f.number(1e-9)], **NONE)], f.made(y, order), **NONE)


def batch_norm(f: Floats, node: Node) -> None:
    """A product and a sum for each channel."""
    scale, bias, mean, variance = (f.constant(node, k) for k in range(1, 5))
    if scale is None or bias is None or mean is None or variance is None:
        raise f.refuse(node, "a BatchNormalization has four constants")
    (x, *_), (y, *_), column = node.inputs, node.outputs, (-1, *[1] * (f.rank(node.inputs[0]) - 2))
    gain = scale / np.sqrt(variance + np.float32(node.attrs.get("epsilon", 1e-5)))
    order = f.order(x)
    scaled = f.apply("MUL", [f.read(x, order), _against(f, gain.reshape(column), order)], **NONE)
    f.op("ADD", [scaled, _against(f, (bias - mean * gain).reshape(column), order)], f.made(y, order), **NONE)


def where_largest(f: Floats, node: Node) -> None:
    """ARG_MAX or ARG_MIN."""
    (x,), (y,) = node.inputs, node.outputs
    if node.attrs.get("select_last_index", 0):
        raise f.refuse(node, "LiteRT finds the first of equal values; leave select_last_index out")
    axis = int(node.attrs.get("axis", 0)) % f.rank(x)
    order = f.order(x)
    left = without(order, [axis])
    sizes = [f.shape(x)[a] for a in order if a != axis]
    part = f.temporary(y, sizes, f.dtype(y))
    code = {"ArgMax": "ARG_MAX", "ArgMin": "ARG_MIN"}[node.op]
    given = f.read(x, order)
    if f.dtype(x) in ("int64", "bool"):  # which LiteRT compares not
        narrow = f.temporary(x, stored(f.shape(x), order), "int32")
        types = {"in_data_type": TYPES[f.dtype(x)], "out_data_type": "INT32"}
        given = f.op("CAST", [given], narrow, **types)
    f.op(code, [given, f.ints32("axis", order.index(axis))], part, output_type="INT64")
    if node.attrs.get("keepdims", 1):
        f.writer.reshape(part, f.made(y, order))
    else:
        f.put(y, part, left)


def cumulated(f: Floats, node: Node) -> None:
    """CUMSUM."""
    (x, _), (y,), axes = node.inputs, node.outputs, f.ints(node, 1)
    options = {key: bool(node.attrs.get(key, 0)) for key in ("exclusive", "reverse")}
    axis = f.ints32("axis", (axes or [0])[0] % f.rank(x))
    f.op("CUMSUM", [f.read(x), axis], f.made(y), **options)


def largest(f: Floats, node: Node) -> None:
    """TOPK_V2, over the axis that lies last."""
    (x, *_), (values, places), count = node.inputs, node.outputs, f.ints(node, 1)
    axis = int(node.attrs.get("axis", -1)) % f.rank(x)
    if not node.attrs.get("largest", 1) or count is None:
        raise f.refuse(node, "LiteRT finds the largest values alone, a constant number of them")
    order = (*(a for a in range(f.rank(x)) if a != axis), axis)
    found = f.temporary(places, [f.shape(places)[a] for a in order], "int32")
    f.file.operator("TOPK_V2", [f.read(x, order), f.ints32("count", count[0])], [f.made(values, order), found], 1)
    f.op("CAST", [found], f.made(places, order), in_data_type="INT32", out_data_type="INT64")


_REDUCTIONS = {
    "ReduceMean": "MEAN",
    "ReduceSum": "SUM",
    "ReduceMax": "REDUCE_MAX",
    "ReduceMin": "REDUCE_MIN",
    "ReduceProd": "REDUCE_PROD",
}
_NORMS = ("LayerNormalization", "InstanceNormalization", "GroupNormalization", "RMSNormalization", "LpNormalization")
FORMS: Mapping[str, FloatForm] = {
    **{op: reduction(code) for op, code in _REDUCTIONS.items()},
    "ReduceL1": reduction("SUM", lambda f, x: f.apply("ABS", [x])),
    "ReduceL2": reduction("SUM", _squared, "SQRT"),
    "ReduceSumSquare": reduction("SUM", _squared),
    "ReduceLogSumExp": reduction("SUM", lambda f, x: f.apply("EXP", [x]), "LOG"),
    **dict.fromkeys(_NORMS, norm),
    "MeanVarianceNormalization": standardize,
    "BatchNormalization": batch_norm,
    "Softmax": softmax,
    "LogSoftmax": softmax,
    "CumSum": cumulated,
    "ArgMax": where_largest,
    "ArgMin": where_largest,
    "TopK": largest,
}
