"""The table of operators in docs/tflite.md."""

from __future__ import annotations

from .call import CONVERSIONS
from .reader import FAMILIES, operators_read
from .schema import schema


def page() -> str:
    """Operators that are read, by the module that converts them, each with its number in the schema.

    Example:
        >>> print(page().splitlines()[2][:54])
        | Convolutions and matrix products | CONV_2D (3), DEPT
    """
    numbers = schema().enums["BuiltinOperator"].numbers
    lines = ["| what they do | operators |", "|---|---|"]
    for family in FAMILIES:
        kinds = [kind for kind in operators_read() if CONVERSIONS[kind].__module__ == family.__name__]
        told = [f"{kind} ({numbers[kind]})" if kind in numbers else kind for kind in kinds]
        title = (family.__doc__ or "").strip().split("\n")[0].rstrip(".")
        lines.append(f"| {title} | {', '.join(told)} |")
    return "\n".join(lines) + "\n"
