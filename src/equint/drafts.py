"""Outputs that appear whole or not at all, whenever a run is killed and however many run at once: all writing is here.

What is written waits in a folder `.equint-…` beside its target until it is whole. A run that was killed leaves such a
folder at most; the next one that writes there puts back what it had taken away, and removes it.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from .errors import OutputRefused
from .kinds import kind_of, takes_place

try:
    import fcntl
except ImportError:  # no such locks there: nothing is cleaned up, and of two writers each file is one's
    fcntl = None  # type: ignore[assignment]

PREFIX = ".equint-"
"""Names of folders in which outputs wait."""
RANDOM = 8
"""Characters behind, as `tempfile` draws them; a folder that holds anything else is somebody else's."""
PLAN = "plan.json"
"""What is to be placed, by name: its number in the file system, by which it is known again."""
_OVERWRITING: ContextVar[bool] = ContextVar("_OVERWRITING", default=False)
_APPEARED: ContextVar[list[Path] | None] = ContextVar("_APPEARED", default=None)


@contextmanager
def overwriting(force: bool) -> Iterator[None]:
    """Whether outputs may take the place of any file, as long as this lasts."""
    before = _OVERWRITING.set(force or _OVERWRITING.get())
    try:
        yield
    finally:
        _OVERWRITING.reset(before)


@contextmanager
def noted() -> Iterator[list[Path]]:
    """The outputs that have appeared since this began, as long as it lasts.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder, noted() as appeared:
        ...     with drafted(Path(folder) / "a.txt") as (draft, target):
        ...         _ = draft.write_text("whole")
        ...     [path.name for path in appeared]
        ['a.txt']
    """
    appeared = list[Path]()
    before = _APPEARED.set(appeared)
    try:
        yield appeared
    finally:
        _APPEARED.reset(before)


def writable(path: str | os.PathLike[str]) -> Path:
    """Where an output goes, links followed.

    Raises:
        EquintError: it is a folder or a device, its folder does not exist or takes no files, or its name is too long.
    """
    try:
        target = Path(path).resolve()
        if target.is_dir():
            raise OutputRefused(f"{path}: is a folder; give a file name for the output")
        if target.exists() and not target.is_file():
            raise OutputRefused(f"{path}: is no regular file; give a file name for the output")
        if not target.parent.is_dir():
            raise OutputRefused(f"{path}: cannot write (no such folder); make it or choose another output")
        with _room(target.parent):
            pass  # it takes files
    except (OSError, ValueError, RuntimeError) as error:
        why = getattr(error, "strerror", None) or error
        raise OutputRefused(f"{path}: cannot write ({why}); choose another output") from error
    return target


def check_kind(path: str | os.PathLike[str], written: str | None) -> None:
    """Refuse to write over a file of another kind, or one that people edit; `written` comes, where that is known.

    Raises:
        OutputRefused: naming the output, and what would be lost.
    """
    if written is None or _OVERWRITING.get():
        return
    try:
        there = kind_of(path)
    except FileNotFoundError:
        return
    if there is not None and not takes_place(written, there):
        raise OutputRefused(f"{path}: is {there} that would be lost; choose another output, or give --force")


@contextmanager
def drafted(path: str | os.PathLike[str]) -> Iterator[tuple[Path, Path]]:
    """(draft, target): what is written to the draft, in the target's folder, takes the target's place at the end.

    Where the body fails, nothing is left behind and what was there stays.

    Raises:
        EquintError: as `writable`, and where writing fails.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with drafted(Path(folder) / "a.txt") as (draft, target):
        ...         _ = draft.write_text("whole")
        ...     target.read_text()
        'whole'
    """
    target = writable(path)
    with drafted_together([path]) as (draft,):
        yield draft, target


@contextmanager
def drafted_together(paths: Sequence[str | os.PathLike[str]]) -> Iterator[tuple[Path, ...]]:
    """Drafts of files in one folder that belong together: none takes its target's place unless all do.

    Raises:
        EquintError: as `writable`, where writing fails, and where what is there is of another kind.
    """
    targets = [writable(path) for path in paths]
    try:
        with placed(targets) as drafts:
            yield drafts
            for path, draft in zip(paths, drafts, strict=True):
                if draft.exists():
                    check_kind(path, kind_of(draft))
    except OSError as error:
        where = ", ".join(map(str, targets))
        raise OutputRefused(f"{where}: cannot write ({error.strerror or error}); choose another output") from error


