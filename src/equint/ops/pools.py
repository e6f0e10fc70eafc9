"""Operators that look at many positions for one value: pools, reductions, resizes, and blocks of channels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from ..ir.model import Array, Graph, Node, Range
from ..maths import gaussian
from . import torch_kernels, torch_moves
from .attributes import reduced_axes, regrouped, resizes_channels
from .operator import Backward, BoundFacet, Form, Gained, Grid, Operator, Pair, Rule, Scales, Unknown, by_name

UNKNOWN_SIZE = 7
"""Positions along a spatial axis of unknown size."""


def window(graph: Graph, node: Node) -> float:
    """How many positions a pooling operator looks at for one value."""
    if "kernel_shape" in node.attrs:
        return float(prod(node.attrs["kernel_shape"]))
    shape, rank = graph.shapes.get(node.inputs[0]), graph.rank(node.inputs[0]) or 4
    axes = reduced(graph, node, rank) or []
    sizes = [shape[a] if shape else None for a in axes]
    return float(prod(s if isinstance(s, int) else UNKNOWN_SIZE for s in sizes))


def reduced(graph: Graph, node: Node, rank: int) -> list[int] | None:
    """The axes that a global pool or a reduction takes together; none of windows; None where they are computed."""
    if "kernel_shape" in node.attrs:
        return []
    return list(range(2, rank)) if node.op in POOLS else reduced_axes(graph, node, rank)


def _together(node: Node, axes: Sequence[int], rank: int) -> tuple[int, ...]:
    """The axes along which a field behind does not vary: those reduced, or the positions that windows take together."""
    return tuple(range(2, rank)) if "kernel_shape" in node.attrs else tuple(axes)


def _dropped(node: Node, field: Array, axes: Sequence[int]) -> Array:
    """A field behind a reduction: without the reduced axes, where it drops them."""
    left = [n for d, n in enumerate(field.shape) if d not in axes]
    return field if node.attrs.get("keepdims", 1) else field.reshape(left)


def fields(graph: Graph, node: Node, field: Array, fill: float = 0) -> list[Array] | None:
    """A field that does not vary along the axes taken together."""
    axes = reduced(graph, node, field.ndim)
    if axes is None or any(field.shape[a] > 1 for a in _together(node, axes, field.ndim)):
        return None
    return [_dropped(node, field, axes)]


def _mixed(graph: Graph, node: Node, mean: Array, std: Array) -> tuple[Pair, list[int]] | None:
    """Moments with those of the reduced channels averaged."""
    axes = reduced(graph, node, mean.ndim)
    if axes is None:
        return None
    mean, std = np.broadcast_arrays(mean, std)
    over = _together(node, axes, mean.ndim)
    return (mean.mean(over, keepdims=True), np.sqrt(np.square(std).mean(over, keepdims=True))), axes


_OfMany = Callable[[Array, Array, float], Pair]


def _moments(of_many: _OfMany) -> Callable[[Graph, Node, Sequence[Pair | None]], list[Pair] | None]:
    def moments(graph: Graph, node: Node, operands: Sequence[Pair | None]) -> list[Pair] | None:
        found = None if operands[0] is None else _mixed(graph, node, *operands[0])
        if found is None:
            return None
        (mean, std), axes = found
        mean, std = of_many(mean, std, window(graph, node))
        return [(_dropped(node, mean, axes), _dropped(node, std, axes))]

    return moments


_average: _OfMany = lambda mean, std, count: (mean, gaussian.averaged(std, count))
_total: _OfMany = lambda mean, std, count: (count * mean, count * gaussian.averaged(std, count))


def _lowest(mean: Array, std: Array, count: float) -> Pair:
    highest, spread = gaussian.maximum(-mean, std, count)
    return -highest, spread


def _bound(factor: Callable[[float], float]) -> Callable[[Graph, Node, Sequence[Range | None]], list[Range] | None]:
    """The input's ends, times what `factor` makes of the number of values."""

    def bound(graph: Graph, node: Node, ranges: Sequence[Range | None]) -> list[Range] | None:
        if ranges[0] is None:
            return None
        lo, hi = ranges[0].lo, ranges[0].hi
        axes = reduced(graph, node, lo.ndim)
        if axes is None:
            return None
        over, times = _together(node, axes, lo.ndim), factor(window(graph, node))
        ends = lo.min(over, keepdims=True), hi.max(over, keepdims=True)
        return [Range(*(_dropped(node, times * end, axes) for end in ends))]

    return bound


_Share = Callable[[Backward, float, int], float]


