"""Steps computed again: accumulators against the literal executor, and what each mistake gives."""

from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from boards import Array, Mistake, arrays, board, grid, requantize, requantized, rounding, sample, zeros_around
from equint.errors import EquintError
from equint.integers.program import Program, Step
from equint.npu.faults import VARIANTS, accumulator, diagnose, ties, traced
from programs import ACCUMULATORS, feeds_for, literal, programs, run_step


@given(programs(), st.integers(0, 2**16))
@settings(max_examples=60)
def test_accumulators(program: Program, seed: int) -> None:
    values = literal(program, feeds_for(program, 2, seed))
    for step in program.steps:
        if step.requantize is None:
            continue
        centred = [values[i].astype(np.int64) - int(program.grids[i].zero_point) for i in step.inputs]
        np.testing.assert_array_equal(accumulator(program, step, values), ACCUMULATORS[step.op](step, centred))


@given(programs(), st.integers(0, 2**16))
@settings(max_examples=30)
def test_steps_are_traced_alone_and_together(program: Program, seed: int) -> None:
    feeds = feeds_for(program, 1, seed)
    values = literal(program, feeds)
    for step in program.steps:
        for name, found in traced(program, [step], values, literal).items():
            np.testing.assert_array_equal(found, values[name])
    for name, found in traced(program, program.steps, feeds, literal).items():
        np.testing.assert_array_equal(found, values[name])


@given(programs(), st.integers(0, 2**16))
@settings(max_examples=30)
def test_ties_one_number_at_a_time(program: Program, seed: int) -> None:
    values = literal(program, feeds_for(program, 1, seed))
    for step in program.steps:
        found = ties(program, step, values)
        assert (found is None) == (step.requantize is None)
        if found is None or step.requantize is None:
            continue
        centred = [values[i].astype(np.int64) - int(program.grids[i].zero_point) for i in step.inputs]
        acc = ACCUMULATORS[step.op](step, centred)
        axis = step.attrs["axis"] % acc.ndim
        right, mantissa = step.requantize.right(program.mantissa_bits), step.requantize.mantissa
        for index in np.ndindex(*acc.shape):
            m = int(mantissa if mantissa.ndim == 0 else mantissa[index[axis]])
            r = int(right if right.ndim == 0 else right[index[axis] if right.size > 1 else 0])
            assert found[index] == (int(acc[index]) * m % 2**r * 2 == 2**r)


def test_ties_of_products_beyond_64_bits() -> None:
    program, feeds = sample()
    how = program.steps[0].requantize
    assert how is not None
    wide = replace(how, mantissa=np.array(1 << 61, np.int64), exponent=np.array(8 - 62), shift=np.zeros((), int))
    step = replace(program.steps[0], requantize=wide)
    acc = accumulator(program, step, feeds)
    found = ties(program, step, feeds)  # acc·2^61/2^62: odd accumulators
    assert found is not None
    np.testing.assert_array_equal(found, acc % 2 == 1)


