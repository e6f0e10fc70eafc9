"""A quantization's result in numbers and words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..errors import in_a_line
from ..files import jsonable
from ..ir.events import Event, EventKind, described
from ..ir.model import Model
from ..ops.layers import layers

RANKING = {
    EventKind.OPTIMIZED: (
        *("predicted SQNR before", "predicted SQNR"),
        *("of weights", "of activations", "of clips"),
    )
}
"""Facts that rank what one network can become, and are no forecast: not for people, who would take them for one."""


def network_facts(model: Model) -> dict[str, Any]:
    """Layers, formats and sizes of a quantized network, ready for JSON."""
    weights = [layer.weight for layer in layers(model.graph)]
    activations = _format(model, [n for n in model.qparams if n not in model.graph.consts])
    formats = {"layers": len(weights), "weights": _format(model, weights), "activations": activations}
    return {**formats, **dict(zip(("float_bytes", "integer_bytes"), sizes(model), strict=True))}


def log_facts(model: Model) -> dict[str, Any]:
    """What was done, skipped and is to be doubted, ready for JSON."""
    events = [
        {"did": e.text, "at": e.at, "facts": jsonable(e.details), "source": e.source, "warning": e.warning}
        for e in model.log
    ]
    return {"warnings": [str(e) for e in model.log if e.warning], "events": events}


def text(facts: Mapping[str, Any], model: Model) -> str:
    """A result's facts as plain text, for people."""
    emulated = any(q.bits not in (8, 16) for q in model.qparams.values())
    packed = "integer, bits packed (the ONNX file holds them in 8- or 16-bit types)" if emulated else "integer"
    rows = [
        f"recipe {facts['recipe']} (level {facts['level']}) for target {facts['target']}",
        f"layers        {facts['layers']}, weights {facts['weights']}, activations {facts['activations']}",
        f"parameters    {kilobytes(facts['float_bytes'])} float → {kilobytes(facts['integer_bytes'])} {packed}",
        f"time          {facts['seconds']:.2f} s",
        *(f"{'! ' if w else '- '}{line}" for w, line in grouped(model.log)),
    ]
    return "\n".join(rows)


def grouped(events: Iterable[Event], facts: bool = True) -> list[tuple[bool, str]]:
    """(warning, line) for every kind of event: what was done, or skipped and why, and how often.

    Args:
        facts: whether the numbers that explain it follow.

    Example:
        >>> grouped(Event(EventKind.CLIP_LEFT, at, {"why": "no bound"}) for at in "ab")
        [(False, 'left a clip as it is: no bound (2 times: a, b)')]
    """
    table: dict[str, list[Event]] = defaultdict(list)
    for e in events:
        if e.kind not in (EventKind.RAN, EventKind.READ):
            table[e.words].append(e)
    lines = []
    for line, found in table.items():
        if len(found) > 1:
            places = [e.at for e in found if e.at]
            line += f" ({len(found)} times: {', '.join(places[:3])}{', …' if len(places) > 3 else ''})"
        else:
            line = described(line, found[0].at, told(found[0]) if facts else {})
        lines.append((any(e.warning for e in found), in_a_line(line)))
    return lines


def told(event: Event) -> dict[str, Any]:
    """An event's facts for people: those that explain it, and no forecast that they would take for one.

    Example:
        >>> told(Event(EventKind.OPTIMIZED, "", {"predicted SQNR": 40.0, "scales": 12}))
        {'scales': 12}
    """
    hidden = ("why", *RANKING.get(event.kind, ()))
    return {k: v for k, v in event.details.items() if k not in hidden}


def sizes(model: Model) -> tuple[int, int]:
    """Bytes of all weights and biases as float32, and as the integers chosen (bits packed, biases 4 bytes)."""
    floats = integers = 0
    seen: set[str] = set()
    for layer in layers(model.graph):
        q, weight = model.qparams.get(layer.weight), model.graph.consts[layer.weight]
        if layer.weight not in seen:
            seen.add(layer.weight)
            floats += weight.nbytes
            integers += weight.nbytes if q is None else (weight.size * q.bits + 7) // 8 + 5 * np.size(q.scale)
            integers += 0 if q is None or q.shift is None else (q.shift.size + 1) // 2
        if layer.bias and layer.bias not in seen:
            seen.add(layer.bias)
            floats += model.graph.consts[layer.bias].nbytes
            integers += 4 * model.graph.consts[layer.bias].size
    return floats, integers


def kilobytes(count: int) -> str:
    """A size for people."""
    return f"{count / 1e6:.2f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def _format(model: Model, names: list[str]) -> str:
    grids = [model.qparams[n] for n in names if n in model.qparams]
    if not grids:
        return "float"
    bits = sorted({q.bits for q in grids})
    shifted = " + shift" if any(q.shift is not None for q in grids) else ""
    scope = "per channel" if any(np.ndim(q.scale) for q in grids) else f"per tensor{shifted}"
    return f"{'/'.join(map(str, bits))} bits {scope}"
