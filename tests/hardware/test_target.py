"""Targets are data: every key of their TOML is checked, and names that were always there stay."""

import json
import os
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import equint
from equint.arguments import choose
from equint.cli import main
from equint.demo import model_path
from equint.errors import EquintError, InvalidTarget, UnknownName
from equint.hardware.target import TARGETS, Target, parse, source, target
from equint.ir.events import EventKind
from equint.ir.model import QSpec
from equint.maths.noise import sqnr_db
from equint.pages.targets import formats_table, rules_table
from equint.planning.recipe import built_in, recipe
from handwritten import network, normal
from nets import run

OWN = """
description = "a DSP"
bias_bits = 16
rounding = "half_even"
ties = ["Concat"]

[weight]
symmetric = true

[activation]
signed = true
symmetric = true

[[rules]]
rule = "opset"
least = 13
source = "the manual, section 3"
date = "2025-01-31"
"""
WEIGHT: dict[str, Any] = {"weight": {}}
RULE = {"rule": "bias", "source": "a manual", "date": "2025-01-31"}


def test_what_targets_were_before_they_were_files() -> None:
    """Word by word what `hardware/target.py` said of the first four."""
    per_channel = QSpec(8, signed=True, symmetric=True, granularity="channel")
    uint8, int8 = QSpec(8, signed=False, symmetric=False), QSpec(8, signed=True, symmetric=False)
    assert all(t.activation == uint8 and t.bias_bits == 32 for t in map(target, FIRST))
    assert [target(name).weight for name in FIRST[:3]] == [per_channel, int8, int8]
    assert target("npu-shift").weight == QSpec(8, signed=False, symmetric=False, granularity="shift")
    assert [target(name).channel_clip for name in FIRST] == [False, False, True, False]
    assert [target(name).float_between for name in FIRST] == [True, False, False, False]
    npu = target("npu-shift")
    assert (npu.integers_only, npu.shift_bits, npu.fused_activations, npu.recipe) == (True, 4, True, "wes-optimal")
    assert (npu.mantissa_bits, npu.exponent_bits, npu.rounding, npu.mantissa) == (32, 6, "half_up", "provable")


FIRST = ("per-channel", "per-tensor", "per-tensor-clip", "npu-shift")


def test_every_name_leads_to_one_target() -> None:
    names = [n for t in TARGETS for n in (t.name, *t.aliases)]
    assert len(names) == len(set(names))
    assert all(target(name).name == name for name in names)
    assert {r.target for r in built_in()} <= set(names)
    assert {t.recipe for t in TARGETS} <= {r.name for r in built_in()}
    assert all(t.description and t.audience and t.formats for t in TARGETS)


def test_per_channel_is_the_default_by_another_name() -> None:
    one, other = target("per-channel"), target("onnxruntime")
    assert {k for k, v in vars(one).items() if v != getattr(other, k)} == {"name"}
    assert choose(None, None)[1] in (one, other)
    assert equint.targets()[0] == other
    assert equint.quantize(model_path(), "cwq", "per-channel", input=(0, 1)).facts()["target"] == "per-channel"


def test_a_file_is_a_target(tmp_path: Path) -> None:
    path = tmp_path / "dsp.toml"
    path.write_text(OWN, "utf-8")
    found = target(path)
    assert found == target(os.fspath(path))
    assert (found.name, found.bias_bits, found.rounding, found.ties) == ("dsp", 16, "half_even", ("Concat",))
    assert found.rules[0].least == 13
    result = equint.quantize(model_path(), target=os.fspath(path), input=(0, 1))
    assert result.target == "dsp"
    assert all(not grid.zero_point.any() for grid in result.model.qparams.values())
    value = Target("dsp", "a DSP", weight=QSpec(), activation=QSpec(), bias_bits=16, rounding="half_even")
    again = equint.quantize(model_path(), target=value, input=(0, 1))
    assert all(np.array_equal(grid.scale, again.model.qparams[n].scale) for n, grid in result.model.qparams.items())


