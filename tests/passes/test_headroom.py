"""Headroom: only what was measured moves, by what the samples' own order says, and never over a clip's bound."""

import numpy as np
import pytest

from equint.ir.events import EventKind
from equint.ir.model import Model, Range
from equint.onnx.reader import read
from equint.passes.calibrate import Calibrate
from equint.passes.headroom import Headroom
from equint.samples.images import Samples
from handwritten import network

PROTO = network("a = Neg(x) b = Clip(a, low, high) y = Neg(b)", low=np.array(0.0), high=np.array(6.0))


def calibrated(peaks: list[float]) -> Model:
    """Each sample is 0 but for one value, −peak."""
    x = np.zeros((len(peaks), 3, 8, 8), np.float32)
    x[:, 0, 0, 0] = -np.array(peaks)
    return Calibrate(images=Samples.of(x))(Model(read(PROTO).graph))


def test_two_samples_by_hand() -> None:
    """A random half of {1, 4} is one of them: 2.5 on average. The last doubling added 1.5, which is 0.375 of 4."""
    model = calibrated([1.0, 4.0])
    assert model.growth["y"][0] == pytest.approx(0.375, rel=1e-3)
    wide = Headroom(2.0)(model).ranges
    assert float(wide["y"].lo.min()) == pytest.approx(-4 - 2 * 1.5, rel=1e-3)
    assert wide["x"] is model.ranges["x"]


def test_a_bound_that_holds_a_tensor_holds_its_range() -> None:
    model = calibrated([1.0, 4.0])
    assert float(Headroom(9.0)(model).ranges["b"].hi.max()) == 6.0
    assert calibrated([9.0, 9.0]).growth["b"] == (0.0, 0.0)


def test_without_measurement_nothing_moves() -> None:
    model = Model(read(PROTO).graph, ranges={"y": Range(np.zeros(()), np.ones(()))})
    found = Headroom()(model)
    assert found.ranges is model.ranges
    assert [e.kind for e in found.log] == [EventKind.NO_HEADROOM]
