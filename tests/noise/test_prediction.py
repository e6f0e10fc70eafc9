"""Predicted noise against the optimizer's own account, against loops, and against noise that is measured."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest

from equint import load, quantize
from equint.demo import data_path, model_path
from equint.ir.events import EventKind
from equint.ir.model import Array, Correction, Model, Moments, QParams
from equint.noise.prediction import Prediction, predict
from equint.onnx.qdq import export
from equint.onnx.reader import read
from equint.ops.layers import layers
from equint.passes.activation_ranges import ActivationRanges
from equint.passes.correct_bias import CorrectBias
from equint.passes.correct_bias_empirical import CorrectBiasEmpirical
from equint.passes.fold_batchnorm import FoldBatchnorm
from equint.passes.relu6 import Relu6
from equint.planning.recipe import recipe
from equint.runtime.session import Session
from equint.samples.card import Card, described
from equint.samples.data import batches
from equint.samples.images import Samples
from handwritten import network

DIGITS = Card("gray", (0.0,), (16.0,))


def reference(clip: Literal["keep", "channel_clip"] = "keep") -> Model:
    return ActivationRanges()(Relu6(clip)(FoldBatchnorm()(described(load(model_path()), (0, 1)))))


def db(noise: float) -> float:
    return -10 * float(np.log10(noise))


@pytest.mark.slow
@pytest.mark.parametrize("target", ["per-channel", "per-tensor", "per-tensor-clip"])
def test_it_is_what_the_optimizer_counted(target: str) -> None:
    """Two accounts of one network: flat arrays in rescaled units there, layer by layer in original units here."""
    steps = tuple(p for p in recipe("optimal").passes if p[0] != "round_weights")  # which fits weights to inputs
    result = quantize(model_path(), replace(recipe("optimal"), passes=steps), target, input=(0, 1))
    facts = next(e.facts for e in result.model.log if e.kind is EventKind.OPTIMIZED)
    found = predict(reference("channel_clip" if target.endswith("clip") else "keep"), result.model)
    assert db(found.weights) == pytest.approx(facts["of weights"], abs=1.0)
    inner = [t for t in found.tensors if t.tensor not in ("input", *result.model.graph.outputs)]
    assert db(sum(t.rounding for t in inner)) == pytest.approx(facts["of activations"], abs=0.1)
    assert db(sum(t.clips for t in inner)) == pytest.approx(facts["of clips"], abs=0.3)


@pytest.mark.slow
def test_layers_against_what_is_measured() -> None:
    """Only one layer's weights quantized: the noise at that layer's output, on images it has not seen."""
    steps = tuple(p for p in recipe("optimal").passes if p[0] != "round_weights")
    model = quantize(model_path(), replace(recipe("optimal"), passes=steps), "per-tensor", input=(0, 1)).model
    predicted = {layer.tensor: layer for layer in predict(reference(), model).layers}
    images = np.concatenate([x for x, _ in batches(data_path(), DIGITS, 64, 128)])
    biases = {la.y: reference().graph.consts[la.bias] for la in layers(reference().graph) if la.bias}
    scales = {
        la.y: np.ravel(model.views[la.y].scale) if la.y in model.views else np.ones(1) for la in layers(model.graph)
    }
    plain = {la.bias: (biases[la.y] / scales[la.y]).astype(np.float32) for la in layers(model.graph) if la.bias}
    floats = replace(model, graph=model.graph.with_consts(plain), qparams={})
    pairs = []
    for layer in layers(model.graph):
        scale = scales[layer.y]
        assert layer.bias is not None
        own = {layer.bias: model.graph.consts[layer.bias]}
        one = replace(floats, graph=floats.graph.with_consts(own), qparams={layer.weight: model.qparams[layer.weight]})
        exact = Session(export(floats), taps=(layer.y,)).run(images)[layer.y]
        noisy = Session(export(one), taps=(layer.y,)).run(images)[layer.y]
        field = scale.reshape((1, -1) + (1,) * (exact.ndim - 2))
        noise = np.square((noisy - exact) * field).sum() / np.square(exact * field).sum()
        weights = predicted[layer.y].weights
        assert weights is not None
        pairs.append((db(weights), db(float(noise))))
    expected, found = np.array(pairs).T
    assert np.abs(np.median(expected - found)) < 1
    assert np.mean(np.abs(expected - found) < 4) >= 0.9


def test_nothing_quantized_makes_no_noise() -> None:
    found = predict(reference(), reference())
    assert (found.total, found.tensors) == (0, ())
    assert {layer.limit for layer in found.layers} == {""}
    assert Prediction((), ()).total == 0


def test_finer_grids_make_the_noise_that_bits_promise() -> None:
    """Two bits more: 12 dB less rounding noise of activations, where ranges stay."""
    coarse, fine = (
        quantize(model_path(), "lwq", "per-tensor", activation_bits=bits, input=(0, 1)).model for bits in (6, 8)
    )
    first, second = predict(reference(), coarse), predict(reference(), fine)
    assert first.weights == second.weights
    assert 10 * np.log10(first.activations / second.activations) == pytest.approx(20 * np.log10(255 / 63), abs=0.1)


def lone_layer() -> tuple[Model, Model, Samples]:
    """A 1×1 convolution of two channels to two, its float reference, and images of means (1, 3) and spreads (1, 2).

    Rounding errs by (−¼, ¼) and (¼, ¼): it scatters by 1/16·1 + 1/16·4 = 5/16 at each output, and shifts them by
    −¼ + ¾ = ½ and ¼ + ¾ = 1. The outputs' mean squares are 9.5² + 31.8125 and 6² + 12.8125, 170.875 together.
    """
    weights = np.array([[1.25, 2.75], [0.75, 1.75]], np.float32).reshape(2, 2, 1, 1)
    proto = network("y = Conv(x, w, b)", inputs="float[N,2,1,1] x", w=weights, b=np.zeros(2, np.float32))
    known = {
        "x": Moments(column(1.0, 3.0), column(1.0, 2.0), "calibration"),
        "y": Moments(column(9.5, 6.0), np.sqrt(column(31.8125, 12.8125)), "calibration"),
    }
    floats = replace(read(proto), moments=known)
    grid = QParams(np.asarray(1, np.float32), np.asarray(0, np.int32))
    pixels = [[0.0, 1.0], [0.0, 1.0], [2.0, 5.0], [2.0, 5.0]]
    images = Samples.of(np.array(pixels, np.float32).reshape(4, 2, 1, 1))
    return floats, replace(floats, moments={}, qparams={"w": grid}), images


def column(*values: float) -> Array:
    return np.array(values).reshape(1, -1, 1, 1)


def weight_noise(reference: Model, quantized: Model) -> float:
    (layer,) = predict(reference, quantized).layers
    assert layer.weights is not None
    return layer.weights * 170.875


def test_what_is_not_corrected_shifts_its_outputs() -> None:
    floats, quantized, _ = lone_layer()
    assert weight_noise(floats, quantized) == pytest.approx(5 / 8 + 1 / 4 + 1)


def test_a_correction_that_is_refused_is_none() -> None:
    """Nothing is known of the input's mean: the biases stay as they are."""
    floats, quantized, _ = lone_layer()
    refused = CorrectBias()(quantized)
    assert EventKind.BIAS_NOT_CORRECTED in [e.kind for e in refused.log]
    assert weight_noise(floats, refused) == pytest.approx(15 / 8)


def test_corrections_take_the_shift_back() -> None:
    floats, quantized, images = lone_layer()
    analytic = CorrectBias()(replace(quantized, moments=floats.moments))
    empirical = CorrectBiasEmpirical(images=images)(quantized)
    for corrected in (analytic, empirical):
        np.testing.assert_allclose(corrected.graph.consts["b"], [-0.5, -1.0])
        assert weight_noise(floats, corrected) == pytest.approx(5 / 8)


def test_a_channel_whose_correction_was_rolled_back_still_shifts() -> None:
    floats, quantized, _ = lone_layer()
    half = {"y": Correction("empirical", np.array([True, False]))}
    assert weight_noise(floats, replace(quantized, corrected=half)) == pytest.approx(5 / 8 + 1)
