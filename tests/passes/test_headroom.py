"""Headroom: only what was measured moves, by what the samples' own order says, and never over a clip's bound."""

import math

import numpy as np
import pytest
from scipy.integrate import quad

from equint.ir.events import EventKind
from equint.ir.model import Growth, Model, QSpec, Range
from equint.maths.affine import choose_qparams
from equint.maths.ranges import least_noise_headroom
from equint.onnx.reader import read
from equint.passes.calibrate import Calibrate
from equint.passes.headroom import Headroom, _exceeding
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
    assert calibrated([9.0, 9.0]).growth["b"][:2] == (0.0, 0.0)


def test_without_measurement_nothing_moves() -> None:
    model = Model(read(PROTO).graph, ranges={"y": Range(np.zeros(()), np.ones(()))})
    found = Headroom()(model)
    assert found.ranges is model.ranges
    assert [e.kind for e in found.log] == [EventKind.NO_HEADROOM]


def test_the_least_noise_of_results_by_brute_force() -> None:
    """Wright's omega against the sum it makes least, tried end by end."""
    for width, scale, values, samples in ((10.0, 1.0, 2.0, 16), (4.0, 0.5, 10.0, 8), (10.0, 1.0, 1e5, 16)):
        h = np.linspace(0, 20 * scale, 200_001)
        rounding = (width + h) ** 2 / (12 * 255**2)
        beyond = 2 * scale**2 * np.exp(-h / scale) / ((samples + 1) * values)
        found = least_noise_headroom(width, scale, values, samples, 255)
        assert found == pytest.approx(h[np.argmin(rounding + beyond)], abs=1e-3)


def test_powers_of_two_double_only_where_that_makes_less_noise() -> None:
    """[-126, 0] fills the grid of step 1. Samples that reach little further are better cut off than rounded to twos."""
    spec = QSpec(8, power_of_two=True)
    known = Range(np.array(-126.0), np.zeros(()))
    few = Growth(0.5, 0.0, samples=4, values=1.0)
    cases = {
        few: True,
        few._replace(values=1e6): False,
        few._replace(low=0.0005): False,
        few._replace(samples=63): False,
    }
    for growth, wide in cases.items():
        model = Model(read(PROTO).graph, ranges={"y": known}, growth={"y": growth})
        found = Headroom(rule="least-noise", activation=spec)(model).ranges["y"]
        assert choose_qparams(found.lo, found.hi, spec).scale == (2 if wide else 1)
    full = Model(read(PROTO).graph, ranges={"y": Range(np.array(-127.0), np.array(127.0))}, growth={"y": few})
    assert Headroom(2.0, activation=spec)(full).ranges == full.ranges
    assert Headroom(2.0)(full).ranges["y"].lo < -200


def test_few_values_get_headroom_and_many_do_not() -> None:
    """Four samples that reach 1, 2, 3 and 4: a mean of each is one value, what it is the mean of are thousands."""
    x = np.random.default_rng(0).uniform(0, 1, (4, 1, 256, 256)) * np.arange(1, 5).reshape(4, 1, 1, 1)
    graph = read(network("a = Neg(x) y = GlobalAveragePool(a)", inputs="float[N,1,256,256] x")).graph
    model = Calibrate(images=Samples.of(x.astype(np.float32)))(Model(graph))
    wide = Headroom(rule="least-noise")(model).ranges
    shown = [float(model.ranges[name].lo.min()) for name in ("a", "y")]
    assert float(wide["y"].lo.min()) < 1.5 * shown[1]
    assert float(wide["a"].lo.min()) > 1.2 * shown[0]


def test_what_grew_grows_less_by_as_much() -> None:
    """Range 4, and 1.5 more for each doubling: after two it is 7, of 8 samples, and 1.5 is 3/14 of it."""
    grown = Headroom(2.0)(calibrated([1.0, 4.0])).growth["y"]
    assert grown.low == pytest.approx(1.5 / 7, rel=1e-3)
    assert grown.samples == 8


@pytest.mark.parametrize(("end", "room"), [(1.0, 1.5), (1.0, 1.0), (1.0, 0.996)])
@pytest.mark.parametrize("doubled", [0.2, 1e-6])
def test_what_lies_beyond_a_grid_is_the_integral_over_an_exponential_tail(
    end: float, room: float, doubled: float
) -> None:
    """The tail begins where the range ends, which may be beyond the grid: a saturated Sigmoid hardly goes further."""
    scale = doubled * end / math.log(2)
    wanted, _ = quad(lambda z: max(end + scale * z - room, 0.0) ** 2 * math.exp(-z), 0, 60, points=[0, 5], limit=500)
    assert _exceeding(end, room, doubled) == pytest.approx(wanted, rel=1e-4, abs=1e-12)
