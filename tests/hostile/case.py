"""What a hostile case is: files, a command over them, and what must come of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Make = Callable[[Path], None]
"""Puts files into the folder in which the command runs; a workshop's good ones lie there already."""
May = Literal["refused", "either", "accepted"]


@dataclass(frozen=True)
class Case:
    """One input that nobody should give, and the command that it is given to.

    Attributes:
        name: kind/what is wrong/command, unique.
        command: arguments; names of files are relative to the folder.
        make: what spoils the good files.
        names: what the refusal must name, each of them: the file; the node, tensor or key.
        may: whether it must be refused, must be accepted, or either, the success being verified.
        writes: files that a success may leave.
        environment: variables beside those of the parent.
        full: bytes that any one file may have, as on a disk that is full behind them; 0: no bound.
        verify: raises AssertionError where a success in a folder, with what it printed, is wrong; None: as others are.
    """

    name: str
    command: Sequence[str]
    make: Make = lambda folder: None
    names: Sequence[str] = ()
    may: May = "refused"
    writes: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    full: int = 0
    verify: Callable[[Path, str], None] | None = None

    @property
    def kind(self) -> str:
        """The first part of its name."""
        return self.name.split("/")[0]


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with one file.

    Attributes:
        name: what is wrong.
        make: does it.
        names: what a refusal names beside the file.
        may: as in `Case`.
    """

    name: str
    make: Make
    names: Sequence[str] = ()
    may: May = "refused"


@dataclass(frozen=True)
class Reader:
    """A command that reads a kind of file.

    Attributes:
        name: for the case; command: its arguments.
        writes: files that a success may leave.
        file: the file under attack, which refusals name.
    """

    name: str
    command: Sequence[str]
    writes: Sequence[str] = ()
    file: str = ""


def crossed(kind: str, faults: Sequence[Fault], readers: Sequence[Reader], each: int = 0, start: int = 0) -> list[Case]:
    """Cases of all faults, each read by so many of the readers in turn, by all where that is 0."""
    found = []
    for k, fault in enumerate(faults):
        chosen = [readers[(start + k * each + j) % len(readers)] for j in range(each or len(readers))]
        for reader in dict.fromkeys(chosen):
            names = (*([reader.file] if reader.file else ()), *fault.names)
            name = f"{kind}/{fault.name}/{reader.name}"
            found.append(Case(name, reader.command, fault.make, names, fault.may, reader.writes))
    return found


def written(file: str, content: bytes | str) -> Make:
    """Puts a file of this content."""

    def make(folder: Path) -> None:
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content)

    return make


def removed(file: str) -> Make:
    """Takes a file or folder away."""

    def make(folder: Path) -> None:
        path = folder / file
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return make


def both(*makes: Make) -> Make:
    """One after the other."""

    def make(folder: Path) -> None:
        for each in makes:
            each(folder)

    return make
