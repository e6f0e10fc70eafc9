"""Whether onnxruntime runs a network as it was read: established before any work starts."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np

from ..errors import EquintError, UnreadableModel, reason
from ..ir.model import Graph, Model
from ..onnx.writer import to_proto
from ..samples.generated import stand_in
from ..samples.images import Run
from ..samples.presented import fixed_batch
from .first_run import ROWS
from .session import Session


def check_runs(model: Model) -> None:
    """Load a network, and run it once on a made-up sample where its inputs leave no size open but the batch.

    Networks with operators of other domains are let in: they stay float, and onnxruntime need not have them.
    Where sizes are open, or inputs are no floats, what was made up may be nothing that it reads: that it does not run
    says little then, and is found out by the first sample.

    Raises:
        UnreadableModel: onnxruntime cannot load it, or not run it; it says where and why.

    Example:
        >>> from ..ir.model import Node
        >>> node = Node("Gather", ("x", "k"), ("y",), {"axis": 1}, name="pick")
        >>> try:
        ...     check_runs(Model(Graph((node,), {"k": np.array([9])}, ("x",), ("y",), {"x": ("N", 3)})))
        ... except UnreadableModel as error:
        ...     print(str(error)[:73])
        the network: onnxruntime cannot run it (Gather node. Name:'pick' Status M
    """
    if any(node.domain for node in model.graph.nodes):
        return  # whoever has such operators runs it
    label = os.path.basename(model.source) or "the network"
    try:
        session = Session(to_proto(model.graph), lean=True)
    except EquintError as error:
        raise UnreadableModel(f"{label}: {_cause(error)}; export it again") from error
    feed = stand_in(model.graph) if _told(model.graph) else None
    if feed is None:
        return
    named = dict(feed) if isinstance(feed, Mapping) else {model.graph.inputs[0]: feed}
    rows = (1, *ROWS) if fixed_batch(model.graph) is None else (0,)
    first: Exception | None = None
    for count in rows:
        try:
            session.run(Run({n: v[np.arange(count) % len(v)] if count else v for n, v in named.items()}))
            return
        except EquintError as error:
            first = first or error
    raise UnreadableModel(f"{label}: onnxruntime cannot run it ({_cause(first)}); export it again")


def _told(graph: Graph) -> bool:
    """Whether inputs are floats of known sizes, but for the batch."""
    shapes = [graph.shapes.get(name) for name in graph.inputs]
    sized = all(s and all(isinstance(n, int) and n > 0 for n in s[1:]) for s in shapes)
    return sized and all(graph.is_float(name) for name in graph.inputs)


def _cause(error: Exception | None) -> str:
    """What onnxruntime said, of an error that says more."""
    inner = error.__cause__ if error is not None and error.__cause__ is not None else error
    return reason(inner) if isinstance(inner, Exception) else ""
