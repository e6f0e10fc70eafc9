import numpy as np
import pytest

from equint.demo import data_path, model_path
from equint.graph.inputs import infer_input
from equint.ir.events import EventKind
from equint.ir.model import Model, QSpec
from equint.maths.affine import choose_qparams, dequantize, quantize
from equint.maths.noise import sqnr_db
from equint.maths.rounding import RIDGES, regressed
from equint.onnx.qdq import export
from equint.onnx.reader import read
from equint.ops.layers import layers, tiny_graph
from equint.passes.activation_ranges import ActivationRanges
from equint.passes.calibrate import Calibrate
from equint.passes.fold_batchnorm import FoldBatchnorm
from equint.passes.quantize import Quantize
from equint.passes.round_weights import RoundWeights, _ridge, kernel_rounding
from equint.runtime.second_moments import SecondMoments
from equint.runtime.session import Session
from equint.samples.images import Samples


@pytest.mark.parametrize("seed", range(5))
def test_every_kernel_keeps_its_sum_within_half_a_step(seed: int) -> None:
    layer = next(layers(tiny_graph()))
    weight = np.random.default_rng(seed).normal(size=(4, 1, 3, 3)).astype(np.float32)
    grid = choose_qparams(weight.min(), weight.max(), QSpec(4))
    exact, nearest = weight / grid.scale, quantize(weight, grid)
    rounded = kernel_rounding(layer, weight, nearest, grid)
    assert np.abs((rounded - exact).sum((1, 2, 3))).max() <= 0.5 + 1e-3
    assert np.abs(rounded - exact).max() < 1


def prepared(bits: int, granularity: str = "channel") -> tuple[Model, np.ndarray, np.ndarray]:
    """The demo's network with grids for its weights, images to round by and others to measure with."""
    held = np.load(data_path())["x"].transpose(0, 3, 1, 2).astype(np.float32) / 16
    seen, other = held[:64], held[64:]
    model = infer_input(read(model_path()))
    for step in (FoldBatchnorm(), Calibrate(images=Samples.of(seen)), ActivationRanges()):
        model = step(model)
    return Quantize(QSpec(bits, granularity=granularity))(model), seen, other  # type: ignore[arg-type]


def decibels(model: Model, x: np.ndarray) -> float:
    (found,), (wanted,) = (Session(p).run(x).values() for p in (export(model), str(model_path())))
    return sqnr_db(wanted, found)


@pytest.mark.parametrize(("bits", "granularity"), [(4, "channel"), (6, "tensor")])
def test_second_moments_serve_other_images_better(bits: int, granularity: str) -> None:
    model, seen, other = prepared(bits, granularity)
    by_inputs = RoundWeights("second-order", images=Samples.of(seen))(model)
    assert by_inputs.log[-1].kind is EventKind.WEIGHTS_ROUNDED
    assert decibels(by_inputs, other) > decibels(RoundWeights()(model), other) + 2


def test_the_last_layer_keeps_its_mean() -> None:
    model, seen, _ = prepared(4)
    rounded = RoundWeights("second-order", images=Samples.of(seen))(model)
    last = list(layers(model.graph))[-1].y
    wanted = Session(str(model_path()), taps=[last]).run(seen)[last]
    found = Session(export(rounded), taps=[f"{last}_float"]).run(seen)[f"{last}_float"]
    assert np.abs(found - wanted).max() > 0.1
    np.testing.assert_allclose(found.mean(0), wanted.mean(0), atol=0.01)


def test_integers_are_on_the_grid_and_biases_on_theirs() -> None:
    model, seen, _ = prepared(3)
    rounded = RoundWeights("second-order", images=Samples.of(seen))(model)
    for layer in layers(rounded.graph):
        grid, weight = rounded.qparams[layer.weight], rounded.graph.consts[layer.weight]
        integers = quantize(weight, grid)
        assert np.array_equal(dequantize(integers, grid), weight)
        assert integers.min() >= grid.qmin
        assert integers.max() <= grid.qmax


def test_without_pictures_it_is_kernel_rounding() -> None:
    model, _, _ = prepared(4)  # 8×8 pixels are no picture
    by_inputs, by_kernels = RoundWeights("second-order")(model), RoundWeights()(model)
    assert by_inputs.log[-1].kind is EventKind.NOT_ROUNDED_BY_INPUTS
    for name, value in by_kernels.graph.consts.items():
        assert np.array_equal(by_inputs.graph.consts[name], value)


@pytest.mark.parametrize(("gains", "held"), [((0.5, 0.5), 0.01), ((0.5, 1.0), np.inf), ((0.5, 1.2), np.inf)])
def test_weights_are_fitted_where_it_serves_on_every_fold(gains: tuple[float, float], held: float) -> None:
    """Folds in which what is read is the float network's input times a gain."""

    def fold(gain: float) -> SecondMoments:
        nothing, unit = np.zeros((1, 3)), np.eye(3)[None]
        return SecondMoments(nothing, nothing, gain**2 * unit, gain * unit, 100)

    rows = np.random.default_rng(0).normal(size=(1, 4, 3))
    assert _ridge(rows, [fold(gain) for gain in gains], RIDGES, regressed) == held
