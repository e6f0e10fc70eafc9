"""Commands that are advised are commands that there are, with options that they have."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from equint.cli.main import app
from equint.pages.commands import TAKES, left_out, spelled


@pytest.mark.parametrize("command", TAKES)
def test_every_option_is_one_that_the_command_has(command: str) -> None:
    found = get_command(app).commands[command]  # type: ignore[attr-defined]
    has = {option for p in found.params for option in (*p.opts, *p.secondary_opts)}
    for name in TAKES[command]:
        words = shlex.split(spelled(command, **{name: "x"}))
        assert words[2] in has, name


def test_values_are_spelled_as_shells_take_them() -> None:
    given = {"target": Path("my board.toml"), "input_range": (-1.0, 0.00001), "set": ["sr=16000", "n=1,2"], "images": 0}
    words = shlex.split(spelled("quantize", Path("v1.0"), **given, fused_activations=False, force=False, recipe=None))
    formats = ["--target", "my board.toml", "--input-range", "-1", "1e-05"]
    others = ["--set", "sr=16000", "--set", "n=1,2", "--images", "0", "--no-fused-activations"]
    assert words == ["equint", "quantize", "v1.0", *formats, *others]
    assert shlex.split(spelled("lint", Path("-q.onnx"))) == ["equint", "lint", "./-q.onnx"]
    assert spelled("export", "m", force=True, fused_activations=True).endswith("m --force --fused-activations")


def test_what_a_command_lacks_is_left_out_only_where_it_was_given() -> None:
    assert left_out("auto", {"recipe": "dfq", "mean": None, "force": False, "images": 0}) == ("recipe", "images")
    assert spelled("auto", "m", recipe="dfq") == "equint auto m"
