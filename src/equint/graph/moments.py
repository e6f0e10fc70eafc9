"""Mean and spread of every tensor of a network, from what BatchNorm knows and from propagation.

BatchNorm's β and |γ| are the mean and standard deviation of what it puts out; everything else follows from
those by the formulas of `maths/gaussian.py`, channel by channel, taking different tensors as independent and a
layer's inputs as nearly so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod

import numpy as np
from scipy.special import expit, ndtr

from ..ir.fields import MOVES, aligned, channel_means, moved, regrouped, stacked
from ..ir.model import Array, Graph, Moments, Name, Node, Range
from ..ir.weights import Layer, as_layer, layer_coverage
from ..maths import gaussian
from ..ops.attributes import clip_bounds, reduced_axes, resizes_channels

_CURVES: Mapping[str, Callable[[Node], Callable[[Array], Array]]] = {
    "Sigmoid": lambda node: expit,
    "Tanh": lambda node: np.tanh,
    "HardSigmoid": lambda node: _hard_sigmoid(node.attrs.get("alpha", 0.2), node.attrs.get("beta", 0.5)),
    "HardSwish": lambda node: lambda x: x * _hard_sigmoid(1 / 6, 0.5)(x),
    "Elu": lambda node: lambda x: np.where(x > 0, x, node.attrs.get("alpha", 1.0) * np.expm1(np.minimum(x, 0))),
    "Softplus": lambda node: lambda x: np.logaddexp(0, x),
    "Exp": lambda node: lambda x: np.exp(np.minimum(x, 80)),
    "Sqrt": lambda node: lambda x: np.sqrt(np.maximum(x, 0)),
    "Abs": lambda node: np.abs,
    "Neg": lambda node: np.negative,
    "Gelu": lambda node: lambda x: x * ndtr(x),
    "Mish": lambda node: lambda x: x * np.tanh(np.logaddexp(0, x)),
}
KNOWN = frozenset(_CURVES) | {"Softmax"}
"""Activation functions, beside the piecewise linear ones, whose moments and ranges are known."""

_BOUNDED = frozenset(["Relu", "Clip", "LeakyRelu", "PRelu", "MaxPool", "Concat", "Mul", "Max", "Min", "DepthToSpace"])
"""Operators whose output range follows from their input's ranges better than from moments."""

Pair = tuple[Array, Array]

CORRELATION = 0.1
"""How far a layer's inputs are from independent (0) towards fully correlated (1): measured, docs/moments.md."""
PIXEL_CORRELATION = 0.9
"""Correlation of neighbouring pixels of a network's input."""


def propagate(graph: Graph, known: Mapping[Name, Moments]) -> dict[Name, Moments]:
    """Moments of every tensor that can be had from `known` (graph inputs and BatchNorm outputs).

    Entries of `known` whose source is not "propagated" are kept as they are.

    Example:
        >>> relu = Node("Relu", ("x",), ("y",))
        >>> graph = Graph((relu,), {}, ("x",), ("y",), {"x": ("N", 1), "y": ("N", 1)})
        >>> given = {"x": Moments(np.zeros((1, 1)), np.ones((1, 1)), "given")}
        >>> round(float(propagate(graph, given)["y"].mean[0, 0]), 4)
        0.3989
    """
    table = {n: m for n, m in known.items() if m.source != "propagated"}
    for node in graph.nodes:
        missing = [o for o in node.outputs if o and o not in table]
        if not missing or node.domain:
            continue
        with np.errstate(all="ignore"):
            found = _outputs(graph, node, table)
        for name, pair in zip(node.outputs, found or [], strict=False):
            if name in missing and all(np.all(np.isfinite(a)) for a in pair):
                table[name] = Moments(*pair)
    return table


