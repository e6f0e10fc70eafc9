"""How many samples go through a network at once."""

from __future__ import annotations

from math import prod

from ..ir.model import Graph

BATCH = 4
"""Samples at most: more cost memory and save no time."""
VALUES = 1 << 23
"""Values that all tensors together may have: where one sample alone has so many, a second saves no time either."""


def at_once(graph: Graph, most: int = BATCH) -> int:
    """How many samples: as many as memory is worth, by the sizes that are known of the network's tensors.

    Example:
        >>> from ..ops.layers import tiny_graph
        >>> at_once(tiny_graph()), at_once(tiny_graph(), most=9)
        (4, 9)
    """
    made = (shape for name, shape in graph.shapes.items() if name in graph.producer)
    values = sum(prod(n for n in shape[1:] if isinstance(n, int)) for shape in made)
    return max(1, min(most, VALUES // max(values, 1)))
