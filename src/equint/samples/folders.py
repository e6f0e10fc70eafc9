"""Pictures in folders: which there are, what belongs together, and their pixels."""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import TypeVar, overload

import numpy as np

from ..errors import UnusableData
from ..files import MOST_TEXT, readable
from ..ir.model import Array
from .card import CHANNELS_OF, MOST_PIXELS, Card

PICTURES = frozenset({".jpg", ".jpeg", ".png", ".bmp"})
Item = TypeVar("Item")
Truth = TypeVar("Truth")


class Names(Sequence[Path]):
    """Files of a folder, by name: as many bytes each as its name has, where a path takes half a kilobyte.

    Example:
        >>> names = Names(Path("photos"), ["a.png", "cat/b.png"])
        >>> len(names), names[-1].as_posix(), [path.name for path in names[:1]]
        (2, 'photos/cat/b.png', ['a.png'])
    """

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        self.folder, self._text, self._ends = folder, bytearray(), array("I", [0])
        for name in names:
            self._text += os.fsencode(name)
            self._ends.append(len(self._text))

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, k: int) -> Path: ...
    @overload
    def __getitem__(self, k: slice) -> list[Path]: ...
    def __getitem__(self, k: int | slice) -> Path | list[Path]:
        if isinstance(k, slice):
            return [self[i] for i in range(*k.indices(len(self)))]
        start, stop = self._ends[range(len(self))[k]], self._ends[range(1, len(self) + 1)[k]]
        return self.folder / os.fsdecode(bytes(self._text[start:stop]))


def pictures(folder: Path, listed: Path | None = None) -> list[Path]:
    """The pictures in a folder, by name; only those that a text file lists (one a line, as VOC's ImageSets), if given.

    Raises:
        EquintError: no folder, no pictures, or one that is listed but not there.
    """
    found = [folder / name for name in picture_names(folder)]
    if listed is None:
        return found
    try:
        text = readable(listed, UnusableData, "list of pictures", MOST_TEXT).read_text("utf-8-sig")
        names = [line.split()[0] for line in text.splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UnusableData(f"{listed}: not a readable list of pictures ({error})") from error
    known = {f.stem: f for f in found} | {f.name: f for f in found}
    absent = next((n for n in names if n not in known), None)
    if absent is not None or not names:
        raise UnusableData(f"{listed}: {f'{absent} is not in {folder}' if absent else 'lists no pictures'}")
    return [known[n] for n in names]


def picture_names(folder: Path) -> list[str]:
    """The names of the pictures in a folder, in order. Raises EquintError: no folder, or no pictures in it."""
    if not folder.is_dir():
        raise UnusableData(f"{folder}: no such folder; give a folder of pictures")
    found = sorted(filter(is_picture, os.listdir(folder)))
    if not found:
        raise UnusableData(
            f"{folder}: no pictures in it (.jpg, .png or .bmp), nor class folders of them; put some in it"
        )
    return found


def is_picture(name: str) -> bool:
    """Whether a file is called as pictures are.

    Example:
        >>> is_picture("a.JPG"), is_picture("a.txt")
        (True, False)
    """
    return os.path.splitext(name)[1].lower() in PICTURES


def beside(files: Sequence[Path], folder: Path, what: str) -> list[tuple[Path, Path]]:
    """Pairs of each file and the picture of its name, whatever its ending, in another folder; others are left out.

    Raises:
        EquintError: no pair at all.
    """
    partners = {f.stem: f for f in pictures(folder)}
    pairs = [(f, partners[f.stem]) for f in files if f.stem in partners]
    if not pairs:
        first = files[0].stem if files else "picture"
        raise UnusableData(f"{folder}: {what} missing for every picture; name them as the pictures, {first}.png")
    return pairs


def pixels(file: Path, mode: str, content: bytes | None = None) -> Array:
    """Pixels 0 to 255: (H, W, 3) of red, green and blue for "rgb" and "bgr", (H, W) of "gray", "numbers" as they are.

    Args:
        content: of the file, where it lies in another.

    Raises:
        EquintError: unreadable.
    """
    from PIL import Image

    try:
        source = readable(file, UnusableData, "picture") if content is None else BytesIO(content)
        with Image.open(source) as picture:
            if picture.width * picture.height > MOST_PIXELS:
                size = f"{picture.width}×{picture.height} pixels"
                raise UnusableData(f"{file}: {size}, of {MOST_PIXELS / 1e6:.0f} million at most; make it smaller")
            if picture.mode.startswith(("I", "F")):
                raise UnusableData(f"{file}: pixels of more than 8 bits; save it with 8 bits per channel")
            if mode == "numbers":
                return np.asarray(picture)
            return np.asarray(picture.convert("L" if mode == "gray" else "RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise unreadable(file, error) from error


def unreadable(file: Path, error: Exception) -> UnusableData:
    """What is said of a picture that cannot be read.

    Example:
        >>> str(unreadable(Path("a.png"), OSError("image file is truncated")))
        'a.png: not a readable picture (image file is truncated); save it again as .png or .jpg'
    """
    from PIL import UnidentifiedImageError

    why = "of no known format" if isinstance(error, UnidentifiedImageError) else str(error)[:160]
    return UnusableData(f"{file}: not a readable picture ({why}); save it again as .png or .jpg")


def prepared(pixels: Array, card: Card, where: Path) -> Array:
    """(H, W, C) or (H, W) pixels to a normalised float32 array, (C, H, W) or as the card's layout says.

    Red, green and blue come in that order, and leave in the order of the card's kind.

    Raises:
        EquintError: channels that the card's kind does not have.

    Example:
        >>> prepared(np.full((2, 2), 255, np.uint8), Card("gray", (0.0,), (255.0,)), Path("a.png")).tolist()
        [[[1.0, 1.0], [1.0, 1.0]]]
    """
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    channels = CHANNELS_OF.get(card.kind, 1)
    if pixels.ndim != 3 or pixels.shape[-1] != channels:
        raise UnusableData(f"{where}: a sample of shape {pixels.shape}; kind {card.kind} needs (H, W, {channels})")
    if card.size and pixels.shape[:2] != card.size:
        pixels = _resized(pixels, card.size)
    pixels = pixels[..., ::-1] if card.kind == "bgr" else pixels
    mean, std = np.asarray(card.mean or 0, np.float32), np.asarray(card.std or 1, np.float32)
    normal = (pixels.astype(np.float32) - mean) / std
    return normal if card.layout == "nhwc" else np.ascontiguousarray(normal.transpose(2, 0, 1))


def _resized(pixels: Array, size: tuple[int, int]) -> Array:
    from PIL import Image

    squeezed = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
    picture = Image.fromarray(squeezed.astype(np.uint8)).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    resized = np.asarray(picture)
    return resized[..., None] if resized.ndim == 2 else resized


def check_pictures(where: object, card: Card) -> None:
    """Refuse a card that does not say how pictures become the input. Raises UnusableData."""
    if card.kind == "features":
        raise UnusableData(
            f"{where}: holds pictures, but the card says features, which is also meant where there is none; "
            "set kind to rgb, bgr or gray, or have `equint card` propose a card"
        )


def stacked(
    items: Sequence[Item], card: Card, size: int, load: Callable[[Item], tuple[Array, Truth]]
) -> Iterator[tuple[Array, list[Truth]]]:
    """Batches of (network input, truths); pictures that keep their own sizes come one by one. Raises EquintError."""
    check_pictures("the data", card)
    step = size if card.size else 1
    for start in range(0, len(items), step):
        loaded = [load(item) for item in items[start : start + step]]
        yield np.stack([x for x, _ in loaded]), [truth for _, truth in loaded]
