"""Rewriting a graph: many small edits of nodes and constants, applied at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain

from .model import Array, Graph, Name, Node
from .weights import Layer


class Editor:
    """Collects edits of one graph; `done` returns the new graph, the old one is untouched.

    Example:
        >>> import numpy as np
        >>> node = Node("Add", ("x", "c"), ("y",))
        >>> editor = Editor(Graph((node,), {"c": np.ones(1)}, ("x",), ("y",)))
        >>> editor.edit(node, 1, lambda c: 2 * c)
        >>> float(editor.done().consts["c"][0])
        2.0
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.consts: dict[Name, Array] = {}
        self._places = {node.outputs: k for k, node in enumerate(graph.nodes)}
        self._versions = [[node] for node in graph.nodes]

    def edit(self, node: Node, position: int, change: Callable[[Array], Array]) -> None:
        """Change the constant that `node` reads at `position`, for this node only."""
        name = self._now(node).inputs[position]
        value = self.value(node, position)
        if value is None:
            raise KeyError(f"{name} is not a constant of {node.label}")
        self._put(node, position, change(value), name)

    def set(self, node: Node, position: int, value: Array, stem: Name) -> None:
        """Make `node` read `value` at `position`, which may lie just behind its last input."""
        inputs = self._now(node).inputs
        if position < len(inputs) and inputs[position]:
            self._put(node, position, value, inputs[position])
        else:
            padded = (*inputs, *[""] * (position + 1 - len(inputs)))
            name = self._fresh(stem)
            self.consts[name] = value
            self._change(node, inputs=(*padded[:position], name, *padded[position + 1 :]))

    def set_weight(self, layer: Layer, weight: Array) -> None:
        """Give a layer another weight, whoever else reads the one that it has."""
        self.edit(layer.node, layer.node.inputs.index(layer.weight), lambda _: weight)

    def set_bias(self, layer: Layer, bias: Array) -> None:
        """Give a layer `(O,)` biases."""
        self.set(layer.node, 2, layer.shaped_bias(bias), f"{layer.y}_bias")

    def value(self, node: Node, position: int) -> Array | None:
        """The constant that `node` reads at `position`, as edited so far; None where there is none."""
        inputs = self._now(node).inputs
        name = inputs[position] if position < len(inputs) else ""
        return self.consts[name] if name in self.consts else self.graph.constant(name)

    def rename_output(self, node: Node, name: Name) -> None:
        """Let the node's first output be called `name` (the node that made `name` must go)."""
        self._change(node, outputs=(name, *self._now(node).outputs[1:]))

    def rename_input(self, node: Node, old: Name, new: Name) -> None:
        """Let the node read `new` where it read `old`."""
        self._change(node, inputs=tuple(new if i == old else i for i in self._now(node).inputs))

    def swap(self, node: Node, nodes: Sequence[Node]) -> None:
        """Put `nodes` in the place of `node`; an empty sequence removes it."""
        self._versions[self._places[node.outputs]] = list(nodes)

    def add_const(self, stem: Name, value: Array) -> Name:
        """A new constant under a free name."""
        name = self._fresh(stem)
        self.consts[name] = value
        return name

    def done(self) -> Graph:
        return self.graph.with_nodes(chain.from_iterable(self._versions), self.consts)

    def _put(self, node: Node, position: int, value: Array, name: Name) -> None:
        now = self._now(node)
        shared = len(self.graph.users(name)) > 1 or now.inputs.count(name) > 1 or name in self.graph.outputs
        if shared and name in self.graph.consts:
            name = self._fresh(f"{name}.{node.label}")
            self._change(node, inputs=tuple(name if k == position else i for k, i in enumerate(now.inputs)))
        self.consts[name] = value

    def _now(self, node: Node) -> Node:
        return self._versions[self._places[node.outputs]][-1]

    def _change(self, node: Node, **fields: tuple[Name, ...]) -> None:
        versions = self._versions[self._places[node.outputs]]
        versions[-1] = replace(versions[-1], **fields)  # type: ignore[arg-type]

    def _fresh(self, stem: Name) -> Name:
        name = self.graph.fresh(stem)
        while name in self.consts:
            name += "_"
        return name
