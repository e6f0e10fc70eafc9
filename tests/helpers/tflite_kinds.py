"""One operator of TFLite, its operands and what it should give."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tflite_files import Array


@dataclass(frozen=True, eq=False)
class Given:
    """An operand that is an input of the network."""

    value: Array


@dataclass(frozen=True, eq=False)
class Case:
    """An operator on operands, None for one that is left out.

    Attributes:
        wanted: what it should give.
        litert: whether LiteRT has a kernel for it.
    """

    kind: str
    operands: Sequence[Given | Array | None]
    wanted: Sequence[Array]
    options: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    litert: bool = True
    custom: bytes = b""

    @property
    def id(self) -> str:
        return f"{self.kind}-{self.name}" if self.name else self.kind


def draw(*shape: int, seed: int = 0, low: float = -2.0, high: float = 2.0) -> Array:
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


def floats(*values: Any) -> Array:
    return np.array(values, np.float32)


def number(value: float) -> Array:
    return np.array(value, np.float32)


def ints(*values: Any) -> Array:
    return np.array(values, np.int32)


X = draw(2, 5, 6, 3)
ROWS = draw(4, 5)
