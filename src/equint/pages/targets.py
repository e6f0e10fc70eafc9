"""Targets for people: one in words, and tables of Markdown that docs/targets.md shows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

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


def described(on: Target) -> Iterator[str]:
    """All that a target says, a fact a line, and its rules with who says so.

    Example:
        >>> from ..hardware.target import target
        >>> list(described(target("tensorrt")))[4]
        'biases        float constants of the values that 32 bits at s_x·s_w hold'
    """
    yield f"{', also '.join((on.name, *on.aliases))}: {on.description}"
    where = "32 bits at s_x·s_w" if on.bias_bits == 32 else f"{on.bias_bits} bits"
    bias = f"int{on.bias_bits} at s_x·s_w" if on.integer_biases else f"float constants of the values that {where} hold"
    scales = f"M of {on.mantissa_bits} bits times 2^s of {on.exponent_bits} bits, {on.mantissa}"
    facts = {
        "for": on.audience,
        "weights": _format(on.weight) + (f" of {on.shift_bits} bits" if on.shift_bits else ""),
        "activations": _format(on.activation),
        "biases": bias,
        "in integers": _integers(on),
        "in LiteRT": ", ".join(on.litert_operators),
        "stay float": ", ".join(on.float_layers),
        "one grid": ", ".join(on.ties),
        "clamps": _clamps(on),
        "rounding": f"{on.rounding} behind integer operators, whose scales are {scales}",
        "fused": f"activations, tables of {on.table_bits} bits" if on.fused_activations else "",
        "recipe": on.recipe,
        "files": ", ".join(on.formats),
    }
    yield from (f"{key:<14}{value}" for key, value in facts.items() if value)
    yield "rules" if on.rules else "rules         none: lint looks for nothing"
    for rule in on.rules:
        least = f" {rule.least} or newer" if rule.least else ""
        share = ", in float" if rule.in_float and "in float" not in rule.why else ""
        yield f"  {rule.level:<8}{rule.rule}{least}: {rule.why}{share} ({rule.source}, {rule.date})"


def _integers(on: Target) -> str:
    known = ", ".join(on.operators) or "all that equint makes integer"
    if on.integers_only:
        return f"{known}; there are no floats"
    return f"{known}; what stands between layers may stay float" if on.float_between else known


def _clamps(on: Target) -> str:
    if not on.integer_clamps:
        return "none on integers: activations stand in front of quantizers"
    return "Min and Max on integers, a bound per channel" if on.channel_clip else "Min and Max on integers"


def _format(spec: QSpec) -> str:
    """A number format in words.

    Example:
        >>> _format(QSpec(8, granularity="channel", narrow=True))
        'int8 without -128, zero point 0, a scale per output channel'
    """
    name = f"{'' if spec.signed else 'u'}int{spec.bits}"
    scale = "power of two" if spec.power_of_two else "scale"
    words = [f"{name} without {-(1 << (spec.bits - 1))}" if spec.narrow and spec.signed else name]
    words[0] += f", u{name} where nothing is negative" if spec.by_sign else ""
    words.append("zero point 0" if spec.symmetric else "any zero point")
    per = {
        "tensor": f"one {scale}",
        "channel": f"a {scale} per output channel",
        "shift": "one scale, shifts per channel",
    }
    return ", ".join([*words, per[spec.granularity]])