def _gain(share: _Share) -> Callable[[Node, Backward], Gained | None]:
    """The gain behind, of which `share` arrives from each position and channel taken together."""

    def gain(node: Node, at: Backward) -> Gained | None:
        x, behind = node.inputs[0], at.behind[node.outputs[0]]
        if x not in at.moments:
            return []
        shape, count = at.shape(x), window(at.graph, node)
        axes = reduced(at.graph, node, len(shape))
        if axes is None:
            return None
        if not node.attrs.get("keepdims", 1):
            behind = np.expand_dims(behind, axes)
        channels = shape[1] if 1 in axes and len(shape) > 1 else 1
        behind = np.broadcast_to(behind, np.broadcast_shapes(behind.shape, shape)) if channels > 1 else behind
        return [(x, behind * share(at, max(count / channels, 1.0), channels))]

    return gain


# channels are independent of one another, unlike positions
_of_average: _Share = lambda at, positions, channels: at.averaged(positions) / channels**2
_of_sum: _Share = lambda at, positions, channels: positions**2 * at.averaged(positions)
_of_extreme: _Share = lambda at, positions, channels: 1 / channels


def _over_channels(graph: Graph, node: Node, field: Array) -> str:
    return "" if fields(graph, node, field) is not None else f"{node.op} over channels"


def _pool(
    name: str,
    of_many: _OfMany,
    share: _Share,
    grid: Grid,
    steps: Form | Unknown,
    torch: Callable[..., object],
    factor: Callable[[float], float] = lambda count: 1.0,
    wide: bool = True,
) -> Operator:
    facets = _moments(of_many), _bound(factor), _gain(share), Scales(Rule.PASSES, _over_channels)
    return Operator(name, *facets, grid, steps, torch, fields, wide=wide, averages=share is _of_average)


_INTEGER, _CHOOSES, _FLOAT = Grid(integer=True), Grid(integer=True, keeps=True), Grid()


def _spatial(x: Any) -> list[int]:
    return list(range(2, x.ndim))


POOLS = by_name(
    _pool("AveragePool", _average, _of_average, _INTEGER, Form.AVERAGE_POOL, torch_kernels.average_pool),
    _pool(
        "GlobalAveragePool", _average, _of_average, _INTEGER, Form.GLOBAL_AVERAGE, lambda x: x.mean(_spatial(x), True)
    ),
    _pool("MaxPool", gaussian.maximum, _of_extreme, _CHOOSES, Form.MAX_POOL, torch_kernels.max_pool, wide=False),
    _pool("GlobalMaxPool", gaussian.maximum, _of_extreme, _CHOOSES, Form.MOVE, lambda x: x.amax(_spatial(x), True)),
)
"""Means and maxima over windows or all positions."""

REDUCTIONS = by_name(
    _pool("ReduceMean", _average, _of_average, _FLOAT, Form.MEAN, torch_kernels.reducer("mean")),
    _pool(
        "ReduceSum",
        _total,
        _of_sum,
        _FLOAT,
        Form.SUM_OVER_AXES,
        torch_kernels.reducer("sum"),
        factor=lambda count: count,
    ),
    _pool("ReduceMax", gaussian.maximum, _of_extreme, _FLOAT, Form.EXTREME, torch_kernels.reducer("amax")),
    _pool("ReduceMin", _lowest, _of_extreme, _FLOAT, Form.EXTREME, torch_kernels.reducer("amin")),
)
"""The same over axes that the node names."""


def _resized(graph: Graph, node: Node, operands: Sequence[Pair | None]) -> list[Pair] | None:
    if operands[0] is None or _extrapolates(node):
        return None
    return [_pooled(*operands[0], _stretched(graph, node, operands[0][0].ndim))]


def _pooled(mean: Array, std: Array, over: tuple[int, ...]) -> Pair:
    """Moments of all values along some dimensions together."""
    mean, std = np.broadcast_arrays(mean, std)
    all_of_it = mean.mean(over, keepdims=True)
    spread = np.square(std).mean(over, keepdims=True) + np.square(mean - all_of_it).mean(over, keepdims=True)
    return all_of_it, np.sqrt(spread)


def _stretched(graph: Graph, node: Node, rank: int) -> tuple[int, ...]:
    """The dimensions along which a Resize mixes values: fields are constant there behind it."""
    if resizes_channels(graph, node):
        return tuple(range(rank))
    before, after = graph.shapes.get(node.inputs[0]), graph.shapes.get(node.outputs[0])
    if before is None or after is None or len(before) != rank:
        return tuple(range(2, rank))
    return tuple(d for d in range(1, rank) if before[d] is None or before[d] != after[d])


def overshoots(node: Node) -> bool:
    """Whether a node is a Resize whose values may lie beyond those of its input: cubic, or extrapolated.

    Example:
        >>> [overshoots(Node("Resize", ("x",), ("y",), {"mode": mode})) for mode in ("cubic", "linear")]
        [True, False]
    """
    return node.op == "Resize" and not node.domain and (_said(node, "mode") == "cubic" or _extrapolates(node))


