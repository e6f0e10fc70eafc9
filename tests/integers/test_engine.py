"""The engine: the program's integers, bit for bit, and kernels whose arithmetic is what the proofs say."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import equint
from equint.errors import EquintError
from equint.integers.emit import export_integer
from equint.integers.engine import Engine
from equint.integers.program import Program, Requantize, Step
from equint.ir.model import QParams
from equint.maths.fixedpoint import compound, provable_compound, requantize
from equint.maths.float_proofs import float_path, nudge_of, slopes
from handwritten import execute, network, normal
from programs import feeds_for, literal, programs, random_program

Array = NDArray[Any]
ROUNDINGS = ("half_up", "half_even", "truncate")
FOLDER = os.environ.get("EQUINT_REAL", "")


def agree(program: Program, engine: Engine | None = None, batch: int = 2) -> Engine:
    """All outputs and every tensor on the way are the literal executor's, in value and type."""
    engine = engine or Engine(program, threads=1)
    feeds = feeds_for(program, batch)
    wanted = literal(program, feeds)
    for found in (engine.run(feeds), engine.trace(feeds)):
        for name, integers in found.items():
            assert integers.dtype == wanted[name].dtype, name
            np.testing.assert_array_equal(integers, wanted[name], name)
    assert set(engine.trace(feeds)) >= {o for step in program.steps for o in step.outputs}
    return engine


def rounder(program: Program, bits: int) -> Program:
    """The same program with mantissas of few bits, of which more can be proven."""
    cut = program.mantissa_bits - bits

    def cropped(step: Step) -> Step:
        how = step.requantize
        return step if how is None else replace(step, requantize=replace(how, mantissa=how.mantissa >> cut << cut))

    return replace(program, steps=tuple(map(cropped, program.steps)))


@pytest.mark.slow
@given(programs(), st.sampled_from([None, 3, 12]), st.integers(1, 3))
@settings(max_examples=60)
def test_random_programs(program: Program, bits: int | None, batch: int) -> None:
    agree(program if bits is None else rounder(program, bits), batch=batch)


def test_the_random_programs_take_every_way() -> None:
    ways = {p.way for seed in range(40) for p in Engine(random_program(seed), threads=1).proof}
    assert ways == {"float", "mixed", "integer", "moves"}


def grid(zero: int, bits: int = 8, signed: bool = False) -> QParams:
    return QParams(np.array(0.1, np.float32), np.array(zero, np.int32), bits, signed)


def shifted(factors: Array, zero: int, to: QParams) -> Requantize:
    """The requantization by real factors per channel."""
    pairs = [compound(float(f)) for f in factors]
    small = [np.asarray(v, np.int32) for v in ([e for _, e in pairs], 0, to.qmin, to.qmax)]
    return Requantize(np.array([m for m, _ in pairs], np.int64), small[0], small[1], zero, small[2], small[3])


@pytest.mark.slow
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("relu", [False, True])
def test_every_accumulator_there_is(rounding: Any, relu: bool) -> None:
    """65,536 accumulators in a row through a convolution, for 64 factors of 1, 8 and 24 bits: what kernels do."""
    rng = np.random.default_rng(0)
    factors = 2.0 ** rng.uniform(-10, -5, 64)
    mantissas = [compound(f, bits)[0] << (32 - bits) for f, bits in zip(factors, [1, 8, 24, 24] * 16, strict=True)]
    zero = 0 if relu else 100
    base = shifted(factors, zero, grid(zero))
    how = replace(base, mantissa=np.minimum(np.array(mantissas), (1 << 32) - 1))
    weight = np.tile(np.array([256, 1]), (64, 1)).reshape(64, 2, 1, 1)
    attrs = {"strides": [1, 1], "dilations": [1, 1], "pads": [0] * 4, "group": 1, "axis": 1}
    arrays = {"weight": weight, "weight_zero_point": np.array(0), "bias": np.full(64, -30_000)}
    first = Step("Conv", "first", ("x",), ("y",), attrs, arrays, how)
    eye = {"weight": np.eye(64, dtype=np.int8).reshape(64, 64, 1, 1), "weight_zero_point": np.array(0)}
    arrays = {**eye, "bias": np.zeros(64, np.int32)}
    second = Step("Conv", "second", ("y",), ("z",), attrs, arrays, shifted(np.ones(1), zero, grid(zero)))
    shapes = {"x": (1, 2, 256, 256), "y": (1, 64, 256, 256), "z": (1, 64, 256, 256)}
    grids = {"x": grid(0), "y": grid(zero), "z": grid(zero)}
    program = Program((first, second), ("x",), ("z",), grids, shapes, rounding=rounding)
    x = np.stack(np.meshgrid(np.arange(256), np.arange(256), indexing="ij")).astype(np.uint8)[None]
    acc = (256 * x[0, 0].astype(np.int64) + x[0, 1] - 30_000)[None]
    q = requantize(acc, how.mantissa[:, None, None], how.right(32)[:, None, None], rounding)
    wanted = np.clip(q + zero, 0, 255)
    for engine in (Engine(program, threads=1), Engine(program, threads=1, taps=["y"])):  # flipped between them, or not
        np.testing.assert_array_equal(engine.run(x)["z"][0], wanted)
        assert [p.way for p in engine.proof] in (["float", "float"], ["mixed", "float"])


