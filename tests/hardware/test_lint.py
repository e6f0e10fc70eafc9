"""Every rule finds what it is for, once, at the node that has it, and nothing in a file that keeps to it."""

import re
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest

from equint.hardware.lint import RULES, Description, Grid, LayerForm, Machine, lint
from equint.hardware.target import TARGETS, Rule, RuleName, Target, target
from equint.ir.model import QSpec

U8, S8 = (Grid(np.array(0.25, np.float32), np.zeros((), dtype), dtype) for dtype in ("uint8", "int8"))
BIAS = Grid(np.array(0.25 * 0.25, np.float32), np.array(0, np.int32), "int32")
CONV = LayerForm("conv", "Conv", 300, U8, S8, BIAS, U8, lowest=-127, out_axis=0, biased=True)
DENSE = LayerForm("dense", "Gemm", 100, U8, S8, BIAS, U8, lowest=-127, out_axis=0, biased=True)
FILE = Description(17, {"x": (1, 3, 8, 8)}, {"x": U8}, (CONV, DENSE))


def on(rule: RuleName, **fields: Any) -> Target:
    """A target of one rule."""
    kept = Rule(rule, "the manual", "2025-01-31", least=13, why="it refuses")
    plain = Target("dsp", "", QSpec(8, narrow=True), ties=("Concat",), integer_clamps=False, rules=(kept,))
    return replace(plain, **fields)


def changed(**fields: Any) -> Description:
    """The file, its convolution changed."""
    return replace(FILE, layers=(replace(CONV, **fields), DENSE))


def scaled(grid: Grid, scale: float) -> Grid:
    return replace(grid, scale=np.array(scale, np.float32))


SYMMETRIC = QSpec(8, signed=True, symmetric=True)
CHANNELS = Grid(np.full(4, 0.25, np.float32), np.zeros(4, np.int8), "int8", axis=0)
WRONG: list[tuple[RuleName, dict[str, Any], Description, str, str]] = [
    ("weight-type", {}, changed(weight=U8), "conv", "uint8 weights, not int8"),
    ("weight-zero-point", {}, changed(weight=replace(S8, zero_point=np.array(-13, np.int8))), "conv", "zero point -13"),
    ("weight-narrow", {}, changed(lowest=-128), "conv", "its weight holds -128"),
    ("weight-axis", {}, changed(weight=CHANNELS), "conv", "4 scales for one weight"),
    (
        "weight-axis",
        {"weight": QSpec(8, granularity="channel")},
        changed(weight=replace(CHANNELS, axis=1)),
        "conv",
        "scales along axis 1 of its weight, whose output channels lie along 0",
    ),
    ("activation-type", {}, replace(FILE, activations={"x": U8, "y": S8}), "y", "a tensor of int8, not uint8"),
    (
        "activation-type",
        {"activation": replace(SYMMETRIC, by_sign=True)},
        replace(FILE, activations={"x": U8, "y": replace(S8, dtype="int16")}),
        "y",
        "a tensor of int16, not int8 or uint8",
    ),
    (
        "activation-zero-point",
        {},
        replace(FILE, activations={"x": U8, "y": replace(U8, zero_point=np.array(7, np.uint8))}),
        "y",
        "zero point 7",
    ),
    ("bias", {}, changed(bias=None), "conv", "its bias is float"),
    ("bias", {}, changed(bias=replace(BIAS, dtype="int16")), "conv", "its bias is int16"),
    ("bias", {}, changed(bias=scaled(BIAS, 0.125)), "conv", "the scale of its bias is 100% off"),
    ("bias", {"integer_biases": False}, replace(FILE, layers=(CONV,)), "conv", "its bias is int32 behind"),
    ("integer-clamp", {}, replace(FILE, clamps={"relu_Max": "Max"}), "relu_Max", "Max on integers"),
    ("power-of-two", {"weight": QSpec(8, power_of_two=True)}, changed(weight=scaled(S8, 0.3)), "conv", "scale 0.3 "),
    (
        "power-of-two",
        {"activation": replace(SYMMETRIC, power_of_two=True)},
        replace(FILE, activations={"x": S8, "y": scaled(S8, 0.75)}),
        "y",
        "scale 0.75 is no",
    ),
    ("opset", {}, replace(FILE, opset=12), "", "opset 12, and 13 is asked for"),
    ("static-shapes", {}, replace(FILE, inputs={"x": ("N", 3, 8, 8)}), "x", r"shape \(N, 3, 8, 8\) is not fixed"),
    ("static-shapes", {}, replace(FILE, inputs={"x": (None, 8)}), "x", r"shape \(\?, 8\) is not fixed"),
    ("ties", {}, replace(FILE, alike={"join": ("Concat", (U8, scaled(U8, 0.5)))}), "join", "scales 0.25, 0.5"),
    (
        "activation-type",
        {},
        replace(FILE, activations={"x": U8, "y": replace(CHANNELS, dtype="uint8")}),
        "y",
        "4 scales for one activation",
    ),
    ("weight-narrow", {}, changed(weight=replace(S8, dtype="int4"), lowest=-8), "conv", "its weight holds -8"),
    (
        "fixed-grid",
        {"fixed": {"Softmax": (1 / 256, -128)}},
        replace(FILE, made={"top": ("SOFTMAX", S8), "sum": ("ADD", S8)}),
        "top",
        "SOFTMAX gives scale 0.25, zero point 0, not 0.00390625, -128",
    ),
    (
        "litert-operator",
        {"litert_operators": ("CONV_2D",)},
        replace(FILE, litert={"CONV_2D": ("#0",), "GATHER": ("#1", "#2", "#5")}),
        "#1, #2 and 1 more",
        "it does not run GATHER",
    ),
    ("layer-width", {}, changed(weight=replace(S8, dtype="int16")), "conv", "int16 weights"),
    ("layer-width", {}, changed(x=replace(U8, dtype="uint16")), "conv", "uint16 activations"),
    ("float-layer", {}, changed(why_float="its input is float"), "conv", "Conv has 75.0 % of all work, and its"),
    ("layer-output", {}, changed(y=None), "conv", "nothing rounds the output of a layer with 75.0 %"),
    ("float-operator", {}, replace(FILE, floats={"Softmax": ("a", "b", "c")}), "a, b and 1 more", "Softmax comp"),
    ("float-operator", {"operators": ("Conv",)}, replace(FILE, integers={"Add": ("sum",)}), "sum", "Add has no"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "fields", "file", "at", "what"), WRONG, ids=lambda v: v if isinstance(v, str) else "")
