"""What files are, by how they begin; outputs that would take the place of another kind."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

import equint
from commands import Run
from equint.demo import data_path, model_path
from equint.drafts import drafted, overwriting
from equint.errors import OutputRefused
from equint.kinds import EDITED, EXPECTED, OWN, kind_of

WRITTEN: dict[str, Callable[[Path], object]] = {
    "a.onnx": lambda path: path.write_bytes(Path(model_path()).read_bytes()),
    "a.npz": lambda path: np.savez(path, header=np.ones(3)),
    "a.npy": lambda path: np.save(path, np.ones(3)),
    "a.json": lambda path: path.write_text(json.dumps({"a": [1, 2]}, indent=1)),
    "a.toml": lambda path: path.write_text('# a card\n[input]\nkind = "gray"\n'),
    "a.html": lambda path: path.write_text("<!DOCTYPE html>\n<html><title>é</title></html>"),
    "a.png": lambda path: Image.new("L", (3, 3)).save(path),
    "a.pdf": lambda path: Image.new("L", (3, 3)).save(path),
    "a.svg": lambda path: path.write_text('<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>'),
    "a.md": lambda path: path.write_text("# Results\n\n| a | b |\n"),
}


def promised(path: Path) -> bool:
    """Whether a file is of the kind that its ending promises."""
    kind = kind_of(path)
    return kind is not None and EXPECTED[path.suffix] in (kind, OWN.get(kind))


@pytest.mark.parametrize("name", WRITTEN)
def test_kinds_are_those_that_endings_promise(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    WRITTEN[name](path)
    assert promised(path)


def test_what_equint_writes_is_of_the_kind_that_its_ending_promises(tmp_path: Path) -> None:
    result = equint.quantize(model_path(), "lwq", target="tflite-int8", input=(0, 1))
    for name in ("b.onnx", "b.tflite"):
        result.save(tmp_path / name)
    equint.export(model_path(), tmp_path / "b.json", input=(0, 1))
    for path in tmp_path.iterdir():
        assert promised(path), path.name


@pytest.mark.parametrize("content", [b"", b"\x00\x01\x02", b"\xff\xd8\xff\xe0JFIF", b"1,2\n3,4\n", b"\xc3\x28 bad"])
def test_kinds_of_other_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a"
    path.write_bytes(content)
    kinds = {0: None, 1: "a binary file", 2: "a JPEG picture", 3: "a text", 4: "a binary file"}
    number = [b"", b"\x00\x01\x02", b"\xff\xd8\xff\xe0JFIF", b"1,2\n3,4\n", b"\xc3\x28 bad"].index(content)
    assert kind_of(path) == kinds[number]


def test_a_character_that_the_first_bytes_cut_is_text_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_text("a" * ((1 << 20) - 1) + "é" * 10)
    assert kind_of(path) == "a text"


@pytest.mark.parametrize("name", WRITTEN)
def test_no_file_of_another_kind_is_written_over(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    content = b"notes of mine: \xff\x00"
    path.write_bytes(content)

    def write() -> None:
        with drafted(path) as (draft, _):
            WRITTEN[name](draft)

    with pytest.raises(OutputRefused, match=f"{name}: is a binary file that would be lost; .* --force"):
        write()
    assert path.read_bytes() == content
    with overwriting(True):
        write()
    assert promised(path)
    if kind_of(path) not in EDITED:
        return write()  # its own kind
    before = path.read_bytes()
    with pytest.raises(OutputRefused, match="a card that would be lost"):
        write()
    assert path.read_bytes() == before
    return None


def test_what_has_no_ending_is_known_when_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "thesis.txt"
    path.write_text("A text of mine, of years.")
    result = equint.quantize(model_path(), "lwq", input=(0, 1))
    with pytest.raises(OutputRefused, match=r"thesis\.txt: is a text that would be lost"):
        result.save(path)
    assert path.read_text() == "A text of mine, of years."
    result.save(path, force=True)
    onnx.load(path)


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["quantize", "{model}", "--recipe", "lwq", "--input-range", "0", "1", "-o", "{file}"], "a.onnx"),
        (["quantize", "{model}", "--recipe", "lwq", "--target", "tflite-int8", "-o", "{file}"], "a.tflite"),
        (["calibrate", "{model}", "--data", "{data}", "--images", "4", "-o", "{file}"], "a.npz"),
        (["export", "{model}", "--recipe", "wes", "--input-range", "0", "1", "-o", "{file}"], "a.json"),
        (["table", "{model}", "--recipe", "lwq", "--cache", "{here}/kept", "-o", "{file}"], "a.md"),
        (["report", "{model}", "--recipe", "lwq", "--input-range", "0", "1", "-o", "{file}"], "a.html"),
        (["diagnose", "{model}", "--recipe", "lwq", "--input-range", "0", "1", "-o", "{file}"], "a.toml"),
    ],
)
def test_commands_say_what_would_be_lost_before_they_work(
    run: Run, tmp_path: Path, command: list[str], name: str
) -> None:
    path = tmp_path / name
    path.write_bytes(b"\x89PNG\r\n\x1a\n of mine")
    filled = {"model": model_path(), "data": data_path(), "file": path, "here": tmp_path}
    code, out, err = run(*(word.format(**filled) for word in command))
    assert (code, out) == (2, "")
    assert f"{path}: is a PNG picture that would be lost; choose another output, or give --force" in err
    assert path.read_bytes() == b"\x89PNG\r\n\x1a\n of mine"
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.fixture
def bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A current folder with the bundled network and its samples."""
    monkeypatch.chdir(tmp_path)
    Path("net.onnx").write_bytes(Path(model_path()).read_bytes())
    Path("digits.npz").write_bytes(Path(data_path()).read_bytes())


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        (["quantize", "net.onnx", "-o", "out.png"], "a network"),
        (["quantize", "net.onnx", "-o", "out.onnx", "--report", "page.pdf"], "a web page"),
        (["quantize", "net.onnx", "-o", "out.tflite", "--report", "page.json"], "a web page"),
        (["export", "net.onnx", "--format", "integer", "-o", "out.html"], "a network"),
        (["report", "net.onnx", "-o", "page.PDF"], "a web page"),
        (["table", "net.onnx", "--recipe", "lwq", "-o", "table.html"], "a text"),
        (["page", "a.json", "b.json", "-o", "both.md"], "a web page"),
    ],
)
def test_endings_that_promise_another_kind_are_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run, command: list[str], kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.onnx").write_bytes(Path(model_path()).read_bytes())
    code, out, err = run(*command)
    assert (code, out) == (2, "")
    told = f"would be {kind}, which {Path(command[-1]).suffix} does not promise; choose another name"
    assert err.strip() == f"equint: {command[-1]}: {told}"
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]


