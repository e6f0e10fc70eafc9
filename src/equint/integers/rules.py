"""What attributes and arrays of a step must be, whoever made it, and how bundles store them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..ir.model import Array
from .accumulators import groups_of, outputs_of
from .program import Program, Step

Rule = Callable[[Program, Step, Any], str | None]
"""What is wrong with a value that a step has, or None."""
SMALL = ("uint8", "int8", "uint16", "int16", "int32")
"""Types in which small integers are stored: the first that holds them all."""


@dataclass(frozen=True)
class Held:
    """A constant that steps hold.

    Attributes:
        rule: what it must be.
        stored: the types in which bundles store it, where one of them holds it; else its own.
        packed: whether it is stored to the bit, or as a mask and what is not the zero point.
        needed: whether every step of the kind has it.
    """

    rule: Rule = lambda program, step, value: None
    stored: tuple[str, ...] = ()
    packed: bool = False
    needed: bool = True


def whole(program: Program, step: Step, value: Any) -> str | None:
    """A whole number."""
    return None if _is_whole(value) else "a whole number is needed"


def at_least(least: int) -> Rule:
    """A whole number from `least` on."""
    return lambda program, step, value: (
        None if _is_whole(value) and value >= least else f"give a whole number above {least - 1}"
    )


def per_dimension(times: int, least: int | None = None) -> Rule:
    """So many whole numbers for every spatial dimension, none of them below `least`."""

    def rule(program: Program, step: Step, value: Any) -> str | None:
        kernel = step.arrays["weight"].shape[2:] if "weight" in step.arrays else step.attrs["kernel_shape"]
        count = times * len(kernel) if isinstance(kernel, tuple | list) else 0
        fits = isinstance(value, tuple | list) and len(value) == count > 0 and all(map(_is_whole, value))
        if not fits:
            return f"{max(count, 1)} whole numbers are needed"
        return None if least is None or min(value) >= least else f"give whole numbers above {least - 1}"

    return rule


def channels(*stored: str) -> Held:
    """One integer, or one for each channel."""
    return Held(lambda program, step, value: None if value.ndim < 2 else "one for each channel is needed", stored)


def outputs(*stored: str) -> Held:
    """One integer, or one for each channel that a layer makes."""

    def rule(program: Program, step: Step, value: Array) -> str | None:
        n = outputs_of(step)
        return None if value.shape in ((), (n,)) else f"there are {n} channels"

    return Held(rule, stored)


def _weight(program: Program, step: Step, value: Array) -> str | None:
    if value.ndim < 2 or (value.ndim > 2) == (step.op == "Gemm"):
        return f"a {step.op} has no such weights"
    return (
        None if len(value) % groups_of(step) == 0 else f"{groups_of(step)} groups do not divide {len(value)} channels"
    )


def _entries(program: Program, step: Step, value: Array) -> str | None:
    q = program.grids[step.inputs[0]]
    count = q.qmax - q.qmin + 1
    return None if value.ndim in (1, 2) and value.shape[-1] == count else f"{count} integers need as many entries"


def _rows(program: Program, step: Step, value: Array) -> str | None:
    count = len(step.inputs)
    return None if value.ndim == 2 and len(value) == count else f"{count} inputs need as many rows"


def _matrix(program: Program, step: Step, value: Array) -> str | None:
    fits = value.ndim == 2 and value.size and np.min(value) >= 0 and np.all(value.sum(1) == 1 << step.attrs["bits"])
    return None if fits else "rows of integers from 0 on that sum to 2^bits are needed"


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


weight = Held(_weight, SMALL, packed=True)
entries, rows, matrix = Held(_entries), Held(_rows), Held(_matrix)
