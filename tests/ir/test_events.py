"""Every kind of event has words of its own, and a fact that the words name is not told twice."""

import inspect
import re
from pathlib import Path

import pytest

from equint.ir.events import Event, EventKind


@pytest.mark.parametrize("kind", EventKind)
def test_each_can_be_told(kind: EventKind) -> None:
    event = Event(kind, "conv1", {**dict.fromkeys(kind.named, "{odd}"), "share": 1 / 3})
    assert str(event) == kind.value.format(**dict.fromkeys(kind.named, "{odd}")) + (" [conv1] (share=0.3333)")
    assert event.details == {"share": 1 / 3}


def test_no_two_say_the_same() -> None:
    texts = [re.sub(r"{.*?}", "…", kind.value) for kind in EventKind]
    assert all(text.strip("… ") for text in texts)
    assert sorted(set(texts)) == sorted(texts)


def test_each_is_left_by_something() -> None:
    table = Path(inspect.getfile(EventKind))
    others = set(table.parents[1].rglob("*.py")) - {table}
    used = {name for f in others for name in re.findall(r"EventKind\.([A-Z_]+)", f.read_text("utf-8"))}
    assert used == set(EventKind.__members__)


def test_words_as_people_read_them() -> None:
    known = Event(EventKind.INPUT_KNOWN, "x", {"how": "as given", "lo": 0.0, "hi": 1.0}, "inputs")
    assert str(known) == "input range known (as given) [x] (lo=0, hi=1)"
    assert (
        str(Event(EventKind.OPERATOR_FLOAT, "s", {"op": "Softsign", "nodes": 2}))
        == "Softsign stays float [s] (nodes=2)"
    )


def test_facts_have_their_units() -> None:
    facts = {"SQNR": 22.54, "gain": -0.66, "chance": 0.398, "bits": "W8A8", "seconds": 0.25, "samples": 16}
    said = str(Event(EventKind.CANDIDATE_MEASURED, "", {"candidate": "a", **facts}))
    assert said == "measured candidate a (SQNR=22.5 dB, gain=-0.7 dB, chance=40 %, bits=W8A8, seconds=0.25, samples=16)"
