"""Candidates as rows: what the log tells of each, the one that was kept first."""

from __future__ import annotations

import equint
from equint.demo import model_path
from equint.ir.events import Event, EventKind
from equint.ir.model import Graph, Model
from equint.pages.candidates import candidates


def test_every_candidate_of_the_log_is_a_row() -> None:
    result = equint.quantize(model_path(), input=(0, 1))
    found = candidates(result.model)
    tried = [e.facts for e in result.model.log if e.kind is EventKind.CANDIDATE_MEASURED]
    assert {(r["name"], r["sqnr"], r["samples"]) for r in found["rows"]} == {
        (f["candidate"], f["SQNR"], f["samples"]) for f in tried
    }
    assert found["rows"][0]["name"] == found["kept"]
    assert [r["kept"] for r in found["rows"]].count(True) == 1


def test_order_and_reasons() -> None:
    def tried(name: str, sqnr: float, samples: int, **more: object) -> Event:
        return Event(EventKind.CANDIDATE_MEASURED, "", {"candidate": name, "SQNR": sqnr, "samples": samples, **more})

    kept = {"candidate": "b", "count": 3, "on": "made-up samples", "SQNR": 20.0, "why": "less noise"}
    log = (
        tried("a", 21.0, 16),
        tried("c", 30.0, 8, why="left out after the first samples", gain=-1.0, chance=0.25),
        tried("b", 20.0, 16),
        tried("d", 22.0, 16),
        Event(EventKind.CANDIDATE_KEPT, "", kept),
    )
    found = candidates(Model(Graph((), {}, (), ())).noted(*log))
    assert [r["name"] for r in found["rows"]] == ["b", "d", "a", "c"]
    assert found["rows"][0]["why"] == "less noise"
    assert (found["rows"][3]["gain"], found["rows"][3]["chance"]) == (-1.0, 0.25)
    assert found["rows"][1]["gain"] is None


def test_nothing_tried_nothing_shown() -> None:
    assert candidates(equint.load(model_path())) == {}
