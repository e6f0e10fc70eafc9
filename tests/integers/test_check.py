"""What bundles of unknown origin may not hold is refused by the step's name."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from equint.errors import EquintError
from equint.integers.check import check
from equint.integers.program import Program, Requantize, Step
from equint.ir.model import QParams
from programs import programs

GRID = QParams(np.array(0.1, np.float32), np.array(3, np.int32), signed=False)


def requantize(**other: Any) -> Requantize:
    zero = np.zeros((), np.int64)
    made = Requantize(zero + (1 << 31), zero - 3, zero, 3, zero, zero + 255)
    changed: dict[str, Any] = {k: np.asarray(v) if k != "zero_point" else v for k, v in other.items()}
    return replace(made, **changed)


def conv(**other: Any) -> Step:
    arrays = {
        "weight": np.ones((2, 1, 3, 3), np.uint8),
        "weight_zero_point": np.uint8(0),
        "bias": np.zeros(2, np.int32),
    }
    attrs = {"strides": [1, 1], "dilations": [1, 1], "pads": [0] * 4, "group": 1, "axis": 1}
    attrs |= {k: v for k, v in other.items() if k in attrs}
    return Step("Conv", "c", ("x",), ("y",), attrs, {k: np.asarray(v) for k, v in arrays.items()}, requantize())


def with_arrays(**other: Any) -> Step:
    return replace(conv(), arrays={**conv().arrays, **other})


def interpolate(bits: int) -> Step:
    halves = np.ones((2, 2), np.int32)
    return Step("Interpolate", "i", ("x",), ("y",), {"bits": bits}, {"rows": halves, "columns": halves})


def program(*steps: Step, **other: Any) -> Program:
    return Program(steps or (conv(),), ("x",), ("y",), {"x": GRID, "y": GRID}, **other)


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(programs())
def test_good_programs_pass(made: Program) -> None:
    check(made)


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (program(conv(strides=[1])), r"c: strides = \[1\]: a whole number above 0 for each dimension is needed"),
        (program(conv(pads=["a"] * 4)), r"c: pads = \['a', 'a', 'a', 'a'\]: 2 whole numbers for each dimension"),
        (program(conv(group=0)), "c: group = 0: a whole number above 0 is needed"),
        (program(replace(conv(), arrays={})), "c: a Conv needs array weight"),
        (program(replace(conv(), requantize=None)), "c: a Conv needs to be requantized"),
        (program(replace(conv(), requantize=requantize(mantissa=0))), "c: its mantissa"),
        (program(replace(conv(), requantize=requantize(exponent=60))), "c: its exponent does not fit into 6 bits"),
        (program(replace(conv(), requantize=requantize(shift=16))), "c: its shift does not fit into 4 bits"),
        (program(replace(conv(), requantize=requantize(zero_point=300))), "c: zero point 300 .* outside its grid"),
        (program(replace(conv(), requantize=requantize(low=[0, 0, 0]))), r"c: low of shape \(3,\): 2 channels"),
        (program(replace(conv(), requantize=requantize(shift=[]))), r"c: shift of shape \(0,\): 2 channels"),
        (program(with_arrays(bias=np.zeros(3, np.int32))), r"c: bias of shape \(3,\): one, or one for each channel"),
        (program(with_arrays(bias=np.zeros(2))), "c: bias of type float64: integers are needed"),
        (program(with_arrays(weight=np.zeros((0, 1, 3, 3), np.uint8))), r"c: weight of shape .*: weights in whole"),
        (program(interpolate(bits=1 << 70)), "i: bits = 11805.*: a whole number from 1 to 30 is needed"),
        (program(interpolate(bits=2)), r"i: rows of shape \(2, 2\): rows of integers ≥ 0 that sum to 2\^bits"),
        (program(conv(), conv()), "c: makes y, which is there already"),
        (program(replace(conv(), inputs=("z",))), "c: reads z, which nothing before it makes"),
        (program(replace(conv(), op="Sigmoid")), "c: no operator Sigmoid"),
        (replace(program(), grids={"x": GRID}), "c: its tensors need grids"),
        (replace(program(), outputs=("z",)), "nothing makes the result z"),
        (replace(program(), mantissa_bits=0), "mantissas of 4 to 32 bits"),
        (replace(program(), rounding="nearest"), "rounding 'nearest' is not known"),  # type: ignore[arg-type]
    ],
)
def test_faults_are_named(made: Program, why: str) -> None:
    with pytest.raises(EquintError, match=why):
        check(made)
