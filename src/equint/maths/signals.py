"""Waveforms and features as networks read them: what to show one that reads no pictures when there is nothing else."""

from __future__ import annotations

import numpy as np

from ..ir.model import Array

Random = np.random.Generator

QUIETEST_DB = -20.0
"""Peaks lie between this and full scale."""
LOWEST = 0.003
"""Of the sampling rate: 48 Hz of 16 kHz."""
SILENT = 0.05
"""Share of waveforms in which nothing but faint noise is heard."""


def waveforms(count: int, length: int, seed: int = 0) -> Array:
    """`(count, length)` float32 between −1 and 1: tones, speech-like sounds, noise, clicks, mixtures, and silence.

    Frequencies are shares of the sampling rate, so that any rate will do.

    Example:
        >>> x = waveforms(64, 512)
        >>> x.shape, bool(np.abs(x).max() <= 1), bool(np.abs(x).max(1).min() < 0.01)
        ((64, 512), True, True)
    """
    rng, made = np.random.default_rng(seed), np.zeros((count, length))
    for row in made:
        drawn = KINDS[rng.integers(len(KINDS))](rng, length)
        if rng.random() < 0.3:
            drawn = drawn + 10 ** rng.uniform(-1.5, 0) * KINDS[rng.integers(len(KINDS))](rng, length)
        drawn = drawn + 10 ** rng.uniform(-4, -2) * rng.standard_normal(length)
        drawn = _without_drift(drawn)
        loud = 10 ** (rng.uniform(QUIETEST_DB, 0) / 20) if rng.random() > SILENT else 1e-3 * rng.random()
        row[:] = loud * drawn / max(float(np.abs(drawn).max()), 1e-9)
    return made.astype(np.float32)


def _without_drift(values: Array) -> Array:
    """Less what is too low to be heard, as microphones and sound cards leave it out."""
    f = np.fft.rfftfreq(len(values))
    return np.asarray(np.fft.irfft(np.fft.rfft(values) * f / (f + LOWEST), len(values)))


def tones(rng: Random, length: int) -> Array:
    """`(length,)` a chord of tones with overtones, which may swell or die away."""
    at, steep = np.arange(length), rng.uniform(1, 2.5)
    parts = [
        np.sin(2 * np.pi * (k * f * at + rng.random())) / k**steep
        for f in 2 ** rng.uniform(-8, -4.5, rng.integers(1, 5))
        for k in range(1, 1 + min(int(0.5 / f), 12))
    ]
    return np.asarray(np.sum(parts, 0) * np.exp(rng.uniform(-3, 1) * at / length))


def speech(rng: Random, length: int) -> Array:
    """`(length,)` pulses of a gliding pitch, or hiss, through three resonances, in syllables.

    The source falls off by 6 to 12 dB an octave (Fant 1960: the glottis by 12, lips give back 6).
    """
    at, voiced = np.arange(length), rng.random() < 0.8
    pitch = 2 ** (rng.uniform(-7.5, -5.5) + 0.3 * np.sin(2 * np.pi * (at / max(length, 4000) + rng.random())))
    source = np.diff(np.floor(np.cumsum(pitch)), prepend=0.0) if voiced else rng.standard_normal(length)
    f = np.fft.rfftfreq(length)
    centres = rng.uniform(0.02, 0.05), rng.uniform(0.06, 0.15), rng.uniform(0.15, 0.22)
    resonant = sum(1 / (0.1 + np.abs(f - centre) / rng.uniform(0.004, 0.01)) for centre in centres)
    tilted = (1 + f / 0.01) ** -rng.uniform(1, 2)
    envelope = np.maximum(np.sin(2 * np.pi * (at / rng.uniform(2500, 6000) + rng.random())), 0.05)
    return np.asarray(np.fft.irfft(np.fft.rfft(source) * resonant * tilted, length) * envelope)


def noise(rng: Random, length: int) -> Array:
    """`(length,)` noise whose amplitude falls off as 1/f^slope, as that of wind, streets and rooms does."""
    f = np.maximum(np.fft.rfftfreq(length), LOWEST)
    return np.asarray(np.fft.irfft(np.fft.rfft(rng.standard_normal(length)) * f ** -rng.uniform(0.3, 1.3), length))


def clicks(rng: Random, length: int) -> Array:
    """`(length,)` a few sudden sounds that ring low."""
    found = np.zeros(length)
    for start in rng.integers(0, length, rng.integers(1, 4)):
        behind = np.arange(length - start)
        found[start:] += np.exp(-behind * rng.uniform(0.002, 0.03)) * np.sin(behind * rng.uniform(0.02, 0.5))
    return found


KINDS = tones, speech, speech, noise, clicks


def features(rng: Random, shape: tuple[int, ...]) -> Array:
    """Features of one sample, of zero mean and unit spread over samples, of any shape: `(T, F)`, `(F, T)`, `(F,)`, ….

    Each value has a share in common with others of its row, of its column, and of the sample: neighbours in time and
    channels of an embedding go together more or less. What is alike makes sums reach further than what is not.

    Example:
        >>> drawn = np.stack([features(np.random.default_rng(k), (8, 16)) for k in range(400)])
        >>> round(float(drawn.std()), 1), abs(float(drawn.mean())) < 0.1
        (1.0, True)
    """
    axes = [axis for axis, size in enumerate(shape) if size > 1]
    shares = rng.dirichlet(np.full(1 + len(axes), 0.5))
    found = np.sqrt(shares[0]) * rng.standard_normal(shape)
    for axis, share in zip(axes, shares[1:], strict=True):
        along = [size if at == axis else 1 for at, size in enumerate(shape)]
        found = found + np.sqrt(share) * rng.standard_normal(along)
    return np.asarray(found)
