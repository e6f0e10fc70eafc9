"""What was found, line by line in a file: a run that is killed loses nothing that was written.

Every line is one JSON object with a `key`. Lines are only ever added, whole and flushed to the disk; what a killed run
left half written is skipped when the file is read and closed off when it is written again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import drafts
from ..errors import OutputRefused, UnusableData
from ..files import jsonable


def read_lines(path: str | os.PathLike[str]) -> dict[str, dict[str, Any]]:
    """Every key's last entry; none where there is no file yet. What is no JSON object with a key is skipped."""
    try:
        raw = Path(path).read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UnusableData(f"{path}: cannot read ({error.strerror or error}); choose another cache") from error
    found: dict[str, dict[str, Any]] = {}
    for line in raw.split(b"\n"):
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and isinstance(entry.get("key"), str):
            found[entry["key"]] = entry
    return found


def add_line(path: str | os.PathLike[str], entry: Mapping[str, Any]) -> None:
    """Write an entry at the end of the file, in one piece; it is on the disk when this returns."""
    line = json.dumps(jsonable(entry, str), ensure_ascii=False, allow_nan=False).encode() + b"\n"
    try:
        drafts.add_line(path, line)
    except OSError as error:
        raise OutputRefused(f"{path}: cannot write ({error.strerror or error}); choose another cache") from error


def numbers(value: Any) -> Any:
    """A value from a line, its infinities restored.

    Example:
        >>> numbers({"sqnr_db": "inf", "top1": 50.0})
        {'sqnr_db': inf, 'top1': 50.0}
    """
    if isinstance(value, dict):
        return {k: numbers(v) for k, v in value.items()}
    return float(value) if isinstance(value, str) and value in ("inf", "-inf", "nan") else value
