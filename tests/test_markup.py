"""HTML for notebooks: what results, studies and tables show of themselves."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

import equint
from equint.demo import data_path, model_path
from equint.markup import block, of_facts, table
from equint.samples.card import Card
from reports import HOSTILE


class Text(HTMLParser):
    """What is read, and tags that are left open."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.open = "", list[str]()
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_names_that_mean_harm_stay_text() -> None:
    for html in (block(HOSTILE, [HOSTILE]), table(HOSTILE, [HOSTILE], [[HOSTILE]]), of_facts("t", {HOSTILE: HOSTILE})):
        assert HOSTILE in Text(html).text
        assert "<script" not in html
        assert "<img" not in html


def test_long_tables_are_cut_and_say_so() -> None:
    html = table("layers", ["n"], [[k] for k in range(30)], 4)
    assert html.count("<tr>") == 5
    assert "layers, 4 of 30" in html


def test_facts_are_lines_and_tables() -> None:
    facts = {"images": 8, "of": None, "rows": [{"name": "a", "db": 1.23456}], "warnings": ["few samples"], "empty": []}
    text = Text(of_facts("found", facts)).text
    assert "images 8" in text
    assert "! few samples" in text
    assert "1.235" in text


@pytest.mark.slow
def test_results_and_studies_say_what_their_text_says() -> None:
    gray = Card("gray", (0.0,), (16.0,))
    result = equint.quantize(model_path(), "cwq", input=gray)
    first = result.summary().splitlines()[0]
    assert first in Text(result._repr_html_()).text
    assert len(result._repr_html_()) < 3000
    found = equint.evaluate(result, data_path(), gray, model_path(), limit=30)
    assert found.verdict is not None
    assert found.verdict.words in Text(found._repr_html_()).text
    study = equint.explain(model_path(), input=(0, 1))
    assert repr(study) in Text(study._repr_html_()).text
    assert repr(equint.table([], ["lwq"])) in Text(equint.table([], ["lwq"])._repr_html_()).text
