"""Ranges for any scales are those of the weights after rescaling."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto

from equint.graph.channels import Channels, Group, rescale, solve
from equint.graph.cross_layer import cross_layer
from equint.graph.weight_ranges import WeightRanges
from equint.ir.model import Array, Model
from equint.ir.weights import Layer
from equint.onnx.reader import read
from equint.ops.layers import layers
from equint.passes.relu6 import Relu6
from handwritten import network, normal
from nets import Net, networks


def layer_of(model: Model, name: str) -> Layer:
    return next(la for la in layers(model.graph) if la.name == name)


def classes_of(model: Model, channels: Channels, name: str, side: int) -> Array:
    along = channels.of_input if side else channels.of_output
    return along(model.graph, layer_of(model, name))


def channel_peaks(model: Model, layer: Layer, classes: Array, side: int) -> dict[int, float]:
    """Largest magnitude by class, one weight after the other."""
    found: dict[int, float] = {}
    g, o, i, _ = (view := layer.unpack(model.graph.consts[layer.weight])).shape
    for group, out, enter in np.ndindex(g, o, i):
        c = int(classes[group * (i if side else o) + (enter if side else out)])
        found[c] = max(found.get(c, 0.0), float(np.abs(view[group, out, enter]).max()))
    return found


def expected(model: Model, channels: Channels, group: Group, name: str, side: int) -> tuple[Array, float]:
    """Of each of the group's channels, and of all others of the layer."""
    peaks = channel_peaks(model, layer_of(model, name), classes_of(model, channels, name, side), side)
    own = np.array([peaks.get(int(c), 0.0) for c in group.classes])
    return own, max((v for c, v in peaks.items() if c not in group.classes), default=0.0)


@pytest.mark.slow
@settings(max_examples=40)
@given(networks(count=(1, 3)), st.integers(0, 2**16))
def test_they_are_those_of_rescaled_weights(proto: ModelProto, seed: int) -> None:
    model = Relu6("channel_clip")(read(proto))
    channels = solve(model)
    scales = 2.0 ** np.random.default_rng(seed).integers(-3, 4, channels.size)
    scales[0] = 1.0
    ranges, after = WeightRanges(model, channels), rescale(model, channels, scales)
    for group in channels.groups:
        for k, (sides, names) in enumerate(zip(ranges.of(group), (group.producers, group.consumers), strict=True)):
            for side, name in zip(sides, names, strict=True):
                own, others = expected(after, channels, group, name, k)
                found, rest = side.apart(scales, group.classes.size)
                np.testing.assert_allclose(found, own, rtol=1e-6)
                np.testing.assert_allclose(np.maximum(side.ranges(scales, group.classes.size), 0), own, rtol=1e-6)
                np.testing.assert_allclose(rest, others, rtol=1e-6)
                assert side.filled == np.isin(classes_of(model, channels, name, k), group.classes).all()


def test_weights_far_below_the_largest_count_as_nothing() -> None:
    net = Net(seed=1)
    x = net.relu(net.conv(net.input, 4, scale=np.array([1.0, 1e-3, 1e-9, 0.0])))
    model = read(net.build(net.conv(x, 3)))
    channels = solve(model)
    (group,) = channels.groups
    for dead, alive in ((0.0, 3), (1e-5, 2), (0.1, 1)):
        (producer,), _ = WeightRanges(model, channels, dead).of(replace(group))
        assert int(np.sum(producer.ranges(np.ones(channels.size), 4) > 0)) == alive


def test_a_norm_gives_what_its_gains_and_biases_reach() -> None:
    """Six deviations of |gain| about the bias, divided by the channel's scale; a factor common to all is none."""
    body = "n = LayerNormalization (x, gain, bias) y = MatMul (n, w)"
    weight = normal(3, 2)
    given: dict[str, Any] = {"gain": np.array([1, -2, 0.5]), "bias": np.array([0.0, 1, -3]), "w": weight}
    model = read(network(body, inputs="float[N,5,3] x", output="float[] y", **given))
    channels = solve(model)
    (group,) = channels.groups
    ((side,), _) = WeightRanges(model, channels).of(group)
    scales = np.ones(channels.size)
    scales[group.classes] = [1, 2, 4]
    assert side.ranges(scales, 3).tolist() == [6, 13 / 2, 6 / 4]
    found = cross_layer(model, channels)[group.classes]
    assert np.prod(found) == pytest.approx(1)
    step = np.sqrt(np.array([6, 13, 6]) / np.abs(weight).max(1))
    np.testing.assert_allclose(found, step / np.prod(step) ** (1 / 3), rtol=1e-3)
