"""Operators that measure a network's tensors from inside, so that little leaves onnxruntime."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from ..ir.model import Array, Graph, Name, Node


@dataclass(frozen=True)
class Probe:
    """Values `(N, C)` that hold a tensor reduced over positions, and their makers; `square` is the mean of squares."""

    low: Name | None
    high: Name
    mean: Name
    square: Name
    nodes: tuple[Node, ...]
    consts: dict[Name, Array]


def reductions(graph: Graph, name: Name, rank: int, axis: int, stem: Name, with_low: bool) -> Probe:
    """Lowest, highest and mean value of a tensor and of its square, per sample and channel.

    Where channels lie along axis 1, pooling operators reduce: they have kernels for every memory layout, so that the
    float network keeps the one it runs fastest in.

    Args:
        stem: what the new values are called by.

    Example:
        >>> from .reader import Graph
        >>> probe = reductions(Graph((), {}, ("x",), ("x",)), "x", 4, 1, "tap", with_low=False)
        >>> [node.op for node in probe.nodes]
        ['GlobalMaxPool', 'GlobalAveragePool', 'Mul', 'GlobalAveragePool']
    """
    axes = [d for d in range(1, rank) if d != axis]
    consts: dict[Name, Array] = {}

    def reduced(op: str, x: Name, kind: str) -> Node:
        y = f"{stem}_{kind}"
        if axis == 1 and op in _POOLS and rank <= MOST_POOLED:
            return Node(_POOLS[op], (x,), (y,))
        if graph.opset < 18:
            return Node(op, (x,), (y,), {"axes": axes, "keepdims": 0})
        consts[f"{y}_axes"] = np.asarray(axes, np.int64)
        return Node(op, (x, f"{y}_axes"), (y,), {"keepdims": 0})

    squared = f"{stem}_squared"
    nodes = [reduced("ReduceMin", name, "low")] if with_low else []
    nodes += [reduced("ReduceMax", name, "high"), reduced("ReduceMean", name, "mean")]
    nodes += [Node("Mul", (name, name), (squared,)), reduced("ReduceMean", squared, "square")]
    low = f"{stem}_low" if with_low else None
    return Probe(low, f"{stem}_high", f"{stem}_mean", f"{stem}_square", tuple(nodes), consts)


MOST_POOLED = 5
"""Up to how many axes onnxruntime's (1.32) global pools take."""
_POOLS = {"ReduceMax": "GlobalMaxPool", "ReduceMean": "GlobalAveragePool"}


def mean_over_positions(name: Name, rank: int, axis: int, out: Name) -> list[Node]:
    """The mean of a tensor over positions as `out`: `(N, C)`, or `(N, C, 1, …)`."""
    if rank == 2:
        return [Node("Identity", (name,), (out,))]
    if axis == 1:
        return [Node("GlobalAveragePool", (name,), (out,))]
    turned = [0, axis, *(d for d in range(1, rank) if d != axis)]
    turn = Node("Transpose", (name,), (f"{out}_turned",), {"perm": turned})
    return [turn, Node("GlobalAveragePool", turn.outputs, (out,))]


def shape_row(name: Name, rank: int, stem: Name) -> tuple[list[Node], dict[Name, Array]]:
    """A tensor's sizes as one row `{stem}_shape`, since a session may run in parts and put their results together."""
    sizes, row = f"{stem}_sizes", f"{stem}_row"
    nodes = [Node("Shape", (name,), (sizes,)), Node("Reshape", (sizes, row), (f"{stem}_shape",))]
    return nodes, {row: np.asarray([1, rank], np.int64)}


def added(name: Name, error: Name, out: Name) -> Node:
    """A tensor with an error, as `out`."""
    return Node("Add", (name, error), (out,))


def within(name: Name, low: Name, high: Name, out: Name) -> Node:
    """A tensor's values where they lie between two constants, else the nearer of these, as `out`."""
    return Node("Clip", (name, low, high), (out,))


def sizes_of(name: Name, out: Name) -> Node:
    """A tensor's sizes as `out`."""
    return Node("Shape", (name,), (out,))


def flattened(name: Name, stem: Name) -> tuple[Node, dict[Name, Array]]:
    """All values of a tensor in one channel of one sample, as `{stem}_flat`."""
    row = f"{stem}_row"
    return Node("Reshape", (name, row), (f"{stem}_flat",)), {row: np.asarray([1, 1, -1], np.int64)}


def is_quantizer(node: Node) -> bool:
    """Whether a node of a QDQ network makes integers."""
    return node.op == "QuantizeLinear" and not node.domain


def is_dequantizer(node: Node) -> bool:
    """Whether a node of a QDQ network makes floats of integers."""
    return node.op == "DequantizeLinear" and not node.domain


def is_clamp_of_integers(node: Node) -> bool:
    """Whether a node may stand between the two: clamps per channel are a Max and a Min of integers."""
    return node.op in ("Max", "Min") and not node.domain


def as_float32(name: Name, stem: Name) -> Node:
    """A float tensor of another width as what reductions have kernels for."""
    return Node("Cast", (name,), (f"{stem}_float32",), {"to": TensorProto.FLOAT})


def row_power(name: Name, opset: int, stem: Name) -> tuple[list[Node], dict[Name, Array]]:
    """Σ y² of each row of a tensor, `(N,)`: the last node puts it out."""
    rows, axes = f"{stem}_rows", f"{stem}_axes"
    flat = Node("Flatten", (name,), (rows,), {"axis": 1})
    if opset < 18:
        return [flat, Node("ReduceSumSquare", (rows,), (stem,), {"axes": [1], "keepdims": 0})], {}
    power = Node("ReduceSumSquare", (rows, axes), (stem,), {"keepdims": 0})
    return [flat, power], {axes: np.asarray([1], np.int64)}
