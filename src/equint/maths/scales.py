"""Rules for choosing channel scales, and measures of how well channels share one grid."""

from __future__ import annotations

import numpy as np

from ..ir.model import Array


def equalizing(out_range: Array, in_range: Array) -> Array:
    """Cross-layer equalization: s = sqrt(r1 / r2), after which both ranges are sqrt(r1·r2).

    Nagel et al. 2019, eq. 11. A channel whose range is zero on either side keeps scale 1.

    Example:
        >>> equalizing(np.array([4.0, 0.0]), np.array([1.0, 2.0])).tolist()
        [2.0, 1.0]
    """
    alive = (out_range > 0) & (in_range > 0)
    return np.sqrt(np.divide(out_range, in_range, where=alive, out=np.ones_like(out_range, dtype=np.float64)))


def power_of_two_factors(step: Array) -> list[Array]:
    """Factors that turn steps into powers of two: the one below, twice and four times that, ½ to 1 step and on.

    A step that is a power of two stays one, with what lies on either side of it.

    Example:
        >>> [float(f * 0.3) for f in power_of_two_factors(np.array(0.3))]
        [0.125, 0.25, 0.5]
    """
    least = np.exp2(np.floor(np.log2(step) + 1e-9) - 1)
    return [least * 2.0**k / step for k in range(3)]


def dominance(extrema: Array, successor: Array | float = 1.0, others: float = 0.0) -> Array:
    """How near each channel is to the dominant one: d = x/max(max(n·x), others), `(C,)`; 0 where all are 0.

    Meller et al. 2019: its inverse is kerScale and actScale, how far a channel may be amplified until it is as large
    as the dominant one. x are largest magnitudes (kerOutChMax, actOutChMax), `others` that of what is not scaled along.
    Algorithm 1, lines 8 to 11, has n = 1, and no d exceeds 1. In algorithm 2 the layer is attenuated by
    n = sucInChMax/sucInMax first, so that its dominant channel may be a smaller one: max(n·x)/(n·x)·n = 1/d.

    Example:
        >>> dominance(np.array([4.0, 1.0, 0.0])).tolist()
        [1.0, 0.25, 0.0]
        >>> dominance(np.array([4.0, 1.0, 0.0]), np.array([0.5, 1.0, 1.0])).tolist()
        [2.0, 0.5, 0.0]
    """
    dominant = max(float(np.max(successor * extrema, initial=0.0)), others)
    # where nothing is left of what dominates, any amplification will do that the plain layer allows
    return extrema / (dominant or float(extrema.max(initial=0.0)) or 1.0)


def matching(kernel: Array, activation: Array, s_max: float) -> Array:
    """C = min(1/k, 1/a, S_max): what to multiply channels by so that each meets the dominant one, `(C,)`.

    Meller et al. 2019, algorithm 1, line 12, and algorithm 2, line 14, before it is divided by its least. A channel
    without weights and activations takes S_max; none is attenuated below 1/S_max, where float32 could lose it.

    Example:
        >>> matching(np.array([1.0, 0.25, 0.25, 0.0]), np.array([0.5, 0.5, 0.125, 0.01]), 16.0).tolist()
        [1.0, 2.0, 4.0, 16.0]
    """
    return 1 / np.clip(np.maximum(kernel, activation), 1 / s_max, s_max)


def overlap_ratio(lo: Array, hi: Array) -> float:
    """How much of the tensor's range its channels use on average: mean (max_i − min_i)/(max − min).

    WES, eq. 9. 1 means that every channel spans the whole range; a tensor of zeros counts as 1.

    Example:
        >>> overlap_ratio(np.array([-1.0, -0.5]), np.array([1.0, 0.5]))
        0.75
    """
    total = float(np.max(hi) - np.min(lo))
    return float(np.mean(hi - lo)) / total if total > 0 else 1.0
