"""Accuracy, agreement and SQNR against sums made at once over all samples."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

import equint
from equint.demo import data_path, model_path
from equint.errors import EquintError
from equint.samples.card import Card
from equint.scoring.metrics import Tally, count, evaluate
from handwritten import execute, network, normal

CARD = Card("features")


def written(folder: Path, name: str, scale: float = 1.0) -> Path:
    w = normal(7, 5) * np.float32(scale) + normal(7, 5, seed=2) * np.float32(scale - 1)
    model = network("y = Gemm <transB = 1> (x, w)", inputs="float[N,5] x", output="float[N,7] y", w=w)
    onnx.save(model, folder / name)
    return folder / name


def test_measures_equal_those_of_all_samples_at_once(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(150, 5)).astype(np.float32), rng.integers(0, 7, 150)
    np.savez(tmp_path / "data.npz", x=x, y=y)
    clean, noisy = written(tmp_path, "a.onnx"), written(tmp_path, "b.onnx", 1.4)
    found = evaluate(noisy, tmp_path / "data.npz", CARD, clean)
    (a,), (b,) = execute(onnx.load(clean), x), execute(onnx.load(noisy), x)
    order = np.argsort(-b, 1)
    assert found["samples"] == 150
    assert found["top1"] == pytest.approx(100 * np.mean(order[:, 0] == y))
    assert found["top5"] == pytest.approx(100 * np.mean([y[i] in order[i, :5] for i in range(150)]))
    assert found["agreement"] == pytest.approx(100 * np.mean(a.argmax(1) == b.argmax(1)))
    assert found["sqnr_db"] == pytest.approx(10 * np.log10((a**2).sum() / ((a - b) ** 2).sum()), rel=1e-5)
    assert found["cosine"] == pytest.approx((a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum()), rel=1e-5)


def test_labels_in_another_order_look_like_guesses(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, model = rng.normal(size=(150, 5)).astype(np.float32), written(tmp_path, "a.onnx")
    (scores,) = execute(onnx.load(model), x)
    for y, guesses in ((scores.argmax(1), False), ((scores.argmax(1) + 1) % 7, True)):
        np.savez(tmp_path / "data.npz", x=x, y=y)
        assert evaluate(model, tmp_path / "data.npz", CARD, model)["chance"].get("guessed", False) == guesses


def test_limit_takes_the_first_samples(tmp_path: Path) -> None:
    x = np.eye(5, dtype=np.float32)
    np.savez(tmp_path / "data.npz", x=x, y=np.zeros(5, np.int64))
    model = written(tmp_path, "a.onnx")
    assert evaluate(model, tmp_path / "data.npz", CARD, limit=3)["samples"] == 3


def test_without_labels_there_is_nothing_to_measure_alone(tmp_path: Path) -> None:
    np.save(tmp_path / "data.npy", np.zeros((2, 5), np.float32))
    model = written(tmp_path, "a.onnx")
    with pytest.raises(EquintError, match="--against"):
        evaluate(model, tmp_path / "data.npy", CARD)


def test_features_are_only_compared(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.eye(5, dtype=np.float32), y=np.zeros(5, np.int64))
    clean, noisy = written(tmp_path, "a.onnx"), written(tmp_path, "b.onnx", 1.4)
    card = Card("features", task="features")
    assert {"samples", "sqnr_db", "cosine", "outputs", "chance"} == set(
        evaluate(noisy, tmp_path / "data.npz", card, clean)
    )
    with pytest.raises(EquintError, match="no labels for features"):
        evaluate(noisy, tmp_path / "data.npz", card)


def test_keywords_are_classified(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.eye(5, dtype=np.float32), y=np.zeros(5, np.int64))
    model, data = written(tmp_path, "a.onnx"), tmp_path / "data.npz"
    assert evaluate(model, data, Card(task="keyword-spotting")) == evaluate(model, data, CARD)
    assert count(data, CARD, limit=3) == 3
    assert count(data, CARD) == 5


def test_detectors_on_arrays_are_only_compared(tmp_path: Path) -> None:
    np.save(tmp_path / "data.npy", np.eye(5, dtype=np.float32))
    model, card = written(tmp_path, "a.onnx"), Card(task="detection", data={"boxes": "b", "heads": "h"})
    assert evaluate(model, tmp_path / "data.npy", card, model)["sqnr_db"] == float("inf")
    with pytest.raises(EquintError, match="no labels for detection"):
        evaluate(model, tmp_path / "data.npy", card)


@pytest.mark.parametrize("labels", [np.zeros(2), np.zeros((2, 1), int)])
def test_labels_are_whole_numbers(labels: NDArray[np.generic]) -> None:
    with pytest.raises(EquintError, match="one whole number per sample"):
        Tally().add_labels(np.zeros((2, 7)), labels)


def test_labels_beyond_the_classes_are_refused() -> None:
    with pytest.raises(EquintError, match="labels up to 9"):
        Tally().add_labels(np.zeros((2, 7)), np.array([0, 9]))


def test_other_outputs_are_refused() -> None:
    with pytest.raises(EquintError, match="output y"):
        Tally().add_reference({"z": np.zeros(3)}, {"y": np.zeros(3)})


def test_detectors_have_no_agreement() -> None:
    tally = Tally()
    tally.add_reference({"y": np.ones((1, 4, 2))}, {"y": np.ones((1, 4, 2))}, decides=False)
    assert "agreement" not in tally.results()
    assert tally.results()["sqnr_db"] == float("inf")


def test_class_numbers_are_compared_as_they_are() -> None:
    tally = Tally()
    tally.add_reference({"y": np.array([[[0, 1], [2, 2]]])}, {"y": np.array([[[0, 1], [2, 3]]])})
    assert tally.results()["agreement"] == 75


@pytest.mark.parametrize(
    ("task", "why"),
    [
        ("detection", "; not scored as detection: the card has no boxes and heads or priors in [data]"),
        ("features", "; not scored: labels of classes tell nothing of task features; correct the task in the card"),
        ("classification", ""),
    ],
)
def test_labels_that_are_not_used_are_told(task: str, why: str) -> None:
    card = equint.Card("gray", (0.0,), (16.0,), task=task)
    found = equint.evaluate(model_path(), data_path(), card, model_path(), limit=20).verdict
    assert found is not None
    assert why in found.words
    assert ("not scored" in found.words) is bool(why)
