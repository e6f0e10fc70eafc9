from dataclasses import replace

import numpy as np
import pytest

from equint.errors import EquintError
from equint.graph.inputs import describe_range, infer_input
from equint.ir.events import EventKind
from equint.ir.model import Array, Model, QSpec
from equint.maths.affine import fake_quantize
from equint.noise.rounded import weight_worth
from equint.onnx.reader import read
from equint.ops.layers import layers
from equint.passes.activation_ranges import ActivationRanges
from equint.passes.clip_weights import ClipWeights
from equint.passes.fold_batchnorm import FoldBatchnorm
from equint.passes.quantize import Quantize
from equint.passes.weight_shift import WeightShift
from nets import Net

SHIFT = QSpec(8, signed=False, symmetric=False, granularity="shift")


def uneven(seed: int = 0) -> Model:
    """A depthwise-separable network whose channels differ in range by orders of magnitude."""
    net = Net(seed, calibrated=True)
    x = net.relu(net.batchnorm(net.conv(net.input, 12, scale=np.logspace(-2, 1, 12))))
    x = net.relu(net.batchnorm(net.conv(x, 12, groups=12, scale=np.logspace(1, -2, 12))))
    x = net.relu(net.convtranspose(net.conv(x, 8, 1, scale=np.logspace(-1, 1, 8)), 6))
    result = net.gemm(net.flatten(net.globalpool(x)), 5)
    return ActivationRanges()(FoldBatchnorm()(infer_input(read(net.build(result)))))


def noise(model: Model) -> dict[str, float]:
    """Mean squared error of each quantized weight."""
    consts, grids = model.graph.consts, model.qparams
    return {
        la.name: float(np.mean(np.square(fake_quantize(consts[la.weight], grids[la.weight]) - consts[la.weight])))
        for la in layers(model.graph)
    }


def test_shifted_weights_share_a_grid_better() -> None:
    model = uneven()
    plain = noise(Quantize(SHIFT)(model))
    found = {
        search: noise(Quantize(SHIFT)(WeightShift(search=search, cost="weights")(model)))
        for search in ("deterministic", "nelder-mead", "exact")
    }
    for name, before in plain.items():
        assert found["deterministic"][name] <= before
        assert found["exact"][name] <= min(found["nelder-mead"][name], found["deterministic"][name]) * (1 + 1e-6)
    assert sum(found["exact"].values()) < sum(plain.values()) / 4


def predicted(model: Model) -> float:
    worth = weight_worth(model)
    consts, grids = model.graph.consts, model.qparams
    errors: list[Array] = [
        worth[la.y] * np.square(fake_quantize(consts[la.weight], grids[la.weight]) - consts[la.weight])
        for la in layers(model.graph)
    ]
    return float(sum(e.sum() for e in errors))


def test_the_cost_can_be_what_errors_do_to_the_outputs() -> None:
    model = uneven(1)
    by_cost = {cost: Quantize(SHIFT)(WeightShift(cost=cost)(model)) for cost in ("weights", "outputs")}
    assert predicted(by_cost["outputs"]) <= predicted(by_cost["weights"])


def test_depthwise_alone() -> None:
    model = WeightShift(layers="depthwise")(uneven())
    depthwise = [la for la in layers(model.graph) if la.groups > 1]
    assert set(model.shifts) == {la.weight for la in depthwise}
    assert len(depthwise) == 1
    assert [str(e.facts["why"]) for e in model.log if e.kind is EventKind.WEIGHT_NOT_SHIFTED] == ["not depthwise"] * 4
    grids = Quantize(SHIFT)(model).qparams
    assert all(np.all(grids[la.weight].shift == 0) for la in layers(model.graph) if la.groups == 1)


def test_transposed_convolutions_are_shifted_along_their_outputs_and_grouped_ones_not() -> None:
    net = Net(2)
    x = net.convtranspose(net.convtranspose(net.input, 6), 4, groups=2)
    model = WeightShift()(read(net.build(x)))
    first, second = layers(model.graph)
    assert model.shifts[first.weight].shape == (6,)
    assert second.weight not in model.shifts
    assert [e.facts["why"] for e in model.log if e.kind is EventKind.WEIGHT_NOT_SHIFTED] == ["grouped ConvTranspose"]


def test_fewer_bits_hold_smaller_shifts() -> None:
    model = WeightShift(shift_bits=2)(uneven())
    assert max(int(s.max()) for s in model.shifts.values()) == 3


def test_without_bits_nothing_can_be_shifted() -> None:
    with pytest.raises(EquintError, match="shift_bits = 0: choose 1 to 5"):
        WeightShift(shift_bits=0)


def test_a_range_chosen_before_is_forgotten() -> None:
    model = ClipWeights()(uneven())
    shifted = WeightShift()(model)
    assert shifted.ranges.keys() == model.ranges.keys() - shifted.shifts.keys()


def test_a_bias_that_would_overflow_lowers_its_own_shift_alone() -> None:
    net = Net(3)
    weight = np.ones((2, 3, 1, 1)) * np.array([1.0, 2.0**-10]).reshape(-1, 1, 1, 1)
    y = net.op("Conv", net.input, net.constant(weight, "weight"), net.constant(np.array([0.0, 0.5]), "bias"))
    model = ActivationRanges()(describe_range(read(net.build(y)), -1.0, 1.0))
    name = next(layers(model.graph)).weight
    grid = Quantize(SHIFT)(WeightShift()(model)).qparams[name]
    free = Quantize(SHIFT, activation=None)(WeightShift()(model)).qparams[name]
    assert free.shift is not None
    assert free.shift.tolist() == [0, 10]
    assert grid.shift is not None
    assert grid.shift.tolist() == [0, 5]  # 0.5 / 2^19 <= 2/255 · 1/255 · 2^-5
    assert grid.scale == free.scale
    wide = Quantize(SHIFT, shifted_bias_bits=32)(WeightShift()(model)).qparams[name]
    assert wide.shift is not None
    assert wide.shift.tolist() == [0, 10]  # 0.5 / 2^30 is far less
    low = Quantize(SHIFT, shifted_bias_bits=16)(WeightShift()(model)).qparams[name]
    assert low.shift is not None
    assert low.shift.tolist() == [0, 1]  # four bits less, four shifts less


def test_nelder_meads_options_are_its_own() -> None:
    model = uneven()
    search = WeightShift(search="nelder-mead", cost="weights")
    near = replace(search, simplex=1e-9, range_tolerance=1.0, error_tolerance=1.0)
    plain, blind = (step(model).log[-1].facts for step in (search, near))
    at_start = WeightShift(search="deterministic", cost="weights")(model).log[-1].facts
    assert blind["quantization error"] == at_start["quantization error"] > plain["quantization error"]
    assert blind["evaluations"] < plain["evaluations"]


@pytest.mark.parametrize(("option", "value"), [("simplex", 0.0), ("range_tolerance", 0.0), ("error_tolerance", -1.0)])
def test_a_simplex_that_cannot_be_is_refused(option: str, value: float) -> None:
    for step in (WeightShift(), ClipWeights()):
        with pytest.raises(EquintError, match=option):
            replace(step, **{option: value})  # type: ignore[arg-type]
