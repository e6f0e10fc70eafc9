"""Normalizations: over which values each takes its statistics, and what it makes of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from ..ir.model import Array, Graph, Node, Range, Shape
from . import torch_norms
from .operator import Form, Grid, Operator, Pair, Rule, Scales, Unknown, by_name


@dataclass(frozen=True)
class Norm:
    """gain·(x − mean)/√(variance + epsilon) + bias.

    Attributes:
        axes: over which mean and variance are taken; of groups of channels and all positions where `groups` is not 0.
        centred: whether the mean is subtracted; else it counts as 0 in the variance too.
        gain, bias: broadcast against the tensor.
    """

    axes: tuple[int, ...]
    groups: int
    centred: bool
    epsilon: float
    gain: Array
    bias: Array


def norm_of(graph: Graph, node: Node, shape: Shape) -> Norm | None:
    """What a node normalizes whose input has this shape; None of others, and where constants or sizes are unknown.

    Example:
        >>> node = Node("LayerNormalization", ("x", "scale"), ("y",), {"axis": -2})
        >>> norm = norm_of(Graph((node,), {"scale": np.ones((4, 6))}, ("x",), ("y",)), node, ("N", 3, 4, 6))
        >>> norm.axes, norm.epsilon
        ((2, 3), 1e-05)
    """
    known = None if node.domain else NORMS.get(node.op)
    arrays = [graph.constant(i) for i in node.inputs[1:] if i]
    return None if known is None or any(a is None for a in arrays) else known(node, shape, *arrays)


def _last(node: Node, shape: Shape, gain: Array, bias: Array | None = None) -> Norm:
    axes = tuple(range(int(node.attrs.get("axis", -1)) % len(shape), len(shape)))
    centred, epsilon = node.op != "RMSNormalization", float(node.attrs.get("epsilon", 1e-5))
    return Norm(axes, 0, centred, epsilon, *_real(gain, np.zeros(1) if bias is None else bias))


def _positions(node: Node, shape: Shape, gain: Array, bias: Array) -> Norm:
    column = (-1, *[1] * (len(shape) - 2))
    epsilon = float(node.attrs.get("epsilon", 1e-5))
    return Norm(tuple(range(2, len(shape))), 0, True, epsilon, *_real(gain.reshape(column), bias.reshape(column)))


def _groups(node: Node, shape: Shape, gain: Array, bias: Array) -> Norm | None:
    groups, channels, column = int(node.attrs["num_groups"]), shape[1], (-1, *[1] * (len(shape) - 2))
    if not isinstance(channels, int):
        return None
    each = [np.repeat(a, channels // a.size).reshape(column) for a in (gain, bias)]  # of groups before opset 21
    return Norm((), groups, True, float(node.attrs.get("epsilon", 1e-5)), *_real(*each))


def _length(node: Node, shape: Shape) -> Norm | None:
    axis = int(node.attrs.get("axis", -1)) % len(shape)
    size = shape[axis]
    if int(node.attrs.get("p", 2)) != 2 or not isinstance(size, int):
        return None
    return Norm((axis,), 0, False, 0.0, np.full(1, size**-0.5), np.zeros(1))


def _named(node: Node, shape: Shape) -> Norm | None:
    axes = tuple(int(a) % len(shape) for a in node.attrs.get("axes", (0, 2, 3)))
    known = prod(n if isinstance(n, int) else 0 for n in (shape[a] for a in axes))
    return Norm(axes, 0, True, 0.0, np.ones(1), np.zeros(1)) if known else None


def _real(*arrays: Array) -> list[Array]:
    return [a.astype(np.float64) for a in arrays]


NORMS: Mapping[str, Callable[..., Norm | None]] = {
    "LayerNormalization": _last,
    "RMSNormalization": _last,
    "InstanceNormalization": _positions,
    "GroupNormalization": _groups,
    "LpNormalization": _length,
    "MeanVarianceNormalization": _named,
}
"""By name: what makes a `Norm` of a node, its input's shape and its constants."""


@dataclass(frozen=True)
class Gains:
    """The constants of a normalization, one for each channel of what it gives: they take up the channels' scales.

    Attributes:
        axis: of the channels; positions: of these constants among the node's inputs, gains first.
    """

    axis: int
    positions: tuple[int, ...]
    gain: Array  # `(C,)`
    bias: Array


def gains_of(graph: Graph, node: Node) -> Gains | None:
    """Gains and biases of a normalization that has one of each for every channel; None where it has not.

    Example:
        >>> node = Node("LayerNormalization", ("x", "scale"), ("y",))
        >>> graph = Graph((node,), {"scale": np.full(6, 2.0)}, ("x",), ("y",), {"x": ("N", 3, 6)})
        >>> found = gains_of(graph, node)
        >>> found.axis, found.positions, found.bias.tolist()
        (2, (1,), [0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    """
    shape = graph.shapes.get(node.inputs[0]) if node.inputs else None
    norm = None if not shape or node.domain or node.op not in _AFFINE else norm_of(graph, node, shape)
    if shape is None or norm is None:
        return None
    last = node.op in ("LayerNormalization", "RMSNormalization")
    axis = len(shape) - 1 if last else 1
    constants = [graph.consts[i] for i in node.inputs[1:] if i]
    if (last and norm.axes != (axis,)) or any(c.size != shape[axis] for c in constants):
        return None
    bias = constants[1] if len(constants) > 1 else np.zeros(constants[0].size)
    positions = tuple(k for k, name in enumerate(node.inputs) if k and name)
    return Gains(axis, positions, *_real(constants[0].reshape(-1), bias.reshape(-1)))


