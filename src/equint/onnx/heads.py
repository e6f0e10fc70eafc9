"""Layers whose output channels are cut apart again: each part becomes a layer of its own, with a grid of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from ..ir.edit import Editor
from ..ir.fields import aligned
from ..ir.model import Array, Graph, Name, Node, Shape
from ..ir.weights import Layer
from ..maths.ranges import lost
from ..ops.layers import bias_of, layers
from ..ops.moves import MOVES
from ..ops.operator import Unknown
from ..ops.table import op_of
from .picks import cuts

TYPICAL = 3.0
"""How far a layer's outputs reach from their bias, in norms of their weights: inputs are taken to be of size 1."""


def heads_apart(graph: Graph) -> Graph:
    """Layers split where their channels are cut apart, if some part would be rounded much coarser on the grid of all.

    Detection heads often make boxes (hundreds) and scores (a few units) with one convolution and cut them apart behind
    it, at once or behind reshapes and transposes. Values stay as they are: a part is a layer of some of the output
    channels. How far channels reach is told by their weights and biases, as for joins three bits lost are too many.

    Example:
        >>> conv, cut = Node("Conv", ("x", "w"), ("y",)), Node("Split", ("y", "s"), ("boxes", "scores"), {"axis": 1})
        >>> consts = {"w": np.array([[640.0], [1.0]]).reshape(2, 1, 1, 1), "s": np.array([1, 1])}
        >>> shapes = {"x": (1, 1, 8, 8), "y": (1, 2, 8, 8), "boxes": (1, 1, 8, 8), "scores": (1, 1, 8, 8)}
        >>> found = heads_apart(Graph((conv, cut), consts, ("x",), ("boxes", "scores"), shapes))
        >>> [(n.op, n.outputs, found.consts[n.inputs[1]].item()) for n in found.nodes]
        [('Conv', ('boxes',), 640.0), ('Conv', ('scores',), 1.0)]
    """
    editor, made = Editor(graph), set[Name]()
    for layer in layers(graph):
        parts = _parts(graph, layer)
        if parts and _differ(graph, layer, [p.channels for p in parts]):
            work = _Work(graph, editor, layer, made)
            if all(work.add(part) for part in parts):
                work.put(parts)
    return editor.done() if made else graph


@dataclass(frozen=True)
class _Part:
    """What a pick takes of a layer's channels.

    Attributes:
        chain: the moves between the layer and the pick, first to last.
        fields: numbers of the channels as they lie in the layer's output and behind each of the moves; and in the part.
        axis, width: along which the pick cuts, and how many entries stay.
        single: it takes one entry and drops the axis.
    """

    chain: tuple[Node, ...]
    fields: tuple[Array, ...]
    pick: Node
    output: Name
    axis: int
    width: int
    single: bool

    @property
    def channels(self) -> Array:
        """Numbers of the layer's output channels in it, ascending."""
        return np.unique(self.fields[-1])


def _parts(graph: Graph, layer: Layer) -> list[_Part]:
    """The parts that a layer's output is cut into; nothing where somebody reads it whole or parts overlap."""
    rank, axis = graph.rank(layer.y), layer.out_axis()
    if rank is None or axis is None or layer.groups != 1 or layer.weight_first:
        return []
    outs = layer.channels(graph.consts[layer.weight])[1]
    start = aligned(np.arange(outs), layer.y_axis % rank, rank)
    found = list(_cut(graph, layer.y, (), (start,)))
    if any(part is None for part in found):
        return []
    parts = [part for part in found if part is not None]
    sets = {tuple(part.channels.tolist()) for part in parts}
    return parts if len(sets) > 1 and sum(map(len, sets)) == len(set[int]().union(*sets)) else []


def _cut(graph: Graph, name: Name, chain: tuple[Node, ...], fields: tuple[Array, ...]) -> Iterator[_Part | None]:
    """The parts that are picked of a tensor; None for everything else that is made of it."""
    if name in graph.outputs:
        yield None
    for user in graph.users(name):
        known = [(*cut, False) for cut in cuts(graph, user)] or _single(graph, user)
        whole = fields[-1]
        for output, axis, first, last, single in known:
            taken = whole.take(range(first, last), axis) if whole.shape[axis] > 1 else whole
            fits = taken.size < whole.size and name == user.inputs[0]
            part = _Part(chain, (*fields, taken), user, output, axis, last - first, single)
            yield part if fits else None
        if known:
            continue
        facet = op_of(user).fields if not user.domain and user.op in MOVES else Unknown("")
        moved = None if isinstance(facet, Unknown) or user.op not in _CHAIN else facet(graph, user, whole, -1)
        if moved is None:
            yield None
        else:
            yield from _cut(graph, user.outputs[0], (*chain, user), (*fields, moved[0]))


_CHAIN = ("Transpose", "Reshape", "Squeeze", "Unsqueeze")


def _single(graph: Graph, node: Node) -> list[tuple[Name, int, int, int, bool]]:
    """A Gather of one entry, as a cut."""
    index, shape = graph.constant(node.inputs[1]) if node.op == "Gather" else None, graph.shapes.get(node.inputs[0])
    if node.domain or index is None or shape is None or index.ndim:
        return []
    axis = int(node.attrs.get("axis", 0)) % len(shape)
    width = shape[axis]
    if not isinstance(width, int):
        return []
    return [(node.outputs[0], axis, int(index) % width, int(index) % width + 1, True)]


