"""The HTML report: one file that needs nothing else, made from what `contents` collected."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from .activations import BEYOND, INSIDE
from .figures import band, band_labels, bars
from .network_drawing import share_labels
from .noise_charts import measured_charts, predicted_charts, why_worse
from .page_data import embedded, short
from .wording import db, in_bytes, signed

if TYPE_CHECKING:
    from jinja2 import Environment

_NOT_EMBEDDED = {"number", "kind", "plain", "bound", "before", "after"}


def page(contents: Mapping[str, Any]) -> str:
    """The report as HTML: no framework, no network access, light and dark, for screens of any width and for paper."""
    rows = contents["layers"]
    return render(
        "page.html.j2",
        told=contents,
        tiles=[_tile(row) for row in rows],
        bands=band_labels(),
        measured_charts=measured_charts(contents),
        predicted_charts=predicted_charts(contents),
        fits=_fit_bars(contents),
        sizes=_size_bars(contents["sizes"]),
        saturating=saturating(contents["activations"]),
        data=embedded(_data(contents)),
        network=contents["network"],
        share_labels=share_labels(),
        js="".join(map(_text, ("charts.js", "page.js", "network.js", "start.js"))),
        bytes=in_bytes,
        db=db,
        signed=signed,
    )


def _data(contents: Mapping[str, Any]) -> dict[str, Any]:
    """What scripts read."""
    rows, seen = contents["layers"], contents["activations"]
    layers = [short({k: row[k] for k in row if k not in _NOT_EMBEDDED}) for row in rows]
    return {"layers": layers, "activations": short(seen.get("tensors", {})), "inside": INSIDE, "beyond": BEYOND}


def saturating(activations: Mapping[str, Any], most: int = 8) -> list[tuple[str, float]]:
    """The tensors of which the largest share lies beyond the grid.

    Example:
        >>> saturating({"tensors": {"a": {"saturated": 0.0}, "b": {"saturated": 0.25}}})
        [('b', 0.25)]
    """
    shares = [(name, t["saturated"]) for name, t in activations.get("tensors", {}).items() if t["saturated"] > 0]
    return sorted(shares, key=lambda row: -row[1])[:most]


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


def _fit_bars(contents: Mapping[str, Any]) -> list[dict[str, str]]:
    """Overlap ratio, and rounding error of weights in per cent, before and after."""
    fits, found = contents["fits"], []
    whole = {"overlap": ("Overlap ratio of channels", "1 = every channel spans the whole range", 1.0, 1.0, "")}
    whole["error"] = ("Rounding error of weights", "% of the channel's size, mean over channels", 100.0, 0.0, " %")
    for key, (title, unit, times, top, sign) in whole.items():
        rows: list[Any] = []
        for fit in fits:
            for end, (side, style) in enumerate((("before", "ghost"), ("after", "line"))):
                value = fit[key][end] * times
                rows.append((f"{fit['kind']}, {side}", value, f"{value:.3g}{sign}", style))
        drawing = bars(rows, f"{title}. " + "; ".join(f"{r[0]} {r[2]}" for r in rows), unit, top or None)
        before, after = ([row[key][end] for row in contents["layers"]] for end in (0, 1))
        clearly = 0.002 if key == "overlap" else 0.0001
        why = why_worse(before, after, "weights", contents, key == "overlap", clearly)
        found.append({"title": title, "drawing": drawing, "why": why})
    return found if fits else []


def _size_bars(sizes: Mapping[str, Any]) -> str:
    """Weights and biases before and after, and the file, one below the other."""
    if not sizes:
        return ""
    rows: list[Any] = [
        ("float weights", sizes["float"], "ghost"),
        ("integer weights", sizes["integer"], "line"),
        *([("file", sizes["file"], "line")] if sizes["file"] else []),
    ]
    shown = [(name, count / 1e3, in_bytes(count), style) for name, count, style in rows]
    return bars(shown, "Sizes: " + "; ".join(f"{r[0]} {r[2]}" for r in shown), "kB")


STYLES = ("page.css", "parts.css", "network.css", "pictures.css")


def render(template: str, **values: Any) -> str:
    """A page made of a template; all pages share their style."""
    return _environment().get_template(template).render(css="".join(map(_text, STYLES)), **values)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    options: dict[str, Any] = {"autoescape": True, "undefined": StrictUndefined}
    return Environment(loader=FunctionLoader(_text), trim_blocks=True, lstrip_blocks=True, **options)


@cache
def _text(name: str) -> str:
    return resources.files(__package__).joinpath("templates", name).read_text("utf-8")