def test_a_built_in_file_may_be_copied(tmp_path: Path) -> None:
    for known in TARGETS:
        path = tmp_path / f"{known.name}.toml"
        path.write_text(source(known.name), "utf-8")
        assert target(path) == known


def test_a_recipe_may_name_a_file(tmp_path: Path) -> None:
    (tmp_path / "dsp.toml").write_text(OWN, "utf-8")
    own = tmp_path / "mine.toml"
    own.write_text(f'target = "{tmp_path / "dsp.toml"}"\n[[passes]]\npass = "quantize"\n', "utf-8")
    assert choose(recipe(own), None)[1].name == "dsp"


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({}, r"a\.toml: nothing says how weights are stored; add \[weight\]"),
        ({**WEIGHT, "weigth": 1}, r"a\.toml: unknown key 'weigth' in the target; known keys: activation, aliases"),
        ({"weight": {"bit": 8}}, r"a\.toml: unknown key 'bit' in \[weight\]; known keys: bits"),
        ({"weight": 8}, r"a\.toml: weight = 8; write it as a table, \[weight\]"),
        ({"weight": {"bits": 8.0}}, r"a\.toml: bits = 8\.0 in \[weight\]; expected int"),
        ({"weight": {"bits": 1}}, r"a\.toml: bits = 1 in \[weight\]; choose 2 to 16"),
        ({"weight": {"symmetric": 1}}, r"symmetric = 1 in \[weight\]; expected bool"),
        ({"weight": {"granularity": "row"}}, r"granularity = 'row' in \[weight\]; expected 'tensor', 'channel'"),
        ({"weight": {"granularity": "shift"}}, r'"shift" and shift_bits go together'),
        ({**WEIGHT, "activation": {"granularity": "channel"}}, r"leave granularity out of \[activation\]"),
        ({**WEIGHT, "bias_bits": 24}, r"bias_bits = 24; choose 8, 16 or 32"),
        ({**WEIGHT, "table_bits": 99}, r"table_bits = 99; choose 8 to 16"),
        ({**WEIGHT, "rounding": "up"}, r"rounding = 'up' in the target; expected 'half_up'"),
        ({**WEIGHT, "ties": "Concat"}, r"ties = 'Concat' in the target; expected a list of str"),
        ({"weight": {"by_sign": True}}, r"by_sign is for signed, symmetric activations; leave it out of \[weight\]"),
        ({**WEIGHT, "activation": {"by_sign": True}}, r"by_sign is for .* leave it out of \[activation\]"),
        ({**WEIGHT, "fixed": 1}, r"fixed = 1; write it as a table, \[fixed\]"),
        ({**WEIGHT, "fixed": {"Tanh": [1, 0]}}, r"Tanh = \[1, 0\] in \[fixed\]; write a scale and a zero point"),
        ({**WEIGHT, "fixed": {"Tanh": [0.5]}}, r"Tanh = \[0\.5\] in \[fixed\]; write a scale and a zero point"),
        ({**WEIGHT, "arithmetic": "tflite"}, r"arithmetic = 'tflite' in the target; expected 'plain', 'litert'"),
        ({**WEIGHT, "formats": ["qdq", "dlc"]}, r"formats = \['qdq', 'dlc'\] in the target; expected a list of 'qdq'"),
        ({**WEIGHT, "rules": [{**RULE, "rule": "colour"}]}, r"rule = 'colour' in \[\[rules\]\]; expected 'weight-"),
        ({**WEIGHT, "rules": [{"rule": "bias", "date": "2025-01-31"}]}, r"\[\[rules\]\] without source"),
        ({**WEIGHT, "rules": [{**RULE, "date": "May"}]}, r"date = 'May' in \[\[rules\]\]; write 2026-11-29"),
        ({**WEIGHT, "rules": {}}, r"rules are tables; write \[\[rules\]\]"),
        ({"weight": {"bits": 0}}, r"a\.toml: bits = 0 in \[weight\]; choose 2 to 16"),
        ({**WEIGHT, "operators": ["Nope"]}, r"a\.toml: operators names 'Nope', which is no operator of ONNX; write"),
        ({**WEIGHT, "operators": ["Conv", "Conv2D"]}, r"operators names 'Conv2D', .*; did you mean Conv"),
        ({**WEIGHT, "ties": ["maxpool"]}, r"ties names 'maxpool', .*; did you mean MaxPool"),
        ({**WEIGHT, "operators": [3]}, r"operators = \[3\] in the target; expected a list of str"),
        ({**WEIGHT, "name": " "}, r"a\.toml: name = ' ' is empty; give the target a name of its own"),
        ({**WEIGHT, "name": 3}, r"a\.toml: name = 3 in the target; expected str"),
        ({**WEIGHT, "formats": []}, r"a\.toml: formats = \[\] is empty; say what it is delivered in"),
        ({**WEIGHT, "aliases": ["a", ""]}, r"a\.toml: aliases = \['a', ''\] is empty; give other names"),
        ({**WEIGHT, "rules": [{**RULE, "rule": "opset", "least": -3}]}, r"least = -3 in .* rule opset; choose"),
        ({**WEIGHT, "rules": [{**RULE, "rule": "opset"}]}, r"least = 0 in .* rule opset; choose 1 to 50"),
        ({**WEIGHT, "rules": [{**RULE, "least": 13}]}, r"least in .* is of rule opset; leave it out of rule bias"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(table: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidTarget, match=said):
        parse(table, "a.toml")


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("mine.toml", 'name = "qnn"', r"mine\.toml: name = 'qnn' is a built-in target's; give yours a name of its own"),
        ("mine.toml", 'name = "per-channel"', r"name = 'per-channel' is a built-in target's"),
        ("mine.toml", 'aliases = ["dsp", "tidl"]', r"mine\.toml: aliases = 'tidl' is a built-in target's"),
        ("tensorrt.toml", "", r"tensorrt\.toml: name = 'tensorrt' is a built-in target's"),
    ],
)
def test_names_of_built_in_targets_are_taken(tmp_path: Path, file: str, text: str, said: str) -> None:
    (tmp_path / file).write_text(f"{text}\n[weight]\nsymmetric = true\n", "utf-8")
    with pytest.raises(InvalidTarget, match=said):
        target(tmp_path / file)


