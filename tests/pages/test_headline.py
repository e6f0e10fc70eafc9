"""What comes first on a page: the verdict's level, measured figures, sizes."""

from __future__ import annotations

import equint
from equint.demo import model_path
from equint.ir.events import Event, EventKind
from equint.pages.headline import figures, shown, verdict
from equint.pages.story import searched
from equint.planning.summary import sizes
from equint.scoring.verdicts import LEVELS, Verdict, not_measured


def test_every_level_is_shown_once() -> None:
    for level in LEVELS:
        found = shown(Verdict(level, f"{level}: much was lost", "decided"))
        assert (found["level"], found["label"], found["reason"]) == (level, level, "Much was lost")
    nothing = shown(not_measured("one sample alone tells nothing"))
    assert (nothing["level"], nothing["label"], nothing["reason"]) == (
        "unknown",
        "not measured",
        "One sample alone tells nothing",
    )
    assert shown(not_measured())["reason"].startswith("Give samples")


def test_a_measured_verdict_wins_and_doubts_are_said_once() -> None:
    model = equint.quantize(model_path(), input=(0, 1)).model
    assert verdict({}, model) == searched(model)
    told = Verdict("poor", "poor: 5.0 points lost", "decided")
    assert verdict({"verdict": told}, model) is told
    doubtful = model.noted(Event(EventKind.INPUT_CONTRADICTED, "x", {}, "", warning=True))
    once = verdict({"verdict": told}, doubtful)
    assert "trained on" in once.words
    assert verdict({"verdict": once}, doubtful).words == once.words


def test_figures_are_measured_first_then_counted() -> None:
    model = equint.quantize(model_path(), "cwq", input=(0, 1)).model
    found = figures({"sqnr_db": 30.0, "samples": 3, "top1": 90.0, "float_top1": 91.0}, model, 12_345)
    assert [f["label"] for f in found[:2]] == ["Top-1 accuracy", "SQNR at the outputs"]
    assert found[0]["detail"] == "float 91.00 %, on 3 samples"
    assert [f["basis"] for f in found] == ["measured", "measured", "counted", "counted"]
    assert found[2]["value"] == f"{sizes(model)[1] / 1e3:.1f} kB"
    assert found[3]["value"] == "12.3 kB"
