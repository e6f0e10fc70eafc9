"""Joins whose inputs reach too differently far to share one grid, and what a grid leaves of its channels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from ..ir.events import Event, EventKind
from ..ir.model import Array, Graph, Model, Name, Node, Range
from ..maths.ranges import better_apart, extent, lost
from ..ops.layers import layers
from ..ops.moves import JOINS, MOVES, PICKS
from .placement import grid_of, leaving, stored_as

CONSTANT = 0.01
"""Channels whose spread is less than this share of a step are as good as constant: no grid loses anything there."""


def joins_apart(graph: Graph, ranges: Mapping[Name, Range]) -> frozenset[Name]:
    """Outputs of the joins that shall not tie the grids of what they join.

    Where nothing but outputs is made of a join, or parts are picked of it, its inputs keep grids of their own if one of
    them would be rounded much coarser on the grid of all; elsewhere if that makes less noise where its inputs are read.
    Never where hardware asks for one grid (`Graph.tied`).

    Example:
        >>> join = Node("Concat", ("boxes", "scores"), ("y",), {"axis": 1})
        >>> reach = {"boxes": Range(np.zeros(1), np.full(1, 640.0)), "scores": Range(np.zeros(1), np.ones(1))}
        >>> sorted(joins_apart(Graph((join,), {}, ("boxes", "scores"), ("y",)), reach))
        ['y']
    """
    leaves, found = leaving(graph, picks=not graph.integers_only), set[Name]()
    for node in graph.nodes:
        if not grid_of(graph, node).ties or node.op in graph.tied:
            continue
        sources = list(dict.fromkeys(_sources(graph, node)))
        known = {n: ranges[n] for n in sources if n in ranges}
        if not known:
            continue
        whole = extent(
            min(float(np.min(r.lo)) for r in known.values()), max(float(np.max(r.hi)) for r in known.values())
        )
        own = {n: extent(float(np.min(r.lo)), float(np.max(r.hi))) for n, r in known.items()}
        if node.outputs[0] in leaves:
            apart = any(lost(e, whole) for e in own.values())
        else:
            apart = any(better_apart(own[n], whole, _readers(graph, n, node)) for n in known if n in node.inputs)
        if apart:
            found.add(node.outputs[0])
    return frozenset(found)


def _sources(graph: Graph, node: Node) -> Iterator[Name]:
    """What a join joins, other joins' inputs in their place where only moves stand between."""
    waiting, seen = list(node.inputs[::-1]), set[Name]()
    while waiting:
        name = waiting.pop()
        if name in graph.consts or name in seen:
            continue
        seen.add(name)
        maker = graph.producer.get(name)
        while maker is not None and not maker.domain and maker.op in MOVES:
            maker = graph.producer.get(maker.inputs[0])
        if maker is not None and not maker.domain and maker.op in JOINS:
            waiting += maker.inputs[::-1]
        else:
            yield name


def _readers(graph: Graph, name: Name, join: Node) -> int:
    """How many others read a tensor, or what it was moved from."""
    count, reader = 0, join
    while True:
        count += sum(user is not reader for user in graph.users(name))
        maker = graph.producer.get(name)
        if maker is None or not grid_of(graph, maker).keeps or grid_of(graph, maker).ties:
            return count
        name, reader = maker.inputs[0], maker


def faint(model: Model) -> Iterator[Event]:
    """A warning for each tensor, part, or channels of results and layers, whose spread is less than a step.

    Of results every channel counts; of layers within a network more than half.
    """
    graph, qparams, results = model.graph, model.qparams, leaving(model.graph)
    stored = {stored_as(graph, layer.y) for layer in layers(graph)}
    for name in (n for n in qparams if n not in graph.consts):
        yield from _faint(model, name, name, 0.0 if name in results else 0.5 if name in stored else None)
    for node in (n for n in graph.nodes if grid_of(graph, n).ties and n.outputs[0] in qparams):
        for name in node.inputs:
            if qparams.get(name) is not qparams[node.outputs[0]] and name not in graph.consts:
                yield from _faint(model, name, node.outputs[0], 0.0 if name in results else None)
    for node in (n for n in graph.nodes if not n.domain and n.op in PICKS):
        held = _held(model, node.inputs[0])
        if held is not None:
            for name in (o for o in node.outputs if o):
                yield from _faint_part(model, name, held)


def _faint_part(model: Model, name: Name, held: Name) -> Iterator[Event]:
    """A warning for a picked part, half of its channels are enough where it reaches less far than the whole."""
    spread, grid = _spread(model, name), model.qparams[held]
    if spread is not None and name not in model.qparams:
        yield from _faint(model, name, held, 0.5 if lost(spread[1], grid.hi - grid.lo) else None)


def _held(model: Model, name: Name) -> Name | None:
    """The tensor with a grid that a tensor is moved from; None where something computes on the way."""
    while name not in model.qparams:
        maker = model.graph.producer.get(name)
        if maker is None or maker.domain or maker.op not in MOVES:
            return None
        name = maker.inputs[0]
    return None if name in model.graph.consts else name


def _faint(model: Model, name: Name, held: Name, share: float | None) -> Iterator[Event]:
    """A warning for a tensor on the grid of the one that holds it; for single channels where more than `share` are so.

    Channels that are as good as constant do not count.
    """
    spread, step = _spread(model, name), float(np.max(model.qparams[held].steps))
    if spread is None:
        return
    each, whole = spread
    few = each[(each > CONSTANT * step) & (each < step)]
    facts: dict[str, object] = {"step": step, "spread": whole, **({} if held == name else {"in": held})}
    if CONSTANT * step < whole < step:
        yield Event(EventKind.SPREAD_BELOW_STEP, name, facts, "quantize", warning=True)
    elif share is not None and few.size > share * each.size:
        facts |= {"channels": few.size, "of": each.size, "spread": float(few.min())}
        yield Event(EventKind.SPREAD_BELOW_STEP, name, facts, "quantize", warning=True)


def _spread(model: Model, name: Name) -> tuple[Array, float] | None:
    """How far the values of each channel, and of all together, lie apart."""
    known, m = model.ranges.get(name), model.moments.get(name)
    if known is not None and np.ndim(known.lo) > 0:
        return np.asarray(known.hi - known.lo), float(np.max(known.hi) - np.min(known.lo))
    if m is None:
        return None
    low, high = m.mean - 3 * m.std, m.mean + 3 * m.std
    return np.asarray(high - low), float(np.max(high) - np.min(low))