def _extrapolates(node: Node) -> bool:
    return _said(node, "coordinate_transformation_mode") == "tf_crop_and_resize"


def _said(node: Node, key: str) -> str:
    value = node.attrs.get(key, "")
    return value.decode() if isinstance(value, bytes) else str(value)


def _resized_bound(graph: Graph, node: Node, ranges: Sequence[Range | None]) -> list[Range] | None:
    known = ranges[0]
    if known is None:
        return None
    over = _stretched(graph, node, known.lo.ndim)
    known = Range(known.lo.min(over, keepdims=True), known.hi.max(over, keepdims=True))
    if _said(node, "mode") == "cubic":
        known = _cubic(known, float(node.attrs.get("cubic_coeff_a", -0.75)), _resized_axes(graph, node))
    if _extrapolates(node):
        outside = float(node.attrs.get("extrapolation_value", 0.0))
        known = Range(np.minimum(known.lo, outside), np.maximum(known.hi, outside))
    return [known]


def _cubic(known: Range, a: float, axes: int) -> Range:
    """The four weights of cubic interpolation sum to 1, their magnitudes to at most 1 + |a|/2, along each axis."""
    beyond = ((1 + abs(a) / 2) ** axes - 1) / 2 * (known.hi - known.lo)
    return Range(known.lo - beyond, known.hi + beyond)


def _resized_axes(graph: Graph, node: Node) -> int:
    before, after = graph.shapes.get(node.inputs[0]), graph.shapes.get(node.outputs[0])
    if before is None or after is None:
        return 2
    return sum(a is None or b is None or a != b for a, b in zip(before[1:], after[1:], strict=False))


def _whole(known: Range) -> Range:
    return Range(known.lo.min(keepdims=True), known.hi.max(keepdims=True))


def _through_resize(node: Node, at: Backward) -> Gained | None:
    if resizes_channels(at.graph, node):
        return None
    behind = at.behind[node.outputs[0]]
    return [(node.inputs[0], behind.mean(_stretched(at.graph, node, behind.ndim), keepdims=True))]


def _along_channels(graph: Graph, node: Node, field: Array) -> str:
    a, b = graph.shapes.get(node.inputs[0]), graph.shapes.get(node.outputs[0])
    along = a is None or b is None or any(field.shape[d] > 1 and a[d] != b[d] for d in range(field.ndim))
    return "Resize along channels" if along else ""


def _interleaved(graph: Graph, node: Node, operands: Sequence[Pair | None]) -> list[Pair] | None:
    """An output channel is a mixture of the channels that it interleaves."""
    if operands[0] is None:
        return None
    mean, std = _pooled(*operands[0], tuple(range(2, operands[0][0].ndim)))
    if mean.size == 1:
        return [(mean, std)]
    means, stds = regrouped(node, mean), regrouped(node, std)
    first = means.mean(0)
    second = np.sqrt(np.maximum((np.square(means) + np.square(stds)).mean(0) - np.square(first), 0))
    shape = (1, -1) + (1,) * (mean.ndim - 2)
    return [(first.reshape(shape), second.reshape(shape))]


_interleaved_bound: BoundFacet = lambda graph, node, ranges: None if ranges[0] is None else [_whole(ranges[0])]


def _through_blocks(node: Node, at: Backward) -> Gained:
    x, behind = node.inputs[0], at.behind[node.outputs[0]]
    if x not in at.moments:
        return []
    behind = behind.mean(tuple(range(2, behind.ndim)), keepdims=True)
    places = np.arange(at.shape(x)[1]).reshape(1, -1, *[1] * (behind.ndim - 2))
    if places.size == 1:
        return [(x, behind.mean(keepdims=True))]
    blocks = regrouped(node, places)
    gain = np.zeros(places.size)
    gain[blocks] = np.broadcast_to(behind.reshape(-1) / blocks.shape[0], blocks.shape)
    return [(x, gain.reshape(places.shape))]


_ALONG, _GROUPS, _BETWEEN = Scales(Rule.PASSES, _along_channels), Scales(Rule.GROUPS), Grid(keeps=True)

BLOCKS = by_name(
    Operator(
        "Resize",
        _resized,
        _resized_bound,
        _through_resize,
        _ALONG,
        _BETWEEN,
        Form.RESIZE,
        torch_moves.resize,
        wide=True,
    ),
    Operator(
        "DepthToSpace",
        _interleaved,
        _interleaved_bound,
        _through_blocks,
        _GROUPS,
        _BETWEEN,
        Form.MOVE,
        torch_moves.depth_to_space,
    ),
)
"""Resize and DepthToSpace: values near one another mix, or channels become positions."""
