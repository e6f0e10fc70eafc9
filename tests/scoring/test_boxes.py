"""Overlap, suppression and decoding against literal loops."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from equint.errors import EquintError
from equint.samples.card import Decode
from equint.scoring.annotations import read_boxes
from equint.scoring.boxes import Boxes, Head, iou, nms, read_heads, read_json, read_priors, ssd, yolo

Values = NDArray[np.float64]
ANYTHING = Decode(score=0.05, iou=1.0, most=10_000)


def corners(rng: np.random.Generator, count: int) -> Values:
    low = rng.random((count, 2))
    return np.concatenate([low, low + rng.random((count, 2)) * 0.5], 1)


def overlap(a: Values, b: Values) -> float:
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    both = wide * high if wide > 0 and high > 0 else 0.0
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both
    return float(both / union) if union > 0 else 0.0


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_iou(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = corners(rng, 5), corners(rng, 4)
    a[0, 2:] = a[0, :2]  # no area
    wanted = [[overlap(x, y) for y in b] for x in a]
    np.testing.assert_allclose(iou(a, b), wanted, atol=1e-12)


@given(st.integers(0, 10_000), st.sampled_from([0.2, 0.5, 0.9]))
@settings(max_examples=30, deadline=None)
def test_nms(seed: int, threshold: float) -> None:
    rng = np.random.default_rng(seed)
    low = rng.random((25, 2)) * 0.3
    crowded = np.concatenate([low, low + 0.3 + rng.random((25, 2)) * 0.2], 1)
    boxes = Boxes(crowded, rng.integers(0, 3, 25), rng.permutation(25) / 25)
    found = nms(boxes, threshold)
    left = sorted(range(25), key=lambda i: -boxes.scores[i])
    kept: list[int] = []
    while left:
        best = left.pop(0)
        kept.append(best)
        left = [
            i
            for i in left
            if boxes.classes[i] != boxes.classes[best] or overlap(boxes.corners[i], boxes.corners[best]) <= threshold
        ]
    assert found.scores.tolist() == boxes.scores[kept].tolist()
    assert nms(boxes, threshold, 3).scores.tolist() == boxes.scores[kept[:3]].tolist()


def test_nms_of_nothing() -> None:
    assert len(nms(Boxes(np.zeros((0, 4)), np.zeros(0, int), np.zeros(0)), 0.5)) == 0


def sigmoid(v: float) -> float:
    return 1 / (1 + math.exp(-v))


def rows(boxes: Boxes) -> Values:
    table = np.column_stack([boxes.classes, boxes.scores, boxes.corners])
    return table[np.lexsort(table.round(9).T)]


@pytest.mark.parametrize("scale_xy", [1.0, 1.2])
def test_yolo(scale_xy: float) -> None:
    rng = np.random.default_rng(3)
    heads = [
        Head("a", np.array([[20.0, 30.0], [50.0, 10.0]]), 16, scale_xy),
        Head("b", np.array([[5.0, 6.0], [8.0, 8.0], [3.0, 9.0]]), 8, scale_xy),
    ]
    outputs = {"a": rng.normal(size=(2, 2 * 8, 2, 3)), "b": rng.normal(size=(2, 3 * 8, 4, 6))}
    found, classes = yolo(outputs, heads, ANYTHING)
    assert classes == 3
    for n in range(2):
        wanted = []
        for head in heads:
            value = outputs[head.output][n]
            _, height, width = value.shape
            for k, (w, h) in enumerate(head.anchors):
                for r in range(height):
                    for c in range(width):
                        t = value[8 * k : 8 * k + 8, r, c]
                        x = (sigmoid(t[0]) * scale_xy - (scale_xy - 1) / 2 + c) * head.stride
                        y = (sigmoid(t[1]) * scale_xy - (scale_xy - 1) / 2 + r) * head.stride
                        bw, bh = w * math.exp(t[2]), h * math.exp(t[3])
                        box = [x - bw / 2, y - bh / 2, x + bw / 2, y + bh / 2]
                        parts = [v / (48, 32, 48, 32)[i] for i, v in enumerate(box)]
                        for label in range(3):
                            score = sigmoid(t[4]) * sigmoid(t[5 + label])
                            if score >= 0.05:
                                wanted.append([label, score, *(min(max(v, 0), 1) for v in parts)])
        table = np.asarray(wanted)
        np.testing.assert_allclose(rows(found[n]), table[np.lexsort(table.round(9).T)], atol=1e-9)


@pytest.mark.parametrize("probabilities", [False, True])
def test_ssd(probabilities: bool) -> None:
    rng = np.random.default_rng(4)
    priors = np.column_stack([rng.random((6, 2)), rng.random((6, 2)) * 0.3 + 0.1])
    scores, offsets = rng.normal(size=(2, 6, 3)), rng.normal(size=(2, 6, 4))
    if probabilities:
        scores = np.abs(scores) / np.abs(scores).sum(-1, keepdims=True)
    decode = Decode(0.05, 1.0, 10_000, (0.3, 0.7), probabilities)
    found, classes = ssd({"s": scores, "b": offsets}, priors, decode)
    assert classes == 2
    for n in range(2):
        wanted = []
        for p, s, (x, y, w, h) in zip(priors, scores[n], offsets[n], strict=True):
            cx, cy = p[0] + x * 0.3 * p[2], p[1] + y * 0.3 * p[3]
            bw, bh = p[2] * math.exp(0.7 * w), p[3] * math.exp(0.7 * h)
            total = sum(math.exp(v) for v in s)
            box = [min(max(v, 0), 1) for v in (cx - bw / 2, cy - bh / 2, cx + bw / 2, cy + bh / 2)]
            for label in (1, 2):
                score = s[label] if probabilities else math.exp(s[label]) / total
                if score >= 0.05:
                    wanted.append([label - 1, score, *box])
        table = np.asarray(wanted)
        np.testing.assert_allclose(rows(found[n]), table[np.lexsort(table.round(9).T)], atol=1e-9)


def test_huge_values_do_not_overflow() -> None:
    head = Head("a", np.array([[20.0, 30.0]]), 16)
    (boxes,), _ = yolo({"a": np.full((1, 6, 1, 1), 1e4)}, [head], Decode())
    assert boxes.corners.tolist() == [[0.0, 0.0, 1.0, 1.0]]


def test_outputs_that_do_not_fit() -> None:
    head = Head("a", np.ones((3, 2)), 16)
    with pytest.raises(EquintError, match=r"no output a.*has b"):
        yolo({"b": np.zeros((1, 18, 2, 2))}, [head], Decode())
    with pytest.raises(EquintError, match=r"\(1, 17, 2, 2\)"):
        yolo({"a": np.zeros((1, 17, 2, 2))}, [head], Decode())
    for outputs in (
        {"s": np.zeros((1, 5, 2)), "b": np.zeros((1, 5, 4))},
        {"s": np.zeros((1, 6, 4)), "b": np.zeros((1, 6, 4))},
        {"b": np.zeros((1, 6, 4))},
    ):
        with pytest.raises(EquintError, match="6 priors need"):
            ssd(outputs, np.ones((6, 4)), Decode())
    named = Decode(boxes="b", scores="s")
    assert ssd({"s": np.zeros((1, 6, 4)), "b": np.zeros((1, 6, 4))}, np.ones((6, 4)), named)[1] == 3


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("no json", "JSON"),
        ("[]", "output, anchors and stride"),
        ('{"heads": []}', "heads needs"),
        ('{"heads": [{"output": "a", "stride": 8}]}', "anchors"),
        ('{"heads": [{"output": "a", "stride": 8, "anchors": [3, 4]}]}', "head a"),
        ('{"heads": [{"output": "a", "stride": 0, "anchors": [[3, 4]]}]}', "head a"),
    ],
)
def test_bad_heads(tmp_path: Path, text: str, part: str) -> None:
    path = tmp_path / "heads.json"
    path.write_text(text)
    with pytest.raises(EquintError, match=part):
        read_heads(path)


def test_bad_priors(tmp_path: Path) -> None:
    with pytest.raises(EquintError, match=r"absent\.npy"):
        read_priors(tmp_path / "absent.npy")
    np.save(tmp_path / "p.npy", np.zeros((3, 5)))
    with pytest.raises(EquintError, match=r"\(n, 4\)"):
        read_priors(tmp_path / "p.npy")


# True boxes

COCO = {
    "images": [{"id": 7, "file_name": "train/a.jpg"}, {"id": 9, "file_name": "b.jpg"}],
    "categories": [{"id": 18, "name": "dog"}, {"id": 3, "name": "car"}],
    "annotations": [
        {"image_id": 7, "category_id": 18, "bbox": [1, 2, 3, 4]},
        {"image_id": 7, "category_id": 3, "bbox": [0, 0, 5, 5], "iscrowd": 1},
    ],
}


def test_coco(tmp_path: Path) -> None:
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(COCO))
    found = read_boxes(path)
    assert found["a.jpg"].corners.tolist() == [[1, 2, 4, 6], [0, 0, 5, 5]]
    assert found["a.jpg"].classes.tolist() == [1, 0]
    assert found["a.jpg"].crowds.tolist() == [False, True]
    assert len(found["b.jpg"].corners) == 0
    assert read_boxes(path, ["dog", "cat", "car"])["a.jpg"].classes.tolist() == [0, 2]
    with pytest.raises(EquintError, match="category car is not among"):
        read_boxes(path, ["dog"])


def test_plain_boxes(tmp_path: Path) -> None:
    path = tmp_path / "boxes.json"
    path.write_text('{"a.png": {"w": 9, "h": 9, "boxes": [[4, 1, 2, 3, 5]]}, "b.png": [[1, 2, 3, 5]], "c.png": []}')
    found = read_boxes(path)
    assert found["a.png"].classes.tolist() == [4]
    assert found["b.png"].corners.tolist() == [[1, 2, 3, 5]]
    assert found["b.png"].classes.tolist() == [0]
    assert found["c.png"].corners.shape == (0, 4)


@pytest.mark.parametrize(
    "text",
    ["[]", "{}", "7", '{"a": [[1, 2, 3]]}', '{"a": {"box": []}}', '{"a": [[3, 3, 1, 1]]}', '{"a": [["x", 1, 2, 3]]}'],
)
def test_bad_boxes(tmp_path: Path, text: str) -> None:
    path = tmp_path / "boxes.json"
    path.write_text(text)
    with pytest.raises(EquintError, match=r"boxes.json: neither"):
        read_boxes(path)


def test_a_category_that_is_not_defined(tmp_path: Path) -> None:
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps({**COCO, "categories": []}))
    with pytest.raises(EquintError, match=r"boxes.json: .*18"):
        read_boxes(path)
    with pytest.raises(EquintError, match=r"absent\.json"):
        read_json(tmp_path / "absent.json")


VOC = """<annotation><filename>a.jpg</filename>
<object><name>dog</name><difficult>0</difficult>
<bndbox><xmin>1</xmin><ymin>3</ymin><xmax>10</xmax><ymax>20</ymax></bndbox></object>
<object><name>cat</name><difficult>1</difficult>
<bndbox><ymin>3</ymin><xmin>2</xmin><xmax>5.5</xmax><ymax>6</ymax></bndbox></object>
</annotation>"""


def test_voc(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(VOC)
    (tmp_path / "b.xml").write_text("<annotation></annotation>")
    found = read_boxes(tmp_path, ["cat", "dog"])
    assert found["a.jpg"].corners.tolist() == [[0, 2, 10, 20], [1, 2, 5.5, 6]]
    assert found["a.jpg"].classes.tolist() == [1, 0]
    assert found["a.jpg"].crowds.tolist() == [False, True]
    assert found["b.jpg"].corners.shape == (0, 4)
    with pytest.raises(EquintError, match=r"a\.xml: class dog is not among"):
        read_boxes(tmp_path)
    for text in ("<annotation>", VOC.replace("<xmin>1</xmin>", ""), VOC.replace(">1<", ">50<")):
        (tmp_path / "a.xml").write_text(text)
        with pytest.raises(EquintError, match=r"a\.xml: not a readable"):
            read_boxes(tmp_path, ["cat", "dog"])


def test_a_folder_without_boxes(tmp_path: Path) -> None:
    with pytest.raises(EquintError, match=r"no \.xml files"):
        read_boxes(tmp_path, ["cat"])
