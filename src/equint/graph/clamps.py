"""Activations that a quantizer does: the chain behind a layer, and the bounds it puts on the grid at its end."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from ..ir.model import Array, Graph, Name, Node, QParams
from ..maths.affine import quantize
from ..ops.activations import is_clamp
from ..ops.attributes import clip_bounds


def end(graph: Graph, merged: Collection[Name], name: Name) -> Name:
    """The tensor that exists as integers for `name`: itself, or the last of the activations merged behind it."""
    while name in merged:
        name = graph.users(name)[0].outputs[0]
    return name


def ends(graph: Graph, merged: Collection[Name]) -> dict[Name, Name]:
    """`end` of all merged tensors, each asked once.

    Example:
        >>> nodes = Node("Relu", ("x",), ("a",)), Node("Relu", ("a",), ("b",)), Node("Relu", ("b",), ("y",))
        >>> sorted(ends(Graph(nodes, {}, ("x",), ("y",)), {"a", "b"}).items())
        [('a', 'y'), ('b', 'y')]
    """
    found = dict[Name, Name]()
    for name in (o for node in reversed(graph.nodes) for o in node.outputs if o in merged):
        behind = graph.users(name)[0].outputs[0]
        found[name] = found.get(behind, behind)
    return found


def chain(graph: Graph, merged: Collection[Name], node: Node) -> list[Node]:
    """The activations merged into the quantizer of the node's output, nearest the layer first."""
    found = [node]
    while found[0].inputs[0] in merged:
        before = graph.producer[found[0].inputs[0]]
        if not is_clamp(graph, before):
            break
        found.insert(0, before)
    return found if is_clamp(graph, node) else []


def bounds(graph: Graph, q: QParams, activations: Sequence[Node]) -> tuple[Array, Array]:
    """Lowest and highest integer of a grid behind a chain of activations: `()`, or the shape of a Clip's bounds."""
    low: Array = np.asarray(q.qmin)
    high: Array = np.asarray(q.qmax)
    for node in activations:
        lo, hi = clip_bounds(graph, node)
        if lo is not None and np.any(np.isfinite(lo)):
            low = np.maximum(low, on_grid(lo, q))
            high = np.maximum(high, low) if np.any(low > high) else high
        if hi is not None and np.any(np.isfinite(hi)):
            high = np.minimum(high, on_grid(hi, q))
    return low, high


def on_grid(bound: Array, q: QParams) -> Array:
    """A clip's bound as integer of the grid; infinite bounds become the grid's ends.

    Example:
        >>> on_grid(np.array([6.0, np.inf]), QParams(np.float32(0.1), np.int32(5), signed=False)).tolist()
        [65, 255]
    """
    near = np.clip(np.asarray(bound, np.float64), q.lo - float(q.scale), q.hi + float(q.scale)).astype(np.float32)
    return np.asarray(quantize(near, QParams(q.scale, q.zero_point, q.bits, q.signed)))
