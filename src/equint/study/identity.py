"""What a file is, whatever its name: keys for what was computed from it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import UnusableData
from ..files import read_toml
from ..samples.shards import shards

HASHED = 64 << 20
"""Bytes up to which data are told apart by what they hold; larger files by path, size and time of change."""


def digest(value: Any) -> str:
    """A short name for plain values, the same in every run."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:32]


def network_identity(path: Path) -> list[Any]:
    """What a network file holds, and which files of external weights lie beside it."""
    beside = sorted(p for p in path.parent.glob(f"{glob_safe(path.name)}[._]*") if p.is_file())
    return [_content(path), [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in beside]]


def glob_safe(name: str) -> str:
    """A file name as a pattern that matches nothing else."""
    return "".join(f"[{c}]" if c in "[*?" else c for c in name)


def data_identity(path: Path) -> Any:
    """What a file of data holds; for a folder, and for a large file, the names, sizes and times of change."""
    try:
        if path.is_dir():
            files = sorted(p for p in path.rglob("*") if p.is_file())
            stats = [(p.relative_to(path).as_posix(), p.stat()) for p in files]
            return digest([(name, s.st_size, s.st_mtime_ns) for name, s in stats])
        stat = path.stat()
    except OSError as error:
        raise UnusableData(f"{path}: cannot read ({error.strerror or error})") from error
    return _content(path) if stat.st_size < HASHED else [os.fspath(path.resolve()), stat.st_size, stat.st_mtime_ns]


def card_identity(path: Path, roles: Mapping[str, bool]) -> dict[str, Any]:
    """What a card says of input and task, and the data that it names, where `roles` does not say that they don't count.

    Raises:
        EquintError: it cannot be read.
    """
    table = read_toml(path, "card")
    data = table.get("data", {})
    named = {k: path.parent / v for k, v in data.items() if isinstance(v, str) and roles.get(k, True)}
    said = {k: v for k, v in data.items() if not isinstance(v, str)}
    held = {k: _held(p) if (p.exists() or set(p.name) & set("*?[")) else data[k] for k, p in named.items()}
    rest = {k: v for k, v in table.items() if k not in ("model", "data")}
    return {"card": rest, "data": said, "held": held}


def _held(path: Path) -> Any:
    """What the data that a card names hold: a file, a folder, or the shards that a glob fits."""
    return data_identity(path) if path.exists() else [(f.name, data_identity(f)) for f in shards(path)]


def _content(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UnusableData(f"{path}: cannot read ({error.strerror or error})") from error
