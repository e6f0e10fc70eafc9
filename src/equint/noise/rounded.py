"""Where quantization noise enters a network: every tensor that is rounded, and every layer whose weights are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ..graph.moments import heavy_tailed
from ..graph.placement import grid_of, place
from ..graph.ranges import bounds_of
from ..ir.fields import channel_means
from ..ir.model import Array, Graph, Model, Moments, Name, Node, Range
from ..ir.weights import Layer
from ..maths.gaussian import between
from ..ops.activations import clamps, negative_slope
from ..ops.arithmetic import adds
from ..ops.attributes import clip_bounds
from ..ops.layers import as_layer, layer_coverage, layers
from ..ops.listed import on_integers
from ..ops.moves import MOVES
from ..ops.pools import POOLS, REDUCTIONS
from .constants import MEASURED, NoiseModel
from .gains import Gains, gains


@dataclass(frozen=True)
class Distribution:
    """Values of a tensor, channel by channel: `(C,)` each, in real units."""

    mean: Array
    std: Array
    up: Array  # and down: spreads that tell how the tails fall off above and below the mean
    down: Array


@dataclass(frozen=True)
class Activation:
    """What a quantizer is merged with: max(floor, min(cap, z)), z·slope for z < 0."""

    floor: Array  # and cap: `(C,)` real units; infinite where nothing clips
    cap: Array
    slope: float = 1.0  # below zero; 1 without one
    clip: Node | None = None  # the Clip whose bound all channels share, if there is one


@dataclass(frozen=True)
class RoundedTensor:
    """A tensor that a quantizer rounds and saturates."""

    name: Name
    grid: int  # number of the placement class whose grid it uses
    shape: tuple[int, ...]  # of the field that all `(C,)` arrays are raveled from
    before: Distribution  # of the values in front of the activation
    activation: Activation
    active: Array  # `(C,)` share of values that are rounded: neither at the floor nor at the cap
    scattered: Array  # and steady: `(C,)` gains of `gains.py`: of rounding, of what is cut off
    steady: Array


@dataclass(frozen=True)
class RoundedLayer:
    """A layer whose weights are rounded.

    Attributes:
        energy: `(G, I)` Σ_k c_k·Var[x_i] + c_k·(1 − c_k)·E[x_i]²: the bias takes up the mean, padded taps come and go.
    """

    layer: Layer
    gain: Array  # `(G, O)` of its outputs
    energy: Array
    taps: int  # weights per input channel


def rounded_anew(model: Model) -> Iterator[tuple[int, Name]]:
    """Every tensor that a quantizer rounds anew, not those that pass a grid's values on; with its grid's number."""
    for grid, tensors in enumerate(place(model.graph, model.apart).classes):
        for name in tensors:
            maker = model.graph.producer.get(name)
            if maker is None or not (grid_of(model.graph, maker).keeps and any(i in tensors for i in maker.inputs)):
                yield grid, name


def rounded_tensors(
    model: Model, gains: Gains, fields: Mapping[Name, Array] | None = None, noise: NoiseModel = MEASURED
) -> Iterator[RoundedTensor]:
    """Every tensor that is rounded anew and whose moments and gains are known; `fields` give finer shapes."""
    doubtful = heavy_tailed(model.graph, model.moments)
    for grid, name in rounded_anew(model):
        if name in model.moments and name in gains.scattered:
            finer = () if fields is None or name not in fields else fields[name].shape
            yield rounded_tensor(model, name, grid, gains, doubtful, finer, noise)


def rounded_tensor(
    model: Model,
    name: Name,
    grid: int,
    gains: Gains,
    doubtful: frozenset[Name],
    finer: tuple[int, ...] = (),
    noise: NoiseModel = MEASURED,
) -> RoundedTensor:
    """One tensor whose moments and gains are known."""
    graph, moments = model.graph, model.moments
    before, lo, hi, clip = _behind_clips(graph, name, moments)
    active, slope = np.ones(1), 1.0
    if before == name:
        before, lo, hi, slope = _bounds(model, name)
    else:
        active = between(moments[before].mean, moments[before].std, lo, hi)
    m, scattered, steady = moments[before], gains.scattered[name], gains.steady[name]
    made = graph.producer.get(before)
    dense = made is not None and as_layer(graph, made) is not None and before not in doubtful
    if m.origin == "propagated" and dense and clip is None:
        lo, hi = (np.clip(m.mean + side * noise.extent * m.std, lo, hi) for side in (-1, 1))
    up, down = _spreads(model, name, before, m, lo, hi, before in doubtful, noise)
    ends = (np.shape(field) for field in (lo, hi, active, up, down))
    shape = np.broadcast_shapes(m.mean.shape, m.std.shape, *ends, finer)

    def channels(field: Array) -> Array:
        return np.broadcast_to(np.asarray(field, np.float64), shape).ravel()

    values = Distribution(channels(m.mean), channels(m.std), channels(up), channels(down))
    activation = Activation(channels(lo), channels(hi), slope, clip)
    arriving = (channels(shared(gain, shape)) for gain in (scattered, steady))
    return RoundedTensor(name, grid, shape, values, activation, channels(active), *arriving)


def shared(gain: Array, shape: tuple[int, ...]) -> Array:
    """A gain's total on the entries of a field of this shape: entries that had one together share it.

    Example:
        >>> shared(np.array([[1.0, 2.0]]), (3, 1)).ravel().tolist()
        [1.0, 1.0, 1.0]
    """
    gain = gain.reshape((1,) * (len(shape) - gain.ndim) + gain.shape)
    alike = tuple(d for d, n in enumerate(shape) if n == 1)
    together = gain.sum(alike, keepdims=True)
    return np.broadcast_to(together * (together.size / int(np.prod(shape))), shape)


def _behind_clips(graph: Graph, name: Name, moments: Mapping[Name, Moments]) -> tuple[Name, Array, Array, Node | None]:
    """What stands before the ReLUs and clips that make `name`, their bounds, and the clip with one bound for all."""
    lo, hi, clip = np.full(1, -np.inf), np.full(1, np.inf), None
    node = graph.producer.get(name)
    while node is not None and clamps(node) and node.inputs[0] in moments:
        low, high = clip_bounds(graph, node)
        if low is None or high is None:
            break
        if high.size == 1 and np.isfinite(high).all():
            clip = node
        lo, hi, name = np.maximum(lo, low), np.minimum(hi, high), node.inputs[0]
        node = graph.producer.get(name)
    return name, lo, hi, clip


def _bounds(model: Model, name: Name) -> tuple[Name, Array, Array, float]:
    """Where no ReLU or clip makes a tensor: what stands before its activation, its bounds, its slope below zero."""
    maker, known = model.graph.producer.get(name), model.ranges.get(name)
    lo, hi = np.full(1, -np.inf), np.full(1, np.inf)
    slope = negative_slope(model.graph, maker)
    if maker is not None and slope is not None and slope.size == 1 and maker.inputs[0] in model.moments:
        return maker.inputs[0], lo, hi, float(slope.reshape(()))
    if known is None or (maker is not None and as_layer(model.graph, maker) is not None):
        return name, lo, hi, 1.0
    if maker is not None and adds(maker):  # a sum reaches as far as its moments say
        return name, np.zeros(1) if np.all(known.lo >= 0) else lo, hi, 1.0
    furthest = _furthest(model, name) or known
    return name, furthest.lo, furthest.hi, 1.0


def _furthest(model: Model, name: Name) -> Range | None:
    """How far a mean or maximum may reach, moved or not: as far as what it looks at; None of what else is computed."""
    way = _pooled_and_moved(model.graph, name)
    reached = model.ranges.get(way[0].inputs[0]) if way else None
    if reached is None or not reached.lo.ndim:  # by channels no longer
        return None
    for node, after in zip(way, [*(n.inputs[0] for n in way[1:]), name], strict=True):
        found = bounds_of(model.graph, node, {node.inputs[0]: reached})
        if found is None:
            return None
        reached = found[node.outputs.index(after)]
    return reached


def _pooled_and_moved(graph: Graph, name: Name) -> list[Node]:
    """The mean or maximum that a tensor holds, and what moves it since; nothing if something else makes it."""
    way = list[Node]()
    while (maker := graph.producer.get(name)) is not None and maker.op in (*POOLS, *REDUCTIONS, *MOVES):
        way.insert(0, maker)
        if maker.op not in MOVES:
            return way
        name = maker.inputs[0]
    return []


def _spreads(
    model: Model, name: Name, before: Name, m: Moments, floor: Array, cap: Array, doubtful: bool, noise: NoiseModel
) -> tuple[Array, Array]:
    """Spreads that say how a tensor's tails fall off above and below its mean."""
    measured = ("calibration", "generated")
    origin = model.moments[name].origin
    pool = _pooled_and_moved(model.graph, name)[:1]
    guessed = origin == "generated" and any("kernel_shape" not in node.attrs for node in pool)  # one value a picture
    if origin not in measured or guessed or name not in model.graph.producer or name not in model.ranges:
        std = m.std * (noise.doubt if doubtful or guessed else 1.0)
        return std, std
    below = before if before in model.ranges and model.moments[before].origin in measured else name
    hi, lo = model.ranges[name].hi, model.ranges[below].lo
    least, most = noise.light * m.std, noise.heavy * m.std
    up, down = (np.clip(extreme / noise.tail, least, most) for extreme in (hi - m.mean, m.mean - lo))
    cut = hi >= cap * (1 - 1e-6)  # the activation cut it off, and nothing tells how far it would have gone
    return np.where(cut, m.std, up), np.where(lo <= floor + 1e-9, m.std, down)


