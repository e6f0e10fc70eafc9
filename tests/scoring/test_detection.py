"""Average precision: worked by hand, and against a literal loop over COCO's definition."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from equint.errors import EquintError
from equint.samples.card import Card, Decode
from equint.scoring.annotations import Truth
from equint.scoring.boxes import Boxes
from equint.scoring.detection import average_precision
from equint.scoring.metrics import count, evaluate
from handwritten import network

pytest.importorskip("pycocotools", reason="average precision is computed by pycocotools, which is not installed")

Values = NDArray[np.float64]


def truth(boxes: list[list[float]], classes: list[int] | None = None, crowds: list[bool] | None = None) -> Truth:
    labels = np.asarray(classes or [0] * len(boxes), int)
    return Truth(np.asarray(boxes, float).reshape(-1, 4), labels, np.asarray(crowds or [False] * len(boxes), bool))


def found(boxes: list[list[float]], scores: list[float], classes: list[int] | None = None) -> Boxes:
    labels = np.asarray(classes or [0] * len(boxes), int)
    return Boxes(np.asarray(boxes, float).reshape(-1, 4), labels, np.asarray(scores, float))


def test_worked_by_hand() -> None:
    box, other, nothing = [0.0, 0, 10, 10], [20.0, 0, 30, 10], [50.0, 50, 60, 60]
    assert average_precision([truth([box])], [found([box], [0.9])]) == pytest.approx({"map50": 100, "map": 100})
    half = average_precision([truth([box])], [found([[0, 0, 10, 6]], [0.9])])  # IoU 0.6: right up to 0.6, 3 of 10
    assert half["map50"] == pytest.approx(100)
    assert half["map"] == pytest.approx(30)
    one_of_two = average_precision([truth([box, other])], [found([box], [0.9])])
    assert one_of_two["map50"] == pytest.approx(100 * 51 / 101)  # precision 1 at recalls 0, 0.01, … 0.5
    wrong_first = average_precision([truth([box])], [found([nothing, box], [0.9, 0.8])])
    assert wrong_first["map50"] == pytest.approx(50)
    classes = average_precision([truth([box, other], [0, 1])], [found([box, other], [0.9, 0.8], [0, 0])])
    assert classes["map50"] == pytest.approx(50)  # class 1 is never found


def test_nothing_found_and_nothing_there() -> None:
    box = [0.0, 0, 10, 10]
    assert average_precision([truth([box])], [found([], [])]) == {"map50": 0.0, "map": 0.0}
    crowd = average_precision([truth([box, [5, 5, 90, 90]], [0, 0], [False, True])], [found([box], [0.9])])
    assert crowd["map50"] == pytest.approx(100)
    for truths in ([truth([])], [truth([box], [0], [True])]):
        with pytest.raises(EquintError, match="no true boxes"):
            average_precision(truths, [found([box], [0.9])])


def looped(truths: list[Truth], answers: list[Boxes], threshold: float) -> float:
    """AP of COCO's definition without crowds: greedy matches by score, 101 recalls, best precision to the right."""
    precisions = []
    for label in sorted({int(k) for t in truths for k in t.classes}):
        total = sum(int(np.sum(t.classes == label)) for t in truths)
        hits: list[tuple[float, bool]] = []
        for t, a in zip(truths, answers, strict=True):
            free = [b for b, k in zip(t.corners, t.classes, strict=True) if k == label]
            mine = sorted(
                ((s, b) for s, b, k in zip(a.scores, a.corners, a.classes, strict=True) if k == label),
                key=lambda pair: -pair[0],
            )
            for score, box in mine:
                overlaps = [overlap(box, b) for b in free]
                best = int(np.argmax(overlaps)) if overlaps else -1
                hit = best >= 0 and overlaps[best] >= threshold
                hits.append((score, hit))
                if hit:
                    free.pop(best)
        hits.sort(key=lambda pair: -pair[0])
        right = np.cumsum([hit for _, hit in hits])
        curve = [(r / total, r / (i + 1)) for i, r in enumerate(right)]
        for recall in np.linspace(0, 1, 101):
            precisions.append(max((p for r, p in curve if r >= recall), default=0.0))
    return 100 * float(np.mean(precisions))


def overlap(a: Values, b: Values) -> float:
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(wide, 0) * max(high, 0)
    return float(both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both))


