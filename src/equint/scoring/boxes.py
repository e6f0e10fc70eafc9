"""Boxes: overlap, non-maximum suppression, and two ways to read them from a network's outputs.

Corners are (x1, y1, x2, y2) in parts of the picture, 0 to 1.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit, softmax

from ..errors import InvalidCard, UnusableData
from ..files import readable
from ..ir.model import Array, Name
from ..samples.card import Decode
from ..samples.stored import stored

CANDIDATES = 1000
"""Boxes per picture that go into suppression: the best ones."""
STRETCH = 10.0
"""Largest exponent of a box's size: a broken network must not overflow."""


@dataclass(frozen=True)
class Boxes:
    """Boxes of one picture: corners (n, 4), classes (n,), scores (n,)."""

    corners: Array
    classes: Array
    scores: Array

    def __getitem__(self, which: Array) -> Boxes:
        return Boxes(self.corners[which], self.classes[which], self.scores[which])

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True)
class Head:
    """One output of a YOLO network: (N, anchors·(5 + classes), H, W), anchors (width, height) in input pixels."""

    output: Name
    anchors: Array
    stride: float
    scale_xy: float = 1.0


def iou(a: Array, b: Array) -> Array:
    """Intersection over union of every pair of boxes: (n, 4) and (m, 4) to (n, m).

    Example:
        >>> iou(np.array([[0, 0, 2, 2]]), np.array([[1, 1, 3, 3], [5, 5, 6, 6]])).round(3).tolist()
        [[0.143, 0.0]]
    """
    wide, high = (
        np.maximum(np.minimum.outer(a[:, k + 2], b[:, k + 2]) - np.maximum.outer(a[:, k], b[:, k]), 0) for k in (0, 1)
    )
    both = wide * high
    union = np.add.outer(_areas(a), _areas(b)) - both
    return np.asarray(np.divide(both, union, out=np.zeros_like(union, dtype=float), where=union > 0))


def _areas(corners: Array) -> Array:
    width, height = (corners[:, 2:] - corners[:, :2]).clip(0).T
    return np.asarray(width * height)


def nms(boxes: Boxes, threshold: float, most: int = 100) -> Boxes:
    """Greedy non-maximum suppression within each class: the best box stays, those that overlap it more go.

    Example:
        >>> corners = np.array([[0, 0, 2, 2], [0, 0, 2, 1.9], [0, 0, 2, 2]])
        >>> found = nms(Boxes(corners, np.array([0, 0, 1]), np.array([0.8, 0.9, 0.7])), 0.5)
        >>> found.scores.tolist()
        [0.9, 0.7]
    """
    boxes = boxes[np.argsort(-boxes.scores, kind="stable")]
    rivals = (iou(boxes.corners, boxes.corners) > threshold) & (boxes.classes[:, None] == boxes.classes)
    alive, kept = np.ones(len(boxes), bool), []
    for i in range(len(boxes)):
        if alive[i]:
            kept.append(i)
            alive &= ~rivals[i]
            if len(kept) == most:
                break
    return boxes[np.asarray(kept, np.intp)]


def yolo(outputs: Mapping[Name, Array], heads: Sequence[Head], decode: Decode) -> tuple[list[Boxes], int]:
    """Boxes of a YOLO network with anchors (version 2 to 4), one set per picture, and how many classes it has.

    A cell (column c, row r) and an anchor (w, h) give centre ((σ(x)·k − (k − 1)/2 + c)·stride, …), size
    (w·exp(width), h·exp(height)) and the scores σ(object)·σ(class), k being `scale_xy`.

    Raises:
        EquintError: an output that is missing or does not have the channels that its anchors need.
    """
    parts = [_yolo_head(outputs, head, decode.score) for head in heads]
    found = []
    for picture in zip(*parts, strict=True):
        corners, scores = (np.concatenate(rows) for rows in zip(*picture, strict=True))
        found.append(_chosen(corners, scores, decode))
    return found, parts[0][0][1].shape[1]


