"""What the docs show works: their Python runs, the commands and options exist, names and links lead somewhere.

A page's blocks of Python and of commands run one after the other, in a folder with the files that the pages speak of
(`doc_blocks`, which also has the comments that say why one does not). Diffs and files of docs/extending.md are applied
to a copy of the sources, where its blocks and its pytest commands run.
"""

import os
import pkgutil
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import fields
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.main import get_command

import doc_blocks
import equint
from doc_blocks import FENCE, Block
from equint.cli.main import app
from equint.demo import data_path, model_path
from equint.hardware.target import parse as parse_target
from equint.passes import Keeps, needs
from equint.planning.recipe import PASSES, parse
from equint.samples.card import read_card

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
PAGES = {path.name: path for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md")}
PAGES |= {path.relative_to(ROOT / "docs").as_posix(): path for path in sorted(ROOT.glob("docs/**/*.md"))}
EXTENDING = "extending.md"
LANGUAGES = {"python", "bash", "console", "toml", "json", "yaml", "diff", "text"}


def blocks(page: str, *languages: str) -> list[Block]:
    return [block for block in doc_blocks.blocks(PAGES[page].read_text("utf-8")) if block.language in languages]


def script(found: list[Block]) -> str:
    """One text whose lines have the numbers that they have on the page."""
    lines: list[str] = []
    for block in found:
        lines += [""] * (block.line - 1 - len(lines)) + block.text.splitlines()
    return "\n".join(lines) + "\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the networks, cards and data that pages speak of: all are the bundled digits."""
    for name in ("net.onnx", "mobilenet.onnx"):
        shutil.copy(model_path(), tmp_path / name)
    shutil.copy(data_path(), tmp_path / "digits.npz")
    data = '[data]\neval = "digits.npz"\ncalibration = "digits.npz"\n'
    (tmp_path / "net.toml").write_text(f'[input]\nkind = "gray"\nstd = [16.0]\nrange = [0.0, 1.0]\n{data}')
    with np.load(data_path()) as file:
        for k, (x, y) in enumerate(zip(file["x"][:200], file["y"][:200], strict=True)):
            (tmp_path / "photos" / str(y)).mkdir(parents=True, exist_ok=True)
            Image.fromarray(x.reshape(8, 8).astype(np.uint8)).save(tmp_path / "photos" / str(y) / f"{k}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", [page for page in PAGES if page != EXTENDING and blocks(page, *doc_blocks.RUN)])
def test_blocks_run(page: str, here: Path) -> None:
    if page != "README.md":
        shutil.copy(here / "net.toml", here / "mobilenet.toml")
    text = PAGES[page].read_text("utf-8")
    if "-o net.toml" in text:  # the page makes it
        (here / "net.toml").unlink()
    images = np.load(data_path())["x"][:32].transpose(0, 3, 1, 2).astype(np.float32) / 16
    names = {"__name__": page, "images": images, "module": _module()}
    doc_blocks.run_blocks(text, page, names)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(b.marks.get("needs") == "torch" for b in blocks(page, "python"))]
)
def test_blocks_that_need_torch_run(page: str, here: Path) -> None:
    """By themselves, for where torch is installed apart."""
    pytest.importorskip("torch")
    code = script([block for block in blocks(page, "python") if block.marks.get("needs") == "torch"])
    exec(compile(code, page, "exec"), {"equint": equint, "module": _module()})


def _module() -> object:
    """A torch module that takes pictures, where there is torch."""
    if find_spec("torch") is None:
        return None
    from torch import nn

    return nn.Sequential(nn.Conv2d(3, 8, 3, 8, bias=False), nn.BatchNorm2d(8), nn.ReLU6()).eval()


@pytest.mark.parametrize("page", PAGES)
def test_every_block_says_what_it_is(page: str) -> None:
    """A language that is known, a reason where it does not run, and no command outside a block."""
    text = PAGES[page].read_text("utf-8")
    for block in doc_blocks.blocks(text):
        assert block.language in LANGUAGES, f"line {block.line}: {block.language or 'no'} language"
        assert all(reason for reason in block.marks.values()), f"line {block.line}: a reason is missing"
    outside = doc_blocks.FENCE.sub("", text)
    assert not re.findall(r"^ {2,}(?:EQUINT_\w+=\S+ )*(?:\$ )?(?:python|equint|pip|pytest) .*", outside, re.M)


