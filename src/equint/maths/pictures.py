"""Pictures with the statistics of photographs: what to show a network when there is nothing else to show.

How channels go together deep in a network depends on what it is shown: things with outlines, surfaces and colours of
their own, at every size, under uneven light (docs/calibration.md has what each is worth).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..ir.model import Array

Random = np.random.Generator

MEAN, STD = 117.0, 68.0
"""Of photographs' pixels, 0 to 255 (ImageNet's, rounded)."""
LUMINANCE = 0.92
"""Share of the colours' variance that all three channels have in common: neighbours in RGB are that alike."""
PAGES = 0.06
"""Share of pictures that are written on."""
SURFACES = 6
"""Textures of one picture, which its things share."""


def pictures(count: int, height: int, width: int, channels: int = 3, seed: int = 0) -> Array:
    """`(count, channels, height, width)` float32 pixels, 0 to 255.

    Most are scenes, some pages of writing. Contrast and brightness vary from picture to picture as they do in
    photographs.

    Example:
        >>> x = pictures(8, 32, 32)
        >>> x.shape, bool(80 < x.mean() < 150), bool(40 < x.std() < 80)
        ((8, 3, 32, 32), True, True)
    """
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        draw = page if rng.random() < PAGES else scene
        picture = draw(rng, height, width, channels)
        picture = (picture - picture.mean()) / max(float(picture.std()), 1e-6)
        contrast, brightness = STD * rng.uniform(0.5, 1.15), MEAN + 30 * rng.normal()
        made.append(np.clip(brightness + contrast * picture, 0, 255))
    return np.stack(made).astype(np.float32)


def scene(rng: Random, height: int, width: int, channels: int) -> Array:
    """`(channels, height, width)`: things that hide one another, the largest drawn first, under 1/f light.

    Dead leaves (Lee et al. 2001: sizes with density r^-3), but each has one of a few shapes, any direction, a colour of
    the picture's palette, one of its textures, and shading.
    """
    size, colour, surface = max(height, width), _palette(rng, channels), _surfaces(rng, height, width)
    picture = colour()[:, None, None] + _tinted(rng, channels) * surface(slice(None), slice(None))
    soft = rng.uniform(0.3, 2.0)
    for radius in _radii(rng, int(2 ** rng.uniform(2.5, 7.0)), max(0.03 * size, 2.5), max(0.6 * size, 5.0)):
        stretch = 2 ** (rng.uniform(2, 4) if rng.random() < 0.25 else rng.uniform(0, 1.5))
        long = radius * min(stretch, 3.5)
        top, left, reach = rng.uniform(0, height), rng.uniform(0, width), long + 2
        ys = slice(
            max(int(top - reach), 0), min(int(top + reach) + 2, height)
        )  # only the thing's own square is touched
        xs = slice(max(int(left - reach), 0), min(int(left + reach) + 2, width))
        along, across = _turned(np.arange(height)[ys] - top, np.arange(width)[xs] - left, rng.uniform(0, np.pi))
        depth = (_oval if rng.random() < 0.5 else _box)(along, across, long, long / stretch)
        inside = np.clip(depth / soft + 0.5, 0, 1)
        shade = 0.35 * rng.normal() * along / long + 0.2 * rng.normal() * np.clip(depth / long * stretch, 0, 1)
        own = colour()[:, None, None] + _tinted(rng, channels) * surface(ys, xs) + shade
        picture[:, ys, xs] += inside * (own - picture[:, ys, xs])
    picture += rng.uniform(0.1, 0.6) * power_law(rng, height, width, 1, 2.0)
    blur = rng.uniform(0, 1.2) * size / 224 if rng.random() < 0.5 else 0.0
    return np.asarray(_blurred(picture, (0, blur, blur)) if blur else picture)


