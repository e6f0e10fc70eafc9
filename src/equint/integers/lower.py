"""From a quantized network to integers alone: every step of the result is integer arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import EquintError, UnsupportedOperator
from ..graph.placement import float_joins, keeps_grid, kept_float, place
from ..hardware.target import Target
from ..ir.model import Array, Graph, Model, Name, Node, QParams
from ..ir.weights import Layer
from ..maths.affine import dequantize, quantize, quantize_bias, storage
from ..maths.fixedpoint import check_format
from ..ops.activations import clamps, is_clamp, negative_slope
from ..ops.arithmetic import constant_bounds
from ..ops.attributes import clip_bounds
from ..ops.curves import curve_of, self_gated
from ..ops.layers import as_layer
from ..ops.operator import Form, Unknown
from ..ops.pointwise import operands, value_of
from ..ops.table import op_of
from . import lower_floats as islands
from . import lower_litert as litert
from . import lower_moves as moves
from . import lower_reductions as wholes
from .builder import Lowering, Products, same
from .geometry import static, window
from .joins import joins_of, needed
from .lower_reductions import ACCUMULATOR, WIDE_ACCUMULATOR, requantized
from .program import Program, Step
from .steps import LAYERS, MOVES, bound


def lower(model: Model, target: Target, floats: Collection[str] = ()) -> Program:
    """The integer program of a quantized model.

    Integers of weights and biases are those of the QDQ model; scales become mantissas and exponents. What follows
    agrees with the QDQ model up to one step of each tensor's grid, layer by layer.

    Args:
        model: what the passes made: a float graph and grids of 8 bits or fewer.
        target: says how wide mantissas, exponents and shifts are, and how its operators round.
        floats: labels of nodes that are computed in float, where the target has floats beside integers; what has no
            integer form there is, too.

    Raises:
        EquintError: an operator without integer form, a tensor without a grid, a grid of more than 8 bits, a shift or
            exponent that the target does not hold, an accumulator that may overflow; it names the layer.

    Example:
        >>> from ..ops.layers import tiny_graph
        >>> from ..hardware.target import target
        >>> grid = QParams(np.float32(0.5), np.int32(3), signed=False)
        >>> model = Model(tiny_graph(), qparams={n: grid for n in "xwy"})
        >>> program = lower(model, target("npu-shift"))
        >>> [(step.op, step.arrays["bias"].shape, int(step.requantize.exponent)) for step in program.steps]
        [('Conv', (4,), 0)]
    """
    if any(o in model.graph.consts for o in model.graph.outputs):
        raise UnsupportedOperator("a result of the network is a constant; leave it out of the network")
    work = Lowering(model, target, place(model.graph), _known_grids(model))
    if target.mixes:
        _check_grids(work)
    for name in model.graph.inputs:
        _enter(work, name)
    formats = (target.rounding, target.mantissa_bits, target.exponent_bits, target.shift_bits)
    try:
        check_format(*formats[1:], formats[0])
    except EquintError as error:
        raise UnsupportedOperator(f"target {target.name}: {error}") from error
    joins = None if target.mixes else joins_of(model.graph, model.apart)
    outputs = model.graph.outputs if joins is None else tuple(n for n in joins.inputs if n not in model.graph.inputs)
    made_of = needed(model.graph, outputs)
    kept = [n for n in model.graph.nodes if joins is None or any(o in made_of for o in n.outputs)]
    if target.mixes:
        named = islands.Kept.of(work, floats)
        for node in kept:
            islands.emit(work, node, _emit, named)
        work.steps = islands.without_unread(work.steps, outputs)
    else:
        _refuse_float_joins(model, made_of)
        _refuse_kept_float(work, kept)
        _refuse_without_form(work, kept)
        for node in kept:
            _emit(work, node)
    made = {*model.graph.inputs, *work.consts, *(o for step in work.steps for o in step.outputs)}
    shapes = {n: s for n, s in {**model.graph.shapes, **work.shapes}.items() if n in made and s is not None}
    return Program(
        tuple(work.steps),
        model.graph.inputs,
        outputs,
        {n: q for n, q in work.grids.items() if n in made},
        shapes,
        work.consts,
        *formats,
        target.name,
        model.graph.name,
        joins,
        work.weight_scales,
        {n: kind for n, kind in work.types.items() if n in made},
    )


def _check_grids(work: Lowering) -> None:
    """What is asked for and no program holds is refused, not left in float."""
    if work.model.qparams and work.model.qparams.keys() <= work.graph.consts.keys():
        raise UnsupportedOperator(
            f"{work.graph.name}: activations are float; .tflite files for {work.target.name} need them as integers"
        )
    for name, q in work.model.qparams.items():
        work.narrow(q, name)
    for layer in (as_layer(work.graph, node) for node in work.graph.nodes):
        grid = None if layer is None else work.model.qparams.get(layer.weight)
        if layer is not None and grid is not None and grid.bits > 8:
            raise UnsupportedOperator(f"{layer.name}: weights of {grid.bits} bits; LiteRT takes 8, quantize to those")


def _enter(work: Lowering, name: Name) -> None:
    """An input on its grid; as it is where the target has floats too."""
    try:
        _check_input(work.graph, name)
        work.grid(name, f"input {name}")
    except UnsupportedOperator:
        if not work.target.mixes:
            raise
        work.raw[name] = name
        work.types[name] = work.graph.dtypes.get(name, "float32")


def _check_input(graph: Graph, name: Name) -> None:
    """A program reads floats, on a grid of its own."""
    dtype = graph.dtypes.get(name, "float32")
    if dtype != "float32":
        pixels = "export the network without what converts them, with a float input: its grid can be the pixels' own"
        number = "cut what converts them off the network"
        number += "" if graph.is_float(name) else ", or make the input a constant with --set"
        raise UnsupportedOperator(
            f"input {name}: holds {dtype}, and programs read activations on a grid of their own; "
            f"{pixels if dtype == 'uint8' else number}"
        )
    if graph.rank(name) == 0:
        raise UnsupportedOperator(f"input {name}: is a single number, which has no grid; set it with --set")


def _refuse_float_joins(model: Model, made_of: Collection[Name]) -> None:
    """No program joins what differs too much for one grid where parts are picked of it again: most would be 0."""
    inside = float_joins(model.graph, model.apart) & model.apart & frozenset(made_of)
    for node in (n for n in model.graph.nodes if n.outputs[0] in inside):
        raise UnsupportedOperator(
            f"{node.label}: {', '.join(node.inputs)} reach too differently far to be joined on one grid, and parts "
            "of that are picked again; pick them in front of it"
        )


def _known_grids(model: Model) -> dict[Name, QParams]:
    """Grids of activations; what is only moved into a grid shares it, and so does an input that is only clipped."""
    graph = model.graph
    grids = {n: q for n, q in model.qparams.items() if n not in graph.consts}
    for node in reversed(graph.nodes):
        x = node.inputs[0] if node.inputs else ""
        alone = is_clamp(graph, node) and x in graph.inputs and len(graph.users(x)) == 1
        if (keeps_grid(graph, node) or alone) and x not in graph.consts and graph.is_float(x):
            behind = next((grids[o] for o in node.outputs if o in grids), None)
            if behind is not None:
                grids.setdefault(x, behind)
    return grids


def _emit(work: Lowering, node: Node) -> None:
    if is_clamp(work.graph, node) and node.inputs[0] in work.merged:
        return  # its layer does it
    if node.outputs and node.outputs[0] in work.applied:
        _applied(work, node, work.applied[node.outputs[0]])
        return
    if node.outputs[0] in work.placement.inner:
        return  # the function does it that it is part of
    if any(i in work.placement.inner for i in node.inputs):
        _pointwise(work, node)
        return
    layer = as_layer(work.graph, node)
    if layer is not None:
        _layer(work, layer)
        return
    builder = _builder(work, node)
    if builder is None:  # refused at the start, unless the target has floats
        raise UnsupportedOperator(f"{node.label}: {node.op} has no integer form")
    builder(work, node)


def _applied(work: Lowering, node: Node, name: Name) -> None:
    """What is applied to the sums that make a tensor: a factor of its own for those below 0, or a table behind them."""
    nodes = work.placement.fused[name]
    if work.looked_up(name) and node.outputs == nodes[-1].outputs:
        gated = self_gated(work.graph, node) if len(nodes) > 1 else None
        curve = curve_of(work.graph, node) if gated is None else gated[0]
        if curve is not None:  # which placement asked for
            _table(work, node, curve, given=name)


def _builder(work: Lowering, node: Node) -> Callable[[Lowering, Node], None] | None:
    """What builds the steps of a node that is no layer; None where it has no integer form."""
    form = op_of(node).steps
    if moves.only_chooses(work, node):
        return lambda work, node: None
    if form is Form.LAYER and node.op == "MatMul":  # of activations: others are layers
        return wholes.product
    forms = {**_FORMS, **litert.FORMS} if work.target.arithmetic == "litert" else _FORMS
    if not isinstance(form, Unknown) and form in forms and work.graph.is_float(node.outputs[0]):
        return forms[form]
    return moves.move if not node.domain and node.op in MOVES else None


def _refuse_without_form(work: Lowering, nodes: Iterable[Node]) -> None:
    """Everything without integer form at once: who mends one of them wants to know the next."""
    graph, lacking = work.graph, dict[str, list[str]]()
    for node in nodes:
        merged = is_clamp(graph, node) and node.inputs[0] in work.merged
        inner = any(i in work.placement.inner for i in (*node.inputs, *node.outputs))
        if not merged and not inner and as_layer(graph, node) is None and _builder(work, node) is None:
            lacking.setdefault(f"{node.domain}::{node.op}" if node.domain else node.op, []).append(node.label)
    if not lacking:
        return
    (op, at), *others = lacking.items()
    more = [f"{op} at {len(at)} nodes" if len(at) > 1 else op]
    more += [f"{op} ({at[0]}{f' and {len(at) - 1} more' if len(at) > 1 else ''})" for op, at in others]
    have = "have" if len(more) > 1 else "has"
    raise UnsupportedOperator(
        f"{at[0]}: {', '.join(more)} {have} no integer form; end the network before it, or replace it by what has one"
    )


def _refuse_kept_float(work: Lowering, nodes: Iterable[Node]) -> None:
    """A program holds nothing that its target computes in float."""
    labels = {node.label for node in nodes}
    for node, why in kept_float(work.graph):
        if node.label in labels:
            raise UnsupportedOperator(
                f"{node.label}: {node.op} stays float on target {work.target.name} ({why}), and programs hold integers "
                "alone; write QDQ, or change the target"
            )


def _layer(work: Lowering, layer: Layer) -> None:
    node = layer.node
    x = work.grid(layer.x, layer.name)
    q = work.model.qparams.get(layer.weight)
    if q is None:
        raise UnsupportedOperator(f"{layer.name}: its weight {layer.weight} stays float; quantize weights too")
    shift = _shift(work, layer, work.narrow(q, layer.name))
    op = node.op if node.op in LAYERS else "Gemm"
    weight = quantize(work.graph.consts[layer.weight], q).astype(storage(q))
    outs = layer.channels(weight)[1]
    zero = np.asarray(q.zero_point).astype(weight.dtype)
    real = np.zeros(outs) if layer.bias is None else work.graph.consts[layer.bias].reshape(-1)
    arrays = {
        "weight": np.ascontiguousarray(weight.T) if layer.order == "io" else weight,
        "weight_zero_point": zero.reshape(-1)[0].reshape(()) if np.ptp(zero) == 0 else zero,
        "bias": np.broadcast_to(quantize_bias(real, x, q)[0], (outs,)),
    }
    attrs = {"axis": -1} if op == "Gemm" else _geometry(work, layer, weight.shape[2:])
    name, grid, activations = work.result(node)
    read, made = (layer.x, name) if not layer.weight_first else _turned_over(work, node, layer.x, name)
    step = Step(op, layer.name, (read,), (made,), attrs, arrays)
    reach = bound(step, work.grids, work.graph.shapes)
    limit, bits = (WIDE_ACCUMULATOR, 48) if work.wide else (ACCUMULATOR, 32)
    if reach.max() >= limit:
        raise UnsupportedOperator(
            f"{layer.name}: its accumulator may reach {reach.max():.3g}, which {bits} bits do not hold; "
            "use fewer bits for weights"
        )
    factor = np.asarray(x.scale, np.float64) * np.asarray(q.scale, np.float64) / float(grid.scale)
    if work.target.rounding == "truncate":  # half a step in the bias makes it rounding to the nearest
        half = np.rint(0.5 * 2.0**shift / factor)
        bias = arrays["bias"] + np.where(reach + half < ACCUMULATOR, half, 0).astype(np.int32)
        step = replace(step, arrays={**arrays, "bias": bias})
        reach = bound(step, work.grids, work.graph.shapes)
    products: Products = "dense" if op == "Gemm" else "windows"
    how = work.requantize(node, factor, shift, reach, (grid, activations), attrs["axis"], products)
    if work.target.arithmetic == "litert":
        how = litert.of_layer(op, how)
        work.weight_scales[made] = np.asarray(q.scale, np.float32)
    work.steps.append(replace(step, requantize=how))
    if made != name:
        work.grids[made] = grid
        work.add("Transpose", node, [made], name, grid, attrs={"perm": _last_two_swapped(work, node, layer.x)})


def _turned_over(work: Lowering, node: Node, x: Name, name: Name) -> tuple[Name, Name]:
    """The input of a product whose constant stands first, and its result, with their last axes swapped."""
    turned, made = work.fresh(f"{x}_turned"), work.fresh(f"{name}_turned")
    perm = _last_two_swapped(work, node, x)
    work.add("Transpose", node, [x], turned, work.grid(x, node.label), attrs={"perm": perm})
    for new, old in ((turned, x), (made, node.outputs[0])):
        shape = work.graph.shapes.get(old)
        if shape is not None:
            work.shapes[new] = tuple(shape[d] for d in perm)
    return turned, made


def _last_two_swapped(work: Lowering, node: Node, x: Name) -> list[int]:
    rank = work.graph.rank(x)
    if rank is None:
        raise UnsupportedOperator(f"{node.label}: its rank is not known; export the network with shapes")
    return [*range(rank - 2), rank - 1, rank - 2]


def _shift(work: Lowering, layer: Layer, q: QParams) -> Array:
    if q.shift is None:
        return np.zeros((), np.int32)
    least, most = int(q.shift.min()), int(q.shift.max())
    if least < 0 or most >= 1 << work.target.shift_bits:
        wrong = least if least < 0 else most
        raise UnsupportedOperator(
            f"{layer.name}: shift {wrong} does not fit into the {work.target.shift_bits} bits of target "
            f"{work.target.name}; quantize for this target"
        )
    return q.shift


def _geometry(work: Lowering, layer: Layer, kernel: tuple[int, ...]) -> dict[str, Any]:
    found = window(layer.node, kernel, work.graph.shapes.get(layer.x))
    attrs = {"strides": found.strides, "dilations": found.dilations, "pads": found.pads, "group": layer.groups}
    if layer.node.op == "ConvTranspose":
        attrs["output_padding"] = found.output_padding
    return {**attrs, "axis": 1}


def _sum(work: Lowering, node: Node) -> None:
    signs = (1.0, -1.0) if node.op == "Sub" else (1.0,) * len(node.inputs)
    name, q, activations = work.result(node)
    offset, tensors, factors = np.zeros(()), [], []
    for i, sign in zip(node.inputs, signs, strict=True):
        if i in work.graph.consts and not work.differs_by_position(node, work.graph.consts[i]):
            offset = offset + sign * work.constant(i).astype(np.float64)
        else:
            i = work.operand(i, work.graph.consts[i], work.target.activation) if i in work.graph.consts else i
            tensors.append(i)
            factors.append(np.asarray(sign * float(work.grid(i, node.label).scale) / float(q.scale)))
    work.weighted(node, tensors, name, (q, activations), factors, offset / float(q.scale))


def _product(work: Lowering, node: Node) -> None:
    tensors, constants = work.tensors(node)
    name, q, activations = work.result(node)
    if constants:
        constant = work.constant(constants[0]).astype(np.float64)
        if node.op == "Div":
            if node.inputs[0] in constants:
                _divided(work, node, constant)
                return
            constant = 1 / constant
        if work.differs_by_position(node, constant):
            scaled = work.operand(
                constants[0] if node.op == "Mul" else f"{constants[0]}_reciprocal", constant, work.target.activation
            )
            _multiplied(work, node, [tensors[0], scaled], (name, q, activations))
            return
        factor = constant * (float(work.grid(tensors[0], node.label).scale) / float(q.scale))
        work.weighted(node, tensors, name, (q, activations), [factor], np.zeros(()))
        return
    if node.op == "Div":
        wholes.quotient(work, node)
        return
    _multiplied(work, node, tensors, (name, q, activations))


def _multiplied(work: Lowering, node: Node, tensors: Sequence[Name], last: tuple[Name, QParams, list[Node]]) -> None:
    name, q, activations = last
    grids = [work.grid(i, node.label) for i in tensors]
    factor = np.asarray(float(grids[0].scale) * float(grids[1].scale) / float(q.scale))
    requantized(work, node, Step("Mul", node.label, tuple(tensors), (name,), {"axis": 1}), factor, (q, activations))


def _divided(work: Lowering, node: Node, constant: Array) -> None:
    """A constant, or one for each channel, divided by an activation."""
    (values,), axis = work.channels(node, constant)
    column = values.reshape(-1, 1) if values.ndim else values
    _table(work, node, lambda x: column / x, axis)


def _function(work: Lowering, node: Node) -> None:
    curve = curve_of(work.graph, node)
    if curve is not None:
        _table(work, node, curve)
        return
    slope = negative_slope(work.graph, node)
    if slope is None:
        raise UnsupportedOperator(f"{node.label}: its slope or exponent is computed; make it a constant")
    (slopes,), axis = work.channels(node, slope.astype(np.float32))
    if work.target.arithmetic == "litert":
        litert.sloping(work, node, slopes, axis)
        return
    column = slopes.reshape(-1, 1) if slopes.ndim else slopes
    _table(work, node, lambda x: np.where(x >= 0, x, column * x), axis)


def _pointwise(work: Lowering, node: Node) -> None:
    """The end of a function of one value in several operators: one table."""
    (root,) = {work.placement.inner.get(i, i) for i in operands(work.graph, node)}

    def made(name: Name, x: Array) -> Array:
        return x if name == root else value_at(work.graph.producer[name], x)

    def value_at(of: Node, x: Array) -> Array:
        return value_of(work.graph, of, {i: made(i, x) for i in operands(work.graph, of)})

    _table(work, node, lambda x: value_at(node, x), given=root)


def _clamp(work: Lowering, node: Node) -> None:
    if not clamps(node) and constant_bounds(work.graph, node)[0] is None:
        wholes.compared(work, node)
        return
    lo, hi = clip_bounds(work.graph, node) if clamps(node) else constant_bounds(work.graph, node)
    if lo is None or hi is None:
        raise UnsupportedOperator(f"{node.label}: its bounds are computed; make them constants")
    (name, *_), _ = work.tensors(node)
    x, out = work.grid(name, node.label), node.outputs[0]
    q = work.grids.get(out, x)
    if clamps(node) and same(x, q):
        work.clipped(node, name, out, q, [node])
        return
    if work.target.arithmetic == "litert":
        litert.clamped(work, node, name, q)
        return
    (lo, hi), axis = work.channels(node, lo.astype(np.float32), hi.astype(np.float32))
    lo, hi = (b.reshape(-1, 1) if b.ndim else b for b in (lo, hi))
    _table(work, node, lambda v: np.minimum(np.maximum(v, lo), hi), axis)


def _table(work: Lowering, node: Node, function: Callable[[Array], Array], axis: int = 1, given: Name = "") -> None:
    """Every value of the input's grid through a function of real values, and onto the output's grid."""
    if work.target.arithmetic == "litert":
        litert.table(work, node, function, axis, given)
        return
    given = given or work.tensors(node)[0][0]
    x = work.grid(given, node.label)
    name, q, activations = work.result(node)
    low, high, _ = work.clamp(node, q, activations, (axis,))
    with np.errstate(all="ignore"):  # what is not finite ends at an end of the grid
        real = function(dequantize(np.arange(x.qmin, x.qmax + 1), x)).astype(np.float32)
    real = np.where(np.isnan(real), np.float32(0), real)
    ends = [b.reshape(-1, 1) if b.ndim else b for b in (low, high)]
    table = np.minimum(np.maximum(quantize(real, q), ends[0]), ends[1]).astype(storage(q))
    work.add("Table", node, [given], name, q, attrs={"axis": axis}, arrays={"table": table})


def _average_pool(work: Lowering, node: Node) -> None:
    sizes = work.graph.shapes.get(node.inputs[0])
    kernel = tuple(node.attrs["kernel_shape"])
    found = window(node, kernel, sizes)
    if any(d != 1 for d in found.dilations):
        raise UnsupportedOperator(f"{node.label}: a dilated AveragePool has no integer form; replace it")
    arrays, count = {}, math.prod(kernel)
    if any(found.pads) and not node.attrs.get("count_include_pad", 0):
        arrays["reciprocals"], count = _reciprocals(found.counts(kernel, static(sizes, node.label)))
    attrs = {"kernel_shape": list(kernel), "strides": found.strides, "pads": found.pads, "axis": 1}
    _averaged(work, node, count, Step("AveragePool", node.label, node.inputs[:1], (), attrs, arrays))


def _global_pool(work: Lowering, node: Node) -> None:
    count = math.prod(static(work.graph.shapes.get(node.inputs[0]), node.label))
    _averaged(work, node, count, Step("GlobalAveragePool", node.label, node.inputs[:1], (), {"axis": 1}))


def _averaged(work: Lowering, node: Node, count: int, step: Step) -> None:
    x = work.grid(node.inputs[0], node.label)
    name, q, activations = work.result(node, given=x)
    factor = np.asarray(float(x.scale) / (float(q.scale) * count))
    requantized(work, node, replace(step, outputs=(name,)), factor, (q, activations))


def _mean(work: Lowering, node: Node) -> None:
    """A spatial ReduceMean, as a global pool and, without keepdims, a Squeeze; one over other axes as their sum."""
    shape, axes = work.graph.shapes.get(node.inputs[0]), wholes.axes_of(work, node)
    if shape is None or axes != list(range(2, len(shape))):
        wholes.reduction(work, node)
        return
    if node.attrs.get("keepdims", 1):
        _global_pool(work, node)
        return
    out = node.outputs[0]
    pooled = work.fresh(f"{out}_pooled")
    work.grids[pooled] = work.result(node, given=work.grid(node.inputs[0], node.label))[1]
    work.shapes[pooled] = (*shape[:2], *(1 for _ in shape[2:]))
    _global_pool(work, replace(node, outputs=(pooled,), name=node.label))
    inputs = (pooled, work.integers(f"{out}_axes", axes))
    work.add("Squeeze", node, inputs, out, work.grids[pooled])


_FORMS: Mapping[Form, Callable[[Lowering, Node], None]] = {
    Form.SUM: _sum,
    Form.PRODUCT: _product,
    Form.TABLE: _function,
    Form.CLAMP: _clamp,
    Form.AVERAGE_POOL: _average_pool,
    Form.GLOBAL_AVERAGE: _global_pool,
    Form.MEAN: _mean,
    **moves.FORMS,
    **wholes.FORMS,
}
"""How each form is built; layers are built from their weights."""


def _reciprocals(counts: Array) -> tuple[Array, int]:
    """Integers R with R/whole = 1/count by position, and `whole`; exact where the counts' multiple is small."""
    whole = min(math.lcm(*counts.ravel().tolist()), 1 << 12)
    return np.rint(whole / counts).astype(np.int32), whole
