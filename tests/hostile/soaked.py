"""Thousands of small quantizations in one process: does memory stay what it was?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from resource import getpagesize

import numpy as np

import equint
from equint.errors import EquintError

from .grown import network

WARM = 200
"""Quantizations after which nothing more is to be loaded, kept or cached for the first time."""
RECIPES = ("lwq", "cwq-bc", "dfq", "optimal")


@dataclass(frozen=True)
class Soaked:
    """So many quantizations; resident bytes after the first `WARM` of them and after the last."""

    count: int
    refused: int
    warm: int
    last: int

    @property
    def grown(self) -> float:
        """By how much memory grew since it was warm, in per cent."""
        return 100 * (self.last / self.warm - 1)

    def __str__(self) -> str:
        told = f"{self.count} quantizations in one process, {self.refused} of them refused"
        sizes = (
            f"{self.warm / 1e6:.1f} MB resident after {min(WARM, self.count // 2)}, {self.last / 1e6:.1f} MB at the end"
        )
        return f"{told}: {sizes} ({self.grown:+.1f} %)"


def soak(count: int, seed: int = 0, tell: Callable[[int], None] = lambda k: None) -> Soaked:
    """Quantize small networks, another each time, on samples or without, by recipe after recipe."""
    warm = refused = 0
    for k in range(count):
        if k == min(WARM, count // 2):
            warm = resident()
        rng = np.random.default_rng((seed, k))
        proto = network(rng, 1 + k % 8)
        sizes = {i.name: [d.dim_value for d in i.type.tensor_type.shape.dim[1:]] for i in proto.graph.input}
        data = {name: rng.normal(size=(8, *shape)).astype(np.float32) for name, shape in sizes.items()}
        try:
            given = data if k % 2 else None
            _ = equint.quantize(proto, RECIPES[k % len(RECIPES)], data=given, effort="fast", force=True).proto
        except EquintError:
            refused += 1
        tell(k + 1)
    return Soaked(count, refused, warm, resident())


def resident() -> int:
    """Resident bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * getpagesize()
