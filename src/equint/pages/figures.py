"""Figures as SVG that takes its colours from the page around it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise, zip_longest
from math import ceil, floor, isfinite, log10
from typing import Any, Literal

BANDS = (10.0, 15.0, 20.0, 25.0, 30.0, 40.0)
"""SQNR in dB where the colour of layers changes."""
LEFT, RIGHT, TOP, BOTTOM, HEIGHT = 44, 12, 10, 40, 260
NARROW, PER_LAYER = 520, 7
"""Least width of a chart, and what a layer takes where there are many."""

Style = Literal["line", "bound", "points", "ghost"]
"""Classes of the style sheet: filled dots, short bars, hollow dots, grey dots."""


@dataclass(frozen=True)
class Series:
    """Values over layers; None where nothing is known. `style` is a class of the page's style sheet."""

    label: str
    values: Sequence[float | None]
    style: Style


def band(sqnr: float | None) -> int | None:
    """Which colour an SQNR has: 0 below the first of `BANDS`, then one more for each that it reaches."""
    return None if sqnr is None else sum(sqnr >= edge for edge in BANDS)


def band_labels() -> list[str]:
    """What the colours mean, from the least SQNR on."""
    whole = [f"{edge:g}" for edge in BANDS]
    between = [f"{a} to {b}" for a, b in pairwise(whole)]
    return [f"below {whole[0]}", *between, f"{whole[-1]} and more"]


def ticks(lo: float, hi: float, most: int = 6) -> list[float]:
    """Round numbers (1, 2, 2.5 or 5 times a power of ten apart) that hold lo and hi between the first and the last.

    Example:
        >>> ticks(3.0, 41.0)
        [0.0, 10.0, 20.0, 30.0, 40.0, 50.0]
    """
    span = max(hi - lo, 1e-9 * max(abs(lo), abs(hi)), 1e-12)
    size = 10.0 ** floor(log10(span / most))
    for step in (size * k for k in (1, 2, 2.5, 5, 10, 20)):
        first, last = floor(lo / step + 1e-9), ceil(hi / step - 1e-9)
        if last - first < most:
            return [float(f"{k * step:.12g}") + 0.0 for k in range(first, max(last, first + 1) + 1)]
    return [lo, hi]


def dot_chart(series: Iterable[Series], title: str, y_label: str) -> str:
    """Series over the layers of a network, 1 on the left, as one SVG; empty where nothing is known.

    Layers are not points of a curve: no line joins them. Where several series are shown, a thin line joins what
    belongs to one layer.

    Points stand at `data-left` + k·`data-step` of the drawing's units, for scripts; screen readers say the title.
    """
    known = [(s, [v for v in s.values if v is not None and isfinite(v)]) for s in series]
    shown = [s for s, values in known if values]
    if not shown:
        return ""
    count, values = max(len(s.values) for s in shown), [v for _, values in known for v in values]
    marks = ticks(min(values), max(values))
    width = max(NARROW, LEFT + RIGHT + PER_LAYER * count)
    step, floor_y = (width - LEFT - RIGHT) / count, HEIGHT - BOTTOM
    left = LEFT + step / 2

    def y(value: float) -> float:
        return floor_y - (value - marks[0]) / (marks[-1] - marks[0]) * (floor_y - TOP)

    middle = f"{(floor_y + TOP) / 2:.0f}"
    turned = f'<text class="tick mid" transform="translate(11 {middle}) rotate(-90)">{escape(y_label)}</text>'
    parts = [_y_axis(marks, y, width), _x_axis(count, left, step, width), turned]
    parts += [_stems(shown, left, step, y), *(_drawn(s, left, step, y) for s in shown)]
    return _svg(width, HEIGHT, title, "".join(parts), {"data-left": f"{left:g}", "data-step": f"{step:g}"})


