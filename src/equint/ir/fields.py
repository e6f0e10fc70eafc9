"""Fields: arrays aligned with a tensor's dimensions, of size 1 wherever they are constant.

`(1, C, 1, 1)` holds one number per channel. Channel identities, means, ranges and scales are all fields.
"""

from __future__ import annotations

import numpy as np

from .model import Array


def per_channel(field: Array, axis: int, count: int) -> Array | None:
    """The field as `(count,)` along `axis`, or None where it varies along another axis."""
    axis %= field.ndim
    if any(n != 1 for d, n in enumerate(field.shape) if d != axis) or field.shape[axis] not in (1, count):
        return None
    return np.broadcast_to(field.reshape(-1), (count,))


def channel_means(field: Array, axis: int, count: int) -> Array:
    """The field as `(count,)` along `axis`; where it varies along other axes too, their average."""
    found = per_channel(field, axis, count)
    if found is None:
        axis %= field.ndim
        averaged = field.mean(tuple(d for d in range(field.ndim) if d != axis))
        found = np.broadcast_to(averaged, (count,)) if averaged.size in (1, count) else np.full(count, field.mean())
    return found


def aligned(values: Array, axis: int, rank: int) -> Array:
    """`(C,)` values as a field of a rank-`rank` tensor; of one without dimensions, its only value."""
    if rank == 0:
        return values.reshape(())
    shape = [1] * rank
    shape[axis] = values.size
    return values.reshape(shape)


def collapsed(field: Array) -> Array:
    """The field with every axis along which it is constant cut to size 1."""
    for axis, n in enumerate(field.shape):
        if n > 1 and bool(np.all(field == field.take([0], axis))):
            field = field.take([0], axis)
    return field
