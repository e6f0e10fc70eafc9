"""Semantic segmentation: mean intersection over union.

Where the network's map is not as large as the mask, its class scores are enlarged to it (bilinear) and then
decided, so that every labelled pixel counts. Classes that no mask shows do not enter the mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from ..errors import InvalidCard, UnusableData
from ..ir.model import Array, Name
from ..maths.chance import GROUPS, Interval, jackknife
from ..samples.card import Card
from ..samples.folders import beside, pictures, pixels, prepared, stacked
from ..samples.images import BATCH, Feed

IGNORE = 255
Masked = tuple[Array, str]
"""A mask of class numbers, and where it comes from."""


def labelled(folder: Path, card: Card) -> tuple[list[tuple[Path, Path]], int]:
    """Pictures with their masks, and how many have none. Raises EquintError: no picture has a mask of its name."""
    files = pictures(folder, card.data.get("list"))
    found = beside(files, Path(card.data["masks"]), "masks are")
    return found, len(files) - len(found)


def samples(files: list[tuple[Path, Path]], card: Card) -> Iterator[tuple[Array, list[Masked]]]:
    """Batches of (network input, masks of class numbers). Raises EquintError: a mask in colours, or of another size."""

    def load(item: tuple[Path, Path]) -> tuple[Array, Masked]:
        picture, mask = pixels(item[0], card.kind), pixels(item[1], "numbers")
        if mask.ndim != 2:
            raise UnusableData(f"{item[1]}: a mask in colours; save class numbers, as a palette or grey PNG")
        if mask.shape != picture.shape[:2]:
            sizes = f"{mask.shape[1]}×{mask.shape[0]}, but its picture {picture.shape[1]}×{picture.shape[0]}"
            raise UnusableData(f"{item[1]}: the mask is {sizes}; they must be of one size")
        return prepared(picture, card, item[0]), (mask, str(item[1]))

    return stacked(files, card, BATCH, load)


def from_arrays(
    batches: Iterable[tuple[Feed, Array | None]], where: Path
) -> Iterator[tuple[Feed, list[Masked] | None]]:
    """Batches of an .npz, whose `y` (N, H, W) holds the masks. Raises EquintError: `y` of another shape."""
    for x, y in batches:
        if y is not None and (y.ndim != 3 or y.dtype.kind not in "iu"):
            raise UnusableData(f"{where}: y has shape {y.shape}; masks are whole numbers (N, H, W)")
        yield x, None if y is None else [(mask, str(where)) for mask in y]


class Confusion:
    """How often pixels of each true class were given each class, in scores (N, classes, H, W) or numbers (N, H, W).

    `classes` says how many there are, where class numbers do not tell; pixels of the class `ignore` do not count.

    Example:
        >>> confusion = Confusion("y", ignore=255)
        >>> scores = np.array([[[[1.0, 0.0, 0.0]], [[0.0, 1.0, 1.0]]]])
        >>> confusion.add({"y": scores}, [(np.array([[0, 0, 255]]), "a.png")])
        >>> confusion.results()
        {'miou': 50.0, 'pixel_accuracy': 50.0}
    """

    def __init__(self, output: Name, classes: int | None = None, ignore: int = IGNORE) -> None:
        self._output, self._classes, self._ignore = output, classes, ignore
        self.counts: Array = np.zeros((0, 0), np.int64)
        self._pictures = 0
        self._groups: Array = np.zeros((GROUPS, 3, 0), np.int64)  # pictures in turns: pixels right, true and found

    def add(self, outputs: Mapping[Name, Array], truths: Sequence[Masked]) -> None:
        """Count the pixels of a batch. Raises EquintError: no map of classes, or a class that the network has not."""
        value = outputs[self._output]
        if value.ndim not in (3, 4) or (value.ndim == 4 and value.shape[1] < 2) or len(value) != len(truths):
            raise UnusableData(
                f"output {self._output} has shape {value.shape}; segmentation needs (N, classes, H, W) scores "
                "or (N, H, W) class numbers"
            )
        scores = value.ndim == 4
        classes = value.shape[1] if scores else self._classes
        if classes is None:
            raise InvalidCard("the output gives class numbers; say how many classes there are, in [data] of the card")
        if not self.counts.size:
            self.counts = np.zeros((classes, classes), np.int64)
            self._groups = np.zeros((GROUPS, 3, classes), np.int64)
        for picture, (mask, where) in zip(value, truths, strict=True):
            decided = enlarged(picture, mask.shape).argmax(0) if scores else _nearest(picture, mask.shape)
            self._count(decided.astype(np.int64), mask.astype(np.int64), classes, where)

    def _count(self, decided: Array, mask: Array, classes: int, where: str) -> None:
        counted = mask != self._ignore
        truth, guess = mask[counted], decided[counted]
        for name, found in (("the mask", truth), ("the network", guess)):
            if found.size and not 0 <= int(found.min()) <= int(found.max()) < classes:
                wrong = int(found.max()) if found.max() >= classes else int(found.min())
                raise InvalidCard(
                    f"{where}: {name} says class {wrong}, but there are {classes}, from 0 (ignored: {self._ignore}); "
                    "set ignore in [data] of the card"
                )
        own = np.bincount(truth * classes + guess, minlength=classes**2).reshape(classes, classes)
        self.counts += own
        self._groups[self._pictures % GROUPS] += [np.diag(own), own.sum(1), own.sum(0)]
        self._pictures += 1

    def merge(self, other: Confusion) -> None:
        """Count what another has counted."""
        if other.counts.size:
            turned = np.roll(other._groups, self._pictures, 0)
            self.counts = self.counts + other.counts if self.counts.size else other.counts
            self._groups = self._groups + turned if self._groups.size else turned
        self._pictures += other._pictures

    def results(self) -> dict[str, float]:
        """mIoU over the classes in the masks, and right pixels, in per cent. Raises EquintError: no pixel."""
        if not self.counts.any():
            raise UnusableData(f"every pixel of the masks is ignored ({self._ignore}); nothing to measure")
        overlap = _miou(np.stack([np.diag(self.counts), self.counts.sum(1), self.counts.sum(0)]))
        return {"miou": overlap, "pixel_accuracy": 100 * float(np.trace(self.counts) / self.counts.sum())}

    def lost(self, before: Confusion, /) -> Interval | None:
        """By how much mIoU lies under another network's on the same pictures, in points."""
        now, then, groups = self._groups, before._groups, min(self._pictures, GROUPS)
        return jackknife(lambda kept: _miou(then[kept].sum(0)) - _miou(now[kept].sum(0)), groups)


def _miou(counts: Array) -> float:
    """Per cent, over the classes in the masks; `(3, classes)`: pixels that are right, true, and found."""
    right, true, found = counts
    occurs = true > 0
    return 100 * float(np.mean(right[occurs] / (true + found - right)[occurs])) if occurs.any() else np.nan


def confusion(output: Name, card: Card) -> Confusion:
    """An empty `Confusion` with the card's classes and ignored class."""
    return Confusion(output, card.data.get("classes"), card.data.get("ignore", IGNORE))


def enlarged(scores: Array, size: tuple[int, ...]) -> Array:
    """(classes, h, w) scores at another (H, W), bilinear."""
    from PIL import Image

    if scores.shape[1:] == tuple(size):
        return scores
    planes = (Image.fromarray(np.ascontiguousarray(s, np.float32)) for s in scores)
    return np.stack([np.asarray(p.resize((size[1], size[0]), Image.Resampling.BILINEAR)) for p in planes])


def _nearest(numbers: Array, size: tuple[int, ...]) -> Array:
    rows, columns = ((np.arange(n) + 0.5) * m / n for n, m in zip(size, numbers.shape, strict=True))
    nearest: Array = numbers[rows.astype(int)[:, None], columns.astype(int)]
    return nearest
