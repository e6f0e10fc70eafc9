"""What kind of file something is, by how it begins: an output takes no other kind's place unless it is to."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path

LOOKED_AT = 1 << 20
"""Bytes of a file that are looked at."""
_ARCHIVE, _TEXT, _TOML, _JSON, _UNKNOWN = "a ZIP archive", "a text", "a TOML file", "a JSON file", "a binary file"
_STATISTICS, _CARD, _RECIPE, _BUNDLE = "statistics", "a card", "a recipe", "a bundle"
_SETTINGS = "a card or a recipe"
OWN: Mapping[str, str] = {_CARD: _SETTINGS, _RECIPE: _SETTINGS, _BUNDLE: _JSON}
"""Kinds that only equint writes: what their endings promise."""
EXPECTED: Mapping[str, str] = {
    ".onnx": "a network",
    ".tflite": "a TFLite model",
    ".npz": _STATISTICS,
    ".npy": "an array",
    ".html": "a web page",
    ".toml": _SETTINGS,
    ".json": _JSON,
    ".safetensors": "safetensors",
    ".png": "a PNG picture",
    ".pdf": "a PDF",
    ".svg": "an SVG picture",
    ".md": _TEXT,
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
_MARKUP = ((b"<!doctype html", "a web page"), (b"<html", "a web page"), (b"<svg", "an SVG picture"))


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
        return _STATISTICS
    for beginning, kind in _BEGINNINGS:
        if head.startswith(beginning):
            return kind
    if head[4:8] == b"TFL3":
        return "a TFLite model"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 32:
        return "safetensors"
    return _kind_of_text(head) or ("a network" if head[:1] == b"\x08" else _UNKNOWN)  # ONNX: ir_version comes first


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
            return _TEXT
        return _BUNDLE if b'"equint.bundle"' in begun else _JSON
    if not keys:  # comments alone, as headings of Markdown
        return _TEXT
    return _RECIPE if "passes" in keys else _CARD if keys & {"input", "task"} else _TOML


def expected(path: Path) -> str | None:
    """The kind that a name's ending promises; None where it promises none."""
    return EXPECTED.get(path.suffix.lower())
