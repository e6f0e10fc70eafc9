"""A card, proposed: what the network and the data show of how one is made of the other, and what speaks for it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np

from ..errors import EquintError, UnusableData, counted
from ..files import Facts, jsonable
from ..graph.inputs import LARGEST
from ..ir.model import Array, Model, Name
from ..maths.chance import guessed
from ..planning.run import Progress
from ..samples.card import Card
from ..samples.data import images
from ..samples.survey import Survey, survey
from ..scoring.tasks import task_of
from .preparations import AS_TOLD, Way, as_it_is, chosen, input_of, measured, ordered, running, told_by_file, ways

WIDTH = 100
"""Comments are wrapped to this many columns."""
Reason = tuple[str, str]
"""A key of the card, and why it says what it says."""


@dataclass(frozen=True)
class Proposal(Facts):
    """A card, and what speaks for it.

    Attributes:
        card: ready to be used; its data are named as they were given.
        way: how pixels are prepared, in words; why: what that stands on; clear: whether it leaves no other.
        ways: all that were tried, each with its distance from BatchNorms and its score.
        reasons: keys of the card and why they say what they say.
        doubts: what a user should look at.
    """

    model: str
    card: Card
    way: str
    why: str
    clear: bool
    ways: tuple[Way, ...] = ()
    reasons: tuple[Reason, ...] = ()
    doubts: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Proposal({self.card.kind}, {self.way!r}, clear={self.clear}, task={self.card.task!r})"

    def facts(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        card = {k: v for k, v in vars(self.card).items() if k not in ("decode", "labels", "data")}
        card["data"] = {k: os.fspath(v) if isinstance(v, Path) else v for k, v in self.card.data.items()}
        shown = {"way": self.way, "why": self.why, "clear": self.clear, "ways": [vars(way) for way in self.ways]}
        found = {"model": self.model, "card": card, **shown, "reasons": dict(self.reasons), "doubts": self.doubts}
        ready: dict[str, Any] = jsonable(found)
        return ready

    def toml(self, folder: str | os.PathLike[str] = ".") -> str:
        """The card as the text of a file in a folder, its reasons as comments; paths are relative to that folder."""
        why, card = dict(self.reasons), self.card
        top = [("model", _relative(self.model, folder))] if self.model else []
        given: list[tuple[str, Any]] = [("kind", card.kind)]
        given += [(k, list(v)) for k in ("mean", "std") if (v := getattr(card, k))]
        given += [(k, list(v)) for k in ("size", "range") if (v := getattr(card, k)) is not None]
        given += [("layout", card.layout)] if card.layout == "nhwc" else []
        data = [(k, _relative(v, folder) if isinstance(v, Path) else v) for k, v in card.data.items()]
        lines = ["# Proposed by equint; look it over, and correct what you know better."]
        lines += [line for d in self.doubts for line in wrap(d, WIDTH, initial_indent="# ! ", subsequent_indent="#   ")]
        lines += [line for key, value in (*top, ("task", card.task)) for line in _lines(key, value, why)]
        for name, table in (("input", given), ("data", data)):
            lines += ["", f"[{name}]", *(line for key, value in table for line in _lines(key, value, why))]
        return "\n".join(lines) + "\n"


def propose(model: Model, data: str | os.PathLike[str], progress: Progress | None = None) -> Proposal:
    """Look at a network and at data, and propose how its input is made of them.

    Args:
        data: a folder of pictures, of class folders or of parts (calib and eval, train and val); or an .npz or .npy.

    Raises:
        EquintError: data that cannot be read or that the network cannot be shown, or a network that reads no pictures
            where the data are such.
    """
    source = Path(data)
    found = survey(source, model.graph.inputs)
    ready = _ready(model, found)
    if ready is not None:
        return ready
    name, layout, channels = input_of(model)
    card = Card("rgb" if channels == 3 else "gray", layout=layout)
    pixels = ways(channels, found.white)
    told = told_by_file(model)
    if told is not None:
        mean, std = (v * channels if len(v) == 1 else v for v in (told.mean, told.std))
        pixels = (*pixels, replace(told, mean=mean, std=std))
    card, x, outputs = running(model, replace(card, mean=pixels[0].mean, std=pixels[0].std), found)
    card, of_task = _task(card, outputs, x.shape if layout == "nchw" else ())
    card = replace(card, data={"eval": found.eval, "calibration": found.calibration, **card.data})
    classes = next(iter(outputs.values())).shape[1] if card.task == "classification" else 0
    if model.graph.dtypes.get(name) == "uint8":
        pixels = tuple(way for way in pixels if way.words == "0 to 255")
    tell = (lambda k: None) if progress is None else lambda k: progress("trying preparations", k, len(pixels))
    try:
        rows, unread = measured(model, card, pixels, found, tell), ""
    except EquintError as error:
        if not found.labelled:
            raise
        found, unread = replace(found, labelled=False), f"the labels could not be used: {error}"
        rows = measured(model, card, pixels, found, tell)
    best, why, clear = chosen(rows, model, card, classes)
    card = replace(card, mean=best.mean, std=best.std, range=_reach(best, found.white))
    order = ""
    if channels == 3:
        card, order = ordered(model, card, best, found)
    doubts = [*([unread] if unread else []), *_doubts(best, clear, why, card, classes, found)]
    reasons = _reasons(model, card, found, best, why, of_task, rows, order)
    words = best.words if best.words != AS_TOLD else f"(pixel − {best.mean[0]:g}) / {best.std[0]:g}, {AS_TOLD}"
    return Proposal(model.source, card, words, why, clear, tuple(rows), reasons, tuple(doubts))


def _ready(model: Model, found: Survey) -> Proposal | None:
    """A card for arrays that are the network's input already; None where they are pixels."""
    graph, name = model.graph, model.graph.inputs[0]
    where = {"eval": found.eval, "calibration": found.calibration}
    shape = graph.shapes.get(name) or ()
    fits = len(shape) == len(found.shape) + 1 and all(
        not isinstance(n, int) or n == m for n, m in zip(shape[1:], found.shape, strict=True)
    )
    pixels = found.whole and found.low >= 0 and len(found.shape) == 3 and found.shape[-1] in (1, 3)
    other = (pixels and graph.is_float(name)) or not (fits or len(found.shape) != 3)
    if not found.shape or (other and len(graph.inputs) == 1):
        return None
    seen = images(found.calibration, Card(), None, 8, graph.inputs).first(64)
    values = [v for feed in seen for v in (feed.values() if isinstance(feed, Mapping) else [feed])]
    card = replace(as_it_is(_joined(values)), data=where)
    low, high = card.range or (0.0, 0.0)
    if len(graph.inputs) > 1:
        card = replace(card, range=None)
    elif not 0 < high - low < LARGEST:
        shown = f"{low:g}" if low == high else f"{low:g} to {high:g}"
        raise UnusableData(f"{found.calibration}: its first samples hold nothing but {shown}; check how they are made")
    card, of_task = _task(card, _outputs(model, seen))
    why = f"arrays of shape {found.shape} are the network's input as they are"
    reasons: tuple[Reason, ...] = (("kind", why), ("range", "what the first 64 samples hold"), ("task", of_task))
    reasons += (("eval", f"{counted(found.count, 'sample')}, {'labelled' if found.labelled else 'without labels'}"),)
    return Proposal(model.source, card, "as it is", why, True, (), reasons)


