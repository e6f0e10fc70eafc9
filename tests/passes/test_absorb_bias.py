"""What a ReLU always lets through moves into the next bias, and nothing else does."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from equint.graph.moments import propagate
from equint.ir.events import EventKind
from equint.ir.model import Array, Model, Moments
from equint.onnx.reader import read
from equint.ops.layers import layers
from equint.passes.absorb_bias import AbsorbBias
from handwritten import network, normal
from values import values

W1, B1 = normal(4, 3, 1, 1), np.array([5.0, 1.0, -2.0, 4.0], np.float32)
B2 = normal(5)
STD = np.linalg.norm(W1.reshape(4, 3), axis=1)
ABSORBED = np.maximum(B1 - 3 * STD, 0)


def known(body: str, inputs: str = "float[N,3,6,6] x", **consts: Any) -> Model:
    """`a` is a 1×1 convolution of standard normal pixels, whose moments are therefore known exactly."""
    every: dict[str, Any] = {
        "w": W1.reshape(4, 3, *[1] * (inputs.count(",") - 1)),
        "b": B1,
        "zero": 0.0,
        "six": 6.0,
        **consts,
    }
    model = read(network(f"a = Conv(x, w, b) {body}", inputs=inputs, output="float[] y", **every))
    shape = (1, 4, *[1] * (inputs.count(",") - 1))
    return told(model, B1.reshape(shape), STD.reshape(shape))


def told(model: Model, mean: Array, std: Array) -> Model:
    return replace(model, moments=propagate(model.graph, {"a": Moments(mean, std, "batchnorm")}))


def biases(model: Model) -> list[Array | None]:
    return [model.graph.consts[la.bias] if la.bias else None for la in layers(model.graph)]


def pixels(n: int = 64) -> Array:
    return np.random.default_rng(0).standard_normal((n, 3, 6, 6)).astype(np.float32)


NEXT: dict[str, tuple[str, dict[str, Any]]] = {
    "convolution": ("r = Relu(a) y = Conv(r, v, c)", {"v": normal(5, 4, 3, 3), "c": B2}),
    "without bias": ("r = Relu(a) y = Conv(r, v)", {"v": normal(5, 4, 1, 1)}),
    "depthwise": ("r = Relu(a) y = Conv <group = 4> (r, v)", {"v": normal(8, 1, 2, 2)}),
    "two takers": ("r = Relu(a) p = Conv(r, v, c) q = Conv(r, v) y = Sum(p, q)", {"v": normal(5, 4, 1, 1), "c": B2}),
    "far clip": ("r = Clip(a, zero, far) y = Conv(r, v)", {"v": normal(5, 4, 1, 1), "far": 100.0}),
}  # fmt: skip


@pytest.mark.parametrize("case", NEXT)
def test_the_function_is_nearly_the_same(case: str) -> None:
    body, consts = NEXT[case]
    model = known(body, **consts)
    after = AbsorbBias()(model)
    x = pixels()
    (found,), (wanted,) = values(after, x), values(model, x)
    assert np.sqrt(np.square(found - wanted).mean()) < 0.005 * wanted.std()
    first = biases(after)[0]
    assert first is not None
    np.testing.assert_allclose(first, B1 - ABSORBED, rtol=1e-6)
    event = next(e for e in after.log if e.kind is EventKind.BIASES_ABSORBED)
    assert event.facts["channels"] == np.count_nonzero(ABSORBED) == 2


def test_a_worked_example() -> None:
    second_weight = np.array([[1.0, 2, 3, 4], [5, 6, 7, 8]]).reshape(2, 4, 1, 1)
    model = known("r = Relu(a) y = Conv(r, v, c)", v=second_weight, c=[1.0, 0.0])
    mean, std = np.array([5.0, 1.0, -2.0, 4.0]).reshape(1, 4, 1, 1), np.ones((1, 4, 1, 1))
    after = AbsorbBias()(told(model, mean, std))
    first, second = biases(after)
    assert first is not None
    assert second is not None
    assert first.tolist() == [3.0, 1.0, -2.0, 3.0]
    assert second.tolist() == [1 + 1 * 2 + 4 * 1, 5 * 2 + 8 * 1]
    assert after.moments["a"].mean.reshape(-1).tolist() == [3.0, 1.0, -2.0, 3.0]
    two = AbsorbBias(n=2)(told(model, mean, std))
    assert biases(two)[0] is not None
    assert np.asarray(biases(two)[0]).tolist() == [2.0, 1.0, -2.0, 2.0]


def test_a_padded_taker_by_hand() -> None:
    """c = 5 − 3·1 = 2. Inside, taps 1 to 9 lose 2·45 and the bias gains it; a corner sees 5 + 6 + 8 + 9 = 28 of 45."""
    taps = np.arange(1.0, 10).reshape(1, 1, 3, 3)
    body = "a = Conv(x, w, b) r = Relu(a) y = Conv <pads = [1, 1, 1, 1]> (r, v, c)"
    consts: dict[str, Any] = {"w": np.ones((1, 1, 1, 1)), "b": [5.0], "v": taps, "c": [0.5]}
    model = read(network(body, inputs="float[N,1,4,4] x", output="float[] y", **consts))
    model = told(model, np.full((1, 1, 1, 1), 5.0), np.ones((1, 1, 1, 1)))
    assert [b.tolist() for b in biases(AbsorbBias()(model)) if b is not None] == [[5.0], [0.5]]
    after = AbsorbBias(padded=True)(model)
    assert [b.tolist() for b in biases(after) if b is not None] == [[3.0], [0.5 + 2 * 45]]
    assert after.moments["a"].mean.item() == 3.0
    x = np.zeros((1, 1, 4, 4), np.float32)
    (found,), (wanted,) = values(after, x), values(model, x)
    assert wanted[0, 0, 1, 1] == found[0, 0, 1, 1] == 0.5 + 5 * 45
    assert wanted[0, 0, 0, 0] == 0.5 + 5 * 28
    assert found[0, 0, 0, 0] == wanted[0, 0, 0, 0] + 2 * (45 - 28)


def test_a_transposed_taker_takes_nothing_even_so() -> None:
    """Its outputs see one tap here and four there, so no single bias makes up for c."""
    model = known("r = Relu(a) y = ConvTranspose(r, v)", v=normal(4, 4, 3, 3))
    np.testing.assert_array_equal(biases(AbsorbBias(padded=True)(model))[0], B1)


def test_views_tell_what_tensors_were() -> None:
    body, consts = NEXT["convolution"]
    model = known(body, **consts)
    after = AbsorbBias()(model)
    x = pixels(2)
    (found,), (wanted,) = values(after, x, ["a"]), values(model, x, ["a"])
    view = after.views["a"]
    np.testing.assert_allclose(view.scale * (found + view.offset), wanted, atol=1e-5)
    assert set(after.views) == {"a", "r"}


def test_channels_that_reach_a_clip_are_left() -> None:
    model = known("r = Clip(a, zero, six) y = Conv(r, v)", v=normal(5, 4, 1, 1))
    first = biases(AbsorbBias()(model))[0]
    assert first is not None
    stays = B1 + 3 * STD >= 6
    assert stays[0]
    np.testing.assert_allclose(first, np.where(stays, B1, B1 - ABSORBED), rtol=1e-6)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("r = Relu(a) y = Conv <pads = [1, 1, 1, 1]> (r, v)", "the next layer pads with zeros"),
        ("r = Relu(a) y = ConvTranspose(r, v)", "the next layer pads with zeros"),
        ("r = Relu(a) p = Conv <pads = [1, 1, 1, 1]> (r, v) q = Sigmoid(r) y = Add(p, q)", "others than layers read"),
        ("y = Relu(a)", "the activation is a network output"),
    ],
)
def test_refusals_are_told(body: str, why: str) -> None:
    model = known(body, v=normal(4, 4, 3, 3))
    after = AbsorbBias()(model)
    event = next(e for e in after.log if e.kind is EventKind.BIAS_NOT_ABSORBED)
    assert why in event.facts["why"]
    assert event.facts["channels"] == 2
    np.testing.assert_array_equal(biases(after)[0], B1)


@pytest.mark.parametrize("between", ["r = LeakyRelu(a)", "r = Abs(a)", "r = Clip(a, six)"])
def test_only_what_is_cut_off_at_zero_can_be_absorbed(between: str) -> None:
    model = known(f"{between} y = Conv(r, v)", v=normal(4, 4, 1, 1))
    np.testing.assert_array_equal(biases(AbsorbBias()(model))[0], B1)


@pytest.mark.parametrize("length", [4, 5])
def test_a_layer_that_reads_another_axis_takes_nothing(length: int) -> None:
    model = known("r = Relu(a) y = MatMul(r, v)", inputs=f"float[N,3,{length}] x", v=normal(length, 6))
    x = np.random.default_rng(0).standard_normal((64, 3, length)).astype(np.float32)
    (found,), (wanted,) = values(AbsorbBias()(model), x), values(model, x)
    assert np.sqrt(np.square(found - wanted).mean()) < 0.005 * wanted.std()


def test_what_is_only_estimated_is_left() -> None:
    """Propagated spreads may be too small, and then far more than a thousandth of the values lies below c."""
    body, consts = NEXT["convolution"]
    model = known(body, **consts)
    estimated = {name: replace(m, origin="propagated") for name, m in model.moments.items()}
    np.testing.assert_array_equal(biases(AbsorbBias()(replace(model, moments=estimated)))[0], B1)
