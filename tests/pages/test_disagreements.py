"""Which samples two networks disagree on most: worked by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from equint.pages.disagreements import (
    box_distance,
    class_distance,
    disagreements,
    mask_distance,
    probabilities,
    value_distance,
)
from equint.scoring.boxes import Boxes


def test_the_worst_come_first_and_limits_hold() -> None:
    logits = np.array([[5.0, 0.0], [0.0, 1.5], [2.0, 0.0], [9.0, 0.0]])
    change = np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 1.0], [0.0, 99.0]])

    def quantized(x: Any) -> dict[str, Any]:
        return {"y": x + change[[int(np.flatnonzero((logits == row).all(1))[0]) for row in x]]}

    def original(x: Any) -> dict[str, Any]:
        return {"y": x}

    batches = [(logits[:2], np.array([7, 8])), (logits[2:], np.array([9, 10]))]
    found = disagreements(original, quantized, batches, class_distance("y"), 3, 2)
    assert (found.samples, found.other) == (3, 1)
    assert [(a.number, a.truth, a.same) for a in found.worst] == [(1, 8, False), (2, 9, True)]
    p, q = 1 / (1 + math.exp(-1.5)), 1 / (1 + math.exp(1.5))
    assert found.worst[0].distance == pytest.approx(1 + abs(p - q))


def test_probabilities_are_kept() -> None:
    assert probabilities(np.array([[0.5, 0.5]])).tolist() == [0.5, 0.5]
    assert probabilities(np.array([2.0, 2.0, 2.0])) == pytest.approx([1 / 3] * 3)


def test_masks_differ_by_their_pixels() -> None:
    scores = np.zeros((1, 2, 2, 2))
    other = scores.copy()
    other[0, 1, 0, 0] = 1.0
    assert mask_distance("y")({"y": scores}, {"y": other}) == (0.25, None)


def test_boxes_without_a_partner_count() -> None:
    def boxes(*rows: tuple[float, ...]) -> Boxes:
        table = np.reshape(np.array(rows, float), (-1, 6))
        return Boxes(table[:, :4], table[:, 4].astype(int), table[:, 5])

    distance = box_distance(lambda outputs: outputs["y"])  # type: ignore[arg-type,return-value]
    one = boxes((0, 0, 2, 2, 1, 0.9), (4, 4, 5, 5, 2, 0.8), (6, 6, 7, 7, 3, 0.1))
    half = boxes((0, 0, 2, 1, 1, 0.9))
    assert distance({"y": one}, {"y": one}) == (0.0, True)  # type: ignore[dict-item]
    assert distance({"y": one}, {"y": half}) == (2.0, False)  # type: ignore[dict-item]


def test_noise_over_signal() -> None:
    a, b = {"y": np.array([3.0, 4.0])}, {"y": np.array([3.0, 5.0])}
    assert value_distance(a, b) == (1 / 25, None)
