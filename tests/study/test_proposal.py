"""Cards that are proposed: what is written is read back, and is right for networks whose preparation is known."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import equint
from equint import EquintError
from equint.demo import data_path, model_path
from equint.samples.card import read_card
from equint.study.proposal import propose
from handwritten import network, normal

REAL = os.environ.get("EQUINT_REAL", "")
real = pytest.mark.skipif(not REAL, reason="EQUINT_REAL names no folder of real networks")
TRUE = {
    "mobilenet_v1_025_224_imagenet": "imagenet",
    "mobilenet_v1_025_96_vww": "vww_eval.npz",
    "mobilenet_v2_035_224_flowers": "flowers",
    "resnet20_cifar10": "cifar_eval.npz",
    "resnet8_cifar10_mlperftiny": "cifar_eval.npz",
    "fsrcnn_x2": "set5",
    "ultraface_rfb320": "faces",
}


def test_the_text_is_a_card(tmp_path: Path) -> None:
    found = propose(equint.load(model_path()), data_path())
    (tmp_path / "c.toml").write_text(found.toml(tmp_path))
    card = read_card(tmp_path / "c.toml")
    assert (card.kind, card.mean, card.std, card.size, card.range) == ("gray", (0.0,), (16.0,), (8, 8), (0.0, 1.0))
    assert card.data["eval"].resolve() == data_path().resolve()
    named = tomllib.loads((tmp_path / "c.toml").read_text())["model"]
    assert (tmp_path / named).resolve() == model_path().resolve()
    score = equint.evaluate(model_path(), None, card, limit=100).figures["top1"]
    assert next(way.score for way in found.ways if way.words == found.way) == score


def test_arrays_that_fit_are_fed_as_they_are(tmp_path: Path) -> None:
    model = equint.load(network("y = Conv (x, w)", w=normal(4, 2, 3, 3), inputs="float[N,2,9,9] x"))
    x = np.random.default_rng(0).normal(0, 3, (10, 2, 9, 9)).astype(np.float32)
    np.savez(tmp_path / "a.npz", x=x)
    card = propose(model, tmp_path / "a.npz").card
    assert card.kind == "features"
    assert card.range is not None
    assert card.range[0] <= x.min()
    assert x.max() <= card.range[1]


@pytest.mark.parametrize("value", [0.0, 0.5, 1e30])
def test_arrays_of_one_value_are_refused_by_name(tmp_path: Path, value: float) -> None:
    model = equint.load(network("y = Conv (x, w)", w=normal(4, 2, 3, 3), inputs="float[N,2,9,9] x"))
    np.savez(tmp_path / "a.npz", x=np.full((10, 2, 9, 9), value, np.float32))
    with pytest.raises(EquintError, match=r"a\.npz: its first samples hold nothing but"):
        propose(model, tmp_path / "a.npz")


def test_labels_that_do_not_fit_are_told(tmp_path: Path) -> None:
    with np.load(data_path()) as file:
        np.savez(tmp_path / "a.npz", x=file["x"][:20], y=file["y"][:20] + 50)
    found = propose(equint.load(model_path()), tmp_path / "a.npz")
    assert found.way == "0 to 1"  # as the BatchNorms say
    assert any("labels could not be used" in doubt for doubt in found.doubts)
    assert all(way.score is None for way in found.ways)


def test_labels_in_another_order_are_told(tmp_path: Path) -> None:
    with np.load(data_path()) as file:
        np.savez(tmp_path / "a.npz", x=file["x"][:100], y=(file["y"][:100] + 1) % 10)
    found = propose(equint.load(model_path()), tmp_path / "a.npz")
    assert any("no more than by guessing" in doubt for doubt in found.doubts)


def test_pictures_for_what_reads_none(tmp_path: Path) -> None:
    model = equint.load(network("y = Conv (x, w)", w=normal(4, 5, 3, 3), inputs="float[N,5,9,9] x"))
    np.savez(tmp_path / "a.npz", x=np.zeros((2, 9, 9, 3), np.uint8))
    with pytest.raises(EquintError, match="no picture of 1 or 3 channels"):
        propose(model, tmp_path / "a.npz")


@real
@pytest.mark.slow
@pytest.mark.parametrize("name", TRUE)
def test_what_is_known_of_real_networks_is_found(name: str) -> None:
    """Mean and spread as the cards say that came with them, to a hundredth of the range."""
    known = read_card(Path(REAL) / f"{name}.toml")
    found = propose(equint.load(Path(REAL) / "models" / f"{name}.onnx"), Path(REAL) / TRUE[name])
    assert found.clear
    assert (found.card.kind, found.card.size) == (known.kind, known.size)
    ends = [[((v - m) / s) for m, s in zip(c.mean, c.std, strict=True)] for c in (known, found.card) for v in (0, 255)]
    np.testing.assert_allclose(ends[:2], ends[2:], atol=0.01 * (ends[1][0] - ends[0][0]))
    if known.task != "detection":
        assert found.card.task == known.task


def test_a_label_that_is_no_class_is_refused(tmp_path: Path) -> None:
    for k in range(2):
        Image.fromarray(np.full((8, 8), 9 * k, np.uint8)).save(tmp_path / f"{k}.png")
    (tmp_path / "labels.csv").write_text("file,label\n0.png,1\n1.png,1_0\n")
    with pytest.raises(EquintError, match=r"labels\.csv: row 3: label '1_0'"):
        propose(equint.load(model_path()), tmp_path)