def test_results_are_not_saved_under_endings_of_another_kind(tmp_path: Path) -> None:
    result = equint.quantize(model_path(), "lwq", target="tflite-int8", input=(0, 1))
    with pytest.raises(OutputRefused, match=r"a\.png: would be a network"):
        result.save(tmp_path / "a.png", force=True)
    with pytest.raises(OutputRefused, match=r"a\.onnx: would be a TFLite model"):
        result.save(tmp_path / "a.onnx", format="tflite")
    result.save(tmp_path / "a.quantized")
    assert kind_of(tmp_path / "a.quantized") == "a network"


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        (["card", "net.onnx", "--data", "digits.npz", "-o", "card.toml"], "a card"),
        (["diagnose", "net.onnx", "--recipe", "lwq", "--data", "none", "-o", "recipe.toml"], "a recipe"),
    ],
)
@pytest.mark.usefixtures("bundled")
def test_cards_and_recipes_that_people_edit_are_kept(run: Run, command: list[str], kind: str) -> None:
    Path("card.toml").write_text('# mine\n[input]\nkind = "gray"\n')
    Path("recipe.toml").write_text('# mine\n[[passes]]\npass = "quantize"\n')
    before = Path(command[-1]).read_bytes()
    code, _, err = run(*command)
    told = f"{command[-1]}: is {kind} that would be lost; choose another output, or give --force"
    assert (code, err.strip()) == (2, f"equint: {told}")
    assert Path(command[-1]).read_bytes() == before
    if kind == "a card":
        assert run(*command, "--force")[0] == 0
        assert b"Proposed by equint" in Path(command[-1]).read_bytes()


OTHERS: dict[str, tuple[list[str], str]] = {
    "pyproject.toml": (["card", "net.onnx", "--data", "digits.npz", "-o", "pyproject.toml"], "a TOML file"),
    "recipe.toml": (["card", "net.onnx", "--data", "digits.npz", "-o", "recipe.toml"], "a recipe"),
    "notes.toml": (["card", "net.onnx", "--data", "digits.npz", "-o", "notes.toml"], "a text"),
    "package.json": (["export", "net.onnx", "-o", "package", "--input-range", "0", "1"], "a JSON file"),
    "samples.npz": (["calibrate", "net.onnx", "--data", "digits.npz", "-o", "samples.npz"], "a ZIP archive"),
}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.usefixtures("bundled")
def test_files_of_other_programs_are_of_another_kind(name: str, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    Path("pyproject.toml").write_text('[project]\nname = "mine"\n')
    Path("recipe.toml").write_text('target = "per-channel"\n[[passes]]\npass = "quantize"\n')
    Path("notes.toml").write_text("# what is to do\n")
    Path("package.json").write_text('{"name": "mine"}')
    np.savez("samples.npz", x=np.ones(3))
    before = Path(name).read_bytes()
    command, kind = OTHERS[name]
    monkeypatch.setattr(equint, command[0], None)  # not reached
    code, _, err = run(*command)
    assert code == 2
    assert f"{name}: is {kind} that would be lost" in err
    assert Path(name).read_bytes() == before
