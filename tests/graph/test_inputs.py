"""What a network's input looks like: found again behind a BatchNorm that saw known data, or worked by hand."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto

import equint
from equint.errors import EquintError, UnsupportedOperator
from equint.graph.inputs import describe_pixels, describe_range, infer_input
from equint.ir.events import EventKind
from equint.ir.model import Graph, Model
from equint.onnx.reader import read
from handwritten import execute, network, normal

Floats = NDArray[np.float32]
WEIGHT = normal(32, 3, 3, 3) + 0.1 * normal(32, 1, 1, 1, seed=2)


def noise(mean: float, std: float) -> Floats:
    """Pixels that know nothing of their neighbours."""
    return np.random.default_rng(0).normal(mean, std, (64, 3, 16, 16)).astype(np.float32)


def plain(mean: float, std: float) -> Floats:
    """Grey images of one shade each: all pixels know everything of their neighbours."""
    shade = np.random.default_rng(0).normal(mean, std, (2000, 1, 1, 1))
    return np.broadcast_to(shade, (2000, 3, 16, 16)).astype(np.float32)


def mixed(mean: float, std: float) -> Floats:
    """Noise on grey images, each with half of the variance."""
    root = np.sqrt(0.5)
    return np.concatenate([noise(mean / 2, std * root)] * 32)[:2000] + plain(mean / 2, std * root)


def watched(x: Floats, pads: int = 0, bias: Floats | None = None) -> ModelProto:
    """A convolution and a BatchNorm whose statistics are those of `x`."""
    consts: dict[str, Any] = {} if bias is None else {"c": bias}
    inputs = "x, w" if bias is None else "x, w, c"
    conv = f"y = Conv <pads = [{pads}, {pads}, {pads}, {pads}], strides = [2, 2]> ({inputs})"
    (y,) = execute(network(conv, inputs="float[N,3,16,16] x", w=WEIGHT, **consts), x)
    ones = np.ones(32, np.float32)
    statistics: dict[str, Any] = {"m": y.mean((0, 2, 3), dtype=np.float64), "v": y.var((0, 2, 3), dtype=np.float64)}
    body = f"{conv.replace('y =', 'a =')} y = BatchNormalization(a, g, b, m, v)"
    return network(body, inputs="float[N,3,16,16] x", w=WEIGHT, g=ones, b=0 * ones, **statistics, **consts)


@pytest.mark.parametrize("images", [noise, plain, mixed])
@pytest.mark.parametrize(("mean", "std"), [(0.45, 0.25), (0.0, 1.0), (117.0, 68.0)])
def test_the_first_batchnorm_remembers_its_input(images: object, mean: float, std: float) -> None:
    assert callable(images)
    model = infer_input(read(watched(images(mean, std))))
    found = model.moments["x"]
    assert found.origin == "inferred"
    assert found.mean.item() == pytest.approx(mean, abs=0.1 * std)
    assert found.std.item() == pytest.approx(std, rel=0.15)
    span = model.ranges["x"]
    assert span.lo.item() < mean - 2 * std
    assert span.hi.item() > mean + 2 * std


def test_borders_and_biases_are_accounted_for() -> None:
    model = infer_input(read(watched(noise(5.0, 1.0), pads=1, bias=normal(32, scale=3))))
    assert model.moments["x"].mean.item() == pytest.approx(5.0, abs=0.2)


def test_where_nothing_tells_it_is_assumed_and_said() -> None:
    model = infer_input(read(network("y = Conv(x, w)", w=WEIGHT)))
    assert model.moments["x"].origin == "assumed"
    assert (model.moments["x"].mean.item(), model.moments["x"].std.item()) == (0.0, 1.0)
    assert (model.log[-1].kind, model.log[-1].warning) == (EventKind.INPUT_ASSUMED, True)


@pytest.mark.parametrize("wide", [3, 7])
def test_a_batchnorm_of_another_axis_tells_nothing(wide: int) -> None:
    """It is of axis 1, while a matrix product's outputs lie along the last."""
    consts: dict[str, Any] = {"w": normal(5, wide), **dict(zip("gbmv", np.ones((4, 3), np.float32), strict=True))}
    body = "h = MatMul(x, w) y = BatchNormalization(h, g, b, m, v)"
    model = infer_input(read(network(body, inputs="float[N,3,5] x", **consts)))
    assert model.moments["x"].origin == "assumed"


def test_what_is_given_is_not_inferred() -> None:
    model = describe_range(read(watched(noise(0, 1))), 0, 1)
    assert infer_input(model) is model


def empty() -> Model:
    return read(network("y = Conv(x, w)", w=WEIGHT))


