"""What rounding in front of activations costs a network that hardware would fuse: measured, with and without it."""

from __future__ import annotations

from dataclasses import replace

from ..graph.placement import place
from ..ir.events import Event, EventKind
from ..ir.model import Model, Name
from ..onnx.qdq import export
from ..runtime.judge import seated
from ..samples.images import Samples
from .search import made_up_samples

SHOWN = 8
"""Samples that it is measured on."""
WORTH_DB = 0.5
"""Less is not told."""


def fusible(model: Model) -> frozenset[Name]:
    """The rounded tensors that are none on hardware which applies every activation to a layer's sums.

    Example:
        >>> from equint.ir.model import Graph, Node, QParams
        >>> from equint.ops.layers import tiny_graph
        >>> conv, leaky = tiny_graph().nodes[0], Node("LeakyRelu", ("y",), ("r",))
        >>> graph = Graph((conv, leaky), tiny_graph().consts, ("x",), ("r",))
        >>> sorted(fusible(Model(graph, qparams=dict.fromkeys("yr", QParams(1, 0)))))
        ['y']
    """
    return (place(replace(model.graph, fuses=True)).merged - place(model.graph).merged) & model.qparams.keys()


def priced(network: Model, model: Model, images: Samples | None) -> Model:
    """With an event that says what rounding in front of activations costs, where that is much.

    Args:
        network: float, with what is known of its input; model: what was made of it.
        images: what it is measured on; None: what is made up.
    """
    front = fusible(model)
    samples = (images or made_up_samples(network)) if front else None
    if samples is None:
        return model
    rest = {name: grid for name, grid in model.qparams.items() if name not in front}
    bare = replace(model, graph=replace(model.graph, fuses=True), qparams=rest)
    judge = seated(network.graph, {"rounded": export(model), "fused": export(bare)}, samples.first(SHOWN))
    gained, _ = judge.gain("rounded", "fused")
    if gained < WORTH_DB or judge.blind():
        return model
    sqnr = {"SQNR": judge.sqnr_db("rounded"), "SQNR without": judge.sqnr_db("fused")}
    facts = {"tensors": len(front), "cost": f"{gained:.1f}", **sqnr}
    return model.noted(Event(EventKind.ROUNDED_IN_FRONT, "", facts, "search"))
