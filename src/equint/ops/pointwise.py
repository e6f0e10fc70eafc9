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


def magnitudes(graph: Graph) -> frozenset[Name]:
    """What stands inside roots of sums of squares, as √(x² + y² + ε), and is read by nothing else.

    Example:
        >>> nodes = [Node("Mul", (i, i), (f"{i}{i}",)) for i in "xy"]
        >>> nodes += [Node("Add", ("xx", "yy"), ("s",)), Node("Sqrt", ("s",), ("r",))]
        >>> sorted(magnitudes(Graph(nodes, {}, ("x", "y"), ("r",))))
        ['s', 'xx', 'yy']
    """
    found = set[Name]()
    for node in graph.nodes:
        if node.op == "Sqrt" or (node.op == "Pow" and _exponent(graph, node) == 0.5):
            found |= _squares(graph, node.inputs[0]) or set()
    return frozenset(found)


def _squares(graph: Graph, name: Name) -> set[Name] | None:
    """A sum of squares and numbers with all that it is made of; None where something else is, or reads of it."""
    node = graph.producer.get(name)
    if node is None or node.domain or name in graph.outputs or len(graph.users(name)) != 1:
        return None
    if (node.op == "Pow" and _exponent(graph, node) == 2) or (node.op == "Mul" and len({*node.inputs}) == 1):
        return {name}
    if node.op not in ("Add", "Sum") or not is_pointwise(graph, node):
        return None
    terms = [_squares(graph, i) for i in operands(graph, node)]
    known = [term for term in terms if term is not None]
    return {name}.union(*known) if known and len(known) == len(terms) else None


def _exponent(graph: Graph, node: Node) -> float | None:
    value = graph.constant(node.inputs[1])
    return None if value is None or value.size != 1 else float(value.reshape(()))
