"""Where a walk over a network meets an operator of which it does not know what it asks: said, never passed over."""

from __future__ import annotations

from collections.abc import Iterator

from ..ir.events import Event, EventKind
from ..ir.model import Model
from ..ops.operator import FACETS, Unknown
from ..ops.table import op_of


def gaps(model: Model, facet: str, source: str) -> Iterator[Event]:
    """An event for each operator of the network whose `facet` is not known, unless an earlier pass has said so.

    Example:
        >>> from ..ir.model import Graph, Node
        >>> node = Node("NonZero", ("x",), ("y",))
        >>> model = Model(Graph((node,), {}, ("x",), ("y",)))
        >>> [str(event) for event in gaps(model, "gain", "optimal")]
        ['gain of NonZero is not known: equint does not know NonZero [y] (nodes=1)']
    """
    assert facet in FACETS
    said = {(e.facts["facet"], e.facts["op"]) for e in model.log if e.kind is EventKind.FACET_UNKNOWN}
    met: dict[str, tuple[str, str, int]] = {}
    for node in model.graph.nodes:
        operator = op_of(node)
        described = getattr(operator, facet)
        if isinstance(described, Unknown) and any(model.graph.is_float(o) for o in node.outputs):
            label, why, count = met.get(operator.name, (node.label, described.why, 0))
            met[operator.name] = (label, why, count + 1)
    for op, (label, why, count) in met.items():
        if (facet, op) not in said:
            yield Event(EventKind.FACET_UNKNOWN, label, {"facet": facet, "op": op, "nodes": count, "why": why}, source)
