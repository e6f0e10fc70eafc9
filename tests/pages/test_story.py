"""A result in a few lines: what they say is what was found."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

import equint
from equint.demo import data_path, model_path
from equint.hardware.lint import Finding, Findings
from equint.ir.events import Event, EventKind
from equint.pages.story import hardware_line, limit_line, next_step, on_shown, searched, size_line, warned
from equint.scoring.verdicts import Verdict, of_sqnr, on_made_up
from equint.study.explain import Explanation
from handwritten import network, normal


def test_without_data_the_verdict_says_so() -> None:
    result = equint.quantize(model_path(), input=(0, 1))
    kept = next(e for e in result.model.log if e.kind is EventKind.MEASURED)
    told = searched(result.model)
    assert told.words.startswith("good, as far as 16 made-up samples tell")
    assert f"{kept.facts['SQNR']:.1f} dB" in told.words
    assert told.status == "made up"
    assert searched(equint.load(model_path())).words == "not measured"
    alone = searched(equint.quantize(model_path(), "lwq", input=(0, 1)).model).words
    assert alone.startswith("not measured: the recipe names no candidates to choose among; equint evaluate --against")
    nothing = Event(EventKind.NOTHING_MEASURED, "", {"why": "one sample alone tells nothing"})
    assert searched(equint.load(model_path()).noted(nothing)).words == "not measured: one sample alone tells nothing"
    judged = equint.judge(model_path(), {"own": result}, input=(0, 1))
    assert f"output SQNR {judged.sqnr_db['own']:.1f} dB" in told.words, (
        "of the file that is written, by a judge of its own"
    )
    words = on_shown(judged, "own", result.model).words
    assert f"as far as {judged.images} made-up samples tell: output SQNR {judged.sqnr_db['own']:.1f} dB" in words


def test_with_samples_the_verdict_says_where_others_lie() -> None:
    result = equint.quantize(model_path(), input=equint.Card("gray", (0.0,), (16.0,)), data=data_path(), images=64)
    told = searched(result.model)
    assert told.chance is not None
    assert told.chance[0] < float(re.findall(r"output SQNR ([0-9.]+) dB", told.words)[0]) < told.chance[1]
    assert f"on others like them {told.chance[0]:.1f} to {told.chance[1]:.1f} dB" in told.words
    assert "made-up" not in told.words


def test_sizes() -> None:
    result = equint.quantize(model_path(), "cwq", input=(0, 1))
    line = size_line("q.onnx", 50_000, 100_000, result.model, "onnxruntime")
    assert line.startswith("q.onnx: 50.0 kB (float 100.0 kB, 2.0 times smaller)")
    assert "times" not in size_line("q.onnx", 100_000, 100_000, result.model, "onnxruntime")


def finding(level: str, what: str) -> Finding:
    return Finding(level, "rule", "conv", what, "why", "change it", "source", "date")


def test_what_a_target_refuses_comes_first() -> None:
    found = Findings("qnn", 0.5, (finding("warning", "w"), finding("error", "5 bits"), finding("error", "x")))
    assert hardware_line(found) == "qnn refuses it: 5 bits [conv], and 1 more; change it"
    three = Findings("qnn", 1.0, (finding("warning", "a"), finding("warning", "b"), finding("warning", "c")))
    assert hardware_line(three, "q.onnx").endswith("a; b; and 1 more (equint lint q.onnx tells all)")
    assert "50.0 %" in hardware_line(Findings("qnn", 0.5, (finding("warning", "w"),)))
    assert "takes all of it" in hardware_line(Findings("qnn", 1.0))
    assert "has no rules" in hardware_line(Findings("mine", 1.0, (), False))


def test_what_limits() -> None:
    rows = ({"name": "a", "share": 0.6}, {"name": "b", "share": 0.1})
    found = Explanation({}, rows, ({"name": "t", "share": 0.3},), ())
    assert limit_line(found, ()) == "60 % of the predicted noise comes from a, rounding its weights"
    assert "alike" in limit_line(None, ())
    doubt = Event(EventKind.CALIBRATION_DOUBTFUL, "x", {"why": "all zero"}, "", warning=True)
    assert limit_line(None, (doubt, doubt)).startswith(
        "calibration data cannot be right: all zero [x] (and 1 more, -v)"
    )


def test_warnings_are_lines_without_facts() -> None:
    events = [
        Event(EventKind.CALIBRATION_DOUBTFUL, "x", {"why": f"reason {k}", "number": k}, "", warning=True)
        for k in range(5)
    ]
    lines = list(warned([*events, Event(EventKind.QUANTIZED)]))
    assert lines[0] == "! calibration data cannot be right: reason 0 [x]"
    assert lines[3:] == ["! and 2 more warnings: -v shows them"]


def test_what_to_do_next() -> None:
    good, made_up = of_sqnr("features", 40.0, None, 8), on_made_up("features", 3.0, 8)
    broken, result = of_sqnr("features", 3.0, None, 8), equint.quantize(model_path(), input=(0, 1), effort="fast")

    def said(of: Verdict, output: str, measured: bool, paged: bool = False, **given: Any) -> str:
        return next_step(of, result, "a b/net.onnx", output, given, measured, paged)

    bits: dict[str, Any] = {"weight_bits": 4, "set": ["a=1", "b=2"]}
    told = said(broken, "q.onnx", True, card="c.toml", target="qnn", images=8, **bits)
    options = "--card c.toml --target qnn --images 8 --weight-bits 4 --set a=1 --set b=2"
    assert told == f"equint diagnose 'a b/net.onnx' {options} says which layers cost most, and what helps"
    told = said(good, "q.onnx", False, card="c.toml", provider="CPUExecutionProvider", target="qnn")
    own = "--card c.toml --provider CPUExecutionProvider --against 'a b/net.onnx'"
    assert told == f"equint evaluate q.onnx {own} --data FOLDER (of pictures) measures it on your data"
    for verdict in (good, made_up):
        told = said(verdict, "q.onnx", False, target="qnn", input_range=(0.0, 1.0))
        assert told.startswith("equint auto 'a b/net.onnx' --target qnn --data FOLDER (of pictures) measures")
    told = said(good, "q.onnx", False, recipe="dfq", input_range=(0.0, 1.0))
    assert "card 'a b/net.onnx' -o card.toml --data FOLDER (of pictures), then the same command with --card" in told
    told = said(good, "q.onnx", True, input_range=(0.0, 1.0))
    assert told.startswith("run q.onnx as the float network; equint report 'a b/net.onnx' -o net.html --input-range 0")
    assert said(good, "q.onnx", True, True) == "run q.onnx as the float network"
    told = said(good, "", True, card="c.toml", activation_bits="float")
    written = "-o net.int8.onnx --card c.toml --activation-bits float"
    assert told == f"equint quantize 'a b/net.onnx' {written} writes it"


def test_in_haste_it_is_measured_too() -> None:
    told = searched(equint.quantize(model_path(), input=(0, 1), effort="fast").model)
    assert told.words.startswith("good, as far as 8 made-up samples tell")


def test_an_exp_at_an_output_is_broken_without_samples() -> None:
    """Its range follows from how far its input may go, and is absurd: no values of it are told apart."""
    text = "a = Conv (x, v) b = Relu (a) c = Conv (b, w) y = Exp (c)"
    model = network(text, v=normal(16, 3, 3, 3), w=normal(8, 16, 3, 3), inputs="float[1,3,32,32] x")
    told = searched(equint.quantize(model, target="npu-shift").model)
    assert told.level == "broken"
    assert "nothing tells how far Exp goes; give samples (--data)" in told.words
    shown = np.random.default_rng(0).normal(0, 1, (16, 3, 32, 32)).astype(np.float32)
    assert "Exp goes" not in searched(equint.quantize(model, target="npu-shift", data=shown).model).words
