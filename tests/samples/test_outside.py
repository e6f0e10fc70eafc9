"""Samples of another range than a file was quantized for are told, with the numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import equint
from commands import Run
from equint.demo import data_path, model_path
from equint.errors import UnreadableModel
from equint.samples.outside import NARROW, OUTSIDE, Outside


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("quantized") / "q.onnx"
    equint.quantize(model_path(), "lwq", input=(0, 1)).save(path)
    return path


def told(*feeds: object) -> list[str]:
    seen = Outside({"x": (0.0, 1.0)})
    for feed in feeds:
        part = Outside(seen.spans)
        part.add(np.asarray(feed, np.float32))
        seen.merge(part)
    return list(seen.warnings())


def test_a_few_outliers_saturate_as_they_should() -> None:
    few, many = int(1000 * OUTSIDE), int(1000 * OUTSIDE) + 1
    rest = np.linspace(0, 1, 1000)
    assert told([[*rest[few:], *[9.0] * few]]) == []
    assert "1.1 % of the values, from" in told([[*rest[many:], *[9.0] * many]])[0]
    assert told([[0.0, 1.05]]) == [], "within the margin"


def test_values_that_fill_little_are_of_another_range() -> None:
    assert told([[0.5, 0.5 + NARROW]]) == []
    assert "values from 0.5 to 0.55 fill little of the range 0 to 1" in told([[0.5, 0.55]])[0]


def test_what_parts_saw_is_added_up() -> None:
    (line,) = told([[0.0, 255.0]], [[-3.0, 64.0]])
    assert line.startswith("x: 75 % of the values, from -3 to 255, lie outside the range 0 to 1")


def test_inputs_by_name() -> None:
    seen = Outside({"x": (0.0, 1.0), "y": (0.0, 300.0)})
    pixels = np.array([[0.0, 255.0]])
    seen.add({"x": pixels, "y": pixels, "rate": np.array(8000.0)})
    assert [line.partition(":")[0] for line in seen.warnings()] == ["x"]


def test_evaluate_and_compare_say_that_samples_lie_outside(quantized: Path, run: Run) -> None:
    raw = ("--data", data_path(), "--kind", "gray")  # pixels reach 16
    asked = ("evaluate", quantized, "--against", model_path(), *raw)
    code, text, _ = run(*asked)
    assert code == 0
    said = text.splitlines()[-1]
    assert said.startswith("! input: ")
    assert "from 0 to 16, lie outside the range 0 to 1 that the file was quantized for; prepare them as" in said
    found = json.loads(run(*asked, "--json")[1])
    assert found["warnings"] == [said.removeprefix("! ")]
    with np.load(data_path()) as data:
        pixels = data["x"].reshape(-1, 1, 8, 8).astype(np.float32)
    assert equint.compare(model_path(), quantized, pixels, limit=500).warnings == (said.removeprefix("! "),)
    assert equint.compare(model_path(), quantized, pixels / 16).warnings == ()
    card = equint.Card("gray", (0.0,), (16.0,))
    assert equint.evaluate(quantized, data_path(), card, model_path()).warnings == ()
    assert equint.evaluate(model_path(), data_path(), equint.Card("gray")).warnings == (), "of a float network"


def test_a_quantized_network_is_no_original(quantized: Path) -> None:
    card = equint.Card("gray", (0.0,), (16.0,))
    with pytest.raises(UnreadableModel, match=r"q\.onnx: already quantized .*; give the float model"):
        equint.evaluate(quantized, data_path(), card, quantized)
    with pytest.raises(UnreadableModel, match=r"q\.onnx: already quantized .*; give the float model"):
        equint.compare(quantized, quantized, data_path(), card)
