"""Every row of the table of steps, by every one of its columns, against the literal executor and onnxruntime."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import examples as wholes
from boards import Mistake, arrays, requantized, rounding, zeros_around
from equint.errors import EquintError
from equint.integers.check import check
from equint.integers.emit import export_integer
from equint.integers.engine import Engine
from equint.integers.program import Program, Step
from equint.integers.steps import MOVES, STEPS, Field, Floats, Sums, bound, kind_of
from equint.ir.model import QParams
from equint.maths.fixedpoint import Rounding
from equint.npu.bundle import load_bundle, save_bundle
from equint.npu.faults import VARIANTS, accumulator, diagnose
from handwritten import execute
from programs import ACCUMULATORS, Array, Maker, assert_same, feeds_for, literal, run_step

Example = Callable[[Maker, str], str]
INTEGERS = [op for op, kind in STEPS.items() if not isinstance(kind.work, Floats)]
"""Kinds of steps that bundles may have; those in float are of files for LiteRT."""


def moved(op: str, shape: Callable[[tuple[Any, ...]], tuple[Any, ...]], **attrs: Any) -> Example:
    """A move whose result has the shape that `shape` makes of its input's."""
    return lambda maker, x: maker.add(op, (x,), shape(maker.shapes[x]), maker.grids[x], attrs=attrs)


def flatten(maker: Maker, x: str) -> str:
    n = int(np.prod(maker.shapes[x][1:]))
    return maker.add("Flatten", (x,), ("N", n), maker.grids[x], attrs={"axis": 1})


def with_const(
    op: str, values: list[int], shape: Callable[[tuple[Any, ...]], tuple[Any, ...]], **attrs: Any
) -> Example:
    """A move that reads a constant."""
    return lambda maker, x: maker.add(op, (x, maker.const(values)), shape(maker.shapes[x]), maker.grids[x], attrs=attrs)


def squeezed(maker: Maker, x: str) -> str:
    apart = with_const("Unsqueeze", [2], lambda s: (*s[:2], 1, *s[2:]))(maker, x)
    return with_const("Squeeze", [2], lambda s: (*s[:2], *s[3:]))(maker, apart)


def shape_of(maker: Maker, x: str) -> str:
    name = maker.tensor("shape", (len(maker.shapes[x]),), None)
    maker.steps.append(Step("Shape", "Shape", (x,), (name,)))
    return name


