"""Ranges of all activations from their moments alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from ..graph.moments import layer_moments, propagate, reach
from ..ir.events import Event, EventKind
from ..ir.model import Graph, Model, Moments, Name
from ..ir.weights import as_layer, layers
from . import Keeps, require

TOGETHER = 2.5
"""Spread of a network's results over that of independent features: 0.8 to 3.7 in eight networks (docs/moments.md)."""


@dataclass(frozen=True)
class ActivationRanges:
    """mean ± n·std per channel, mapped through what follows (Nagel et al. 2019, section 5).

    Behind ReLU the lower end is 0, behind a clip the upper end is at most its bound; sums add means and
    variances; concats keep each branch's range. Layers that put out the network's results without a
    BatchNorm read features that fire together: their spread is taken as two and a half times that of independent
    ones, or the largest logits would be cut off.

    Example:
        >>> from equint.ir.weights import tiny_graph
        >>> ActivationRanges()(Model(tiny_graph())).ranges
        {}
    """

    keeps: ClassVar[Keeps] = Keeps.FLOATS

    n: float = 6.0

    def __post_init__(self) -> None:
        require("n", self.n, 0 < self.n < math.inf, "a number above 0")

    def __call__(self, model: Model) -> Model:
        moments = propagate(model.graph, model.moments)
        widened = {**moments, **wide_results(model.graph, moments)}
        ranges = reach(model.graph, widened, model.ranges, self.n)
        sources = sorted({m.source for m in moments.values()})
        facts = {"tensors": len(ranges), "n": self.n, "moments": "+".join(sources)}
        if not {"batchnorm", "calibration", "generated"} & set(sources):
            facts["why"] = "no BatchNorm left in the model: everything is propagated from the input"
        event = Event(EventKind.RANGES_FROM_MOMENTS, "", facts, "activation_ranges", warning="why" in facts)
        return replace(model, moments=moments, ranges=ranges).noted(event)


def wide_results(graph: Graph, moments: Mapping[Name, Moments]) -> dict[Name, Moments]:
    """Wider moments for layers that no other layer follows and no BatchNorm describes.

    Example:
        >>> from ..ir.weights import tiny_graph
        >>> wide_results(tiny_graph(), {})
        {}
    """
    wider: dict[Name, Moments] = {}
    for layer in layers(graph):
        m, x = moments.get(layer.y), moments.get(layer.x)
        if m is None or x is None or m.source not in ("propagated", "generated") or leads_to_layer(graph, layer.y):
            continue
        _, std = layer_moments(graph, layer, x, correlation=0.0)
        wider[layer.y] = replace(m, std=TOGETHER * std.reshape(m.std.shape))
    return wider


def leads_to_layer(graph: Graph, name: Name) -> bool:
    """Whether some layer reads what becomes of a tensor.

    Example:
        >>> from equint.ir.weights import tiny_graph
        >>> leads_to_layer(tiny_graph(), "x"), leads_to_layer(tiny_graph(), "y")
        (True, False)
    """
    seen, stack = {name}, [name]
    while stack:
        for user in graph.users(stack.pop()):
            if as_layer(graph, user) is not None:
                return True
            fresh = [o for o in user.outputs if o and o not in seen]
            seen.update(fresh)
            stack += fresh
    return False
