"""Bounds worked out by hand, prediction against measurement, and what is said where nothing can be measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from equint import calibrate, load, sqnr
from equint.cli.main import main
from equint.demo import data_path, model_path
from equint.errors import EquintError
from equint.ir.model import Model, Moments, QSpec, Range, View
from equint.onnx.reader import read
from equint.ops.layers import layers
from equint.passes.quantize import Quantize
from equint.samples.card import Card
from equint.samples.data import batches
from equint.study.sqnr import KINDS, METHODS, agreement, layer_rows, tensor_equalization, weight_equalization
from handwritten import execute, network, normal
from nets import random_network, sample

TENSOR = QSpec(8, signed=True, symmetric=True)
UNSIGNED = QSpec(8, signed=False, symmetric=False)
DIGITS = Card("gray", (0.0,), (16.0,))


def db(ratio: float) -> float:
    return 10 * float(np.log10(ratio))


def test_two_channels_of_weights_by_hand() -> None:
    """Channels ±1 and ±¼ on the grid of step 1/127: ΣW² is 2 + ⅛ of four weights, and 2 + 2 once both reach 1."""
    w = np.array([[1, -1], [0.25, -0.25]], np.float32).reshape(2, 2, 1, 1)
    model = read(network("y = Conv(x, w)", inputs="float[N,2,4,4] x", w=w))
    (layer,) = layers(model.graph)
    noise = 4 * (1 / 127) ** 2 / 12
    reached, bound = weight_equalization(Quantize(TENSOR, None)(model), layer, TENSOR)
    assert [reached, bound] == pytest.approx([db(2.125 / noise), db(4 / noise)])
    each = QSpec(8, granularity="channel")
    assert [*weight_equalization(Quantize(each, None)(model), layer, each)] == pytest.approx([db(4 / noise)] * 2)
    assert weight_equalization(model, layer, TENSOR) == (None, None)


def test_channels_that_reach_to_different_sides_cannot_both_fill_the_grid() -> None:
    """0..1 and −1..0: an asymmetric grid of both spans 2, each alone 1, so the bound lies 6 dB higher."""
    w = np.array([[1, 0.5], [-1, -0.5]], np.float32).reshape(2, 2, 1, 1)
    model = read(network("y = Conv(x, w)", inputs="float[N,2,4,4] x", w=w))
    spec = QSpec(8, symmetric=False)
    reached, bound = weight_equalization(Quantize(spec, None)(model), next(layers(model.graph)), spec)
    assert reached is not None
    assert bound == pytest.approx(reached + db(4))


def test_weights_beyond_the_grid_count_with_their_error() -> None:
    """Weights 1 and 3 on a grid that ends at 1: the second loses 2, less the half step that rounding may lose."""
    w = np.array([1.0, 3.0], np.float32).reshape(1, 2, 1, 1)
    model = read(network("y = Conv(x, w)", inputs="float[N,2,4,4] x", w=w))
    cut = Model(model.graph, ranges={"w": Range(np.array(-1.0), np.array(1.0))})
    reached, _ = weight_equalization(Quantize(TENSOR, None)(cut), next(layers(model.graph)), TENSOR)
    step = 1 / 127
    assert reached == pytest.approx(db(10 / (2 * step**2 / 12 + (2 - step / 2) ** 2)))


def test_two_channels_of_a_tensor_by_hand() -> None:
    """Ranges 0..8 and 0..2, E[x²] of 16 and 2: on one grid 18 over two, once both reach 8 it is 16 + 16·2."""
    hi, power = np.array([8.0, 2.0]).reshape(1, 2, 1, 1), np.array([16.0, 2.0]).reshape(1, 2, 1, 1)
    graph = read(network("y = Conv(x, w)", inputs="float[N,2,4,4] x", w=normal(2, 2, 1, 1))).graph
    mean = np.sqrt(power / 2)
    model = Model(graph, {"x": Moments(mean, mean)}, {"x": Range(0 * hi, hi)})
    noise = 2 * (8 / 255) ** 2 / 12
    reached, bound = tensor_equalization(model, Quantize(TENSOR, UNSIGNED)(model), "x", UNSIGNED)
    assert [reached, bound] == pytest.approx([db(18 / noise), db(48 / noise)])
    scaled = Range(0 * hi, hi / np.array([4.0, 1.0]).reshape(1, 2, 1, 1))
    views = {"x": View(np.array([4.0, 1.0]).reshape(1, 2, 1, 1), np.zeros(1))}
    even = Quantize(TENSOR, UNSIGNED)(replace(model, ranges={"x": scaled}, views=views))
    assert [*tensor_equalization(model, even, "x", UNSIGNED)] == pytest.approx([db(48 / noise)] * 2)
    assert tensor_equalization(model, model, "x", UNSIGNED) == (None, None)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_no_scales_go_beyond_the_bound(seed: int) -> None:
    """Where grids hold all values; and the bound of activations does not depend on the scales."""
    proto = random_network(seed, calibrated=True)
    found = sqnr(proto, "per-tensor", input=(-4, 4))["methods"]
    for name in METHODS[:3]:
        for row, plain in zip(found[name]["layers"], found["none"]["layers"], strict=True):
            for part, ends in row["equalization"].items():
                if ends["reached"] is not None:
                    assert ends["reached"] <= ends["bound"] + 1e-3, (row["name"], part)
            assert row["equalization"]["activations"]["bound"] == plain["equalization"]["activations"]["bound"]


@pytest.mark.slow
def test_prediction_against_measurement_on_random_networks() -> None:
    """Over 100 layers: no offset, four in five within 3 dB, correlated by 0.85 or more."""
    pairs: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for seed in range(14):
        proto = random_network(seed, calibrated=True, activations=("relu", "linear", "leaky"))
        found = sqnr(proto, "per-tensor", input=(-4, 4), data=sample(proto, 32))
        assert found["images"] == 32
        for name, method in found["methods"].items():
            for row in method["layers"]:
                for kind in ("weights", "rounding"):
                    p, m = row["predicted"][kind], row["measured"][kind]
                    if p is not None and m is not None:
                        pairs.setdefault((name, kind), []).append((p, m))
    assert len(pairs) == 8
    for key, known in pairs.items():
        error = np.array(known) @ [1, -1]
        assert len(error) > 90
        assert abs(np.median(error)) < 0.5, key
        assert np.mean(np.abs(error) < 3) > 0.8, key
        assert agreement(known)["correlation"] > 0.85, key


def test_one_layer_measured_is_what_onnxruntime_and_numpy_say() -> None:
    w, x = normal(4, 3, 3, 3), normal(8, 3, 8, 8, seed=2, scale=1.0)
    found = sqnr(network("y = Conv(x, w)", w=w), "per-tensor", input=(-4, 4), data=x)
    (row,) = found["methods"]["none"]["layers"]
    lo, hi = float(w.min()), float(w.max())
    step = np.float32((hi - lo) / 255)
    zero = np.rint(-128 - lo / step)
    rounded = (np.clip(np.rint(w / step) + zero, -128, 127) - zero) * step
    (y,), (noisy,) = (execute(network("y = Conv(x, w)", w=v), x) for v in (w, rounded.astype(np.float32)))
    assert row["measured"]["weights"] == pytest.approx(db(np.sum(y**2) / np.sum((noisy - y) ** 2)), abs=0.01)
    assert row["predicted"]["both"] < min(row["predicted"]["weights"], row["predicted"]["activations"])


def test_equalization_helps_where_channels_differ() -> None:
    """Channels of a first layer 100 times apart: one step brings activations near the bound, for the better."""
    spread = np.array([1, 1, 0.01, 0.01]).reshape(4, 1, 1, 1)
    v = normal(2, 4, 1, 1, seed=2) / spread.reshape(1, 4, 1, 1)
    proto = network("h = Conv(x, w) r = Relu(h) y = Conv(r, v)", w=normal(4, 3, 1, 1) * spread, v=v)
    found = sqnr(proto, "per-tensor", input=(-4, 4), data=normal(8, 3, 8, 8, seed=3, scale=1.0))
    before, after = (found["methods"][name]["layers"][1] for name in METHODS[:2])
    for part in ("weights", "activations"):
        assert after["measured"][part] > before["measured"][part] + 6
    left = {name: table["bound"] - table["reached"] for name, table in after["equalization"].items()}
    assert left["activations"] < 5


@pytest.mark.slow
def test_without_images_nothing_is_measured() -> None:
    found = sqnr(model_path(), "per-tensor", input=(0, 1))
    assert found["images"] == 0
    for name in METHODS:
        assert found["methods"][name]["agreement"] == {}
        for row in found["methods"][name]["layers"]:
            assert row["measured"] is None
            assert set(row["predicted"]) == set(KINDS)
            assert row["predicted"]["both"] is not None


@pytest.mark.slow
def test_statistics_tell_ranges_but_measure_nothing() -> None:
    statistics = calibrate(model_path(), data_path(), input=DIGITS, images=20)
    found = sqnr(model_path(), "per-tensor", input=DIGITS, data=statistics)
    shown = sqnr(model_path(), "per-tensor", input=DIGITS, data=data_path(), images=20)
    assert (found["images"], shown["images"]) == (0, 20)
    one, other = (f["methods"]["none"]["layers"][1] for f in (found, shown))
    assert one["predicted"] == pytest.approx(other["predicted"], rel=1e-3)
    assert other["measured"]["clips"] is None  # ranges hold all of the very images measured on


@pytest.mark.slow
def test_prediction_on_trained_weights_and_real_images() -> None:
    images = np.concatenate([x for x, _ in batches(data_path(), DIGITS, 64, 64)])
    found = sqnr(model_path(), "per-tensor", input=(0, 1), data=images)["methods"]
    for name in METHODS:
        for kind in ("weights", "rounding"):
            told = found[name]["agreement"][kind]
            assert told["correlation"] > 0.9, (name, kind)
            assert told["rms"] < 2, (name, kind)


def test_a_silent_layer_and_one_without_grids() -> None:
    proto = network("h = Conv(x, w) y = Conv(h, v)", w=normal(4, 3, 1, 1), v=np.zeros((2, 4, 1, 1)))
    rows = sqnr(proto, "per-tensor", input=(0, 1), data=normal(2, 3, 8, 8, scale=1.0))["methods"]["none"]["layers"]
    assert set(rows[-1]["measured"].values()) == {None}
    assert rows[-1]["equalization"]["weights"] == {"reached": None, "bound": None}
    model = load(model_path())
    plain = layer_rows(model, model, TENSOR, UNSIGNED)
    assert {v for row in plain for v in row["predicted"].values()} == {None}


def test_refuses_a_network_without_layers() -> None:
    with pytest.raises(EquintError, match="nothing to analyse"):
        sqnr(network("y = Relu(x)", output="float[N,3,8,8] y"), input=(0, 1))


def test_agreement_needs_three_layers() -> None:
    assert agreement([(1.0, 2.0)] * 2) == {}
    assert agreement([(1.0, 2.0)] * 3)["correlation"] == 0.0
    found = agreement([(1.0, 2.0), (2.0, 4.0), (3.0, 3.0)])
    assert found["correlation"] == pytest.approx(0.5)
    assert found["mean"] == pytest.approx(-1.0)
    assert found["rms"] == pytest.approx(np.sqrt(5 / 3))


@pytest.mark.slow
def test_progress_names_methods_and_counts_images() -> None:
    told: list[tuple[str, int, int]] = []
    found = sqnr(
        model_path(), "per-tensor", input=DIGITS, data=data_path(), images=8, progress=lambda *a: told.append(a)
    )
    assert found["images"] == 8
    assert [name for name, _, _ in told if "image" not in name] == list(METHODS)
    assert ("optimal, image 8", 3, 4) in told


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = 0
    try:
        main([str(a) for a in arguments])
    except SystemExit as stop:
        code = int(stop.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.slow
def test_command_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    card = tmp_path / "card.toml"
    card.write_text('[input]\nkind = "gray"\nmean = [0.0]\nstd = [16.0]\nrange = [0.0, 1.0]\n')
    options: tuple[Any, ...] = ("sqnr", model_path(), "--card", card, "--target", "per-tensor", "--data", data_path())
    code, out, err = run(capsys, *options, "--images", 8, "--json")
    found = json.loads(out)
    assert (code, err, found["images"], found["target"]) == (0, "", 8, "per-tensor")
    assert set(found["methods"]["optimal"]["total"]) == {"measured", "forecast", "off_by"}
    code, out, err = run(capsys, *options, "--images", 8)
    assert (code, err) == (0, "")
    for words in (
        "measured on 8 images",
        "from known errors against",
        "equations 5 to 9 against",
        "left to gain",
        "SQNR at the outputs, biases corrected, on 8 images",
        "two-step",
        "images not seen",
    ):
        assert words in out
    code, out, err = run(capsys, "sqnr", model_path(), "--input-range", 0, 1)
    assert (code, err) == (0, "")
    assert "nothing was measured" in out
    assert "on 0 images" not in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--plot", "figure.txt"), ".png or .svg"),
        (("--plot", "nowhere/figure.svg"), "no such folder"),
        (("--images", 4), "no images to look at"),
        (("--target", "imaginary"), "unknown target"),
    ],
)
def test_command_line_refuses(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, options: tuple[Any, ...], message: str
) -> None:
    if "nowhere/figure.svg" in options:
        pytest.importorskip("matplotlib", reason="figures need matplotlib")
    given = [tmp_path / o if str(o).startswith(("figure", "nowhere")) else o for o in options]
    code, out, err = run(capsys, "sqnr", model_path(), *given)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert not list(tmp_path.iterdir())
