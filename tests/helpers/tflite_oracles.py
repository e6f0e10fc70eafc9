"""What operators of TFLite compute, in NumPy, written by hand from TensorFlow's definitions."""

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np

from tflite_files import Array


def framed(x: Array, window: Sequence[int], strides: Sequence[int], same: bool, fill: float = 0.0) -> Array:
    """x (N, H, W, C) padded as SAME asks for: ⌈n/s⌉ windows, the odd one behind."""
    pads = [(0, 0)]
    for size, w, s in zip(x.shape[1:-1], window, strides, strict=True):
        total = max((math.ceil(size / s) - 1) * s + w - size, 0) if same else 0
        pads.append((total // 2, total - total // 2))
    return np.pad(x, [*pads, (0, 0)], constant_values=fill)


def taps(x: Array, window: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> Array:
    """What windows see: (taps, N, H', W', C)."""
    reach = [(w - 1) * d + 1 for w, d in zip(window, dilations, strict=True)]
    counts = [(n - r) // s + 1 for n, r, s in zip(x.shape[1:-1], reach, strides, strict=True)]
    seen = []
    for place in product(*map(range, window)):
        cut = tuple(
            slice(p * d, p * d + (c - 1) * s + 1, s)
            for p, d, c, s in zip(place, dilations, counts, strides, strict=True)
        )
        seen.append(x[(slice(None), *cut)])
    return np.stack(seen)


def convolved(x: Array, w: Array, strides: Sequence[int], same: bool, dilations: Sequence[int] = (1, 1)) -> Array:
    """w: (out, …, in / groups)."""
    window, groups = w.shape[1:-1], x.shape[-1] // w.shape[-1]
    reach = [(k - 1) * d + 1 for k, d in zip(window, dilations, strict=True)]
    seen = taps(framed(x.astype(np.float64), reach, strides, same), window, strides, dilations)
    flat = w.reshape(w.shape[0], -1, w.shape[-1]).astype(np.float64)
    parts = [
        np.einsum("t...c,otc->...o", part, kernel)
        for part, kernel in zip(np.split(seen, groups, -1), np.split(flat, groups, 0), strict=True)
    ]
    return np.concatenate(parts, -1).astype(np.float32)


def spread(x: Array, w: Array, strides: Sequence[int], made: Sequence[int], same: bool) -> Array:
    """The transpose of the convolution that makes x of `made`: every value adds its kernel. w: (out, …, in)."""
    window = w.shape[1:-1]
    whole = framed(np.zeros((1, *made, 1)), window, strides, same)
    sizes = [
        max((n - 1) * s + k, f) for n, s, k, f in zip(x.shape[1:-1], strides, window, whole.shape[1:-1], strict=True)
    ]
    out = np.zeros((x.shape[0], *sizes, w.shape[0]))
    for place in product(*map(range, x.shape[1:-1])):
        at = tuple(slice(p * s, p * s + k) for p, s, k in zip(place, strides, window, strict=True))
        here: Any = (slice(None), *place)
        out[(slice(None), *at)] += np.einsum("ni,o...i->n...o", x[here], w)
    fronts = []
    for size, k, s in zip(made, window, strides, strict=True):
        fronts.append(max((math.ceil(size / s) - 1) * s + k - size, 0) // 2 if same else 0)
    at = tuple(slice(f, f + n) for f, n in zip(fronts, made, strict=True))
    return out[(slice(None), *at)].astype(np.float32)


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return np.asarray(e / e.sum(-1, keepdims=True))


def local_response(x: Array) -> Array:
    padded = np.pad(np.square(x), [(0, 0)] * 3 + [(1, 1)])
    near = padded[..., :-2] + padded[..., 1:-1] + padded[..., 2:]
    return np.asarray(x / (1.5 + np.float32(0.7) * near) ** np.float32(0.6), np.float32)


def resized(x: Array, sizes: Sequence[int], nearest: bool, corners: bool, middles: bool) -> Array:
    """Along one axis after the other, by the place in x that each place of the result has."""
    for axis, n in zip((1, 2), sizes, strict=True):
        size = x.shape[axis]
        step = (size - 1) / (n - 1) if corners and n > 1 else size / n
        place = (np.arange(n) + 0.5) * step - (0 if nearest else 0.5) if middles else np.arange(n) * step
        if nearest:
            index = np.floor(place + 0.5) if corners else np.floor(place)
            x = np.take(x, np.clip(index, 0, size - 1).astype(int), axis)
            continue
        low = np.floor(place)
        share = (place - low).reshape([-1 if a == axis else 1 for a in range(4)])
        pair = [np.take(x, np.clip(low + k, 0, size - 1).astype(int), axis) for k in (0, 1)]
        x = pair[0] * (1 - share) + pair[1] * share
    return x.astype(np.float32)
