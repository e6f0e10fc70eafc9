"""What calibration measures of a network's tensors: values that can be added up, saved and used again."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from hashlib import sha256
from typing import Any

import numpy as np

from ..drafts import drafted
from ..errors import EquintError, UnusableData
from ..ir.fields import aligned
from ..ir.model import Array, Graph, Moments, Name, Shape
from .stored import stored

BINS = 2048
"""Most bins of a histogram."""
FINEST, ZERO = 20, -1000
"""Bins are no narrower than the largest value · 2^-FINEST, nor than 2^ZERO."""


@dataclass(frozen=True)
class Histogram:
    """Counts of values in the bins [k·w, (k + 1)·w), w = 2^exponent, k = first, first + 1, …

    The width is the smallest power of two for which the extremes lie less than `BINS` bins apart. Bins of twice
    the width hold two bins each, so that adding histograms gives, count by count, that of all values.

    Example:
        >>> a, b = Histogram.of(np.array([0.1, 0.2])), Histogram.of(np.array([5.0]))
        >>> whole = Histogram.of(np.array([0.1, 0.2, 5.0]))
        >>> (a + b).exponent == whole.exponent, (a + b).counts.tolist() == whole.counts.tolist()
        (True, True)
    """

    exponent: int
    first: int
    counts: Array

    @classmethod
    def of(cls, values: Array) -> Histogram:
        values = np.asarray(values).reshape(-1)
        if not values.size:
            return cls(ZERO, 0, np.zeros(0, np.int64))
        lo, hi = float(values.min()), float(values.max())
        exponent = _exponent(lo, hi)
        first = _bin(lo, exponent)
        scaled = np.floor(np.ldexp(values, -exponent))
        if exponent > 0:  # what vanishes in scaling lies on the side of zero that its sign tells
            scaled = scaled - ((scaled == 0) & (values < 0))
        return cls(exponent, first, np.bincount(scaled.astype(np.int64) - first))

    def __add__(self, other: Histogram) -> Histogram:
        if not self.counts.size or not other.counts.size:
            return self if self.counts.size else other
        exponent = max(self.exponent, other.exponent)
        while True:
            a, b = self.at(exponent), other.at(exponent)
            first = min(a.first, b.first)
            size = max(a.first + a.counts.size, b.first + b.counts.size) - first
            if size <= BINS:
                break
            exponent += 1
        counts = np.zeros(size, np.int64)
        for part in (a, b):
            counts[part.first - first : part.first - first + part.counts.size] += part.counts
        return Histogram(exponent, first, counts)

    def at(self, exponent: int) -> Histogram:
        """The same values in bins of width 2^exponent, which must not be finer."""
        steps = exponent - self.exponent
        if steps == 0:
            return self
        bins = (self.first + np.arange(self.counts.size)) >> min(steps, 62)
        return Histogram(exponent, int(bins[0]), np.bincount(bins - bins[0], self.counts).astype(np.int64))

    @property
    def edges(self) -> Array:
        """`(n + 1,)` ends of the bins, real units."""
        return np.ldexp(np.arange(self.first, self.first + self.counts.size + 1, dtype=np.float64), self.exponent)


def _exponent(lo: float, hi: float) -> int:
    largest = max(abs(lo), abs(hi))
    exponent = max(math.frexp(largest)[1] - FINEST, ZERO) if largest > 0 else ZERO
    while _bin(hi, exponent) - _bin(lo, exponent) >= BINS:
        exponent += 1
    return exponent


def _bin(value: float, exponent: int) -> int:
    number = math.floor(math.ldexp(value, -exponent))
    return number - (number == 0 and value < 0)


@dataclass(frozen=True)
class TensorStatistics:
    """What was measured of one tensor."""

    axis: int  # and rank: channels lie along `axis` of `rank` dimensions
    rank: int
    images: int  # and count: samples seen; values seen of each channel
    count: int
    low: Array  # and high: `(C,)` extremes, real units
    high: Array
    total: Array  # and square: `(C,)` sums of values and of their squares
    square: Array
    lows: Histogram  # and highs: distributions of the lowest and highest value of every image
    highs: Histogram
    values: Histogram | None = None  # distribution of all values, or None where it was not asked for

    def __add__(self, other: TensorStatistics) -> TensorStatistics:
        if (self.axis, self.rank, self.low.shape) != (other.axis, other.rank, other.low.shape):
            raise UnusableData("statistics of tensors of different shapes do not add up")
        summed = ("images", "count", "total", "square", "lows", "highs")
        changed: dict[str, Any] = {name: getattr(self, name) + getattr(other, name) for name in summed}
        values = None if self.values is None or other.values is None else self.values + other.values
        low, high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        return replace(self, **changed, low=low, high=high, values=values)

    def field(self, values: Array) -> Array:
        return aligned(values, self.axis, self.rank)

    @property
    def moments(self) -> Moments:
        mean = self.total / max(self.count, 1)
        variance = np.maximum(self.square / max(self.count, 1) - np.square(mean), 0)
        return Moments(self.field(mean), self.field(np.sqrt(variance)), "calibration")


@dataclass(frozen=True)
class Statistics:
    """What was measured of a network's tensors.

    Attributes:
        tensors: by name.
        images: samples seen.
        network: fingerprint of the network that they belong to.
        data: fingerprint of the images, where they are of one stream.
        shapes, settled: what the first sample showed of the network's tensors, as `FirstRun` has it.
    """

    tensors: Mapping[Name, TensorStatistics]
    images: int
    network: str
    data: str = ""
    shapes: Mapping[Name, Shape] = field(default_factory=dict)
    settled: bool = True

    def __repr__(self) -> str:
        return f"Statistics(images={self.images}, tensors={len(self.tensors)})"

    def __add__(self, other: Statistics) -> Statistics:
        if self.network != other.network or self.tensors.keys() != other.tensors.keys():
            raise UnusableData("statistics of different networks do not add up")
        tensors = {name: mine + other.tensors[name] for name, mine in self.tensors.items()}
        data = self.data if self.data == other.data else ""
        return Statistics(tensors, self.images + other.images, self.network, data, self.shapes, self.settled)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a .npz file, whole or not at all. Raises EquintError: it cannot be written."""
        from .statistics_file import packed

        header, arrays = packed(self)
        with drafted(path) as (draft, _), draft.open("wb") as file:
            spelled = np.frombuffer(json.dumps(header).encode(), np.uint8)
            np.savez_compressed(file, header=spelled, **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Statistics:
        """Read what `save` wrote. Raises EquintError: missing, damaged, or no statistics."""
        from .statistics_file import unpacked

        held = stored(path)
        if "header" not in held:
            raise UnusableData(f"{os.fspath(path)}: holds no statistics; write them with `equint calibrate`")
        return unpacked({name: array.whole() for name, array in held.items()}, os.fspath(path))


def is_statistics(path: str | os.PathLike[str]) -> bool:
    """Whether a file holds what `Statistics.save` writes."""
    try:
        return {"header", "low"} <= stored(path).keys()
    except EquintError:  # whatever it is, statistics it is not
        return False


def fingerprint(graph: Graph) -> str:
    """What tells networks apart: operators with their attributes, names and constants."""
    digest = sha256()
    for node in graph.nodes:
        digest.update(repr((node.op, node.inputs, node.outputs, sorted(node.attrs.items()))).encode())
    for name, array in graph.consts.items():
        digest.update(repr((name, array.shape, str(array.dtype))).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def merged(parts: list[Statistics]) -> Statistics:
    """The statistics of all parts together. Raises EquintError: no parts, or parts of different networks."""
    if not parts:
        raise UnusableData("no statistics to merge")
    return reduce(lambda a, b: a + b, parts)
