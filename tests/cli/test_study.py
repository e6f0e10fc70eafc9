"""Tables, verdicts and pages, as the command line gives them."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from commands import Run
from equint import quantize
from equint.demo import data_path, model_path
from equint.hardware.target import target
from equint.ir.model import Array
from equint.planning.recipe import source
from handwritten import execute, network, normal


@pytest.fixture
def card(tmp_path: Path) -> Path:
    path = tmp_path / "digits.toml"
    path.write_text(
        f'model = "{model_path()}"\ntask = "classification"\n[input]\nkind = "gray"\nmean = 0\nstd = 16\n'
        "range = [0, 1]\n"
        f'[data]\neval = "{data_path()}"\n'
    )
    return path


def first(count: int) -> tuple[Array, Array]:
    """Digits as the card prepares them, and their labels."""
    with np.load(data_path()) as stored:
        return (stored["x"][:count].astype(np.float32) / 16).transpose(0, 3, 1, 2), stored["y"][:count]


@pytest.mark.slow
def test_evaluate_says_how_good_it_is(run: Run, card: Path, tmp_path: Path) -> None:
    out = tmp_path / "int8.onnx"
    assert run("quantize", model_path(), "-o", out, "--card", card)[0] == 0
    code, text, _ = run("evaluate", out, "--card", card, "--against", model_path(), "--json")
    found = json.loads(text)
    assert code == 0
    assert found["float"]["top1"] >= 95
    lost = found["float"]["top1"] - found["top1"]
    assert found["verdict"]["level"] == ("good" if lost < 0.5 else "usable")
    assert "top-1" in found["verdict"]["words"]
    code, text, _ = run("evaluate", out, "--card", card, "--against", model_path())
    assert found["verdict"]["words"] in text


TASKS = pytest.mark.parametrize("task", [None, "classification", "features", "segmentation"])
"""What a card says; None: no card."""


@TASKS
@pytest.mark.parametrize("inputs", [("image",), ("left", "right")])
@pytest.mark.parametrize("bundle", [False, True])
def test_evaluate_reads_arrays_by_the_names_of_the_inputs(
    run: Run, tmp_path: Path, task: str | None, inputs: tuple[str, ...], bundle: bool
) -> None:
    """What `quantize` reads `evaluate` reads, and its SQNR is that of onnxruntime's outputs for these arrays."""
    rng = np.random.default_rng(0)
    body = "y = Conv(image, w)" if len(inputs) == 1 else "s = Add(left, right) y = Conv(s, w)"
    shapes = ", ".join(f"float[N,3,8,8] {name}" for name in inputs)
    proto = network(body, inputs=shapes, output="float[N,4,6,6] y", w=normal(4, 3, 3, 3))
    net, data, made = tmp_path / "net.onnx", tmp_path / "data.npz", tmp_path / ("made.json" if bundle else "made.onnx")
    onnx.save(proto, net)
    arrays: dict[str, Any] = {name: rng.normal(size=(20, 3, 8, 8)).astype(np.float32) for name in inputs}
    truth: dict[str, Any] = {"y": rng.integers(0, 4, (20, 6, 6))} if task == "segmentation" else {}
    np.savez(data, **arrays, **truth)
    target = ("--target", "npu-shift") if bundle else ()
    assert run("export" if bundle else "quantize", net, "-o", made, "--recipe", "lwq", "--data", data, *target)[0] == 0
    described: tuple[object, ...] = ()
    if task is not None:
        (tmp_path / "card.toml").write_text(
            f'task = "{task}"\nlabels = ["a", "b", "c", "d"]\n[input]\nkind = "features"\n'
        )
        described = ("--card", tmp_path / "card.toml")
    assert run("evaluate", made, "--against", net, "--data", data, *described)[0] == 0
    code, text, _ = run("evaluate", made, "--against", net, "--data", data, *described, "--json")
    found = json.loads(text)
    assert (code, found["samples"], "miou" in found) == (0, 20, bool(truth))
    if bundle:
        assert found["sqnr_db"] > 25
    else:
        (a,), (b,) = (execute(onnx.load(path), *arrays.values()) for path in (net, made))
        assert found["sqnr_db"] == pytest.approx(10 * np.log10((a**2).sum() / ((a - b) ** 2).sum()), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("width", [40, 80, 110, 200])
def test_sqnr_fits_the_window(run: Run, card: Path, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    shown = ("--card", card, "--data", data_path(), "--images", 2)
    text = re.sub(r"\x1b\[[0-9;]*m", "", run("sqnr", model_path(), *shown)[1])
    assert max(map(len, text.splitlines())) <= width
    assert text.count("block4.project/conv") == 5, "names of layers are whole, in every table of layers"
    if width >= 110:
        assert not any(line.rstrip().endswith("→") for line in text.splitlines() if line[:1] == " "), (
            "and so are their rows"
        )


@pytest.mark.slow
def test_a_table_is_made_once(run: Run, card: Path, tmp_path: Path) -> None:
    asked = ("table", card, "--recipe", "lwq", "--recipe", "optimal", "--limit", 50, "--cache", tmp_path / "found")
    code, text, said = run(*asked, "-o", tmp_path / "table.md")
    assert (code, said) == (0, "")
    assert (tmp_path / "table.md").read_text() == text
    assert "lwq" in text
    kept = {p: p.stat().st_mtime_ns for p in (tmp_path / "found").rglob("*.jsonl")}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys.stderr, "isatty", lambda: True)
        code, again, said = run(*asked)
    assert (code, again) == (0, text)
    assert str(tmp_path / "found") in said.splitlines()[-1]
    assert kept
    assert kept == {p: p.stat().st_mtime_ns for p in (tmp_path / "found").rglob("*.jsonl")}
    code, text, _ = run(*asked, "--json")
    assert [json.loads(line)["recipe"] for line in text.splitlines() if "recipe" in json.loads(line)].count("lwq") == 1


@pytest.mark.slow
def test_a_page_about_a_network(run: Run, card: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "one.html", tmp_path / "two.html"
    code, said, _ = run("report", model_path(), "-o", first, "--card", card, "--limit", 50)
    assert code == 0
    assert "top-1" in said.splitlines()[0]
    assert said.endswith(f"wrote {first}\n")
    assert run("quantize", model_path(), "-o", tmp_path / "q.onnx", "--card", card, "--report", second)[0] == 0
    for page in (first, second):
        text = page.read_text()
        assert text.startswith("<!doctype html>")
        assert "http://" not in text.replace("http://www.w3.org", "")
        assert "block1.pw" in text
    assert "points of top-1" in first.read_text() or "top-1 unchanged" in first.read_text()


@pytest.mark.slow
def test_a_diagnosis_ends_in_a_recipe(run: Run, card: Path, tmp_path: Path) -> None:
    out = tmp_path / "better.toml"
    asked = ("diagnose", model_path(), "--recipe", "lwq", "--card", card, "--data", data_path(), "--images", 64)
    code, text, _ = run(*asked, "-o", out, "--json")
    found = json.loads(text)
    assert code == 0
    assert found["best"]["gain"] > 3  # one grid per layer ruins this network, and other recipes do not
    images = ("--data", data_path(), "--images", 64)
    for chosen in ("lwq", out):
        made = tmp_path / f"{Path(chosen).stem}.onnx"
        code, *_ = run("quantize", model_path(), "-o", made, "--recipe", chosen, "--card", card, *images)
        assert code == 0
    x, _ = first(64)
    exact, before, after = (
        execute(onnx.load(m), x)[0] for m in (model_path(), tmp_path / "lwq.onnx", out.with_suffix(".onnx"))
    )
    gain = 10 * np.log10(np.square(before - exact).sum(1) / np.square(after - exact).sum(1))
    assert gain.mean() == pytest.approx(found["best"]["expected"], abs=0.01)


@pytest.mark.slow
def test_bits_are_spent_until_the_bound_is_met(run: Run, card: Path, tmp_path: Path) -> None:
    asked = ("quantize", model_path(), "--recipe", "lwq", "--card", card, "--data", data_path(), "--images", 64)
    code, text, _ = run(*asked, "-o", tmp_path / "q.onnx", "--max-drop", 2, "--json")
    found = json.loads(text)["mixed"]
    assert code == 0
    assert found["met"]
    assert found["drop"] <= 2 < found["before"]
    assert found["chosen"]
    x, labels = first(64)
    right = [np.mean(execute(onnx.load(m), x)[0].argmax(1) == labels) for m in (model_path(), tmp_path / "q.onnx")]
    assert found["drop"] == pytest.approx(100 * (right[0] - right[1]))


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["table", "gone.toml", "--recipe", "lwq"], "gone.toml"),
        (["table", "{card}", "--recipe", "none"], "unknown recipe 'none'"),
        (["table", "{card}", "--recipe", "lwq", "--bits", "8"], "--bits 8: give weights/activations"),
        (["table", "{card}", "--recipe", "lwq", "--limit", "x"], "--limit x: give one number"),
        (["diagnose", "{model}", "-o", "{out}"], "recipes are .toml files"),
        (["quantize", "{model}", "-o", "{out}.onnx", "--max-drop", "-1"], "--max-drop -1.0: give points from 0 to 100"),
        (
            ["quantize", "{model}", "-o", "{out}.onnx", "--max-drop", "101"],
            "--max-drop 101.0: give points from 0 to 100",
        ),
        (["report", "gone.onnx", "-o", "{out}"], "gone.onnx"),
        (["report", "{model}", "-o", "{model}"], "would overwrite"),
        (["report", "{model}", "-o", "{out}", "--limit", "5"], "--limit needs a card"),
    ],
)
def test_bad_input_is_one_line(run: Run, card: Path, tmp_path: Path, arguments: list[str], why: str) -> None:
    names = {"model": model_path(), "card": card, "out": tmp_path / "out.html"}
    code, _, err = run(*(a.format(**names) for a in arguments))
    assert code == 2
    assert len(err.strip().splitlines()) == 1
    assert why in err


