"""Steps over whole axes against the float functions that they stand for: onnxruntime's, on the same integers."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import equint
from equint.integers.engine import Engine
from equint.integers.program import Program, Step
from equint.integers.reductions import normalize, normalized_bound, quotient
from equint.maths.integer_functions import root_table
from equint.runtime.session import Session
from handwritten import network, normal

Array = NDArray[Any]


def off(body: str, x: Array, output: str = "float[N,6,5,8] y", opset: int = 17, **consts: Any) -> float:
    """By how many steps of its grid the integer form of y is off the real function of the same integers, unclamped."""
    program, found = traced(body, x, output, opset, **consts)
    alone = network(body, inputs="float[N,6,5,8] x", output=output, opset=opset, **consts)
    y, grid = found["y"].astype(np.float64), program.grids["y"]
    real = Session(alone, threads=1).run(program.real("x", found["x"]))["y"]
    inside = (y > grid.qmin) & (y < grid.qmax)
    assert inside.mean() > 0.5
    return float(np.abs(y - real / np.float64(grid.scale) - int(grid.zero_point))[inside].max())


def traced(body: str, x: Array, output: str, opset: int = 17, **consts: Any) -> tuple[Program, dict[str, Array]]:
    """The program of a network behind a convolution that only copies, and the integers of all its tensors."""
    eye = np.eye(6, dtype=np.float32).reshape(6, 6, 1, 1)
    copied = network(f"x = Conv (i, w) {body}", inputs="float[N,6,5,8] i", output=output, opset=opset, w=eye, **consts)
    program = equint.quantize(copied, "lwq", "npu-shift", data=x).program
    return program, Engine(program, threads=1).trace({"i": program.quantized("i", x)})


X = normal(16, 6, 5, 8, scale=1.0)


@pytest.mark.parametrize("axis", [1, 3])
@pytest.mark.parametrize("spread", [0.3, 4.0])
def test_shares_are_rounded_once(axis: int, spread: float) -> None:
    """Half a step of 1/256, and what the table of e^-x leaves: each entry is off by 2^-23 at most."""
    assert off(f"y = Softmax <axis = {axis}> (x)", spread * X) < 0.502


NORMS: dict[str, tuple[str, dict[str, Any], int]] = {
    "layer": ("y = LayerNormalization <axis = -1> (x, c, d)", {"c": normal(8), "d": normal(8, seed=1)}, 17),
    "layers": ("y = LayerNormalization <axis = 1> (x, c)", {"c": normal(6, 5, 8)}, 17),
    "instance": ("y = InstanceNormalization (x, c, d)", {"c": normal(6), "d": normal(6, seed=1)}, 17),
    "groups": (
        "y = GroupNormalization <num_groups = 3> (x, c, d)", {"c": normal(6), "d": normal(6, seed=1)}, 21,
    ),
    "root mean square": ("y = RMSNormalization (x, c)", {"c": normal(8)}, 23),
    "length": ("y = LpNormalization <axis = 1, p = 2> (x)", {}, 17),
    "small variance": (
        "y = LayerNormalization <axis = -1, epsilon = 3.0> (x, c)", {"c": normal(8)}, 17,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", NORMS)
def test_norms_are_rounded_once(kind: str) -> None:
    """Half a step, 2^-11 deviations and 2^-15 of the value."""
    body, consts, opset = NORMS[kind]
    assert off(body, 3 * X + 1, opset=opset, **consts) < 0.55


def test_products_of_activations_are_rounded_once() -> None:
    body = "t = Transpose <perm = [0, 1, 3, 2]> (x) y = MatMul (x, t)"
    assert off(body, X, "float[N,6,5,5] y") < 0.501


@pytest.mark.parametrize(
    ("body", "output"),
    [
        ("y = ReduceMean <axes = [1]> (x)", "float[N,1,5,8] y"),
        ("y = ReduceMean <axes = [1, 3], keepdims = 0> (x)", "float[N,5] y"),
        ("a = Constant <value_ints = [-1]> () y = ReduceSum <keepdims = 0> (x, a)", "float[N,6,5] y"),
    ],
)
def test_sums_over_axes_are_rounded_once(body: str, output: str) -> None:
    assert off(body, X, output) < 0.501


def test_quotients_are_rounded_once() -> None:
    """Of integers from a table that holds no divisor near 0; 2^-20 of a quotient is cut off."""
    body = "e = Abs (x) f = ReduceMax <axes = [1]> (e) y = Div (x, f)"
    program, found = traced(body, X, "float[N,6,5,8] y")
    x, f = (program.real(n, found[n]).astype(np.float64) for n in ("x", "f"))
    grid = program.grids["y"]
    real = x / f / float(grid.scale) + int(grid.zero_point)
    inside = (found["y"] > grid.qmin) & (found["y"] < grid.qmax)
    assert np.abs(found["y"] - real)[inside].max() < 0.51


def test_a_divisor_that_rounds_to_zero_is_half_a_step() -> None:
    step = Step("Div", "d", ("a", "b"), ("y",))
    acc = quotient(step, [np.array([6, 6, -6, 7]), np.array([2, 0, 0, -3])], 0, True)
    assert (acc / 2**20).round(3).tolist() == [3.0, 12.0, -12.0, -2.333]


def test_no_value_is_further_away_than_the_bound_says() -> None:
    """One of N that differs lies √(N − 1) deviations away."""
    for count in (1, 2, 16, 49, 1000):
        x = np.zeros((1, count), np.int64)
        x[0, 0] = 255
        arrays = {"gains": np.array(1), "bias": np.array(0), "roots": root_table()}
        attrs = {"axes": [1], "groups": 0, "count": count, "centred": 1, "extra": 0, "axis": -1}
        found = np.abs(normalize(Step("Normalize", "n", ("x",), ("y",), attrs, arrays), [x], 0, True)).max()
        assert abs(found - 1024 * (count - 1) ** 0.5) < 1.1
        assert found <= normalized_bound(count)


def test_the_qdq_model_keeps_such_operators_between_two_grids() -> None:
    eye = np.eye(6, dtype=np.float32).reshape(6, 6, 1, 1)
    body = "a = Conv (x, w) y = Softmax (a)"
    proto = network(body, inputs="float[N,6,5,8] x", output="float[N,6,5,8] y", w=eye)
    made = {target: equint.quantize(proto, "lwq", target, data=X) for target in ("npu-shift", "per-channel")}
    kinds = {target: [node.op_type for node in result.proto.graph.node][-4:] for target, result in made.items()}
    assert kinds["npu-shift"][1:] == ["Softmax", "QuantizeLinear", "DequantizeLinear"]
    assert kinds["per-channel"][3:] == ["Softmax"]
    grid = made["npu-shift"].model.qparams["y"]
    assert (float(grid.scale), int(grid.zero_point)) == (1 / 256, 0)
