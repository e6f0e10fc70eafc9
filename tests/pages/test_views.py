"""What a page shows of samples, through the report: pictures, histograms, or why there are none."""

from __future__ import annotations

from pathlib import Path

import pytest

import equint
from equint.demo import data_path, model_path
from equint.pages.views import histograms
from equint.samples.card import Card
from reports import digits

GRAY = Card("gray", (0.0,), (16.0,))


@pytest.mark.slow
def test_a_report_on_measured_data_shows_pictures_and_saturation(tmp_path: Path) -> None:
    result = equint.quantize(model_path(), "cwq", input=GRAY)
    result.save(tmp_path / "net.onnx")
    found = equint.evaluate(result, data_path(), GRAY, model_path(), limit=40)
    html = equint.report(result, measured=found, saved=tmp_path / "net.onnx")
    assert html.count("data:image/png;base64,") == 8
    assert "Activations on their grids" in html
    assert f"{(tmp_path / 'net.onnx').stat().st_size / 1e3:.1f} kB" in html
    assert len(html) < 400_000


def test_without_samples_nothing_is_counted() -> None:
    result = equint.quantize(model_path(), "cwq", input=(0, 1))
    assert histograms(result, None) == {}
    assert histograms(result, digits(3))["samples"] == 3
