"""Functions that integer operators take from tables and integer arithmetic: e^-x, and 1/√w by Newton's method."""

from __future__ import annotations

import numpy as np

from ..ir.model import Array

ROOTS = 192
"""Entries of the table in which a reciprocal root is looked up first: one for each w >> 24, w in [2^30, 2^32)."""
ROOT_BITS = 23
"""Binary places of a reciprocal root."""
MOST_POWER = 31
"""Powers of four up to this one are told apart."""


def exponentials(scale: float, entries: int, bits: int) -> Array:
    """round(2^bits · e^(−scale·d)) for d = 0 … entries − 1, int64.

    Example:
        >>> exponentials(0.5, 4, 8).tolist()
        [256, 155, 94, 57]
    """
    return np.asarray(np.rint(2.0**bits * np.exp(-scale * np.arange(entries))), np.int64)


def root_table() -> Array:
    """round(2^15 / √m) in the middle m of each of `ROOTS` parts of [1, 4), int64.

    Example:
        >>> table = root_table()
        >>> len(table), table[[0, 64, 191]].tolist()
        (192, [32641, 23125, 16400])
    """
    return np.rint(2.0**15 / np.sqrt((np.arange(ROOTS) + 64.5) / 64)).astype(np.int64)


def reciprocal_roots(w: Array, table: Array) -> tuple[Array, Array]:
    """(r, e) with 1/√w ≈ r·2^-(23+e), for whole w in [1, 2^62); relative error below 2^-15.

    e is the power of four below w, u = w·4^(15−e) rounded down to 32 bits, r₀ its entry u >> 24 of `root_table`, and
    r = r₀·(3·2^43 − ((u·r₀) >> 17)·r₀) >> 36: one step of Newton's method, r₀·(3 − u·r₀²)/2. All fits into 63 bits.

    Example:
        >>> r, e = reciprocal_roots(np.array([1, 2, 10**12]), root_table())
        >>> (r * 2.0 ** -(23.0 + e)).round(7).tolist()
        [0.9999775, 0.7071027, 1e-06]
    """
    w = np.asarray(w, np.int64)
    powers = np.left_shift(np.int64(1), 2 * np.arange(1, MOST_POWER, dtype=np.int64))
    e = (w[..., None] >= powers).sum(-1)
    u = np.where(e <= 15, w << 2 * np.maximum(15 - e, 0), w >> 2 * np.maximum(e - 15, 0))
    first = table.astype(np.int64)[(u >> 24) - 64]
    newton = (3 << 43) - ((u * first) >> 17) * first
    return (first * newton) >> 36, e
