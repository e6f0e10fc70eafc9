"""Small networks with weights and ranges by hand, and random chains of layers, for passes that scale channels."""

from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
from numpy.typing import ArrayLike, NDArray

from equint.ir.events import Event, EventKind
from equint.ir.model import Array, Model, Name, Range
from equint.onnx.reader import read
from equint.ops.layers import layers
from equint.passes.calibrate import Calibrate
from equint.samples.images import Samples
from nets import Net
from values import values

Floats = NDArray[np.float64]


def column(values: ArrayLike) -> Floats:
    """One value for each channel of an image."""
    return np.asarray(values, np.float64).reshape(1, -1, 1, 1)


def with_weights(model: Model, *weights: ArrayLike) -> Model:
    """The model with other weights in its convolutions, in order."""
    shaped = {
        layer.weight: np.asarray(w, np.float32).reshape(model.graph.consts[layer.weight].shape)
        for layer, w in zip(layers(model.graph), weights, strict=True)
    }
    return replace(model, graph=model.graph.with_consts(shaped))


def reaching(model: Model, ends: dict[Name, ArrayLike]) -> Model:
    """The model with ranges from 0 to the given ends, per channel."""
    return replace(model, ranges={n: Range(column(np.zeros_like(e)), column(e)) for n, e in ends.items()})


def weights_of(model: Model) -> list[Array]:
    """The weights of all layers in order."""
    return [model.graph.consts[layer.weight] for layer in layers(model.graph)]


def done(model: Model) -> Event:
    """What the pass says it did."""
    return next(e for e in model.log if e.kind is EventKind.MATCHED)


def pair(first: ArrayLike, reach: ArrayLike, second: ArrayLike) -> tuple[Model, Name]:
    """Convolution of one channel to several, ReLU, convolution to one; and the name between."""
    net = Net(seed=1, shape=(1, 4, 4))
    y = net.relu(net.conv(net.input, np.size(first), 1))
    model = with_weights(read(net.build(net.conv(y, 1, 1))), first, second)
    return reaching(model, {y: reach}), y


def relu6_pair(first: ArrayLike, reach: ArrayLike, second: ArrayLike = (1, 1, 1, 1)) -> tuple[Model, Name]:
    """The same with ReLU6 between."""
    net = Net(seed=1, shape=(1, 4, 4))
    y = net.relu6(net.conv(net.input, np.size(first), 1))
    model = with_weights(read(net.build(net.conv(y, 1, 1))), first, second)
    return reaching(model, {y: reach}), y


def chain(widths: list[int], seed: int) -> tuple[Model, list[Name]]:
    """Convolutions with ReLUs between them, a depthwise one wherever a width is 0; and the names between."""
    net = Net(seed=seed)
    x, names = net.input, list[Name]()
    for width in widths:
        n = net.channels(x)
        x = net.relu(net.conv(x, width or n, 3 if width else 1, groups=1 if width else n))
        names.append(x)
    return read(net.build(net.conv(x, 3, 1))), names


@st.composite
def chains(draw: st.DrawFn) -> tuple[Model, list[Name]]:
    """A chain of uneven layers whose activations reach anywhere between 1 and 30."""
    widths = draw(st.lists(st.sampled_from([4, 5, 6, 0]), min_size=1, max_size=5))
    model, names = chain(widths, draw(st.integers(0, 2**16)))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    uneven = [w * rng.uniform(1, 30, (len(w), 1, 1, 1)) for w in weights_of(model)]
    counts = [w.shape[0] for w in uneven]
    ends = {n: rng.uniform(1, 30, count) for n, count in zip(names, counts[:-1], strict=True)}
    return reaching(with_weights(model, *uneven), ends), names


def scale_layer(kernels: list[Floats], k: int, channel: int, factor: float) -> None:
    """Equations 1 and 2 of the paper: a layer's channel times a factor, its successor's weights divided by it."""
    kernels[k][channel] *= factor
    if kernels[k + 1].shape[1] == 1 and len(kernels[k]) > 1:  # depthwise
        kernels[k + 1][channel] /= factor
    else:
        kernels[k + 1][:, channel] /= factor


def copies(model: Model, names: list[Name]) -> tuple[list[Floats], list[Floats]]:
    """Weights and upper ends of ranges, to be changed."""
    kernels = [w.astype(np.float64) for w in weights_of(model)]
    return kernels, [model.ranges[n].hi.reshape(-1).copy() for n in names]


def on_one_grid(model: Model) -> Model:
    """All weights rounded to eight bits with one symmetric scale for each layer."""
    rounded = {}
    for layer in layers(model.graph):
        w = model.graph.consts[layer.weight]
        step = np.abs(w).max() / 127
        rounded[layer.weight] = (np.round(w / step) * step).astype(np.float32)
    return replace(model, graph=model.graph.with_consts(rounded))


def out_of_balance() -> tuple[Model, Array]:
    """A network whose first layer was put out of balance, without changing what it computes; and calibration data."""
    model, _ = chain([8, 8], seed=5)
    s: Floats = np.logspace(0, -1.2, 8)
    first, second, third = weights_of(model)
    uneven = with_weights(model, first * s.reshape(-1, 1, 1, 1), second / s.reshape(1, -1, 1, 1), third)
    bias = next(layers(uneven.graph)).bias
    assert bias is not None
    uneven = replace(uneven, graph=uneven.graph.with_consts({bias: (uneven.graph.consts[bias] * s).astype(np.float32)}))
    x = np.random.default_rng(1).standard_normal((16, 3, 8, 8), np.float32)
    return Calibrate(images=Samples.of(x))(uneven), x


def noise(model: Model, x: Array) -> float:
    """Power of the output's error when all weights are rounded, relative to the output's."""
    (wanted,), (found,) = values(model, x), values(on_one_grid(model), x)
    return float(np.square(found - wanted).mean() / np.square(wanted).mean())
