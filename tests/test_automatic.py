"""One call: its verdict is what `evaluate` measures, its bound what the labels say."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import equint
from equint import Card, EquintError
from equint.demo import data_path, model_path
from equint.ir.model import QSpec
from equint.runtime.session import Session
from handwritten import network, normal

REAL = os.environ.get("EQUINT_REAL", "")
WILD = os.environ.get("EQUINT_WILD", "")
pytestmark = pytest.mark.slow


def top1(source: object, count: int) -> float:
    """By a run of its own."""
    with np.load(data_path()) as file:
        x, y = file["x"][:count], file["y"][:count]
    scores = Session(source).run(np.moveaxis(x, -1, 1).astype(np.float32) / 16)["output"]  # type: ignore[arg-type]
    return 100 * float(np.mean(scores.argmax(1) == y))


def test_a_network_alone() -> None:
    found = equint.auto(model_path())
    assert found.evaluation is None
    assert found.judgement is not None
    assert "made-up samples" in found.verdict
    assert found.held is None
    assert found.findings.clean


def test_what_it_says_is_what_is_measured() -> None:
    found = equint.auto(model_path(), data=data_path(), max_drop=1.0)
    assert found.evaluation is not None
    count = found.evaluation.figures["samples"]
    before, after = top1(model_path(), count), top1(found.result.proto, count)
    assert found.drop == pytest.approx(before - after)
    assert found.held == (before - after <= 1.0)
    assert f"{before:.1f} to {after:.1f} %" in found.verdict


def test_a_bound_is_met_by_spending_bits() -> None:
    """Four bits a weight lose more than a point; 16 bits where needed do not."""
    four = equint.Target("four", "four bits", QSpec(4, granularity="channel"), recipe="cwq")
    loose = equint.auto(model_path(), four, data=data_path(), max_drop=100.0)
    assert loose.drop is not None
    assert loose.drop > 0.5
    tight = equint.auto(model_path(), four, data=data_path(), max_drop=0.5)
    assert tight.held
    assert tight.mixed is not None
    assert tight.mixed.chosen
    assert top1(model_path(), 400) - top1(tight.result.proto, 400) == pytest.approx(tight.drop)


def test_a_bound_that_cannot_be_met_is_not_held() -> None:
    two = equint.Target("two", "two bits", QSpec(2, granularity="shift"), recipe="wes", shift_bits=4)
    found = equint.auto(model_path(), two, data=data_path(), max_drop=0.5)
    assert found.held is False
    assert "NOT held" in found.verdict


def test_bounds_without_labels_are_refused_before_the_work(tmp_path: Path) -> None:
    with np.load(data_path()) as file:
        np.savez(tmp_path / "bare.npz", x=file["x"][:40])
    for data in (None, tmp_path / "bare.npz"):
        with pytest.raises(EquintError, match="labels"):
            equint.auto(model_path(), data=data, max_drop=0.5)
    with pytest.raises(EquintError, match="points from 0 to 100"):
        equint.auto(model_path(), data=data_path(), max_drop=-1)


def test_labels_that_do_not_fit_are_a_note(tmp_path: Path) -> None:
    with np.load(data_path()) as file:
        np.savez(tmp_path / "a.npz", x=file["x"][:40], y=file["y"][:40] + 50)
    card = Card("gray", (0.0,), (16.0,), data={"eval": tmp_path / "a.npz", "calibration": tmp_path / "a.npz"})
    found = equint.auto(model_path(), card=card)
    assert "not scored: " in found.notes[0]
    assert "output SQNR" in found.verdict


def test_inputs_of_several_kinds(tmp_path: Path) -> None:
    text = "a = Add (x, z) y = Conv (a, w)"
    model = network(text, w=normal(4, 3, 3, 3), inputs="float[N,3,8,8] x, float[N,3,8,8] z")
    rng = np.random.default_rng(0)
    x, z = (rng.normal(size=(40, 3, 8, 8)).astype(np.float32) for _ in range(2))
    np.savez(tmp_path / "a.npz", x=x, z=z)
    found = equint.auto(model, data=tmp_path / "a.npz")
    assert found.proposal is not None
    assert found.proposal.card.task == "features"
    assert "output SQNR" in found.verdict


def test_inputs_of_several_kinds_may_have_labels(tmp_path: Path) -> None:
    text = "a = Add (x, z) b = GlobalAveragePool (a) c = Flatten (b) y = MatMul (c, w)"
    model = network(text, w=normal(3, 5), inputs="float[N,3,8,8] x, float[N,3,8,8] z", outputs="float[N,5] y")
    rng = np.random.default_rng(0)
    x, z = (rng.normal(size=(160, 3, 8, 8)).astype(np.float32) for _ in range(2))
    y = Session(model).run({"x": x, "z": z})["y"].argmax(1)
    np.savez(tmp_path / "a.npz", x=x, z=z, y=y)
    found = equint.auto(model, data=tmp_path / "a.npz", max_drop=50.0)
    assert found.held
    assert found.evaluation is not None
    assert found.evaluation.original is not None
    assert found.evaluation.original["top1"] == 100.0


def test_pictures_out_of_pictures_are_no_classes(tmp_path: Path) -> None:
    text = "a = Conv<pads=[1,1,1,1]> (x, v) b = Relu (a) y = Conv<pads=[1,1,1,1]> (b, w)"
    model = network(text, v=normal(8, 3, 3, 3), w=normal(3, 8, 3, 3), inputs="float[N,3,16,16] x")
    x = np.random.default_rng(0).integers(0, 256, (100, 16, 16, 3), np.uint8)
    np.savez(tmp_path / "a.npz", x=x)
    found = equint.card(model, tmp_path / "a.npz")
    assert found.card.task == "features"
    assert "its output is a picture of the input's size" in found.toml(tmp_path)


def test_haste_is_enough_where_it_is_good() -> None:
    assert equint.auto(model_path(), data=data_path()).result.job.effort == "fast"
    assert equint.auto(model_path(), data=data_path(), effort="full").result.job.effort == "full"


def test_more_is_tried_where_haste_is_not_good() -> None:
    four = equint.Target("four", "four bits", QSpec(4, granularity="tensor"), recipe="optimal")
    fast = equint.auto(model_path(), four, data=data_path(), effort="fast")
    both = equint.auto(model_path(), four, data=data_path())
    assert fast.evaluation is not None
    assert both.evaluation is not None
    assert both.evaluation.figures["sqnr_db"] >= fast.evaluation.figures["sqnr_db"]


def test_the_range_of_the_input_may_be_given() -> None:
    found = equint.auto(model_path(), input_range=(0, 1))
    assert not any(e.kind.name == "INPUT_ASSUMED" for e in found.result.model.log)
    with pytest.raises(EquintError, match="input_range beside card or data"):
        equint.auto(model_path(), input_range=(0, 1), data=data_path())


@pytest.mark.skipif(not REAL, reason="EQUINT_REAL names no folder of real networks")
def test_flowers_in_one_call() -> None:
    found = equint.auto(
        Path(REAL) / "models/mobilenet_v2_035_224_flowers.onnx", data=Path(REAL) / "flowers", max_drop=2.0, limit=100
    )
    assert found.proposal is not None
    assert found.proposal.way == "−1 to 1"
    assert found.held


@pytest.mark.skipif(not WILD, reason="EQUINT_WILD names no folder of networks")
@pytest.mark.parametrize("name", ["ppocr_cls", "silero_vad", "wakeword", "torch_twoin_static", "captcha"])
def test_networks_of_all_kinds(name: str) -> None:
    found = equint.auto(Path(WILD) / f"models/{name}.onnx")
    assert found.verdict
    assert found.page(name).startswith("<!doctype html>")