@given(st.integers(1, (1 << 24) - 1), st.integers(0, 12), st.integers(-40, 40), st.sampled_from(ROUNDINGS))
@settings(max_examples=60)
def test_what_is_proven_holds_for_every_accumulator(mantissa: int, more: int, shift: int, rounding: Any) -> None:
    right = max(1, mantissa.bit_length() + more)
    first, last = -128 - shift, 127 - shift
    nudge = nudge_of(mantissa, right, first, last, 1 << 16, rounding)
    acc = np.arange(-(1 << 16), (1 << 16) + 1)
    wanted = np.clip(requantize(acc, mantissa, right, rounding), first, last)
    for found in float_path(acc, np.float32(mantissa * 2.0**-right), np.float32(nudge or 0)):
        assert nudge is None or np.array_equal(np.clip(found, first, last), wanted)


def test_provable_compounds_are_proven() -> None:
    for factor in 2.0 ** np.random.default_rng(0).uniform(-12, -4, 20):
        mantissa, exponent = provable_compound(factor, np.array([0, 2]), -128, 127, 1 << 18)
        assert {nudge_of(mantissa, 32 - exponent + s, -128, 127, 1 << 18, "half_up") for s in (0, 2)} == {0.0}


@given(st.floats(0.01, 2), st.floats(-1, 1), st.integers(-128, 127), st.integers(-128, 127))
@settings(max_examples=60)
def test_two_slopes_are_found_again(up: float, down: float, zero_in: int, zero_out: int) -> None:
    at, ends = np.arange(-128, 128) - zero_in, (-128 - zero_out, 127 - zero_out)
    table = np.clip(np.rint(np.where(at > 0, up * at, down * at)), *ends).astype(np.int64)
    found = slopes(at, table[None], *ends)
    if found is None:  # only where no factor in float32 can be seen to give the table
        return
    x = at.astype(np.float32)
    again = np.where(at > 0, found[0] * x, found[1] * x)
    np.testing.assert_array_equal(np.clip(np.rint(again), *ends), table)


@pytest.mark.parametrize("down", [0.08, 0.0, -0.31])
def test_a_leaky_relu_is_two_slopes(down: float) -> None:
    at = np.arange(-100, 156)
    table = np.clip(np.rint(np.where(at > 0, 0.8 * at, down * at)), -20, 235).astype(np.int64)
    assert slopes(at, table[None], -20, 235) is not None
    assert slopes(at, np.clip(-table, -20, 235)[None], -20, 235) is None
    assert slopes(at, np.minimum(table, 50)[None], -20, 235) is None
    table += 20
    x = Step("Clip", "clip", ("x",), ("a",), {"axis": 1}, {"low": np.array(0), "high": np.array(255)})
    sums = {"coefficients": np.ones((1, 1), np.int32), "bias": np.array(0)}
    one = Step("Sum", "sum", ("a",), ("b",), {"axis": 1}, sums, shifted(np.ones(1), 100, grid(100)))
    leaky = Step("Table", "leaky", ("b",), ("y",), {"axis": 1}, {"table": table.astype(np.uint8)})
    grids = {"x": grid(100), "a": grid(100), "b": grid(100), "y": grid(20)}
    for shape in (("N", 16, 4, 4), ("N", 300)):
        program = Program((x, one, leaky), ("x",), ("y",), grids, dict.fromkeys(grids, shape))
        engine = agree(program, batch=3)
        assert engine.proof[-1].way == "float"


