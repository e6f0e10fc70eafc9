"""Tensors whose values lose their meaning on a grid of few integers, and stay float where hardware has floats."""

from __future__ import annotations

from ..ir.model import Graph, Name, Node
from .attributes import is_cast
from .moves import MOVES
from .pointwise import is_pointwise, operands


def exact(graph: Graph) -> frozenset[Name]:
    """What is never rounded: what stands inside magnitudes, what must not become 0, numbers told once a sample."""
    return magnitudes(graph) | never_zero(graph) | counts(graph)


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
    waiting, found = [name], set[Name]()
    while waiting:
        name = waiting.pop()
        node = graph.producer.get(name)
        if node is None or node.domain or name in graph.outputs or len(graph.users(name)) != 1:
            return None
        found.add(name)
        if (node.op == "Pow" and _exponent(graph, node) == 2) or (node.op == "Mul" and len({*node.inputs}) == 1):
            continue
        terms = operands(graph, node) if node.op in ("Add", "Sum") and is_pointwise(graph, node) else ()
        if not terms:
            return None
        waiting += terms
    return found


def never_zero(graph: Graph) -> frozenset[Name]:
    """What logarithms read, and divisors: a grid would round what is small to 0, of which there is none.

    What is made to stay above 0 before, as x in log(x + ε), may be rounded.

    Example:
        >>> import numpy as np
        >>> nodes = [Node("Max", ("x", "e"), ("m",)), Node("Log", ("m",), ("y",))]
        >>> sorted(never_zero(Graph(nodes, {"e": np.float32(1e-9)}, ("x",), ("y",))))
        ['m']
    """
    found = set[Name]()
    for node in graph.nodes:
        name = "" if node.domain else _must_not_be_zero(node)
        while name in graph.producer:
            found.add(name)
            name = _moved(graph, name)
    return frozenset(found)


def _must_not_be_zero(node: Node) -> Name:
    return {"Log": node.inputs[:1], "Reciprocal": node.inputs[:1], "Div": node.inputs[1:]}.get(node.op, ("",))[0]


def _moved(graph: Graph, name: Name) -> Name:
    """What a tensor holds in other places, and nothing else reads; else nothing."""
    node = graph.producer[name]
    return node.inputs[0] if node.op in MOVES and graph.users(node.inputs[0]) == (node,) else ""


def is_logged(graph: Graph, name: Name) -> bool:
    """Whether a logarithm reads a tensor as it is, moved, or with a constant added.

    Nothing holds it above 0 then but the layer that makes it: rounded weights, and a bias corrected by a mean error,
    may bring it below, where there is no logarithm.

    Example:
        >>> import numpy as np
        >>> nodes = [Node("Add", ("x", "e"), ("a",)), Node("Transpose", ("a",), ("t",)), Node("Log", ("t",), ("y",))]
        >>> graph = Graph(nodes, {"e": np.float32(1e-9)}, ("x",), ("y",))
        >>> is_logged(graph, "x"), is_logged(graph, "y")
        (True, False)
    """
    waiting = [name]
    while waiting:
        name = waiting.pop()
        users = [user for user in graph.users(name) if name in user.inputs and not user.domain]
        if any(user.op == "Log" for user in users):
            return True
        waiting += [o for user in users if _only_shifts(graph, user, name) for o in user.outputs if o]
    return False


def _only_shifts(graph: Graph, node: Node, name: Name) -> bool:
    """Whether a node moves a tensor, or adds a constant to it."""
    constant = all(i == name or i in graph.consts for i in node.inputs)
    return (node.op in MOVES and node.inputs[0] == name) or (node.op == "Add" and constant)


COUNTED = ("Add", "Sub", "Mul", "Div", "Floor", "Ceil", "Neg", "Reshape", "Squeeze", "Unsqueeze")
"""What counts are reckoned with."""


def counts(graph: Graph) -> frozenset[Name]:
    """Floats made of whole numbers that are given once a sample, as lengths or steps of time are.

    Example:
        >>> import numpy as np
        >>> cast, less = Node("Cast", ("length",), ("n",)), Node("Sub", ("n", "one"), ("m",))
        >>> nodes = [cast, less, Node("Mul", ("x", "m"), ("y",))]
        >>> shapes, types = {"x": ("N", 9), "length": ("N",)}, {"length": "int64"}
        >>> sorted(counts(Graph(nodes, {"one": np.float32(1)}, ("x", "length"), ("y",), shapes, types)))
        ['m', 'n']
    """
    whole = {n for n in graph.inputs if not graph.is_float(n) and len(graph.shapes.get(n) or (0, 0)) < 2}
    for node in graph.nodes if whole else ():
        known = all(i in whole or i in graph.consts for i in node.inputs if i)
        if known and not node.domain and (is_cast(node) or node.op in COUNTED) and {*node.inputs} & whole:
            whole |= {*node.outputs}
    return frozenset(n for n in whole if graph.is_float(n))


def _exponent(graph: Graph, node: Node) -> float | None:
    value = graph.constant(node.inputs[1])
    return None if value is None or value.size != 1 else float(value.reshape(()))
