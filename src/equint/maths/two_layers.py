"""Quantization noise of a layer and of the layer that reads it, from ranges alone: Meller et al. (2019), section 3.2.

Their model is that of independent, uniform errors, linear activations and no padding.
"""

from __future__ import annotations

import numpy as np

from ..ir.model import Array


def uniform_noise(span: Array | float, bits: int) -> Array:
    """Variance of the rounding errors of a tensor, real units squared: (span/2^N)²/12 (eq. 6).

    Example:
        >>> float(uniform_noise(12.0, 2))  # steps of 3
        0.75
    """
    return np.asarray(np.square(np.asarray(span, np.float64) / 2**bits) / 12)


def weight_noise(taps: int, inputs: int, energy: Array | float, error: Array | float) -> Array:
    """Noise that rounded weights make at one output of their layer: K²·F_in·E{X²}·E{ΔW²} (eq. 5; eq. 7, line 3).

    Args:
        taps: K², the kernel's. inputs: F_in, the channels that an output reads: those of its group.
        energy: E{X²} of the layer's input. error: E{ΔW²}, as `uniform_noise` of the weights' range.

    Example:
        >>> float(weight_noise(9, 16, 2.0, 0.5))
        144.0
    """
    return np.asarray(taps * inputs * np.asarray(energy) * np.asarray(error))


def passed_on(weight: Array, noise: Array | float) -> Array:
    """Noise of a layer's input as it leaves each output: (Σ W2²)·E{Ỹ1²} (eq. 7, lines 1 and 2), `(O,)`.

    Args:
        weight: `(O, n)`, a row for every output. noise: variance of the noise of every value that it reads.

    Example:
        >>> passed_on(np.array([[1.0, 2.0], [0.0, 3.0]]), 0.5).tolist()
        [2.5, 4.5]
    """
    return np.asarray(np.sum(np.square(weight, dtype=np.float64), axis=1) * noise)


def sqnr(signal: float, *noises: float) -> float:
    """E{Y²} / Σ E{Ỹ²} of independent noises (eq. 8 and 9), a ratio of powers.

    Equation 9 as printed has the first layer's signal in SQNR_Y2 as well; equation 8 asks for the second's.

    Example:
        >>> sqnr(8.0, 1.0, 3.0), sqnr(8.0)
        (2.0, inf)
    """
    total = sum(noises)
    return signal / total if total > 0 else float("inf")
