"""One file, one pass: each a frozen dataclass called as Model -> Model.

Its fields are its options, except those that it declares as `needed`: whoever plans gives them. It declares what it
keeps, and where in a recipe it belongs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import field, fields
from enum import Enum
from typing import Any, Protocol

from ..errors import InvalidOption
from ..hardware.target import Target
from ..ir.model import Model


class Keeps(Enum):
    """What a pass promises to leave as it was."""

    FUNCTION = "float outputs equal up to rounding"
    NEARLY = "float outputs equal on typical inputs"
    TOPOLOGY = "nodes unchanged; constants may change"
    FLOATS = "nodes and constants unchanged; only the description changes"


class Stage(Enum):
    """Where in a recipe a pass belongs; the stages follow each other in this order."""

    BEFORE = "before quantize"
    QUANTIZE = "quantize itself"
    ROUNDING = "behind quantize, before corrections"
    CORRECTION = "behind quantize"


class Need(Enum):
    """What a pass is given by whoever plans: the target's and the recipe's formats, data, and whom to tell."""

    WEIGHT = "format of weights"
    ACTIVATION = "format of activations"
    BIAS_BITS = "width of integer biases"
    BIAS_GRID = "where the precision of integer biases comes from"
    SHIFT_BITS = "width of the shift of a weight's output channel"
    OVERRIDES = "exceptions from the formats"
    IMAGES = "what to show the network"
    STATISTICS = "what was measured on images before"
    COLLECT = "how images are measured, where some were before"
    TEACHER = "the float network as it was read"
    PROGRESS = "called with what is done and how much there is"


LOOKS = frozenset({Need.IMAGES, Need.STATISTICS})
"""Needs of passes that look at data."""


def needed(need: Need, default: Any) -> Any:
    """A field that is no option: it is given, or stays as it is by default."""
    return field(default=default, metadata={"need": need})


def following(target: Callable[[Target], Any], default: Any) -> Any:
    """An option that may say "target": it then is what `target` makes of the hardware."""
    return field(default=default, metadata={"target": target})


def needs(kind: Any) -> Mapping[str, Need]:
    """What a pass, or its class, declares to need, by field."""
    return {f.name: f.metadata["need"] for f in fields(kind) if "need" in f.metadata}


def followed(kind: Any) -> Mapping[str, Callable[[Target], Any]]:
    """The options of a pass, or its class, that may follow the target."""
    return {f.name: f.metadata["target"] for f in fields(kind) if "target" in f.metadata}


def require(name: str, value: float, good: bool, asked: str) -> None:
    """Refuse an option's value. Raises EquintError: naming the option and what it may be."""
    if not good:
        raise InvalidOption(f"{name} = {value}: choose {asked}")


def require_simplex(size: float, range_tolerance: float, error_tolerance: float) -> None:
    """Refuse options of a simplex search. Raises EquintError: naming the option and what it may be."""
    require("simplex", size, size != 0 and math.isfinite(size), "a share that is not 0")
    require("range_tolerance", range_tolerance, range_tolerance > 0, "a number above 0")
    require("error_tolerance", error_tolerance, error_tolerance > 0, "a number above 0")


class Pass(Protocol):
    """A step of a recipe."""

    @property
    def keeps(self) -> Keeps: ...

    @property
    def stage(self) -> Stage: ...

    def __call__(self, model: Model) -> Model: ...
