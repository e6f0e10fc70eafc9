"""Channels meet the dominant one, no range grows, and bounded channels stay below their bound."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto

from chains import (
    Floats,
    chains,
    column,
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
from equint.graph.placement import place
from equint.ir.events import EventKind
from equint.ir.model import Model, Name, Range
from equint.onnx.reader import read
from equint.passes import Keeps
from equint.passes.activation_ranges import ActivationRanges
from equint.passes.calibrate import Calibrate
from equint.passes.fold_batchnorm import FoldBatchnorm
from equint.passes.one_step import OneStep
from equint.passes.relu6 import Relu6
from equint.samples.images import Samples
from nets import Net, networks, sample
from values import assert_close, values


def algorithm_1(kernels: list[Floats], reach: list[Floats], s_max: float) -> None:
    """Line by line; kernels (O, I, h, w) and what each layer puts out change in place."""
    for layer in range(len(kernels) - 1):
        ker_out_ch_max = [np.abs(kernels[layer][c]).max() for c in range(len(kernels[layer]))]
        act_out_ch_max = list(reach[layer])
        ker_out_max, act_out_max = max(ker_out_ch_max), max(act_out_ch_max)
        for c in range(len(ker_out_ch_max)):
            scale = min(ker_out_max / ker_out_ch_max[c], act_out_max / act_out_ch_max[c], s_max)
            scale_layer(kernels, layer, c, scale)
            reach[layer][c] *= scale


def test_two_layers_by_hand() -> None:
    """kerScale = 1, 4, 8, ∞ and actScale = 2, 1, 4, ∞: C = 1, 1, 4, 16."""
    model, y = pair([4, 1, -0.5, 0], [2, 4, 1, 0], [1, 2, 0.5, -8])
    after = OneStep()(model)
    first, second = weights_of(after)
    assert first.ravel().tolist() == [4, 1, -2, 0]
    assert second.ravel().tolist() == [1, 2, 0.125, -0.5]
    assert after.ranges[y].hi.ravel().tolist() == [2, 4, 4, 0]
    assert done(after).details == {
        "groups": 1,
        "channels": 4,
        "left at 1": 2,
        "least scale": 1.0,
        "largest scale": 16.0,
        "held by weights": 1,
        "held by activations": 2,
        "held by clips": 0,
        "held by s_max": 1,
    }


@pytest.mark.slow
@given(chains(), st.sampled_from([2.0, 16.0, 1e3]))
def test_chains_are_equalized_as_algorithm_1_says(drawn: tuple[Model, list[Name]], s_max: float) -> None:
    model, names = drawn
    kernels, reach = copies(model, names)
    algorithm_1(kernels, reach, s_max)
    after = OneStep(s_max)(model)
    for found, wanted in zip(weights_of(after), kernels, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5)
    for name, ends in zip(names, reach, strict=True):
        np.testing.assert_allclose(after.ranges[name].hi.reshape(-1), ends, rtol=1e-5)


@pytest.mark.slow
@settings(max_examples=25)
@given(networks(calibrated=True))
def test_no_range_grows(proto: ModelProto) -> None:
    """Of no weight and no activation grid, on any network; and every C = 1/s is at least 1."""
    model = Relu6("channel_clip")(FoldBatchnorm()(read(proto)))
    model = ActivationRanges()(Calibrate(images=Samples.of(sample(proto, 4)))(model))
    after = OneStep()(model)
    for found, wanted in zip(weights_of(after), weights_of(model), strict=True):
        assert np.abs(found).max(initial=0) <= np.abs(wanted).max(initial=0) * (1 + 1e-5)
    for names in place(model.graph).classes:
        ends = [
            max(
                (max(np.abs(m.ranges[n].lo).max(), np.abs(m.ranges[n].hi).max()) for n in names if n in m.ranges),
                default=0,
            )
            for m in (after, model)
        ]
        assert ends[0] <= ends[1] * (1 + 1e-9)
    assert all(np.all(view.scale <= 1) for view in after.views.values())


def test_channels_behind_one_bound_stay_below_it() -> None:
    model, y = relu6_pair([0.5, 1, 2, 4], [1, 2, 5, 6])
    after = OneStep()(model)
    assert after.ranges[y].hi.ravel().tolist() == [6, 6, 6, 6]
    first, _ = weights_of(after)
    np.testing.assert_allclose(first.ravel(), [3, 3, 2.4, 4], rtol=1e-6)
    assert not any(e.warning for e in after.log)


def test_a_wider_tensor_beside_does_not_lift_the_bound() -> None:
    """A concat's other part may reach beyond 6; what is clipped may not."""
    net = Net(seed=2, shape=(1, 4, 4))
    a, b = net.relu6(net.conv(net.input, 3, 1)), net.relu(net.conv(net.input, 1, 1))
    both = net.concat(a, b)
    model = with_weights(read(net.build(net.conv(both, 1, 1))), [1, 0.5, 0.1], [1], [1, 1, 1, 1])
    model = reaching(model, {a: [6, 6, 1], b: [60], both: [6, 6, 1, 60]})
    after = OneStep()(model)
    assert after.ranges[a].hi.ravel().tolist() == [6, 6, 6]
    assert done(after).facts["held by clips"] == 2


