"""Which operators hardware takes on integers, by the names that a target lists."""

from __future__ import annotations

from collections.abc import Collection
from fnmatch import fnmatchcase

from ..ir.model import Graph, Node
from .exact import is_logged
from .layers import as_layer
from .moves import MOVES

_DENSE = frozenset({"Gemm", "MatMul"})


def is_listed(op: str, operators: Collection[str]) -> bool:
    """Whether hardware takes an operator on integers; where nothing is listed it takes all.

    What only moves values needs no entry. A Gemm and a MatMul are one: exporters write a dense layer as either.

    Example:
        >>> [is_listed(op, ["Conv", "Gemm"]) for op in ("Conv", "MatMul", "Reshape", "Add")]
        [True, True, True, False]
    """
    return not operators or op in operators or op in MOVES or (op in _DENSE and not _DENSE.isdisjoint(operators))


def is_named(name: str, patterns: Collection[str]) -> bool:
    """Whether a name is among names and patterns with * and ?.

    Example:
        >>> is_named("head/conv", ["stem", "head/*"])
        True
    """
    return name in patterns or any(fnmatchcase(name, pattern) for pattern in patterns)


def on_integers(graph: Graph, node: Node) -> bool:
    """Whether the hardware that a graph is for takes a node on integers: it lists the operator, and excepts no name.

    Where it has floats, a layer of which a logarithm is taken is left to them (`is_logged`).

    Example:
        >>> graph = Graph((), {}, ("x",), ("y",), operators=("Conv",), float_layers=("head/*",))
        >>> [on_integers(graph, Node("Conv", ("x", "w"), ("y",), name=name)) for name in ("stem/conv", "head/conv")]
        [True, False]
    """
    taken = is_listed(node.op, graph.operators) and not is_named(node.label, graph.float_layers)
    return taken and not left_to_floats(graph, node)


def left_to_floats(graph: Graph, node: Node) -> bool:
    """Whether a node is a layer of which a logarithm is taken, on hardware that has floats."""
    return not graph.integers_only and as_layer(graph, node) is not None and is_logged(graph, node.outputs[0])
