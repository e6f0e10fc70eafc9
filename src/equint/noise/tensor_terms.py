"""Noise of rounded and saturated tensors as a function of channel scales and their grids' ends, with its gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from ..graph.channels import Channels
from ..ir.model import Array, Name, QSpec, Range
from ..maths.noise import beyond, mismatch, rounding
from ..maths.scales import power_of_two_factors
from .columns import TensorColumns, joined
from .constants import NoiseModel
from .rounded import RoundedTensor

TINY = 1e-12
"""The least that the end of a grid is from 0: its logarithm is a variable."""


class TensorTerms:
    """The noise of all tensors that a quantizer rounds. Variables are logarithms of both ends of every grid.

    Attributes:
        grids: number of every grid among the variables, by number of its placement class.
        high: `(grids,)` numbers of the variables of upper ends.
        signed: `(grids,)` whether a grid has a lower end. low: numbers of their variables, in the same order; the
            upper ends' own where the format is symmetric.
    """

    def __init__(
        self,
        channels: Channels,
        tensors: list[RoundedTensor],
        ranges: Mapping[Name, Range],
        spec: QSpec | None,
        movable: frozenset[Name],
        new: Callable[[int], Array],
        noise: NoiseModel,
    ) -> None:
        tensors = [t for t in tensors if spec is not None or t.activation.clip is not None]
        self.levels = None if spec is None else 2**spec.bits - 1
        self.spec = spec
        self.grids = {grid: k for k, grid in enumerate(sorted({t.grid for t in tensors}))}
        self.columns = joined(
            TensorColumns, [_columns(t, channels, self.grids[t.grid], movable, noise) for t in tensors]
        )
        self.least, self.most = _extents(tensors, ranges)
        self.high = new(len(self.grids))
        negative = self.columns.floor < 0
        by_sign = spec is not None and spec.by_sign
        if by_sign:  # what is negative in no range has an unsigned grid
            negative &= self._each(negative & (self.least > 0))[self.columns.grid]
        falls = self._each(negative)
        self.symmetric = spec is not None and spec.symmetric
        self.signed = np.ones(self.high.size, bool) if self.symmetric and not by_sign else falls
        self.low = self.high[self.signed] if self.symmetric else new(int(falls.sum()))
        self.below = b = np.flatnonzero(negative)
        c = self.columns
        lows = (-c.slope[b] * c.mean[b], c.slope[b] * c.down[b], -c.floor[b])
        self.behind = beyond(c.mean, c.up, c.cap), beyond(*lows)

    def noise(self, x: Array, scales: Array, gradient: Array, by_class: Array) -> tuple[float, float]:
        """Noise of what is rounded and of what is cut off; derivatives are added to `gradient` and `by_class`."""
        columns, grid = self.columns, self.columns.grid
        high, low = self._ends(x)
        count, s = high.size, scales[columns.scale]
        rounded = 0.0
        if self.levels is not None:
            step = (high + low) / self.levels
            each = columns.rounding * rounding(s * step[grid])
            rounded = float(each.sum())
            by_class += np.bincount(columns.scale, 2 * each, by_class.size)
            by_grid = 2 * np.bincount(grid, each, count) / (high + low)
            self._add(gradient, by_grid * high, by_grid * low)
        bound = high[grid] * s
        power, slope = mismatch(columns.mean, columns.up, bound, columns.cap, columns.movable, self.behind[0])
        cost, pull = columns.clipping * power, columns.clipping * slope * bound
        by_class += np.bincount(columns.scale, pull, by_class.size)
        up = np.bincount(grid, pull, count)
        b = self.below  # the same for the lower ends, with all signs turned
        leak, bound = columns.slope[b], low[grid[b]] * s[b]
        lows = (-leak * columns.mean[b], leak * columns.down[b])
        power, slope = mismatch(*lows, bound, -columns.floor[b], False, self.behind[1])
        cost[b] += columns.clipping[b] * power
        pull = columns.clipping[b] * slope * bound
        by_class += np.bincount(columns.scale[b], pull, by_class.size)
        self._add(gradient, up, np.bincount(grid[b], pull, count))
        return rounded, float(cost.sum())

    def _each(self, columns: Array) -> Array:
        """Which grids have any of the channels told, `(grids,)`."""
        return np.bincount(self.columns.grid[columns], minlength=self.high.size) > 0

    def _by_grid(self, high: Array, low: Array, scales: Array) -> Array:
        """The noise of each grid's tensors, `(grids,)`."""
        columns, grid, s = self.columns, self.columns.grid, scales[self.columns.scale]
        cost = columns.rounding * rounding(s * self._step(high, low)[grid])
        bounds = mismatch(columns.mean, columns.up, high[grid] * s, columns.cap, columns.movable, self.behind[0])
        cost += columns.clipping * bounds[0]
        b = self.below
        leak, bound = columns.slope[b], low[grid[b]] * s[b]
        lows = (-leak * columns.mean[b], leak * columns.down[b])
        cost[b] += columns.clipping[b] * mismatch(*lows, bound, -columns.floor[b], False, self.behind[1])[0]
        return np.bincount(grid, cost, high.size)

    def _step(self, high: Array, low: Array) -> Array:
        """The step that `choose_qparams` makes of these ends."""
        assert self.spec is not None
        whole, half = (high + low) / (2**self.spec.bits - 1), high / (2 ** (self.spec.bits - 1) - 1)
        return np.where(self.signed, half, whole) if self.symmetric else np.asarray(whole)

    def powers(self) -> list[Array]:
        """Numbers of the variables of each range whose step must be a power of two."""
        if self.spec is None or not self.spec.power_of_two:
            return []
        lows = dict(zip(np.flatnonzero(self.signed), self.low, strict=True))
        return [np.unique([high, lows.get(k, high)]) for k, high in enumerate(self.high)]

    def choose_powers(self, x: Array, scales: Array) -> None:
        """Set the ranges whose steps must be powers of two, of least noise each."""
        if self.spec is None or not self.spec.power_of_two:
            return
        ends = self._ends(x)
        tried = [tuple(end * factor for end in ends) for factor in power_of_two_factors(self._step(*ends))]
        best = np.argmin([self._by_grid(high, low, scales) for high, low in tried], 0)
        high, low = (np.choose(best, [t[k] for t in tried]) for k in range(2))
        x[self.high], x[self.low] = np.log(high), np.log(low[self.signed])

    def widest(self, x: Array, scales: Array) -> None:
        high, low = np.full(self.high.size, TINY), np.full(self.high.size, TINY)
        np.maximum.at(high, self.columns.grid, self.most / scales[self.columns.scale])
        np.maximum.at(low, self.columns.grid, self.least / scales[self.columns.scale])
        if self.symmetric:
            high = low = np.where(self.signed, np.maximum(high, low), high)
        x[self.high], x[self.low] = np.log(high), np.log(low[self.signed])

    def ranges(self, x: Array) -> dict[int, Range]:
        high, low = self._ends(x)
        return {grid: Range(np.asarray(-low[k]), np.asarray(high[k])) for grid, k in self.grids.items()}

    def _ends(self, x: Array) -> tuple[Array, Array]:
        """Upper end, and minus the lower end, of every grid."""
        low = np.zeros(self.high.size)
        low[self.signed] = np.exp(x[self.low])
        return np.exp(x[self.high]), low

    def _add(self, gradient: Array, high: Array, low: Array) -> None:
        gradient[self.high] += high
        gradient[self.low] += low[self.signed]


