"""Causes follow from what was done to a network, not from the words it was told in."""

from dataclasses import replace

import numpy as np
import pytest

from equint.ir.events import Event, EventKind
from equint.ir.model import Correction, Model, Moments, QParams
from equint.onnx.reader import read
from equint.ops.layers import layers
from equint.passes.correct_bias import CorrectBias
from equint.study.causes import _mean_error, _weights
from handwritten import network


def lone_layer() -> Model:
    """Rounding errs by (−¼, ¼) and (¼, ¼): outputs scatter by 10/16 together, and shift by ½ and 1, 5/4 in power."""
    weights = np.array([[1.25, 2.75], [0.75, 1.75]], np.float32).reshape(2, 2, 1, 1)
    proto = network("y = Conv(x, w, b)", inputs="float[N,2,1,1] x", w=weights, b=np.zeros(2, np.float32))
    mean, std = (np.array(v).reshape(1, 2, 1, 1) for v in ([1.0, 3.0], [1.0, 2.0]))
    return replace(read(proto), moments={"x": Moments(mean, std, "calibration")})


def shift(plain: Model, quantized: Model) -> list[float]:
    (layer,) = layers(quantized.graph)
    return [cause.facts["shifted over scattered"] for cause in _mean_error(layer, plain, quantized)]


def test_only_biases_that_were_corrected_explain_no_shift() -> None:
    plain = lone_layer()
    quantized = replace(plain, qparams={"w": QParams(np.asarray(1, np.float32), np.asarray(0, np.int32))})
    refused = CorrectBias()(replace(quantized, moments={}))
    one = replace(quantized, corrected={"y": Correction("empirical", np.array([True, False]))})
    assert shift(plain, quantized) == shift(plain, refused) == pytest.approx([2.0])
    assert shift(plain, one) == pytest.approx([1.6])
    assert shift(plain, CorrectBias()(quantized)) == []


@pytest.mark.parametrize(
    ("kind", "caused"),
    [
        (EventKind.SCALE_RAISED_FOR_BIAS, True),
        (EventKind.SHIFTS_LOWERED_FOR_BIASES, True),
        (EventKind.SCALE_BOUNDED, False),
        (EventKind.BIAS_NOT_CORRECTED, False),
    ],
)
def test_what_was_done_for_a_bias_is_its_fault(kind: EventKind, caused: bool) -> None:
    plain = lone_layer()
    (layer,) = layers(plain.graph)
    grid = QParams(np.asarray(1, np.float32), np.asarray(0, np.int32))
    model = replace(plain, qparams={"w": grid}).noted(Event(kind, layer.name, {"channels": 1}))
    assert ("bias" in [cause.kind for cause in _weights(layer, model)]) == caused
