"""Object detection: average precision as COCO defines it, computed by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import MissingLibrary, UnusableData
from ..ir.model import Array, Name
from ..maths.chance import Interval, jackknife
from ..samples.card import Card
from ..samples.folders import pictures, pixels, prepared, stacked
from ..samples.images import BATCH
from .annotations import Truth, read_boxes
from .boxes import Boxes, read_heads, read_priors, ssd, yolo

Seen = tuple[Truth, tuple[int, int], Path]
"""What is on a picture, its (height, width), and its file."""


def samples(files: list[tuple[Path, Truth]], card: Card) -> Iterator[tuple[Array, list[Seen]]]:
    """Batches of (network input, what is on the pictures)."""

    def load(item: tuple[Path, Truth]) -> tuple[Array, Seen]:
        file, truth = item
        picture = pixels(file, card.kind)
        return prepared(picture, card, file), (truth, (picture.shape[0], picture.shape[1]), file)

    return stacked(files, card, BATCH, load)


def labelled(folder: Path, card: Card) -> tuple[list[tuple[Path, Truth]], int]:
    """Pictures with their true boxes, and how many have no entry among these. Raises EquintError: none has one."""
    path = Path(card.data["boxes"])
    truths = read_boxes(path, card.labels)
    files = pictures(folder, card.data.get("list"))
    found = [(f, truths[f.name]) for f in files if f.name in truths]
    if not found:
        raise UnusableData(f"{path}: names none of the pictures in {folder}, as {files[0].name}")
    return found, len(files) - len(found)


class Detections:
    """Boxes found and true ones, of all pictures; `results` measures them. The card's `heads` or `priors` say how.

    Raises:
        EquintError: heads or priors that cannot be read, or pycocotools is not installed.
    """

    def __init__(self, card: Card) -> None:
        _coco_eval()
        self._decode = card.decode
        heads, priors = card.data.get("heads"), card.data.get("priors")
        self._heads = read_heads(Path(heads)) if heads is not None else None
        self._priors = read_priors(Path(priors)) if priors is not None else np.zeros((0, 4))
        self._found: list[Boxes] = []
        self._truths: list[Truth] = []

    def add(self, outputs: Mapping[Name, Array], truths: list[Seen]) -> None:
        """Take the boxes of a batch. Raises EquintError: outputs that do not fit, or a true box of an unknown class."""
        if self._heads is not None:
            found, classes = yolo(outputs, self._heads, self._decode)
        else:
            found, classes = ssd(outputs, self._priors, self._decode)
        for boxes, (truth, (height, width), file) in zip(found, truths, strict=True):
            wrong = truth.classes[(truth.classes < 0) | (truth.classes >= classes)]
            if len(wrong):
                raise UnusableData(
                    f"{file}: a true box is of class {wrong[0]}, but the network has {classes} classes, from 0; "
                    "check boxes and labels in the card"
                )
            self._found.append(Boxes(boxes.corners * (width, height, width, height), boxes.classes, boxes.scores))
            self._truths.append(truth)

    def merge(self, other: Detections) -> None:
        """Take the pictures that another has seen behind these."""
        self._found += other._found
        self._truths += other._truths

    def results(self) -> dict[str, float]:
        """AP at IoU 0.5 and from 0.5 to 0.95, in per cent."""
        return average_precision(self._truths, self._found)

    def lost(self, before: Detections, /) -> Interval | None:
        """By how much AP at IoU 0.5 lies under another network's on the same pictures, in points."""

        def lost(kept: Array) -> float:
            truths = [self._truths[k] for k in kept]
            if not any(np.any(~t.crowds) for t in truths):
                return np.nan
            then, now = (average_precision(truths, [d._found[k] for k in kept])["map50"] for d in (before, self))
            return then - now

        return jackknife(lost, len(self._truths))


def average_precision(truths: list[Truth], found: list[Boxes]) -> dict[str, float]:
    """COCO's AP over all classes that occur, boxes of any size, 100 per picture: `map50` and `map` in per cent.

    Raises:
        EquintError: no true boxes at all, or pycocotools is not installed.
    """
    evaluator = _coco_eval()
    if not any(np.any(~t.crowds) for t in truths):
        raise UnusableData("no true boxes on these pictures, so no precision; give more pictures")
    if not any(map(len, found)):
        return {"map50": 0.0, "map": 0.0}
    with contextlib.redirect_stdout(io.StringIO()):
        task = evaluator(_table(truths, None), _table(truths, found), "bbox")
        task.params.areaRng, task.params.areaRngLbl = [[0, 1e10]], ["all"]
        task.evaluate()
        task.accumulate()
    precision = task.eval["precision"][..., 0, -1]  # IoU threshold, recall, class; −1 where a class does not occur
    return {"map50": _mean(precision[0]), "map": _mean(precision)}


def _mean(precision: Array) -> float:
    return 100 * float(precision[precision > -1].mean())


def _table(truths: list[Truth], found: list[Boxes] | None) -> Any:
    """Boxes as pycocotools wants them: the true ones, or those found; ids start at 1."""
    from pycocotools.coco import COCO

    rows: list[dict[str, Any]] = []
    for image, truth in enumerate(truths):
        boxes = truth if found is None else found[image]
        for k, (corner, label) in enumerate(zip(boxes.corners, boxes.classes, strict=True)):
            x1, y1, x2, y2 = map(float, corner)
            row: dict[str, Any] = {"id": len(rows) + 1, "image_id": image, "category_id": int(label)}
            row |= {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)}
            given = {"iscrowd": int(truth.crowds[k])} if found is None else {"score": float(found[image].scores[k])}
            rows.append(row | given)
    table = COCO()
    labels = {int(label) for truth in truths for label in truth.classes}
    table.dataset = {
        "images": [{"id": image} for image in range(len(truths))],
        "categories": [{"id": label} for label in sorted(labels)],
        "annotations": rows,
    }
    table.createIndex()
    return table


def _coco_eval() -> Any:
    try:
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise MissingLibrary("detection is measured by pycocotools; pip install 'equint[detection]'") from error
    return COCOeval
