"""Predicted quantization noise of a network as a function of its channel scales and ranges, with its gradient.

The variables are logarithms: of every free channel scale, of both ends of every activation grid, and of both
ends of every weight range. All layers' channels lie behind one another in flat arrays, so that one evaluation
is a handful of vector operations, whatever the number of layers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..graph.channels import Channels
from ..ir.model import Array, Graph, Model, Name, QSpec, Range
from ..ir.weights import Layer
from ..maths.noise import mismatch, rounding
from .sources import TensorSource, WeightSource

_New = Callable[[int], Array]

TINY = 1e-12
FACTORS = tuple(2.0 ** (k / 8) for k in (0, *range(1, 8), *range(-8, 0)))
"""How much wider or narrower the range of a weight may become when its shifts are chosen anew."""
REACHES = 1 / 3
"""Weights that reach this share of their range are watched for leaving it; the others are looked at again later."""


@dataclass(frozen=True)
class Noise:
    """Predicted noise over signal at the network's outputs, by where it comes from."""

    weights: float
    clipped_weights: float
    activations: float
    clipped_activations: float

    @property
    def total(self) -> float:
        """The sum: sources are taken as independent."""
        return self.weights + self.clipped_weights + self.activations + self.clipped_activations


class Objective:
    """Σ over layers and tensors of noise · gain, for one network and one pair of formats.

    With s the scales of a layer's outputs, t of its inputs, and grids in rescaled units,

        weights      Δw²/12 · Σ_o g_o·s_o²·4^-S_o · Σ_i e_i/t_i²   (Δw per output channel where the grid is)
        clipped      Σ_oi g_o·s_o²·e_i/t_i²/K · (|W_oi|·t_i/s_o − range)²₊
        activations  Σ_c g_c·[s_c²·Δx²/12·P_c + E[(min(z, s_c·hi) − min(z, cap_c))²] + the same below]

    A range is a variable like the scales: what lies outside pays, so no maximum needs smoothing. Shifts S, where the
    format has them, are chosen anew by `shift`, for the scales and about the ranges that are then.
    """

    def __init__(
        self,
        model: Model,
        channels: Channels,
        tensors: list[TensorSource],
        weights: list[WeightSource],
        weight: QSpec,
        activation: QSpec | None,
        held: frozenset[int],
        priced: frozenset[Name],
        shift_bits: int = 0,
    ) -> None:
        self.model, self.channels = model, channels
        self.free = np.concatenate([g.classes for g in channels.groups] or [np.zeros(0, np.int64)])
        self.number = np.full(channels.size, -1)
        self.number[self.free] = np.arange(self.free.size)
        self.size = self.free.size
        self.weights = _Weights(model.graph, channels, weights, weight, shift_bits, self._new)
        self.tensors = _Tensors(model, channels, tensors, activation, held, priced, self._new)

    def _new(self, count: int) -> Array:
        self.size += count
        return np.arange(self.size - count, self.size)

    def scales(self, x: Array) -> Array:
        """`(channels.size,)` scales of all classes; 1 where they are not free."""
        scales = np.ones(self.channels.size)
        scales[self.free] = np.exp(x[: self.free.size])
        return scales

    def start(self, scales: Array) -> Array:
        """The variables for given scales, with ranges that hold everything."""
        x = np.zeros(self.size)
        x[: self.free.size] = np.log(scales[self.free])
        self.weights.widest(x, scales)
        self.tensors.widest(x, scales)
        return x

    def watch(self, x: Array) -> None:
        """Choose anew which weights are watched for leaving their ranges."""
        self.weights.watch(x, self.scales(x))

    def shift(self, x: Array) -> None:
        """Choose the shifts of least noise anew; ranges of weights in `x` may move with them."""
        self.weights.shift_rows(x, self.scales(x))

    def shifts(self) -> dict[Name, Array]:
        """The shifts chosen last, `(O,)`, by their layer's output; none where the format has none."""
        return self.weights.shifts()

    def __call__(self, x: Array) -> tuple[Noise, Array]:
        """The noise, and its gradient with respect to `x`."""
        scales, gradient, by_class = self.scales(x), np.zeros(self.size), np.zeros(self.channels.size)
        weights, clipped = self.weights.noise(x, scales, gradient, by_class)
        activations, saturated = self.tensors.noise(x, scales, gradient, by_class)
        gradient[: self.free.size] += by_class[self.free]
        return Noise(weights, clipped, activations, saturated), gradient

    def weight_ranges(self, x: Array) -> dict[Name, Range]:
        """Ranges chosen for weights after rescaling, by their layer's output: scalars, or `(O,)` per channel."""
        return self.weights.ranges(x, self.scales(x))

    def tensor_ranges(self, x: Array) -> dict[int, Range]:
        """The chosen range of every grid, by number of its placement class."""
        return self.tensors.ranges(x)


