"""What networks are for, and how each kind is measured and judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidCard


@dataclass(frozen=True)
class Measure:
    """One figure: its key in the results, how it is written, and whether it is a per cent."""

    key: str
    title: str
    unit: str = "%"
    decimals: int = 1

    def shown(self, value: float) -> str:
        return f"{value:.{self.decimals}f} {self.unit}".rstrip()


SQNR = Measure("sqnr_db", "output SQNR", "dB")
CLOSENESS = (
    Measure("agreement", "agreement with the float network"),
    SQNR,
    Measure("cosine", "cosine similarity", "", 4),
)
"""Measured for any network against its float original."""


@dataclass(frozen=True)
class Task:
    """A kind of network.

    Attributes:
        name: as cards write it.
        measures: what labelled data give; the first one decides.
        drops: losses of that measure below which the result is good, usable, poor; above them it is broken.
        agreement: per cent of equal decisions from which it is so, where there are no labels; None: not meaningful.
        sqnr: the same in dB of output SQNR.
        needs: keys that a card's [data] must have to measure labelled pictures.
    """

    name: str
    measures: tuple[Measure, ...]
    drops: tuple[float, float, float]
    agreement: tuple[float, float, float] | None
    sqnr: tuple[float, float, float]
    needs: tuple[str, ...] = ()

    @property
    def main(self) -> Measure | None:
        """The measure that decides, if labels give one."""
        return self.measures[0] if self.measures else None


_HITS = Measure("top1", "top-1"), Measure("top5", "top-5")
_OVERLAPS = Measure("miou", "mIoU"), Measure("pixel_accuracy", "pixel accuracy")
_PRECISIONS = Measure("map50", "AP at IoU 0.5"), Measure("map", "AP at IoU 0.5 to 0.95")
_FIDELITY = Measure("psnr", "PSNR", "dB", 2), Measure("ssim", "SSIM", "", 4)
_ALL = (
    Task("classification", _HITS, (0.5, 2, 10), (98, 95, 85), (22, 16, 9)),
    Task("keyword-spotting", _HITS, (0.5, 2, 10), (98, 95, 85), (22, 16, 9)),
    Task("segmentation", _OVERLAPS, (1, 3, 10), (98, 95, 85), (22, 16, 9), ("masks",)),
    Task("detection", _PRECISIONS, (1, 3, 10), None, (26, 22, 14), ("boxes", "heads or priors")),
    Task("super-resolution", _FIDELITY, (0.1, 0.5, 2), None, (44, 36, 29), ("scale",)),
    Task("features", (), (0, 0, 0), None, (30, 20, 10)),
)
TASKS: Mapping[str, Task] = {task.name: task for task in _ALL}


def task_of(name: Any) -> Task:
    """The task of this name. Raises EquintError: there is none."""
    if isinstance(name, Task):
        return name
    if not isinstance(name, str) or name not in TASKS:
        raise InvalidCard(f"task = {name!r}; choose {', '.join(TASKS)} (features: anything else)")
    return TASKS[name]


def missing(task: Task | str, data: Mapping[str, Any]) -> tuple[str, ...]:
    """What a card's [data] lacks to measure labelled pictures.

    Example:
        >>> missing("detection", {"boxes": "boxes.json"})
        ('heads or priors',)
    """
    needs = task_of(task).needs
    return tuple(need for need in needs if not any(key in data for key in need.split(" or ")))


def shown(task: Task | str, found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What `evaluate` found, as rows of a name and a value with its unit.

    Example:
        >>> shown("classification", {"samples": 400, "top1": 56.0})
        [('samples', '400'), ('top-1', '56.0 %')]
        >>> shown("features", {"sqnr_db": 20.0, "outputs": {"boxes": 31.5, "scores": 20.0}})
        [('output SQNR, worst of 2', '20.0 dB'), ('of boxes', '31.5 dB'), ('of scores', '20.0 dB')]
    """
    task = task_of(task)
    counts = {"samples": "samples", "unlabelled": "pictures left out, without labels"}
    rows = [(title, str(found[key])) for key, title in counts.items() if key in found]
    outputs = found.get("outputs", {})
    for m in (m for m in (*task.measures, *CLOSENESS) if m.key in found):
        several = m is SQNR and len(outputs) > 1
        rows.append((f"{m.title}, worst of {len(outputs)}" if several else m.title, m.shown(found[m.key])))
        rows += [(f"of {name}", m.shown(value)) for name, value in outputs.items()] if several else []
    return rows
