"""Is this program well formed? What bundles of unknown origin are held to before anything runs them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from ..errors import EquintError
from ..ir.model import Name, QParams
from ..maths.fixedpoint import MOST_SHIFT, check_format
from .program import MOVES, Program, Requantize, Step

_SPATIAL = {"strides": 1, "dilations": 1, "pads": 2, "output_padding": 1}
_ATTRS: Mapping[str, tuple[str, ...]] = {
    "Conv": ("strides", "dilations", "pads", "group", "axis"),
    "ConvTranspose": ("strides", "dilations", "pads", "group", "output_padding", "axis"),
    "Gemm": ("axis",),
    "AveragePool": ("kernel_shape", "strides", "pads"),
    "Interpolate": ("bits",),
    "Table": ("axis",),
    "Clip": ("axis",),
}
_ARRAYS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("Conv", "ConvTranspose", "Gemm"), ("weight", "weight_zero_point", "bias")),
    "Sum": ("coefficients", "bias"),
    "Interpolate": ("rows", "columns"),
    "Table": ("table",),
    "Clip": ("low", "high"),
}
_SUMS = frozenset(["Conv", "ConvTranspose", "Gemm", "Sum", "Mul", "AveragePool", "GlobalAveragePool"])
_KINDS = _SUMS | MOVES | {"Interpolate", "Table", "Clip"}


def check(program: Program) -> None:
    """Refuse a program that an engine could not run as `equint.integers.program` says.

    Raises:
        EquintError: naming the step and what is wrong with it.

    Example:
        >>> grid = QParams(np.float32(1), np.int32(0))
        >>> check(Program((Step("Conv", "c", ("x",), ("y",)),), ("x",), ("y",), {"x": grid, "y": grid}))
        Traceback (most recent call last):
        ...
        equint.errors.EquintError: c: a Conv needs attribute strides
    """
    check_format(program.mantissa_bits, program.exponent_bits, program.shift_bits, program.rounding)
    for fault in _faults(program):
        raise EquintError(fault)


def _faults(program: Program) -> Iterator[str]:
    known: set[Name] = {*program.inputs, *program.consts}
    for step in program.steps:
        label = step.name or step.op
        if step.op not in _KINDS:
            yield f"{label}: no operator {step.op} is known"
        for name in step.inputs:
            if name and name not in known:
                yield f"{label}: reads {name}, which nothing before it makes"
        for name in step.outputs:
            if name in known:
                yield f"{label}: makes {name}, which is there already"
            known.add(name)
        yield from (f"{label}: {fault}" for fault in _step_faults(program, step))
    for name in program.outputs:
        if name not in known:
            yield f"nothing makes the result {name}"


def _step_faults(program: Program, step: Step) -> Iterator[str]:
    for key in _ATTRS.get(step.op, ()):
        if key not in step.attrs:
            yield f"a {step.op} needs attribute {key}"
    for key in _ARRAYS.get(step.op, ()):
        if key not in step.arrays:
            yield f"a {step.op} needs array {key}"
    grids = [program.grids.get(n) for n in (*step.inputs[:1], *step.outputs[:1])]
    if step.op not in MOVES and any(q is None for q in grids):
        yield "its tensors need grids"
    if step.op in ("Conv", "ConvTranspose"):
        rank = step.arrays["weight"].ndim - 2
        for key, times in _SPATIAL.items():
            value = step.attrs.get(key)
            if value is not None and not (_whole(value) and len(value) == rank * times):
                yield f"{key} = {value!r}: {rank * times} whole numbers are needed"
        if not isinstance(step.attrs["group"], int) or step.attrs["group"] < 1:
            yield f"group = {step.attrs['group']!r}: give a whole number above 0"
    if step.op == "AveragePool":
        rank = len(step.attrs["kernel_shape"]) if _whole(step.attrs["kernel_shape"]) else 0
        if not rank or not all(_whole(step.attrs[k]) for k in ("strides", "pads")):
            yield "kernel_shape, strides and pads are lists of whole numbers"
        elif len(step.attrs["strides"]) != rank or len(step.attrs["pads"]) != 2 * rank:
            yield f"a window of {rank} dimensions needs {rank} strides and {2 * rank} pads"
    x, y = grids[0], grids[-1]
    if step.op == "Table" and x is not None and step.arrays["table"].shape[-1:] != (x.qmax - x.qmin + 1,):
        yield f"its table has {step.arrays['table'].shape[-1:]} entries for {x.qmax - x.qmin + 1} integers"
    if step.op in _SUMS:
        if step.requantize is None:
            yield f"a {step.op} needs to be requantized"
        elif y is not None:
            yield from _requantize_faults(program, step.requantize, y)


def _requantize_faults(program: Program, how: Requantize, grid: QParams) -> Iterator[str]:
    if np.min(how.mantissa) < 1 or np.max(how.mantissa) >= 1 << program.mantissa_bits:
        yield f"its mantissa is not within 1 and {program.mantissa_bits} bits"
    half = 1 << (program.exponent_bits - 1)
    if np.min(how.exponent) < -half or np.max(how.exponent) >= half:
        yield f"its exponent does not fit into {program.exponent_bits} bits"
    if np.min(how.shift) < 0 or np.max(how.shift) >= 1 << program.shift_bits:
        yield f"its shift does not fit into {program.shift_bits} bits"
    right = how.right(program.mantissa_bits)
    if right.min() < 1 or right.max() > MOST_SHIFT:
        yield f"its product is shifted right by {right.min()} to {right.max()} places; 1 to {MOST_SHIFT} are possible"
    ends = (how.zero_point, int(np.min(how.low)), int(np.max(how.high)))
    if any(not grid.qmin <= v <= grid.qmax for v in ends):
        yield f"zero point {ends[0]} or clamp {ends[1]}…{ends[2]} lies outside its grid, {grid.qmin} to {grid.qmax}"


def _whole(value: object) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(v, int) and not isinstance(v, bool) for v in value)