def heavy_tailed(graph: Graph, moments: Mapping[Name, Moments]) -> frozenset[Name]:
    """Tensors that may reach far beyond what their moments say.

    Sums over many channels are well-behaved; averages and depthwise layers see one channel at neighbouring
    positions, which are alike, so rare large values stay large, and products make them larger. A BatchNorm behind
    them ends the doubt.

    Example:
        >>> pool = Node("GlobalAveragePool", ("x",), ("y",))
        >>> given = {"x": Moments(np.zeros((1, 4, 1, 1)), np.ones((1, 4, 1, 1)), "given")}
        >>> graph = Graph((pool,), {}, ("x",), ("y",), {"x": ("N", 4, 7, 7)})
        >>> sorted(heavy_tailed(graph, propagate(graph, given)))
        ['y']
    """
    found = set[Name]()
    for node in graph.nodes:
        layer = as_layer(graph, node)
        if layer is not None:
            doubtful = layer.unpack(graph.consts[layer.weight]).shape[2] == 1
        else:
            averages = node.op in ("AveragePool", "GlobalAveragePool", "ReduceMean")
            products = node.op == "Mul" and all(i in moments for i in node.inputs) and _self_gated(graph, node) is None
            doubtful = averages or products or any(i in found for i in node.inputs)
        if doubtful:
            found.update(o for o in node.outputs if o in moments and moments[o].source == "propagated")
    return frozenset(found)


def _outputs(graph: Graph, node: Node, table: Mapping[Name, Moments]) -> list[Pair] | None:
    layer = as_layer(graph, node)
    if layer is not None:
        return _layer(graph, layer, table.get(layer.x))
    operands = [_operand(graph, i, table) for i in node.inputs if i]
    if not operands or operands[0] is None:
        return None
    mean, std = operands[0]
    if node.op in ("Add", "Sub", "Sum", "Mul", "Div", "Max", "Min"):
        return _combined(graph, node, operands)
    if node.op == "Concat":
        pairs = [p for p in operands if p is not None]
        if len(pairs) < len(node.inputs):
            return None
        means, stds = (stacked(graph, node, [p[k] for p in pairs]) for k in (0, 1))
        return None if means is None or stds is None else [(means, stds)]
    if node.op in MOVES:
        means_, stds_ = moved(graph, node, mean), moved(graph, node, std)
        return None if means_ is None or stds_ is None else list(zip(means_, stds_, strict=True))
    if node.op in ("Relu", "Clip"):
        lo, hi = clip_bounds(graph, node)
        return None if lo is None or hi is None else [gaussian.clipped(mean, std, lo, hi)]
    if node.op in ("LeakyRelu", "PRelu"):
        slope = node.attrs.get("alpha", 0.01) if node.op == "LeakyRelu" else graph.constant(node.inputs[1])
        return None if slope is None else [gaussian.leaky(mean, std, slope)]
    if node.op in _CURVES:
        return [gaussian.through(_CURVES[node.op](node), mean, std)]
    if node.op == "Softmax":
        return [(np.full_like(mean, 0.5), np.full_like(std, 0.3))]
    if node.op in ("AveragePool", "MaxPool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax"):
        return _pooled(graph, node, mean, std)
    if node.op == "Resize":
        if not resizes_channels(graph, node):
            return [(mean, std)]
        all_of_it = mean.mean(keepdims=True)
        return [
            (all_of_it, np.sqrt(np.square(std).mean(keepdims=True) + np.square(mean - all_of_it).mean(keepdims=True)))
        ]
    if node.op == "DepthToSpace":
        return [_regrouped(node, mean, std)]
    return None


def _operand(graph: Graph, name: Name, table: Mapping[Name, Moments]) -> Pair | None:
    """Moments of an activation, or a constant as a variable without spread."""
    if name in table:
        return table[name].mean, table[name].std
    constant = graph.constant(name)
    return None if constant is None else (constant.astype(np.float64), np.zeros(1))


def _layer(graph: Graph, layer: Layer, x: Moments | None) -> list[Pair] | None:
    if x is None:
        return None
    mean, std = layer_moments(graph, layer, x)
    rank = graph.rank(layer.y) or x.mean.ndim
    return [(aligned(mean, layer.y_axis, rank), aligned(std, layer.y_axis, rank))]


