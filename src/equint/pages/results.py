"""A table of results as Markdown, for people, and as JSON lines, for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from ..files import jsonable

if TYPE_CHECKING:
    from ..study.table import Row

FIGURES: Mapping[str, tuple[str, int]] = {
    "top1": ("top-1, %", 2),
    "miou": ("mIoU, %", 2),
    "map50": ("mAP@0.5, %", 2),
    "psnr": ("PSNR, dB", 2),
    "agreement": ("agreement, %", 1),
    "sqnr_db": ("SQNR, dB", 1),
}
"""What is shown: heading with unit, and digits. The first that a network has is what its ways are judged by."""


def markdown(rows: Sequence[Row]) -> str:
    """One table per network: the float network first, the best first figure in bold, reasons as footnotes."""
    reasons: dict[str, int] = {}
    names = dict.fromkeys(row.network for row in rows)
    parts = [_network([row for row in rows if row.network == name], reasons) for name in names]
    if reasons:
        parts.append("\n".join(f"[^{number}]: {_safe(reason)}" for reason, number in reasons.items()) + "\n")
    return "\n".join(parts)


def jsonlines(rows: Sequence[Row]) -> str:
    """One JSON object per row; what is infinite or no number is text."""
    return "".join(json.dumps(jsonable(asdict(row), str), ensure_ascii=False) + "\n" for row in rows)


def _network(rows: Sequence[Row], reasons: dict[str, int]) -> str:
    shown = [name for name in FIGURES if any(name in row.results for row in rows)]
    ways = [row.results[shown[0]] for row in rows if row.target and shown and shown[0] in row.results]
    best = _number(shown[0], max(ways, key=lambda v: -math.inf if math.isnan(v) else v)) if ways else ""
    samples = max((int(row.results.get("samples", 0)) for row in rows), default=0)
    heads = ["recipe", "target", "bits", "images", *(FIGURES[name][0] for name in shown or ["sqnr_db"])]
    lines = [
        f"## {_safe(rows[0].network)}\n\n{rows[0].task}, {samples} sample{'' if samples == 1 else 's'}\n",
        f"| {' | '.join(heads)} |",
        "|---|---|" + "--:|" * (len(heads) - 2),
    ]
    for row in rows:
        figures = [_number(name, row.results.get(name)) for name in shown] or [""]
        if row.reason:
            figures[0] = f"[^{reasons.setdefault(row.reason, len(reasons) + 1)}]"
        elif row.target and figures[0] == best:
            figures[0] = f"**{best}**"
        lines.append(f"| {' | '.join([*_way(row), *figures])} |")
    return "\n".join(lines) + "\n"


def _way(row: Row) -> list[str]:
    widths = [str(b) for b in (row.weight_bits, row.activation_bits) if b is not None]
    return [_safe(row.recipe), _safe(row.target), "/".join(widths), "" if row.images is None else str(row.images)]


def _number(figure: str, value: float | None) -> str:
    if value is None or math.isnan(value):
        return "" if value is None else "nan"
    return ("∞" if value > 0 else "−∞") if math.isinf(value) else f"{value:.{FIGURES[figure][1]}f}"


def _safe(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
