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
