"""Is this model well formed? Checked after every pass."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..errors import UnknownName, UnreadableModel
from ..ir.model import Graph, Model, Name
from ..ops.layers import layers


def disorder(graph: Graph) -> Iterator[str]:
    """What is wrong with names and order: values that are read before they are made, made twice, or never.

    Example:
        >>> from ..ir.model import Node
        >>> relu = Node("Relu", ("a",), ("y",), name="relu")
        >>> list(disorder(Graph((relu,), {}, ("x",), ("y", "z"))))
        ['Relu relu reads a, which nothing makes before it', 'output z is made by nothing']
    """
    made = set(graph.inputs) | set(graph.consts)
    for node in graph.nodes:
        missing = next((i for i in node.reads if i not in made), None)
        if missing is not None:
            yield f"{node.op} {node.label} reads {missing}, which nothing makes before it"
        twice = next((o for o in node.outputs if o and o in made), None)
        if twice is not None:
            yield f"{node.op} {node.label} makes {twice} a second time"
        made.update(o for o in node.outputs if o)
    yield from (f"output {name} is made by nothing" for name in graph.outputs if name not in made)


def verify(model: Model, after: str = "") -> None:
    """Check that names, order, weights and descriptions of a model fit together; EquintError says where not."""
    graph, where = model.graph, f" after {after}" if after else ""
    wrong = next(disorder(graph), None)
    if wrong is not None:
        raise UnreadableModel(f"{wrong}{where}")
    made = graph.producer.keys() | {*graph.inputs, *graph.consts}
    channels: dict[Name, int] = {}
    for layer in layers(graph):
        weight = graph.consts[layer.weight]
        if not np.all(np.isfinite(weight)):
            raise UnreadableModel(f"weights of {layer.name} are not finite{where}")
        bias = graph.consts[layer.bias] if layer.bias else None
        outputs = channels[layer.y] = layer.channels(weight)[1]
        if bias is not None and (bias.size != outputs or not np.all(np.isfinite(bias))):
            raise UnreadableModel(
                f"bias of {layer.name} has {bias.size} values for {outputs} channels, or is not finite{where}"
            )
    for name, moments in model.moments.items():
        rank = graph.rank(name)
        if rank is not None and np.ndim(moments.mean) > rank:
            raise UnreadableModel(f"moments of {name} have more dimensions than the tensor{where}")
        if not (np.all(np.isfinite(moments.mean)) and np.all(np.isfinite(moments.std)) and np.all(moments.std >= 0)):
            raise UnreadableModel(f"moments of {name} are not finite, or a spread is negative{where}")
    for name, q in model.qparams.items():
        if name not in made:
            raise UnreadableModel(f"a grid was chosen for {name}, which does not exist{where}")
        if not (np.all(np.isfinite(q.steps)) and np.all(q.steps > 0)):
            raise UnreadableModel(f"the scale of {name} is not positive and finite{where}")
        if np.any(q.zero_point < q.qmin) or np.any(q.zero_point > q.qmax):
            raise UnreadableModel(f"the zero point of {name} lies outside its grid{where}")
    for name, correction in model.corrected.items():
        if np.shape(correction.channels) != (channels.get(name),):
            raise UnknownName(f"biases of {name} count as corrected, which is no layer's output or has others{where}")
