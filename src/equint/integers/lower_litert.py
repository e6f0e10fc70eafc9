"""Steps as LiteRT's kernels compute them, for targets of that arithmetic: where plain ones differ.

Products with weights, and all that moves integers, are lowered as for others; only their multipliers are LiteRT's.
`function` among a step's attributes names the operator of ONNX that a table or a sum stands for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.special import erf, expit

from ..errors import InvalidTarget, UnsupportedOperator
from ..ir.model import Array, Name, Node, QParams
from ..maths.affine import choose_qparams, dequantize, quantize, storage
from ..maths.litert_tables import hard_swish, leaky, sloped
from ..maths.quantized_multiplier import SUM_BITS, WIDE_SUM_BITS, mean_multiplier, sum_multipliers
from ..ops.activations import clamps
from ..ops.operator import Form
from .builder import Lowering, same
from .geometry import static, window
from .lower_moves import moved
from .lower_reductions import Last, axes_of, compared, count_of, normalization, requantized, softmax
from .program import Requantize, Step
from .steps import bound

Function = Callable[[Array], Array]
_CURVES: Mapping[str, Function] = {
    "Sigmoid": expit,
    "Tanh": np.tanh,
    "HardSwish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "Swish": lambda x: x * expit(x),
}
"""Functions for which LiteRT has operators, or pairs of them."""
_OWN: Mapping[str, tuple[str, Function]] = {
    "Gelu": ("GELU", lambda x: 0.5 * x * (1 + erf(x / math.sqrt(2)))),
    "Elu": ("ELU", lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0)))),
    "Exp": ("EXP", np.exp),
    "Log": ("LOG", np.log),
}
"""Functions that are LiteRT's own operators where the hardware lists those; elsewhere tables, which are exact."""


def _sum(work: Lowering, node: Node) -> None:
    """An Add, Sub or Sum: two at a time, what is added so far on a grid that holds all it can be."""
    names = [_operand(work, i, node) for i in node.inputs]
    name, q, activations = work.result(node)
    first, sign = names[0], -1 if node.op == "Sub" else 1
    for k, other in enumerate(names[1:], 1):
        if k == len(names) - 1:
            _added(work, node, (first, other), sign, name, (q, activations))
            continue
        ends = [(g.lo, g.hi) for g in (work.grid(n, node.label) for n in (first, other))]
        grid = choose_qparams(sum(lo for lo, _ in ends), sum(hi for _, hi in ends), work.target.activation)
        partial = work.fresh(f"{name}_partial")
        _added(work, node, (first, other), 1, partial, (grid, []))
        work.shapes[partial] = work.graph.shapes.get(node.outputs[0]) or ()
        first = partial
    if len(names) == 1:
        work.rescaled(node, first, (q, activations), name)


def _operand(work: Lowering, name: Name, node: Node) -> Name:
    """An input as integers: a constant on its own grid."""
    consts = work.graph.consts
    return work.operand(name, consts[name], work.target.activation) if name in consts else name


def _added(
    work: Lowering, node: Node, names: tuple[Name, Name], sign: int, made: Name, last: tuple[QParams, list[Node]]
) -> None:
    a, b = (float(work.grid(n, node.label).scale) for n in names)
    bits = WIDE_SUM_BITS if work.wide else SUM_BITS
    *pairs, factor = sum_multipliers((a, b), float(last[0].scale), bits)
    multipliers, exponents = zip(*pairs, strict=True)
    arrays = {"multipliers": multipliers, "exponents": exponents, "signs": (1, sign)}
    attrs = {"left": bits, "axis": 1}
    step = Step("ScaledSum", node.label, names, (made,), attrs, {k: np.array(v, np.int32) for k, v in arrays.items()})
    requantized(work, node, step, np.asarray(factor), last)


def _product(work: Lowering, node: Node) -> None:
    """A Mul, or a Div by a constant, whose reciprocal is a factor."""
    if node.op == "Div":
        divisor = work.graph.constant(node.inputs[1])
        if divisor is None:
            raise UnsupportedOperator(f"{node.label}: LiteRT divides no int8 values by one another; replace the Div")
        names = [node.inputs[0], work.operand(f"{node.inputs[1]}_reciprocal", 1 / divisor, work.target.activation)]
    else:
        names = [_operand(work, i, node) for i in node.inputs]
    name, q, activations = work.result(node)
    _multiplied(work, node, names, name, (q, activations))


