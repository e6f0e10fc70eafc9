"""Choose the integer grid of every weight and activation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np

from ..graph.overrides import Formats, Override, formats
from ..graph.placement import borders, place
from ..ir.events import Event, EventKind
from ..ir.model import Array, Model, Name, QParams, QSpec, Range
from ..ir.weights import Layer, layers
from ..maths.affine import check_bits, choose_qparams, fit_bias
from . import Keeps, require

SHIFTED_BIAS_BITS = 20
"""Width of biases of channels that are shifted, where the target's is not smaller."""


@dataclass(frozen=True)
class Quantize:
    """Grids for activations from their ranges, for weights from their extremes.

    A bias is an integer at scale s_in·s_w; where it would not fit into `bias_bits`, the weight's scale is
    raised just enough, or its channel's shift lowered. Tensors that must share a grid get one range that holds them
    all. Where nothing tells a tensor's range it stays float, with an event.

    Attributes:
        activation: None leaves activations float (weights only).
        min_scale: lower bound on the scales of weights, real units: what runtimes ask for that would overflow 32-bit
            biases otherwise (Oh et al. 2020 name 1e-5). Here biases never overflow, and 0 is the default.
        overrides: layers and tensors with another format.

    Raises:
        EquintError: an override of a layer or tensor that the network has not.

    Example:
        >>> from equint.ir.weights import tiny_graph
        >>> sorted(Quantize(activation=None)(Model(tiny_graph())).qparams)
        ['w']
    """

    keeps: ClassVar[Keeps] = Keeps.FLOATS

    weight: QSpec = field(default_factory=lambda: QSpec(8, signed=True, symmetric=True, granularity="channel"))
    activation: QSpec | None = field(default_factory=lambda: QSpec(8, signed=False, symmetric=False))
    bias_bits: int = 32
    min_scale: float = 0.0
    overrides: tuple[Override, ...] = ()

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
            grid = grids.get(layer.weight) or self._bounded(
                weight_grid(layer, weight, spec, chosen, shift), layer, events
            )
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


def weight_grid(
    layer: Layer, weight: Array, spec: QSpec, chosen: Range | None = None, shift: Array | None = None
) -> QParams:
    """The grid of a layer's weight: per output channel where the spec and the layout have one, else one.

    It holds the extremes, or the range `chosen` for it (what lies outside saturates). With granularity "shift" it is
    one grid for the weight whose output channels were multiplied by 2^shift, `(O,)`.

    Example:
        >>> from equint.ir.weights import tiny_graph
        >>> layer = next(layers(tiny_graph()))
        >>> weight_grid(layer, np.ones((4, 1, 3, 3), np.float32), QSpec(granularity="channel")).scale.shape
        (4,)
    """
    axis = layer.out_axis() if spec.granularity != "tensor" and layer.x_axis != -2 else None
    if axis is None:
        lo, hi = (weight.min(), weight.max()) if chosen is None else (np.min(chosen.lo), np.max(chosen.hi))
        return choose_qparams(lo, hi, spec)
    others = tuple(d for d in range(weight.ndim) if d != axis)
    if spec.granularity == "shift":
        shift = np.zeros(weight.shape[axis], np.int32) if shift is None else shift
        lo, hi = (np.ldexp(end(others), shift) for end in (weight.min, weight.max))
        lo, hi = (lo.min(), hi.max()) if chosen is None else (np.min(chosen.lo), np.max(chosen.hi))
        return replace(choose_qparams(lo, hi, spec), axis=axis, shift=shift)
    lo, hi = weight.min(others), weight.max(others)
    if chosen is not None:
        lo, hi = np.maximum(lo, chosen.lo), np.minimum(hi, chosen.hi)
    grid = choose_qparams(lo, hi, spec, axis)
    dead = (lo == 0) & (hi == 0)
    fine = grid.scale[~dead].min(initial=1.0) if not dead.all() else np.float32(2.0**-16)
    return replace(grid, scale=np.where(dead, fine, grid.scale).astype(np.float32))


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
    return node is None or node.op == "Concat"


def fitted(
    layer: Layer, grid: QParams, bias: Array | None, x: QParams | None, bias_bits: int, events: list[Event]
) -> QParams:
    """The weight grid, its scale raised, or its shifts lowered, where the layer's bias would overflow `bias_bits`.

    Args:
        bias: `(O,)` real units, or None.
        x: grid of the layer's input, or None where that stays float.
        events: gets one event where the scale is raised.
    """
    if x is None or bias is None:
        return grid
    if grid.shift is not None:
        grid = _shifted_less(layer, grid, bias, x, bias_bits, events)
    scale = fit_bias(grid.scale, bias.reshape(-1), float(x.scale), bias_bits)
    raised = scale > grid.scale
    if not np.any(raised):
        return grid
    facts = {
        "channels": int(np.sum(raised)),
        "largest factor": float(np.max(scale / grid.scale)),
        "bias bits": bias_bits,
    }
    events.append(Event(EventKind.SCALE_RAISED_FOR_BIAS, layer.name, facts, "quantize", warning=bias_bits < 32))
    return replace(grid, scale=scale)


def _shifted_less(layer: Layer, grid: QParams, bias: Array, x: QParams, bias_bits: int, events: list[Event]) -> QParams:
    """Lower shifts where b_o·2^S_o would be large: one channel's bias then costs the others nothing.

    Where it exceeds 19 bits, the channel's weights hardly move its output, and rounding them less finely changes
    nothing; accumulators stay small.
    """
    assert grid.shift is not None
    need = fit_bias(grid.steps, bias.reshape(-1), float(x.scale), min(bias_bits, SHIFTED_BIAS_BITS))
    less = np.ceil(np.log2(need / grid.steps) - 1e-6).astype(np.int32)
    if not np.any(less > 0):
        return grid
    facts = {"channels": int(np.sum(less > 0)), "by at most": int(np.max(less))}
    events.append(Event(EventKind.SHIFTS_LOWERED_FOR_BIASES, layer.name, facts, "quantize"))
    return replace(grid, shift=np.maximum(grid.shift - np.maximum(less, 0), 0))
