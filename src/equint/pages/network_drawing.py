"""The network as a graph: its operators as boxes, coloured by integers or floats and by the noise that they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from ..graph.placement import fused, grid_of, keeps_grid, place
from ..ir.model import Graph, Model, Name, Node
from ..ops.layers import layers
from .layout import Edge, Layout, layered

MOST = 700
"""Operators that are drawn; of larger networks layers, joins and branches alone."""
WIDE, HIGH, ROW, LINE = 132, 30, 52, 16
"""Of a box in pixels; from row to row, and what an edge takes that passes a row."""
SHARES = (0.01, 0.02, 0.05, 0.1, 0.2)
"""Shares of the noise where colours change."""


@dataclass(frozen=True)
class Box:
    """One operator, input or output of the drawing.

    Attributes:
        text: what stands in the box; name: the operator's.
        form: "integer", "float", or "" for inputs and outputs.
        share: of all predicted noise at the outputs, 0 to 1.
        layer: number of the layer, from 0; None for others.
    """

    text: str
    name: str
    form: str
    share: float = 0.0
    layer: int | None = None


def drawing(model: Model, types: Sequence[str], shares: Mapping[Name, float]) -> str:
    """A quantized network as SVG.

    Args:
        types: of the layers, in network order.
        shares: of the predicted noise at the outputs, by the tensor where it enters.
    """
    boxes, edges = graph_of(model, types, shares)
    return svg(boxes, edges, layered(len(boxes), edges, WIDE + 18, LINE))


def graph_of(
    model: Model, types: Sequence[str], shares: Mapping[Name, float]
) -> tuple[list[Box], list[tuple[int, int]]]:
    """Boxes in topological order, and edges between their numbers."""
    graph = model.graph
    numbers = {layer.y: k for k, layer in enumerate(layers(graph))}
    merged = {id(node) for name in numbers for node in fused(graph, name)}
    nodes = [node for node in graph.nodes if _drawn(node, graph) and id(node) not in merged]
    if len(nodes) > MOST:
        nodes = [n for n in nodes if n.outputs[0] in numbers or len(_reads(n, graph)) != 1 or _branches(n, graph)]
    kept = {id(node) for node in nodes}
    forms, boxes, edges = _Forms(model), list[Box](), list[Edge]()
    made: dict[Name, tuple[int, ...]] = {}
    for name in graph.inputs:
        made[name] = (len(boxes),)
        boxes.append(Box(name, "network input", "", shares.get(name, 0.0)))
    for node in graph.nodes:
        before = tuple(dict.fromkeys(k for name in node.reads for k in made.get(name, ())))
        if id(node) in kept:
            number = numbers.get(node.outputs[0])
            text = node.op if number is None else f"{number + 1} {types[number]}"
            share = sum(shares.get(name, 0.0) for name in _held(node, graph))
            edges += [(k, len(boxes)) for k in before]
            before = (len(boxes),)
            boxes.append(Box(text, node.label, forms(node), share, number))
        made |= dict.fromkeys(node.outputs, before)
    for name in graph.outputs:
        edges += [(k, len(boxes)) for k in made.get(name, ())]
        boxes.append(Box(name, "network output", ""))
    return boxes, edges


def _held(node: Node, graph: Graph) -> list[Name]:
    """The tensors at which noise enters by a box: its outputs, and those of activations that are part of it."""
    return [*node.outputs, *(o for part in fused(graph, node.outputs[0]) for o in part.outputs)]


def _drawn(node: Node, graph: Graph) -> bool:
    """Whether anything flows through an operator: what computes constants or shapes alone is left out."""
    return any(graph.is_float(o) for o in node.outputs if o)


def _reads(node: Node, graph: Graph) -> list[Name]:
    return [name for name in dict.fromkeys(node.reads) if name not in graph.consts]


def _branches(node: Node, graph: Graph) -> bool:
    return sum(len(graph.users(o)) for o in node.outputs) > 1


class _Forms:
    """Says whether an operator computes on integers: its weights and all that it reads and writes have grids."""

    def __init__(self, model: Model) -> None:
        placed = place(model.graph)
        self._graph = model.graph
        self._weights = {layer.y for layer in layers(model.graph) if layer.weight in model.qparams}
        self._layers = {layer.y for layer in layers(model.graph)}
        self._held = {*model.qparams, *placed.merged, *placed.inner}
        for node in model.graph.nodes:  # what only moves values moves integers
            moves = keeps_grid(model.graph, node)
            if moves and node.inputs[0] in self._held:
                self._held |= {o for o in node.outputs if o}

    def __call__(self, node: Node) -> str:
        graph, out = self._graph, node.outputs[0]
        read = [n for n in _reads(node, graph) if graph.is_float(n)]
        if out in self._layers:
            return "integer" if out in self._weights and all(n in self._held for n in read) else "float"
        grid = grid_of(graph, node)
        works = grid.integer or grid.keeps or grid.ties or out in self._held
        whole = all(n in self._held for n in (*read, *(o for o in node.outputs if graph.is_float(o))))
        return "integer" if works and whole else "float"


def svg(boxes: Sequence[Box], edges: Sequence[Edge], layout: Layout) -> str:
    """Boxes and edges where the layout puts them."""
    width, height = layout.width + 16, layout.rows * ROW + 8
    lines = "".join(_path(route) for route in layout.routes)
    shapes = "".join(_box(box, *place) for box, place in zip(boxes, layout.places, strict=True))
    label = f"The network as a graph of {len(boxes)} boxes and {len(edges)} edges; arrow keys move between layers"
    size = f'viewBox="0 0 {width:.0f} {height}" width="{width:.0f}" height="{height}"'
    return f'<svg role="group" aria-label="{label}" {size}><path class="edge" d="{lines}"/>{shapes}</svg>'


def _path(route: Sequence[tuple[float, int]]) -> str:
    """An edge from the bottom of a box to the top of another, in smooth curves from row to row."""
    points = [(8 + x, row * ROW + 4) for x, row in route]
    (x, y), parts = points[0], []
    at = y + HIGH
    parts.append(f"M{x:.0f} {at}")
    for k, (to, top) in enumerate(points[1:], 1):
        bend = (at + top) / 2
        parts.append(f"V{top}" if round(to) == round(x) else f"C{x:.0f} {bend:g} {to:.0f} {bend:g} {to:.0f} {top}")
        x, at = to, top
        if k < len(points) - 1:
            at = top + HIGH
            parts.append(f"V{at}")
    return "".join(parts)


def share_band(share: float) -> int:
    """Which colour a share of the noise has: 0 below the first of `SHARES`.

    Example:
        >>> share_band(0.0), share_band(0.05), share_band(0.9)
        (0, 3, 5)
    """
    return sum(share >= edge for edge in SHARES)


def share_labels() -> list[str]:
    """What the colours of shares mean."""
    whole = [f"{100 * edge:g}" for edge in SHARES]
    between = [f"{a} to {b} %" for a, b in pairwise(whole)]
    return [f"below {whole[0]} %", *between, f"{whole[-1]} % and more"]


def _box(box: Box, x: float, row: int) -> str:
    left, top = 8 + x - WIDE / 2, row * ROW + 4
    kind = f"box {box.form or 'end'} s{share_band(box.share)}"
    said = ", ".join(p for p in (box.text, box.name, box.form, f"{100 * box.share:.1f} % of the noise") if p)
    chosen = f'role="button" tabindex="-1" aria-pressed="false" data-layer="{box.layer}"'
    button = "" if box.layer is None else f' {chosen} aria-label="{escape(said)}"'
    text = box.text if len(box.text) < 20 else f"{box.text[:18]}…"
    return (
        f'<g class="{kind}"{button}><title>{escape(said)}</title>'
        f'<rect x="{left:.0f}" y="{top}" width="{WIDE}" height="{HIGH}" rx="{5 if box.form else 15}"/>'
        f'<text class="mid" x="{8 + x:.0f}" y="{top + 19}">{escape(text)}</text></g>'
    )
