"""The channels of a whole network behind one another: one record of flat arrays each, so that sums are vectorized."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np

from ..ir.model import Array
from ..ir.weights import Layer

T = TypeVar("T")


@dataclass(frozen=True)
class Rows:
    """Output channels of all layers, `(R,)` each."""

    gain: Array  # noise over signal at the network's outputs per unit of noise variance, original units
    scale: Array  # class of the channel's scale
    group: Array  # the layer's group that it belongs to, counted through all layers
    unit: Array  # the range that its weights use, counted through all layers
    coarse: Array  # whether the range serves all rows of the layer; else the row has its own, which takes its scale up
    most: Array  # the largest shift that it may have; 0 where the format has none


@dataclass(frozen=True)
class Columns:
    """Input channels of all layers, `(I,)` each."""

    energy: Array  # Σ over taps of the variance that the channel feeds into the layer, original units squared
    share: Array  # 1 / taps: what one weight has of it
    scale: Array  # class of the channel's scale
    group: Array  # the layer's group that reads it, counted through all layers


@dataclass(frozen=True)
class WeightBlock:
    """One layer's part of the rows and columns, and its weights.

    Attributes:
        peaks: `(G, O, I)` largest weights over the taps, original units, ≥ 0: of either sign where the format is
            symmetric, else above and below zero.
    """

    layer: Layer
    peaks: tuple[Array, ...]
    taps: int  # weights per pair of channels
    rows: slice  # and columns, units: its parts of the flat arrays
    columns: slice
    units: slice
    fine: bool  # whether every row has a range of its own


@dataclass(frozen=True)
class Near:
    """Weights that may leave their range: the largest over the taps of a pair of channels, `(W,)` each."""

    peak: Array  # its magnitude, original units, > 0
    row: Array  # and column: the channels
    column: Array
    below: Array  # whether it is the lower end of the range that bounds it; False where one end serves both


@dataclass(frozen=True)
class TensorColumns:
    """Channels of all tensors that are rounded, `(N,)` each, in original units.

    Attributes:
        movable: whether the end of the grid takes the place of its clip's bound, so that a bound too high costs, too.
    """

    mean: Array  # and up, down, floor, cap, slope: as in `Distribution` and `Activation`
    up: Array
    down: Array
    floor: Array
    cap: Array
    slope: Array
    rounding: Array  # gain of rounding noise, times the share of values that are rounded
    clipping: Array  # gain of what is cut off
    scale: Array  # class of the channel's scale
    grid: Array  # the grid that rounds it, counted through those that are variables
    movable: Array


def joined(kind: type[T], parts: list[T]) -> T:
    """The records behind one another; arrays without entries where there are none."""
    none = np.zeros(0, np.int64)
    names = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    return kind(**{name: np.concatenate([getattr(p, name) for p in parts]) if parts else none for name in names})
