"""Which data a network is shown to be quantized, which others it is measured on, and the card that describes them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..errors import EquintError, InvalidOption, UnusableData
from ..ir.model import Model
from ..planning.run import Progress
from ..samples.card import Card, laid_out, read_card
from ..samples.data import images, most_label
from ..samples.images import Samples
from ..samples.survey import survey
from ..scoring.metrics import has_labels
from ..scoring.tasks import missing, task_of
from .preparations import input_of
from .proposal import Proposal, propose

LOOKED_AT = 64
"""Samples that a network is shown to be quantized."""
ENOUGH = 32
"""Samples left to measure on, below which the same ones serve for both."""
Named = str | os.PathLike[str]


def described(
    model: Model, card: Card | Named | None, data: Named | None, progress: Progress | None
) -> tuple[Card | None, Proposal | None]:
    """The card given, or one that is proposed for the data; none where there are neither."""
    if isinstance(card, Card):
        return card, None
    if card is not None:
        return read_card(card), None
    if data is not None and len(model.graph.inputs) > 1 and Path(data).is_dir():
        input_of(model)  # says what to give
    if data is None:
        return None, None
    found = propose(model, data, progress)
    return found.card, found


def apart(model: Model, card: Card | None, data: Named | None, limit: int) -> tuple[Path | None, Any, int, bool]:
    """Where to measure, what to look at, how many samples to measure on, and whether these are others than those."""
    own = {} if card is None else card.data
    measured, looked = own.get("eval"), own.get("calibration")
    if data is not None:
        if card is None:
            return Path(data), os.fspath(data), limit, False
        found = survey(Path(data), model.graph.inputs)
        measured, looked = found.eval, found.calibration
    for key, path in (("eval", measured), ("calibration", looked)):
        if path is not None and not Path(path).exists():
            raise UnusableData(f"{path}: no such file or folder, which the card names as {key}; correct [data] in it")
    if looked is None or card is None:
        return measured, None, limit, True
    measured, looked = Path(measured or looked), Path(looked)
    laid = laid_out(card, [model.graph.shapes.get(name) for name in model.graph.inputs])
    if looked.resolve() != measured.resolve():
        return measured, images(looked, laid, LOOKED_AT, inputs=model.graph.inputs), limit, True
    total = images(looked, laid, inputs=model.graph.inputs).total or 0
    kept = min(limit, total - LOOKED_AT)
    if kept < ENOUGH:
        return measured, images(looked, laid, LOOKED_AT, inputs=model.graph.inputs), limit, False
    shown = images(looked, laid, kept + LOOKED_AT, inputs=model.graph.inputs)
    return measured, Samples.of(iter(shown.where(lambda number: number >= kept)), os.fspath(looked)), kept, True


def held(model: Model, card: Card | None, where: Path | None) -> int | None:
    """How many samples data hold; None where nothing tells."""
    if where is None or card is None:
        return None
    laid = laid_out(card, [model.graph.shapes.get(name) for name in model.graph.inputs])
    try:
        return images(where, laid, inputs=model.graph.inputs).total
    except EquintError:
        return None


def check_labels(model: Model, card: Card | None, where: Path | None) -> None:
    """Refuse data without labels of the network's own classes, which a bound on the drop needs.

    Raises:
        EquintError: what is missing, and how to give it.

    Example:
        >>> from equint import load
        >>> from equint.demo import data_path, model_path
        >>> check_labels(load(model_path()), Card(), data_path())
    """
    if card is None or where is None:
        raise InvalidOption(
            "max_drop needs labels: give data with class folders, labels.csv or y, or a card that names some"
        )
    if task_of(card.task).main is None:
        raise InvalidOption(f"max_drop: task {card.task} has no measure that labels could give; name the card's task")
    if not has_labels(where, card):
        lacking = " and ".join(missing(card.task, card.data))
        todo = (
            f"add {lacking} to the card's [data]" if lacking else "give class folders, a labels.csv, or an .npz with y"
        )
        raise UnusableData(f"{where}: no labels, which max_drop needs; {todo}")
    if strange := strange_labels(model, card, where):
        raise UnusableData(strange)


def strange_labels(model: Model, card: Card | None, where: Path | None) -> str:
    """Why labels of classes are none of the network's: there are more than it tells apart. Empty where they may be."""
    shape = model.graph.shapes.get(model.graph.outputs[0]) or ()
    told = shape[-1] if len(shape) == 2 else None
    if card is None or where is None or card.task != "classification" or not isinstance(told, int) or told < 2:
        return ""
    found = most_label(where, card)
    if found is None or found < told:
        return ""
    return f"{where}: labels reach {found}, and the network tells {told} classes apart; give labels of its own classes"
