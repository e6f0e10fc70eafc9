"""Bar charts as plain SVG: panels side by side that share their rows, each row with one bar per series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from svg import round_steps

NAMES, PANEL, GAP, TOP, BELOW = 206, 172, 30, 40, 46
BAR, SPACE = 10, 13
_STYLE = (
    ".h{font-size:14px;font-weight:600;fill:#222}.t{font-size:11px;fill:#444}.l{font-size:12.5px;fill:#222}"
    ".v{font-size:9.5px;fill:#333}.g{stroke:#e4e4e4;stroke-width:1}.a{stroke:#888;stroke-width:1}"
    ".m{stroke:#222;stroke-width:1.6}"
)


@dataclass(frozen=True)
class Bars:
    """One panel.

    Attributes:
        values: row by row, one value for each series; None draws nothing.
        marks: where each row gets a black tick; None draws nothing.
        digits: behind the point, of the numbers at the bars.
        top: where the axis ends; from the values if left out.
    """

    title: str
    values: Sequence[Sequence[float | None]]
    marks: Sequence[float | None] = ()
    digits: int = 2
    top: float | None = None


def write(
    path: Path, label: str, names: Sequence[str], series: Sequence[tuple[str, str]], panels: Sequence[Bars], mark: str
) -> None:
    """Draw the panels from left to right.

    Args:
        names: of the rows. series: (name, colour) of each bar in a row. mark: what the black ticks are.
    """
    step = len(series) * BAR + SPACE
    width = NAMES + len(panels) * (PANEL + GAP) + 8
    bottom = TOP + len(names) * step
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {bottom + BELOW}" role="img" '
        f'aria-label="{label}" font-family="sans-serif">',
        f"<style>{_STYLE}</style>",
        f'<rect width="{width}" height="{bottom + BELOW}" fill="#fff"/>',
    ]
    for k, name in enumerate(names):
        y = TOP + k * step + (step - SPACE) / 2 + SPACE / 2 + 4
        parts.append(f'<text x="{NAMES - 8}" y="{y:.1f}" class="t" text-anchor="end">{name}</text>')
    for k, panel in enumerate(panels):
        parts += _panel(NAMES + k * (PANEL + GAP), step, bottom, [colour for _, colour in series], panel)
    x, y = float(NAMES), bottom + BELOW - 9
    for name, colour in series:
        parts.append(f'<rect x="{x:.0f}" y="{y - 9}" width="18" height="9" fill="{colour}"/>')
        parts.append(f'<text x="{x + 24:.0f}" y="{y}" class="l">{name}</text>')
        x += 24 + 6.6 * len(name) + 22
    parts.append(f'<line x1="{x + 8:.0f}" x2="{x + 8:.0f}" y1="{y - 11}" y2="{y + 2}" class="m"/>')
    parts.append(f'<text x="{x + 16:.0f}" y="{y}" class="l">{mark}</text>')
    path.write_text("\n".join([*parts, "</svg>", ""]), encoding="utf-8")


def _panel(left: float, step: float, bottom: float, colours: Sequence[str], panel: Bars) -> list[str]:
    drawn = [v for row in panel.values for v in row if v is not None] + [m for m in panel.marks if m is not None]
    ticks = [t for t in round_steps(0.0, panel.top or max(drawn), 4) if t >= 0]
    per = PANEL / ticks[-1]
    parts = [f'<text x="{left}" y="{TOP - 16}" class="h">{panel.title}</text>']
    for tick in ticks:
        x = left + tick * per
        parts += [
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom}" class="{"g" if tick else "a"}"/>',
            f'<text x="{x:.1f}" y="{bottom + 14}" class="t" text-anchor="middle">{tick:g}</text>',
        ]
    for k, row in enumerate(panel.values):
        top = TOP + k * step + SPACE / 2
        mark = panel.marks[k] if panel.marks else None
        for j, (value, colour) in enumerate(zip(row, colours, strict=True)):
            if value is None:
                continue
            y, long = top + j * BAR, max(value * per, 0.0)
            crossed = mark is not None and -4 < mark * per - long < 24
            at = left + (max(long, mark * per) if mark is not None and crossed else long) + 4
            parts += [
                f'<rect x="{left}" y="{y:.1f}" width="{long:.1f}" height="{BAR - 1}" fill="{colour}"/>',
                f'<text x="{at:.1f}" y="{y + 8:.1f}" class="v">{value:.{panel.digits}f}</text>',
            ]
        if mark is not None:
            x = left + mark * per
            parts.append(
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top - 2:.1f}" y2="{top + len(row) * BAR + 1:.1f}" class="m"/>'
            )
    return parts
