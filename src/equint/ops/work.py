"""How much operators compute."""

from __future__ import annotations

from math import prod

from ..ir.model import Graph, Name, Node

UNKNOWN_SIZE = 16
"""Positions along an axis of unknown size."""
RECURRENT = frozenset({"LSTM", "GRU", "RNN"})
"""Operators that compute step by step, with weights for their input and for their state."""


def is_recurrent(graph: Graph) -> bool:
    """Whether something in a network computes step by step, as one operator or in a loop, which has no integer form.

    Example:
        >>> from .layers import tiny_graph
        >>> is_recurrent(tiny_graph())
        False
    """
    return any(not node.domain and node.op in (*RECURRENT, "Loop", "Scan") for node in graph.nodes)


def multiplications(graph: Graph, node: Node) -> int:
    """Multiply-accumulates of a node for one sample; 0 of operators that make no sums of products.

    Sizes that are not known count as `UNKNOWN_SIZE`, the batch as 1.

    Example:
        >>> from .layers import tiny_graph
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
    if node.op in RECURRENT and len(node.inputs) > 2:
        return (a[0] if a else UNKNOWN_SIZE) * (prod(b) + prod(_sizes(graph, node.inputs[2])))
    return 0


def _sizes(graph: Graph, name: Name) -> tuple[int, ...]:
    shape = graph.consts[name].shape if name in graph.consts else graph.shapes.get(name) or ()
    return tuple(n if isinstance(n, int) else UNKNOWN_SIZE for n in shape)
