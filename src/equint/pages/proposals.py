"""What speaks for a proposed card, for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..errors import counted
from ..scoring.tasks import task_of

if TYPE_CHECKING:
    from ..study.proposal import Proposal

Shown = tuple[str, tuple[str, ...], list[tuple[str, ...]]]


def ways(found: Proposal) -> Shown:
    """The ways that were tried, as rows: only columns that hold something."""
    main = task_of(found.card.task).main
    columns: list[tuple[str, list[str]]] = [
        ("", ["→" if (w.mean, w.std) == (found.card.mean, found.card.std) else "" for w in found.ways]),
        ("pixels become", [w.words for w in found.ways]),
        (">off the BatchNorms, spreads", ["" if w.distance is None else f"{w.distance:.2f}" for w in found.ways]),
    ]
    if main is not None:
        scores = ["" if w.score is None else main.shown(w.score) for w in found.ways]
        columns.append((f">float {main.title}", scores))
    filled = [(name, cells) for name, cells in columns if any(cells)]
    rows = list(zip(*(cells for _, cells in filled), strict=True))
    samples = max((w.samples for w in found.ways), default=0)
    title = "ways to prepare pictures" + (f", scored on {counted(samples, 'sample')}" if samples else "")
    return title, tuple(name for name, _ in filled), rows


def told(found: Proposal) -> Iterator[str]:
    """What is proposed and why, and what to look at."""
    yield f"{'pixels become' if found.ways else 'input'} {found.way}: {found.why}"
    for doubt in found.doubts:
        yield f"! {doubt}"
