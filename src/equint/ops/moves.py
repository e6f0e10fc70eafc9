"""Operators that only move values: what becomes of a per-channel field tells everything else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from ..ir.fields import collapsed
from ..ir.model import Array, Dim, Graph, Node, Range, Shape
from . import torch_moves
from .attributes import element_count, pad_widths, pads_with_zero
from .operator import Backward, FieldsFacet, Form, Gained, Grid, Operator, Pair, Rule, Scales, Unknown, by_name


def _dim(shape: Shape | None, axis: int) -> Dim:
    return shape[axis] if shape is not None and axis < len(shape) else None


_same: FieldsFacet = lambda graph, node, field, fill: [field]


def _transpose(graph: Graph, node: Node, field: Array, fill: float) -> list[Array] | None:
    perm = node.attrs.get("perm")
    return [field.transpose(perm)] if perm is None or len(perm) == field.ndim else None


def _reshape(graph: Graph, node: Node, field: Array, fill: float) -> list[Array] | None:
    before, after = graph.shapes.get(node.inputs[0]), graph.shapes.get(node.outputs[0])
    if before is None or after is None or len(before) != field.ndim:
        return None
    inner = element_count(before[1:])
    if after and inner is not None and inner == element_count(after[1:]) and not isinstance(after[0], int):
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


def _squeeze(graph: Graph, node: Node, field: Array, fill: float) -> list[Array] | None:
    axes = graph.constant(node.inputs[1]) if len(node.inputs) > 1 else None
    if axes is None or any(field.shape[axis] != 1 for axis in axes):
        return _reshape(graph, node, field, fill)
    return [np.squeeze(field, tuple(int(axis) for axis in axes))]


def _unsqueeze(graph: Graph, node: Node, field: Array, fill: float) -> list[Array] | None:
    axes = graph.constant(node.inputs[1])
    return _reshape(graph, node, field, fill) if axes is None else [np.expand_dims(field, tuple(map(int, axes)))]


def _blocks(before: Shape, after: Shape) -> list[tuple[list[int], list[int]]]:
    """Pair runs of input dimensions with the runs of output dimensions of the same product."""
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


def _slice(graph: Graph, node: Node, field: Array, fill: float) -> list[Array] | None:
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


def _split(graph: Graph, node: Node, field: Array, fill: float) -> list[Array] | None:
    axis = int(node.attrs.get("axis", 0)) % field.ndim
    if field.shape[axis] == 1:
        return [field] * len(node.outputs)
    sizes = [_dim(graph.shapes.get(o), axis) for o in node.outputs]
    numbers = [s for s in sizes if isinstance(s, int)]
    if len(numbers) < len(sizes):
        return None
    return list(np.split(field, np.cumsum(numbers)[:-1], axis))


def _gather(graph: Graph, node: Node, field: Array, fill: float) -> list[Array] | None:
    index, axis = graph.constant(node.inputs[1]), int(node.attrs.get("axis", 0)) % field.ndim
    if index is None or index.ndim > 1:
        return None
    if field.shape[axis] == 1:
        index = np.zeros((1,) * index.ndim, np.int64)
    return [field.take(index.astype(np.int64), axis)]


def _expand(graph: Graph, node: Node, field: Array, fill: float) -> list[Array] | None:
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


def _space_to_depth(graph: Graph, node: Node, field: Array, fill: float) -> list[Array] | None:
    """Every channel becomes one for each position of a block: all channels again for each of them."""
    if any(n > 1 for n in field.shape[2:]):
        return None
    times = 1 if field.shape[1] == 1 else int(node.attrs["blocksize"]) ** 2
    return [np.tile(field, (1, times) + (1,) * (field.ndim - 2))]


def _moments(fields: FieldsFacet) -> Callable[[Graph, Node, Sequence[Pair | None]], list[Pair] | None]:
    def moments(graph: Graph, node: Node, operands: Sequence[Pair | None]) -> list[Pair] | None:
        if operands[0] is None:
            return None
        means, stds = (fields(graph, node, field, 0) for field in operands[0])
        return None if means is None or stds is None else list(zip(means, stds, strict=True))

    return moments


def _bound(fields: FieldsFacet) -> Callable[[Graph, Node, Sequence[Range | None]], list[Range] | None]:
    def bound(graph: Graph, node: Node, ranges: Sequence[Range | None]) -> list[Range] | None:
        if ranges[0] is None:
            return None
        los, his = (fields(graph, node, field, 0) for field in (ranges[0].lo, ranges[0].hi))
        return None if los is None or his is None else [Range(lo, hi) for lo, hi in zip(los, his, strict=True)]

    return bound


def _gain(fields: FieldsFacet) -> Callable[[Node, Backward], Gained | None]:

    def gain(node: Node, at: Backward) -> Gained | None:
        x = node.inputs[0]
        if x not in at.moments:
            return []
        places = at.places(x)
        outputs = fields(at.graph, node, places, -1)
        if outputs is None:
            return None
        total = np.zeros(places.size)
        for name, origin in zip(node.outputs, outputs, strict=False):
            if name in at.behind:
                collect(total, origin, at.behind[name])
        return [(x, total.reshape(places.shape))]

    return gain


def collect(total: Array, origin: Array, behind: Array) -> None:
    """Add gains of moved values to those of the places that they came from; padding (−1) came from none."""
    if origin.ndim != behind.ndim:
        origin = origin.reshape((1,) * (behind.ndim - origin.ndim) + origin.shape)
    origin, behind = np.broadcast_arrays(origin, behind)
    kept = origin >= 0
    np.add.at(total, origin[kept], behind[kept])


def _pads_something(graph: Graph, node: Node, field: Array) -> str:
    return "" if pads_with_zero(graph, node) else "Pad with a value other than 0"


def _move(
    name: str, fields: FieldsFacet, run: Callable[..., Any], steps: Form = Form.MOVE, keeps: bool = True
) -> Operator:
    refuses = {"refuses": _pads_something} if name == "Pad" else {}
    facets = _moments(fields), _bound(fields), _gain(fields), Scales(Rule.MOVES, **refuses), Grid(keeps=keeps)
    return Operator(name, *facets, steps, run, fields)


def _any_row(graph: Graph, node: Node, field: Array, reduce: Callable[..., Any]) -> Array | None:
    """What holds whichever entries along its axis a Gather picks; None where it says which."""
    rank, axis = graph.rank(node.inputs[1]), int(node.attrs.get("axis", 0)) % max(field.ndim, 1)
    if rank is None or field.ndim == 0 or graph.constant(node.inputs[1]) is not None:
        return None
    found = np.asarray(reduce(field, axis=axis))
    return found.reshape(found.shape[:axis] + (1,) * rank + found.shape[axis:])


def _picked(graph: Graph, node: Node, operands: Sequence[Pair | None]) -> list[Pair] | None:
    """Moments of a computed pick: those of all entries together."""
    if operands[0] is None:
        return None
    mean, std = np.broadcast_arrays(*operands[0])
    found = [_any_row(graph, node, field, np.mean) for field in (mean, np.square(mean) + np.square(std))]
    if found[0] is None or found[1] is None:
        return _moments(_gather)(graph, node, operands)
    return [(found[0], np.sqrt(np.maximum(found[1] - np.square(found[0]), 0)))]


def _picked_bound(graph: Graph, node: Node, ranges: Sequence[Range | None]) -> list[Range] | None:
    """Ends of a computed pick: the farthest of all entries."""
    if ranges[0] is None:
        return None
    lo, hi = _any_row(graph, node, ranges[0].lo, np.min), _any_row(graph, node, ranges[0].hi, np.max)
    return _bound(_gather)(graph, node, ranges) if lo is None or hi is None else [Range(lo, hi)]


MOVES = by_name(
    _move("Identity", _same, lambda x: x),
    _move("Dropout", _same, torch_moves.dropout, Form.IDENTITY),
    _move("Reshape", _reshape, torch_moves.reshape),
    _move("Flatten", _reshape, torch_moves.flatten),
    _move("Squeeze", _squeeze, torch_moves.squeeze),
    _move("Unsqueeze", _unsqueeze, torch_moves.unsqueeze),
    _move("Transpose", _transpose, lambda x, *, perm=(): x.permute(list(perm) or list(range(x.ndim))[::-1])),
    _move("Slice", _slice, torch_moves.slice_),
    _move("Split", _split, torch_moves.split, Form.SPLIT),
    _move("Pad", _pad, torch_moves.pad, Form.PAD),
    _move("Expand", _expand, torch_moves.expand),
    replace(_move("Gather", _gather, torch_moves.gather, keeps=False), moments=_picked, bound=_picked_bound),
    _move("SpaceToDepth", _space_to_depth, torch_moves.space_to_depth),
)
"""Operators whose outputs hold input values, or padding, in another place."""
PICKS = frozenset({"Slice", "Split", "Gather"})
"""Those that pick parts."""


def stacked(graph: Graph, node: Node, fields: Sequence[Array]) -> Array | None:
    """The field of a Concat's output, or None where shapes do not tell."""
    axis = int(node.attrs["axis"]) % fields[0].ndim
    if all(f.shape == fields[0].shape and f.shape[axis] == 1 and np.array_equal(f, fields[0]) for f in fields):
        return fields[0]
    sizes = [_dim(graph.consts[i].shape if i in graph.consts else graph.shapes.get(i), axis) for i in node.inputs]
    numbers = [s for s in sizes if isinstance(s, int)]
    if len(numbers) < len(sizes):
        return None
    shape = np.broadcast_shapes(*(tuple(1 if d == axis else n for d, n in enumerate(f.shape)) for f in fields))
    parts = [
        np.broadcast_to(f, [s if d == axis else n for d, n in enumerate(shape)])
        for f, s in zip(fields, numbers, strict=True)
    ]
    return np.concatenate(parts, axis)


