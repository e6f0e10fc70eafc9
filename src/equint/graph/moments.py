"""Mean and spread of every tensor of a network, from what BatchNorm knows and from propagation."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..ir.fields import mixed, ranked
from ..ir.model import Graph, Moments, Name, Node
from ..ops.curves import self_gated
from ..ops.layers import as_layer
from ..ops.operator import Pair, Unknown
from ..ops.table import op_of
from .positions import position_axes


def propagate(graph: Graph, known: Mapping[Name, Moments]) -> dict[Name, Moments]:
    """Moments of every tensor that can be had from `known` (graph inputs and BatchNorm outputs).

    Entries of `known` whose origin is not "propagated" are kept as they are.

    Example:
        >>> from ..ir.model import Node
        >>> relu = Node("Relu", ("x",), ("y",))
        >>> graph = Graph((relu,), {}, ("x",), ("y",), {"x": ("N", 1), "y": ("N", 1)})
        >>> given = {"x": Moments(np.zeros((1, 1)), np.ones((1, 1)), "given")}
        >>> round(float(propagate(graph, given)["y"].mean[0, 0]), 4)
        0.3989
    """
    table = {n: m for n, m in known.items() if m.origin != "propagated"}
    for node in graph.nodes:
        missing = [o for o in node.outputs if o and o not in table]
        facet = op_of(node).moments
        if not missing or isinstance(facet, Unknown):
            continue
        operands = [_operand(graph, i, table) for i in node.inputs if i]
        if not operands:
            continue
        with np.errstate(all="ignore"):
            found = facet(graph, node, operands)
        for name, pair in zip(node.outputs, found or [], strict=False):
            if name in missing and all(np.all(np.isfinite(a)) for a in pair):
                fitted = _fitted(graph, node, name, pair, table)
                if fitted is not None:
                    table[name] = Moments(*fitted)
    return table


def _fitted(graph: Graph, node: Node, name: Name, pair: Pair, table: Mapping[Name, Moments]) -> Pair | None:
    """Moments with the rank of their tensor, positions that differ mixed; None where they have another rank."""
    mean, std = (ranked(np.asarray(a), graph.rank(name)) for a in pair)
    if mean is None or std is None:
        return None
    axes = position_axes(
        graph, node, np.broadcast_arrays(mean, std)[0], lambda i: table[i].mean if i in table else None
    )
    return mixed(mean, std, axes) if axes else (mean, std)


def _operand(graph: Graph, name: Name, table: Mapping[Name, Moments]) -> Pair | None:
    """Moments of an activation, or a constant as a variable without spread."""
    if name in table:
        return table[name].mean, table[name].std
    constant = graph.constant(name)
    return None if constant is None else (constant.astype(np.float64), np.zeros(1))


def told(graph: Graph, known: Mapping[Name, Moments]) -> frozenset[Name]:
    """Tensors whose moments BatchNorms tell: their outputs, and what follows of these and of inputs without a layer.

    Behind a layer without BatchNorm, and in a product of two activations, moments are a guess that takes inputs as
    independent; so is all that follows of it, up to the next BatchNorm.

    Example:
        >>> from ..ops.layers import tiny_graph
        >>> graph, trained = tiny_graph(), Moments(np.zeros((1, 4, 1, 1)), np.ones((1, 4, 1, 1)), "batchnorm")
        >>> sorted(told(graph, {"y": trained})), sorted(told(graph, {}))
        (['x', 'y'], ['x'])
    """
    found = {*graph.inputs, *(n for n, m in known.items() if m.origin == "batchnorm")}
    for node in graph.nodes:
        operator, activations = op_of(node), [i for i in node.reads if i not in graph.consts and graph.is_float(i)]
        guessed = operator.multiplies and len(activations) > 1 and self_gated(graph, node) is None
        if not (guessed or isinstance(operator.moments, Unknown) or as_layer(graph, node)):
            found.update(o for o in node.outputs if o and all(i in found for i in activations))
    return frozenset(found)


def heavy_tailed(graph: Graph, moments: Mapping[Name, Moments]) -> frozenset[Name]:
    """Tensors that may reach far beyond what their moments say.

    Sums over many channels are well-behaved; averages and depthwise layers see one channel at neighbouring
    positions, which are alike, so rare large values stay large, and products make them larger. A BatchNorm behind
    them ends the doubt.
    """
    found = set[Name]()
    for node in graph.nodes:
        layer = as_layer(graph, node)
        if layer is not None:
            doubtful = layer.unpack(graph.consts[layer.weight]).shape[2] == 1
        else:
            multiplies = op_of(node).multiplies and all(i in moments for i in node.inputs)
            products = multiplies and self_gated(graph, node) is None
            doubtful = op_of(node).averages or products or any(i in found for i in node.inputs)
        if doubtful:
            found.update(o for o in node.outputs if o in moments and moments[o].origin == "propagated")
    return frozenset(found)