def test_operators_that_onnx_has_may_be_listed() -> None:
    """Also those that equint does not know: lists are copied from manuals."""
    names = ["Conv", "GridSample", "NonZero"]
    assert all(onnx.defs.has(name) for name in names)
    assert parse({**WEIGHT, "operators": names}, "a.toml").operators == tuple(names)


def test_unknown_names_and_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UnknownName, match=r"unknown target 'magic'; choose onnxruntime, per-channel, .* a \.toml file"):
        target("magic")
    with pytest.raises(EquintError, match=r"gone\.toml: no such target file"):
        target(tmp_path / "gone.toml")
    bad = tmp_path / "bad.toml"
    bad.write_text("weight = [", "utf-8")
    with pytest.raises(SystemExit) as end:
        main(["inspect", str(model_path()), "--target", str(bad)])
    assert end.value.code == 2
    assert "bad.toml: not a readable TOML target file" in capsys.readouterr().err


def test_the_page_has_them_as_they_are() -> None:
    page = (Path(__file__).parents[2] / "docs/targets.md").read_text("utf-8")
    assert formats_table(TARGETS) in page
    assert all(f"### {on.name}\n\n{rules_table(on)}" in page for on in TARGETS)


def test_they_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["targets"])
    assert end.value.code == 0
    listed = capsys.readouterr().out
    assert all(name in listed for t in TARGETS for name in (t.name, t.recipe, *t.aliases))
    assert "who it is for" in listed


