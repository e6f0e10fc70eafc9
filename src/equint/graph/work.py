"""What of a network's work stays float."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..ir.events import Event, EventKind
from ..ir.model import Graph, Model, Node
from ..ops.layers import as_layer
from ..ops.work import RECURRENT, multiplications
from .placement import grid_of, kept_float


def float_work(model: Model) -> Iterator[Event]:
    """A warning for each kind of operator that computes in float, why, and its share of all multiply-accumulates.

    What the hardware leaves float by design is told by `designed_work`.
    """
    designed = {node.label for node, _ in kept_float(model.graph)}
    nodes = (node for node in model.graph.nodes if node.label not in designed)
    whys = ((node, _why_float(model, node)) for node in nodes if multiplications(model.graph, node))
    yield from _shares(model.graph, EventKind.WORK_FLOAT, [(node, why) for node, why in whys if why], True)


def designed_work(graph: Graph) -> Iterator[Event]:
    """An event for each kind of operator that hardware leaves float, and its share of all multiply-accumulates.

    A warning where the hardware has no floats.
    """
    yield from _shares(graph, EventKind.FLOAT_BY_DESIGN, list(kept_float(graph)), graph.integers_only)


def _shares(graph: Graph, kind: EventKind, found: Sequence[tuple[Node, str]], warning: bool) -> Iterator[Event]:
    kinds = dict[tuple[str, str], list[Node]]()
    for node, why in found:
        kinds.setdefault((node.op, why), []).append(node)
    total = max(sum(multiplications(graph, node) for node in graph.nodes), 1)
    for (op, why), nodes in kinds.items():
        share = round(sum(multiplications(graph, node) for node in nodes) / total, 4)
        facts = {"op": op, "nodes": len(nodes), "share of multiply-accumulates": share, "why": why}
        yield Event(kind, nodes[0].label, facts, "quantize", warning=warning)


def _why_float(model: Model, node: Node) -> str:
    """Why a node that multiplies does so in float; empty if it computes with integers."""
    layer = as_layer(model.graph, node)
    if node.op in RECURRENT:
        return "it has no integer form"
    if layer is None:
        if grid_of(model.graph, node).integer and all(i in model.qparams for i in node.inputs):
            return ""  # a product of two activations
        constant = any(i in model.graph.consts and model.graph.consts[i].size > 1 for i in node.inputs[:2])
        return "its constant is not read as weights" if constant else "its weights are computed"
    if layer.x not in model.qparams:
        return "its input stays float"
    return "" if layer.weight in model.qparams else "its weights stay float"
