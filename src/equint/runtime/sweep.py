"""One sweep through a quantized network, layer by layer, over all images: what each layer puts out once all before
it are corrected.

Every layer is run twice per image, whatever their number: once to see its error, once corrected, to go on from. In
between, the integers that later layers will read wait on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..files import Shelf
from ..ir.model import Array, Graph, Model, Name, Node, View
from ..ir.weights import Layer
from ..onnx.probes import is_dequantizer, mean_over_positions
from ..onnx.qdq import qdq_graph
from ..onnx.writer import to_proto
from ..ops.layers import layers
from ..samples.images import Feed, Samples, length, split
from .batches import at_once
from .collect import whole
from .memory import give_back
from .session import Session, is_grouped

FOLDS = 2
"""Every other image belongs to the other fold."""


def mean_errors(
    model: Model,
    teacher: Graph,
    images: Samples,
    decide: Callable[[Layer, Array], Array],
    progress: Callable[[int, int], None] | None = None,
    chosen: Collection[Name] | None = None,
) -> dict[Name, Array]:
    """Show every layer's mean error to `decide`, in topological order, and add what it returns to the layer's bias.

    Biases are rounded as they are when exported, so that layers behind see what is left.

    Args:
        model: the quantized network. teacher: the float one, with tensors of the same names in original units.
        decide: gets a layer and E[y_q] − E[y] of each fold of images, `(FOLDS, O)` in the quantized network's units;
            returns what shall be added to its bias, `(O,)`.
        progress: called with layers done and their number.
        chosen: which layers, by their outputs; None: every one.

    Returns:
        The biases, `(O,)` by layer output, of every layer that was decided about.
    """
    every = [la for la in layers(model.graph) if la.weight in model.qparams]
    if not any(layer.y in teacher.producer for layer in every):
        return {}
    asked = [la for la in every if chosen is None or la.y in chosen]
    wanted, sizes = _float_means(model, teacher, images, asked)
    sweep = Sweep(model, images, every, sizes)
    for number, layer in enumerate(every):
        if progress is not None:
            progress(number, len(every))
        if layer.y in wanted:
            sweep.correct(number, decide(layer, sweep.means(number) - wanted[layer.y]))
    return {la.y: sweep.bias(k) for k, la in enumerate(every) if la.y in wanted}


def _float_means(
    model: Model, teacher: Graph, images: Samples, every: list[Layer]
) -> tuple[dict[Name, Array], list[int]]:
    """Mean of each layer's float output, `(FOLDS, O)` in the quantized network's units; images per batch."""
    known = [la for la in every if la.y in teacher.producer]
    nodes, outputs = list(teacher.nodes), list[Name]()
    for k, layer in enumerate(known):
        outputs.append(teacher.fresh(f"mean_{k}"))
        nodes += _mean(model.graph, layer, layer.y, outputs[-1])
    proto = to_proto(replace(teacher, nodes=tuple(nodes), outputs=tuple(outputs)))
    session = Session(proto, optimized=True, lean=True, together=True)
    sums, sizes = [np.zeros((FOLDS, 1))] * len(known), list[int]()
    for feed in split(images, whole(session, at_once(teacher)), fill=True):
        found, seen = session.run(feed), sum(sizes)
        sizes.append(length(feed))
        sums = [s + _by_fold(found[o], seen, sizes[-1]) for s, o in zip(sums, outputs, strict=True)]
    counts = _fold_sizes(sum(sizes))
    means = {la.y: _viewed(model.views.get(la.y), la, s / counts) for la, s in zip(known, sums, strict=True)}
    return means, sizes


def _viewed(view: View | None, layer: Layer, means: Array) -> Array:
    """original = scale·(value + offset), the other way round."""
    if view is None:
        return means
    scale, offset = (np.broadcast_to(v.reshape(-1), means.shape[1:]) for v in (view.scale, view.offset))
    return np.asarray(means / scale - offset)


def _mean(graph: Graph, layer: Layer, name: Name, out: Name) -> list[Node]:
    """The mean of a layer's output over positions: `name` holds it, `graph` may know its rank."""
    rank = graph.rank(layer.y)
    if rank is None and layer.y_axis == -1:  # a MatMul of whatever rank: each of its rows is one
        rows = f"{out}_rows"
        flat = Node("Flatten", (name,), (rows,), {"axis": -1})
        return [flat, *mean_over_positions(rows, 2, 1, out)]
    rank = rank or graph.consts[layer.weight].ndim  # convolutions and Gemm have weights of their rank
    return mean_over_positions(name, rank, layer.y_axis % rank, out)


