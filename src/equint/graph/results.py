"""What a network's outputs are made of: their parts, and what stands in front of the function that bounds them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..ir.model import Graph, Name, Node, Range
from ..ops.activations import is_clamp
from ..ops.moves import JOINS, MOVES
from ..ops.operator import Unknown
from ..ops.table import op_of

FAR = (1e4, 1e6)
"""What a function makes no difference between it keeps within bounds."""


def moves(node: Node | None) -> bool:
    """Whether a node only moves or joins values."""
    return node is not None and not node.domain and (node.op in MOVES or node.op in JOINS)


def parts(graph: Graph, output: Name) -> tuple[Name, ...]:
    """The tensors that an output holds, moved and joined, in the order in which it joins them; itself where it is one.

    Example:
        >>> nodes = (Node("Concat", ("a", "b"), ("c",), {"axis": 1}), Node("Transpose", ("c",), ("y",)))
        >>> parts(Graph(nodes, {}, ("a", "b"), ("y",)), "y")
        ('a', 'b')
    """
    found = tuple(dict.fromkeys(_parts(graph, output)))
    return found if len(found) > 1 else (output,)


def _parts(graph: Graph, name: Name) -> Iterator[Name]:
    waiting, seen = [name], set[Name]()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        node = graph.producer.get(name)
        if node is None or not moves(node):
            yield name
            continue
        sources = node.inputs if node.op in JOINS else node.inputs[:1]
        waiting += [s for s in sources[::-1] if s not in graph.consts]


def bounded(graph: Graph, name: Name) -> tuple[Name, float] | None:
    """What stands in front of the function that keeps a tensor within bounds, such as Sigmoid or Softmax, and how far
    these reach; None where none does. A clip is no such function: what it cuts off is gone.

    Example:
        >>> nodes = (Node("Sigmoid", ("x",), ("s",)), Node("Reshape", ("s", "k"), ("y",)))
        >>> bounded(Graph(nodes, {"k": np.array([-1])}, ("x",), ("y",)), "y")
        ('x', 1.0)
    """
    node = graph.producer.get(name)
    while node is not None and not node.domain and node.op in MOVES:
        node = graph.producer.get(node.inputs[0])
    if node is None or is_clamp(graph, node) or len(node.inputs) != 1:
        return None
    facet, rank = op_of(node).bound, graph.rank(node.inputs[0]) or 1
    if isinstance(facet, Unknown):
        return None
    near, far = (facet(graph, node, [Range(np.full((1,) * rank, -x), np.full((1,) * rank, x))]) for x in FAR)
    if not near or not far or not (np.array_equal(near[0].lo, far[0].lo) and np.array_equal(near[0].hi, far[0].hi)):
        return None
    reach = float(np.maximum(np.abs(far[0].lo), np.abs(far[0].hi)).max())
    return (node.inputs[0], reach) if reach < FAR[0] else None  # what an Exp ends at is float32's own end
