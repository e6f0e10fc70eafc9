"""Whether samples lie in the ranges that a quantized network's file tells: beyond them its grids saturate."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from ..ir.model import Name
from .images import Feed

MARGIN = 0.1
"""Values are outside a range where they lie over this share of it beyond its ends."""
OUTSIDE = 0.01
"""Share of values outside from which it is told: a few outliers saturate as they should."""
NARROW = 1 / 16
"""Samples that fill less of a range are of another."""
ADVICE = "prepare them as those it was quantized for (mean, std and kind in a card), or quantize it anew for these"


@dataclass(frozen=True)
class Seen:
    """How one input's values lie to the range from `low` to `high`.

    Attributes:
        lowest, highest: of all values; count: how many they are; outside: how many of them lie outside.
    """

    low: float
    high: float
    lowest: float = math.inf
    highest: float = -math.inf
    count: int = 0
    outside: int = 0

    @property
    def doubt(self) -> str:
        """What speaks against the samples; empty where nothing does."""
        width, found = self.high - self.low, f"from {self.lowest:.4g} to {self.highest:.4g}"
        where = f"the range {self.low:.4g} to {self.high:.4g} that the file was quantized for"
        if self.outside > OUTSIDE * self.count:
            share = math.floor(1000 * self.outside / self.count) / 10  # not all of them, where some lie within
            return f"{share:g} % of the values, {found}, lie outside {where}"
        if self.count > 1 and self.highest - self.lowest < NARROW * width:
            return f"values {found} fill little of {where}"
        return ""


@dataclass
class Outside:
    """Samples held against the range of each input.

    Args:
        spans: lowest and highest value by input.

    Example:
        >>> seen = Outside({"x": (0.0, 1.0)})
        >>> seen.add(np.float32([[0, 64, 128, 255]]))
        >>> print(*seen.warnings())
        x: 75 % of the values, from 0 to 255, lie outside the range 0 to 1 that the file was quantized for; prepare \
them as those it was quantized for (mean, std and kind in a card), or quantize it anew for these
    """

    spans: Mapping[Name, tuple[float, float]] = field(default_factory=dict)
    seen: dict[Name, Seen] = field(default_factory=dict)

    def add(self, feed: Feed) -> None:
        """Take a batch; an array is of the only input."""
        named = feed if isinstance(feed, Mapping) else dict.fromkeys(self.spans, feed) if len(self.spans) == 1 else {}
        for name in self.spans.keys() & named.keys():
            values, (low, high) = np.asarray(named[name]), self.spans[name]
            if not values.size:
                continue
            margin = MARGIN * (high - low)
            outside = int(np.count_nonzero((values < low - margin) | (values > high + margin)))
            self._take(name, Seen(low, high, float(values.min()), float(values.max()), values.size, outside))

    def merge(self, other: Self) -> None:
        """Take what another has seen."""
        for name, seen in other.seen.items():
            self._take(name, seen)

    def _take(self, name: Name, new: Seen) -> None:
        old = self.seen.get(name, Seen(new.low, new.high))
        ends = min(old.lowest, new.lowest), max(old.highest, new.highest)
        self.seen[name] = Seen(new.low, new.high, *ends, old.count + new.count, old.outside + new.outside)

    def warnings(self) -> Iterator[str]:
        """A sentence for each input whose samples are of another range."""
        for name, seen in self.seen.items():
            if doubt := seen.doubt:
                yield f"{name}: {doubt}; {ADVICE}"
