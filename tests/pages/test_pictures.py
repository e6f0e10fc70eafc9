"""The picture view: both answers of every task, as the networks give them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

import equint
from equint.demo import data_path, model_path
from equint.pages.pictures import picture_view
from equint.pages.views import pictures
from equint.runtime.session import Session
from equint.samples.card import Card
from equint.samples.images import Samples

GRAY = Card("gray", (0.0,), (16.0,))


def both(card: Card, first: Any, second: Any, x: np.ndarray, outputs: tuple[str, ...] = ("y",)) -> dict[str, Any]:
    return picture_view(lambda _: first, lambda _: second, [(x, None)], card, outputs)


def test_digits_show_what_both_networks_say() -> None:
    result = equint.quantize(model_path(), "lwq", "per-tensor", input=GRAY)
    found = pictures(result, GRAY, data_path(), None)
    assert found["samples"] == 60
    networks = [Session(str(model_path())), Session(result.proto)]
    with np.load(data_path()) as file:
        x, y = np.moveaxis(file["x"][:60].reshape(60, 8, 8, -1), -1, 1).astype(np.float32) / 16, file["y"]
    said = [next(iter(network.run(x).values())) for network in networks]
    differ = int((said[0].argmax(1) != said[1].argmax(1)).sum())
    assert found["words"].startswith(f"{differ} of 60 samples get another answer")
    for shown in found["shown"]:
        number = int(shown["title"].split()[1].rstrip(",")) - 1
        assert shown["truth"] == f"class {y[number]}"
        for answers, scores in zip(shown["answers"], said, strict=True):
            order = np.argsort(-scores[number])[:3]
            assert [name for name, _ in answers] == [f"class {k}" for k in order]
            share = np.exp(scores[number] - scores[number].max())
            assert np.allclose([p for _, p in answers], (share / share.sum())[order], atol=1e-5)


def test_labels_are_named() -> None:
    card = Card("rgb", task="classification", labels=("cat", "dog"))
    a, b = {"y": np.array([[2.0, 0.0]])}, {"y": np.array([[0.0, 2.0]])}
    (shown,) = both(card, a, b, np.full((1, 3, 9, 9), 40.0))["shown"]
    assert [answers[0][0] for answers in shown["answers"]] == ["cat", "dog"]
    assert shown["title"] == "sample 1, another answer"


def test_masks_stand_beside_their_picture() -> None:
    a, b = np.zeros((1, 3, 8, 8)), np.zeros((1, 3, 8, 8))
    b[0, 2, :4] = 1.0
    (shown,) = both(Card("rgb", task="segmentation"), {"y": a}, {"y": b}, np.full((1, 3, 8, 8), 40.0))["shown"]
    assert [name for name, _ in shown["others"]] == ["float", "integers"]
    assert shown["note"].startswith("50.0 %")


def test_boxes_of_both(tmp_path: Path) -> None:
    """One prior that fills the picture: offsets of zero give it back; the integers score too little to be shown."""
    np.save(tmp_path / "priors.npy", np.array([[0.5, 0.5, 1.0, 1.0]]))
    card = Card("rgb", task="detection", data={"priors": tmp_path / "priors.npy"}, labels=("face",))
    offsets, sure, unsure = np.zeros((1, 1, 4)), np.array([[[0.0, 3.0]]]), np.array([[[3.0, 0.0]]])
    first, second = ({"scores": s, "boxes": offsets} for s in (sure, unsure))
    (shown,) = both(card, first, second, np.full((1, 3, 8, 8), 40.0), ("scores", "boxes"))["shown"]
    assert shown["boxes"][0] == [{"at": [0, 0, 1, 1], "label": "face", "score": float(1 / (1 + np.exp(-3)))}]
    assert shown["boxes"][1] == []
    json.dumps(shown)


def test_enlarged_pictures_and_their_difference() -> None:
    card = Card("gray", (0.0,), (255.0,), task="super-resolution", data={"scale": 2})
    a = np.full((1, 1, 80, 80), 0.5)
    (shown,) = both(card, {"y": a}, {"y": a + 2 / 255}, np.full((1, 1, 40, 40), 0.5))["shown"]
    assert [name for name, _ in shown["others"]] == ["float", "integers", "difference, 16 times"]
    assert "2.00 of 255" in shown["note"]


def test_what_is_no_picture_is_not_shown() -> None:
    assert both(Card("features"), {}, {}, np.zeros((1, 9))) == {}
    result = equint.quantize(model_path(), "cwq", input=(0, 1))
    assert pictures(result, None, None, Samples.of(np.zeros((1, 1, 8, 8), np.float32))) == {}


def test_data_that_cannot_be_read_are_a_reason(tmp_path: Path) -> None:
    result = equint.quantize(model_path(), "cwq", input=(0, 1))
    assert "none.npz" in pictures(result, GRAY, tmp_path / "none.npz", None)["why"]
