"""Steps as LiteRT computes them; that it computes them so is tested with LiteRT itself, in tests/consumers."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import equint
from equint.errors import InvalidTarget, UnsupportedOperator
from equint.hardware.target import target
from equint.integers.lower import lower
from equint.integers.program import Program
from handwritten import network, normal

CONV = "a = Conv (x, w) "
LAYER = {name: normal(4, 3, 3, 3, seed=k) for k, name in enumerate("wvu")}
LAYER |= {"k": normal(4, 5), "slopes": normal(4, 1, 1)}


def lowered(body: str, target: str = "tflite-int8", output: str = "float[N,A,B,C] y") -> Program:
    model = network(CONV + body, inputs="float[1,3,8,8] x", output=output, **LAYER)  # type: ignore[arg-type]
    result = equint.quantize(model, "lwq", target, input=(-2, 2), effort="fast")
    return lower(result.model, result.hardware)


def operators(program: Program) -> list[str]:
    return [step.op for step in program.steps]


@pytest.mark.parametrize(
    ("body", "expected", "grid"),
    [
        ("y = Sigmoid (a)", ["Conv", "Table"], (1 / 256, -128)),
        ("y = Tanh (a)", ["Conv", "Table"], (1 / 128, 0)),
        ("y = Softmax <axis = 1> (a)", ["Conv", "Softmax"], (1 / 256, -128)),
    ],
)
def test_outputs_of_some_are_on_grids_of_their_own(body: str, expected: list[str], grid: tuple[float, int]) -> None:
    program = lowered(body)
    assert operators(program) == expected
    assert (float(program.grids["y"].scale), int(program.grids["y"].zero_point)) == grid


def test_uint8_has_other_zero_points() -> None:
    assert int(lowered("y = Tanh (a)", "tflite-uint8").grids["y"].zero_point) == 128


def test_a_fixed_grid_is_left_where_a_join_has_another() -> None:
    program = lowered("s = Sigmoid (a) y = Concat <axis = 1> (s, a)")
    assert operators(program) == ["Conv", "Table", "Sum", "Concat"]
    table, rescaled = program.steps[1:3]
    assert float(program.grids[table.outputs[0]].scale) == 1 / 256
    assert float(program.grids[rescaled.outputs[0]].scale) == float(program.grids["y"].scale)


def test_x_times_its_sigmoid_is_a_table_and_a_product() -> None:
    assert operators(lowered("s = Sigmoid (a) y = Mul (a, s)")) == ["Conv", "Table", "Mul"]


def test_several_are_added_two_at_a_time() -> None:
    program = lowered("b = Conv (x, v) c = Conv (x, u) y = Sum (a, b, c)")
    assert operators(program).count("ScaledSum") == 2


def test_averages_keep_their_grid_and_leave_padding_out() -> None:
    program = lowered("y = AveragePool <kernel_shape = [2, 2], pads = [1, 1, 0, 0]> (a)")
    step = program.steps[-1]
    assert step.op == "WindowMean"
    assert step.arrays["counts"][:2, :2].tolist() == [[1, 2], [2, 4]]
    assert program.grids[step.inputs[0]] is program.grids["y"]


def test_multipliers_have_31_places_and_are_the_nearest() -> None:
    program = lowered("y = Relu (a)")
    how = program.steps[0].requantize
    assert how is not None
    assert (program.rounding, program.mantissa_bits) == ("double", 31)
    scale = float(program.weight_scales["y"]) * float(program.grids["x"].scale) / float(program.grids["y"].scale)
    factor = float(how.mantissa) * 2.0 ** (float(how.exponent) - 31)
    assert factor == pytest.approx(scale, rel=2.0**-30)
    assert np.all(how.mantissa >= 1 << 30)


def test_a_target_of_ones_own_must_say_the_grids_that_litert_fixes() -> None:
    own = replace(target("tflite-int8"), name="mine", fixed={})
    proto = network("a = Conv(x, w) y = Softmax <axis = 1> (a)", inputs="float[1,3,8,8] x", w=normal(4, 3, 3, 3))
    with pytest.raises(InvalidTarget, match=r"target mine: LiteRT fixes the grid of Softmax; add Softmax to \[fixed\]"):
        _ = equint.quantize(proto, "lwq", own, input=(-3, 3), effort="fast").program


@pytest.mark.parametrize("own", [{"operators": ("Conv",)}, {"float_layers": ("gate",)}])
def test_what_a_target_keeps_float_is_float_in_a_program(own: dict[str, Any]) -> None:
    proto = network("a = Conv(x, w) y = Sigmoid(a)", inputs="float[1,3,8,8] x", w=normal(4, 3, 3, 3))
    proto.graph.node[1].name = "gate"
    mine = replace(target("tflite-int8"), name="mine", **own)
    program = equint.quantize(proto, "lwq", mine, input=(-3, 3), effort="fast").program
    assert operators(program) == ["Conv", "Float", "Quantize"]
    without = replace(mine, litert_operators=("CONV_2D", "LOGISTIC"))
    with pytest.raises(UnsupportedOperator, match="gate: Sigmoid stays float on target mine"):
        _ = equint.quantize(proto, "lwq", without, input=(-3, 3), effort="fast").program


def test_sums_of_16_bits_are_multiplied_by_15_places_and_rounded_once() -> None:
    program = lowered("y = Relu (a)", "tflite-int16")
    how, grid = program.steps[0].requantize, program.grids["y"]
    assert how is not None
    assert how.rounding == "half_up"
    assert not np.any(how.mantissa & 0xFFFF)
    assert (grid.bits, int(grid.zero_point)) == (16, 0)


def test_dense_layers_of_16_bits_round_away_from_zero() -> None:
    program = lowered("g = GlobalAveragePool (a) f = Flatten (g) y = Gemm (f, k)", "tflite-int16", "float[N,5] y")
    how = program.steps[-1].requantize
    assert how is not None
    assert how.rounding == "half_away"


def test_slopes_of_16_bits_are_two_clamps_a_product_and_a_sum() -> None:
    program = lowered("y = PRelu (a, slopes)", "tflite-int16")
    assert operators(program) == ["Conv", "Clip", "Clip", "Mul", "ScaledSum"]
    assert program.steps[-1].attrs["left"] == 15


def test_weights_have_8_bits_all_the_same() -> None:
    model = network(CONV + "y = Relu (a)", inputs="float[1,3,8,8] x", **LAYER)  # type: ignore[arg-type]
    made = equint.quantize(model, "lwq", "tflite-int16", input=(-2, 2), effort="fast", weight_bits=16)
    with pytest.raises(UnsupportedOperator, match=r"^a: weights of 16 bits; LiteRT takes 8"):
        lower(made.model, made.hardware)