def test_what_was_given_is_not_overwritten(run: Run, card: Path, tmp_path: Path) -> None:
    mine, out = tmp_path / "mine.toml", tmp_path / "q.onnx"
    mine.write_text(source("lwq"))
    for arguments in (
        ("quantize", model_path(), "-o", card, "--card", card),
        ("quantize", model_path(), "-o", mine, "--recipe", mine),
        ("quantize", model_path(), "-o", out, "--report", out),
        ("quantize", model_path(), "-o", out, "--report", card, "--card", card),
        ("report", model_path(), "-o", card, "--card", card),
        ("diagnose", model_path(), "-o", mine, "--recipe", mine),
        ("table", card, "--recipe", "lwq", "-o", card),
        ("table", card, "--recipe", mine, "-o", mine),
        ("export", model_path(), "-o", card, "--format", "qdq", "--card", card),
    ):
        before = card.read_text(), mine.read_text()
        code, _, err = run(*arguments)
        assert code == 2
        assert "would overwrite the" in err
        assert before == (card.read_text(), mine.read_text())
        assert not out.exists()


@pytest.mark.parametrize(
    ("target", "code", "rules"),
    [("per-tensor-symmetric", 0, set()), ("qnn", 0, {"static-shapes"}), ("esp-dl", 1, {"power-of-two"})],
)
def test_lint(run: Run, tmp_path: Path, target: str, code: int, rules: set[str]) -> None:
    """Its exit code says whether something found is an error."""
    out = tmp_path / "int8.onnx"
    quantize(model_path(), target="per-tensor-symmetric", input=(0, 1), effort="fast").save(out)
    found, text, err = run("lint", out, "--target", target, "--json")
    facts = json.loads(text)
    assert (found, err) == (code, "")
    assert (facts["file"], facts["target"], facts["clean"]) == (str(out), target, code == 0)
    assert rules <= {f["rule"] for f in facts["findings"]}
    assert all(f["source"] and f["date"] and f["todo"] and f["what"] for f in facts["findings"])
    shown = run("lint", out, "--target", target)
    assert shown[0] == code
    assert all(rule in shown[1] for rule in rules)


