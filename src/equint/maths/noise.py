"""Signal against noise, and the noise that grids and clips are expected to make."""

from __future__ import annotations

import numpy as np

from ..ir.model import Array
from .tails import exceedance


def sqnr_db(signal: Array, noisy: Array) -> float:
    """Signal to quantization noise ratio, 10·log10(Σ signal² / Σ (noisy − signal)²), in dB."""
    signal, noisy = np.asarray(signal, np.float64), np.asarray(noisy, np.float64)
    noise = float(np.sum(np.square(noisy - signal)))
    power = float(np.sum(np.square(signal)))
    if noise == 0:
        return float("inf")
    return 10 * float(np.log10(max(power, 1e-300) / noise))


def to_db(noise: float) -> float:
    """Noise over signal as SQNR in dB."""
    return -10 * float(np.log10(max(noise, 1e-30)))


def rounding(step: Array) -> Array:
    """Variance of uniform rounding noise: step²/12."""
    return np.asarray(np.square(np.asarray(step, np.float64)) / 12)


def activation_noise(step: Array, active: Array, energy: Array) -> Array:
    """Noise variance at a layer's outputs from rounding its input, `(G, O)` real units squared.

    noise_o = Σ_i P_i·Δx²/12·Σ_k c_k·W_oik² (Meller et al. 2019, eq. 5). P_i, `active` (G, I), is the share of values
    that are not exactly zero behind a ReLU, nor exactly at a bound; `energy` (G, O, I) is Σ_k c_k·W_oik²; `step` is
    `()`, or (G, 1, I) where channels have their own scale.

    Example:
        >>> activation_noise(np.array(0.6), np.array([[1.0, 0.5]]), np.array([[[1.0, 2.0]]])).round(4).tolist()
        [[0.06]]
    """
    return np.asarray(np.einsum("goi,gi->go", rounding(step) * energy, active))


def in_common(std: Array, step: Array) -> Array:
    """Share of its rounding error that a channel has in common at neighbouring positions.

    exp(−4π²·(σ/Δ)²), σ² being the 5 % of the channel's variance by which neighbours differ: the first harmonic of
    the rounding error's autocorrelation (Widrow and Kollár 2008). Only channels narrower than about two steps have any.

    Example:
        >>> in_common(np.array([0.1, 10.0]), np.array(1.0)).round(2).tolist()
        [0.98, 0.0]
    """
    return np.asarray(np.exp(-4 * np.pi**2 * 0.05 * np.square(std / np.maximum(step, 1e-300))))


def beyond(mean: Array, std: Array, cap: Array) -> tuple[Array, Array]:
    """E[(z − cap)²₊] and E[(z − cap)₊] by channel, `(C,)`; 0 where the cap is infinite."""
    bounded = np.isfinite(cap)
    second, first, _ = exceedance(mean, std, np.where(bounded, cap, 0.0))
    return np.where(bounded, second, 0.0), np.where(bounded, first, 0.0)


def mismatch(
    mean: Array,
    std: Array,
    bound: Array,
    cap: Array,
    both: Array | bool = True,
    behind: tuple[Array, Array] | None = None,
) -> tuple[Array, Array]:
    """What it costs that a channel is clipped at `bound` where it should be at `cap` (infinite: not at all).

    E[d²] of d = min(z, bound) − min(z, cap) in closed form, and its derivative with respect to `bound`, each `(C,)`, z
    having the tails of `maths/tails.py`. A grid that saturates is this with bound = its upper end; a clip's bound that
    all channels share, where each would need its own, is this with cap = what the channel needs. Not `both`: where the
    channel's own clip is executed too, so that only bound < cap costs anything. `behind` is
    `beyond(mean, std, cap)`, where many bounds are tried for one cap.

    Example:
        >>> power, _ = mismatch(np.zeros(2), np.ones(2), np.array([6.0, 0.0]), np.array([6.0, np.inf]))
        >>> power.round(6).tolist()
        [0.0, 0.5]
    """
    bounded = np.isfinite(cap)
    second, first, zeroth = exceedance(mean, std, bound)
    cap_second, cap_first = beyond(mean, std, cap) if behind is None else behind
    gap = np.where(bounded, cap - bound, 0.0)
    early = ~bounded | (bound < cap)
    power = np.where(early, second - cap_second - 2 * gap * cap_first, cap_second - second + 2 * gap * first)
    slope = np.where(early, -2 * (first - cap_first), -2 * gap * zeroth)
    counts = early | both
    return np.where(counts, np.maximum(power, 0.0), 0.0), np.where(counts, slope, 0.0)
