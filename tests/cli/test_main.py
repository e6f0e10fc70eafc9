"""The command line, as its users run it: contract, outputs, and one clear line for every bad input."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import equint
from commands import Run
from equint.cli.main import COMMANDS
from equint.demo import data_path, model_path
from equint.hardware.target import source
from equint.ir.model import Array
from equint.planning.recipe import built_in
from equint.runtime.session import Session
from equint.samples.statistics import Histogram, Statistics, TensorStatistics
from handwritten import network, normal


def conv_model(path: Path, weight: Array, op: str = "Conv") -> Path:
    """A model of one operator, with the weight given."""
    node = helper.make_node(op, ["x", "w"] if op == "Conv" else ["x"], ["y"], op.lower())
    info = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", weight.shape[1], 8, 8])
    out = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "g", [info], [out], [numpy_helper.from_array(weight, "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def card(path: Path, text: str = "") -> Path:
    """A card for the digits."""
    path.write_text(
        text or f'[input]\nkind = "gray"\nmean = 0\nstd = 16\nrange = [0, 1]\n[data]\neval = "{data_path()}"\n'
    )
    return path


@pytest.mark.slow
@pytest.mark.parametrize("target", ["per-channel", "per-tensor", "per-tensor-clip"])
def test_quantize_writes_what_evaluate_measures(run: Run, tmp_path: Path, target: str) -> None:
    out, described = tmp_path / "int8.onnx", card(tmp_path / "card.toml")
    code, text, err = run("quantize", model_path(), "-o", out, "--target", target, "--card", described, "--json")
    facts = json.loads(text)
    assert (code, err) == (0, "")
    assert (facts["target"], facts["level"], facts["weights"][:6]) == (target, 1, "8 bits")
    assert facts["integer_bytes"] < 0.4 * facts["float_bytes"]
    onnx.checker.check_model(onnx.load(out))
    code, text, _ = run("evaluate", out, "--card", described, "--against", model_path(), "--json")
    found = json.loads(text)
    assert code == 0
    assert found["samples"] == 500
    assert found["top1"] > 93
    assert found["agreement"] > 94
    assert found["sqnr_db"] > 12


@pytest.mark.slow
def test_explain(run: Run, tmp_path: Path) -> None:
    described = card(tmp_path / "card.toml")
    code, text, err = run("explain", model_path(), "--target", "per-tensor", "--card", described, "--json")
    found = json.loads(text)
    assert (code, err) == (0, "")
    assert found["predicted"]["after"]["total"] > found["predicted"]["before"]["total"] + 10
    code, text, err = run("explain", model_path(), "--target", "per-tensor", "--card", described)
    assert (code, err) == (0, "")
    for words in ("plain grids", "limited by", "weight scales per channel", "not a forecast"):
        assert words in text
    assert all(row["name"] in text for row in found["layers"][:1])
    code, _, err = run("explain", tmp_path / "none.onnx")
    assert code == 2
    assert "none.onnx" in err


def test_a_person_reads_what_was_done_and_skipped(run: Run, tmp_path: Path) -> None:
    code, text, _ = run(
        "quantize", model_path(), "-o", tmp_path / "o.onnx", "--recipe", "dfq", "--input-range", "0", "1", "-v"
    )
    assert code == 0
    for line in ("recipe dfq (level 1)", "folded BatchNormalization", "equalized", "the next layer pads with zeros"):
        assert line in text


def test_a_name_that_ends_in_tflite_asks_for_that_format(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "digits.tflite"
    code, said, _ = run("quantize", model_path(), "-o", out, "--input-range", 0, 1, "--effort", "fast", "--json")
    assert code == 0
    assert json.loads(said)["target"] == "tflite-int8"
    assert out.read_bytes()[4:8] == b"TFL3"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("x.tflite", "--io", "half"), "--io 'half': choose int8, uint8, float"),
        (("x.onnx", "--io", "float"), "only .tflite files have other inputs and outputs"),
        (("x.tflite", "--target", "openvino"), "target openvino: LiteRT computes otherwise; quantize for tflite-int8"),
    ],
)
def test_what_litert_does_not_take_is_refused(
    run: Run, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    out, *more = arguments
    code, _, said = run("quantize", model_path(), "-o", tmp_path / out, "--input-range", 0, 1, *more)
    assert code == 2
    assert message in said
    assert not (tmp_path / out).exists()


def test_a_target_that_is_not_delivered_in_tflite_files_writes_none(run: Run, tmp_path: Path) -> None:
    own = tmp_path / "mine.toml"
    own.write_text(source("tflite-int8").replace('"tflite-int8"', '"mine"', 1).replace('["tflite", "qdq"]', '["qdq"]'))
    out = tmp_path / "x.tflite"
    code, text, err = run("quantize", model_path(), "-o", out, "--target", own, "--input-range", 0, 1)
    assert (code, text, out.exists()) == (2, "", False)
    assert 'target mine: takes no .tflite files (formats: qdq); add "tflite" to its formats, or quantize for' in err


def test_operators_without_a_form_are_named_before_the_work(run: Run, tmp_path: Path) -> None:
    model = network("a = Conv (x, w) b = Conv (x, w) y = Div (a, b)", w=normal(4, 3, 3, 3), inputs="float[1,3,8,8] x")
    onnx.save(model, tmp_path / "net.onnx")
    asked = ("quantize", tmp_path / "net.onnx", "-o", tmp_path / "net.tflite", "--input-range", 0, 1)
    code, _, said = run(*asked, "--target", "ethos-u")
    assert code == 2
    assert "net.onnx: y: LiteRT divides no int8 values by one another" in said
    code, told, _ = run(*asked, "-v")
    assert code == 0
    assert "Div computes in float, dequantized before and quantized behind" in told


def test_what_is_float_in_qdq_alone_is_not_told_of_tflite_files(run: Run, tmp_path: Path) -> None:
    """x·σ(x) is a LOGISTIC and a MUL there."""
    model = network(
        "a = Conv (x, w) s = Sigmoid (a) m = Mul (a, s) y = Conv (m, v)",
        w=normal(4, 3, 3, 3),
        v=normal(4, 4, 3, 3),
        inputs="float[1,3,8,8] x",
    )
    onnx.save(model, tmp_path / "net.onnx")
    asked = (
        "quantize",
        tmp_path / "net.onnx",
        "--target",
        "tflite-int8",
        "--input-range",
        0,
        1,
        "--effort",
        "fast",
        "--json",
    )
    rules = {}
    for out in ("net.tflite", "net.qdq.onnx"):
        code, said, _ = run(*asked, "-o", tmp_path / out)
        assert code == 0
        rules[out] = {found["rule"] for found in json.loads(said)["lint"]["findings"]}
    assert rules == {"net.tflite": set(), "net.qdq.onnx": {"float-operator"}}


def test_bits_and_own_recipes(run: Run, tmp_path: Path) -> None:
    code, toml, _ = run("recipes", "--show", "cwq")
    assert code == 0
    own = tmp_path / "mine.toml"
    own.write_text(toml.replace('"cwq"', '"mine"'))
    code, text, _ = run(
        "quantize", model_path(), "-o", tmp_path / "o.onnx", "--recipe", own, "--weight-bits", 4,
        "--activation-bits", "float", "--json",
    )  # fmt: skip
    facts = json.loads(text)
    assert code == 0
    assert (facts["recipe"], facts["weights"], facts["activations"]) == ("mine", "4 bits per channel", "float")
    weights = [
        numpy_helper.to_array(t)
        for t in onnx.load(tmp_path / "o.onnx").graph.initializer
        if t.name.endswith("_quantized")
    ]
    assert weights
    assert all(w.min() >= -8 and w.max() <= 7 for w in weights)


def test_recipes_lists_levels(run: Run) -> None:
    table = json.loads(run("recipes", "--json")[1])
    assert [r["name"] for r in table["recipes"]] == [r.name for r in built_in()]
    higher = {r["name"]: r["level"] for r in table["recipes"] if r["level"] != 1}
    tuned = ("bias-finetune", "two-step-bias-finetune", "optimal-bias-finetune")
    wes = ("wes-published", "wes-published-clipped", "wes-published-iterative")
    assert higher == {**dict.fromkeys(("one-step", "two-step", "cwq-published", *wes), 2), **dict.fromkeys(tuned, 3)}
    assert "levels: 1 no data" in run("recipes")[1]


def test_inspect_names_groups_and_pins(run: Run) -> None:
    found = json.loads(run("inspect", model_path(), "--target", "per-tensor-clip", "--json")[1])
    residual = [g for g in found["groups"] if len(g["givers"]) > 1]
    assert residual
    assert all(g["channels"] > 0 and g["takers"] for g in found["groups"])
    assert found["pinned"]["output"] == "network output"
    assert {row["moments"] for row in found["layers"]} == {"batchnorm", "propagated"}
    assert "free channel scales" in run("inspect", model_path())[1]


@pytest.mark.slow
def test_compare_undoes_rescaling(run: Run, tmp_path: Path) -> None:
    """Without undoing the channel scales, equalized tensors would show an SQNR around 0 dB."""
    out = tmp_path / "o.onnx"
    run("quantize", model_path(), "-o", out, "--target", "per-tensor-clip", "--input-range", "0", "1", "--json")
    code, text, _ = run(
        "compare", model_path(), out, "--data", data_path(), "--card", card(tmp_path / "c.toml"), "--json"
    )
    rows = json.loads(text)
    assert code == 0
    assert len(rows) > 10
    assert min(row["sqnr_db"] for row in rows) > 10
    assert "SQNR" in run("compare", model_path(), out)[1]


@pytest.mark.slow
def test_demo_shows_the_collapse_and_its_cure(run: Run) -> None:
    rows = {row["network"]: row for row in json.loads(run("demo", "--json")[1])}
    assert rows["naive int8, per tensor"]["accuracy"] < rows["float"]["accuracy"] - 20
    assert rows["equint int8, per tensor"]["accuracy"] > rows["float"]["accuracy"] - 2


def test_help_is_instant_and_imports_nothing_heavy() -> None:
    script = (
        "import sys, equint.cli\n"
        "try: equint.cli.main(['quantize', '--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('numpy', 'onnx', 'onnxruntime', 'scipy', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


BAD_MODELS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda d: d / "none.onnx", "no such file"),
    "folder": (lambda d: d, "is a folder"),
    "empty": (lambda d: _written(d, b""), "is it an ONNX model"),
    "text": (lambda d: _written(d, b"hello"), "not an ONNX model"),
    "truncated": (lambda d: _written(d, model_path().read_bytes()[:20000]), "truncated"),
    "nan": (lambda d: conv_model(d / "m.onnx", np.full((4, 3, 3, 3), np.nan, np.float32)), "w of Conv conv holds NaN"),
    "external data gone": (lambda d: _external_gone(d), "external data is missing"),
    "nothing to quantize": (
        lambda d: conv_model(d / "m.onnx", np.ones((1, 3), np.float32), "Relu"),
        "nothing to quantize",
    ),
    "float16": (lambda d: conv_model(d / "m.onnx", np.ones((4, 3, 3, 3), np.float16)), "float"),
}


def _written(folder: Path, content: bytes) -> Path:
    path = folder / "m.onnx"
    path.write_bytes(content)
    return path


def _external_gone(folder: Path) -> Path:
    path = folder / "m.onnx"
    model = onnx.load(model_path())
    onnx.save(model, path, save_as_external_data=True, location="m.data", size_threshold=16)
    (folder / "m.data").unlink()
    return path


@pytest.mark.parametrize("kind", BAD_MODELS)
def test_bad_models(run: Run, tmp_path: Path, kind: str) -> None:
    make, message = BAD_MODELS[kind]
    refused(run, tmp_path, message, "quantize", make(tmp_path), "-o", tmp_path / "out.onnx")


BAD_OPTIONS: dict[str, tuple[list[str], str]] = {
    "weight bits 1": (["--weight-bits", "1"], "1 bits"),
    "weight bits 17": (["--weight-bits", "17"], "17 bits"),
    "activation bits 0": (["--activation-bits", "0"], "0 bits"),
    "activation bits many": (["--activation-bits", "many"], "give 2 to 16, or float"),
    "recipe": (["--recipe", "magic"], "unknown recipe 'magic'"),
    "recipe file": (["--recipe", "none.toml"], "no such recipe file"),
    "target": (["--target", "toaster"], "unknown target 'toaster'"),
    "recipe finer than target": (["--recipe", "cwq", "--target", "per-tensor"], "does not take"),
    "card": (["--card", "none.toml"], "no such card"),
    "range": (["--input-range", "2", "1"], "empty"),
    "endless range": (["--input-range", "0", "1e38"], "beyond"),
    "range and card": (["--input-range", "0", "1", "--mean", "0"], "give one of"),
    "means": (["--mean", "a,b"], "--mean a,b"),
    "channels": (["--mean", "1,2,3", "--std", "1,1,1"], "3 means and stds"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", BAD_OPTIONS)
def test_bad_options(run: Run, tmp_path: Path, kind: str) -> None:
    options, message = BAD_OPTIONS[kind]
    refused(run, tmp_path, message, "quantize", model_path(), "-o", tmp_path / "out.onnx", *options)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ('name = "x"\nfoo = 1\n[[passes]]\npass = "quantize"\n', "unknown key 'foo'"),
        ('[[passes]]\npass = "quantise"\n', "unknown pass 'quantise'"),
        ('[[passes]]\npass = "equalize"\nsweep = 3\n', "unknown key 'sweep' in pass equalize"),
        ('[[passes]]\npass = "equalize"\nsweeps = "many"\n', "sweeps = 'many'"),
        ('[weight]\nbit = 4\n[[passes]]\npass = "quantize"\n', "unknown key 'bit' in [weight]"),
        ("level = 9\n[[passes]]\npass = 'quantize'\n", "level = 9"),
        ("[[passes]\n", "not a readable TOML"),
        ("", "needs [[passes]]"),
        ('[[passes]]\npass = "equalize"\nmax_scale = 0\n[[passes]]\npass = "quantize"\n', "max_scale = 0"),
        ('[[passes]]\npass = "activation_ranges"\nn = -3.0\n[[passes]]\npass = "quantize"\n', "n = -3.0"),
        ('[[passes]]\npass = "quantize"\n[[passes]]\npass = "fold_batchnorm"\n', "fold_batchnorm after quantize"),
        ('[[passes]]\npass = "correct_bias"\n[[passes]]\npass = "quantize"\n', "move it behind"),
        ('name = 3\n[[passes]]\npass = "quantize"\n', "name = 3"),
    ],
)
def test_bad_recipes(run: Run, tmp_path: Path, toml: str, message: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(toml)
    refused(run, tmp_path, message, "quantize", model_path(), "-o", tmp_path / "out.onnx", "--recipe", path)


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("kind = ", "not a readable TOML"),
        ('[input]\nkind = "cmyk"\n', "cmyk"),
        ('[input]\nkind = "rgb"\nmean = [1.0]\nstd = [0.0]\n', "std above 0"),
        ('[input]\nkind = "rgb"\nsizes = [3, 3]\n', "unknown key sizes"),
        ('[input]\nkind = "gray"\nsize = [0, 3]\n', "size"),
    ],
)
def test_bad_cards(run: Run, tmp_path: Path, toml: str, message: str) -> None:
    bad = card(tmp_path / "card.toml", toml)
    refused(run, tmp_path, message, "quantize", model_path(), "-o", tmp_path / "out.onnx", "--card", bad)


@pytest.mark.slow
def test_unwritable_outputs_keep_what_was_there(run: Run, tmp_path: Path) -> None:
    refused(run, tmp_path, "no such folder", "quantize", model_path(), "-o", tmp_path / "none" / "out.onnx")
    refused(run, tmp_path, "is a folder", "quantize", model_path(), "-o", tmp_path)
    if Path("/proc").is_dir():  # a folder that not even root can write to
        refused(run, tmp_path, "cannot write", "quantize", model_path(), "-o", "/proc/out.onnx")
    kept = tmp_path / "kept.onnx"
    kept.write_bytes(b"\x08 old")
    refused(run, tmp_path, "1 bits", "quantize", model_path(), "-o", kept, "--weight-bits", 1)
    assert kept.read_bytes() == b"\x08 old"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("evaluate", model_path()), "no data to evaluate on"),
        (("evaluate", model_path(), "--data", "none.npz", "--kind", "gray"), "no such file"),
        (("evaluate", "none.onnx", "--data", data_path()), "no such file"),
        (("evaluate", model_path(), "--data", data_path(), "--kind", "rgb"), "needs (H, W, 3)"),
        (("evaluate", model_path(), "--data", data_path(), "--kind", "odd"), "'odd'"),
        (("compare", model_path(), "none.onnx"), "no such file"),
        (("inspect", "none.onnx"), "no such file"),
        (("recipes", "--show", "none"), "unknown recipe"),
    ],
)
def test_other_commands_refuse_too(run: Run, tmp_path: Path, arguments: tuple[object, ...], message: str) -> None:
    refused(run, tmp_path, message, *arguments)


def test_the_float_model_is_not_overwritten(run: Run, tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    model.write_bytes(model_path().read_bytes())
    refused(run, tmp_path, "would overwrite", "quantize", model, "-o", tmp_path / "." / "m.onnx")
    assert model.read_bytes() == model_path().read_bytes()


@pytest.mark.parametrize("command", [["quantize"], ["export", "--format", "qdq"]])
def test_weights_beside_the_float_model_are_not_overwritten(run: Run, tmp_path: Path, command: list[str]) -> None:
    model, weights = tmp_path / "m.onnx", tmp_path / "m.bin"
    onnx.save(onnx.load(model_path()), model, save_as_external_data=True, location="m.bin", size_threshold=0)
    before = weights.read_bytes()
    refused(run, tmp_path, "m.bin: would overwrite the weights of", *command, model, "-o", weights)
    with pytest.raises(equint.EquintError, match=r"m\.bin: would overwrite the weights of"):
        equint.export(model, weights, format="qdq", input=(0, 1))
    assert weights.read_bytes() == before


def test_a_target_without_rules_judges_nothing(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[weight]\nbits = 8\n")
    model = tmp_path / "m.onnx"
    equint.quantize(model_path(), "lwq", "per-tensor", input=(0, 1)).save(model)
    code, out, _ = run("lint", model, "--target", tmp_path / "mine.toml")
    assert code == 0
    assert "not judged, the target has no [[rules]]" in out
    assert "clean" not in out
    code, out, _ = run("lint", model, "--target", "per-tensor")
    assert "for per-tensor: clean" in out


def test_a_recipe_that_a_target_names_and_that_is_not_there(run: Run, tmp_path: Path) -> None:
    target = tmp_path / "mine.toml"
    target.write_text('recipe = "nope"\n[weight]\n')
    message = "mine.toml: recipe = 'nope' cannot be used (unknown recipe 'nope'; choose optimal"
    refused(run, tmp_path, message, "quantize", model_path(), "-o", tmp_path / "o.onnx", "--target", target)


@pytest.mark.slow
def test_already_quantized_is_refused(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "int8.onnx"
    run("quantize", model_path(), "-o", out, "--json")
    refused(run, tmp_path, "already quantized", "quantize", out, "-o", tmp_path / "again.onnx")


def test_empty_data_is_refused(run: Run, tmp_path: Path) -> None:
    data = tmp_path / "empty.npz"
    np.savez(data, x=np.zeros((0, 8, 8, 1), np.uint8), y=np.zeros(0, np.int64))
    refused(run, tmp_path, "x is empty", "evaluate", model_path(), "--data", data, "--kind", "gray")


# Looking at images


def gray_card(folder: Path) -> Path:
    """A card for the digits that names images to calibrate on."""
    path = folder / "look.toml"
    path.write_text(
        f'[input]\nkind = "gray"\nmean = 0\nstd = 16\nrange = [0, 1]\n[data]\ncalibration = "{data_path()}"\n'
    )
    return path


@pytest.mark.slow
def test_calibrate_writes_what_quantize_reads(run: Run, tmp_path: Path) -> None:
    out, described, int8 = tmp_path / "s.npz", gray_card(tmp_path), tmp_path / "o.onnx"
    code, text, err = run("calibrate", model_path(), "-o", out, "--card", described, "--images", 60, "--json")
    assert (code, err) == (0, "")
    facts = json.loads(text)
    stored = Statistics.load(out)
    assert facts == {"output": str(out), "images": 60, "tensors": len(stored.tensors)}
    assert stored.images == 60
    assert sorted(p.name for p in tmp_path.iterdir()) == ["look.toml", "s.npz"]
    code, text, err = run("quantize", model_path(), "-o", int8, "--data", out, "--card", described, "--json")
    assert (code, err) == (0, "")
    by_statistics = json.loads(text)
    assert by_statistics["level"] == 2
    options = ("--data", data_path(), "--images", 60, "--card", described, "--json")
    by_images = json.loads(run("quantize", model_path(), "-o", int8, *options)[1])
    assert by_images["level"] == 2
    images = [e["facts"]["images"] for f in (by_statistics, by_images) for e in f["events"] if "images" in e["facts"]]
    assert images
    assert set(images) == {60}
    code, text, _ = run("calibrate", model_path(), "-o", out, "--data", data_path(), "--mean", 0, "--std", 16)
    assert code == 0
    assert text == f"measured {len(stored.tensors)} tensors on 500 images; wrote {out}\n"


@pytest.mark.slow
def test_calibrations_add_up(run: Run, tmp_path: Path) -> None:
    with np.load(data_path()) as stored:
        x = stored["x"]
    parts, described = [tmp_path / "a.npz", tmp_path / "b.npz"], gray_card(tmp_path)
    for path, some in zip(parts, (x[:30], x[30:50]), strict=True):
        np.savez(tmp_path / "some.npz", x=some)
        assert run("calibrate", model_path(), "-o", path, "--data", tmp_path / "some.npz", "--card", described)[0] == 0
    both, more = tmp_path / "both.npz", tmp_path / "more.npz"
    merge = ("--merge", parts[0], "--merge", parts[1])
    code, text, err = run("calibrate", model_path(), "-o", both, *merge, "--json")
    assert (code, err) == (0, "")
    assert json.loads(text)["images"] == 50
    run(
        "calibrate", model_path(), "-o", more, "--merge", parts[0], "--data", tmp_path / "some.npz", "--card", described
    )
    run("calibrate", model_path(), "-o", tmp_path / "whole.npz", "--card", described, "--images", 50)
    whole = Statistics.load(tmp_path / "whole.npz")
    for path in (both, more):
        found = Statistics.load(path)
        assert found.images == 50
        for name, t in whole.tensors.items():
            np.testing.assert_allclose(found.tensors[name].high, t.high, rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(found.tensors[name].total, t.total, rtol=1e-4, atol=1e-2)
            assert found.tensors[name].values is not None


def test_an_interrupted_calibration_goes_on(run: Run, tmp_path: Path) -> None:
    """What was measured before waits in a file beside the output, and goes when all is done."""
    described, out = gray_card(tmp_path), tmp_path / "s.npz"
    run("calibrate", model_path(), "-o", tmp_path / "s.part.npz", "--card", described, "--images", 32)
    first = Statistics.load(tmp_path / "s.part.npz")
    marked = {n: replace(t, low=t.low - 100) for n, t in first.tensors.items()}  # to tell that it was used
    replace(first, tensors=marked).save(tmp_path / "s.part.npz")
    code, text, _ = run("calibrate", model_path(), "-o", out, "--card", described, "--images", 80, "--json")
    assert code == 0
    assert json.loads(text)["images"] == 80
    assert all(t.low.max() < -90 for t in Statistics.load(out).tensors.values())
    assert not (tmp_path / "s.part.npz").exists()


def test_calibrate_without_histograms(run: Run, tmp_path: Path) -> None:
    out, described = tmp_path / "s.npz", gray_card(tmp_path)
    run("calibrate", model_path(), "-o", out, "--card", described, "--images", 8, "--no-histograms")
    assert all(t.values is None for t in Statistics.load(out).tensors.values())
    percentile = tmp_path / "percentile.toml"
    percentile.write_text(run("recipes", "--show", "cwq")[1].replace('"calibrate"', '"calibrate"\nrule = "percentile"'))
    arguments = ("quantize", model_path(), "-o", tmp_path / "o.onnx", "--recipe", percentile, "--data", out)
    refused(run, tmp_path, "calibrate with histograms", *arguments)


@pytest.mark.slow
def test_a_person_reads_what_was_measured(run: Run, tmp_path: Path) -> None:
    described = gray_card(tmp_path)
    code, text, _ = run("quantize", model_path(), "-o", tmp_path / "o.onnx", "--card", described, "--images", 20, "-v")
    assert code == 0
    for words in ("(level 2)", "measured moments and ranges", "corrected biases from images"):
        assert words in text
    code, text, _ = run("explain", model_path(), "--card", described, "--images", 20, "--json")
    assert code == 0
    wanted = equint.explain(model_path(), input=described, images=20)
    assert json.loads(text)["predicted"] == wanted["predicted"]


def test_images_are_left_out_on_request(run: Run, tmp_path: Path) -> None:
    asked = ("quantize", model_path(), "-o", tmp_path / "o.onnx", "--recipe", "one-step", "--input-range", 0, 1)
    refused(run, tmp_path, "takes activation extremes from images, 64 as published", *asked)
    code, text, _ = run(*asked, "--images", 0, "-v")
    assert code == 0
    assert "(level 1)" in text
    assert "! left out the images that the recipe is published with: extremes follow from moments" in text


BAD_LOOKS: dict[str, tuple[tuple[object, ...], str]] = {
    "no data": (("calibrate", "-o", "s.npz"), "no images to look at"),
    "images without a card": (("calibrate", "-o", "s.npz", "--images", 3), "no images to look at"),
    "absent": (("calibrate", "-o", "s.npz", "--data", "none.npz"), "none.npz: no such file"),
    "no array": (("calibrate", "-o", "s.npz", "--data", model_path()), "digits.onnx: not a readable"),
    "unprepared": (("calibrate", "-o", "s.npz", "--data", data_path()), "the network reads channels first"),
    "folder without a card": (("calibrate", "-o", "s.npz", "--data", "."), "needs a card"),
    "another suffix": (("calibrate", "-o", "s.npy", "--data", data_path()), "statistics are .npz files"),
    "no such folder": (("calibrate", "-o", "none/s.npz", "--data", data_path(), "--mean", 0), "no such folder"),
    "merging nothing": (("calibrate", "-o", "s.npz", "--merge", "none.npz"), "none.npz: no such file"),
    "merging images": (("calibrate", "-o", "s.npz", "--merge", data_path()), "holds no statistics"),
    "merging another network": (("calibrate", "-o", "s.npz", "--merge", "other.npz"), "another network"),
    "quantize, absent": (("quantize", "-o", "o.onnx", "--data", "none.npz"), "none.npz: no such file"),
    "quantize, unprepared": (("quantize", "-o", "o.onnx", "--data", data_path()), "the network reads channels first"),
    "quantize, images alone": (("quantize", "-o", "o.onnx", "--images", 3), "no images to look at"),
    "quantize, another network": (("quantize", "-o", "o.onnx", "--data", "other.npz"), "another network"),
    "quantize, statistics and images": (
        ("quantize", "-o", "o.onnx", "--data", "other.npz", "--images", 3),
        "leave the number of images out",
    ),
    "quantize, blind": (
        ("quantize", "-o", "o.onnx", "--data", "ready.npz", "--recipe", "dfq-published"),
        "dfq-published looks at no images",
    ),
    "quantize, truncated statistics": (("quantize", "-o", "o.onnx", "--data", "cut.npz"), "cut.npz: not"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", BAD_LOOKS)
def test_bad_looks(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.chdir(tmp_path)
    Statistics({"x": some_statistics()}, 1, "another").save("other.npz")
    Path("cut.npz").write_bytes(Path("other.npz").read_bytes()[:300])
    np.savez("ready.npz", x=np.zeros((3, 1, 8, 8), np.float32))
    (command, *arguments), message = BAD_LOOKS[kind]
    refused(run, tmp_path, message, command, model_path(), *arguments)


def some_statistics() -> TensorStatistics:
    one, h = np.ones(1), Histogram.of(np.ones(1))
    return TensorStatistics(1, 4, 1, 64, one, one, 64 * one, 64 * one, h, h)


@pytest.mark.parametrize("images", ["0", "-1", "many"])
def test_bad_numbers_of_images(run: Run, tmp_path: Path, images: str) -> None:
    for command, out in (("quantize", "o.onnx"), ("calibrate", "s.npz")):
        if command == "quantize" and images == "0":
            continue  # no images at all
        code, _, err = run(command, model_path(), "-o", tmp_path / out, "--images", images)
        assert code == 2
        assert "--images" in err
    assert not list(tmp_path.iterdir())


def test_debug_shows_the_traceback() -> None:
    command = [sys.executable, "-m", "equint", "inspect", "none.onnx"]
    quiet = subprocess.run(command, capture_output=True, text=True, check=False)
    loud = subprocess.run([*command, "--debug"], capture_output=True, text=True, check=False)
    assert quiet.returncode == 2
    assert quiet.stderr == "equint: none.onnx: no such file; correct its name\n"
    assert "Traceback" in loud.stderr


def refused(run: Run, folder: Path, message: str, *arguments: object) -> None:
    """Exit code 2, one line on standard error that says `message`, and no new file."""
    before = set(folder.rglob("*"))
    code, out, err = run(*arguments)
    assert code == 2, err
    assert out == ""
    assert err.startswith("equint: ")
    assert err.count("\n") == 1
    assert message in err
    assert set(folder.rglob("*")) == before


def test_nothing_that_a_card_names_is_overwritten(run: Run, tmp_path: Path) -> None:
    """Neither its network nor its data, by any command that writes; and no draft that is not the command's own."""
    model, data, card = tmp_path / "net.onnx", tmp_path / "digits.npz", tmp_path / "net.toml"
    shutil.copy(model_path(), model)
    shutil.copy(data_path(), data)
    card.write_text(
        'model = "net.onnx"\n[input]\nkind = "gray"\nstd = 16\nrange = [0, 1]\n[data]\ncalibration = "digits.npz"\n'
    )
    before = {file: file.read_bytes() for file in (model, data, card)}
    for arguments in (
        ("calibrate", model, "-o", data, "--card", card, "--images", 4),
        ("quantize", model, "-o", data, "--card", card),
        ("quantize", model, "-o", tmp_path / "q.onnx", "--report", data, "--card", card),
        ("report", model, "-o", data, "--card", card),
        ("table", card, "--recipe", "lwq", "-o", model),
        ("table", card, "--recipe", "lwq", "-o", data),
    ):
        code, _, err = run(*arguments)
        assert code == 2, arguments
        assert "would overwrite" in err, arguments
        assert {file: file.read_bytes() for file in before} == before, arguments
    statistics, foreign = tmp_path / "s.npz", tmp_path / "again.part.npz"
    assert run("calibrate", model, "-o", statistics, "--card", card)[0] == 0  # all that the card names
    shutil.copy(data, foreign)
    assert run("calibrate", model, "-o", tmp_path / "again.npz", "--merge", statistics)[0] == 0
    assert foreign.read_bytes() == before[data]