def _yolo_head(outputs: Mapping[Name, Array], head: Head, least: float) -> list[tuple[Array, Array]]:
    """Per picture: corners (n, 4) and scores (n, classes) of the boxes that can score at least so much."""
    if head.output not in outputs:
        named = f"{head.output}, which heads in the card name"
        raise InvalidCard(f"no output {named}; the network has {', '.join(outputs)}")
    value, anchors = np.asarray(outputs[head.output]), len(head.anchors)
    if value.ndim != 4 or value.shape[1] % anchors or value.shape[1] // anchors < 6:
        raise InvalidCard(
            f"output {head.output} has shape {value.shape}; {anchors} anchors need (N, {anchors}·(5 + classes), H, W): "
            "see heads in the card"
        )
    count, channels, height, width = value.shape
    cells = value.reshape(count, anchors, channels // anchors, height, width)
    found = []
    for picture in cells:
        sure = expit(picture[:, 4])
        a, row, column = np.nonzero(sure >= least)
        taken = picture[a, :, row, column].astype(float)
        k = head.scale_xy
        centre = (expit(taken[:, :2]) * k - (k - 1) / 2 + np.stack([column, row], 1)) / (width, height)
        grown = np.exp(np.minimum(taken[:, 2:4], STRETCH))
        size = head.anchors[a] * grown / (head.stride * width, head.stride * height)
        corners = np.concatenate([centre - size / 2, centre + size / 2], 1)
        found.append((corners, sure[a, row, column][:, None] * expit(taken[:, 5:])))
    return found


def ssd(outputs: Mapping[Name, Array], priors: Array, decode: Decode) -> tuple[list[Boxes], int]:
    """Boxes of an SSD network, one set per picture, and how many classes it has.

    Priors are (n, 4) centre x, centre y, width, height in parts of the picture. With offsets (x, y, w, h) and
    variances (u, v) a box has centre prior + offset·u·prior size and size prior·exp(offset·v). The first class is
    the background.

    Raises:
        EquintError: outputs that do not have one row per prior, or cannot be told apart.
    """
    scores, offsets = _ssd_outputs(outputs, len(priors), decode)
    centre = priors[:, :2] + offsets[..., :2] * decode.variances[0] * priors[:, 2:]
    size = priors[:, 2:] * np.exp(np.minimum(offsets[..., 2:] * decode.variances[1], STRETCH))
    corners = np.concatenate([centre - size / 2, centre + size / 2], -1)
    sure = scores if decode.probabilities else softmax(scores, axis=-1)
    found = [_chosen(c, s[:, 1:], decode) for c, s in zip(corners, sure, strict=True)]
    return found, scores.shape[2] - 1


def _ssd_outputs(outputs: Mapping[Name, Array], priors: int, decode: Decode) -> tuple[Array, Array]:
    rows = {n: v for n, v in outputs.items() if v.ndim == 3 and v.shape[1] == priors}
    fours = [n for n, v in rows.items() if v.shape[2] == 4]
    others = [n for n in rows if n not in fours]
    boxes = decode.boxes or next(iter(fours), "")
    scores = decode.scores or next((n for n in rows if n != boxes), "")
    clear = len(fours) == 1 == len(others) or (decode.boxes and decode.scores)
    if not clear or boxes not in rows or scores not in rows or rows[boxes].shape[2] != 4:
        shapes = ", ".join(f"{n} {v.shape}" for n, v in outputs.items())
        raise UnusableData(
            f"outputs {shapes}: {priors} priors need boxes (N, {priors}, 4) and scores (N, {priors}, classes); "
            "name them as boxes and scores in [decode] of the card"
        )
    return rows[scores].astype(float), rows[boxes].astype(float)


def _chosen(corners: Array, scores: Array, decode: Decode) -> Boxes:
    """Every class of every box that scores enough, suppressed."""
    at, label = np.nonzero(scores >= decode.score)
    found = Boxes(np.clip(corners[at], 0, 1), label, scores[at, label])
    if len(found) > CANDIDATES:
        found = found[np.argpartition(-found.scores, CANDIDATES)[:CANDIDATES]]
    return nms(found, decode.iou, decode.most)


def read_heads(path: Path) -> tuple[Head, ...]:
    """A YOLO network's heads, from JSON: {"heads": [{"output", "anchors": [[w, h], …], "stride"}, …]}.

    Raises:
        EquintError: unreadable, or a head without output, anchors or stride.
    """
    table = read_json(path)
    try:
        heads = tuple(
            Head(str(h["output"]), np.asarray(h["anchors"], float), float(h["stride"]), float(h.get("scale_xy", 1)))
            for h in table["heads"]
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidCard(f"{path}: every one of heads needs output, anchors and stride ({error!r})") from error
    bad = next((h for h in heads if h.anchors.ndim != 2 or h.anchors.shape[1] != 2 or h.stride <= 0), None)
    if bad is not None or not heads:
        raise InvalidCard(f"{path}: {f'head {bad.output}' if bad else 'heads'} needs anchors [[w, h], …] and a stride")
    return heads


def read_priors(path: Path) -> Array:
    """An SSD network's priors: (n, 4) from an .npy file. Raises EquintError: unreadable, or of another shape."""
    held = stored(path)
    if "" not in held:
        raise UnusableData(f"{path}: is an .npz; store the priors alone, as an .npy file")
    priors = held[""].whole()
    if priors.ndim != 2 or priors.shape[1] != 4:
        raise UnusableData(f"{path}: priors must have shape (n, 4): centre x, centre y, width, height")
    return priors.astype(float)


def read_json(path: Path) -> Any:
    """A JSON file as plain values."""
    try:
        return json.loads(readable(path, UnusableData, "JSON file").read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        why = "nested too deep" if isinstance(error, RecursionError) else str(error)[:200]
        raise UnusableData(f"{path}: not a readable JSON file ({why}); correct it") from error
