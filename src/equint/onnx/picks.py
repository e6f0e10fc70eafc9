"""Picks of what joins put together: they read the joined parts themselves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np

from ..ir.model import Array, Graph, Name, Node


def picks_of_parts(graph: Graph) -> Graph:
    """Split, Slice and Gather of what a Concat joined, where they cut between its inputs, read those inputs instead.

    Detection heads are often joined, joined again with those of other levels, and then split: the parts need not share
    a grid. Between the two there may be reshapes that keep the axis, transposes and joins along other axes.

    Example:
        >>> join = Node("Concat", ("a", "b"), ("c",), {"axis": 1})
        >>> cut = Node("Split", ("c", "sizes"), ("d", "e"), {"axis": 1})
        >>> shapes = {"a": (1, 4), "b": (1, 2), "c": (1, 6), "d": (1, 4), "e": (1, 2)}
        >>> graph = Graph((join, cut), {"sizes": np.array([4, 2])}, ("a", "b"), ("d", "e"), shapes)
        >>> [(n.op, n.inputs, n.outputs) for n in picks_of_parts(graph).nodes[1:]]
        [('Identity', ('a',), ('d',)), ('Identity', ('b',), ('e',))]
    """
    nodes, consts, changed = list[Node](), dict[Name, Array](), False
    for node in graph.nodes:
        work = _Work(graph, node.outputs[0] if node.outputs else "")
        picked = [(output, work.pick(node.inputs[0], *cut)) for output, *cut in cuts(graph, node)]
        found = [Node("Identity", (name,), (output,)) for output, name in picked if name is not None]
        if not found or len(found) < len(picked):
            nodes.append(node)
            continue
        nodes, consts, changed = [*nodes, *work.nodes, *found], {**consts, **work.consts}, True
    return graph.with_nodes(nodes, {**graph.consts, **consts}) if changed else graph


@dataclass
class _Work:
    """What is made in place of one pick."""

    graph: Graph
    stem: str
    nodes: list[Node] = field(default_factory=list)
    consts: dict[Name, Array] = field(default_factory=dict)

    def pick(self, name: Name, axis: int, first: int, last: int) -> Name | None:
        """What holds a tensor's values from `first` to before `last` along an axis; None where that takes a pick."""
        maker, shape = self.graph.producer.get(name), self.graph.shapes.get(name)
        if maker is None or maker.domain or shape is None:
            return None
        if maker.op == "Concat":
            along = int(maker.attrs["axis"]) % len(shape)
            cut = (axis, first, last)
            return self._joined(maker, *cut) if along == axis else self._each(maker, along, *cut)
        if maker.op == "Transpose":
            perm = list(maker.attrs.get("perm", range(len(shape))[::-1]))
            inner = self.pick(maker.inputs[0], perm[axis], first, last)
            return None if inner is None else self._made("Transpose", (inner,), {"perm": perm})
        if maker.op == "Identity":
            return self.pick(maker.inputs[0], axis, first, last)
        return self._reshaped(maker, axis, first, last) if maker.op == "Reshape" else None

    def _joined(self, join: Node, axis: int, first: int, last: int) -> Name | None:
        """The inputs of a Concat that lie between two cuts."""
        widths = [_width(self.graph, name, axis) for name in join.inputs]
        if any(w is None for w in widths):
            return None
        ends = list(accumulate(int(w or 0) for w in widths))
        starts = [0, *ends[:-1]]
        if first not in starts or last not in ends or last <= first:
            return None
        inputs = join.inputs[starts.index(first) : ends.index(last) + 1]
        return inputs[0] if len(inputs) == 1 else self._made("Concat", inputs, {"axis": axis})

    def _each(self, join: Node, along: int, axis: int, first: int, last: int) -> Name | None:
        """A Concat of what is picked of each input, where it joins along another axis."""
        inputs = [self.pick(name, axis, first, last) for name in join.inputs]
        known = [name for name in inputs if name is not None]
        return self._made("Concat", tuple(known), {"axis": along}) if len(known) == len(inputs) else None

    def _reshaped(self, node: Node, axis: int, first: int, last: int) -> Name | None:
        """A Reshape of what is picked in front of it, where it keeps the axis and all before it."""
        before, after = self.graph.shapes.get(node.inputs[0]), self.graph.shapes[node.outputs[0]]
        sizes = self.graph.consts.get(node.inputs[1])
        if before is None or sizes is None or before[: axis + 1] != after[: axis + 1] or None in before[: axis + 1]:
            return None
        if not isinstance(after[axis], int) or sizes[axis] not in (after[axis], -1) or -1 in sizes[:axis]:
            return None
        inner = self.pick(node.inputs[0], axis, first, last)
        if inner is None:
            return None
        shape = self._fresh("sizes")
        self.consts[shape] = np.where((np.arange(sizes.size) == axis) & (sizes > 0), last - first, sizes).astype(
            np.int64
        )
        return self._made("Reshape", (inner, shape), dict(node.attrs))

    def _made(self, op: str, inputs: tuple[Name, ...], attrs: dict[str, object]) -> Name:
        name = self._fresh(op.lower())
        self.nodes.append(Node(op, inputs, (name,), attrs))
        return name

    def _fresh(self, kind: str) -> Name:
        return self.graph.fresh(f"{self.stem}_{kind}_{len(self.nodes)}")


def _width(graph: Graph, name: Name, axis: int) -> int | None:
    shape = graph.consts[name].shape if name in graph.consts else graph.shapes.get(name)
    width = shape[axis] if shape is not None and axis < len(shape) else None
    return width if isinstance(width, int) and width > 0 else None


def cuts(graph: Graph, node: Node) -> Iterator[tuple[Name, int, int, int]]:
    """(output, axis, first, behind the last) of a pick of known cuts along one axis; nothing of other operators."""
    shape = graph.shapes.get(node.inputs[0]) if node.inputs else None
    if node.domain or shape is None:
        return
    if node.op == "Split":
        axis = int(node.attrs.get("axis", 0)) % len(shape)
        widths = [_width(graph, o, axis) for o in node.outputs]
        if all(w is not None for w in widths) and sum(int(w or 0) for w in widths) == shape[axis]:
            ends = list(accumulate(int(w or 0) for w in widths))
            yield from ((o, axis, a, b) for o, a, b in zip(node.outputs, [0, *ends[:-1]], ends, strict=True))
    elif node.op == "Slice" and len(node.inputs) >= 4 and all(i in graph.consts for i in node.inputs[1:] if i):
        starts, ends, axes = (graph.consts[i].reshape(-1).tolist() for i in node.inputs[1:4])
        steps = graph.consts[node.inputs[4]].reshape(-1).tolist() if len(node.inputs) > 4 and node.inputs[4] else [1]
        if len(axes) == 1 and steps == [1] and isinstance(shape[axes[0] % len(shape)], int):
            axis = axes[0] % len(shape)
            first, last, _ = slice(starts[0], ends[0]).indices(int(shape[axis] or 0))
            yield node.outputs[0], axis, first, last
    elif node.op == "Gather" and node.inputs[1] in graph.consts and graph.consts[node.inputs[1]].ndim == 1:
        rows, axis = graph.consts[node.inputs[1]].tolist(), int(node.attrs.get("axis", 0)) % len(shape)
        if rows and min(rows) >= 0 and rows == list(range(rows[0], rows[0] + len(rows))):
            yield node.outputs[0], axis, rows[0], rows[-1] + 1
