"""Normalizations: over which values each takes its statistics, and what it makes of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np

from ..ir.model import Array, Graph, Node, Shape


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
