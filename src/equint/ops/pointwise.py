"""Functions of one value in several operators: x·σ(x), √(x + ε), a GELU in pieces."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce

import numpy as np

from ..ir.model import Array, Graph, Name, Node
from .activations import clamps, is_clamp, negative_slope
from .attributes import clip_bounds
from .curves import curve_of

_COMBINED: Mapping[str, Callable[[Array, Array], Array]] = {
    "Add": np.add,
    "Sum": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "Max": np.maximum,
    "Min": np.minimum,
}


def is_pointwise(graph: Graph, node: Node) -> bool:
    """Whether every value that a node gives depends on one value of each activation that it reads, and on numbers.

    Example:
        >>> graph = Graph((), {"three": np.float32(3), "column": np.ones((4, 1, 1))}, ("x",), ())
        >>> [is_pointwise(graph, Node("Add", ("x", c), ("y",))) for c in ("three", "column")]
        [True, False]
    """
    if node.domain or len(node.outputs) != 1 or not graph.is_float(node.outputs[0]):
        return False
    if len({graph.rank(n) for n in (*operands(graph, node), *node.outputs)} - {None}) > 1:
        return False  # a number of more dimensions gives its result as many
    if node.op in _COMBINED:
        return all(i not in graph.consts or graph.consts[i].size == 1 for i in node.inputs)
    if clamps(node):
        return is_clamp(graph, node) and all(b is not None and b.size == 1 for b in clip_bounds(graph, node))
    slope = negative_slope(graph, node)
    return curve_of(graph, node) is not None or (slope is not None and slope.size == 1)


def operands(graph: Graph, node: Node) -> list[Name]:
    """The activations that a node reads, each once."""
    return [i for i in dict.fromkeys(node.inputs) if i and i not in graph.consts]


def value_of(graph: Graph, node: Node, values: Mapping[Name, Array]) -> Array:
    """What a pointwise node makes of the values of its activations."""
    if node.op in _COMBINED:
        given = (values[i] if i in values else graph.consts[i].reshape(()).astype(np.float64) for i in node.inputs)
        return reduce(_COMBINED[node.op], given)
    x = values[node.inputs[0]]
    if clamps(node):
        lo, hi = clip_bounds(graph, node)
        return np.asarray(np.minimum(np.maximum(x, lo), hi))  # type: ignore[arg-type]
    curve, slope = curve_of(graph, node), negative_slope(graph, node)
    return curve(x) if curve is not None else np.where(x >= 0, x, np.asarray(slope).reshape(()) * x)


def inner_values(graph: Graph, kept: Callable[[Node], bool]) -> dict[Name, Name]:
    """Tensors that are functions of one value and read by such functions of the same alone, each with that value.

    Args:
        kept: of pointwise nodes, whether it shall compute by itself all the same.

    Example:
        >>> nodes = Node("Sigmoid", ("x",), ("s",)), Node("Mul", ("x", "s"), ("y",)), Node("Neg", ("y",), ("z",))
        >>> graph = Graph(nodes, {}, ("x",), ("y", "z"))
        >>> inner_values(graph, lambda node: False)
        {'s': 'x'}
    """
    nodes = [n for n in graph.nodes if is_pointwise(graph, n) and operands(graph, n) and not kept(n)]
    outer = {*graph.outputs, *(o for n in nodes for o in n.outputs if not graph.users(o))}
    while True:
        roots = dict[Name, Name]()
        for node in nodes:
            found = {roots.get(i, i) for i in operands(graph, node)}
            if len(found) == 1 and node.outputs[0] not in outer:
                roots[node.outputs[0]] = found.pop()
        single = {n.outputs[0]: {roots.get(i, i) for i in operands(graph, n)} for n in nodes}
        wrong = {
            name
            for name, root in roots.items()
            if any(single.get(user.outputs[0]) != {root} for user in graph.users(name))
        }
        if not wrong:
            return roots
        outer |= wrong
