"""A small network and boards that execute it with mistakes, for the tests of golden vectors."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equint.integers.program import Program, Requantize, Step
from equint.ir.model import QParams, Shape
from equint.npu.golden import tensor_files
from programs import ACCUMULATORS, along, run_step, stored

Array = NDArray[Any]
Mistake = Callable[[Program, Step, list[Array]], list[Array]]
SAMPLE = (1, 3, 5, 6)
FIRST, SECOND, ADDED, POOLED, MEAN, FLAT, LAST = range(7)
"""The steps of `sample`."""


def grid(zero_point: int, bits: int = 8, signed: bool = False) -> QParams:
    return QParams(np.array(0.05, np.float32), np.array(zero_point, np.int32), bits, signed)


def requantize(mantissa: int, exponent: int, shift: Any, zero_point: int, low: int, high: int) -> Requantize:
    every = (np.array(mantissa, np.int64), np.array(exponent, np.int32), np.asarray(shift, np.int32))
    return Requantize(*every, zero_point, np.array(low, np.int32), np.array(high, np.int32))


def sample() -> tuple[Program, dict[str, Array]]:
    """Two convolutions that are added, pooled, averaged and classified; mantissas that make many ties."""
    rng = np.random.default_rng(5)

    def weighted(spread: int, outs: int, *shape: int) -> dict[str, Array]:
        weight = rng.integers(126 - spread, 126 + spread, (outs, *shape)).astype(np.uint8)
        bias = rng.integers(-30 * spread, 30 * spread, outs).astype(np.int32)
        return {"weight": weight, "weight_zero_point": np.array(126, np.uint8), "bias": bias}

    conv = {"strides": [1, 1], "dilations": [1, 1], "pads": [1, 1, 1, 1], "axis": 1}
    shifts = [0, 1, 0, 2]
    first = requantize(128, -5, shifts, 20, 20, 255)
    second = requantize(128, -2, 0, 100, 0, 255)
    added = {"coefficients": np.array([[3], [5]], np.int32), "bias": np.array(7, np.int32)}
    steps = (
        Step("Conv", "conv1", ("image",), ("first",), {**conv, "group": 1}, weighted(35, 4, 3, 3, 3), first),
        Step("Conv", "conv2", ("first",), ("second",), {**conv, "group": 4}, weighted(5, 4, 1, 3, 3), second),
        Step("Sum", "add", ("first", "second"), ("added",), {"axis": 1}, added, requantize(128, -2, 0, -9, -128, 127)),
        Step(
            "MaxPool", "pool", ("added",), ("pooled",),
            {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
        ),
        Step("GlobalAveragePool", "mean", ("pooled",), ("means",), {"axis": 1},
             requantize=requantize(200, -3, 0, 3, -128, 127)),
        Step("Flatten", "flatten", ("means",), ("flat",), {"axis": 1}),
        Step("Gemm", "fc", ("flat",), ("logits",), {"axis": -1}, weighted(35, 5, 4),
             requantize(128, -3, 0, 128, 0, 255)),
    )  # fmt: skip
    grids = {
        "image": grid(37), "first": grid(20), "second": grid(100), "added": grid(-9, signed=True),
        "pooled": grid(-9, signed=True), "means": grid(3, signed=True), "flat": grid(3, signed=True),
        "logits": grid(128),
    }  # fmt: skip
    shapes: dict[str, Shape] = dict.fromkeys(("first", "second", "added"), ("N", 4, 5, 6))
    shapes |= {"image": ("N", 3, 5, 6), "pooled": ("N", 4, 3, 3), "means": ("N", 4, 1, 1), "flat": ("N", 4)}
    program = Program(steps, ("image",), ("logits",), grids, {**shapes, "logits": ("N", 5)}, mantissa_bits=8)
    return program, {"image": rng.integers(0, 256, SAMPLE).astype(np.uint8)}


def board(program: Program, feeds: Mapping[str, Array], mistakes: Mapping[int, Mistake]) -> dict[str, Array]:
    """All tensors of a device that makes a mistake in some steps."""
    values = {name: np.asarray(feeds[name]) for name in program.inputs}
    for k, step in enumerate(program.steps):
        inputs = [program.consts[i] if i in program.consts else values[i] if i else np.zeros(0) for i in step.inputs]
        for name, result in zip(step.outputs, mistakes.get(k, run_step)(program, step, inputs), strict=True):
            values[name] = stored(program, name, result)
    return values


def dumped(program: Program, values: Mapping[str, Array], folder: Path, raw: bool = False) -> Path:
    """A folder with the given tensors."""
    folder.mkdir(exist_ok=True)
    files = tensor_files(program)
    for name in set(files) & set(values):
        if raw:
            (folder / f"{files[name]}.bin").write_bytes(values[name].tobytes())
        else:
            np.save(folder / f"{files[name]}.npy", values[name])
    return folder


# Mistakes


def rounding(how: Any) -> Mistake:
    return lambda program, step, inputs: run_step(replace(program, rounding=how), step, inputs)


def arrays(**changes: Any) -> Mistake:
    """Other constants."""
    return lambda program, step, inputs: run_step(program, replace(step, arrays={**step.arrays, **changes}), inputs)


def requantized(**changes: Any) -> Mistake:
    """Other requantization."""

    def mistake(program: Program, step: Step, inputs: list[Array]) -> list[Array]:
        assert step.requantize is not None
        return run_step(program, replace(step, requantize=replace(step.requantize, **changes)), inputs)

    return mistake


def zeros_around(program: Program, step: Step, inputs: list[Array]) -> list[Array]:
    """The integer 0 around the input, then no padding."""
    pads = step.attrs["pads"]
    x = np.pad(inputs[0], [(0, 0), (0, 0), *zip(pads[:2], pads[2:], strict=True)])
    return run_step(program, replace(step, attrs={**step.attrs, "pads": [0] * 4}), [x])


def wrapping(clamped: bool) -> Mistake:
    """The lowest eight bits of the result, number by number."""

    def mistake(program: Program, step: Step, inputs: list[Array]) -> list[Array]:
        how = step.requantize
        assert how is not None
        zeros = [int(program.grids[i].zero_point) for i in step.inputs]
        acc = ACCUMULATORS[step.op](step, [i.astype(np.int64) - z for i, z in zip(inputs, zeros, strict=True)])
        right = program.mantissa_bits - how.exponent + how.shift
        scaled = np.floor(acc * float(how.mantissa) / 2.0 ** along(step, right, acc.ndim) + 0.5).astype(int)
        q = (scaled + how.zero_point) & 255
        if program.grids[step.outputs[0]].signed:
            q = (q ^ 128) - 128
        return [np.clip(q, how.low, how.high) if clamped else q]

    return mistake


def flipped(bit: int) -> Mistake:
    def mistake(program: Program, step: Step, inputs: list[Array]) -> list[Array]:
        out = run_step(program, step, inputs)[0].copy()
        out[0, 1, -1, -1] ^= 1 << bit
        return [out]

    return mistake
