"""The real networks that benchmarks measure on: a folder of cards and models named by EQUINT_REAL."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import numpy as np

from equint.ir.model import Array
from equint.maths.noise import sqnr_db
from equint.runtime.session import Session, Source
from equint.samples.card import Card, read_card
from equint.samples.data import batches


@dataclass(frozen=True)
class Network:
    """One card with its model and evaluation data, prepared once."""

    name: str
    card: Card
    model: Path
    limit: int | None = None

    @cached_property
    def inputs(self) -> list[Array]:
        """Batches of evaluation inputs."""
        return [x for x, _ in batches(self.card.data["eval"], self.card, limit=self.limit)]

    @cached_property
    def labels(self) -> Array | None:
        """Labels, for classification."""
        parts = [y for _, y in batches(self.card.data["eval"], self.card, limit=self.limit) if y is not None]
        return np.concatenate(parts) if parts and self.card.task == "classification" else None

    @cached_property
    def reference(self) -> list[list[Array]]:
        """The float network's outputs, batch by batch."""
        return self.outputs(self.model)

    def outputs(self, source: Source, optimized: bool = False) -> list[list[Array]]:
        """Outputs of a network for every batch."""
        session = Session(source, optimized)
        return [list(session.run(x).values()) for x in self.inputs]

    def measure(self, source: Source) -> tuple[float | None, float | None, float]:
        """(top-1 %, agreement with float %, output SQNR dB of the worst output); None where not classifying."""
        found = self.outputs(source)
        worst = min(sqnr_db(_flat(self.reference, k), _flat(found, k)) for k in range(len(self.reference[0])))
        if self.labels is None:
            return None, None, worst
        float_top1 = np.concatenate([o[0].argmax(1) for o in self.reference])
        top1 = np.concatenate([o[0].argmax(1) for o in found])
        return 100 * float(np.mean(top1 == self.labels)), 100 * float(np.mean(top1 == float_top1)), worst


def _flat(outputs: list[list[Array]], k: int) -> Array:
    return np.concatenate([o[k].ravel() for o in outputs])


def machine() -> str:
    """What figures were measured with: the processor, versions, the day."""
    cpu = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", cpu.read_text("utf-8", "replace")) if cpu.is_file() else None
    packages = ", ".join(f"{name} {version(name)}" for name in ("equint", "onnxruntime", "numpy"))
    return f"{found[1] if found else 'an unknown processor'}, {os.cpu_count()} cores; {packages}; {date.today()}"


def networks(limit: int | None = None) -> Iterator[Network]:
    """Every network of the folder."""
    folder = os.environ.get("EQUINT_REAL")
    if not folder:
        sys.exit("set EQUINT_REAL to a folder of cards (docs/cards.md) with models and data")
    for path in sorted(Path(folder).glob("*.toml")):
        import tomllib

        table = tomllib.loads(path.read_text("utf-8"))
        yield Network(path.stem, read_card(path), path.parent / table["model"], limit)
