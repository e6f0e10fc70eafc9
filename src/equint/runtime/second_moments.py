"""Second moments of what layers read, in the float network and in the quantized one, in one sweep through both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np

from ..files import Shelf
from ..ir.fields import channel_means
from ..ir.model import Array, Graph, Model, Name, View
from ..ir.weights import Layer
from ..onnx.writer import to_proto
from ..ops.layers import layers
from ..ops.windows import Windows
from ..samples.images import Feed, Samples, length, part, split
from .batches import BATCH, at_once
from .collect import whole
from .session import Session
from .sweep import FOLDS, Sweep

FEWEST, POSITIONS = 16, 128
"""Output positions of each sample that are looked at, drawn at random: as many as inputs and taps, within these."""
WAITING = 1024
"""Patches that wait to be multiplied together: the sums of few cost as much as those of many."""
WIDEST = 1024
"""Inputs whose products with one another are kept; of a layer with more, blocks of channels are taken to be apart."""


@dataclass(frozen=True)
class SecondMoments:
    """What a layer's products read: x in the float network, x̂ in the quantized one; B blocks of n inputs and taps.

    Blocks are groups, and parts of a group with many inputs, which are taken to be independent.

    Attributes:
        mean, seen: E[x] and E[x̂] over all positions, `(B, n)`, real units.
        rows: how many patches of each block the others are of.
        covariance: Cov[x̂, x̂], `(B, n, n)`. cross: Cov[x, x̂].
    """

    mean: Array
    seen: Array
    covariance: Array
    cross: Array
    rows: int

    def split(self, weight: Array) -> Array:
        """A weight `(G, O, I, K)` as `(B, O, n)`."""
        g, o, _, _ = weight.shape
        blocks, n = self.mean.shape
        return weight.reshape(g, o, blocks // g, n).swapaxes(1, 2).reshape(blocks, o, n)

    def join(self, rows: Array, shape: tuple[int, ...]) -> Array:
        """The inverse of `split`: `(B, O, n)` as `(G, O, I, K)` of that shape."""
        g, o, _, _ = shape
        blocks, _, n = rows.shape
        return rows.reshape(g, blocks // g, o, n).swapaxes(1, 2).reshape(shape)

    def summed(self, values: Array, weight: Array) -> Array:
        """What blocks `(B, O)` add to each of a layer's outputs: `(O,)`; its weight is `(G, O, I, K)`."""
        return np.asarray(values.reshape(len(weight), -1, weight.shape[1]).sum(1).reshape(-1))

    def about_zero(self) -> SecondMoments:
        """The same, covariances with what the means add to them: E[x̂·x̂ᵀ] and E[x·x̂ᵀ]."""
        covariance, cross = (m[:, :, None] * self.seen[:, None, :] for m in (self.seen, self.mean))
        return replace(self, covariance=self.covariance + covariance, cross=self.cross + cross)

    @classmethod
    def mean_of(cls, folds: Sequence[SecondMoments]) -> SecondMoments:
        """Those of several folds of as many samples each."""
        mean, seen, covariance, cross = (
            reduce(np.add, (getattr(fold, name) for fold in folds)) / len(folds)
            for name in ("mean", "seen", "covariance", "cross")
        )
        return cls(mean, seen, covariance, cross, sum(fold.rows for fold in folds))


Decide = Callable[[Layer, Iterable[SecondMoments]], tuple[Array, Array]]