class _Weights:
    """Rows are output channels of all layers, columns input channels, units what has a range of its own."""

    def __init__(
        self, graph: Graph, channels: Channels, sources: list[WeightSource], spec: QSpec, shift_bits: int, new: _New
    ) -> None:
        self.levels = 2 ** (spec.bits - 1) - 1 if spec.symmetric else 2**spec.bits - 1
        self.layers: list[Layer] = [s.layer for s in sources]
        self.parts: list[tuple[Array, ...]] = []
        self.slices: list[tuple[int, int, int]] = []
        rows: list[tuple[Array, ...]] = []
        columns: list[tuple[Array, ...]] = []
        units = segments = first = 0
        for source in sources:
            layer = source.layer
            w = layer.unpack(graph.consts[layer.weight])
            g, o, i, taps = w.shape
            fine = spec.granularity == "channel" and layer.out_axis() is not None
            group = np.repeat(np.arange(g), o) + segments
            unit = units + (np.arange(g * o) if fine else np.zeros(g * o, np.int64))
            out = channels.of_output(graph, layer)
            shifted = spec.granularity == "shift" and layer.out_axis() is not None and layer.x_axis != -2
            most = np.full(g * o, (1 << shift_bits) - 1 if shifted else 0)
            rows.append((source.gain.ravel(), out, group, unit, np.full(g * o, not fine), most))
            enter = channels.of_input(graph, layer)
            columns.append((source.energy.ravel(), enter, np.repeat(np.arange(g), i) + segments))
            high, low = np.maximum(w.max(-1), 0), np.maximum(-w.min(-1), 0)
            peaks = (np.maximum(high, low),) if spec.symmetric else (high, low)
            self.parts.append((*peaks, np.asarray(taps)))
            self.slices.append((units, units + (g * o if fine else 1), first))
            units, segments, first = units + (g * o if fine else 1), segments + g, first + g * o
        self.gain, self.out, self.segment, self.unit, self.coarse, self.most = _joined(rows, 6)
        self.shift = np.zeros(self.most.size, np.int64)
        self.energy, self.enter, self.column_segment = _joined(columns, 3)
        self.segments, self.units = segments, units
        self.ends = [new(units)] if spec.symmetric else [new(units), new(units)]

    def row_scale(self, scales: Array) -> Array:
        """s_o·2^-S_o where a grid serves many rows; 1 where each row has its own, which takes the scale up."""
        return np.where(self.coarse, np.ldexp(scales[self.out], -self.shift), 1.0)

    def noise(self, x: Array, scales: Array, gradient: Array, by_class: Array) -> tuple[float, float]:
        ends = [np.exp(x[e]) for e in self.ends]
        step = np.maximum(sum(ends) / self.levels, 1e-300)
        enter = self.energy / np.square(scales[self.enter])
        total = np.bincount(self.column_segment, enter, self.segments)
        row_gain = self.gain * np.square(self.row_scale(scales))
        square = rounding(step[self.unit])
        each = square * row_gain * total[self.segment]
        by_unit = np.bincount(self.unit, each, self.units)
        for variables, end in zip(self.ends, ends, strict=True):
            gradient[variables] += 2 * by_unit * end / (step * self.levels)
        by_class += np.bincount(self.out, 2 * each * self.coarse, by_class.size)
        behind = np.bincount(self.segment, square * row_gain, self.segments)
        by_class -= np.bincount(self.enter, 2 * enter * behind[self.column_segment], by_class.size)
        return float(each.sum()), self._clipped(ends, scales, row_gain, enter, gradient, by_class)

    def _clipped(
        self, ends: list[Array], scales: Array, row_gain: Array, enter: Array, gradient: Array, by_class: Array
    ) -> float:
        if not self.watched_peak.size:
            return 0.0
        row, column, side = self.watched_row, self.watched_column, self.watched_side
        unit = self.unit[row]
        now = self.watched_peak * scales[self.enter[column]] / self.row_scale(scales)[row]
        limit = np.where(side == 0, ends[0][unit], ends[-1][unit])
        over = np.maximum(now - limit, 0.0)
        hit = np.flatnonzero(over)
        row, column, unit, now, over, limit = row[hit], column[hit], unit[hit], now[hit], over[hit], limit[hit]
        weight = row_gain[row] * enter[column] * self.watched_share[hit]
        price = weight * np.square(over)
        slope = 2 * weight * over
        coarse = self.coarse[row]
        by_class += np.bincount(self.enter[column], slope * now - 2 * price, by_class.size)
        by_class += np.bincount(self.out[row], (2 * price - slope * now) * coarse, by_class.size)
        for k, variables in enumerate(self.ends):
            mine = (side[hit] == 0) if k == 0 else (side[hit] == 1)
            gradient[variables] -= np.bincount(unit[mine], (slope * limit)[mine], self.units)
        return float(price.sum())

    def widest(self, x: Array, scales: Array) -> None:
        self.shift[:] = 0
        self._widest(x, scales)
        if self.most.any():
            self.shift_rows(x, scales)
            self._widest(x, scales)
        self.watch(x, scales)

    def _widest(self, x: Array, scales: Array) -> None:
        row_scale = self.row_scale(scales)
        for k, variables in enumerate(self.ends):
            for (begin, end, first), layer_peaks, columns in zip(self.slices, self.parts, self._columns(), strict=True):
                now = self._rescaled(layer_peaks[k], first, columns, scales, row_scale)
                widest = now.max(-1).ravel() if end - begin > 1 else now.max().reshape(1)
                x[variables[begin:end]] = np.log(np.maximum(widest, TINY * max(float(now.max()), TINY)))

    def shift_rows(self, x: Array, scales: Array) -> None:
        """The shifts of least noise, of rounding and of what is cut off, for ranges up to twice as wide or half."""
        alone, enter = np.where(self.coarse, scales[self.out], 1.0), self.energy / np.square(scales[self.enter])
        total = np.bincount(self.column_segment, enter, self.segments)
        row_gain = self.gain * np.square(alone)
        for (begin, _, first), parts, columns in zip(self.slices, self.parts, self._columns(), strict=True):
            g, o, i = parts[0].shape
            rows = slice(first, first + g * o)
            if not self.most[first]:
                continue
            ends = [float(np.exp(x[e[begin]])) for e in self.ends]
            worth = (row_gain[rows].reshape(g, o), enter[columns : columns + g * i].reshape(g, 1, i) / int(parts[-1]))
            peaks = [self._rescaled(p, first, columns, scales, alone) for p in parts[:-1]]
            rounding_gain = (row_gain[rows] * total[self.segment[rows]]).reshape(g, o) * rounding(
                sum(ends) / self.levels
            )
            tried = [_row_shifts(peaks, ends, f, rounding_gain, worth, int(self.most[first])) for f in FACTORS]
            best = min(range(len(tried)), key=lambda k: tried[k][0])
            self.shift[rows] = tried[best][1].ravel()
            for variables in self.ends:
                x[variables[begin]] = np.log(np.exp(x[variables[begin]]) * FACTORS[best])

    def shifts(self) -> dict[Name, Array]:
        return {
            layer.y: self.shift[first : first + p[0].shape[0] * p[0].shape[1]].astype(np.int32)
            for (_, _, first), p, layer in zip(self.slices, self.parts, self.layers, strict=True)
            if self.most[first]
        }

    def watch(self, x: Array, scales: Array) -> None:
        row_scale, found = self.row_scale(scales), list[tuple[Array, ...]]()
        for k, variables in enumerate(self.ends):
            for (begin, end, first), parts, columns in zip(self.slices, self.parts, self._columns(), strict=True):
                peaks = parts[k]
                now = self._rescaled(peaks, first, columns, scales, row_scale)
                limit = np.exp(x[variables[begin:end]]) * REACHES
                group, out, enter = np.nonzero(now > (limit.reshape(*now.shape[:2], 1) if end - begin > 1 else limit))
                row = first + group * peaks.shape[1] + out
                column = columns + group * peaks.shape[2] + enter
                side = np.full(row.size, k)
                found.append((peaks[group, out, enter], row, column, side, np.full(row.size, 1 / int(parts[-1]))))
        every = _joined(found, 5)
        self.watched_peak, self.watched_row, self.watched_column, self.watched_side, self.watched_share = every

    def _columns(self) -> list[int]:
        sizes = [p[0].shape[0] * p[0].shape[2] for p in self.parts]
        return [int(v) for v in np.concatenate([[0], np.cumsum(sizes)])[:-1]] if sizes else []

    def _rescaled(self, peaks: Array, first: int, column: int, scales: Array, row_scale: Array) -> Array:
        g, o, i = peaks.shape
        enter = scales[self.enter[column : column + g * i]].reshape(g, 1, i)
        out = row_scale[first : first + g * o].reshape(g, o, 1)
        return np.asarray(peaks * (enter.astype(np.float32) / out.astype(np.float32)))

    def ranges(self, x: Array, scales: Array) -> dict[Name, Range]:
        found = {}
        for (begin, end, first), layer in zip(self.slices, self.layers, strict=True):
            high, low = np.exp(x[self.ends[0][begin:end]]), np.exp(x[self.ends[-1][begin:end]])
            if end - begin > 1:  # units of rows are before the division by their own scales
                own = scales[self.out[first : first + end - begin]]
                high, low = high / own, low / own
            elif not self.coarse[first]:
                high, low = high / scales[self.out[first]], low / scales[self.out[first]]
            else:
                high, low = high[0], low[0]
            found[layer.y] = Range(-np.asarray(low), np.asarray(high))
        return found


