"""High-bias absorption: move what a ReLU always lets through into the next layer's bias."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ..graph.moments import propagate
from ..ir.edit import Editor
from ..ir.events import Event, EventKind
from ..ir.fields import aligned, per_channel
from ..ir.model import Array, Model, Node, Range, View
from ..ir.weights import Layer
from ..ops.activations import clamps
from ..ops.attributes import clip_bounds
from ..ops.layers import as_layer, layers, pads_zero, sees_all_taps
from . import Keeps, Stage, require


@dataclass(frozen=True)
class AbsorbBias:
    """b1 ← b1 − c, b2 ← b2 + (Σ_taps W2)·c with c = max(0, β − n·γ), per channel of layer–ReLU–layer.

    P(z < c) is Φ(−n): 0.1 % at the default n = 3 (Nagel et al. 2019, section 4.1.3). Left alone, each with
    an event: layers that pad with zeros (the border would see 0 instead of c), activations that others
    than layers read, channels that reach a clip's bound, and layers whose moments are only propagated.

    Attributes:
        padded: also into layers that pad with zeros, as published: all outputs get (Σ_taps W2)·c, those at the border
            c·Σ W2 of the taps that lie in the padding too much. Never into ConvTranspose, whose outputs see some of
            its taps only, wherever they lie.
    """

    keeps: ClassVar[Keeps] = Keeps.NEARLY
    stage: ClassVar[Stage] = Stage.BEFORE

    n: float = 3.0
    padded: bool = False

    def __post_init__(self) -> None:
        require("n", self.n, 0 < self.n < math.inf, "a number above 0")

    def __call__(self, model: Model) -> Model:
        editor, moments, views, ranges = Editor(model.graph), dict(model.moments), dict(model.views), dict(model.ranges)
        skipped: list[Event] = []
        channels = 0
        for layer in layers(model.graph):
            c = self._absorbable(model, layer)
            if c is None or not c.any():
                continue
            activation = model.graph.users(layer.y)[0]
            users = model.graph.users(activation.outputs[0])
            readers = [reader for user in users if (reader := as_layer(model.graph, user)) is not None]
            estimated = model.moments[layer.y].origin in ("propagated", "generated")
            why = "its moments are only estimated" if estimated else self._refusal(model, activation, readers, layer)
            if why:
                facts = {"channels": int(np.count_nonzero(c)), "why": why}
                skipped.append(Event(EventKind.BIAS_NOT_ABSORBED, layer.name, facts, "absorb_bias"))
                continue
            channels += int(np.count_nonzero(c))
            less = layer.shaped_bias(c)
            editor.edit(layer.node, 2, lambda b, c=less: (b - c).astype(b.dtype))  # type: ignore[misc]
            for reader in readers:
                _receive(model, editor, reader, c)
            shift = aligned(c, layer.y_axis, np.ndim(moments[layer.y].mean))
            for name in (layer.y, activation.outputs[0]):
                moments[name] = replace(moments[name], mean=moments[name].mean - shift)
                views[name] = _shifted(views.get(name), shift)
                if name in ranges:
                    least = 0.0 if name == activation.outputs[0] else -np.inf
                    lo, hi = (np.maximum(end - shift, least) for end in (ranges[name].lo, ranges[name].hi))
                    ranges[name] = Range(lo, hi)
        graph = editor.done()
        event = Event(EventKind.BIASES_ABSORBED, "", {"channels": channels}, "absorb_bias")
        moments = propagate(graph, moments)
        return replace(model, graph=graph, moments=moments, ranges=ranges, views=views).noted(event, *skipped)

    def _absorbable(self, model: Model, layer: Layer) -> Array | None:
        """c per output channel, or None where no ReLU or clip follows the layer alone."""
        users = model.graph.users(layer.y)
        m = model.moments.get(layer.y)
        if layer.bias is None or m is None or len(users) != 1 or layer.y in model.graph.outputs:
            return None
        if not clamps(users[0]):
            return None
        lo, hi = clip_bounds(model.graph, users[0])
        if lo is None or hi is None or np.any(lo != 0):
            return None
        count = layer.channels(model.graph.consts[layer.weight])[1]
        fields = [per_channel(np.asarray(f), layer.y_axis, count) for f in (m.mean, m.std)]
        if fields[0] is None or fields[1] is None:
            return None
        mean, std = fields[0], fields[1]
        bound = np.broadcast_to(hi.reshape(-1), (count,))
        return np.where(mean + self.n * std < bound, np.maximum(0.0, mean - self.n * std), 0.0)

    def _refusal(self, model: Model, activation: Node, readers: list[Layer], before: Layer) -> str:
        if activation.outputs[0] in model.graph.outputs or not model.graph.users(activation.outputs[0]):
            return "the activation is a network output"
        if len(readers) < len(model.graph.users(activation.outputs[0])):
            return "others than layers read the activation"
        if any(pads_zero(reader) and not (self.padded and sees_all_taps(reader)) for reader in readers):
            return "the next layer pads with zeros"
        rank = model.graph.rank(before.y) or 4
        channels = before.channels(model.graph.consts[before.weight])[1]
        for reader in readers:
            if (reader.x_axis - before.y_axis) % rank:
                return "the next layer reads it along another axis"
            if reader.channels(model.graph.consts[reader.weight])[0] != channels:
                return "the next layer reads other channels"
        return ""


def _receive(model: Model, editor: Editor, layer: Layer, c: Array) -> None:
    view = layer.unpack(model.graph.consts[layer.weight]).astype(np.float64)
    g, o, i, _ = view.shape
    extra = np.einsum("goik,gi->go", view, c.reshape(g, i)).reshape(-1)
    bias = editor.value(layer.node, 2)
    editor.set_bias(layer, (extra if bias is None else bias.reshape(-1) + extra).astype(np.float32))


def _shifted(view: View | None, shift: Array) -> View:
    return View(np.ones_like(shift), shift) if view is None else View(view.scale, view.offset + shift)
