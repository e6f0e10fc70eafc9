"""How much a network's operators compute, and what of it stays float."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from ..ir.events import Event, EventKind
from ..ir.model import Graph, Model, Name, Node
from ..ops.layers import as_layer

UNKNOWN_SIZE = 16
"""Positions along an axis of unknown size."""
_RECURRENT = {"LSTM": 4, "GRU": 3, "RNN": 1}


def multiplications(graph: Graph, node: Node) -> int:
    """Multiply-accumulates of a node for one sample; 0 of operators that make no sums of products.

    Sizes that are not known count as `UNKNOWN_SIZE`, the batch as 1.

    Example:
        >>> from ..ops.layers import tiny_graph
        >>> graph = tiny_graph()  # 3x3 depthwise over 4 channels of 4x4
        >>> multiplications(graph, graph.nodes[0])
        576
    """
    if node.domain or len(node.inputs) < 2:
        return 0
    a, b = (_sizes(graph, name) for name in node.inputs[:2])
    y = _sizes(graph, node.outputs[0])
    if node.op == "Conv":
        return prod(y[1:]) * prod(b[1:])
    if node.op == "ConvTranspose":
        return prod(a[1:]) * prod(b[1:])
    if node.op in ("MatMul", "Gemm"):
        inner = a[0] if node.attrs.get("transA", 0) else a[-1] if a else 1
        return prod(y[1:]) * inner if len(y) > 1 else prod(y) * inner
    if node.op in _RECURRENT and len(node.inputs) > 2:
        return (a[0] if a else UNKNOWN_SIZE) * (prod(b) + prod(_sizes(graph, node.inputs[2])))
    return 0


def _sizes(graph: Graph, name: Name) -> tuple[int, ...]:
    shape = graph.consts[name].shape if name in graph.consts else graph.shapes.get(name) or ()
    return tuple(n if isinstance(n, int) else UNKNOWN_SIZE for n in shape)


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
    if node.op in _RECURRENT:
        return "it has no integer form"
    if layer is None:
        return "its weights are computed"
    if layer.x not in model.qparams:
        return "its input stays float"
    return "" if layer.weight in model.qparams else "its weights stay float"
