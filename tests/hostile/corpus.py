"""All hostile cases, by a seed, and a sample of them that keeps every kind."""

from __future__ import annotations

import random
from collections.abc import Sequence

from . import arrays, devices, networks, places, shards, structures, tables
from .case import Case

SEED = 19


def corpus(seed: int = SEED) -> list[Case]:
    """All, each once."""
    found = [*networks.cases(), *structures.cases(seed), *tables.cases(), *arrays.cases(seed), *devices.cases(seed)]
    return list({case.name: case for case in [*found, *places.cases(), *shards.cases()]}.values())


def sampled(cases: Sequence[Case], count: int, seed: int) -> list[Case]:
    """So many of them, of each kind its share and at least one."""
    rng, kinds = random.Random(seed), dict.fromkeys(case.kind for case in cases)
    found = []
    for kind in kinds:
        own = [case for case in cases if case.kind == kind]
        found += rng.sample(own, max(1, min(len(own), round(count * len(own) / len(cases)))))
    return found
