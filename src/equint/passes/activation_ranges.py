"""Ranges of all activations from their moments alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from ..graph.gaps import gaps
from ..graph.moments import propagate
from ..graph.ranges import tensor_ranges
from ..graph.ties import joins_apart
from ..ir.events import Event, EventKind
from ..ir.model import Model
from ..noise.results import wide_results
from . import Keeps, Stage, require


@dataclass(frozen=True)
class ActivationRanges:
    """mean ± n·std per channel, mapped through what follows (Nagel et al. 2019, section 5).

    Behind ReLU the lower end is 0, behind a clip the upper end is at most its bound; sums add means and
    variances; concats keep each branch's range. Layers that put out the network's results without a
    BatchNorm read features that fire together: their spread is taken as two and a half times that of independent
    ones, or the largest logits would be cut off.
    """

    keeps: ClassVar[Keeps] = Keeps.FLOATS
    stage: ClassVar[Stage] = Stage.BEFORE

    n: float = 6.0

    def __post_init__(self) -> None:
        require("n", self.n, 0 < self.n < math.inf, "a number above 0")

    def __call__(self, model: Model) -> Model:
        moments = propagate(model.graph, model.moments)
        widened = {**moments, **wide_results(model.graph, moments)}
        ranges = tensor_ranges(model.graph, widened, model.ranges, self.n)
        sources = sorted({m.origin for m in moments.values()})
        facts = {"tensors": len(ranges), "n": self.n, "moments": "+".join(sources)}
        if not {"batchnorm", "calibration", "generated"} & set(sources):
            facts["why"] = "no BatchNorm left in the model: everything is propagated from the input"
        event = Event(EventKind.RANGES_FROM_MOMENTS, "", facts, "activation_ranges", warning="why" in facts)
        apart = joins_apart(model.graph, ranges)
        known = replace(model, moments=moments, ranges=ranges, apart=apart)
        return known.noted(event, *gaps(model, "bound", "activation_ranges"))
