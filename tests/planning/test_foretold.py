"""What is said of a candidate: what was measured, and the forecast only where it holds."""

import numpy as np
import pytest

import equint
from equint.demo import model_path
from equint.ir.events import EventKind
from equint.planning import foretold
from equint.runtime.forecast import Forecast
from handwritten import network, normal

PROTO = network(
    "a = Conv <pads = [1, 1, 1, 1]> (x, w) r = Relu(a) y = Conv(r, v)", w=normal(6, 3, 3, 3), v=normal(4, 6, 1, 1)
)


def quantized() -> equint.Result:
    return equint.quantize(PROTO, input=(-1.5, 1.5), data=normal(16, 3, 8, 8, seed=5, scale=0.3))


def test_a_forecast_that_holds_stands_beside_what_was_measured() -> None:
    found = quantized()
    (event,) = (e for e in found.model.log if e.kind is EventKind.MEASURED_AS_FORECAST)
    kept = next(e for e in found.model.log if e.kind is EventKind.CANDIDATE_KEPT).facts["candidate"]
    rows = {e.facts["candidate"]: e.facts for e in found.model.log if e.kind is EventKind.CANDIDATE_MEASURED}
    assert event.facts["SQNR"] == rows[kept]["SQNR"]
    assert abs(event.facts["forecast SQNR"] - event.facts["SQNR"]) <= 3
    parts = sum(10 ** (-event.facts[key] / 10) for key in ("of weights", "of rounding", "of clips"))
    np.testing.assert_allclose(-10 * np.log10(parts), event.facts["forecast SQNR"])


@pytest.mark.parametrize("off", [3.2, -3.2, np.nan])
def test_one_that_does_not_is_left_out_and_that_is_said(off: float, monkeypatch: pytest.MonkeyPatch) -> None:
    right = next(e.facts["SQNR"] for e in quantized().model.log if e.kind is EventKind.MEASURED_AS_FORECAST)
    total = 10 ** (-(right + off) / 10)
    monkeypatch.setattr(foretold, "forecast", lambda *given: Forecast(total, 0.0, 0.0, total))
    found = quantized()
    (event,) = (e for e in found.model.log if e.kind is EventKind.MEASURED_UNLIKE_FORECAST)
    assert event.facts["SQNR"] == right
    assert event.facts["off by"] == pytest.approx(off, nan_ok=True)
    assert not any("forecast SQNR" in e.facts for e in found.model.log)
    assert "the forecast was wrong for this network" in found.summary()


def test_the_summary_shows_no_prediction_that_was_not_measured() -> None:
    """What ranks scales is in the facts, as it was, and not in what people read."""
    found = equint.quantize(model_path(), input=(0, 1), effort="fast")
    (did,) = (e for e in found.facts()["events"] if "predicted SQNR" in e["facts"])
    assert did["facts"]["predicted gain"] == pytest.approx(
        did["facts"]["predicted SQNR"] - did["facts"]["predicted SQNR before"]
    )
    assert "predicted SQNR" not in found.summary()
    assert "predicted gain=" in found.summary()
