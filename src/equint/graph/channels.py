"""Which channel scales of a network are free, who gives and takes them, and the one operation that moves them.

Every activation tensor has one positive scale per channel. Operators pass it, tie it to another tensor's,
absorb it into their weights, or pin it to 1. Solving these relations leaves classes of channels that must
share a scale; classes with a weight on both sides are free.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from ..ir.edit import Editor
from ..ir.fields import aligned, collapsed, per_channel
from ..ir.model import Array, Graph, Model, Name, Node, Range, View
from ..ir.weights import Layer
from ..ops.attributes import clip_bounds, regrouped
from ..ops.layers import as_layer, is_product, layers, still_corrected
from ..ops.moves import stacked
from ..ops.norms import Gains, gains_of
from ..ops.operator import Rule, Scales, Unknown
from ..ops.table import op_of

PINNED = 0


@dataclass(frozen=True)
class Group:
    """Channel classes that live in the same tensors: one free scale for each."""

    classes: Array  # `(n,)` class numbers
    producers: tuple[Name, ...]  # layers whose output channels are divided by the scale
    norms: tuple[Name, ...]  # and results of normalizations whose gains and biases are
    consumers: tuple[Name, ...]  # layers whose input channels are multiplied by it
    tensors: tuple[Name, ...]  # activations that carry it
    clips: tuple[Name, ...]  # Clip nodes that its tensors pass


@dataclass(frozen=True)
class Channels:
    """The solved relations."""

    ids: Mapping[Name, Array]  # for every activation its field of class numbers; class 0 is pinned to scale 1
    size: int
    floor: Array  # `(size,)` least scale each class may take (a shared clip bound allows no smaller one)
    pinned: Mapping[Name, str]  # why tensors were pinned where they could have been free
    groups: tuple[Group, ...]  # the free classes, by the tensors that they live in, in topological order

    @property
    def why(self) -> str:
        """Why no scale is free."""
        return "; ".join(sorted(set(self.pinned.values())))[:200] or "no layer feeds another"

    def of_input(self, graph: Graph, layer: Layer) -> Array:
        """Class of every input channel of a layer, `(I,)`."""
        return self._along(graph, layer, layer.x, layer.x_axis, 0)

    def of_output(self, graph: Graph, layer: Layer) -> Array:
        """Class of every output channel of a layer, `(O,)`."""
        return self._along(graph, layer, layer.y, layer.y_axis, 1)

    def of_norm(self, norm: Node, gains: Gains) -> Array:
        """Class of every channel that a normalization gives, `(C,)`."""
        return self._of(norm.outputs[0], gains.axis, gains.gain.size)

    def _along(self, graph: Graph, layer: Layer, tensor: Name, axis: int, side: int) -> Array:
        return self._of(tensor, axis, layer.channels(graph.consts[layer.weight])[side])

    def _of(self, tensor: Name, axis: int, count: int) -> Array:
        ids = self.ids.get(tensor)
        found = None if ids is None else per_channel(ids, axis, count)
        return np.zeros(count, np.int64) if found is None else found


def solve(model: Model, clip_reach: float = np.inf, priced: frozenset[Name] = frozenset()) -> Channels:
    """Find every free channel scale of a network.

    A Clip with a bound per channel is free. One with a shared bound pins its channels, or only those that
    may reach the bound if `clip_reach` says how many standard deviations a channel reaches: freedom that is
    exact only as far as that holds. Clips whose outputs are `priced` pass all scales: the caller answers for
    what that costs.
    """
    solver = _Solver(model, clip_reach, priced)
    for name in model.graph.inputs:
        rank = model.graph.rank(name)
        if rank is not None:
            solver.ids[name] = np.zeros((1,) * rank, np.int64)
    for node in model.graph.nodes:
        solver.visit(node)
    for name in model.graph.outputs:
        solver.pin(name, "network output")
    return solver.solved()


class _Solver:
    """Walks the graph once, collecting ties between channel ids; `solved` closes them."""

    def __init__(self, model: Model, clip_reach: float, priced: frozenset[Name]) -> None:
        self.model, self.graph, self.clip_reach, self.priced = model, model.graph, clip_reach, priced
        self.ids: dict[Name, Array] = {}
        self.size = 1
        self.ties: list[tuple[Array, Array]] = []
        self.floors: list[tuple[Array, Array]] = []
        self.pinned: dict[Name, str] = {}

    def new(self, shape: tuple[int, ...]) -> Array:
        count = int(np.prod(shape))
        self.size += count
        return np.arange(self.size - count, self.size).reshape(shape)

    def tie(self, a: Array, b: Array) -> None:
        a, b = np.broadcast_arrays(a, b)
        self.ties.append((a.ravel(), b.ravel()))

    def pin(self, name: Name, why: str) -> None:
        ids = self.ids.get(name)
        if ids is not None and ids.any():
            self.tie(ids, np.zeros((1,) * ids.ndim, np.int64))
            self.pinned.setdefault(name, why)

    def visit(self, node: Node) -> None:
        layer = as_layer(self.graph, node)
        if layer is not None:
            return self.layer(layer)
        scales = op_of(node).scales
        if isinstance(scales, Unknown):
            return self.border(node, node.op)
        if scales.rule is Rule.ABSORBS:
            return self.product(node)
        if scales.rule is Rule.IGNORES:
            return None
        if scales.rule is Rule.GAINS:
            return self.norm(node, scales)
        if scales.rule in (Rule.TIES, Rule.JOINS, Rule.GATES):
            return self.joined(node, scales)
        known = self.ids.get(node.inputs[0])
        if known is None:
            return self.border(node, node.op)
        why = scales.refuses(self.graph, node, known)
        if scales.rule is Rule.CLIPS:
            why = why or self.clip(node, known)
        if why:
            return self.border(node, why)
        if scales.rule is Rule.MOVES:
            return self.moving(node, known)
        if scales.rule is Rule.GROUPS:
            return self.regrouping(node, known)
        fields = op_of(node).fields
        passed = None if isinstance(fields, Unknown) else fields(self.graph, node, known, -1)
        self.ids[node.outputs[0]] = known if passed is None else passed[0]
        return self.border(node, "", node.outputs[1:])

    def layer(self, layer: Layer) -> None:
        inputs, outputs = layer.channels(self.graph.consts[layer.weight])
        x = self.ids.get(layer.x)
        if x is not None and per_channel(x, layer.x_axis, inputs) is None:
            self.pin(layer.x, f"{layer.node.op} {layer.name} reads it along another axis")
        rank = self.graph.rank(layer.y) or (x.ndim if x is not None else self.graph.consts[layer.weight].ndim)
        self.ids[layer.y] = aligned(self.new((outputs,)), layer.y_axis, rank)

    def product(self, node: Node) -> None:
        """A layer without constant weights; of a product of two activations, columns of the second pass: x·(v/s)."""
        known, rank = self.ids.get(node.inputs[-1]), self.graph.rank(node.outputs[0])
        apart = known is not None and rank == known.ndim >= 2 and self.ids.keys() >= set(node.inputs)
        if not is_product(node) or known is None or not apart:
            return self.border(node, node.op)
        self.pin(node.inputs[0], f"read by {node.op} {node.label}")
        self.tie(known, known[..., :1, :])
        self.ids[node.outputs[0]] = known[..., :1, :]
        return None

    def norm(self, node: Node, scales: Scales) -> None:
        """A normalization mixes what it reads; what it makes has the scales that its gains and biases take up."""
        self.border(node, node.op)
        gains, rank = gains_of(self.graph, node), self.graph.rank(node.outputs[0])
        if gains is not None and rank is not None:
            self.ids[node.outputs[0]] = aligned(self.new((gains.gain.size,)), gains.axis, rank)

    def moving(self, node: Node, known: Array) -> None:
        fields = op_of(node).fields
        outputs = None if isinstance(fields, Unknown) else fields(self.graph, node, known, -1)
        if outputs is None:
            return self.border(node, f"{node.op} of unknown shape")
        for name, ids in zip(node.outputs, outputs, strict=False):
            self.ids[name] = np.where(ids < 0, self.new(ids.shape), ids) if (ids < 0).any() else ids
        return None

    def regrouping(self, node: Node, known: Array) -> None:
        """DepthToSpace: the channels that become one output channel share a scale."""
        if known.size != known.shape[1]:  # positions, not channels, have scales
            return self.border(node, node.op)
        if known.size > 1:
            blocks = regrouped(node, known)
            self.tie(blocks, blocks[:1])
            known = blocks[0].reshape((1, -1) + (1,) * (known.ndim - 2))
        self.ids[node.outputs[0]] = known
        return None

    def joined(self, node: Node, scales: Scales) -> None:
        """Operators with several activations: a sum ties them, a Concat stacks them, a product lets one pass."""
        acts = [i for i in node.inputs if i and i not in self.graph.consts]
        if not acts or any(i not in self.ids for i in acts):
            return self.border(node, node.op)
        why = scales.refuses(self.graph, node, self.ids[acts[0]])
        if why:
            return self.border(node, why)
        walk = {Rule.TIES: self.tying, Rule.JOINS: self.stacking, Rule.GATES: self.gating}[scales.rule]
        return walk(node, acts)

    def gating(self, node: Node, acts: list[Name]) -> None:
        """The first input passes; of a product, where the order is free, what is gated: most channels, most positions.

        A gate has one value a channel where squeeze-and-excite makes it, whatever stands first.
        """
        free, *gates = sorted(acts, key=self.extent, reverse=True) if op_of(node).multiplies else acts
        for gate in gates:
            self.pin(gate, f"gate of {node.label}")
        rank = self.graph.rank(node.outputs[0]) or self.ids[free].ndim
        self.ids[node.outputs[0]] = _lift(self.ids[free], rank)

    def extent(self, name: Name) -> tuple[int, int]:
        """How many scales a tensor may have, and along how many axes it is more than one value."""
        return self.ids[name].size, sum(n != 1 for n in self.graph.shapes.get(name) or ())

    def stacking(self, node: Node, acts: list[Name]) -> None:
        out = stacked(self.graph, node, [self.ids[i] for i in acts]) if len(acts) == len(node.inputs) else None
        if out is None:
            return self.border(node, "Concat of unknown shape or with a constant")
        self.ids[node.outputs[0]] = out
        return None

    def tying(self, node: Node, acts: list[Name]) -> None:
        rank = max(self.ids[i].ndim for i in acts)
        fields = [_lift(self.ids[i], rank) for i in acts]
        out = max(fields, key=lambda f: f.size)
        if any(np.broadcast_shapes(out.shape, f.shape) != out.shape for f in fields):
            for name in acts:
                self.pin(name, f"{node.op} broadcasts two ways")
        for f in fields:
            if f is not out:
                self.tie(f, out)
        self.ids[node.outputs[0]] = _lift(out, self.graph.rank(node.outputs[0]) or rank)

    def clip(self, node: Node, known: Array) -> str:
        lo, hi = clip_bounds(self.graph, node)
        if lo is None or hi is None:
            return "Clip with computed bounds"
        if np.size(lo) > 1 or np.size(hi) > 1 or ((np.all(lo == 0) | np.all(np.isinf(lo))) and np.all(np.isinf(hi))):
            return ""
        if node.outputs[0] in self.priced:
            return ""
        moments = self.model.moments.get(node.inputs[0])
        if np.isinf(self.clip_reach):
            return "one bound for all channels of Clip"
        if moments is None:
            return "Clip, and nothing known of how far its input reaches"
        if moments.origin == "generated":  # real pictures reach further: scaled by these, they would be cut off
            return "Clip, and only generated pictures tell how far its input reaches"
        upper = moments.mean + self.clip_reach * moments.std
        lower = moments.mean - self.clip_reach * moments.std
        need = np.maximum(upper / hi if hi > 0 else np.inf, 0.0 if lo == 0 else lower / lo if lo < 0 else np.inf)
        ids, need = np.broadcast_arrays(known, need)
        reaches = need >= 1
        if reaches.any():
            self.tie(ids[reaches], np.zeros(1, np.int64))
            self.pinned.setdefault(
                node.outputs[0], f"{int(reaches.sum())} of {reaches.size} channels reach the bound of {node.label}"
            )
        self.floors.append((ids.ravel(), need.ravel()))
        return ""

    def border(self, node: Node, why: str, outputs: Iterable[Name] | None = None) -> None:
        """Pin everything the node reads; what it makes starts pinned."""
        for i in node.reads if outputs is None else ():
            self.pin(i, f"read by {why} {node.label}" if why == node.op else f"{why} ({node.label})")
        for o in node.outputs if outputs is None else outputs:
            rank = self.graph.rank(o) if o else None
            if rank is not None:
                self.ids[o] = np.zeros((1,) * rank, np.int64)

    def solved(self) -> Channels:
        from scipy.sparse import coo_array  # which takes a tenth of a second to import
        from scipy.sparse.csgraph import connected_components

        rows = np.concatenate([a for a, _ in self.ties] or [np.zeros(0, np.int64)])
        cols = np.concatenate([b for _, b in self.ties] or [np.zeros(0, np.int64)])
        links = coo_array((np.ones(rows.size, np.int8), (rows, cols)), shape=(self.size, self.size))
        count, found = connected_components(links, directed=False)
        labels: Array = found.astype(np.int64)
        renumber = np.zeros(count, np.int64)
        order = np.unique(labels, return_index=True)[1].argsort()  # by first appearance; 0 is pinned
        renumber[order] = np.arange(count)
        labels = renumber[labels]
        ids = {name: collapsed(labels[field]) for name, field in self.ids.items()}
        floor = np.zeros(count)
        for where, need in self.floors:
            np.maximum.at(floor, labels[where], need)
        draft = Channels(ids, count, floor, self.pinned, ())
        return replace(draft, groups=_groups(self.graph, draft))


def _groups(graph: Graph, channels: Channels) -> tuple[Group, ...]:
    """Free classes, by the set of tensors in which they occur."""
    rng = np.random.default_rng(0)
    signature = np.zeros(channels.size, np.uint64)
    gives, takes = np.zeros(channels.size, bool), np.zeros(channels.size, bool)
    members = {name: np.unique(ids) for name, ids in channels.ids.items()}
    for classes in members.values():
        signature[classes] += rng.integers(0, 1 << 63, dtype=np.uint64)
    producers = {la.name: np.unique(channels.of_output(graph, la)) for la in layers(graph)}
    consumers = {la.name: np.unique(channels.of_input(graph, la)) for la in layers(graph)}
    found = ((node, gains_of(graph, node)) for node in graph.nodes)
    norms = {node.outputs[0]: np.unique(channels.of_norm(node, gains)) for node, gains in found if gains is not None}
    for classes in (*producers.values(), *norms.values()):
        gives[classes] = True
    for classes in consumers.values():
        takes[classes] = True
    free = np.flatnonzero(gives & takes)
    free = free[free != PINNED]
    keys, first, inverse = np.unique(signature[free], return_index=True, return_inverse=True)
    clips = {node.label: node.outputs[0] for node in graph.nodes if _rule(node) is Rule.CLIPS}

    def holding(table: Mapping[Name, Array], one: int) -> tuple[Name, ...]:
        return tuple(name for name, classes in table.items() if one in classes)

    groups = []
    for key in np.argsort(first):
        classes = free[inverse == key]
        one = int(classes[0])
        gives_it, scaled, takes_it, tensors = (holding(t, one) for t in (producers, norms, consumers, members))
        passed = tuple(c for c, out in clips.items() if out in tensors)
        groups.append(Group(classes, gives_it, scaled, takes_it, tensors, passed))
    return tuple(groups)


def rescale(model: Model, channels: Channels, scales: Array) -> Model:
    """Divide all channels by the scale of their class, `(channels.size,)`; the weights that absorb it pay it back.

    For a layer, W' = W·s_in/s_out and b' = b/s_out, for a normalization γ' = γ/s and β' = β/s; constants that are added
    or compared, clip bounds per channel, moments and ranges are divided by s. Class 0 has scale 1: the network's
    outputs stay the same.
    """
    scales = np.where(np.arange(channels.size) == PINNED, 1.0, scales)
    fields = {name: scales[ids] for name, ids in channels.ids.items()}
    changed = {name: field for name, field in fields.items() if np.any(field != 1)}
    editor = Editor(model.graph)
    for node in model.graph.nodes:
        layer = as_layer(model.graph, node)
        if layer is not None:
            t, s = scales[channels.of_input(model.graph, layer)], scales[channels.of_output(model.graph, layer)]
            if np.any(t != 1) or np.any(s != 1):
                editor.edit(node, node.inputs.index(layer.weight), _weight_edit(layer, t, s))
                if layer.bias:
                    editor.edit(node, 2, _divided(s))
            continue
        out = changed.get(node.outputs[0]) if node.outputs else None
        rule = _rule(node)
        gains = gains_of(model.graph, node) if rule is Rule.GAINS and out is not None else None
        if gains is not None:
            for k in gains.positions:
                editor.edit(node, k, _divided(scales[channels.of_norm(node, gains)]))
        if out is not None and rule in (Rule.TIES, Rule.CLIPS):
            for k, name in enumerate(node.inputs):
                constant = model.graph.constant(name)
                if constant is None or (rule is Rule.CLIPS and constant.size == 1):
                    continue
                if not np.all((constant == 0) | np.isinf(constant)):  # these stay as they are
                    with np.errstate(over="ignore"):  # no bound at all stays none
                        editor.edit(node, k, lambda c, out=out: (c / out).astype(c.dtype))  # type: ignore[misc]
    graph, moments, ranges, views = editor.done(), dict(model.moments), dict(model.ranges), dict(model.views)
    for name, s in changed.items():
        if name in moments:
            moments[name] = replace(moments[name], mean=moments[name].mean / s, std=moments[name].std / s)
        if name in ranges:
            ranges[name] = Range(ranges[name].lo / s, ranges[name].hi / s)
        views[name] = _deepen(views.get(name), s)
    corrected = still_corrected(model, graph)
    return replace(model, graph=graph, moments=moments, ranges=ranges, views=views, corrected=corrected)


def _divided(s: Array) -> Callable[[Array], Array]:
    return lambda c: (c.reshape(-1) / s).astype(c.dtype).reshape(c.shape)


def _weight_edit(layer: Layer, t: Array, s: Array) -> Callable[[Array], Array]:
    def edit(w: Array) -> Array:
        view = layer.unpack(w)
        g, o, i, _ = view.shape
        scaled = view * (t.reshape(g, 1, i, 1) / s.reshape(g, o, 1, 1))
        return layer.pack(scaled.astype(w.dtype), w.shape)

    return edit


def _deepen(view: View | None, s: Array) -> View:
    """value = s·value', so original = scale·s·(value' + offset/s)."""
    return View(s, np.zeros_like(s)) if view is None else View(view.scale * s, view.offset / s)


def _rule(node: Node) -> Rule | None:
    scales = op_of(node).scales
    return None if isinstance(scales, Unknown) else scales.rule


def _lift(field: Array, rank: int) -> Array:
    return field.reshape((1,) * max(rank - field.ndim, 0) + field.shape)