def _multiplied(work: Lowering, node: Node, names: Sequence[Name], made: Name, last: Last) -> None:
    a, b = (np.float32(work.grid(n, node.label).scale) for n in names)
    step = Step("Mul", node.label, tuple(names), (made,), {"axis": 1})
    requantized(work, node, step, np.asarray(float(a * b / np.float32(last[0].scale))), last)


def _average_pool(work: Lowering, node: Node) -> None:
    """Sums of integers over windows, divided by how many they are: the grid stays."""
    x, sizes = node.inputs[0], work.graph.shapes.get(node.inputs[0])
    kernel = tuple(int(k) for k in node.attrs["kernel_shape"])
    found = window(node, kernel, sizes)
    if any(d != 1 for d in found.dilations):
        raise UnsupportedOperator(f"{node.label}: a dilated AveragePool has no integer form; replace it")
    counts, pads = np.asarray(math.prod(kernel), np.int32), found.pads
    if any(pads) and node.attrs.get("count_include_pad", 0):
        x = _padded(work, node, x, pads)
        pads = [0] * len(pads)
    elif any(pads):
        counts = found.counts(kernel, static(sizes, node.label)).astype(np.int32)
    attrs = {"kernel_shape": list(kernel), "strides": found.strides, "pads": pads, "axis": 1}
    moved(work, node, "WindowMean", [x], attrs, {"counts": counts})


def _padded(work: Lowering, node: Node, name: Name, pads: Sequence[int]) -> Name:
    """A tensor with zeros around its spatial axes."""
    q, half = work.grid(name, node.label), len(pads) // 2
    made, widths = work.fresh(f"{name}_padded"), [0, 0, *pads[:half], 0, 0, *pads[half:]]
    arrays = {"pads": np.array(widths, np.int64)}
    work.add("Pad", node, [name], made, q, attrs={"value": int(q.zero_point)}, arrays=arrays)
    shape = work.graph.shapes.get(name) or ()
    sizes = zip(shape[2:], pads[:half], pads[half:], strict=True)
    work.shapes[made] = (*shape[:2], *(n + a + b if isinstance(n, int) else n for n, a, b in sizes))
    return made


def _global_average(work: Lowering, node: Node) -> None:
    _averaged(work, node, list(range(2, len(work.graph.shapes.get(node.inputs[0]) or ()))), 1)


def _mean(work: Lowering, node: Node) -> None:
    _averaged(work, node, axes_of(work, node), int(node.attrs.get("keepdims", 1)))


def _total(work: Lowering, node: Node) -> None:
    """A sum over axes: the mean, times how many there are, for LiteRT's SUM takes int8 for uint8 (reduce.cc)."""
    axes = axes_of(work, node)
    count = count_of(work, node, axes)
    name, q, activations = work.result(node, given=work.grid(node.inputs[0], node.label))
    part = work.fresh(f"{name}_mean")
    grid = replace(q, scale=np.asarray(float(q.scale) / count, np.float32))
    work.shapes[part] = work.graph.shapes.get(node.outputs[0]) or ()
    _averaged(work, node, axes, int(node.attrs.get("keepdims", 1)), (part, grid, []))
    one = replace(q, scale=np.asarray(count, np.float32), zero_point=np.zeros((), np.int32))
    times = work.stored(f"{name}_count", np.full((), count, np.float32), one)
    _multiplied(work, node, (part, times), name, (q, activations))


def _averaged(
    work: Lowering, node: Node, axes: list[int], keepdims: int, last: tuple[Name, QParams, list[Node]] | None = None
) -> None:
    """A mean over axes: its multiplier is divided by how many values there are."""
    x = work.grid(node.inputs[0], node.label)
    name, q, activations = last or work.result(node, given=x)
    attrs = {"axes": axes, "keepdims": keepdims, "axis": 1, "function": "ReduceMean"}
    step = Step("ReduceSum", node.label, node.inputs[:1], (name,), attrs)
    pair = mean_multiplier(float(x.scale) / float(q.scale), count_of(work, node, axes))
    reach = bound(step, work.grids, {**work.graph.shapes, **work.shapes})
    how = work.multiplied(node, [pair], (), reach, (q, activations))
    work.steps.append(replace(step, requantize=how))
    work.grids[name] = q