SIGNED, X = grid(-7, signed=True), np.random.default_rng(3).integers(-128, 128, (1, 2, 5, 5)).astype(np.int8)
WEIGHTS: dict[str, Array] = {
    "weight": np.random.default_rng(4).integers(-9, 9, (2, 3, 2, 2)).astype(np.int8),
    "weight_zero_point": np.array([1, -2, 3], np.int8),
    "bias": np.array([400, -500, 60], np.int32),
}
SQUARE = {"strides": [2, 2], "dilations": [1, 1], "pads": [1, 0, 0, 1], "group": 1, "output_padding": [1, 1], "axis": 1}
POOL = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "axis": 1}
HALVES = {"rows": np.eye(5, dtype=np.int32) + np.eye(5, k=1, dtype=np.int32), "columns": np.eye(5, dtype=np.int32) * 2}
HALVES["rows"][-1, -1] = 2
ONE_STEP: dict[str, tuple[Step, Mistake]] = {
    "clamp": (
        Step("Clip", "s", ("x",), ("y",), {"axis": 1}, {"low": np.array([-9, 0]), "high": np.array([50, 60])}),
        lambda program, step, inputs: inputs,
    ),
    "pads": (
        Step("Pad", "s", ("x",), ("y",), {"value": -7}, {"pads": np.array([0, 0, 1, 2, 0, 0, 0, 1])}),
        lambda program, step, inputs: [np.pad(inputs[0], [(0, 0), (0, 0), (1, 0), (2, 1)])],
    ),
    "rounds half_even": (
        Step("Interpolate", "s", ("x",), ("y",), {"bits": 1}, HALVES),
        rounding("half_even"),
    ),
    "zero point of the input": (
        Step("Mul", "s", ("x", "x"), ("y",), {"axis": 1}, requantize=requantize(128, -6, 0, -7, -128, 127)),
        lambda program, step, inputs: run_step(replace(program, grids={"x": grid(0, signed=True)}), step, inputs),
    ),
    "bias": (
        Step("ConvTranspose", "s", ("x",), ("y",), SQUARE, WEIGHTS, requantize(200, -4, [1, 0, 2], -7, -128, 127)),
        arrays(bias=np.zeros(3, np.int32)),
    ),
    "pads with": (
        Step("AveragePool", "s", ("x",), ("y",), POOL, requantize=requantize(228, -3, 0, -7, -128, 127)),
        zeros_around,
    ),
    "shift": (
        Step("Conv", "s", ("x",), ("y",), {**SQUARE, "pads": [0] * 4},
             {**WEIGHTS, "weight": WEIGHTS["weight"].swapaxes(0, 1)}, requantize(200, -4, [1, 0, 2], -7, -128, 127)),
        requantized(shift=np.zeros(3, np.int32)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("cause", ONE_STEP)
def test_mistakes_of_every_kind_of_step(cause: str) -> None:
    step, mistake = ONE_STEP[cause]
    program = Program((step,), ("x",), ("y",), {"x": SIGNED, "y": SIGNED}, mantissa_bits=8)
    found = board(program, {"x": X}, {0: mistake})["y"]
    assert np.any(found != literal(program, {"x": X})["y"])
    explained = diagnose(program, [step], {"x": X}, {"y": found}, literal)
    assert [variant.cause[: len(cause)] for variant, _ in explained] == [cause]


def test_four_bits_wrap_around_to_four_bits() -> None:
    four = grid(2, bits=4, signed=True)
    step = Step("Mul", "s", ("x", "x"), ("y",), {"axis": 1}, requantize=requantize(1, 7, 0, 2, -8, 7))  # acc/2 + 2
    program = Program((step,), ("x",), ("y",), {"x": four, "y": four}, mantissa_bits=8)
    x = np.array([[6, 2, -8]], np.int8)  # 16/2 + 2 = 10, 0/2 + 2 = 2, 100/2 + 2 = 52
    found = np.array([[10 - 16, 2, 52 - 48]], np.int8)
    explained = diagnose(program, [step], {"x": x}, {"y": found}, literal)
    assert {variant.clamp for variant, _ in explained} == {"wrap", "wrap, clamp"}


def test_nothing_explains_what_no_mistake_gives() -> None:
    program, feeds = sample()
    values = literal(program, feeds)
    found = {"second": values["second"] ^ np.uint8(3)}
    assert diagnose(program, program.steps[1:2], {"first": values["first"]}, found, literal) == []


def test_causes_are_told_apart() -> None:
    assert len({v.cause for v in VARIANTS}) == len(VARIANTS)
    assert len({replace(v, cause="") for v in VARIANTS}) == len(VARIANTS)


def test_steps_without_accumulators() -> None:
    program, feeds = sample()
    with pytest.raises(EquintError, match="layer pool: no accumulator of MaxPool"):
        accumulator(program, program.steps[3], literal(program, feeds))