def patched(text: str, diff: str) -> str:
    """A text with one hunk applied, whose old lines occur in it once."""
    lines = [line for line in diff.splitlines() if not line.startswith(("---", "+++"))]
    old, new = ("".join(f"{line[1:]}\n" for line in lines if line[0] in kinds) for kinds in (" -", " +"))
    assert text.count(old) == 1, f"not there, or more than once:\n{old}"
    return text.replace(old, new)


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources and tests with what docs/extending.md adds."""
    copy = tmp_path_factory.mktemp("extended")
    for folder in ("src", "tests"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "docs").mkdir()
    shutil.copy(ROOT / "pyproject.toml", copy)
    for block in blocks(EXTENDING, "diff", "python"):
        if block.language == "diff":
            path = copy / re.findall(r"^\+\+\+ b/(.*)$", block.text, re.M)[0]
            path.write_text(patched(path.read_text("utf-8"), block.text), "utf-8")
        elif block.file is not None:
            assert not (copy / block.file).exists()
            (copy / block.file).write_text(block.text, "utf-8")
    return copy


def run(copy: Path, *command: str) -> str:
    """What a Python command prints in the copy."""
    environment = {**os.environ, "PYTHONPATH": str(copy / "src")}
    done = subprocess.run(
        [sys.executable, *command], cwd=copy, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_extending_runs(extended: Path) -> None:
    found = [block for block in blocks(EXTENDING, "python") if block.file is None]
    (extended / EXTENDING).with_suffix(".py").write_text(script(found), "utf-8")
    run(extended, "-W", "error", "extending.py")


COMMANDS = [line for block in blocks(EXTENDING, "bash") for line in block.text.splitlines()]


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_added_passes_its_tests(command: str, extended: Path) -> None:
    program, *arguments = shlex.split(command)
    if program == "pytest":
        run(extended, "-m", "pytest", "-p", "no:cacheprovider", *arguments)
    else:
        *arguments, to, file = arguments
        assert (program, to) == ("python", ">")
        (extended / file).write_text(run(extended, *arguments), "utf-8")


# Names


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_their_options_exist(page: str) -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    text = "\n".join([*(block.text.replace("\\\n", "") for block in blocks(page, "bash", "console")), *quoted(page)])
    for line in re.findall(r"^(?:\$ |.*&& )?equint ([a-z].*)", text, re.M):
        name, *arguments = shlex.split(line, comments=True)
        assert name in commands, line
        options = {option for p in commands[name].params for option in (*p.opts, *p.secondary_opts)}
        assert {a for a in arguments if re.match(r"--?[a-z]", a)} <= {*options, "--help"}, line
        targets = {n for t in equint.targets() for n in (t.name, *t.aliases)}
        for kind, known in (("--recipe", {recipe.name for recipe in equint.recipes()}), ("--target", targets)):
            values = [b for a, b in pairwise(arguments) if a == kind and not b.endswith(".toml")]
            assert set(values) <= known, line


def quoted(page: str) -> list[str]:
    """What stands between backticks, code blocks left out."""
    return re.findall(r"`([^`\n]+)`", FENCE.sub("", PAGES[page].read_text("utf-8")))


@pytest.mark.parametrize("page", PAGES)
def test_names_of_the_library_exist(page: str) -> None:
    names = {m[0] for text in quoted(page) if (m := re.match(r"equint(\.\w+)+", text))}
    for name in names - {"equint.bundle"}:  # so manifests call their format
        assert pkgutil.resolve_name(name.removesuffix(".schema.json")) is not None


@pytest.mark.parametrize("page", PAGES)
def test_files_and_links_lead_somewhere(page: str) -> None:
    text = FENCE.sub("", PAGES[page].read_text("utf-8"))
    for path in {token for token in quoted(page) if re.fullmatch(r"\w+(/\w+)+(\.\w+)*/?", token)}:
        if not any((folder / path).exists() for folder in (ROOT, ROOT / "src", ROOT / "src/equint")):
            module, _, name = path.partition(".")  # or a module, or a name in it
            source = (ROOT / "src/equint" / f"{module}.py").read_text("utf-8")
            assert re.search(rf"\b{name}\b", source), path
    for link in set(re.findall(r"\]\(([^)#:]+)\)", text)):
        assert (PAGES[page].parent / link).exists(), link
    for path in set(re.findall(r"\b(?:benchmarks|examples|tests)/\w+(?:/\w+)*\.py\b", text)):
        assert (ROOT / path).exists(), path


def test_rooms_stand_on_their_floors() -> None:
    floors = runpy.run_path(str(ROOT / "tests/test_imports.py"))["FLOORS"]
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", PAGES["architecture.md"].read_text("utf-8"), re.M)
    assert [{room for n, room in rows if int(n) == k} for k in range(1, len(floors) + 1)] == list(floors)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "toml")])
def test_toml_is_taken(page: str, tmp_path: Path) -> None:
    for block in blocks(page, "toml"):
        table = tomllib.loads(block.text)
        if {"passes", "overrides"} & table.keys():
            shown = table.get("passes", [])
            quantize = [] if any(p["pass"] == "quantize" for p in shown) else [{"pass": "quantize"}]
            parse({**table, "passes": [*shown, *quantize]}, page)
        elif page == "targets.md":
            parse_target({"weight": {}, **table}, page)
        else:
            (tmp_path / "imagenet").mkdir(exist_ok=True)
            (tmp_path / "imagenet/classes.txt").write_text("cat\ndog\n", "utf-8")
            (tmp_path / "card.toml").write_text(block.text, "utf-8")
            read_card(tmp_path / "card.toml")


PROMISES = {
    Keeps.FUNCTION: "same function",
    Keeps.NEARLY: "near to ",
    Keeps.TOPOLOGY: "changes ",
    Keeps.FLOATS: "describes only",
}


def test_recipes_md_has_every_pass_recipe_and_target() -> None:
    text = PAGES["recipes.md"].read_text("utf-8")
    rows = {m[1]: m[0] for m in re.finditer(r"^\| `(\w+)` \|.*$", text, re.M)}
    assert set(PASSES) <= set(rows)
    for name, kind in PASSES.items():
        for option in {f.name for f in fields(kind)} - needs(kind).keys():
            assert f"`{option}`" in rows[name], (name, option)
        if isinstance(kind.keeps, Keeps):
            assert PROMISES[kind.keeps] in rows[name], name
    named = set(re.findall(r"^\| (.*?) \|", text, re.M))
    for name in {recipe.name for recipe in equint.recipes()} | {target.name for target in equint.targets()}:
        assert any(f"`{name}`" in cell for cell in named), name
