"""What networks are for, how each kind is measured, and a verdict in words on a quantized one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ..errors import InvalidCard, UnusableData

Level = Literal["good", "usable", "poor", "broken"]
LEVELS: tuple[Level, ...] = get_args(Level)


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
    Measure("agreement", "agreement with the original"),
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


@dataclass(frozen=True)
class Verdict:
    """A level and the sentence that explains it."""

    level: Level
    words: str


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


def verdict(
    task: Task | str,
    float_value: float | None = None,
    quantized_value: float | None = None,
    agreement: float | None = None,
    sqnr: float | None = None,
    *,
    samples: int = 0,
) -> Verdict:
    """How good a quantized network is, in a word and a sentence.

    With both figures of the task's main measure the loss decides; else, in this order, agreement where decisions
    mean something, and SQNR of the worst output. With `samples`, the words say what chance could have done.

    Raises:
        EquintError: unknown task, or nothing measured.

    Example:
        >>> verdict("classification", 56.0, 54.7, agreement=94.0, samples=400).words
        'usable: 1.3 points of top-1 lost (56.0 to 54.7 %, 400 samples: ±2.4 points by chance)'
        >>> verdict("super-resolution", 33.54, 33.51).words
        'good: 0.03 dB of PSNR lost (33.54 to 33.51 dB)'
        >>> verdict("super-resolution", sqnr=30.0).level
        'poor'
    """
    task = task_of(task)
    if sqnr is not None and math.isnan(sqnr):
        return Verdict("broken", "broken: its outputs, or the original's, are not finite")
    if task.main is not None and float_value is not None and quantized_value is not None:
        return _of_loss(task, task.main, float_value, quantized_value, agreement, samples)
    counted = f", {samples} {_plural(samples, 'sample')}" if samples else ""
    if agreement is not None and task.agreement is not None:
        level = _level(-agreement, [-a for a in task.agreement])
        also = "" if sqnr is None else f", output SQNR {_decibels(sqnr)}"
        same = "the same decision as the original"
        return Verdict(level, f"{level}: {same} in {agreement:.1f} % of cases{also}{counted}")
    if sqnr is not None:
        level = _level(-sqnr, [-s for s in task.sqnr])
        wanted = f"{task.name} wants {task.sqnr[0]:g} dB to be good, {task.sqnr[1]:g} dB to be usable"
        return Verdict(level, f"{level}: output SQNR {_decibels(sqnr)} ({wanted}{counted})")
    raise UnusableData(f"nothing measured that tells how good a {task.name} network is; compare it with its original")


def judged(task: Task | str, found: Mapping[str, Any], original: Mapping[str, Any] | None = None) -> Verdict:
    """The verdict on what `evaluate` found, given what it found for the float original, if that was measured too.

    Raises:
        EquintError: the two were measured on different numbers of samples, or nothing was measured.
    """
    task = task_of(task)
    if original is not None and original["samples"] != found["samples"]:
        counts = f"{original['samples']} and {found['samples']}"
        raise UnusableData(f"the two networks were measured on {counts} samples; measure both on the same ones")
    key = "" if task.main is None else task.main.key
    before = None if original is None else original.get(key)
    return verdict(task, before, found.get(key), found.get("agreement"), found.get("sqnr_db"), samples=found["samples"])


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


def chance(before: float, after: float, samples: int, agreement: float | None = None) -> float:
    """Half the width of a 95 % interval of the difference of two hit rates (per cent) on the same samples, in points.

    Only samples on which the networks decide differently can change the count: at most a share q = 1 − agreement
    (McNemar), so the variance of the difference d is at most (q − d²)/n. Without agreement, the two are taken as
    independent.

    Example:
        >>> round(chance(56.0, 54.7, 400, agreement=94.0), 1)
        2.4
    """
    p, r = before / 100, after / 100
    spread = p * (1 - p) + r * (1 - r)
    if agreement is not None:
        least = min(3 / samples, 1.0)  # where none of n samples differ, up to 3/n may (95 %)
        spread = max(1 - agreement / 100, abs(p - r), least) - (p - r) ** 2
    return 100 * 1.96 * math.sqrt(max(spread, 0.0) / samples)


def _of_loss(task: Task, main: Measure, before: float, after: float, agreement: float | None, samples: int) -> Verdict:
    lost = 0.0 if before == after else before - after
    level = _level(round(lost, 9), task.drops, strict=True)
    unit = "points" if main.unit == "%" else main.unit
    gained = round(lost, main.decimals) < 0
    change = f"{abs(lost):.{main.decimals}f} {unit} of {main.title} {'gained' if gained else 'lost'}"
    facts = f"{before:.{main.decimals}f} to {main.shown(after)}"
    if samples and main.key == "top1":
        by_chance = chance(before, after, samples, agreement)
        facts += f", {samples} {_plural(samples, 'sample')}: ±{by_chance:.1f} points by chance"
    elif samples:
        facts += f", {samples} {_plural(samples, 'picture')}: what chance adds is not known"
    return Verdict(level, f"{level}: {change} ({facts})")


def _level(value: float, bounds: Sequence[float], strict: bool = False) -> Level:
    """The first level whose bound the value stays under (or at, unless `strict`)."""
    return next((n for n, b in zip(LEVELS, bounds, strict=False) if value < b or (value == b and not strict)), "broken")


def _decibels(value: float) -> str:
    return "exact" if value == math.inf else f"{value:.1f} dB"


def _plural(count: int, word: str) -> str:
    return word if count == 1 else f"{word}s"
