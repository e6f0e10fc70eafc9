"""Small pictures: what they hold once decoded again."""

from __future__ import annotations

from base64 import b64decode
from io import BytesIO

import numpy as np
from PIL import Image

from equint.pages.thumbnails import HUES, mask, middle, pixels, thumbnail
from equint.samples.card import Card


def opened(uri: str) -> Image.Image:
    return Image.open(BytesIO(b64decode(uri.partition(",")[2])))


def test_small_pictures_are_exact() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (32, 20, 3), np.uint8)
    assert np.array_equal(np.asarray(opened(thumbnail(picture))), picture)


def test_large_pictures_become_small() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    uri = thumbnail(picture)
    assert opened(uri).size == (176, 132)
    assert len(uri) < 30_000


def test_preparation_is_undone() -> None:
    picture = np.random.default_rng(1).integers(0, 256, (4, 6, 3), np.uint8)
    card = Card("rgb", (120.0, 110.0, 100.0), (60.0, 61.0, 62.0))
    normal = (picture - np.array(card.mean)) / np.array(card.std)
    assert np.array_equal(pixels(normal.transpose(2, 0, 1), card), picture)
    nhwc = Card("rgb", card.mean, card.std, layout="nhwc")
    assert np.array_equal(pixels(normal, nhwc), picture)


def test_few_grey_levels_are_stretched() -> None:
    assert pixels(np.array([[[0.0, 0.5, 1.0]]]), Card("gray", (0.0,), (16.0,)))[0, :, 0].tolist() == [0, 128, 255]


def test_masks_have_the_colours_of_their_classes() -> None:
    classes = np.array([[0, 1], [2, 14]])
    shown = np.asarray(opened(mask(classes)).convert("RGB"))
    assert np.array_equal(shown, HUES[[[0, 1], [2, 1]]])


def test_the_middle() -> None:
    picture = np.arange(25).reshape(5, 5, 1)
    assert middle(picture, 3)[..., 0].tolist() == [[6, 7, 8], [11, 12, 13], [16, 17, 18]]