EXAMPLES: Mapping[str, Example] = {
    "Conv": Maker.conv,
    "ConvTranspose": Maker.conv_transpose,
    "Gemm": Maker.gemm,
    "Sum": Maker.sum,
    "ScaledSum": wholes.scaled_sum,
    "Mul": Maker.mul,
    "AveragePool": Maker.pool,
    "GlobalAveragePool": Maker.pool,
    "MatMul": wholes.matmul,
    "ReduceSum": wholes.reduce_sum,
    "Div": wholes.quotient,
    "Softmax": wholes.softmax,
    "Normalize": wholes.normalize,
    "ReduceMax": partial(wholes.extreme, "ReduceMax"),
    "ReduceMin": partial(wholes.extreme, "ReduceMin"),
    "Max": partial(wholes.compared, "Max"),
    "Min": partial(wholes.compared, "Min"),
    "Where": wholes.chosen,
    "WindowMean": wholes.window_mean,
    "Interpolate": Maker.interpolate,
    "Table": Maker.table,
    "Clip": Maker.clip,
    "Pad": Maker.pad,
    "MaxPool": Maker.pool,
    "GlobalMaxPool": moved("GlobalMaxPool", lambda s: (*s[:2], 1, 1)),
    "Resize": Maker.resize,
    "DepthToSpace": Maker.depth_to_space,
    "SpaceToDepth": moved("SpaceToDepth", lambda s: (s[0], 4 * s[1], s[2] // 2, s[3] // 2), blocksize=2),
    "Concat": Maker.concat,
    "Reshape": Maker.reshape,
    "Flatten": flatten,
    "Transpose": Maker.transpose,
    "Slice": Maker.slice,
    "Split": Maker.split,
    "Squeeze": squeezed,
    "Unsqueeze": with_const("Unsqueeze", [2], lambda s: (*s[:2], 1, *s[2:])),
    "Identity": moved("Identity", lambda s: s),
    "Expand": with_const("Expand", [3, 1, 1, 1, 1], lambda s: (3, *s)),
    "Gather": with_const("Gather", [1, 0, 1], lambda s: (*s[:2], 3, s[3]), axis=2),
    "Shape": shape_of,
}
"""What adds a step of each kind, possibly among others or by chance."""


def examples(op: str, count: int) -> Iterator[Program]:
    """Programs in which such a step reads the input, or what a convolution made of it, in turns."""
    made = (example(op, seed) for seed in range(10_000))
    return islice((program for program in made if any(step.op == op for step in program.steps)), count)


def example(op: str, seed: int) -> Program:
    rng = np.random.default_rng(seed)
    maker = Maker(lambda low, high: int(rng.integers(low, high, endpoint=True)), rng)
    maker.rounding = maker.pick("half_up", "half_even", "truncate")
    x = first = maker.tensor("input", ("N", 4, 4, 6), maker.grid())
    if seed % 2:
        convolved = maker.conv(x)
        x = convolved if all(size % 2 == 0 for size in maker.size(convolved)) else x
    y = EXAMPLES[op](maker, x)
    return Program(
        tuple(maker.steps), (first,), (y,), maker.grids, maker.shapes, maker.consts, maker.rounding, 32, 6, 4, "npu"
    )


def test_every_kind_of_step_has_an_example() -> None:
    assert set(EXAMPLES) == set(INTEGERS), "give the new step an example here"
    assert set(ACCUMULATORS) == {op for op, kind in STEPS.items() if isinstance(kind.work, Sums)}
    assert all(kind.meaning for kind in STEPS.values())


@pytest.mark.slow
@pytest.mark.parametrize("op", INTEGERS)
def test_all_that_compute_a_step_agree(op: str, tmp_path: Path) -> None:
    for program in examples(op, 16 if op == "ConvTranspose" else 8):  # of many layouts
        check(program)
        for step in program.steps:
            assert set(step.arrays) <= set(kind_of(step).arrays)
            assert step.op in MOVES or set(step.attrs) == set(kind_of(step).attrs)
        feeds = feeds_for(program)
        wanted = literal(program, feeds)
        for name, integers in Engine(program, threads=1).trace(feeds).items():
            assert_same(integers, wanted[name], name)
        found = execute(export_integer(program), *feeds.values())
        for name, integers in zip(program.outputs, found, strict=True):
            assert_same(integers, wanted[name], name)
        for step in program.steps:
            if isinstance(kind_of(step).work, Sums):
                known = {**program.consts, **wanted}
                inputs = [known[i].astype(np.int64) - program.zero_point(i) for i in step.inputs]
                acc = ACCUMULATORS[step.op](step, inputs)
                np.testing.assert_array_equal(accumulator(program, step, wanted), acc)
                most = bound(step, program.grids, program.shapes)
                others = tuple(d for d in range(acc.ndim) if d != step.axis % acc.ndim)
                assert np.all(np.abs(acc).max(others if most.size > 1 else None) <= most)
        for sparse in (False, True):
            assert_same(load_bundle(save_bundle(program, tmp_path / "net", sparse)[0]), program)


@pytest.mark.slow
@pytest.mark.parametrize("rounding", ["double", "half_away"])
@pytest.mark.parametrize("op", [op for op, kind in STEPS.items() if isinstance(kind.work, Sums) or op == "Interpolate"])
def test_roundings_of_litert_agree_too(op: str, rounding: Rounding) -> None:
    for program in (replace(p, rounding=rounding) for p in examples(op, 4)):
        feeds = feeds_for(program)
        wanted = literal(program, feeds)
        for name, integers in Engine(program, threads=1).trace(feeds).items():
            assert_same(integers, wanted[name], name)
        for name, integers in zip(program.outputs, execute(export_integer(program), *feeds.values()), strict=True):
            assert_same(integers, wanted[name], name)


@pytest.mark.parametrize(("size", "most"), [(4, 12 * 255), ("W", 3 * 6 * 255)])
def test_windows_that_hold_padding_sum_fewer_values(size: int | str, most: int) -> None:
    """Windows of 2, 3, 3 and 2 values, times 12/count: 12 each; of any size, 3 values times the largest reciprocal."""
    attrs = {"kernel_shape": [3], "strides": [1], "pads": [1, 1], "axis": 1}
    pool = Step("AveragePool", "p", ("x",), ("y",), attrs, {"reciprocals": np.array([6, 4, 4, 6])})
    grid = QParams(np.array(0.1, np.float32), np.array(0, np.int32), signed=False)
    assert bound(pool, {"x": grid}, {"x": ("N", 1, size)}) == most
    acc = accumulator(Program((pool,), ("x",), ("y",), {"x": grid}), pool, {"x": np.full((1, 1, 4), 255, np.uint8)})
    assert acc.ravel().tolist() == [12 * 255] * 4


# What the check of bundles verifies


def changed(program: Program, kind: str, **changes: Any) -> Program:
    steps = [replace(step, **changes) if step.op == kind else step for step in program.steps]
    return replace(program, steps=tuple(steps))


@pytest.mark.parametrize("op", INTEGERS)
def test_what_a_step_must_have_is_asked_for(op: str) -> None:
    program, kind = next(examples(op, 1)), STEPS[op]
    step = next(s for s in program.steps if s.op == op)
    for part, fields in (("attrs", kind.attrs), ("arrays", kind.arrays)):
        given = getattr(step, part)
        for key, field in fields.items():
            less = changed(program, op, **{part: {k: v for k, v in given.items() if k != key}})
            if not field.optional:
                with pytest.raises(EquintError, match=f"{step.name}: a {op} needs .* {key}"):
                    check(less)
            if field.needs:
                junk: Any = "junk" if part == "attrs" else np.zeros((7, 5, 3), np.int32)
                at = f"({key}|strides)" if key == "weight" else key  # of which there must be as many as a kernel has
                with pytest.raises(EquintError, match=f"{step.name}: {at} .* is needed"):
                    check(changed(program, op, **{part: {**given, key: junk}}))
    if step.requantize is not None:
        with pytest.raises(EquintError, match=f"a {op} needs to be requantized"):
            check(changed(program, op, requantize=None))
    if op not in MOVES:
        with pytest.raises(EquintError, match="its tensors need grids"):
            check(replace(program, grids={n: q for n, q in program.grids.items() if n != step.outputs[0]}))


def test_what_no_row_describes_is_refused_everywhere() -> None:
    program = changed(next(examples("Identity", 1)), "Identity", op="Erf")
    for use in (check, export_integer, Engine):
        with pytest.raises(EquintError, match=r"Identity_\d: (no operator Erf|there is no integer operator 'Erf')"):
            use(program)
    with pytest.raises(EquintError, match="a Clip has no accumulator"):
        bound(Step("Clip", "", ("x",), ("y",)), {}, {})
    assert Field().holds(program, program.steps[0], object())


# What a device may do otherwise


def no_input_zeros(program: Program, step: Step, inputs: list[Array]) -> list[Array]:
    zeros = {i: replace(program.grids[i], zero_point=np.zeros((), np.int32)) for i in step.inputs}
    return run_step(replace(program, grids={**program.grids, **zeros}), step, inputs)


def zeros_in_pads(program: Program, step: Step, inputs: list[Array]) -> list[Array]:
    if step.op == "Pad":
        return run_step(program, replace(step, attrs={**step.attrs, "value": 0}), inputs)
    return zeros_around(program, step, inputs)


def over_the_grid(program: Program, step: Step, inputs: list[Array]) -> list[Array]:
    q = program.grids[step.outputs[0]]
    ends = {"low": np.array(q.qmin), "high": np.array(q.qmax)}
    return (arrays(**ends) if step.op == "Clip" else requantized(**ends))(program, step, inputs)


MISTAKES: Mapping[str, Mistake] = {
    "clamp": over_the_grid,
    "shift": requantized(shift=np.zeros((), np.int32)),
    "bias": arrays(bias=np.zeros((), np.int32)),
    "padding": zeros_in_pads,
    "input_zero": no_input_zeros,
    "weight_zero": arrays(weight_zero_point=np.zeros((), np.int32)),
    "output_zero": requantized(zero_point=0),
}


def open_to(step: Step, mistake: str) -> Step:
    """The step with something that a device may leave out."""
    how = step.requantize
    if how is None or mistake not in ("clamp", "shift"):
        return step
    ends = {"low": how.low, "high": np.asarray(how.zero_point)} if mistake == "clamp" else {"shift": np.ones((), int)}
    return replace(step, requantize=replace(how, **ends))


def mistaken(op: str, mistake: str, count: int) -> Iterator[tuple[Program, Step, Mapping[str, Array], Array]]:
    """Programs with one such step, what a right device makes, and what one that is mistaken does where that differs."""
    for program in examples(op, count):
        step = open_to(next(s for s in program.steps if s.op == op), mistake)
        program = replace(program, steps=tuple(step if s.name == step.name else s for s in program.steps))
        other = "truncate" if program.rounding == "half_up" else "half_up"
        make = rounding(other) if mistake == "rounding" else MISTAKES[mistake]
        values = literal(program, feeds_for(program))
        inputs = [program.consts[i] if i in program.consts else values[i] if i else np.zeros(0) for i in step.inputs]
        try:
            found = np.asarray(make(program, step, inputs)[0])
        except (AssertionError, KeyError):  # the step has nothing of the kind, or sums beyond what 64 bits hold
            continue
        if not np.array_equal(found, values[step.outputs[0]]):
            yield program, step, values, found.astype(values[step.outputs[0]].dtype)


@pytest.mark.slow
@pytest.mark.parametrize("mistake", ["rounding", *MISTAKES])
@pytest.mark.parametrize("op", INTEGERS)
def test_mistakes_are_those_that_change_what_a_step_gives(op: str, mistake: str) -> None:
    if mistake not in STEPS[op].mistakes:
        crops = op == "ConvTranspose" and mistake == "padding"  # its pads take positions away
        assert crops or not any(mistaken(op, mistake, 4)), "a device can be mistaken in this"
        return
    every = list(islice(mistaken(op, mistake, 60), 4))
    assert every, "this mistake changes nothing in any example"
    for program, step, values, found in every:
        causes = diagnose(program, [step], values, {step.outputs[0]: found}, literal)
        assert any(variant.changed == {mistake} for variant, _ in causes), program


def test_mistakes_are_attributes_of_variants() -> None:
    every = {key for variant in VARIANTS for key in variant.changed}
    assert every == {"rounding", *MISTAKES}
    assert all(kind.mistakes <= every for kind in STEPS.values())
