"""Output files: they appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import EquintError


def writable(path: str | os.PathLike[str]) -> Path:
    """Where an output goes, links followed.

    Raises:
        EquintError: it is a folder or a device, its folder does not exist, or its name is too long.
    """
    try:
        target = Path(path).resolve()
        if target.is_dir():
            raise EquintError(f"{path}: is a folder; give a file name for the output")
        if target.exists() and not target.is_file():
            raise EquintError(f"{path}: is no regular file; give a file name for the output")
        if not target.parent.is_dir():
            raise EquintError(f"{path}: cannot write (no such folder); make it or choose another output")
    except OSError as error:
        raise EquintError(f"{path}: cannot write ({error.strerror or error}); choose another output") from error
    return target


@contextmanager
def drafted(path: str | os.PathLike[str]) -> Iterator[tuple[Path, Path]]:
    """(draft, target): what is written to the draft, in the target's folder, takes the target's place at the end.

    Where the body fails, nothing is left behind and what was there stays.

    Raises:
        EquintError: as `writable`, and where writing fails.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with drafted(Path(folder) / "a.txt") as (draft, target):
        ...         _ = draft.write_text("whole")
        ...     target.read_text()
        'whole'
    """
    target = writable(path)
    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".equint-") as folder:
            draft = Path(folder) / target.name
            yield draft, target
            os.replace(draft, target)
    except OSError as error:
        raise EquintError(f"{target}: cannot write ({error.strerror or error}); choose another output") from error
