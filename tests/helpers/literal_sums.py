"""Accumulators over whole axes and of quotients, number by number, in Python's integers."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equint.integers.program import Step

Array = NDArray[Any]


def matmul(step: Step, inputs: list[Array]) -> Array:
    a, b = inputs
    front = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a, b = np.broadcast_to(a, (*front, *a.shape[-2:])), np.broadcast_to(b, (*front, *b.shape[-2:]))
    acc = np.zeros((*front, a.shape[-2], b.shape[-1]), np.int64)
    for *at, i, j in np.ndindex(*acc.shape):
        acc[(*at, i, j)] = sum(int(a[(*at, i, k)]) * int(b[(*at, k, j)]) for k in range(a.shape[-1]))
    return acc


def scaled_sum(step: Step, inputs: list[Array]) -> Array:
    """Each term as LiteRT's ADD scales it, with C's division and shifts, number by number."""
    left = step.attrs["left"]
    factors = zip(*(step.arrays[key].tolist() for key in ("multipliers", "exponents", "signs")), strict=True)
    acc = np.zeros(np.broadcast_shapes(*(x.shape for x in inputs)), np.int64)
    for x, (multiplier, exponent, sign) in zip(inputs, factors, strict=True):
        terms = [sign * _multiplied(v << left, multiplier, exponent) for v in x.ravel().tolist()]
        acc = acc + np.array(terms, np.int64).reshape(x.shape)
    return acc


def _multiplied(x: int, multiplier: int, exponent: int) -> int:
    product = x * multiplier
    nudged = product + (1 << 30 if product >= 0 else 1 - (1 << 30))
    high = abs(nudged) // (1 << 31) * (1 if nudged >= 0 else -1)
    places = -exponent
    mask = (1 << places) - 1
    return (high >> places) + ((high & mask) > (mask >> 1) + (high < 0))


def window_mean(step: Step, q: Array) -> Array:
    """Windows of the integers themselves, what lies outside left out, divided with ties away from zero."""
    kernel, strides, pads = (list[int](step.attrs[key]) for key in ("kernel_shape", "strides", "pads"))
    n = len(kernel)
    sizes = [(q.shape[2 + d] + pads[d] + pads[n + d] - kernel[d]) // strides[d] + 1 for d in range(n)]
    made = np.zeros((*q.shape[:2], *sizes), np.int64)
    for n, c in np.ndindex(*q.shape[:2]):
        for at in np.ndindex(*sizes):
            first = [p * s - before for p, s, before in zip(at, strides, pads, strict=False)]
            window = tuple(slice(max(f, 0), f + k) for f, k in zip(first, kernel, strict=True))
            values = q[n, c][window].ravel().tolist()
            total, count = sum(values), len(values)
            made[(n, c, *at)] = (abs(total) + count // 2) // count * (1 if total > 0 else -1)
    return made


def reduce_sum(step: Step, inputs: list[Array]) -> Array:
    (x,), axes = inputs, step.attrs["axes"]
    kept = [1 if d in axes else n for d, n in enumerate(x.shape)]
    acc = np.zeros(kept, np.int64)
    for at in np.ndindex(*x.shape):
        acc[tuple(0 if d in axes else k for d, k in enumerate(at))] += int(x[at])
    return acc if step.attrs["keepdims"] else acc.reshape([n for d, n in enumerate(kept) if d not in axes])


def quotient(step: Step, inputs: list[Array]) -> Array:
    """floor(2^20·a/b); a divisor of 0 counts as one half."""
    pairs = np.broadcast_arrays(*inputs)
    each = zip(*(p.ravel().tolist() for p in pairs), strict=True)
    return np.array([2**20 * a // b if b else 2**21 * a for a, b in each], np.int64).reshape(pairs[0].shape)


def softmax(step: Step, inputs: list[Array]) -> Array:
    (x,), axis, table = inputs, step.attrs["over"] % inputs[0].ndim, step.arrays["exponentials"].tolist()
    acc = np.zeros(x.shape, np.int64)
    for line in lines(x, (axis,)):
        most = max(int(x[at]) for at in line)
        each = {at: table[most - int(x[at])] for at in line}
        for at, e in each.items():
            acc[at] = (e << 20) // sum(each.values())
    return acc


def lines(x: Array, axes: tuple[int, ...]) -> Iterator[list[tuple[int, ...]]]:
    """The positions that differ along some axes alone."""
    sizes = [range(1) if d in axes else range(n) for d, n in enumerate(x.shape)]
    for at in itertools.product(*sizes):
        inside = [range(n) if d in axes else (at[d],) for d, n in enumerate(x.shape)]
        yield list(itertools.product(*inside))


def normalize(step: Step, inputs: list[Array]) -> Array:
    (x,), attrs, acc = inputs, step.attrs, np.zeros(inputs[0].shape, np.int64)
    table, gains, bias = (np.asarray(step.arrays[k]) for k in ("roots", "gains", "bias"))
    axis = attrs["axis"] % x.ndim
    if attrs["groups"]:
        size = x.shape[1] // attrs["groups"]
        every = (
            [at for c in range(g * size, (g + 1) * size) for at in np.ndindex(*x.shape) if at[0] == n and at[1] == c]
            for n in range(len(x))
            for g in range(attrs["groups"])
        )
    else:
        every = lines(x, tuple(attrs["axes"]))  # type: ignore[assignment]
    for places in every:
        values = [int(x[at]) for at in places]
        count = len(values)
        assert count == attrs["count"]
        total = sum(values) if attrs["centred"] else 0
        w = max(1, count * sum(v * v for v in values) - total * total + attrs["extra"])
        root, places_down = reciprocal_root(w, table.tolist())
        right = 13 + places_down
        for at, v in zip(places, values, strict=True):
            n = ((count * v - total) * root + (1 << (right - 1))) >> right
            gain, offset = (int(a if a.ndim == 0 else a[at[axis]]) for a in (gains, bias))
            acc[at] = gain * n + offset
    return acc


def reciprocal_root(w: int, table: list[int]) -> tuple[int, int]:
    """2^23/√u for w = u·4^e, 1 ≤ u < 4: looked up, and improved by one step of Newton's method."""
    e = (w.bit_length() - 1) // 2
    u = w << 2 * (15 - e) if e <= 15 else w >> 2 * (e - 15)
    first = table[(u >> 24) - 64]
    return (first * (3 * 2**43 - ((u * first) >> 17) * first)) >> 36, e
