"""Biases corrected from images: the mean error of every layer is gone, where that helps on images not seen."""

from collections.abc import Mapping
from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from onnx import ModelProto

from equint.graph.inputs import infer_input
from equint.ir.edit import Editor
from equint.ir.events import EventKind
from equint.ir.model import Array, Graph, Model, QSpec, Range
from equint.ir.weights import Layer
from equint.onnx.qdq import export
from equint.onnx.reader import read
from equint.onnx.writer import to_proto
from equint.ops.layers import layers
from equint.passes import Pass
from equint.passes.absorb_bias import AbsorbBias
from equint.passes.activation_ranges import ActivationRanges
from equint.passes.correct_bias_empirical import CorrectBiasEmpirical, helps
from equint.passes.equalize import Equalize
from equint.passes.fold_batchnorm import FoldBatchnorm
from equint.passes.quantize import Quantize
from equint.passes.relu6 import Relu6
from equint.runtime.session import Session
from equint.samples.images import Samples
from handwritten import network, normal
from nets import networks, random_network, sample

COARSE = Quantize(QSpec(4, granularity="tensor"))
GRIDS = {
    "weights alone": Quantize(QSpec(4, granularity="tensor"), None),
    "12 bits": Quantize(QSpec(5, granularity="channel"), QSpec(12, signed=False, symmetric=False)),
    "8 bits": Quantize(QSpec(4, granularity="channel"), QSpec(8, signed=False, symmetric=False)),
}
NEAR = {"weights alone": 1e-3, "12 bits": 0.02, "8 bits": 0.2}
"""What a few values that are rounded the other way may do to a mean."""
RESCALED: tuple[Pass, ...] = (Relu6("channel_clip"), Equalize(), AbsorbBias())


def quantized(proto: ModelProto, *before: Pass, grid: Pass = COARSE) -> tuple[Model, Graph]:
    """The quantized network, and the float one as it was read."""
    original = infer_input(read(proto))
    model = FoldBatchnorm()(original)
    for step in (*before, ActivationRanges(), grid):
        model = step(model)
    return model, original.graph


def halves(values: Array, axis: int) -> Array:
    """Mean per channel over images of even and of odd number, `(2, O)`."""
    others = tuple(d for d in range(values.ndim) if d != axis % values.ndim)
    return np.stack([values[k::2].mean(others, dtype=np.float64) for k in range(2)])


def tapped(proto: ModelProto, x: Array, names: list[str]) -> Mapping[str, Array]:
    return Session(proto, taps=names).run(x)


def errors(model: Model, teacher: Graph, x: Array, every: list[Layer]) -> dict[str, Array]:
    """Mean errors of the exported network's layers, before anything is rounded: `(2, O)`, in its own units."""
    proto = export(model)
    made = {o for node in proto.graph.node for o in node.output}
    raw = {la.y: f"{la.y}_float" if f"{la.y}_float" in made else la.y for la in every}
    found, wanted = tapped(proto, x, list(raw.values())), tapped(to_proto(teacher), x, list(raw))
    result = {}
    for la in every:
        truth = halves(wanted[la.y], la.y_axis)
        if la.y in model.views:
            truth = truth / model.views[la.y].scale.ravel() - model.views[la.y].offset.ravel()
        result[la.name] = halves(found[raw[la.y]], la.y_axis) - truth
    return result


def naive(model: Model, teacher: Graph, x: Array) -> Model:
    """The schedule as it is written: for every layer, export and run all that is corrected so far."""
    now = model
    for number, before in enumerate(layers(model.graph)):
        layer = list(layers(now.graph))[number]
        error = errors(now, teacher, x, [layer])[layer.name].mean(0)
        bias = np.zeros(error.size) if layer.bias is None else now.graph.consts[layer.bias].ravel()
        if layer.x in now.qparams:  # the error was that of the bias as it is stored
            step = (now.qparams[layer.x].scale * now.qparams[layer.weight].scale).astype(np.float64)
            bias = np.rint(bias / step) * step
        editor = Editor(now.graph)
        editor.set(layer.node, 2, layer.shaped_bias((bias - error).astype(np.float32)), f"{before.y}_bias")
        now = replace(now, graph=editor.done())
    return now


def biases(model: Model) -> dict[str, Array]:
    return {la.name: np.zeros(1) if la.bias is None else model.graph.consts[la.bias] for la in layers(model.graph)}


def steps(model: Model) -> float:
    """The coarsest step of a bias."""
    q = model.qparams
    return max(
        (float(np.max(q[la.x].scale * q[la.weight].scale)) for la in layers(model.graph) if la.x in q), default=0.0
    )


# The promise

nets = networks(calibrated=True, count=(1, 4))