def layer_moments(
    graph: Graph, layer: Layer, x: Moments, correlation: float = CORRELATION, pixels: float = PIXEL_CORRELATION
) -> Pair:
    """Mean and standard deviation `(O,)` of a layer's output for inputs `x`.

    mean_o = b_o + Σ_i E[x_i]·Σ_k W_oik·c_k, c_k being the share of positions where tap k meets the input.
    Independent inputs would give var_o = Σ_i Var[x_i]·Σ_k W_oik²·c_k, fully correlated ones
    std_o ≤ Σ_i σ_i·Σ_k |W_oik|·c_k; the result lies between, at independent^(1−c)·correlated^c.
    The network's own input is an image: its neighbouring pixels are strongly correlated.
    """
    w = layer.unpack(graph.consts[layer.weight]).astype(np.float64)
    g, o, i, _ = w.shape
    share = layer_coverage(graph, layer)
    mean_x = channel_means(x.mean, layer.x_axis, g * i).reshape(g, i)
    std_x = channel_means(x.std, layer.x_axis, g * i).reshape(g, i)
    mean = np.einsum("goi,gi->go", w @ share, mean_x).reshape(-1)
    energy = np.square(w) @ share
    if layer.x in graph.inputs:
        energy = (1 - pixels) * energy + pixels * np.square(w @ share)
    apart = np.sqrt(np.einsum("goi,gi->go", energy, np.square(std_x))).reshape(-1)
    together = np.einsum("goi,gi->go", np.abs(w) @ share, std_x).reshape(-1)
    if layer.bias:
        mean = mean + graph.consts[layer.bias].reshape(-1)
    return mean, apart ** (1 - correlation) * together**correlation


def expected_input(graph: Graph, layer: Layer, x: Moments) -> Array:
    """E[x_i] of a layer's input channels, `(I,)`.

    Example:
        >>> from ..ir.weights import layers, tiny_graph
        >>> graph = tiny_graph()
        >>> expected_input(graph, next(layers(graph)), Moments(np.ones((1, 1, 1, 1)), np.ones((1, 1, 1, 1)))).tolist()
        [1.0, 1.0, 1.0, 1.0]
    """
    return channel_means(x.mean, layer.x_axis, layer.channels(graph.consts[layer.weight])[0])


def _combined(graph: Graph, node: Node, operands: list[Pair | None]) -> list[Pair] | None:
    pairs = [p for p in operands if p is not None]
    if len(pairs) < len(operands):
        return None
    if node.op in ("Mul", "Div") and (own := _self_gated(graph, node)) is not None:
        curve, name = own
        base = dict(zip([i for i in node.inputs if i], pairs, strict=True))[name]
        return [gaussian.through(lambda x: x * curve(x), *base)]
    if node.op == "Div":
        (ma, sa), (mb, sb) = pairs
        return None if np.any(sb) or np.any(mb == 0) else [(ma / mb, sa / np.abs(mb))]
    if node.op in ("Max", "Min"):
        pairs.sort(key=lambda pair: not np.any(pair[1]))  # the constant, if there is one, comes last
        if len(pairs) != 2 or np.any(pairs[1][1]):
            return None
        (ma, sa), (bound, _) = pairs
        mean, std = np.broadcast_arrays(ma, sa)
        lo, hi = (bound, np.asarray(np.inf)) if node.op == "Max" else (np.asarray(-np.inf), bound)
        return [gaussian.clipped(mean, std, lo, hi)]
    if node.op == "Mul" and node.inputs[0] == node.inputs[1]:
        return [gaussian.through(np.square, *pairs[0])]
    total = pairs[0]
    for other in pairs[1:]:
        if node.op == "Mul":
            total = gaussian.product(total, other)
        else:
            sign = -1.0 if node.op == "Sub" else 1.0
            total = total[0] + sign * other[0], np.hypot(total[1], other[1])
    return [total]


