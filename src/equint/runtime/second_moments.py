"""Second moments of what layers read, streamed: what rounding must know of how inputs go together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..ir.model import Array, Graph, Name
from ..ir.weights import Layer
from ..onnx.writer import to_proto
from ..ops.windows import patches
from ..samples.images import Samples, split
from .collect import whole
from .session import Session

BATCH = 4
"""Samples that go through the network at once."""
POSITIONS = 256
"""Output positions of each sample that are looked at, drawn at random: neighbours tell little that is new."""
WIDEST = 1024
"""Inputs whose products with one another are kept; of a layer with more, blocks of channels are taken to be apart."""
VALUES = 16_000_000
"""Numbers that all second moments together may be at a time: of larger networks, parts follow one another."""


@dataclass(frozen=True)
class SecondMoments:
    """What a layer's products read, in B blocks of n inputs and taps: groups, and parts of a group with many inputs.

    `mean` is `(B, n)`, `covariance` `(B, n, n)`, in real units; inputs in different blocks are taken to be independent.
    """

    mean: Array
    covariance: Array

    def split(self, rows: Array) -> Array:
        """A weight `(G, O, I, K)` as `(B, O, n)`."""
        g, o, _, _ = rows.shape
        blocks, n = self.mean.shape
        return rows.reshape(g, o, blocks // g, n).swapaxes(1, 2).reshape(blocks, o, n)

    def join(self, rows: Array, shape: tuple[int, ...]) -> Array:
        """The inverse of `split`: `(B, O, n)` as `(G, O, I, K)` of that shape."""
        g, o, _, _ = shape
        blocks, _, n = rows.shape
        return rows.reshape(g, blocks // g, o, n).swapaxes(1, 2).reshape(shape)


def second_moments(
    graph: Graph, layers: Sequence[Layer], images: Samples, seed: int = 0
) -> Iterator[tuple[Layer, SecondMoments]]:
    """What each layer's products read while images flow through the network, layer by layer.

    No more is kept at once than VALUES numbers; sums are of float64.

    Example:
        >>> from ..ops.layers import layers, tiny_graph
        >>> graph = tiny_graph()
        >>> [(_, found)] = second_moments(graph, list(layers(graph)), Samples.of(np.ones((1, 4, 4, 4), np.float32)))
        >>> found.covariance.shape, found.mean[0].tolist()  # the share of positions where a tap meets no padding
        ((4, 9, 9), [0.5625, 0.75, 0.5625, 0.75, 1.0, 0.75, 0.5625, 0.75, 0.5625])
    """
    waiting, values = list[Layer](), 0
    for layer in layers:
        blocks, n = _blocks(graph, layer)
        if waiting and values + blocks * n * n > VALUES:
            yield from _measured(graph, waiting, images, seed)
            waiting, values = [], 0
        waiting.append(layer)
        values += blocks * n * n
    if waiting:
        yield from _measured(graph, waiting, images, seed)


def _blocks(graph: Graph, layer: Layer) -> tuple[int, int]:
    """Into how many blocks a layer's inputs and taps fall, and how many each has: as few as WIDEST allows."""
    groups, _, inputs, taps = layer.unpack(graph.consts[layer.weight]).shape
    parts = next(p for p in range(1, inputs + 1) if inputs % p == 0 and (inputs // p * taps <= WIDEST or p == inputs))
    return groups * parts, inputs // parts * taps


class _Sums:
    def __init__(self, blocks: int, n: int) -> None:
        self.shape, self.rows = (blocks, n), 0
        self.total, self.products = np.zeros((blocks, n)), np.zeros((blocks, n, n))

    def add(self, found: Array) -> None:
        rows = found.reshape(len(found), *self.shape).transpose(1, 0, 2).astype(np.float64)
        self.rows += rows.shape[1]
        self.total += rows.sum(1)
        self.products += rows.swapaxes(1, 2) @ rows

    def moments(self) -> SecondMoments:
        mean = self.total / max(self.rows, 1)
        return SecondMoments(mean, self.products / max(self.rows, 1) - mean[:, :, None] * mean[:, None, :])


def _measured(
    graph: Graph, layers: Sequence[Layer], images: Samples, seed: int
) -> Iterator[tuple[Layer, SecondMoments]]:
    read = list(dict.fromkeys(layer.x for layer in layers if layer.x not in graph.inputs))
    session = None
    if read:
        session = Session(to_proto(replace(graph, outputs=tuple(read))), optimized=True, lean=True, together=True)
    sums = [_Sums(*_blocks(graph, layer)) for layer in layers]
    rng = np.random.default_rng(seed)
    for feed in split(images, BATCH if session is None else whole(session, BATCH)):
        given = feed if isinstance(feed, Mapping) else {graph.inputs[0]: feed}
        found: Mapping[Name, Array] = {**given, **(session.run(feed) if session is not None else {})}
        for layer, running in zip(layers, sums, strict=True):
            kernel = graph.consts[layer.weight].shape[2:]
            running.add(patches(layer, kernel, found[layer.x], POSITIONS, rng))
    yield from ((layer, running.moments()) for layer, running in zip(layers, sums, strict=True))
