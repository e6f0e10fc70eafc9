"""The HTML report: one file that needs nothing else, made from what `contents` collected."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from ..planning.summary import kilobytes
from .contents import signed
from .figures import Series, band, band_labels, bars, line_chart

if TYPE_CHECKING:
    from jinja2 import Template

_NOT_EMBEDDED = {"number", "kind", "plain", "bound", "before", "after"}
_PARTS = {"weights": "rounded weights", "rounding": "rounded input"}


def page(contents: Mapping[str, Any]) -> str:
    """The report as HTML: no framework, no network access, light and dark, for screens of any width and for paper."""
    rows = contents["layers"]
    return _template().render(
        told=contents,
        tiles=[_tile(row) for row in rows],
        bands=band_labels(),
        charts=charts(contents),
        fits=_fit_bars(contents["fits"]),
        sizes=_size_bars(contents["sizes"]),
        data=embedded({"layers": [_short({k: row[k] for k in row if k not in _NOT_EMBEDDED}) for row in rows]}),
        css=_text("page.css"),
        js=_text("charts.js") + _text("page.js"),
        bytes=_bytes,
        db=_db,
    )


def embedded(value: Any) -> str:
    """JSON that may stand in a script element, whatever its texts hold."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _short(value: Any) -> Any:
    """The same with floats of five digits."""
    if isinstance(value, Mapping):
        return {k: _short(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_short(v) for v in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def charts(contents: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Figures over all layers: each with title, text, and panels of heading, legend and drawing.

    They are figures 4 to 6 of Meller et al. (2019). Panels that have nothing to show are left out.
    """
    rows, seen = contents["layers"], contents["images"]
    found: list[dict[str, Any]] = [
        {
            "title": "Predicted against measured noise",
            "text": "Each layer reads what the float network puts out, and only its own weights, or its own input, "
            f"are rounded. Measured on {seen} images.",
            "panels": [
                _panel(f"Noise of {noise}", [
                    Series("predicted", _values(rows, "predicted", part), "line"),
                    Series("measured", _values(rows, "measured", part), "points"),
                ], "SQNR, dB", contents["agreement"].get(part))
                for part, noise in _PARTS.items() if seen
            ],
        },
        {
            "title": "Predicted noise before and after",
            "text": "Before: plain grids in the same format, no scales, no corrections. After: what the recipe made.",
            "panels": [
                _panel(f"Noise of {noise}", [
                    Series("before", _values(rows, "plain", part), "ghost"),
                    Series("after", _values(rows, "predicted", part), "line"),
                ], "SQNR, dB")
                for part, noise in (("weights", "rounded weights"), ("activations", "the rounded and cut input"))
            ],
        },
        {
            "title": "Distance to optimal equalization",
            "text": "How well the channels of each layer's weights, and of its input, share one grid (Σx²/Σ(Δx)² with "
            "uniform noise). The bound: every channel fills the grid by itself.",
            "panels": [
                _panel(tensor, [
                    Series("bound", _values(rows, "bound", part), "dashed"),
                    Series("before", _values(rows, "before", part), "ghost"),
                    Series("after", _values(rows, "after", part), "line"),
                ], "SQNR, dB")
                for part, tensor in (("weights", "Weights"), ("activations", "Layer inputs"))
            ],
        },
    ]  # fmt: skip
    for chart in found:
        chart["panels"] = [p for p in chart["panels"] if p["drawing"]]
    return [chart for chart in found if chart["panels"]]


def _panel(
    heading: str, series: Sequence[Series], unit: str, agreement: Mapping[str, float] | None = None
) -> dict[str, Any]:
    known = [s for s in series if any(v is not None for v in s.values)]
    told = "; ".join(f"{s.label}: {_span(s.values)}" for s in known)
    note = ""
    if agreement:
        note = f"correlation {agreement['correlation']:.3f}, root mean square difference {agreement['rms']:.1f} dB"
    return {
        "heading": heading,
        "legend": [(s.style, s.label) for s in known],
        "drawing": line_chart(known, f"{heading}, {unit}, over the layers. {told}", unit),
        "series": embedded([[s.label, [None if v is None else round(v, 2) for v in s.values]] for s in known]),
        "note": note,
    }


def _values(rows: Sequence[Mapping[str, Any]], side: str, part: str) -> list[float | None]:
    return [(row[side] or {}).get(part) for row in rows]


def _span(values: Sequence[float | None]) -> str:
    known = [v for v in values if v is not None]
    return f"{min(known):.1f} to {max(known):.1f} dB"


def _tile(row: Mapping[str, Any]) -> dict[str, Any]:
    predicted, measured = (_whole(row[side]) for side in ("predicted", "measured"))
    return {
        "number": row["number"],
        "name": row["name"],
        "type": row["type"],
        "short": row["type"].replace("depthwise", "dw"),
        "predicted": predicted,
        "measured": measured,
        "predicted_band": band(predicted),
        "measured_band": band(measured),
    }


def _whole(noise: Mapping[str, float | None] | None) -> float | None:
    """All of a layer's own noise; of weights or input alone where the other is float."""
    known = noise or {}
    found = next((known[k] for k in ("both", "weights", "activations") if known.get(k) is not None), None)
    return None if found is None else round(found, 1)


def _fit_bars(fits: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Overlap ratio, and rounding error of weights in per cent, before and after."""
    found = []
    whole = {"overlap": ("Overlap ratio of channels", "1 = every channel spans the whole range", 1.0, 1.0, "")}
    whole["error"] = ("Rounding error of weights", "% of the channel's size, mean over channels", 100.0, 0.0, " %")
    for key, (title, unit, times, top, sign) in whole.items():
        rows: list[Any] = []
        for fit in fits:
            for end, (side, style) in enumerate((("before", "ghost"), ("after", "line"))):
                value = fit[key][end] * times
                rows.append((f"{fit['kind']}, {side}", value, f"{value:.3g}{sign}", style))
        drawing = bars(rows, f"{title}. " + "; ".join(f"{r[0]} {r[2]}" for r in rows), unit, top or None)
        found.append({"title": title, "drawing": drawing})
    return found if fits else []


def _size_bars(sizes: Mapping[str, Any]) -> str:
    if not sizes:
        return ""
    rows: list[Any] = [
        (f"{s['scheme'].upper()}{' (this one)' if s['used'] else ''}", s["grids"] / 1e3, _bytes(s["grids"]),
         "line" if s["used"] else "ghost")
        for s in sizes["schemes"]
    ]  # fmt: skip
    return bars(rows, "Bytes of scales, zero points and shifts: " + "; ".join(f"{r[0]} {r[2]}" for r in rows), "kB")


def _bytes(count: int) -> str:
    return f"{count} bytes" if count < 1000 else kilobytes(count)


def _db(value: float | None) -> str:
    return "–" if value is None else signed(value)


@cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_text("page.html.j2"))


@cache
def _text(name: str) -> str:
    return resources.files(__package__).joinpath("templates", name).read_text("utf-8")