def _self_gated(graph: Graph, node: Node) -> tuple[Callable[[Array], Array], Name] | None:
    """x · f(x), as in SiLU and hand-written HardSwish: the curve f and the name of x."""
    for gate, x in (node.inputs[:2], node.inputs[1::-1]):
        made_by = graph.producer.get(gate)
        if node.op == "Mul" and made_by is not None and made_by.op in _CURVES and made_by.inputs[0] == x:
            return _CURVES[made_by.op](made_by), x
    return None


def window(graph: Graph, node: Node) -> float:
    """How many positions a pooling operator looks at; 49 where the spatial size is unknown."""
    if node.op in ("AveragePool", "MaxPool"):
        return float(prod(node.attrs["kernel_shape"]))
    shape = graph.shapes.get(node.inputs[0])
    rank = graph.rank(node.inputs[0]) or 4
    axes = list(range(2, rank)) if node.op.startswith("Global") else reduced_axes(graph, node, rank) or []
    sizes = [shape[a] if shape else None for a in axes]
    return float(prod(s if isinstance(s, int) else 7 for s in sizes))


def _pooled(graph: Graph, node: Node, mean: Array, std: Array) -> list[Pair] | None:
    count = window(graph, node)
    if node.op.startswith("Reduce"):
        axes = reduced_axes(graph, node, mean.ndim)
        if axes is None:
            return None
        mean, std = mean.mean(tuple(axes), keepdims=True), np.sqrt(np.square(std).mean(tuple(axes), keepdims=True))
        if not node.attrs.get("keepdims", 1):
            mean, std = (a.reshape([n for d, n in enumerate(a.shape) if d not in axes]) for a in (mean, std))
    if "Max" in node.op:
        return [gaussian.maximum(mean, std, count)]
    return [(mean, gaussian.averaged(std, count))]


def _regrouped(node: Node, mean: Array, std: Array) -> Pair:
    """DepthToSpace: an output channel is a mixture of the channels that it interleaves."""
    mean, std = np.broadcast_arrays(mean, std)
    if mean.size == 1:
        return mean, std
    means, stds = regrouped(node, mean), regrouped(node, std)
    first = means.mean(0)
    second = np.sqrt(np.maximum((np.square(means) + np.square(stds)).mean(0) - np.square(first), 0))
    shape = (1, -1) + (1,) * (mean.ndim - 2)
    return first.reshape(shape), second.reshape(shape)


def _hard_sigmoid(alpha: float, beta: float) -> Callable[[Array], Array]:
    return lambda x: np.clip(alpha * x + beta, 0, 1)


def reach(graph: Graph, moments: Mapping[Name, Moments], given: Mapping[Name, Range], n: float) -> dict[Name, Range]:
    """Range of every tensor, per channel: mean ± n·std, no further than its operator can put out.

    Non-linearities map the ends of their input's range, sums are bounded by the sum of their operands'
    ranges, poolings and moves by their input's. `given` (the network's inputs) is kept.

    Example:
        >>> relu = Node("Relu", ("x",), ("y",))
        >>> graph = Graph((relu,), {}, ("x",), ("y",), {"x": ("N", 1), "y": ("N", 1)})
        >>> m = propagate(graph, {"x": Moments(np.zeros((1, 1)), np.ones((1, 1)), "given")})
        >>> r = reach(graph, m, {}, 6.0)["y"]
        >>> float(r.lo[0, 0]), float(r.hi[0, 0])
        (0.0, 6.0)
    """
    table = dict(given)
    for name in graph.inputs:
        if name not in table and name in moments:
            table[name] = _spread(moments[name], n)
    for node in graph.nodes:
        for position, name in enumerate(node.outputs):
            if name and name not in table:
                with np.errstate(all="ignore"):
                    bound = _bound(graph, node, position, table)
                spread = _spread(moments[name], n) if name in moments else None
                found = _meet(node, spread, bound)
                if found is not None and np.all(np.isfinite(found.lo)) and np.all(np.isfinite(found.hi)):
                    table[name] = found
    return table


def _spread(m: Moments, n: float) -> Range:
    return Range(m.mean - n * m.std, m.mean + n * m.std)


