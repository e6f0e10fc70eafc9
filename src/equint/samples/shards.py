"""Tar shards of pictures as WebDataset writes them: `000001.jpg` beside `000001.cls`, one sample behind the other.

They are read as a stream: nothing is unpacked to the disk, and one member at a time is in memory.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, cast

from ..errors import UnusableData, counted
from ..files import readable
from .folders import PICTURES

ENDINGS = (".tar", ".tar.gz", ".tgz")
CLASS = ".cls"
WANTED = PICTURES | {CLASS}
EVERY = 1 << 62
MOST_MEMBER, MOST_CLASS, MOST_HEADER = 1 << 26, 1 << 12, 1 << 20
"""Bytes of the largest member, the longest class, and the longest header."""
MOST_KEYS = 64
"""Keys that headers may set for all members."""
BROKEN = (OSError, EOFError, ValueError, ArithmeticError, LookupError, RecursionError, tarfile.TarError, zlib.error)


@dataclass(frozen=True)
class Entry:
    """A sample: where it lies (shard, and the picture's name in it), the picture's bytes, and its class as written."""

    where: Path
    picture: bytes
    label: str | None


def shards(path: Path) -> list[Path]:
    """The tar files that a path means, by name: one, those of a folder, or those that a glob fits; none for others.

    Raises:
        UnusableData: a glob that fits none, or a folder that holds pictures beside them.

    Example:
        >>> shards(Path("here/photos.tar")), shards(Path("photos.npz"))
        ([PosixPath('here/photos.tar')], [])
    """
    if path.is_dir():
        found = sorted(f for f in path.iterdir() if f.name.lower().endswith(ENDINGS))
        loose = sum(f.suffix.lower() in PICTURES for f in path.rglob("*")) if found else 0
        if loose:
            held = f"{counted(len(found), 'tar file')} and, beside them, {counted(loose, 'picture')}"
            ending = next(e for e in ENDINGS if found[0].name.lower().endswith(e))
            raise UnusableData(f"{path}: holds {held}; keep them in folders of their own, or give {path}/*{ending}")
        return found
    if not path.name.lower().endswith(ENDINGS):
        return []
    if path.exists() or not any(c in path.name for c in "*?["):
        return [path]
    found = sorted(path.parent.glob(path.name))
    if not found:
        raise UnusableData(f"{path}: fits no file; correct the pattern")
    return found


def entries(files: Sequence[Path], start: int = 0) -> Iterator[Entry]:
    """The samples of all shards, in order, from number `start` on; what lies before is passed over unread.

    Raises:
        UnusableData: naming shard and member: damaged, links, too large, two pictures or no picture for a class.
    """
    number, labelled = 0, None
    for file in files:
        for entry in _of_file(file, max(0, start - number)):
            number += 1
            if entry is None:
                continue
            if labelled is not None and labelled != (entry.label is not None):
                lacks = "no class" if labelled else "a class"
                raise UnusableData(
                    f"{entry.where}: has {lacks}, unlike those before; store a class ({CLASS}) for all or for none"
                )
            labelled = entry.label is not None
            yield entry


def count(files: Sequence[Path]) -> int:
    """How many samples there are; only headers are looked at. Raises UnusableData: as `entries`."""
    return sum(sum(1 for _ in _of_file(file, EVERY)) for file in files)


def _of_file(file: Path, skip: int) -> Iterator[Entry | None]:
    """The samples of a shard; None for each of the first, which are passed over."""
    passed = 0
    for members in _groups(file, skip):
        pictures, classes = ([m for m in members if (_ending(m[0]) == CLASS) == told] for told in (False, True))
        if len(pictures) != 1 or len(classes) > 1:
            what = f"{len(pictures) or 'no'} pictures and {len(classes)} classes"
            raise UnusableData(f"{_where(file, members[0][0])}: {what} of that name; store one picture, and one class")
        passed += 1
        if passed <= skip:
            yield None
            continue
        name, content = pictures[0]
        label = _text(classes[0][1], _where(file, classes[0][0])) if classes else None
        yield Entry(_where(file, name), content, label)


def _groups(file: Path, skip: int) -> Iterator[list[tuple[str, bytes]]]:
    """Pictures and classes of one name each, with what they hold; the first so many unread."""
    members, key, passed = list[tuple[str, bytes]](), "", 0
    for name, read in _members(file):
        if _ending(name) not in WANTED:
            continue
        if members and (_key(name) != key or len(members) > 2):
            yield members
            members, passed = [], passed + 1
        key = _key(name)
        members.append((name, read() if passed >= skip else b""))
    if members:
        yield members


def _members(file: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Names of the regular members of a tar file, and what reads each, if it is read before the next."""
    with _naming(file), _opened(file) as raw:
        stream, at = _Bounded(raw), -1
        tar = tarfile.TarFile(fileobj=cast(IO[bytes], stream), mode="r")
        while (member := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]  # or they are kept, and memory grows
            if member.size < 0 or tar.offset <= at or len(tar.pax_headers) > MOST_KEYS:
                raise ValueError("a header that cannot be")
            at = tar.offset
            if member.isdir():
                continue
            if not member.isreg() or member.issparse():
                raise UnusableData(f"{_where(file, member.name)}: a link or device; store the file itself")
            if member.size > MOST_MEMBER:
                size = f"{member.size / 1e6:.0f} MB, of {MOST_MEMBER / 1e6:.0f} at most"
                raise UnusableData(f"{_where(file, member.name)}: {size}; leave it out")
            yield member.name, partial(_content, file, raw, member)
        if not stream.last:
            raise EOFError("it is cut off: the empty blocks at its end are not there")
        if stream.last.strip(b"\0"):
            raise ValueError("what lies behind a member is no header")
        if raw.read(MOST_HEADER).strip(b"\0"):
            raise ValueError("something lies behind its end")


@contextmanager
def _naming(file: Path) -> Iterator[None]:
    """What cannot be read of a tar file names it."""
    try:
        yield
    except BROKEN as error:
        why = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise UnusableData(f"{file}: not a readable tar file ({why}); write it again") from error


def _content(file: Path, raw: IO[bytes], member: tarfile.TarInfo) -> bytes:
    with _naming(file):
        raw.seek(member.offset_data)
        content = raw.read(member.size)
        if len(content) != member.size:
            raise EOFError(f"it ends in {member.name[:80]}")
        return content


@contextmanager
def _opened(file: Path) -> Iterator[IO[bytes]]:
    """A tar file's bytes, unpacked where it is gzipped."""
    with readable(file, UnusableData, "tar file").open("rb") as raw:
        if file.name.lower().endswith(".tar"):
            yield raw
        else:
            with gzip.GzipFile(fileobj=raw) as unpacked:
                yield cast(IO[bytes], unpacked)


class _Bounded:
    """A file for `tarfile`, which reads headers as long as they say they are.

    Attributes:
        last: the last that was read.
    """

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw, self.last = raw, b""
        self.seek, self.tell = raw.seek, raw.tell

    def read(self, size: int) -> bytes:
        """So many bytes. Raises ValueError: more than any header takes."""
        if not 0 <= size <= MOST_HEADER:
            raise ValueError(f"a header of {size} bytes")
        self.last = self._raw.read(size)
        return self.last


def _text(content: bytes, where: Path) -> str:
    try:
        if len(content) > MOST_CLASS:
            raise ValueError(f"{len(content)} bytes")
        return content.decode("utf-8").strip()
    except ValueError as error:
        raise UnusableData(f"{where}: not a readable class ({str(error)[:80]}); write a number or a name") from error


def _ending(name: str) -> str:
    """From the first dot of the file's name on."""
    return "".join(name.rpartition("/")[2].lower().partition(".")[1:])


def _key(name: str) -> str:
    """The name up to the first dot of the file's name."""
    folder, slash, file = name.rpartition("/")
    return f"{folder}{slash}{file.partition('.')[0]}"


def _where(file: Path, name: str) -> Path:
    return Path(f"{file}/{name}")
