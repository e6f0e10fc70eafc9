"""What public functions refuse: whatever is of a wrong kind, argument by argument, in a line that is the library's."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import equint
from equint.arguments import check, check_path
from equint.demo import data_path, model_path
from equint.errors import EquintError, InvalidOption
from equint.files import readable
from equint.job import Options
from equint.samples.card import Card

MODEL, DATA, SPAN, GRAY = model_path(), data_path(), (0, 1), Card("gray", (0.0,), (16.0,))
RESULT = equint.quantize(MODEL, "lwq", input=SPAN, effort="fast")
LOOKS: dict[str, Any] = {"source": MODEL, "recipe": "lwq", "input": GRAY, "data": DATA, "images": 8, "force": True}
LOWERED: dict[str, Any] = {"source": MODEL, "recipe": "wes", "input": SPAN}
GOOD: dict[str, dict[str, Any]] = {
    "auto": {"source": MODEL, "card": GRAY, "data": DATA, "limit": 8},
    "calibrate": {"source": MODEL, "data": DATA, "input": GRAY, "images": 4, "force": True},
    "card": {"source": MODEL, "data": DATA},
    "compare": {"original": MODEL, "quantized": RESULT, "data": DATA, "card": GRAY, "limit": 4},
    "compare_board": {**LOWERED, "dump": "golden"},
    "diagnose": LOOKS,
    "evaluate": {"source": MODEL, "data": DATA, "card": GRAY, "limit": 4},
    "explain": {"source": MODEL, "recipe": "lwq", "input": SPAN},
    "export": {**LOWERED, "path": "out"},
    "from_torch": {"module": None, "example_inputs": None},
    "golden": {**LOWERED, "folder": "golden"},
    "inspect": {"source": MODEL, "input": SPAN},
    "judge": {"source": MODEL, "candidates": {"a": RESULT}, "input": SPAN},
    "lint": {"source": RESULT},
    "load": {"source": MODEL},
    "mixed": {**LOOKS, "max_drop": 100.0},
    "page": {"results": ["a.json", "b.json"]},
    "program": LOWERED,
    "quantize": {"source": MODEL, "recipe": "lwq", "effort": "fast", "input": SPAN},
    "recipes": {},
    "report": {"result": RESULT},
    "sizes": {"source": MODEL},
    "sqnr": {"source": MODEL, "input": SPAN},
    "table": {"networks": ["digits.toml"], "recipes": ["lwq"], "limit": 8, "cache": "kept"},
    "targets": {},
}
"""Arguments with which every public function does its work, but `from_torch`, `page` and `compare_board`."""

ODD: dict[str, Any] = {
    "array": np.array([1.0, 2.0]),
    "matrix": np.array([[1, 2], [3, 4]]),
    "empty array": np.array([]),
    "array of texts": np.array(["a", "b"]),
    "NumPy's 3": np.int64(3),
    "NumPy's True": np.True_,
    "NumPy's half": np.float32(0.5),
    "list": [1],
    "empty list": [],
    "list of texts": ["a"],
    "list of lists": [[None]],
    "tuple": (1, 2, 3),
    "set": {1, 2},
    "dict": {"a": 1},
    "object": object(),
    "bytes": b"x",
    "None": None,
    "True": True,
    "3": 3,
    "-1": -1,
    "2 to the 70": 2**70,
    "1.5": 1.5,
    "nan": float("nan"),
    "empty text": "",
    "null character": "a\0b",
    "half a character": "a\ud800",
}
"""What hardly any argument takes."""

NUMBERS = ("3", "1.5", "NumPy's 3", "NumPy's half")
TEXTS = ("empty text", "null character", "half a character")
RIGHT: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("recipe", "target", "against", "resume", "ray", "providers", "card", "effort"), ("None",)),
    **dict.fromkeys(("input", "data", "set", "progress", "labels", "example_inputs", "io"), ("None",)),
    **dict.fromkeys(("saved", "golden", "input_range"), ("None",)),
    **dict.fromkeys(("weight_bits", "activation_bits", "images", "limit", "jobs"), ("None", "3")),
    **dict.fromkeys(("force", "histograms", "optimized", "raw", "sparse"), ("True",)),
    "fused_activations": ("None", "True"),
    "max_drop": ("None", *NUMBERS),
    "sparsity": ("NumPy's half",),
    "measured": ("None", "dict"),
    **dict.fromkeys(("name", "command", "todo"), TEXTS),
    **dict.fromkeys(("networks", "recipes", "targets", "bits"), ("empty list",)),
}
"""What each argument takes nevertheless, wherever it is one."""
ALSO: dict[tuple[str, str], tuple[str, ...]] = {("table", "images"): ("empty list", "list", "tuple")}


def arguments() -> list[tuple[str, str]]:
    """Every argument of every public function by name; options of quantizing one by one."""
    found = list[tuple[str, str]]()
    for name in GOOD:
        for key, parameter in inspect.signature(getattr(equint, name)).parameters.items():
            options = parameter.kind is parameter.VAR_KEYWORD
            found += [(name, k) for k in (Options.__annotations__ if options else (key,))]
    return list(dict.fromkeys(found))


def test_every_public_function_is_tried() -> None:
    functions = {name for name in equint.__all__ if inspect.isfunction(getattr(equint, name))}
    assert functions == set(GOOD)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    card = f'model = "{MODEL}"\n[input]\nkind = "gray"\nstd = 16\nrange = [0, 1]\n[data]\neval = "{DATA}"\n'
    (folder / "digits.toml").write_text(card)
    equint.golden(folder=folder / "golden", **LOWERED)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("name", "argument"), arguments())
def test_what_is_of_a_wrong_kind_is_refused(
    name: str, argument: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    before = sorted(place.rglob("*"))
    taken = (*RIGHT.get(argument, ()), *ALSO.get((name, argument), ()))
    for what, value in ODD.items():
        if what in taken:
            continue
        try:
            getattr(equint, name)(**{**GOOD[name], argument: value})
        except EquintError as error:
            said = str(error)
            assert "\n" not in said
            assert len(said) < 500, what
        except Exception as error:
            raise AssertionError(f"{argument} = {what}: {type(error).__name__}") from error
        else:
            raise AssertionError(f"{argument} = {what} is taken")
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize("flag", ["force", "histograms", "optimized", "raw"])
@pytest.mark.parametrize("value", [3, 0, None, "yes", np.True_, np.array([True]), []])
def test_flags_are_true_or_false(flag: str, value: object) -> None:
    check(**{flag: True})
    with pytest.raises(InvalidOption, match=f"{flag} = .*: give True or False"):
        check(**{flag: value})


@pytest.mark.parametrize("name", ["", "a\0b", "a\ud800"])
def test_a_text_that_is_no_path(name: str) -> None:
    for argument in ("data", "path", "card", "source", "cache"):
        with pytest.raises(InvalidOption, match=f"{argument} = .* is none; name a file or folder"):
            check(**{argument: name})
    with pytest.raises(InvalidOption):
        check_path("input", name)
    check_path("input", None)
    with pytest.raises(EquintError, match=r"cannot be read|empty path"):
        readable(name, EquintError)
