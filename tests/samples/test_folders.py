"""Lists of pictures and their partners."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from equint.errors import EquintError
from equint.samples.card import Card
from equint.samples.folders import beside, pictures, pixels, prepared


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.bmp", "c.png"):
        Image.new("RGB", (3, 2), (10, 20, 30)).save(tmp_path / name)
    return tmp_path


@pytest.mark.parametrize(("text", "names"), [("c\na\n", ["c.png", "a.png"]), ("b.bmp 1\n\n", ["b.bmp"])])
def test_lists_choose_and_order(folder: Path, text: str, names: list[str]) -> None:
    (folder / "val.txt").write_text(text)
    assert [f.name for f in pictures(folder, folder / "val.txt")] == names


@pytest.mark.parametrize(("text", "part"), [("", "lists no pictures"), ("a\nz\n", "z is not in")])
def test_bad_lists(folder: Path, text: str, part: str) -> None:
    (folder / "val.txt").write_text(text)
    with pytest.raises(EquintError, match=part):
        pictures(folder, folder / "val.txt")
    with pytest.raises(EquintError, match=r"absent\.txt"):
        pictures(folder, folder / "absent.txt")


def test_partners_have_the_same_stem(folder: Path) -> None:
    other = folder / "masks"
    other.mkdir()
    for name in ("b.png", "c.png", "z.png"):
        Image.new("L", (3, 2)).save(other / name)
    pairs = beside(pictures(folder), other, "masks are")
    assert [(a.name, b.name) for a, b in pairs] == [("b.bmp", "b.png"), ("c.png", "c.png")]


def test_pixels(folder: Path) -> None:
    assert pixels(folder / "a.png", "rgb")[0, 0].tolist() == [10, 20, 30]
    assert pixels(folder / "a.png", "gray").tolist() == [[18] * 3] * 2
    palette = Image.fromarray(np.array([[0, 3]], np.uint8))
    palette.putpalette([0, 0, 0] * 3 + [9, 9, 9])
    palette.save(folder / "p.png")
    assert pixels(folder / "p.png", "numbers").tolist() == [[0, 3]]
    Image.fromarray(np.array([[1000]], np.uint16)).save(folder / "deep.png")
    with pytest.raises(EquintError, match=r"deep\.png: pixels of more than 8 bits"):
        pixels(folder / "deep.png", "gray")
    with pytest.raises(EquintError, match=r"absent\.png"):
        pixels(folder / "absent.png", "gray")


def test_channels_leave_in_the_order_of_the_kind() -> None:
    """Means and spreads are in the network's order, as its own training has them."""
    pixels = np.stack([np.full((2, 2), v, np.uint8) for v in (10, 20, 30)], -1)
    rgb = prepared(pixels, Card("rgb", (1.0, 2.0, 3.0), (1.0, 1.0, 1.0)), Path("a.png"))
    bgr = prepared(pixels, Card("bgr", (3.0, 2.0, 1.0), (1.0, 1.0, 1.0)), Path("a.png"))
    assert rgb[:, 0, 0].tolist() == [9.0, 18.0, 27.0]
    assert bgr[:, 0, 0].tolist() == [27.0, 18.0, 9.0]
