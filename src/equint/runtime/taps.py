"""What calibration measures of a network: taps on its tensors, and the reductions that run inside onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..graph.placement import place, valued
from ..graph.ranges import tensor_ranges
from ..graph.results import moves
from ..ir.fields import aligned
from ..ir.model import Array, Graph, Name, Node, Range
from ..onnx.probes import as_float32, flattened, reductions, shape_row
from ..ops.activations import clamps
from ..ops.attributes import axis_order, clip_bounds, element_count
from ..ops.layers import as_layer, layers


@dataclass(frozen=True)
class Tap:
    """One tensor that is measured: channels × positions values an image, positions None where that varies.

    `low`, `high`, `mean`, `square` hold the reductions, `(N, C)`, or are the tensor itself where there is nothing to
    reduce; `low` is None where an activation's lower bound, `floor`, tells.
    """

    name: Name
    axis: int
    rank: int
    channels: int
    positions: int | None
    low: Name | None
    high: Name
    mean: Name
    square: Name | None
    floor: float


def channel_axes(graph: Graph) -> dict[Name, int]:
    """The axis that channels lie along, for every float tensor of known rank above 1.

    A layer's input and output have them where the layer reads and puts them; another tensor where what it is made of,
    or what is made of it, has them; where no layer is near, along axis 1.

    Example:
        >>> from equint.ops.layers import tiny_graph
        >>> channel_axes(tiny_graph())
        {'x': 1, 'y': 1}
    """
    ranks = {n: graph.rank(n) for n in (*graph.inputs, *(o for node in graph.nodes for o in node.outputs if o))}
    every = {n: rank for n, rank in ranks.items() if rank is not None and rank > 1 and graph.is_float(n)}
    axes: dict[Name, int] = {}
    for layer in layers(graph):
        axes |= {n: axis % every[n] for n, axis in ((layer.y, layer.y_axis), (layer.x, layer.x_axis)) if n in every}

    def tell(source: Name, told: Name, order: Sequence[int]) -> None:
        if source in axes and told in every and told not in axes and every[source] == every[told] == len(order):
            axes[told] = order[axes[source]]

    steps = [(node, i, o) for node in graph.nodes for o in node.outputs for i in node.inputs if i in every]
    for forward in (True, False, True):
        for node, i, o in steps if forward else reversed(steps):
            if as_layer(graph, node) is None and o in every:
                there = axis_order(node, every[i])
                if forward:
                    tell(i, o, np.argsort(there).tolist())
                else:
                    tell(o, i, there)
    return {name: axes.get(name, 1) for name in every}


def tapped(graph: Graph) -> tuple[list[Tap], list[Node], dict[Name, Array]]:
    """What is measured, and the operators and constants that do it."""
    clamped, axes, probes = place(graph).clamped, channel_axes(graph), _Probes(graph)
    wanted = [n for n in valued(graph) if n in axes and n not in clamped]
    moved = {n for n in wanted if moves(graph.producer.get(n))}
    for name in wanted:
        if name not in moved:
            probes.measure(name, axes[name])
    for name in _untold(graph, probes.found):
        probes.measure(name, axes.get(name))
    return probes.found, probes.nodes, probes.consts


def _untold(graph: Graph, taps: Sequence[Tap]) -> list[Name]:
    """What becomes integer although no measured tensor tells its range: all of it is measured too."""
    unlike = ((t, aligned(np.arange(t.channels, dtype=np.float64), t.axis, t.rank)) for t in taps)
    known = {t.name: Range(low, low + 1) for t, low in unlike}  # alike, channels would need no axis
    told = tensor_ranges(graph, {}, known, 0.0)
    return [n for tensors in place(graph).classes for n in tensors if n not in told]


class _Probes:
    """Taps, and what makes the values that they read."""

    def __init__(self, graph: Graph) -> None:
        self.graph, self.found, self.nodes, self.consts = graph, list[Tap](), list[Node](), dict[Name, Array]()

    def measure(self, name: Name, axis: int | None) -> None:
        """A tensor per channel; as a whole where its channels are not known, are its rows, or their number is free."""
        graph, shape, stem = self.graph, self.graph.shapes.get(name), self.graph.fresh(f"tap_{len(self.found)}")
        channels = shape[axis] if shape is not None and axis is not None else None
        floor, x = _floor(graph, graph.producer.get(name)), self._as_float32(name, stem)
        rows = axis == 0 and len(shape or ()) == 2  # each would be taken for a sample
        if shape is None or axis is None or rows or not isinstance(channels, int):
            node, row = flattened(x, stem)
            self.nodes.append(node)
            self.consts |= row
            self.tap(name, node.outputs[0], stem, (0, len(shape or ()), 1, None), 3, 1, floor)
        elif len(shape) == 2:
            positions = element_count([n for d, n in enumerate(shape) if d not in (0, axis)])
            self.found.append(Tap(name, axis, 2, channels, positions, x, x, x, None, floor))
        else:
            positions = element_count([n for d, n in enumerate(shape) if d not in (0, axis)])
            self.tap(name, x, stem, (axis, len(shape), channels, positions), len(shape), axis, floor)

    def _as_float32(self, name: Name, stem: Name) -> Name:
        """A tensor as what the reductions have kernels for."""
        if self.graph.dtypes.get(name, "float32") == "float32":
            return name
        self.nodes.append(as_float32(name, stem))
        return self.nodes[-1].outputs[0]

    def tap(
        self,
        name: Name,
        read: Name,
        stem: Name,
        described: tuple[int, int, int, int | None],
        rank: int,
        axis: int,
        floor: float,
    ) -> None:
        probe = reductions(self.graph, read, rank, axis, stem, with_low=bool(np.isinf(floor)))
        self.nodes += probe.nodes
        self.consts |= probe.consts
        tap = Tap(name, *described, probe.low, probe.high, probe.mean, probe.square, floor)
        self.found.append(tap)
        if tap.positions is None:
            made, row = shape_row(read, rank, tap.high)
            self.nodes += made
            self.consts |= row


def _floor(graph: Graph, node: Node | None) -> float:
    """What a ReLU or clip lets through at least; −∞ of other operators."""
    if node is None or not clamps(node):
        return -np.inf
    low, _ = clip_bounds(graph, node)
    return float(low) if low is not None and low.size == 1 else -np.inf


def measuring(graph: Graph, taps: list[Tap], nodes: list[Node], consts: dict[Name, Array], raw: bool) -> Graph:
    """The graph with the reductions as its only outputs, and the tensors themselves where they are wanted `raw`."""
    wanted = [n for t in taps for n in (t.low, t.high, t.mean, t.square, t.name if raw else None) if n is not None]
    sizes = [f"{t.high}_shape" for t in taps if t.positions is None]
    return replace(
        graph,
        nodes=(*graph.nodes, *nodes),
        consts={**graph.consts, **consts},
        outputs=tuple(o for o in dict.fromkeys((*wanted, *sizes)) if o not in graph.inputs),
        dtypes={**graph.dtypes, **dict.fromkeys(sizes, "int64")},
    )
