"""What kind of file something is, by how it begins: an output takes no other kind's place unless it is to."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path

LOOKED_AT = 1 << 20
"""Bytes of a file that are looked at."""
NETWORK, TFLITE, WEIGHTS, PAGE, TEXT = "a network", "a TFLite model", "safetensors", "a web page", "a text"
STATISTICS, CARD, RECIPE, BUNDLE, JSON = "statistics", "a card", "a recipe", "a bundle", "a JSON file"
_ARCHIVE, _TOML, _UNKNOWN, _SETTINGS = "a ZIP archive", "a TOML file", "a binary file", "a card or a recipe"
OWN: Mapping[str, str] = {CARD: _SETTINGS, RECIPE: _SETTINGS, BUNDLE: JSON}
"""Kinds that only equint writes: what their endings promise."""
EDITED = frozenset((CARD, RECIPE))
"""Kinds that people change by hand: none takes the place of another of its kind either."""
EXPECTED: Mapping[str, str] = {
    ".onnx": NETWORK,
    ".tflite": TFLITE,
    ".npz": STATISTICS,
    ".npy": "an array",
    ".html": PAGE,
    ".toml": _SETTINGS,
    ".json": JSON,
    ".safetensors": WEIGHTS,
    ".png": "a PNG picture",
    ".pdf": "a PDF",
    ".svg": "an SVG picture",
    ".md": TEXT,
}
"""Kinds that endings of outputs promise."""
_BEGINNINGS = (
    (b"\x89PNG\r\n", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"%PDF", "a PDF"),
    (b"\x93NUMPY", "an array"),
    (b"PK\x03\x04", _ARCHIVE),
    (b"PK\x05\x06", _ARCHIVE),
    (b"\x1f\x8b", "a gzip file"),
)
_MARKUP = ((b"<!doctype html", PAGE), (b"<html", PAGE), (b"<svg", "an SVG picture"))


def kind_of(path: str | os.PathLike[str]) -> str | None:
    """The kind of a regular file, in words; None of an empty one, of which nothing can be lost.

    Raises:
        OSError: it cannot be read.

    Example:
        >>> from equint.demo import data_path, model_path
        >>> kind_of(model_path()), kind_of(data_path())
        ('a network', 'a ZIP archive')
    """
    with open(path, "rb") as file:
        head = file.read(LOOKED_AT)
    if not head:
        return None
    if head.startswith(b"PK\x03\x04") and head[30:40] == b"header.npy":
        return STATISTICS
    for beginning, kind in _BEGINNINGS:
        if head.startswith(beginning):
            return kind
    if head[4:8] == b"TFL3":
        return TFLITE
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 32:
        return WEIGHTS
    return _kind_of_text(head) or (NETWORK if head[:1] == b"\x08" else _UNKNOWN)  # ONNX: ir_version comes first


def _kind_of_text(head: bytes) -> str | None:
    """What a text is written in; None where it is no text."""
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if len(head) < LOOKED_AT or error.start < len(head) - 3:  # not only cut in the middle of a character
            return None
        text = head[: error.start].decode("utf-8")
    if any(ord(c) < 32 and c not in "\t\n\r\f\x1b" for c in text):
        return None
    begun = head.lstrip()[:4096].lower()
    for beginning, kind in _MARKUP:
        if begun.startswith(beginning) or (begun.startswith(b"<?xml") and beginning in begun):
            return kind
    try:
        keys = tomllib.loads(text).keys()
    except (tomllib.TOMLDecodeError, RecursionError):
        if not begun.startswith((b"{", b"[")):
            return TEXT
        return BUNDLE if b'"equint.bundle"' in begun else JSON
    if not keys:  # comments alone, as headings of Markdown
        return TEXT
    return RECIPE if "passes" in keys else CARD if keys & {"input", "task"} else _TOML


def takes_place(written: str, kind: str) -> bool:
    """Whether what is written may take the place of a file of some kind.

    Example:
        >>> takes_place(NETWORK, NETWORK), takes_place(NETWORK, PAGE), takes_place(BUNDLE, JSON)
        (True, False, False)
        >>> takes_place(CARD, CARD)
        False
    """
    return written == kind and written not in EDITED


def fits(written: str, path: str | os.PathLike[str]) -> bool:
    """Whether a name's ending promises what is written, or nothing.

    Example:
        >>> fits(NETWORK, "q.onnx"), fits(NETWORK, "q.bin"), fits(NETWORK, "q.png"), fits(BUNDLE, "q.json")
        (True, True, False, True)
    """
    return EXPECTED.get(Path(path).suffix.lower()) in (None, written, OWN.get(written))
