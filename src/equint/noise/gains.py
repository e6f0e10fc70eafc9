"""How much of the noise in a tensor arrives at the network's outputs.

The mirror image of `graph/moments.py`: there, means and spreads travel forwards; here, the energy gain of small
disturbances travels backwards. A gain is in original units, so no choice of channel scales changes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import NamedTuple

import numpy as np

from ..graph.moments import window
from ..ir.fields import MOVES, aligned, moved, per_channel, regrouped, stacked
from ..ir.model import Array, Graph, Moments, Name, Node
from ..ir.weights import Layer, as_layer, layer_coverage
from ..maths.gaussian import between
from ..ops.attributes import clip_bounds, reduced_axes, resizes_channels
from .constants import MEASURED, NoiseModel

_Share = Callable[[float], float]
Found = list[tuple[Name, Array | None]]


class Gains(NamedTuple):
    """Gains of every tensor as fields: output noise over output signal per unit of noise variance in a channel.

    Attributes:
        scattered: of noise that is independent from position to position, as rounding makes it.
        steady: of noise that neighbouring positions share as they share the signal: of wrong weights and of clips.
    """

    scattered: Mapping[Name, Array]
    steady: Mapping[Name, Array]


def gains(graph: Graph, moments: Mapping[Name, Moments], noise: NoiseModel = MEASURED) -> Gains:
    """How much of every tensor's noise arrives at the outputs.

    A tensor with noise variance n_c in channel c adds Σ_c gain_c·n_c to the noise-to-signal ratio of the
    network's outputs (their sum where there are several). Behind a layer,

        gain_i = Σ_o κ_o^likeness · gain_o · Σ_k c_k·W_oik²

    κ_o is how many times output o varies more than it would if the layer's inputs were independent: BatchNorm
    tells, and noise shares part of it. Averaging n positions leaves pooled + (1 − pooled)/n of scattered noise's
    variance, and 1/√n of steady noise's. An operator that is not known ends the path as if it were an output.

    Example:
        >>> from ..ir.weights import tiny_graph
        >>> from ..graph.moments import propagate
        >>> graph = tiny_graph()
        >>> moments = propagate(graph, {"x": Moments(np.zeros((1, 4, 1, 1)), np.ones((1, 4, 1, 1)), "given")})
        >>> [round(float(v), 3) for v in gains(graph, moments).scattered["y"].ravel()]
        [0.007, 0.007, 0.007, 0.007]
    """
    scattered = _table(graph, moments, lambda n: noise.pooled + (1 - noise.pooled) / n, noise)
    return Gains(scattered, _table(graph, moments, lambda n: n**-0.5, noise))


def _table(graph: Graph, moments: Mapping[Name, Moments], share: _Share, noise: NoiseModel) -> dict[Name, Array]:
    table: dict[Name, Array] = {}

    def add(name: Name, gain: Array | None) -> None:
        if name in moments and gain is not None:
            fitted = _fitted(gain, _shape(graph, moments, name))
            table[name] = table[name] + fitted if name in table else fitted

    for name in graph.outputs:
        add(name, _as_output(graph, moments, name))
    for node in reversed(graph.nodes):
        unknown = not any(o in moments for o in node.outputs) and node.op not in ("Shape", "Size")
        if not unknown and not any(o in table for o in node.outputs):
            continue
        if unknown:
            found = _ended(graph, node, moments, table)
        elif as_layer(graph, node) is not None:
            found = _layer(graph, node, moments, table, noise)
        elif node.op == "Resize" and resizes_channels(graph, node):
            found = _ended(graph, node, moments, table)
        elif node.op in _AVERAGES and not node.domain:
            found = _averaged(graph, node, moments, table, share)
        else:
            found = _BACK.get("" if node.domain else node.op, _ended)(graph, node, moments, table)
        for name, gain in found:
            add(name, gain)
    return table


def _shape(graph: Graph, moments: Mapping[Name, Moments], name: Name) -> tuple[int, ...]:
    """Shape of a tensor's gains: that of its moments, with every channel even where all have the same moments."""
    m, shape = moments[name], graph.shapes.get(name)
    channels = shape[1] if shape is not None and len(shape) == m.mean.ndim > 1 else 1
    finer = (1, channels) + (1,) * (m.mean.ndim - 2) if isinstance(channels, int) and m.mean.ndim > 1 else ()
    return np.broadcast_shapes(m.mean.shape, m.std.shape, finer)


def _as_output(graph: Graph, moments: Mapping[Name, Moments], name: Name) -> Array | None:
    """Gain of a network output: noise over the signal's power, summed over channels."""
    if name not in moments:
        return None
    m = moments[name]
    power = np.broadcast_to(np.square(m.mean) + np.square(m.std), _shape(graph, moments, name))
    return np.full(power.shape, 1 / max(float(power.sum()), 1e-30))