@given(st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_against_a_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truths, answers = [], []
    scores = iter(rng.permutation(200) / 200)
    for _ in range(4):
        low = rng.random((3, 2)) * 100
        boxes = np.concatenate([low, low + 5 + rng.random((3, 2)) * 40], 1)
        truths.append(truth(boxes.tolist(), rng.integers(0, 2, 3).tolist()))
        moved = np.concatenate([boxes + rng.normal(size=(3, 4)), boxes + rng.normal(size=(3, 4)) * 2])
        moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
        answers.append(found(moved.tolist(), [next(scores) for _ in moved], rng.integers(0, 2, 6).tolist()))
    result = average_precision(truths, answers)
    assert result["map50"] == pytest.approx(looped(truths, answers, 0.5))
    wanted = [looped(truths, answers, t) for t in np.linspace(0.5, 0.95, 10)]
    assert result["map"] == pytest.approx(np.mean(wanted))


# A whole evaluation: a network that always sees the same two boxes


@pytest.fixture
def setup(tmp_path: Path) -> tuple[Path, Card]:
    scores = np.array([[[-9.0, 9.0], [9.0, -9.0], [-9.0, 9.0]]], np.float32)
    offsets = np.zeros((1, 3, 4), np.float32)
    model = network(
        """z = ReduceMean <axes = [1, 2, 3], keepdims = 0> (x)
        flat = Unsqueeze (z, axes)
        none = Mul (flat, zero)
        s = Add (none, scores)
        b = Add (none, offsets)""",
        inputs="float[N,3,8,8] x",
        output="float[N,3,2] s, float[N,3,4] b",
        opset=17,
        axes=np.array([1, 2]),
        zero=np.zeros(1, np.float32),
        scores=scores,
        offsets=offsets,
    )
    onnx.save(model, tmp_path / "net.onnx")
    np.save(tmp_path / "priors.npy", np.array([[0.25, 0.25, 0.5, 0.5], [0.5, 0.5, 1, 1], [0.75, 0.5, 0.5, 1]]))
    (tmp_path / "pictures").mkdir()
    for name, size in (("a", (40, 20)), ("b", (10, 10)), ("c", (8, 8))):
        Image.new("RGB", size).save(tmp_path / "pictures" / f"{name}.png")
    boxes = {"a.png": [[0, 0, 20, 10], [20, 0, 40, 20]], "b.png": [[0, 0, 5, 5]], "absent.png": [[0, 0, 5, 5]]}
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    data = {"boxes": tmp_path / "boxes.json", "priors": tmp_path / "priors.npy"}
    return tmp_path, Card("rgb", (0.0,) * 3, (1.0,) * 3, (8, 8), task="detection", data=data, decode=Decode(iou=0.5))


def test_boxes_are_in_the_pixels_of_each_picture(setup: tuple[Path, Card]) -> None:
    folder, card = setup
    result = evaluate(folder / "net.onnx", folder / "pictures", card, folder / "net.onnx")
    assert result["samples"] == 2
    assert result["unlabelled"] == 1
    assert count(folder / "pictures", card) == 2
    assert result["sqnr_db"] == float("inf")
    assert "agreement" not in result
    one = evaluate(folder / "net.onnx", folder / "pictures", card, limit=1)
    assert one == {"samples": 1, "unlabelled": 1, "map50": pytest.approx(100), "map": pytest.approx(100)}


def test_errors_name_what_is_wrong(setup: tuple[Path, Card]) -> None:
    folder, card = setup

    def refused(part: str, **data: object) -> None:
        changed = replace(card, data=data)
        with pytest.raises(EquintError, match=part):
            evaluate(folder / "net.onnx", folder / "pictures", changed)

    refused("no boxes and heads or priors in")
    refused("no heads or priors in", boxes=folder / "boxes.json")
    refused("absent.json", boxes=folder / "absent.json", priors=card.data["priors"])
    (folder / "other.json").write_text('{"x.png": [[0, 0, 1, 1]]}')
    refused("names none of the pictures", boxes=folder / "other.json", priors=card.data["priors"])
    (folder / "wrong.json").write_text('{"a.png": [[3, 0, 0, 1, 1]]}')
    refused(
        "a.png: a true box is of class 3, but the network has 1",
        boxes=folder / "wrong.json",
        priors=card.data["priors"],
    )


def test_without_pycocotools(setup: tuple[Path, Card], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, card = setup
    monkeypatch.setitem(sys.modules, "pycocotools.cocoeval", None)
    with pytest.raises(EquintError, match=r"pip install 'equint\[detection\]'"):
        evaluate(folder / "net.onnx", folder / "pictures", card)
