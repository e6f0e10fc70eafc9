"""Linear interpolation as a matrix of integers."""

from __future__ import annotations

import numpy as np

from ..ir.model import Array

MODES = frozenset(["half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric"])
"""Ways of ONNX's Resize to place output positions among the input's; tf_crop_and_resize is not among them."""


def matrix(out: int, size: int, scale: float, mode: str, bits: int = 11) -> Array:
    """`(out, size)` integers ≥ 0: what each output position takes of each input position, each row summing to 2^bits.

    `scale` is out/size, or what a Resize gives instead; `mode` its `coordinate_transformation_mode`, one of `MODES`.

    Example:
        >>> matrix(4, 2, 2.0, "half_pixel", bits=2).tolist()
        [[4, 0], [3, 1], [1, 3], [0, 4]]
    """
    at = np.clip(positions(out, size, scale, mode), 0, size - 1)
    left = np.floor(at).astype(np.int64)
    right = np.minimum(left + 1, size - 1)
    share = np.rint((at - left) * (1 << bits)).astype(np.int32)
    weights = np.zeros((out, size), np.int32)
    np.add.at(weights, (np.arange(out), left), (1 << bits) - share)
    np.add.at(weights, (np.arange(out), right), share)
    return weights


LITERT_BITS = 10
"""Binary places of the shares that LiteRT's RESIZE_BILINEAR takes of integers."""


def litert_matrix(out: int, size: int, mode: str) -> Array:
    """The same as RESIZE_BILINEAR computes it: places in 2^-10 of a position, s = round(2^10·size/out) apart.

    p = s·i, or s·i + s/2 − 2^9 where centres are half a position off; its share beyond the position below.

    Example:
        >>> litert_matrix(4, 2, "half_pixel").tolist()
        [[1024, 0], [768, 256], [256, 768], [0, 1024]]
    """
    one, i = 1 << LITERT_BITS, np.arange(out)
    aligned = mode == "align_corners" and out > 1
    ins, outs = (size - 1, out - 1) if aligned else (size, out)
    apart = (one * ins + outs // 2) // outs
    at = i * apart + ((apart // 2 - (one >> 1)) if "half_pixel" in mode else 0)
    low = np.maximum(at, 0) // one  # C's division rounds towards zero
    high = np.minimum(np.maximum(at + one - 1, 0) // one, size - 1)
    weights, low = np.zeros((out, size), np.int32), np.minimum(low, size - 1)
    share = at - one * low
    np.add.at(weights, (i, low), one - share)
    np.add.at(weights, (i, high), share)
    return weights


def positions(out: int, size: int, scale: float, mode: str) -> Array:
    """Where in the input each output position lies: ONNX's formulas, before it is kept inside."""
    i = np.arange(out)
    if mode == "asymmetric":
        return np.asarray(i / scale)
    if mode == "align_corners":
        return i * ((size - 1) / (out - 1)) if out > 1 else np.zeros(out)
    if mode == "pytorch_half_pixel" and out == 1:
        return np.zeros(out)
    centred = (i + 0.5) / scale - 0.5
    if mode == "half_pixel_symmetric":
        centred = centred + size / 2 * (1 - out / (scale * size))
    return np.asarray(centred)
