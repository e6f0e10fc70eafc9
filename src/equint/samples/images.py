"""Inputs that a network can be shown again and again, batch by batch: images, or whatever it reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

import numpy as np

from ..errors import UnusableData
from ..files import Shelf
from ..ir.model import Array, Name, Shape

Feed = Array | Mapping[Name, Array]
"""One batch: an array where the network has one input, else an array for each."""

SPAN = 256
"""Samples whose sums are made together, whoever makes them; batches do not reach across a multiple of it."""
BATCH = 8
"""Samples that go through a network at once: more cost memory and save little time."""


class Run(dict[Name, Array]):
    """The inputs of one run of a network whose inputs do not all hold samples along their first axis: one sample."""


@dataclass(frozen=True)
class FirstRun:
    """What a network shows on its first sample.

    Attributes:
        shapes: of its tensors.
        batch: how many samples it takes at once; None: any number.
        settled: whether the shapes hold for whatever it takes, not for this sample alone.
    """

    shapes: Mapping[Name, Shape]
    batch: int | None
    settled: bool


class Samples:
    """A stream of batches that can be read any number of times; nothing is kept in memory.

    Args:
        batches: starts the stream anew.
        label: how messages name it.
        batch: how many samples the network takes at once; None: any number.
        seen: what the first showed of the network.
        total: how many samples there are, where that is known, or what counts them.
        since: starts the stream at a sample, by its number, where that is cheaper than to read all before.

    Raises:
        EquintError: while reading: no batch at all, values that are not finite.

    Example:
        >>> images = Samples.of(np.zeros((20, 3, 4, 4), np.float32))
        >>> [len(batch) for batch in images]
        [8, 8, 4]
        >>> sum(len(batch) for batch in images.first(10))
        10
    """

    def __init__(
        self,
        batches: Callable[[], Iterable[Feed]],
        label: str = "calibration data",
        batch: int | None = None,
        seen: FirstRun | None = None,
        total: int | Callable[[], int | None] | None = None,
        since: Callable[[int], Iterable[Feed]] | None = None,
    ) -> None:
        self._batches, self.label, self.batch, self.seen = batches, label, batch, seen
        self._total, self._since = total, since

    def __repr__(self) -> str:
        return f"Samples({self.label!r})"

    def __iter__(self) -> Iterator[Feed]:
        return self.since(0)

    def since(self, start: int) -> Iterator[Feed]:
        """The stream from sample number `start` on; nothing where it ends before.

        Example:
            >>> images = Samples.of(np.arange(10).reshape(5, 2), size=2)
            >>> [batch[:, 0].tolist() for batch in images.since(1)]
            [[2, 4], [6, 8]]
        """
        empty = start == 0
        for batch in self._batches() if self._since is None else self._since(start):
            checked = _checked(batch, self.label)
            skip = min(start, length(checked)) if self._since is None else 0
            start -= skip
            if length(checked) > skip:
                empty = False
                yield part(checked, skip, length(checked)) if skip else checked
        if empty:
            raise UnusableData(f"{self.label}: empty; give at least one sample")

    @property
    def total(self) -> int | None:
        """How many samples there are, where that is known without reading them."""
        return self._total() if callable(self._total) else self._total

    def count(self) -> int:
        """How many samples there are; they are read where nothing else tells."""
        known = self.total
        return sum(length(batch) for batch in self) if known is None else known

    def known(self, seen: FirstRun) -> Samples:
        """The same, with what the first sample showed of the network."""
        return Samples(self.__iter__, self.label, seen.batch, seen, lambda: self.total, self.since)

    def first(self, limit: int) -> Samples:
        """The stream's first `limit` samples. Raises EquintError: none wanted."""
        if limit < 1:
            raise UnusableData(f"{self.label}: {limit} samples wanted; give at least one")

        def cut(start: int = 0) -> Iterator[Feed]:
            left = limit - start
            for batch in self.since(start) if left > 0 else ():
                yield batch if length(batch) <= left else part(batch, 0, left)
                left -= length(batch)
                if left <= 0:
                    return

        def total() -> int | None:
            known = self.total
            return None if known is None else min(known, limit)

        return Samples(cut, self.label, self.batch, self.seen, total, cut)

    def every(self, step: int, start: int = 0) -> Samples:
        """Every `step`th sample, from number `start` on: what is left over are the others' streams.

        Example:
            >>> images = Samples.of(np.arange(10).reshape(5, 2))
            >>> [batch[:, 0].tolist() for batch in images.every(2, 1)]
            [[2, 6]]
        """
        return self.where(lambda number: number % step == start)

    def where(self, wanted: Callable[[int], bool]) -> Samples:
        """The samples whose numbers, counted from 0, are wanted.

        Example:
            >>> images = Samples.of(np.arange(10).reshape(5, 2))
            >>> [batch[:, 0].tolist() for batch in images.where(lambda number: number != 1)]
            [[0, 4, 6, 8]]
        """

        def picked() -> Iterator[Feed]:
            number = 0
            for batch in self:
                rows = [row for row in range(length(batch)) if wanted(number + row)]
                number += length(batch)
                if isinstance(batch, Run):
                    yield from (batch for _ in rows)
                elif isinstance(batch, Mapping):
                    yield {name: value[rows] for name, value in batch.items()}
                else:
                    yield batch[rows]

        return Samples(picked, self.label, self.batch, self.seen)

    @classmethod
    def of(cls, source: Any, label: str = "calibration data", size: int = BATCH) -> Samples:
        """From an array (N, …), a mapping from input to array, or an iterable of batches of either; else EquintError.

        What is no array is read once and kept on disk: loaders may shuffle, and iterators cannot be read twice.
        """
        if isinstance(source, Samples):
            return source
        if hasattr(source, "detach"):
            source = _finite(source, label)
        if isinstance(source, np.ndarray):
            if source.ndim < 2:
                raise UnusableData(f"{label}: an array of shape {source.shape}; give (N, …), samples first")

            def since(start: int = 0) -> Iterator[Feed]:
                return (source[k : k + size] for k in range(start, len(source), size))

            return cls(since, label, total=len(source), since=since)
        if isinstance(source, Mapping):
            whole = _checked(source, label)
            return cls(lambda: [whole], label)
        if not isinstance(source, Iterable) or isinstance(source, (str, bytes)):
            raise UnusableData(f"{label}: a {type(source).__name__}; give an array, or an iterable of batches")
        return cls(_spooled(iter(source), label), label)


