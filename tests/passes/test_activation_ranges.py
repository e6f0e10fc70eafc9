"""Ranges worked by hand: mean ± n·std, mapped through what follows."""

from dataclasses import replace

import numpy as np

from equint.ir.events import EventKind
from equint.ir.model import Model, Moments, Range
from equint.onnx.reader import read
from equint.passes.activation_ranges import ActivationRanges
from handwritten import network, normal


def known(body: str, mean: list[float], std: list[float], n: float = 6.0, **consts: object) -> Model:
    """A network whose input x has the moments given, after ranges were chosen."""
    count = len(mean)
    shape = f"float[N,{count},4,4]"
    model = read(network(body, inputs=f"{shape} x", output="float[] y", **consts))  # type: ignore[arg-type]
    fields = [np.array(v).reshape(1, count, 1, 1) for v in (mean, std)]
    return ActivationRanges(n)(replace(model, moments={"x": Moments(fields[0], fields[1], "batchnorm")}))


def ends(model: Model, name: str) -> tuple[list[float], list[float]]:
    r = model.ranges[name]
    return np.round(r.lo, 6).ravel().tolist(), np.round(r.hi, 6).ravel().tolist()


def test_relu_and_clip() -> None:
    model = known("r = Relu(x) y = Clip(r, l, h)", [0.0, 1.0, -9.0], [1.0, 0.5, 1.0], l=0.0, h=5.0)
    assert ends(model, "r") == ([0, 0, 0], [6.0, 4.0, 0.0])
    assert ends(model, "y") == ([0, 0, 0], [5.0, 4.0, 0.0])


def test_leaky_and_n() -> None:
    model = known("y = LeakyRelu <alpha = 0.5> (x)", [0.0, 4.0], [1.0, 1.0], n=2.0)
    assert ends(model, "y") == ([-1.0, 0.0], [2.0, 6.0])


def test_a_sum_adds_variances_and_stays_above_what_its_branches_allow() -> None:
    """Both branches are rectified: N(0,1) gives mean 0.39894 and std 0.58377, their sum never falls below 0."""
    body = "r = Relu(x) s = Identity(x) t = Relu(s) y = Add(r, t)"
    lo, hi = ends(known(body, [0.0], [1.0]), "y")
    assert lo == [0.0]
    np.testing.assert_allclose(hi, 2 * 0.39894 + 6 * np.sqrt(2) * 0.58377, rtol=1e-4)


def test_a_concat_keeps_each_branch() -> None:
    model = known("r = Relu(x) y = Concat <axis = 1> (r, x)", [0.0], [1.0])
    assert ends(model, "y") == ([0.0, -6.0], [6.0])  # one number where channels agree


def test_curves_are_bounded_by_what_they_put_out() -> None:
    model = known("y = Sigmoid(x)", [0.0], [100.0])
    assert ends(model, "y") == ([0.0], [1.0])


def test_given_ranges_of_inputs_stay() -> None:
    model = read(network("y = Relu(x)", output="float[N,3,8,8] y"))
    given = Range(np.full((1, 1, 1, 1), -1.0), np.full((1, 1, 1, 1), 3.0))
    one = np.ones((1, 1, 1, 1))
    model = ActivationRanges()(replace(model, ranges={"x": given}, moments={"x": Moments(one, one, "given")}))
    assert model.ranges["x"] is given
    assert ends(model, "y") == ([0.0], [3.0])


def test_without_batchnorm_the_user_is_warned() -> None:
    model = read(network("y = Conv(x, w)", w=normal(2, 3, 1, 1)))
    one = np.ones((1, 1, 1, 1))
    event = ActivationRanges()(replace(model, moments={"x": Moments(one, one, "given")})).log[-1]
    assert (event.kind, event.warning) == (EventKind.RANGES_FROM_MOMENTS, True)
    assert "no BatchNorm" in event.facts["why"]
