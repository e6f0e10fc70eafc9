"""Sparse constants of .tflite files, all their zeros spelled out."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from ..errors import UnreadableModel
from ..ir.model import Array
from .flatbuffer import Values

MOST = 1 << 28
"""Values that a sparse constant may have when its zeros are spelled out."""


def dense(sparsity: Values, values: Array, shape: Sequence[int], where: str) -> Array:
    """A constant in the format of SparsityParameters.

    Axes are stored one inside the other, in `traversal_order`; axes from the tensor's rank on are those of blocks,
    which divide the axes of `block_map`. An axis is dense, so that all its places follow one another, or sparse
    (CSR): of place p of what lies outside, the indices are array_indices[array_segments[p] : array_segments[p + 1]].

    Args:
        values: what is stored, (K,).
        shape: of the constant.
        where: how messages begin.

    Raises:
        UnreadableModel: parts that do not fit together.

    Example:
        >>> rows = {"format": "DENSE", "dense_size": 2, "array_segments": None, "array_indices": None}
        >>> vectors = [("Int32Vector", {"values": np.array(v)}) for v in ([0, 1, 3], [2, 0, 1])]
        >>> columns = {"format": "SPARSE_CSR", "array_segments": vectors[0], "array_indices": vectors[1]}
        >>> sparsity = {"traversal_order": [0, 1], "block_map": [], "dim_metadata": [rows, columns]}
        >>> dense(sparsity, np.float32([5, 6, 7]), (2, 3), "w").tolist()
        [[0.0, 0.0, 5.0], [6.0, 7.0, 0.0]]
    """
    order, blocked = [int(a) for a in sparsity["traversal_order"]], [int(a) for a in sparsity["block_map"]]
    levels, rank = sparsity["dim_metadata"], len(shape)
    damaged = UnreadableModel(f"{where}: damaged (a sparse constant); export the model again")
    sound = len(order) == len(levels) == rank + len(blocked) and sorted(order) == list(range(len(order)))
    if not sound or any(not 0 <= axis < rank for axis in blocked) or prod(shape) > MOST:
        raise damaged
    count, places = 1, {axis: np.zeros(1, np.int64) for axis in range(0)}
    sizes: dict[int, int] = {}
    for axis, level in zip(order, levels, strict=True):
        outer, inner, size = _unrolled(level, count, damaged)
        places = {a: p[outer] for a, p in places.items()} | {axis: inner}
        count, sizes[axis] = len(inner), size
    if count != values.size:
        raise damaged
    made = np.zeros(shape, values.dtype)
    index = [places[axis] for axis in range(rank)]
    for k, axis in enumerate(blocked):
        index[axis] = index[axis] * sizes[rank + k] + places[rank + k]
    if any(len(i) and not 0 <= i.min() <= i.max() < n for i, n in zip(index, shape, strict=True)):
        raise damaged
    made[tuple(index)] = values
    return made


def _unrolled(level: Values, count: int, damaged: UnreadableModel) -> tuple[Array, Array, int]:
    """Of all places of an axis within `count` places outside: which they lie in, their index, and a dense size."""
    if level["format"] == "DENSE":
        size = int(level["dense_size"])
        if size < 0 or size * count > MOST:
            raise damaged
        return np.repeat(np.arange(count), size), np.tile(np.arange(size), count), size
    if level["array_segments"] is None or level["array_indices"] is None:
        raise damaged
    segments, indices = (np.asarray(level[k][1]["values"], np.int64) for k in ("array_segments", "array_indices"))
    lengths = np.diff(segments)
    if len(lengths) != count or np.any(lengths < 0) or segments[0] != 0 or segments[-1] != len(indices):
        raise damaged
    return np.repeat(np.arange(count), lengths), indices, 0
