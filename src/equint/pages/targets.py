"""Targets as tables of Markdown: what docs/targets.md shows."""

from __future__ import annotations

from collections.abc import Iterable

from ..hardware.target import Target
from ..ir.model import QSpec


def formats_table(targets: Iterable[Target]) -> str:
    """A row for each target: whom it is for, its formats, its best recipe and the files that it is delivered in."""
    lines = ["| target | who it is for | weights | activations | best recipe | files |", "|---|---|---|---|---|---|"]
    for on in targets:
        names = ", also ".join(f"`{name}`" for name in (on.name, *on.aliases))
        cells = (
            names,
            on.audience,
            _format(on.weight),
            _format(on.activation),
            f"`{on.recipe}`",
            ", ".join(on.formats),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def rules_table(on: Target) -> str:
    """A row for each rule of a target: its level, what happens to a file that does not keep to it, and who says so."""
    lines = ["| rule | level | what happens else | source |", "|---|---|---|---|"]
    lines += [f"| {r.rule} | {r.level} | {r.why} | {r.source} ({r.date}) |" for r in on.rules]
    return "\n".join(lines) + "\n"


def _format(spec: QSpec) -> str:
    """A number format in words.

    Example:
        >>> _format(QSpec(8, granularity="channel", narrow=True))
        'int8 without -128, zero point 0, a scale per output channel'
    """
    name = f"{'' if spec.signed else 'u'}int{spec.bits}"
    scale = "power of two" if spec.power_of_two else "scale"
    words = [f"{name} without {-(1 << (spec.bits - 1))}" if spec.narrow and spec.signed else name]
    words.append("zero point 0" if spec.symmetric else "any zero point")
    per = {
        "tensor": f"one {scale}",
        "channel": f"a {scale} per output channel",
        "shift": "one scale, shifts per channel",
    }
    return ", ".join([*words, per[spec.granularity]])
