"""Mixed precision: the fewest extra bytes that keep a network within a bound."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from ..errors import UnusableData
from ..graph.overrides import Override
from ..hardware.target import Target
from ..ir.events import Event, EventKind
from ..ir.model import Array, Graph, Model, Name
from ..onnx.qdq import qdq_graph
from ..ops.layers import layers
from ..planning.recipe import Recipe, to_toml
from ..planning.run import Progress
from ..samples.images import Samples
from .diagnose import Quantizer, unquantized
from .remedies import takes_floats
from .sensitivity import RANKED, Sensitivity, sensitivity
from .trials import Score, Truth, scores, truth

WIDE = 16
"""Bits of what gets more of them."""


@dataclass(frozen=True)
class Candidate:
    """One layer or tensor with another format.

    Attributes:
        cost: bytes more: of weights stored, and of activations for one sample.
        worth: noise over signal at the outputs that it takes away, measured alone.
    """

    at: str
    override: Override
    cost: float
    worth: float


@dataclass(frozen=True)
class Bounded:
    """What a bound is on.

    Attributes:
        metric: by name; samples: on how many it is measured; lost: points of it that a quantized network loses.
    """

    metric: str
    samples: int
    lost: Callable[[Model], float]


@dataclass(frozen=True)
class Mixed:
    """What was found.

    Attributes:
        met: whether the bound is met; drop: points lost against the float network; before: without any override.
        metric: "top1" where there are labels, else "agreement"; or what was asked for.
        cost: extra bytes of all overrides; chosen: names of layers and tensors.
        tried: networks that were measured; images: on how many images.
        events: what to tell; a warning where the bound is missed.
    """

    recipe: Recipe
    met: bool
    drop: float
    before: float
    metric: str
    cost: float
    chosen: tuple[str, ...]
    tried: int
    images: int
    events: tuple[Event, ...] = ()

    def __repr__(self) -> str:
        return f"Mixed(met={self.met}, drop={self.drop:.2f}, cost={self.cost:.0f}, chosen={len(self.chosen)})"

    def facts(self) -> dict[str, Any]:
        """Everything, ready for JSON; the recipe as TOML."""
        texts = {"chosen": list(self.chosen), "recipe": to_toml(self.recipe), "events": [str(e) for e in self.events]}
        kept = ("met", "drop", "before", "metric", "cost", "tried", "images")
        return {**{name: getattr(self, name) for name in kept}, **texts}


def mixed(
    original: Model,
    chosen: Recipe,
    on: Target,
    quantize: Quantizer,
    images: Samples,
    max_drop: float,
    *,
    labels: Array | None = None,
    bounded: Bounded | None = None,
    top: int | None = None,
    progress: Progress | None = None,
) -> Mixed:
    """The cheapest overrides, as far as a greedy search finds them, that lose no more than `max_drop` points.

    Every layer's weights and every tensor is measured alone. Sixteen bits are then given in the order of noise taken
    away per extra byte, and where that does not do, parts become float, the noisiest first; the shortest such list
    that meets the bound is found by bisection. At last every override is taken back that turns out not to be needed.

    Args:
        original, chosen, on, quantize, images, labels: as for `equint.study.diagnose.diagnose`.
        max_drop: points of top-1 where there are labels, else of agreement with the float network, both on the images.
        bounded: what else the bound is on.
        top: layers and tensors that are candidates; all of them if left out.

    Raises:
        EquintError: a network that does not choose among classes, where nothing else is bounded.
    """
    known = truth(original.graph, images, labels)
    quantized = quantize(chosen)
    search = _Search(chosen, quantize, quantized, bounded or _decisions(chosen, quantize, quantized, known))
    before = search.drop(())
    if before <= max_drop:
        return search.result((), max_drop, before)
    if not takes_floats(on):
        return search.result((), max_drop, before, f"target {on.name} takes neither 16 bits nor floats")
    if progress is not None:
        progress("layers and tensors", 0, 2)
    ranked = sensitivity(quantize(unquantized(chosen)), quantized, known.batches(slice(RANKED)), top)
    offered = candidates(quantized, ranked)
    if progress is not None:
        progress("search", 1, 2)
    kept = search.lean(offered[: search.shortest(offered, max_drop)], max_drop)
    return search.result(kept, max_drop, before)


def candidates(model: Model, ranked: Sensitivity) -> tuple[Candidate, ...]:
    """What may become wider, by noise taken away per byte; then what may become float, the noisiest first."""
    graph, wide, floating = model.graph, list[Candidate](), list[Candidate]()
    weights = {layer.y: layer.weight for layer in layers(graph)}

    def offer(at: Name, kind: str, wider: str, size: int, bits: int, score: Score) -> None:
        names: dict[str, Any] = {kind: (at,)}
        worth = float(10.0 ** (-score.sqnr_db / 10))
        if bits < WIDE:
            wide.append(Candidate(at, Override(**{**names, wider: WIDE}), size * (WIDE - bits) / 8, worth))
        floating.append(Candidate(at, Override(**names, float=True), size * (32 - bits) / 8, worth))

    for grid in ranked.tensors:
        if grid.alone is not None:
            size, bits = sum(_elements(graph, n) for n in grid.shared), model.qparams[grid.tensor].bits
            offer(grid.tensor, "tensors", "activation_bits", size, bits, grid.alone)
    for cost in ranked.layers:
        if cost.weights is not None:
            size, bits = graph.consts[weights[cost.output]].size, model.qparams[weights[cost.output]].bits
            offer(cost.layer, "layers", "weight_bits", size, bits, cost.weights)
    wide.sort(key=lambda e: -e.worth / max(e.cost, 1e-9))
    floating.sort(key=lambda e: -e.worth)
    return (*wide, *floating)


def _elements(graph: Graph, name: Name) -> int:
    """Of one sample; sizes that are not known count as 1."""
    return prod(n for n in graph.shapes.get(name, ())[1:] if isinstance(n, int))


def _decisions(chosen: Recipe, quantize: Quantizer, base: Model, known: Truth) -> Bounded:
    """Points of top-1 where there are labels, else of agreement."""
    first = known.outputs[0][next(iter(known.outputs[0]))]
    if first.ndim != 2 or first.shape[1] < 2:
        raise UnusableData("a bound on the drop needs a network that chooses among classes; this one has other outputs")
    start, float_top1 = qdq_graph(base), scores({"": qdq_graph(quantize(unquantized(chosen)))}, known)[""].top1

    def lost(model: Model) -> float:
        score = scores({"": qdq_graph(model)}, known, start)[""]
        if score.top1 is not None and float_top1 is not None:
            return float_top1 - score.top1
        return 100.0 - (100.0 if score.agreement is None else score.agreement)

    metric = "top1" if known.labels and float_top1 is not None else "agreement"
    return Bounded(metric, known.images, lost)


class _Search:
    """Measures recipes, each once, and remembers them."""

    def __init__(self, chosen: Recipe, quantize: Quantizer, base: Model, bounded: Bounded) -> None:
        self.chosen, self.quantize, self.base, self.bounded = chosen, quantize, base, bounded
        self.seen: dict[tuple[Override, ...], float] = {}

    def recipe(self, parts: Sequence[Candidate]) -> Recipe:
        """The recipe with overrides; one of a layer that becomes float replaces that of its bits."""
        overrides = merged([e.override for e in parts])
        name = f"{self.chosen.name}+mixed" if overrides else self.chosen.name
        return replace(self.chosen, name=name, overrides=(*self.chosen.overrides, *overrides))

    def drop(self, parts: Sequence[Candidate]) -> float:
        recipe = self.recipe(parts)
        if recipe.overrides not in self.seen:
            self.seen[recipe.overrides] = self.bounded.lost(self.quantize(recipe) if parts else self.base)
        return self.seen[recipe.overrides]

    def shortest(self, offered: Sequence[Candidate], bound: float) -> int:
        """Length of the shortest list found, from the front, that meets the bound; of the best one if none does."""
        low, high = 0, 1  # low misses the bound
        while high < len(offered) and self.drop(offered[:high]) > bound:
            low, high = high, 2 * high
        high = min(high, len(offered))
        if not offered or self.drop(offered[:high]) > bound:
            lengths = [n for n in range(len(offered) + 1) if self.recipe(offered[:n]).overrides in self.seen]
            return min(lengths, key=lambda n: (self.drop(offered[:n]), n))
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.drop(offered[:middle]) <= bound else (middle, high)
        return high

    def lean(self, parts: Sequence[Candidate], bound: float) -> tuple[Candidate, ...]:
        """The parts without those that can be taken back, the dearest first: the drop stays within the bound, or as
        small as it was."""
        kept, least = tuple(parts), max(self.drop(parts), bound)
        for part in sorted(parts, key=lambda e: -e.cost):
            fewer = tuple(e for e in kept if e is not part)
            if self.drop(fewer) <= least:
                kept = fewer
        return kept

    def result(self, kept: Sequence[Candidate], bound: float, before: float, why: str = "") -> Mixed:
        drop, met = self.drop(kept), self.drop(kept) <= bound
        names = tuple(dict.fromkeys(e.at for e in kept))
        images, reason = self.bounded.samples, {"why": why} if why else {}
        facts = {"drop": drop, "bound": bound, "overrides": len(names), "images": images, **reason}
        kind = EventKind.DROP_WITHIN_BOUND if met else EventKind.DROP_BEYOND_BOUND
        event = Event(kind, "", facts, "mixed", warning=not met)
        cost = sum({e.at: e.cost for e in kept}.values())
        return Mixed(
            self.recipe(kept), met, drop, before, self.bounded.metric, cost, names, len(self.seen), images, (event,)
        )


def merged(overrides: Sequence[Override]) -> tuple[Override, ...]:
    """As few tables as say the same: one for each format; what is float needs no bits.

    Example:
        >>> wide = [Override((name,), weight_bits=16) for name in "abc"]
        >>> [(o.layers, o.float) for o in merged([*wide, Override(("b",), float=True)])]
        [(('a', 'c'), False), (('b',), True)]
    """
    floating = {n for o in overrides if o.float for n in (*o.layers, *o.tensors)}
    found: dict[Override, Override] = {}
    for o in overrides:
        layers_, tensors = ((n for n in names if o.float or n not in floating) for names in (o.layers, o.tensors))
        own = (tuple(layers_), tuple(tensors))
        if not any(own):
            continue
        key = replace(o, layers=("*",) * bool(own[0]), tensors=("*",) * bool(own[1]))
        before = found.get(key)
        joined = own if before is None else (before.layers + own[0], before.tensors + own[1])
        found[key] = replace(o, layers=joined[0], tensors=joined[1])
    return tuple(found.values())
