"""Streaming calibration: statistics of every tensor of a network while images flow through it.

The reductions over positions run inside onnxruntime; what leaves it are two numbers to four per channel and image.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from hashlib import sha256
from pathlib import Path
from time import monotonic

import numpy as np

from ..errors import UnusableData
from ..graph.placement import place, valued
from ..graph.ranges import tensor_ranges
from ..graph.results import moves
from ..ir.fields import aligned
from ..ir.model import Array, Graph, Name, Node, Range
from ..onnx.probes import as_float32, flattened, reductions, shape_row
from ..ops.activations import clamps
from ..ops.attributes import axis_order, clip_bounds, element_count
from ..ops.layers import as_layer, layers
from ..samples.images import Feed, Samples, length, part, split
from ..samples.statistics import Histogram, Statistics, TensorStatistics, fingerprint
from .apart import Measuring
from .batches import BATCH, at_once
from .session import Session

SAVE_EVERY = 10.0
"""Seconds between two savings of what can be resumed."""
PENDING = 1024
"""Images whose own extremes wait to be counted."""


@dataclass(frozen=True)
class _Tap:
    """One tensor that is measured: channels × positions values an image, positions None where that varies.

    `low`, `high`, `mean`, `square` hold the reductions, `(N, C)`, or are the tensor itself where there is nothing to
    reduce; `low` is None where an activation's lower bound, `floor`, tells.
    """

    name: Name
    axis: int
    rank: int
    channels: int
    positions: int | None
    low: Name | None
    high: Name
    mean: Name
    square: Name | None
    floor: float


def collect(
    graph: Graph,
    images: Samples,
    *,
    histograms: bool = False,
    resume: str | os.PathLike[str] | None = None,
    batch: int = BATCH,
    progress: Callable[[int], None] | None = None,
) -> Statistics:
    """Statistics of every tensor that a quantizer may see, over all images.

    Tensors that a ReLU or clip replaces at once, and those that only move others' values, are left out: what is
    known of their neighbours tells all. Memory does not grow with the number of images.

    Args:
        histograms: also count the values of every tensor, which copies them out of onnxruntime.
        resume: a file that keeps what was measured so far; where it exists, as many images are skipped as it has
            seen. It holds the final statistics in the end.
        batch: most images that go through the network at once.
        progress: called with the number of images done.

    Raises:
        EquintError: no images, images of a wrong shape, values that are not finite, a file of another network or
            without the histograms asked for.

    Example:
        >>> from equint.ops.layers import tiny_graph
        >>> found = collect(tiny_graph(), Samples.of(np.ones((3, 4, 4, 4), np.float32)))
        >>> found.images, found.tensors["y"].high.tolist()
        (3, [9.0, 9.0, 9.0, 9.0])
    """
    network, path = fingerprint(graph), None if resume is None else Path(resume)
    before = None if path is None else _resumed(path, network, histograms)
    taps, nodes, consts = _taps(graph)
    if not taps:
        raise UnusableData("nothing to measure: the shape of no tensor is known")
    session = Measuring(_tapped(graph, taps, nodes, consts, histograms), {o for node in nodes for o in node.outputs})
    running = _Running(graph, taps, histograms)
    skip, seen, saved, shown = 0 if before is None else before.images, 0, monotonic(), ""

    def total() -> Statistics:
        found = replace(running.statistics(network), data=shown)
        if images.seen is not None:
            found = replace(found, shapes=images.seen.shapes, settled=images.seen.settled)
        return found if before is None else before + found if found.images else before

    try:
        for feed in split(images, whole(session, at_once(graph, batch))):
            if not seen:
                shown = _digest(feed)
                if before is not None and before.data != shown:
                    raise UnusableData(f"{path}: statistics of other images; delete it, or choose another file")
            count = length(feed)
            seen += count
            if seen <= skip:
                continue
            part = _last(feed, min(count, seen - skip))
            running.add(session.run(part), part)
            if progress is not None:
                progress(seen)
            if path is not None and monotonic() - saved > SAVE_EVERY:
                total().save(path)
                saved = monotonic()
    except KeyboardInterrupt:
        if path is not None and running.images:
            total().save(path)
        raise
    if seen < skip:
        raise UnusableData(
            f"{path}: statistics of {skip} images, and now there are {seen}; delete it, or choose another"
        )
    done = total()
    if path is not None:
        done.save(path)
    return done


def _resumed(path: Path, network: str, histograms: bool) -> Statistics | None:
    """What a file holds of an interrupted run; None where there is none."""
    if not path.exists():
        return None
    before = Statistics.load(path)
    if before.network != network:
        raise UnusableData(f"{path}: statistics of another network; delete it, or choose another file")
    if histograms and any(t.values is None for t in before.tensors.values()):
        raise UnusableData(f"{path}: statistics without histograms; delete it, or choose another file")
    return before


def _digest(feed: Feed) -> str:
    """What tells streams of images apart: their first sample."""
    named = feed if isinstance(feed, Mapping) else {"": feed}
    digest = sha256()
    for name, values in sorted(named.items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(np.atleast_1d(values)[:1]).tobytes())
    return digest.hexdigest()[:16]


def channel_axes(graph: Graph) -> dict[Name, int]:
    """The axis that channels lie along, for every float tensor of known rank above 1.

    A layer's input and output have them where the layer reads and puts them; another tensor where what it is made of,
    or what is made of it, has them; where no layer is near, along axis 1.

    Example:
        >>> from equint.ops.layers import tiny_graph
        >>> channel_axes(tiny_graph())
        {'x': 1, 'y': 1}
    """
    ranks = {n: graph.rank(n) for n in (*graph.inputs, *(o for node in graph.nodes for o in node.outputs if o))}
    every = {n: rank for n, rank in ranks.items() if rank is not None and rank > 1 and graph.is_float(n)}
    axes: dict[Name, int] = {}
    for layer in layers(graph):
        axes |= {n: axis % every[n] for n, axis in ((layer.y, layer.y_axis), (layer.x, layer.x_axis)) if n in every}

    def tell(source: Name, told: Name, order: Sequence[int]) -> None:
        if source in axes and told in every and told not in axes and every[source] == every[told] == len(order):
            axes[told] = order[axes[source]]

    steps = [(node, i, o) for node in graph.nodes for o in node.outputs for i in node.inputs if i in every]
    for forward in (True, False, True):
        for node, i, o in steps if forward else reversed(steps):
            if as_layer(graph, node) is None and o in every:
                there = axis_order(node, every[i])
                if forward:
                    tell(i, o, np.argsort(there).tolist())
                else:
                    tell(o, i, there)
    return {name: axes.get(name, 1) for name in every}


def _taps(graph: Graph) -> tuple[list[_Tap], list[Node], dict[Name, Array]]:
    """What is measured, and the operators and constants that do it."""
    clamped, axes, probes = place(graph).clamped, channel_axes(graph), _Probes(graph)
    wanted = [n for n in valued(graph) if n in axes and n not in clamped]
    moved = {n for n in wanted if moves(graph.producer.get(n))}
    for name in wanted:
        if name not in moved:
            probes.measure(name, axes[name])
    for name in _untold(graph, probes.found):
        probes.measure(name, axes.get(name))
    return probes.found, probes.nodes, probes.consts


def _untold(graph: Graph, taps: Sequence[_Tap]) -> list[Name]:
    """What becomes integer although no measured tensor tells its range: all of it is measured too."""
    unlike = ((t, aligned(np.arange(t.channels, dtype=np.float64), t.axis, t.rank)) for t in taps)
    known = {t.name: Range(low, low + 1) for t, low in unlike}  # alike, channels would need no axis
    told = tensor_ranges(graph, {}, known, 0.0)
    return [n for tensors in place(graph).classes for n in tensors if n not in told]


class _Probes:
    """Taps, and what makes the values that they read."""

    def __init__(self, graph: Graph) -> None:
        self.graph, self.found, self.nodes, self.consts = graph, list[_Tap](), list[Node](), dict[Name, Array]()

    def measure(self, name: Name, axis: int | None) -> None:
        """A tensor per channel; as a whole where its channels are not known, are its rows, or their number is free."""
        graph, shape, stem = self.graph, self.graph.shapes.get(name), self.graph.fresh(f"tap_{len(self.found)}")
        channels = shape[axis] if shape is not None and axis is not None else None
        floor, x = _floor(graph, graph.producer.get(name)), self._as_float32(name, stem)
        rows = axis == 0 and len(shape or ()) == 2  # each would be taken for a sample
        if shape is None or axis is None or rows or not isinstance(channels, int):
            node, row = flattened(x, stem)
            self.nodes.append(node)
            self.consts |= row
            self.tap(name, node.outputs[0], stem, (0, len(shape or ()), 1, None), 3, 1, floor)
        elif len(shape) == 2:
            positions = element_count([n for d, n in enumerate(shape) if d not in (0, axis)])
            self.found.append(_Tap(name, axis, 2, channels, positions, x, x, x, None, floor))
        else:
            positions = element_count([n for d, n in enumerate(shape) if d not in (0, axis)])
            self.tap(name, x, stem, (axis, len(shape), channels, positions), len(shape), axis, floor)

    def _as_float32(self, name: Name, stem: Name) -> Name:
        """A tensor as what the reductions have kernels for."""
        if self.graph.dtypes.get(name, "float32") == "float32":
            return name
        self.nodes.append(as_float32(name, stem))
        return self.nodes[-1].outputs[0]

    def tap(
        self,
        name: Name,
        read: Name,
        stem: Name,
        described: tuple[int, int, int, int | None],
        rank: int,
        axis: int,
        floor: float,
    ) -> None:
        probe = reductions(self.graph, read, rank, axis, stem, with_low=bool(np.isinf(floor)))
        self.nodes += probe.nodes
        self.consts |= probe.consts
        tap = _Tap(name, *described, probe.low, probe.high, probe.mean, probe.square, floor)
        self.found.append(tap)
        if tap.positions is None:
            made, row = shape_row(read, rank, tap.high)
            self.nodes += made
            self.consts |= row


def _floor(graph: Graph, node: Node | None) -> float:
    """What a ReLU or clip lets through at least; −∞ of other operators."""
    if node is None or not clamps(node):
        return -np.inf
    low, _ = clip_bounds(graph, node)
    return float(low) if low is not None and low.size == 1 else -np.inf


def _tapped(graph: Graph, taps: list[_Tap], nodes: list[Node], consts: dict[Name, Array], raw: bool) -> Graph:
    """The graph with the reductions as its only outputs, and the tensors themselves where they are wanted `raw`."""
    wanted = [n for t in taps for n in (t.low, t.high, t.mean, t.square, t.name if raw else None) if n is not None]
    sizes = [f"{t.high}_shape" for t in taps if t.positions is None]
    return replace(
        graph,
        nodes=(*graph.nodes, *nodes),
        consts={**graph.consts, **consts},
        outputs=tuple(o for o in dict.fromkeys((*wanted, *sizes)) if o not in graph.inputs),
        dtypes={**graph.dtypes, **dict.fromkeys(sizes, "int64")},
    )


def whole(session: Session | Measuring, most: int) -> int:
    """As many of a network's fixed batches as there may be images at once, and one at least."""
    sizes = {shape[0] for shape in session.shapes.values() if shape and isinstance(shape[0], int)}
    fixed = max((int(size) for size in sizes), default=1)
    return max(fixed, most // max(fixed, 1) * fixed)


def _last(feed: Feed, count: int) -> Feed:
    return part(feed, length(feed) - count, length(feed))


class _Running:
    """Sums over batches, for all channels of all tensors behind one another."""

    def __init__(self, graph: Graph, taps: list[_Tap], histograms: bool) -> None:
        self.taps, self.inputs, self.images = taps, graph.inputs, 0
        self.starts = np.cumsum([0, *(t.channels for t in taps)])
        size = int(self.starts[-1])
        self.low, self.high = np.full(size, np.inf), np.full(size, -np.inf)
        self.total, self.square = np.zeros(size), np.zeros(size)
        self.counts = np.zeros(len(taps), np.int64)
        self.pending: list[tuple[Array, Array]] = []
        self.lows = [Histogram.of(np.zeros(0))] * len(taps)
        self.highs = list(self.lows)
        self.values = list(self.lows) if histograms else None

    def add(self, found: Mapping[Name, Array], feed: Feed) -> None:
        """Count one batch: the session's outputs, and what it was fed."""
        table, n = {**(feed if isinstance(feed, Mapping) else {self.inputs[0]: feed}), **found}, length(feed)

        def joined(values: Iterable[Array], reduce: np.ufunc) -> Array:
            each = zip(values, self.taps, strict=True)
            return np.concatenate([_per_image(v, n, t.channels, reduce) for v, t in each], axis=1)

        floors = [np.full((n, t.channels), t.floor, np.float32) if t.low is None else table[t.low] for t in self.taps]
        squares = (
            np.square(table[t.name], dtype=np.float64) if t.square is None else table[t.square] for t in self.taps
        )
        low, high = joined(floors, np.minimum), joined((table[t.high] for t in self.taps), np.maximum)
        mean, square = joined((table[t.mean] for t in self.taps), np.add), joined(squares, np.add)
        self._check(low, high, mean, square)
        positions = [t.positions or int(np.prod(table[f"{t.high}_shape"][0, 1:])) // t.channels for t in self.taps]
        each = np.repeat(np.asarray(positions, np.int64), [t.channels for t in self.taps])
        np.minimum(self.low, low.min(0), out=self.low)
        np.maximum(self.high, high.max(0), out=self.high)
        self.total += mean.sum(0, dtype=np.float64) * each
        self.square += square.sum(0, dtype=np.float64) * each
        self.counts += [p * (table[t.mean].size // t.channels) for p, t in zip(positions, self.taps, strict=True)]
        self.images += n
        starts = self.starts[:-1]
        self.pending.append((np.minimum.reduceat(low, starts, 1), np.maximum.reduceat(high, starts, 1)))
        if sum(len(p) for p, _ in self.pending) >= PENDING:
            self._count_extremes()
        if self.values is not None:
            self.values = [h + _histogram(table[t.name]) for h, t in zip(self.values, self.taps, strict=True)]

    def _check(self, *found: Array) -> None:
        """Maxima may pass over what is no number, but means do not."""
        if not all(np.isfinite(values).all() for values in found):
            bad = ~np.logical_and.reduce([np.isfinite(values).all(0) for values in found])
            name = self.taps[int(np.searchsorted(self.starts, np.flatnonzero(bad)[0], "right")) - 1].name
            why = "takes values that are not finite, or whose squares are not; check network and samples"
            raise UnusableData(f"tensor {name} {why}, and give -10000 where the least of all numbers masks")

    def _count_extremes(self) -> None:
        if self.pending:
            lows, highs = (np.concatenate(parts) for parts in zip(*self.pending, strict=True))
            self.lows = [h + Histogram.of(lows[:, k]) for k, h in enumerate(self.lows)]
            self.highs = [h + Histogram.of(highs[:, k]) for k, h in enumerate(self.highs)]
            self.pending = []

    def statistics(self, network: str) -> Statistics:
        self._count_extremes()
        tensors = {}
        for k, tap in enumerate(self.taps):
            part = slice(int(self.starts[k]), int(self.starts[k + 1]))
            sums = {key: getattr(self, key)[part].copy() for key in ("low", "high", "total", "square")}
            tensors[tap.name] = TensorStatistics(
                axis=tap.axis,
                rank=tap.rank,
                images=self.images,
                count=int(self.counts[k]),
                lows=self.lows[k],
                highs=self.highs[k],
                values=None if self.values is None else self.values[k],
                **sums,
            )
        return Statistics(tensors, self.images, network)


def _per_image(values: Array, n: int, channels: int, reduce: np.ufunc) -> Array:
    """`(n, C)` from what was reduced of a tensor: several rows an image, or a share of all of them."""
    rows = values.reshape(-1, channels)
    if len(rows) == n:
        return rows
    if len(rows) % n == 0:
        return np.asarray(reduce.reduce(rows.reshape(n, -1, channels), 1))
    whole = reduce.reduce(rows, 0)
    return np.broadcast_to(whole / n if reduce is np.add else whole, (n, channels))


def _histogram(values: Array) -> Histogram:
    """In pieces that stay in the cache."""
    flat = values.reshape(-1)
    parts = [Histogram.of(flat[k : k + (1 << 18)]) for k in range(0, flat.size, 1 << 18)]
    return reduce(lambda a, b: a + b, parts)
