"""Bars of every channel's largest value as plain SVG: states side by side, tensors one below the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

WIDE, HIGH, GAP, LEFT, TOP, BELOW = 250, 92, 22, 96, 62, 20
_STYLE = (
    ".h{font-size:13px;font-weight:600;fill:#222}.t{font-size:11px;fill:#444}.n{font-size:12px;fill:#222}"
    ".a{stroke:#888;stroke-width:1}"
)


@dataclass(frozen=True)
class State:
    """One column of bars: a title, and for each tensor its channels' largest values."""

    title: str
    values: Sequence[Sequence[float]]


def write(path: Path, label: str, tensors: Sequence[tuple[str, str]], states: Sequence[State]) -> None:
    """Draw the states from left to right; bars of a tensor have one scale throughout.

    Args:
        tensors: (name, colour) of each row.
    """
    width = LEFT + len(states) * (WIDE + GAP)
    height = TOP + len(tensors) * (HIGH + GAP) + BELOW
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="{label}" '
        f'font-family="sans-serif">',
        f"<style>{_STYLE}</style>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="8" y="22" class="h">{label}</text>',
    ]
    for j, (name, colour) in enumerate(tensors):
        tallest = max(max(state.values[j]) for state in states) or 1.0
        bottom = TOP + j * (HIGH + GAP) + HIGH
        parts.append(f'<text x="8" y="{bottom - HIGH / 2:.0f}" class="n">{name}</text>')
        for k, state in enumerate(states):
            left, step = LEFT + k * (WIDE + GAP), WIDE / len(state.values[j])
            parts.append(f'<line x1="{left}" x2="{left + WIDE}" y1="{bottom}" y2="{bottom}" class="a"/>')
            for i, value in enumerate(state.values[j]):
                high = HIGH * value / tallest
                parts.append(
                    f'<rect x="{left + i * step:.1f}" y="{bottom - high:.1f}" width="{step * 0.75:.1f}" '
                    f'height="{high:.1f}" fill="{colour}"/>'
                )
            parts.append(
                f'<text x="{left + WIDE}" y="{bottom - HIGH - 3}" class="t" text-anchor="end">'
                f"largest {max(state.values[j]):.3g}</text>"
            )
    for k, state in enumerate(states):
        parts.append(f'<text x="{LEFT + k * (WIDE + GAP)}" y="44" class="h">{state.title}</text>')
    path.write_text("\n".join([*parts, "</svg>", ""]), encoding="utf-8")
