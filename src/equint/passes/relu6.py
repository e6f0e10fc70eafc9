"""What to do with activations that are clipped from above, so that channels may be scaled."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from ..graph.moments import propagate
from ..ir.edit import Editor
from ..ir.events import Event, EventKind
from ..ir.fields import aligned
from ..ir.model import Graph, Model, Node
from ..ops.activations import has_shared_bound
from ..ops.attributes import clip_bounds
from . import Keeps, Stage, following


@dataclass(frozen=True)
class Relu6:
    """Clip(x, 0, 6) and other clips with an upper bound, made ready for equalization.

    `replace`: drop the upper bound, as DFQ does; only near to the same function, and on networks whose
    activations reach the bound not even that (the event says how often they do). `channel_clip`: give the
    clip a bound per channel, which rescaling can move: exact, for hardware with a per-channel clamp.
    `keep`: leave the shared bound; equalization then scales only channels that never reach it.
    """

    keeps: ClassVar[Keeps] = Keeps.NEARLY
    stage: ClassVar[Stage] = Stage.BEFORE

    mode: Literal["replace", "channel_clip", "keep"] = following(
        lambda on: "channel_clip" if on.channel_clip else "keep", "keep"
    )

    def __call__(self, model: Model) -> Model:
        clips = [node for node in model.graph.nodes if has_shared_bound(model.graph, node)]
        event = Event(EventKind.CLIPS, "", {"mode": self.mode, "clips": len(clips)}, "relu6")
        if self.mode == "keep" or not clips:
            return model.noted(event)
        editor, events = Editor(model.graph), [event]
        for node in clips:
            if self.mode == "replace":
                events.append(_bound_dropped(model, node))
                relu = Node("Relu", node.inputs[:1], node.outputs, name=node.name)
                at_zero = clip_bounds(model.graph, node)[0] == 0
                editor.swap(node, [relu if at_zero else replace(node, inputs=node.inputs[:2])])
                continue
            channels = _channels(model.graph, node)
            if channels is None:
                events.append(Event(EventKind.CLIP_LEFT, node.label, {"why": "unknown channel count"}, "relu6"))
                continue
            count, rank = channels
            for position in range(1, len(node.inputs)):
                bound = model.graph.constant(node.inputs[position])
                if bound is not None and np.any(bound) and np.all(np.isfinite(bound)):
                    wide = np.full(count, bound, np.float32)
                    fresh = editor.add_const(f"{node.outputs[0]}_bound", aligned(wide, 1, rank))
                    editor.rename_input(node, node.inputs[position], fresh)
        graph = editor.done()
        moments = propagate(graph, model.moments) if self.mode == "replace" else model.moments
        return replace(model, graph=graph, moments=moments).noted(*events)


def _channels(graph: Graph, node: Node) -> tuple[int, int] | None:
    shape = graph.shapes.get(node.outputs[0])
    if shape is None or len(shape) < 2 or not isinstance(shape[1], int) or shape[1] < 2:
        return None
    return shape[1], len(shape)


def _bound_dropped(model: Model, node: Node) -> Event:
    """How many channels reach the bound that is dropped: the price of replacing."""
    moments, (_, hi) = model.moments.get(node.inputs[0]), clip_bounds(model.graph, node)
    if moments is None or hi is None:
        return Event(EventKind.CLIP_BOUND_DROPPED, node.label, {"reached": "unknown"}, "relu6", warning=True)
    reached = float(np.mean(moments.mean + 3 * moments.std > hi))
    facts = {"bound": float(hi), "channels that reach it": f"{reached:.0%}"}
    return Event(EventKind.CLIP_BOUND_DROPPED, node.label, facts, "relu6", warning=reached > 0)
