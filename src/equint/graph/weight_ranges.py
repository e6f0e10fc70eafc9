"""Weight ranges of channels for any channel scales, without rescaling the weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..ir.model import Array, Model, Name
from ..ops.layers import layers
from ..ops.norms import gains_of
from .channels import PINNED, Channels, Group

SPREAD = 6.0
"""Standard deviations that an activation is taken to reach."""


@dataclass(frozen=True)
class Side:
    """One side of one layer as a group sees it: which of the layer's channels are which of the group's."""

    peaks: Array  # `(G, O, I)` largest magnitude over taps
    inputs: Array  # and outputs: `(G, 1, I)` and `(G, O, 1)` classes of the layer's channels
    outputs: Array
    reduce: int  # the axis of `peaks` that the other side's channels run along
    channels: Array  # positions of the group's channels on this side
    members: Array  # and their positions in the group

    def ranges(self, scales: Array, size: int) -> Array:
        """Largest magnitude of each of the group's channels, `(size,)`; -1 where the layer does not hold one."""
        return self._of_members(self._by_channel(scales), size)

    def apart(self, scales: Array, size: int) -> tuple[Array, float]:
        """The same, 0 where the layer does not hold one, and the largest magnitude in all its other channels."""
        by_channel = self._by_channel(scales)
        others = float(np.delete(by_channel, self.channels).max(initial=0.0))
        return np.maximum(self._of_members(by_channel, size), 0.0), others

    @property
    def filled(self) -> bool:
        """Whether the group holds all channels on this side of the layer."""
        return self.channels.size == (self.inputs if self.reduce == 1 else self.outputs).size

    def _by_channel(self, scales: Array) -> Array:
        enters, leaves = scales[self.inputs], 1 / scales[self.outputs]
        if self.reduce == 1:
            return np.asarray(((self.peaks * leaves).max(1) * enters[:, 0]).ravel())
        return np.asarray(((self.peaks * enters).max(2) * leaves[:, :, 0]).ravel())

    def _of_members(self, by_channel: Array, size: int) -> Array:
        largest = np.full(size, -1.0)
        np.maximum.at(largest, self.members, by_channel[self.channels])
        return largest


class WeightRanges:
    """Both sides of every group; weights below the share `dead` of their layer's largest count as 0."""

    def __init__(self, model: Model, channels: Channels, dead: float = 0.0) -> None:
        table = {layer.name: layer for layer in layers(model.graph)}
        views = {name: _peaks(layer.unpack(model.graph.consts[layer.weight]), dead) for name, layer in table.items()}
        # keyed by the group's first class, which is in no other group
        self.sides: dict[int, tuple[list[Side], list[Side]]] = {}
        for group in channels.groups:
            sides: tuple[list[Side], list[Side]] = ([], [])
            for k, names in enumerate((group.producers, group.consumers)):
                for name in names:
                    g, o, i = views[name].shape
                    inputs = channels.of_input(model.graph, table[name])
                    outputs = channels.of_output(model.graph, table[name])
                    shaped = (inputs.reshape(g, 1, i), outputs.reshape(g, o, 1))
                    own = _members(group, inputs if k else outputs)
                    sides[k].append(Side(views[name], *shaped, 1 if k else 2, *own))
            sides[0].extend(_norm_side(model, channels, group, name) for name in group.norms)
            self.sides[int(group.classes[0])] = sides

    def of(self, group: Group) -> tuple[list[Side], list[Side]]:
        return self.sides[int(group.classes[0])]


def _members(group: Group, classes: Array) -> tuple[Array, Array]:
    """Positions of the group's channels among some, and theirs in the group."""
    positions = np.flatnonzero(np.isin(classes, group.classes))
    order = np.argsort(group.classes)
    return positions, order[np.searchsorted(group.classes[order], classes[positions])]


def _norm_side(model: Model, channels: Channels, group: Group, name: Name) -> Side:
    """A normalization, as weights that reach as far as what it gives: each of its channels is made of gain and bias."""
    node = model.graph.producer[name]
    gains = gains_of(model.graph, node)
    assert gains is not None  # or its channels were not free
    peaks = np.abs(gains.bias) + SPREAD * np.abs(gains.gain)
    classes = channels.of_norm(node, gains)
    shaped = (np.full((classes.size, 1, 1), PINNED), classes.reshape(-1, 1, 1))
    return Side(peaks.reshape(-1, 1, 1), *shaped, 2, *_members(group, classes))


def _peaks(view: Array, dead: float) -> Array:
    """Largest magnitude over taps; 0 where it is below the share `dead` of the layer's largest."""
    peaks = np.maximum(view.max(-1), -view.min(-1)).astype(np.float64)
    return np.where(peaks < dead * peaks.max(initial=0.0), 0.0, peaks)
