"""The sums of steps that look at whole axes, or divide: products of activations, shares, quotients, normalizations."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt, prod

import numpy as np

from ..ir.model import Array, Shape
from ..maths.integer_functions import ROOT_BITS, reciprocal_roots
from .accumulators import Span, farthest
from .program import Step, along

SHARE_BITS = 20
"""A whole is 2^20 in the accumulator of a Softmax."""
QUOTIENT_BITS = 20
"""One is 2^20 in the accumulator of a Div; a divisor of 0 counts as half a step."""
FRACTION_BITS = 10
"""A standard deviation is 2^10 where a Normalize multiplies by its gains."""
UNKNOWN_SIZE = 1 << 15
"""Length of an axis that is not known: more products of two bytes 32 bits would not hold."""


# Accumulators without their bias, whole tensors at once


def matmul(step: Step, inputs: Sequence[Array], around: int, weight_zero: bool) -> Array:
    """Σ_k a_ik·b_kj, batched and broadcast as in ONNX."""
    return np.asarray((inputs[0].astype(np.float64) @ inputs[1].astype(np.float64)).astype(np.int64))


def reduce_sum(step: Step, inputs: Sequence[Array], around: int, weight_zero: bool) -> Array:
    """Σ x over some axes."""
    keep = bool(step.attrs["keepdims"])
    return np.asarray(inputs[0].sum(axis=tuple(step.attrs["axes"]), keepdims=keep), np.int64)


def quotient(step: Step, inputs: Sequence[Array], around: int, weight_zero: bool) -> Array:
    """⌊2^20·a/b⌋, 2^21·a where b is 0."""
    a, b = inputs
    return np.asarray((a << QUOTIENT_BITS + 1) // np.where(b == 0, 1, 2 * b))


def softmax(step: Step, inputs: Sequence[Array], around: int, weight_zero: bool) -> Array:
    """⌊2^20·e/Σ e⌋, e the entry of the greatest x less x."""
    (x,), axis = inputs, step.attrs["over"]
    e = step.arrays["exponentials"].astype(np.int64)[x.max(axis, keepdims=True) - x]
    return np.asarray((e << SHARE_BITS) // e.sum(axis, keepdims=True))


def normalize(step: Step, inputs: Sequence[Array], around: int, weight_zero: bool) -> Array:
    """gains·round(2^10·d/√w): d = N·x − Σ x, w = N·Σ x² − (Σ x)² + extra; no means where they are not subtracted."""
    (x,), count = inputs, int(step.attrs["count"])
    parts, over = grouped(step, x)
    total = parts.sum(over, keepdims=True) * int(step.attrs["centred"])
    spread = count * np.square(parts).sum(over, keepdims=True) - np.square(total) + int(step.attrs["extra"])
    root, e = reciprocal_roots(np.maximum(spread, 1), step.arrays["roots"])
    right = ROOT_BITS - FRACTION_BITS + e
    n = ((count * parts - total) * root + (np.int64(1) << (right - 1))) >> right
    return np.asarray(along(step.arrays["gains"].astype(np.int64), step.axis, x.ndim) * n.reshape(x.shape))


def grouped(step: Step, x: Array) -> tuple[Array, tuple[int, ...]]:
    """x, each of its groups of channels as one axis where it has such, and the axes of statistics."""
    groups = int(step.attrs["groups"])
    return (x.reshape(len(x), groups, -1), (2,)) if groups else (x, tuple(step.attrs["axes"]))


# The largest magnitude of a step's partial sums


def matmul_bound(step: Step, spans: Sequence[Span], shape: Shape | None) -> Array:
    """The number of products times max|a|·max|b|: `()`."""
    length = shape[-1] if shape else None
    return np.asarray(_size(length) * prod(map(farthest, spans)))


def reduce_sum_bound(step: Step, spans: Sequence[Span], shape: Shape | None) -> Array:
    """The number of values times max|x|: `()`."""
    sizes = [None if shape is None else shape[axis] for axis in step.attrs["axes"]]
    return np.asarray(farthest(spans[0]) * prod(map(_size, sizes)))


def quotient_bound(step: Step, spans: Sequence[Span], shape: Shape | None) -> Array:
    """2^21·max|a|: `()`."""
    return np.asarray(farthest(spans[0]) << QUOTIENT_BITS + 1)


def softmax_bound(step: Step, spans: Sequence[Span], shape: Shape | None) -> Array:
    """All of it: `()`."""
    return np.asarray(1 << SHARE_BITS)


def normalize_bound(step: Step, spans: Sequence[Span], shape: Shape | None) -> Array:
    """|gains|·(√N·2^10 + 1) + |bias|, for no value is further than √N standard deviations away: `()` or `(C,)`."""
    most = normalized_bound(int(step.attrs["count"]))
    gains, bias = (np.abs(step.arrays[key].astype(np.int64)) for key in ("gains", "bias"))
    return np.asarray(gains * most + bias)


def normalized_bound(count: int) -> int:
    """The largest magnitude of what gains multiply, for statistics over so many values.

    Example:
        >>> normalized_bound(64)
        8193
    """
    return (isqrt(max(count - 1, 0)) + 1 << FRACTION_BITS) + 1


def _size(size: object) -> int:
    return size if isinstance(size, int) else UNKNOWN_SIZE
