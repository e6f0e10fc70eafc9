"""What equint knows of every operator, as a page to read."""

from __future__ import annotations

from .operator import FACETS, Form, Grid, Operator, Scales, Unknown
from .table import OPERATORS

HEAD = """# Operators

What equint knows of every operator of ONNX that it has a description of (`src/equint/ops/`); printed by
`python -m equint.ops`. Whatever an operator is not known for is said in the log of a quantization, and holds the
network back no further than that: the operator runs in float, pins channel scales, or ends predictions.

- *moments*, *bound*, *gain*: mean and spread of its outputs, their lowest and highest value, and how noise passes it
- *channel scales*: what it does with the free scale of each channel
- *grid*: whether onnxruntime runs it on integers
- *integer form*: what it becomes in a network in integers alone
- *torch*: whether a quantized network with it runs in torch
"""


def page() -> str:
    """The support table in Markdown, with the reasons for what is missing."""
    rows = [_row(operator) for operator in sorted(OPERATORS.values(), key=lambda operator: operator.name)]
    lines = ["| operator | moments | bound | gain | channel scales | grid | integer form | torch |", "|---" * 8 + "|"]
    return "\n".join([HEAD, *lines, *rows, "", "## What is missing, and why", "", *_reasons()]) + "\n"


def _row(operator: Operator) -> str:
    cells = [_cell(getattr(operator, facet)) for facet in FACETS]
    return f"| {operator.name} | " + " | ".join(cells) + " |"


def _cell(facet: object) -> str:
    if isinstance(facet, Unknown):
        return "–"
    if isinstance(facet, Scales):
        return facet.rule.name.lower()
    if isinstance(facet, Form):
        return facet.name.lower().replace("_", " ")
    if isinstance(facet, Grid):
        kinds = {"integer": facet.integer or facet.layer, "moves integers": facet.keeps, "fused": facet.fused}
        return next((kind for kind, holds in kinds.items() if holds), "float")
    return "yes"


def _reasons() -> list[str]:
    reasons: dict[tuple[str, str], list[str]] = {}
    for operator in OPERATORS.values():
        for facet in FACETS:
            described = getattr(operator, facet)
            if isinstance(described, Unknown):
                reasons.setdefault((facet, described.why), []).append(operator.name)
    return [f"- {facet} of {', '.join(sorted(names))}: {why}" for (facet, why), names in reasons.items()]
