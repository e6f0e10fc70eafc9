"""How a per-channel field travels through operators that only move values.

A field is an array aligned with a tensor's dimensions, of size 1 wherever it is constant: `(1, C, 1, 1)`
for one number per channel. Channel identities, means, ranges and scales are all fields, so reshapes,
shuffles and slices are known here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from ..ops.attributes import element_count, pad_widths
from .model import Array, Dim, Graph, Node, Shape

MOVES = frozenset(
    [
        "Identity",
        "Dropout",
        "Reshape",
        "Flatten",
        "Transpose",
        "Squeeze",
        "Unsqueeze",
        "Slice",
        "Split",
        "Pad",
        "Expand",
        "Gather",
    ]
)
"""Operators whose outputs hold input values (or padding) in another place."""


def per_channel(field: Array, axis: int, count: int) -> Array | None:
    """The field as `(count,)` along `axis`, or None where it varies along another axis.

    Example:
        >>> per_channel(np.ones((1, 3, 1, 1)), 1, 3).tolist()
        [1.0, 1.0, 1.0]
    """
    axis %= field.ndim
    if any(n != 1 for d, n in enumerate(field.shape) if d != axis) or field.shape[axis] not in (1, count):
        return None
    return np.broadcast_to(field.reshape(-1), (count,))


def channel_means(field: Array, axis: int, count: int) -> Array:
    """The field as `(count,)` along `axis`; where it varies along other axes too, their average.

    Example:
        >>> channel_means(np.array([[1.0, 2.0], [3.0, 4.0]]), 1, 2).tolist()
        [2.0, 3.0]
    """
    found = per_channel(field, axis, count)
    if found is None:
        axis %= field.ndim
        averaged = field.mean(tuple(d for d in range(field.ndim) if d != axis))
        found = np.broadcast_to(averaged, (count,)) if averaged.size in (1, count) else np.full(count, field.mean())
    return found


def aligned(values: Array, axis: int, rank: int) -> Array:
    """`(C,)` values as a field of a rank-`rank` tensor.

    Example:
        >>> aligned(np.arange(3), 1, 4).shape
        (1, 3, 1, 1)
    """
    shape = [1] * rank
    shape[axis] = values.size
    return values.reshape(shape)


def moved(graph: Graph, node: Node, field: Array, fill: float = 0) -> list[Array] | None:
    """The fields of a `MOVES` operator's outputs, or None where shapes do not tell.

    `fill` is what padding holds.
    """
    handler = {
        "Identity": _same, "Dropout": _same, "Reshape": _reshape, "Flatten": _reshape, "Squeeze": _reshape,
        "Unsqueeze": _reshape, "Transpose": _transpose, "Slice": _slice, "Split": _split, "Expand": _expand,
        "Gather": _gather,
    }.get(node.op)  # fmt: skip
    if node.op == "Pad":
        return _pad(graph, node, field, fill)
    return handler(graph, node, field) if handler else None


def stacked(graph: Graph, node: Node, fields: Sequence[Array]) -> Array | None:
    """The field of a Concat's output, or None where shapes do not tell."""
    axis = int(node.attrs["axis"]) % fields[0].ndim
    if all(f.shape == fields[0].shape and f.shape[axis] == 1 and np.array_equal(f, fields[0]) for f in fields):
        return fields[0]
    sizes = [_dim(graph.shapes.get(i), axis) for i in node.inputs]
    numbers = [s for s in sizes if isinstance(s, int)]
    if len(numbers) < len(sizes):
        return None
    shape = np.broadcast_shapes(*(tuple(1 if d == axis else n for d, n in enumerate(f.shape)) for f in fields))
    parts = [
        np.broadcast_to(f, [s if d == axis else n for d, n in enumerate(shape)])
        for f, s in zip(fields, numbers, strict=True)
    ]
    return np.concatenate(parts, axis)


def regrouped(node: Node, field: Array) -> Array:
    """A DepthToSpace's input field as `(r², C)`: row by row the channels that become one output channel.

    Example:
        >>> node = Node("DepthToSpace", ("x",), ("y",), {"blocksize": 2, "mode": "CRD"})
        >>> regrouped(node, np.arange(8).reshape(1, 8, 1, 1)).tolist()
        [[0, 4], [1, 5], [2, 6], [3, 7]]
    """
    square = int(node.attrs["blocksize"]) ** 2
    return field.reshape(-1, square).T if node.attrs.get("mode", "DCR") == "CRD" else field.reshape(square, -1)


def collapsed(field: Array) -> Array:
    """The field with every axis along which it is constant cut to size 1.

    Example:
        >>> collapsed(np.ones((1, 3, 1, 1))).shape
        (1, 1, 1, 1)
    """
    for axis, n in enumerate(field.shape):
        if n > 1 and bool(np.all(field == field.take([0], axis))):
            field = field.take([0], axis)
    return field


def _dim(shape: Shape | None, axis: int) -> Dim:
    return shape[axis] if shape is not None and axis < len(shape) else None


def _same(graph: Graph, node: Node, field: Array) -> list[Array]:
    return [field]


def _transpose(graph: Graph, node: Node, field: Array) -> list[Array]:
    return [field.transpose(node.attrs.get("perm"))]


