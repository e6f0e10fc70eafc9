"""Several runs on one page: every figure is that of its file, and what cannot be compared is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from commands import Run
from equint.demo import data_path, model_path
from equint.errors import UnusableData
from equint.pages.headline import shown
from equint.pages.runs import read_run, runs_page
from equint.scoring.verdicts import Verdict

BASE: dict[str, Any] = {
    "schema": "equint.auto/1",
    "recipe": "optimal",
    "target": "per-channel",
    "level": 2,
    "weights": "8 bits",
    "activations": "8 bits",
    "float_bytes": 1000,
    "integer_bytes": 300,
    "file_bytes": 500,
    "seconds": 1.5,
    "warnings": [],
    "verdict": "good: 0.1 points lost",
    "judged": {"level": "good"},
    "evaluation": {"data": "d.npz", "samples": 50, "top1": 90.0, "sqnr_db": 30.0, "float": {"top1": 90.1}},
}


def stored(folder: Path, name: str, **changes: Any) -> Path:
    path = folder / f"{name}.json"
    path.write_text(json.dumps({**BASE, **changes}), "utf-8")
    return path


def test_figures_stand_beside_one_another(tmp_path: Path) -> None:
    worse = {**BASE["evaluation"], "top1": 88.0, "sqnr_db": 31.0}
    first = read_run(stored(tmp_path, "a"))
    second = read_run(
        stored(tmp_path, "b", evaluation=worse, recipe="<lwq>", judged={"level": "poor"}, verdict="poor: x")
    )
    html = runs_page([first, second])
    assert "<b>90.00 %</b>" in html
    assert "<b>88.00 %</b>" not in html
    assert "<b>31.0 dB</b>" in html
    assert "float 90.10 %" in html
    assert "<b>&lt;lwq&gt;</b>" in html
    assert "<b>per-channel</b>" not in html
    assert "cannot be compared" not in html
    assert "0.1 points lost" in html
    assert "good: 0.1" not in html
    assert "<title>a and b" in html


def test_what_is_shown_alike_is_equally_good(tmp_path: Path) -> None:
    nearly = {**BASE["evaluation"], "sqnr_db": 30.01, "top1": 80.0}
    first, second = read_run(stored(tmp_path, "a")), read_run(stored(tmp_path, "b", evaluation=nearly))
    assert runs_page([first, second]).count("<b>30.0 dB</b>") == 2


def test_other_data_are_said(tmp_path: Path) -> None:
    other = {**BASE["evaluation"], "samples": 51}
    html = runs_page([read_run(stored(tmp_path, "a")), read_run(stored(tmp_path, "b", evaluation=other, target="x"))])
    assert "cannot be compared" in html
    other["top1"], other["sqnr_db"] = 88.0, 31.0
    html = runs_page([read_run(stored(tmp_path, "a")), read_run(stored(tmp_path, "b", evaluation=other))])
    assert "<b>90.00 %</b>" not in html
    assert "<svg" not in html
    assert "bold, the float" not in html


def test_a_run_is_labelled_as_on_its_own_page(tmp_path: Path) -> None:
    words = "poor, though 9 samples cannot tell: 5.0 points lost"
    judged = {"level": "poor", "words": words, "status": "undecided"}
    html = runs_page([read_run(stored(tmp_path, name, judged=judged, verdict=words)) for name in ("a", "b", "own")])
    told = shown(Verdict("poor", words, "undecided"))
    assert html.count(f'<span class="status">{told["label"]}</span> {told["reason"]}') == 3
    assert "<title>a, b and own" in html


def test_runs_without_measurement_are_shown(tmp_path: Path) -> None:
    bare = {k: v for k, v in BASE.items() if k not in ("evaluation", "judged", "verdict")}
    (tmp_path / "a.json").write_text(json.dumps({**bare, "schema": "equint.quantize/1"}), "utf-8")
    html = runs_page([read_run(tmp_path / "a.json")] * 2)
    assert html.count("not measured") >= 2
    assert "a (1)" in html


@pytest.mark.parametrize(
    "text", ["", "[1]", "{}", '{"schema": "equint.card/1"}', '{"schema": "equint.auto/1"}', "[" * 100_000]
)
def test_what_is_no_result_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text, "utf-8")
    with pytest.raises(UnusableData, match=r"a\.json.*give what"):
        read_run(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("schema", "[]"),
        ("schema", "{}"),
        ("file_bytes", "1" * 4000),
        ("float_bytes", "Infinity"),
        ("float_bytes", "1e999"),
        ("evaluation", '{"sqnr_db": NaN}'),
    ],
)
def test_numbers_that_are_none_are_refused(tmp_path: Path, key: str, value: str) -> None:
    given = {k: json.dumps(v) for k, v in {**BASE, "schema": "equint.quantize/1"}.items()} | {key: value}
    (tmp_path / "a.json").write_text("{" + ", ".join(f'"{k}": {v}' for k, v in given.items()) + "}", "utf-8")
    with pytest.raises(UnusableData, match=r"a\.json.*give what"):
        read_run(tmp_path / "a.json")


@pytest.mark.slow
def test_what_commands_print_is_taken(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.toml").write_text(
        f'[input]\nkind = "gray"\nstd = [16.0]\nrange = [0, 1]\n[data]\neval = "{data_path()}"\n', "utf-8"
    )
    for recipe in ("lwq", "cwq"):
        code, out, _ = run(
            *("quantize", model_path(), "-o", f"{recipe}.onnx", "--recipe", recipe, "--card", "net.toml", "--json")
        )
        assert code == 0
        Path(f"{recipe}.json").write_text(out, "utf-8")
    assert run("page", "lwq.json", "cwq.json", "-o", "both.html")[:2] == (0, "wrote both.html\n")
    html = Path("both.html").read_text("utf-8")
    for recipe in ("lwq", "cwq"):
        measured = json.loads(Path(f"{recipe}.json").read_text("utf-8"))["measured"]
        assert f"{measured['top1']:.2f} %" in html
    assert run("page", "lwq.json", "-o", "one.html")[0] == 2
    code, _, err = run("page", "lwq.json", "net.toml", "-o", "both.html")
    assert (code, err.count("\n")) == (2, 1)
    assert "net.toml" in err
    assert run("page", "lwq.json", "cwq.json", "-o", "lwq.json")[0] == 2
