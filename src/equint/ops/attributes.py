"""What an operator's attributes and constant inputs say, whichever way the standard has spelled them."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from ..ir.model import Array, Dim, Graph, Node


def clip_bounds(graph: Graph, node: Node) -> tuple[Array | None, Array | None]:
    """Lower and upper bound of a Relu or Clip; infinite where absent, None where computed."""
    if node.op == "Relu":
        return np.asarray(0.0), np.asarray(np.inf)
    bounds: list[Array | None] = []
    for position, absent in ((1, -np.inf), (2, np.inf)):
        name = node.inputs[position] if len(node.inputs) > position else ""
        value = np.asarray(absent) if not name else graph.constant(name)
        if value is not None:
            value = value.astype(np.float64)
            value = np.where(np.abs(value) >= np.finfo(np.float32).max, np.copysign(np.inf, value), value)
            value = value.reshape(()) if value.size == 1 else value
        bounds.append(value)
    return bounds[0], bounds[1]


def reduced_axes(graph: Graph, node: Node, rank: int) -> list[int] | None:
    """The axes of a ReduceMean/ReduceMax, from attribute or input; None where computed."""
    axes = node.attrs.get("axes")
    if axes is None and len(node.inputs) > 1 and node.inputs[1]:
        constant = graph.constant(node.inputs[1])
        if constant is None:
            return None
        axes = constant.tolist()
    return [int(a) % rank for a in axes] if axes is not None else list(range(rank))


def pad_widths(graph: Graph, node: Node, rank: int) -> list[tuple[int, int]] | None:
    """(before, after) of a Pad for every dimension, or None where they are not constant."""
    pads = graph.constant(node.inputs[1]) if len(node.inputs) > 1 else np.asarray(node.attrs.get("pads", ()))
    if pads is None:
        return None
    axes = graph.constant(node.inputs[3]) if len(node.inputs) > 3 else None
    chosen = range(rank) if axes is None else [int(a) % rank for a in axes.flat]
    half = len(pads) // 2
    if half != len(list(chosen)):
        return None
    widths = [(0, 0)] * rank
    for k, axis in enumerate(chosen):
        widths[axis] = (int(pads[k]), int(pads[half + k]))
    return widths


def pads_with_zero(graph: Graph, node: Node) -> bool:
    """Whether a Pad adds zeros, or repeats what is there."""
    return node.attrs.get("mode", "constant") not in ("constant", b"constant") or pad_value(graph, node) == 0


def pad_value(graph: Graph, node: Node) -> float | None:
    """What a Pad adds; None where that is computed, or where it repeats what is there."""
    if node.attrs.get("mode", "constant") not in ("constant", b"constant"):
        return None
    name = node.inputs[2] if len(node.inputs) > 2 else ""
    value = graph.constant(name) if name else np.asarray(node.attrs.get("value", 0.0))
    return None if value is None else float(value.reshape(()))


def element_count(shape: Sequence[Dim]) -> int | None:
    """How many values a shape holds, or None where a size is unknown."""
    sizes = [s for s in shape if isinstance(s, int)]
    return prod(sizes) if len(sizes) == len(shape) else None


def resizes_channels(graph: Graph, node: Node) -> bool:
    """Whether a Resize changes the number of channels, or may."""
    before, after = graph.shapes.get(node.inputs[0]), graph.shapes.get(node.outputs[0])
    return before is not None and after is not None and len(after) > 1 and before[1] != after[1]


def regrouped(node: Node, field: Array) -> Array:
    """A DepthToSpace's input field as `(r², C)`: row by row the channels that become one output channel.

    Example:
        >>> node = Node("DepthToSpace", ("x",), ("y",), {"blocksize": 2, "mode": "CRD"})
        >>> regrouped(node, np.arange(8).reshape(1, 8, 1, 1)).tolist()
        [[0, 4], [1, 5], [2, 6], [3, 7]]
    """
    square = int(node.attrs["blocksize"]) ** 2
    return field.reshape(-1, square).T if node.attrs.get("mode", "DCR") == "CRD" else field.reshape(square, -1)


UNCOUNTED = frozenset(["NonZero", "NonMaxSuppression", "Unique", "Compress"])
"""Operators whose output is as long as its values say."""
_NO_TENSORS = frozenset(
    [
        "SequenceConstruct",
        "SequenceEmpty",
        "SequenceInsert",
        "SequenceErase",
        "SequenceMap",
        "SplitToSequence",
        "Optional",
    ]
)


def makes_tensors(node: Node) -> bool:
    """Whether an operator's outputs are tensors, not sequences, maps or what may be missing."""
    return node.op not in _NO_TENSORS and node.domain != "ai.onnx.ml"


def is_batchnorm(node: Node) -> bool:
    """Whether the node is a BatchNormalization, which knows what its input does."""
    return node.op == "BatchNormalization" and not node.domain


def is_cast(node: Node) -> bool:
    """Whether an operator gives its input's values in another type."""
    return node.op == "Cast" and not node.domain


def is_softmax(node: Node) -> bool:
    """Whether an operator gives shares of a whole."""
    return node.op == "Softmax" and not node.domain


def axis_order(node: Node, rank: int) -> list[int]:
    """From which axis of its first input each axis of a node's output comes, where both have as many.

    Example:
        >>> axis_order(Node("Transpose", ("x",), ("y",), {"perm": [0, 2, 3, 1]}), 4)
        [0, 2, 3, 1]
    """
    if node.op == "Transpose" and not node.domain:
        return [int(axis) for axis in node.attrs.get("perm", range(rank)[::-1])]
    return list(range(rank))