def round_in_order(
    model: Model,
    chosen: Sequence[Layer],
    images: Samples,
    decide: Decide,
    progress: Callable[[int, int], None] | None = None,
    teacher: Graph | None = None,
    seed: int = 0,
) -> dict[Name, Array]:
    """Show `decide` what each layer reads, in topological order, all before it being rounded as it said.

    Args:
        model: the network, weights and all else float, with the grids that it will have.
        chosen: which of its layers.
        decide: gets a layer and the moments of each fold of images, made as they are taken; returns integers for its
            weight, and its bias, `(O,)`.
        progress: called with layers done and their number.
        teacher: the float network, with tensors of the same names in original units; None: the model's own graph.

    Returns:
        The biases as they are exported, `(O,)` by layer output.
    """
    every = [la for la in layers(model.graph) if la.weight in model.qparams]
    names = {la.y for la in chosen}
    readings = {la.y: _Reading(model.graph, la, (seed, k)) for k, la in enumerate(la for la in every if la.y in names)}
    sizes, pieces = _read_in_floats(model, teacher, list(readings.values()), images)
    sweep, decided = Sweep(model, images, every, sizes), list[int]()
    runs = _runs(sizes)
    for number, layer in enumerate(every):
        reading = readings.pop(layer.y, None)
        if reading is None:
            continue
        if progress is not None:
            progress(number, len(every))
        sums = [_Sums(reading.blocks, reading.n) for _ in range(FOLDS)]
        for run, own, x in zip(runs, pieces, sweep.inputs(number), strict=True):
            drawn = [reading.drawn[k] for k in own]
            sums[run % FOLDS].add(drawn, reading.patches(x, run), reading.mean(x))
        counted = [(s, mean) for s, mean in zip(sums, reading.means, strict=True) if s.batches]
        if counted:
            integers, bias = decide(layer, (s.moments(mean) for s, mean in counted))
            sweep.round(number, integers)
            sweep.correct(number, bias - sweep.bias(number))
            decided.append(number)
    return {every[number].y: sweep.bias(number) for number in decided}


class _Reading:
    """What a layer reads in the float network.

    Attributes:
        blocks, n: into how many blocks its inputs and taps fall, and how many each has.
        drawn: patches, piece by piece, on disk.
        means: `(FOLDS, G, I/G·K)` of all patches, summed over the batches of each fold.
    """

    def __init__(self, graph: Graph, layer: Layer, seed: tuple[int, int]) -> None:
        self.layer, self.seed, weight = layer, seed, graph.consts[layer.weight]
        groups, _, inputs, self.taps = layer.unpack(weight).shape
        self.blocks, self.n = _blocks(graph, layer)
        self.kernel, self.windows = weight.shape[2:], dict[tuple[int, ...], Windows]()
        self.drawn, self.means = Shelf(), np.zeros((FOLDS, groups, inputs * self.taps))

    def patches(self, x: Array, run: int) -> Array:
        count = min(max(self.n, FEWEST), POSITIONS)
        return self._windows(x).patches(x, count, np.random.default_rng((*self.seed, run)))

    def mean(self, x: Array) -> Array:
        return self._windows(x).mean(x)

    def add(self, x: Array, run: int, share: float, view: View | None) -> None:
        """Draw of a `share` of a batch as the float network has it: original = scale·(value + offset)."""
        factor = np.ones(1, x.dtype)
        if view is not None:
            if np.any(view.offset):  # which padding does not have
                x = np.asarray(x / view.scale - view.offset, x.dtype)
            else:
                channels = x.shape[self.layer.x_axis]
                scale = channel_means(view.scale, self.layer.x_axis, channels)
                factor = np.repeat(1 / scale, self.taps).reshape(self.means.shape[1:]).astype(x.dtype)
        self.drawn.append(self.patches(x, run) * factor)
        self.means[run % FOLDS] += share * self.mean(x) * factor

    def _windows(self, x: Array) -> Windows:
        sizes = x.shape[2:]
        if sizes not in self.windows:
            self.windows[sizes] = Windows(self.layer, self.kernel, sizes)
        return self.windows[sizes]


