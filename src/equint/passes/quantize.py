"""Choose the integer grid of every weight and activation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ..graph.overrides import Formats, Override, formats
from ..graph.placement import bodies, borders, grid_of, place
from ..graph.weight_grids import fitted, weight_grid
from ..ir.events import Event, EventKind
from ..ir.model import Model, Name, QParams, QSpec
from ..ir.weights import Layer
from ..maths.affine import check_bits, choose_qparams
from ..ops.layers import layers
from . import Keeps, Need, Stage, needed, require


@dataclass(frozen=True)
class Quantize:
    """Grids for activations from their ranges, for weights from their extremes.

    A bias is an integer at scale s_in·s_w; where it would not fit into `bias_bits`, the weight's scale is
    raised just enough, or its channel's shift lowered. Tensors that must share a grid get one range that holds them
    all. Where nothing tells a tensor's range it stays float, with an event; so do all with `activation` None.

    Attributes:
        min_scale: lower bound on the scales of weights, real units: what runtimes ask for whose biases may overflow
            (Oh et al. 2020 name 1e-5). Here they never do, and 0 is the default.

    Raises:
        EquintError: an override of a layer or tensor that the network has not.
    """

    keeps: ClassVar[Keeps] = Keeps.FLOATS
    stage: ClassVar[Stage] = Stage.QUANTIZE

    weight: QSpec = needed(Need.WEIGHT, QSpec(8, signed=True, symmetric=True, granularity="channel"))
    activation: QSpec | None = needed(Need.ACTIVATION, QSpec(8, signed=False, symmetric=False))
    bias_bits: int = needed(Need.BIAS_BITS, 32)
    min_scale: float = 0.0
    overrides: tuple[Override, ...] = needed(Need.OVERRIDES, ())

    def __post_init__(self) -> None:
        require("min_scale", self.min_scale, 0 <= self.min_scale < 1, "0 or a little above")

    def __call__(self, model: Model) -> Model:
        if self.bias_bits not in (8, 16, 32):
            check_bits(self.bias_bits)
        events: list[Event] = []
        chosen = formats(model.graph, self.overrides, self.weight, self.activation)
        events += chosen.log
        qparams = {} if self.activation is None else _activations(model, self.activation, chosen, events)
        weights = self._weights(model, qparams, chosen, events)
        if not weights:
            return model.noted(Event(EventKind.NOTHING_TO_QUANTIZE, "", {}, "quantize", warning=True))
        events += [
            Event(EventKind.OPERATOR_FLOAT, names[0], {"op": op, "nodes": len(names)}, "quantize")
            for op, names in borders(model.graph).items()
        ]
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
        return replace(model, qparams={**qparams, **weights}, corrected={}).noted(done, *events)

    def _weights(
        self, model: Model, activations: Mapping[Name, QParams], exceptions: Formats, events: list[Event]
    ) -> dict[Name, QParams]:
        grids: dict[Name, QParams] = {}
        for layer in layers(model.graph):
            weight, spec = model.graph.consts[layer.weight], exceptions.weights.get(layer.weight, self.weight)
            if spec is None:
                events.append(Event(EventKind.FLOAT_BY_OVERRIDE, layer.name, {}, "quantize"))
                continue
            if spec.granularity != "tensor" and layer.out_axis() is None:
                events.append(Event(EventKind.ONE_GRID, layer.name, {"why": "grouped ConvTranspose"}, "quantize"))
            chosen, shift = model.ranges.get(layer.weight), model.shifts.get(layer.weight)
            if spec.granularity != self.weight.granularity or spec.bits > self.weight.bits:
                chosen = None  # a range that was chosen for a coarser grid cuts off too much
            known = grids.get(layer.weight)
            grid = known or self._bounded(weight_grid(layer, weight, spec, chosen, shift), layer, events)
            bias = model.graph.consts[layer.bias] if layer.bias else None
            grids[layer.weight] = fitted(layer, grid, bias, activations.get(layer.x), self.bias_bits, events)
        return grids

    def _bounded(self, grid: QParams, layer: Layer, events: list[Event]) -> QParams:
        low = grid.scale < self.min_scale
        if not np.any(low):
            return grid
        facts = {"channels": int(np.sum(low)), "bound": self.min_scale}
        events.append(Event(EventKind.SCALE_BOUNDED, layer.name, facts, "quantize"))
        return replace(grid, scale=np.maximum(grid.scale, np.float32(self.min_scale)))


def _activations(model: Model, spec: QSpec, exceptions: Formats, events: list[Event]) -> dict[Name, QParams]:
    qparams: dict[Name, QParams] = {}
    placement = place(model.graph)
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
        grid = choose_qparams(lo, hi, own)
        qparams |= dict.fromkeys(tensors, grid)
    for name in placement.operands:
        value = model.graph.consts[name]
        qparams[name] = choose_qparams(value.min(), value.max(), spec)
    return qparams


def _is_source(model: Model, tensor: Name) -> bool:
    node = model.graph.producer.get(tensor)
    return node is None or grid_of(node).ties
