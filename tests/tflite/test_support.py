"""The table of operators in the docs is the one that is printed."""

from pathlib import Path

import pytest

import equint
from equint.tflite.reader import operators_read
from equint.tflite.support import page

PAGE = Path(equint.__file__).parents[2] / "docs" / "tflite.md"
BEGIN, END = "<!-- operators -->\n", "<!-- end of operators -->"


@pytest.mark.skipif(not PAGE.exists(), reason="installed without its docs")
def test_the_docs_are_up_to_date() -> None:
    shown = PAGE.read_text("utf-8").partition(BEGIN)[2].partition(END)[0]
    assert shown == page(), "print it again: python -m equint.tflite"


def test_every_operator_is_in_one_family() -> None:
    words = page().replace(",", " ").replace("|", " ").split()
    for kind in operators_read():
        assert words.count(kind.split()[-1]) == 1
