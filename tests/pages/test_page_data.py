"""Values for scripts: any text may stand in them, and none can end their element."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equint.pages.page_data import embedded
from reports import HOSTILE


@pytest.mark.slow
@given(st.text())
@settings(max_examples=50)
def test_any_text_can_be_embedded(text: str) -> None:
    shown = embedded({"name": text})
    assert json.loads(shown)["name"] == text
    assert not set("<>&") & set(shown)


def test_nothing_embedded_can_end_its_element() -> None:
    shown = embedded([HOSTILE, "<!--", "]]>"])
    assert not set("<>&\u2028") & set(shown)
