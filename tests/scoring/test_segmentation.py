"""mIoU: worked by hand, against a loop over pixels, and what is refused."""

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
from equint.samples.card import Card
from equint.scoring.metrics import count, evaluate
from equint.scoring.segmentation import Confusion, enlarged
from handwritten import network

Pixels = NDArray[np.uint8]


def test_worked_by_hand() -> None:
    mask = np.array([[0, 0, 1, 1], [0, 255, 1, 1]])
    answer = np.array([[0, 1, 1, 1], [0, 1, 0, 1]])
    confusion = Confusion("y", classes=3)
    confusion.add({"y": answer[None]}, [(mask, "a.png")])
    # class 0: 2 right, 3 true, 3 answered: 2/4; class 1: 3 right, 4 true, 4 answered: 3/5; class 2: nowhere
    assert confusion.results() == pytest.approx({"miou": 100 * (0.5 + 0.6) / 2, "pixel_accuracy": 500 / 7})


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_against_a_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(3, 5, 4, 6))
    masks = rng.choice([0, 1, 3, 9], (3, 4, 6))
    confusion = Confusion("y", ignore=9)
    for part in (slice(0, 2), slice(2, 3)):
        confusion.add({"y": scores[part]}, [(mask, "") for mask in masks[part]])
    ious, right, total = [], 0, 0
    for label in range(5):
        both = either = there = 0
        for n, r, c in np.ndindex(masks.shape):
            if masks[n, r, c] == 9:
                continue
            true, said = masks[n, r, c] == label, max(range(5), key=lambda k: scores[n, k, r, c]) == label
            both, either, there = both + (true and said), either + (true or said), there + true
        right, total = right + both, total + there
        if there:
            ious.append(both / either)
    assert confusion.results() == pytest.approx({"miou": 100 * np.mean(ious), "pixel_accuracy": 100 * right / total})


def test_scores_are_enlarged_bilinearly() -> None:
    scores = np.array([[[0.0, 1.0]]], np.float32)
    found = enlarged(scores, (1, 4))
    np.testing.assert_allclose(found[0, 0], [0, 0.25, 0.75, 1])  # pixel centres at −0.25, 0.25, 0.75, 1.25
    assert enlarged(scores, (1, 2)) is scores


def test_class_numbers_are_enlarged_to_the_nearest() -> None:
    confusion = Confusion("y", classes=2)
    confusion.add({"y": np.array([[[0, 1]]])}, [(np.array([[0, 0, 1, 1], [0, 0, 1, 1]]), "")])
    assert confusion.results()["miou"] == 100


@pytest.mark.parametrize(
    ("value", "mask", "part"),
    [
        (np.zeros((1, 2, 2, 2)), np.full((2, 2), 2), r"a\.png: the mask says class 2, but there are 2"),
        (np.full((1, 2, 2), 7), np.zeros((2, 2)), r"a\.png: the network says class 7"),
        (np.zeros((1, 1, 2, 2)), np.zeros((2, 2)), r"\(1, 1, 2, 2\)"),
        (np.zeros((1, 4)), np.zeros((2, 2)), r"\(1, 4\)"),
    ],
)
def test_refused(value: NDArray[np.float64], mask: NDArray[np.float64], part: str) -> None:
    with pytest.raises(EquintError, match=part):
        Confusion("y", classes=2).add({"y": value}, [(mask, "a.png")])


def test_class_numbers_need_their_count() -> None:
    with pytest.raises(EquintError, match="how many classes"):
        Confusion("y").add({"y": np.zeros((1, 2, 2))}, [(np.zeros((2, 2)), "")])


def test_all_ignored() -> None:
    confusion = Confusion("y")
    confusion.add({"y": np.zeros((1, 2, 2, 2))}, [(np.full((2, 2), 255), "")])
    with pytest.raises(EquintError, match="every pixel"):
        confusion.results()


# Whole evaluations: a network that says class 1 where the first channel is bright