# Inputs that are set, layouts, several inputs


def two_rates(path: Path) -> Path:
    """y = Conv(x) · rate / 8000, the rate being an integer input."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "conv"),
        helper.make_node("Cast", ["rate"], ["f"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Div", ["f", "k"], ["g"]),
        helper.make_node("Mul", ["a", "g"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 3, 8, 8])
    rate = helper.make_tensor_value_info("rate", onnx.TensorProto.INT64, [])
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    weight = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    consts = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.array(8000, np.float32), "k")]
    graph = helper.make_graph(nodes, "g", [x, rate], [y], consts)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_set_makes_an_input_a_constant(run: Run, tmp_path: Path) -> None:
    model, out, data = two_rates(tmp_path / "net.onnx"), tmp_path / "int8.onnx", tmp_path / "x.npz"
    x = np.random.default_rng(1).normal(size=(16, 3, 8, 8)).astype(np.float32)
    np.savez(data, x=x, rate=np.array(16000))
    assert run("quantize", model, "-o", out, "--data", data)[0] == 0
    assert [i.name for i in onnx.load(out).graph.input] == ["x", "rate"]
    code, _, err = run("quantize", model, "-o", out, "--data", data, "--set", "rate=16000")
    assert (code, err) == (0, "")
    assert [i.name for i in onnx.load(out).graph.input] == ["x"]
    wanted = Session(model).run({"x": x, "rate": np.array(16000)})["y"]
    found = Session(out).run(x)["y"]
    assert np.square(found - wanted).sum() < 1e-3 * np.square(wanted).sum()


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ("tempo=3", "the network has no such input; it has x, rate"),
        ("rate", "give NAME=VALUE"),
        ("rate=fast", "give NAME=VALUE"),
        ("rate=1.5", "set rate = 1.5: the input cannot take it"),
    ],
)
def test_what_cannot_be_set(run: Run, tmp_path: Path, given: str, part: str) -> None:
    code, _, err = run("quantize", two_rates(tmp_path / "net.onnx"), "-o", tmp_path / "o.onnx", "--set", given)
    assert code == 2
    assert part in err
    assert err.count("\n") == 1


def test_an_input_cannot_be_set_twice(run: Run, tmp_path: Path) -> None:
    twice = ("--set", "rate=8000", "--set", "rate=16000")
    code, _, err = run("quantize", two_rates(tmp_path / "net.onnx"), "-o", tmp_path / "o.onnx", *twice)
    assert (code, "--set rate=16000: rate is set already" in err) == (2, True)


@pytest.mark.parametrize("beside", [("--mean", "0", "--std", "1"), ("--input-range", "0", "1"), ()])
def test_unknown_layouts(run: Run, tmp_path: Path, beside: tuple[str, ...]) -> None:
    code, _, err = run("quantize", model_path(), "-o", tmp_path / "o.onnx", "--layout", "chwn", *beside)
    assert (code, "choose nchw, nhwc" in err) == (2, True)


def test_a_layout_beside_a_range_is_refused(run: Run, tmp_path: Path) -> None:
    beside = ("--layout", "nhwc", "--input-range", "0", "1")
    code, _, err = run("quantize", model_path(), "-o", tmp_path / "o.onnx", *beside)
    assert (code, "leave it out beside --input-range" in err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["quantize", "m.onnx", "--bogus"], "no such option: --bogus; equint quantize --help"),
        (["quantize", "m.onnx", "--tagret", "qnn"], "no such option: --tagret; did you mean --target? equint quantize"),
        (["quantze", "m.onnx"], "no such command 'quantze'; did you mean quantize? equint --help"),
        (["quantize", "m.onnx", "-o", "q.onnx", "--images", "many"], "invalid value for '--images'"),
        (["evaluate"], "missing argument"),
        (["quantise"], "no such command 'quantise'"),
    ],
)
def test_misuse_is_one_line(run: Run, arguments: list[str], said: str) -> None:
    code, out, err = run(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err
    assert err.startswith("equint: ")


def test_hardware_that_fuses_activations(run: Run, tmp_path: Path) -> None:
    """Every command that quantizes takes the option, and nothing is rounded in front of the activation."""
    body, model, out = "a = Conv(x, w) h = LeakyRelu(a) y = Conv(h, v)", tmp_path / "leaky.onnx", tmp_path / "out.onnx"
    onnx.save(network(body, w=normal(4, 3, 3, 3), v=normal(4, 4, 3, 3)), model)
    told = ("--target", "per-tensor", "--input-range", "0", "1")
    for option, count in (("--fused-activations", 3), ("--no-fused-activations", 4)):
        assert run("quantize", model, "-o", out, option, *told)[0] == 0
        kinds = [node.op_type for node in onnx.load(out).graph.node]
        assert kinds.count("QuantizeLinear") == count
        for command in ("explain", "sqnr"):
            assert run(command, model, option, *told, "--json")[0] == 0


@pytest.fixture
def interrupts() -> Iterator[None]:
    """Ctrl-C as at a terminal: what a shell starts in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts")
