"""What a .tflite file holds, checked: subgraphs of operators and tensors, constants as arrays.

Nothing is converted here; `reader.py` does that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from ..errors import UnreadableModel, UnsupportedOperator
from ..ir.model import Array
from .flatbuffer import Values, unpack
from .metadata import Preparation, preparation_of
from .schema import DTYPES, operator_name, schema
from .sparse import dense

Dims = tuple[int | None, ...]
"""Sizes of a tensor; None where the file leaves one open."""
_COPIES = 8
"""Constants may share bytes of the file, but do not come to more than so many times its size."""


@dataclass(frozen=True)
class Tensor:
    """A tensor of a subgraph.

    Attributes:
        index: its number in the subgraph.
        type: as in the schema: "FLOAT32", …
        data: its values where it is constant, a view of the file.
        variable: whether it is a state that outlives a run.
    """

    index: int
    name: str
    dims: Dims
    type: str
    data: Array | None = None
    variable: bool = False

    @property
    def dtype(self) -> str:
        """NumPy's name of its type."""
        return DTYPES[self.type]


@dataclass(frozen=True)
class Operator:
    """An operator: `inputs` and `outputs` are numbers of tensors, -1 one that is left out.

    Attributes:
        number: its place in the subgraph, by which messages name it.
        kind: as in the schema: "CONV_2D", …; a custom one's own name behind "CUSTOM ".
        options: fields of its table of options.
        custom: a custom operator's options, in a format of its own.
    """

    number: int
    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    custom: bytes = b""


