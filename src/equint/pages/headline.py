"""What a reader wants first: the verdict with its colour, measured figures, what limits the network, what to do."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import counted
from ..ir.events import Event
from ..ir.model import Model
from ..planning.summary import kilobytes, sizes
from ..scoring.verdicts import Verdict
from . import story
from .wording import FIGURES, is_number, with_unit

if TYPE_CHECKING:
    from ..study.explain import Explanation
    from ..study.mixed import Mixed

_LAST = ("agreement", "sqnr_db", "cosine", "milliseconds", "speedup")
_COUNTS = ("samples", "unlabelled")
"""Figures that say what was measured on, and stand beside the others."""


def verdict(measured: Mapping[str, Any], model: Model) -> Verdict:
    """What `evaluate` found, else what the search among candidates measured; with what speaks against either."""
    found = measured.get("verdict")
    told = found if isinstance(found, Verdict) else story.searched(model)
    doubt = story.contradicted([e for e in model.log if e.warning])
    return told if doubt in told.words else told.but(doubt)


def judged(said: Verdict | None, spent: Mixed | None, model: Model) -> dict[str, Any]:
    """The verdict that people are told, ready for JSON: on labelled samples, else of a bound, else of the search."""
    told = verdict({"verdict": story.bounded(spent) if said is None and spent is not None else said}, model)
    return {"verdict": told.words, "judged": told.facts()}


def shown(told: Verdict) -> dict[str, str]:
    """A verdict as the page shows it: its level, or that nothing was measured; and the words behind that.

    Example:
        >>> shown(Verdict("poor", "poor, though 9 samples cannot tell: 5.0 points lost", "undecided"))["label"]
        'poor'
    """
    label, _, behind = re.sub("[:,;]", "\n", told.words, count=1).partition("\n")
    reason = behind.strip() or "Give samples to be measured on"
    return {"level": told.level or "unknown", "label": label, "reason": reason[:1].upper() + reason[1:]} | {
        "status": told.status
    }


def figures(measured: Mapping[str, Any], model: Model, file_bytes: int | None) -> list[dict[str, str]]:
    """Measured figures first, the float network's beside them; then sizes, which are counted."""
    before, after = sizes(model)
    smaller = f"float {kilobytes(before)}, {before / max(after, 1):.1f} times smaller"
    found = [*_measured(measured), _figure("Weights and biases", kilobytes(after), smaller, "counted")]
    if file_bytes is not None:
        found.append(_figure("File", kilobytes(file_bytes), "", "counted"))
    return found


def limits(found: Explanation | None, warnings: Sequence[Event]) -> str:
    """What limits the network, in a sentence that begins with a capital letter."""
    line = story.limit_line(found, warnings)
    return line[:1].upper() + line[1:]


def _measured(measured: Mapping[str, Any]) -> list[dict[str, str]]:
    names = [k for k, v in measured.items() if is_number(v) and k not in _COUNTS and not k.startswith("float_")]
    names.sort(key=lambda k: _LAST.index(k) if k in _LAST else -1)
    samples = f"on {counted(measured['samples'], 'sample')}" if "samples" in measured else ""
    found = []
    for name in names:
        label, unit = FIGURES.get(name, (name.replace("_", " "), ""))
        floats = measured.get(f"float_{name}")
        beside = f"float {with_unit(floats, unit)}" if is_number(floats) else ""
        detail = ", ".join(p for p in (beside, samples) if p)
        found.append(_figure(label, with_unit(measured[name], unit), detail, "measured"))
    return found


def _figure(label: str, value: str, detail: str, basis: str) -> dict[str, str]:
    return {"label": label, "value": value, "detail": detail, "basis": basis}
