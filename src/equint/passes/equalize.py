"""Cross-layer equalization on channel groups of any graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..channels import Channels, Group, clip_bounds, rescale, solve
from ..layout import as_layer, layers
from ..maths.scales import equalizing
from ..model import Array, Event, Model, Name
from . import Keeps


@dataclass(frozen=True)
class Equalize:
    """Choose channel scales so that the weight ranges on both sides of every group meet.

    For a pair of layers this is DFQ's s = sqrt(r1/r2). A group with several givers or takers (residual
    sums, concats, shared inputs) uses the geometric means of their ranges. Groups are swept in
    topological order until no scale moves by more than `tolerance`.

    Guards: a channel with a zero range keeps scale 1; no scale leaves [1/max_scale, max_scale]; and no
    channel is stretched until its activations reach more than `reach_limit` times as far as its tensor's
    upper quartile did after equalization, so that one channel cannot set a tensor's range (0 turns this off).

    Example:
        >>> from equint.layout import tiny_graph
        >>> Equalize()(Model(tiny_graph())).log[-1].did
        'equalization found no free channel scales'
    """

    keeps: ClassVar[Keeps] = Keeps.FUNCTION

    sweeps: int = 100
    tolerance: float = 1e-3
    max_scale: float = 1024.0
    reach_limit: float = 4.0

    def __call__(self, model: Model) -> Model:
        channels = solve(model)
        if not channels.groups:
            why = "; ".join(sorted(set(channels.pinned.values())))[:200] or "no layer feeds another"
            return model.noted(
                Event("equalization found no free channel scales", "", {"why": why}, "equalize", warning=True)
            )
        ranges = _Ranges(model, channels)
        least = np.maximum(channels.floor, 1 / self.max_scale)
        scales, sweeps, moved = self._swept(ranges, channels, np.ones(channels.size), least)
        events: list[Event] = []
        if self.reach_limit:
            stretched = _stretch_floor(model, channels, scales, self.reach_limit)
            for group in channels.groups:
                held = group.classes[scales[group.classes] < stretched[group.classes] * (1 - 1e-9)]
                if held.size:
                    facts = {"channels": int(held.size), "of": int(group.classes.size)}
                    events.append(Event("held back channels that would stretch a range", group.tensors[0], facts, "equalize"))
            if events:
                least = np.maximum(least, np.minimum(stretched, 1.0))
                scales, more, moved = self._swept(ranges, channels, np.maximum(scales, least), least)
                sweeps += more
        free = np.concatenate([g.classes for g in channels.groups])
        dead = int(np.sum(scales[free] == 1))
        facts = {
            "groups": len(channels.groups),
            "channels": int(free.size),
            "left at 1": dead,
            "sweeps": sweeps,
            "last move": float(moved),
            "largest scale": float(np.max(np.maximum(scales[free], 1 / scales[free]))),
        }
        done = Event("equalized", "", facts, "equalize", warning=bool(moved > self.tolerance))
        return rescale(model, channels, scales).noted(done, *events)

    def _swept(self, ranges: _Ranges, channels: Channels, scales: Array, least: Array) -> tuple[Array, int, float]:
        scales, moved, sweep = scales.copy(), 0.0, 0
        for sweep in range(1, self.sweeps + 1):
            before = scales.copy()
            for group in channels.groups:
                c = group.classes
                step = equalizing(*ranges.of(group, scales))
                scales[c] = np.clip(scales[c] * step, np.minimum(least[c], scales[c]), self.max_scale)
            moved = float(np.max(np.abs(np.log(scales / before))))
            if moved <= self.tolerance:
                break
        return scales, sweep, moved


class _Ranges:
    """Weight ranges of every layer's channels for any scales, without rescaling the weights."""

    def __init__(self, model: Model, channels: Channels) -> None:
        self.size = channels.size
        self.peaks: dict[Name, Array] = {}
        self.inputs: dict[Name, Array] = {}
        self.outputs: dict[Name, Array] = {}
        for layer in layers(model.graph):
            view = layer.unpack(model.graph.consts[layer.weight])
            g, o, i, _ = view.shape
            self.peaks[layer.name] = np.maximum(view.max(-1), -view.min(-1)).astype(np.float64)
            self.inputs[layer.name] = channels.of_input(model.graph, layer).reshape(g, 1, i)
            self.outputs[layer.name] = channels.of_output(model.graph, layer).reshape(g, o, 1)

    def of(self, group: Group, scales: Array) -> tuple[Array, Array]:
        """Geometric mean over givers of the output ranges, over takers of the input ranges, `(n,)` each."""
        return (
            self._mean([self._side(name, scales, 2, self.outputs) for name in group.givers])[group.classes],
            self._mean([self._side(name, scales, 1, self.inputs) for name in group.takers])[group.classes],
        )

    def _side(self, name: Name, scales: Array, reduce: int, classes: Mapping[Name, Array]) -> Array:
        now = self.peaks[name] * (scales[self.inputs[name]] / scales[self.outputs[name]])
        ranges = np.full(self.size, -1.0)
        np.maximum.at(ranges, classes[name].ravel(), now.max(reduce).ravel())
        return ranges

    @staticmethod
    def _mean(tables: list[Array]) -> Array:
        """Geometric mean of the tables that hold a class (a range of -1 says that one does not)."""
        stack = np.stack(tables)
        held = stack >= 0
        with np.errstate(divide="ignore"):
            logs = np.where(held, np.log(np.maximum(stack, 0)), 0.0)
        return np.where(held.any(0), np.exp(logs.sum(0) / np.maximum(held.sum(0), 1)), 0.0)


def _stretch_floor(model: Model, channels: Channels, scales: Array, limit: float) -> Array:
    """Least scale per class for which no tensor's channel reaches `limit` times its upper quartile."""
    least = np.zeros(channels.size)
    for name, ids in channels.ids.items():
        m = model.moments.get(name)
        if m is None or ids.size < 4:
            continue
        node = model.graph.producer.get(name)
        reach = np.abs(m.mean) + 6 * m.std
        if node is not None and node.op == "Clip":
            hi = clip_bounds(model.graph, node)[1]
            reach = np.minimum(reach, np.inf if hi is None else hi)
        elif any(user.op in ("Relu", "Clip") for user in model.graph.users(name)) and as_layer_output(model, name):
            continue  # what follows the clip counts, not what it cuts off
        reach, classes = (a.ravel() for a in np.broadcast_arrays(reach, ids))
        alive = (reach > 0) & (classes != 0)
        if not alive.any():
            continue
        bound = limit * np.quantile(reach[alive] / scales[classes[alive]], 0.75)
        np.maximum.at(least, classes, np.where(alive, reach / bound, 0.0))
    return least


def as_layer_output(model: Model, name: Name) -> bool:
    """Whether a weighted layer makes the tensor."""
    node = model.graph.producer.get(name)
    return node is not None and as_layer(model.graph, node) is not None
