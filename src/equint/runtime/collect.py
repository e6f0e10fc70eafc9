"""Streaming calibration: statistics of every tensor of a network while images flow through it.

The reductions over positions run inside onnxruntime; what leaves it are two numbers to four per channel and image.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from time import monotonic

import numpy as np

from ..crew.workers import Alone, Crew, in_order
from ..errors import UnusableData, counted
from ..ir.model import Graph
from ..samples.images import SPAN, Feed, Samples, length, part, split
from ..samples.spans import Continued, Span, spans
from ..samples.statistics import Statistics, fingerprint
from .apart import Measuring
from .batches import BATCH, at_once
from .machine import Machine, here, on
from .running import Running
from .session import Session
from .taps import measuring, tapped

SAVE_EVERY = 10.0
"""Seconds between two savings of what can be resumed."""
ALONE = Alone()


def collect(
    graph: Graph,
    images: Samples,
    *,
    histograms: bool = False,
    resume: str | os.PathLike[str] | None = None,
    batch: int = BATCH,
    progress: Callable[[int], None] | None = None,
    crew: Crew = ALONE,
) -> Statistics:
    """Statistics of every tensor that a quantizer may see, over all images.

    Tensors that a ReLU or clip replaces at once, and those that only move others' values, are left out: what is
    known of their neighbours tells all. Memory does not grow with the number of images.

    Args:
        histograms: also count the values of every tensor, which copies them out of onnxruntime.
        resume: a file that keeps what was measured so far; where it exists, as many images are skipped as it has
            seen. It holds the final statistics in the end.
        batch: most images that go through the network at once.
        progress: called with the number of images done.
        crew: who does it, span by span; the statistics are the same.

    Raises:
        EquintError: no images, images of a wrong shape, values that are not finite, a file of another network or
            without the histograms asked for.

    Example:
        >>> from equint.ops.layers import tiny_graph
        >>> found = collect(tiny_graph(), Samples.of(np.ones((3, 4, 4, 4), np.float32)))
        >>> found.images, found.tensors["y"].high.tolist()
        (3, [9.0, 9.0, 9.0, 9.0])
    """
    network, path = fingerprint(graph), None if resume is None else Path(resume)
    before = None if path is None else _resumed(path, network, histograms)
    blank = Statistics({}, 0, network)
    if images.seen is not None:
        blank = replace(blank, shapes=images.seen.shapes, settled=images.seen.settled)
    if before is not None and before.data != _digest(next(iter(images))):
        raise UnusableData(f"{path}: statistics of other images; delete it, or choose another file")
    kept, alone = _Kept(path, before), isinstance(crew, Alone)

    def told(done: int, under_way: Callable[[], Statistics] | None) -> None:
        if progress is not None:
            progress(done)
        kept.under_way = under_way
        kept.save(SAVE_EVERY)

    task = _Task(
        graph, images, blank, histograms, batch, replace(here(), threads=crew.threads), told if alone else None
    )
    skip = done = 0 if before is None else before.images
    try:
        for found in in_order(crew, _gauging, task, spans(None if alone else images.count(), skip)):
            if found is not None:
                kept.add(found)
                done += found.images
                if not alone:
                    told(done, None)
            if alone and (found is None or done % SPAN):  # the stream has ended
                break
    except KeyboardInterrupt:
        kept.save()
        raise
    if done == skip and skip > (count := images.count()):
        raise UnusableData(
            f"{path}: statistics of {counted(skip, 'image')}, and now there are {count}; delete it, or choose another"
        )
    kept.save()
    return kept.total()


@dataclass(frozen=True)
class _Task:
    """What all spans share.

    Attributes:
        blank: statistics of no tensor; told: called after each batch with the images done, and what gives the
            statistics of the span so far.
    """

    graph: Graph
    images: Samples
    blank: Statistics
    histograms: bool
    batch: int
    machine: Machine
    told: Callable[[int, Callable[[], Statistics]], None] | None


def _gauging(task: _Task) -> Callable[[Span], Statistics | None]:
    """What measures spans of the samples: None of one behind their end."""
    taps, nodes, consts = tapped(task.graph)
    if not taps:
        raise UnusableData("nothing to measure: the shape of no tensor is known")
    graph = measuring(task.graph, taps, nodes, consts, task.histograms)
    with on(task.machine):
        session = Measuring(graph, {o for node in nodes for o in node.outputs})
    most = whole(session, at_once(task.graph, task.batch))
    stream = Continued(lambda start: split(task.images, most, start=start), length)

    def measured(span: Span) -> Statistics | None:
        running, read, shown = Running(task.graph.inputs, taps, task.histograms), 0, ""

        def so_far() -> Statistics:
            return replace(task.blank, tensors=running.statistics(), images=running.images, data=shown)

        for feed in stream.span(span):
            shown = shown if span.start or read else _digest(feed)
            read += length(feed)
            wanted = min(length(feed), read - span.skip)
            if wanted <= 0:
                continue
            rest = part(feed, length(feed) - wanted, length(feed))
            running.add(session.run(rest), rest)
            if task.told is not None:
                task.told(span.start + read, so_far)
        return so_far() if running.images else None

    return measured


class _Kept:
    """What was found, and the file that it is kept in."""

    def __init__(self, path: Path | None, before: Statistics | None) -> None:
        self.path, self.found, self.saved = path, before, monotonic()
        self.under_way: Callable[[], Statistics] | None = None

    def add(self, part: Statistics) -> None:
        """Take the next span's."""
        self.under_way = lambda: part
        self.found, self.under_way = self.total(), None

    def total(self) -> Statistics:
        """All, with what is under way."""
        parts = [p for p in (self.found, self.under_way and self.under_way()) if p is not None]
        if not parts:
            raise UnusableData("no statistics: nothing was measured")
        return parts[0] if len(parts) == 1 else parts[0] + replace(parts[1], data=parts[0].data)

    def save(self, every: float = 0.0) -> None:
        """Write the file, if there is one, anything to write, and so many seconds went by."""
        waited = not every or monotonic() - self.saved > every
        if self.path is not None and waited and (self.found is not None or self.under_way is not None):
            self.total().save(self.path)
            self.saved = monotonic()


def _resumed(path: Path, network: str, histograms: bool) -> Statistics | None:
    """What a file holds of an interrupted run; None where there is none."""
    if not path.exists():
        return None
    before = Statistics.load(path)
    if before.network != network:
        raise UnusableData(f"{path}: statistics of another network; delete it, or choose another file")
    if histograms and any(t.values is None for t in before.tensors.values()):
        raise UnusableData(f"{path}: statistics without histograms; delete it, or choose another file")
    return before


def _digest(feed: Feed) -> str:
    """What tells streams of images apart: their first sample."""
    named = feed if isinstance(feed, Mapping) else {"": feed}
    digest = sha256()
    for name, values in sorted(named.items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(np.atleast_1d(values)[:1]).tobytes())
    return digest.hexdigest()[:16]


def whole(session: Session | Measuring, most: int) -> int:
    """As many of a network's fixed batches as there may be images at once, and one at least."""
    sizes = {shape[0] for shape in session.shapes.values() if shape and isinstance(shape[0], int)}
    fixed = max((int(size) for size in sizes), default=1)
    return max(fixed, most // max(fixed, 1) * fixed)
