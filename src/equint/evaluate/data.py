"""Cards and labelled data: from files to batches of network input.

A card is a small TOML file that travels with a network and says how its input is made; docs/cards.md
describes every key.
"""

from __future__ import annotations

import csv
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import EquintError
from ..images import BATCH, Images
from ..model import Array

PICTURES = frozenset({".jpg", ".jpeg", ".png", ".bmp"})
KINDS = ("rgb", "gray", "features")


@dataclass(frozen=True)
class Card:
    """How a network's input is made, and where its data lie.

    Attributes:
        kind: "rgb", "gray" (pixels 0 to 255, then (x − mean)/std, NCHW) or "features" (fed as they are).
        mean, std: per channel, in pixel units.
        size: (height, width), or None to keep the images'.
        range: lowest and highest value of the network's input, where known.
        task: "classification", …
        data: paths by role ("eval", "calibration"), already joined to the card's folder.
    """

    kind: str = "features"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    size: tuple[int, int] | None = None
    range: tuple[float, float] | None = None
    task: str = "classification"
    data: Mapping[str, Any] = field(default_factory=dict)


def read_card(path: str | os.PathLike[str]) -> Card:
    """Read a card.

    Raises:
        EquintError: missing file, not TOML, or values that make no sense, naming the key.
    """
    path = Path(path)
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise EquintError(f"{path}: no such card") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise EquintError(f"{path}: not a readable TOML card ({error})") from error
    given, data = table.get("input", {}), table.get("data", {})
    if not isinstance(given, dict) or not isinstance(data, dict):
        raise EquintError(f"{path}: [input] and [data] must be tables")
    unknown = set(given) - {"kind", "mean", "std", "size", "range"}
    if unknown:
        raise EquintError(
            f"{path}: unknown key {sorted(unknown)[0]} in [input]; known are kind, mean, std, size, range"
        )
    kind = given.get("kind", "rgb")
    if kind not in KINDS:
        raise EquintError(f"{path}: kind = {kind!r}; choose {', '.join(KINDS)}")
    channels = {"rgb": 3, "gray": 1}.get(kind, 0)
    mean = _numbers(path, given, "mean", [0.0] * channels)
    std = _numbers(path, given, "std", [1.0] * channels)
    if len(mean) != len(std) or (channels and len(mean) not in (1, channels)) or any(s <= 0 for s in std):
        raise EquintError(f"{path}: mean and std need {channels or 'as many'} numbers each, std above 0")
    size, span = _numbers(path, given, "size", []), _numbers(path, given, "range", [])
    if len(size) not in (0, 2) or any(s < 1 for s in size):
        raise EquintError(f"{path}: size must be [height, width]")
    if len(span) not in (0, 2) or (span and span[0] >= span[1]):
        raise EquintError(f"{path}: range must be [low, high]")
    joined = {k: path.parent / v if isinstance(v, str) and k in ("eval", "calibration") else v for k, v in data.items()}
    return Card(
        kind,
        mean,
        std,
        (int(size[0]), int(size[1])) if size else None,
        (span[0], span[1]) if span else None,
        str(table.get("task", "classification")),
        joined,
    )


def _numbers(path: Path, table: Mapping[str, Any], key: str, absent: list[float]) -> tuple[float, ...]:
    value = table.get(key, absent)
    value = [value] if isinstance(value, (int, float)) else value
    if not isinstance(value, list) or not all(isinstance(v, (int, float)) and np.isfinite(v) for v in value):
        raise EquintError(f"{path}: {key} must be a list of numbers")
    return tuple(float(v) for v in value)


def batches(
    source: str | os.PathLike[str], card: Card, size: int = 32, limit: int | None = None
) -> Iterator[tuple[Array, Array | None]]:
    """Batches of (network input, labels) from an .npz or .npy file or a folder of pictures.

    A folder holds class folders, or a labels.csv with columns file and label, or just pictures (then the
    labels are None). An .npz holds `x` (N, H, W, C) and maybe `y` (N,).

    Raises:
        EquintError: nothing there, arrays of a wrong shape, an unreadable picture.
    """
    path = Path(source)
    if path.is_dir():
        yield from _pictures(path, card, size, limit)
    elif path.suffix in (".npz", ".npy"):
        yield from _arrays(path, card, size, limit)
    else:
        problem = "no such file or folder" if not path.exists() else "not an .npz, an .npy or a folder of pictures"
        raise EquintError(f"{path}: {problem}; give data as .npz with x and y, or as a folder of pictures")


def images(source: str | os.PathLike[str], card: Card, limit: int | None = None, size: int = BATCH) -> Images:
    """The network inputs that `batches` gives, to be read again and again.

    Raises:
        EquintError: nothing there; while reading, as `batches`.
    """
    count(source, limit)
    return Images(lambda: (x for x, _ in batches(source, card, size, limit)), os.fspath(source))