@pytest.mark.slow
@settings(max_examples=12)
@given(proto=nets, rescaled=st.booleans(), grid=st.sampled_from(["weights alone", "12 bits"]))
def test_it_is_the_naive_schedule(proto: ModelProto, rescaled: bool, grid: str) -> None:
    model, teacher = quantized(proto, *(RESCALED if rescaled else ()), grid=GRIDS[grid])
    x = sample(proto, 9)
    found = biases(CorrectBiasEmpirical(roll_back=False, images=Samples.of(x), teacher=teacher)(model))
    wanted, before = biases(naive(model, teacher, x)), biases(model)
    largest = max(float(np.abs(wanted[n] - before[n]).max()) for n in wanted)
    for name, bias in wanted.items():
        np.testing.assert_allclose(
            found[name], bias, rtol=0, atol=NEAR[grid] * largest + 1.01 * steps(model), err_msg=name
        )


@pytest.mark.slow
@settings(max_examples=12)
@given(proto=nets, rescaled=st.booleans(), grid=st.sampled_from(sorted(GRIDS)))
def test_no_layer_keeps_a_mean_error(proto: ModelProto, rescaled: bool, grid: str) -> None:
    """On the images, in the network that is exported."""
    model, teacher = quantized(proto, *(RESCALED if rescaled else ()), grid=GRIDS[grid])
    x = sample(proto, 10)
    after = CorrectBiasEmpirical(images=Samples.of(x), teacher=teacher, roll_back=False)(model)
    before, now = (errors(m, teacher, x, list(layers(m.graph))) for m in (model, after))
    largest = max(float(np.abs(e.mean(0)).max()) for e in before.values())
    for name, e in now.items():
        assert float(np.abs(e.mean(0)).max()) <= NEAR[grid] * largest + 0.51 * steps(after), name


@pytest.mark.slow
@settings(max_examples=12)
@given(proto=nets, rescaled=st.booleans(), grid=st.sampled_from(["weights alone", "12 bits"]))
def test_what_would_not_help_is_rolled_back(proto: ModelProto, rescaled: bool, grid: str) -> None:
    """A channel keeps its bias to the bit where its halves contradict each other, or loses its mean error."""
    model, teacher = quantized(proto, *(RESCALED if rescaled else ()), grid=GRIDS[grid])
    x = sample(proto, 16)
    after = CorrectBiasEmpirical(images=Samples.of(x), teacher=teacher)(model)
    old, new, every = biases(model), biases(after), list(layers(after.graph))
    now = errors(after, teacher, x, every)
    changed = {n: np.broadcast_to((new[n] != old[n]).ravel(), now[n].shape[1]) for n in new}
    largest = max(float(np.abs(e).max()) for e in now.values())
    for name, e in now.items():
        assert np.all(np.abs(e.mean(0))[changed[name]] <= NEAR[grid] * largest + 0.51 * steps(after)), name
        clear = np.abs(e).min(0) > 10 * (NEAR[grid] * largest + steps(after))
        assert not np.any(helps(e) & clear & ~changed[name]), name
    event = next(e for e in after.log if e.kind is EventKind.BIASES_CORRECTED_FROM_IMAGES)
    assert event.facts["layers"] == len(every)
    assert sum(int(c.sum()) for c in changed.values()) <= event.facts["channels"]
    assert event.facts["channels"] + event.facts["rolled back"] == sum(c.size for c in changed.values())


# The rule


@given(st.floats(-10, 10), st.floats(-10, 10))
def test_helps_is_cross_validation(a: float, b: float) -> None:
    """Each half corrected by the other half's error: do the squares become less?"""
    before, after = a**2 + b**2, (a - b) ** 2 + (b - a) ** 2
    if abs(before - after) > 1e-6 * before:
        assert helps(np.array([[a], [b]])).tolist() == [after < before]


def test_helps_by_hand() -> None:
    """Halves that agree up to a factor of 2 + √3 do."""
    ratio = 2 + np.sqrt(3)
    a = np.array([1.0, 1.0, 1.0, -1.0, 1.0, 0.0, 0.0])
    b = np.array([1.0, 0.99 * ratio, 1.01 * ratio, -0.5, -1.0, 1.0, 0.0])
    assert helps(np.stack([a, b])).tolist() == [True, True, False, True, False, False, False]


# Worked examples