def _differ(graph: Graph, layer: Layer, parts: Sequence[Array]) -> bool:
    """Whether some part would lose bits on the grid of all, as far as weights and biases tell."""
    norms = np.sqrt(np.square(layer.unpack(graph.consts[layer.weight]).astype(np.float64)).sum((0, 2, 3)))
    bias = np.abs(np.broadcast_to(bias_of(graph, layer), norms.shape).astype(np.float64))
    return any(
        lost(float(reach[channels].max()), float(reach.max()))
        for reach in (norms, bias + TYPICAL * norms)
        for channels in parts
    )


@dataclass
class _Work:
    """What is made in place of one layer."""

    graph: Graph
    editor: Editor
    layer: Layer
    made: set[Name]  # names of tensors made so far, in place of all layers

    def __post_init__(self) -> None:
        self.nodes = list[Node]()
        self.outputs: dict[tuple[int, ...], Name] = {}  # the layer of each set of channels

    def add(self, part: _Part) -> bool:
        """Make a part; whether it holds the same values in the same places."""
        rows, shapes, consts = part.channels, dict[Name, Shape](), dict[Name, Array]()
        straight = not part.chain and not part.single
        key = tuple(rows.tolist())
        if key not in self.outputs:
            y = part.output if straight else self._fresh(f"{self.layer.y}_{len(self.outputs)}")
            self.outputs[key] = y
            self.nodes.append(self._layer(rows, y))
        targets = _targets(self.graph, part)
        if targets is None:
            return False
        name = self.outputs[key]
        whole = self.graph.shapes[self.layer.y]
        shapes[name] = tuple(len(rows) if d == self.layer.y_axis % len(whole) else n for d, n in enumerate(whole))
        field = aligned(rows, self.layer.y_axis % len(whole), len(whole))
        for node, (shape, sizes) in zip(part.chain, targets, strict=True):
            inputs = (name, *node.inputs[1:])
            if sizes is not None:
                inputs = (name, self.editor.add_const(f"{node.outputs[0]}_sizes", sizes))
                consts[inputs[1]] = sizes
            last = node is part.chain[-1] and not part.single
            name = part.output if last else self._fresh(f"{node.outputs[0]}_{len(self.outputs)}")
            node = replace(node, inputs=inputs, outputs=(name,), name="")
            self.nodes.append(node)
            shapes[name] = shape
            known = replace(self.graph, shapes={**self.graph.shapes, **shapes}, consts={**self.graph.consts, **consts})
            facet = op_of(node).fields
            moved = None if isinstance(facet, Unknown) else facet(known, node, field, -1)
            if moved is None:
                return False
            field = moved[0]
        if part.single:
            index = self.editor.add_const(f"{part.output}_index", np.array(0, np.int64))
            self.nodes.append(replace(part.pick, inputs=(name, index), outputs=(part.output,)))
        elif name != part.output:
            self.nodes.append(Node("Identity", (name,), (part.output,)))
        return field.shape == part.fields[-1].shape and np.array_equal(field, part.fields[-1])

    def put(self, parts: Sequence[_Part]) -> None:
        """Let what was made stand in place of the layer, the moves and the picks."""
        for node in dict.fromkeys(n.outputs for p in parts for n in (*p.chain, p.pick)):
            self.editor.swap(self.graph.producer[next(o for o in node if o)], ())
        self.editor.swap(self.layer.node, self.nodes)
        self.made.update(o for node in self.nodes for o in node.outputs)

    def _layer(self, rows: Array, y: Name) -> Node:
        """The layer with some of its output channels."""
        layer, inputs = self.layer, list(self.layer.node.inputs)
        weight = self.graph.consts[layer.weight].take(rows, layer.out_axis())
        inputs[1] = self.editor.add_const(f"{layer.weight}_{len(self.outputs)}", weight)
        if layer.bias is not None:
            bias = self.graph.consts[layer.bias].reshape(-1)[rows]
            inputs[2] = self.editor.add_const(f"{layer.bias}_{len(self.outputs)}", layer.shaped_bias(bias))
        name = f"{layer.node.name}.{len(self.outputs)}" if layer.node.name else ""
        return replace(layer.node, inputs=tuple(inputs), outputs=(y,), name=name)

    def _fresh(self, stem: Name) -> Name:
        name = self.graph.fresh(stem)
        while name in self.made or any(name in n.outputs for n in self.nodes):
            name += "_"
        return name


def _targets(graph: Graph, part: _Part) -> list[tuple[Shape, Array | None]] | None:
    """Shape and, of a Reshape, sizes of each move of a part; None where the cut axis gets lost on the way."""
    found, axis = list[tuple[Shape, Array | None]](), part.axis
    for node, (before, _) in zip(reversed(part.chain), reversed(list(pairwise(part.fields[:-1]))), strict=True):
        after = graph.shapes[node.outputs[0]]
        full, sizes = after[axis], None
        if node.op == "Reshape":
            sizes = graph.constant(node.inputs[1])
            if sizes is None or sizes.size != len(after):
                return None
            sizes = np.where((np.arange(sizes.size) == axis) & (sizes > 0), part.width, sizes).astype(np.int64)
        found.insert(0, (tuple(part.width if d == axis else n for d, n in enumerate(after)), sizes))
        if node.op == "Transpose":
            axis = list(node.attrs.get("perm", range(len(after))[::-1]))[axis]
            continue
        varying = [d for d, n in enumerate(before.shape) if n > 1]
        same = varying if len(varying) == 1 else [d for d in varying if before.shape[d] == full]
        if len(same) != 1:
            return None
        axis = same[0]
    return found
