"""What of a network's work stays float."""

from __future__ import annotations

from collections.abc import Iterator

from ..ir.events import Event, EventKind
from ..ir.model import Model, Node
from ..ops.layers import as_layer
from ..ops.work import RECURRENT, multiplications
from .placement import grid_of


def float_work(model: Model) -> Iterator[Event]:
    """A warning for each kind of operator that computes in float, why, and its share of all multiply-accumulates."""
    graph, total, kinds = model.graph, 0, dict[tuple[str, str], list[tuple[str, int]]]()
    for node in graph.nodes:
        count = multiplications(graph, node)
        total += count
        why = _why_float(model, node) if count else ""
        if why:
            kinds.setdefault((node.op, why), []).append((node.label, count))
    for (op, why), found in kinds.items():
        share = sum(count for _, count in found) / total
        facts = {"op": op, "nodes": len(found), "share of multiply-accumulates": round(share, 4), "why": why}
        yield Event(EventKind.WORK_FLOAT, found[0][0], facts, "quantize", warning=True)


def _why_float(model: Model, node: Node) -> str:
    """Why a node that multiplies does so in float; empty if it computes with integers."""
    layer = as_layer(model.graph, node)
    if node.op in RECURRENT:
        return "it has no integer form"
    if layer is None:
        if grid_of(node).integer and all(i in model.qparams for i in node.inputs):
            return ""  # a product of two activations
        constant = any(i in model.graph.consts and model.graph.consts[i].size > 1 for i in node.inputs[:2])
        return "its constant is not read as weights" if constant else "its weights are computed"
    if layer.x not in model.qparams:
        return "its input stays float"
    return "" if layer.weight in model.qparams else "its weights stay float"