@pytest.mark.parametrize("name", ["per-channel", "esp-dl"])
@pytest.mark.parametrize("command", [["quantize"], ["export", "--format", "qdq"]])
def test_lint_knows_whom_a_file_was_made_for(run: Run, tmp_path: Path, name: str, command: list[str]) -> None:
    """Its metadata say so, which any reader of ONNX finds; the rules are those of that target."""
    out = tmp_path / "int8.onnx"
    made = (*command, model_path(), "-o", out, "--target", name, "--input-range", 0, 1, "--effort", "fast")
    assert run(*made)[0] == 0
    assert {p.key: p.value for p in onnx.load(out).metadata_props}["equint.target"] == name
    code, text, _ = run("lint", out, "--json")
    facts, asked = json.loads(text), json.loads(run("lint", out, "--target", name, "--json")[1])
    assert code == 0
    assert (facts.pop("target_from"), asked.pop("target_from")) == ("file", "asked")
    assert facts == asked
    assert f"int8.onnx for {name}, as it says itself: " in run("lint", out)[1]
    assert "int8.onnx for qnn: " in run("lint", out, "--target", "qnn")[1]


def test_lint_of_a_file_that_names_no_target(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "int8.onnx"
    proto = quantize(model_path(), "lwq", "per-tensor", input=(0, 1)).proto
    foreign = onnx.ModelProto.FromString(proto.SerializeToString())
    del foreign.metadata_props[:]
    onnx.save(foreign, out)
    code, text, _ = run("lint", out)
    assert code == 0
    assert text.startswith("int8.onnx for onnxruntime, assumed: it names no target, and --target was not given: ")
    every: tuple[list[str], ...] = ([], ["--target", "onnxruntime"])
    assumed, asked = (json.loads(run("lint", out, *named, "--json")[1]) for named in every)
    assert (assumed.pop("target_from"), asked.pop("target_from")) == ("assumed", "asked")
    assert assumed == asked


def test_lint_asks_for_the_target_of_ones_own(run: Run, tmp_path: Path) -> None:
    """Also where it bears a built-in one's name, as only values in Python do."""
    out, own = tmp_path / "int8.onnx", tmp_path / "dsp.toml"
    own.write_text(
        "[weight]\nsymmetric = true\n[[rules]]\nrule = 'weight-zero-point'\nsource = 'a'\ndate = '2025-01-31'"
    )
    quantize(model_path(), "lwq", own, input=(0, 1)).save(out)
    code, text, err = run("lint", out)
    assert (code, text) == (2, "")
    assert "int8.onnx: made for 'dsp', a target of your own; give its TOML file as target (--target)" in err
    assert "int8.onnx for dsp: clean" in run("lint", out, "--target", own)[1]
    quantize(model_path(), "lwq", replace(target("qnn"), bias_bits=16), input=(0, 1)).save(out)
    assert "made for 'qnn', a target of your own" in run("lint", out)[2]
    quantize(model_path(), "lwq", "qnn", fused_activations=True, input=(0, 1)).save(out)
    assert "for qnn, as it says itself" in run("lint", out)[1]


def test_lint_of_what_cannot_be_judged(run: Run, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"no network")
    for file, why in ((model_path(), "nothing in it is quantized"), (tmp_path / "net.onnx", "not an ONNX model")):
        code, text, err = run("lint", file)
        assert (code, text) == (2, "")
        assert why in err


def test_lint_of_a_tflite_file(run: Run, tmp_path: Path) -> None:
    """It names its target, as ONNX does; the shape of what JSON holds is the same."""
    out, qdq = tmp_path / "int8.tflite", tmp_path / "int8.onnx"
    result = quantize(model_path(), target="tflite-int8", input=(0, 1), effort="fast")
    result.save(out)
    result.save(qdq)
    code, text, _ = run("lint", out)
    assert code == 0
    assert text.startswith("int8.tflite for tflite-int8, as it says itself: clean; integers do 100.0 % of all")
    facts, like = (json.loads(run("lint", file, "--json")[1]) for file in (out, qdq))
    assert facts.keys() == like.keys()
    code, text, _ = run("lint", out, "--target", "tflite-int8-per-tensor")
    assert code == 1
    assert "[#0 CONV_2D " in text
    code, text, err = run("lint", out, "--target", "openvino")
    assert (code, text) == (2, "")
    assert "target openvino takes no .tflite files; choose tflite-int8, " in err
    out.write_bytes(out.read_bytes()[:300])
    assert (run("lint", out)[0], run("lint", tmp_path / "no.tflite")[0]) == (2, 2)


def test_quantize_tells_what_lint_finds(run: Run, tmp_path: Path) -> None:
    arguments = ("quantize", model_path(), "-o", tmp_path / "q.onnx", "--target", "qnn", "--input-range", 0, 1)
    code, text, _ = run(*arguments, "--effort", "fast", "-v")
    assert code == 0
    assert "! warning static-shapes [input]: shape (N, 1, 8, 8) is not fixed" in text
    facts = json.loads(run(*arguments, "--effort", "fast", "--json")[1])
    assert facts["lint"]["clean"]
    assert any("static-shapes" in warning for warning in facts["warnings"])