def count(source: str | os.PathLike[str], limit: int | None = None) -> int:
    """How many samples `batches` will give."""
    path = Path(source)
    total = len(_listing(path)[0]) if path.is_dir() else len(_open_arrays(path)[0])
    return total if limit is None else min(total, limit)


def _open_arrays(path: Path) -> tuple[Array, Array | None]:
    x, y = _loaded(path)
    if x.ndim == 0 or (y is not None and y.ndim == 0):
        raise EquintError(f"{path}: x and y must hold one entry per sample")
    return x, y


def _loaded(path: Path) -> tuple[Array, Array | None]:
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded, None
            if "x" not in loaded:
                raise EquintError(f"{path}: holds {', '.join(loaded)} but no x; store inputs as x and labels as y")
            return loaded["x"], loaded.get("y", None)
    except FileNotFoundError as error:
        raise EquintError(f"{path}: no such file") from error
    except EquintError:
        raise
    except Exception as error:
        raise EquintError(f"{path}: not a readable .npz or .npy file ({error})") from error


def _arrays(path: Path, card: Card, size: int, limit: int | None) -> Iterator[tuple[Array, Array | None]]:
    x, y = _open_arrays(path)
    if x.dtype.kind not in "fiub":
        raise EquintError(f"{path}: x holds {x.dtype}, not numbers that a network can read")
    total = len(x) if limit is None else min(limit, len(x))
    if total == 0:
        raise EquintError(f"{path}: x is empty; give at least one sample")
    if x.ndim < 2 or (y is not None and len(y) != len(x)):
        raise EquintError(f"{path}: x has shape {x.shape} and y {None if y is None else y.shape}; lengths must agree")
    for start in range(0, total, size):
        part = x[start : min(start + size, total)]
        ready = (
            part.astype(np.float32) if card.kind == "features" else np.stack([_prepared(p, card, path) for p in part])
        )
        yield ready, None if y is None else y[start : start + len(part)]


def _listing(path: Path) -> tuple[list[Path], Array | None]:
    table = path / "labels.csv"
    if table.is_file():
        with table.open(newline="") as handle:
            rows = list(csv.DictReader(handle))
        if not rows or not {"file", "label"} <= rows[0].keys():
            raise EquintError(f"{table}: needs columns file and label")
        try:
            return [path / r["file"] for r in rows], np.asarray([int(r["label"]) for r in rows])
        except (TypeError, ValueError) as error:
            raise EquintError(f"{table}: every row needs a file and a whole number as label ({error})") from error
    classes = sorted(p for p in path.iterdir() if p.is_dir())
    labelled = [(f, k) for k, c in enumerate(classes) for f in sorted(c.iterdir()) if f.suffix.lower() in PICTURES]
    if labelled:
        return [f for f, _ in labelled], np.asarray([k for _, k in labelled])
    files = sorted(f for f in path.iterdir() if f.suffix.lower() in PICTURES)
    if not files:
        raise EquintError(f"{path}: no pictures in it (.jpg, .png or .bmp), nor class folders of them")
    return files, None


def _pictures(path: Path, card: Card, size: int, limit: int | None) -> Iterator[tuple[Array, Array | None]]:
    from PIL import Image

    files, labels = _listing(path)
    files = files[:limit]
    if card.kind == "features":
        raise EquintError(f"{path}: holds pictures but the card says features; set kind to rgb or gray")
    for start in range(0, len(files), size if card.size else 1):
        part = []
        for file in files[start : start + (size if card.size else 1)]:
            try:
                with Image.open(file) as picture:
                    if picture.mode.startswith(("I", "F")):
                        raise EquintError(f"{file}: pixels of more than 8 bits; save it with 8 bits per channel")
                    part.append(
                        _prepared(np.asarray(picture.convert("RGB" if card.kind == "rgb" else "L")), card, file)
                    )
            except OSError as error:
                raise EquintError(f"{file}: not a readable picture ({error})") from error
        yield np.stack(part), None if labels is None else labels[start : start + len(part)]


def _prepared(pixels: Array, card: Card, where: Path) -> Array:
    """(H, W, C) or (H, W) pixels to a normalised (C, H, W) float32 array."""
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    channels = 3 if card.kind == "rgb" else 1
    if pixels.ndim != 3 or pixels.shape[-1] != channels:
        raise EquintError(f"{where}: a sample of shape {pixels.shape}; kind {card.kind} needs (H, W, {channels})")
    if card.size and pixels.shape[:2] != card.size:
        pixels = _resized(pixels, card.size)
    mean, std = np.asarray(card.mean or 0, np.float32), np.asarray(card.std or 1, np.float32)
    return np.ascontiguousarray(((pixels.astype(np.float32) - mean) / std).transpose(2, 0, 1))


def _resized(pixels: Array, size: tuple[int, int]) -> Array:
    from PIL import Image

    squeezed = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
    picture = Image.fromarray(squeezed.astype(np.uint8)).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    resized = np.asarray(picture)
    return resized[..., None] if resized.ndim == 2 else resized