def conv_program(outs: int, ins: int, weight: int, low: Any = None, rounding: Any = "half_up") -> Program:
    """Two convolutions, the second of which reads what the first one writes without padding."""
    rng = np.random.default_rng(1)
    attrs = {"strides": [1, 1], "dilations": [1, 1], "pads": [1, 1, 1, 1], "group": 1, "axis": 1}
    grids, q = {"x": grid(7), "y": grid(0), "z": grid(128)}, []
    for k, (n, m, size) in enumerate(((outs, ins, 3), (5, outs, 1))):
        values = rng.integers(-weight, weight, (n, m, size, size), endpoint=True)
        arrays = {"weight": values, "weight_zero_point": np.array(0), "bias": rng.integers(-900, 900, n)}
        spread = weight * 100 * np.sqrt(m * size * size)
        to = grids["yz"[k]]
        mantissa, exponent = provable_compound(64 / spread, np.zeros(1), -255, 255, 1 << 22, rounding=rounding)
        how = shifted(np.full(1, 0.5), int(to.zero_point), to)
        how = replace(how, mantissa=np.array(mantissa), exponent=np.array(exponent))
        where = attrs if k == 0 else {**attrs, "pads": [0] * 4}
        q.append(Step("Conv", f"conv{k}", ("xy"[k],), ("yz"[k],), where, arrays, how))
    shapes = {"x": ("N", ins, 6, 6), "y": ("N", outs, 6, 6), "z": ("N", 5, 6, 6)}
    return Program(tuple(q), ("x",), ("z",), grids, shapes, rounding=rounding)


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize(("outs", "ins"), [(16, 3), (64, 16), (7, 5)])
def test_layers_between_which_nothing_pads(outs: int, ins: int, rounding: Any) -> None:
    engine = agree(conv_program(outs, ins, 100, rounding=rounding))
    assert [p.way for p in engine.proof if rounding != "truncate"] in ([], ["float", "float"])


def test_sums_that_no_float_holds() -> None:
    engine = agree(conv_program(16, 64, 30_000))
    assert [p.way for p in engine.proof] == ["integer", "integer"]
    assert all(p.why for p in engine.proof)


def test_clamps_per_channel() -> None:
    program = conv_program(16, 3, 100)
    first = program.steps[0]
    assert first.requantize is not None
    how = replace(first.requantize, low=np.arange(16, dtype=np.int32), high=np.arange(100, 116, dtype=np.int32))
    engine = agree(replace(program, steps=(replace(first, requantize=how), program.steps[1])))
    assert {p.way for p in engine.proof} == {"float"}


