"""Labelled data: from files to batches of network input."""

from __future__ import annotations

import csv
import os
import re
import sys
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path

import numpy as np

from ..errors import InvalidCard, UnusableData
from ..files import MOST_TEXT, readable
from ..ir.model import Array, Name
from .card import Card
from .folders import Names, check_pictures, is_picture, picture_names, pixels, prepared, stacked
from .images import BATCH, Feed, Samples, length, split
from .presented import Shapes, inputs_alone, presented
from .shards import count as entry_count
from .shards import entries, shards
from .stored import Stored, stored


def batches(
    source: str | os.PathLike[str],
    card: Card,
    size: int = 32,
    limit: int | None = None,
    inputs: Sequence[Name] = (),
    start: int = 0,
) -> Iterator[tuple[Array, Array | None]]:
    """Batches of (network input, labels) from an .npz or .npy file, a folder of pictures, or .tar files of them.

    A folder holds class folders (numbered by their names, or as the card's labels say), or a labels.csv with
    columns file and label, or just pictures (then the labels are None). An .npz holds `x` (N, H, W, C) or the only
    input's name, and maybe `y` (N,).

    Args:
        inputs: of the network, by name.
        limit: the sample before which it ends; start: the first one.

    Raises:
        EquintError: nothing there, arrays of a wrong shape, an unreadable picture.
    """
    path = Path(source)
    if files := shards(path):
        yield from _sharded(path, files, card, size, limit, start)
    elif path.is_dir():
        yield from _pictures(path, card, size, limit, start)
    elif path.suffix in (".npz", ".npy"):
        yield from _arrays(path, card, size, limit, inputs, start)
    else:
        problem = "no such file or folder" if not path.exists() else "not an .npz, an .npy, a .tar or a folder"
        raise UnusableData(
            f"{path}: {problem}; give data as .npz with x and y, or pictures in a folder or in .tar files"
        )


def feeds(
    source: str | os.PathLike[str],
    card: Card,
    inputs: Shapes,
    size: int = 32,
    limit: int | None = None,
    start: int = 0,
) -> Iterator[tuple[Feed, Array | None]]:
    """As `batches`; of networks with several inputs from an .npz that holds an array for each.

    Args:
        inputs: of the network, with their shapes.
    """
    shown = _several(source, inputs)
    if shown is None:
        yield from batches(source, card, size, limit, tuple(inputs), start)
        return
    held = stored(source)
    labels = held["y"].whole() if "y" in held and "y" not in inputs else None
    seen = start
    for feed in split(shown if limit is None else shown.first(limit), size, start=start):
        yield feed, None if labels is None else labels[seen : seen + length(feed)]
        seen += length(feed)


def images(
    source: str | os.PathLike[str],
    card: Card,
    limit: int | None = None,
    size: int = BATCH,
    inputs: Sequence[Name] = (),
) -> Samples:
    """The network inputs that `batches` gives, to be read again and again. Raises EquintError as `batches`.

    Args:
        inputs: of the network, by name: an .npz that holds them all is taken as it is, however many there are.
    """
    named = _by_input(Path(source), inputs)
    if named is not None and len(inputs) > 1:
        return Samples.of({name: array.whole() for name, array in named.items()}, os.fspath(source))
    if named is not None and card.kind == "features":
        (only,) = named.values()
        return _streamed(only, size, os.fspath(source))
    known = None if shards(Path(source)) else count(source, limit)

    def total() -> int:
        return count(source, limit) if known is None else known

    def since(start: int = 0) -> Iterator[Array]:
        return (x for x, _ in batches(source, card, size, limit, inputs, start))

    return Samples(since, os.fspath(source), total=total, since=since)


def _streamed(array: Stored, size: int, label: str) -> Samples:
    """The rows of an array, as they are stored."""
    if len(array.shape) < 2:
        raise UnusableData(f"{label}: an array of shape {array.shape}; give (N, …), samples first")

    def since(start: int = 0) -> Iterator[Array]:
        return array.batches(size, start=start)

    return Samples(since, label, total=len(array), since=since)


def _several(source: str | os.PathLike[str], inputs: Shapes) -> Samples | None:
    """The samples of an .npz for a network of several inputs; None where there is one, or no .npz."""
    named = _by_input(Path(source), tuple(inputs)) if len(inputs) > 1 else None
    if named is None:
        return None
    arrays = {name: array.whole() for name, array in named.items()}
    return presented(Samples.of(arrays, os.fspath(source)), inputs_alone(inputs))


def _by_input(path: Path, inputs: Sequence[Name]) -> dict[Name, Stored] | None:
    """The arrays of an .npz that are called like the network's inputs; None where one is missing."""
    if path.suffix != ".npz" or not inputs or not path.exists():
        return None
    held = stored(path)
    lost = next((name for name in inputs if name not in held), None)
    if lost is None:
        return {name: held[name] for name in inputs}
    if len(inputs) > 1:
        raise UnusableData(f"{path}: {_lacks(sorted(held), lost)}; store an array for each of {', '.join(inputs)}")
    return None