def _row_shifts(
    peaks: list[Array], ends: list[float], factor: float, rounded: Array, worth: tuple[Array, Array], most: int
) -> tuple[float, Array]:
    """(noise, `(G, O)` shifts) if the range is `factor` times as wide: each row the better of what fits and one more.

    Args:
        peaks: `(G, O, I)` largest weights up and down, before shifts. ends: of the range, up and down.
        rounded: `(G, O)` rounding noise without shifts at factor 1. worth: of a squared error, by row and by column.
    """
    limits = [e * factor for e in ends[: len(peaks)]]
    room = np.min([limit / np.maximum(p.max(-1), TINY * limit) for p, limit in zip(peaks, limits, strict=True)], 0)
    fits = np.clip(np.floor(np.log2(room * (1 + 1e-9))), 0, most).astype(np.int64)
    found: list[Array] = []
    for shift in (fits, np.minimum(fits + 1, most)):
        cut = np.zeros(fits.shape)
        for p, limit in zip(peaks, limits, strict=True):
            over = np.maximum(p - np.ldexp(limit, -shift)[..., None].astype(np.float32), 0.0)
            cut += worth[0] * np.einsum("goi,goi,gi->go", over, over, worth[1][:, 0])
        found.append(rounded * factor**2 * 4.0**-shift + cut)
    more = found[1] < found[0]
    return float(np.where(more, found[1], found[0]).sum()), np.where(more, np.minimum(fits + 1, most), fits)


