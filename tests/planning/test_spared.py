"""Nothing that was read is written over, whoever asks for it and however it was named; what is there stays as it is."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

import equint
from commands import Run
from equint.demo import data_path, model_path
from equint.errors import OutputRefused
from equint.onnx.encodings import Beside
from equint.planning.spared import spare
from equint.samples.card import Card

CARD = '[input]\nkind = "gray"\nmean = [0.0]\nstd = [16.0]\nrange = [0, 1]\n[data]\ncalibration = "calib.npz"\n'


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a network, its external data, a card with data, images, a recipe and a target; one stands in it."""
    place = tmp_path / "room"
    (place / "photos").mkdir(parents=True)
    monkeypatch.chdir(place)
    onnx.save(onnx.load(model_path()), "net.onnx", save_as_external_data=True, location="net.bin", size_threshold=0)
    with np.load(data_path()) as data:
        np.savez("calib.npz", x=data["x"][:4])
        for k in range(4):
            Image.fromarray((data["x"][k] * 15).astype(np.uint8).reshape(8, 8)).save(f"photos/{k}.png")
    Path("net.toml").write_text(CARD, "utf-8")
    Path("mine.toml").write_text(
        '[[passes]]\npass = "fold_batchnorm"\n[[passes]]\npass = "calibrate"\n'
        '[[passes]]\npass = "activation_ranges"\n[[passes]]\npass = "quantize"\n',
        "utf-8",
    )
    Path("dsp.toml").write_text("[weight]\nsymmetric = true\n", "utf-8")
    os.symlink("net.bin", "link.onnx")
    return place


LOST = [
    ("net.onnx", "the model"),
    ("../room/net.onnx", "the model"),
    ("net.bin", "the weights of"),
    ("link.onnx", "the weights of"),
    ("net.toml", "the card"),
    ("calib.npz", "calibration of net.toml"),
    ("photos/2.png", "the data"),
    ("mine.toml", "the recipe"),
    ("dsp.toml", "the target"),
]  # fmt: skip
GIVEN: dict[str, Any] = {"recipe": "mine.toml", "target": "dsp.toml", "input": "net.toml", "data": "photos"}


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refuses(write: Callable[[], object], lost: str, what: str, folder: Path) -> None:
    before = contents(folder)
    with pytest.raises(OutputRefused, match="would overwrite") as found:
        write()
    assert f"{lost}: would overwrite {what}" in str(found.value)
    assert contents(folder) == before


def test_results_and_exports_spare_what_they_are_of(files: Path) -> None:
    result = equint.quantize("net.onnx", force=True, **GIVEN)
    for lost, what in LOST:
        refuses(partial(result.save, lost), lost, what, files)
        refuses(partial(equint.export, "net.onnx", lost, format="qdq", **GIVEN), lost, what, files)
        refuses(partial(equint.export, "net.onnx", lost, format="integer", **GIVEN), lost, what, files)
    formats: tuple[Beside, ...] = ("onnx-float", "encodings")
    for format in formats:
        refuses(partial(result.save, "net", format), "net.onnx", "the model", files)
    result.save("int8.onnx")
    result.save("int8.onnx")  # what it wrote itself
    assert onnx.load("int8.onnx").graph.node


def test_what_was_loaded_before_is_spared_too(files: Path) -> None:
    network, card = (
        equint.load("net.onnx"),
        equint.Card("gray", (0.0,), (16.0,), range=(0.0, 1.0), data={"calibration": Path("calib.npz")}),
    )
    os.chdir("photos")
    result = equint.quantize(network, "lwq", input=(0, 1))
    refuses(lambda: result.save("../net.bin"), "../net.bin", "the weights of", files)
    refuses(lambda: equint.export(network, "../net", format="onnx-float", input=(0, 1)), "net.onnx", "the model", files)
    os.chdir("..")
    named = equint.quantize(network, "lwq", input=card)
    refuses(lambda: named.save("calib.npz"), "calib.npz", "calibration of the card", files)


def test_a_file_of_weights_beside_the_output_is_spared(files: Path) -> None:
    """Constants above 2 GB go to NAME.data."""
    os.rename("net.bin", "int8.onnx.data")
    proto = onnx.load("net.onnx", load_external_data=False)
    for entry in (e for t in proto.graph.initializer for e in t.external_data if e.key == "location"):
        entry.value = "int8.onnx.data"
    onnx.save(proto, "net.onnx")
    result = equint.quantize("net.onnx", "lwq", input=(0, 1))
    refuses(lambda: result.save("int8.onnx"), "int8.onnx.data", "the weights of", files)


def test_bundles_are_spared_whichever_file_names_them(files: Path) -> None:
    equint.export("net.onnx", "npu", input=(0, 1), effort="fast")
    for source in ("npu.json", "npu.safetensors"):
        refuses(
            partial(equint.export, source, "npu.safetensors", format="integer"),
            "npu.safetensors",
            "the model",
            files,
        )


def test_the_command_line_has_the_same_guard(files: Path, run: Run) -> None:
    shown = ("--recipe", "mine.toml", "--target", "dsp.toml", "--card", "net.toml", "--data", "photos")
    for command in (("quantize",), ("export", "--format", "qdq")):
        for lost, what in LOST:
            before = contents(files)
            code, text, err = run(*command, "net.onnx", "-o", lost, *shown)
            assert (code, text) == (2, "")
            assert f"{lost}: would overwrite {what}" in err
            assert contents(files) == before


def test_files_that_a_pattern_fits_are_spared(tmp_path: Path) -> None:
    for name in ("0.tar", "1.tar"):
        (tmp_path / name).write_text("mine")
    card = tmp_path / "c.toml"
    card.write_text('[data]\neval = "*.tar"\n')
    for given in (
        {"data": tmp_path / "*.tar"},
        {"card": card},
        {"card": Card("rgb", data={"eval": f"{tmp_path}/*.tar"})},
    ):
        spare({tmp_path / "2.tar": None}, given)
        with pytest.raises(OutputRefused, match="would overwrite"):
            spare({tmp_path / "1.tar": None}, given)


def test_an_output_may_join_the_images(files: Path) -> None:
    """A folder of images is spared file by file: a new name there overwrites nothing."""
    equint.quantize("net.onnx", "lwq", input=(0, 1)).save("photos/int8.onnx")
    assert onnx.load("photos/int8.onnx").graph.node
