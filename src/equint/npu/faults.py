"""Why a device's integers differ: a layer computed as a device would that leaves something out, or rounds otherwise.

A cause is named only where it reproduces every value that the device gave.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from ..errors import EquintError
from ..integers.program import Program, Requantize, Step
from ..ir.model import Array, Name, QParams
from ..maths.affine import along_axis, storage
from ..maths.fixedpoint import Rounding
from ..maths.fixedpoint import requantize as rounded

Trace = Callable[[Program, Mapping[Name, Array]], Mapping[Name, Array]]
"""Executes a program: the integers of every tensor for those of its inputs."""

MOST_ALONE = 32
"""Among more steps than this, a mistake in one of them alone is not searched for."""


@dataclass(frozen=True)
class Variant:
    """How a device may compute a step otherwise than the program says; the defaults are as it says.

    Attributes:
        cause: what a person reads.
        rounding: half_up, half_even, truncate, or the C language's half_away (from zero) and toward_zero.
        clamp: "" to [low, high]; "grid" to the grid alone; "wrap" not at all: the grid's lowest bits are kept;
            "wrap, clamp" to [low, high] after that.
        shift, bias, input_zero, weight_zero, output_zero: whether these take part.
        padding: False where the integer 0 is put around instead of the zero point.
    """

    cause: str
    rounding: str = ""
    clamp: str = ""
    shift: bool = True
    bias: bool = True
    padding: bool = True
    input_zero: bool = True
    weight_zero: bool = True
    output_zero: bool = True


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
WAYS: Mapping[str, Rounding] = {"half_up": "half_up", "half_even": "half_even", "truncate": "truncate"}


def diagnose(
    program: Program,
    steps: Sequence[Step],
    values: Mapping[Name, Array],
    found: Mapping[Name, Array],
    trace: Trace,
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
    explained: list[tuple[Variant, tuple[Step, ...]]] = []
    for step in steps:
        befores.append(dict(base))
        base |= dict(zip(step.outputs, _outputs(program, step, base, AS_IS, trace) or (), strict=False))
    for variant in VARIANTS:
        alone: list[tuple[Variant, tuple[Step, ...]]] = [
            (variant, (step,))
            for k, step in enumerate(steps)
            if few and _explains(program, steps[k:], befores[k], found, {id(step)}, variant, trace)
        ]
        explained += alone
        every = {id(step) for step in steps}
        if not alone and len(steps) > 1 and _explains(program, steps, values, found, every, variant, trace):
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
    """Whether the steps give what was found if some of them are computed as the variant says."""
    known = dict(values)
    varied = False
    for step in steps:
        outputs = _outputs(program, step, known, variant, trace) if id(step) in mistaken else None
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
    try:
        if step.requantize is not None:
            acc = accumulator(program, step, values, variant)
            return [_requantized(program, step, step.requantize, acc, variant)]
        if variant is AS_IS:
            return list(traced(program, [step], values, trace).values())
        return _moved(program, step, values, variant, trace)
    except EquintError:  # the product of a mistaken accumulator may need more than 64 bits
        return None


def _moved(
    program: Program, step: Step, values: Mapping[Name, Array], variant: Variant, trace: Trace
) -> list[Array] | None:
    """What a step without an accumulator gives where a device is mistaken."""
    if step.op == "Clip" and variant.clamp == "grid":
        return [values[step.inputs[0]]]
    if step.op == "Interpolate" and variant.rounding in WAYS:
        changed = replace(program, rounding=WAYS[variant.rounding])
        return list(traced(changed, [step], values, trace).values())
    if step.op == "Pad" and not variant.padding:
        around_zero = replace(step, attrs={**step.attrs, "value": 0})
        return list(traced(program, [around_zero], values, trace).values())
    if step.op == "MaxPool" and not variant.padding and any(step.attrs.get("pads", ())):
        return _padded_first(program, step, values, trace)
    return None


def _padded_first(program: Program, step: Step, values: Mapping[Name, Array], trace: Trace) -> list[Array]:
    """A pool over an input that has integers 0 around it."""
    x, pads = step.inputs[0], [int(p) for p in step.attrs["pads"]]
    half = len(pads) // 2
    around = np.array([0, 0, *pads[:half], 0, 0, *pads[half:]], np.int64)
    inner = f"{x} padded"
    pad = Step("Pad", step.name, (x,), (inner,), {"value": 0}, {"pads": around})
    pool = replace(step, inputs=(inner,), attrs={**step.attrs, "pads": [0] * len(pads)})
    shape = tuple(int(n) for n in np.array(values[x].shape) + around.reshape(2, -1).sum(axis=0))
    wider = replace(program, grids={**program.grids, inner: program.grids[x]}, shapes={**program.shapes, inner: shape})
    return [traced(wider, [pad, pool], values, trace)[name] for name in step.outputs]


def traced(program: Program, steps: Sequence[Step], values: Mapping[Name, Array], trace: Trace) -> dict[Name, Array]:
    """What some of a program's steps make of `values`: the tensors of the last one, as they are stored.

    Example:
        >>> program, trace = tiny_program()
        >>> traced(program, program.steps, {"x": np.array([[[[2, 4]]]], np.int8)}, trace)["y"].tolist()
        [[[[3]]]]
    """
    made = {o for step in steps for o in step.outputs}
    reads = dict.fromkeys(i for step in steps for i in step.inputs if i and i not in made and i not in program.consts)
    part = replace(program, steps=tuple(steps), inputs=tuple(reads), outputs=steps[-1].outputs)
    found = trace(part, {name: values[name] for name in reads})
    return {name: stored(program, name, found[name]) for name in steps[-1].outputs}


def stored(program: Program, name: Name, values: Array) -> Array:
    """Integers in the type in which tensors travel: that of their grid; int64 for shapes.

    Example:
        >>> str(stored(tiny_program()[0], "y", np.array([1, 2])).dtype)
        'int8'
    """
    grid = program.grids.get(name)
    return np.asarray(values, np.int64 if grid is None else storage(grid), order="C")


# Accumulators, whole tensors at once in float64, which holds these sums exactly


def accumulator(program: Program, step: Step, values: Mapping[Name, Array], variant: Variant = AS_IS) -> Array:
    """The sums of a step before they are requantized, int64.

    Args:
        values: integers of the step's inputs.

    Example:
        >>> program, _ = tiny_program()
        >>> accumulator(program, program.steps[0], {"x": np.array([[[[1, 2]], [[3, 3]]]], np.int8)}).ravel().tolist()
        [3, 6]
    """
    zeros = [np.asarray(program.grids[i].zero_point, np.int64) for i in step.inputs]
    integers = [values[i].astype(np.int64) for i in step.inputs]
    axis = int(step.attrs.get("axis", 1))
    centred = [
        q - along_axis(z, axis, q.ndim) if variant.input_zero else q for q, z in zip(integers, zeros, strict=True)
    ]
    around = 0 if variant.padding else -int(np.ravel(zeros[0])[0])
    if step.op in ("Conv", "ConvTranspose", "Gemm"):
        acc = {"Conv": _conv, "ConvTranspose": _conv_transpose, "Gemm": _gemm}[step.op](
            step, centred[0], _weight(step, variant), around
        )
    elif step.op == "Sum":
        rank = max(q.ndim for q in integers)
        terms = zip(step.arrays["coefficients"].astype(np.int64), centred, strict=True)
        acc = sum(((_along(step, c, rank) * q) for c, q in terms), np.zeros((), np.int64))
    elif step.op == "Mul":
        acc = centred[0] * centred[1]
    elif step.op == "AveragePool":
        acc = _pool(step, centred[0], around)
    elif step.op == "GlobalAveragePool":
        acc = centred[0].sum(axis=tuple(range(2, centred[0].ndim)), keepdims=True)
    else:
        raise EquintError(f"layer {step.name}: no accumulator of {step.op} is known; leave this layer out of the dump")
    if variant.bias and "bias" in step.arrays:
        acc = acc + _along(step, step.arrays["bias"].astype(np.int64), acc.ndim)
    return np.asarray(acc, np.int64)


def _along(step: Step, values: Array, rank: int) -> Array:
    values = np.asarray(values)
    return values.reshape(()) if values.size == 1 else along_axis(values, int(step.attrs.get("axis", 1)), rank)


def _weight(step: Step, variant: Variant) -> Array:
    """Weights less their zero points, which run along the output channels."""
    weight, zero = step.arrays["weight"].astype(np.float64), step.arrays["weight_zero_point"].astype(np.float64)
    if not variant.weight_zero:
        return weight
    if step.op != "ConvTranspose" or zero.size == 1:
        return np.asarray(weight - (zero.reshape(()) if zero.size == 1 else along_axis(zero, 0, weight.ndim)))
    groups = int(step.attrs["group"])
    split = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
    return np.asarray((split - zero.reshape(groups, 1, -1, *[1] * (weight.ndim - 2))).reshape(weight.shape), np.float64)


def _windows(
    kernel: Sequence[int], dilations: Sequence[int], strides: Sequence[int], size: Sequence[int]
) -> Iterator[tuple[slice, ...]]:
    """For every tap in the order of storage, the positions that it meets, `size` of them."""
    for tap in np.ndindex(*kernel):
        starts = [t * d for t, d in zip(tap, dilations, strict=True)]
        yield tuple(slice(a, a + (n - 1) * s + 1, s) for a, n, s in zip(starts, size, strides, strict=True))


def _padded(x: Array, pads: Sequence[int], around: int) -> Array:
    half = len(pads) // 2
    return np.pad(x, [(0, 0), (0, 0), *zip(pads[:half], pads[half:], strict=True)], constant_values=around)


def _conv(step: Step, x: Array, weight: Array, around: int) -> Array:
    strides, dilations, groups = step.attrs["strides"], step.attrs["dilations"], int(step.attrs["group"])
    kernel = weight.shape[2:]
    x = _padded(x, step.attrs["pads"], around).astype(np.float64)
    size = [(n - d * (k - 1) - 1) // s + 1 for n, d, k, s in zip(x.shape[2:], dilations, kernel, strides, strict=True)]
    split = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
    acc = np.zeros((len(x), groups, split.shape[1], prod(size)))
    for k, window in enumerate(_windows(kernel, dilations, strides, size)):
        part = x[(slice(None), slice(None), *window)].reshape(len(x), groups, -1, prod(size))
        acc += split[..., k] @ part
    return acc.reshape(len(x), -1, *size).astype(np.int64)


def _conv_transpose(step: Step, x: Array, weight: Array, around: int) -> Array:
    strides, dilations, groups = step.attrs["strides"], step.attrs["dilations"], int(step.attrs["group"])
    kernel, pads, size = weight.shape[2:], step.attrs["pads"], x.shape[2:]
    full = [
        (n - 1) * s + d * (k - 1) + 1 + e
        for n, s, d, k, e in zip(size, strides, dilations, kernel, step.attrs["output_padding"], strict=True)
    ]
    split = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
    part = x.astype(np.float64).reshape(len(x), groups, -1, prod(size))
    acc = np.zeros((len(x), groups * weight.shape[1], *full))
    for k, window in enumerate(_windows(kernel, dilations, strides, size)):
        made = np.swapaxes(split[..., k], 1, 2) @ part
        acc[(slice(None), slice(None), *window)] += made.reshape(len(x), -1, *size)
    crop = (slice(pads[d], full[d] - pads[len(full) + d]) for d in range(len(full)))
    return acc[(slice(None), slice(None), *crop)].astype(np.int64)


def _gemm(step: Step, x: Array, weight: Array, around: int) -> Array:
    return np.asarray((x.astype(np.float64) @ weight.T).astype(np.int64))


def _pool(step: Step, x: Array, around: int) -> Array:
    kernel, strides = step.attrs["kernel_shape"], step.attrs["strides"]
    x = _padded(x, step.attrs["pads"], around)
    size = [(n - k) // s + 1 for n, k, s in zip(x.shape[2:], kernel, strides, strict=True)]
    acc = np.zeros((*x.shape[:2], *size), np.int64)
    for window in _windows(kernel, [1] * len(kernel), strides, size):
        acc += x[(slice(None), slice(None), *window)]
    return acc * step.arrays["reciprocals"].astype(np.int64) if "reciprocals" in step.arrays else acc


# From accumulators to integers


def _requantized(program: Program, step: Step, how: Requantize, acc: Array, variant: Variant = AS_IS) -> Array:
    mantissa, right = (_along(step, a, acc.ndim) for a in (how.mantissa, _right(program, how, variant)))
    q = _rounded(acc, mantissa, right, variant.rounding or program.rounding)
    q = q + (how.zero_point if variant.output_zero else 0)
    grid = program.grids[step.outputs[0]]
    if variant.clamp.startswith("wrap"):
        least = -(1 << (grid.bits - 1)) if grid.signed else 0
        q = ((q - least) & ((1 << grid.bits) - 1)) + least
    if variant.clamp in ("", "wrap, clamp"):
        low, high = (_along(step, a.astype(np.int64), acc.ndim) for a in (how.low, how.high))
        q = np.minimum(np.maximum(q, low), high)
    elif variant.clamp == "grid":
        q = np.clip(q, grid.qmin, grid.qmax)
    return q.astype(storage(grid))


def _right(program: Program, how: Requantize, variant: Variant = AS_IS) -> Array:
    return (how if variant.shift else replace(how, shift=np.zeros((), np.int32))).right(program.mantissa_bits)


def _rounded(acc: Array, mantissa: Array, right: Array, rounding: str) -> Array:
    if rounding in WAYS:
        return rounded(acc, mantissa, right, WAYS[rounding])
    magnitude = rounded(np.abs(acc), mantissa, right, "half_up" if rounding == "half_away" else "truncate")
    return np.asarray(np.sign(acc) * magnitude)


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
    mantissa, right = (_along(step, a, acc.ndim).astype(np.uint64) for a in (how.mantissa, _right(program, how)))
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
