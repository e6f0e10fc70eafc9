"""One cell of a table: a network quantized in one way and measured on its evaluation data."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import IO, Any
from warnings import catch_warnings, simplefilter

import numpy as np

from ..drafts import drafted
from ..errors import EquintError, InvalidCard
from ..hardware.target import Target
from ..ir.model import Array, Name
from ..job import Job, Options
from ..planning.recipe import ActivationBits, Recipe
from ..planning.summary import sizes
from ..result import quantized
from ..runtime.machine import CPUS, LeftToCpu, Machine, on
from ..runtime.session import Session
from ..samples.card import Card, laid_out, read_card
from ..samples.images import SPAN, Feed
from ..samples.spans import spans
from ..scoring.bench import Bench, Part
from ..scoring.metrics import source_of

Outputs = Mapping[Name, Array]


@dataclass(frozen=True)
class Way:
    """One way to quantize: a recipe on a target at bit widths, with so many images or none."""

    recipe: Recipe
    target: Target
    weight_bits: int | None = None
    activation_bits: ActivationBits = None
    images: int | None = None


@dataclass(frozen=True)
class Cell:
    """What is to be measured; picklable.

    Attributes:
        key: of everything that decides the result.
        store: file of the float network's outputs, batch by batch: written by its own cell, read by the others.
        way: None for the float network itself; machine: what it runs on.
    """

    key: str
    model: Path
    card: Path
    store: Path
    way: Way | None = None
    limit: int | None = None
    machine: Machine = CPUS


def measuring(_: None) -> Callable[[Cell], dict[str, Any]]:
    """What measures cells, for a crew."""
    return measure


def measure(cell: Cell) -> dict[str, Any]:
    """A cell's results, ready for JSON: `results` as evaluation gives them, or `reason` why there are none.

    Raises:
        Exception: what the user is not to blame for.
    """
    try:
        card = read_card(cell.card)
        with on(cell.machine), catch_warnings(record=True) as said:
            simplefilter("always", LeftToCpu)
            found = _reference(cell, card) if cell.way is None else _quantized(cell, card, cell.way)
        left = dict.fromkeys(str(w.message) for w in said if w.category is LeftToCpu)
        return {**found, "left_to_cpu": list(left)} if left else found
    except EquintError as error:
        return {"reason": str(error)}


def _reference(cell: Cell, card: Card) -> dict[str, Any]:
    """The float network's own figures; its outputs go to the store."""
    start = perf_counter()
    session = Session(cell.model, optimized=True)
    with drafted(cell.store) as (draft, _), draft.open("wb") as file:
        np.save(file, np.asarray(session.outputs))

        def keep(outputs: Outputs) -> None:
            for name in session.outputs:
                np.save(file, outputs[name])

        results = _judged(session, cell, card, inspect=keep)
    return {"results": results, "seconds": perf_counter() - start, "stored": cell.store.stat().st_size}


def _quantized(cell: Cell, card: Card, way: Way) -> dict[str, Any]:
    options = Options(weight_bits=way.weight_bits, activation_bits=way.activation_bits, input=card, images=way.images)
    result = quantized(Job.of(cell.model, way.recipe, way.target, **options))
    with cell.store.open("rb") as file:
        clean = stored(file)
        results = _judged(Session(result.proto), cell, card, reference=lambda x: next(clean))
    found = {"results": results, "level": result.level, "seconds": result.seconds}
    return {**found, **dict(zip(("float_bytes", "integer_bytes"), sizes(result.model), strict=True))}


def _judged(
    session: Session,
    cell: Cell,
    card: Card,
    reference: Callable[[Feed], Outputs] | None = None,
    inspect: Callable[[Outputs], None] | None = None,
) -> dict[str, Any]:
    """What the evaluation data say of a network, as `evaluate` would."""
    if "eval" not in card.data:
        raise InvalidCard(f"{cell.card}: no evaluation data; name them as eval in [data]")
    card, inputs = laid_out(card, session.shapes.values()), session.shapes
    data = Path(card.data["eval"])
    source = source_of(data, card, session.outputs[0], cell.limit, alone=False, inputs=inputs)
    about = (session.run, session.outputs, inputs, source, os.fspath(data), card.task, inputs)
    found, measured = Part(), Bench(*about, reference=reference, inspect=inspect).measuring()
    for span in spans(None):
        part = measured(span)
        found.merge(part)
        if part.samples < SPAN:
            break
    return found.own.results() | ({"unlabelled": source.unlabelled} if source.unlabelled else {})


def stored(file: IO[bytes]) -> Iterator[dict[Name, Array]]:
    """The float network's outputs as its own cell stored them, batch by batch."""
    end = file.seek(0, os.SEEK_END)
    file.seek(0)
    names = [str(name) for name in np.load(file, allow_pickle=False)]
    while file.tell() < end:
        yield {name: np.load(file, allow_pickle=False) for name in names}
