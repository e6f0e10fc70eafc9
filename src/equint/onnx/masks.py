"""Masks of attention: what they add to scores, brought to numbers that can be measured and rounded."""

from __future__ import annotations

import numpy as np

from ..ir.model import Graph, Name
from ..ops.attributes import is_softmax
from ..ops.operator import Unknown
from ..ops.table import op_of

MASKED = -1e4
"""As good as -inf in front of a Softmax: e^-104 is 0 in float32, and no scores differ by thousands."""


def masks_bounded(graph: Graph) -> Graph:
    """Constants that only Softmax weighs, no lower than MASKED: -inf and the least float32 have no squares.

    Example:
        >>> from ..ir.model import Node
        >>> nodes = Node("Add", ("x", "m"), ("z",)), Node("Softmax", ("z",), ("y",))
        >>> graph = Graph(nodes, {"m": np.array([0, -np.inf], np.float32)}, ("x",), ("y",))
        >>> masks_bounded(graph).consts["m"].tolist()
        [0.0, -10000.0]
    """
    low = {n: a for n, a in graph.consts.items() if a.dtype.kind == "f" and a.size and a.min() < MASKED}
    bounded = {n: np.maximum(a, a.dtype.type(MASKED)) for n, a in low.items() if is_mask(graph, n)}
    return graph.with_consts(bounded) if bounded else graph


def is_mask(graph: Graph, name: Name) -> bool:
    """Whether a tensor is moved, added, chosen, or multiplied with a mask on its way to Softmax, and nowhere else."""
    waiting, seen = [name], {name}
    while waiting:
        name = waiting.pop()
        users = graph.users(name)
        if not users or name in graph.outputs:
            return False
        for user in (u for u in users if not is_softmax(u)):
            grid = op_of(user).grid
            if user.op not in ("Add", "Where", "Mul") and (isinstance(grid, Unknown) or not grid.keeps):
                return False
            if user.outputs[0] not in seen:
                seen.add(user.outputs[0])
                waiting.append(user.outputs[0])
    return True
