"""What was kept, measured, beside what the float network foretold of it."""

from __future__ import annotations

from typing import Any

from ..ir.events import Event, EventKind
from ..ir.model import Graph, Model, Name
from ..maths.noise import to_db
from ..runtime.forecast import forecast
from ..runtime.judge import Judge
from ..samples.images import Samples

WITHIN_DB = 3.0
"""A forecast that is further from what was measured is wrong, and not shown."""


def foretold(reference: Model, quantized: Model, samples: Samples, judge: Judge, name: str) -> Event:
    """What was measured of a candidate, and what was forecast of it, if that holds.

    Args:
        reference: the float network as the candidate's plan leaves it before grids are chosen.
        quantized: the candidate; name: what the judge calls it.
        samples: what it was made of.
    """
    measured, found = judge.sqnr_db(name), forecast(reference, quantized, samples, judged(judge, reference.graph))
    facts: dict[str, Any] = {"SQNR": measured}
    off = to_db(found.total) - measured
    if not abs(off) <= WITHIN_DB:
        return Event(EventKind.MEASURED_UNLIKE_FORECAST, "", {**facts, "off by": off}, "search")
    parts = {"of weights": found.weights, "of rounding": found.rounding, "of clips": found.clips}
    facts |= {"forecast SQNR": to_db(found.total), **{key: to_db(part) for key, part in parts.items()}}
    return Event(EventKind.MEASURED_AS_FORECAST, "", facts, "search")


def judged(judge: Judge, graph: Graph) -> list[Name]:
    """The tensors of a network whose noise a judge ranks candidates by."""
    places = (place for at in judge.judged() for place in at)
    return [p.part if p.part in graph.producer else p.tensor for p in places]
