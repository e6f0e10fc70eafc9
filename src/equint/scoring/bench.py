"""A network measured on data, span by span: what is found in each is added up in their order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import numpy as np

from ..errors import UnusableData
from ..ir.model import Array, Name
from ..maths.chance import Interval
from ..samples.images import Feed, length
from ..samples.outside import Outside
from ..samples.presented import Shapes, checked
from ..samples.spans import Continued, Span
from .tally import Tally

CLASSIFY = frozenset({"classification", "keyword-spotting"})
DECIDE = CLASSIFY | {"segmentation"}
"""Tasks whose networks choose among classes, so that two can agree."""
Run = Callable[[Feed], Mapping[Name, Array]]


class Meter(Protocol):
    """Measures outputs against the truth, batch by batch."""

    def add(self, outputs: Mapping[Name, Array], truths: Any, /) -> None:
        """Take a batch."""

    def merge(self, other: Self, /) -> None:
        """Take what another measured behind it."""

    def results(self) -> dict[str, float]:
        """What was measured, by key."""

    def lost(self, before: Self, /) -> Interval | None:
        """By how much the task's main measure lies under another network's, on the same samples; None: not known."""


@dataclass(frozen=True)
class Source:
    """Labelled data.

    Attributes:
        since: batches of (network input, truth or None) from a sample on.
        meter: makes what measures them; unlabelled: how many pictures have no truth.
    """

    since: Callable[[int], Iterable[tuple[Feed, Any]]]
    meter: Callable[[], Meter] | None = None
    unlabelled: int = 0


@dataclass
class Score:
    """What labels say of one network: hits, or what a meter measures."""

    tally: Tally = field(default_factory=Tally)
    meter: Meter | None = None

    def merge(self, other: Score) -> None:
        """Take what was found in the next span."""
        self.tally.merge(other.tally)
        if self.meter is not None and other.meter is not None:
            self.meter.merge(other.meter)
        elif other.meter is not None:
            self.meter = other.meter

    def results(self) -> dict[str, Any]:
        """Everything measured, by key."""
        return self.tally.results() | (self.meter.results() if self.meter is not None else {})


@dataclass
class Part:
    """What was found in a span, or in all up to one: of the network, of its original, and of the same samples."""

    own: Score = field(default_factory=Score)
    original: Score = field(default_factory=Score)
    seen: Outside = field(default_factory=Outside)

    @property
    def samples(self) -> int:
        return self.own.tally.samples

    def merge(self, other: Part) -> None:
        """Take what was found in the next span."""
        self.own.merge(other.own)
        self.original.merge(other.original)
        self.seen.merge(other.seen)


@dataclass(frozen=True)
class Bench:
    """A network beside data, and maybe beside its original.

    Attributes:
        run: its outputs for a batch; outputs: their names; inputs: shapes of what it reads, `known` of both networks.
        label: how messages name the data; task: of the card.
        reference: the original's outputs for the same batch.
        inspect: called with the outputs of every batch.
        alone: whether data without labels are refused.
        told: called with the number of samples done in a span, after each batch.
        ranges: of inputs, which the network is quantized for.
    """

    run: Run
    outputs: tuple[Name, ...]
    inputs: Shapes
    source: Source
    label: str
    task: str
    known: Shapes
    reference: Run | None = None
    inspect: Callable[[Mapping[Name, Array]], None] | None = None
    alone: bool = False
    told: Callable[[int], None] | None = None
    ranges: Mapping[Name, tuple[float, float]] = field(default_factory=dict)

    def measuring(self) -> Callable[[Span], Part]:
        """What measures spans of the data; those in order are read in one go."""
        stream = Continued(self.source.since, lambda batch: length(batch[0]))

        def measured(span: Span) -> Part:
            part = Part(seen=Outside(self.ranges))
            for x, truths in stream.span(span):
                self._measure(part, x, truths)
                if self.told is not None:
                    self.told(span.start + part.samples)
            return part

        return measured

    def _measure(self, part: Part, x: Feed, truths: Any) -> None:
        if not all(np.isfinite(v).all() for v in (x.values() if isinstance(x, Mapping) else [x])):
            raise UnusableData(f"{self.label}: holds values that are not finite; check how the samples are prepared")
        part.seen.add(x)
        outputs, own = self.run(checked(x, self.inputs, self.label)), part.own
        own.tally.samples += length(x)
        expected = None if self.reference is None else self.reference(x)
        if expected is not None:
            own.tally.add_reference(outputs, expected, self.task in DECIDE, length(x))
        if truths is not None and (self.task in CLASSIFY or self.source.meter is not None):
            self._score(own, outputs, truths)
            if expected is not None:
                self._score(part.original, expected, truths)
        elif self.alone:
            raise UnusableData(f"{self.label}: no labels for {self.task}; give --against FLOAT.onnx to compare with")
        if self.inspect is not None:
            self.inspect(outputs)

    def _score(self, score: Score, outputs: Mapping[Name, Array], truths: Any) -> None:
        """Hold a network's outputs against the labels."""
        if self.task in CLASSIFY:
            try:
                score.tally.add_labels(outputs[self.outputs[0]], truths)
            except UnusableData as error:
                raise UnusableData(f"{self.label}: {error}") from error
        elif self.source.meter is not None:
            score.meter = score.meter or self.source.meter()
            score.meter.add(outputs, truths)
