"""Ranges meet, quantized weights lose less, and the guards hold."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto

from equint.ir.events import EventKind
from equint.ir.model import Array, Model, Moments
from equint.onnx.reader import read
from equint.ops.layers import layers
from equint.passes.equalize import Equalize
from nets import Net, sample
from values import assert_close, values

Floats = NDArray[np.float64]
PLAIN = Equalize(activations=0, reach_limit=0)
UNEVEN: Floats = np.logspace(-2, 2, 8)
RISING: Floats = np.logspace(-2, 2, 5)


def pair(scale: Floats) -> ModelProto:
    """Convolution, ReLU, convolution; the rows of the first are of very different sizes."""
    net = Net(seed=5)
    x = net.relu(net.conv(net.input, scale.size, scale=scale))
    return net.build(net.conv(x, 6))


def weights(model: Model) -> list[Array]:
    return [model.graph.consts[layer.weight] for layer in layers(model.graph)]


def peaks(weight: Array, side: int) -> Array:
    return np.asarray(np.abs(weight).max(tuple(d for d in range(weight.ndim) if d != side)))


def on_one_grid(weight: Array) -> Array:
    """Rounded to eight bits with one symmetric scale."""
    step = np.abs(weight).max() / 127
    return np.asarray(np.round(weight / step) * step, np.float32)


def quantization_noise(model: Model, x: Array) -> float:
    """Power of the output's error when all weights are rounded, relative to the output's."""
    rounded = {layer.weight: on_one_grid(model.graph.consts[layer.weight]) for layer in layers(model.graph)}
    (wanted,) = values(model, x)
    (found,) = values(replace(model, graph=model.graph.with_consts(rounded)), x)
    return float(np.square(found - wanted).mean() / np.square(wanted).mean())


def test_ranges_of_a_pair_meet() -> None:
    model = read(pair(UNEVEN))
    first, second = weights(PLAIN(model))
    before, after = weights(model)
    np.testing.assert_allclose(peaks(first, 0), peaks(second, 1), rtol=1e-3)
    np.testing.assert_allclose(peaks(first, 0), np.sqrt(peaks(before, 0) * peaks(after, 1)), rtol=1e-3)


@pytest.mark.parametrize("step", [PLAIN, Equalize(), Equalize(activations=0.5, reach_limit=2.0)])
def test_rounded_weights_cost_less(step: Equalize) -> None:
    """A network whose channels were put out of balance, without changing what it computes."""
    proto = pair(np.ones(8))
    model = read(proto)
    first, second = layers(model.graph)
    assert first.bias is not None
    w1, b1, w2 = (model.graph.consts[n] for n in (first.weight, first.bias, second.weight))
    s = UNEVEN.astype(np.float32)
    names = (first.weight, first.bias, second.weight)
    uneven = (w1 * s.reshape(-1, 1, 1, 1), b1 * s, w2 / s.reshape(1, -1, 1, 1))
    model = replace(model, graph=model.graph.with_consts(dict(zip(names, uneven, strict=True))))
    x = sample(proto, 16)
    assert quantization_noise(step(model), x) < quantization_noise(model, x) / 100


def test_several_takers_count_by_their_geometric_mean() -> None:
    net = Net(seed=6)
    x = net.conv(net.input, 5, scale=RISING)
    model = read(net.build(net.concat(net.conv(x, 4), net.conv(x, 6))))
    giver, *takers = weights(PLAIN(model))
    met = np.sqrt(peaks(takers[0], 1).astype(np.float64) * peaks(takers[1], 1))
    np.testing.assert_allclose(peaks(giver, 0), met, rtol=1e-3)


def test_both_branches_of_a_residual_give() -> None:
    net = Net(seed=7)
    x = net.conv(net.input, 5, scale=RISING)
    branch = net.conv(net.input, 5, 1, scale=RISING[::-1])
    model = read(net.build(net.conv(net.relu(net.add(x, branch)), 4)))
    left, right, taker = weights(PLAIN(model))
    given = np.sqrt(peaks(left, 0).astype(np.float64) * peaks(right, 0))
    np.testing.assert_allclose(given, peaks(taker, 1), rtol=1e-3)


@pytest.mark.parametrize("factor", [0.0, 1e-9])
@pytest.mark.parametrize("step", [Equalize(), PLAIN, Equalize(activations=0.5), Equalize(max_scale=4.0)])
def test_dead_channels_do_no_harm(factor: float, step: Equalize) -> None:
    scale = np.array([1.0, 2.0, 0.5, 30.0, factor, factor])
    proto = pair(scale)
    model = read(proto)
    silent = np.array(weights(model)[1])
    silent[:, 0] *= np.float32(factor)  # and one channel that nobody listens to
    model = replace(model, graph=model.graph.with_consts({list(layers(model.graph))[1].weight: silent}))
    after = step(model)
    scales = np.concatenate([v.scale.reshape(-1) for v in after.views.values()])
    assert np.all((scales >= 1 / step.max_scale) & (scales <= step.max_scale))
    x = sample(proto)
    assert_close(values(after, x)[0], values(model, x)[0])


def test_no_channel_is_stretched_to_set_the_range() -> None:
    """A channel of tiny weights but a large bias would be blown up; its reach is held near the others'."""
    model = read(pair(np.array([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1e-4])))
    name = model.graph.nodes[0].outputs[0]
    shape = (1, 8, 1, 1)
    known = {n: Moments(np.zeros(shape), np.ones(shape), "batchnorm") for n in (name, model.graph.nodes[1].outputs[0])}
    model = replace(model, moments=known)

    def worst(step: Equalize) -> float:
        std = step(model).moments[name].std.reshape(-1)
        return float(std.max() / np.quantile(std, 0.75))

    assert worst(Equalize(reach_limit=0)) > 20
    assert worst(Equalize(reach_limit=4)) < 4.5
    assert EventKind.CHANNELS_HELD_BACK in [e.kind for e in Equalize(reach_limit=4)(model).log]


def test_weighing_activations_evens_their_reach() -> None:
    model = read(pair(np.ones(8)))
    std = (10.0 ** np.linspace(-1, 1, 8)).reshape(1, 8, 1, 1)
    name = model.graph.nodes[0].outputs[0]
    known = {n: Moments(np.zeros_like(std), std, "batchnorm") for n in (name, model.graph.nodes[1].outputs[0])}

    def spread(step: Equalize) -> float:
        return float(np.std(np.log(step(replace(model, moments=known)).moments[name].std)))

    weighed = [spread(Equalize(activations=share, reach_limit=0)) for share in (0.0, 0.5, 1.0)]
    assert weighed[0] > weighed[1] > weighed[2]


def test_says_so_where_nothing_is_free() -> None:
    net = Net()
    model = read(net.build(net.conv(net.sigmoid(net.conv(net.input, 4)), 3)))
    after = Equalize()(model)
    assert after.graph is model.graph
    assert after.log[-1].kind is EventKind.NOT_EQUALIZED
    assert "Sigmoid" in after.log[-1].facts["why"]
    assert after.log[-1].warning
