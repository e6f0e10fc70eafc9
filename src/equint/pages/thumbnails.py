"""Small pictures as data URIs, and what networks read or give as pixels."""

from __future__ import annotations

from base64 import b64encode
from io import BytesIO

import numpy as np

from ..ir.model import Array
from ..samples.card import Card

LONGEST = 176
"""Pixels of a thumbnail's longer side."""
TINY = 64
"""Pixels below which a picture is kept as it is."""
STRETCH = 32.0
"""Pictures of no brighter pixels are stretched: they have few grey levels."""
HUES = np.array(
    [
        *((0, 0, 0), (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0)),
        *((204, 121, 167), (148, 103, 189), (140, 86, 75), (127, 127, 127), (188, 189, 34), (23, 190, 207)),
    ],
    np.uint8,
)
"""Colours of classes, which colour-blind people can tell apart as far as there are such (Okabe and Ito 2008)."""


def pixels(value: Array, card: Card) -> Array:
    """Pixels (H, W, 3), 0 to 255, of one sample that was prepared as the card says, without its batch axis.

    Example:
        >>> pixels(np.full((1, 2, 2), 1.0), Card("gray", (0.0,), (255.0,)))[0, 0].tolist()
        [255, 255, 255]
    """
    rows = value if card.layout == "nhwc" else value.transpose(1, 2, 0)
    real = rows * np.asarray(card.std or 1.0) + np.asarray(card.mean or 0.0)
    top = float(real.max(initial=0.0))
    real = real * (255.0 / top) if 0 < top <= STRETCH else real
    whole = np.rint(real).clip(0, 255).astype(np.uint8)
    return np.repeat(whole, 3, 2) if whole.shape[2] == 1 else whole


def thumbnail(picture: Array, longest: int = LONGEST) -> str:
    """A data URI of pixels (H, W, 3): smaller where they are many, exact where they are few.

    Example:
        >>> thumbnail(np.zeros((8, 8, 3), np.uint8))[:22]
        'data:image/png;base64,'
    """
    from PIL import Image

    image = Image.fromarray(picture)
    if max(image.size) <= TINY:
        return _uri(image, "PNG")
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return _uri(image, "WEBP", quality=72, method=6)


def mask(classes: Array) -> str:
    """A data URI of class numbers (H, W): a colour each, the first class black."""
    from PIL import Image

    image = Image.fromarray(HUES[np.asarray(classes).astype(int) % len(HUES)])
    image.thumbnail((LONGEST, LONGEST), Image.Resampling.NEAREST)
    return _uri(image.quantize(len(HUES), dither=Image.Dither.NONE), "PNG", optimize=True)


def middle(picture: Array, size: int = LONGEST) -> Array:
    """The middle of a picture, so large at most.

    Example:
        >>> middle(np.zeros((500, 90, 3)), 100).shape
        (100, 90, 3)
    """
    top, left = (max(0, (n - size) // 2) for n in picture.shape[:2])
    return picture[top : top + size, left : left + size]


def _uri(image: object, format: str, **options: int | bool) -> str:
    stream = BytesIO()
    image.save(stream, format, **options)  # type: ignore[attr-defined]
    return f"data:image/{format.lower()};base64,{b64encode(stream.getvalue()).decode()}"