def _averaged(
    graph: Graph, node: Node, moments: Mapping[Name, Moments], table: Mapping[Name, Array], share: _Share
) -> Found:
    x, gain = node.inputs[0], table[node.outputs[0]]
    if x not in moments:
        return []
    count = window(graph, node)
    if node.op == "ReduceMean":
        shape = _shape(graph, moments, x)
        axes = reduced_axes(graph, node, len(shape))
        if axes is None:
            return _ended(graph, node, moments, table)
        if not node.attrs.get("keepdims", 1):
            gain = np.expand_dims(gain, axes)
        if 1 in axes and len(shape) > 1:  # channels are independent: each has 1/C of the mean, 1/C² of its noise
            gain = np.broadcast_to(gain, np.broadcast_shapes(gain.shape, shape)) / shape[1] ** 2
            count = max(count / shape[1], 1.0)
    return [(x, gain * share(count))]


def _fitted(gain: Array, shape: tuple[int, ...]) -> Array:
    """The gain as a field of the given shape: summed where the operator broadcast the tensor."""
    gain = gain.reshape(gain.shape + (1,) * max(len(shape) - gain.ndim, 0))
    lead = gain.ndim - len(shape)
    gain = gain.sum(tuple(range(lead))) if lead else gain
    for axis, n in enumerate(shape):
        if n == 1 and gain.shape[axis] > 1:
            gain = gain.sum(axis, keepdims=True)
    return np.asarray(np.broadcast_to(gain, np.broadcast_shapes(gain.shape, shape)))


def _ended(graph: Graph, node: Node, moments: Mapping[Name, Moments], table: Mapping[Name, Array]) -> Found:
    return [(i, _as_output(graph, moments, i)) for i in node.reads]


def _layer(
    graph: Graph, node: Node, moments: Mapping[Name, Moments], table: Mapping[Name, Array], noise: NoiseModel
) -> Found:
    layer = as_layer(graph, node)
    if layer is None or layer.x not in moments:
        return []
    w = layer.unpack(graph.consts[layer.weight]).astype(np.float64)
    g, o, i, _ = w.shape
    behind = per_channel(table[layer.y], layer.y_axis, g * o)
    if behind is None:
        return _ended(graph, node, moments, table)
    energy = np.square(w) @ layer_coverage(graph, layer)
    likeness = _likeness(layer, energy, moments, noise)
    gain = np.einsum("goi,go->gi", energy, behind.reshape(g, o) * likeness).reshape(-1)
    return [(layer.x, aligned(gain, layer.x_axis, moments[layer.x].mean.ndim))]


def _likeness(layer: Layer, energy: Array, moments: Mapping[Name, Moments], noise: NoiseModel) -> Array:
    """κ^likeness per output channel `(G, O)`; 1 where it cannot be known."""
    g, o, i = energy.shape
    x, y = moments[layer.x], moments.get(layer.y)
    enters = per_channel(np.square(x.std), layer.x_axis, g * i)
    leaves = None if y is None else per_channel(np.square(y.std), layer.y_axis, g * o)
    if enters is None or leaves is None:
        return np.ones((g, o))
    apart, leaves = np.einsum("goi,gi->go", energy, enters.reshape(g, i)), leaves.reshape(g, o)
    known = (apart > 0) & (leaves > 0)
    kappa = np.where(known, leaves / np.where(known, apart, 1.0), 1.0)
    return np.asarray(np.clip(kappa, 1 / noise.kappa_limit, noise.kappa_limit) ** noise.likeness)


def _activation(graph: Graph, node: Node, moments: Mapping[Name, Moments], table: Mapping[Name, Array]) -> Found:
    x, gain = node.inputs[0], table[node.outputs[0]]
    return [(x, gain * active(graph, node, moments[x]))] if x in moments else []


def active(graph: Graph, node: Node, m: Moments) -> Array:
    """Mean squared slope of a ReLU, clip, leaky ReLU or PRelu: for the first two, the share of values let through.

    Example:
        >>> relu = Node("Relu", ("x",), ("y",))
        >>> float(active(Graph((relu,), {}, ("x",), ("y",)), relu, Moments(np.zeros(()), np.ones(()))))
        0.5
    """
    if node.op in ("Relu", "Clip"):
        lo, hi = clip_bounds(graph, node)
        if lo is None or hi is None:
            return np.ones(m.mean.shape)
        return between(m.mean, m.std, lo, hi)
    slope = node.attrs.get("alpha", 0.01) if node.op == "LeakyRelu" else graph.constant(node.inputs[1])
    above = between(m.mean, m.std, 0.0, np.inf)
    return np.asarray(above + np.square(1.0 if slope is None else slope) * (1 - above))


