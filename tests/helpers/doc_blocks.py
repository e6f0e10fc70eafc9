"""Blocks of code in Markdown, and how they run: Python in one namespace, commands in this process, in their order.

A comment in front of a block says what is special: `<!-- not run: reason -->`, `<!-- needs: torch -->` (a library, or
a variable in capitals that names a folder), `<!-- exit code 1: reason -->`. In a console block, lines behind `$ ` are
commands; what stands behind them is what they print, whatever its numbers are, "…" for anything.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any

import pytest

from equint.cli.main import main

FENCE = re.compile(
    r"(?P<marks>(?:^ *<!-- .*? -->\n+)*)^ *```(?P<language>[^\n`]*)\n(?P<text>.*?)^ *```$", re.MULTILINE | re.DOTALL
)
RUN = ("python", "bash", "console")


@dataclass(frozen=True)
class Block:
    """Code between fences; `line` is that of its first line."""

    language: str
    text: str
    line: int
    marks: dict[str, str]

    @property
    def skipped(self) -> str | None:
        """Why it does not run, if it does not."""
        needed = self.marks.get("needs")
        missing = needed is not None and needed not in os.environ and importlib.util.find_spec(needed) is None
        return self.marks.get("not run") or (f"needs {needed}" if missing else None)

    @property
    def file(self) -> str | None:
        """The file that a block of Python is, if its first line is a comment that names one."""
        named = re.match(r"# ((?:src|tests)/\S+\.py)\n", self.text)
        return named and named[1]

    @property
    def commands(self) -> list[tuple[str, str]]:
        """Every command of a block of a shell, in one line, and what it should print."""
        text = self.text.replace("\\\n", " ")
        if self.language == "console":
            parts = re.split(r"^\$ ", text, flags=re.MULTILINE)
            assert not parts[0].strip(), f"line {self.line}: what a console says begins with '$ '"
            return [(command, said) for command, _, said in (part.partition("\n") for part in parts[1:])]
        return [(line, "") for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def blocks(text: str) -> Iterator[Block]:
    """The blocks of a page in their order."""
    for m in FENCE.finditer(text):
        marks = dict(re.findall(r"<!-- ([a-z 0-9]+): *(.*?) *-->", m["marks"]))
        yield Block(m["language"], m["text"], text[: m.start("text")].count("\n") + 1, marks)


def run_blocks(text: str, page: str, names: dict[str, Any]) -> int:
    """Run a page's blocks in the current folder, and return how many ran."""
    ran = 0
    for block in blocks(text):
        if block.language not in RUN or block.skipped is not None:
            continue
        ran += 1
        if block.language == "python":
            code = compile("\n" * (block.line - 1) + block.text, page, "exec")
            exec(code, names)
            continue
        for command, said in block.commands:
            printed = _run(command, f"{page}:{block.line}: {command}", "exit code 1" in block.marks)
            if said.strip():
                _compare(said, printed, f"{page}:{block.line}: {command}")
    return ran


def _run(line: str, where: str, may_fail: bool) -> str:
    """Run one command line of equint; what it prints, or writes to a file."""
    words = shlex.split(line, comments=True)
    words, file = (words[:-2], words[-1]) if words[-2:-1] == [">"] else (words, None)
    program, *arguments = [name for word in words for name in (sorted(glob(word)) if "*" in word else [word])]
    assert program == "equint", f"{where}: only commands of equint run; say why this does not"
    if arguments[0] == "compare-board" and not Path(arguments[2]).exists():
        _make_up_board(arguments)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code in ((0, None, 1) if may_fail else (0, None)), f"{where}: exit code {stop.value.code}"
    if file is not None:
        Path(file).write_text(printed.getvalue(), "utf-8")
    return printed.getvalue()


def _make_up_board(arguments: list[str]) -> None:
    """A device's dump that holds what it should."""
    golden, dump = arguments[arguments.index("--golden") + 1], arguments[2]
    if dump.endswith(".npz"):
        shutil.copy(Path(golden, "tensors.npz"), dump)
    else:
        shutil.copytree(golden, dump)


def _compare(shown: str, printed: str, where: str) -> None:
    """What is shown is what was printed, whatever the numbers are; blanks and "…" stand for anything of their kind."""

    def plain(text: str) -> str:
        return " ".join(re.sub(r"[-−+±]?\d+(?:\.\d+)?", "0", text).split())

    pattern = re.escape(plain(shown)).replace("…", ".*")
    assert re.fullmatch(pattern, plain(printed)), f"{where}\nshown: {plain(shown)}\nprinted: {plain(printed)}"
