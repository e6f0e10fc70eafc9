"""Integer functions of one value as LiteRT's reference kernels compute them, for all integers of an 8-bit grid at once.

x is q − z of the input; results are integers of the output's grid before they are clamped to it.
"""

from __future__ import annotations

import numpy as np

from ..ir.model import Array
from .quantized_multiplier import divided_by_power, multiplied, quantize_multiplier


def leaky(x: Array, scales: tuple[float, float], alpha: float, zero_point: int) -> Array:
    """LEAKY_RELU: x·s_x/s_y where x ≥ 0, else x·s_x·α/s_y; factors in float32.

    Example:
        >>> leaky(np.array([-10, -3, 0, 4]), (0.5, 0.25), 0.1, 0).tolist()
        [-2, -1, 0, 8]
    """
    s, y = (np.float32(v) for v in scales)
    above = multiplied(x, *quantize_multiplier(float(s / y)))
    m, e = quantize_multiplier(abs(float(s * np.float32(alpha) / y)))
    below = multiplied(x, m, e) * (-1 if alpha < 0 else 1)
    return np.where(x >= 0, above, below) + zero_point


def sloped(x: Array, slopes: Array, scales: tuple[float, float, float], zero_point: int) -> Array:
    """PRELU: x·s_x/s_y where x ≥ 0, else x·a·s_x·s_a/s_y, a the slopes' integers less their zero point.

    Args:
        x: `(entries,)`. slopes: a, `()` or `(C, 1)`. scales: of input, slopes and output.

    Example:
        >>> sloped(np.array([-10, 4]), np.array([[64], [-32]]), (0.5, 1 / 128, 0.25), 0).tolist()
        [[-10, 8], [5, 8]]
    """
    s, a, y = (np.float32(v) for v in scales)
    above = multiplied(x, *quantize_multiplier(float(s / y)))
    below = multiplied(x * np.asarray(slopes, np.int64), *quantize_multiplier(float(s * a / y)))
    return np.where(x >= 0, above, below) + zero_point


def hard_swish(x: Array, scales: tuple[float, float], zero_point: int) -> Array | None:
    """HARD_SWISH: x·max(0, min(6, x + 3))/6 in 16 bits; None where the output's step is too small for the kernel.

    x·2^7 is brought to the output's scale, not yet shifted right, and to one on which 3 is 2^15, where it saturates;
    the second, moved to [0, 1], multiplies the first.

    Example:
        >>> hard_swish(np.array([-120, -30, 0, 30, 120]), (0.05, 0.025), 0).tolist()
        [0, -15, 0, 45, 240]
    """
    s, y = (np.float32(v) for v in scales)
    fine = np.float32(1 / 128) * s
    m, e = quantize_multiplier(float(fine / y))
    n, f = quantize_multiplier(float(fine / np.float32(3 / 32768)))
    if e > 0:
        return None
    wide = np.asarray(x, np.int64) << 7
    value = _high_product16(wide, _in_16_bits(m))
    gate = _saturated(wide << max(f - 1, 0)) if f > 0 else wide
    gate = _high_product16(gate, _in_16_bits(n))
    gate = _saturated(gate << 1) if f > 0 else divided_by_power(gate, -f)
    product = ((gate + (1 << 15)) >> 1) * value
    kept = np.sign(product) * (np.abs(product) >> 15)  # towards zero
    return divided_by_power(kept, -e) + zero_point


def _high_product16(a: Array, b: int) -> Array:
    return (a * b + (1 << 14)) >> 15


def _in_16_bits(multiplier: int) -> int:
    return min((multiplier + (1 << 15)) >> 16, (1 << 15) - 1)


def _saturated(x: Array) -> Array:
    return np.clip(x, -(1 << 15), (1 << 15) - 1)