@pytest.mark.parametrize("op", ["MaxPool", "Conv"])
def test_padding_that_is_not_zero(op: str) -> None:
    """Graph optimizers like to merge a Pad with what follows, whatever it pads with."""
    program = conv_program(16, 3, 100)
    first, second = program.steps
    pads = {"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])}
    pad = Step("Pad", "pad", ("y",), ("p",), {"value": 250}, pads)
    pool = Step("MaxPool", "pool", ("p",), ("z",), {"kernel_shape": [2, 2], "strides": [1, 1], "pads": [0] * 4})
    last, grids = (pool, {**program.grids, "z": program.grids["y"]}) if op == "MaxPool" else (second, program.grids)
    shapes = {**program.shapes, "p": ("N", 16, 8, 8), "z": ("N", 16, 7, 7) if op == "MaxPool" else ("N", 5, 8, 8)}
    steps = (first, pad, replace(last, inputs=("p",)))
    agree(replace(program, steps=steps, grids={**grids, "p": grids["y"]}, shapes=shapes))


def test_an_input_that_is_an_output() -> None:
    program = conv_program(16, 3, 100)
    agree(replace(program, outputs=("z", "x")))


def test_real_values_go_in_and_come_out() -> None:
    program = conv_program(16, 3, 100)
    engine, x = Engine(program, threads=1), np.random.default_rng(0).uniform(-0.7, 20, (2, 3, 6, 6))
    integers = engine.run({"x": program.quantized("x", x)})["z"]
    np.testing.assert_array_equal(engine.real(x)["z"], (integers.astype(np.float32) - 128) * np.float32(0.1))
    np.testing.assert_array_equal(engine.real({"x": x})["z"], engine.real(x)["z"])


def test_what_cannot_be_fed_is_named() -> None:
    program = conv_program(16, 3, 100)
    engine, x = Engine(program, threads=1), np.zeros((1, 3, 6, 6), np.uint8)
    with pytest.raises(EquintError, match="x: the engine takes integers, not float64"):
        engine.run(x * 1.0)
    with pytest.raises(EquintError, match=r"x: has shape \(1, 3, 6, 7\)"):
        engine.run(np.zeros((1, 3, 6, 7), np.uint8))
    with pytest.raises(EquintError, match=r"x: has shape \(3, 6, 6\)"):
        engine.run(x[0])
    with pytest.raises(EquintError, match="x: holds -1 to 0, but its grid 0 to 255"):
        engine.run(x.astype(np.int64) - np.eye(6, dtype=np.int64))
    with pytest.raises(EquintError, match="give its inputs x by name"):
        engine.run({"y": x})
    np.testing.assert_array_equal(engine.run(x.astype(np.int64))["z"], engine.run(x)["z"])
    narrow = replace(program, grids={**program.grids, "x": grid(7, 4)})
    with pytest.raises(EquintError, match="x: holds 0 to 16, but its grid 0 to 15"):
        Engine(narrow).run(np.arange(2, dtype=np.uint8).repeat(54).reshape(1, 3, 6, 6) * 16)
    with pytest.raises(EquintError, match="w: the program has no such tensor"):
        Engine(program, taps=["w"])
    with pytest.raises(EquintError, match="odd: there is no integer operator 'Erf'"):
        Engine(replace(program, steps=(Step("Erf", "odd", ("x",), ("z",)),)))


@pytest.mark.skipif(not FOLDER, reason="EQUINT_REAL names no folder of real networks")
@pytest.mark.parametrize("target", ["npu-shift", "per-channel"])
def test_a_real_network(target: str) -> None:
    """MobileNet on an image: the engine, proven in every layer, says what integer operators say."""
    import tomllib

    from equint import quantize
    from equint.hardware.target import target as built_in
    from equint.integers.lower import lower
    from equint.samples.card import read_card
    from equint.samples.data import batches

    path = Path(FOLDER) / "mobilenet_v1_025_224_imagenet.toml"
    card = read_card(path)
    (x, _) = next(iter(batches(card.data["eval"], card, 2, 2)))
    model = quantize(path.parent / tomllib.loads(path.read_text())["model"], "lwq", target, input=card).model
    program = lower(model, built_in(target))
    engine = Engine(program, threads=1)
    assert {p.way for p in engine.proof} <= {"float", "moves"}
    feeds = {n: program.quantized(n, x) for n in program.inputs}
    (wanted,) = execute(export_integer(program), *feeds.values())
    np.testing.assert_array_equal(engine.run(feeds)[program.outputs[0]], wanted)


def test_a_fixed_batch_runs_as_often_as_needed() -> None:
    """Programs for one sample serve any number, each as if it were alone."""
    program = random_program(3)
    feeds = feeds_for(program, 4)
    fixed = replace(program, shapes={**program.shapes, **{n: (1, *v.shape[1:]) for n, v in feeds.items()}})
    alone, many = Engine(fixed, threads=1), Engine(program, threads=1).run(feeds)
    for name, value in alone.run(feeds).items():
        np.testing.assert_array_equal(value, many[name])


@pytest.mark.parametrize(("front", "rows"), [("N", 1), (2, 2), (4, 4)])
def test_batches_that_are_baked_in(front: object, rows: int, capfd: pytest.CaptureFixture[str]) -> None:
    """Each of five samples gives what it gives where the batch holds nothing else; no log tells of a try."""
    body = "a = Conv(x, w) g = GlobalAveragePool(a) f = Reshape(g, s) y = Gemm(f, v)"
    inputs, consts = f"float[{front},3,8,8] x", {"w": normal(4, 3, 3, 3), "v": normal(4, 5)}
    proto = network(body, inputs=inputs, output="float[] y", s=[rows, 4], **consts)  # type: ignore[arg-type]
    engine, x = Engine(equint.program(proto, input=(-1, 1))), np.clip(normal(5, 3, 8, 8, scale=0.4), -1, 1)
    alone = [engine.real(np.repeat(x[k : k + 1], rows, 0))["y"][:1] for k in range(5)]
    np.testing.assert_array_equal(engine.real(x)["y"], np.concatenate(alone))
    integers = engine.program.quantized("x", x)
    each = [engine.trace(np.repeat(integers[k : k + 1], rows, 0)) for k in range(5)]
    for name, found in engine.trace(integers).items():
        np.testing.assert_array_equal(found, np.concatenate([e[name][:1] for e in each]), name)
    assert capfd.readouterr().err == ""
