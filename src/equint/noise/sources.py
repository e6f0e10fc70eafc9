"""Where quantization noise enters a network: every tensor that becomes integer, and every quantized weight."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ..graph.moments import heavy_tailed
from ..graph.placement import grid_of, place
from ..ir.fields import channel_means
from ..ir.model import Array, Graph, Model, Moments, Name, Node
from ..ir.weights import Layer, as_layer, layer_coverage
from ..maths.gaussian import between
from ..ops.attributes import clip_bounds
from .constants import MEASURED, NoiseModel
from .gains import Gains, gains


@dataclass(frozen=True)
class TensorSource:
    """A tensor that a quantizer rounds and saturates, channel by channel in real units.

    Attributes:
        name: the tensor; `grid` is the number of the placement class whose grid it uses.
        mean, std: `(C,)` of the values before the activation that the quantizer is merged with.
        floor, cap: `(C,)` where that activation clips; infinite where it does not.
        slope: of the activation below zero (1 without one).
        active: `(C,)` share of values that are rounded: neither at the floor nor at the cap.
        up, down: `(C,)` spreads that tell how its tails fall off on either side.
        scattered, steady: `(C,)` gains of `gains.py`: of rounding, of what is cut off.
        shape: of the field that the arrays are raveled from.
        clip: the Clip whose bound all channels share, if the tensor stands behind one.
    """

    name: Name
    grid: int
    mean: Array
    std: Array
    floor: Array
    cap: Array
    slope: float
    active: Array
    up: Array
    down: Array
    scattered: Array
    steady: Array
    shape: tuple[int, ...]
    clip: Node | None = None


@dataclass(frozen=True)
class WeightSource:
    """A layer whose weights are rounded.

    Attributes:
        gain: `(G, O)` of its outputs.
        energy: `(G, I)` Σ_k c_k·Var[x_i] + c_k·(1 − c_k)·E[x_i]²: the bias takes up the mean, padded taps come and go.
        taps: weights per input channel.
    """

    layer: Layer
    gain: Array
    energy: Array
    taps: int


def tensor_sources(
    model: Model, gains: Gains, fields: Mapping[Name, Array] | None = None, noise: NoiseModel = MEASURED
) -> Iterator[TensorSource]:
    """Every tensor that a quantizer rounds anew: not those that only pass on a grid's values.

    `fields` may hold finer fields (channel ids) that the arrays shall be broadcast to.

    Example:
        >>> from ..ir.weights import tiny_graph
        >>> list(tensor_sources(Model(tiny_graph()), Gains({}, {})))
        []
    """
    doubtful = heavy_tailed(model.graph, model.moments)
    for grid, tensors in enumerate(place(model.graph).classes):
        for name in tensors:
            maker = model.graph.producer.get(name)
            passes_on = maker is not None and grid_of(maker).keeps
            if passes_on and maker is not None and any(i in tensors for i in maker.inputs):
                continue
            if name in model.moments and name in gains.scattered:
                finer = () if fields is None or name not in fields else fields[name].shape
                yield tensor_source(model, name, grid, gains, doubtful, finer, noise)


def tensor_source(
    model: Model,
    name: Name,
    grid: int,
    gains: Gains,
    doubtful: frozenset[Name],
    finer: tuple[int, ...] = (),
    noise: NoiseModel = MEASURED,
) -> TensorSource:
    """One tensor whose moments and gains are known.

    Args:
        grid: number of its placement class.
        doubtful: tensors with heavy tails.
        finer: a shape that its fields shall be broadcast to.

    Example:
        >>> from ..ir.weights import tiny_graph
        >>> given = Moments(np.zeros((1, 4, 1, 1)), np.ones((1, 4, 1, 1)), "given")
        >>> gains = Gains({"x": np.ones((1, 4, 1, 1))}, {"x": np.ones((1, 4, 1, 1))})
        >>> tensor_source(Model(tiny_graph(), {"x": given}), "x", 0, gains, frozenset()).std.tolist()
        [1.0, 1.0, 1.0, 1.0]
    """
    graph, moments = model.graph, model.moments
    maker = graph.producer.get(name)
    before, lo, hi, clip = _behind(graph, name, moments)
    live = between(moments[before].mean, moments[before].std, lo, hi) if before != name else np.ones(1)
    slope = 1.0
    if maker is None and name in model.ranges:
        lo, hi = model.ranges[name].lo, model.ranges[name].hi
    elif maker is not None and maker.op == "LeakyRelu" and maker.inputs[0] in moments:
        before, slope = maker.inputs[0], float(maker.attrs.get("alpha", 0.01))
    elif maker is not None and before == name and as_layer(graph, maker) is None and name in model.ranges:
        if maker.op not in ("Add", "Sub", "Sum"):  # what it puts out is bounded by more than its moments
            pooled = maker.inputs[0] in model.ranges and "Pool" in maker.op
            bounds = model.ranges[maker.inputs[0] if pooled else name]
            lo, hi = bounds.lo, bounds.hi
        elif np.all(model.ranges[name].lo >= 0):
            lo = np.zeros(1)
    m, scattered, steady = moments[before], gains.scattered[name], gains.steady[name]
    made = graph.producer.get(before)
    dense = made is not None and as_layer(graph, made) is not None and before not in doubtful
    if m.source == "propagated" and dense and clip is None:
        lo, hi = (np.clip(m.mean + side * noise.extent * m.std, lo, hi) for side in (-1, 1))
    up, down = _spreads(model, name, before, m, lo, hi, before in doubtful, noise)
    shape = np.broadcast_shapes(m.mean.shape, m.std.shape, np.shape(lo), np.shape(hi), scattered.shape, finer)
    part = scattered.size / int(np.prod(shape))
    fields = (m.mean, m.std, lo, hi, live, scattered * part, steady * part, up, down)
    mean, std, floor, cap, rounded, scattered, steady, up, down = (
        np.broadcast_to(np.asarray(a, np.float64), shape).ravel() for a in fields
    )
    return TensorSource(name, grid, mean, std, floor, cap, slope, rounded, up, down, scattered, steady, shape, clip)


def _spreads(
    model: Model, name: Name, before: Name, m: Moments, floor: Array, cap: Array, doubtful: bool, noise: NoiseModel
) -> tuple[Array, Array]:
    """Spreads that say how a tensor's tails fall off above and below its mean.

    What was measured to reach ±noise.tail spreads: light tails count as less than the standard deviation, heavy
    ones as more.
    """
    measured = ("calibration", "generated")
    known = model.moments[name].source in measured and name in model.graph.producer
    if not known or name not in model.ranges:
        std = m.std * (noise.doubt if doubtful else 1.0)
        return std, std
    below = before if before in model.ranges and model.moments[before].source in measured else name
    hi, lo = model.ranges[name].hi, model.ranges[below].lo
    least, most = noise.light * m.std, noise.heavy * m.std
    up, down = (np.clip(extreme / noise.tail, least, most) for extreme in (hi - m.mean, m.mean - lo))
    cut = hi >= cap * (1 - 1e-6)  # the activation cut it off, and nothing tells how far it would have gone
    return np.where(cut, m.std, up), np.where(lo <= floor + 1e-9, m.std, down)


def _behind(graph: Graph, name: Name, moments: Mapping[Name, Moments]) -> tuple[Name, Array, Array, Node | None]:
    """What stands before the ReLUs and clips that make `name`, their bounds, and the clip with one bound for all."""
    lo, hi, clip = np.full(1, -np.inf), np.full(1, np.inf), None
    node = graph.producer.get(name)
    while node is not None and node.op in ("Relu", "Clip") and node.inputs[0] in moments:
        low, high = clip_bounds(graph, node)
        if low is None or high is None:
            break
        if high.size == 1 and np.isfinite(high).all():
            clip = node
        lo, hi, name = np.maximum(lo, low), np.minimum(hi, high), node.inputs[0]
        node = graph.producer.get(name)
    return name, lo, hi, clip


def weight_sources(model: Model, gains: Gains) -> Iterator[WeightSource]:
    """Every layer whose input moments and output gain are known.

    Example:
        >>> from ..ir.weights import tiny_graph
        >>> list(weight_sources(Model(tiny_graph()), Gains({}, {})))
        []
    """
    graph = model.graph
    for node in graph.nodes:
        layer = as_layer(graph, node)
        if layer is None or layer.x not in model.moments or layer.y not in gains.steady:
            continue
        g, o, i, taps = layer.unpack(graph.consts[layer.weight]).shape
        m, share = model.moments[layer.x], layer_coverage(graph, layer)
        seen = np.square(m.std) * share.sum() + np.square(m.mean) * (share * (1 - share)).sum()
        energy = channel_means(seen, layer.x_axis, g * i)
        gain = channel_means(gains.steady[layer.y], layer.y_axis, g * o)
        yield WeightSource(layer, gain.reshape(g, o), energy.reshape(g, i), taps)


def weight_worth(model: Model, noise: NoiseModel = MEASURED) -> dict[Name, Array]:
    """What a squared error of each weight costs at the network's outputs, by layer output: of the weight's shape.

    g_o·e_i/K: the predicted noise over signal that it makes. Layers whose input moments are unknown are left out.

    Example:
        >>> from ..ir.weights import tiny_graph
        >>> weight_worth(Model(tiny_graph()))
        {}
    """
    found = {}
    for source in weight_sources(model, gains(model.graph, model.moments, noise)):
        weight = model.graph.consts[source.layer.weight]
        view = source.layer.unpack(weight)
        each = source.gain[:, :, None, None] * source.energy[:, None, :, None] / view.shape[-1]
        found[source.layer.y] = source.layer.pack(np.broadcast_to(each, view.shape).astype(np.float32), weight.shape)
    return found
