"""Clips are replaced, given a bound per channel or kept, as asked, and the event says what that costs."""

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest

from equint.ir.events import EventKind
from equint.ir.model import Model, Moments
from equint.onnx.reader import read
from equint.ops.activations import has_shared_bound
from equint.passes.relu6 import Relu6
from handwritten import network, normal
from nets import sample
from values import assert_close, values

WEIGHTS: dict[str, Any] = {"w": normal(4, 3, 1, 1, scale=5), "zero": 0.0, "six": 6.0, "low": -1.0}
CLIPPED = "a = Conv(x, w) y = Clip(a, zero, six)"


def model_of(body: str) -> Model:
    return read(network(body, **WEIGHTS))


def ops(model: Model) -> list[str]:
    return [node.op for node in model.graph.nodes]


def test_replace_drops_the_upper_bound_alone() -> None:
    several = "b = Clip(a, zero, six) c = Clip(a, low, six) d = Clip(a, , six) y = Sum(b, c, d)"
    model = model_of(f"a = Conv(x, w) {several}")
    after = Relu6("replace")(model)
    assert ops(after) == ["Conv", "Relu", "Clip", "Clip", "Sum"]
    x = sample(network(CLIPPED, **WEIGHTS))
    (a,) = values(model, x, ["a"])
    assert np.abs(a).max() > 6
    assert_close(values(after, x)[0], np.maximum(a, 0) + np.maximum(a, -1) + a)


@pytest.mark.parametrize(
    ("mean", "reached", "warning"), [([0.0, 4.0, 5.0, 9.0], "50%", True), ([0.0, 0.0, 0.0, 0.0], "0%", False)]
)
def test_replace_says_how_often_the_bound_was_reached(mean: list[float], reached: str, warning: bool) -> None:
    known = {"a": Moments(np.array(mean).reshape(1, 4, 1, 1), np.full((1, 4, 1, 1), 0.5), "batchnorm")}
    event = Relu6("replace")(replace(model_of(CLIPPED), moments=known)).log[-1]
    assert event.kind is EventKind.CLIP_BOUND_DROPPED
    assert event.facts == {"bound": 6.0, "channels that reach it": reached}
    assert event.warning is warning


def test_replace_renews_the_moments_behind() -> None:
    moments = {"a": Moments(np.full((1, 4, 1, 1), 9.0), np.full((1, 4, 1, 1), 0.1), "batchnorm")}
    after = Relu6("replace")(replace(model_of(CLIPPED), moments=moments))
    np.testing.assert_allclose(after.moments["y"].mean, 9.0)


@pytest.mark.parametrize("body", [CLIPPED, "a = Conv(x, w) y = Clip(a, low, six)", "a = Conv(x, w) y = Clip(a, , six)"])
def test_channel_clip_is_the_same_function_with_a_bound_for_each(body: str) -> None:
    model = model_of(body)
    after = Relu6("channel_clip")(model)
    clip = after.graph.nodes[-1]
    bounds = {float(b.flat[0]): b.shape for i in clip.inputs[1:] if i and (b := after.graph.consts[i]).any()}
    assert bounds[6.0] == (1, 4, 1, 1)
    assert bounds.get(-1.0, (1, 4, 1, 1)) == (1, 4, 1, 1)
    x = sample(network(body, **WEIGHTS))
    np.testing.assert_array_equal(values(after, x)[0], values(model, x)[0])
    assert not has_shared_bound(after.graph, clip)


@pytest.mark.parametrize("mode", ["replace", "channel_clip", "keep"])
@pytest.mark.parametrize("body", ["a = Conv(x, w) y = Clip(a, zero)", "a = Conv(x, w) y = Clip(a)", "y = Conv(x, w)"])
def test_what_has_no_upper_bound_is_left(mode: Literal["replace", "channel_clip", "keep"], body: str) -> None:
    model = model_of(body)
    after = Relu6(mode)(model)
    assert after.graph is model.graph
    assert (after.log[-1].kind, after.log[-1].facts["clips"]) == (EventKind.CLIPS, 0)


def test_keep_changes_nothing() -> None:
    model = model_of(CLIPPED)
    after = Relu6("keep")(model)
    assert after.graph is model.graph
    assert (after.log[-1].kind, after.log[-1].facts) == (EventKind.CLIPS, {"mode": "keep", "clips": 1})
