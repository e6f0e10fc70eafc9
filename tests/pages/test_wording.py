"""Facts of the log in words: no key = value, no longer digits than a reader wants."""

from __future__ import annotations

import equint
from equint.demo import model_path
from equint.ir.events import Event, EventKind
from equint.pages.wording import fact, in_words


def test_no_event_of_a_result_is_shown_as_key_and_value() -> None:
    for event in equint.quantize(model_path(), input=(0, 1)).model.log:
        row = in_words(event)
        assert "=" not in row["facts"], row
        assert "_" not in row["facts"], row


def test_units_and_truth() -> None:
    assert fact("seconds", 8.293) == "8.29 s"
    assert fact("seconds", 0.0001) == "under 0.01 s"
    assert fact("SQNR of another kind", 21.95) == "SQNR of another kind 21.9 dB"
    assert fact("gain", 1.574) == "1.6 dB better"
    assert fact("float", True) == "float yes"
    assert fact("gain", "1.2") == "gain 1.2"


def test_the_reason_stands_apart() -> None:
    row = in_words(Event(EventKind.CLIP_LEFT, "c", {"why": "no bound", "mode": "keep"}))
    assert (row["why"], row["facts"], row["timing"]) == ("no bound", "mode keep", False)
    assert in_words(Event(EventKind.RAN, "", {"pass": "quantize", "seconds": 1.0}))["timing"]
