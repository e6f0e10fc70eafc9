"""Arrays in .npz and .npy files: what they are is known before they are read, and samples come batch by batch."""

from __future__ import annotations

import math
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..errors import EquintError, UnusableData
from ..files import readable
from ..ir.model import Array, Name

MOST = 1 << 30
"""Bytes of an array that is read as a whole; samples may be more, they are read batch by batch."""


@dataclass(frozen=True)
class Stored:
    """An array in a file.

    Attributes:
        path: of the file; entry: of the archive, None where the file is the array.
        shape, dtype: as its header says; fortran: whether the first axis is the fastest.
    """

    path: Path
    entry: str | None
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool = False

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """Of the array once it is read."""
        return math.prod(self.shape) * self.dtype.itemsize

    def whole(self) -> Array:
        """All of it. Raises UnusableData: it is damaged, or larger than `MOST`."""
        if self.nbytes > MOST:
            name = "" if self.entry is None else f"{self.entry.removesuffix('.npy')} "
            size = f"{self.nbytes / 2**30:.3g} GiB unpacked"
            raise UnusableData(f"{self.path}: {name}takes {size}, of {MOST / 2**30:g} at most; store fewer samples")
        parts = list(self.batches(max(len(self), 1) if self.shape else 1))
        if not parts:
            return np.zeros(self.shape, self.dtype)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def batches(self, size: int, limit: int | None = None, start: int = 0) -> Iterator[Array]:
        """Rows, at most so many at a time; nothing else is kept in memory.

        Args:
            limit: the row before which it ends; start: the first row.

        Raises:
            UnusableData: it is damaged, or of an order in which rows do not follow one another and too large.
        """
        try:
            yield from self._read(size, limit, start)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise damaged(self.path, error) from error

    def _read(self, size: int, limit: int | None, first: int) -> Iterator[Array]:
        if self.fortran and self.shape:
            array = self._transposed()
            total = len(array) if limit is None else min(limit, len(array))
            yield from (array[k : min(k + size, total)] for k in range(first, total, size))
            return
        row = math.prod(self.shape[1:]) * self.dtype.itemsize
        if row > MOST:
            raise ValueError(f"one sample takes {row / 2**30:.3g} GiB, of {MOST / 2**30:g} at most")
        size, total = max(1, min(size, MOST // (4 * max(row, 1)))), self.shape[0] if self.shape else 1
        total = total if limit is None else min(limit, total)
        with _opened(self.path, self.entry) as file:
            _header(file)
            file.seek(first * row, os.SEEK_CUR)
            for start in range(first, total, size):
                count = min(size, total - start)
                raw = file.read(count * row)
                if len(raw) != count * row:
                    raise EOFError("it ends before its array does")
                yield np.frombuffer(raw, self.dtype).reshape((count, *self.shape[1:]) if self.shape else ()).copy()

    def _transposed(self) -> Array:
        if self.nbytes > MOST:
            raise ValueError("stored with its first axis fastest, and too large; store it in C order")
        with _opened(self.path, self.entry) as file:
            _header(file)
            raw = file.read(self.nbytes)
        return np.frombuffer(raw, self.dtype).reshape(self.shape[::-1]).transpose().copy()


def stored(path: str | os.PathLike[str]) -> dict[Name, Stored]:
    """The arrays of an .npz by name, or that of an .npy by the empty name; only their headers are read.

    Raises:
        UnusableData: no regular file, none of these, damaged, or Python's objects, which are never loaded.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder) / "a.npz"
        ...     np.savez(file, x=np.zeros((5, 3)), y=np.arange(5))
        ...     x = stored(file)["x"]
        ...     x.shape, [batch.shape for batch in x.batches(2)]
        ((5, 3), [(2, 3), (2, 3), (1, 3)])
    """
    file = readable(path, UnusableData, "file")
    try:
        with file.open("rb") as opened:
            if opened.read(6) == b"\x93NUMPY":
                opened.seek(0)
                return {"": _described(file, None, opened, file.stat().st_size)}
        with zipfile.ZipFile(file) as archive:
            found = dict[Name, Stored]()
            for info in archive.infolist():
                with archive.open(info) as entry:
                    found[info.filename.removesuffix(".npy")] = _described(file, info.filename, entry, info.file_size)
            return found
    except EquintError:
        raise
    except Exception as error:
        raise damaged(path, error) from error


def damaged(path: str | os.PathLike[str], error: Exception) -> UnusableData:
    """What is said of a file whose arrays cannot be read."""
    why = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
    return UnusableData(f"{os.fspath(path)}: not a readable .npz or .npy file ({why}); store plain arrays of numbers")


def _described(path: Path, entry: str | None, file: IO[bytes], size: int) -> Stored:
    shape, fortran, dtype = _header(file)
    if dtype.hasobject:
        raise ValueError("it holds Python's objects, which are never loaded, and no plain numbers")
    if any(n < 0 for n in shape) or math.prod(shape) * dtype.itemsize > max(size, 0):
        raise ValueError(f"its header says {dtype} {shape}, and there are {size} bytes"[:150])
    return Stored(path, entry, shape, dtype, fortran)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(file)
    raise ValueError(f"arrays of version {version}, which only records with odd names need")


@contextmanager
def _opened(path: Path, entry: str | None) -> Iterator[IO[bytes]]:
    """A file, or an entry of an archive, open for reading."""
    if entry is None:
        with path.open("rb") as file:
            yield file
    else:
        with zipfile.ZipFile(path) as archive, archive.open(entry) as inner:
            yield inner
