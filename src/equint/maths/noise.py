"""Signal against noise."""

from __future__ import annotations

import numpy as np

from ..model import Array


def sqnr_db(signal: Array, noisy: Array) -> float:
    """Signal to quantization noise ratio, 10·log10(Σ signal² / Σ (noisy − signal)²), in dB.

    Example:
        >>> round(sqnr_db(np.array([1.0, 1.0]), np.array([1.1, 0.9])), 6)
        20.0
    """
    signal, noisy = np.asarray(signal, np.float64), np.asarray(noisy, np.float64)
    noise = float(np.sum(np.square(noisy - signal)))
    power = float(np.sum(np.square(signal)))
    if noise == 0:
        return float("inf")
    return 10 * float(np.log10(max(power, 1e-300) / noise))
