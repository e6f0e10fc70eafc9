"""How near every channel is to the dominant one, in weights and in activations, for any channel scales.

The channel with the largest magnitude sets the range of its tensor; the others may be amplified until they meet it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..ir.model import Array, Model, Name
from ..maths.scales import dominance
from ..ops.attributes import clip_bounds
from .channels import PINNED, Channels, Group
from .placement import place
from .weight_ranges import WeightRanges


@dataclass(frozen=True)
class Limits:
    """What holds each channel of a group, `(n,)` each."""

    kernel: Array  # the largest `dominance` over the layers that give the channel
    activation: Array  # the same over the grids that hold it
    clipped: Array  # whether it stands behind a bound that all channels share
    room: Array  # factor by which it may grow before it meets that bound; infinite without one, or if it stays at 0


class Extremes:
    """Largest magnitudes of weights and of activations, channel by channel.

    Activations count by grid, not by tensor: what is concatenated shares one grid, and its largest channel sets
    the range of all. What quantizers never see, such as what stands before a ReLU, does not count. `clips` are outputs
    of clips with one bound for all channels, which channels must not meet.
    """

    def __init__(self, model: Model, channels: Channels, clips: frozenset[Name] = frozenset()) -> None:
        self.weights = WeightRanges(model, channels)
        self.clipped, self.room = _rooms(model, channels, clips)
        self._grids: list[tuple[Array, Array]] = []
        self._grid_of: dict[Name, int] = {}
        for names in place(model.graph, model.apart).classes:
            known = [_magnitudes(model, channels, name) for name in names if name in model.ranges]
            if known:
                self._grid_of |= dict.fromkeys(names, len(self._grids))
                self._grids.append(_by_class(known))

    def known(self, group: Group) -> bool:
        """Whether anything tells how far the group's activations reach."""
        return any(name in self._grid_of for name in group.tensors)

    def alone(self, group: Group) -> bool:
        """Whether no other channel shares a weight or a grid with the group's, so that a common factor is free."""
        producers, consumers = self.weights.of(group)
        grids = (np.isin(classes, group.classes).all() for classes, _ in self._grids_of(group))
        return all(side.filled for side in (*producers, *consumers)) and all(grids)

    def successor(self, group: Group, scales: Array) -> Array:
        """The largest weight of any consumer for each channel over that consumer's largest, `(n,)`; else 1."""
        shares = np.zeros(group.classes.size)
        for side in self.weights.of(group)[1]:
            own, others = side.apart(scales, group.classes.size)
            shares = np.maximum(shares, dominance(own, others=others))
        return shares if np.any(shares) else np.ones_like(shares)

    def limits(self, group: Group, scales: Array, successor: Array | float = 1.0) -> Limits:
        """What holds the group's channels, when others are scaled by `scales` and these attenuated by `successor`."""
        size = group.classes.size
        kernels = [side.apart(scales, size) for side in self.weights.of(group)[0]]
        activations = []
        for classes, reach in self._grids_of(group):
            now, own = reach / scales[classes], np.isin(classes, group.classes)
            table = np.zeros(scales.size)
            table[classes] = now
            activations.append((table[group.classes], float(now[~own].max(initial=0.0))))
        kernel, activation = (
            np.max([dominance(x, successor, others) for x, others in rows], 0) for rows in (kernels, activations)
        )
        return Limits(kernel, activation, self.clipped[group.classes], self.room[group.classes])

    def _grids_of(self, group: Group) -> list[tuple[Array, Array]]:
        return [self._grids[k] for k in sorted({self._grid_of[n] for n in group.tensors if n in self._grid_of})]


def _magnitudes(model: Model, channels: Channels, name: Name) -> tuple[Array, Array]:
    """(classes, largest magnitudes) of a tensor; where its channels are unknown they count as pinned."""
    known, ids = model.ranges[name], channels.ids.get(name, np.full(1, PINNED))
    reach, classes = np.broadcast_arrays(np.maximum(np.abs(known.lo), np.abs(known.hi)), ids)
    return classes.ravel(), reach.ravel()


def _by_class(parts: list[tuple[Array, Array]]) -> tuple[Array, Array]:
    classes, where = np.unique(np.concatenate([c for c, _ in parts]), return_inverse=True)
    reach = np.zeros(classes.size)
    np.maximum.at(reach, where, np.concatenate([r for _, r in parts]))
    return classes, reach


def _rooms(model: Model, channels: Channels, clips: frozenset[Name]) -> tuple[Array, Array]:
    """Which classes pass one of `clips`, and how far each may grow before it meets a bound, `(channels.size,)`."""
    clipped, room = np.zeros(channels.size, bool), np.full(channels.size, np.inf)
    for name in sorted(clips):
        known, bounds = model.ranges[name], clip_bounds(model.graph, model.graph.producer[name])
        clipped[channels.ids[name]] = True
        for end, bound in zip((known.lo, known.hi), bounds, strict=True):
            if bound is None or not np.isfinite(bound) or bound == 0:
                continue
            share = np.clip(end / bound, 0.0, 1.0)
            left = np.divide(1.0, share, where=share > 0, out=np.full(np.shape(share), np.inf))
            left, classes = np.broadcast_arrays(left, channels.ids[name])
            np.minimum.at(room, classes.ravel(), left.ravel())
    return clipped, room