def _by_fold(means: Array, seen: int, count: int) -> Array:
    """Sums over the images of each fold, of `count` behind those seen: `(FOLDS, O)`; an image may have several rows."""
    rows = means.reshape(len(means), -1).astype(np.float64)
    if len(rows) % count == 0:
        each = rows.reshape(count, -1, rows.shape[1]).mean(1)
    else:
        each = np.broadcast_to(rows.mean(0), (count, rows.shape[1]))
    return np.stack([each[(k - seen) % FOLDS :: FOLDS].sum(0) for k in range(FOLDS)])


def _fold_sizes(count: int) -> Array:
    return np.maximum([[len(range(k, count, FOLDS))] for k in range(FOLDS)], 1)


@dataclass(frozen=True)
class _Place:
    """Where a layer stands in the exported graph: its node, what it puts out before any quantizer, its constants.

    `weight` is that of integers.
    """

    node: Node
    x: Name
    raw: Name
    weight: Name
    bias: Name


class Sweep:
    """The exported graph with biases that can be changed, and the integers stored so far."""

    def __init__(self, model: Model, images: Samples, every: list[Layer], sizes: list[int]) -> None:
        self.graph, self.places = open_biases(qdq_graph(model), every)
        self.steps = [_step(model, la) for la in every]
        self.images, self.every, self.known, self.sizes = images, every, model.graph, sizes
        self.cuts = _cuts(self.graph, self.places)
        self.graph = replace(self.graph, dtypes={**self.graph.dtypes, **_integer_types(self.graph)})
        self.stored: dict[Name, Shelf] = {}

    def correct(self, number: int, change: Array) -> None:
        name, step = self.places[number].bias, self.steps[number]
        change = change if step is None else np.rint(change / step) * step
        shaped = self.every[number].shaped_bias(change)
        self.graph = self.graph.with_consts({name: (self.graph.consts[name] + shaped).astype(np.float32)})

    def bias(self, number: int) -> Array:
        return self.graph.consts[self.places[number].bias].reshape(-1)

    def round(self, number: int, integers: Array) -> None:
        """Give a layer other integers on the grid of its weight."""
        name = self.places[number].weight
        self.graph = self.graph.with_consts({name: integers.astype(self.graph.consts[name].dtype)})

    def means(self, number: int) -> Array:
        """Mean of a layer's output per fold and channel, all layers before it being as they shall be."""
        raw, out, total, seen = self.places[number].raw, self.graph.fresh("mean"), np.zeros((FOLDS, 1)), 0
        nodes = _mean(self.known, self.every[number], raw, out)
        for found, count in zip(self._shown(number, raw, nodes, out), self.sizes, strict=True):
            total = total + _by_fold(found, seen, count)
            seen += count
        return total / _fold_sizes(seen)

    def inputs(self, number: int) -> Iterator[Array]:
        """What a layer reads, batch by batch, all layers before it being as they shall be."""
        x = self.places[number].x
        return self._shown(number, x, (), x)

    def _shown(self, number: int, name: Name, nodes: Sequence[Node], out: Name) -> Iterator[Array]:
        """What `nodes` make of a value that a layer reads or makes; what layers behind need of it is stored."""
        needed, feeds = self._above(name)
        if not needed and not nodes:
            yield from (feed[out] for feed in self._feeds(feeds))
            return
        fresh = {i for i in (out, *(i for n in needed for i in n.inputs)) if i in self.cuts and i not in self.stored}
        later = self._read_later(number, fresh | self.stored.keys())
        self.stored = {n: s for n, s in self.stored.items() if n in later or n in feeds}
        keep = sorted(fresh & later)
        outputs = tuple(dict.fromkeys((out, *keep)))
        part = replace(self.graph.with_nodes((*needed, *nodes)), inputs=tuple(feeds), outputs=outputs)
        session = Session(to_proto(part), lean=True, floats=is_grouped(part), together=True)
        give_back()
        made = {n: Shelf() for n in keep}
        for feed in self._feeds(feeds):
            found = session.run(feed)
            for n, store in made.items():
                store.append(found[n])
            yield found[out]
        self.stored = {n: s for n, s in {**self.stored, **made}.items() if n in later}

    def _above(self, name: Name) -> tuple[list[Node], list[Name]]:
        """The nodes that make a value from what is stored or fed, and what they read of that."""
        wanted, made, feeds, seen = [name], set[Name](), list[Name](), set[Name]()
        while wanted:
            n = wanted.pop()
            if n in seen or n in self.graph.consts:
                continue
            seen.add(n)
            if n in self.stored or n in self.graph.inputs:
                feeds.append(n)
                continue
            node = self.graph.producer[n]
            made.add(n)
            seen.update(node.outputs)
            wanted += node.reads
        nodes = [n for n in self.graph.nodes if not made.isdisjoint(n.outputs)]
        again = {n: self.graph.fresh(f"{n}_again") for n in feeds}  # of a node's outputs some may be stored
        return [replace(n, outputs=tuple(again.get(o, o) for o in n.outputs)) for n in nodes], sorted(feeds)

    def _read_later(self, number: int, cut: set[Name]) -> set[Name]:
        """Which of the cuts the layers behind read, this one's output not being stored yet."""
        wanted, found, seen = [p.raw for p in self.places[number + 1 :]], set[Name](), set[Name]()
        while wanted:
            n = wanted.pop()
            if n in seen or n in self.graph.consts or n in self.graph.inputs:
                continue
            seen.add(n)
            if n in cut:
                found.add(n)
            else:
                wanted += self.graph.producer[n].reads
        return found

    def _feeds(self, names: Sequence[Name]) -> Iterator[Feed]:
        stored = [n for n in names if n in self.stored]
        if len(stored) == len(names):
            count = len(self.stored[stored[0]])
            yield from ({n: self.stored[n][k] for n in stored} for k in range(count))
            return
        for k, feed in enumerate(split(self.images, max(self.sizes), fill=True)):
            given = dict(feed) if isinstance(feed, Mapping) else {self.graph.inputs[0]: feed}
            yield {n: self.stored[n][k] if n in self.stored else given[n] for n in names}


