"""Lines of JSON: whatever a kill leaves behind, whole lines survive."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equint.errors import EquintError
from equint.files import jsonable
from equint.study.ledger import add_line, numbers, read_lines

ENTRIES = [{"key": f"k{n}", "results": {"top1": n / 3, "name": "größer|\n"}} for n in range(4)]


@settings(max_examples=40, deadline=None)
@given(cut=st.integers(0, 400), garbage=st.binary(max_size=20))
def test_a_file_cut_anywhere_keeps_its_whole_lines(
    cut: int, garbage: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("ledger") / "lines.jsonl"
    for entry in ENTRIES:
        add_line(path, entry)
    raw = path.read_bytes()[:cut]
    path.write_bytes(raw + b"\n" + garbage)
    add_line(path, {"key": "new"})
    found = read_lines(path)
    ends = [i + 1 for i, byte in enumerate(raw) if byte == ord("\n")]
    whole = [json.loads(line)["key"] for line in raw[: max(ends, default=0)].splitlines()]
    assert found["new"] == {"key": "new"}
    assert [key for key in whole if found.get(key) != ENTRIES[int(key[1])]] == []


@pytest.mark.parametrize("line", [b"[1]", b"3", b'{"key": 3}', b"{}", b'{"key"', b"\xff\xfe", b"null"])
def test_what_is_no_entry_is_skipped(line: bytes, tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b'{"key": "a"}\n' + line + b'\n{"key": "b"}\n')
    assert list(read_lines(path)) == ["a", "b"]


def test_a_half_line_is_closed_off(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b'{"key": "a"}\n{"key": "b", "resu')
    add_line(path, {"key": "c"})
    assert path.read_bytes() == b'{"key": "a"}\n{"key": "b", "resu\n{"key": "c"}\n'
    assert list(read_lines(path)) == ["a", "c"]


def test_the_last_entry_of_a_key_counts(tmp_path: Path) -> None:
    for value in (1, 2):
        add_line(tmp_path / "lines.jsonl", {"key": "a", "value": value})
    assert read_lines(tmp_path / "lines.jsonl") == {"a": {"key": "a", "value": 2}}


def test_infinities_survive(tmp_path: Path) -> None:
    add_line(tmp_path / "lines.jsonl", {"key": "a", "results": {"sqnr_db": math.inf, "worst": -math.inf}})
    assert numbers(read_lines(tmp_path / "lines.jsonl")["a"]["results"]) == {"sqnr_db": math.inf, "worst": -math.inf}
    assert math.isnan(numbers(jsonable({"x": math.nan}, str))["x"])


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EquintError, match="cannot write"):
        add_line(tmp_path, {"key": "a"})
    with pytest.raises(EquintError, match="cannot read"):
        read_lines(tmp_path)
