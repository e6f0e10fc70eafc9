"""Rows and words about a proposed card."""

from __future__ import annotations

from equint.pages.proposals import told, ways
from equint.samples.card import Card
from equint.study.preparations import Way
from equint.study.proposal import Proposal

WAYS = (Way("0 to 1", (0.0,), (255.0,), 0.25, 91.0, 100), Way("0 to 255", (0.0,), (1.0,), 7.5, 10.0, 100))
FOUND = Proposal("net.onnx", Card("gray", (0.0,), (255.0,)), "0 to 1", "because", False, WAYS, (), ("look",))


def test_the_way_taken_is_marked() -> None:
    title, columns, rows = ways(FOUND)
    assert "100 samples" in title
    assert columns == ("", "pixels become", ">off the BatchNorms, spreads", ">float top-1")
    assert rows == [("→", "0 to 1", "0.25", "91.0 %"), ("", "0 to 255", "7.50", "10.0 %")]


def test_columns_of_nothing_are_left_out() -> None:
    bare = tuple(Way(w.words, w.mean, w.std) for w in WAYS)
    assert ways(Proposal("", FOUND.card, "0 to 1", "", False, bare))[1] == ("", "pixels become")


def test_doubts_stand_out() -> None:
    assert list(told(FOUND)) == ["pixels become 0 to 1: because", "! look"]
