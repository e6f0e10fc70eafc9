"""Programs as .tflite files hold them: in float between integers where LiteRT has no operator of those."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..errors import UnsupportedOperator
from ..hardware.target import Target
from ..integers.lower import lower
from ..integers.program import Program, Step
from ..ir.events import Event, EventKind
from ..ir.model import Graph, Model, Node
from ..ops.work import multiplications
from .writer import Writer


def program_of(model: Model, target: Target) -> Program:
    """The integer program of a quantized model, as `lower` makes it; LiteRT's with what its files hold.

    Raises:
        EquintError: as `lower`.

    Example:
        >>> import numpy as np
        >>> from dataclasses import replace
        >>> from ..hardware.target import target
        >>> from ..ir.model import Node, QParams
        >>> from ..ops.layers import tiny_graph
        >>> graph, quotient = tiny_graph(), Node("Div", ("y", "y"), ("z",))
        >>> graph = replace(graph, outputs=("z",), shapes={**graph.shapes, "z": graph.shapes["y"]})
        >>> grids = {n: QParams(np.float32(0.5), np.int32(0), narrow=n == "w") for n in "xwyz"}
        >>> model = Model(graph.with_nodes((*graph.nodes, quotient)), qparams=grids)
        >>> [step.op for step in program_of(model, target("tflite-int8")).steps]
        ['Conv', 'Float', 'Quantize']
    """
    floats = set[str]()
    while True:
        program = lower(model, target, floats)
        lacking = refused(program) if target.mixes and _is_sized(program) else {}
        if not lacking.keys() - floats:
            return program
        floats |= lacking.keys()


def _is_sized(program: Program) -> bool:
    """Whether all sizes but the batch are known, without which no file is written."""
    made = (*program.inputs, *(o for step in program.steps for o in step.outputs))
    shapes = [program.shapes.get(name) for name in made if name in program.grids]
    return all(shape is not None and all(isinstance(n, int) for n in shape[1:]) for shape in shapes)


def float_events(program: Program, graph: Graph) -> Iterator[Event]:
    """A warning for each kind of operator that a program computes in float, and its share of the network's work."""
    kinds, every = dict[str, list[Node]](), max(sum(multiplications(graph, node) for node in graph.nodes), 1)
    for step in program.steps:
        for node in step.attrs["graph"].nodes if step.op == "Float" else ():
            kinds.setdefault(node.op, []).append(node)
    for op, nodes in kinds.items():
        share = round(sum(multiplications(graph, node) for node in nodes) / every, 4)
        facts = {"op": op, "nodes": len(nodes), "of": len(graph.nodes), "share of multiply-accumulates": share}
        yield Event(EventKind.FLOAT_BETWEEN, nodes[0].label, facts, "litert", warning=True)


def refused(program: Program) -> Mapping[str, str]:
    """By their labels, the nodes whose integers LiteRT has no operator for, and why."""
    from .ends import entered
    from .operators import FORMS

    writer, found = Writer(program), dict[str, str]()
    for name in program.inputs:
        entered(writer, name, None)
    for step in program.steps:
        try:
            if step.op not in FORMS:
                raise writer.refuse(step, f"LiteRT has no operator for {step.op} of integers")
            FORMS[step.op](writer, step)
        except UnsupportedOperator as error:
            if step.op != "Float":  # which nothing can write
                found[step.name] = str(error)
            _pretend(writer, step)
    return found


def _pretend(writer: Writer, step: Step) -> None:
    """What a step would make, so that others can be looked at."""
    for name in step.outputs:
        order = tuple(range(len(writer.program.shapes.get(name, ()))))
        place = (0, order)
        known = writer.places if name in writer.program.grids else writer.reals
        if not known.get(name):
            known[name] = [place]
