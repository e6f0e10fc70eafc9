"""Commands killed at each step that writes: nothing half written is left, nothing that was there is lost.

Steps are what Python's audit hooks tell of: files opened for writing, names made, changed and removed. A forked process
is killed (SIGKILL) just before its k-th, for every k; the same command is then run to its end over what is left.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from equint.cli.main import main
from equint.drafts import PREFIX

from .confined import forked
from .places import ENDS, WRITERS

COMMANDS: dict[str, tuple[str, ...]] = {
    **{name: (*command, f"out{ENDS.get(name, '.onnx')}") for name, command in WRITERS.items() if name != "sqnr"},
    **{name: (*WRITERS[name], "out.toml", "--force") for name in ("card", "diagnose")},  # over what people edit
    "golden": (*WRITERS["golden"], "out"),
    "page": (*WRITERS["page"], "page.html"),
    "bundle": ("export", "net.onnx", "--recipe", "lwq", "--card", "net.toml", "-o", "out"),
    "ranges": ("export", "net.onnx", "--recipe", "lwq", "--card", "net.toml", "--format", "onnx-float", "-o", "out"),
    "tflite": ("quantize", "net.onnx", "--recipe", "lwq", "--card", "net.toml", "-o", "out.tflite"),
}
"""One for each kind of output."""
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
NAMES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "shutil.rmtree"}


def steps(told: Callable[[str, str], None]) -> None:
    """Have each step that writes told from now on: what it is, and on which file."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            writes = flags & WRITES if isinstance(flags, int) else any(c in (mode or "r") for c in "wax+")
            if not writes or not isinstance(path, (str, bytes, os.PathLike)) or os.path.isdir(path):
                return  # files without names are opened by their folder's
        elif event not in NAMES:
            return
        path = os.fsdecode(arguments[0]) if isinstance(arguments[0], (str, bytes, os.PathLike)) else str(arguments[0])
        if path != os.devnull:
            told(event, path)

    sys.addaudithook(hook)


def strangers(name: str, shop: Path) -> list[str]:
    """What a command writes by another way than `equint.drafts`, and not into a folder where outputs wait."""
    with tempfile.TemporaryDirectory(prefix="hostile-steps-") as place, tempfile.TemporaryFile() as told:
        folder, number = Path(place) / "work", told.fileno()
        shutil.copytree(shop, folder)

        def note(event: str, path: str) -> None:
            frame, inside = sys._getframe(), PREFIX in path
            while frame is not None and not inside:
                inside, frame = frame.f_globals.get("__name__") == "equint.drafts", frame.f_back  # type: ignore[assignment]
            if not inside:
                os.write(number, f"{name}: {event} {path}\n".encode())

        code = _run(name, folder, lambda: steps(note))
        told.seek(0)
        return [*told.read().decode().splitlines(), *([f"{name}: ended with {code}"] if code else [])]


@dataclass(frozen=True)
class Killed:
    """What came of a command: how many steps it writes in, what was wrong after kills, by step."""

    name: str
    steps: int
    wrong: tuple[str, ...]


def try_kills(name: str, shop: Path, only: Callable[[int], bool] = lambda k: True) -> Killed:
    """Run a command over an older output to its end, then again and again, each time killed a step later."""
    with tempfile.TemporaryDirectory(prefix="hostile-kill-") as place:
        base, whole = Path(place) / "base", Path(place) / "whole"
        shutil.copytree(shop, base)
        _made(name, base)  # the older output: what was there
        shutil.copytree(base, whole)
        total, wrong = _counted(name, whole), list[str]()
        for k in range(total):
            if only(k):
                folder = Path(place) / "at"
                shutil.copytree(base, folder)
                wrong += [f"{name}, step {k + 1} of {total}: {said}" for said in _killed(name, folder, base, whole, k)]
                shutil.rmtree(folder)
        return Killed(name, total, tuple(wrong))


def _killed(name: str, folder: Path, base: Path, whole: Path, k: int) -> Iterator[str]:
    left = [k]

    def die(event: str, path: str) -> None:
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    code = _run(name, folder, lambda: steps(die))
    if code != -signal.SIGKILL:
        yield f"ended with {code}"
    before, now, after = _content(base), _content(folder), _content(whole)
    moved = any(PREFIX in path for path in now)  # of outputs of several files the next run puts back what is missing
    for path in {**before, **now}:
        if PREFIX in path or path.startswith("kept/") or path.endswith(".part.npz"):
            continue  # what waits, what is kept, what the next run goes on from
        ends = {found.get(path, b"")[-8 if _timed(path) else 0 :] for found in (before, after)}
        if path in now and now[path][-8 if _timed(path) else 0 :] not in ends:
            yield f"{path} is neither what it was nor what it should be"
        if path not in now and not moved:
            yield f"{path} is lost"
    code = _run(name, folder, lambda: None)
    if code:
        yield f"again: ended with {code}"
    done = _content(folder)
    if strangers := [path for path in done if PREFIX in path]:
        yield f"again: {strangers[0]} is left"
    if lost := [path for path in after if path not in done]:
        yield f"again: {lost[0]} is missing"
    yield from (f"again: {p} differs" for p in after if p in done and done[p] != after[p] and not _timed(p))


def _timed(path: str) -> bool:
    """Whether a file tells how long something took, so that no two are alike but in how they end."""
    return path.endswith((".html", ".md")) or path.startswith("kept/")


def _made(name: str, folder: Path) -> None:
    """The output of an older run, on other weights where the command reads the network."""
    own = (folder / "net.onnx").read_bytes()
    other = onnx.load_from_string(own)
    bias = next(t for t in other.graph.initializer if t.name == "b3")
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(0.5), "b3"))
    onnx.save(other, folder / "net.onnx")
    code = _run(name, folder, lambda: None)
    (folder / "net.onnx").write_bytes(own)
    if code:  # it reads what was measured of this network alone
        code = _run(name, folder, lambda: None)
    if code:
        raise AssertionError(f"{name}: its command ends with {code}")


def _counted(name: str, folder: Path) -> int:
    """In how many steps a command writes."""
    with tempfile.TemporaryFile(buffering=0) as file:
        number = file.fileno()
        _run(name, folder, lambda: steps(lambda *_: _add(number)))
        return os.fstat(number).st_size


def _run(name: str, folder: Path, prepare: Callable[[], None]) -> int | None:
    def work() -> None:
        prepare()
        main(list(COMMANDS[name]))

    scratch = folder.parent / "scratch"
    scratch.mkdir(exist_ok=True)
    return forked(work, folder, {"TMPDIR": str(scratch)}).code


def _add(number: int) -> None:
    os.write(number, b"x")


def _content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
