"""One run on one sample: the shape of every tensor, and whether the network takes several samples at once.

Shape inference does not know what a network computes of sizes; a run does. One more with two samples, and one for each
axis that inputs leave free, with twice its size, tell which sizes are free inside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..errors import EquintError
from ..ir.model import Array, Dim, Graph, Name, Shape
from ..onnx.probes import sizes_of
from ..onnx.writer import to_proto
from ..ops.attributes import UNCOUNTED, makes_tensors
from ..samples.generated import LENGTHS, USUAL, tried_sizes
from ..samples.images import Feed, FirstRun, Run, Samples
from ..samples.presented import as_runs, entries, fixed_batch
from .session import Session, in_rows

EXACT = 64
"""The longest window is found to such a part of it."""

Sizes = Mapping[Name, tuple[int, ...]]

ROWS = (2, 3, 4, 5, 6, 8, 10, 12, 16)
"""Rows that are tried in turn where a network's batch is free, and yet it does not run on one."""


def first_run(graph: Graph, feed: Feed) -> FirstRun:
    """Run a network on one sample.

    Args:
        feed: samples as `equint.samples.presented.presented` gives them; the first is shown.

    Raises:
        EquintError: it does not run on that.

    Example:
        >>> from ..ir.model import Node
        >>> node = Node("Reshape", ("x", "shape"), ("y",))
        >>> graph = Graph((node,), {"shape": np.array([-1, 6])}, ("x",), ("y",), {"x": ("N", 2, 3)})
        >>> found = first_run(graph, np.zeros((1, 2, 3), np.float32))
        >>> found.shapes["y"], found.batch
        (('N', 6), None)
    """
    named = dict(feed) if isinstance(feed, Mapping) else {graph.inputs[0]: feed}
    fixed = fixed_batch(graph)
    one = named if isinstance(feed, Run) else {n: v[: fixed or 1] for n, v in named.items()}
    probe, batch, settled, single = _Probe(graph), fixed, True, False
    sizes, alone = probe.ran(one)
    runs = [sizes]
    if fixed is None and not isinstance(feed, Run):
        several = {n: np.concatenate([v, _other(v)]) for n, v in one.items()}
        try:
            sizes, both = probe.ran(several)
        except EquintError:
            batch, single = 1, True
        else:
            runs.append(sizes)
            batch = None if all(in_rows(both[o], alone[o], 2) for o in graph.outputs) else 1
    for places in _free(graph, 0 if isinstance(feed, Run) else 1):
        larger = dict(one)
        for name, axis in places:
            larger[name] = np.repeat(larger[name], 2, axis)
        try:
            runs.append(probe.ran(larger)[0])
        except EquintError:  # it takes no other size there, whatever its input says, or not this one
            settled = False
    shapes = _told(graph, runs)
    if single:  # whatever the input says, it holds one sample
        shapes |= {name: (1, *shape[1:]) for name in graph.inputs if (shape := graph.shapes.get(name))}
    return FirstRun(shapes, batch, settled)


def fitting(graph: Graph, make: Callable[[int], Samples | None]) -> Samples | None:
    """Made-up samples of a size that a network runs on, as many at once as it takes; None where there are none.

    Args:
        make: makes them, for a height and width where these are free.

    Example:
        >>> from ..ops.layers import tiny_graph
        >>> found = fitting(tiny_graph(), lambda size: Samples.of(np.ones((2, 4, 4, 4), np.float32)))
        >>> len(next(iter(found)))
        2
    """

    def ran(size: int) -> Samples | None:
        images = make(size)
        try:
            return images and Samples(images.__iter__, images.label, first_run(graph, next(iter(images))).batch)
        except EquintError:  # nothing that the network reads
            return None

    too_long = 0
    for size in (sizes := tried_sizes(graph)):
        found = ran(size)
        if found is not None:
            return _longest(ran, size, too_long, found) if sizes == LENGTHS and too_long else found
        too_long = size
    images = make(USUAL)
    rows = None if images is None else rows_of_a_sample(graph, next(iter(images)))
    return None if images is None or rows is None else as_runs(images, graph, rows)


def _longest(ran: Callable[[int], Samples | None], size: int, too_long: int, found: Samples) -> Samples:
    """The longest waveforms that a network runs on which takes no longer ones: those fill its window.

    Args:
        size: what it takes, `found` with that; too_long: what it does not take.
    """
    while too_long - size > size // EXACT:
        between = (size + too_long) // 2
        longer = ran(between)
        size, too_long, found = (size, between, found) if longer is None else (between, too_long, longer)
    return found


def _other(value: Array) -> Array:
    """Another sample of the same kind."""
    return np.ascontiguousarray(value[..., ::-1]) if value.ndim > 1 else value


