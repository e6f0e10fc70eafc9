"""Second moments of what layers read, in the float network and in the quantized one, in one sweep through both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..files import Shelf
from ..ir.model import Array, Graph, Model, Name
from ..ir.weights import Layer
from ..onnx.writer import to_proto
from ..ops.layers import layers
from ..ops.windows import patches
from ..samples.images import Samples, length, split
from .collect import whole
from .session import Session
from .sweep import BATCH, FOLDS, Sweep

FEWEST, POSITIONS = 16, 128
"""Output positions of each sample that are looked at, drawn at random: as many as inputs and taps, within these."""
WIDEST = 1024
"""Inputs whose products with one another are kept; of a layer with more, blocks of channels are taken to be apart."""


@dataclass(frozen=True)
class SecondMoments:
    """What a layer's products read: x in the float network, x̂ in the quantized one; B blocks of n inputs and taps.

    Blocks are groups, and parts of a group with many inputs, which are taken to be independent.

    Attributes:
        mean, seen: E[x] and E[x̂], `(B, n)`, real units.
        rows: how many patches of each block they are of.
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
            np.mean([getattr(fold, name) for fold in folds], 0) for name in ("mean", "seen", "covariance", "cross")
        )
        return cls(mean, seen, covariance, cross, sum(fold.rows for fold in folds))


Decide = Callable[[Layer, Sequence[SecondMoments]], tuple[Array, Array]]


def round_in_order(
    model: Model,
    chosen: Sequence[Layer],
    images: Samples,
    decide: Decide,
    progress: Callable[[int, int], None] | None = None,
    seed: int = 0,
) -> dict[Name, Array]:
    """Show `decide` what each layer reads, in topological order, all before it being rounded as it said.

    Args:
        model: the network, weights and all else float, with the grids that it will have.
        chosen: which of its layers.
        decide: gets a layer and the moments of each fold of images; returns integers for its weight, and its bias,
            `(O,)`.
        progress: called with layers done and their number.

    Returns:
        The biases as they are exported, `(O,)` by layer output.
    """
    every = [la for la in layers(model.graph) if la.weight in model.qparams]
    wanted = {la.y for la in chosen}
    drawn, sizes = _float_inputs(model.graph, [la for la in every if la.y in wanted], images, seed)
    numbers = {y: number for number, y in enumerate(drawn)}
    sweep, decided = Sweep(model, images, every, sizes), list[int]()
    for number, layer in enumerate(every):
        if layer.y not in drawn:
            continue
        if progress is not None:
            progress(number, len(every))
        sums = [_Sums(*_blocks(model.graph, layer)) for _ in range(FOLDS)]
        for k, x in enumerate(sweep.inputs(number)):
            sums[k % FOLDS].add(drawn[layer.y][k], _patches(model.graph, layer, x, numbers[layer.y], k, seed))
        folds = [s.moments() for s in sums if s.rows]
        if folds:
            integers, bias = decide(layer, folds)
            sweep.round(number, integers)
            sweep.correct(number, bias - sweep.bias(number))
            decided.append(number)
    return {every[number].y: sweep.bias(number) for number in decided}


def _patches(graph: Graph, layer: Layer, x: Array, number: int, batch: int, seed: int) -> Array:
    rng = np.random.default_rng((seed, number, batch))
    count = min(max(_blocks(graph, layer)[1], FEWEST), POSITIONS)
    return patches(layer, graph.consts[layer.weight].shape[2:], x, count, rng)


def _float_inputs(
    graph: Graph, chosen: Sequence[Layer], images: Samples, seed: int
) -> tuple[dict[Name, Shelf], list[int]]:
    """Patches of each layer's input, batch by batch, on disk; samples in each batch."""
    read = tuple(dict.fromkeys(layer.x for layer in chosen if layer.x not in graph.inputs))
    session = Session(to_proto(replace(graph, outputs=read or graph.outputs)), optimized=True, lean=True, together=True)
    numbers = {layer.y: number for number, layer in enumerate(chosen)}
    drawn, sizes = {layer.y: Shelf() for layer in chosen}, list[int]()
    for k, feed in enumerate(split(images, whole(session, BATCH), fill=True)):
        given = feed if isinstance(feed, Mapping) else {graph.inputs[0]: feed}
        found = {**given, **session.run(feed)}
        sizes.append(length(feed))
        for layer in chosen:
            drawn[layer.y].append(_patches(graph, layer, found[layer.x], numbers[layer.y], k, seed))
    return drawn, sizes


def _blocks(graph: Graph, layer: Layer) -> tuple[int, int]:
    """Into how many blocks a layer's inputs and taps fall, and how many each has: as few as WIDEST allows."""
    groups, _, inputs, taps = layer.unpack(graph.consts[layer.weight]).shape
    parts = next(p for p in range(1, inputs + 1) if inputs % p == 0 and (inputs // p * taps <= WIDEST or p == inputs))
    return groups * parts, inputs // parts * taps


class _Sums:
    """Sums over patches of both networks, float64 of float32 batches.

    They are about the means of the first batch (Chan, Golub and LeVeque 1983, shifted data): in products of values that
    lie far from zero and close together, float32 would leave nothing of how they vary.
    """

    def __init__(self, blocks: int, n: int) -> None:
        self.shape, self.rows = (blocks, n), 0
        self.about = np.zeros((2, blocks, n), np.float32)
        self.total = np.zeros((2, blocks, n))
        self.products = np.zeros((2, blocks, n, n))

    def add(self, x: Array, seen: Array) -> None:
        both = [np.ascontiguousarray(a.reshape(len(a), *self.shape).transpose(1, 0, 2), np.float32) for a in (x, seen)]
        if not self.rows:
            self.about = np.stack([rows.mean(1, dtype=np.float64) for rows in both]).astype(np.float32)
        both = [rows - about[:, None, :] for rows, about in zip(both, self.about, strict=True)]
        self.rows += len(x)
        for k, rows in enumerate(both):
            self.total[k] += rows.sum(1, dtype=np.float64)
            self.products[k] += rows.swapaxes(1, 2) @ both[1]

    def moments(self) -> SecondMoments:
        moved = self.total / self.rows
        cross, covariance = (
            p / self.rows - m[:, :, None] * moved[1][:, None, :] for p, m in zip(self.products, moved, strict=True)
        )
        mean, seen = moved + self.about
        return SecondMoments(mean, seen, covariance, cross, self.rows)