def _reach(best: Way, white: float) -> tuple[float, float] | None:
    """Lowest and highest value of pixels that do not reach 255; None where they do, which needs no saying."""
    if white >= 255:
        return None
    ends = [(v - m) / s for v in (0.0, white) for m, s in zip(best.mean, best.std, strict=True)]
    return min(ends), max(ends)


def _joined(values: Sequence[Array]) -> Array:
    """Their lowest and highest values."""
    return np.asarray([f(v) for v in values for f in (np.min, np.max)])


def _outputs(model: Model, seen: Any) -> dict[Name, Array]:
    from ..onnx.writer import to_proto
    from ..planning.data import looked_at
    from ..runtime.session import Session

    shown, data = looked_at(model, seen, None, None)
    assert data is not None
    assert data.images is not None
    return Session(to_proto(shown.graph)).run(next(iter(data.images.first(1))))


def _task(card: Card, outputs: Mapping[Name, Array], x: tuple[int, ...] = ()) -> tuple[Card, str]:
    """The card with the task that the outputs look like, and why.

    Args:
        x: shape of the picture that they were made of, channels first; empty where it is none.
    """
    only = next(iter(outputs.values())) if len(outputs) == 1 else None
    if only is None:
        return replace(card, task="features"), f"{len(outputs)} outputs: nothing tells what they mean"
    if only.ndim == 2 and only.shape[1] > 1:
        why = f"its output is one row of {only.shape[1]} numbers: scores of classes, as it seems"
        return replace(card, task="classification"), why
    if only.ndim == len(x) == 4:
        scales = {n / m for n, m in zip(only.shape[2:], x[2:], strict=True)}
        if scales == {1.0} and only.shape[1] == x[1] and not np.allclose(only.sum(1), 1, atol=1e-2):
            why = "its output is a picture of the input's size: nothing tells what it should show"
            return replace(card, task="features"), why
        if scales == {1.0} and only.shape[1] > 1:
            return replace(card, task="segmentation"), f"its output is a map of {only.shape[1]} values for each pixel"
        scale = scales.pop()
        if not scales and scale > 1 and scale == round(scale) and only.shape[1] == x[1]:
            larger = f"its output is a picture {scale:g} times as high and wide"
            return replace(card, task="super-resolution", data={**card.data, "scale": round(scale)}), larger
    return replace(card, task="features"), f"its output has shape {only.shape}: nothing tells what it means"