def _meet(node: Node, spread: Range | None, bound: Range | None) -> Range | None:
    """Where both are known: the bound alone behind a non-linearity or a move, else their intersection."""
    if bound is None or spread is None:
        return bound or spread
    if node.op in MOVES | KNOWN | _BOUNDED:
        return bound
    return Range(
        np.maximum(bound.lo, np.minimum(spread.lo, bound.hi)), np.minimum(bound.hi, np.maximum(spread.hi, bound.lo))
    )


def _bound(graph: Graph, node: Node, position: int, table: Mapping[Name, Range]) -> Range | None:
    """What interval arithmetic says of an operator's output."""
    if node.domain or as_layer(graph, node) is not None:
        return None
    ranges = [_range_of(graph, i, table) for i in node.inputs if i]
    if not ranges or ranges[0] is None:
        return Range(np.zeros(1), np.ones(1)) if node.op in ("Sigmoid", "HardSigmoid", "Softmax") else None
    lo, hi = ranges[0].lo, ranges[0].hi
    if node.op in ("Add", "Sub", "Sum", "Mul", "Max", "Min", "Concat"):
        every = [r for r in ranges if r is not None]
        return _joint_bound(graph, node, every) if len(every) == len(ranges) else None
    if node.op in MOVES:
        los, his = moved(graph, node, lo), moved(graph, node, hi)
        return None if los is None or his is None else Range(los[position], his[position])
    if node.op in ("Relu", "Clip"):
        low, high = clip_bounds(graph, node)
        return None if low is None or high is None else Range(np.clip(lo, low, high), np.clip(hi, low, high))
    if node.op in ("LeakyRelu", "PRelu"):
        slope = np.asarray(node.attrs.get("alpha", 0.01)) if node.op == "LeakyRelu" else graph.constant(node.inputs[1])
        if slope is None:
            return None
        ends = [np.where(e > 0, e, slope * e) for e in (lo, hi)]
        return Range(np.minimum(np.minimum(*ends), 0), np.maximum(*ends))
    if node.op == "Softmax":
        return Range(np.zeros_like(lo), np.ones_like(hi))
    if node.op in _CURVES:
        values = _CURVES[node.op](node)(np.linspace(lo, hi, 65))
        return Range(values.min(0), values.max(0))
    same = node.op == "Resize" and not resizes_channels(graph, node)
    if same or node.op in ("AveragePool", "MaxPool", "GlobalAveragePool", "GlobalMaxPool"):
        return Range(lo, hi)
    if node.op in ("DepthToSpace", "Resize"):
        return Range(lo.min(keepdims=True), hi.max(keepdims=True))
    return None


def _range_of(graph: Graph, name: Name, table: Mapping[Name, Range]) -> Range | None:
    if name in table:
        return table[name]
    constant = graph.constant(name)
    return None if constant is None else Range(constant.astype(np.float64), constant.astype(np.float64))


def _joint_bound(graph: Graph, node: Node, ranges: list[Range]) -> Range | None:
    if node.op == "Concat":
        lo, hi = (stacked(graph, node, ends) for ends in ([r.lo for r in ranges], [r.hi for r in ranges]))
        return None if lo is None or hi is None else Range(lo, hi)
    if node.op == "Mul" and (own := _self_gated(graph, node)) is not None:
        base = dict(zip(node.inputs, ranges, strict=True))[own[1]]
        points = np.linspace(base.lo, base.hi, 129)
        values = points * own[0](points)
        return Range(values.min(0), values.max(0))
    total = ranges[0]
    for r in ranges[1:]:
        if node.op == "Mul":
            corners = [a * b for a in (total.lo, total.hi) for b in (r.lo, r.hi)]
            total = Range(np.minimum.reduce(corners), np.maximum.reduce(corners))
        elif node.op == "Sub":
            total = Range(total.lo - r.hi, total.hi - r.lo)
        elif node.op in ("Max", "Min"):
            pick = np.maximum if node.op == "Max" else np.minimum
            total = Range(pick(total.lo, r.lo), pick(total.hi, r.hi))
        else:
            total = Range(total.lo + r.lo, total.hi + r.hi)
    return total
