"""Which axes of a field are positions: constants that differ there are values that a channel takes."""

from __future__ import annotations

from collections.abc import Callable

from ..ir.fields import constant_axes
from ..ir.model import Array, Graph, Name, Node
from ..ops.activations import ACTIVATIONS
from ..ops.arithmetic import ARITHMETIC
from ..ops.moves import JOINS
from ..ops.norms import NORMALIZATIONS, gains_of

CHANNELS = 1
"""The axis of channels, where no activation tells another."""


def position_axes(graph: Graph, node: Node, field: Array, known: Callable[[Name], Array | None]) -> tuple[int, ...]:
    """Axes along which a node's result differs for its constants alone, channels and a join's axis left out.

    Args:
        field: of the result; known: the field of an activation.

    Example:
        >>> import numpy as np
        >>> node = Node("Add", ("x", "embedding"), ("y",))
        >>> graph = Graph((node,), {"embedding": np.zeros((1, 8, 5, 5))}, ("x",), ("y",))
        >>> position_axes(graph, node, np.zeros((1, 8, 5, 5)), lambda name: np.zeros((1, 8, 1, 1)))
        (2, 3)
    """
    if node.domain or not any(node.op in table for table in (ARITHMETIC, ACTIVATIONS, JOINS, NORMALIZATIONS)):
        return ()
    if not any(i in graph.consts for i in node.inputs):
        return ()
    fields = [known(i) for i in node.inputs if i and i not in graph.consts]
    shapes = [f.shape for f in fields if f is not None]
    if node.op in JOINS:
        axis = int(node.attrs["axis"]) % field.ndim
        shapes.append(tuple(2 if d == axis else 1 for d in range(field.ndim)))
    if all(n == 1 for shape in shapes for n in shape):
        gains = gains_of(graph, node)
        channels = CHANNELS if gains is None else gains.axis
        shapes.append(tuple(2 if d == channels else 1 for d in range(field.ndim)))
    return constant_axes(field, shapes)