PADDED = "Conv<pads=[1,1,1,1]>"
BODY = f"a = {PADDED}(x, w) b = Relu(a) p = {PADDED}(b, v) s = Add(p, b) y = {PADDED}(s, u)"
WORK = {"a": 4 * 64 * 27, "p": 4 * 64 * 36, "y": 4 * 64 * 36}
"""Multiply-accumulates by hand: 4 channels of 8×8, kernels of 3×3 over 3 or 4 channels."""


def own(folder: Path, text: str) -> Path:
    """A target of one's own; its rule finds what is float."""
    rule = "[[rules]]\nrule = 'float-layer'\nsource = 'the manual'\ndate = '2025-01-31'\n"
    (folder / "dsp.toml").write_text(f"{text}\n[weight]\nsymmetric = true\n{rule}", "utf-8")
    return folder / "dsp.toml"


def with_integer_weights(proto: onnx.ModelProto) -> set[str]:
    """The outputs of convolutions whose weights are integers behind DequantizeLinear."""
    made = {o: node for node in proto.graph.node for o in node.output}
    convs = [node for node in proto.graph.node if node.op_type == "Conv"]
    return {n.output[0].removesuffix("_float") for n in convs if n.input[1] in made}


@pytest.mark.parametrize(
    ("text", "floats", "named"),
    [
        ("", set(), {}),
        ("operators = ['Conv']", set(), {"Add": 0.0}),
        ("float_layers = ['p']", {"p"}, {"Conv": WORK["p"] / sum(WORK.values())}),
        ("float_layers = ['[ay]']", {"a", "y"}, {"Conv": (WORK["a"] + WORK["y"]) / sum(WORK.values())}),
    ],
)
def test_what_a_target_keeps_float(text: str, floats: set[str], named: dict[str, float], tmp_path: Path) -> None:
    """Told with its share of the work, by design and so no warning; the file is clean for this target alone."""
    path = own(tmp_path, text)
    proto = network(BODY, w=normal(4, 3, 3, 3), v=normal(4, 4, 3, 3), u=normal(4, 4, 3, 3))
    result = equint.quantize(proto, "lwq", path, input=(-1, 1))
    told = [e for e in result.model.log if e.kind is EventKind.FLOAT_BY_DESIGN]
    assert {e.facts["op"]: e.facts["share of multiply-accumulates"] for e in told} == pytest.approx(named, abs=1e-4)
    assert not any(e.warning for e in result.model.log if "float" in e.text)
    assert with_integer_weights(result.proto) == {"a", "p", "y"} - floats
    assert equint.lint(result).findings == ()
    share = sum(work for y, work in WORK.items() if y not in floats) / sum(WORK.values())
    assert equint.lint(result).integer_share == pytest.approx(share)
    x = np.random.default_rng(0).uniform(-1, 1, (8, 3, 8, 8)).astype(np.float32)
    assert sqnr_db(run(proto, x)[0], run(result.proto, x)[0]) > 15
    plain = equint.lint(result, own(tmp_path, ""))
    assert {f.at for f in plain.findings} == floats


def test_programs_hold_nothing_that_a_target_keeps_float(tmp_path: Path) -> None:
    proto = network(BODY, w=normal(4, 3, 3, 3), v=normal(4, 4, 3, 3), u=normal(4, 4, 3, 3))
    result = equint.quantize(proto, "lwq", own(tmp_path, "integers_only = true\noperators = ['Conv']"), input=(-1, 1))
    assert any(e.warning and e.facts.get("op") == "Add" for e in result.model.log)  # it has no floats
    with pytest.raises(EquintError, match=r"s: Add stays float on target dsp \(the target's operators leave it out\)"):
        _ = result.program