@dataclass(frozen=True)
class Subgraph:
    """Operators in the order in which they run, with their tensors."""

    tensors: tuple[Tensor, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    operators: tuple[Operator, ...]


@dataclass(frozen=True)
class Content:
    """A file: its first subgraph is the network, others are what its operators call.

    Attributes:
        preparation: how its only input is made of pixels, where it says so.
    """

    label: str
    subgraphs: tuple[Subgraph, ...]
    preparation: Preparation | None = None


def content_of(data: bytes, label: str = "model") -> Content:
    """What a float file holds.

    Raises:
        UnreadableModel: not TFLite, damaged, or quantized: it names the tensor.
        UnsupportedOperator: tensors of a type that nothing reads.

    Example:
        >>> from .flatbuffer import pack
        >>> weight = {"shape": [2], "type": "INT8", "name": "w", "quantization": {"scale": [0.5], "zero_point": [0]}}
        >>> graph = {"tensors": [weight], "operators": [{"inputs": [0]}]}
        >>> codes = [{"builtin_code": "RELU"}]
        >>> content_of(pack({"operator_codes": codes, "subgraphs": [graph], "buffers": [{}]}), "m.tflite")
        Traceback (most recent call last):
        ...
        equint.errors.UnreadableModel: m.tflite: already quantized (tensor w is INT8); give the float model
    """
    model = unpack(data, label)
    if not model["subgraphs"]:
        raise UnreadableModel(f"{label}: no operators in it; export it again")
    buffers = [_bytes(buffer, data, f"{label}: damaged buffer {k}") for k, buffer in enumerate(model["buffers"])]
    if model["external_buffers"]:
        raise UnreadableModel(f"{label}: its weights lie in other files, which is not read; export it as one file")
    subgraphs = tuple(_Reading(label, model, buffers).subgraph(each) for each in model["subgraphs"])
    size = sum(t.data.nbytes for graph in subgraphs for t in graph.tensors if t.data is not None)
    if size > _COPIES * len(data) + 65536:
        raise UnreadableModel(f"{label}: damaged: its constants share their bytes; export it again")
    return Content(label, subgraphs, preparation_of(model))


def _bytes(buffer: Values, data: bytes, damaged: str) -> Array:
    """A buffer's bytes, which a file of more than 2 GB keeps behind its tables."""
    start, size = buffer["offset"], buffer["size"]
    if start <= 1:
        return np.asarray(buffer["data"])
    if start + size > len(data):
        raise UnreadableModel(f"{damaged}: it lies beyond the file's end; copy or export it again")
    return np.frombuffer(data, np.uint8, size, start)


@dataclass(frozen=True)
class _Reading:
    label: str
    model: Values
    buffers: Sequence[Array]

    def subgraph(self, values: Values) -> Subgraph:
        operators = tuple(self.operator(k, each) for k, each in enumerate(values["operators"]))
        used = {i for each in operators for i in (*each.inputs, *each.outputs)}
        made = {i for each in operators for i in each.outputs}
        inputs, outputs = _numbers(values["inputs"]), _numbers(values["outputs"])
        count = len(values["tensors"])
        for i in (*used, *inputs, *outputs):
            if i >= count or i < -1:
                raise self.damaged(f"tensor {i} is not there")
        if {*inputs, *outputs} & {-1} or made & {*inputs} - {-1}:
            raise self.damaged("inputs and outputs of the network")
        given = used | {*inputs, *outputs}
        tensors = [self.tensor(k, each, k in given, k in {*made, *inputs}) for k, each in enumerate(values["tensors"])]
        return Subgraph(tuple(tensors), inputs, outputs, operators)

    def operator(self, number: int, values: Values) -> Operator:
        codes = self.model["operator_codes"]
        if values["opcode_index"] >= len(codes):
            raise self.damaged(f"operator {number}")
        code = codes[values["opcode_index"]]
        kind = operator_name(code)
        if kind == "CUSTOM":
            kind = f"CUSTOM {_printable(code['custom_code'] or 'without a name')}"
        options = values[schema().union_of(kind)]
        if options is not None and kind in schema().options and options[0] != schema().options[kind]:
            raise self.damaged(f"options of operator {number}, {kind}, are {options[0]}")
        return Operator(
            number,
            kind,
            _numbers(values["inputs"]),
            _numbers(values["outputs"]),
            options[1] if options else {},
            values["custom_options"].tobytes(),
        )

    def tensor(self, index: int, values: Values, used: bool, made: bool) -> Tensor:
        name = _printable(values["name"] or f"tensor_{index}")
        kind, shape = values["type"], _numbers(values["shape"])
        signature = _numbers(values["shape_signature"])
        dims: Dims = tuple(None if n < 0 else n for n in (signature if len(signature) == len(shape) else shape))
        tensor = Tensor(index, name, dims, kind, None, values["is_variable"])
        if not used:
            return tensor
        quantization = values["quantization"]
        if quantization and quantization["scale"].any() and not kind.startswith("FLOAT"):
            raise UnreadableModel(f"{self.label}: already quantized (tensor {name} is {kind}); give the float model")
        if kind not in DTYPES:
            raise UnsupportedOperator(f"{self.label}: tensor {name} is {kind}, which is not read; give a float model")
        if any(n < 0 for n in shape):
            raise self.damaged(f"shape {list(shape)} of tensor {name}")
        if values["buffer"] >= len(self.buffers):
            raise self.damaged(f"tensor {name}")
        data = self.buffers[values["buffer"]]
        if values["sparsity"] is not None and data.size:
            array = dense(values["sparsity"], data.view(tensor.dtype), shape, f"{self.label}: tensor {name}")
        elif data.size and not made:
            if data.size != prod(shape) * np.dtype(tensor.dtype).itemsize:
                raise self.damaged(f"tensor {name} of shape {list(shape)} has {data.size} bytes")
            array = data.view(np.dtype(tensor.dtype).newbyteorder("<")).reshape(shape)
        elif not prod(shape) and not made:
            array = np.zeros(shape, tensor.dtype)
        else:
            return tensor
        return Tensor(index, name, tuple(shape), kind, array)

    def damaged(self, what: str) -> UnreadableModel:
        return UnreadableModel(f"{self.label}: damaged ({what}); copy or export it again")


def _numbers(values: Iterable[Any]) -> tuple[int, ...]:
    return tuple(int(n) for n in values)


def _printable(text: str) -> str:
    """A name in one line."""
    return "".join(c if c.isprintable() else "?" for c in text)[:200]
