"""The literal executor is held against Algorithm 2 as printed, and against onnxruntime's float operators."""

import numpy as np
import pytest
from hypothesis import given, settings
from onnx import TensorProto, helper, numpy_helper

from equint.integers.program import Program, Step
from handwritten import execute
from programs import ACCUMULATORS, Array, algorithm_2, feeds_for, literal, programs, random_program, rounded, run_step

SPELLED_OUT = {"Div", "MatMul", "Normalize", "ReduceSum", "ScaledSum", "Softmax"}
"""Steps that no random program has: tests/integers/test_steps.py has programs of each, or test_lower_litert.py."""


@settings(max_examples=40)
@given(programs())
def test_shapes_and_types(program: Program) -> None:
    values = literal(program, feeds_for(program, batch=3))
    for step in program.steps:
        for name in step.outputs:
            assert values[name].shape == tuple(3 if s == "N" else s for s in program.shapes[name])
            assert values[name].dtype.itemsize == 1


def test_random_programs_hold_every_step_and_do_not_just_saturate() -> None:
    made = [random_program(seed) for seed in range(120)]
    found = {step.op for program in made for step in program.steps}
    drawn = ACCUMULATORS.keys() - SPELLED_OUT
    assert found >= {*drawn, "Interpolate", "Table", "Clip", "Pad", "Concat", "Resize", "MaxPool", "Split"}
    assert {p.rounding for p in made} == {"half_up", "half_even", "truncate"}
    results = [literal(p, feeds_for(p))[p.outputs[0]] for p in made[:60]]
    assert np.mean([len(np.unique(r)) > 2 for r in results]) > 0.6


def test_convolutions_are_algorithm_2() -> None:
    seen = 0
    for seed in range(80):
        program = random_program(seed)
        values = literal(program, feeds_for(program, batch=1))
        for step in program.steps:
            if step.op == "Conv" and len(step.attrs["strides"]) == 2:
                np.testing.assert_array_equal(
                    algorithm_2(program, step, values[step.inputs[0]]), values[step.outputs[0]]
                )
                seen += 1
    assert seen > 10


@pytest.mark.slow
@pytest.mark.parametrize("op", ["Conv", "ConvTranspose", "AveragePool", "GlobalAveragePool"])
def test_accumulators_are_those_of_onnxruntime(op: str) -> None:
    seen = 0
    for seed in range(150):
        program = random_program(seed)
        values = literal(program, feeds_for(program, batch=2))
        for step in program.steps:
            if step.op == op and "reciprocals" not in step.arrays:
                x = values[step.inputs[0]].astype(np.int64) - int(program.grids[step.inputs[0]].zero_point)
                np.testing.assert_allclose(ACCUMULATORS[op](step, [x]), in_floats(step, x), rtol=1e-6, atol=0.01)
                seen += 1
    assert seen > 2


def in_floats(step: Step, x: Array) -> Array:
    """The accumulator as onnxruntime's float operator of the name computes it."""
    names, consts, weighted = ["x"], {}, "weight" in step.arrays
    if weighted:
        zero = step.arrays["weight_zero_point"].astype(np.float64)
        weight = step.arrays["weight"].astype(np.float64)
        if step.op == "Conv":
            weight = weight - zero.reshape(-1, *[1] * (weight.ndim - 1))
        elif zero.ndim and step.attrs["group"] > 1:  # (I, O/G, *k): zero points differ by group
            outs, ins = weight.shape[1], len(weight) // step.attrs["group"]
            weight = weight - np.repeat(zero.reshape(-1, outs), ins, 0).reshape(-1, outs, *[1] * (weight.ndim - 2))
        else:
            weight = weight - zero.reshape(1, -1, *[1] * (weight.ndim - 2))
        consts = {"weight": weight, "bias": step.arrays["bias"].astype(np.float64)}
        names += list(consts)
    attrs = {k: v for k, v in step.attrs.items() if k != "axis"}
    attrs |= {"count_include_pad": 1} if step.op == "AveragePool" else {}
    graph = helper.make_graph(
        [helper.make_node(step.op, names, ["y"], **attrs)],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(a.astype(np.float32), n) for n, a in consts.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (found,) = execute(model, x.astype(np.float32))
    if step.op == "AveragePool":
        return found * np.float32(np.prod(step.attrs["kernel_shape"]))
    return found * np.float32(np.prod(x.shape[2:])) if step.op == "GlobalAveragePool" else found


def test_roundings() -> None:
    products = (-6, -5, -2, 2, 5, 6, 7)
    assert [rounded(p, 2, "half_up") for p in products] == [-1, -1, 0, 1, 1, 2, 2]
    assert [rounded(p, 2, "half_even") for p in products] == [-2, -1, 0, 0, 1, 2, 2]
    assert [rounded(p, 2, "truncate") for p in products] == [-2, -2, -1, 0, 1, 1, 1]


def test_a_step_runs_alone() -> None:
    program = random_program(3)
    values = literal(program, feeds_for(program))
    step = program.steps[0]
    (found,) = run_step(program, step, [values[step.inputs[0]]])[:1]
    np.testing.assert_array_equal(found, values[step.outputs[0]])