def rounded_layers(model: Model, gains: Gains) -> Iterator[RoundedLayer]:
    """Every layer that is to be integer whose input moments and output gain are known."""
    graph = model.graph
    for layer in layers(graph):
        known = layer.x in model.moments and layer.y in gains.steady
        if not known or not on_integers(graph, layer.node):
            continue
        g, o, i, taps = layer.unpack(graph.consts[layer.weight]).shape
        m, share = model.moments[layer.x], layer_coverage(graph, layer)
        varies = np.square(m.std) * share.sum() + np.square(m.mean) * (share * (1 - share)).sum()
        energy = channel_means(varies, layer.x_axis, g * i)
        gain = channel_means(gains.steady[layer.y], layer.y_axis, g * o)
        yield RoundedLayer(layer, gain.reshape(g, o), energy.reshape(g, i), taps)


def weight_worth(model: Model, noise: NoiseModel = MEASURED) -> dict[Name, Array]:
    """g_o·e_i/K: what a squared error of each weight costs at the outputs, by layer output, of the weight's shape."""
    found = {}
    for rounded in rounded_layers(model, gains(model.graph, model.moments, noise)):
        layer, weight = rounded.layer, model.graph.consts[rounded.layer.weight]
        each = rounded.gain[:, :, None, None] * rounded.energy[:, None, :, None] / rounded.taps
        view = np.broadcast_to(each, layer.unpack(weight).shape).astype(np.float32)
        found[layer.y] = layer.pack(view, weight.shape)
    return found
