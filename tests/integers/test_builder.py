"""Activations that act on accumulators: what the QDQ model computes, layer by layer, with nothing rounded in front."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import equint
from equint.hardware.target import target
from equint.integers.emit import export_integer
from equint.integers.engine import Engine
from equint.integers.lower import lower
from equint.integers.program import Program
from equint.ir.model import Model, QParams
from equint.npu.bundle import load_bundle, save_bundle
from equint.onnx.qdq import export
from equint.passes.activation_ranges import ActivationRanges
from equint.passes.fold_batchnorm import FoldBatchnorm
from equint.passes.quantize import Quantize
from equint.runtime.session import Session
from equint.samples.card import described
from handwritten import Array, execute, network, normal
from programs import assert_same, literal, run_step

NPU = target("npu-shift")
W, V, U, K = normal(4, 3, 3, 3), normal(4, 3, 3, 3, seed=2), normal(3, 4, 3, 3), normal(2, 4, 3, 3, seed=5)
ONE = "a = Conv <pads = [1, 1, 1, 1]> (x, w) \n "
TWO = ONE + "b = Conv <pads = [1, 1, 1, 1]> (x, v) \n "
LAST = "y = Conv (c, k)"
SLOPES = np.array([0.25, -0.5, 0.0, 1.5]).reshape(4, 1, 1)
BENT: dict[str, tuple[str, str]] = {
    "leaky": (ONE + "c = LeakyRelu <alpha = 0.1> (a) \n ", "Conv"),
    "a slope per channel": (ONE + "c = PRelu (a, p) \n ", "Conv"),
    "one slope for all": (ONE + "c = PRelu (a, s) \n ", "Conv"),
    "leaky, then clipped": (ONE + "d = LeakyRelu (a) \n c = Clip (d, l, h) \n ", "Conv"),
    "transposed, then leaky": ("c = ConvTranspose (x, u) \n d = LeakyRelu <alpha = 0.3> (c) \n ", "ConvTranspose"),
    "added, then leaky": (TWO + "e = Add (a, b) \n c = PRelu (e, p) \n ", "Sum"),
    "multiplied, then leaky": (TWO + "e = Mul (a, b) \n c = LeakyRelu <alpha = 0.2> (e) \n ", "Mul"),
    "averaged, then leaky": (
        ONE + "e = AveragePool <kernel_shape = [3, 3]> (a) \n c = PRelu (e, p) \n ",
        "AveragePool",
    ),
}
LOOKED_UP = {
    "HardSwish": ONE + "c = HardSwish (a) \n ",
    "Sigmoid": ONE + "c = Sigmoid (a) \n ",
    "Tanh of a sum": TWO + "e = Add (a, b) \n c = Tanh (e) \n ",
    "Elu": ONE + "c = Elu <alpha = 0.7> (a) \n ",
    "Swish in pieces": ONE + "g = Sigmoid (a) \n c = Mul (a, g) \n ",
    "HardSwish in pieces, the gate first": ONE + "g = HardSigmoid <alpha = 0.1666667> (a) \n c = Mul (g, a) \n ",
}


def fused(body: str, way: str = "tensor", last: str = LAST) -> Model:
    """Quantized for hardware that fuses all activations."""
    consts = {
        "w": W,
        "v": V,
        "u": U,
        "k": K,
        "p": SLOPES,
        "s": np.array([0.3]),
        "l": np.array(-0.2),
        "h": np.array(0.9),
    }
    if "ConvTranspose" in body:
        last = "y = Conv (d, k)"
    text = body + last
    read: dict[str, Any] = {
        n: np.asarray(v, np.float32) for n, v in consts.items() if f" {n})" in text or f" {n}," in text
    }
    model = described(equint.load(network(text, **read)), None)
    model = replace(model, graph=replace(model.graph, fuses=True))
    weight = replace(NPU.weight, granularity=way)  # type: ignore[arg-type]
    return Quantize(weight, NPU.activation)(ActivationRanges()(FoldBatchnorm()(model)))


def in_steps(model: Model, program: Program, x: Array) -> dict[str, Any]:
    """Every tensor of the program as the QDQ model computes it, in steps of its grid."""
    proto = export(model)
    names = {n: f"{n}_dequantized" if n in program.inputs else n for n in program.grids}
    values = Session(proto, taps=list(names.values()), threads=1).run(x)
    grids = program.grids
    return {
        n: values[t].astype(np.float64) / float(grids[n].scale) + int(grids[n].zero_point) for n, t in names.items()
    }


def farthest(model: Model, program: Program, x: Array) -> float:
    """How far a step's result is from the QDQ model's at most, in steps of its grid, for the QDQ model's integers."""
    wanted, most = in_steps(model, program, x), 0.0
    values = {n: np.rint(v).astype(np.int64) for n, v in wanted.items()}
    for step in program.steps:
        (result,) = run_step(program, step, [values[i] for i in step.inputs])
        grid = program.grids[step.outputs[0]]
        ends = np.clip(wanted[step.outputs[0]], grid.qmin, grid.qmax)  # what a table's index cannot hold, it saturates
        most = max(most, float(np.abs(result - ends).max()))
    return most


