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
    it, at once or behind reshapes, transposes and joins with those of other levels. Values stay as they are: a part is
    a layer of some of the output channels. How far channels reach is told by their weights and biases; as for joins,
    three bits lost are too many.

    Example:
        >>> conv, cut = Node("Conv", ("x", "w"), ("y",)), Node("Split", ("y", "s"), ("boxes", "scores"), {"axis": 1})
        >>> consts = {"w": np.array([[640.0], [1.0]]).reshape(2, 1, 1, 1), "s": np.array([1, 1])}
        >>> shapes = {"x": (1, 1, 8, 8), "y": (1, 2, 8, 8), "boxes": (1, 1, 8, 8), "scores": (1, 1, 8, 8)}
        >>> found = heads_apart(Graph((conv, cut), consts, ("x",), ("boxes", "scores"), shapes))
        >>> [(n.op, n.outputs, found.consts[n.inputs[1]].item()) for n in found.nodes]
        [('Conv', ('boxes',), 640.0), ('Conv', ('scores',), 1.0)]
    """
    graph = _cut_layers(graph)
    for name in [n.outputs[0] for n in graph.nodes if n.op == "Concat" and not n.domain]:
        join = graph.producer.get(name)
        trial = None if join is None else _picked_in_front(graph, join)
        cut = trial if trial is None else _cut_layers(trial)
        graph = graph if cut is None or cut is trial else cut
    return graph


def _cut_layers(graph: Graph) -> Graph:
    """Layers cut apart; the graph itself where none is."""
    editor, made = Editor(graph), set[Name]()
    for layer in layers(graph):
        parts = _parts(graph, layer)
        if parts and _differ(graph, layer, [p.channels for p in parts]):
            work = _Work(graph, editor, layer, made)
            if all(work.add(part) for part in parts):
                work.put()
    return editor.done() if made else graph


def _picked_in_front(graph: Graph, join: Node) -> Graph | None:
    """The graph with all that picks parts of a Concat, along another axis, picking them of its inputs."""
    shape, editor, shapes = graph.shapes.get(join.outputs[0]), Editor(graph), dict(graph.shapes)
    picks = graph.users(join.outputs[0])
    if not picks or shape is None or join.outputs[0] in graph.outputs or any(i in graph.consts for i in join.inputs):
        return None
    along = int(join.attrs["axis"]) % len(shape)
    for pick in picks:
        known = [*cuts(graph, pick), *(cut[:4] for cut in _single(graph, pick))]
        if not known or known[0][1] == along:
            return None
        nodes, joined = list[Node](), [list[Name]() for _ in pick.outputs]
        for number, name in enumerate(join.inputs):
            made = tuple(graph.fresh(f"{o}_of_{number}") for o in pick.outputs)
            nodes.append(replace(pick, inputs=(name, *pick.inputs[1:]), outputs=made, name=""))
            for k, (o, like) in enumerate(zip(made, pick.outputs, strict=True)):
                joined[k].append(o)
                if (after := graph.shapes.get(like)) is not None and (before := graph.shapes.get(name)) is not None:
                    shift = int(len(after) < len(shape) and known[0][1] < along)
                    shapes[o] = tuple(before[along] if d == along - shift else n for d, n in enumerate(after))
        shift = int(bool(_single(graph, pick)) and known[0][1] < along)
        ends = zip(joined, pick.outputs, strict=True)
        nodes += [Node("Concat", tuple(parts), (o,), {"axis": along - shift}) for parts, o in ends]
        editor.swap(pick, nodes)
    editor.swap(join, ())
    return replace(editor.done(), shapes=shapes)


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
        if not chain and _reads_other_sizes(graph, user, fields[0]):
            continue
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


def _reads_other_sizes(graph: Graph, node: Node, channels: Array) -> bool:
    """Whether a node reads sizes of a layer's output, but not how many channels there are."""
    if node.domain or node.op != "Shape" or node.attrs or node.outputs[0] in graph.outputs:
        return False
    rank, axis = channels.ndim, int(np.argmax(channels.shape))
    for user in graph.users(node.outputs[0]):
        index = graph.constant(user.inputs[1]) if user.op == "Gather" and not user.domain else None
        if index is None or axis in (index.reshape(-1) % rank):
            return False
    return True


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
        self.parts = list[Node]()  # layers
        self.behind: dict[tuple[Name, ...], list[Node]] = {}  # what stands in place of each move and pick
        self.outputs: dict[tuple[int, ...], Name] = {}  # the layer of each set of channels

    def add(self, part: _Part) -> bool:
        """Make a part; whether it holds the same values in the same places."""
        targets = _targets(self.graph, part)
        if targets is None:
            return False
        rows, whole = part.channels, self.graph.shapes[self.layer.y]
        key, along = tuple(rows.tolist()), self.layer.y_axis % len(whole)
        if key not in self.outputs:
            straight = not part.chain and not part.single
            y = part.output if straight else self._fresh(f"{self.layer.y}_{len(self.outputs)}")
            self.parts.append(self._layer(rows, y))
            self.outputs[key] = y
        name = self.outputs[key]
        shapes: dict[Name, Shape] = {name: tuple(len(rows) if d == along else n for d, n in enumerate(whole))}
        field = aligned(rows, along, len(whole))
        for node, (shape, axis) in zip(part.chain, targets, strict=True):
            put, inputs = self.behind.setdefault(node.outputs, []), (name, *node.inputs[1:])
            if node.op == "Reshape":
                sizes = self._sizes(node, axis, part.width, put)
                if sizes is None:
                    return False
                inputs = (name, sizes)
            last = node is part.chain[-1] and not part.single
            name = part.output if last else self._fresh(f"{node.outputs[0]}_{len(self.outputs)}")
            node = replace(node, inputs=inputs, outputs=(name,), name="")
            put.append(node)
            shapes[name] = shape
            facet = op_of(node).fields
            known = replace(self.graph, shapes={**self.graph.shapes, **shapes})
            moved = None if isinstance(facet, Unknown) else facet(known, node, field, -1)
            if moved is None:
                return False
            field = moved[0]
        put = self.behind.setdefault(part.pick.outputs, [])
        if part.single:
            index = self.editor.add_const(f"{part.output}_index", np.array(0, np.int64))
            put.append(replace(part.pick, inputs=(name, index), outputs=(part.output,)))
        elif name != part.output:
            put.append(Node("Identity", (name,), (part.output,)))
        return field.shape == part.fields[-1].shape and np.array_equal(field, part.fields[-1])

    def put(self) -> None:
        """Let what was made stand in place of the layer, the moves and the picks."""
        for user in self.graph.users(self.layer.y):
            if user.op == "Shape":
                self.editor.rename_input(user, self.layer.y, self.parts[0].outputs[0])
        self.editor.swap(self.layer.node, self.parts)
        for outputs, nodes in self.behind.items():
            self.editor.swap(self.graph.producer[next(o for o in outputs if o)], nodes)
        self.made.update(self._names())

    def _sizes(self, node: Node, axis: int, width: int, put: list[Node]) -> Name | None:
        """The sizes of a Reshape with another one along an axis; None where it is not known which that is."""
        sizes, stem = self.graph.constant(node.inputs[1]), f"{node.outputs[0]}_sizes"
        if sizes is not None:
            if sizes.size <= axis or sizes[axis] <= 0:
                return node.inputs[1]
            return self.editor.add_const(stem, np.where(np.arange(sizes.size) == axis, width, sizes).astype(np.int64))
        maker = self.graph.producer.get(node.inputs[1])
        if maker is None or maker.op != "Concat" or any(self._length(i) != 1 for i in maker.inputs):
            return None
        entry = self.graph.constant(maker.inputs[axis])
        if entry is None:
            return None
        if int(entry.reshape(-1)[0]) <= 0:
            return node.inputs[1]
        other = self.editor.add_const(stem, np.array([width], np.int64))
        name = self._fresh(f"{stem}_{len(self.outputs)}")
        put.append(replace(maker, inputs=_with(maker.inputs, axis, other), outputs=(name,), name=""))
        return name

    def _length(self, name: Name) -> int | None:
        shape = self.graph.consts[name].shape if name in self.graph.consts else self.graph.shapes.get(name)
        return shape[0] if shape is not None and len(shape) == 1 and isinstance(shape[0], int) else None

    def _names(self) -> set[Name]:
        return {o for nodes in (self.parts, *self.behind.values()) for node in nodes for o in node.outputs}

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
        while name in self.made or name in self._names():
            name += "_"
        return name


def _with(names: tuple[Name, ...], position: int, name: Name) -> tuple[Name, ...]:
    return (*names[:position], name, *names[position + 1 :])


def _targets(graph: Graph, part: _Part) -> list[tuple[Shape, int]] | None:
    """Shape and cut axis behind each move of a part; None where the cut axis gets lost on the way."""
    found, axis = list[tuple[Shape, int]](), part.axis
    for node, (before, _) in zip(reversed(part.chain), reversed(list(pairwise(part.fields[:-1]))), strict=True):
        after = graph.shapes[node.outputs[0]]
        full = after[axis]
        found.insert(0, (tuple(part.width if d == axis else n for d, n in enumerate(after)), axis))
        if node.op == "Transpose":
            axis = list(node.attrs.get("perm", range(len(after))[::-1]))[axis]
            continue
        varying = [d for d, n in enumerate(before.shape) if n > 1]
        same = varying if len(varying) == 1 else [d for d in varying if before.shape[d] == full]
        if len(same) != 1:
            return None
        axis = same[0]
    return found
