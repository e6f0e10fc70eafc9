"""Files: what is opened, what is refused, and what happens where a disk is full."""

import os
import resource
from pathlib import Path

import numpy as np
import pytest

from equint.drafts import writable
from equint.errors import InvalidCard, OutputRefused
from equint.files import MOST_TEXT, Shelf, deepest, read_toml, readable


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "long").write_bytes(b"")
    os.truncate(tmp_path / "long", MOST_TEXT + 1)
    wrong = {"pipe": "no regular file", "loop": "cannot be read", "gone": "no such card", "long": "too long for a card"}
    for name, said in wrong.items():
        with pytest.raises(InvalidCard, match=said):
            readable(tmp_path / name, InvalidCard, "card", MOST_TEXT)
    for path in ("/dev/zero", tmp_path, "a\0b"):
        with pytest.raises(InvalidCard, match="give a card"):
            readable(path, InvalidCard, "card")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"a = 1\nlevel = {'9' * 5000}", "level: more than 64 bits"),
        (f"a = 1\nlevel = {2**64}", "level: more than 64 bits"),
        (f"a = 1\nlevel = {'[' * 900}{']' * 900}", "level: nested too deep"),
        (f"a = 1\nlevel = {'[' * 40}{']' * 40}", "level: nested too deep"),
        ("a = \n", "line 1"),
    ],
)
def test_toml_that_nobody_should_write_is_refused_by_key(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(InvalidCard, match=said):
        read_toml(tmp_path / "a.toml", "card")


def test_depth_is_counted_without_recursion() -> None:
    nested: list[object] = []
    for _ in range(50_000):
        nested = [nested]
    assert deepest(nested) == 50_001


def test_places_that_take_no_files_are_refused_before_the_work(tmp_path: Path) -> None:
    for path in ("/proc/out.onnx", tmp_path / "gone" / "out.onnx", tmp_path / ("n" * 300), "a\0b"):
        with pytest.raises(OutputRefused, match="cannot write"):
            writable(path)
    assert not list(tmp_path.iterdir())


def test_samples_that_a_full_disk_does_not_take_are_told() -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    shelf = Shelf()
    shelf.append(np.arange(100, dtype=np.uint8))
    resource.setrlimit(resource.RLIMIT_FSIZE, (150, before[1]))
    try:
        with pytest.raises(OutputRefused, match="samples cannot wait there"):
            shelf.append(np.zeros(100, np.uint8))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert shelf[0].tolist() == list(range(100))
    assert len(shelf) == 1
