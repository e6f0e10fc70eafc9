"""Magnitude pruning: small weights become zero, before anything is scaled."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import ClassVar, Literal

import numpy as np

from ..errors import InvalidOption
from ..graph.gaps import gaps
from ..ir.edit import Editor
from ..ir.events import Event, EventKind
from ..ir.model import Array, Graph, Model, Name
from ..noise.mean_error import mean_error_of
from ..noise.rounded import weight_worth
from ..ops.layers import as_layer, bias_of, layers, still_corrected
from . import Keeps, Stage, require


@dataclass(frozen=True)
class Prune:
    """Set weights of small magnitude to zero, so that they can be stored as bits of a mask (`npu/sparse.py`).

    Either those whose magnitude is below `threshold`, real units behind folded batch norms, as Oh et al. (2020) before
    their shifts; or the share `sparsity` of the weights, the least ones (Zhu and Gupta 2017), rounded down to whole
    weights. What that does to the mean of an output goes into its bias where the input's moments are known. A weight
    that several layers read is pruned once, one that something else reads too is left alone.

    Attributes:
        cost: which weights `sparsity` takes: the smallest magnitudes of every layer (weights), as published; or, of the
            whole network, those that are predicted to cost least at its outputs (outputs).

    Example:
        >>> from equint.ops.layers import tiny_graph
        >>> Prune(sparsity=0.25)(Model(tiny_graph())).log[-1].facts
        {'layers': 1, 'zeros': 9, 'share': 0.25}
    """

    keeps: ClassVar[Keeps] = Keeps.TOPOLOGY
    stage: ClassVar[Stage] = Stage.BEFORE

    threshold: float = 0.0
    sparsity: float = 0.0
    cost: Literal["weights", "outputs"] = "outputs"

    def __post_init__(self) -> None:
        require("threshold", self.threshold, 0 <= self.threshold < math.inf, "a magnitude above 0")
        require("sparsity", self.sparsity, 0 <= self.sparsity < 1, "a share above 0 and below 1")
        if (self.threshold > 0) == (self.sparsity > 0):
            raise InvalidOption("prune needs threshold or sparsity above 0, and not both")

    def __call__(self, model: Model) -> Model:
        pruned: dict[Name, Array] = {}
        dear = self._dear(model) if self.cost == "outputs" and self.sparsity > 0 else {}
        events = []
        zeros = total = 0
        for name, at in _weights(model.graph).items():
            weight = model.graph.consts[name]
            if not _only_layers(model.graph, name):
                why = {"why": "something else reads its weights"}
                events.append(Event(EventKind.LAYER_NOT_PRUNED, at, why, "prune"))
                continue
            pruned[name] = np.where(dear[name], weight, 0) if name in dear else self._pruned(weight)
            count = weight.size - int(np.count_nonzero(pruned[name]))
            zeros, total = zeros + count, total + weight.size
            facts = {"zeros": count, "share": count / max(weight.size, 1)}
            events.append(Event(EventKind.LAYER_PRUNED, at, facts, "prune", warning=count == weight.size))
        facts = {"layers": len(pruned), "zeros": zeros, "share": zeros / max(total, 1)}
        done = Event(EventKind.PRUNED, "", facts, "prune")
        graph = _corrected(model, pruned).with_consts(pruned)
        pruned_model = replace(model, graph=graph, corrected=still_corrected(model, graph))
        return pruned_model.noted(*events, done, *gaps(model, "gain", "prune"))

    def _dear(self, model: Model) -> dict[Name, Array]:
        """Which weights are kept where all layers are pruned together: booleans of each weight's shape."""
        worth = weight_worth(model)
        costs: dict[Name, Array] = {}
        for layer in layers(model.graph):
            if layer.y in worth and _only_layers(model.graph, layer.weight):
                own = worth[layer.y] * np.square(model.graph.consts[layer.weight], dtype=np.float64)
                costs[layer.weight] = costs.get(layer.weight, 0) + own
        if not costs:
            return {}
        every = np.concatenate([c.reshape(-1) for c in costs.values()])
        count = math.floor(Fraction(str(self.sparsity)) * every.size)
        keep = np.ones(every.size, bool)
        keep[np.argsort(every, kind="stable")[:count]] = False
        ends = np.cumsum([c.size for c in costs.values()])[:-1]
        return {n: k.reshape(c.shape) for (n, c), k in zip(costs.items(), np.split(keep, ends), strict=True)}

    def _pruned(self, weight: Array) -> Array:
        if self.threshold > 0:
            return np.where(np.abs(weight) < self.threshold, weight.dtype.type(0), weight)
        return without_smallest(weight, math.floor(Fraction(str(self.sparsity)) * weight.size))


def _corrected(model: Model, pruned: Mapping[Name, Array]) -> Graph:
    """The graph with biases that make up for the mean of what was pruned."""
    editor = Editor(model.graph)
    for layer in layers(model.graph):
        if layer.weight in pruned and layer.x in model.moments:
            change = pruned[layer.weight] - model.graph.consts[layer.weight]
            error = mean_error_of(model.graph, layer, change, model.moments[layer.x])
            editor.set_bias(layer, (bias_of(model.graph, layer) - error).astype(np.float32))
    return editor.done()


def without_smallest(weight: Array, count: int) -> Array:
    """The weight with its `count` smallest magnitudes set to zero; of equal ones, the first.

    Example:
        >>> without_smallest(np.array([[0.5, -0.5], [0.1, 2.0]]), 2).tolist()
        [[0.0, -0.5], [0.0, 2.0]]
    """
    flat = np.array(weight).reshape(-1)
    flat[np.argsort(np.abs(flat), kind="stable")[:count]] = 0
    return flat.reshape(weight.shape)


def _weights(graph: Graph) -> dict[Name, str]:
    """Every layer's weight, with the name of the first layer that reads it."""
    first: dict[Name, str] = {}
    for layer in layers(graph):
        first.setdefault(layer.weight, layer.name)
    return first


def _only_layers(graph: Graph, name: Name) -> bool:
    """Whether layers alone read a constant, as their weight."""
    readers = [(as_layer(graph, node), node.reads.count(name)) for node in graph.users(name)]
    return name not in graph.outputs and all(la is not None and la.weight == name and n == 1 for la, n in readers)
