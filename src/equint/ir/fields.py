"""Fields: arrays aligned with a tensor's dimensions, of size 1 wherever they are constant.

`(1, C, 1, 1)` holds one number per channel. Channel identities, means, ranges and scales are all fields.
"""

from __future__ import annotations

from collections.abc import Iterable

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


def ranked(field: Array, rank: int | None) -> Array | None:
    """The field with `rank` axes, where one number fills it; None where it has another number of axes.

    Example:
        >>> ranked(np.full(1, 0.5), 4).shape, ranked(np.ones((1, 8)), 4)
        ((1, 1, 1, 1), None)
    """
    if rank is None or field.ndim == rank:
        return field
    return field.reshape((1,) * rank) if field.size == 1 else None


def constant_axes(field: Array, kept: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
    """The axes along which a field varies and none of the shapes `kept` does: the last axes stand over one another.

    Example:
        >>> constant_axes(np.zeros((1, 8, 5, 5)), [(1, 8, 1, 1), ()])
        (2, 3)
    """
    varies = {len(shape) - d for shape in kept for d, n in enumerate(shape) if n > 1}
    return tuple(d for d, n in enumerate(field.shape) if n > 1 and field.ndim - d not in varies)


def mixed(mean: Array, std: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    """Mean and spread of what is equally often at every place along `axes`: its spread is in the means, too.

    Example:
        >>> mean, std = mixed(np.array([[0.0, 2.0]]), np.array([[0.0, 0.0]]), (1,))
        >>> mean.tolist(), std.tolist()
        ([[1.0]], [[1.0]])
    """
    mean, std = np.broadcast_arrays(mean, std)
    middle = mean.mean(axes, keepdims=True)
    return middle, np.sqrt((np.square(std) + np.square(mean - middle)).mean(axes, keepdims=True))