def _read_in_floats(
    model: Model, teacher: Graph | None, readings: Sequence[_Reading], images: Samples
) -> tuple[list[int], list[range]]:
    """Show the float network's layers all samples; how many there are in each batch, and the numbers of its pieces.

    What all layers read is there at once, of as few samples as memory is worth. The sweep sees a layer at a time, whose
    tensors take less room of twice as many.
    """
    graph, views = model.graph, dict[Name, View]()
    read = tuple(dict.fromkeys(r.layer.x for r in readings))
    if teacher is not None and all(name in teacher.producer or name in teacher.inputs for name in read):
        graph, views = teacher, dict(model.views)
    outputs = tuple(name for name in read if name not in graph.inputs) or graph.outputs
    session = Session(to_proto(replace(graph, outputs=outputs)), optimized=True, lean=True, together=True)
    sizes, pieces, few = list[int](), list[range](), at_once(graph, BATCH)
    most, few = (whole(session, count) for count in (min(2 * few, BATCH), few))

    def shown(feed: Feed, share: float) -> None:
        given = feed if isinstance(feed, Mapping) else {graph.inputs[0]: feed}
        found = {**given, **session.run(feed)}
        for reading in readings:
            reading.add(found[reading.layer.x], _runs(sizes)[-1], share, views.get(reading.layer.x))

    for feed in split(images, most, fill=True):
        sizes.append(count := length(feed))
        starts, before = range(0, count, few), pieces[-1].stop if pieces else 0
        for start in starts:
            piece = part(feed, start, start + few)
            shown(piece, length(piece) / count)
        pieces.append(range(before, before + len(starts)))
    return sizes, pieces


def _runs(sizes: Sequence[int]) -> list[int]:
    """The number of each batch, were it of BATCH samples: those of single samples draw and fall as larger ones do."""
    return [int(start) // BATCH for start in np.cumsum([0, *sizes[:-1]])]


def _blocks(graph: Graph, layer: Layer) -> tuple[int, int]:
    """Into how many blocks a layer's inputs and taps fall, and how many each has: as few as WIDEST allows."""
    groups, _, inputs, taps = layer.unpack(graph.consts[layer.weight]).shape
    parts = next(p for p in range(1, inputs + 1) if inputs % p == 0 and (inputs // p * taps <= WIDEST or p == inputs))
    return groups * parts, inputs // parts * taps


class _Sums:
    """Sums over patches of both networks.

    They are about the means of the first batch (Chan, Golub and LeVeque 1983, shifted data): of values that lie far
    from zero and close together, products leave little of how they vary. In float64, like all of rounding: in float32
    other kernels of linear algebra decide otherwise here and there, and all that stands behind sees other inputs.
    """

    def __init__(self, blocks: int, n: int) -> None:
        self.shape, self.rows, self.batches = (blocks, n), 0, 0
        self.about: Array | None = None
        self.seen: Array = np.zeros(())
        self.total = np.zeros((2, blocks, n))
        self.products = list[Array]()
        self.pending: tuple[list[Array], list[Array]] = [], []

    def add(self, drawn: Sequence[Array], patches: Array, seen: Array) -> None:
        """Count a batch: patches of both networks, and the mean of all that the quantized one has."""
        self.batches += 1
        self.seen = self.seen + seen
        self.pending[0].extend(drawn)
        self.pending[1].append(patches)
        if sum(map(len, self.pending[1])) >= WAITING:
            self._multiply()

    def _multiply(self) -> None:
        both = list[Array]()  # (rows, blocks, n): sums over few inputs and taps that lie apart take five times as long
        for waiting in self.pending:
            both.append(np.concatenate(waiting, dtype=np.float64).reshape(-1, *self.shape))
            waiting.clear()
        if self.about is None:
            self.about = np.stack([rows.mean(0, dtype=np.float64) for rows in both]).astype(np.float32)
        for k, rows in enumerate(both):
            rows -= self.about[k]
            self.total[k] += rows.sum(0, dtype=np.float64)
        self.rows += len(both[0])
        seen = both[1].swapaxes(0, 1)
        for k, rows in enumerate(both):
            product = rows.transpose(1, 2, 0) @ seen
            if len(self.products) == k:
                self.products.append(product)
            else:
                self.products[k] += product

    def moments(self, mean: Array) -> SecondMoments:
        """Of all that was counted, which they take with them; `mean` is the float network's, summed over batches."""
        if self.pending[1]:
            self._multiply()
        moved, (cross, covariance), self.products = self.total / self.rows, self.products, []
        for product, m in zip((cross, covariance), moved, strict=True):
            product /= self.rows
            product -= m[:, :, None] * moved[1][:, None, :]
        mean, seen = ((total / self.batches).reshape(self.shape) for total in (mean, self.seen))
        return SecondMoments(mean, seen, covariance, cross, self.rows)