@pytest.mark.parametrize(
    ("function", "command"),
    [
        ("auto", ("auto",)),
        *((name, (name, "-o", f"out.{end}")) for name, end in (("quantize", "onnx"), ("report", "html"))),
        *((name, (name, "-o", "out")) for name in ("export", "golden")),
        *((name, (name,)) for name in ("diagnose", "explain", "sqnr", "inspect", "sizes", "lint")),
        ("evaluate", ("evaluate", "--against", "table")),
        ("compare", ("compare", "table")),
        ("calibrate", ("calibrate", "-o", "out.npz")),
        ("quantize", ("quantize", "-o", "calibrate", "--debug")),
    ],
)
def test_who_stops_a_command_is_told_that_nothing_was_written(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, command: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    name, *options = command
    for file in ("net.onnx", "table"):
        shutil.copy(model_path(), file)
    monkeypatch.setattr(equint, function, lambda *_, **__: signal.raise_signal(signal.SIGINT))
    code, out, err = run(name, "net.onnx", *options)
    assert (code, out, err) == (130, "", "equint: stopped; nothing was written; give the command again\n")
    assert sorted(os.listdir()) == ["net.onnx", "table"]


@pytest.mark.usefixtures("interrupts")
def test_who_stops_a_command_is_told_what_is_kept(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    described = gray_card(tmp_path)
    monkeypatch.chdir(tmp_path)

    def stopped(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as later:
        later.setattr("equint.automatic.Automatic.page", stopped)
        code, out, err = run("auto", model_path(), "-o", "q.onnx")
    told = "q.onnx was written, and is whole; give the command again for the rest"
    assert (code, out, err) == (130, "", f"equint: stopped; {told}\n")
    with monkeypatch.context() as later:
        later.setattr("equint.samples.statistics.merged", stopped)
        code, _, err = run("calibrate", model_path(), "-o", "s.npz", "--card", described, "--images", 32)
    told = "what was measured is kept in s.part.npz, and the same command goes on from it"
    assert (code, err) == (130, f"equint: stopped; {told}\n")
    assert run("calibrate", model_path(), "-o", "s.npz", "--card", described, "--images", 32)[0] == 0
    assert sorted(p.name for p in tmp_path.glob("s.*")) == ["s.npz"]
    with monkeypatch.context() as later:
        later.setattr(equint, "table", stopped)
        err = run("table", described, "--recipe", "lwq")[2]
    told = "finished cells are kept in the cache, and the same command goes on from them"
    assert err == f"equint: stopped; {told}\n"


def test_closed_streams_cost_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "equint", "quantize", model_path(), "-o", tmp_path / "q.onnx", "--effort", "fast"]
    found = subprocess.run(["sh", "-c", '"$@" >&- 2>&-', "sh", *map(str, command)], check=False)
    assert found.returncode == 0
    assert (tmp_path / "q.onnx").is_file()


def test_an_encoding_that_lacks_signs_costs_nothing() -> None:
    command = [sys.executable, "-m", "equint", "sizes"]
    told = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"}, check=True)
    assert b"32\\xb7N" in told.stdout
    assert told.stderr == b""


def test_long_messages_lose_their_middle(run: Run) -> None:
    code, _, err = run("quantize", "n" * 5000, "-o", "out.onnx", "--recipe", "r" * 5000)
    assert code == 2
    assert len(err) <= 700
    assert err.count("\n") == 1


def test_statistics_that_are_merged_and_labels_of_a_card_are_spared(run: Run, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("cat\n")
    (tmp_path / "net.toml").write_text('labels = "labels.txt"\n[input]\nkind = "gray"\n')
    (tmp_path / "a.npz").write_bytes(b"kept")
    card = tmp_path / "net.toml"
    for output, command in (
        ("a.npz", ["calibrate", model_path(), "--merge", tmp_path / "a.npz", "-o"]),
        ("labels.txt", ["report", model_path(), "--card", card, "-o"]),
    ):
        code, _, err = run(*command, tmp_path / output)
        assert code == 2
        assert "would overwrite" in err
    assert (tmp_path / "a.npz").read_bytes() == b"kept"
    assert (tmp_path / "labels.txt").read_text() == "cat\n"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("auto", model_path(), "--data", ""), "--data ''"),
        (("card", model_path(), "--data="), "--data=''"),
        (("quantize", model_path(), "-o", ""), "-o ''"),
        (("inspect", ""), "''"),
    ],
)
def test_empty_is_not_the_current_folder(
    run: Run, tmp_path: Path, command: tuple[object, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(run, tmp_path, f"equint: {said}: is empty; give a value, or leave it out", *command)


def test_a_name_that_no_file_can_have(run: Run, tmp_path: Path) -> None:
    code, out, err = run("quantize", model_path(), "-o", tmp_path / "q.onnx", "--data", "x" * 300)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "name too long" in err
    assert "unexpected" not in err


@pytest.mark.parametrize("command", [c.__name__.replace("_", "-") for c in COMMANDS])
def test_help_shows_an_example(run: Run, command: str) -> None:
    code, text, _ = run(command, "--help")
    assert code == 0
    assert f"Example: equint {command}" in " ".join(text.split())