def _free(graph: Graph, first: int) -> list[list[tuple[Name, int]]]:
    """Axes of inputs, from the `first` on, whose size is free; those of one symbol belong together."""
    groups = dict[object, list[tuple[Name, int]]]()
    for name in graph.inputs:
        for axis, size in enumerate(graph.shapes.get(name, ())):
            if axis >= first and not isinstance(size, int):
                groups.setdefault(size or (name, axis), []).append((name, axis))
    return list(groups.values())


class _Probe:
    """The network with the shapes of its tensors as further outputs."""

    def __init__(self, graph: Graph) -> None:
        told = {i for node in graph.nodes for i in (*node.outputs, *graph.inputs) if i}
        hidden = {o for node in graph.nodes if not makes_tensors(node) for o in node.outputs}
        self.tensors = sorted(told - hidden)
        self.rows = {name: graph.fresh(f"sizes_of_tensor_{k}") for k, name in enumerate(self.tensors)}
        nodes = [sizes_of(name, row) for name, row in self.rows.items()]
        shapes = {n: s for n, s in graph.shapes.items() if n in graph.inputs or n in graph.outputs}
        extended = replace(
            graph,
            nodes=(*graph.nodes, *nodes),
            outputs=(*graph.outputs, *self.rows.values()),
            shapes={**shapes, **dict.fromkeys(self.rows.values(), (None,))},
            dtypes={**graph.dtypes, **dict.fromkeys(self.rows.values(), "int64")},
        )
        self.outputs = graph.outputs
        self.session = Session(to_proto(extended), lean=True)

    def ran(self, feeds: Mapping[Name, Array]) -> tuple[Sizes, dict[Name, Array]]:
        """The sizes of all tensors, and the network's outputs."""
        found = self.session.run(Run(feeds))
        sizes = {name: tuple(int(n) for n in found[row]) for name, row in self.rows.items()}
        return sizes, {name: found[name] for name in self.outputs}


def _told(graph: Graph, runs: Sequence[Sizes]) -> dict[Name, Shape]:
    """What inference knows, completed by what was seen; sizes that differ between runs stay free."""
    counted, symbol = _counted(graph), next((s for s in _fronts(graph) if isinstance(s, str)), None)
    shapes = dict[Name, Shape]()
    for name in runs[0]:
        known, seen = graph.shapes.get(name), [run[name] for run in runs]
        if name in graph.inputs or len({len(s) for s in seen}) > 1:
            continue
        if known is not None and len(known) != len(seen[0]):
            known = None
        before: Shape = known if known is not None else (None,) * len(seen[0])
        if name in counted:
            shapes[name] = before
            continue
        sizes = zip(before, zip(*seen, strict=True), strict=True)
        shapes[name] = tuple(_size(dim, each, symbol) for dim, each in sizes)
    return shapes


def _size(known: Dim, seen: Sequence[int], symbol: str | None) -> Dim:
    if len(set(seen)) == 1:
        return seen[0]
    if isinstance(known, int):  # what a file says of its outputs may be wrong
        known = None
    batch = tuple(seen[:2]) == (1, 2) and set(seen[2:]) <= {1}
    return known if known is not None else symbol if batch else None


def _fronts(graph: Graph) -> list[Dim]:
    return [shape[0] for name in graph.inputs if (shape := graph.shapes.get(name))]


def _counted(graph: Graph) -> set[Name]:
    """Tensors whose sizes may hang on values."""
    found = set[Name]()
    for node in graph.nodes:
        if node.op in UNCOUNTED or not found.isdisjoint(node.reads):
            found.update(node.outputs)
    return found


def rows_of_a_sample(graph: Graph, feed: Feed) -> int | None:
    """How many rows a network wants that folds something else into its batch, as frames of a clip; None: none of ROWS.

    Example:
        >>> from ..ir.model import Node
        >>> node = Node("Reshape", ("x", "shape"), ("y",))
        >>> graph = Graph((node,), {"shape": np.array([-1, 4, 3])}, ("x",), ("y",), {"x": ("NT", 3)})
        >>> rows_of_a_sample(graph, np.zeros((1, 3), np.float32))
        4
    """
    if isinstance(feed, Run) or fixed_batch(graph) is not None or set(entries(graph).values()) != {1}:
        return None
    named = dict(feed) if isinstance(feed, Mapping) else {graph.inputs[0]: feed}
    try:
        session = Session(to_proto(graph), lean=True)
    except EquintError:
        return None
    for rows in ROWS:
        try:
            session.run(Run({n: v[np.arange(rows) % len(v)] for n, v in named.items()}))
        except EquintError:
            continue
        return rows
    return None
