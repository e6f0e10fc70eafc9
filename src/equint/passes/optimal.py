"""Equalization by predicted noise: all channel scales and all ranges of a network at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar

import numpy as np

from ..graph.channels import Channels, rescale, solve
from ..graph.cross_layer import cross_layer, reaches
from ..graph.gaps import gaps
from ..graph.placement import place
from ..ir.edit import Editor
from ..ir.events import Event, EventKind
from ..ir.model import Array, Graph, Model, Name, QSpec, Range
from ..maths.affine import choose_qparams
from ..maths.noise import to_db
from ..noise.constants import MEASURED, NoiseModel
from ..noise.gains import gains
from ..noise.least import least
from ..noise.objective import Formats, Objective
from ..noise.rounded import RoundedTensor, rounded_layers, rounded_tensors
from ..ops.attributes import clip_bounds
from ..ops.layers import layers, leads_to_layer
from . import Keeps, Need, Stage, needed, require

T = TypeVar("T")
NEARLY = 0.85
"""Share of a result's range that a grid of half the step must hold. Where a range reaches six deviations off and tails
fall off as Laplace's do, this cuts off e^(-6·√2·share)/72 of its square: as much as rounding to twice the step adds."""


UNSEEN = 4.0
"""Times that what is cut off counts where steps are powers of two and nobody has seen values: half a range or all of it
is another choice than a few percent, and tails told by BatchNorms alone err most where they cut off most."""


@dataclass(frozen=True)
class Optimal:
    """Choose channel scales, activation ranges and weight ranges for the least predicted noise at the outputs.

    The noise is that of `noise/objective.py`. All logarithms of scales and ranges move together (L-BFGS with exact
    gradients), from three starts: as the network is, cross-layer equalization, and equal activation reach. What is
    returned predicts no more noise than any of them. Deterministic. Where hardware has one bound for all channels of a
    clip, channels behind it are scaled too: the bound becomes the end of the grid, and what it then clips wrongly is
    part of the noise. Where steps must be powers of two, ranges take theirs a few at a time when the descent is done,
    and the scales go on until they fit them (`noise/least.py`). Grids of the network's inputs and results are left
    alone, but that results take the better power of two; `activation` None leaves all float.
    """

    keeps: ClassVar[Keeps] = Keeps.NEARLY
    stage: ClassVar[Stage] = Stage.BEFORE

    weight: QSpec = needed(Need.WEIGHT, QSpec(8, signed=True, symmetric=True, granularity="channel"))
    activation: QSpec | None = needed(Need.ACTIVATION, QSpec(8, signed=False, symmetric=False))
    iterations: int = 200
    shift_bits: int = needed(Need.SHIFT_BITS, 0)

    def __post_init__(self) -> None:
        require("iterations", self.iterations, self.iterations >= 1, "1 or more")

    def __call__(self, model: Model) -> Model:
        table, classes = gains(model.graph, model.moments), place(model.graph, model.apart).classes
        rounded = list(rounded_layers(model, table))
        if not rounded:
            why = {"why": "no layer whose input moments are known"}
            return model.noted(Event(EventKind.NOT_OPTIMIZED, "", why, "optimal", warning=True))
        fixed = _fixed(model, classes)
        clips = frozenset(t.name for t in rounded_tensors(model, table) if t.grid not in fixed and _movable(model, t))
        channels = solve(model, priced=clips)
        tensors = [t for t in rounded_tensors(model, table, channels.ids) if t.grid not in fixed]
        formats = Formats(self.weight, self.activation, self.shift_bits)
        seen = any(moments.origin == "calibration" for moments in model.moments.values())
        objective = Objective(model, channels, tensors, rounded, formats, clips, _noise_model(self.activation, seen))
        first = objective.start(np.ones(channels.size))
        before = objective(first)[0]
        x, after, steps = least(objective, _starts(model, channels), self.iterations)
        scales = objective.scales(x)
        facts = {
            "scales": int(objective.free.size),
            "ranges": int(objective.size - objective.free.size),
            "steps": steps,
            "predicted SQNR before": to_db(before.total),
            "predicted SQNR": to_db(after.total),
            "predicted gain": to_db(after.total) - to_db(before.total),
            "of weights": to_db(after.weights + after.clipped_weights),
            "of activations": to_db(after.activations),
            "of clips": to_db(after.clipped_activations),
        }
        events = [Event(EventKind.OPTIMIZED, "", facts, "optimal")]
        if not channels.groups:
            events.append(Event(EventKind.NO_FREE_SCALES, "", {"why": channels.why}, "optimal"))
        scaled = rescale(model, channels, scales)
        chosen = objective.tensor_ranges(x)
        graph, moved = _with_bounds(scaled.graph, classes, chosen, clips)
        if moved:
            moves = {"clips": len(moved), "why": "channels behind a shared bound were scaled; the grid's end clips"}
            events.append(Event(EventKind.CLIP_BOUNDS_MOVED, moved[0], moves, "optimal"))
        ranges = {**scaled.ranges, **_by_weight(graph, objective.weight_ranges(x), _hull)}
        shifts = {**scaled.shifts, **_by_weight(graph, objective.shifts(), np.minimum)}
        chosen |= _results(scaled, {k: classes[k] for k in fixed}, self.activation)
        for grid, names in enumerate(classes):
            if grid in chosen and self.activation is not None:
                ranges |= dict.fromkeys(names, chosen[grid])
        result = replace(scaled, graph=graph, ranges=ranges, shifts=shifts)
        return result.noted(*events, *gaps(model, "gain", "optimal"))


