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
from ..ir.model import Array, Graph, Model, Name, QSpec, Range, View
from ..maths.descent import Descent
from ..maths.noise import to_db
from ..noise.gains import gains
from ..noise.objective import Formats, Noise, Objective
from ..noise.rounded import RoundedTensor, rounded_layers, rounded_tensors
from ..ops.attributes import clip_bounds
from ..ops.layers import layers, leads_to_layer
from . import Keeps, Need, Stage, needed, require

T = TypeVar("T")
TRIAL_STEPS = 10
"""Steps from every start before the worst is given up, and so on."""
ROUND_STEPS = 50
"""Steps of a round: between two choices of shifts, and of weights that may leave their ranges."""
WORTH = 1e-3
"""A round that takes a smaller share of the noise away is the last."""
LIMIT = 20.0
"""Log-scales stay within ±20: beyond, float32 weights would lose digits."""
GRID, FLAT, DIGITS = 2.0**-14, 2.0**-30, 30
"""Steps of logarithms, of the objective, and binary digits of slopes, that the descent knows: what processors round
differently is lost."""


@dataclass(frozen=True)
class Optimal:
    """Choose channel scales, activation ranges and weight ranges for the least predicted noise at the outputs.

    The noise is that of `noise/objective.py`. All logarithms of scales and ranges move together (L-BFGS with exact
    gradients), from three starts: as the network is, cross-layer equalization, and equal activation reach. What is
    returned predicts no more noise than any of them. Deterministic. Where hardware has one bound for all channels of a
    clip, channels behind it are scaled too: the bound becomes the end of the grid, and what it then clips wrongly is
    part of the noise. Where steps must be powers of two, each range takes the best one when the descent is done, and
    the scales go on until they fit it. Grids of the network's inputs and results are left alone; `activation` None
    leaves all float.

    Attributes:
        views: how the network was rewritten for other samples: the scales that were found then are the only start.
    """

    keeps: ClassVar[Keeps] = Keeps.NEARLY
    stage: ClassVar[Stage] = Stage.BEFORE

    weight: QSpec = needed(Need.WEIGHT, QSpec(8, signed=True, symmetric=True, granularity="channel"))
    activation: QSpec | None = needed(Need.ACTIVATION, QSpec(8, signed=False, symmetric=False))
    iterations: int = 200
    shift_bits: int = needed(Need.SHIFT_BITS, 0)
    views: Mapping[Name, View] | None = needed(Need.VIEWS, None)

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
        objective = Objective(model, channels, tensors, rounded, formats, clips)
        first = objective.start(np.ones(channels.size))
        before = objective(first)[0]
        found = None if self.views is None else [_scales(model, channels, self.views)]
        x, after, steps = _least(objective, found or _starts(model, channels), self.iterations)
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
        if any(n in model.graph.inputs or n not in model.moments for n in names)
        or not any(leads_to_layer(model.graph, n) for n in names)
    )


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


def _scales(model: Model, channels: Channels, views: Mapping[Name, View]) -> Array:
    """The scales that make the views of a network's tensors what they are elsewhere."""
    scales, none = np.ones(channels.size), View(np.ones(()), np.zeros(()))
    for name in channels.ids.keys() & views.keys():
        scale = views[name].scale / model.views.get(name, none).scale
        ids, scale = np.broadcast_arrays(channels.ids[name], scale)
        scales[ids] = scale
    return scales


@dataclass(frozen=True)
class _Point:
    """Variables, the shifts chosen beside them, the noise that both predict, and the descent that led there."""

    noise: float
    x: Array
    shifts: Array
    descent: Descent | None = None


def _least(objective: Objective, starts: list[Array], iterations: int) -> tuple[Array, Noise, int]:
    """The best variables found, the noise of the best, and the steps taken."""
    free, steps = objective.free.size, 0

    def within(x: Array) -> Array:  # bounds of the descent itself would make it twice as slow
        held = GRID * np.rint(x / GRID)
        held[objective.settled] = x[objective.settled]
        return np.concatenate([np.clip(held[:free], -LIMIT, LIMIT), held[free:]])

    def logarithm(x: Array) -> tuple[float, Array]:
        held = within(x)
        noise, gradient = objective(held)
        total = max(noise.total, 1e-100)
        slopes = np.where(np.abs(x[:free]) > LIMIT, 0.0, gradient[:free])
        return FLAT * round(np.log(total) / FLAT), _same(np.concatenate([slopes, gradient[free:]]) / total)

    def settled(x: Array, descent: Descent | None = None, powers: bool = False) -> _Point:
        objective.choose_shifts(x)
        if powers:
            objective.choose_powers(x)
        return _Point(objective(x)[0].total, x, objective.chosen, descent)  # true noise: a descent leaves shifts behind

    def further(now: _Point, count: int, powers: bool = False) -> _Point:
        nonlocal steps
        objective.restore(now.shifts)
        with np.errstate(over="ignore", invalid="ignore"):  # a step may go so far that the noise is infinite
            # other shifts, or powers that stay, make it another function
            descent = now.descent if now.descent and not objective.shifted else Descent(logarithm, now.x)
            steps += descent.run(min(count, iterations))
        return settled(within(descent.x), None if powers else descent, powers)

    def in_rounds(now: _Point, powers: bool = False) -> _Point:
        best = now
        for _ in range(max(iterations // ROUND_STEPS, 1)):
            last, now = now, further(now, ROUND_STEPS, powers)
            best = min(best, now, key=lambda point: point.noise)
            gained = last.noise - now.noise
            if gained < WORTH * last.noise and (gained >= 0 or powers):  # other shifts may make it worse for a while
                break
        return best

    tried = [settled(within(objective.start(s))) for s in starts]
    ways = tried if len(tried) > 1 else []
    while ways:
        ways = sorted((further(point, TRIAL_STEPS) for point in ways), key=lambda point: point.noise)
        tried, ways = [*tried, ways[0]], ways[:-1]
    best = in_rounds(min(tried, key=lambda point: point.noise))
    if objective.power_of_two:
        best = in_rounds(settled(best.x.copy(), powers=True), powers=True)
    objective.restore(best.shifts)
    return best.x, objective(best.x)[0], steps


def _same(values: Array) -> Array:
    """`values` to so many digits of the largest that processors which add in another order agree on them."""
    step = np.ldexp(1.0, int(np.frexp(np.max(np.abs(values), initial=0.0))[1]) - DIGITS)
    return np.asarray(step * np.rint(values / step)) if step > 0 and np.isfinite(step) else values


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
