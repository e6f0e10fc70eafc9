"""Whether a network can be written at all, found out before work is spent on it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..graph.placement import valued
from ..hardware.target import Target
from ..ir.model import Model, Range
from ..litert.programs import program_of
from ..litert.writer import write
from ..passes.quantize import Quantize


def rehearse(model: Model, target: Target) -> None:
    """Quantize with made-up ranges, lower and write; what comes of it is thrown away.

    Args:
        model: as a recipe rewrites it before anything is measured.

    Raises:
        EquintError: what writing the network would raise; it names the node.

    Example:
        >>> from ..hardware.target import target
        >>> from ..ir.model import Node
        >>> from ..ops.layers import tiny_graph
        >>> graph, quotient = tiny_graph(), Node("Div", ("y", "y"), ("z",))
        >>> shapes = {**graph.shapes, "z": graph.shapes["y"]}
        >>> graph = replace(graph, integers_only=True, outputs=("z",), shapes=shapes)
        >>> graph = graph.with_nodes((*graph.nodes, quotient))
        >>> rehearse(Model(graph), target("ethos-u"))
        Traceback (most recent call last):
        ...
        equint.errors.UnsupportedOperator: z: LiteRT divides no int8 values by one another; replace the Div
    """
    ranges = {name: Range(np.asarray(-1.0), np.asarray(1.0)) for name in valued(model.graph)}
    grids = Quantize(weight=target.weight, activation=target.activation)
    write(
        program_of(grids(replace(model, ranges=ranges)), target),
        None,
        None,
        target.litert_operators,
        target.litert_compiler,
    )
