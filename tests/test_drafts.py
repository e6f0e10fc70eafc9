"""Outputs appear whole or not at all: two writers, killed ones, and what these leave."""

import json
import os
import signal
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import pytest

from equint import drafts
from equint.drafts import PREFIX, add_line, drafted, drafted_together, placed
from equint.errors import OutputRefused

pytestmark = pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")


def forked(work: Callable[[], object]) -> int:
    """How a forked process ends."""
    child = os.fork()
    if not child:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_several_files_are_placed_together_or_not_at_all(tmp_path: Path) -> None:
    names = [tmp_path / "a.json", tmp_path / "b.bin"]
    with drafted_together(names) as (a, b):
        a.write_text("new")
        b.write_text("new")
        assert not names[0].exists()

    def fails() -> None:
        with drafted_together(names) as (a, _):
            a.write_text("newer")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    assert [n.read_text() for n in names] == ["new", "new"]
    assert sorted(os.listdir(tmp_path)) == ["a.json", "b.bin"]


@pytest.mark.parametrize("before", [("old", "old"), ("old", None), (None, None)])
@pytest.mark.parametrize("renames", range(4))
def test_what_a_killed_run_has_begun_the_next_one_undoes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: tuple[str | None, str | None], renames: int
) -> None:
    """Killed behind so many renames of the four, two, or three that placing both takes."""
    names = [tmp_path / "a.json", tmp_path / "b.bin"]
    for name, text in zip(names, before, strict=True):
        if text is not None:
            name.write_text(text)

    def die_later() -> None:
        rename, left = os.rename, [renames]

        def dying(source: Path, target: Path) -> None:
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            rename(source, target)

        monkeypatch.setattr(os, "rename", dying)
        with drafted_together(names) as both:
            for draft in both:
                draft.write_text("new")

    code = forked(die_later)
    needed = sum(text is not None for text in before) + 2
    assert code == (-signal.SIGKILL if renames < needed else 0)
    with drafted(tmp_path / "other.txt") as (draft, _):
        draft.write_text("another output in that folder")
    found = [name.read_text() if name.exists() else None for name in names]
    assert found == (["new", "new"] if code == 0 else list(before))
    assert not list(tmp_path.glob(f"{PREFIX}*"))


def test_what_was_put_there_since_is_not_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [tmp_path / "a.json", tmp_path / "b.bin"]
    for name in names:
        name.write_text("old")

    def die() -> None:
        rename = os.rename

        def dying(source: Path, target: Path) -> None:
            rename(source, target)
            if Path(source).parent.name == "new":
                os.kill(os.getpid(), signal.SIGKILL)

        monkeypatch.setattr(os, "rename", dying)
        with drafted_together(names) as both:
            for draft in both:
                draft.write_text("new")

    assert forked(die) == -signal.SIGKILL
    names[1].write_text("the user's own")
    with drafted(tmp_path / "other.txt") as (draft, _):
        draft.write_text("x")
    assert [name.read_text() for name in names] == ["old", "the user's own"]


def test_a_draft_that_another_run_writes_is_left_to_it(tmp_path: Path) -> None:
    with drafted(tmp_path / "a.txt") as (draft, _):
        draft.write_text("whole")

        def other() -> None:
            with drafted(tmp_path / "b.txt") as (own, _):
                own.write_text("too")

        assert forked(other) == 0
        assert draft.read_text() == "whole"
    assert sorted(os.listdir(tmp_path)) == ["a.txt", "b.txt"]


def _write(arguments: tuple[str, int]) -> None:
    folder, number = arguments
    for _ in range(40):
        with drafted_together([Path(folder) / "a", Path(folder) / "b"]) as both:
            for draft in both:
                draft.write_text(str(number) * 5000)
        add_line(Path(folder) / "lines", json.dumps({"key": str(number) * 300}).encode() + b"\n")


@pytest.mark.parametrize(("name", "inside"), [("notes", "new"), ("notebook", "thesis.txt")])
def test_folders_of_others_are_left_alone(tmp_path: Path, name: str, inside: str) -> None:
    own = tmp_path / f"{PREFIX}{name}" / inside
    own.parent.mkdir()
    own.write_text("mine")
    with drafted(tmp_path / "out") as (draft, _):
        draft.write_text("whole")
    assert own.read_text() == "mine"


def test_of_writers_at_once_the_output_is_one_of_theirs(tmp_path: Path) -> None:
    with get_context("spawn").Pool(3) as pool:
        pool.map(_write, [(str(tmp_path), k) for k in range(3)], chunksize=1)
    a, b = ((tmp_path / name).read_text() for name in "ab")
    assert a == b
    assert a in {str(k) * 5000 for k in range(3)}
    lines = (tmp_path / "lines").read_text().splitlines()
    assert sorted(json.loads(line)["key"] for line in lines) == sorted(
        str(k) * 300 for k in range(3) for _ in range(40)
    )
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "lines"]


def test_lines_that_were_cut_off_are_closed(tmp_path: Path) -> None:
    (tmp_path / "lines").write_bytes(b'{"key": "a"}\n{"ke')
    add_line(tmp_path / "lines", b'{"key": "b"}\n')
    assert (tmp_path / "lines").read_bytes().split(b"\n") == [b'{"key": "a"}', b'{"ke', b'{"key": "b"}', b""]


def test_without_locks_files_are_written_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drafts, "fcntl", None)
    (tmp_path / f"{PREFIX}x").mkdir()
    with drafted(tmp_path / "a.txt") as (draft, _):
        draft.write_text("whole")
    assert (tmp_path / "a.txt").read_text() == "whole"
    assert (tmp_path / f"{PREFIX}x").is_dir()  # whose it is, nothing tells


def test_folders_take_the_place_of_folders(tmp_path: Path) -> None:
    for text in ("old", "new"):
        with placed([tmp_path / "golden"]) as (draft,):
            draft.mkdir()
            (draft / text).write_text(text)
    assert os.listdir(tmp_path / "golden") == ["new"]


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    with pytest.raises(OutputRefused, match="No space left on device"), drafted(tmp_path / "a.txt"):
        raise OSError(28, "No space left on device")
    assert not list(tmp_path.iterdir())