def test_a_rule_finds_what_it_is_for(
    rule: RuleName, fields: dict[str, Any], file: Description, at: str, what: str
) -> None:
    (found,) = lint(file, on(rule, **fields)).findings
    assert (found.rule, found.at, found.source, found.date) == (rule, at, "the manual", "2025-01-31")
    assert re.search(what, found.what), found.what
    assert found.todo
    good = FILE if "power_of_two" in str(fields) or "False" not in str(fields) else replace(FILE, layers=())
    assert not lint(good, on(rule, **{k: v for k, v in fields.items() if k != "operators"})).findings


def test_operators_of_tflite_files_are_known_by_what_onnx_calls_them() -> None:
    """A CONCATENATION is a Concat, in ties and among operators; what is not run there is no work of integers."""
    tied = replace(FILE, alike={"#3": ("CONCATENATION", (U8, scaled(U8, 0.5))), "#4": ("ADD", (U8, scaled(U8, 0.5)))})
    assert [f.at for f in lint(tied, on("ties")).findings] == ["#3"]
    file = replace(FILE, layers=(replace(CONV, op="CONV_2D"), replace(DENSE, op="FULLY_CONNECTED")), opset=None)
    assert lint(file, on("opset")).clean
    assert lint(file, on("opset", operators=("Conv",))).integer_share == 0.75
    assert lint(file, on("opset", litert_operators=("FULLY_CONNECTED",))).integer_share == 0.25


def test_every_rule_is_computed_and_tried() -> None:
    assert RULES.keys() == set(get_args(RuleName)) == {rule for rule, *_ in WRONG} | {"runtime"}
    assert {rule.rule for t in TARGETS for rule in t.rules} == RULES.keys()


@pytest.mark.parametrize(("version", "amx", "wrong"), [((1, 20), True, False), ((1, 21), True, True)] + [
    ((1, 24), True, True), ((1, 25), True, False), ((1, 23), False, False), ((), True, False)
])  # fmt: skip
def test_versions_that_compute_wrong(version: tuple[int, ...], amx: bool, wrong: bool) -> None:
    found = lint(FILE, target("onnxruntime"), Machine(version, amx)).findings
    assert [f.rule for f in found] == ["runtime"] * wrong
    unsigned = replace(FILE, layers=(replace(CONV, weight=U8),))
    assert not any(f.rule == "runtime" for f in lint(unsigned, target("onnxruntime"), Machine(version, amx)).findings)


def test_the_share_of_work_that_is_done_in_float() -> None:
    """Of 400 multiply-accumulates 300 are the convolution's, whose weight zero point takes it out of integers."""
    asymmetric = changed(weight=replace(S8, zero_point=np.array(1, np.int8)))
    found = lint(asymmetric, target("openvino"))
    assert found.integer_share == pytest.approx(0.25)
    assert found.findings[0].float_share == pytest.approx(0.75)
    assert not found.clean
    assert lint(asymmetric, target("per-tensor")).integer_share == 1
    assert lint(changed(why_float="its weight is float"), target("onnxruntime")).integer_share == pytest.approx(0.25)


@pytest.mark.parametrize("wide", [{"weight": replace(S8, dtype="int16")}, {"x": replace(U8, dtype="uint16")}])
def test_layers_of_sixteen_bits_are_no_work_of_integers_in_onnxruntime(wide: dict[str, Grid]) -> None:
    """Its optimized graph has a float Conv for either; each is said once, with what helps."""
    found = lint(changed(**wide), target("onnxruntime"))
    assert found.integer_share == pytest.approx(0.25)
    (one,) = found.findings
    assert (one.rule, one.at) == ("layer-width", "conv")
    assert one.float_share == pytest.approx(0.75)
    assert "--max-drop" in one.todo


def test_warnings_leave_a_file_clean_and_come_last() -> None:
    loose = replace(changed(lowest=-128), inputs={"x": (None, 3)})
    found = lint(loose, replace(target("qnn"), rules=(*target("qnn").rules, *target("openvino").rules)))
    assert [f.level for f in found.findings] == ["error", "warning"]
    assert lint(replace(loose, layers=(CONV,)), target("qnn")).clean
