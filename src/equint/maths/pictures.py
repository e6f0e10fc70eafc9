"""Pictures with the statistics of photographs: what to show a network when there is nothing else to show."""

from __future__ import annotations

import numpy as np

from ..ir.model import Array

MEAN, STD = 117.0, 68.0
"""Of photographs' pixels, 0 to 255 (ImageNet's, rounded)."""
LUMINANCE = 0.92
"""Share of the colours' variance that all three channels have in common: neighbours in RGB are that alike."""
LEAVES = 200
"""Discs that cover a picture; the largest are drawn first, so that small ones stay visible."""


def pictures(count: int, height: int, width: int, channels: int = 3, seed: int = 0) -> Array:
    """`(count, channels, height, width)` float32 pixels, 0 to 255.

    Every picture is a dead-leaves collage whose leaves are filled with 1/f noise, under a light that falls off as
    1/f too. Contrast and brightness vary from picture to picture as they do in photographs.

    Example:
        >>> x = pictures(8, 32, 32)
        >>> x.shape, bool(80 < x.mean() < 150), bool(40 < x.std() < 80)
        ((8, 3, 32, 32), True, True)
    """
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        leaves = dead_leaves(rng, height, width, channels)
        texture = power_law(rng, height, width, channels, rng.uniform(1.0, 1.5))
        light = power_law(rng, height, width, 1, 2.0)
        share = rng.uniform(0.05, 0.35)
        picture = (1 - share) * leaves + share * texture + 0.5 * light
        picture = (picture - picture.mean()) / max(float(picture.std()), 1e-6)
        contrast, brightness = STD * rng.uniform(0.5, 1.15), MEAN + 30 * rng.normal()
        made.append(np.clip(brightness + contrast * picture, 0, 255))
    return np.stack(made).astype(np.float32)


def power_law(rng: np.random.Generator, height: int, width: int, channels: int, slope: float = 1.0) -> Array:
    """`(channels, height, width)` noise whose amplitude falls off as 1/f^slope, of unit variance (Field 1987)."""
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    frequency = np.maximum(np.hypot(fy, fx), 1 / max(height, width))
    spectrum = np.fft.rfft2(rng.standard_normal((channels, height, width))) / frequency**slope
    spectrum[:, 0, 0] = 0
    noise = np.fft.irfft2(spectrum, s=(height, width))
    return _coloured(noise / np.maximum(noise.std((1, 2), keepdims=True), 1e-12))


def dead_leaves(rng: np.random.Generator, height: int, width: int, channels: int) -> Array:
    """`(channels, height, width)` discs that hide one another, radii with density r^-3 (Lee et al. 2001)."""
    size = max(height, width)
    least, most = max(0.03 * size, 2.5), max(0.7 * size, 5.0)
    uniform = rng.uniform(size=LEAVES)
    radii = np.sort(1 / np.sqrt(uniform / least**2 + (1 - uniform) / most**2))[::-1]
    tops, lefts = rng.uniform(0, height, LEAVES), rng.uniform(0, width, LEAVES)
    colours = _coloured(rng.standard_normal((channels, LEAVES, 1)))[..., 0]
    picture = np.broadcast_to(_coloured(rng.standard_normal((channels, 1, 1))), (channels, height, width)).copy()
    for k, radius in enumerate(radii):  # only the disc's own square is touched
        y0, y1 = max(int(tops[k] - radius), 0), min(int(tops[k] + radius) + 2, height)
        x0, x1 = max(int(lefts[k] - radius), 0), min(int(lefts[k] + radius) + 2, width)
        ys, xs = np.arange(y0, y1)[:, None], np.arange(x0, x1)[None, :]
        inside = np.square(ys - tops[k]) + np.square(xs - lefts[k]) <= radius**2
        picture[:, y0:y1, x0:x1] = np.where(inside, colours[:, k, None, None], picture[:, y0:y1, x0:x1])
    return picture


def _coloured(values: Array) -> Array:
    """Independent channels mixed so that they have most of their variance in common."""
    common = values.sum(0, keepdims=True) / np.sqrt(len(values))
    return np.asarray(np.sqrt(LUMINANCE) * common + np.sqrt(1 - LUMINANCE) * values)
