"""What a device may do otherwise than the program says, and what that makes of steps without an accumulator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from math import prod
from typing import get_args

import numpy as np

from ..maths.fixedpoint import Rounding
from .program import Program, Step

WAYS: Mapping[str, Rounding] = {way: way for way in get_args(Rounding)}
"""Roundings that programs have; devices have others too."""
Rewritten = tuple[Program, tuple[Step, ...]]
"""Steps that compute what a mistaken device makes of one, and the program that they are executed in."""


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

    @property
    def changed(self) -> frozenset[str]:
        """The attributes that are not as the program says."""
        return frozenset(f.name for f in fields(self) if f.name != "cause" and getattr(self, f.name) != f.default)


def unclamped(program: Program, step: Step, variant: Variant) -> Rewritten | None:
    """A Clip that clamps to the grid does nothing."""
    return (program, (Step("Identity", step.name, step.inputs, step.outputs),)) if variant.clamp == "grid" else None


def rounded_otherwise(program: Program, step: Step, variant: Variant) -> Rewritten | None:
    """A step whose one rounding is the program's."""
    return (replace(program, rounding=WAYS[variant.rounding]), (step,)) if variant.rounding in WAYS else None


def pads_zeros(program: Program, step: Step, variant: Variant) -> Rewritten | None:
    """A Pad by the integer 0."""
    return program, (replace(step, attrs={**step.attrs, "value": 0}),)


def pools_zeros(program: Program, step: Step, variant: Variant) -> Rewritten | None:
    """A MaxPool or WindowMean that pads with the integer 0: a Pad before one that does not pad, and so counts all."""
    x, pads = step.inputs[0], [int(p) for p in step.attrs.get("pads", ())]
    if not any(pads):
        return None
    half = len(pads) // 2
    around = np.array([0, 0, *pads[:half], 0, 0, *pads[half:]], np.int64)
    pad = Step("Pad", step.name, (x,), (f"{x} padded",), {"value": 0}, {"pads": around})
    whole = {"counts": np.array(prod(step.attrs["kernel_shape"]), np.int32)} if "counts" in step.arrays else {}
    attrs = {**step.attrs, "pads": [0] * len(pads)}
    pool = replace(step, inputs=pad.outputs, attrs=attrs, arrays={**step.arrays, **whole})
    return replace(program, grids={**program.grids, pad.outputs[0]: program.grids[x]}), (pad, pool)
