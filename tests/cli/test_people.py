"""Commands that need no choices, as their users run them."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from importlib import resources
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from commands import Run
from equint.cli.people import more_samples
from equint.demo import data_path, model_path
from equint.samples.card import read_card

pytestmark = pytest.mark.slow


def test_a_network_is_all_it_needs(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, text, err = run("auto", model_path())
    assert (code, err) == (0, "")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["digits.int8.html", "digits.int8.onnx"]
    lines = text.splitlines()
    assert len(lines) == 5
    assert lines[0].startswith(("good", "usable", "poor", "broken"))
    assert lines[1].startswith("digits.int8.onnx: ")
    assert lines[3].startswith("limits: ")
    assert lines[4].startswith("next: ")
    code, text, _ = run("auto", model_path(), "-v")
    assert "folded BatchNormalization" in text


def test_a_card_and_what_it_is_for(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    code, text, _ = run("card", model_path(), "--data", data_path(), "-o", path)
    assert code == 0
    assert "98.0 %" in text
    assert read_card(path).std == (16.0,)
    code, text, _ = run("auto", model_path(), "--card", path, "--max-drop", 5, "-o", tmp_path, "--json")
    found = json.loads(text)
    assert (code, found["held"], found["schema"]) == (0, True, "equint.auto/1")
    assert (tmp_path / "digits.int8.onnx").stat().st_size == found["file_bytes"]


def test_a_bound_that_is_not_held_ends_with_1(run: Run, tmp_path: Path) -> None:
    own = tmp_path / "two.toml"
    own.write_text('recipe = "wes"\nshift_bits = 4\n[weight]\nbits = 2\ngranularity = "shift"\n')
    asked = ("auto", model_path(), "--data", data_path(), "--target", own, "--max-drop", 0.5)
    code, text, _ = run(*asked, "-o", tmp_path / "q.onnx")
    assert code == 1
    assert "NOT held" in text
    assert (tmp_path / "q.onnx").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("auto", "none.onnx"), "none.onnx: no such file"),
        (("auto", model_path(), "--max-drop", 0.5), "--max-drop needs labels"),
        (("auto", model_path(), "--data", "none"), "none: no such file or folder"),
        (("auto", model_path(), "--data", data_path(), "--target", "openvin"), "did you mean openvino?"),
        (("auto", model_path(), "-o", "out.html"), "-o out.html: a model is an .onnx or a .tflite file"),
        (("card", model_path(), "--data", "none"), "none: no such file or folder"),
        (("card", model_path(), "--data", data_path(), "-o", "c.txt"), "cards are .toml files"),
    ],
)
def test_refusals_are_a_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[object, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert not list(tmp_path.iterdir())


def test_nothing_that_was_read_is_written_over(run: Run, tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    model.write_bytes(model_path().read_bytes())
    np.savez(tmp_path / "d.npz", x=np.zeros((2, 8, 8, 1), np.uint8))
    for arguments in (("auto", model, "-o", model), ("card", model, "--data", tmp_path / "d.npz", "-o", model)):
        assert run(*arguments)[0] == 2
    assert model.read_bytes() == model_path().read_bytes()


def test_what_is_printed_as_json_is_as_published(run: Run, tmp_path: Path) -> None:
    schema = json.loads((resources.files("equint.cli") / "output.schema.json").read_text("utf-8"))
    path = tmp_path / "c.toml"
    asked = {
        "card": ("card", model_path(), "--data", data_path(), "-o", path),
        "auto": ("auto", model_path(), "--card", path, "--max-drop", 5, "-o", tmp_path / "q.onnx"),
        "quantize": ("quantize", model_path(), "--card", path, "-o", tmp_path / "q.onnx"),
    }
    assert schema["$defs"].keys() == asked.keys()
    for name, arguments in asked.items():
        found = json.loads(run(*arguments, "--json")[1])
        own = {**schema, "$ref": f"#/$defs/{name}"}
        jsonschema.Draft202012Validator(own).validate(found)
        assert found.keys() <= schema["$defs"][name]["properties"].keys()


@pytest.mark.parametrize("ending", ["onnx", "tflite"])
def test_quantize_says_as_json_the_verdict_that_it_shows(run: Run, tmp_path: Path, ending: str) -> None:
    asked = ("quantize", model_path(), "-o", tmp_path / f"q.{ending}", "--input-range", 0, 1)
    found = json.loads(run(*asked, "--json")[1])
    first = run(*asked)[1].splitlines()[0]
    assert found["verdict"] == found["judged"]["words"] == first
    assert found["judged"]["level"] in first or found["judged"]["status"] == "not measured"


def test_quantize_measures_where_there_are_labels(run: Run, tmp_path: Path) -> None:
    path, out = tmp_path / "c.toml", tmp_path / "q.onnx"
    run("card", model_path(), "--data", data_path(), "-o", path)
    asked = ("quantize", model_path(), "-o", out, "--card", path)
    found = json.loads(run(*asked, "--json")[1])
    measured = json.loads(run("evaluate", out, "--card", path, "--against", model_path(), "--limit", 200, "--json")[1])
    assert found["measured"]["samples"] == 200
    assert found["measured"]["top1"] == measured["top1"]
    assert measured["verdict"]["words"] in run(*asked)[1].splitlines()[0]
    assert "measured" not in json.loads(run(*asked, "--no-measure", "--json")[1])


def test_a_story_is_no_log(run: Run, tmp_path: Path) -> None:
    asked = ("quantize", model_path(), "-o", tmp_path / "q.onnx", "--input-range", 0, 1)
    text = run(*asked)[1]
    assert len(text.splitlines()) <= 6
    assert not any(word in text for word in ("clips=", "scales=", "steps="))
    assert "scales=" in run(*asked, "-v")[1]


def test_shells_complete() -> None:
    assert "--show-completion" in _help()


def _help() -> str:
    from typer.main import get_command

    from equint.cli.main import app

    return " ".join(option for p in get_command(app).params for option in p.opts)


@pytest.mark.parametrize("name", ["d.tflite", "D.TFLITE"])
def test_a_tflite_file_is_for_litert_and_is_what_is_linted(run: Run, tmp_path: Path, name: str) -> None:
    code, text, _ = run("auto", model_path(), "-o", tmp_path / name)
    lines = text.splitlines()
    assert code == 0
    assert lines[1].partition("; page")[0].endswith("for tflite-int8")
    assert sorted(p.name for p in tmp_path.iterdir()) == [name, f"{name}.html"]
    assert lines[2] == "integers do 100.0 % of the multiply-accumulates; tflite-int8 takes all of it"
    assert (tmp_path / name).read_bytes()[4:8] == b"TFL3"


def test_data_that_a_card_names_and_that_are_gone_are_an_error(run: Run, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text('[input]\nkind = "gray"\nstd = [16.0]\n[data]\neval = "gone"\n')
    code, _, err = run("auto", model_path(), "--card", tmp_path / "c.toml", "-o", tmp_path / "q.onnx")
    assert code == 2
    assert "gone: no such file or folder, which the card names as eval" in err


def advised(text: str) -> list[list[str]]:
    """The commands that the last line advises, as words."""
    told = re.findall(
        r"equint (.+?)(?= (?:says|writes|measures|draws|spends|--target NAME)|, then)", text.splitlines()[-1]
    )
    return [shlex.split(one.removeprefix("equint ")) for line in told for one in line.split(" && ")]


TWO_BITS = '[weight]\nbits = 2\ngranularity = "{}"\n'


@pytest.mark.parametrize(
    ("asked", "commands", "options"),
    [
        (("auto", "--data", "d.npz", "--target", "my shift.toml", "--max-drop", 0.5), ["auto", "card", "diagnose"], []),
        (("auto", "--card", "c.toml", "--target", "my tensor.toml"), ["diagnose"], ["--card", "--images"]),
        (("auto", "--data", "d.npz", "--target", "my tensor.toml", "--force"), ["card", "diagnose"], []),
        (("auto", "--data", "d.npz", "--target", "npu-shift"), ["card", "export"], ["--card", "--images"]),
        (("auto", "--input-range", 0, 1, "--target", "npu-shift"), ["export"], ["--input-range"]),
        (("auto", "--card", "alike.toml", "-o", "d q.tflite"), ["golden"], ["--card", "--target"]),
        (("auto", "--card", "alike.toml", "-o", "d q.onnx"), ["lint"], []),
        (("quantize", "--input-range", 0, 1, "-o", "d.tflite"), ["golden"], ["--input-range", "--target"]),
        (("quantize", "--card", "c.toml", "--weight-bits", 2, "-o", "q.onnx"), ["diagnose"], ["--weight-bits"]),
        (("quantize", "--card", "bare.toml", "--recipe", "lwq", "-o", "q.onnx"), ["evaluate"], ["--against"]),
        (
            ("quantize", "--mean", "0", "--std", "16", "--data", "d.npz", "-o", "q.onnx"),
            ["report"],
            ["--mean", "--data"],
        ),
        (("quantize", "--target", "qnn", "--force", "-o", "q.onnx"), ["auto"], ["--target"]),
        (("auto", "--input-range", 0, 255, "--target", "npu-shift", "--force"), ["export"], ["--force"]),
        (("quantize", "--recipe", "lwq", "-o", "q.onnx"), ["card"], ["--data"]),
    ],
    ids=lambda value: "-".join(map(str, value[:1])) if isinstance(value, tuple) else None,
)
def test_what_is_advised_runs_with_the_options_given(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    asked: tuple[object, ...],
    commands: list[str],
    options: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(model_path(), "my net.onnx")
    shutil.copy(data_path(), "d.npz")
    run("card", "my net.onnx", "--data", "d.npz", "-o", "c.toml")
    Path("alike.toml").write_text(Path("c.toml").read_text("utf-8").replace("classification", "features"), "utf-8")
    Path("bare.toml").write_text(Path("c.toml").read_text("utf-8").partition("[data]")[0], "utf-8")
    for kind, recipe in (("shift", 'recipe = "wes"\nshift_bits = 4\n'), ("tensor", 'recipe = "optimal"\n')):
        Path(f"my {kind}.toml").write_text(recipe + TWO_BITS.format(kind), "utf-8")
    told = advised(run(asked[0], "my net.onnx", *asked[1:])[1])
    assert [words[0] for words in told] == commands
    assert set(options) <= {word for words in told for word in words}
    assert ("--force" in options) is any("--force" in words for words in told)
    for words in told:
        given = ["d.npz" if word == "FOLDER" else word for word in words if word not in ("(of", "pictures)")]
        code, _, err = run(*given)
        assert (code, err) == (0, ""), given


def test_quantize_says_whether_a_bound_is_held_on_labels(run: Run, tmp_path: Path) -> None:
    path, out = tmp_path / "c.toml", tmp_path / "q.onnx"
    run("card", model_path(), "--data", data_path(), "-o", path)
    for bits, bound in ((3, 0), (8, 50)):
        formats = ("--weight-bits", bits, "--target", "npu-shift", "--max-drop", bound)
        asked = ("quantize", model_path(), "-o", out, "--card", path, "--images", 16, *formats)
        found = json.loads(run(*asked, "--json")[1])["measured"]
        lost = found["float"]["top1"] - found["top1"]
        first = run(*asked)[1].splitlines()[0]
        assert first.startswith(
            f"max-drop {bound} is {'held' if lost <= bound else 'missed'}, {lost:.1f} points of top-1"
        )
        assert "measured on samples that it was also calibrated with" in first


def test_more_samples_are_asked_of_data_that_hold_them() -> None:
    assert more_samples(336, 92, 4000, "a") == "the same command with --limit 428 would decide"
    assert more_samples(336, 92, None, "a") == "the same command with --limit 428 would decide"
    assert more_samples(100, 7636, 100, "a") == "add about 7,636 samples of your own, which would decide: a holds 100"


def test_auto_knows_how_many_samples_data_hold(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    run("card", model_path(), "--data", data_path(), "-o", path)
    text = run("auto", model_path(), "--card", path, "-o", tmp_path / "q.onnx")[1]
    assert f"{data_path().name} holds 500" in text.splitlines()[-1]