def test_inspect_names_what_a_target_keeps_float(tmp_path: Path) -> None:
    proto = network(BODY, w=normal(4, 3, 3, 3), v=normal(4, 4, 3, 3), u=normal(4, 4, 3, 3))
    found = equint.inspect(proto, own(tmp_path, "operators = ['Conv']\nfloat_layers = ['p']"), input=(-1, 1))
    assert found.borders == {"Conv": ["p"], "Add": ["s"]}


def test_of_two_layers_with_one_weight_one_may_stay_float(tmp_path: Path) -> None:
    body = f"a = {PADDED}(x, w) b = Relu(a) p = {PADDED}(b, v) y = {PADDED}(p, v)"
    proto = network(body, w=normal(4, 3, 3, 3), v=normal(4, 4, 3, 3))
    result = equint.quantize(proto, "lwq", own(tmp_path, "float_layers = ['p']"), input=(-1, 1))
    assert with_integer_weights(result.proto) == {"a", "y"}


def test_a_target_that_computes_no_layer(tmp_path: Path) -> None:
    proto = network(BODY, w=normal(4, 3, 3, 3), v=normal(4, 4, 3, 3), u=normal(4, 4, 3, 3))
    with pytest.raises(EquintError, match="nothing to quantize: target dsp computes none of its layers on integers"):
        equint.quantize(proto, "lwq", own(tmp_path, "operators = ['Gemm']"), input=(-1, 1))


def test_names_that_a_network_has_not_are_told(tmp_path: Path) -> None:
    """A board's file serves many networks: no error, but a warning."""
    proto = network(BODY, w=normal(4, 3, 3, 3), v=normal(4, 4, 3, 3), u=normal(4, 4, 3, 3))
    result = equint.quantize(proto, "lwq", own(tmp_path, "float_layers = ['p', 'head/*']"), input=(-1, 1))
    (told,) = [e for e in result.warnings if e.kind is EventKind.NAMES_NOTHING]
    assert str(told).startswith("the target's float_layers name nothing in this network")
    assert told.at == "head/*"


@pytest.mark.parametrize("name", [t.name for t in TARGETS])
def test_one_is_shown_with_its_sources(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All that its TOML says of rules, as it is read without equint; a user's own file is shown as the built-in."""
    table = tomllib.loads(source(name))
    (tmp_path / "copy.toml").write_text(source(name), "utf-8")
    pages = []
    for arguments in (["--show", name], [name], [str(tmp_path / "copy.toml")]):
        with pytest.raises(SystemExit) as end:
            main(["targets", *arguments])
        assert end.value.code == 0
        pages.append(capsys.readouterr().out)
    assert pages[0] == pages[1] == pages[2]
    assert pages[0].startswith(f"{name}")
    assert all(table[key] in pages[0] for key in ("description", "audience", "recipe"))
    lines = pages[0].splitlines()
    for rule in table["rules"]:
        shown = [line for line in lines if f" {rule['rule']}" in line and rule["why"] in line]
        assert any(f"({rule['source']}, {rule['date']})" in line for line in shown)
        assert any(line.strip().startswith(rule.get("level", "error")) for line in shown)


def test_one_is_shown_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["targets", "--show", "esp-dl", "--json"])
    shown, table = json.loads(capsys.readouterr().out), tomllib.loads(source("esp-dl"))
    assert all(shown[key] == value for key, value in table.items() if not isinstance(value, dict | list))
    assert all(shown["weight"][key] == value for key, value in table["weight"].items())
    assert [rule["source"] for rule in shown["rules"]] == [rule["source"] for rule in table["rules"]]


@pytest.mark.parametrize(
    ("arguments", "said"), [(["magic"], "unknown target 'magic'"), (["a", "--show", "b"], "--show b")]
)
def test_what_cannot_be_shown(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["targets", *arguments])
    assert end.value.code == 2
    found = capsys.readouterr().err
    assert said in found
    assert found.count("\n") == 1
