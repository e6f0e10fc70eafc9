"""The next layer is evened out, then channels meet the dominant one; no weight that reads them grows."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto

from chains import (
    Floats,
    chains,
    copies,
    done,
    noise,
    out_of_balance,
    pair,
    reaching,
    relu6_pair,
    scale_layer,
    weights_of,
    with_weights,
)
from equint.errors import EquintError
from equint.graph.channels import solve
from equint.graph.matching import bounded
from equint.ir.events import EventKind
from equint.ir.model import Model, Name
from equint.onnx.reader import read
from equint.ops.layers import layers
from equint.passes import Keeps
from equint.passes.activation_ranges import ActivationRanges
from equint.passes.calibrate import Calibrate
from equint.passes.fold_batchnorm import FoldBatchnorm
from equint.passes.relu6 import Relu6
from equint.passes.two_step import TwoStep
from equint.samples.images import Samples
from nets import Net, networks, sample
from values import assert_close, values


def successor_maxima(kernels: list[Floats], layer: int) -> list[float]:
    """sucInChMax: the largest weight of the next layer for each channel."""
    after = kernels[layer + 1]
    if after.shape[1] == 1 and len(kernels[layer]) > 1:  # depthwise
        return [np.abs(after[c]).max() for c in range(len(after))]
    return [np.abs(after[:, c]).max() for c in range(after.shape[1])]


def kernel_maxima(kernels: list[Floats], layer: int) -> list[float]:
    return [np.abs(kernels[layer][c]).max() for c in range(len(kernels[layer]))]


def two_steps(kernels: list[Floats], reach: list[Floats], s_max: float) -> None:
    """Section 4.2 as told: attenuate the layer and amplify the next, one-step equalization, divide by the least."""
    for layer in range(len(kernels) - 1):
        suc_in_ch_max = successor_maxima(kernels, layer)
        share = [m / max(suc_in_ch_max) for m in suc_in_ch_max]
        for c, n in enumerate(share):
            scale_layer(kernels, layer, c, n)
            reach[layer][c] *= n
        ker, act = kernel_maxima(kernels, layer), list(reach[layer])
        scales = [min(max(ker) / k, max(act) / a) for k, a in zip(ker, act, strict=True)]
        total = [max(min(n * s, s_max), 1 / s_max) for n, s in zip(share, scales, strict=True)]
        for c, n in enumerate(share):
            scale_layer(kernels, layer, c, total[c] / n / min(total))
            reach[layer][c] *= total[c] / n / min(total)


def algorithm_2_as_printed(kernels: list[Floats], reach: list[Floats], s_max: float) -> None:
    """Line by line."""
    for layer in range(len(kernels) - 1):
        suc_in_ch_max = successor_maxima(kernels, layer)
        suc_in_max = max(suc_in_ch_max)
        ker_out_ch_max, act_out_ch_max = kernel_maxima(kernels, layer), list(reach[layer])
        ker_out_max, act_out_max = max(ker_out_ch_max), max(act_out_ch_max)
        scale = []
        for c in range(len(ker_out_ch_max)):
            ker_scale = ker_out_max / ker_out_ch_max[c] * suc_in_ch_max[c] / suc_in_max
            act_scale = act_out_max / act_out_ch_max[c] * suc_in_ch_max[c] / suc_in_max
            scale.append(max(min(ker_scale, act_scale, s_max), 1 / s_max))
        for c, s in enumerate(scale):
            scale_layer(kernels, layer, c, s / min(scale))
            reach[layer][c] *= s / min(scale)


def test_two_layers_by_hand() -> None:
    """n = 1/4, 1/2, 1, so max n·k = 1 and max n·a = 2: C = 1/k or 2/a = 1/4, 1/2, 2, divided by 1/4."""
    model, y = pair([4, 1, 0.5], [2, 4, 1], [1, 2, 4])
    after = TwoStep()(model)
    first, second = weights_of(after)
    assert first.ravel().tolist() == [4, 2, 4]
    assert second.ravel().tolist() == [1, 1, 0.5]
    assert after.ranges[y].hi.ravel().tolist() == [2, 8, 8]
    facts = done(after).facts
    assert (facts["least scale"], facts["largest scale"]) == (1, 8)
    assert (facts["held by weights"], facts["held by activations"], facts["held by s_max"]) == (2, 1, 0)


def test_as_printed_by_hand() -> None:
    """n·max k/k = 1/4, 2, 8 and n·max a/a = 1/2, 1/2, 4: C = 1/4, 1/2, 4, divided by 1/4."""
    model, y = pair([4, 1, 0.5], [2, 4, 1], [1, 2, 4])
    after = TwoStep(as_printed=True)(model)
    first, second = weights_of(after)
    assert first.ravel().tolist() == [4, 2, 8]
    assert second.ravel().tolist() == [1, 1, 0.25]
    assert after.ranges[y].hi.ravel().tolist() == [2, 8, 16]


@pytest.mark.slow
@given(chains(), st.sampled_from([2.0, 16.0, 1e6]), st.booleans())
def test_chains_are_equalized_as_the_paper_says(
    drawn: tuple[Model, list[Name]], s_max: float, as_printed: bool
) -> None:
    model, names = drawn
    kernels, reach = copies(model, names)
    (algorithm_2_as_printed if as_printed else two_steps)(kernels, reach, s_max)
    after = TwoStep(s_max, as_printed=as_printed)(model)
    for found, wanted in zip(weights_of(after), kernels, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4)
    for name, ends in zip(names, reach, strict=True):
        np.testing.assert_allclose(after.ranges[name].hi.reshape(-1), ends, rtol=1e-4)


FORWARD = ["conv_bn_act", "depthwise_separable", "grouped", "two_branches", "channel_shuffle", "transposed", "pool"]


@pytest.mark.slow
@settings(max_examples=25)
@given(networks(calibrated=True, blocks=[*FORWARD, "dead_channels"]), st.booleans())
def test_no_weight_grows_for_what_it_reads(proto: ModelProto, as_printed: bool) -> None:
    """The paper's "not allowed to change the extremum values of the second layer", its outputs' scales given back.

    On networks without sums, where every layer's inputs are scaled before its outputs.
    """
    model = Relu6("channel_clip")(FoldBatchnorm()(read(proto)))
    model = ActivationRanges()(Calibrate(images=Samples.of(sample(proto, 4)))(model))
    after, channels = TwoStep(as_printed=as_printed)(model), solve(model)
    for old, new in zip(layers(model.graph), layers(after.graph), strict=True):
        w, out = after.graph.consts[new.weight], channels.of_output(model.graph, old)
        given_back = new.unpack(w) * scales_of(after, old.y, out.size).reshape(old.groups, -1, 1, 1)
        assert np.abs(given_back).max(initial=0) <= np.abs(model.graph.consts[old.weight]).max(initial=0) * (1 + 1e-5)


def scales_of(model: Model, name: Name, count: int) -> Floats:
    """What a layer's output channels were divided by."""
    view = model.views.get(name)
    return np.ones(count) if view is None else np.broadcast_to(view.scale.reshape(-1), (count,))


