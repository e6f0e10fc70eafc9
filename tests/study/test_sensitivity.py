"""What a layer costs is what the network loses when that layer alone is quantized."""

import math

import numpy as np
import pytest

from equint.graph.overrides import Override
from equint.ir.model import Model, QSpec
from equint.maths.affine import fake_quantize
from equint.onnx.qdq import export
from equint.onnx.writer import to_proto
from equint.ops.layers import layers
from equint.passes.activation_ranges import ActivationRanges
from equint.passes.calibrate import Calibrate
from equint.passes.quantize import Quantize
from equint.samples.images import Samples
from equint.study.sensitivity import costs, sensitivity
from equint.study.trials import truth
from handwritten import Array, execute
from trying import classifier, pictures, wide

X = pictures(32)
SPEC = QSpec(8, granularity="tensor")


def calibrated() -> Model:
    return ActivationRanges()(Calibrate(images=Samples.of(X))(classifier(wide(2, 300.0))))


def decibels(wanted: Array, found: Array) -> float:
    noise = float(np.sum(np.square(found.astype(float) - wanted)))
    return 10 * math.log10(float(np.sum(np.square(wanted.astype(float)))) / noise)


def test_one_layer_at_a_time() -> None:
    model = calibrated()
    quantized = Quantize(weight=SPEC)(model)
    found = sensitivity(model, quantized, truth(model.graph, Samples.of(X)))
    (wanted,) = execute(to_proto(model.graph), X)
    assert {c.layer for c in found.layers} == {"a", "b", "c", "y"}
    for cost in found.layers:
        layer = next(la for la in layers(model.graph) if la.name == cost.layer)
        rounded = fake_quantize(model.graph.consts[layer.weight], quantized.qparams[layer.weight])
        (alone,) = execute(to_proto(model.graph.with_consts({layer.weight: rounded})), X)
        assert cost.weights is not None
        assert cost.without is not None
        assert cost.weights.sqnr_db == pytest.approx(decibels(wanted, alone), abs=0.01)
        proto = export(Quantize(weight=SPEC, overrides=(Override((cost.layer,), float=True),))(model))
        assert cost.without.sqnr_db == pytest.approx(decibels(wanted, execute(proto, X)[0]), abs=0.05)
    for grid in found.tensors:
        assert grid.alone is not None
        assert grid.without is not None
        proto = export(Quantize(weight=SPEC, overrides=(Override(tensors=(grid.tensor,), float=True),))(model))
        assert grid.without.sqnr_db == pytest.approx(decibels(wanted, execute(proto, X)[0]), abs=0.05)


def test_the_bad_layer_comes_first() -> None:
    model = calibrated()
    quantized = Quantize(weight=SPEC)(model)
    assert costs(model, quantized).layers[0].layer == "b"
    found = sensitivity(model, quantized, truth(model.graph, Samples.of(X)), top=2)
    assert found.layers[0].layer == "b"
    assert [c.alone is not None for c in found.layers] == [True, True, False, False]
    assert len(found.layers) == 4


def test_where_nothing_is_quantized_nothing_costs() -> None:
    model = calibrated()
    found = sensitivity(model, model, truth(model.graph, Samples.of(X)))
    assert found.layers == ()
    assert found.tensors == ()