def table(work: Lowering, node: Node, function: Function, axis: int = 1, given: Name = "") -> None:
    """A function of one value: by LiteRT's operator where it has one, else by a table of its values."""
    given = given or work.tensors(node)[0][0]
    x = work.grid(given, node.label)
    values = dequantize(np.arange(x.qmin, x.qmax + 1), x).astype(np.float64)
    with np.errstate(all="ignore"):
        wanted = function(values)
    known = (n for n, f in _CURVES.items() if wanted.ndim == 1 and np.allclose(wanted, f(values), 1e-4, 1e-5))
    kind = next(known, "")
    if kind == "Swish":
        gate = work.fresh(f"{node.outputs[0]}_gate")
        work.shapes[gate] = work.graph.shapes.get(node.outputs[0]) or ()
        _on_fixed_grid(work, node, "Sigmoid", expit, given, gate)
        name, q, activations = work.result(node)
        _multiplied(work, node, (given, gate), name, (q, activations))
    elif kind in work.target.fixed:
        name, q, activations = work.result(node)
        asked = _fixed(work, kind)
        made = name if same(q, asked) and not activations else work.fresh(f"{name}_{kind.lower()}")
        _on_fixed_grid(work, node, kind, _CURVES[kind], given, made)
        if made != name:
            work.shapes[made] = work.graph.shapes.get(node.outputs[0]) or ()
            work.rescaled(node, made, (q, activations), name)
    else:
        own = (n for n, (code, f) in _OWN.items() if code in work.target.litert_operators)
        kind = kind or next((n for n in own if _is_own(n, wanted, values)), "")
        entries = _hard_swish(work, node, x) if kind == "HardSwish" and not work.wide else None
        named = entries is not None or kind in _OWN
        _tabulated(work, node, given, wanted, axis, {"function": kind} if named else {}, entries)


def _is_own(kind: str, wanted: Array, x: Array) -> bool:
    with np.errstate(all="ignore"):
        values = _OWN[kind][1](x)
    return wanted.ndim == 1 and bool(np.allclose(wanted, values, 1e-4, 1e-5, equal_nan=True))


def _fixed(work: Lowering, kind: str) -> QParams:
    """The grid that the target asks of an operator's output."""
    if kind not in work.target.fixed:
        raise InvalidTarget(f"target {work.target.name}: LiteRT fixes the grid of {kind}; add {kind} to [fixed]")
    (scale, zero), spec = work.target.fixed[kind], work.target.activation
    return QParams(np.asarray(scale, np.float32), np.asarray(zero, np.int32), spec.bits, spec.signed)


def _on_fixed_grid(work: Lowering, node: Node, kind: str, function: Function, given: Name, made: Name) -> None:
    x, q = work.grid(given, node.label), _fixed(work, kind)
    real = function(dequantize(np.arange(x.qmin, x.qmax + 1), x).astype(np.float64)).astype(np.float32)
    arrays = {"table": quantize(real, q).astype(storage(q))}
    work.add("Table", node, [given], made, q, attrs={"axis": 1, "function": kind}, arrays=arrays)


def _hard_swish(work: Lowering, node: Node, x: QParams) -> Array | None:
    q = work.result(node)[1]
    at = np.arange(x.qmin, x.qmax + 1) - int(x.zero_point)
    return hard_swish(at, (float(x.scale), float(q.scale)), int(q.zero_point))


def _tabulated(
    work: Lowering, node: Node, given: Name, real: Array, axis: int, attrs: Mapping[str, Any], entries: Array | None
) -> None:
    """A table of real values as the output's grid holds them, or of the given integers."""
    name, q, activations = work.result(node)
    low, high, _ = work.clamp(node, q, activations, (axis,))
    if entries is None:
        entries = quantize(np.where(np.isnan(real), 0, real).astype(np.float32), q)
    ends = [b.reshape(-1, 1) if b.ndim else b for b in (low, high)]
    made = np.minimum(np.maximum(entries, ends[0]), ends[1]).astype(storage(q))
    work.add("Table", node, [given], name, q, attrs={"axis": axis, **attrs}, arrays={"table": made})