def _columns(
    tensor: RoundedTensor, channels: Channels, grid: int, movable: frozenset[Name], noise: NoiseModel
) -> TensorColumns:
    before, activation = tensor.before, tensor.activation
    count = before.mean.size
    return TensorColumns(
        mean=before.mean,
        up=before.up,
        down=before.down,
        floor=activation.floor,
        cap=activation.cap,
        slope=np.full(count, activation.slope),
        rounding=tensor.scattered * tensor.active,
        clipping=tensor.steady * noise.saturation,
        scale=np.broadcast_to(channels.ids[tensor.name], tensor.shape).ravel(),
        grid=np.full(count, grid),
        movable=np.full(count, activation.clip is not None and activation.clip.outputs[0] in movable),
    )


def _extents(tensors: list[RoundedTensor], ranges: Mapping[Name, Range]) -> tuple[Array, Array]:
    """How far each channel reaches down and up, `(N,)` ≥ 0: by its tensor's range, or six deviations."""
    downs, ups = [np.zeros(0)], [np.zeros(0)]
    for t in tensors:
        m, known = t.before, ranges.get(t.name)
        lo = m.mean - 6 * m.std if known is None else np.broadcast_to(known.lo, t.shape).ravel()
        hi = m.mean + 6 * m.std if known is None else np.broadcast_to(known.hi, t.shape).ravel()
        downs.append(np.maximum(-np.maximum(lo, t.activation.floor), 0))
        ups.append(np.maximum(np.minimum(hi, t.activation.cap), 0))
    return np.concatenate(downs), np.concatenate(ups)