def test_a_worked_example() -> None:
    """Weight 0.9 on a grid of step 1 becomes 1: of images with means 1 and 3 the bias must lose 0.1·2."""
    proto = network("y = Conv(x, w, b)", inputs="float[N,1,2,2] x", w=[[[[0.9]]], [[[-7.0]]]], b=[3.0, 0.0])
    model = Quantize(weight=QSpec(4, narrow=True, granularity="tensor"), activation=None)(read(proto))
    x = np.array([1.0, 1.0, 3.0, 3.0], np.float32).reshape(4, 1, 1, 1) * np.ones((4, 1, 2, 2), np.float32)
    (layer,) = layers((after := CorrectBiasEmpirical(images=Samples.of(x))(model)).graph)
    assert layer.bias is not None
    np.testing.assert_allclose(after.graph.consts[layer.bias], [3.0 - 0.2, 0.0], atol=1e-6)
    assert after.log[-1].facts == {"layers": 1, "channels": 1, "rolled back": 1}


def test_without_roll_back_a_correction_stays_that_the_halves_contradict() -> None:
    """Images of 3 and of −1 alike: errors of 0.3 and −0.1, of which 0.1 is the mean."""
    proto = network("y = Conv(x, w, b)", inputs="float[N,1,2,2] x", w=[[[[0.9]]], [[[-7.0]]]], b=[3.0, 0.0])
    model = Quantize(weight=QSpec(4, narrow=True, granularity="tensor"), activation=None)(read(proto))
    x = Samples.of(np.array([3.0, -1.0], np.float32).reshape(2, 1, 1, 1) * np.ones((2, 1, 2, 2), np.float32))
    for roll_back, wanted in ((True, 3.0), (False, 3.0 - 0.1)):
        after = CorrectBiasEmpirical(images=x, roll_back=roll_back)(model)
        np.testing.assert_allclose(biases(after)[next(layers(after.graph)).name], [wanted, 0.0], atol=1e-6)
        assert after.log[-1].facts["rolled back"] == (2 if roll_back else 0)


def test_one_image_proves_nothing() -> None:
    proto = random_network(6)
    model, teacher = quantized(proto)
    after = CorrectBiasEmpirical(images=Samples.of(sample(proto, 1)), teacher=teacher)(model)
    assert after.log[-1].facts["channels"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("steps", [(), RESCALED])
def test_without_a_teacher_the_own_weights_teach(steps: tuple[Pass, ...]) -> None:
    """In the units that they have now, rescaled or not."""
    proto = random_network(2, calibrated=True, blocks=["depthwise_separable"], activations=["relu", "relu6"])
    model, _ = quantized(proto, *steps)
    assert bool(model.views) == bool(steps)
    x = Samples.of(sample(proto, 8))
    found = biases(CorrectBiasEmpirical(images=x)(model))
    wanted = biases(CorrectBiasEmpirical(images=x, teacher=model.graph)(replace(model, views={})))
    for name, bias in wanted.items():
        np.testing.assert_array_equal(found[name], bias)


@pytest.mark.parametrize("bits", [8, 16])
def test_a_correction_that_needs_more_bits_raises_the_scale_of_weights(bits: int) -> None:
    """Weights without a bias fit; what takes out their error times a far mean does not fit into 8 bits."""
    span = Range(np.full((1, 1, 1, 1), -1.0), np.full((1, 1, 1, 1), 400.0))
    fine = Quantize(QSpec(3, granularity="channel"), QSpec(8, signed=False, symmetric=False), bias_bits=bits)
    model = fine(ActivationRanges()(replace(read(network("y = Conv(x, w)", w=normal(4, 3, 3, 3))), ranges={"x": span})))
    x = np.random.default_rng(0).normal(300, 1, (8, 3, 8, 8)).astype(np.float32)
    after = CorrectBiasEmpirical(bits, images=Samples.of(x))(model)
    (layer,) = layers(after.graph)
    assert layer.bias is not None
    scale = after.qparams["x"].scale * after.qparams["w"].scale.astype(np.float64)
    assert np.all(np.abs(np.rint(after.graph.consts[layer.bias] / scale)) <= 2 ** (bits - 1) - 1)
    raised = after.qparams["w"].scale > model.qparams["w"].scale
    assert raised.any() == any(e.kind is EventKind.SCALE_RAISED_FOR_BIAS for e in after.log)
    assert raised.any() == (bits == 8)
    assert np.all(after.qparams["w"].scale >= model.qparams["w"].scale)


def test_no_images() -> None:
    model, _ = quantized(random_network(1))
    after = CorrectBiasEmpirical()(model)
    assert after == model.noted(after.log[-1])
    assert after.log[-1].kind is EventKind.BIASES_NOT_CORRECTED_FROM_IMAGES
    assert after.log[-1].facts == {"why": "no images to look at"}


def test_progress() -> None:
    proto, seen = random_network(5), list[tuple[int, int]]()
    model, _ = quantized(proto)
    CorrectBiasEmpirical(images=Samples.of(sample(proto, 2)), progress=lambda *done: seen.append(done))(model)
    count = sum(1 for _ in layers(model.graph))
    assert seen == [(k, count) for k in range(count)]