def page(rng: Random, height: int, width: int, channels: int) -> Array:
    """`(channels, height, width)`: rows of words of strokes on paper."""
    scale = int(rng.integers(1, max(min(height, width) // 40, 1) + 1))
    rows, columns = -(-height // (11 * scale)), -(-width // (7 * scale))
    signs = np.zeros((24, 11, 7))
    signs[:, 2:9, 1:6] = _strokes(rng, 24)
    written = rng.integers(0, 24, (rows, columns)), rng.random((rows, columns)) < 0.85
    ink = signs[written[0]] * written[1][..., None, None]
    ink = ink.transpose(0, 2, 1, 3).reshape(11 * rows, 7 * columns).repeat(scale, 0).repeat(scale, 1)[:height, :width]
    colours = _coloured(rng.standard_normal((channels, 2)))
    paper = colours[:, :1, None] + 0.1 * power_law(rng, height, width, 1, 1.5)
    picture = paper + _blurred(ink, rng.uniform(0, 0.6) * scale) * (3 * np.sign(rng.normal()) + colours[:, 1:, None])
    return np.asarray(picture + 0.3 * power_law(rng, height, width, 1, 2.0))


def _blurred(picture: Array, sigma: float | tuple[float, ...]) -> Array:
    from scipy.ndimage import gaussian_filter  # which takes a third of a second to import

    return np.asarray(gaussian_filter(picture, sigma))


def power_law(rng: Random, height: int, width: int, channels: int, slope: float = 1.0) -> Array:
    """`(channels, height, width)` noise whose amplitude falls off as 1/f^slope, of unit variance (Field 1987)."""
    frequency = np.maximum(np.hypot(*_frequencies(height, width)), 1 / max(height, width))
    return _coloured(np.stack([_filtered(rng, height, width, frequency**-slope) for _ in range(channels)]))


def clouds(rng: Random, height: int, width: int) -> Array:
    """`(height, width)` 1/f noise, drawn out in some direction."""
    stretch = 2 ** rng.uniform(0, 3)
    rows, columns = _frequencies(height, width)
    along, across = _turned(rows.ravel(), columns.ravel(), rng.uniform(0, np.pi))
    frequency = np.maximum(np.hypot(along * stretch, across * stretch**-0.3), 1 / max(height, width))
    return _filtered(rng, height, width, frequency ** -rng.uniform(0.6, 1.6))


def stripes(rng: Random, height: int, width: int) -> Array:
    """`(height, width)` waves or bars, crossed by others now and then."""
    wave = max(height, width) * 2 ** rng.uniform(-5.5, -1.5)
    along, across = _turned(np.arange(height), np.arange(width), rng.uniform(0, np.pi))
    found = np.sin(2 * np.pi * along / wave)
    found = np.sign(found) if rng.random() < 0.5 else found
    return _standard(found * np.sin(2 * np.pi * across / wave) if rng.random() < 0.4 else found)


def spots(rng: Random, height: int, width: int) -> Array:
    """`(height, width)` blobs on nothing."""
    smooth = _blurred(rng.standard_normal((height, width)), max(height, width) * 2 ** rng.uniform(-8, -4.5))
    return _standard(np.maximum(smooth - rng.uniform(0, 1.5) * smooth.std(), 0))


def plain(rng: Random, height: int, width: int) -> Array:
    """`(height, width)` nothing, or grain."""
    return rng.standard_normal((height, width)) if rng.random() < 0.3 else np.zeros((height, width))


TEXTURES = clouds, clouds, stripes, spots, plain


def _palette(rng: Random, channels: int) -> Callable[[], Array]:
    """Draws colours `(channels,)`, all near a few that are more or less vivid."""
    few = _coloured(rng.standard_normal((channels, int(rng.integers(3, 9)))))
    grey = few.mean(0, keepdims=True)
    few = grey + rng.uniform(0.3, 1.8) * (few - grey)
    return lambda: few[:, rng.integers(few.shape[1])] + 0.25 * _coloured(rng.standard_normal((channels, 1)))[:, 0]


def _surfaces(rng: Random, height: int, width: int) -> Callable[[slice, slice], Array]:
    """Draws parts of textures `(height, width)`, more or less rough, moved anywhere, all from a few."""
    few = [TEXTURES[rng.integers(len(TEXTURES))](rng, height, width) for _ in range(SURFACES)]

    def drawn(ys: slice, xs: slice) -> Array:
        whole, (down, right) = few[rng.integers(SURFACES)], rng.integers(0, (height, width))
        rows, columns = np.arange(height)[ys] - down, np.arange(width)[xs] - right  # from the other end where below 0
        return np.asarray(whole[rows[:, None], columns] * rng.uniform(0, 0.7) ** 1.5)

    return drawn


def _tinted(rng: Random, channels: int) -> Array:
    """How far each colour takes part in a texture: `(channels, 1, 1)`."""
    return 1 + 0.2 * rng.standard_normal((channels, 1, 1))


def _radii(rng: Random, count: int, least: float, most: float) -> Array:
    """Radii with density r^-3, largest first."""
    share = rng.uniform(size=count)
    return np.sort(1 / np.sqrt(share / least**2 + (1 - share) / most**2))[::-1]


def _turned(y: Array, x: Array, angle: float) -> tuple[Array, Array]:
    """Coordinates `(H, W)` along an axis at an angle, and across it."""
    rows, columns = y[:, None], x[None, :]
    return rows * np.cos(angle) + columns * np.sin(angle), columns * np.cos(angle) - rows * np.sin(angle)


def _oval(along: Array, across: Array, long: float, short: float) -> Array:
    """How deep positions lie within an ellipse of those half-axes, about, in pixels."""
    return np.asarray((1 - np.hypot(along / long, across / short)) * short)


def _box(along: Array, across: Array, long: float, short: float) -> Array:
    """How deep positions lie within a rectangle with sides of twice that."""
    return 0.8 * np.minimum(long - np.abs(along), short - np.abs(across))


def _strokes(rng: Random, count: int) -> Array:
    """`(count, 7, 5)` signs of a few bars each."""
    signs = np.zeros((count, 7, 5))
    for sign in signs:
        for _ in range(rng.integers(2, 5)):
            if rng.random() < 0.5:
                sign[:, rng.choice([0, 2, 4])][slice(*sorted(rng.choice([0, 3, 7], 2, replace=False)))] = 1
            else:
                sign[rng.choice([0, 3, 6])] = 1
    return signs


def _frequencies(height: int, width: int) -> tuple[Array, Array]:
    return np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]


def _filtered(rng: Random, height: int, width: int, amplitude: Array) -> Array:
    """Noise with that amplitude at each frequency, without mean, of unit variance."""
    spectrum = np.fft.rfft2(rng.standard_normal((height, width))) * amplitude
    spectrum[0, 0] = 0
    return _standard(np.fft.irfft2(spectrum, s=(height, width)))


def _standard(values: Array) -> Array:
    """Without mean, of unit variance where they vary."""
    return np.asarray((values - values.mean()) / max(float(values.std()), 1e-9))


def _coloured(values: Array) -> Array:
    """Independent channels mixed so that they have most of their variance in common."""
    common = values.sum(0, keepdims=True) / np.sqrt(len(values))
    return np.asarray(np.sqrt(LUMINANCE) * common + np.sqrt(1 - LUMINANCE) * values)
