"""What was measured, and the prediction of noise rests on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NoiseModel:
    """The measured constants of predicted noise; docs/noise.md says on what they were measured.

    Attributes:
        likeness: how far noise grows as the signal does (1) and not as independent channels would (0): the exponent
            of κ. "Gains".
        kappa_limit: κ is believed between 1/limit and limit: beyond, moments contradict each other, as behind
            constant channels.
        pooled: share of the variance of scattered noise that averaging leaves, however many positions there are.
            "Gains".
        doubt: times further than their moments say that heavy-tailed tensors are taken to reach. "Guesses".
        tail: spreads from its mean at which a channel's measured extremes lie, where its tails fall off as they
            should. "Tails".
        light, heavy: least and most spread that measured extremes may give, in standard deviations. "Tails".
        saturation: times that what grids of activations cut off counts.
        extent: standard deviations beyond which sums over many channels are not believed to reach, where no BatchNorm
            tells. "Guesses".
        results: spread of a network's results over that of independent features; 0.8 to 3.7 in eight networks.
            "Guesses", and docs/moments.md.

        range_factors: times wider or narrower that a weight's range may become when its shifts are chosen anew.
        near: share of their range from which weights are watched for leaving it, until anything has moved so far that
            others may.
    """

    likeness: float = 0.65
    kappa_limit: float = 1e3
    pooled: float = 0.05
    doubt: float = 3.0
    tail: float = 6.0
    light: float = 0.3
    heavy: float = 4.0
    extent: float = 6.0
    saturation: float = 1.0
    results: float = 2.5
    range_factors: tuple[float, ...] = tuple(2.0 ** (k / 8) for k in (0, *range(1, 8), *range(-8, 0)))
    near: float = 0.7


MEASURED = NoiseModel()