def _fixed(model: Model, classes: tuple[tuple[Name, ...], ...]) -> frozenset[int]:
    """Grids that keep the range they have: inputs, results, and where nothing tells how a tensor is made."""
    return frozenset(
        k
        for k, names in enumerate(classes)
        if _inputs_or_unknown(model, names) or not any(leads_to_layer(model.graph, n) for n in names)
    )


def _noise_model(activation: QSpec | None, seen: bool) -> NoiseModel:
    wide = activation is not None and activation.power_of_two and not seen
    return replace(MEASURED, saturation=UNSEEN) if wide else MEASURED


def _inputs_or_unknown(model: Model, names: tuple[Name, ...]) -> bool:
    return any(n in model.graph.inputs or n not in model.moments for n in names)


def _results(model: Model, grids: Mapping[int, tuple[Name, ...]], spec: QSpec | None) -> dict[int, Range]:
    """Ranges of grids of results, where steps are powers of two, that nearly end where half the step's grid does."""
    found = dict[int, Range]()
    if spec is None or not spec.power_of_two:
        return found
    for k, names in grids.items():
        known = [model.ranges[name] for name in names if name in model.ranges]
        if _inputs_or_unknown(model, names) or not known:
            continue
        lo, hi = min(float(r.lo.min()) for r in known), max(float(r.hi.max()) for r in known)
        grid = choose_qparams(lo, hi, spec)
        if 2 * NEARLY * lo >= grid.lo and 2 * NEARLY * hi <= grid.hi:
            found[k] = Range(np.asarray(grid.lo / 2), np.asarray(grid.hi / 2))
    return found


def _movable(model: Model, tensor: RoundedTensor) -> bool:
    """Whether the tensor is a clip to [0, b] with one bound for all, which the end of its grid can replace."""
    clip = tensor.activation.clip
    if clip is None or clip.outputs[0] != tensor.name:
        return False
    lo, hi = clip_bounds(model.graph, clip)
    return lo is not None and hi is not None and bool(np.all(lo == 0) and np.all(hi > 0) and len(tensor.shape) > 1)


def _starts(model: Model, channels: Channels) -> list[Array]:
    """Scales to start from: none, cross-layer equalization, equal activation reach."""
    extents = reaches(model, channels)
    even = np.ones(channels.size)
    for group in channels.groups:
        own = extents[group.classes]
        if np.any(own > 0):
            even[group.classes] = np.clip(own / np.median(own[own > 0]), 1 / 64, 64)
    starts = [np.ones(channels.size), cross_layer(model, channels), even]
    return [s for k, s in enumerate(starts) if not any(np.array_equal(s, t) for t in starts[:k])]


def _with_bounds(
    graph: Graph, classes: tuple[tuple[Name, ...], ...], chosen: Mapping[int, Range], clips: frozenset[Name]
) -> tuple[Graph, list[Name]]:
    """The clips get the end of their grid as bound."""
    editor = Editor(graph)
    grid_of = {name: k for k, names in enumerate(classes) for name in names}
    moved = [name for name in sorted(clips) if grid_of[name] in chosen]
    for name in moved:
        editor.set(graph.producer[name], 2, np.asarray(chosen[grid_of[name]].hi, np.float32), f"{name}_bound")
    return editor.done(), moved


def _by_weight(graph: Graph, by_layer: Mapping[Name, T], meet: Callable[[T, T], T]) -> dict[Name, T]:
    """A table by weight of one by layer output; layers that share a weight meet, others have their own copies."""
    found: dict[Name, T] = {}
    for layer in layers(graph):
        if layer.y in by_layer:
            own = by_layer[layer.y]
            found[layer.weight] = meet(own, found[layer.weight]) if layer.weight in found else own
    return found


def _hull(a: Range, b: Range) -> Range:
    return Range(np.minimum(a.lo, b.lo), np.maximum(a.hi, b.hi))
