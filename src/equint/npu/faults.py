"""Why a device's integers differ: a layer computed as a device would that leaves something out, or rounds otherwise.

A cause is named only where it reproduces every value that the device gave.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..errors import EquintError, UnusableData
from ..integers.mistakes import WAYS, Variant
from ..integers.program import Program, Requantize, Step, along
from ..integers.steps import Sums, kind_of
from ..ir.model import Array, Name, QParams
from ..maths.fixedpoint import Rounding
from ..maths.fixedpoint import requantize as rounded

Trace = Callable[[Program, Mapping[Name, Array]], Mapping[Name, Array]]
"""Executes a program: the integers of every tensor for those of its inputs."""

MOST_ALONE = 32
"""Among more steps than this, a mistake in one of them alone is not searched for."""
VARIANTS = (
    Variant("rounds half_up: to nearest, ties up", rounding="half_up"),
    Variant("rounds half_even: to nearest, ties to even", rounding="half_even"),
    Variant("rounds half_away: to nearest, ties away from zero, as round() in C", rounding="half_away"),
    Variant("truncates: drops the bits, as >> does", rounding="truncate"),
    Variant("rounds toward_zero, as division in C does", rounding="toward_zero"),
    Variant("saturation missing: values wrap around", clamp="wrap"),
    Variant("saturation missing: values wrap around before the clamp", clamp="wrap, clamp"),
    Variant("clamp (ReLU) missing: values reach over the whole grid", clamp="grid"),
    Variant("shift of the channels not applied", shift=False),
    Variant("bias missing", bias=False),
    Variant("pads with the integer 0 instead of the zero point", padding=False),
    Variant("zero point of the input not subtracted", input_zero=False),
    Variant("zero point of the weight not subtracted", weight_zero=False),
    Variant("zero point of the output not added", output_zero=False),
)
"""The mistakes that are recognized."""
AS_IS = Variant("")


def diagnose(
    program: Program, steps: Sequence[Step], values: Mapping[Name, Array], found: Mapping[Name, Array], trace: Trace
) -> list[tuple[Variant, tuple[Step, ...]]]:
    """The mistakes that turn `values` into `found` by these steps, each with the steps that make it.

    First each step alone, then, for mistakes that no step alone explains, all of them together.

    Args:
        steps: in execution order. values: what they read from outside. found: what a device made of it.
        trace: executes the steps that move integers.

    Example:
        >>> program, trace = tiny_program()
        >>> x, y = np.array([[[[-1, -2]], [[3, 4]]]], np.int8), np.array([[[[-2]], [[4]]]], np.int8)
        >>> [variant.rounding for variant, _ in diagnose(program, program.steps, {"x": x}, {"y": y}, trace)]
        ['half_even', 'half_away']
    """
    few = sum(any(o in program.grids for o in step.outputs) for step in steps) <= MOST_ALONE
    base, befores = dict(values), []
    for step in steps:
        befores.append(dict(base))
        base |= dict(zip(step.outputs, _outputs(program, step, base, AS_IS, trace) or (), strict=False))
    every = range(len(steps))
    explained: list[tuple[Variant, tuple[Step, ...]]] = []
    for variant in VARIANTS:
        alone = [k for k in every if few and _explains(program, steps[k:], befores[k], found, {0}, variant, trace)]
        explained += [(variant, (steps[k],)) for k in alone]
        if not alone and len(steps) > 1 and _explains(program, steps, values, found, {*every}, variant, trace):
            explained.append((variant, tuple(steps)))
    return explained


def _explains(
    program: Program,
    steps: Sequence[Step],
    values: Mapping[Name, Array],
    found: Mapping[Name, Array],
    mistaken: set[int],
    variant: Variant,
    trace: Trace,
) -> bool:
    """Whether the steps give what was found if those at the indices `mistaken` are computed as the variant says."""
    known = dict(values)
    varied = False
    for k, step in enumerate(steps):
        outputs = _outputs(program, step, known, variant, trace) if k in mistaken else None
        varied |= outputs is not None
        outputs = outputs or _outputs(program, step, known, AS_IS, trace)
        if outputs is None:
            return False
        known |= dict(zip(step.outputs, outputs, strict=True))
    return varied and all(np.array_equal(known[name], wanted) for name, wanted in found.items())


def _outputs(
    program: Program, step: Step, values: Mapping[Name, Array], variant: Variant, trace: Trace
) -> list[Array] | None:
    """What a step gives; None where the variant says nothing of it, or cannot be computed."""
    kind = kind_of(step)
    if not variant.changed <= kind.mistakes:
        return None
    try:
        if step.requantize is not None:
            acc = accumulator(program, step, values, variant)
            return [_requantized(program, step, step.requantize, acc, variant)]
        rewritten = kind.mistaken(program, step, variant) if variant.changed else (program, (step,))
        return None if rewritten is None else list(traced(*rewritten, values, trace).values())
    except EquintError:  # the product of a mistaken accumulator may need more than 64 bits
        return None


def traced(program: Program, steps: Sequence[Step], values: Mapping[Name, Array], trace: Trace) -> dict[Name, Array]:
    """What some of a program's steps make of `values`: the tensors of the last one, as they are stored."""
    made = {o for step in steps for o in step.outputs}
    reads = dict.fromkeys(i for step in steps for i in step.inputs if i and i not in made and i not in program.consts)
    part = replace(program, steps=tuple(steps), inputs=tuple(reads), outputs=steps[-1].outputs)
    found = trace(part, {name: values[name] for name in reads})
    return {name: stored(program, name, found[name]) for name in steps[-1].outputs}


