"""Branches of If whose condition is constant, put in its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from onnx import GraphProto

from ..ir.model import Array, Graph, Name, Node, frozen


def branches_taken(graph: Graph, read: Callable[[GraphProto], tuple[list[Node], dict[Name, Array]]]) -> Graph:
    """The graph with the body in place of every If whose condition is constant; the same graph where there is none.

    Args:
        read: nodes and constants of a body.

    Example:
        >>> import numpy as np
        >>> from onnx import helper
        >>> relu, y = helper.make_node("Relu", ["x"], ["t"]), helper.make_empty_tensor_value_info("t")
        >>> attrs = dict.fromkeys(["then_branch", "else_branch"], helper.make_graph([relu], "body", [], [y]))
        >>> graph = Graph((Node("If", ("c",), ("y",), attrs, "", "", ("x",)),), {"c": np.array(True)}, ("x",), ("y",))
        >>> [str(n) for n in branches_taken(graph, lambda body: ([Node("Relu", ("x",), ("t",))], {})).nodes]
        ["Node(op='Relu', inputs=('x',), outputs=('y',), attrs={}, name='', domain='', captured=())"]
    """
    nodes, consts, changed = list[Node](), dict[Name, Array](), False
    for number, node in enumerate(graph.nodes):
        condition = graph.constant(node.inputs[0]) if node.op == "If" and not node.domain else None
        if condition is None or condition.size != 1:
            nodes.append(node)
            continue
        changed = True
        body = node.attrs["then_branch" if bool(condition.reshape(())) else "else_branch"]
        inner, values = read(body)
        results = [result.name for result in body.output]
        names = _renamed(graph, number, inner, values, dict(zip(results, node.outputs, strict=True)))
        consts |= {names.get(n, n): frozen(a) for n, a in values.items()}
        nodes += [_under(n, names) for n in inner]
        for result, output in zip(results, node.outputs, strict=True):
            if names.get(result, result) != output:  # handed through from outside, or twice
                nodes.append(Node("Identity", (names.get(result, result),), (output,)))
    return graph.with_nodes(nodes, consts) if changed else graph


def _renamed(
    graph: Graph, number: int, inner: list[Node], values: dict[Name, Array], results: dict[Name, Name]
) -> dict[Name, Name]:
    """What the body's own values are called outside: its results as the If's outputs, others freshly."""
    own = [*values, *(o for node in inner for o in node.outputs if o)]
    names = {name: graph.fresh(f"{name}_branch_{number}") for name in own}
    made = {o for node in inner for o in node.outputs}
    return names | {inside: outside for inside, outside in results.items() if inside in made}


def _under(node: Node, names: dict[Name, Name]) -> Node:
    inputs, outputs, captured = (
        tuple(names.get(n, n) for n in side) for side in (node.inputs, node.outputs, node.captured)
    )
    attrs = {key: _body_under(value, names) for key, value in node.attrs.items()}
    return replace(node, inputs=inputs, outputs=outputs, captured=captured, attrs=attrs)


def _body_under(value: Any, names: dict[Name, Name]) -> Any:
    """A subgraph that reads what is now called otherwise."""
    if not hasattr(value, "node"):
        return value
    body = type(value)()
    body.CopyFrom(value)
    own = {v.name for v in (*body.input, *body.initializer)} | {o for n in body.node for o in n.output}
    outer = {old: new for old, new in names.items() if old not in own}
    for node in body.node:
        for k, name in enumerate(node.input):
            node.input[k] = outer.get(name, name)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                attribute.g.CopyFrom(_body_under(attribute.g, outer))
    for result in body.output:
        result.name = outer.get(result.name, result.name)
    return body