def agrees(program: Program, x: Array) -> None:
    """Engine, integer ONNX and a bundle read again: the literal loop's integers, every one."""
    feeds = {"x": program.quantized("x", x)}
    wanted = literal(program, feeds)
    for name, found in Engine(program, threads=1).trace(feeds).items():
        assert found.dtype == wanted[name].dtype
        np.testing.assert_array_equal(found, wanted[name], name)
    np.testing.assert_array_equal(execute(export_integer(program), feeds["x"])[0], wanted["y"])


@pytest.mark.parametrize("case", BENT)
@pytest.mark.parametrize("way", ["tensor", "channel"])
def test_two_straight_parts_are_two_factors(case: str, way: str) -> None:
    body, op = BENT[case]
    model, x = fused(body, way), normal(2, 3, 8, 8, scale=1)
    program = lower(model, NPU)
    assert [s.op for s in program.steps if s.requantize is not None and s.requantize.mantissa_below is not None] == [op]
    assert not any(step.op == "Table" for step in program.steps)
    assert farthest(model, program, x) <= 1.001
    agrees(program, x)


@pytest.mark.parametrize("case", LOOKED_UP)
def test_what_bends_is_looked_up_behind_more_bits(case: str) -> None:
    model, x = fused(LOOKED_UP[case], "shift"), normal(2, 3, 8, 8, scale=1)
    program = lower(model, replace(NPU, table_bits=10))
    (table,) = (step for step in program.steps if step.op == "Table")
    assert program.grids[table.inputs[0]].bits == 10
    assert table.arrays["table"].shape == (1024,)
    assert farthest(model, program, x) <= 1.001
    agrees(program, x)


def test_bits_of_tables_are_the_targets() -> None:
    model, x = fused(LOOKED_UP["HardSwish"]), normal(2, 3, 8, 8, scale=1)
    exact = Session(export(model), taps=["c"], threads=1).run(x)["c"]
    errors = []
    for bits in (6, 8, 12):
        program = lower(model, replace(NPU, table_bits=bits))
        found = literal(program, {"x": program.quantized("x", x)})
        errors.append(np.square(program.real("c", found["c"]) - exact).mean())
    assert errors[0] > 4 * errors[1] > 4 * errors[2]


def test_hand_worked_slopes() -> None:
    """The compound is 0.5·0.25/0.5 = 2^-2; below 0 it is 2^-2·slope: −12 with slope 0.25 is −0.75, which is −1."""
    values: dict[str, Any] = {"w": np.ones((3, 1, 1, 1)) * 0.25, "p": np.array([0.25, -0.5, 0.0]).reshape(3, 1, 1)}
    proto = network("a = Conv (x, w) \n y = PRelu (a, p)", inputs="float[N,1,1,4] x", **values)
    grid = {n: QParams(np.array(s, np.float32), np.array(z, np.int32), signed=False) for n, s, z in
            (("x", 0.5, 20), ("w", 0.25, 0), ("y", 0.5, 10))}  # fmt: skip
    model = replace(equint.load(proto), qparams=grid)
    program = lower(replace(model, graph=replace(model.graph, fuses=True)), replace(NPU, mantissa="nearest"))
    (step,) = program.steps
    how = step.requantize
    assert how is not None
    assert how.mantissa_below is not None
    assert (how.mantissa_below * 2.0 ** -how.sides[1].right(32)).tolist() == [0.0625, -0.125, 0.0]
    found = literal(program, {"x": np.array([[[[28, 20, 12, 8]]]], np.uint8)})["y"]  # accumulators 8, 0, −8, −12
    assert found[0, :, 0].tolist() == [[12, 10, 10, 9], [12, 10, 11, 12], [12, 10, 10, 10]]


def test_a_slope_that_moves_nothing_is_zero() -> None:
    body = ONE + "c = LeakyRelu <alpha = 1e-30> (a) \n "
    (first, _) = lower(fused(body), NPU).steps
    assert first.requantize is not None
    assert first.requantize.mantissa_below is not None
    assert int(first.requantize.mantissa_below) == 0


@pytest.mark.parametrize("rounding", ["half_even", "truncate"])
def test_other_roundings_follow_too(rounding: Any) -> None:
    model, x = fused(BENT["leaky"][0]), normal(2, 3, 8, 8, scale=1)
    program = lower(model, replace(NPU, rounding=rounding))
    assert farthest(model, program, x) <= 1.001
    agrees(program, x)


def test_bundles_hold_both(tmp_path: Any) -> None:
    for case in (BENT["a slope per channel"][0], LOOKED_UP["HardSwish"]):
        program = lower(fused(case), NPU)
        save_bundle(program, tmp_path / "net")
        assert_same(load_bundle(tmp_path / "net.json"), program)
