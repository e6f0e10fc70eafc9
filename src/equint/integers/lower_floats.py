"""What stays float in programs for hardware that has floats beside integers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from ..errors import UnsupportedOperator
from ..graph import clamps
from ..graph.placement import float_joins, kept_float
from ..ir.model import Name, Node
from ..ops.activations import is_clamp
from ..ops.moves import MOVES
from .builder import Lowering
from .lower_moves import only_chooses
from .program import Step

Build = Callable[[Lowering, Node], None]


@dataclass(frozen=True)
class Kept:
    """Which nodes stay float whatever their integer form: by label, and those that join what is apart."""

    labels: Collection[str]
    joins: Collection[Name]

    @classmethod
    def of(cls, work: Lowering, labels: Collection[str]) -> Kept:
        by_target = {node.label for node, _ in kept_float(work.graph)}
        return cls({*labels, *by_target}, float_joins(work.graph, work.model.apart))


def emit(work: Lowering, node: Node, build: Build, kept: Kept) -> None:
    """A node's integer form; in float where it has none, or reads what is float alone.

    Raises:
        EquintError: it cannot be computed in float either.
    """
    merged = is_clamp(work.graph, node) and node.inputs[0] in work.merged
    if merged and node.inputs[0] not in work.raw:
        return  # its layer does it
    if merged or _is_float(work, node, kept):
        floated(work, _with_activations(work, node))
        return
    moved = only_chooses(work, node) or (node.op in MOVES and any(i in work.raw for i in node.reads))
    if moved:  # both: what nobody reads is left out
        floated(work, [node], rounds=False)
    why = _built(work, node, build)
    if why:
        work.without_form[node.label] = why
        if not moved:
            floated(work, _with_activations(work, node))


def _built(work: Lowering, node: Node, build: Build) -> str:
    """Why a node has no integer form; else its steps are added."""
    steps, tables = len(work.steps), [dict(t) for t in _tables(work)]
    try:
        build(work, node)
    except UnsupportedOperator as error:
        del work.steps[steps:]
        for table, before in zip(_tables(work), tables, strict=True):
            table.clear()
            table.update(before)
        return str(error)
    return ""


def _tables(work: Lowering) -> tuple[dict[Name, object], ...]:
    return (work.grids, work.consts, work.shapes, work.weight_scales)  # type: ignore[return-value]


def _is_float(work: Lowering, node: Node, kept: Kept) -> bool:
    """Whether it is named, or reads what exists as floats alone."""
    if node.label in kept.labels:
        return True
    if any(o in kept.joins for o in node.outputs):
        return True
    return any(i in work.raw and (i not in work.grids or work.raw[i] == i) for i in node.reads)


def _with_activations(work: Lowering, node: Node) -> list[Node]:
    """A node with what belongs to it: the pieces of a function in front of it, the activations merged behind it."""
    graph, inner, nodes = work.graph, work.placement.inner, [node]
    for piece in nodes:
        waiting = (graph.producer[i] for i in piece.reads if i in inner)
        nodes += [n for n in waiting if n not in nodes]
    order = {id(n): k for k, n in enumerate(graph.nodes)}
    nodes.sort(key=lambda n: order[id(n)])
    out = node.outputs[0] if node.outputs else ""
    name = clamps.end(graph, work.merged, out) if out not in work.applied else out
    return nodes + (clamps.chain(graph, work.merged, graph.producer[name]) if name != out else [])


def floated(work: Lowering, nodes: Sequence[Node], rounds: bool = True) -> None:
    """A step that computes nodes in float; behind it, where it `rounds`, integers of what has a grid.

    Raises:
        EquintError: subgraphs, or something of which no tensor exists.
    """
    graph, last = work.graph, nodes[-1]
    if any(node.captured for node in nodes):
        raise UnsupportedOperator(f"{last.label}: its branches have no place in a program; export without control flow")
    made = {o for node in nodes for o in node.outputs if o}
    reads = dict.fromkeys(i for node in nodes for i in node.reads if i not in made and i not in graph.consts)
    outputs = [o for node in nodes for o in node.outputs if o and _leaves(work, o, nodes)]
    consts = {i: graph.consts[i] for node in nodes for i in node.reads if i in graph.consts}
    part = replace(graph, consts=consts, inputs=tuple(reads), outputs=tuple(outputs)).with_nodes(nodes)
    inputs = tuple(_value(work, name, last.label) for name in reads)
    results = {o: _result(work, o) if rounds else work.fresh(f"{o}_real") for o in outputs}
    work.steps.append(Step("Float", last.label, inputs, tuple(results.values()), {"graph": part}))
    for o, raw in results.items():
        work.raw[o] = raw
        work.types[raw] = graph.dtypes.get(o, "float32")
        shape = graph.shapes.get(o) or work.shapes.get(o)
        if shape is not None:
            work.shapes[raw] = shape
        if raw != o and rounds:
            work.steps.append(Step("Quantize", last.label, (raw,), (o,)))


def _leaves(work: Lowering, name: Name, nodes: Sequence[Node]) -> bool:
    users = work.graph.users(name)
    return name in work.graph.outputs or not users or any(user not in nodes for user in users)


def _value(work: Lowering, name: Name, label: str) -> Name:
    """The tensor of the program that holds one of the graph."""
    if name in work.raw:
        return work.raw[name]
    if name in work.grids and name not in work.placement.inner:
        return name
    if not work.graph.is_float(name):  # sizes
        return name
    raise UnsupportedOperator(f"{label}: reads {name}, which exists neither as integers nor as floats")


def _result(work: Lowering, name: Name) -> Name:
    """What holds an output as floats: itself, where it has no grid."""
    grid = work.grids.get(name)
    if grid is None or not work.graph.is_float(name):
        work.grids.pop(name, None)
        return name
    return work.fresh(f"{name}_real")


def without_unread(steps: Sequence[Step], outputs: Collection[Name]) -> list[Step]:
    """Steps less those of which nothing is made.

    Example:
        >>> steps = [Step("Float", "f", ("x",), ("r",)), Step("Quantize", "f", ("r",), ("q",))]
        >>> [step.op for step in without_unread(steps, ["r"])]
        ['Float']
    """
    wanted, left = set(outputs), list[Step]()
    for step in reversed(steps):
        if any(o in wanted for o in step.outputs):
            wanted.update(step.inputs)
            left.insert(0, step)
    return left
