"""Candidates beside the float network that they were made of: what each of them loses, where, and how surely.

All are shown the same samples, batch by batch, the float network once for all. What is kept of a sample are two powers
for each place where networks are compared, so that memory does not grow with what the tensors hold.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from onnx import ModelProto

from ..errors import EquintError, UnusableData
from ..files import Facts
from ..graph.results import bounded, parts
from ..ir.model import Array, Graph, Name, Node
from ..maths.chance import Interval, sqnr
from ..maths.noise import to_db
from ..maths.paired import chance, gain_db, relative_noise
from ..onnx.qdq import held_ranges, views_of
from ..onnx.writer import to_proto
from ..samples.images import Feed, Run, Samples, length, split
from .batches import at_once
from .session import Session, is_grouped

PARTS = 16
"""An output of more parts than these is looked at as one."""
DEPTHS = (0.25, 0.5, 0.75)
"""How deep in the network tensors are compared too."""
FAINT = 0.05
"""An output that never gets further than this share of its bound shows nothing of what it is there for."""
WEAK_DB = 20.0
"""Where there is so much less signal than BatchNorms say, samples do not excite the network as it was trained."""

Role = Literal["output", "before", "inside"]


@dataclass(frozen=True)
class Place:
    """Where networks are compared.

    Attributes:
        tensor: by name; output: the network's that it tells of, empty where it is none's.
        part: of an output, the values that come from this tensor, the `number`th that it joins; all where it is empty.
        role: an `output`, what stands `before` the function that bounds it, or a tensor `inside`.
        reach: the bound of an output that has one.
    """

    tensor: Name
    role: Role
    output: Name = ""
    part: Name = ""
    number: int = 0
    reach: float = np.inf

    def __str__(self) -> str:
        return f"{self.tensor}, part {self.part}," if self.part else self.tensor


@dataclass(frozen=True)
class Loss(Facts):
    """What a candidate loses at one place.

    Attributes:
        sqnr_db: over all samples; of whole numbers, the share that differs.
        agreement: per cent of samples with the same best class; None where the output is no score of classes.
        saturated: share of the float network's values beyond the ends of the grid; None where there is no grid.
        dead: it varies in the float network and not here.
    """

    tensor: Name
    part: Name
    role: Role
    sqnr_db: float
    agreement: float | None
    saturated: float | None
    dead: bool


@dataclass(frozen=True)
class Judgement(Facts):
    """How candidates compare with the float network and with each other.

    Attributes:
        images: samples shown; data: what they are.
        losses: of each candidate at every place.
        sqnr_db: of each candidate, all outputs together: what candidates are ranked by. Parts of an output count alike,
            and outputs do; where an output shows nothing, what stands before it counts.
        likely_db: where that lies on other samples, in 95 % of cases; without candidates of which nothing tells.
        best: the candidate that loses least; chances: that it would lose less than each other one on new samples.
        blind: why the samples tell little of what the network is there for; empty where they do.
    """

    images: int
    data: str
    losses: Mapping[str, tuple[Loss, ...]]
    sqnr_db: Mapping[str, float]
    best: str
    chances: Mapping[str, float]
    blind: tuple[str, ...] = ()
    likely_db: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Judgement(images={self.images}, best={self.best!r}, {self.sqnr_db[self.best]:.1f} dB)"

    def facts(self) -> dict[str, Any]:
        return {
            **super().facts(),
            "losses": {name: [row.facts() for row in rows] for name, rows in self.losses.items()},
        }


@dataclass
class _Sums:
    """What a tensor does at a place: powers of each sample, `signal` in the float network, else noise beside it."""

    powers: list[float] = field(default_factory=list)
    values: int = 0
    agreed: int | None = None
    beyond: int = 0
    low: float = np.inf
    high: float = -np.inf

    @property
    def peak(self) -> float:
        return max(abs(self.low), abs(self.high))

    @property
    def root_mean_square(self) -> float:
        return float(np.sqrt(sum(self.powers) / max(self.values, 1)))

    def add(self, rows: Array, clean: Array | None = None) -> None:
        """`(N, K)` values of as many samples. Of whole numbers, each that differs counts as all of it."""
        whole = rows.dtype.kind in "iub"
        rows64 = rows.astype(np.float64)
        if clean is None:
            power = np.ones_like(rows64) if whole else np.square(rows64)
        else:
            with np.errstate(invalid="ignore"):  # infinite in both
                power = (rows != clean).astype(np.float64) if whole else np.square(rows64 - clean)
        self.powers += np.nan_to_num(power.sum(1), nan=np.inf, posinf=np.inf).tolist()
        self.values += rows.size
        if rows.size:
            self.low, self.high = min(self.low, float(rows.min())), max(self.high, float(rows.max()))


class Judge:
    """Candidates and the float network, ready to be shown samples: `batch` at once.

    Args:
        original: the float network.
        candidates: quantized ones by name, whose outputs are the original's; those that equint exports are compared
            inside too, their tensors brought back to the original's units.
        expected: mean square that the float network's tensors should have, real units squared, where that is known.
        made_up: whether samples are: an output that hardly answers them, spot by spot, shows nothing.

    Raises:
        EquintError: candidates that onnxruntime refuses, or that lack one of the network's outputs.

    Example:
        >>> from equint.ops.layers import tiny_graph
        >>> graph = tiny_graph()
        >>> halved = to_proto(graph.with_consts({"w": graph.consts["w"] / 2}))
        >>> seat = Judge(graph, {"same": to_proto(graph), "halved": halved})
        >>> seat.show(np.ones((4, 4, 4, 4), np.float32))
        >>> found = seat.judgement()
        >>> found.best, round(found.sqnr_db["halved"], 1)
        ('same', 6.0)
    """

    def __init__(
        self,
        original: Graph,
        candidates: Mapping[str, ModelProto],
        expected: Mapping[Name, float] | None = None,
        made_up: bool = False,
    ) -> None:
        for name, proto in candidates.items():
            lacking = set(original.outputs) - {output.name for output in proto.graph.output}
            if lacking:
                raise UnusableData(f"candidate {name} has no output {min(lacking)}; judge it beside its own original")
        self._graph, self._expected, self._made_up = original, expected or {}, made_up
        self._places = tuple(_places(original, candidates.values()))
        taps = list(dict.fromkeys(place.tensor for place in self._places))
        self._float = Session(to_proto(original), optimized=True, taps=taps, lean=True)
        self.go_on_with(candidates)
        self._origins: dict[Name, Array] | None = None
        self._clean = defaultdict[Place, _Sums](_Sums)
        self._lost = {name: defaultdict[Place, _Sums](_Sums) for name in candidates}
        self.candidates, self.images, self.batch = tuple(candidates), 0, at_once(original)

    def again(self, made_up: bool) -> Judge:
        """One that was shown nothing yet, of the same candidates in the same sessions."""
        other = copy(self)
        other._made_up, other._origins, other.images = made_up, None, 0
        other._clean = defaultdict[Place, _Sums](_Sums)
        other._lost = {name: defaultdict[Place, _Sums](_Sums) for name in self.candidates}
        return other

    def go_on_with(self, candidates: Mapping[str, ModelProto]) -> None:
        """Show further samples to these, which stand for the candidates of the same names: what was seen adds up."""
        taps = list(dict.fromkeys(place.tensor for place in self._places))
        grouped = is_grouped(self._graph)
        self._each = {name: Session(proto, taps=taps, lean=True, floats=grouped) for name, proto in candidates.items()}
        self._views = {name: views_of(proto) for name, proto in candidates.items()}
        self._ends = {name: held_ranges(proto) for name, proto in candidates.items()}

    def show(self, feed: Feed) -> None:
        """Run a batch through the float network and the candidates.

        Raises:
            EquintError: samples that the network does not take, or tensors of other shapes than its own.
        """
        count, clean = length(feed), self._float.run(feed)
        if self._origins is None:
            self._find_parts(feed, count)
        for place in self._places:
            self._clean[place].add(self._rows(clean[place.tensor], place, count))
        for name, session in self._each.items():
            found = session.run(feed)
            for place in self._places:
                self._compare(name, place, clean[place.tensor], found[place.tensor], count)
        self.images += count

    def show_all(self, images: Samples) -> None:
        """Show every sample, batch by batch. Raises EquintError: as `show`."""
        for feed in split(images, self.batch):
            self.show(feed)

    def leave(self, names: Collection[str]) -> None:
        """Show these candidates nothing more, which gives their memory back; what was seen of them is kept."""
        self._each = {name: session for name, session in self._each.items() if name not in names}

    def _compare(self, name: str, place: Place, clean: Array, value: Array, count: int) -> None:
        if value.shape != clean.shape:
            raise UnusableData(f"candidate {name}: {place} has shape {value.shape}, the original's {clean.shape}")
        view, sums = self._views[name].get(place.tensor), self._lost[name][place]
        rows = self._rows(clean, place, count)
        own = self._rows(value if view is None else view.scale * (value + view.offset), place, count)
        sums.add(own, rows)
        if place.role == "output" and clean.ndim == 2 and clean.shape[1] > 1:
            sums.agreed = (sums.agreed or 0) + int(np.sum(own.argmax(1) == rows.argmax(1)))
        if place.tensor in self._ends[name]:
            low, high = self._ends[name][place.tensor]
            at = rows if view is None else self._rows(clean / view.scale - view.offset, place, count)
            sums.beyond += int(np.sum((at < low) | (at > high)))

    def _rows(self, value: Array, place: Place, count: int) -> Array:
        """The values of a tensor that belong to a place, `(N, K)`; one row where samples cannot be told apart."""
        rows = value.reshape(count if value.ndim and len(value) % count == 0 else 1, -1)
        return rows[:, self._origins[place.tensor] == place.number] if self._origins and place.part else rows

    def _find_parts(self, feed: Feed, count: int) -> None:
        """Where the values of each output come from; an output of which nothing tells is one part."""
        self._origins, whole = {}, set[Name]()
        for output in dict.fromkeys(place.tensor for place in self._places if place.part and place.role == "output"):
            try:
                self._origins[output] = _origins(self._graph, output, feed, count)
            except (EquintError, ValueError):
                whole.add(output)
        plain = (replace(p, part="", number=0) if p.tensor in whole and p.role == "output" else p for p in self._places)
        self._places = tuple(dict.fromkeys(plain))

    def judged(self) -> list[list[Place]]:
        """The places that candidates are ranked by: those of each output, or what stands before it if it is silent."""
        found = []
        for output in self._graph.outputs:
            at = [place for place in self._places if place.output == output and place.role == "output"]
            before = [place for place in self._places if place.output == output and place.role == "before"]
            found.append(before if before and self._silent(at[0]) else at)
        return found

    def powers(self, name: str, own: slice = slice(None)) -> tuple[Array, Array]:
        """Signal and noise `(N, P)` of the samples that a candidate was shown first, at the places that are judged.

        The parts of an output weigh together as much as any other output: places are repeated.
        """
        judged = self.judged()
        every = int(np.lcm.reduce([len(at) for at in judged]))
        spread = [place for at in judged for place in at for _ in range(every // len(at))]
        noise = np.array([self._lost[name][place].powers for place in spread]).T
        signal = np.array([self._clean[place].powers for place in spread]).T[: len(noise)]
        return signal[own], noise[own]

    def shown(self, name: str) -> int:
        """How many samples a candidate was shown."""
        return max((len(sums.powers) for sums in self._lost[name].values()), default=0)

    def sqnr_db(self, name: str, own: slice = slice(None)) -> float:
        """What a candidate is ranked by, on its `own` samples."""
        return to_db(float(relative_noise(*self.powers(name, own))))

    def likely_db(self, name: str, own: slice = slice(None)) -> Interval | None:
        """Where what a candidate is ranked by lies on other samples, in 95 % of cases, dB; None: nothing tells."""
        return sqnr(*self.powers(name, own))

    def gain(self, before: str, after: str, own: slice = slice(None)) -> tuple[float, float]:
        """How much less noise one makes than another, in dB, and the chance that it makes less on new samples."""
        (signal, a), (_, b) = self.powers(before, own), self.powers(after, own)
        least = min(len(a), len(b))
        powers = signal[:least], a[:least], b[:least]
        return float(gain_db(*powers)), chance(*powers)

    def _silent(self, output: Place) -> bool:
        """Whether an output that could reach its bound never gets near; of made-up samples, but for a few spots."""
        seen = self._clean[output]
        return (seen.root_mean_square if self._made_up else seen.peak) < FAINT * output.reach

    def blind(self) -> tuple[str, ...]:
        """Why the samples tell little, in words."""
        found = list[str]()
        for place in self._places:
            seen, expected = self._clean[place], self._expected.get(place.tensor)
            if seen.low == seen.high:
                found.append(f"{place} is constant")
            elif place.role == "output" and np.isfinite(place.reach) and self._silent(place):
                found.append(f"{place} reaches {seen.root_mean_square:.2g} of {place.reach:.2g} in the mean")
            elif expected is not None and not place.part and expected > 0:
                weaker = to_db(sum(seen.powers) / seen.values / expected)
                if weaker > WEAK_DB:
                    found.append(f"{place} has {weaker:.0f} dB less power than the network's statistics say")
        return tuple(found)

    def judgement(self, data: str = "") -> Judgement:
        """What was seen so far."""
        if not self.images:
            raise UnusableData("nothing was shown; give at least one sample")
        reached = {name: self.sqnr_db(name) for name in self.candidates}
        best = max(reached, key=lambda name: reached[name])
        chances = {name: self.gain(name, best)[1] for name in self.candidates if name != best}
        losses = {name: tuple(self._losses(name)) for name in self.candidates}
        spans = {name: span for name in self.candidates if (span := self.likely_db(name)) is not None}
        return Judgement(self.images, data, losses, reached, best, chances, self.blind(), spans)

    def _losses(self, name: str) -> Iterator[Loss]:
        for place, sums in self._lost[name].items():
            clean, count = self._clean[place], len(sums.powers)
            sqnr = to_db(sum(sums.powers) / max(sum(clean.powers[:count]), 1e-300))
            agreement = None if sums.agreed is None else 100 * sums.agreed / count
            saturated = sums.beyond / sums.values if place.tensor in self._ends[name] else None
            dead = sums.low == sums.high and clean.low < clean.high
            yield Loss(place.tensor, place.part, place.role, sqnr, agreement, saturated, dead)


def judge(
    original: Graph,
    candidates: Mapping[str, ModelProto],
    images: Samples,
    expected: Mapping[Name, float] | None = None,
) -> Judgement:
    """Show candidates and the float network all samples: see `Judge`."""
    return seated(original, candidates, images, expected).judgement(images.label)


def seated(
    original: Graph,
    candidates: Mapping[str, ModelProto],
    images: Samples,
    expected: Mapping[Name, float] | None = None,
    made_up: bool = False,
) -> Judge:
    """A judge that was shown all samples: see `Judge`."""
    seat = Judge(original, candidates, expected, made_up)
    seat.show_all(images)
    return seat


def _places(graph: Graph, candidates: Collection[ModelProto]) -> Iterator[Place]:
    """Outputs, in parts; what stands before those that are bounded; and some tensors inside."""
    made = [{o for node in proto.graph.node for o in node.output} for proto in candidates]
    for output in graph.outputs:
        squashed, held = bounded(graph, output), parts(graph, output)
        reach = np.inf if squashed is None else squashed[1]
        named = held if 1 < len(held) <= PARTS else ("",)
        yield from (Place(output, "output", output, part, number, reach) for number, part in enumerate(named))
        if squashed is not None and all(squashed[0] in own for own in made):
            yield Place(squashed[0], "before", output)
    before = {squashed[0] for output in graph.outputs if (squashed := bounded(graph, output)) is not None}
    rounded = [held_ranges(proto).keys() - {*graph.outputs} - before for proto in candidates]
    inside = [o for node in graph.nodes for o in node.outputs if all(o in own for own in rounded)]
    deep = dict.fromkeys(inside[int(share * len(inside))] for share in DEPTHS) if inside else {}
    yield from (Place(name, "inside") for name in deep)


def _origins(graph: Graph, output: Name, feed: Feed, count: int) -> Array:
    """Which of its parts each value of an output comes from, `(K,)` of a sample: the parts' numbers, moved as they are.

    Raises:
        EquintError: the network does not run that way. ValueError: samples cannot be told apart.
    """
    held, nodes, wanted = parts(graph, output), list[Node](), {output}
    for node in reversed(graph.nodes):
        if wanted & set(node.outputs) and not set(node.outputs) & set(held):
            nodes.insert(0, node)
            wanted |= set(node.reads)
    made = {o for node in nodes for o in node.outputs}
    given = [name for name in dict.fromkeys((*held, *sorted(wanted - made))) if name not in graph.consts]
    first = Session(to_proto(graph), taps=[n for n in given if n not in graph.inputs]).run(feed)
    shown = feed if isinstance(feed, Mapping) else {graph.inputs[0]: feed}
    values = {name: first[name] if name in first else np.asarray(shown[name]) for name in given}
    values |= {name: np.full_like(values[name], number) for number, name in enumerate(held)}
    cut = replace(graph, inputs=tuple(given), outputs=(output,)).with_nodes(nodes)
    found = Session(to_proto(cut)).run(Run(values))[output].reshape(count, -1)
    if not np.all(found == found[0]):
        raise ValueError(f"{output}: samples lie in one another")
    return np.asarray(found[0])