@pytest.fixture
def voc(tmp_path: Path) -> tuple[Path, Card]:
    w = np.array([[0.0, 0, 0], [1, 0, 0]], np.float32).reshape(2, 3, 1, 1)
    b = np.array([0.5, 0], np.float32)
    model = network("y = Conv (x, w, b)", inputs="float[N,3,H,W] x", output="float[N,2,H,W] y", w=w, b=b)
    onnx.save(model, tmp_path / "net.onnx")
    for folder in ("JPEGImages", "SegmentationClass"):
        (tmp_path / folder).mkdir()
    for k in range(3):
        pixels = np.zeros((4 + k, 6, 3), np.uint8)
        pixels[:2, :, 0] = 255
        Image.fromarray(pixels).save(tmp_path / "JPEGImages" / f"{k}.png")
    for k in range(2):
        mask = np.zeros((4 + k, 6), np.uint8)
        mask[:1], mask[1] = 1, 255
        picture = Image.fromarray(mask)
        picture.putpalette([0, 0, 0, 128, 0, 0])  # as VOC's
        picture.save(tmp_path / "SegmentationClass" / f"{k}.png")
    data = {"masks": tmp_path / "SegmentationClass"}
    return tmp_path, Card("rgb", (0.0,) * 3, (255.0,) * 3, task="segmentation", data=data)


def test_folders(voc: tuple[Path, Card]) -> None:
    folder, card = voc
    pictures = folder / "JPEGImages"
    result = evaluate(folder / "net.onnx", pictures, card, folder / "net.onnx")
    assert result.pop("outputs")
    assert result.pop("chance").keys() == {"agreement", "sqnr_db", "miou"}
    assert result == {
        "samples": 2,
        "unlabelled": 1,
        "miou": 100.0,
        "pixel_accuracy": 100.0,
        "agreement": 100.0,
        "sqnr_db": float("inf"),
        "cosine": pytest.approx(1),
    }
    assert count(pictures, card) == 2
    assert evaluate(folder / "net.onnx", pictures, card, limit=1)["samples"] == 1
    (folder / "val.txt").write_text("1\n")
    listed = replace(card, data={**card.data, "list": folder / "val.txt"})
    assert evaluate(folder / "net.onnx", pictures, listed)["samples"] == 1


def test_fixed_size(voc: tuple[Path, Card]) -> None:
    folder, card = voc
    result = evaluate(folder / "net.onnx", folder / "JPEGImages", replace(card, size=(8, 12)))
    assert result["samples"] == 2
    assert result["miou"] > 70


def test_arrays(voc: tuple[Path, Card]) -> None:
    folder, card = voc
    x = np.zeros((2, 4, 6, 3), np.uint8)
    y = np.zeros((2, 4, 6), np.uint8)
    y[0, :2] = 1
    np.savez(folder / "data.npz", x=x, y=y)
    result = evaluate(folder / "net.onnx", folder / "data.npz", card)
    assert result["pixel_accuracy"] == pytest.approx(75)
    assert result["miou"] == pytest.approx(37.5)
    np.savez(folder / "data.npz", x=x, y=np.zeros(2, int))
    with pytest.raises(EquintError, match=r"data\.npz: y has shape \(2,\)"):
        evaluate(folder / "net.onnx", folder / "data.npz", card)


def test_errors_name_the_file(voc: tuple[Path, Card]) -> None:
    folder, card = voc
    pictures, masks = folder / "JPEGImages", folder / "SegmentationClass"

    def refused(part: str, card: Card = card) -> None:
        with pytest.raises(EquintError, match=part) as error:
            evaluate(folder / "net.onnx", pictures, card)
        assert "\n" not in str(error.value)

    refused("no masks in", replace(card, data={}))
    refused("absent: no such folder", replace(card, data={"masks": folder / "absent"}))
    (folder / "val.txt").write_text("0\n17\n")
    refused(r"val\.txt: 17 is not in", replace(card, data={**card.data, "list": folder / "val.txt"}))
    Image.new("RGB", (6, 4)).save(masks / "0.png")
    refused(r"0\.png: a mask in colours")
    Image.new("L", (4, 6)).save(masks / "0.png")
    refused(r"0\.png: the mask is 4×6, but its picture 6×4")
    Image.new("L", (6, 4), 30).save(masks / "0.png")
    refused(r"0\.png: the mask says class 30")
    whole = (masks / "1.png").read_bytes()
    (masks / "0.png").write_bytes(whole[: len(whole) // 2])
    refused(r"0\.png: not a readable picture")
    (masks / "0.png").write_bytes(whole[:40] + b"\0\0\0\0" + whole[44:])
    refused(r"0\.png: not a readable picture")
    for k in range(2):
        (masks / f"{k}.png").rename(masks / f"mask{k}.png")
    refused(r"masks are missing for every picture.*0\.png")


def test_a_card_without_masks_still_compares(voc: tuple[Path, Card]) -> None:
    folder, card = voc
    result = evaluate(folder / "net.onnx", folder / "JPEGImages", replace(card, data={}), folder / "net.onnx")
    assert result["samples"] == 3
    assert result["agreement"] == 100
    assert "miou" not in result