def stored(program: Program, name: Name, values: Array) -> Array:
    """Integers in the type in which tensors travel: that of their grid; int64 for shapes."""
    return np.asarray(values, program.storage(name), order="C")


def accumulator(program: Program, step: Step, values: Mapping[Name, Array], variant: Variant = AS_IS) -> Array:
    """The sums of a step before they are requantized, int64.

    Args:
        values: integers of the step's inputs.

    Example:
        >>> program, _ = tiny_program()
        >>> accumulator(program, program.steps[0], {"x": np.array([[[[1, 2]], [[3, 3]]]], np.int8)}).ravel().tolist()
        [3, 6]
    """
    work = kind_of(step).work
    if not isinstance(work, Sums):
        raise UnusableData(f"layer {step.name}: no accumulator of {step.op} is known; leave this layer out of the dump")
    zeros = [program.zero_point(i) for i in step.inputs]
    known = {**program.consts, **values}
    inputs = [known[i].astype(np.int64) - z * variant.input_zero for i, z in zip(step.inputs, zeros, strict=True)]
    acc = work.exact(step, inputs, 0 if variant.padding else -zeros[0], variant.weight_zero)
    if variant.bias and "bias" in step.arrays:
        acc = acc + along(step.arrays["bias"].astype(np.int64), step.axis, acc.ndim)
    return np.asarray(acc, np.int64)


def _requantized(program: Program, step: Step, how: Requantize, acc: Array, variant: Variant = AS_IS) -> Array:
    shifted = how if variant.shift else replace(how, shift=np.zeros((), np.int32))
    mantissa, right = _factors(program, step, shifted, acc)
    q = _rounded(acc, mantissa, right, variant.rounding or program.rounding)
    q = q + (how.zero_point if variant.output_zero else 0)
    grid = program.grids[step.outputs[0]]
    if variant.clamp.startswith("wrap"):
        least = -(1 << (grid.bits - 1)) if grid.signed else 0
        q = ((q - least) & ((1 << grid.bits) - 1)) + least
    if variant.clamp in ("", "wrap, clamp"):
        low, high = (along(a.astype(np.int64), step.axis, acc.ndim) for a in (how.low, how.high))
        q = np.minimum(np.maximum(q, low), high)
    elif variant.clamp == "grid":
        q = np.clip(q, grid.qmin, grid.qmax)
    return q.astype(program.storage(step.outputs[0]))


def _rounded(acc: Array, mantissa: Array, right: Array, rounding: str) -> Array:
    if rounding in WAYS:
        return rounded(acc, mantissa, right, WAYS[rounding])
    way: Rounding = "half_up" if rounding == "half_away" else "truncate"
    magnitude = rounded(np.abs(acc), np.abs(mantissa), right, way)
    return np.asarray(np.sign(acc) * np.sign(mantissa) * magnitude)


def _factors(program: Program, step: Step, how: Requantize, acc: Array) -> tuple[Array, Array]:
    """Mantissa and places for each accumulator, by its sign where that matters; int64, they broadcast against it."""
    sides = [(side.mantissa, side.right(program.mantissa_bits)) for side in how.sides]
    (mantissa, right), *below = ([along(a.astype(np.int64), step.axis, acc.ndim) for a in side] for side in sides)
    for other, places in below:
        mantissa, right = np.where(acc < 0, other, mantissa), np.where(acc < 0, places, right)
    return mantissa, right


def ties(program: Program, step: Step, values: Mapping[Name, Array]) -> Array | None:
    """Where acc·mantissa lies exactly between two integers: booleans; None for steps that do not requantize.

    Example:
        >>> program, _ = tiny_program()
        >>> ties(program, program.steps[0], {"x": np.array([[[[1, 2]], [[3, 3]]]], np.int8)}).ravel().tolist()
        [True, False]
    """
    how = step.requantize
    if how is None:
        return None
    acc = accumulator(program, step, values)
    mantissa, right = (a.astype(np.uint64) for a in _factors(program, step, how, acc))
    one = np.uint64(1)  # only the lowest bits count, which unsigned products keep however large they are
    product = acc.astype(np.uint64) * mantissa
    return np.asarray((right > 0) & ((product & ((one << right) - one)) == (one << right) >> one))


def tiny_program() -> tuple[Program, Trace]:
    """The sum over all positions, halved, and what executes it: for examples."""
    grid, zero = QParams(np.array(1, np.float32), np.array(0, np.int32)), np.array(0)
    how = Requantize(np.array(2), zero, zero, 0, np.array(-128), np.array(127))
    step = Step("GlobalAveragePool", "mean", ("x",), ("y",), requantize=how)
    program = Program((step,), ("x",), ("y",), {"x": grid, "y": grid}, {"x": ("N", 2, None, None)}, mantissa_bits=2)
    return program, lambda program, feeds: {"y": _requantized(program, step, how, accumulator(program, step, feeds))}