_AFFINE = ("LayerNormalization", "RMSNormalization", "InstanceNormalization", "GroupNormalization")


def _over(norm: Norm, field: Array) -> Array:
    """Mean of a field over what is normalized together, as a field; of groups once for each of their channels."""
    if not norm.groups:
        return np.asarray(field.mean(norm.axes, keepdims=True))
    channels, batch = norm.gain.size, field.shape[0]
    each = np.broadcast_to(field, (batch, channels, *field.shape[2:])).reshape(batch, norm.groups, -1).mean(2)
    return np.repeat(each, channels // norm.groups, 1).reshape(batch, channels, *[1] * (field.ndim - 2))


def _statistics(norm: Norm, mean: Array, std: Array) -> Pair:
    """Mean and deviation by which values of these moments are normalized, as fields of theirs."""
    mean, std = np.broadcast_arrays(mean, std)
    middle = _over(norm, mean) if norm.centred else np.zeros((1,) * mean.ndim)
    power = _over(norm, np.square(std) + np.square(mean - middle))
    return middle, np.maximum(np.sqrt(power + norm.epsilon), TINY)


def _told(graph: Graph, node: Node) -> tuple[Norm, Shape] | tuple[None, None]:
    """What a node does, where channels and moments can tell of it: its gains do not differ by position."""
    shape = graph.shapes.get(node.inputs[0])
    norm = None if shape is None else norm_of(graph, node, shape)
    if shape is None or norm is None or (len(norm.axes) > 1 and norm.gain.ndim > 1 and norm.gain.shape[-1] > 1):
        return None, None
    return norm, shape


def _moments(graph: Graph, node: Node, operands: Sequence[Pair | None]) -> list[Pair] | None:
    """γ·(μ − m)/s + β and |γ|·σ/s, m and s² being what the channels' moments give for those it takes together."""
    (norm, shape), known = _told(graph, node), operands[0]
    if norm is None or shape is None or known is None:
        return None
    mean, std = (_lifted(a, shape) for a in known)
    middle, deviation = _statistics(norm, mean, std)
    return [(norm.gain * (mean - middle) / deviation + norm.bias, np.abs(norm.gain) * std / deviation)]


def _lifted(field: Array, shape: Shape) -> Array:
    return field.reshape((1,) * (len(shape) - field.ndim) + field.shape)


TINY = 1e-15
"""What a deviation is at least."""


def _bound(graph: Graph, node: Node, ranges: Sequence[Range | None]) -> list[Range] | None:
    """One value of n is at most √(n − 1) deviations from their mean, and √n from 0."""
    norm, shape = _told(graph, node)
    count = None if norm is None or shape is None else _count(norm, shape)
    if norm is None or shape is None or count is None:
        return None
    reach = np.abs(norm.gain) * np.sqrt(count - 1 if norm.centred else count)
    return [Range(_lifted(norm.bias - reach, shape), _lifted(norm.bias + reach, shape))]


def _count(norm: Norm, shape: Shape) -> int | None:
    """How many values are taken together; None where that is not known."""
    sizes = [shape[a] for a in (range(1, len(shape)) if norm.groups else norm.axes)]
    known = [n for n in sizes if isinstance(n, int)]
    return prod(known) // max(norm.groups, 1) if len(known) == len(sizes) else None


def _without_gains(graph: Graph, node: Node, field: Array) -> str:
    return "" if gains_of(graph, node) is not None else f"{node.op} without a gain for each channel"


_STATISTICS = Unknown("noise changes its statistics too")
_MIXES = Unknown("it mixes channels of different scales, and has no gains")


def _norm(name: str, torch: Callable[..., object]) -> Operator:
    scales = Scales(Rule.GAINS, _without_gains) if name in _AFFINE else Unknown("it mixes channels, and has no gains")
    return Operator(name, _moments, _bound, _STATISTICS, scales, Grid(), Form.NORMALIZE, torch, wide=True)


_MANY = Unknown("it takes samples together, and nothing is known of how many there are")

NORMALIZATIONS = by_name(
    _norm("LayerNormalization", torch_norms.layer),
    _norm("RMSNormalization", torch_norms.root_mean_square),
    _norm("InstanceNormalization", torch_norms.instance),
    _norm("GroupNormalization", torch_norms.group),
    _norm("LpNormalization", torch_norms.length),
    Operator(
        "MeanVarianceNormalization", _MANY, _MANY, _MANY, _MIXES, Grid(), Form.NORMALIZE, torch_norms.mean_variance
    ),
)
"""Each with gains and biases of its own, or none."""
