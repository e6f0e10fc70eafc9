"""Targets are data: every key of their TOML is checked, and names that were always there stay."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import equint
from equint.cli import main
from equint.demo import model_path
from equint.errors import EquintError, InvalidTarget, UnknownName
from equint.hardware.target import TARGETS, Target, parse, source, target
from equint.ir.model import QSpec
from equint.job import choose
from equint.pages.targets import formats_table, rules_table
from equint.planning.recipe import built_in, recipe

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
        ({**WEIGHT, "fixed": 1}, r"fixed = 1; write it as a table, \[fixed\]"),
        ({**WEIGHT, "fixed": {"Tanh": [1, 0]}}, r"Tanh = \[1, 0\] in \[fixed\]; write a scale and a zero point"),
        ({**WEIGHT, "fixed": {"Tanh": [0.5]}}, r"Tanh = \[0\.5\] in \[fixed\]; write a scale and a zero point"),
        ({**WEIGHT, "arithmetic": "tflite"}, r"arithmetic = 'tflite' in the target; expected 'plain', 'litert'"),
        ({**WEIGHT, "formats": ["qdq", "dlc"]}, r"formats = \['qdq', 'dlc'\] in the target; expected a list of 'qdq'"),
        ({**WEIGHT, "rules": [{**RULE, "rule": "colour"}]}, r"rule = 'colour' in \[\[rules\]\]; expected 'weight-"),
        ({**WEIGHT, "rules": [{"rule": "bias", "date": "2025-01-31"}]}, r"\[\[rules\]\] without source"),
        ({**WEIGHT, "rules": [{**RULE, "date": "May"}]}, r"date = 'May' in \[\[rules\]\]; write 2026-11-29"),
        ({**WEIGHT, "rules": {}}, r"rules are tables; write \[\[rules\]\]"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(table: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidTarget, match=said):
        parse(table, "a.toml")


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
