"""Tar shards give what folders of the same pictures give, and what is wrong with them is named."""

import gzip
import io
import os
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import equint
from equint.demo import data_path, model_path
from equint.errors import EquintError, UnusableData
from equint.samples.card import Card
from equint.samples.data import batches, count, images, is_labelled
from equint.samples.shards import entries, shards

CARD = Card("gray", (0.0,), (16.0,), (8, 8))
Member = tuple[str, bytes]


def picture(value: int = 0, size: tuple[int, int] = (8, 8)) -> bytes:
    held = io.BytesIO()
    Image.fromarray(np.full(size, value, np.uint8)).save(held, "png")
    return held.getvalue()


def packed(members: Sequence[Member], **header: object) -> bytes:
    held = io.BytesIO()
    with tarfile.TarFile(fileobj=held, mode="w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in header.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(content))
    return held.getvalue()


def digits(start: int, stop: int) -> list[Member]:
    """Digits as WebDataset stores them, classes first as names sort."""
    with np.load(data_path()) as file:
        x, y = file["x"].reshape(-1, 8, 8).astype(np.uint8), file["y"]
    found = list[Member]()
    for k in range(start, stop):
        held = io.BytesIO()
        Image.fromarray(x[k]).save(held, "png")
        found += [(f"train/{k:04}.cls", b"%d\n" % y[k]), (f"train/{k:04}.png", held.getvalue())]
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's digits in one shard, in a gzipped one, and in three of a folder."""
    folder = tmp_path_factory.mktemp("shards")
    (folder / "all.tar").write_bytes(packed(digits(0, 500)))
    (folder / "all.tar.gz").write_bytes(gzip.compress(packed(digits(0, 500)), 1))
    (folder / "split").mkdir()
    for number, (start, stop) in enumerate(((0, 100), (100, 350), (350, 500))):
        (folder / "split" / f"{number}.tar").write_bytes(packed(digits(start, stop)))
    return folder


SOURCES = ("all.tar", "all.tar.gz", "split", "split/*.tar", "split/?.tar")


@pytest.mark.parametrize("source", SOURCES)
def test_samples_are_those_of_the_arrays(source: str, place: Path) -> None:
    whole = [np.concatenate(parts) for parts in zip(*batches(data_path(), CARD), strict=True)]
    for start in (0, 99, 100, 256, 499):
        parts = list(batches(place / source, CARD, 32, None, (), start))
        x, y = (np.concatenate(values) for values in zip(*parts, strict=True))
        np.testing.assert_array_equal(x, whole[0][start:])
        np.testing.assert_array_equal(y, whole[1][start:])
    assert list(batches(place / source, CARD, start=500)) == []
    assert sum(len(x) for x, _ in batches(place / source, CARD, limit=130)) == 130
    assert (count(place / source), count(place / source, 130)) == (500, 130)
    assert images(place / source, CARD).total == 500
    assert is_labelled(place / source)


@pytest.mark.parametrize("source", SOURCES)
def test_figures_and_statistics_are_those_of_the_arrays(source: str, place: Path) -> None:
    assert equint.evaluate(model_path(), place / source, CARD).figures == (
        equint.evaluate(model_path(), data_path(), CARD).figures
    )
    found = equint.calibrate(model_path(), place / source, input=CARD)
    for name, tensor in equint.calibrate(model_path(), data_path(), input=CARD).tensors.items():
        np.testing.assert_array_equal(found.tensors[name].total, tensor.total)


def test_nothing_is_written_and_other_members_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    members = [("../a.png", picture(3)), ("../a.json", b"{}"), ("/b.b.png", b"no"), ("/b.PNG", picture(4)), ("c", b"")]
    Path("a.tar").write_bytes(packed(members))
    found = list(entries([Path("a.tar")]))
    assert [(str(e.where), e.label) for e in found] == [("a.tar/../a.png", None), ("a.tar/b.PNG", None)]
    assert not is_labelled(Path("a.tar"))
    assert os.listdir() == ["a.tar"]
    assert os.listdir("..").count("a.png") == 0


def test_classes_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(packed([("0.png", picture()), ("0.cls", b"dog"), ("1.png", picture()), ("1.cls", b"cat")]))
    card = Card("gray", (0.0,), (1.0,), labels=("cat", "dog"))
    assert [y.tolist() for _, y in batches(path, card) if y is not None] == [[1], [0]]
    with pytest.raises(EquintError, match="label 'dog' is neither a whole number from 0 to 999,999 nor among"):
        list(batches(path, CARD))


GOOD = [("0.png", picture()), ("0.cls", b"1")]
HEADER = packed(GOOD)


def overwritten(at: int, content: bytes) -> bytes:
    return HEADER[:at] + content + HEADER[at + len(content) :]


def negative() -> bytes:
    """A header whose size is below 0, its checksum right."""
    header = bytearray(HEADER[:512])
    header[124:136] = b"\xff" * 11 + b"\x00"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + HEADER[512:]


BAD: dict[str, tuple[bytes | Callable[[], bytes], str]] = {
    "empty": (b"", "not a readable tar file"),
    "no tar": (b"a" * 2000, "not a readable tar file"),
    "no pictures": (packed([("a.txt", b"")]), "no pictures in it"),
    "cut in a picture": (HEADER[:560], "not a readable tar file"),
    "cut in a header": (HEADER[:1500], "not a readable tar file"),
    "cut behind a member": (lambda: HEADER[: HEADER.index(b"0.cls")], "it is cut off"),
    "garbage behind a member": (overwritten(1024, b"x" * 512), "no header"),
    "another behind it": (HEADER + HEADER, "something lies behind its end"),
    "negative size": (negative, "not a readable tar file"),
    "long name": (packed([("n" * (2 << 20), b"")]), "a header of"),
    "link": (packed([("0.png", b"")], type=tarfile.SYMTYPE, linkname="/etc/passwd"), "a link or device"),
    "hard link": (packed([("0.png", b"")], type=tarfile.LNKTYPE, linkname="x"), "a link or device"),
    "device": (packed([("0.png", b"")], type=tarfile.CHRTYPE), "a link or device"),
    "pipe": (packed([("0.png", b"")], type=tarfile.FIFOTYPE), "a link or device"),
    "sparse": (packed([("0.png", b"")], type=tarfile.GNUTYPE_SPARSE), "a link or device|not a readable"),
    "two pictures": (packed([("0.png", picture()), ("0.jpg", picture())]), "2 pictures and 0 classes"),
    "class alone": (packed([("0.cls", b"1"), ("1.png", picture())]), "no pictures and 1 classes"),
    "no picture": (
        packed([("0.png", b"no picture"), ("0.cls", b"1")]),
        "0.png: not a readable picture .of no known format.",
    ),
    "class unlike": (packed([*GOOD, ("1.png", picture())]), "1.png: has no class"),
    "class beyond": (packed([("0.png", picture()), ("0.cls", b"1" * 5000)]), "0.cls: not a readable class"),
    "class no text": (packed([("0.png", picture()), ("0.cls", b"\xff\xfe")]), "0.cls: not a readable class"),
    "class strange": (packed([("0.png", picture()), ("0.cls", b"cat")]), "label 'cat'"),
}


@pytest.mark.parametrize("packing", ["tar", "tar.gz"])
@pytest.mark.parametrize("what", BAD)
def test_what_is_wrong_is_named(what: str, packing: str, tmp_path: Path) -> None:
    content, said = BAD[what]
    content = content if isinstance(content, bytes) else content()
    path = tmp_path / f"a.{packing}"
    path.write_bytes(content if packing == "tar" else gzip.compress(content))
    with pytest.raises(EquintError, match=said) as error:
        list(batches(path, CARD))
    assert f"a.{packing}" in str(error.value)
    assert "\n" not in str(error.value)


def test_members_that_are_too_large_are_not_read(tmp_path: Path) -> None:
    info = tarfile.TarInfo("0.png")
    info.size = 1 << 40
    path = tmp_path / "a.tar"
    path.write_bytes(info.tobuf())
    with pytest.raises(UnusableData, match=r"0\.png: 1099512 MB, of 67 at most"):
        list(batches(path, CARD))


@pytest.mark.parametrize("cut", [10, 30, -4])
def test_a_gzipped_shard_that_is_cut(cut: int, tmp_path: Path) -> None:
    (tmp_path / "a.tgz").write_bytes(gzip.compress(HEADER)[:cut])
    with pytest.raises(UnusableData, match=r"a\.tgz: not a readable tar file"):
        list(batches(tmp_path / "a.tgz", CARD))
    with pytest.raises(UnusableData, match=r"a\.tgz: not a readable tar file"):
        count(tmp_path / "a.tgz")


def test_pictures_beside_shards_are_not_left_out_in_silence(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(packed(GOOD))
    (tmp_path / "cat").mkdir()
    for name in ("1.png", "cat/2.PNG"):
        (tmp_path / name).write_bytes(picture())
    with pytest.raises(UnusableData, match=r"holds 1 tar file and, beside them, 2 pictures; .* give .*/\*\.tar$"):
        list(batches(tmp_path, CARD))
    assert count(tmp_path / "*.tar") == 1


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UnusableData, match="fits no file"):
        shards(tmp_path / "*.tar")
    with pytest.raises(UnusableData, match="no such tar file"):
        list(batches(tmp_path / "a.tar", CARD))
    os.mkfifo(tmp_path / "p.tar")
    with pytest.raises(UnusableData, match="no regular file"):
        list(batches(tmp_path / "p.tar", CARD))
    with pytest.raises(UnusableData, match=r"a\.tar: holds pictures, but the card says features"):
        list(batches(tmp_path / "a.tar", Card()))
