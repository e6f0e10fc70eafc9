"""Rules for choosing channel scales, and measures of how well channels share one grid."""

from __future__ import annotations

import numpy as np

from ..model import Array


def equalizing(out_range: Array, in_range: Array) -> Array:
    """Cross-layer equalization: s = sqrt(r1 / r2), after which both ranges are sqrt(r1·r2).

    Nagel et al. 2019, eq. 11. A channel whose range is zero on either side keeps scale 1.

    Args:
        out_range: `(C,)` range of each output channel of the giving layer.
        in_range: `(C,)` range of each input channel of the taking layer.

    Example:
        >>> equalizing(np.array([4.0, 0.0]), np.array([1.0, 2.0])).tolist()
        [2.0, 1.0]
    """
    alive = (out_range > 0) & (in_range > 0)
    return np.sqrt(np.divide(out_range, in_range, where=alive, out=np.ones_like(out_range, dtype=np.float64)))


def triple(r1: Array, r2: Array, r3: Array) -> tuple[Array, Array]:
    """Closed form for convolution, depthwise, convolution: both scales at once.

    With g = (r1·r2·r3)^⅓, s12 = r1/g and s23 = g/r3; all three ranges become g. r2 is the depthwise
    range, which takes s12 on its input and s23 on its output.

    Example:
        >>> s12, s23 = triple(np.array(8.0), np.array(1.0), np.array(1.0))
        >>> float(s12), float(s23)
        (4.0, 2.0)
    """
    g = np.cbrt(r1 * r2 * r3)
    return r1 / g, g / r3


def overlap_ratio(lo: Array, hi: Array) -> float:
    """How much of the tensor's range its channels use on average: mean (max_i − min_i)/(max − min).

    WES, eq. 9. 1 means that every channel spans the whole range; a tensor of zeros counts as 1.

    Args:
        lo, hi: `(C,)` lowest and highest weight of each channel.

    Example:
        >>> overlap_ratio(np.array([-1.0, -0.5]), np.array([1.0, 0.5]))
        0.75
    """
    total = float(np.max(hi) - np.min(lo))
    return float(np.mean(hi - lo)) / total if total > 0 else 1.0
