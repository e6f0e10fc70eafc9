"""Tables as people see them: in windows of any width nothing is lost, and no line is longer than the window."""

import re
import sys

import pytest

from equint.cli.terminal import NARROW, print_table

ROWS = [
    ("block1.depthwise/conv", "31.25", "███████████████"),
    ("a_name_that_is_longer_than_the_window_itself", "7.50", "██"),
]


@pytest.mark.parametrize("width", [40, NARROW - 1, 80, 200])
def test_every_cell_with_a_name_is_there(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    print_table("layers", ("layer", ">SQNR dB", ""), ROWS)
    shown = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert all(cell in shown for _, cell, _ in ROWS)
    assert "SQNR dB" in shown
    joined = "".join(shown.split())
    assert all(name in joined for name, _, _ in ROWS[: 1 if width < 80 else 2])
    assert max(map(len, shown.splitlines())) <= max(width, len(ROWS[1][0]) + 1)
    assert ("█" in shown) == (width >= NARROW)
