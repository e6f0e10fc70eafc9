"""Two candidates measured on the same samples: how they compare, and how surely they would on new ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..ir.model import Array

DRAWS = 1000
"""Resamples of a bootstrap: a chance of one half is known to 1.6 points."""


def relative_noise(signal: Array, noise: Array) -> Array:
    """Noise over signal of all samples together, meaned over places: mean_p Σ_n noise_np / Σ_n signal_np.

    Args:
        signal, noise: `(…, N, P)` power of each sample at each place, real units squared.

    Returns:
        `(…,)`; 0 at a place without noise, infinite where all is noise.

    Example:
        >>> relative_noise(np.array([[1.0, 4.0], [3.0, 4.0]]), np.array([[0.1, 0.8], [0.3, 0.8]])).round(3).tolist()
        0.15
    """
    total, lost = signal.sum(-2), noise.sum(-2)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(lost == 0, 0.0, lost / total).mean(-1))


def gain_db(signal: Array, before: Array, after: Array) -> Array:
    """How much less noise there is `after` than `before`, in dB: 10·log10 of the ratio of their `relative_noise`.

    Two that are both exact, or both nothing but noise, are equal.

    Example:
        >>> gain_db(np.ones((2, 1)), np.full((2, 1), 0.1), np.full((2, 1), 0.01)).round(3).tolist()
        10.0
    """
    first, last = (np.maximum(relative_noise(signal, noise), 1e-30) for noise in (before, after))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(10 * np.log10(np.where(first == last, 1.0, first / last)))


@dataclass(frozen=True)
class Powers:
    """Of samples of one kind: `signal`, and noise `before` and `after`, `(N, P)` each; what the kind weighs."""

    signal: Array
    before: Array
    after: Array
    weight: float = 1.0


class Gain(NamedTuple):
    """How much less noise there is after than before.

    Attributes:
        seen: on the samples, dB; expected: in the mean over resamples, dB: what one sample decides counts less.
        chance: the share of resamples in which there is less.
    """

    seen: float
    expected: float
    chance: float


def mixed_gain(kinds: Sequence[Powers], draws: int = DRAWS) -> Gain:
    """How much less noise there is after than before, in dB, and the chance of it, as `gain_db` and `chance`.

    Samples of several kinds: the relative noise of each is meaned by its weight, and each is drawn from by itself.

    Example:
        >>> one, half = np.ones((4, 1)), np.full((4, 1), 0.5)
        >>> mixed_gain([Powers(one, half, half, 3.0), Powers(one, one, half, 1.0)]).seen.__round__(3)
        0.969
    """

    def gain(counts: Sequence[Array]) -> Array:
        first, last = np.full(len(counts[0]), 1e-30), np.full(len(counts[0]), 1e-30)
        for drawn, kind in zip(counts, kinds, strict=True):
            signal, *lost = (
                np.einsum("dn,np->dp", drawn, p)[:, None, :] for p in (kind.signal, kind.before, kind.after)
            )
            first, last = (
                total + kind.weight * relative_noise(signal, noise)
                for total, noise in zip((first, last), lost, strict=True)
            )
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(10 * np.log10(np.where(first == last, 1.0, first / last)))

    sizes = [len(kind.signal) for kind in kinds]
    whole = float(gain([np.ones((1, size)) for size in sizes])[0])
    if min(sizes) < 2:
        return Gain(whole, whole, 0.5)
    rng = np.random.default_rng(0)
    gains = gain([rng.multinomial(n, np.full(n, 1 / n), draws).astype(np.float64) for n in sizes])
    return Gain(whole, float(gains.mean()), float(np.mean((gains > 0) + 0.5 * (gains == 0))))


def chance(signal: Array, before: Array, after: Array, draws: int = DRAWS) -> float:
    """The chance that `after` has less noise than `before` on as many new samples, by the paired bootstrap.

    Samples are drawn with replacement, the same for both (Efron and Tibshirani 1993, chapter 16), and the share of
    draws in which `gain_db` is above zero is counted; where it is zero, half. One sample alone tells nothing: 0.5.

    Args:
        signal, before, after: `(N, P)` power of each sample at each place.

    Example:
        >>> noise = np.array([[1.0], [1.0], [1.0], [1.0]])
        >>> chance(np.ones((4, 1)), noise, noise / 2), chance(np.ones((4, 1)), noise, noise)
        (1.0, 0.5)
    """
    count = len(signal)
    if count < 2:
        return 0.5
    drawn = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), draws).astype(np.float64)
    sums = [np.einsum("dn,np->dp", drawn, power)[:, None, :] for power in (signal, before, after)]
    gains = gain_db(*sums)
    return float(np.mean((gains > 0) + 0.5 * (gains == 0)))