def _spooled(source: Iterator[Feed], label: str) -> Callable[[], Iterator[Feed]]:
    """An iterator's batches, on disk as soon as they are read."""
    shelf, index = Shelf(), list[dict[Name, int]]()

    def keep(batch: Any) -> None:
        checked = _checked(batch, label)
        named = checked if isinstance(checked, Mapping) else {"": checked}
        index.append({name: len(shelf) + k for k, name in enumerate(named)})
        for value in named.values():
            shelf.append(value)

    def batches() -> Iterator[Feed]:
        for number in count():
            if number == len(index):
                for batch in islice(source, 1):
                    keep(batch)
            if number == len(index):
                return
            named = {name: shelf[k] for name, k in index[number].items()}
            yield named[""] if named.keys() == {""} else named

    return batches


def _checked(batch: Any, label: str) -> Feed:
    if _labelled(batch):
        batch = batch[0]
    if not isinstance(batch, Mapping):
        array = _finite(batch, label)
        if array.ndim == 0:
            raise UnusableData(f"{label}: a batch that is a single number; give arrays (N, …)")
        return array
    if isinstance(batch, Run):
        return batch
    return {str(name): _finite(value, label) for name, value in batch.items()}


def _labelled(batch: Any) -> bool:
    """Whether a batch is (inputs, labels), as loaders give them: a tuple, or a list of arrays of different shapes."""
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        return False
    shapes = [getattr(part, "shape", None) for part in batch]
    return isinstance(batch, tuple) or isinstance(batch[0], Mapping) or (None not in shapes and shapes[0] != shapes[1])


def _finite(value: Any, label: str) -> Array:
    try:
        array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
        if array.dtype.kind == "O" and any(entry is None for entry in array.flat):
            raise TypeError("it holds None")
        if array.dtype.kind in "mMSUV":
            raise TypeError(f"it holds {array.dtype}")
        if array.dtype.kind not in "iub" or array.dtype == np.uint8:
            with np.errstate(over="ignore"):  # what float32 cannot hold is refused below
                array = array.astype(np.float32, casting="unsafe" if array.dtype.kind != "c" else "safe", copy=False)
    except (TypeError, ValueError) as error:
        raise UnusableData(f"{label}: a batch that is no array of numbers ({error}); give numbers") from error
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        masked = np.isfinite(np.where(np.isneginf(array), 0, array)).all()
        todo = "where -inf masks, give -10000, which hides as much" if masked else "remove those samples"
        raise UnusableData(f"{label}: holds values that are not finite; {todo}")
    return array


def part(batch: Feed, start: int, stop: int) -> Feed:
    """The samples of a batch from `start` to before `stop`; a single run is not cut.

    Example:
        >>> part({"x": np.arange(4), "y": np.arange(4) + 9}, 1, 3)["y"].tolist()
        [10, 11]
    """
    if isinstance(batch, Run):
        return batch
    if isinstance(batch, Mapping):
        return {name: value[start:stop] for name, value in batch.items()}
    return batch[start:stop]


def length(batch: Feed) -> int:
    """How many samples a batch holds."""
    if isinstance(batch, Run):
        return 1
    if isinstance(batch, Mapping):
        return min((len(v) for v in batch.values() if v.ndim), default=0)
    return len(batch)


def split(images: Samples, size: int, fill: bool = False, start: int = 0) -> Iterator[Feed]:
    """The stream in batches of at most `size` samples, and of what the network takes at once, if that is known.

    Args:
        fill: repeat the last sample until the last batch has as many as the network takes.
        start: the sample that the stream is read from.

    Example:
        >>> images = Samples(lambda: [np.zeros((3, 1))] * 3, batch=4)
        >>> [[len(batch) for batch in split(images, 8, fill)] for fill in (False, True)]
        [[4, 4, 1], [4, 4, 4]]
    """
    if images.batch is not None and images.batch > 1:
        yield from _regrouped(images, images.batch, fill, start)
        return
    size = images.batch or size
    for batch in images.since(start):
        for start in range(0, length(batch), size):
            yield part(batch, start, start + size)


def _regrouped(images: Samples, size: int, fill: bool, start: int) -> Iterator[Feed]:
    waiting, at = None, start
    for batch in images.since(start):
        waiting, at = batch if waiting is None else joined(waiting, batch), at + length(batch)
        while length(waiting) >= size or (at % SPAN == 0 and not fill and length(waiting)):
            yield part(waiting, 0, size)
            waiting = part(waiting, size, length(waiting))
    if waiting is not None and length(waiting):
        last = part(waiting, length(waiting) - 1, length(waiting))
        while fill and length(waiting) < size:
            waiting = joined(waiting, last)
        yield waiting


def joined(first: Feed, second: Feed) -> Feed:
    """Two batches as one."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return {name: np.concatenate([value, second[name]]) for name, value in first.items()}
    return np.concatenate([first, second])
