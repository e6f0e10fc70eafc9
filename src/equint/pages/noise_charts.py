"""Figures over all layers: measured noise, and what was predicted of it; what looks worse is explained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import counted
from ..ir.events import EventKind
from ..ir.model import Model
from .figures import Series, Style, dot_chart
from .page_data import embedded
from .wording import signed

Chart = dict[str, Any]
"""title, text, and panels: each with heading, legend, drawing, series for scripts, note and what explains it."""
CLEARLY = 0.1
"""dB below which a layer counts as unchanged."""


def measured_charts(contents: Mapping[str, Any]) -> list[Chart]:
    """What was measured of every layer, if anything was."""
    if not contents["images"]:
        return []
    samples = counted(contents["images"], "made-up sample" if contents["made_up"] else "sample")
    text = (
        "Each layer reads what the float network puts out, and only its own weights, or its own input, are rounded. "
        f"Measured on {samples}; higher is better."
    )
    headings = {"weights": "Noise of rounded weights", "activations": "Noise of the rounded and cut input"}
    sides: dict[str, tuple[str, Style]] = {"measured": ("measured", "line")}
    return _chart("Noise of every layer, measured", text, headings, sides, contents)


def predicted_charts(contents: Mapping[str, Any]) -> list[Chart]:
    """What was predicted, and what could be: figures 4 to 6 of Meller et al. (2019)."""
    seen = contents["images"]
    against = "Correlation and difference say how far predictions can be trusted."
    before = "Before: plain grids in the same format, no scales, no corrections. After: what the recipe made."
    bound = (
        "How well the channels of each layer's weights, and of its input, share one grid (Σx²/Σ(Δx)² with uniform "
        "noise). The bound: every channel fills the grid by itself."
    )
    rounded = {"weights": "Noise of rounded weights", "rounding": "Noise of rounded input"} if seen else {}
    both = {"weights": "Noise of rounded weights", "activations": "Noise of the rounded and cut input"}
    own = {"weights": "Weights", "activations": "Layer inputs"}
    return [
        *_chart(
            "Predicted against measured noise",
            against,
            rounded,
            {"predicted": ("predicted", "points"), "measured": ("measured", "line")},
            contents,
        ),
        *_chart(
            "Predicted noise before and after",
            before,
            both,
            {"plain": ("before", "ghost"), "predicted": ("after", "points")},
            contents,
        ),
        *_chart(
            "Distance to optimal equalization",
            bound,
            own,
            {"bound": ("bound", "bound"), "before": ("before", "ghost"), "after": ("after", "points")},
            contents,
        ),
    ]


def _chart(
    title: str, text: str, headings: Mapping[str, str], sides: Mapping[str, tuple[str, Style]], told: Mapping[str, Any]
) -> list[Chart]:
    """One figure, with the panels that have something to show; none where no panel has."""
    panels = []
    for part, heading in headings.items():
        known = {side: [(row[side] or {}).get(part) for row in told["layers"]] for side in sides}
        series = [Series(label, known[side], style) for side, (label, style) in sides.items()]
        agreement = told["agreement"].get(part) if {"predicted", "measured"} <= set(sides) else None
        labels = {label: known[side] for side, (label, _) in sides.items()}
        why = why_worse(labels["before"], labels["after"], part, told) if {"before", "after"} <= set(labels) else ""
        panels.append({**_panel(heading, series, agreement), "why": why})
    shown = [p for p in panels if p["drawing"]]
    return [{"title": title, "text": text, "panels": shown}] if shown else []


def why_worse(
    before: Sequence[float | None],
    after: Sequence[float | None],
    part: str,
    told: Mapping[str, Any],
    more: bool = True,
    clearly: float = CLEARLY,
) -> str:
    """Why layers that look worse than before do not make the outputs worse; empty where none does.

    Args:
        part: "weights", or what else of a layer is shown.
        more: whether more is better; clearly: what counts as a difference.

    Example:
        >>> told = {"totals": {"before": {"total": 10.0}, "after": {"total": 12.0}}, "steps": ("scaled",)}
        >>> why_worse([30.0, 20.0], [25.0, 28.0], "weights", told)[:45]
        '1 of 2 layers looks worse than before: noise '
        >>> why_worse([30.0], [31.0], "weights", told)
        ''
    """
    sign = 1 if more else -1
    pairs = [(a, b) for a, b in zip(before, after, strict=True) if a is not None and b is not None]
    worse = sum(sign * (b - a) < -clearly for a, b in pairs)
    if not worse:
        return ""
    count = f"{worse} of {counted(len(pairs), 'layer')} look{'s' if worse == 1 else ''} worse than before"
    return f"{count}: {_cause(part, told['steps'])}. {_balance(told['totals'])}"


STEPS = {
    EventKind.WEIGHTS_ROUNDED: "rounded",
    EventKind.KERNELS_ROUNDED: "rounded",
    EventKind.HEADROOM: "widened",
    **dict.fromkeys((EventKind.EQUALIZED, EventKind.MATCHED, EventKind.OPTIMIZED, EventKind.WEIGHTS_SHIFTED), "scaled"),
}
"""What a recipe did that may make single layers look worse."""


def steps_of(model: Model) -> tuple[str, ...]:
    """Which of those a model's log tells of."""
    return tuple(dict.fromkeys(STEPS[e.kind] for e in model.log if e.kind in STEPS))


def _cause(part: str, steps: Sequence[str]) -> str:
    if part == "weights" and "rounded" in steps:
        return "weights are rounded together, so that errors cancel in sums; each weight alone is farther off"
    if part != "weights" and "widened" in steps:
        return "ranges were widened for values that more samples would show, which costs a little on these"
    if "scaled" in steps:
        return "noise was moved from layers that weigh much at the outputs to layers that weigh little"
    return "the recipe's grids are not the plain ones"


def _balance(totals: Mapping[str, Any]) -> str:
    then, now = (totals[side]["total"] for side in ("before", "after"))
    if then is None or now is None:
        return "What was measured at the outputs decides."
    both = f"{signed(then)} dB before, {signed(now)} dB after"
    if now > then:
        return f"At the outputs less noise is predicted: {both}."
    return f"The prediction for the outputs does not see the gain ({both}); what was measured decides."


def _panel(heading: str, series: Sequence[Series], agreement: Mapping[str, float] | None) -> dict[str, Any]:
    ends = [(s, [v for v in s.values if v is not None]) for s in series]
    known = [s for s, values in ends if values]
    spans = "; ".join(f"{s.label}: {min(values):.1f} to {max(values):.1f} dB" for s, values in ends if values)
    note = "correlation {correlation:.3f}, root mean square difference {rms:.1f} dB"
    return {
        "heading": heading,
        "legend": [(s.style, s.label) for s in known] if len(known) > 1 else [],
        "drawing": dot_chart(known, f"{heading}, SQNR, dB, over the layers. {spans}", "SQNR, dB"),
        "series": embedded([[s.label, [None if v is None else round(v, 2) for v in s.values]] for s in known]),
        "note": note.format(**agreement) if agreement else "",
    }
