"""The values of one subgraph as they become known, under names that nothing else has."""

from __future__ import annotations

import re

from ..errors import UnreadableModel
from ..ir.model import Name
from .content import Content, Subgraph
from .draft import Draft, Value, plain

_LONGEST = 100


class Scope:
    """A subgraph while it is converted.

    Attributes:
        content: the file.
        graph: the subgraph.
        draft: what it is written into.
        depth: how many subgraphs it lies in.
        names: of its tensors in the draft.
        known: values by number of the file's tensor.
        imaginary: of complex numbers the imaginary parts; `known` has the real ones.
    """

    def __init__(self, content: Content, number: int, draft: Draft, depth: int = 0) -> None:
        self.content, self.graph, self.draft, self.depth = content, content.subgraphs[number], draft, depth
        self.names = _names(self.graph, draft)
        self.known: dict[int, Value] = {}
        self.imaginary: dict[int, Value] = {}

    @property
    def label(self) -> str:
        """What messages call the file."""
        return self.content.label

    def value(self, index: int) -> Value:
        """A tensor's value; constants as they lie in the file.

        Raises:
            UnreadableModel: nothing makes it.
        """
        if index not in self.known:
            tensor = self.graph.tensors[index]
            if tensor.data is None:
                state = "it is a state that outlives a run" if tensor.variable else "nothing makes it"
                raise UnreadableModel(f"{self.label}: tensor {tensor.name} cannot be read: {state}; export it again")
            data = tensor.data.astype(tensor.data.dtype.newbyteorder("="))
            self.known[index] = Value(self.names[index], plain(data.ndim), data.shape, tensor.dtype, data)
        return self.known[index]

    def output(self, index: int) -> Name:
        """An output of the subgraph in the file's order of axes, made in it by its own name.

        Raises:
            UnreadableModel: it is of complex numbers.
        """
        if self.graph.tensors[index].type == "COMPLEX64":
            raise UnreadableModel(f"{self.label}: output {self.names[index]} is complex, which is not read")
        value, own, draft = self.value(index), self.names[index], self.draft
        made = {name for node in draft.nodes for name in node.outputs}
        if own in made:
            return own
        name = draft.placed(value, plain(value.rank), own)
        if not draft.nodes or name not in draft.nodes[-1].outputs or name == value.name:
            name = draft.add("Identity", [name], own)[0]
        draft.rename(name, own)
        return own


def _names(graph: Subgraph, draft: Draft) -> list[Name]:
    """A name for each tensor: the file's, made plain and unique; inputs and outputs first, which keep theirs."""
    names = [""] * len(graph.tensors)
    produced = [i for operator in graph.operators for i in operator.outputs if i >= 0]
    for index in dict.fromkeys([*graph.inputs, *graph.outputs, *produced]):
        names[index] = draft.fresh(plain_name(graph.tensors[index].name))
    return [name or plain_name(tensor.name) for name, tensor in zip(names, graph.tensors, strict=True)]


def plain_name(name: str) -> Name:
    """The first of the names that a converter joined, in characters that files and tools bear.

    Example:
        >>> plain_name("net/conv/Relu;net/bn/Fused;net/conv/Conv2D"), plain_name("serving_default x:0")
        ('net/conv/Relu', 'serving_default_x:0')
    """
    first = name.split(";")[0] or name
    return re.sub(r"[^\w./:-]", "_", first, flags=re.ASCII)[:_LONGEST].strip("/") or "tensor"
