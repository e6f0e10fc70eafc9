"""Noise of rounded and clipped weights as a function of channel scales and weight ranges, with its gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..graph.channels import Channels
from ..ir.model import Array, Graph, Name, QSpec, Range
from ..maths.noise import rounding
from ..maths.scales import power_of_two_factors
from .columns import Columns, Near, Rows, WeightBlock, joined
from .constants import NoiseModel
from .rounded import RoundedLayer

TINY = 1e-12
"""The least share of a layer's largest weight that a range reaches: its logarithm is a variable."""
LEAST = 1e-200
"""No range of weights ends nearer to 0."""


ALIKE = 1e-6
"""Ranges whose noise differs by less are alike, as half a range is whose shifts are all one less: the first counts."""
SURELY = 0.999
"""Weights this share of their range off are within it, whatever float32 rounds."""


class WeightTerms:
    """The noise of all layers' weights. Variables are logarithms of the ends of their ranges, in rescaled units.

    Attributes:
        ends: numbers of the variables, `(units,)` each: one where the format is symmetric, else upper and lower.
        shift: `(R,)` shift of every row, chosen last.
    """

    def __init__(
        self,
        graph: Graph,
        channels: Channels,
        layers: list[RoundedLayer],
        spec: QSpec,
        shift_bits: int,
        new: Callable[[int], Array],
        noise: NoiseModel,
    ) -> None:
        self.levels = 2 ** (spec.bits - 1) - 1 if spec.symmetric else 2**spec.bits - 1
        self.power_of_two = spec.power_of_two
        self.constants = noise
        self.blocks: list[WeightBlock] = []
        rows, columns = list[Rows](), list[Columns]()
        row = column = unit = group = 0
        for rounded in layers:
            layer = rounded.layer
            w = layer.unpack(graph.consts[layer.weight])
            g, o, i, taps = w.shape
            fine = spec.granularity == "channel" and layer.out_axis() is not None
            shifted = spec.granularity == "shift" and layer.out_axis() is not None and not layer.weight_first
            groups, units = group + np.arange(g), g * o if fine else 1
            rows.append(
                Rows(
                    gain=rounded.gain.ravel(),
                    scale=channels.of_output(graph, layer),
                    group=np.repeat(groups, o),
                    unit=unit + (np.arange(g * o) if fine else np.zeros(g * o, np.int64)),
                    coarse=np.full(g * o, not fine or spec.power_of_two),  # a step that is one cannot take a scale up
                    most=np.full(g * o, (1 << shift_bits) - 1 if shifted else 0),
                )
            )
            share, scale = np.full(g * i, 1 / taps), channels.of_input(graph, layer)
            columns.append(Columns(rounded.energy.ravel(), share, scale, np.repeat(groups, i)))
            above, below = np.maximum(w.max(-1), 0), np.maximum(-w.min(-1), 0)
            peaks = (np.maximum(above, below),) if spec.symmetric else (above, below)
            parts = slice(row, row + g * o), slice(column, column + g * i), slice(unit, unit + units)
            self.blocks.append(WeightBlock(layer, peaks, taps, *parts, fine))
            row, column, unit, group = row + g * o, column + g * i, unit + units, group + g
        self.rows, self.columns = joined(Rows, rows), joined(Columns, columns)
        self.any_coarse = bool(self.rows.coarse.any())
        self.groups, self.units = group, unit
        self.ends = [new(unit)] if spec.symmetric else [new(unit), new(unit)]
        self.shift = np.zeros(row, np.int64)
        self._seen: _Seen | None = None

    def noise(self, x: Array, scales: Array, gradient: Array, by_class: Array) -> tuple[float, float]:
        """Noise of what is rounded and of what is cut off; derivatives are added to `gradient` and `by_class`."""
        rows, columns = self.rows, self.columns
        ends = [np.exp(x[e]) for e in self.ends]
        step, row_scale = self._step(ends), self._row_scale(scales)
        enters, total, row_gain = self._costs(scales, row_scale)
        square = rounding(step[rows.unit])
        each = square * row_gain * total[rows.group]
        by_unit = np.bincount(rows.unit, each, self.units)
        for variables, end in zip(self.ends, ends, strict=True):
            gradient[variables] += 2 * by_unit * end / (step * self.levels)
        by_class += np.bincount(rows.scale, 2 * each * rows.coarse, by_class.size)
        behind = np.bincount(rows.group, square * row_gain, self.groups)
        by_class -= np.bincount(columns.scale, 2 * enters * behind[columns.group], by_class.size)
        return float(each.sum()), self._clipped(ends, scales, row_scale, row_gain, enters, gradient, by_class)

    def _clipped(
        self,
        ends: list[Array],
        scales: Array,
        row_scale: Array,
        row_gain: Array,
        enters: Array,
        gradient: Array,
        by_class: Array,
    ) -> float:
        rows, columns = self.rows, self.columns
        row, column, below, now, limit = self._outside(ends, scales, row_scale)
        over = now - limit
        weight = row_gain[row] * enters[column] * columns.share[column]
        cost = weight * np.square(over)
        slope = 2 * weight * over
        by_class += np.bincount(columns.scale[column], slope * now - 2 * cost, by_class.size)
        if self.any_coarse:
            by_class += np.bincount(rows.scale[row], (2 * cost - slope * now) * rows.coarse[row], by_class.size)
        for variables, mine in zip(self.ends, (np.logical_not(below), below), strict=False):
            gradient[variables] -= np.bincount(rows.unit[row[mine]], (slope * limit)[mine], self.units)
        return float(cost.sum())

    def _step(self, ends: list[Array]) -> Array:
        return np.asarray(np.maximum(sum(ends) / self.levels, 1e-300))

    def _costs(self, scales: Array, row_scale: Array) -> tuple[Array, Array, Array]:
        """What enters each column, what enters each group, and what each row's errors cost."""
        enters = self.columns.energy / np.square(scales[self.columns.scale])
        total = np.bincount(self.columns.group, enters, self.groups)
        return enters, total, self.rows.gain * np.square(row_scale)

    def _outside(self, ends: list[Array], scales: Array, row_scale: Array) -> tuple[Array, Array, Array, Array, Array]:
        """Weights outside their range: row, column, whether below, magnitude and limit in rescaled units."""
        seen = self._watched(ends, scales, row_scale)
        near, now, limit = seen.near, seen.near.peak * scales[seen.scale], np.concatenate(ends)[seen.end]
        if self.any_coarse:
            now /= row_scale[near.row]
        hit = np.flatnonzero(now > limit)
        row, column, below, now, limit = (a[hit] for a in (near.row, near.column, near.below, now, limit))
        return row, column, below, now, limit

    def _by_unit(self, ends: list[Array], scales: Array) -> Array:
        """The noise of each range's weights, `(units,)`."""
        rows, columns, row_scale = self.rows, self.columns, self._row_scale(scales)
        enters, total, row_gain = self._costs(scales, row_scale)
        each = rounding(self._step(ends)[rows.unit]) * row_gain * total[rows.group]
        row, column, _, now, limit = self._outside(ends, scales, row_scale)
        cost = row_gain[row] * enters[column] * columns.share[column] * np.square(now - limit)
        cut = np.bincount(rows.unit[row], cost, self.units)
        return np.asarray(np.bincount(rows.unit, each, self.units) + cut)

    def powers(self) -> list[Array]:
        """Numbers of the variables of each range whose step must be a power of two."""
        return [np.array(ends) for ends in zip(*self.ends, strict=True)] if self.power_of_two else []

    def choose_powers(self, x: Array, scales: Array) -> None:
        """Set the ranges whose steps must be powers of two, of least noise each."""
        if not self.power_of_two:
            return
        ends = [np.exp(x[e]) for e in self.ends]
        tried = [[end * factor for end in ends] for factor in power_of_two_factors(self._step(ends))]
        best = np.argmin([self._by_unit(t, scales) for t in tried], 0)
        for k, variables in enumerate(self.ends):
            x[variables] = np.log(np.choose(best, [t[k] for t in tried]))

    def _watched(self, ends: list[Array], scales: Array, row_scale: Array) -> _Seen:
        """Weights that may lie outside their ranges: looked for anew where others than the last ones could."""
        enters = scales[self.columns.scale]
        limits = np.stack([end[self.rows.unit] * row_scale for end in ends])
        if self._seen is None or self._seen.nearer(enters, limits) * self.constants.near > SURELY:
            found = list[Near]()
            for k, block in ((k, block) for k in range(len(ends)) for block in self.blocks):
                peaks = block.peaks[k]
                g, o, i = peaks.shape
                takes = enters[block.columns].reshape(g, 1, i).astype(np.float32)
                limit = (limits[k, block.rows] * self.constants.near).reshape(g, o, 1).astype(np.float32)
                at = np.flatnonzero(peaks * takes > limit)
                out, enter = np.divmod(at, i)
                row, column = block.rows.start + out, block.columns.start + out // o * i + enter
                found.append(Near(peaks.ravel()[at], row, column, np.full(row.size, k == 1)))
            near = joined(Near, found)
            end = self.rows.unit[near.row] + np.where(near.below, (len(ends) - 1) * self.units, 0)
            self._seen = _Seen(near, self.columns.scale[near.column], end, enters, limits)
        return self._seen

    def widest(self, x: Array, scales: Array) -> None:
        """Set ranges in `x` that hold all weights, and choose shifts for them."""
        self.shift[:] = 0
        self._hold_all(x, scales)
        if self.rows.most.any():
            self.choose_shifts(x, scales)
            self._hold_all(x, scales)

    def _hold_all(self, x: Array, scales: Array) -> None:
        row_scale = self._row_scale(scales)
        for k, variables in enumerate(self.ends):
            for block in self.blocks:
                now = self._rescaled(block, k, scales, row_scale)
                widest = now.max(-1).ravel() if block.fine else now.max()
                x[variables[block.units]] = np.log(np.maximum(widest, TINY * max(float(now.max()), TINY)))

    def choose_shifts(self, x: Array, scales: Array) -> None:
        """The shifts of least noise, of rounding and of what is cut off, for ranges up to twice as wide or half."""
        rows, columns, factors = self.rows, self.columns, self.constants.range_factors
        alone = np.where(rows.coarse, scales[rows.scale], 1.0)
        enters = columns.energy / np.square(scales[columns.scale])
        total = np.bincount(columns.group, enters, self.groups)
        row_gain = rows.gain * np.square(alone)
        for block in self.blocks:
            most = int(rows.most[block.rows][0])
            if not most:
                continue
            g, o, i = block.peaks[0].shape
            variables = [e[block.units] for e in self.ends]
            ends = [float(np.exp(x[v])[0]) for v in variables]
            costs = row_gain[block.rows].reshape(g, o), enters[block.columns].reshape(g, i) / block.taps
            peaks = [self._rescaled(block, k, scales, alone) for k in range(len(ends))]
            unshifted = (row_gain[block.rows] * total[rows.group[block.rows]]).reshape(g, o)
            rounded = unshifted * rounding(sum(ends) / self.levels)
            tried = [_row_shifts(peaks, [e * f for e in ends], rounded * f**2, costs, most) for f in factors]
            least = min(cost for cost, _ in tried)
            best = next(k for k, (cost, _) in enumerate(tried) if cost <= least * (1 + ALIKE))
            self.shift[block.rows] = tried[best][1].ravel()
            for v in variables:
                x[v] = np.log(np.exp(x[v]) * factors[best])

    def shifts(self) -> dict[Name, Array]:
        """The shifts chosen last, `(O,)`, by their layer's output; none where the format has none."""
        shifted = [b for b in self.blocks if self.rows.most[b.rows].any()]
        return {b.layer.y: self.shift[b.rows].astype(np.int32) for b in shifted}

    def ranges(self, x: Array, scales: Array) -> dict[Name, Range]:
        """Ranges after rescaling, by the layer's output: scalars, or `(O,)` per channel."""
        found = {}
        for block in self.blocks:
            high, low = (np.exp(x[e[block.units]]) for e in (self.ends[0], self.ends[-1]))
            if block.fine and not self.power_of_two:  # variables are in front of the division by the row's own scale
                own = scales[self.rows.scale[block.rows]]
                found[block.layer.y] = Range(-(low / own), high / own)
            elif block.fine:
                found[block.layer.y] = Range(-low, high)
            else:
                found[block.layer.y] = Range(np.asarray(-low[0]), np.asarray(high[0]))
        return found

    def _row_scale(self, scales: Array) -> Array:
        """s_o·2^-S_o where a grid serves many rows; 1 where each row has its own, which takes the scale up."""
        if not self.any_coarse:
            return np.ones(self.shift.size)
        return np.where(self.rows.coarse, np.ldexp(scales[self.rows.scale], -self.shift), 1.0)

    def _rescaled(self, block: WeightBlock, k: int, scales: Array, row_scale: Array) -> Array:
        g, o, i = block.peaks[k].shape
        enters = scales[self.columns.scale[block.columns]].reshape(g, 1, i)
        leaves = row_scale[block.rows].reshape(g, o, 1)
        return np.asarray(block.peaks[k] * (enters.astype(np.float32) / leaves.astype(np.float32)))


