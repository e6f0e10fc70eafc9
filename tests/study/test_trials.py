"""Variants measured in pieces answer as when they run alone."""

import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from equint.errors import EquintError
from equint.graph.overrides import Override
from equint.ir.model import Model, QSpec
from equint.maths.affine import fake_quantize
from equint.onnx.qdq import qdq_graph
from equint.onnx.reader import read
from equint.onnx.writer import to_proto
from equint.ops.layers import layers
from equint.passes.calibrate import Calibrate
from equint.passes.correct_bias import CorrectBias
from equint.passes.fold_batchnorm import FoldBatchnorm
from equint.passes.quantize import Quantize
from equint.samples.images import Samples
from equint.study.trials import common, composed, scores, truth
from handwritten import execute, network, normal
from nets import random_network
from trying import classifier, pictures


def ready(seed: int) -> tuple[Model, Samples]:
    proto = random_network(seed)
    model = FoldBatchnorm()(read(proto))
    shape = [d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim][1:]
    images = Samples.of(np.random.default_rng(seed).standard_normal((12, *shape), np.float32), size=4)
    return Calibrate(images=images)(model), images


def decibels(wanted: list[np.ndarray], found: list[np.ndarray]) -> float:
    noise = sum(float(np.sum(np.square(f.astype(float) - w))) for f, w in zip(found, wanted, strict=True))
    signal = sum(float(np.sum(np.square(w.astype(float)))) for w in wanted)
    return math.inf if noise == 0 else 10 * math.log10(max(signal, 1e-300) / noise)


@pytest.mark.slow
@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000))
def test_pieces_answer_as_the_whole(seed: int) -> None:
    model, images = ready(seed)
    quantized = CorrectBias()(Quantize()(model))
    known = truth(model.graph, images)
    every = [layer.y for layer in layers(quantized.graph)]
    base = qdq_graph(composed(model, quantized, every, list(quantized.qparams)))
    variants = {
        y: qdq_graph(composed(model, quantized, [e for e in every if e != y], list(quantized.qparams))) for y in every
    }
    shared, alone = scores(variants, known, base), scores(variants, known)
    wanted = [w for batch in known.outputs for w in batch.values()]
    for y, graph in variants.items():
        found = [v for feed in known.feeds for v in execute(to_proto(graph), *feed.values())]
        expected = decibels(wanted, found)
        assert alone[y].sqnr_db == pytest.approx(expected, abs=1e-3)
        assert shared[y].sqnr_db == pytest.approx(alone[y].sqnr_db, abs=1e-3)


def test_what_differs_late_runs_late() -> None:
    model = Calibrate(images=Samples.of(pictures()))(classifier())
    base = qdq_graph(Quantize()(model))
    cuts = [common(base, qdq_graph(Quantize(overrides=(Override((name,), weight_bits=4),))(model))) for name in "abcy"]
    assert cuts == sorted(cuts)
    assert cuts[-1] > 0.7 * len(base.nodes)
    assert common(base, base) == len(base.nodes)


def test_a_skip_connection_is_handed_over() -> None:
    body = "a = Conv(x, w) r = Relu(a) b = Conv(r, v) s = Add(b, r) t = Relu(s) y = Conv(t, u)"
    proto = network(body, output="float[] y", w=normal(4, 3, 1, 1), v=normal(4, 4, 1, 1), u=normal(4, 4, 1, 1, seed=9))
    x = normal(8, 3, 8, 8, scale=1)
    model = Calibrate(images=Samples.of(x))(read(proto))
    quantized = Quantize()(model)
    known = truth(model.graph, Samples.of(x))
    one = qdq_graph(Quantize(overrides=(Override(("b",), weight_bits=3),))(model))
    found = scores({"": one}, known, qdq_graph(quantized))[""]
    assert found.sqnr_db == pytest.approx(decibels(execute(proto, x), execute(to_proto(one), x)), abs=1e-3)


def test_only_what_is_named_is_quantized() -> None:
    model = Calibrate(images=Samples.of(pictures()))(classifier())
    quantized = CorrectBias()(Quantize(weight=QSpec(4))(model))
    some = composed(model, quantized, ["b"], ["rc"])
    assert set(some.qparams) == {"wb", "rc"}
    same = ("wa", "ba", "wc", "bc", "wd", "bd")
    assert all(np.array_equal(some.graph.consts[n], model.graph.consts[n]) for n in same)
    layer = next(la for la in layers(some.graph) if la.y == "b")
    corrected = next(la for la in layers(quantized.graph) if la.y == "b")
    assert layer.bias is not None
    assert corrected.bias is not None
    np.testing.assert_array_equal(some.graph.consts[layer.bias], quantized.graph.consts[corrected.bias])
    only = composed(model, quantized, ["b"], [])
    consts = {layer.bias: only.graph.consts[layer.bias]}
    consts["wb"] = fake_quantize(model.graph.consts["wb"], quantized.qparams["wb"])
    x = pictures(4)
    (wanted,) = execute(to_proto(only.graph.with_consts(consts)), x)
    np.testing.assert_allclose(execute(to_proto(qdq_graph(only)), x)[0], wanted, rtol=1e-4, atol=1e-4)


def test_agreement_and_labels_are_counted() -> None:
    model = classifier()
    x = pictures(20)
    answers = execute(to_proto(model.graph), x)[0].argmax(1)
    labels = np.where(np.arange(20) < 5, (answers + 1) % 5, answers)
    known = truth(model.graph, Samples.of(x), labels)
    score = scores({"": model.graph}, known)[""]
    assert score.agreement == 100
    assert score.top1 == 75
    assert known.images == 20
    assert (known.batches(slice(0, None, 2)).images, known.batches(slice(1, None, 2)).images) == (12, 8)


def test_labels_for_other_images_are_refused() -> None:
    with pytest.raises(EquintError, match="3 labels for 20 images"):
        truth(classifier().graph, Samples.of(pictures(20)), np.zeros(3, int))
