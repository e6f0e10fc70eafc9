"""Weight clipping: a narrower range where that costs less than it saves."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from ..graph.gaps import gaps
from ..ir.events import Event, EventKind
from ..ir.model import Array, Model, Name, QSpec, Range
from ..ir.weights import as_rows
from ..maths.clipping import best_of_both, clip_error, grid_search, nelder_mead, percentile
from ..maths.simplex import Simplex
from ..noise.rounded import weight_worth
from ..ops.layers import layers
from . import Keeps, Need, Stage, needed, require, require_simplex


@dataclass(frozen=True)
class ClipWeights:
    """The range of every weight for the least sum of clipping error and quantization error (Oh et al. 2020).

    Or at a fixed percentile, to compare with. Behind weight_shift, for shifted weights; the error is that of the
    weights as they are. Where the format has a scale per channel, so has the range.

    Attributes:
        search: a grid of candidates (grid), a simplex search from the extremes (nelder-mead, as published), or what
            costs less of the two (both); or the percentile, whatever it costs.
        cost: as in `WeightShift`.
        least_saving: share of the error that a search must save; else the weight keeps its range.
        percent: how many per cent of the weights `percentile` cuts off at either end.
        simplex, range_tolerance, error_tolerance: nelder-mead's, as in `WeightShift`.
    """

    keeps: ClassVar[Keeps] = Keeps.FLOATS
    stage: ClassVar[Stage] = Stage.BEFORE

    weight: QSpec = needed(Need.WEIGHT, QSpec(8, signed=False, symmetric=False, granularity="shift"))
    search: Literal["grid", "nelder-mead", "both", "percentile"] = "both"
    cost: Literal["weights", "outputs"] = "outputs"
    least_saving: float = 0.0
    percent: float = 0.1
    simplex: float = 0.05
    range_tolerance: float = 1e-4
    error_tolerance: float = 1e-4

    def __post_init__(self) -> None:
        require("least_saving", self.least_saving, 0 <= self.least_saving < 1, "a share from 0 to below 1")
        require("percent", self.percent, 0 < self.percent < 50, "a number above 0 and below 50")
        require_simplex(self.simplex, self.range_tolerance, self.error_tolerance)

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
            lo, hi = self._ends(rows, worth)
            extremes = np.minimum(rows.min(1), 0.0), np.maximum(rows.max(1), 0.0)
            before = float(clip_error(rows, worth, *extremes, self.weight).sum())
            after = float(clip_error(rows, worth, lo, hi, self.weight).sum())
            saved.append(1 - after / before if before > 0 else 0.0)
            if saved[-1] <= self.least_saving and self.search != "percentile":
                continue
            moved += 1
            ranges[layer.weight] = Range(lo, hi) if lo.size > 1 else Range(lo[0], hi[0])
        facts = {"layers": moved, "of": len(saved), "quantization error saved": float(np.mean(saved)) if saved else 0.0}
        done = Event(EventKind.WEIGHTS_CLIPPED, "", facts, "clip_weights")
        return replace(model, ranges={**model.ranges, **ranges}).noted(done, *gaps(model, "gain", "clip_weights"))

    def _ends(self, rows: Array, worth: Array) -> tuple[Array, Array]:
        """The range of each row, by the search that was asked for: `(U,)` each."""
        how = Simplex(self.simplex, self.range_tolerance, self.error_tolerance)
        match self.search:
            case "grid":
                return grid_search(rows, worth, self.weight)
            case "nelder-mead":
                return nelder_mead(rows, worth, self.weight, how)
            case "both":
                return best_of_both(rows, worth, self.weight, how)
            case "percentile":
                return percentile(rows, self.percent)
