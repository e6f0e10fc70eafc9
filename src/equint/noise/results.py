"""How widely a network's results spread where no BatchNorm tells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..ir.model import Graph, Moments, Name
from ..ops.layers import layer_moments, layers, leads_to_layer
from .constants import MEASURED, NoiseModel


def wide_results(graph: Graph, moments: Mapping[Name, Moments], noise: NoiseModel = MEASURED) -> dict[Name, Moments]:
    """Wider moments for layers that no other layer follows and no BatchNorm describes."""
    wider: dict[Name, Moments] = {}
    for layer in layers(graph):
        m, x = moments.get(layer.y), moments.get(layer.x)
        if m is None or x is None or m.origin not in ("propagated", "generated") or leads_to_layer(graph, layer.y):
            continue
        _, std = layer_moments(graph, layer, x, correlation=0.0)
        wider[layer.y] = replace(m, std=noise.results * std.reshape(m.std.shape))
    return wider
