"""From a quantized network to integers alone: every step of the result is integer arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

from ..errors import EquintError, UnsupportedOperator
from ..graph.placement import float_joins, keeps_grid, kept_float, place
from ..hardware.target import Target
from ..ir.model import Graph, Model, Name, Node, QParams
from ..maths.fixedpoint import check_format
from ..ops.activations import is_clamp
from ..ops.curves import curve_of, self_gated
from ..ops.layers import as_layer
from ..ops.operator import Form, Unknown
from ..ops.table import op_of
from . import lower_averages as averages
from . import lower_floats as islands
from . import lower_litert as litert
from . import lower_moves as moves
from . import lower_pointwise as pointwise
from . import lower_reductions as wholes
from .builder import Lowering
from .joins import joins_of, needed
from .lower_layers import layer_steps
from .program import Program
from .steps import MOVES


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
        >>> import numpy as np
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
        pointwise.pointwise(work, node)
        return
    layer = as_layer(work.graph, node)
    if layer is not None:
        layer_steps(work, layer)
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
            pointwise.table(work, node, curve, given=name)


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


_FORMS: Mapping[Form, Callable[[Lowering, Node], None]] = {
    **pointwise.FORMS,
    **averages.FORMS,
    **moves.FORMS,
    **wholes.FORMS,
}
"""How each form is built; layers are built from their weights."""
