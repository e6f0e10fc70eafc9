"""What the docs show works: their Python runs, the commands and options exist, names and links lead somewhere.

A page's blocks of Python run one after the other in one namespace, in a folder with the files that the pages speak of.
A block that cannot is marked by a comment that says why: `<!-- not run: reason -->`. Diffs and files of
docs/extending.md are applied to a copy of the sources, where its blocks and its pytest commands run.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from equint.demo import data_path, model_path

ROOT = Path(__file__).parents[1]
PAGES = {path.name: path for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md")))}
EXTENDING = "extending.md"
FENCE = re.compile(r"(?:^<!-- not run:(?P<reason>.*)-->\n+)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """Code between fences; `line` is that of its first line, `skipped` why it does not run."""

    language: str
    text: str
    line: int
    skipped: str | None

    @property
    def file(self) -> str | None:
        """The file that a block of Python is, if its first line is a comment that names one."""
        named = re.match(r"# ((?:src|tests)/\S+\.py)\n", self.text)
        return named and named[1]


def blocks(page: str, *languages: str) -> list[Block]:
    text = PAGES[page].read_text("utf-8")
    return [
        Block(m["language"], m["text"], text[: m.start("text")].count("\n") + 1, m["reason"])
        for m in FENCE.finditer(text)
        if m["language"] in languages
    ]


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
    (tmp_path / "net.toml").write_text(f'[input]\nkind = "gray"\nstd = [16.0]\n{data}')
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", [page for page in PAGES if page != EXTENDING and blocks(page, "python")])
def test_python_runs(page: str, here: Path) -> None:
    found = blocks(page, "python")
    assert all(block.skipped is None or block.skipped.strip() for block in found), "a reason is missing"
    images = np.load(data_path())["x"][:32].transpose(0, 3, 1, 2).astype(np.float32) / 16
    code = script([block for block in found if block.skipped is None])
    exec(compile(code, page, "exec"), {"__name__": page, "images": images})


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
    shutil.copy(ROOT / "pyproject.toml", copy)
    for block in blocks(EXTENDING, "diff", "python"):
        if block.language == "diff":
            path = copy / re.findall(r"^\+\+\+ b/(.*)$", block.text, re.M)[0]
            path.write_text(patched(path.read_text("utf-8"), block.text), "utf-8")
        elif block.file is not None:
            assert not (copy / block.file).exists()
            (copy / block.file).write_text(block.text, "utf-8")
    return copy


def run(copy: Path, *command: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(copy / "src")}
    done = subprocess.run(
        [sys.executable, *command], cwd=copy, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}\n{done.stderr}"


def test_extending_runs(extended: Path) -> None:
    found = [block for block in blocks(EXTENDING, "python") if block.file is None]
    (extended / EXTENDING).with_suffix(".py").write_text(script(found), "utf-8")
    run(extended, "-W", "error", "extending.py")


COMMANDS = [line for block in blocks(EXTENDING, "bash") for line in block.text.splitlines()]


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_added_passes_its_tests(command: str, extended: Path) -> None:
    program, *arguments = shlex.split(command)
    assert program == "pytest"
    run(extended, "-m", "pytest", "-p", "no:cacheprovider", *arguments)
