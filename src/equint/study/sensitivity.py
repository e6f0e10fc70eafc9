"""What each layer and each tensor costs the network's outputs: measured, one at a time, for those that matter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..crew.workers import Alone, Crew
from ..graph.clamps import end
from ..graph.placement import place
from ..ir.model import Model, Name
from ..maths.noise import to_db
from ..noise.prediction import predict
from ..onnx.qdq import qdq_graph
from ..ops.layers import layers
from .trials import Score, Truth, composed, shared_scores

ALONE = Alone()
TOP = 8
"""Layers, and tensors, that are measured: those that are predicted to cost most."""
RANKED = 2
"""Batches that are enough to tell which of them cost more."""


@dataclass(frozen=True)
class LayerCost:
    """One layer.

    Attributes:
        tensor: the grid behind it, by its first tensor; empty where its output stays float.
        predicted: SQNR in dB at the network's outputs if its weights alone were quantized; None where unknown.
        weights: measured with its weights alone quantized; alone: its weights and its output tensor.
        without: measured with everything quantized but its weights and its input. All None where not measured.
    """

    layer: Name
    output: Name
    tensor: Name
    predicted: float | None
    weights: Score | None = None
    alone: Score | None = None
    without: Score | None = None


@dataclass(frozen=True)
class TensorCost:
    """One grid of activations.

    Attributes:
        tensor: the first of those that share it; shared: all of them.
        predicted: SQNR in dB at the network's outputs if it were the only grid.
        alone: measured with this grid alone; without: with everything quantized but it.
    """

    tensor: Name
    shared: tuple[Name, ...]
    predicted: float | None
    alone: Score | None = None
    without: Score | None = None


@dataclass(frozen=True)
class Sensitivity:
    """Layers and tensors, the measured ones first, the costliest first."""

    layers: tuple[LayerCost, ...]
    tensors: tuple[TensorCost, ...]


def sensitivity(plain: Model, quantized: Model, known: Truth, top: int | None = TOP, crew: Crew = ALONE) -> Sensitivity:
    """Rank layers and tensors by predicted noise, and measure the first of each.

    A variant in which one layer is quantized differs from the float network from that layer on, and one that leaves a
    layer out differs from the quantized network from there on: only what lies behind is run again.

    Args:
        plain, quantized: as for `composed`; known: images, and what the original answers.
        top: how many of each are measured; None measures all. crew: who does it.
    """
    named = costs(plain, quantized)
    first, second = named.layers[:top], named.tensors[:top]
    every = [cost.output for cost in named.layers]
    grids = [n for n in quantized.qparams if n not in {layer.weight for layer in layers(quantized.graph)}]
    classes = {cost.tensor: set(cost.shared) for cost in named.tensors}
    grid_of = {name: names for names in classes.values() for name in names}
    inputs = {layer.y: grid_of.get(layer.x, set()) for layer in layers(quantized.graph)}
    ones, others = dict[tuple[str, Name], Model](), dict[tuple[str, Name], Model]()
    for cost in first:
        y, read = cost.output, inputs.get(cost.output, set())
        ones["weights", y] = composed(plain, quantized, [y], [])
        ones["alone", y] = composed(plain, quantized, [y], classes.get(cost.tensor, set()))
        left = [n for n in grids if n not in read]
        others["without", y] = composed(plain, quantized, [other for other in every if other != y], left)
    for grid in second:
        own = classes[grid.tensor]
        ones["tensor", grid.tensor] = composed(plain, quantized, [], own)
        others["left", grid.tensor] = composed(plain, quantized, every, [n for n in grids if n not in own])
    measured = {
        **_measured(composed(plain, quantized, [], []), ones, known, crew),
        **_measured(composed(plain, quantized, every, grids), others, known, crew),
    }
    ranked = []
    for c in first:
        weights, alone, without = (measured[kind, c.output] for kind in ("weights", "alone", "without"))
        ranked.append(replace(c, weights=weights, alone=alone, without=without))
    tensors = [replace(t, alone=measured["tensor", t.tensor], without=measured["left", t.tensor]) for t in second]
    return Sensitivity(
        (*sorted(ranked, key=_alone), *named.layers[len(first) :]),
        (*sorted(tensors, key=_alone), *named.tensors[len(second) :]),
    )


def _measured(
    base: Model, variants: Mapping[tuple[str, Name], Model], known: Truth, crew: Crew
) -> dict[tuple[str, Name], Score]:
    return shared_scores(crew, {key: qdq_graph(model) for key, model in variants.items()}, known, qdq_graph(base))


def _alone(cost: LayerCost | TensorCost) -> float:
    return cost.alone.sqnr_db if cost.alone is not None else float("inf")


def costs(plain: Model, quantized: Model) -> Sensitivity:
    """All layers and grids with what they are predicted to cost, the costliest first; nothing is measured."""
    found = predict(replace(plain, views={}), replace(quantized, views={}))
    reaching = {noise.tensor: noise.reaching for noise in found.layers}
    making = {noise.tensor: noise.rounding + noise.clips for noise in found.tensors}
    placement = place(quantized.graph, quantized.apart)
    classes = [names for names in placement.classes if names[0] in quantized.qparams]
    first = {name: names[0] for names in classes for name in names}
    table = []
    for layer in layers(quantized.graph):
        if layer.weight in quantized.qparams:
            grid = first.get(end(quantized.graph, placement.merged, layer.y), "")
            table.append(LayerCost(layer.name, layer.y, grid, _db(reaching.get(layer.y, 0.0))))
    grids = [TensorCost(names[0], names, _db(sum(making.get(n, 0.0) for n in names))) for names in classes]
    total = {cost.tensor: cost.predicted for cost in grids}
    return Sensitivity(
        tuple(sorted(table, key=lambda c: min(_or(c.predicted), _or(total.get(c.tensor))))),
        tuple(sorted(grids, key=lambda c: _or(c.predicted))),
    )


def _db(noise: float) -> float | None:
    return to_db(noise) if noise > 0 else None


def _or(value: float | None) -> float:
    return float("inf") if value is None else value
