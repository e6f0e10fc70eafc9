"""Is this program well formed? What bundles of unknown origin are held to before anything runs them."""

from __future__ import annotations

from collections.abc import Iterator
from reprlib import repr as short

import numpy as np

from ..errors import UnreadableModel
from ..ir.model import Name, QParams
from ..maths.fixedpoint import MOST_SHIFT, check_format
from .accumulators import outputs_of
from .program import Program, Requantize, Step
from .steps import STEPS, Floats, Moves, Sums


def check(program: Program) -> None:
    """Refuse a program that an engine could not run as `equint.integers.steps` says.

    Raises:
        EquintError: naming the step and what is wrong with it.

    Example:
        >>> grid = QParams(np.float32(1), np.int32(0))
        >>> check(Program((Step("Conv", "c", ("x",), ("y",)),), ("x",), ("y",), {"x": grid, "y": grid}))
        Traceback (most recent call last):
        ...
        equint.errors.UnreadableModel: c: a Conv needs attribute strides
    """
    check_format(program.mantissa_bits, program.exponent_bits, program.shift_bits, program.rounding)
    for fault in _faults(program):
        raise UnreadableModel(fault)


def _faults(program: Program) -> Iterator[str]:
    if not program.inputs or not program.outputs:
        yield "a program without inputs or results"
    for name, grid in program.grids.items():
        if grid.axis is not None and not -AXES <= grid.axis < AXES:
            yield f"grid of {name}: axis {short(grid.axis)}, where tensors have {AXES} at most"
        if not np.all(np.isfinite(grid.scale)) or not np.all(np.asarray(grid.scale) > 0):
            yield f"grid of {name}: a scale that is not finite and above 0"
    known: set[Name] = {*program.inputs, *program.consts}
    for step in program.steps:
        for name in step.inputs:
            if name and name not in known:
                yield f"{step.label}: reads {name}, which nothing before it makes"
        for name in step.outputs:
            if name in known:
                yield f"{step.label}: makes {name}, which is there already"
            known.add(name)
        yield from (f"{step.label}: {fault}" for fault in _step_faults(program, step))
    for name in program.outputs:
        if name not in known:
            yield f"nothing makes the result {name}"


def _step_faults(program: Program, step: Step) -> Iterator[str]:
    kind = STEPS.get(step.op)
    if kind is None:
        yield f"no operator {step.op} is known"
        return
    if not step.inputs or not step.outputs:
        yield f"a {step.op} reads and makes tensors"
    for word, fields, given in (("attribute", kind.attrs, step.attrs), ("array", kind.arrays, step.arrays)):
        missing = (key for key, field in fields.items() if key not in given and not field.optional)
        yield from (f"a {step.op} needs {word} {key}" for key in missing)
    if not isinstance(kind.work, Moves | Floats) and not {*step.inputs, *step.outputs} <= program.grids.keys():
        yield "its tensors need grids"
    windows = ("strides", "dilations", "pads", "kernel_shape", "ceil_mode")
    yield from (f"{key} is null" for key in windows if step.attrs.get(key, 0) is None)
    for key, field in kind.attrs.items():
        if not field.holds(program, step, step.attrs[key]):
            yield f"{key} = {short(step.attrs[key])}: {field.needs} is needed"
    for key, array in step.arrays.items():
        if array.dtype.kind not in "iu":
            yield f"{key} of type {array.dtype}: integers are needed"
        if key in kind.arrays and not kind.arrays[key].holds(program, step, array):
            yield f"{key} of shape {array.shape}: {kind.arrays[key].needs} is needed"
    if isinstance(kind.work, Sums):
        if step.requantize is None:
            yield f"a {step.op} needs to be requantized"
        else:
            yield from _requantize_faults(program, step, step.requantize, program.grids[step.outputs[0]])


AXES = 32
"""Most dimensions of a tensor."""
_ARRAYS = ("mantissa", "exponent", "shift", "low", "high", "mantissa_below", "exponent_below")


def _requantize_faults(program: Program, step: Step, how: Requantize, grid: QParams) -> Iterator[str]:
    if (how.mantissa_below is None) != (how.exponent_below is None):
        yield "of its factor below 0 either mantissa or exponent is missing"
        return
    given = ((key, value) for key, value in vars(how).items() if key in _ARRAYS and value is not None)
    arrays = {key: np.asarray(value) for key, value in given}
    most = (outputs_of(step),) if "weight" in step.arrays else max((a.shape for a in arrays.values()), key=len)
    for key, array in arrays.items():
        if array.shape not in ((), most) or array.ndim > 1 or not array.size:
            yield f"{key} of shape {array.shape}: {'×'.join(map(str, most)) or 'no'} channels"
    if np.min(how.mantissa) < 1 or np.max(how.mantissa) >= 1 << program.mantissa_bits:
        yield f"its mantissa is not within 1 and {program.mantissa_bits} bits"
    if how.mantissa_below is not None and np.max(np.abs(how.mantissa_below.astype(np.int64))) >> program.mantissa_bits:
        yield f"its mantissa below 0 is not within {program.mantissa_bits} bits"
    half = 1 << (program.exponent_bits - 1)
    exponents = [side.exponent for side in how.sides]
    if min(map(np.min, exponents)) < -half or max(map(np.max, exponents)) >= half:
        yield f"its exponent does not fit into {program.exponent_bits} bits"
    if np.min(how.shift) < 0 or np.max(how.shift) >= 1 << program.shift_bits:
        yield f"its shift does not fit into {program.shift_bits} bits"
    rights = [side.right(program.mantissa_bits) for side in how.sides]
    least, most_right = min(map(np.min, rights)), max(map(np.max, rights))
    if least < 1 or most_right > MOST_SHIFT:
        yield f"its product is shifted right by {least} to {most_right} places; 1 to {MOST_SHIFT} are possible"
    ends = (how.zero_point, int(np.min(how.low)), int(np.max(how.high)))
    if any(not grid.qmin <= v <= grid.qmax for v in ends):
        yield f"zero point {ends[0]} or clamp {ends[1]}…{ends[2]} lies outside its grid, {grid.qmin} to {grid.qmax}"
