"""Predicted noise of a quantized network: layer by layer, and as it reaches the outputs. No data is used."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..graph.moments import heavy_tailed
from ..graph.placement import place
from ..ir.fields import channel_means
from ..ir.model import Array, Graph, Model, Name, Node
from ..ir.weights import Layer
from ..maths.affine import fake_quantize
from ..maths.noise import activation_noise, in_common, mismatch, rounding
from ..ops.activations import is_clip
from ..ops.attributes import clip_bounds
from ..ops.layers import layer_coverage, layers, over_taps
from .constants import MEASURED, NoiseModel
from .gains import Gains, gains
from .results import wide_results
from .rounded import RoundedTensor, rounded_layers, rounded_tensor, rounded_tensors


@dataclass(frozen=True)
class LayerNoise:
    """Noise over signal at one layer's own output, before its activation.

    Attributes:
        weights: of its rounded weights; activations: of its rounded input; clips: of what its input's grid and
            clip cut off. None where the weight or the input is not quantized.
    """

    name: str
    tensor: Name  # the layer's output
    weights: float | None
    activations: float | None
    clips: float | None
    reaching: float  # noise over signal that its weights make at the network's outputs

    @property
    def limit(self) -> str:
        """The largest of the three: "weights", "activations" or "clips"; empty where nothing is quantized."""
        parts = {"weights": self.weights, "activations": self.activations, "clips": self.clips}
        known = {k: v for k, v in parts.items() if v is not None}
        return max(known, key=known.__getitem__) if known else ""


@dataclass(frozen=True)
class GridNoise:
    """Noise over signal at the network's outputs that one tensor's grid makes."""

    tensor: Name
    rounding: float  # and clips: what the grid rounds, and what it or a shared bound cuts off
    clips: float
    known: float  # what would be left of both, at most, if the tensor's range were known and not a guess


@dataclass(frozen=True)
class Prediction:
    """Predicted noise of a network, by layers and by tensors; all are taken as independent."""

    layers: tuple[LayerNoise, ...]
    tensors: tuple[GridNoise, ...]

    @property
    def weights(self) -> float:
        """Noise over signal at the outputs that all rounded weights make."""
        return sum(layer.reaching for layer in self.layers)

    @property
    def activations(self) -> float:
        return sum(t.rounding for t in self.tensors)

    @property
    def clips(self) -> float:
        return sum(t.clips for t in self.tensors)

    @property
    def total(self) -> float:
        return self.weights + self.activations + self.clips


def predict(reference: Model, quantized: Model, noise: NoiseModel = MEASURED, table: Gains | None = None) -> Prediction:
    """The noise that the grids of `quantized` are expected to make, in units of `reference`.

    `reference` is the float network with its BatchNorms folded, and moments and ranges of every tensor; `quantized` the
    same with grids, its channels maybe rescaled and its clips moved. `table` are gains that are known better than
    moments tell them.
    """
    table = gains(reference.graph, reference.moments, noise) if table is None else table
    by_layer, by_tensor = _layers(reference, quantized, table, noise), _tensors(reference, quantized, table, noise)
    return Prediction(tuple(by_layer), tuple(by_tensor))


def _tensors(reference: Model, quantized: Model, table: Gains, noise: NoiseModel) -> list[GridNoise]:
    guesses = heavy_tailed(reference.graph, reference.moments) | _guessed(reference, noise)
    found = []
    scales = {name: view.scale for name, view in quantized.views.items()}
    for tensor in rounded_tensors(reference, table, scales, noise):
        if tensor.name not in quantized.qparams:
            continue
        step, power = _cut(quantized, tensor)
        rounded = float(np.sum(tensor.scattered * tensor.active * rounding(step)))
        clipped = float(np.sum(tensor.steady * power))
        known = rounded + clipped
        if tensor.name in guesses:
            known = min(known, rounded * _narrowed(quantized, tensor, step, noise.extent))
        found.append(GridNoise(tensor.name, rounded, clipped, known))
    return found


def _guessed(reference: Model, noise: NoiseModel) -> frozenset[Name]:
    """Inputs that had to be inferred, and results without BatchNorm."""
    graph, moments = reference.graph, reference.moments
    inputs = {n for n in graph.inputs if n in moments and moments[n].origin in ("inferred", "assumed")}
    return frozenset(inputs | wide_results(graph, moments, noise).keys())


def _narrowed(quantized: Model, tensor: RoundedTensor, step: Array, extent: float) -> float:
    """(range that ends `extent` deviations from the mean / range chosen)², at most 1."""
    grid, before, activation = quantized.qparams[tensor.name], tensor.before, tensor.activation
    scale = step / float(grid.scale)
    hi = np.max(np.minimum(before.mean + extent * before.std, activation.cap) / scale)
    lo = np.min(np.maximum(before.mean - extent * before.std, activation.floor) / scale)
    return float(min((max(hi, 0.0) - min(lo, 0.0)) / max(grid.hi - grid.lo, 1e-30), 1.0)) ** 2


def _cut(quantized: Model, tensor: RoundedTensor) -> tuple[Array, Array]:
    """A quantized tensor's step, and the power of what is cut off, `(C,)` in the reference's units."""
    grid, before, activation = quantized.qparams[tensor.name], tensor.before, tensor.activation
    scale = np.broadcast_to(_scale(quantized, tensor.name), tensor.shape).ravel()
    # Channels that were scaled apart would each need their own bound: a shared one cuts off some too late, too.
    apart = _shares_bound(quantized.graph, activation.clip) and bool(np.any(scale != 1))
    power, _ = mismatch(before.mean, before.up, grid.hi * scale, activation.cap, apart)
    if np.any(activation.floor < 0):
        slope = activation.slope
        below, _ = mismatch(-slope * before.mean, slope * before.down, -grid.lo * scale, -activation.floor, False)
        power = power + np.where(activation.floor < 0, below, 0.0)
    return float(grid.scale) * scale, power


def _shares_bound(graph: Graph, clip: Node | None) -> bool:
    """Whether one bound still serves all channels of a clip, in the quantized network."""
    node = None if clip is None else graph.producer.get(clip.outputs[0])
    if node is None or not is_clip(node):
        return False
    _, hi = clip_bounds(graph, node)
    return hi is not None and hi.size == 1


def _scale(model: Model, name: Name) -> Array:
    view = model.views.get(name)
    return np.ones(1) if view is None else view.scale


def _layers(reference: Model, quantized: Model, table: Gains, noise: NoiseModel) -> list[LayerNoise]:
    graph, moments, found = reference.graph, reference.moments, list[LayerNoise]()
    own = {layer.y: layer for layer in layers(quantized.graph)}
    grids = {name: k for k, names in enumerate(place(graph, reference.apart).classes) for name in names}
    doubtful, results = heavy_tailed(graph, moments), wide_results(graph, moments, noise)
    for rounded in rounded_layers(reference, table):
        layer = rounded.layer
        y = results.get(layer.y, moments[layer.y])
        signal = float(np.sum(channel_means(np.square(y.mean) + np.square(y.std), layer.y_axis, rounded.gain.size)))
        weights = activations = clips = None
        reaching = 0.0
        if signal > 0 and layer.y in own and own[layer.y].weight in quantized.qparams:
            power = _weights(reference, quantized, layer, own[layer.y])
            weights, reaching = float(np.sum(power)) / signal, float(np.sum(power * rounded.gain))
        if signal > 0 and layer.x in quantized.qparams and layer.x in table.scattered:
            finer = _scale(quantized, layer.x).shape
            tensor = rounded_tensor(reference, layer.x, grids.get(layer.x, 0), table, doubtful, finer, noise)
            activations, clips = (power / signal for power in _input(graph, quantized, layer, tensor))
        found.append(LayerNoise(layer.name, layer.y, weights, activations, clips, reaching))
    return found


def _weights(reference: Model, quantized: Model, layer: Layer, own: Layer) -> Array:
    """Noise variance `(G, O)` at a layer's outputs from its weights' errors, which are known."""
    w = layer.unpack(reference.graph.consts[layer.weight]).astype(np.float64)
    g, o, i, _ = w.shape
    x, share = reference.moments[layer.x], layer_coverage(reference.graph, layer)
    enters = channel_means(_scale(quantized, layer.x), layer.x_axis, g * i).reshape(g, 1, i, 1)
    leaves = channel_means(_scale(quantized, layer.y), layer.y_axis, g * o).reshape(g, o, 1, 1)
    weight = quantized.graph.consts[own.weight]
    rounded = own.unpack(fake_quantize(weight, quantized.qparams[own.weight])).astype(np.float64)
    error = rounded * leaves / enters - w
    mean, variance = (channel_means(v, layer.x_axis, g * i).reshape(g, i, 1) for v in (x.mean, np.square(x.std)))
    varies = share * variance + share * (1 - share) * np.square(mean)  # a padded tap comes and goes
    shifted = np.square(np.einsum("goik,gik->go", error, share * mean))
    if own.y in quantized.corrected:
        shifted = np.where(quantized.corrected[own.y].channels.reshape(g, o), 0.0, shifted)
    return np.asarray(np.einsum("goik,gik->go", np.square(error), varies) + shifted)


def _input(graph: Graph, quantized: Model, layer: Layer, tensor: RoundedTensor) -> tuple[float, float]:
    """Noise that a layer's input makes at its outputs, summed over channels: rounded, and cut off."""
    w = layer.unpack(graph.consts[layer.weight]).astype(np.float64)
    g, _, i, _ = w.shape
    share = layer_coverage(graph, layer)
    fields = (*_cut(quantized, tensor), tensor.active, tensor.before.std)
    step, power, live, std = (
        channel_means(np.reshape(a, tensor.shape), layer.x_axis, g * i).reshape(g, i) for a in fields
    )
    energy, common = over_taps(np.square(w), share), in_common(std, step)[:, None, :]
    mixed = (1 - common) * energy + common * np.square(over_taps(w, share))
    rounded = activation_noise(step[:, None, :], live, mixed)
    return float(np.sum(rounded)), float(np.einsum("goi,gi->", energy, power))