def open_biases(graph: Graph, every: list[Layer]) -> tuple[Graph, list[_Place]]:
    """The exported graph with every layer's bias as a float constant of its own."""
    nodes, consts, places = list(graph.nodes), dict[Name, Array](), list[_Place]()
    position = {o: k for k, node in enumerate(nodes) for o in node.outputs}
    for layer in every:
        raw = _raw(graph, layer)
        node = nodes[position[raw]]
        bias = graph.fresh(f"{raw}_open_bias")
        stored = node.inputs[2] if len(node.inputs) > 2 else ""
        count = layer.channels(_value(graph, node.inputs[layer.node.inputs.index(layer.weight)]))[1]
        value = _value(graph, stored) if stored else layer.shaped_bias(np.zeros(count))
        consts[bias] = np.asarray(value, np.float32)
        nodes[position[raw]] = replace(node, inputs=(*node.inputs[:2], bias))
        x, weight = (node.inputs[layer.node.inputs.index(n)] for n in (layer.x, layer.weight))
        weight = weight if weight in graph.consts else graph.producer[weight].inputs[0]
        places.append(_Place(nodes[position[raw]], x, raw, weight, bias))
    return graph.with_nodes(nodes, consts), places


def _step(model: Model, layer: Layer) -> Array | None:
    """The grid that a layer's bias is on, `()` or `(O,)`; None where it stays float."""
    x = model.qparams.get(layer.x)
    return None if x is None else np.asarray(x.scale * model.qparams[layer.weight].steps, np.float32)


def _value(graph: Graph, name: Name) -> Array:
    """A constant, or what DequantizeLinear makes of one."""
    if name in graph.consts:
        return graph.consts[name]
    node = graph.producer[name]
    integers, scale = (graph.consts[i] for i in node.inputs[:2])
    zero = graph.consts[node.inputs[2]] if len(node.inputs) > 2 else np.zeros((), integers.dtype)
    shape = [1] * integers.ndim
    if scale.size > 1:
        shape[int(node.attrs.get("axis", 1))] = scale.size
    steps, zeros = (a.reshape(shape if a.size > 1 else ()) for a in (scale, zero))
    return np.asarray((integers.astype(np.float64) - zeros) * steps)


def _raw(graph: Graph, layer: Layer) -> Name:
    """What a layer puts out before the quantizer that follows it, and what bounds values there."""
    y = layer.y
    while graph.producer[y].op != layer.node.op:
        y = graph.producer[y].inputs[0]
    return y


def _cuts(graph: Graph, places: Sequence[_Place]) -> frozenset[Name]:
    """Where a sweep may stop and go on: integers in front of DequantizeLinear, float inputs and outputs of layers."""
    integers = {n.inputs[0] for n in graph.nodes if is_dequantizer(n) and n.inputs[0] in graph.producer}
    reads = {i for place in places for i in place.node.inputs[:2] if i in graph.producer}
    floats = {i for i in reads if not is_dequantizer(graph.producer[i])}
    return frozenset(integers | floats | {place.raw for place in places})


def _integer_types(graph: Graph) -> dict[Name, str]:
    """Types of what stands in front of DequantizeLinear: that of its zero point."""
    return {n.inputs[0]: str(graph.consts[n.inputs[2]].dtype) for n in graph.nodes if is_dequantizer(n)}
