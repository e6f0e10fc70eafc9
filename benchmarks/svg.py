"""Line charts as plain SVG: panels side by side, one legend below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from pathlib import Path

PANEL, HEIGHT = 400, 290
LEFT, GAP, TOP, BELOW, LEGEND = 58, 66, 38, 50, 30

_STYLE = (
    ".h{font-size:15px;font-weight:600;fill:#222}.t{font-size:12px;fill:#444}.l{font-size:12.5px;fill:#222}"
    ".g{stroke:#e4e4e4;stroke-width:1}.a{stroke:#888;stroke-width:1}"
)


@dataclass(frozen=True)
class Series:
    """Points to draw.

    Attributes:
        mark: "line", "points", "both" or "dashes".
    """

    name: str
    colour: str
    x: Sequence[float]
    y: Sequence[float]
    mark: str = "both"


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes:
        x_ticks: where the x axis is labelled; round numbers if left out. A falling sequence turns the axis round.
        y_span: lowest and highest y; the data's if left out.
    """

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    x_ticks: Sequence[float] = ()
    y_span: tuple[float, float] | None = None


def write(path: Path, label: str, panels: Sequence[Panel]) -> None:
    """Draw the panels from left to right; series of the same name share a place in the legend."""
    width = LEFT + len(panels) * PANEL + (len(panels) - 1) * GAP + 16
    height = TOP + HEIGHT + BELOW + LEGEND
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{label}" font-family="sans-serif">',
        f"<style>{_STYLE}</style>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for k, panel in enumerate(panels):
        parts += _panel(LEFT + k * (PANEL + GAP), panel)
    parts += _legend(panels, height - 12)
    path.write_text("\n".join([*parts, "</svg>", ""]), encoding="utf-8")


def round_steps(lo: float, hi: float, count: int = 6) -> list[float]:
    """About `count` multiples of 1, 2 or 5 times a power of ten that span [lo, hi].

    Example:
        >>> round_steps(3, 47)
        [0.0, 10.0, 20.0, 30.0, 40.0, 50.0]
    """
    raw = max(hi - lo, 1e-9) / count
    power = 10.0 ** floor(log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw)
    return [k * step for k in range(floor(lo / step), ceil(hi / step) + 1)]


def _panel(left: float, panel: Panel) -> list[str]:
    xs = [v for s in panel.series for v in s.x]
    ys = [v for s in panel.series for v in s.y]
    y_ticks = round_steps(*(panel.y_span or (min(ys), max(ys))))
    x_ticks = list(panel.x_ticks) or [t for t in round_steps(min(xs), max(xs)) if min(xs) <= t <= max(xs)]
    ends = (x_ticks[0], x_ticks[-1]) if panel.x_ticks else (min(xs), max(xs))
    margin = 10 / PANEL

    def at(x: float, y: float) -> tuple[float, float]:
        share = margin + (1 - 2 * margin) * (x - ends[0]) / ((ends[1] - ends[0]) or 1)
        up = (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return left + PANEL * share, TOP + HEIGHT * (1 - up)

    bottom, middle = TOP + HEIGHT, left + PANEL / 2
    parts = [f'<text x="{left}" y="{TOP - 16}" class="h">{panel.title}</text>']
    for tick in y_ticks:
        y = at(ends[0], tick)[1]
        parts += [
            f'<line x1="{left}" x2="{left + PANEL}" y1="{y:.1f}" y2="{y:.1f}" class="g"/>',
            f'<text x="{left - 7}" y="{y + 4:.1f}" class="t" text-anchor="end">{tick:g}</text>',
        ]
    for tick in x_ticks:
        x = at(tick, y_ticks[0])[0]
        parts += [
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 4}" class="a"/>',
            f'<text x="{x:.1f}" y="{bottom + 18}" class="t" text-anchor="middle">{tick:g}</text>',
        ]
    side = f"{left - 40},{TOP + HEIGHT / 2:.0f}"
    parts += [
        f'<line x1="{left}" x2="{left + PANEL}" y1="{bottom}" y2="{bottom}" class="a"/>',
        f'<text x="{middle:.0f}" y="{bottom + 38}" class="t" text-anchor="middle">{panel.x_label}</text>',
        f'<text transform="translate({side}) rotate(-90)" class="t" text-anchor="middle">{panel.y_label}</text>',
    ]
    for series in panel.series:
        parts += _drawn(series, [at(x, y) for x, y in zip(series.x, series.y, strict=True)])
    return parts


def _drawn(series: Series, points: Sequence[tuple[float, float]]) -> list[str]:
    parts = []
    if series.mark != "points":
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        dashes = ' stroke-dasharray="5 4"' if series.mark == "dashes" else ""
        parts.append(f'<polyline points="{path}" fill="none" stroke="{series.colour}" stroke-width="1.8"{dashes}/>')
    if series.mark in ("points", "both"):
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.2" fill="{series.colour}"/>' for x, y in points]
    return parts


def _legend(panels: Sequence[Panel], y: float) -> list[str]:
    parts, x = [], float(LEFT)
    for series in {s.name: s for p in panels for s in p.series}.values():
        wide = 8 if series.mark == "points" else 24
        parts += _drawn(series, [(x + wide / 2, y - 4)] if wide == 8 else [(x, y - 4), (x + wide, y - 4)])
        parts.append(f'<text x="{x + wide + 7:.0f}" y="{y}" class="l">{series.name}</text>')
        x += wide + 7 + 6.3 * len(series.name) + 22
    return parts
