"""One file, one pass: each a frozen dataclass called as Model -> Model, its fields its options."""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from ..errors import EquintError
from ..ir.model import Model


class Keeps(Enum):
    """What a pass promises to leave as it was."""

    FUNCTION = "float outputs equal up to rounding"
    NEARLY = "float outputs equal on typical inputs"
    TOPOLOGY = "nodes unchanged; constants may change"
    FLOATS = "nodes and constants unchanged; only the description changes"


def require(name: str, value: float, good: bool, asked: str) -> None:
    """Refuse an option's value.

    Raises:
        EquintError: naming the option and what it may be.

    Example:
        >>> require("n", 6.0, True, "above 0")
    """
    if not good:
        raise EquintError(f"{name} = {value}: choose {asked}")


class Pass(Protocol):
    """A step of a recipe."""

    @property
    def keeps(self) -> Keeps:
        """The pass's promise."""
        ...

    def __call__(self, model: Model) -> Model:
        """The model after the step."""
        ...
