"""Running sums of what taps give, over batches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce

import numpy as np

from ..errors import UnusableData
from ..ir.model import Array, Name
from ..samples.images import Feed, length
from ..samples.statistics import Histogram, TensorStatistics
from .taps import Tap

PENDING = 1024
"""Images whose own extremes wait to be counted."""


class Running:
    """Sums over batches, for all channels of all tensors behind one another."""

    def __init__(self, inputs: Sequence[Name], taps: Sequence[Tap], histograms: bool) -> None:
        self.taps, self.inputs, self.images = taps, inputs, 0
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
            np.square(table[t.mean], dtype=np.float64) if t.square is None else table[t.square] for t in self.taps
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

    def statistics(self) -> dict[Name, TensorStatistics]:
        """What was measured of each tensor so far."""
        self._count_extremes()
        tensors = dict[Name, TensorStatistics]()
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
        return tensors


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
