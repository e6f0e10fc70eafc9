"""The candidates that were tried, and what each measured, as rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..ir.events import Event, EventKind
from ..ir.model import Model


def candidates(model: Model) -> dict[str, Any]:
    """What the search among candidates measured; empty where none were tried.

    Returns:
        on: what samples; rows, best SQNR first: name, sqnr (dB) on so many `samples`, other (dB on samples of another
        kind, or None), gain (dB against the recipe itself, or None) and chance of it (0 to 1), kept, why.

    Example:
        >>> from ..ir.model import Graph
        >>> tried = Event(EventKind.CANDIDATE_MEASURED, "", {"candidate": "plain", "SQNR": 20.0, "samples": 8})
        >>> kept = Event(EventKind.CANDIDATE_KEPT, "", {"candidate": "plain", "count": 1, "on": "x", "SQNR": 20.0})
        >>> candidates(Model(Graph((), {}, (), ())).noted(tried, kept))["rows"][0]["kept"]
        True
    """
    kept = next((e for e in reversed(model.log) if e.kind is EventKind.CANDIDATE_KEPT), None)
    tried = [e for e in model.log if e.kind is EventKind.CANDIDATE_MEASURED]
    if kept is None or not tried:
        return {}
    rows = [_row(e, kept) for e in tried]
    return {"on": str(kept.facts["on"]), "kept": str(kept.facts["candidate"]), "rows": _ranked(rows)}


def _row(event: Event, kept: Event) -> dict[str, Any]:
    facts = event.facts
    name = str(facts["candidate"])
    is_kept = name == kept.facts["candidate"]
    why = str(kept.facts.get("why", "")) if is_kept else str(facts.get("why", ""))
    return {
        "name": name,
        "sqnr": float(facts["SQNR"]),
        "samples": int(facts["samples"]),
        "other": _float(facts.get("SQNR of another kind")),
        "gain": _float(facts.get("gain")),
        "chance": _float(facts.get("chance")),
        "kept": is_kept,
        "why": why,
    }


def _ranked(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The one that was kept first, then those that were shown most samples, best first."""
    return sorted(rows, key=lambda r: (not r["kept"], -r["samples"], -r["sqnr"]))


def _float(value: Any) -> float | None:
    return None if value is None else float(value)