@dataclass(frozen=True)
class _Seen:
    """Weights near the ends of their ranges, and what scales and ends were when they were looked for.

    Attributes:
        scale: `(W,)` class of the scale of each one's column. end: `(W,)` which end of all ranges, upper ones first,
            bounds it.
        enters: `(I,)` scales of columns. limits: `(ends, R)` ends of the rows' ranges, in units of weights times those.
    """

    near: Near
    scale: Array
    end: Array
    enters: Array
    limits: Array

    def nearer(self, enters: Array, limits: Array) -> float:
        """How many times nearer to the end of its range any weight may have come, at most."""
        return float(np.max(enters / self.enters, initial=0.0) * np.max(self.limits / limits, initial=0.0))


def _row_shifts(
    peaks: list[Array], ends: list[float], rounded: Array, costs: tuple[Array, Array], most: int
) -> tuple[float, Array]:
    """Noise, and `(G, O)` shifts, for a range: of every row the largest that cuts nothing off, or better one more."""
    reach = [np.maximum(end, LEAST) for end in ends]  # weights may all be 0
    room = np.min([end / np.maximum(p.max(-1), TINY * end) for p, end in zip(peaks, reach, strict=True)], 0)
    fits = np.clip(np.floor(np.log2(room * (1 + 1e-9))), 0, most).astype(np.int64)
    more = np.minimum(fits + 1, most)
    fitting, shifted = rounded * 4.0**-fits, rounded * 4.0**-more
    tight = np.any(room < 1)  # else nothing is cut off where it fits
    for p, end in zip(peaks, ends, strict=True):
        shifted += costs[0] * _cut_off(p, np.ldexp(end, -more), costs[1])
        if tight:
            fitting += costs[0] * _cut_off(p, np.ldexp(end, -fits), costs[1])
    better = shifted < fitting
    return float(np.where(better, shifted, fitting).sum()), np.where(better, more, fits)


def _cut_off(peaks: Array, end: Array, worth: Array) -> Array:
    """Σ_i worth_i·(peak_oi − end_o)²₊, `(G, O)`."""
    over = peaks - end[..., None].astype(np.float32)
    np.maximum(over, 0.0, out=over)
    np.square(over, out=over)
    return np.asarray(np.einsum("goi,gi->go", over, worth.astype(np.float32)), np.float64)
