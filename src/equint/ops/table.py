"""All operators by name."""

from __future__ import annotations

from collections.abc import Mapping

from ..ir.model import Node
from .activations import ACTIVATIONS
from .arithmetic import ARITHMETIC
from .borders import BORDERS
from .curves import CURVES
from .layers import LAYERS
from .moves import JOINS, MOVES
from .norms import NORMALIZATIONS
from .operator import Grid, Operator, Rule, Scales, Unknown
from .pools import BLOCKS, POOLS, REDUCTIONS

OPERATORS: Mapping[str, Operator] = {
    **LAYERS,
    **ACTIVATIONS,
    **CURVES,
    **ARITHMETIC,
    **POOLS,
    **REDUCTIONS,
    **BLOCKS,
    **NORMALIZATIONS,
    **MOVES,
    **JOINS,
    **BORDERS,
}
"""Every operator that equint knows, by its name in ONNX."""


def op_of(node: Node) -> Operator:
    """What is known of a node's operator; of one that is not known, that it is not.

    Example:
        >>> op_of(Node("Relu", ("x",), ("y",))).steps.name
        'CLAMP'
        >>> op_of(Node("NonZero", ("x",), ("y",))).gain
        Unknown(why='equint does not know NonZero')
    """
    found = None if node.domain else OPERATORS.get(node.op)
    return found or _foreign(f"{node.domain}::{node.op}" if node.domain else node.op)


def is_operator(name: str) -> bool:
    """Whether ONNX has an operator of that name, whether or not equint knows what it does.

    Example:
        >>> is_operator("Conv"), is_operator("NonZero"), is_operator("Conv2D")
        (True, True, False)
    """
    if name in OPERATORS:
        return True
    from onnx import defs

    return bool(defs.has(name))


def ignores_values(operator: Operator) -> bool:
    """Whether an operator reads shapes alone."""
    return isinstance(operator.scales, Scales) and operator.scales.rule is Rule.IGNORES


def _foreign(name: str) -> Operator:
    why = Unknown(f"equint does not know {name}")
    return Operator(name, why, why, why, why, Grid(), why, why)