@pytest.mark.slow
@settings(max_examples=25)
@given(networks(activations=["relu6"]))
def test_channels_behind_one_bound_keep_most_of_their_range(proto: ModelProto) -> None:
    x = sample(proto, 8)
    model = ActivationRanges()(Calibrate(images=Samples.of(x))(FoldBatchnorm()(read(proto))))
    clips = bounded(model)
    after = TwoStep()(model)
    for name in clips & after.views.keys():
        assert np.all(1 / after.views[name].scale >= 0.7 - 1e-12)
        assert np.all(after.ranges[name].hi <= 6 * (1 + 1e-9))
    assert_close(values(TwoStep(attenuation=1.0)(model), x)[0], values(model, x)[0])


def test_relu6_by_hand() -> None:
    """k = 4, 4, 2, 1 and a = 6, 6, 1, 3; n = 1/4, 1/2, 1, 1, of which 0.7, 0.7, 1, 1 is allowed.

    So max n·k = 2.8 (without the bound on n it would be 2, which no channel can reach) and max a = 6, which no
    attenuation makes smaller: 2.8/k = 0.7, 0.7, 1.4, 2.8 and 6/a = 1, 1, 6, 2, the latter being the room as well.
    C = 0.7, 0.7, 1.4, 2. Without attenuation 4/k = 1, 1, 2, 4 as in one step: C = 1, 1, 2, 2.
    """
    model, y = relu6_pair([4, 4, 2, 1], [6, 6, 1, 3], [1, 2, 4, 4])
    after = TwoStep()(model)
    np.testing.assert_allclose(weights_of(after)[0].ravel(), [2.8, 2.8, 2.8, 2], rtol=1e-6)
    np.testing.assert_allclose(weights_of(after)[1].ravel(), [1 / 0.7, 2 / 0.7, 4 / 1.4, 2], rtol=1e-6)
    (warning,) = (e for e in after.log if e.warning)
    assert warning.kind is EventKind.CHANNELS_ATTENUATED
    assert warning.facts["channels"] == 2
    kept = TwoStep(attenuation=1.0)(model)
    np.testing.assert_allclose(weights_of(kept)[0].ravel(), [4, 4, 4, 2], rtol=1e-6)
    assert not any(e.warning for e in kept.log)


def test_no_channel_at_relu6_is_attenuated_for_its_activations() -> None:
    """n = 1/2, 1/2, 1, of which 0.7, 0.7, 1 is allowed; k = 1, 1, 4 and a = 6, 6, 3.

    Weights leave room: max n·k = 4, and 4/k = 4, 4, 1. What reaches 6 stays there: 6/a = 1, 1, 2. With the 4.2 that
    attenuation leaves of it, 4.2/a = 0.7, 0.7 would let more pass than before and make no weight's grid finer.
    """
    model, _ = relu6_pair([1, 1, 4], [6, 6, 3], [2, 2, 4])
    np.testing.assert_allclose(weights_of(TwoStep()(model))[0].ravel(), [1, 1, 4], rtol=1e-6)