def _lacks(held: Iterable[Name], lost: str) -> str:
    names = ", ".join(held)
    return f"holds {names} but no {lost}" if names else "holds no arrays"


def count(source: str | os.PathLike[str], limit: int | None = None, inputs: Shapes | None = None) -> int:
    """How many samples `feeds` will give. Raises EquintError as `feeds`.

    Args:
        inputs: of the network, with their shapes.
    """
    shown = _several(source, inputs or {})
    total = _total(Path(source), tuple(inputs or ())) if shown is None else sum(length(feed) for feed in shown)
    return total if limit is None else min(total, limit)


def _total(path: Path, inputs: Sequence[Name]) -> int:
    if files := shards(path):
        return entry_count(files)
    return len(listing(path).files) if path.is_dir() else len(open_arrays(path, inputs)[0])


def open_arrays(path: Path, inputs: Sequence[Name] = ()) -> tuple[Stored, Array | None]:
    """Inputs (of several, the first one) and labels, if any, of an .npz or .npy. Raises EquintError as `batches`."""
    held = stored(path)
    if len(inputs) > 1 and (named := _by_input(path, inputs)) is not None:
        return named[inputs[0]], held["y"].whole() if "y" in held and "y" not in inputs else None
    key = next((k for k in ("", "x", *(inputs if len(inputs) == 1 else ())) if k in held), None)
    if key is None:
        names = "x" if len(inputs) != 1 or inputs[0] == "x" else f"x or {inputs[0]}"
        raise UnusableData(f"{path}: {_lacks(held, names)}; store inputs as {names} and labels as y")
    x, y = held[key], held["y"] if "y" in held and key != "y" else None
    if not x.shape or (y is not None and not y.shape):
        raise UnusableData(f"{path}: x and y must hold one entry per sample")
    return x, None if y is None else y.whole()


def _arrays(
    path: Path, card: Card, size: int, limit: int | None, inputs: Sequence[Name], start: int
) -> Iterator[tuple[Array, Array | None]]:
    x, y = open_arrays(path, inputs)
    if x.dtype.kind not in "fiub":
        raise UnusableData(f"{path}: x holds {x.dtype}, not numbers that a network can read; store numbers")
    if len(x) == 0 or limit == 0:
        raise UnusableData(f"{path}: x is empty; give at least one sample")
    if len(x.shape) < 2 or (y is not None and len(y) != len(x)):
        raise UnusableData(f"{path}: x has shape {x.shape} and y {None if y is None else y.shape}; lengths must agree")
    for part in x.batches(size, limit, start):
        as_is = card.kind == "features"
        with np.errstate(over="ignore"):  # what float32 cannot hold is refused below
            ready = part.astype(np.float32) if as_is else np.stack([prepared(p, card, path) for p in part])
        if not np.isfinite(ready).all():
            raise UnusableData(f"{path}: holds values that are not finite; check how the samples are prepared")
        yield ready, None if y is None else y[start : start + len(part)]
        start += len(part)


@dataclass(frozen=True)
class Listing:
    """What a folder holds.

    Attributes:
        files: pictures; labels: theirs as written, if there are any; classes: in order, if folders say.
        table: the labels.csv that says so, if one does; lines: of it, where each picture stands.
    """

    files: Sequence[Path]
    labels: list[str] | None = None
    classes: tuple[str, ...] = ()
    table: Path | None = None
    lines: Sequence[int] = ()

    def numbers(self, known: Sequence[str]) -> Array | None:
        """Class numbers of the labels: those of their names among the known, or of the classes where none are known.

        Raises:
            EquintError: a label that is neither a number nor a name, naming its row or file.
        """
        if self.labels is None:
            return None
        place = lambda k: str(self.files[k]) if self.table is None else f"{self.table}: row {self.lines[k]}"
        return _numbered(self.labels, known or self.classes, place)


def listing(path: Path) -> Listing:
    """The pictures in a folder, and of which classes they are.

    Of class folders one picture each in turn, so that the first few are of all classes.

    Raises:
        UnusableData: no pictures, or a labels.csv that cannot be read, lacks something, or names a picture twice.
    """
    table = path / "labels.csv"
    if table.is_file():
        return _tabled(path, table)
    classes = sorted(p for p in path.iterdir() if p.is_dir())
    held = [sorted(filter(is_picture, os.listdir(c))) for c in classes]

    def in_turn() -> Iterator[tuple[str, str]]:
        for turn in zip_longest(*held):
            yield from ((c.name, name) for c, name in zip(classes, turn, strict=True) if name is not None)

    if any(held):
        names = Names(path, (f"{folder}/{name}" for folder, name in in_turn()))
        return Listing(names, [folder for folder, _ in in_turn()], tuple(c.name for c in classes))
    return Listing(Names(path, picture_names(path)))


