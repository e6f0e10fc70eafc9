"""Tar shards that nobody should give: damaged, links and devices, headers that lie, bombs."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

from .case import Case, Fault, Make, Reader, crossed, written

SHARD = "shard.tar"


def packed(members: Sequence[tuple[str, bytes]], **header: object) -> bytes:
    """A tar file of these members; `header` changes what is said of each."""
    held = io.BytesIO()
    with tarfile.TarFile(fileobj=held, mode="w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in header.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(content))
    return held.getvalue()


def zeros(size: int) -> Make:
    """A header of so many bytes of zeros behind it, gzipped: a bomb."""

    def make(folder: Path) -> None:
        info = tarfile.TarInfo("0.png")
        info.size = size
        with gzip.open(folder / "shard.tar.gz", "wb", 1) as file:
            file.write(info.tobuf())
            for _ in range(min(size, 1 << 28) >> 20):
                file.write(bytes(1 << 20))

    return make


def _faults(picture: bytes) -> list[Fault]:
    good = packed([("0.png", picture), ("0.cls", b"0")])
    link = {"linkname": "/etc/passwd"}
    contents = {
        "empty": b"",
        "no tar": b"a" * 3000,
        "cut": good[:700],
        "garbage behind": good[:512] + b"x" * (len(good) - 512),
        "no pictures": packed([("a.txt", b"a")]),
        "symbolic link": packed([("0.png", b"")], type=tarfile.SYMTYPE, **link),
        "hard link": packed([("0.png", b"")], type=tarfile.LNKTYPE, **link),
        "device": packed([("0.png", b"")], type=tarfile.CHRTYPE),
        "pipe": packed([("0.png", b"")], type=tarfile.FIFOTYPE),
        "long name": packed([("n" * (2 << 20), b"")]),
        "long class": packed([("0.png", picture), ("0.cls", b"1" * 100_000)]),
        "class of bytes": packed([("0.png", picture), ("0.cls", b"\xff\x00")]),
        "class beyond": packed([("0.png", picture), ("0.cls", b"999")]),
        "class below 0": packed([("0.png", picture), ("0.cls", b"-1")]),
        "class alone": packed([("0.cls", b"1")]),
        "two pictures": packed([("0.png", picture), ("0.jpg", picture)]),
        "no picture": packed([("0.png", b"hello"), ("0.cls", b"0")]),
        "some classes": packed([("0.png", picture), ("0.cls", b"0"), ("1.png", picture)]),
        "size of 2^40": packed([])[:0] + _header(1 << 40),
    }
    return [Fault(what, written(SHARD, content)) for what, content in contents.items()]


def _header(size: int) -> bytes:
    info = tarfile.TarInfo("0.png")
    info.size = size
    return info.tobuf()


def _picture() -> bytes:
    from PIL import Image

    held = io.BytesIO()
    Image.new("RGB", (8, 8)).save(held, "png")
    return held.getvalue()


def cases() -> list[Case]:
    """All."""
    readers = (Reader("evaluate", ("evaluate", "net.onnx", "--card", "net.toml", "--data", SHARD), (), SHARD),)
    found = crossed("shards", _faults(_picture()), readers)
    bomb = ("evaluate", "net.onnx", "--card", "net.toml", "--data", "shard.tar.gz")
    found.append(Case("shards/bomb of 256 MB/evaluate", bomb, zeros(1 << 28), ("shard.tar.gz",)))
    lost = ("evaluate", "net.onnx", "--card", "net.toml", "--data", "*.tar")
    found.append(Case("shards/glob that fits nothing/evaluate", lost, names=("*.tar",)))
    spoilt = written(SHARD, packed([("0.png", b"hello"), ("0.cls", b"0")]))
    for name, *command in (("quantize", "-o", "out.onnx"), ("auto", "-o", "out.onnx"), ("evaluate",)):
        told = (name, "net.onnx", *command, "--card", "net.toml", "--data", "sh*.tar")
        found.append(Case(f"shards/no picture behind a glob/{name}", told, spoilt, ("equint: shard.tar/0.png: ",)))
    return found
