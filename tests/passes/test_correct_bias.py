"""The mean error of rounded weights, measured on data that the moments are true of, all but disappears."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from equint.ir.events import EventKind
from equint.ir.model import Array, Model, Moments, QSpec, Range
from equint.maths.affine import fake_quantize
from equint.onnx.reader import read
from equint.ops.layers import layers
from equint.passes.activation_ranges import ActivationRanges
from equint.passes.correct_bias import CorrectBias
from equint.passes.quantize import Quantize
from handwritten import network, normal
from values import values

MEAN, STD = np.array([1.0, -0.5, 2.0, 0.3]), np.array([0.5, 1.0, 0.2, 2.0])
LAYERS: dict[str, tuple[str, dict[str, Any]]] = {
    "convolution": ("y = Conv(r, w, b)", {"w": normal(5, 4, 3, 3), "b": normal(5)}),
    "padded": ("y = Conv <pads = [1, 1, 2, 0], strides = [2, 1]> (r, w)", {"w": normal(5, 4, 3, 3)}),
    "depthwise": ("y = Conv <group = 4, pads = [1, 1, 1, 1]> (r, w, b)", {"w": normal(8, 1, 3, 3), "b": normal(8)}),
    "grouped": ("y = Conv <group = 2> (r, w)", {"w": normal(6, 2, 3, 3)}),
    "transposed": ("y = ConvTranspose <strides = [2, 2], pads = [1, 0, 0, 1]> (r, w)", {"w": normal(4, 5, 3, 3)}),
    "product": ("f = Flatten(r) y = Gemm(f, w)", {"w": normal(144, 5)}),
    "rows": ("f = Transpose <perm = [0, 2, 3, 1]> (r) y = MatMul(f, w)", {"w": normal(4, 5)}),
    "weight first": ("f = Reshape(r, s) y = MatMul(w, f)", {"w": normal(5, 4), "s": [0, 4, 36]}),
    "clipped": ("c = Clip(x, low, high) y = Conv(c, w)", {"w": normal(5, 4, 3, 3), "low": 0.2, "high": 1.5}),
    "two in a sum": (
        "p = Conv(r, w) q = Conv <group = 2> (r, v) s = Add(p, q) y = Conv(s, u)",
        {"w": normal(5, 4, 1, 1)[:4], "v": normal(4, 2, 1, 1), "u": normal(3, 4, 1, 1)},
    ),
}


def described(case: str) -> Model:
    body, consts = LAYERS[case]
    model = read(network(f"r = Relu(x) {body}", inputs="float[N,4,6,6] x", output="float[] y", **consts))
    mean, std = MEAN.reshape(1, 4, 1, 1), STD.reshape(1, 4, 1, 1)
    span = Range(mean - 6 * std, mean + 6 * std)
    return ActivationRanges()(replace(model, moments={"x": Moments(mean, std, "given")}, ranges={"x": span}))


def rounded(model: Model) -> Model:
    """The network with the weights that it will have."""
    consts = model.graph.consts
    grids = {la.weight: model.qparams[la.weight] for la in layers(model.graph)}
    return replace(model, graph=model.graph.with_consts({n: fake_quantize(consts[n], q) for n, q in grids.items()}))


def mean_of(model: Model, x: Array) -> Array:
    (y,) = values(model, x)
    (layer,) = [la for la in layers(model.graph) if la.y == "y"]
    others = tuple(d for d in range(y.ndim) if d != layer.y_axis % y.ndim)
    return np.asarray(y.mean(others, dtype=np.float64))


def images(n: int = 4000) -> Array:
    draws = np.random.default_rng(0).standard_normal((n, 4, 6, 6))
    return (MEAN.reshape(4, 1, 1) + STD.reshape(4, 1, 1) * draws).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("case", LAYERS)
def test_the_mean_error_disappears(case: str) -> None:
    weight = QSpec(3, symmetric=False, granularity="tensor")
    quantized = Quantize(weight=weight, activation=None)(described(case))
    corrected = CorrectBias()(quantized)
    x = images()
    wanted = mean_of(quantized, x)
    before, after = (np.abs(mean_of(rounded(m), x) - wanted).max() for m in (quantized, corrected))
    assert after < before / 10
    assert corrected.log[-1].kind is EventKind.BIASES_CORRECTED
    assert corrected.log[-1].facts["layers"] == len(list(layers(quantized.graph)))


def test_a_worked_example() -> None:
    """Weight 0.9 on a grid of step 1 becomes 1; the input's mean is 2: the bias must lose 0.2."""
    proto = network("y = Conv(x, w, b)", inputs="float[N,1,4,4] x", w=[[[[0.9]]], [[[-7.0]]]], b=[3.0, 0.0])
    one = np.ones((1, 1, 1, 1))
    model = replace(read(proto), moments={"x": Moments(2 * one, one, "given")})
    model = Quantize(weight=QSpec(4, narrow=True, granularity="tensor"), activation=None)(model)
    after = CorrectBias()(model)
    (layer,) = layers(after.graph)
    assert layer.bias is not None
    np.testing.assert_allclose(after.graph.consts[layer.bias], [3.0 - 0.2, 0.0], atol=1e-6)


