"""Which tensors become integers, and which of them must share one grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..ir.model import Graph, Name, Node
from ..ops.activations import is_clamp
from ..ops.layers import as_layer, layers_inside
from ..ops.operator import Grid, Unknown
from ..ops.table import ignores_values, op_of


@dataclass(frozen=True)
class Placement:
    """What becomes integer."""

    classes: tuple[tuple[Name, ...], ...]  # tensors that share a grid, each tuple in topological order
    merged: frozenset[Name]  # tensors that never exist as integers: what stands between a layer and its activation
    operands: tuple[Name, ...]  # constants added or multiplied, which become integers too


def place(graph: Graph) -> Placement:
    """Decide it for a graph."""
    merged = frozenset(node.outputs[0] for node in graph.nodes if _merges(graph, node))
    wanted = [n for n in _activations(graph) if n not in merged and _works(graph, n, merged)]
    parent = {n: n for n in wanted}

    def root(n: Name) -> Name:
        while parent[n] != n:
            n = parent[n]
        return n

    for node in graph.nodes:
        grid = grid_of(node)
        if not grid.keeps:
            continue
        tied = [*node.outputs, *(node.inputs if grid.ties else node.inputs[:1])]
        known = [root(n) for n in tied if n in parent]
        for n in known[1:]:
            parent[root(n)] = root(known[0])
    classes: dict[Name, list[Name]] = {}
    for n in wanted:
        classes.setdefault(root(n), []).append(n)
    constants = (n for n in graph.nodes if grid_of(n).constants and n.outputs[0] in {*parent, *merged})
    operands = [i for node in constants for i in node.inputs if i in graph.consts and graph.is_float(i)]
    return Placement(tuple(map(tuple, classes.values())), merged, tuple(dict.fromkeys(operands)))


def grid_of(node: Node) -> Grid:
    """How integers travel through a node; not at all where that is not known."""
    grid = op_of(node).grid
    return Grid() if isinstance(grid, Unknown) else grid


def keeps_grid(node: Node) -> bool:
    """Whether the node's outputs hold only values of its first input, or between them."""
    grid = grid_of(node)
    return grid.keeps and not grid.ties


def borders(graph: Graph) -> Mapping[str, list[Name]]:
    """Operators that stay float, by kind: everything equint does not turn into integers."""
    found: dict[str, list[Name]] = {}
    for node in graph.nodes:
        grid = grid_of(node)
        known = _is_worker(graph, node) or grid.keeps or grid.fused or ignores_values(op_of(node))
        if not known and any(graph.is_float(o) for o in node.outputs):
            found.setdefault(f"{node.domain}::{node.op}" if node.domain else node.op, []).append(node.label)
    return found


def bodies(graph: Graph) -> list[tuple[Node, int]]:
    """Operators with subgraphs, and how many convolutions and matrix products these hold: they are not looked into."""
    counts = ((node, layers_inside(node)) for node in graph.nodes)
    return [(node, count) for node, count in counts if count]


def _activations(graph: Graph) -> list[Name]:
    return [n for n in valued(graph) if graph.is_float(n) and graph.rank(n) != 0]  # single numbers stay as they are


def valued(graph: Graph) -> tuple[Name, ...]:
    """The tensors that hang on what the inputs hold, and not on constants and sizes alone, in topological order.

    Example:
        >>> nodes = Node("Relu", ("x",), ("y",)), Node("Shape", ("y",), ("s",)), Node("Cast", ("s",), ("sizes",))
        >>> valued(Graph(nodes, {}, ("x",), ("y", "sizes")))
        ('x', 'y')
    """
    found = dict.fromkeys(graph.inputs)
    for node in graph.nodes:
        if not ignores_values(op_of(node)) and any(i in found for i in node.reads):
            found |= dict.fromkeys(o for o in node.outputs if o)
    return tuple(found)


def _is_worker(graph: Graph, node: Node) -> bool:
    return as_layer(graph, node) is not None or grid_of(node).integer


def _merges(graph: Graph, node: Node) -> bool:
    """Whether the node's output is read by one activation alone, which the quantizer then replaces."""
    out = node.outputs[0] if node.outputs else ""
    users = graph.users(out)
    if len(users) != 1 or out in graph.outputs or not is_clamp(graph, users[0]):
        return False
    before = graph.producer.get(node.inputs[0]) if is_clamp(graph, node) else None
    return _is_worker(graph, node) or (before is not None and _merges(graph, before))


def _works(graph: Graph, name: Name, merged: frozenset[Name]) -> bool:
    node = graph.producer.get(name)
    if node is not None and (_is_worker(graph, node) or (is_clamp(graph, node) and node.inputs[0] in merged)):
        return True
    # what a subgraph reads is integer where it is a move of integers: onnxruntime (1.32) would pass the grid on into it
    # and abort (QDQPropagationTransformer)
    inside = node is not None and keeps_grid(node) and any(name in user.captured for user in graph.users(name))
    return inside or any(_is_worker(graph, user) and name in user.inputs for user in graph.users(name))
