"""What is joined in float behind a program: results whose parts have grids of their own."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

import numpy as np

from ..errors import UnusableData, reason
from ..graph.placement import float_joins
from ..ir.model import Array, Graph, Name, Node
from ..onnx.writer import to_proto


def joins_of(graph: Graph, apart: Collection[Name]) -> Graph | None:
    """The float part at a network's end that joins what is `apart`; None where there is none.

    Its inputs are what a program puts out in place of the joined results, and the network's inputs where it reads
    their shapes; its outputs are all results of the network, those that need no joining among its inputs.

    Example:
        >>> join = Node("Concat", ("a", "b"), ("y",), {"axis": 1})
        >>> part = joins_of(Graph((join,), {}, ("a", "b"), ("y",)), {"y"})
        >>> part.inputs, part.outputs
        (('a', 'b'), ('y',))
    """
    floats = float_joins(graph, apart)
    if not floats & frozenset(graph.outputs):
        return None
    wanted, nodes = set(floats & frozenset(graph.outputs)), list[Node]()
    for node in reversed(graph.nodes):
        if any(o in wanted and (o in floats or not graph.is_float(o)) for o in node.outputs):
            nodes.insert(0, node)
            wanted.update(node.reads)
    made = {o for node in nodes for o in node.outputs}
    given = [*graph.inputs, *(o for node in graph.nodes for o in node.outputs)]
    read = wanted | set(graph.outputs)
    inputs = tuple(n for n in given if n in read and n not in made)
    return replace(graph, inputs=inputs).with_nodes(nodes)


def needed(graph: Graph, outputs: Collection[Name]) -> frozenset[Name]:
    """Names of all values that outputs are made of."""
    found = set(outputs)
    for node in reversed(graph.nodes):
        if any(o in found for o in node.outputs):
            found.update(node.reads)
    return frozenset(found)


def joiner(part: Graph) -> Callable[[Mapping[Name, Array]], dict[Name, Array]]:
    """What makes a network's results, in their order, from real values of a program's inputs and outputs."""
    import onnxruntime as ort

    made = [o for o in part.outputs if o in part.producer]
    read = {i for node in part.nodes for i in node.reads}
    proto = to_proto(replace(part, inputs=tuple(i for i in part.inputs if i in read), outputs=tuple(made)))
    options = ort.SessionOptions()
    options.log_severity_level = 4  # what fails is raised
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [i.name for i in session.get_inputs()]

    def join(real: Mapping[Name, Array]) -> dict[Name, Array]:
        try:
            values = session.run(made, {n: np.asarray(real[n], np.float32) for n in names})
        except Exception as error:
            raise UnusableData(f"{part.name}: does not run on this input ({reason(error)})") from error
        found = {**real, **dict(zip(made, values, strict=True))}
        return {o: found[o] for o in part.outputs}

    return join
