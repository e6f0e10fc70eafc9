"""The samples on which a quantized network's answer is farthest from the float one's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import softmax

from ..ir.model import Array, Name
from ..samples.images import Feed, length, part
from ..scoring.boxes import Boxes, iou

Outputs = Mapping[Name, Array]
Runs = Callable[[Feed], Outputs]
SURE = 0.3
"""Score from which a box is shown and compared."""


@dataclass(frozen=True)
class Answers:
    """One sample, as the network reads it, and both answers, each with its batch axis.

    `distance` grows with the disagreement; `same`: whether both decide alike, None where nothing is decided.
    """

    number: int
    feed: Feed
    truth: Any
    original: Outputs
    quantized: Outputs
    distance: float
    same: bool | None


@dataclass(frozen=True)
class Disagreements:
    """Those that disagree most, the worst first; `samples`: how many were looked at, `other` of them decided else."""

    samples: int
    other: int | None
    worst: tuple[Answers, ...]


Distance = Callable[[Outputs, Outputs], tuple[float, bool | None]]


def disagreements(
    original: Runs, quantized: Runs, batches: Iterable[tuple[Feed, Any]], distance: Distance, limit: int, shown: int
) -> Disagreements:
    """Run both networks on the first samples, and keep those on which they disagree most.

    Args:
        batches: samples, and what is true of each, or None.
        distance: of the outputs for one sample.
        limit: samples to look at; shown: how many to keep.

    Example:
        >>> both = [lambda x: {"y": x}, lambda x: {"y": x[:, ::-1]}]
        >>> batches = [(np.array([[0.0, 9.0], [1.0, 2.0]]), None)]
        >>> found = disagreements(*both, batches, class_distance("y"), 8, 1)
        >>> found.samples, found.other, found.worst[0].number
        (2, 2, 0)
    """
    kept, seen, other = list[Answers](), 0, list[bool]()
    for feed, truths in batches:
        for k in range(min(length(feed), limit - seen)):
            one = part(feed, k, k + 1)
            a, b = original(one), quantized(one)
            apart, same = distance(a, b)
            kept.append(Answers(seen, one, None if truths is None else truths[k], a, b, apart, same))
            other += [] if same is None else [not same]
            seen += 1
        kept = sorted(kept, key=lambda answers: -answers.distance)[:shown]
        if seen >= limit:
            break
    return Disagreements(seen, sum(other) if other else None, tuple(kept))


def class_distance(output: Name) -> Distance:
    """Total variation of the class probabilities, and 1 more where the best class is another."""

    def distance(a: Outputs, b: Outputs) -> tuple[float, bool]:
        p, q = probabilities(a[output][0]), probabilities(b[output][0])
        same = int(p.argmax()) == int(q.argmax())
        return float(np.abs(p - q).sum() / 2) + (not same), same

    return distance


def mask_distance(output: Name) -> Distance:
    """Share of the pixels that are decided differently."""

    def distance(a: Outputs, b: Outputs) -> tuple[float, None]:
        return float(np.mean(decided(a[output][0]) != decided(b[output][0]))), None

    return distance


def box_distance(decode: Callable[[Outputs], Boxes]) -> Distance:
    """How far the boxes of both are from one another: the mean of 1 − IoU with the nearest one of the other's class."""

    def distance(a: Outputs, b: Outputs) -> tuple[float, bool]:
        one, two = (sure(decode(outputs)) for outputs in (a, b))
        found = np.concatenate([_alone(one, two), _alone(two, one)])
        return (float(found.sum()) if len(found) else 0.0), bool((found < 0.5).all())

    return distance


def value_distance(a: Outputs, b: Outputs) -> tuple[float, None]:
    """Noise over signal of all outputs: Σ(b − a)²/Σa²."""
    noise, signal = (sum(float(np.sum(np.square(v, dtype=np.float64))) for v in values) for values in _parts(a, b))
    return (noise / signal if signal > 0 else float(noise > 0)), None


def probabilities(scores: Array) -> Array:
    """Class scores of one sample as probabilities: as they are where they are some, else their softmax.

    Example:
        >>> probabilities(np.array([0.25, 0.75])).tolist(), probabilities(np.array([3.0, 3.0])).tolist()
        ([0.25, 0.75], [0.5, 0.5])
    """
    flat = np.asarray(scores, np.float64).ravel()
    whole = flat.min(initial=0.0) >= 0 and abs(flat.sum() - 1) < 1e-2
    return flat if whole else np.asarray(softmax(flat))


def decided(values: Array) -> Array:
    """Class numbers (H, W) of one picture, of scores (classes, H, W) or numbers."""
    return np.asarray(values.argmax(0) if values.ndim == 3 else values)


def sure(boxes: Boxes) -> Boxes:
    """Boxes that score at least `SURE`."""
    return boxes[np.flatnonzero(boxes.scores >= SURE)]


def _alone(boxes: Boxes, others: Boxes) -> Array:
    """Of every box 1 − its largest IoU with another of its class."""
    if not len(boxes) or not len(others):
        return np.ones(len(boxes))
    shared = iou(boxes.corners, others.corners) * (boxes.classes[:, None] == others.classes)
    return np.asarray(1 - shared.max(1))


def _parts(a: Outputs, b: Outputs) -> tuple[list[Array], list[Array]]:
    names = [name for name in a if name in b and np.asarray(a[name]).dtype.kind == "f"]
    return [np.asarray(b[n], np.float64) - a[n] for n in names], [np.asarray(a[n], np.float64) for n in names]