@pytest.mark.slow
@settings(max_examples=25)
@given(networks(activations=["relu6"]))
def test_inputs_within_the_ranges_keep_their_outputs(proto: ModelProto) -> None:
    """ReLU6 networks compute the same for the images whose extremes were measured."""
    x = sample(proto, 8)
    model = ActivationRanges()(Calibrate(images=Samples.of(x))(FoldBatchnorm()(read(proto))))
    assert_close(values(OneStep()(model), x)[0], values(model, x)[0])


def test_shared_bounds_are_left_alone_on_request() -> None:
    model, _ = relu6_pair([0.5, 1, 2, 4], [1, 2, 5, 6])
    after = OneStep(shared_clips=False)(model)
    assert after.graph is model.graph
    assert "one bound for all channels of Clip" in after.log[-1].facts["why"]
    assert (OneStep(shared_clips=False).keeps, OneStep().keeps) == (Keeps.FUNCTION, Keeps.NEARLY)


@pytest.mark.parametrize(("low", "high"), [(1.0, 6.0), (-6.0, -1.0)])
def test_clips_that_zero_does_not_pass_stay_pinned(low: float, high: float) -> None:
    net = Net(seed=3)
    y = net.op("Clip", net.conv(net.input, 3), net.constant(low, "low"), net.constant(high, "high"))
    model = read(net.build(net.conv(y, 2)))
    model = replace(model, ranges={y: Range(column([low] * 3), column([high] * 3))})
    assert OneStep()(model).graph is model.graph


def test_what_a_sum_adds_is_scaled_alike_and_last() -> None:
    """Inside: kerScale = 1, 4, actScale = 1, 2, so C = 1, 2, and the second giver's weights become 4, 1/2.

    The sum: kerScale = 1, 8 on both sides (4 had it come first), actScale = 1, 32.
    """
    net = Net(seed=4, shape=(1, 4, 4))
    x = net.relu(net.conv(net.input, 2, 1))
    inner = net.relu(net.conv(x, 2, 1))
    y = net.conv(inner, 2, 1)
    total = net.relu(net.add(x, y))
    model = read(net.build(net.conv(total, 1, 1)))
    model = with_weights(model, [8, 1], [[4, 0], [0, 1]], [[4, 0], [0, 1]], [1, 1])
    after = OneStep()(reaching(model, {x: [32, 1], inner: [2, 1], y: [32, 1], total: [32, 1]}))
    first, second, third, last = (w.reshape(len(w), -1).tolist() for w in weights_of(after))
    assert first == [[8], [8]]
    assert second == [[4, 0], [0, 0.25]]
    assert third == [[4, 0], [0, 4]]
    assert last == [[1, 0.125]]
    assert done(after).facts["groups"] == 2


def test_a_sum_grows_no_further_than_each_of_its_parts_allows() -> None:
    net = Net(seed=4, shape=(1, 4, 4))
    left, right = net.conv(net.input, 3, 1), net.conv(net.input, 3, 1)
    total = net.relu(net.add(left, right))
    model = with_weights(read(net.build(net.conv(total, 1, 1))), [8, 1, 1], [8, 2, 1], [1, 1, 1])
    after = OneStep()(reaching(model, {left: [9, 1, 1], right: [9, 1, 3], total: [9, 1, 1]}))
    assert [w.ravel().tolist() for w in weights_of(after)[:2]] == [[8, 4, 3], [8, 8, 3]]


def test_dead_channels_tame_the_weights_that_read_them() -> None:
    model, _ = pair([4, 4, 0, 0], [2, 2, 0, 0], [1, 1, 100, 3])
    after = OneStep()(model)
    assert weights_of(after)[1].ravel().tolist() == [1, 1, 6.25, 0.1875]
    assert done(after).facts["held by s_max"] == 2


def test_without_ranges_channels_are_left_and_it_says_so() -> None:
    model, _ = pair([4, 1], [2, 4], [1, 2])
    after = OneStep()(replace(model, ranges={}))
    assert [w.ravel().tolist() for w in weights_of(after)] == [[4, 1], [1, 2]]
    (event,) = (e for e in after.log if e.warning)
    assert event.kind is EventKind.CHANNELS_LEFT
    assert event.facts["groups"] == 1


def test_says_so_where_nothing_is_free() -> None:
    net = Net()
    model = read(net.build(net.conv(net.sigmoid(net.conv(net.input, 4)), 3)))
    after = OneStep()(model)
    assert after.graph is model.graph
    assert (after.log[-1].kind, after.log[-1].warning) == (EventKind.NOT_MATCHED, True)
    assert "Sigmoid" in after.log[-1].facts["why"]


def test_rounded_weights_cost_less() -> None:
    model, x = out_of_balance()
    assert noise(OneStep()(model), x) < noise(model, x) / 3


@pytest.mark.parametrize("s_max", [0.5, float("inf"), float("nan")])
def test_options_that_cannot_be(s_max: float) -> None:
    with pytest.raises(EquintError, match="s_max"):
        OneStep(s_max)
