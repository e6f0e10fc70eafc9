"""Sums, products, quotients and comparisons of activations and constants, broadcast as in ONNX."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import reduce
from operator import add, mul, sub

import numpy as np

from ..ir.fields import constant_axes
from ..ir.model import Array, Graph, Name, Node, Range
from ..maths import gaussian
from .curves import image, self_gated
from .operator import Backward, Form, Gained, Grid, Operator, Pair, Rule, Scales, by_name
from .torch_kernels import divide, maximum, minimum


def adds(node: Node) -> bool:
    """Whether a node adds or subtracts its inputs: such results reach as far as their moments say."""
    return node.op in ("Add", "Sub", "Sum") and not node.domain


Known = Callable[[Graph, Node, list[Pair]], Pair | None]


def _all(known: Known) -> Callable[[Graph, Node, Sequence[Pair | None]], list[Pair] | None]:
    """Moments where those of all operands are known."""

    def moments(graph: Graph, node: Node, operands: Sequence[Pair | None]) -> list[Pair] | None:
        pairs = [p for p in operands if p is not None]
        found = known(graph, node, pairs) if len(pairs) == len(operands) else None
        return None if found is None else [found]

    return moments


def _sum(graph: Graph, node: Node, pairs: list[Pair]) -> Pair:
    """Different operands are independent; one that is there k times counts k times."""
    counts = Counter(i for i in node.inputs if i)
    each = dict(zip((i for i in node.inputs if i), pairs, strict=True))
    terms = [(k * each[i][0], k * each[i][1]) for i, k in counts.items()]
    return reduce(lambda a, b: (a[0] + b[0], np.hypot(a[1], b[1])), terms)


def _difference(graph: Graph, node: Node, pairs: list[Pair]) -> Pair:
    (ma, sa), (mb, sb) = pairs
    return ma - mb, np.hypot(sa, sb)


def _product(graph: Graph, node: Node, pairs: list[Pair]) -> Pair:
    own = _of_one(graph, node)
    return gaussian.product(*pairs) if own is None else gaussian.through(own[0], *pairs[node.inputs.index(own[1])])


def _of_one(graph: Graph, node: Node) -> tuple[Callable[[Array], Array], Name] | None:
    """A product of one value with itself or its gate: the function of it, and the value."""
    if node.inputs[0] == node.inputs[1]:
        return np.square, node.inputs[0]
    own = self_gated(graph, node)
    return None if own is None else own[:2]


def _quotient(graph: Graph, node: Node, pairs: list[Pair]) -> Pair | None:
    (ma, sa), (mb, sb) = pairs
    return None if np.any(sb) or np.any(mb == 0) else (ma / mb, sa / np.abs(mb))


def constant_bounds(graph: Graph, node: Node) -> tuple[Array, Array] | tuple[None, None]:
    """Between what a Max or Min of an activation and a constant lets values pass; None where both are activations."""
    bound = next((graph.constant(i) for i in node.inputs if i in graph.consts), None)
    if bound is None or len(node.inputs) != 2 or node.op not in ("Max", "Min"):
        return None, None
    known = bound.astype(np.float64)
    return (known, np.asarray(np.inf)) if node.op == "Max" else (np.asarray(-np.inf), known)


def _extreme(graph: Graph, node: Node, pairs: list[Pair]) -> Pair | None:
    lo, hi = constant_bounds(graph, node)
    if lo is None or hi is None:
        return None
    mean, std = np.broadcast_arrays(*pairs[0 if node.inputs[1] in graph.consts else 1])
    return gaussian.clipped(mean, std, lo, hi)


def _fold(
    combine: Callable[[Range, Range], Range],
) -> Callable[[Graph, Node, Sequence[Range | None]], list[Range] | None]:
    def bound(graph: Graph, node: Node, ranges: Sequence[Range | None]) -> list[Range] | None:
        every = [r for r in ranges if r is not None]
        return [reduce(combine, every)] if len(every) == len(ranges) else None

    return bound


def _corners(a: Range, b: Range) -> Range:
    products = [x * y for x in (a.lo, a.hi) for y in (b.lo, b.hi)]
    return Range(reduce(np.minimum, products), reduce(np.maximum, products))  # an end may be shared by all channels


def _product_bound(graph: Graph, node: Node, ranges: Sequence[Range | None]) -> list[Range] | None:
    own = _of_one(graph, node)
    known = None if own is None else ranges[node.inputs.index(own[1])]
    return [image(own[0], known)] if own is not None and known is not None else _fold(_corners)(graph, node, ranges)


def _quotient_bound(graph: Graph, node: Node, ranges: Sequence[Range | None]) -> list[Range] | None:
    a, b = ranges
    if a is None or b is None or np.any((b.lo <= 0) & (b.hi >= 0)):
        return None
    return [_corners(a, Range(1 / b.hi, 1 / b.lo))]


def _to_all(node: Node, at: Backward) -> Gained:
    return [(i, k**2 * at.behind[node.outputs[0]]) for i, k in Counter(node.inputs).items()]


def _through_products(node: Node, at: Backward) -> Gained:
    """E[other²] times the gain behind; E[(x·f(x))'²] where an activation gates itself."""
    behind, own = at.behind[node.outputs[0]], _of_one(at.graph, node)
    found = {name: behind * _settled(_square(at, node.inputs[1 - k]), behind) for k, name in enumerate(node.inputs)}
    if own is None or own[1] not in at.moments or any(len(at.graph.users(i)) > 1 for i in found if i != own[1]):
        return list(found.items())
    f, x = own
    return [*found.items(), (x, behind * gaussian.squared_slope(f, at.moments[x].mean, at.moments[x].std) - found[x])]


def _through_quotient(node: Node, at: Backward) -> Gained:
    behind = at.behind[node.outputs[0]]
    return [(node.inputs[0], behind * _settled(1 / np.maximum(_square(at, node.inputs[1]), 1e-30), behind))]


def _square(at: Backward, name: Name) -> Array:
    """E[x²] of an operand; 1 where nothing is known of it."""
    if name in at.moments:
        return np.square(at.moments[name].mean) + np.square(at.moments[name].std)
    constant = at.graph.constant(name)
    return np.ones(1) if constant is None else np.square(constant.astype(np.float64))


def _settled(square: Array, behind: Array) -> Array:
    """A constant's squares, averaged over positions that are one number in the gains behind."""
    axes = constant_axes(square, [behind.shape])
    return square.mean(axes, keepdims=True) if axes else square


def _through_extreme(node: Node, at: Backward) -> Gained:
    """The share of values that a constant bound lets through; all, where activations are compared."""
    lo, hi = constant_bounds(at.graph, node)
    if lo is None or hi is None:
        return _to_all(node, at)
    name = next(i for i in node.inputs if i not in at.graph.consts)
    m = at.moments.get(name)
    return [] if m is None else [(name, at.behind[node.outputs[0]] * gaussian.between(m.mean, m.std, lo, hi))]


def _constant_numerator(graph: Graph, node: Node, field: Array) -> str:
    return "a constant divided by it" if node.inputs[0] in graph.consts else ""


_ADDED = _fold(lambda a, b: Range(a.lo + b.lo, a.hi + b.hi))
_SUBTRACTED = _fold(lambda a, b: Range(a.lo - b.hi, a.hi - b.lo))
_TIES, _GATES = Scales(Rule.TIES), Scales(Rule.GATES)
_QUOTIENT = Scales(Rule.GATES, _constant_numerator)
_GREATEST = _fold(lambda a, b: Range(np.maximum(a.lo, b.lo), np.maximum(a.hi, b.hi)))
_LEAST = _fold(lambda a, b: Range(np.minimum(a.lo, b.lo), np.minimum(a.hi, b.hi)))
_INTEGER, _FLOAT = Grid(integer=True, constants=True), Grid()
_TOTAL, _COMPARED, _RATIO = _all(_sum), _all(_extreme), _all(_quotient)

ARITHMETIC = by_name(  # moments, bound, gain, scales, grid, steps, torch
    Operator("Add", _TOTAL, _ADDED, _to_all, _TIES, _INTEGER, Form.SUM, add, wide=True),
    Operator("Sum", _TOTAL, _ADDED, _to_all, _TIES, _FLOAT, Form.SUM, lambda *values: reduce(add, values), wide=True),
    Operator("Sub", _all(_difference), _SUBTRACTED, _to_all, _TIES, _FLOAT, Form.SUM, sub, wide=True),
    Operator(
        "Mul", _all(_product), _product_bound, _through_products, _GATES, _INTEGER, Form.PRODUCT, mul, multiplies=True
    ),
    Operator("Div", _RATIO, _quotient_bound, _through_quotient, _QUOTIENT, _FLOAT, Form.PRODUCT, divide, wide=True),
    Operator("Max", _COMPARED, _GREATEST, _through_extreme, _TIES, _FLOAT, Form.CLAMP, maximum),
    Operator("Min", _COMPARED, _LEAST, _through_extreme, _TIES, _FLOAT, Form.CLAMP, minimum),
)
