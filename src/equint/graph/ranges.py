"""Lowest and highest value of every tensor of a network, from moments and from what operators can put out."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from ..ir.fields import ranked
from ..ir.model import Array, Graph, Moments, Name, Node, Range
from ..ops.operator import Unknown
from ..ops.table import op_of
from .positions import position_axes


def tensor_ranges(
    graph: Graph, moments: Mapping[Name, Moments], given: Mapping[Name, Range], n: float
) -> dict[Name, Range]:
    """Range of every tensor, per channel: mean ± n·std, no further than its operator can put out.

    Non-linearities map the ends of their input's range, sums are bounded by the sum of their operands'
    ranges, poolings and moves by their input's. `given` (the network's inputs) is kept.
    """
    table = dict(given)
    for name in graph.inputs:
        if name not in table and name in moments:
            table[name] = _spread(moments[name], n)
    for node in graph.nodes:
        if all(not o or o in table for o in node.outputs):
            continue
        bounds = bounds_of(graph, node, table) or []
        for position, name in enumerate(node.outputs):
            if not name or name in table:
                continue
            spread = _spread(moments[name], n) if name in moments else None
            found = _met(spread, bounds[position] if position < len(bounds) else None, op_of(node).wide)
            fitted = None if found is None else _fitted(graph, node, name, found, table)
            if fitted is not None and np.all(np.isfinite(fitted.lo)) and np.all(np.isfinite(fitted.hi)):
                table[name] = fitted
    return table


def _fitted(graph: Graph, node: Node, name: Name, found: Range, table: Mapping[Name, Range]) -> Range | None:
    """A range with the rank of its tensor, over all positions; None where it has another rank."""
    lo, hi = (ranked(np.asarray(end), graph.rank(name)) for end in (found.lo, found.hi))
    if lo is None or hi is None:
        return None
    axes = position_axes(graph, node, np.broadcast_arrays(lo, hi)[0], lambda i: table[i].lo if i in table else None)
    return Range(*(_over(end, axes, meet) for end, meet in ((lo, np.min), (hi, np.max)))) if axes else Range(lo, hi)


def _over(end: Array, axes: tuple[int, ...], meet: Callable[..., Array]) -> Array:
    return meet(end, tuple(d for d in axes if end.shape[d] > 1), keepdims=True)


def _spread(m: Moments, n: float) -> Range:
    return Range(m.mean - n * m.std, m.mean + n * m.std)


def bounds_of(graph: Graph, node: Node, table: Mapping[Name, Range]) -> list[Range] | None:
    """How far a node's outputs can reach, real units, for the ranges of what it reads; None where nothing tells.

    Example:
        >>> node = Node("Relu", ("x",), ("y",))
        >>> graph = Graph((node,), {}, ("x",), ("y",), {"x": ("N", 2), "y": ("N", 2)})
        >>> (found,) = bounds_of(graph, node, {"x": Range(np.full((1, 2), -3.0), np.array([[1.0, 2.0]]))})
        >>> found.lo.tolist(), found.hi.tolist()
        ([[0.0, 0.0]], [[1.0, 2.0]])
    """
    facet = op_of(node).bound
    if isinstance(facet, Unknown):
        return None
    with np.errstate(all="ignore"):
        return facet(graph, node, [_operand(graph, i, table) for i in node.inputs if i])


def _operand(graph: Graph, name: Name, table: Mapping[Name, Range]) -> Range | None:
    if name in table:
        return table[name]
    constant = graph.constant(name)
    return None if constant is None else Range(constant.astype(np.float64), constant.astype(np.float64))


def _met(spread: Range | None, bound: Range | None, wide: bool) -> Range | None:
    """Where both are known: the bound, or, where it is wide, what both allow."""
    if bound is None or spread is None or not wide:
        return bound or spread
    return Range(
        np.maximum(bound.lo, np.minimum(spread.lo, bound.hi)), np.minimum(bound.hi, np.maximum(spread.hi, bound.lo))
    )