@contextmanager
def placed(targets: Sequence[Path]) -> Iterator[tuple[Path, ...]]:
    """Drafts of files or folders, of one folder, which take the place of what is there when the body is done.

    One file is renamed at a stroke. Of several, and of folders, what is there waits in the room until all are in place;
    a run that is killed in between is undone by the next. A target whose draft is not written stays as it is.

    Raises:
        OSError: it cannot be written.
    """
    with _room(targets[0].parent) as room:
        new = room / "new"
        new.mkdir()
        yield tuple(new / target.name for target in targets)
        ready = [target for target in targets if (new / target.name).exists()]
        _place(room, ready)
        if (appeared := _APPEARED.get()) is not None:
            appeared.extend(ready)


def _place(room: Path, ready: Sequence[Path]) -> None:
    """Put what is new in its place, all of it or none."""
    new, old = room / "new", room / "old"
    if len(ready) == 1 and not ready[0].is_dir():
        os.replace(new / ready[0].name, ready[0])
        return
    old.mkdir()
    (room / PLAN).write_text(json.dumps({t.name: (new / t.name).stat().st_ino for t in ready}))
    with _alone(room.parent):
        try:
            for target in ready:
                if target.exists():
                    os.rename(target, old / target.name)
            for target in ready:
                os.rename(new / target.name, target)
        except BaseException:
            _undo(room)
            raise


def _undo(room: Path) -> None:
    """Put back what was there, where some of what is new is not in its place; what others put there since stays."""
    new, old = room / "new", room / "old"
    try:
        plan = json.loads((room / PLAN).read_text())
    except (OSError, ValueError):  # nothing was moved yet
        return
    if not new.is_dir() or not any(new.iterdir()):
        return
    for name, number in plan.items():
        target = room.parent / name
        if target.exists() and target.stat().st_ino == number:
            os.rename(target, new / name)
        if (old / name).exists() and not target.exists():
            os.rename(old / name, target)


@contextmanager
def _room(parent: Path) -> Iterator[Path]:
    """A folder to write in, locked as long as it is used; those that nobody uses any more are cleared up before."""
    with _alone(parent) as locks:
        if locks:
            _clear(parent)
        room = Path(tempfile.mkdtemp(dir=parent, prefix=PREFIX))
        used = _locked(room)
    try:
        yield room
    finally:
        shutil.rmtree(room, ignore_errors=True)
        if used is not None:
            os.close(used)


def _clear(parent: Path) -> None:
    """Undo and remove what killed runs left: what nobody has locked."""
    for room in parent.glob(f"{PREFIX}{'?' * RANDOM}"):
        with suppress(OSError):
            used = _locked(room)
            if used is None:
                continue
            if {path.name for path in room.iterdir()} <= {"new", "old", PLAN}:
                _undo(room)
                shutil.rmtree(room)
            os.close(used)


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """One run at a time, as far as the file system has locks; whether it has."""
    held = None
    if fcntl is not None:
        with suppress(OSError):
            held = os.open(folder, os.O_RDONLY)
            fcntl.flock(held, fcntl.LOCK_EX)
    try:
        yield held is not None
    finally:
        if held is not None:
            os.close(held)


def _locked(room: Path) -> int | None:
    """A lock on a folder, as a file that is to be closed; None where another has it."""
    if fcntl is None or not room.is_dir():
        return None
    held = os.open(room, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(held)
        return None
    return held


def add_line(path: str | os.PathLike[str], line: bytes) -> None:
    """Add a line to a file in one piece; it is on the disk when this returns. What a killed run left is closed off.

    Raises:
        OSError: it cannot be written.
    """
    with open(path, "ab+", buffering=0) as file:
        if fcntl is not None:
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0, os.SEEK_END)
        whole = file.tell() == 0 or (file.seek(-1, os.SEEK_END) >= 0 and file.read(1) == b"\n")
        file.write(line if whole else b"\n" + line)
        os.fsync(file.fileno())


def make_folder(path: Path) -> None:
    """Make a folder and those that it lies in, where they are not there. Raises OSError."""
    path.mkdir(parents=True, exist_ok=True)


def remove(path: Path) -> None:
    """Remove a file of one's own, if it is there. Raises OSError."""
    path.unlink(missing_ok=True)
