"""How pictures are prepared, found again: networks whose BatchNorms saw pictures prepared in each of the usual ways."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from equint import EquintError, load
from equint.ir.model import Model
from equint.maths.pictures import pictures
from equint.onnx.writer import to_proto
from equint.runtime.session import Session
from equint.samples.card import Card
from equint.samples.survey import survey
from equint.study.preparations import chosen, input_of, measured, running, sizes_tried, ways
from equint.study.proposal import propose
from handwritten import network, normal

WAYS = {way.words: way for way in ways(3)}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures drawn as photographs are distributed."""
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(2):
        for k, x in enumerate(pictures(8, 32, 32, 3, seed)):
            Image.fromarray(np.clip(x.transpose(1, 2, 0), 0, 255).astype(np.uint8)).save(folder / f"{seed}{k}.png")
    return folder


def trained(words: str, photos: Path) -> Model:
    """A convolution and a BatchNorm whose statistics are those of pictures so prepared, by a run of its own."""
    way, weight = WAYS[words], normal(16, 3, 3, 3)
    x = np.stack([np.asarray(Image.open(f), np.float64).transpose(2, 0, 1) for f in sorted(photos.glob("*.png"))])
    x = (x - np.reshape(way.mean, (3, 1, 1))) / np.reshape(way.std, (3, 1, 1))
    plain = network("y = Conv (x, w)", w=weight, inputs="float[N,3,32,32] x")
    y = Session(plain).run(x.astype(np.float32))["y"]
    saw = {"m": y.mean((0, 2, 3)), "v": y.var((0, 2, 3)), "g": np.ones(16), "b": np.zeros(16)}
    text = "c = Conv (x, w) y = BatchNormalization (c, g, b, m, v)"
    consts = {k: v.astype(np.float32) for k, v in saw.items()}
    return load(network(text, w=weight, inputs="float[N,3,32,32] x", **consts))


@pytest.mark.parametrize("words", WAYS)
def test_the_way_of_training_is_found(words: str, photos: Path) -> None:
    model, found = trained(words, photos), survey(photos)
    card, x, outputs = running(model, Card("rgb", layout="nchw"), found)
    assert (card.size, x.shape[1:], outputs["y"].shape[1]) == ((32, 32), (3, 32, 32), 16)
    rows = measured(model, replace(card, task="features"), ways(3), found, lambda number: None)
    best, why, clear = chosen(rows, model, card, 0)
    assert best.words == words
    assert best.distance is not None
    assert best.distance < 0.1
    assert "BatchNorms" in why
    assert clear or "0 to 255" in words  # the two of these differ by less than any bound would tell


def test_a_network_that_remembers_nothing_is_a_guess(photos: Path) -> None:
    model = load(network("y = Conv (x, w)", w=normal(16, 3, 3, 3), inputs="float[N,3,32,32] x"))
    found = survey(photos)
    card = Card("rgb", size=(32, 32), layout="nchw", task="features")
    rows = measured(model, card, ways(3), found, lambda number: None)
    best, why, clear = chosen(rows, model, card, 0)
    assert (best.words, clear) == ("0 to 1", False)
    assert "guess" in why


def test_free_sizes(photos: Path) -> None:
    model = load(network("y = Conv (x, w)", w=normal(4, 3, 3, 3), inputs="float[N,3,H,W] x"))
    assert list(sizes_tried(model, "nchw", survey(photos)))[:2] == [None, (32, 32)]
    wide = load(network("y = Conv (x, w)", w=normal(4, 3, 3, 3), inputs="float[N,3,48,W] x"))
    assert next(sizes_tried(wide, "nchw", survey(photos))) == (48, 64)  # its 48, and a multiple of 32


@pytest.mark.parametrize(
    ("inputs", "message"),
    [("float[N,3,8,8] x, float[N,3,8,8] z", "2 inputs"), ("float[N,5,8,8] x", "no picture of 1 or 3 channels")],
)
def test_what_reads_no_pictures(inputs: str, message: str) -> None:
    channels = 3 if "z" in inputs else 5
    text = "y = Conv (x, w)" if channels == 5 else "a = Add (x, z) y = Conv (a, w)"
    with pytest.raises(EquintError, match=message):
        input_of(load(network(text, w=normal(4, channels, 3, 3), inputs=inputs)))


def test_the_float_network_is_what_is_scored(photos: Path) -> None:
    """Its proto computes what the file computes."""
    model = trained("0 to 1", photos)
    x = np.random.default_rng(0).random((1, 3, 32, 32), np.float32)
    assert Session(to_proto(model.graph)).run(x)["y"].shape == (1, 16, 30, 30)


@pytest.mark.parametrize("kind", ["rgb", "bgr"])
def test_labels_tell_the_order_of_channels(kind: str, tmp_path: Path) -> None:
    """A network that tells red from blue by the channel that comes first."""
    first = np.array([[1, 0], [0, 0], [0, 1]], np.float32)
    text = "a = GlobalAveragePool (x) b = Flatten (a) y = MatMul (b, w)"
    model = network(text, w=first, inputs="float[N,3,8,8] x", output="float[N,2] y")
    rng = np.random.default_rng(0)
    y = np.arange(80) % 2
    x = rng.integers(0, 100, (80, 8, 8, 3), np.uint8)
    x[y == 0, :, :, 0 if kind == "rgb" else 2] += 100
    x[y == 1, :, :, 2 if kind == "rgb" else 0] += 100
    np.savez(tmp_path / "a.npz", x=x, y=y)
    found = propose(load(model), tmp_path / "a.npz")
    assert found.card.kind == kind
    assert "100.0 % as" in found.toml(tmp_path)