def test_pixels_by_hand() -> None:
    model = describe_pixels(empty(), [127.5, 0.0, 51.0], [127.5, 255.0, 51.0])
    span, moments = model.ranges["x"], model.moments["x"]
    assert span.lo.shape == moments.mean.shape == (1, 3, 1, 1)
    np.testing.assert_allclose(span.lo.reshape(-1), [-1, 0, -1])
    np.testing.assert_allclose(span.hi.reshape(-1), [1, 1, 4])
    np.testing.assert_allclose(moments.mean.reshape(-1), [-10.5 / 127.5, 117 / 255, 66 / 51])
    np.testing.assert_allclose(moments.std.reshape(-1), [68 / 127.5, 68 / 255, 68 / 51])


def test_a_range_by_hand() -> None:
    model = describe_range(empty(), -2, 3)
    span, moments = model.ranges["x"], model.moments["x"]
    assert (span.lo.item(), span.hi.item()) == (-2, 3)
    assert moments.mean.item() == pytest.approx(-2 + 5 * 117 / 255)
    assert moments.std.item() == pytest.approx(5 * 68 / 255)


@pytest.mark.parametrize(("lo", "hi"), [(1, 1), (2, 1), (0, np.inf), (np.nan, 1)])
def test_refuses_empty_ranges(lo: float, hi: float) -> None:
    with pytest.raises(EquintError, match="range"):
        describe_range(empty(), lo, hi)


@pytest.mark.parametrize(
    ("mean", "std", "what"),
    [([0.0], [0.0], "std above 0"), ([0.0], [1.0, 1.0], "one number"), ([0.0, 1.0], [1.0, 1.0], "3 channels")],
)
def test_refuses_cards_that_do_not_fit(mean: list[float], std: list[float], what: str) -> None:
    with pytest.raises(EquintError, match=what):
        describe_pixels(empty(), mean, std)


def test_refuses_to_describe_two_inputs_at_once() -> None:
    proto = network("y = Add(x, z)", inputs="float[N,3,8,8] x, float[N,3,8,8] z")
    with pytest.raises(EquintError, match="2 float inputs"):
        describe_range(read(proto), 0, 1)


def test_lengths_are_those_of_what_is_made_up() -> None:
    """Beside a row of free length, one whole number a sample is its length: a mean over none would be no number."""
    body = "n = Cast <to = 1> (rows) m = Conv (x, w) s = ReduceSum (m, axis) u = Unsqueeze (n, axes) y = Div (s, u)"
    consts: dict[str, Any] = {"w": normal(4, 1, 9), "axis": np.array([2]), "axes": np.array([1, 2])}
    inputs = "float[N,1,T] x, int64[N] rows"
    proto = network(body, inputs=inputs, output="float[A,B,C] y", **consts)
    result = equint.quantize(proto, "cwq")
    (told,) = (e for e in result.model.log if e.kind is EventKind.LENGTHS_ASSUMED)
    assert (told.at, told.facts["of"]) == ("rows", "x")
    span = result.model.ranges["y"]
    assert np.abs(np.concatenate([span.lo.ravel(), span.hi.ravel()])).max() < 1  # the sum itself reaches hundreds


@pytest.mark.parametrize("target", ["npu-shift", "onnxruntime"])
def test_a_single_number_may_be_an_input(target: str) -> None:
    """It stays float, and is made up beside images as anything else."""
    proto = network(
        "a = Conv(x, w) y = Mul(a, s)",
        inputs="float[N,3,8,8] x, float s",
        w=normal(4, 3, 3, 3),
        output="float[N,A,B,C] y",
    )
    made = equint.quantize(proto, target=target)
    images, number = normal(4, 3, 8, 8, scale=1), np.array(2, np.float32)
    (wanted,), (found,) = execute(proto, images, number), execute(made.proto, images, number)
    assert "s" not in made.model.qparams
    assert 10 * np.log10(np.square(wanted).sum() / np.square(found - wanted).sum()) > 10


def test_a_single_number_may_be_the_only_input() -> None:
    model = describe_range(Model(Graph((), {}, ("s",), (), {"s": ()})), 0, 1)
    assert (np.shape(model.moments["s"].mean), np.shape(model.ranges["s"].lo)) == ((), ())


def test_a_program_takes_no_single_number() -> None:
    proto = network("a = Conv(x, w) y = Mul(a, s)", inputs="float[N,3,8,8] x, float s", w=normal(4, 3, 3, 3))
    with pytest.raises(UnsupportedOperator, match="input s: is a single number"):
        _ = equint.quantize(proto, target="ethos-u").program
