"""Weight clipping: a narrower range where that costs less than it saves."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from ..graph.gaps import gaps
from ..ir.events import Event, EventKind
from ..ir.model import Model, Name, QSpec, Range
from ..ir.weights import as_rows
from ..maths.clipping import SEARCHES, clip_error
from ..noise.rounded import weight_worth
from ..ops.layers import layers
from . import Keeps, Need, Stage, needed, require


@dataclass(frozen=True)
class ClipWeights:
    """The range of every weight for the least sum of clipping error and quantization error (Oh et al. 2020).

    Behind weight_shift, for shifted weights; the error is that of the weights as they are. Where the format has a scale
    per channel, so has the range.

    Attributes:
        search: a grid of candidates (grid), a simplex search from the extremes (nelder-mead, as published), or what
            costs less of the two (both).
        cost: as in `WeightShift`.
    """

    keeps: ClassVar[Keeps] = Keeps.FLOATS
    stage: ClassVar[Stage] = Stage.BEFORE

    weight: QSpec = needed(Need.WEIGHT, QSpec(8, signed=False, symmetric=False, granularity="shift"))
    search: Literal["grid", "nelder-mead", "both"] = "both"
    cost: Literal["weights", "outputs"] = "outputs"
    least_saving: float = 0.0

    def __post_init__(self) -> None:
        require("least_saving", self.least_saving, 0 <= self.least_saving < 1, "a share from 0 to below 1")

    def __call__(self, model: Model) -> Model:
        ranges: dict[Name, Range] = {}
        worths = weight_worth(model) if self.cost == "outputs" else {}
        saved, moved = list[float](), 0
        for layer in layers(model.graph):
            weight, axis = model.graph.consts[layer.weight], layer.out_axis()
            if layer.weight in ranges or not np.any(weight):
                continue
            shift, fine = model.shifts.get(layer.weight), self.weight.granularity == "channel"
            rows, worth = weight, worths.get(layer.y, np.ones_like(weight))
            if axis is not None and not layer.weight_first and (shift is not None or fine):
                rows, worth = as_rows(rows, axis), as_rows(worth, axis)
                if shift is not None:
                    rows, worth = np.ldexp(rows, shift[:, None]), np.ldexp(worth, -2 * shift[:, None])
            else:
                fine = False
            if not fine:
                rows, worth = rows.reshape(1, -1), worth.reshape(1, -1)
            lo, hi = SEARCHES[self.search](rows, worth, self.weight)
            extremes = np.minimum(rows.min(1), 0.0), np.maximum(rows.max(1), 0.0)
            before = float(clip_error(rows, worth, *extremes, self.weight).sum())
            after = float(clip_error(rows, worth, lo, hi, self.weight).sum())
            saved.append(1 - after / before if before > 0 else 0.0)
            if saved[-1] <= self.least_saving:
                continue
            moved += 1
            ranges[layer.weight] = Range(lo, hi) if lo.size > 1 else Range(lo[0], hi[0])
        facts = {"layers": moved, "of": len(saved), "quantization error saved": float(np.mean(saved)) if saved else 0.0}
        done = Event(EventKind.WEIGHTS_CLIPPED, "", facts, "clip_weights")
        return replace(model, ranges={**model.ranges, **ranges}).noted(done, *gaps(model, "gain", "clip_weights"))
