"""What a network offers to quantization: its layers, its free channel scales, and what pins the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..files import Facts
from ..graph.channels import solve
from ..graph.placement import borders
from ..ir.events import EventKind
from ..ir.model import Model, Name
from ..maths.scales import overlap_ratio
from ..ops.layers import layers
from .weights import channel_ends, kind_of

CLIP_REACH = 6.0
"""Standard deviations that channels are taken to reach where a clip's bound is shared, as recipe dfq does."""


@dataclass(frozen=True)
class Inspection(Facts):
    """What a network offers.

    Attributes:
        layers: name, op, weight shape, channel spread (largest over smallest living channel range), overlap
            ratio, dead channels, and where the moments of its output come from.
        groups: number of channels, givers, takers, tensors passed, clips met.
        pinned: tensor → reason; borders: operator that stays float → its nodes; events: of folding.
    """

    layers: tuple[Mapping[str, Any], ...]
    groups: tuple[Mapping[str, Any], ...]
    pinned: Mapping[Name, str]
    borders: Mapping[str, Sequence[Name]]
    events: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Inspection(layers={len(self.layers)}, groups={len(self.groups)}, pinned={len(self.pinned)})"


def inspect(model: Model) -> Inspection:
    """Layers, channel groups, pins and borders of a network whose BatchNorms are folded."""
    channels = solve(model, CLIP_REACH)
    table = []
    for layer in layers(model.graph):
        weight = model.graph.consts[layer.weight]
        lo, hi = channel_ends(layer, weight)
        reach = np.maximum(np.abs(lo), np.abs(hi))
        living = reach[reach > 1e-5 * reach.max(initial=0)]
        moments = model.moments.get(layer.y)
        op = "depthwise" if kind_of(layer, weight) == "depthwise" else layer.node.op
        row: dict[str, Any] = {"name": layer.name, "op": op, "shape": list(weight.shape), "channels": int(reach.size)}
        spread = float(living.max() / living.min()) if living.size else 1.0
        row |= {"dead": int(reach.size - living.size), "spread": spread, "overlap_ratio": overlap_ratio(lo, hi)}
        table.append({**row, "moments": moments.origin if moments else "unknown"})
    groups = []
    for g in channels.groups:
        names = {"givers": (*g.producers, *g.norms), "takers": g.consumers, "tensors": g.tensors, "clips": g.clips}
        groups.append({"channels": int(g.classes.size), **{key: list(own) for key, own in names.items()}})
    events = tuple(str(e) for e in model.log if e.kind is not EventKind.RAN)
    return Inspection(tuple(table), tuple(groups), dict(channels.pinned), borders(model.graph), events)
