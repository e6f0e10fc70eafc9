"""Between layers in float: nothing is rounded there but what layers read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from ..graph.placement import place
from ..ir.events import Event, EventKind
from ..ir.model import Model
from . import Keeps, Stage, following


@dataclass(frozen=True)
class LayersOnly:
    """Leave sums, products, averages and all else between layers in float; layers stay integer.

    A function written in pieces is rounded between any two of them: in float it is rounded once, where a layer reads
    it. That runs slower where runtimes have integer kernels for the pieces, and not at all on hardware without floats.

    Attributes:
        mode: `integer` changes nothing, which is what a recipe means by "target" where hardware does not allow it.

    Example:
        >>> from equint.ir.model import Graph, Node
        >>> total = Node("Add", ("a", "b"), ("y",))
        >>> model = Model(Graph((total,), {}, ("a", "b"), ("y",)))
        >>> place(model.graph).classes, place(LayersOnly()(model).graph).classes
        ((('a',), ('b',), ('y',)), ())
    """

    keeps: ClassVar[Keeps] = Keeps.FLOATS
    stage: ClassVar[Stage] = Stage.BEFORE

    mode: Literal["float", "integer"] = following(lambda on: "float" if on.float_between else "integer", "float")

    def __call__(self, model: Model) -> Model:
        if self.mode == "integer" or model.graph.integers_only:
            return model
        bare = replace(model, graph=replace(model.graph, layers_only=True))
        before, after = ({n for names in place(m.graph).classes for n in names} for m in (model, bare))
        return bare.noted(Event(EventKind.LAYERS_ONLY, "", {"tensors": len(before - after)}, "layers_only"))
