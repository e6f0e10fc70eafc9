"""The HTML report: one file that needs nothing else, made from what `contents` collected."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from ..errors import counted
from ..planning.summary import kilobytes
from .contents import signed
from .figures import Series, Style, band, band_labels, bars, line_chart

if TYPE_CHECKING:
    from jinja2 import Template

_NOT_EMBEDDED = {"number", "kind", "plain", "bound", "before", "after"}


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
    table: list[tuple[str, str, dict[str, str], dict[str, tuple[str, Style]]]] = [
        (
            "Predicted against measured noise",
            "Each layer reads what the float network puts out, and only its own weights, or its own input, "
            f"are rounded. Measured on {counted(seen, 'image')}.",
            {"weights": "Noise of rounded weights", "rounding": "Noise of rounded input"} if seen else {},
            {"predicted": ("predicted", "line"), "measured": ("measured", "points")},
        ),
        (
            "Predicted noise before and after",
            "Before: plain grids in the same format, no scales, no corrections. After: what the recipe made.",
            {"weights": "Noise of rounded weights", "activations": "Noise of the rounded and cut input"},
            {"before": ("plain", "ghost"), "after": ("predicted", "line")},
        ),
        (
            "Distance to optimal equalization",
            "How well the channels of each layer's weights, and of its input, share one grid (Σx²/Σ(Δx)² with "
            "uniform noise). The bound: every channel fills the grid by itself.",
            {"weights": "Weights", "activations": "Layer inputs"},
            {"bound": ("bound", "dashed"), "before": ("before", "ghost"), "after": ("after", "line")},
        ),
    ]
    found = []
    for title, text, headings, lines in table:
        panels = []
        for part, heading in headings.items():
            known = [[(row[side] or {}).get(part) for row in rows] for side, _ in lines.values()]
            series = [Series(label, values, lines[label][1]) for label, values in zip(lines, known, strict=True)]
            panels.append(_panel(heading, series, contents["agreement"].get(part) if "measured" in lines else None))
        found.append({"title": title, "text": text, "panels": [p for p in panels if p["drawing"]]})
    return [chart for chart in found if chart["panels"]]


def _panel(heading: str, series: Sequence[Series], agreement: Mapping[str, float] | None) -> dict[str, Any]:
    ends = [(s, [v for v in s.values if v is not None]) for s in series]
    known = [s for s, values in ends if values]
    spans = "; ".join(f"{s.label}: {min(values):.1f} to {max(values):.1f} dB" for s, values in ends if values)
    note = "correlation {correlation:.3f}, root mean square difference {rms:.1f} dB"
    return {
        "heading": heading,
        "legend": [(s.style, s.label) for s in known],
        "drawing": line_chart(known, f"{heading}, SQNR, dB, over the layers. {spans}", "SQNR, dB"),
        "series": embedded([[s.label, [None if v is None else round(v, 2) for v in s.values]] for s in known]),
        "note": note.format(**agreement) if agreement else "",
    }


def _tile(row: Mapping[str, Any]) -> dict[str, Any]:
    tile = {key: row[key] for key in ("number", "name", "type")} | {"short": row["type"].replace("depthwise", "dw")}
    for side in ("predicted", "measured"):
        tile |= {side: _whole(row[side]), f"{side}_band": band(_whole(row[side]))}
    return tile


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
    rows: list[Any] = []
    for s in sizes["schemes"]:
        mark, style = (" (this one)", "line") if s["used"] else ("", "ghost")
        rows.append((f"{s['scheme'].upper()}{mark}", s["grids"] / 1e3, _bytes(s["grids"]), style))
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