def _joined(graph: Graph, node: Node, operands: Sequence[Pair | None]) -> list[Pair] | None:
    pairs = [p for p in operands if p is not None]
    if len(pairs) < len(node.inputs):
        return None
    means, stds = (stacked(graph, node, [p[k] for p in pairs]) for k in (0, 1))
    return None if means is None or stds is None else [(means, stds)]


def _joined_bound(graph: Graph, node: Node, ranges: Sequence[Range | None]) -> list[Range] | None:
    every = [r for r in ranges if r is not None]
    if len(every) < len(ranges):
        return None
    lo, hi = (stacked(graph, node, ends) for ends in ([r.lo for r in every], [r.hi for r in every]))
    return None if lo is None or hi is None else [Range(lo, hi)]


def _apart(node: Node, at: Backward) -> Gained | None:
    constants = at.graph.consts
    if any(i not in at.moments and i not in constants for i in node.inputs):
        return None
    starts = np.cumsum([0, *(0 if i in constants else prod(at.shape(i)) for i in node.inputs)])
    places = [
        np.full((1,) * constants[i].ndim, -1) if i in constants else at.places(i, int(first))
        for i, first in zip(node.inputs, starts, strict=False)
    ]
    origin = stacked(at.graph, node, places)
    if origin is None:
        return None
    total = np.zeros(int(starts[-1]))
    collect(total, origin, at.behind[node.outputs[0]])
    return [(i, total[p]) for i, p in zip(node.inputs, places, strict=True) if i not in constants]


_STACKS = Grid(integer=True, keeps=True, ties=True, constants=True)
_PARTS = Unknown("it has a field for each of its inputs")
JOINS = by_name(
    Operator(
        "Concat", _joined, _joined_bound, _apart, Scales(Rule.JOINS), _STACKS, Form.CONCAT, torch_moves.concat, _PARTS
    )
)