def _doubts(best: Way, clear: bool, why: str, card: Card, classes: int, found: Survey) -> list[str]:
    told = []
    if not clear:
        told.append(f"how pixels are prepared is not clear: {why}")
    hits = None if best.score is None else round(best.score * best.samples / 100)
    named = classes > 1 and card.task == "classification"
    if hits is not None and named and guessed(hits, best.samples, classes):
        todo = "list the classes in `labels`, in the order of its outputs"
        told.append(
            f"the float network is right in {best.score:.1f} % of {counted(best.samples, 'sample')}, "
            f"no more than by guessing among {classes} classes: if the labels are numbered in another order, {todo}"
        )
    if found.labelled and found.classes and len(found.classes) != classes and classes:
        told.append(f"{len(found.classes)} class folders for {classes} outputs: they are numbered by name, from 0")
    return told


def _reasons(
    model: Model, card: Card, found: Survey, best: Way, why: str, task: str, rows: Sequence[Way], order: str
) -> tuple[Reason, ...]:
    name = model.graph.inputs[0]
    shape = ", ".join(str(n or "?") for n in model.graph.shapes[name])
    measure = task_of(card.task).main
    seen = [f"pixels become {best.words}: {why}"]
    if best.distance is not None:
        others = [row.distance for row in rows if row is not best and row.distance is not None]
        seen.append(f"{best.distance:.2f} spreads from it" + (f", others {min(others):.2f} or more" if others else ""))
    if best.score is not None and measure is not None:
        others = [row.score for row in rows if row is not best and row.score is not None]
        most = f", others {measure.shown(max(others))} at most" if others else ""
        seen.append(f"float {measure.title} {measure.shown(best.score)} on {counted(best.samples, 'sample')}{most}")
    sized = "the network's own" if card.size else ""
    labelled = "labelled" if found.labelled else "without labels"
    of_kind = f"input {name} ({shape}){f'; {order}' if order else ''}"
    table = {"task": task, "kind": of_kind, "mean": "; ".join(seen), "size": sized}
    table |= {"range": f"pixels reach {found.white:g}, not 255"} if card.range else {}
    table |= {
        "eval": f"{counted(found.count, 'sample')}, {labelled}",
        "calibration": "" if found.split else "the same: they are not split",
    }
    return tuple((key, text) for key, text in table.items() if text)


def _relative(path: str | os.PathLike[str], folder: str | os.PathLike[str]) -> str:
    try:
        return Path(os.path.relpath(Path(path).resolve(), Path(folder).resolve())).as_posix()
    except ValueError:  # another drive
        return Path(path).resolve().as_posix()


def _lines(key: str, value: Any, why: Mapping[str, str]) -> list[str]:
    """A key and its value; a long reason stands above it."""
    written, said = f"{key} = {json.dumps(value, ensure_ascii=False)}", why.get(key, "")
    if len(written) + len(said) < WIDTH:
        return [f"{written}   # {said}" if said else written]
    return [*wrap(said, WIDTH, initial_indent="# ", subsequent_indent="# "), written]