class _Tensors:
    """Channels of all tensors that a quantizer rounds; grids are what they share."""

    def __init__(
        self,
        model: Model,
        channels: Channels,
        sources: list[TensorSource],
        spec: QSpec | None,
        held: frozenset[int],
        priced: frozenset[Name],
        new: _New,
    ) -> None:
        self.levels = 0 if spec is None else 2**spec.bits - 1
        chosen = [s for s in sources if s.grid not in held and (spec is not None or s.clip is not None)]
        numbers = sorted({s.grid for s in chosen})
        self.grids = {grid: k for k, grid in enumerate(numbers)}
        columns: list[tuple[Array, ...]] = []
        for s in chosen:
            ids = np.broadcast_to(channels.ids[s.name], s.shape).ravel()
            shared = s.clip is not None and s.clip.outputs[0] in priced
            n = ids.size
            grid = np.full(n, self.grids[s.grid])
            columns.append(
                (s.mean, s.up, s.down, s.floor, s.cap, np.full(n, s.slope), s.scattered * s.active, s.steady)
                + (ids, grid, np.full(n, shared))
            )
        every = _joined(columns, 11)
        self.mean, self.up, self.down, self.floor, self.cap, self.slope, self.scattered, self.steady = every[:8]
        self.ids, self.grid, self.shared = every[8:]
        count = len(numbers)
        self.negative = np.bincount(self.grid, (self.floor < 0) * 1.0, count) > 0
        self.high = new(count)
        symmetric = spec is not None and spec.symmetric
        self.low = self.high.copy() if symmetric else np.full(count, -1)
        if not symmetric:
            self.low[self.negative] = new(int(self.negative.sum()))
        self.below = self.negative[self.grid] & (self.floor < 0)
        self.outer = _reach(self, model, chosen)

    def ends(self, x: Array) -> tuple[Array, Array]:
        """Upper end, and minus the lower end, of every grid."""
        return np.exp(x[self.high]), np.where(self.low >= 0, np.exp(x[self.low]), 0.0)

    def noise(self, x: Array, scales: Array, gradient: Array, by_class: Array) -> tuple[float, float]:
        high, low = self.ends(x)
        count, s = high.size, scales[self.ids]
        rounded = 0.0
        if self.levels:
            step = (high + low) / self.levels
            each = self.scattered * rounding(s * step[self.grid])
            rounded = float(each.sum())
            by_class += np.bincount(self.ids, 2 * each, by_class.size)
            by_grid = 2 * np.bincount(self.grid, each, count) / (high + low)
            self._add(gradient, by_grid * high, by_grid * low)
        bound = high[self.grid] * s
        power, slope = mismatch(self.mean, self.up, bound, self.cap, self.shared)
        by_class += np.bincount(self.ids, self.steady * slope * bound, by_class.size)
        up = np.bincount(self.grid, self.steady * slope * bound, count)
        price = self.steady * power
        b = np.flatnonzero(self.below)
        under = low[self.grid[b]] * s[b]
        lower, fall = mismatch(
            -self.slope[b] * self.mean[b], self.slope[b] * self.down[b], under, -self.floor[b], False
        )
        price[b] += self.steady[b] * lower
        pull = self.steady[b] * fall * under
        by_class += np.bincount(self.ids[b], pull, by_class.size)
        self._add(gradient, up, np.bincount(self.grid[b], pull, count))
        return rounded, float(price.sum())

    def _add(self, gradient: Array, high: Array, low: Array) -> None:
        gradient[self.high] += high
        own = self.low >= 0
        gradient[self.low[own]] += low[own]

    def widest(self, x: Array, scales: Array) -> None:
        high, low = np.full(len(self.grids), TINY), np.full(len(self.grids), TINY)
        np.maximum.at(high, self.grid, self.outer[1] / scales[self.ids])
        np.maximum.at(low, self.grid, self.outer[0] / scales[self.ids])
        x[self.high] = np.log(high)
        own = self.low >= 0
        x[self.low[own]] = np.log(np.maximum(low[own], high[own] if np.array_equal(self.low, self.high) else 0.0))
        if np.array_equal(self.low, self.high):
            x[self.high] = np.log(np.maximum(high, low))

    def ranges(self, x: Array) -> dict[int, Range]:
        high, low = self.ends(x)
        return {grid: Range(np.asarray(-low[k]), np.asarray(high[k])) for grid, k in self.grids.items()}


def _reach(tensors: _Tensors, model: Model, chosen: list[TensorSource]) -> tuple[Array, Array]:
    """How far each channel reaches down and up by the ranges that the model has, or six deviations."""
    lows, highs = [np.zeros(0)], [np.zeros(0)]
    for s in chosen:
        known = model.ranges.get(s.name)
        lo = s.mean - 6 * s.std if known is None else np.broadcast_to(known.lo, s.shape).ravel()
        hi = s.mean + 6 * s.std if known is None else np.broadcast_to(known.hi, s.shape).ravel()
        lows.append(np.maximum(-np.maximum(lo, s.floor), 0))
        highs.append(np.maximum(np.minimum(hi, s.cap), 0))
    return np.concatenate(lows), np.concatenate(highs)


def _joined(tables: list[tuple[Array, ...]], width: int) -> list[Array]:
    return [np.concatenate([t[k] for t in tables]) if tables else np.zeros(0, np.int64) for k in range(width)]
