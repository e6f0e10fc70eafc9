"""The page of operators in the docs is the one that is printed."""

from pathlib import Path

import pytest

import equint
from equint.ops.operator import FACETS, Unknown
from equint.ops.support import page
from equint.ops.table import OPERATORS

PAGE = Path(equint.__file__).parents[2] / "docs" / "operators.md"


@pytest.mark.skipif(not PAGE.exists(), reason="installed without its docs")
def test_the_docs_are_up_to_date() -> None:
    assert PAGE.read_text("utf-8") == page(), "print it again: python -m equint.ops > docs/operators.md"


def test_every_operator_has_a_row_and_every_gap_a_reason() -> None:
    printed = page()
    for name, operator in OPERATORS.items():
        assert f"\n| {name} |" in printed
        for facet in FACETS:
            described = getattr(operator, facet)
            if isinstance(described, Unknown):
                assert len(described.why) > 10
                assert any(name in line and line.endswith(described.why) for line in printed.splitlines())
