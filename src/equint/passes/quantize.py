"""Choose the integer grid of every weight and activation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ..graph.overrides import Formats, Override, formats
from ..graph.placement import bodies, borders, grid_of, kept_float, place
from ..graph.ties import faint, joins_apart
from ..graph.weight_grids import SHIFTED_BIAS_BITS, fitted, stored_bias, weight_grid
from ..graph.work import designed_work, float_work
from ..ir.edit import Editor
from ..ir.events import Event, EventKind
from ..ir.model import Graph, Model, Name, Node, QParams, QSpec
from ..ir.weights import Layer
from ..maths.affine import (
    BiasGrid,
    bounded,
    check_bias_grid,
    check_bits,
    choose_qparams,
    summed_bits,
    with_integer_ends,
)
from ..maths.ranges import extent, lost
from ..ops.attributes import is_softmax, pad_value
from ..ops.layers import bias_of, layers
from ..ops.listed import on_integers
from . import Keeps, Need, Stage, needed, require

NO_SHARE = 64.0
"""What lies so far below the greatest score gets no share of a Softmax, e^-64, however far down a mask puts it."""


@dataclass(frozen=True)
class Quantize:
    """Grids for activations from their ranges, for weights from their extremes.

    A bias is an integer at scale s_in·s_w; where it would not fit into `bias_bits`, the weight's scale is
    raised just enough, or its channel's shift lowered. With `bias_grid` "own" a bias is rounded to the grid of its own
    extremes first, and at s_in·s_w it may take all 32 bits. Tensors that must share a grid get one range that holds
    them all. Where nothing tells a tensor's range it stays float, with an event; so do all with `activation` None.

    Attributes:
        min_scale: lower bound on the scales of weights, real units: what runtimes ask for whose biases may overflow
            (Oh et al. 2020 name 1e-5). Here they never do, and 0 is the default.
        shifted_bias_bits: width from which a bias lowers the shift of its channel. 20 keep accumulators small; 32 use
            all of the accumulator's, so that shifts stay as they were chosen.

    Raises:
        EquintError: an override of a layer or tensor that the network has not.
    """

    stage: ClassVar[Stage] = Stage.QUANTIZE

    weight: QSpec = needed(Need.WEIGHT, QSpec(8, signed=True, symmetric=True, granularity="channel"))
    activation: QSpec | None = needed(Need.ACTIVATION, QSpec(8, signed=False, symmetric=False))
    bias_bits: int = needed(Need.BIAS_BITS, 32)
    bias_grid: BiasGrid = needed(Need.BIAS_GRID, "accumulator")
    min_scale: float = 0.0
    shifted_bias_bits: int = SHIFTED_BIAS_BITS
    overrides: tuple[Override, ...] = needed(Need.OVERRIDES, ())

    def __post_init__(self) -> None:
        require("min_scale", self.min_scale, 0 <= self.min_scale < 1, "0 or a little above")
        require("shifted_bias_bits", self.shifted_bias_bits, 8 <= self.shifted_bias_bits <= 32, "8 to 32")
        check_bias_grid(self.bias_bits, self.bias_grid)

    @property
    def keeps(self) -> Keeps:
        """FLOATS, or TOPOLOGY where biases are rounded to a grid of their own."""
        return Keeps.TOPOLOGY if self.bias_grid == "own" else Keeps.FLOATS

    def __call__(self, model: Model) -> Model:
        if self.bias_bits not in (8, 16, 32):
            check_bits(self.bias_bits)
        events: list[Event] = []
        model = replace(model, apart=model.apart | joins_apart(model.graph, model.ranges))
        chosen = formats(model.graph, self.overrides, self.weight, self.activation, model.apart)
        events += chosen.log
        qparams = {} if self.activation is None else _activations(model, self.activation, chosen, events)
        weights = self._weights(model, qparams, chosen, events)
        if not weights:
            return model.noted(Event(EventKind.NOTHING_TO_QUANTIZE, "", {}, "quantize", warning=True))
        events += _operators_float(model.graph)
        events += designed_work(model.graph)
        events += [
            Event(EventKind.BODY_FLOAT, node.label, {"op": node.op, "layers": count}, "quantize", warning=True)
            for node, count in bodies(model.graph)
        ]
        facts = {
            "weights": len(weights),
            "activations": len(qparams),
            "bits": f"W{self.weight.bits}A{self.activation.bits if self.activation else 32}",
            "granularity": self.weight.granularity,
        }
        if self.overrides:
            facts["overrides"] = len(self.overrides)
        done = Event(EventKind.QUANTIZED, "", facts, "quantize")
        found = {**qparams, **weights}
        result = replace(model, graph=self._rounded(model.graph, found), qparams=found, corrected={})
        doubts = [*faint(result), *(() if self.activation is None or self.overrides else float_work(result))]
        return result.noted(done, *events, *doubts)

    def _weights(
        self, model: Model, activations: Mapping[Name, QParams], exceptions: Formats, events: list[Event]
    ) -> dict[Name, QParams]:
        grids: dict[Name, QParams] = {}
        for layer in layers(model.graph):
            weight, spec = model.graph.consts[layer.weight], exceptions.weights.get(layer.weight, self.weight)
            if not on_integers(model.graph, layer.node):
                continue
            if spec is None:
                events.append(Event(EventKind.FLOAT_BY_OVERRIDE, layer.name, {}, "quantize"))
                continue
            if spec.granularity != "tensor" and layer.out_axis() is None:
                events.append(Event(EventKind.ONE_GRID, layer.name, {"why": "grouped ConvTranspose"}, "quantize"))
            chosen, shift = model.ranges.get(layer.weight), model.shifts.get(layer.weight)
            if spec.granularity != self.weight.granularity or spec.bits > self.weight.bits:
                chosen = None  # a range that was chosen for a coarser grid cuts off too much
            known = grids.get(layer.weight)
            grid = known or self._bounded(weight_grid(layer, weight, spec, chosen, shift), spec, layer, events)
            bias = model.graph.consts[layer.bias] if layer.bias else None
            x, width = activations.get(layer.x), summed_bits(self.bias_bits, self.bias_grid)
            grids[layer.weight] = fitted(layer, grid, bias, x, width, events, self.shifted_bias_bits)
        return grids

    def _rounded(self, graph: Graph, qparams: Mapping[Name, QParams]) -> Graph:
        """The graph with integer biases on their own grids, if they have such."""
        if self.bias_grid == "accumulator":
            return graph
        editor = Editor(graph)
        for layer in layers(graph):
            if layer.bias and layer.weight in qparams:
                bias, x = bias_of(graph, layer), qparams.get(layer.x)
                editor.set_bias(layer, stored_bias(bias, x, self.bias_bits, self.bias_grid))
        return editor.done()

    def _bounded(self, grid: QParams, spec: QSpec, layer: Layer, events: list[Event]) -> QParams:
        low = grid.scale < self.min_scale
        if not np.any(low):
            return grid
        facts = {"channels": int(np.sum(low)), "bound": self.min_scale}
        events.append(Event(EventKind.SCALE_BOUNDED, layer.name, facts, "quantize"))
        return bounded(grid, self.min_scale, spec.symmetric)


def _activations(model: Model, spec: QSpec, exceptions: Formats, events: list[Event]) -> dict[Name, QParams]:
    qparams: dict[Name, QParams] = {}
    placement = place(model.graph, model.apart)
    for tensors in placement.classes:
        own = exceptions.tensors.get(tensors[0], spec)
        if own is None:
            events += [Event(EventKind.FLOAT_BY_OVERRIDE, t, {}, "quantize") for t in tensors]
            continue
        known = [model.ranges[t] for t in tensors if t in model.ranges]
        if not known or any(t not in model.ranges for t in tensors if _is_source(model, t)):
            events += [Event(EventKind.FLOAT_WITHOUT_RANGE, t, {}, "quantize", warning=True) for t in tensors]
            continue
        lo, hi = min(float(np.min(r.lo)) for r in known), max(float(np.max(r.hi)) for r in known)
        lo, hi = _with_constants(model, tensors, lo, hi)
        lo, hi = (0.0, 1 - 2.0**-own.bits) if not own.symmetric and _holds_shares(model.graph, tensors) else (lo, hi)
        lo, hi = _fixed(model.graph, tensors, own) or (lo, hi)
        lo = max(lo, hi - NO_SHARE) if _only_weighed(model.graph, tensors) else lo
        if not (own.symmetric or own.power_of_two) and any(t in model.graph.inputs for t in tensors):
            lo, hi = with_integer_ends(lo, hi, own.bits)
        grid = choose_qparams(lo, hi, own)
        qparams |= dict.fromkeys(tensors, grid)
    events += [Event(EventKind.JOINED_APART, n, {"float": n not in qparams}, "quantize") for n in sorted(model.apart)]
    for name in placement.operands:
        value = model.graph.consts[name]
        shared = _joined(model, name, qparams)
        qparams[name] = choose_qparams(value.min(), value.max(), spec) if shared is None else shared
    return qparams


def _operators_float(graph: Graph) -> list[Event]:
    """What has no integer form here; what the hardware leaves float is told apart (`designed_work`)."""
    designed, kind = {node.label for node, _ in kept_float(graph)}, EventKind.OPERATOR_FLOAT
    left = {op: [n for n in names if n not in designed] for op, names in borders(graph).items()}
    return [Event(kind, n[0], {"op": op, "nodes": len(n)}, "quantize") for op, n in left.items() if n]


def _holds_shares(graph: Graph, tensors: tuple[Name, ...]) -> bool:
    """Whether tensors hold what a Softmax gives and nothing else: shares are whole numbers of 2^-bits."""
    made = _makers(graph, tensors)
    return bool(made) and all(node is not None and is_softmax(node) for node in made)


def _fixed(graph: Graph, tensors: tuple[Name, ...], spec: QSpec) -> tuple[float, float] | None:
    """The ends of the grid that hardware asks of what makes these tensors; None where it asks for none, or for two."""
    asked = {
        graph.fixed.get(node.op) if node is not None and not node.domain else None for node in _makers(graph, tensors)
    }
    if len(asked) != 1 or (only := asked.pop()) is None:
        return None
    grid = QParams(np.asarray(only[0], np.float32), np.asarray(only[1], np.int32), spec.bits, spec.signed)
    return grid.lo, grid.hi


def _makers(graph: Graph, tensors: tuple[Name, ...]) -> list[Node | None]:
    """What makes tensors of one grid, but for what moves their values; None stands for an input of the network."""
    makers = [graph.producer.get(t) for t in tensors]
    return [node for node in makers if node is None or not grid_of(graph, node).keeps]


def _only_weighed(graph: Graph, tensors: tuple[Name, ...]) -> bool:
    """Whether tensors are read by Softmax alone."""
    users = [user for t in tensors for user in graph.users(t) if not set(user.outputs) & set(tensors)]
    return bool(users) and not set(tensors) & set(graph.outputs) and all(is_softmax(user) for user in users)


def _with_constants(model: Model, tensors: tuple[Name, ...], lo: float, hi: float) -> tuple[float, float]:
    """A range chosen for activations, widened by constants that joins and pads put among them.

    A padded value so far away that the others would lose bits, as what a MaxPool never takes, stays at the grid's end.
    """
    for node in (model.graph.producer.get(t) for t in tensors):
        if node is None:
            continue
        if grid_of(model.graph, node).ties:
            for value in (model.graph.consts[i] for i in node.inputs if i in model.graph.consts):
                lo, hi = min(lo, float(value.min())), max(hi, float(value.max()))
        elif node.op == "Pad" and (padded := pad_value(model.graph, node)) is not None:
            wider = min(lo, padded), max(hi, padded)
            lo, hi = (lo, hi) if lost(extent(lo, hi), extent(*wider)) else wider
    return lo, hi


def _joined(model: Model, constant: Name, qparams: Mapping[Name, QParams]) -> QParams | None:
    """The grid of the join that alone reads a constant, whose range holds it too."""
    users = model.graph.users(constant)
    alone = len(users) == 1 and grid_of(model.graph, users[0]).ties and users[0].outputs[0] not in model.apart
    return qparams.get(users[0].outputs[0]) if alone else None


def _is_source(model: Model, tensor: Name) -> bool:
    node = model.graph.producer.get(tensor)
    return node is None or grid_of(model.graph, node).ties