def test_bounds_per_channel_are_no_bounds() -> None:
    model, y = relu6_pair([4, 4, 2, 1], [6, 6, 1, 3], [1, 2, 4, 4])
    after = TwoStep()(Relu6("channel_clip")(model))
    np.testing.assert_allclose(weights_of(after)[0].ravel(), [4, 4, 4, 2], rtol=1e-6)
    assert done(after).facts["held by clips"] == 0


def test_only_a_group_that_is_alone_is_divided_by_its_least() -> None:
    """Beside a pinned channel, a factor for all would only make the others larger."""
    net = Net(seed=3, shape=(1, 4, 4))
    x = net.conv(net.input, 4, 1)
    left, right = net.split(x, 2, 2)
    model = read(net.build(net.conv(net.concat(left, net.sigmoid(right)), 1, 1)))
    model = with_weights(model, [4, 1, 1, 1], [1, 4, 4, 4])
    model = reaching(model, {x: [4, 1, 2, 2], left: [4, 1]})
    after = TwoStep()(model)
    first, second = weights_of(after)
    # n = 1/4, 1: the dominant of what is left is 1 in weights, and 2, which is pinned, in activations
    assert first.ravel().tolist() == [1, 1, 1, 1]
    assert second.ravel().tolist() == [4, 4, 4, 4]
    assert done(after).facts["least scale"] == 0.25


def test_every_reader_counts() -> None:
    """A channel that one of two layers reads with its largest weight is not attenuated."""
    net = Net(seed=4, shape=(1, 4, 4))
    y = net.relu(net.conv(net.input, 2, 1))
    model = read(net.build(net.concat(net.conv(y, 1, 1), net.conv(y, 1, 1))))
    model = reaching(with_weights(model, [2, 1], [1, 8], [8, 1]), {y: [2, 1]})
    after = TwoStep()(model)
    assert [w.ravel().tolist() for w in weights_of(after)] == [[2, 2], [1, 4], [8, 0.5]]


@pytest.mark.parametrize("as_printed", [False, True])
@pytest.mark.parametrize(
    ("first", "reach", "second"),
    [
        ([4, 1, 0], [2, 2, 0], [1, 1, 1]),
        ([4, 1, 1], [2, 2, 2], [1, 1, 0]),
        ([4, 0, 0], [2, 0, 0], [0, 1, 1]),
        ([4, 1, 1], [2, 2, 2], [0, 0, 0]),
        ([0, 0, 0], [0, 0, 0], [1, 1, 1]),
        ([0, 0, 0], [3, 2, 1], [1, 1, 0]),
    ],
)
def test_dead_channels_do_no_harm(
    first: list[float], reach: list[float], second: list[float], as_printed: bool
) -> None:
    model, _ = pair(first, reach, second)
    after = TwoStep(as_printed=as_printed)(model)
    scales = np.concatenate([v.scale.reshape(-1) for v in after.views.values()] or [np.ones(1)])
    assert np.all((scales <= 1) & (scales >= 1 / 256))
    x = np.random.default_rng(1).standard_normal((2, 1, 4, 4), np.float32)
    assert_close(values(after, x)[0], values(model, x)[0])


def test_rounded_weights_cost_less() -> None:
    model, x = out_of_balance()
    assert noise(TwoStep()(model), x) < noise(model, x) / 3


def test_says_so_where_nothing_is_free_or_known() -> None:
    net = Net()
    model = read(net.build(net.conv(net.sigmoid(net.conv(net.input, 4)), 3)))
    event = TwoStep()(model).log[-1]
    assert (event.kind, event.facts["method"]) == (EventKind.NOT_MATCHED, "two-step")
    model, _ = pair([4, 1], [2, 4], [1, 2])
    assert TwoStep()(replace(model, ranges={})).log[-1].kind is EventKind.CHANNELS_LEFT


def test_what_it_keeps_depends_on_shared_bounds() -> None:
    model, _ = relu6_pair([4, 4, 2, 1], [6, 6, 1, 3], [1, 2, 4, 4])
    assert TwoStep(shared_clips=False)(model).graph is model.graph
    assert (TwoStep(shared_clips=False).keeps, TwoStep().keeps) == (Keeps.FUNCTION, Keeps.NEARLY)


@pytest.mark.parametrize(("s_max", "attenuation"), [(0.5, 0.7), (float("nan"), 0.7), (16, 0.0), (16, 1.1)])
def test_options_that_cannot_be(s_max: float, attenuation: float) -> None:
    with pytest.raises(EquintError, match="attenuation" if s_max == 16 else "s_max"):
        TwoStep(s_max, attenuation=attenuation)
