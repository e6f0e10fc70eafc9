"""Charts over layers: measured before predicted, and a sentence wherever "after" looks worse."""

from __future__ import annotations

import pytest

import equint
from equint.demo import model_path
from equint.ir.events import Event, EventKind
from equint.ir.model import Graph, Model
from equint.pages.noise_charts import measured_charts, predicted_charts, steps_of, why_worse
from reports import digits, told

TOTALS = {"before": {"total": 10.0}, "after": {"total": 12.0}}


def test_worse_layers_are_counted_and_explained() -> None:
    before, after = [30.0, 20.0, None, 10.0], [29.0, 25.0, 3.0, 9.95]
    words = why_worse(before, after, "weights", {"totals": TOTALS, "steps": ("scaled",)})
    assert words.startswith("1 of 3 layers looks worse than before: noise was moved")
    assert words.endswith("10.0 dB before, 12.0 dB after.")
    errors = why_worse([0.01, 0.02], [0.02, 0.03], "weights", {"totals": TOTALS, "steps": ("rounded",)}, False, 0.001)
    assert errors.startswith("2 of 2 layers look worse than before: weights are rounded together")
    assert why_worse([0.01], [0.005], "weights", {"totals": TOTALS, "steps": ()}, False, 0.001) == ""


def test_a_prediction_that_fell_is_not_called_a_gain() -> None:
    fallen = {"before": {"total": 12.0}, "after": {"total": 11.0}}
    words = why_worse([30.0], [20.0], "activations", {"totals": fallen, "steps": ("widened",)})
    assert "does not see the gain (12.0 dB before, 11.0 dB after)" in words
    unknown = {"before": {"total": None}, "after": {"total": 11.0}}
    assert "decides" in why_worse([30.0], [20.0], "activations", {"totals": unknown, "steps": ()})


def test_steps_are_those_of_the_log() -> None:
    kinds = (EventKind.EQUALIZED, EventKind.OPTIMIZED, EventKind.WEIGHTS_ROUNDED, EventKind.QUANTIZED)
    model = Model(Graph((), {}, (), ())).noted(*(Event(kind) for kind in kinds))
    assert steps_of(model) == ("scaled", "rounded")


@pytest.mark.slow
def test_layers_are_dots_and_measured_ones_stand_alone() -> None:
    found = told(equint.quantize(model_path(), "optimal", "per-tensor", input=(0, 1)), images=digits())
    count = len(found["layers"])
    (chart,) = measured_charts(found)
    assert [p["drawing"].count("<circle") for p in chart["panels"]] == [count, count]
    assert all("measured" in p["series"] and "predicted" not in p["series"] for p in chart["panels"])
    for chart in predicted_charts(found):
        for panel in chart["panels"]:
            assert 'class="line"' not in panel["drawing"]
            assert "L" not in panel["drawing"].split('class="stem" d="')[1].split('"')[0]
