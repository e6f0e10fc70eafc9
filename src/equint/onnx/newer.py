"""Operators that are newer than a network's opset, written in several that it has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ..ir.model import Graph, Name, Node
from .fusions import LAYER_NORMALIZATION, Parts

AXES = 18
"""From this opset on, axes of a mean are an input."""
ROOT_MEAN_SQUARE = 23
"""The first opset that has an RMSNormalization."""
GROUPS = 21
"""The first opset whose GroupNormalization has a scale for each channel; from 18 on it has one for each group."""


def without_newer(graph: Graph) -> Graph:
    """The same network with operators of its opset alone; what is not known stays.

    Example:
        >>> norm = Node("LayerNormalization", ("x", "scale"), ("y",), {"axis": -1})
        >>> graph = Graph((norm,), {"scale": np.ones(4, np.float32)}, ("x",), ("y",), opset=13)
        >>> [node.op for node in without_newer(graph).nodes]
        ['ReduceMean', 'Sub', 'Mul', 'ReduceMean', 'Add', 'Sqrt', 'Div', 'Mul']
    """
    nodes, consts = list[Node](), dict(graph.consts)
    for node in graph.nodes:
        parts = _written(graph, node)
        nodes += [node] if parts is None else parts.nodes
        consts |= {} if parts is None else parts.consts
    return graph if len(nodes) == len(graph.nodes) else graph.with_nodes(nodes, consts)


def passed_through(graph: Graph) -> Graph:
    """The network with Identities for operators that are newer than its opset: they leave shapes as they are.

    Shape inference sees through those, and not through what they are written in where sizes are not known.

    Example:
        >>> norm = Node("LayerNormalization", ("x", "scale"), ("y",), {"axis": -1})
        >>> graph = Graph((norm,), {"scale": np.ones(4, np.float32)}, ("x",), ("y",), opset=13)
        >>> [node.op for node in passed_through(graph).nodes]
        ['Identity']
    """
    nodes = [
        Node("Identity", node.inputs[:1], node.outputs, name=node.name) if _written(graph, node) else node
        for node in graph.nodes
    ]
    return graph if nodes == list(graph.nodes) else graph.with_nodes(nodes)


def _written(graph: Graph, node: Node) -> Parts | None:
    """What a node is written in, where the opset has it not."""
    write = _WRITTEN.get(node.op) if not node.domain and not any(node.outputs[1:]) else None
    parts = Parts(graph, node)
    return parts if write is not None and write(parts) else None


def _layer(parts: Parts) -> bool:
    axes = _last_axes(parts)
    if parts.graph.opset >= LAYER_NORMALIZATION or axes is None:
        return False
    centred = parts.add("Sub", parts.input(0), _mean(parts, parts.input(0), axes))
    bias = parts.input(2)
    scaled = _over_root(parts, centred, axes, last=not bias)
    if bias:
        parts.add("Add", scaled, bias, last=True)
    return True


def _root_mean_square(parts: Parts) -> bool:
    axes = _last_axes(parts)
    if parts.graph.opset >= ROOT_MEAN_SQUARE or axes is None:
        return False
    _over_root(parts, parts.input(0), axes, last=True)
    return True


def _group(parts: Parts) -> bool:
    """An InstanceNormalization of groups, then a scale and bias for each channel."""
    scale, bias = (parts.graph.constant(parts.input(k)) for k in (1, 2))
    x, groups = parts.input(0), int(parts.attr("num_groups", 1))
    if parts.graph.opset >= GROUPS or scale is None or bias is None:
        return False
    if parts.graph.opset >= AXES and scale.size == groups:
        return False
    grouped = parts.add("Reshape", x, parts.const([0, groups, -1], np.int64))
    ones, zeros = (parts.const(np.full(groups, value)) for value in (1.0, 0.0))
    y = parts.add("InstanceNormalization", grouped, ones, zeros, epsilon=float(parts.attr("epsilon", 1e-5)))
    y = parts.add("Reshape", y, parts.const([0, scale.size, -1], np.int64))
    y = parts.add("Mul", y, parts.const(scale.reshape(-1, 1)))
    y = parts.add("Add", y, parts.const(bias.reshape(-1, 1)))
    parts.add("Reshape", y, parts.add("Shape", x), last=True)
    return True


def _last_axes(parts: Parts) -> list[int] | None:
    """The axes of a norm, counted from the last one."""
    axis, rank = int(parts.attr("axis", -1)), parts.graph.rank(parts.input(0))
    if axis >= 0 and rank is None:
        return None
    return list(range(axis if axis < 0 or rank is None else axis - rank, 0))


def _mean(parts: Parts, x: Name, axes: Sequence[int]) -> Name:
    if parts.graph.opset < AXES:
        return parts.add("ReduceMean", x, axes=list(axes), keepdims=1)
    return parts.add("ReduceMean", x, parts.const(axes, np.int64), keepdims=1)


def _over_root(parts: Parts, x: Name, axes: Sequence[int], last: bool) -> Name:
    """x/√(mean of its squares + epsilon), times the scale."""
    power = _mean(parts, parts.add("Mul", x, x), axes)
    root = parts.add("Sqrt", parts.add("Add", power, parts.const(float(parts.attr("epsilon", 1e-5)))))
    return parts.add("Mul", parts.add("Div", x, root), parts.input(1), last=last)


_WRITTEN: Mapping[str, Callable[[Parts], bool]] = {
    "LayerNormalization": _layer,
    "RMSNormalization": _root_mean_square,
    "GroupNormalization": _group,
}
"""How each is written; False where the opset has it."""