def _reshape(graph: Graph, node: Node, field: Array) -> list[Array] | None:
    before, after = graph.shapes.get(node.inputs[0]), graph.shapes.get(node.outputs[0])
    if before is None or after is None or len(before) != field.ndim:
        return None
    inner = element_count(before[1:])
    if inner is not None and inner == element_count(after[1:]) and not isinstance(after[0], int):
        after = (before[0], *after[1:])  # an inferred first dimension is the batch
    if field.size == 1:
        return [field.reshape((1,) * len(after))]
    shape: list[int] = []
    result_shape: list[int] = []
    for ins, outs in _blocks(before, after):
        if all(field.shape[d] == 1 for d in ins):
            shape += [1] * len(ins)
            result_shape += [1] * len(outs)
            continue
        sizes_in, sizes_out = [before[d] for d in ins], [after[d] for d in outs]
        if len(ins) == len(outs) == 1:
            shape.append(field.shape[ins[0]])
            result_shape.append(field.shape[ins[0]])
            continue
        numbers_in = [s for s in sizes_in if isinstance(s, int)]
        numbers_out = [s for s in sizes_out if isinstance(s, int)]
        if len(numbers_in) < len(sizes_in) or prod(numbers_in) > 1 << 24:
            return None
        if len(numbers_out) < len(sizes_out):
            if len(sizes_out) - len(numbers_out) > 1:
                return None
            numbers_out = [s if isinstance(s, int) else prod(numbers_in) // prod(numbers_out) for s in sizes_out]
        shape += numbers_in
        result_shape += numbers_out
    if prod(shape) != prod(result_shape):
        return None
    return [collapsed(np.broadcast_to(field, shape).reshape(result_shape))]


def _blocks(before: Shape, after: Shape) -> list[tuple[list[int], list[int]]]:
    """Pair runs of input dimensions with the runs of output dimensions of the same product.

    Example:
        >>> _blocks(("N", 6, 4, 4), ("N", 2, 3, 4, 4))
        [([0], [0]), ([1], [1, 2]), ([2], [3]), ([3], [4])]
    """
    blocks: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(before) and j < len(after):
        ins, outs, a, b = [i], [j], before[i], after[j]
        i, j = i + 1, j + 1
        while a != b and isinstance(a, int) and isinstance(b, int) and (i < len(before) or j < len(after)):
            if (a < b and i < len(before)) or j >= len(after):
                a, ins, i = _product(a, before[i]), [*ins, i], i + 1
            else:
                b, outs, j = _product(b, after[j]), [*outs, j], j + 1
        if a != b and not (isinstance(a, int) and isinstance(b, int)) and len(before) - i != len(after) - j:
            ins, outs, i, j = [*ins, *range(i, len(before))], [*outs, *range(j, len(after))], len(before), len(after)
        blocks.append((ins, outs))
    if blocks and i < len(before):
        blocks[-1][0].extend(range(i, len(before)))
    if blocks and j < len(after):
        blocks[-1][1].extend(range(j, len(after)))
    return blocks


def _product(a: Dim, b: Dim) -> Dim:
    return a * b if isinstance(a, int) and isinstance(b, int) else None


def _slice(graph: Graph, node: Node, field: Array) -> list[Array] | None:
    starts, ends = (graph.constant(i) for i in node.inputs[1:3])
    if starts is None or ends is None:
        return None
    axes = graph.constant(node.inputs[3]) if len(node.inputs) > 3 else None
    steps = graph.constant(node.inputs[4]) if len(node.inputs) > 4 else None
    axes = np.arange(starts.size) if axes is None else axes
    steps = np.ones(starts.size, np.int64) if steps is None else steps
    index: list[slice] = [slice(None)] * field.ndim
    for axis, start, end, step in zip(axes.flat, starts.flat, ends.flat, steps.flat, strict=True):
        if field.shape[int(axis)] > 1:
            stop = None if step < 0 and end < -(1 << 31) else int(end)
            index[int(axis)] = slice(int(start), stop, int(step))
    return [field[tuple(index)]]


def _split(graph: Graph, node: Node, field: Array) -> list[Array] | None:
    axis = int(node.attrs.get("axis", 0)) % field.ndim
    if field.shape[axis] == 1:
        return [field] * len(node.outputs)
    sizes = [_dim(graph.shapes.get(o), axis) for o in node.outputs]
    numbers = [s for s in sizes if isinstance(s, int)]
    if len(numbers) < len(sizes):
        return None
    return list(np.split(field, np.cumsum(numbers)[:-1], axis))


def _gather(graph: Graph, node: Node, field: Array) -> list[Array] | None:
    index, axis = graph.constant(node.inputs[1]), int(node.attrs.get("axis", 0)) % field.ndim
    if index is None or index.ndim > 1:
        return None
    if field.shape[axis] == 1:
        index = np.zeros((1,) * index.ndim, np.int64)
    return [field.take(index.astype(np.int64), axis)]


def _expand(graph: Graph, node: Node, field: Array) -> list[Array] | None:
    rank = graph.rank(node.outputs[0])
    return None if rank is None else [field.reshape((1,) * (rank - field.ndim) + field.shape)]


def _pad(graph: Graph, node: Node, field: Array, fill: float) -> list[Array] | None:
    widths = pad_widths(graph, node, field.ndim)
    if widths is None:
        return None
    if node.attrs.get("mode", "constant") != "constant":
        return [field] if all(field.shape[d] == 1 for d, w in enumerate(widths) if any(w)) else None
    shape, grow = list(field.shape), [(0, 0)] * field.ndim
    for axis, width in enumerate(widths):
        if any(width) and (axis == 1 or shape[axis] > 1):  # padding makes new channels; elsewhere none
            size = _dim(graph.shapes.get(node.inputs[0]), axis)
            if not isinstance(size, int) or min(width) < 0:
                return None
            shape[axis], grow[axis] = size, width
    return [np.pad(np.broadcast_to(field, shape), grow, constant_values=fill)]
