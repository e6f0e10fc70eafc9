"""What limits a quantized network, layer by layer, and what each thing a user could change would gain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..files import Facts
from ..ir.model import Model, Name
from ..maths.noise import to_db
from ..noise.prediction import GridNoise, LayerNoise, Prediction, predict

SHOWN = 3
"""Tensors for which 16 bits are proposed."""


@dataclass(frozen=True)
class Explanation(Facts):
    """Predicted noise before and after a recipe, and what changes would gain.

    Attributes:
        predicted: SQNR at the outputs in dB, before and after: total, weights, activations, clips.
        layers: name, limit ("weights", "activations" or "clips"), SQNR in dB of each at the layer's own output,
            before and after, and the share (0 to 1) of the output's noise that its weights make.
        tensors: name, SQNR in dB of its rounding and clipping at the outputs, share of the output's noise.
        changes: what could be changed, and the gain in dB predicted for it, largest first.
    """

    predicted: Mapping[str, Mapping[str, float | None]]
    layers: tuple[Mapping[str, Any], ...]
    tensors: tuple[Mapping[str, Any], ...]
    changes: tuple[Mapping[str, Any], ...]
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        before, after = (self.predicted[when]["total"] for when in ("before", "after"))
        shown = " → ".join("none" if v is None else f"{v:.1f} dB" for v in (before, after))
        return f"Explanation(predicted SQNR {shown}, layers={len(self.layers)}, changes={len(self.changes)})"


def explain(
    reference: Model, before: Model, after: Model, per_channel: Model | None = None, warnings: Sequence[str] = ()
) -> Explanation:
    """Predicted noise before and after a recipe, and the predicted gain of changes.

    Args:
        reference: the float network, BatchNorms folded, with moments and ranges.
        before: the network with plain grids; after: with those of the recipe.
        per_channel: what the recipe would make of it with a weight scale per channel, if that is a change.
    """
    first, last = predict(reference, before), predict(reference, after)
    then = {layer.tensor: layer for layer in first.layers}
    table = []
    for layer in last.layers:
        row = {"name": layer.name, "limit": layer.limit, "share": _share(layer.reaching, last)}
        table.append({**row, "before": _decibels(then.get(layer.tensor)), "after": _decibels(layer)})
    tensors = [
        {"name": t.tensor, "rounding": _db(t.rounding), "clips": _db(t.clips), "share": _share(_sum(t), last)}
        for t in last.tensors
    ]
    changes = _changes(last, None if per_channel is None else predict(reference, per_channel))
    totals = {"before": _decibels(first, "total"), "after": _decibels(last, "total")}
    ranked = tuple(sorted(changes, key=lambda c: -c["gain"]))
    return Explanation(totals, tuple(table), tuple(tensors), ranked, tuple(warnings))


def _changes(now: Prediction, per_channel: Prediction | None) -> list[dict[str, Any]]:
    found: list[tuple[str, Name, float]] = []
    if per_channel is not None:
        found.append(("weight scales per channel", "", per_channel.total))
    for t in sorted(now.tensors, key=_sum, reverse=True)[:SHOWN]:
        found.append(("16-bit activations", t.tensor, now.total - _sum(t)))
    guessed = sum(_sum(t) - t.known for t in now.tensors)
    if guessed > 0:
        widest = max(now.tensors, key=lambda t: _sum(t) - t.known).tensor
        found.append(("a few images, for ranges that are guesses", widest, now.total - guessed))
    return [{"change": what, "at": at, "gain": to_db(left) - to_db(now.total)} for what, at, left in found]


def _sum(t: GridNoise) -> float:
    return t.rounding + t.clips


def _share(part: float, whole: Prediction) -> float:
    return part / whole.total if whole.total > 0 else 0.0


def _decibels(noise: Prediction | LayerNoise | None, *whole: str) -> dict[str, float | None]:
    names = () if noise is None else (*whole, "weights", "activations", "clips")
    return {name: _db(getattr(noise, name)) for name in names}


def _db(noise: float | None) -> float | None:
    return None if noise is None or noise <= 0 else to_db(noise)
