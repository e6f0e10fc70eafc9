"""Samples in spans: what is summed up over a span does not hang on who does it, or when.

Spans end at the multiples of `SPAN`, whoever reads them and however many there are; batches never reach across such an
end. Sums of a span are made batch by batch, and those of spans are added in their order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Generic, TypeVar

from .images import SPAN, Feed, length, part

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class Span:
    """Samples from number `start` to before `stop`, of which the first `skip` are not wanted."""

    start: int
    stop: int
    skip: int = 0


def spans(total: int | None, done: int = 0) -> Iterator[Span]:
    """The spans of a stream, of those samples that are not done; without end where its length is not known.

    Example:
        >>> [(s.start, s.stop, s.skip) for s in spans(600, 300)]
        [(256, 512, 44), (512, 600, 0)]
    """
    for start in count(done // SPAN * SPAN, SPAN):
        if total is not None and start >= total:
            return
        yield Span(start, start + SPAN if total is None else min(start + SPAN, total), max(0, done - start))


class Continued(Generic[Batch]):
    """A stream that is read in spans: one that begins where the last ended goes on there, another starts anew.

    Args:
        since: the stream's batches from a sample on.
        length: how many samples a batch holds.

    Example:
        >>> stream = Continued(lambda start: ([k] for k in range(start, 4)), len)
        >>> list(stream.span(Span(0, 2))), list(stream.span(Span(2, 9)))
        ([[0], [1]], [[2], [3]])
    """

    def __init__(self, since: Callable[[int], Iterable[Batch]], length: Callable[[Batch], int]) -> None:
        self._since, self._length = since, length
        self._at, self._rest = -1, iter(list[Batch]())

    def span(self, span: Span) -> Iterator[Batch]:
        """The batches of a span; fewer where the stream ends in it."""
        if self._at != span.start:
            self._at, self._rest = span.start, iter(self._since(span.start))
        while self._at < span.stop:
            for batch in self._rest:
                self._at += self._length(batch)
                yield batch
                break
            else:
                return


def cut(feeds: Iterable[Feed], start: int) -> Iterator[Feed]:
    """Batches, the first of which begins at sample `start`, cut where spans end.

    Example:
        >>> import numpy as np
        >>> [len(feed) for feed in cut([np.zeros(200), np.zeros(400)], 0)]
        [200, 56, 256, 88]
    """
    at = start
    for feed in feeds:
        size, first = length(feed), 0
        while first < size:
            last = min(size, first + SPAN - at % SPAN)
            yield feed if (first, last) == (0, size) else part(feed, first, last)
            at, first = at + last - first, last
