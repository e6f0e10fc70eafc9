"""What a .tflite file holds, checked: subgraphs of operators and tensors, constants as arrays.

Nothing is converted here; `reader.py` does that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np

from ..errors import UnreadableModel, UnsupportedOperator
from ..ir.model import Array
from .flatbuffer import Values, unpack
from .metadata import Preparation, preparation_of, provenance_of
from .schema import DTYPES, operator_name, schema
from .sparse import dense

Dims = tuple[int | None, ...]
"""Sizes of a tensor; None where the file leaves one open."""
_COPIES = 8
"""Constants may share bytes of the file, but do not come to more than so many times its size."""


@dataclass(frozen=True)
class Scales:
    """How integers stand for real values: real = scale·(q − zero_point), both `(1,)`, or `(C,)` along `axis`."""

    scale: Array
    zero_point: Array
    axis: int


@dataclass(frozen=True)
class Tensor:
    """A tensor of a subgraph.

    Attributes:
        index: its number in the subgraph.
        type: as in the schema: "FLOAT32", …
        data: its values where it is constant, a view of the file; of INT4 as int8.
        variable: whether it is a state that outlives a run.
        scales: of integers that are quantized.
    """

    index: int
    name: str
    dims: Dims
    type: str
    data: Array | None = None
    variable: bool = False
    scales: Scales | None = None

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
        provenance: of a file that equint wrote: version, recipe, target, …
    """

    label: str
    subgraphs: tuple[Subgraph, ...]
    preparation: Preparation | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)


def content_of(data: bytes, label: str = "model", quantized: bool = False) -> Content:
    """What a file holds.

    Args:
        quantized: whether it may be quantized; else tensors of integers with a scale are refused.

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
    subgraphs = tuple(_Reading(label, model, buffers, quantized).subgraph(each) for each in model["subgraphs"])
    size = sum(t.data.nbytes for graph in subgraphs for t in graph.tensors if t.data is not None)
    if size > _COPIES * len(data) + 65536:
        raise UnreadableModel(f"{label}: damaged: its constants share their bytes; export it again")
    return Content(label, subgraphs, preparation_of(model), provenance_of(model))


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
    quantized: bool

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
            if not self.quantized:
                raise UnreadableModel(
                    f"{self.label}: already quantized (tensor {name} is {kind}); give the float model"
                )
            tensor = replace(tensor, scales=self.scales(quantization, shape, name))
        if kind not in DTYPES and not self.quantized:
            raise UnsupportedOperator(f"{self.label}: tensor {name} is {kind}, which is not read; give a float model")
        if any(n < 0 for n in shape):
            raise self.damaged(f"shape {list(shape)} of tensor {name}")
        if values["buffer"] >= len(self.buffers):
            raise self.damaged(f"tensor {name}")
        if made or (kind not in DTYPES and kind != "INT4"):
            return tensor
        array = self.constant(values, kind, shape, name)
        return tensor if array is None else replace(tensor, dims=tuple(shape), data=array)

    def constant(self, values: Values, kind: str, shape: tuple[int, ...], name: str) -> Array | None:
        """A tensor's values, where the file has them."""
        data = self.buffers[values["buffer"]]
        halves = kind == "INT4"
        dtype = "int8" if halves else DTYPES[kind]
        if values["sparsity"] is not None and data.size:
            return dense(values["sparsity"], data.view(dtype), shape, f"{self.label}: tensor {name}")
        if data.size:
            wanted = -(-prod(shape) // 2) if halves else prod(shape) * np.dtype(dtype).itemsize
            if data.size != wanted:
                raise self.damaged(f"tensor {name} of shape {list(shape)} has {data.size} bytes")
            data = _apart(data, prod(shape)) if halves else data.view(np.dtype(dtype).newbyteorder("<"))
            return data.reshape(shape)
        return None if prod(shape) else np.zeros(shape, dtype)

    def scales(self, values: Values, shape: tuple[int, ...], name: str) -> Scales:
        """One scale, or one for each index along an axis; a zero point that is left out is 0."""
        scale, axis = np.asarray(values["scale"], np.float32), int(values["quantized_dimension"])
        zero = np.asarray(values["zero_point"] if values["zero_point"].size else np.zeros(scale.shape), np.int64)
        many = scale.size > 1
        if not np.all(np.isfinite(scale) & (scale >= 0)) or zero.size not in (1, scale.size):
            raise self.damaged(f"{scale.size} scales, {zero.size} zero points of tensor {name}")
        if many and not (0 <= axis < len(shape) and shape[axis] == scale.size):
            raise self.damaged(f"{scale.size} scales along axis {axis} of tensor {name}, shape {list(shape)}")
        return Scales(scale, np.broadcast_to(zero, scale.shape), axis)

    def damaged(self, what: str) -> UnreadableModel:
        return UnreadableModel(f"{self.label}: damaged ({what}); copy or export it again")


def _apart(data: Array, count: int) -> Array:
    """Two values of four bits in each byte, the lower half first, as int8.

    Example:
        >>> _apart(np.uint8([0x7F, 0x08]), 3).tolist()
        [-1, 7, -8]
    """
    halves = np.stack([data & 15, data >> 4], axis=1).reshape(-1)[:count].astype(np.int8)
    return np.asarray((halves ^ 8) - 8, np.int8)


def _numbers(values: Iterable[Any]) -> tuple[int, ...]:
    return tuple(int(n) for n in values)


def _printable(text: str) -> str:
    """A name in one line."""
    return "".join(c if c.isprintable() else "?" for c in text)[:200]
