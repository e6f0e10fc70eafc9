"""Rows that people read, and figures that open."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from PIL import Image

from equint import sqnr
from equint.demo import data_path, model_path
from equint.errors import EquintError
from equint.pages.layer_sqnr import (
    agreements,
    conclusion,
    distances,
    layers,
    notes,
    overview,
    plot,
    published,
    published_agreements,
    tables,
    totals,
)
from equint.samples.card import Card


def row(name: str, weights: float | None, measured: float | None, left: float) -> dict[str, Any]:
    noise = {"weights": weights, "rounding": 50.0, "clips": None, "activations": 50.0, "both": weights}
    ends = {"reached": 40.0, "bound": 40.0 + left}
    return {
        "name": name,
        "input": f"{name}_in",
        "predicted": noise,
        "published": {"weights": weights and weights - 0.5, "output": 48.0, "y2": None},
        "measured": None if measured is None else {**noise, "weights": measured, "output": 49.0},
        "equalization": {"weights": ends, "activations": {"reached": None, "bound": None}},
    }


AGREED = {"weights": {"layers": 3, "correlation": 0.98765, "rms": 1.25, "mean": 0.1}}
MEASURED: dict[str, Any] = {
    "target": "per-tensor",
    "images": 16,
    "methods": {
        "none": {
            "layers": [row(n, w, w + 1, 6.0) for n, w in (("a", 30.0), ("b", 20.0), ("c", 10.0))],
            "agreement": AGREED,
            "published_agreement": {"y2": {"layers": 3, "correlation": 0.5, "rms": 2.04, "mean": 0.1}},
            "total": {"measured": 17.04, "forecast": 18.5, "off_by": 1.46},
        },
        "optimal": {
            "layers": [row(n, w, w + 2, -0.01) for n, w in (("a", 35.0), ("b", 25.0), ("c", 15.0))],
            "agreement": {},
            "published_agreement": {},
            "total": {"measured": 21.0, "forecast": None, "off_by": -5.27},
        },
    },
    "warnings": ["guessed the input"],
}
PREDICTED = {
    **MEASURED,
    "images": 0,
    "methods": {name: {"layers": [row("a", 30.0, None, 6.0)], "agreement": {}} for name in ("none", "optimal")},
}


def test_overview_is_the_median_of_what_is_known() -> None:
    title, columns, rows = overview(MEASURED)
    assert "measured SQNR" in title
    assert rows[0] == ("none", "21.0", "50.0", "20.0", "6.0", "–")
    assert len(columns) == len(rows[0])
    assert "predicted SQNR" in overview(PREDICTED)[0]


def test_every_layer_shows_all_methods() -> None:
    title, columns, rows = layers(MEASURED, "measured")
    assert "measured on 16 images" in title
    assert title.endswith("none → optimal")
    assert rows[1] == ("b", "21.0 → 27.0", "50.0 → 50.0", "20.0 → 25.0")
    assert len(columns) == len(rows[0])
    assert layers(MEASURED, "predicted")[2][1][1] == "20.0 → 25.0"


def test_distances_have_no_negative_zero() -> None:
    assert distances(MEASURED)[2][0] == ("a", "6.0 → 0.0", "– → –")


def test_agreements() -> None:
    assert agreements(MEASURED)[2] == [("none", "0.988, 1.2 dB", "–", "–", "–"), ("optimal", "–", "–", "–", "–")]


def test_what_the_published_equations_say() -> None:
    own, arriving = published(MEASURED)
    assert own[2][1] == ("b", "19.5 → 24.5", "48.0 → 48.0", "– → –")
    assert arriving[2][1] == ("b", *["– → –"] * 3)
    assert published_agreements(MEASURED)[2] == [("none", *"–" * 5, "0.500, 2.0 dB"), ("optimal", *"–" * 6)]


def test_a_forecast_stands_beside_what_was_measured_only_where_it_holds() -> None:
    title, columns, rows = totals(MEASURED)
    assert "at the outputs, biases corrected, on 16 images" in title
    assert rows == [("none", "17.0", "18.5"), ("optimal", "21.0", "does not hold here: 5.3 dB too low")]
    assert len(columns) == len(rows[0])
    over = {"measured": 2.0, "forecast": None, "off_by": 3.14}
    unknown = {"measured": None, "forecast": None, "off_by": None}
    found = {"images": 16, "methods": {"none": {"total": over}, "optimal": {"total": unknown}}}
    assert [row[1:] for row in totals(found)[2]] == [
        ("2.0", "does not hold here: 3.1 dB too high"),
        ("–", "does not hold here"),
    ]
    assert tables(MEASURED)[-1] == totals(MEASURED)


def test_what_was_not_measured_is_said_and_not_shown() -> None:
    assert [t for t, _, _ in tables(PREDICTED) if "measured" in t] == []
    assert len(tables(MEASURED)) == 9
    assert "nothing was measured" in notes(PREDICTED)[0]
    assert notes(MEASURED)[1:] == ["! guessed the input"]


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return sqnr(model_path(), "per-tensor", input=Card("gray", (0.0,), (16.0,)), data=data_path(), images=8).facts()


@pytest.mark.slow
def test_a_png_opens(found: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="figures need matplotlib")
    plot(found, tmp_path / "a.png", "digits")
    with Image.open(tmp_path / "a.png") as picture:
        picture.load()
        assert picture.width > 1000
        assert picture.height > picture.width
        assert len(picture.convert("RGB").getcolors(1 << 20) or ()) > 50
    plot({**found, "images": 0}, tmp_path / "b.png")
    with Image.open(tmp_path / "b.png") as shorter:
        assert shorter.height < picture.height


@pytest.mark.slow
def test_an_svg_is_xml_and_always_the_same(found: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="figures need matplotlib")
    for name in ("a.svg", "b.svg"):
        plot(found, tmp_path / name, "digits")
    assert ElementTree.parse(tmp_path / "a.svg").getroot().tag.endswith("svg")
    text = (tmp_path / "a.svg").read_text("utf-8")
    assert text == (tmp_path / "b.svg").read_text("utf-8")
    for words in (
        "digits, target per-tensor, 8 images",
        "optimal equalization",
        "two-step",
        "dB",
        "Predicted and measured",
    ):
        assert words in text


def test_curves_hold_the_layers_in_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By predicted SQNR, with what was measured of the same layers; and by SQNR without equalization."""
    figures = pytest.importorskip("matplotlib.figure", reason="figures need matplotlib")
    drawn: list[Any] = []

    def keep(self: object, path: Path, **_: object) -> None:
        drawn.append(self)
        path.touch()

    monkeypatch.setattr(figures.Figure, "savefig", keep)
    first, last = MEASURED["methods"]["none"]["layers"][::-1], MEASURED["methods"]["optimal"]["layers"][::-1]
    methods = {"none": {"layers": first, "agreement": {}}, "optimal": {"layers": last, "agreement": {}}}
    plot({**MEASURED, "methods": methods}, tmp_path / "a.png")
    (figure,) = drawn
    assert len(figure.axes) == 6
    curves = [{line.get_label(): list(line.get_ydata()) for line in axes.lines} for axes in figure.axes]
    assert curves[0]["no equalization, predicted"] == [29.5, 19.5, 9.5]
    assert curves[0]["optimal, measured"] == [37.0, 27.0, 17.0]
    assert curves[1]["optimal, predicted"] == [48.0] * 3
    assert curves[1]["optimal, measured"] == [49.0] * 3
    assert curves[2]["optimal equalization"] == [46.0] * 3
    assert curves[3] == {"optimal equalization": [], "no equalization": [], "optimal": []}
    assert curves[4] == {"no equalization": [31.0, 21.0, 11.0], "optimal": [37.0, 27.0, 17.0]}
    assert all(axes.get_xlabel() and "dB" in axes.get_ylabel() and axes.get_legend() for axes in figure.axes)


def test_figures_are_png_or_svg(tmp_path: Path) -> None:
    with pytest.raises(EquintError, match=r"\.png or \.svg"):
        plot(MEASURED, tmp_path / "a.pdf")
    assert not list(tmp_path.iterdir())


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [n for n in sys.modules if n.split(".")[0] == "matplotlib"] + ["matplotlib", "matplotlib.figure"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(EquintError, match=r"needs the extra equint\[plot\]"):
        plot(MEASURED, tmp_path / "a.svg")
    assert not list(tmp_path.iterdir())


def test_it_ends_in_what_is_best_at_the_outputs() -> None:
    said = conclusion(MEASURED)
    assert "optimal, 21.0 dB, 4.0 dB above none" in said
    assert "default recipe" not in said
    worse = {**MEASURED["methods"], "optimal": {"total": {"measured": 17.0}}}
    assert conclusion({**MEASURED, "methods": worse}).endswith(
        "none, 17.0 dB, 0.0 dB above optimal, the default recipe's"
    )
    assert "not measured" in conclusion({**MEASURED, "images": 0})
