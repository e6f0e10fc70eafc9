"""Activations of two straight parts: ReLU, clips, and those that let a share of negative values pass."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..ir.model import Array, Graph, Moments, Node, Range
from ..maths import gaussian
from .attributes import clip_bounds
from .lazy_torch import functional, torch
from .operator import Backward, Form, Gained, Grid, Operator, Pair, Rule, Scales, Torch, by_name


def is_clamp(graph: Graph, node: Node | None) -> bool:
    """Whether the node is a Relu or Clip with constant bounds, which a quantizer's saturation can do."""
    return clamps(node) and all(b is not None for b in clip_bounds(graph, node))  # type: ignore[arg-type]


def clamps(node: Node | None) -> bool:
    """Whether the node is a Relu or Clip, whatever its bounds."""
    return node is not None and not node.domain and node.op in ("Relu", "Clip")


def is_clip(node: Node | None) -> bool:
    """Whether the node is a Clip, whose bounds, unlike a Relu's, may differ by channel."""
    return node is not None and not node.domain and node.op == "Clip"


def has_shared_bound(graph: Graph, node: Node) -> bool:
    """Whether the node is a Clip with one finite upper (or nonzero lower) bound for all channels."""
    if node.op != "Clip" or node.domain or not graph.is_float(node.outputs[0]):
        return False
    lo, hi = clip_bounds(graph, node)
    if lo is None or hi is None or lo.size > 1 or hi.size > 1:
        return False
    return bool(np.isfinite(hi)) or bool(np.isfinite(lo) and lo != 0)


def negative_slope(graph: Graph, node: Node | None) -> Array | None:
    """The share of negative values that a leaky activation lets pass; None of other nodes, or where it is computed."""
    if node is None or node.domain or node.op not in ("LeakyRelu", "PRelu"):
        return None
    return np.asarray(node.attrs.get("alpha", 0.01)) if node.op == "LeakyRelu" else graph.constant(node.inputs[1])


def _clamped(graph: Graph, node: Node, operands: Sequence[Pair | None]) -> list[Pair] | None:
    lo, hi = clip_bounds(graph, node)
    return None if lo is None or hi is None or operands[0] is None else [gaussian.clipped(*operands[0], lo, hi)]


def _clamped_bound(graph: Graph, node: Node, ranges: Sequence[Range | None]) -> list[Range] | None:
    low, high = clip_bounds(graph, node)
    if low is None or high is None or ranges[0] is None:
        return None
    return [Range(np.clip(ranges[0].lo, low, high), np.clip(ranges[0].hi, low, high))]


def _leaky(graph: Graph, node: Node, operands: Sequence[Pair | None]) -> list[Pair] | None:
    slope = negative_slope(graph, node)
    return None if slope is None or operands[0] is None else [gaussian.leaky(*operands[0], slope)]


def _leaky_bound(graph: Graph, node: Node, ranges: Sequence[Range | None]) -> list[Range] | None:
    slope = negative_slope(graph, node)
    if slope is None or ranges[0] is None:
        return None
    ends = [np.where(e > 0, e, slope * e) for e in (ranges[0].lo, ranges[0].hi)]
    return [Range(np.minimum(np.minimum(*ends), 0), np.maximum(*ends))]


def squared_slope(graph: Graph, node: Node, m: Moments) -> Array:
    """Mean squared slope over values of these moments; of a ReLU or clip, the share of them that is let through."""
    if node.op in ("Relu", "Clip"):
        lo, hi = clip_bounds(graph, node)
        return np.ones(m.mean.shape) if lo is None or hi is None else gaussian.between(m.mean, m.std, lo, hi)
    slope = negative_slope(graph, node)
    above = gaussian.between(m.mean, m.std, 0.0, np.inf)
    return np.asarray(above + np.square(1.0 if slope is None else slope) * (1 - above))


def _gain(node: Node, at: Backward) -> Gained:
    x = node.inputs[0]
    return [(x, at.behind[node.outputs[0]] * squared_slope(at.graph, node, at.moments[x]))] if x in at.moments else []


def _computed_slope(graph: Graph, node: Node, field: Array) -> str:
    return "" if node.inputs[1] in graph.consts else "PRelu with a computed slope"


_torch_clip: Torch = lambda x, low=None, high=None: x if low is None and high is None else torch.clamp(x, low, high)
_torch_leaky: Torch = lambda x, *, alpha=0.01: functional.leaky_relu(x, alpha)
_torch_prelu: Torch = lambda x, slope: torch.where(x >= 0, x, slope * x)
_PASSES, _FUSED, _INTEGER = Scales(Rule.PASSES), Grid(fused=True), Grid(integer=True, applied=True)
_SLOPES = Scales(Rule.PASSES, _computed_slope)

ACTIVATIONS = by_name(  # moments, bound, gain, scales, grid, steps, torch
    Operator("Relu", _clamped, _clamped_bound, _gain, _PASSES, _FUSED, Form.CLAMP, lambda x: x.relu()),
    Operator("Clip", _clamped, _clamped_bound, _gain, Scales(Rule.CLIPS), _FUSED, Form.CLAMP, _torch_clip),
    Operator("LeakyRelu", _leaky, _leaky_bound, _gain, _PASSES, _INTEGER, Form.TABLE, _torch_leaky),
    Operator("PRelu", _leaky, _leaky_bound, _gain, _SLOPES, _INTEGER, Form.TABLE, _torch_prelu),
)