def _tabled(path: Path, table: Path) -> Listing:
    """The pictures that a labels.csv lists."""
    labels, lines, hashes = list[str](), array("I"), array("q")
    wanting = UnusableData(f"{table}: needs columns file and label, and both in every row")

    def names(rows: csv.DictReader[str]) -> Iterator[str]:
        for row in rows:
            name = row.get("file")
            if not name or "label" not in row:
                raise wanting
            labels.append(sys.intern(row["label"] or ""))
            lines.append(rows.line_num)
            hashes.append(hash(os.path.normpath(name)))
            yield name

    try:
        readable(table, UnusableData, "list of labels", MOST_TEXT)
        with table.open(encoding="utf-8-sig", newline="") as file:
            found = Names(path, names(csv.DictReader(file)))
    except (OSError, ValueError, csv.Error) as error:
        raise UnusableData(f"{table}: not a readable list of labels ({str(error)[:200]}); correct it") from error
    if not found:
        raise wanting
    if len(np.unique(hashes)) < len(found):
        _check_once(table, found, lines)
    return Listing(found, labels, (), table, lines)


def _check_once(table: Path, files: Iterable[Path], lines: Sequence[int]) -> None:
    """Refuse a picture that is listed twice."""
    seen = dict[str, int]()
    for file, line in zip(files, lines, strict=True):
        first = seen.setdefault(os.path.normpath(file), line)
        if first != line:
            name = file.relative_to(table.parent) if file.is_relative_to(table.parent) else file
            raise UnusableData(f"{table}: row {line}: {name} is listed in row {first} already; remove one of them")


MOST_CLASSES = 1_000_000
_NUMBER = re.compile(r"\s*0*[0-9]{1,6}\s*")
"""Classes that labels number at most, from 0, and how such a number is written."""


def _numbered(labels: Sequence[str], classes: Sequence[str], place: Callable[[int], str]) -> Array:
    """Class numbers of labels: those of their names, or as they are written.

    Args:
        place: where a label stands, by its index.

    Raises:
        InvalidCard: what is neither.
    """
    number = {name: k for k, name in enumerate(classes)}
    strange = next((k for k, v in enumerate(labels) if v not in number and not _NUMBER.fullmatch(v)), None)
    if strange is None:
        return np.asarray([number[v] if v in number else int(v) for v in labels])
    what = f"neither a whole number from 0 to {MOST_CLASSES - 1:,} nor among the card's labels"
    raise InvalidCard(
        f"{place(strange)}: label {labels[strange][:80]!r} is {what}; correct it, or list the classes there"
    )


def most_label(path: Path, card: Card) -> int | None:
    """The largest class number that data are labelled with; None without labels. Raises EquintError: as `batches`."""
    if files := shards(path):
        found = {e.label: e.where for e in entries(files) if e.label is not None}
        places = list(found.values())
        numbers = _numbered(list(found), card.labels, lambda k: str(places[k])) if found else None
    elif path.is_dir():
        numbers = listing(path).numbers(card.labels)
    else:
        held = stored(path)
        numbers = held["y"].whole() if "y" in held else None
    return int(np.max(numbers)) if numbers is not None and np.size(numbers) and numbers.dtype.kind in "iu" else None


def _sharded(
    path: Path, files: Sequence[Path], card: Card, size: int, limit: int | None, start: int
) -> Iterator[tuple[Array, Array | None]]:
    check_pictures(path, card)
    wanted = islice(entries(files, start), None if limit is None else max(0, limit - start))
    step, empty = size if card.size else 1, start == 0
    while held := list(islice(wanted, step)):
        x = np.stack([prepared(pixels(e.where, card.kind, e.picture), card, e.where) for e in held])
        empty, labels = False, [e.label for e in held if e.label is not None]
        yield x, _numbered(labels, card.labels, lambda k: str(held[k].where)) if labels else None
    if empty:
        raise UnusableData(f"{path}: no pictures in it (.jpg, .png or .bmp); put some in it")


def is_labelled(path: Path) -> bool:
    """Whether data say of which class samples are. Raises EquintError: as `batches`."""
    if files := shards(path):
        return any(e.label is not None for e in islice(entries(files), 1))
    return listing(path).labels is not None if path.is_dir() else "y" in stored(path)


def _pictures(path: Path, card: Card, size: int, limit: int | None, start: int) -> Iterator[tuple[Array, Array | None]]:
    found = listing(path)
    check_pictures(path, card)
    labels = found.numbers(card.labels)
    rows = range(len(found.files))[:limit][start:]

    def loaded(row: int) -> tuple[Array, int]:
        return prepared(pixels(found.files[row], card.kind), card, found.files[row]), row

    for x, row in stacked(rows, card, size, loaded):
        yield x, None if labels is None else labels[row]