def bars(rows: Sequence[tuple[str, float, str, Style]], title: str, unit: str, top: float | None = None) -> str:
    """Horizontal bars from zero, one below the other, each with its number."""
    if not rows:
        return ""
    width, label, number, bar = 420, 132, 62, 20
    marks = ticks(0.0, max([v for _, v, _, _ in rows]) or 1.0) if top is None else ticks(0.0, top)
    scale = (width - label - number) / marks[-1]
    parts = []
    for mark in marks:
        x = label + mark * scale
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="4" y2="{len(rows) * (bar + 8) + 4}"/>')
        parts.append(f'<text class="tick mid" x="{x:.1f}" y="{len(rows) * (bar + 8) + 18}">{mark:g}</text>')
    for k, (name, value, text, style) in enumerate(rows):
        y = 6 + k * (bar + 8)
        length = max(value * scale, 1.0)
        parts.append(f'<text class="name end" x="{label - 8}" y="{y + 14}">{escape(name)}</text>')
        parts.append(f'<rect class="bar {style}" x="{label}" y="{y}" width="{length:.1f}" height="{bar}" rx="2"/>')
        parts.append(f'<text class="value" x="{label + length + 6:.1f}" y="{y + 14}">{escape(text)}</text>')
    height = len(rows) * (bar + 8) + 40
    middle = label + (width - label - number) / 2
    parts.append(f'<text class="tick mid" x="{middle:.0f}" y="{height - 6}">{escape(unit)}</text>')
    return _svg(width, height, title, "".join(parts), {}, least=0)


def _svg(width: float, height: float, title: str, body: str, data: Mapping[str, Any], least: float = 0.82) -> str:
    extra = "".join(f' {k}="{escape(str(v))}"' for k, v in data.items())
    size = f'viewBox="0 0 {width:g} {height:g}" style="min-width:{width * least:.0f}px"'
    return f'<svg role="img" aria-label="{escape(title)}" {size}{extra}>{body}</svg>'


def _y_axis(marks: Sequence[float], y: Any, width: float) -> str:
    return "".join(
        f'<path class="{"zero" if m == 0 else "grid"}" d="M{LEFT} {y(m):.1f}H{width - RIGHT:g}"/>'
        f'<text class="tick end" x="{LEFT - 6}" y="{y(m) + 4:.1f}">{f"{m:g}".replace("-", "−")}</text>'
        for m in marks
    )


def _x_axis(count: int, left: float, step: float, width: float) -> str:
    apart = max(1, int(ticks(0, count, 14)[1])) if count > 14 else 1
    wanted = [1, *(k for k in range(apart, count + 1, apart) if k > 1 and k - 1 >= 0.75 * apart)]
    base, middle = HEIGHT - BOTTOM, f"{(LEFT + width - RIGHT) / 2:.0f}"
    texts = (f'<text class="tick mid" x="{left + (k - 1) * step:.1f}" y="{base + 16}">{k}</text>' for k in wanted)
    return "".join(texts) + f'<text class="tick mid" x="{middle}" y="{base + 34}">layer, in network order</text>'


def _stems(shown: Sequence[Series], left: float, step: float, y: Any) -> str:
    """A thin line from the least to the largest value of each layer."""
    parts = []
    for k, column in enumerate(zip_longest(*(s.values for s in shown))):
        known = [v for v in column if v is not None and isfinite(v)]
        if len(known) > 1:
            parts.append(f"M{left + k * step:.1f} {y(min(known)):.1f}V{y(max(known)):.1f}")
    return f'<path class="stem" d="{"".join(parts)}"/>' if parts else ""


def _drawn(series: Series, left: float, step: float, y: Any) -> str:
    places = [(left + k * step, y(v)) for k, v in enumerate(series.values) if v is not None and isfinite(v)]
    if series.style == "bound":
        wide = min(step, 12.0) * 0.8
        return "".join(f'<path class="bound" d="M{a - wide / 2:.1f} {b:.1f}h{wide:.1f}"/>' for a, b in places)
    r = 3.4 if series.style == "points" else 3
    return "".join(f'<circle class="dot {series.style}" cx="{a:.1f}" cy="{b:.1f}" r="{r}"/>' for a, b in places)