def sloping(work: Lowering, node: Node, slopes: Array, axis: int) -> None:
    """A LeakyRelu or PRelu, whose slopes are `()` or `(C,)`."""
    x, q = work.grid(node.inputs[0], node.label), work.result(node)[1]
    at = np.arange(x.qmin, x.qmax + 1) - int(x.zero_point)
    scales, zero = (float(x.scale), float(q.scale)), int(q.zero_point)
    if slopes.ndim == 0 and node.op == "LeakyRelu":
        attrs = {"function": "LeakyRelu", "alpha": float(slopes)}
        entries = leaky(at, scales, float(slopes), zero)
    elif work.wide:
        _sloped_apart(work, node, slopes, axis)
        return
    else:
        grid = choose_qparams(slopes.min(), slopes.max(), work.target.activation)
        name = work.stored(f"{node.outputs[0]}_slopes", slopes, grid)
        centred = work.consts[name].astype(np.int64) - int(grid.zero_point)
        attrs = {"function": "PRelu", "slopes": name}
        column = centred.reshape(-1, 1) if slopes.ndim else centred
        entries = sloped(at, column, (scales[0], float(grid.scale), scales[1]), zero)
    _tabulated(work, node, node.inputs[0], entries, axis, attrs, entries)


def _sloped_apart(work: Lowering, node: Node, slopes: Array, axis: int) -> None:
    """max(x, 0) + slopes·min(x, 0): LiteRT has no PRELU of int16."""
    (name, *_), (out, *_) = node.inputs, node.outputs
    x, (made, q, activations) = work.grid(name, node.label), work.result(node)
    shape, ends = work.graph.shapes.get(out) or (), {"above": (0, x.qmax), "below": (x.qmin, 0)}
    parts = {key: work.fresh(f"{out}_{key}") for key in (*ends, "sloped")}
    for key, (low, high) in ends.items():
        arrays = {"low": np.asarray(low, np.int32), "high": np.asarray(high, np.int32)}
        work.add("Clip", node, [name], parts[key], x, attrs={"axis": 1}, arrays=arrays)
    wide = (
        slopes if not slopes.ndim else slopes.reshape([-1 if a == axis % len(shape) else 1 for a in range(len(shape))])
    )
    grid = choose_qparams(wide.min(), wide.max(), work.target.activation)
    factors = work.stored(f"{out}_slopes", wide, grid)
    far = float(np.max(np.abs(slopes))) * abs(x.lo)
    last = choose_qparams(-far, far, work.target.activation)
    work.shapes |= dict.fromkeys(parts.values(), shape)
    _multiplied(work, node, (parts["below"], factors), parts["sloped"], (last, []))
    _added(work, node, (parts["above"], parts["sloped"]), 1, made, (q, activations))


def of_layer(op: str, how: Requantize) -> Requantize:
    """FULLY_CONNECTED multiplies by scales in float64, and rounds once."""
    return replace(how, rounding="half_away") if op == "Gemm" else how


def clamped(work: Lowering, node: Node, name: Name, q: QParams) -> None:
    """A Relu or Clip to another grid, or a Max or Min with constants: rescaled, then clamped."""
    if not clamps(node):
        compared(work, node)
        return
    x = work.grid(name, node.label)
    factor = np.asarray(float(x.scale) / float(q.scale))
    work.weighted(node, [name], node.outputs[0], (q, [node]), [factor], np.zeros(()))


def _softmax(work: Lowering, node: Node) -> None:
    """On its fixed grid, and on another behind that where joins ask for it."""
    if work.wide:
        raise UnsupportedOperator(f"{node.label}: a Softmax of int16 has no exact form; it is computed in float")
    name, q, _ = work.result(node)
    asked = _fixed(work, "Softmax")
    if same(q, asked):
        softmax(work, node)
        return
    made = work.fresh(f"{name}_softmax")
    work.grids[made], work.shapes[made] = asked, work.graph.shapes.get(node.outputs[0]) or ()
    softmax(work, node, made)
    work.rescaled(node, made, (q, []), name)


def _norm(work: Lowering, node: Node) -> None:
    """Values divided by their length along one axis; what else is normalized LiteRT has no operator for."""
    normalization(work, node)
    if node.op == "LpNormalization":
        work.steps[-1] = replace(work.steps[-1], attrs={**work.steps[-1].attrs, "function": node.op})


FORMS: Mapping[Form, Callable[[Lowering, Node], None]] = {
    Form.SUM: _sum,
    Form.PRODUCT: _product,
    Form.AVERAGE_POOL: _average_pool,
    Form.GLOBAL_AVERAGE: _global_average,
    Form.MEAN: _mean,
    Form.SUM_OVER_AXES: _total,
    Form.SOFTMAX: _softmax,
    Form.NORMALIZE: _norm,
}
"""Forms that are built otherwise than for plain integers."""
