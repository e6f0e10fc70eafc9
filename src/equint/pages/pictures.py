"""The picture view: samples on which float and integer network disagree most, with both answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import EquintError
from ..ir.model import Array, Name
from ..samples.card import Card
from ..samples.images import Feed
from ..scoring.bench import CLASSIFY
from ..scoring.boxes import Boxes, read_heads, read_priors, ssd, yolo
from . import thumbnails
from .disagreements import (
    Answers,
    Disagreements,
    Distance,
    Outputs,
    Runs,
    box_distance,
    class_distance,
    decided,
    disagreements,
    mask_distance,
    probabilities,
    sure,
    value_distance,
)

LOOKED_AT, SHOWN, BEST = 60, 8, 3
"""Samples that both networks answer, how many are shown, and classes that are listed of each answer."""
Picture = dict[str, Any]
"""title, image (data URI), width and height of its pixels, and what the task shows: answers, boxes or others."""


@dataclass(frozen=True)
class _View:
    """How a task's answers are compared and shown."""

    distance: Distance
    show: Callable[[Answers, Array], Picture]
    words: str


def picture_view(
    original: Runs,
    quantized: Runs,
    batches: Iterable[tuple[Feed, Any]],
    card: Card,
    outputs: Sequence[Name],
    limit: int = LOOKED_AT,
) -> dict[str, Any]:
    """What the page shows of pictures; empty where the network reads none, or decides nothing that can be drawn.

    Args:
        original, quantized: give the outputs for a batch.
        batches: samples, and what is true of each, or None.
        card: how pictures become the network's input, and its task; outputs: of the network.
        limit: samples to look at, at most.

    Raises:
        EquintError: data that cannot be read, or answers that do not fit the task.
    """
    view = _view(card, outputs)
    if view is None:
        return {}
    found = disagreements(original, quantized, batches, view.distance, min(limit, LOOKED_AT), SHOWN)
    shown = [_picture(answers, card, view) for answers in found.worst if answers.distance > 0]
    return {"samples": found.samples, "words": _words(found, view), "task": card.task, "shown": shown}


def _words(found: Disagreements, view: _View) -> str:
    alike = "" if found.other is None else f"{found.other} of {found.samples} samples get another answer. "
    return f"{alike}Shown are those of {found.samples} on which the two differ most, {view.words}."


def _picture(answers: Answers, card: Card, view: _View) -> Picture:
    value = np.asarray(next(iter(answers.feed.values())) if isinstance(answers.feed, Mapping) else answers.feed)[0]
    picture = thumbnails.pixels(value, card)
    title = f"sample {answers.number + 1}" + (", another answer" if answers.same is False else "")
    height, width = picture.shape[:2]
    return {"title": title, "width": width, "height": height, **view.show(answers, picture)}


def _view(card: Card, outputs: Sequence[Name]) -> _View | None:
    if card.kind not in ("rgb", "gray"):
        return None
    first = outputs[0]
    if card.task in CLASSIFY:
        return _View(class_distance(first), _classes(first, card.labels), "by their class probabilities")
    if card.task == "segmentation":
        return _View(mask_distance(first), _masks(first), "by the pixels that are decided otherwise")
    if card.task == "detection" and (decode := _decoder(card)) is not None:
        return _View(box_distance(decode), _boxes(decode, card.labels), "by boxes that the other has not")
    if card.task == "super-resolution":
        return _View(value_distance, _enlarged(first, card), "by noise over signal")
    return _View(value_distance, _plain, "by noise over signal of their outputs")


def _classes(output: Name, labels: Sequence[str]) -> Callable[[Answers, Array], Picture]:
    def show(answers: Answers, picture: Array) -> Picture:
        both = [probabilities(outputs[output][0]) for outputs in (answers.original, answers.quantized)]
        lists = [[(_label(k, labels), float(p[k])) for k in np.argsort(-p)[:BEST]] for p in both]
        truth = "" if answers.truth is None else _label(int(answers.truth), labels)
        return {"image": thumbnails.thumbnail(picture), "answers": lists, "truth": truth}

    return show


def _masks(output: Name) -> Callable[[Answers, Array], Picture]:
    def show(answers: Answers, picture: Array) -> Picture:
        both = [decided(outputs[output][0]) for outputs in (answers.original, answers.quantized)]
        apart = 100 * float(np.mean(both[0] != both[1]))
        others = [(name, thumbnails.mask(m)) for name, m in zip(("float", "integers"), both, strict=True)]
        note = f"{apart:.1f} % of the pixels are decided otherwise"
        return {"image": thumbnails.thumbnail(picture), "others": others, "note": note}

    return show


def _boxes(decode: Callable[[Outputs], Boxes], labels: Sequence[str]) -> Callable[[Answers, Array], Picture]:
    def show(answers: Answers, picture: Array) -> Picture:
        both = [sure(decode(outputs)) for outputs in (answers.original, answers.quantized)]
        rows = [
            [
                {"at": [round(float(v), 4) for v in corners], "label": _label(int(k), labels), "score": float(s)}
                for corners, k, s in zip(boxes.corners, boxes.classes, boxes.scores, strict=True)
            ]
            for boxes in both
        ]
        return {"image": thumbnails.thumbnail(picture, 2 * thumbnails.LONGEST), "boxes": rows}

    return show


def _enlarged(output: Name, card: Card) -> Callable[[Answers, Array], Picture]:
    def show(answers: Answers, picture: Array) -> Picture:
        both = [thumbnails.pixels(outputs[output][0], card) for outputs in (answers.original, answers.quantized)]
        off = both[1].astype(float) - both[0]
        cut = [thumbnails.middle(p) for p in both]
        lost = thumbnails.middle(np.rint(128 + 16 * off).clip(0, 255).astype(np.uint8))
        named = zip(("float", "integers", "difference, 16 times"), (*cut, lost), strict=True)
        others = [(name, thumbnails.thumbnail(p)) for name, p in named]
        note = f"root mean square difference {float(np.sqrt(np.mean(off**2))):.2f} of 255"
        return {"image": thumbnails.thumbnail(picture), "others": others, "note": note}

    return show


def _plain(answers: Answers, picture: Array) -> Picture:
    note = f"SQNR of the outputs {-10 * np.log10(answers.distance):.1f} dB" if answers.distance > 0 else "exact"
    return {"image": thumbnails.thumbnail(picture), "others": [], "note": note.replace("-", "−")}


def _decoder(card: Card) -> Callable[[Outputs], Boxes] | None:
    """What makes boxes of a detector's outputs; None where the card does not say how, or cannot be read."""
    heads, priors = card.data.get("heads"), card.data.get("priors")
    try:
        if heads is not None:
            known = read_heads(Path(heads))
            return lambda outputs: yolo(outputs, known, card.decode)[0][0]
        if priors is not None:
            table = read_priors(Path(priors))
            return lambda outputs: ssd(outputs, table, card.decode)[0][0]
    except EquintError:
        return None
    return None


def _label(number: int, labels: Sequence[str]) -> str:
    return labels[number] if number < len(labels) else f"class {number}"
