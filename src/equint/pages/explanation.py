"""What `equint explain` found, as rows for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Shown = tuple[str, Sequence[str], Sequence[tuple[str, ...]]]
"""Title, columns (a leading > aligns right) and rows of a table."""
_PARTS = ("weights", "activations", "clips")


LEGEND = (
    "a → b: dB before → after the recipe, at the layer's own output; where b is lower, equalization made this layer "
    "noisier for the sake of others: the totals above tell what the outputs gain"
)
"""What the arrows in `layers` mean, and why less on their right is not worse for the outputs."""


def totals(found: Mapping[str, Any]) -> Shown:
    """Predicted SQNR at the outputs, before and after."""
    kinds = (("before", "plain grids"), ("after", "with the recipe"))
    rows = [(name, *(_db(found["predicted"][key][p]) for p in ("total", *_PARTS))) for key, name in kinds]
    return "predicted SQNR at the outputs, dB", ("", ">total", *(f">of {p}" for p in _PARTS)), rows


def layers(found: Mapping[str, Any], limit: int | None) -> Shown:
    """The layers with most noise: what limits each, and the SQNR of each kind of noise before → after."""
    order = sorted(found["layers"], key=lambda row: -row["share"])
    rows = []
    for row in order[:limit]:
        cells = (f"{_db(row['before'].get(p))} → {_db(row['after'].get(p))}" for p in _PARTS)
        rows.append((row["name"], row["limit"], *cells, f"{100 * row['share']:.1f} %"))
    title = "layers, by the share of all noise that their weights make; SQNR at each layer's own output, dB"
    if limit is not None and len(order) > limit:
        title = f"{limit} of {len(order)} {title} (--all for the others)"
    columns = ("layer", "limited by", ">weights", ">activations", ">clips", ">share of its weights")
    return title, columns, rows


def changes(found: Mapping[str, Any]) -> Shown:
    """What could be changed, the most rewarding first."""
    rows = [(c["change"], c["at"], f"{c['gain']:+.1f} dB") for c in found["changes"] if c["gain"] >= 0.05]
    return "what a change would gain, predicted", ("change", "at", ">gain"), rows


def _db(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
