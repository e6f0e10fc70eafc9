"""What data hold, before anything is known of how they are prepared: pictures or arrays, values, sizes, labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from ..errors import UnusableData
from ..files import readable
from ..ir.model import Array, Name
from .data import listing, open_arrays
from .folders import is_picture, pixels, unreadable
from .shards import count, entries, shards

LOOKED_AT = 64
"""Pictures or samples whose sizes and values are looked at."""
CALIBRATION = ("calib", "calibration", "train", "training")
EVAL = ("eval", "evaluation", "val", "valid", "validation", "test")
"""Names of folders that hold a part of the data each, and no class. Pictures may lie in a folder `images`, too, beside
what is on them."""


@dataclass(frozen=True)
class Survey:
    """What data hold.

    Attributes:
        eval, calibration: where to measure and where to look, the same place if the data are not split.
        count: samples to measure on; labelled: whether something says of which class they are.
        classes: class folders, by name, if these are the labels.
        sizes: (height, width) of some pictures; shape: of one sample of an array.
        low, high: of the values; whole: whether these are whole numbers, as pixels are.
    """

    eval: Path
    calibration: Path
    count: int
    labelled: bool
    classes: tuple[str, ...] = ()
    sizes: tuple[tuple[int, int], ...] = ()
    shape: tuple[int, ...] = ()
    low: float = 0.0
    high: float = 255.0
    whole: bool = True

    @property
    def split(self) -> bool:
        return self.eval != self.calibration

    @property
    def white(self) -> float:
        """The value that the brightest pixels have: 255, or less in arrays of fewer grey levels.

        Example:
            >>> Survey(Path(), Path(), 9, False, high=16.0).white, Survey(Path(), Path(), 9, False, high=241.0).white
            (16.0, 255.0)
        """
        return 255.0 if self.high > 64 else max(self.high, 1.0)


def survey(source: Path, inputs: Sequence[Name] = ()) -> Survey:
    """Look at a folder of pictures, or of parts of the data, or at an .npz or .npy file.

    Args:
        inputs: of the network, by name.

    Raises:
        EquintError: nothing there, or nothing that can be read.

    Example:
        >>> from equint.demo import data_path
        >>> found = survey(data_path())
        >>> found.count, found.labelled, found.shape, found.high
        (500, True, (8, 8, 1), 16.0)
    """
    if files := shards(source):
        return _of_shards(source, files)
    if source.is_dir():
        return _of_folder(source)
    if source.suffix not in (".npz", ".npy"):
        problem = "no such file or folder" if not source.exists() else "not an .npz, an .npy or a folder of pictures"
        raise UnusableData(f"{source}: {problem}; give pictures in a folder, or an .npz with x and y")
    x, y = open_arrays(source, inputs)
    empty = 0 in x.shape
    if x.dtype.kind not in "fiub" or empty:
        raise UnusableData(f"{source}: x holds {'nothing' if empty else x.dtype}; give numbers, one entry per sample")
    if len(x.shape) < 2:
        raise UnusableData(f"{source}: x holds one number a sample; give arrays (N, …) of the network's input")
    part = np.concatenate(list(x.batches(LOOKED_AT, LOOKED_AT))).astype(np.float64)
    if not np.isfinite(part).all():
        raise UnusableData(f"{source}: x holds values that are not finite; check how the samples are made")
    labelled = y is not None and y.ndim == 1 and y.dtype.kind in "iu"
    size = (x.shape[1], x.shape[2]) if len(x.shape) == 4 else None
    seen = {"low": float(part.min()), "high": float(part.max()), "whole": bool((part == np.rint(part)).all())}
    return Survey(source, source, len(x), labelled, (), (size,) if size else (), tuple(x.shape[1:]), **seen)  # type: ignore[arg-type]


def _of_folder(source: Path) -> Survey:
    parts = {part.name.lower(): part for part in sorted(source.iterdir()) if part.is_dir()}
    used = [next((parts[name] for name in names if name in parts), None) for names in (EVAL, CALIBRATION)]
    beside = [part for name, part in parts.items() if name not in (*EVAL, *CALIBRATION, "images")]
    split = any(used) and not (source / "labels.csv").is_file() and not any(map(_holds_pictures, beside))
    if split and all(_holds_pictures(part) for part in used if part):
        measured, looked = (part or used[1 - k] for k, part in enumerate(used))
    else:
        measured = looked = parts.get("images", source)
    assert measured is not None
    assert looked is not None
    found = listing(measured)
    return Survey(measured, looked, len(found.files), found.labels is not None, found.classes, _sizes(found.files))


def _of_shards(source: Path, files: Sequence[Path]) -> Survey:
    first = list(islice(entries(files), LOOKED_AT))
    if not first:
        raise UnusableData(f"{source}: no pictures in it; put some in it")
    sizes = tuple(pixels(e.where, "rgb", e.picture).shape[:2] for e in first)
    return Survey(source, source, count(files), first[0].label is not None, (), sizes)


def _holds_pictures(folder: Path) -> bool:
    """Whether a folder holds pictures, or class folders of them."""
    found = (f for part in (folder, *(p for p in folder.iterdir() if p.is_dir())) for f in part.iterdir())
    return any(is_picture(f.name) for f in found)


def _sizes(files: Sequence[Path]) -> tuple[tuple[int, int], ...]:
    from PIL import Image

    found = []
    for file in files[:LOOKED_AT]:
        try:
            with Image.open(readable(file, UnusableData, "picture")) as picture:
                found.append((picture.height, picture.width))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise unreadable(file, error) from error
    return tuple(found)


def spread(values: Array) -> tuple[float, float]:
    """The lowest and highest of the values, rounded outwards to two digits of their distance.

    Example:
        >>> spread(np.array([-0.9993, 1.234]))
        (-1.0, 1.24)
    """
    low, high = float(np.min(values)), float(np.max(values))
    step = 10.0 ** (np.floor(np.log10(max(high - low, 1e-12))) - 2)
    return float(round(np.floor(low / step) * step, 12)), float(round(np.ceil(high / step) * step, 12))
