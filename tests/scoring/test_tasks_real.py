"""Float networks reach, on real pictures, the figures that others measured on them."""

import os
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

from equint.samples.card import read_card
from equint.scoring.metrics import evaluate
from equint.scoring.tasks import missing

FOLDER = Path(os.environ.get("EQUINT_REAL", ""))
pytestmark = pytest.mark.skipif(not os.environ.get("EQUINT_REAL"), reason="EQUINT_REAL names no folder of networks")


def measured(name: str, limit: int | None = None) -> dict[str, float]:
    path = FOLDER / f"{name}.toml"
    card = read_card(path)
    assert not missing(card.task, card.data)
    model = FOLDER / tomllib.loads(path.read_text())["model"]
    return evaluate(model, card.data["eval"], card, optimized=True, limit=limit)


def test_super_resolution() -> None:
    assert measured("fsrcnn_x2")["psnr"] == pytest.approx(33.5, abs=0.1)


def test_keywords() -> None:
    assert measured("dscnn_kws")["top1"] == pytest.approx(93.33, abs=0.01)


def test_segmentation() -> None:
    found = measured("deeplabv3_mnv2_dm05_257_voc")
    assert found["miou"] == pytest.approx(47.2, abs=0.3)  # 46.6 with masks made as small as the output
    assert (found["samples"], found["unlabelled"]) == (50, 14)


@pytest.mark.skipif(find_spec("pycocotools") is None, reason="average precision is computed by pycocotools")
def test_detection() -> None:
    assert measured("ultraface_rfb320")["map50"] == pytest.approx(100, abs=0.1)
    assert 35 < measured("yolo_fastest_11_coco")["map50"] < 42
