"""Weight equalizing shift scaler: a power of two for every output channel, before the weight gets one grid."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, Literal

import numpy as np

from ..graph.gaps import gaps
from ..ir.events import Event, EventKind
from ..ir.model import Array, Model, Name, QSpec
from ..ir.weights import Layer, as_rows
from ..maths.shifts import SEARCHES, error, nelder_mead
from ..maths.simplex import Simplex
from ..noise.rounded import weight_worth
from ..ops.layers import layers
from . import Keeps, Need, Stage, needed, require, require_simplex


@dataclass(frozen=True)
class WeightShift:
    """S_i = floor(log2(r̂/r_i)), r_i = 2·max|w_i| (Oh et al. 2020, eq. 4 to 6, Algorithm 1).

    The weights stay as they are; `quantize` gives w_i·2^S_i one grid, and the operator shifts its accumulators back.

    Attributes:
        search: r̂ = max r_i (deterministic), a simplex search for the r̂ of least quantization error (nelder-mead), or
            the least one of all (exact).
        cost: what errors count: all weights alike, as published (weights), or what they are predicted to cost at the
            network's outputs (outputs).
        layers: shift all layers, or depthwise convolutions alone.
        simplex: how much larger than max r_i the other end of nelder-mead's first simplex is, as a share.
        range_tolerance: nelder-mead ends where its r̂ differ by no more, in the weights' unit, and
        error_tolerance: their errors neither. The paper stops by the error alone and names no number: all three are
            SciPy's.
        shift_bits: width of a shift; the target's.
    """

    keeps: ClassVar[Keeps] = Keeps.FLOATS
    stage: ClassVar[Stage] = Stage.BEFORE

    weight: QSpec = needed(Need.WEIGHT, QSpec(8, signed=False, symmetric=False, granularity="shift"))
    search: Literal["deterministic", "nelder-mead", "exact"] = "exact"
    cost: Literal["weights", "outputs"] = "outputs"
    layers: Literal["all", "depthwise"] = "all"
    simplex: float = 0.05
    range_tolerance: float = 1e-4
    error_tolerance: float = 1e-4
    shift_bits: int = needed(Need.SHIFT_BITS, 4)

    def __post_init__(self) -> None:
        require("shift_bits", self.shift_bits, 1 <= self.shift_bits <= 5, "1 to 5")
        require_simplex(self.simplex, self.range_tolerance, self.error_tolerance)

    def __call__(self, model: Model) -> Model:
        shifts: dict[Name, Array] = {}
        worth = weight_worth(model) if self.cost == "outputs" and self.search != "deterministic" else {}
        how = Simplex(self.simplex, self.range_tolerance, self.error_tolerance)
        search = partial(nelder_mead, simplex=how) if self.search == "nelder-mead" else SEARCHES[self.search]
        before, after, tried = list[float](), list[float](), 0.0
        events = list[Event]()
        for layer in layers(model.graph):
            weight = model.graph.consts[layer.weight]
            axis = layer.out_axis()
            why = self._unfit(layer, weight, axis)
            if why is not None:
                events.append(Event(EventKind.WEIGHT_NOT_SHIFTED, layer.name, {"why": why}, "weight_shift"))
            if why is not None or axis is None or layer.weight in shifts:
                continue
            rows = as_rows(weight, axis)
            own = as_rows(worth[layer.y], axis) if layer.y in worth else None
            best = search(rows, self.weight, (1 << self.shift_bits) - 1, own)
            shifts[layer.weight], tried = best.shifts, tried + best.tried
            before.append(error(rows, np.zeros_like(best.shifts), self.weight))
            after.append(error(rows, best.shifts, self.weight))
        facts = {
            "layers": len(shifts),
            "largest shift": int(max((s.max(initial=0) for s in shifts.values()), default=0)),
            "quantization error before": float(np.mean(before)) if before else 0.0,
            "quantization error": float(np.mean(after)) if after else 0.0,
            "search": self.search,
            "cost": self.cost,
            "evaluations": round(tried),
        }
        done = Event(EventKind.WEIGHTS_SHIFTED, "", facts, "weight_shift")
        ranges = {name: r for name, r in model.ranges.items() if name not in shifts}  # of weights shifted otherwise
        shifted = replace(model, shifts={**model.shifts, **shifts}, ranges=ranges)
        return shifted.noted(done, *events, *gaps(model, "gain", "weight_shift"))

    def _unfit(self, layer: Layer, weight: Array, axis: int | None) -> str | None:
        if axis is None:
            return "grouped ConvTranspose"
        if layer.weight_first:
            return "the weight comes first"
        depthwise = layer.groups > 1 and layer.unpack(weight).shape[2] == 1
        return "not depthwise" if self.layers == "depthwise" and not depthwise else None
