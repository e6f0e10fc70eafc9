"""A network and what measures it in two sessions, where onnxruntime does not load them as one."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from ..errors import UnreadableModel
from ..ir.model import Array, Graph, Name
from ..onnx.writer import to_proto
from ..samples.images import Feed, Run
from .session import Session


class Measuring:
    """A network that runs together with operators that measure its tensors.

    onnxruntime infers the ranks of tensors when it loads a network. Where that goes wrong it may still run the network,
    but refuses operators that count axes: these then run behind it, on tensors of the ranks that the graph knows.

    Args:
        graph: the network with the measuring operators, its outputs being what they make, or tensors of the network's.
        measures: what the measuring operators put out.

    Raises:
        EquintError: onnxruntime refuses the network itself.

    Example:
        >>> import numpy as np
        >>> from ..ops.layers import tiny_graph
        >>> from ..ir.model import Node
        >>> graph = tiny_graph()
        >>> graph = replace(graph, nodes=(*graph.nodes, Node("GlobalMaxPool", ("y",), ("top",))), outputs=("top",))
        >>> float(Measuring(graph, {"top"}).run(np.ones((1, 4, 4, 4), np.float32))["top"][0, 0, 0, 0])
        9.0
    """

    def __init__(self, graph: Graph, measures: Collection[Name]) -> None:
        self.behind: Session | None = None
        try:
            self.network = Session(to_proto(graph), optimized=True, lean=True, together=True)
        except UnreadableModel:
            alone, behind = _parted(graph, measures)
            self.network = Session(to_proto(alone), optimized=True, lean=True, together=True)
            self.behind = Session(to_proto(behind), lean=True, together=True)
        self.shapes = self.network.shapes

    def run(self, feed: Feed) -> dict[Name, Array]:
        """All outputs for one batch. Raises EquintError as `Session.run`."""
        found = self.network.run(feed)
        if self.behind is None:
            return found
        given = {**(feed if isinstance(feed, Mapping) else {self.network.inputs[0]: feed}), **found}
        return {**found, **self.behind.run(Run({n: given[n] for n in self.behind.inputs}))}


def _parted(graph: Graph, measures: Collection[Name]) -> tuple[Graph, Graph]:
    """The network, and the measuring operators alone."""
    nodes = [node for node in graph.nodes if not set(measures).isdisjoint(node.outputs)]
    made = {o for node in nodes for o in node.outputs}
    reads = dict.fromkeys(i for node in nodes for i in node.reads if i not in made and i not in graph.consts)
    wanted = dict.fromkeys((*reads, *(o for o in graph.outputs if o not in made)))
    alone = replace(
        graph.with_nodes(node for node in graph.nodes if set(measures).isdisjoint(node.outputs)),
        outputs=tuple(n for n in wanted if n in graph.producer),
        shapes={n: graph.shapes[n] for n in graph.inputs if n in graph.shapes},
    )
    ranks = {n: (None,) * rank for n in reads if (rank := graph.rank(n)) is not None}
    outputs = tuple(o for o in graph.outputs if o in made)
    return alone, replace(graph.with_nodes(nodes), inputs=tuple(reads), outputs=outputs, shapes=ranks)
