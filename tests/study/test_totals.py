"""Totals against onnxruntime's own outputs, forecasts that do not hold, and what a forecast costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from equint import sqnr
from equint.ir.model import Array, Model
from equint.job import Job
from equint.onnx.qdq import export
from equint.runtime.forecast import DRAWS, SHOWN
from equint.runtime.session import Session
from equint.samples.images import Samples
from equint.study import totals as study
from equint.study.sqnr import METHODS
from equint.study.totals import compared, totals
from handwritten import execute, network, normal

BODY = "a = Conv <pads = [1, 1, 1, 1]> (x, w) r = Relu(a) y = Conv(r, v)"
PROTO = network(BODY, w=normal(6, 3, 3, 3), v=normal(4, 6, 1, 1, seed=2))


def images(count: int) -> Array:
    return normal(count, 3, 8, 8, seed=5, scale=0.5)


def plain(x: Array) -> tuple[Model, Model]:
    return Job.of(PROTO, "lwq", "per-tensor", input=(-2.0, 2.0), data=x).plain()


def db(ratio: float) -> float:
    return 10 * float(np.log10(ratio))


def test_measured_is_what_onnxruntime_puts_out_and_the_forecast_is_near() -> None:
    x = images(32)
    reference, quantized = plain(x)
    found = totals(reference.graph, {"plain": (reference, quantized)}, Samples.of(x))["plain"]
    (clean,), (noisy,) = execute(PROTO, x), execute(export(quantized), x)
    clean, noisy = clean.astype(np.float64), noisy.astype(np.float64)
    assert found.measured == pytest.approx(db(np.sum(clean**2) / np.sum((noisy - clean) ** 2)), abs=0.01)
    assert found.forecast is not None
    assert abs(found.off_by) < 1.5


@pytest.mark.parametrize(("told", "holds"), [(33.0, True), (27.0, True), (33.01, False), (26.9, False)])
def test_within_three_decibels_it_holds(told: float, holds: bool) -> None:
    found = compared(30.0, told)
    assert found.forecast == (told if holds else None)
    assert found.off_by == pytest.approx(told - 30)


def test_one_that_is_no_number_does_not_hold() -> None:
    assert compared(30.0, float("nan")).facts() == {"measured": 30.0, "forecast": None, "off_by": None}
    assert compared(30.0, float("-inf")).facts()["forecast"] is None


def test_every_kind_of_equalization_has_a_total_where_something_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    x = images(8)
    found = sqnr(PROTO, "per-tensor", input=(-2.0, 2.0), data=x)
    for name in METHODS:
        total = found.methods[name]["total"]
        assert total["off_by"] == pytest.approx(total["forecast"] - total["measured"])
    monkeypatch.setattr(study, "forecast", lambda *given: 1.0)
    wrong = sqnr(PROTO, "per-tensor", input=(-2.0, 2.0), data=x).methods["none"]["total"]
    assert wrong["forecast"] is None
    assert wrong["off_by"] == pytest.approx(-wrong["measured"])  # noise as strong as the signal, 0 dB
    assert sqnr(PROTO, "per-tensor", input=(-2.0, 2.0)).methods["none"]["total"] is None


def test_a_forecast_runs_the_network_a_few_times_on_each_of_a_few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = " ".join(f"h{k} = Conv(r{k}, w) r{k + 1} = Relu(h{k})" for k in range(20))
    proto = network(f"r0 = Relu(x) {layers} y = Conv(r20, w)", w=normal(3, 3, 1, 1))
    ran = list[int]()
    run = Session.run

    def counted(self: Session, given: Any) -> dict[str, Array]:
        ran.append(sum(name.startswith("error") for name in self.inputs))
        return run(self, given)

    for count in (2, 32):
        x = images(count)
        job = Job.of(proto, "lwq", "per-tensor", input=(-2.0, 2.0), data=x)
        reference, quantized = job.plain()
        ran.clear()
        with monkeypatch.context() as patch:
            patch.setattr(Session, "run", counted)
            totals(reference.graph, {"plain": (reference, quantized)}, Samples.of(x))
        assert sum(errors > 0 for errors in ran) == DRAWS * min(count, SHOWN)