@pytest.mark.parametrize("bits", [8, 16])
def test_a_narrow_bias_still_fits(bits: int) -> None:
    model = described("convolution")
    big = {"b": 100 * model.graph.consts["b"]}
    model = replace(model, graph=model.graph.with_consts(big))
    after = CorrectBias(bits)(Quantize(bias_bits=bits)(ActivationRanges()(model)))
    (layer,) = layers(after.graph)
    assert layer.bias is not None
    scale = after.qparams[layer.x].scale * after.qparams[layer.weight].scale.astype(np.float64)
    assert np.all(np.abs(np.rint(after.graph.consts[layer.bias] / scale)) <= 2 ** (bits - 1) - 1)


def test_a_scale_that_a_later_layer_raises_corrects_the_earlier_too() -> None:
    """Two convolutions share a weight; the second's large bias makes its grid coarse for both."""
    consts: dict[str, Any] = {"w": normal(4, 4, 1, 1), "big": np.full(4, 90.0, np.float32), "u": normal(2, 4, 1, 1)}
    body = "p = Conv(x, w) q = Relu(p) s = Conv(q, w, big) y = Conv(s, u)"
    model = read(network(body, inputs="float[N,4,6,6] x", output="float[] y", **consts))
    one = np.ones((1, 4, 1, 1))
    model = replace(model, moments={"x": Moments(one, one, "given")}, ranges={"x": Range(-5 * one, 7 * one)})
    model = Quantize(bias_bits=32)(ActivationRanges()(model))
    after = CorrectBias(bias_bits=8)(model)
    first, *_ = layers(after.graph)
    error = fake_quantize(consts["w"], after.qparams["w"]) - consts["w"]
    assert first.bias is not None
    assert after.qparams["w"].scale.max() > model.qparams["w"].scale.max()
    np.testing.assert_allclose(after.graph.consts[first.bias], -error.sum((1, 2, 3)), atol=1e-5)


def test_says_which_biases_stay() -> None:
    model = Quantize(activation=None)(replace(described("convolution"), moments={}))
    after = CorrectBias()(model)
    event = after.log[-1]
    assert event.kind is EventKind.BIAS_NOT_CORRECTED
    assert event.warning
    np.testing.assert_array_equal(after.graph.consts["b"], model.graph.consts["b"])


def test_a_corrected_bias_is_on_its_own_grid() -> None:
    """As in the worked example: 100 − 0.2 and 0.1 − 0 with a step of 99.8/32767 = 0.0030457: 0.1 is 32.8 of them."""
    proto = network("y = Conv(x, w, b)", inputs="float[N,1,4,4] x", w=[[[[0.9]]], [[[-7.0]]]], b=[100.0, 0.1])
    one = np.ones((1, 1, 1, 1))
    model = replace(read(proto), moments={"x": Moments(2 * one, one, "given")}, ranges={"x": Range(-one, 5 * one)})
    weight = QSpec(4, narrow=True, granularity="tensor")
    model = Quantize(weight=weight, bias_bits=16, bias_grid="own")(ActivationRanges()(model))
    after = CorrectBias(16, "own")(model)
    (layer,) = layers(after.graph)
    assert layer.bias is not None
    step = 99.8 / 32767
    np.testing.assert_allclose(after.graph.consts[layer.bias], [99.8, 33 * step], rtol=1e-5)
    np.testing.assert_array_equal(after.qparams["w"].scale, model.qparams["w"].scale)
    plain = CorrectBias(16)(Quantize(weight=weight, bias_bits=16)(ActivationRanges()(model)))
    assert plain.qparams["w"].scale >= model.qparams["w"].scale