def _moved(graph: Graph, node: Node, moments: Mapping[Name, Moments], table: Mapping[Name, Array]) -> Found:
    x = node.inputs[0]
    if x not in moments:
        return []
    places = np.arange(prod(_shape(graph, moments, x))).reshape(_shape(graph, moments, x))
    outputs = moved(graph, node, places, fill=-1)
    if outputs is None:
        return _ended(graph, node, moments, table)
    gain = np.zeros(places.size)
    for name, origin in zip(node.outputs, outputs, strict=False):
        if name in table:
            _collect(gain, origin, table[name])
    return [(x, gain.reshape(places.shape))]


def _collect(gain: Array, origin: Array, behind: Array) -> None:
    """Bring a moved tensor's gains back to where its values came from."""
    if origin.ndim != behind.ndim:
        origin = origin.reshape((1,) * (behind.ndim - origin.ndim) + origin.shape)
    origin, behind = np.broadcast_arrays(origin, behind)
    kept = origin >= 0
    np.add.at(gain, origin[kept], behind[kept])


def _joined(graph: Graph, node: Node, moments: Mapping[Name, Moments], table: Mapping[Name, Array]) -> Found:
    return [(i, table[node.outputs[0]]) for i in node.inputs]


def _multiplied(graph: Graph, node: Node, moments: Mapping[Name, Moments], table: Mapping[Name, Array]) -> Found:
    gain, found = table[node.outputs[0]], list[tuple[Name, Array | None]]()
    for k, name in enumerate(node.inputs):
        other = node.inputs[1 - k]
        if other in moments:
            factor = np.square(moments[other].mean) + np.square(moments[other].std)
        else:
            constant = graph.constant(other)
            factor = np.ones(1) if constant is None else np.square(constant.astype(np.float64))
        if node.op == "Div":
            if k == 1:
                continue
            factor = 1 / np.maximum(factor, 1e-30)
        found.append((name, gain * factor))
    return found


def _stacked(graph: Graph, node: Node, moments: Mapping[Name, Moments], table: Mapping[Name, Array]) -> Found:
    if any(i not in moments for i in node.inputs):
        return [(i, _as_output(graph, moments, i)) for i in node.inputs]
    shapes = [_shape(graph, moments, i) for i in node.inputs]
    sizes = [prod(shape) for shape in shapes]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    places = [np.arange(a, b).reshape(shape) for shape, a, b in zip(shapes, starts, starts[1:], strict=False)]
    origin = stacked(graph, node, places)
    if origin is None:
        return [(i, _as_output(graph, moments, i)) for i in node.inputs]
    gain = np.zeros(starts[-1])
    _collect(gain, origin, table[node.outputs[0]])
    return [(i, gain[p]) for i, p in zip(node.inputs, places, strict=True)]


def _regrouped(graph: Graph, node: Node, moments: Mapping[Name, Moments], table: Mapping[Name, Array]) -> Found:
    x = node.inputs[0]
    if x not in moments:
        return []
    places = np.arange(prod(_shape(graph, moments, x))).reshape(_shape(graph, moments, x))
    if places.size == 1:
        return [(x, table[node.outputs[0]].mean(keepdims=True))]
    blocks = regrouped(node, places)
    gain = np.zeros(places.size)
    gain[blocks] = np.broadcast_to(table[node.outputs[0]].reshape(-1) / blocks.shape[0], blocks.shape)
    return [(x, gain.reshape(places.shape))]


def _passed(graph: Graph, node: Node, moments: Mapping[Name, Moments], table: Mapping[Name, Array]) -> Found:
    return [(node.inputs[0], table[node.outputs[0]])]


_AVERAGES = frozenset({"AveragePool", "GlobalAveragePool", "ReduceMean"})
_BACK: Mapping[str, Callable[[Graph, Node, Mapping[Name, Moments], Mapping[Name, Array]], Found]] = {
    **dict.fromkeys(("Relu", "Clip", "LeakyRelu", "PRelu"), _activation),
    **dict.fromkeys(MOVES, _moved),
    **dict.fromkeys(("Add", "Sub", "Sum", "Max", "Min"), _joined),
    **dict.fromkeys(("Mul", "Div"), _multiplied),
    **dict.fromkeys(("MaxPool", "GlobalMaxPool", "ReduceMax", "Resize"), _passed),
    "Concat": _stacked,
    "DepthToSpace": _regrouped,
}
