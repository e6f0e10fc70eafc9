"""A .tflite file in the making: tensors with their grids, constants stored once, operators with their versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..ir.model import Array, QParams
from ..tflite.flatbuffer import pack
from ..tflite.schema import VERSION, operator_code, schema

TYPES = {
    "int8": "INT8",
    "uint8": "UINT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float32": "FLOAT32",
    "bool": "BOOL",
}
"""The schema's name of each of NumPy's types that is written."""
VERSIONS: Mapping[str, int] = {
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"), 3),
    **dict.fromkeys(("ADD", "SUB", "MUL", "CONCATENATION", "AVERAGE_POOL_2D", "MAX_POOL_2D", "PAD", "PADV2"), 2),
    **dict.fromkeys(("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "SOFTMAX", "LOGISTIC", "TANH", "LEAKY_RELU"), 2),
    **dict.fromkeys(("RELU", "RELU6", "MAXIMUM", "MINIMUM", "TRANSPOSE", "STRIDED_SLICE", "GATHER", "SPLIT"), 2),
    **dict.fromkeys(("SPLIT_V", "SPACE_TO_DEPTH", "MIRROR_PAD", "BATCH_MATMUL", "DEQUANTIZE", "L2_NORMALIZATION"), 2),
    "FULLY_CONNECTED": 4,
    "TRANSPOSE_CONV": 3,
}
"""The first version of each operator that takes int8 (LiteRT, tools/versioning/op_version.cc); others are at 1."""
WIDE_VERSIONS: Mapping[str, int] = {
    **VERSIONS,
    **dict.fromkeys(("ADD", "SUB", "CONCATENATION", "AVERAGE_POOL_2D", "MAX_POOL_2D", "RELU", "MEAN"), 3),
    **dict.fromkeys(("LOGISTIC", "TANH", "DEQUANTIZE"), 3),
    **dict.fromkeys(("CONV_2D", "MUL", "GATHER", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"), 4),
    **dict.fromkeys(("MAXIMUM", "MINIMUM", "STRIDED_SLICE", "TRANSPOSE"), 4),
    "DEPTHWISE_CONV_2D": 5,
    "FULLY_CONNECTED": 7,
    "QUANTIZE": 2,
}
"""The same for int16, as far as they differ."""
UNSIGNED_VERSIONS: Mapping[str, int] = {"RESIZE_BILINEAR": 3, "TRANSPOSE_CONV": 3}
"""The same for uint8, which operators took from the first on: those that have more than the first had."""
_OPTIONS = {"QUANTIZE": "QuantizeOptions", "DEQUANTIZE": "DequantizeOptions"}


class File:
    """Collects what a file holds; tensors are numbers.

    Args:
        signed: whether its activations are int8, of which older runtimes know nothing; else uint8.
        wide: whether they are int16.

    Example:
        >>> file = File()
        >>> x, y = (file.tensor(name, (1, 4), "int8", QParams(np.float32(0.5), np.int32(0))) for name in "xy")
        >>> file.operator("LOGISTIC", [x], [y])
        >>> [op["inputs"] for op in file.model([x], [y])["subgraphs"][0]["operators"]]
        [[0]]
    """

    def __init__(self, signed: bool = True, wide: bool = False) -> None:
        self.versions = WIDE_VERSIONS if wide else VERSIONS if signed else UNSIGNED_VERSIONS
        self.tensors: list[dict[str, Any]] = []
        self.operators: list[dict[str, Any]] = []
        self.buffers: list[dict[str, Any]] = [{}]
        self.codes: dict[tuple[str, int], int] = {}
        self._buffers: dict[bytes, int] = {}
        self._constants: dict[tuple[Any, ...], int] = {}
        self._names: set[str] = set()

    def tensor(
        self, name: str, shape: Sequence[int], dtype: str, grid: QParams | None = None, free: Sequence[int] = ()
    ) -> int:
        """A tensor that an operator makes, or an input; `free` axes may have any size."""
        made: dict[str, Any] = {"shape": [int(n) for n in shape], "type": TYPES[dtype], "name": self._fresh(name)}
        made |= {"buffer": 0, "has_rank": True, "quantization": _quantization(grid, 0) if grid is not None else {}}
        if free:
            made["shape_signature"] = [-1 if axis in free else int(n) for axis, n in enumerate(shape)]
        self.tensors.append(made)
        return len(self.tensors) - 1

    def constant(self, name: str, array: Array, grid: QParams | None = None, axis: int = 0) -> int:
        """A constant, stored once however often it is used; `axis` is that of a grid with many scales."""
        array = np.ascontiguousarray(array).reshape(np.shape(array))
        data, quantization = array.tobytes(), _quantization(grid, axis) if grid is not None else {}
        key = (str(array.dtype), array.shape, data, repr(quantization))
        if key not in self._constants:
            self._constants[key] = self.tensor(name, array.shape, str(array.dtype))
            made = {"quantization": quantization, "buffer": self._buffer(data)}
            self.tensors[self._constants[key]] |= made
        return self._constants[key]

    def _buffer(self, data: bytes) -> int:
        if data not in self._buffers:
            self._buffers[data] = len(self.buffers)
            self.buffers.append({"data": np.frombuffer(data, np.uint8)})
        return self._buffers[data]

    def _fresh(self, name: str) -> str:
        stem, k = name, 0
        while name in self._names:
            k += 1
            name = f"{stem}_{k}"
        self._names.add(name)
        return name

    def operator(
        self, name: str, inputs: Sequence[int], outputs: Sequence[int], version: int = 0, **options: Any
    ) -> None:
        """One operator, behind those that are there."""
        version = version or self.versions.get(name, 1)
        code = self.codes.setdefault((name, version), len(self.codes))
        made: dict[str, Any] = {"opcode_index": code, "inputs": list(inputs), "outputs": list(outputs)}
        table = schema().options.get(name) or _OPTIONS.get(name)
        if table is not None:
            made[schema().union_of(name)] = (table, options)
        self.operators.append(made)

    def kinds(self) -> list[str]:
        """The operators that are there, each kind once."""
        return list(dict.fromkeys(name for name, _ in self.codes))

    def model(
        self,
        inputs: Sequence[int],
        outputs: Sequence[int],
        description: str = "",
        metadata: Mapping[str, bytes] | None = None,
        names: Sequence[str] = (),
    ) -> dict[str, Any]:
        """All of it, as `tflite.flatbuffer.pack` takes it; `names` of inputs and outputs where tensors have others."""
        names = names or [self.tensors[t]["name"] for t in (*inputs, *outputs)]
        maps = [{"name": n, "tensor_index": t} for n, t in zip(names, (*inputs, *outputs), strict=True)]
        signature = {"inputs": maps[: len(inputs)], "outputs": maps[len(inputs) :], "signature_key": "serving_default"}
        entries = [{"name": key, "buffer": self._buffer(value)} for key, value in (metadata or {}).items()]
        graph = {"tensors": self.tensors, "inputs": list(inputs), "outputs": list(outputs), "name": "main"}
        return {
            "version": VERSION,
            "operator_codes": [operator_code(name, version) for name, version in self.codes],
            "subgraphs": [{**graph, "operators": self.operators}],
            "description": description,
            "buffers": self.buffers,
            "metadata": entries,
            "signature_defs": [{**signature, "subgraph_index": 0}],
        }

    def packed(
        self, inputs: Sequence[int], outputs: Sequence[int], description: str, names: Sequence[str] = (), **data: bytes
    ) -> bytes:
        """The file's bytes, with entries of metadata; an error above 2 GB."""
        return pack(self.model(inputs, outputs, description, data, names))


def _quantization(grid: QParams, axis: int) -> dict[str, Any]:
    scales = np.atleast_1d(np.asarray(grid.steps, np.float32))
    zeros = np.broadcast_to(np.asarray(grid.zero_point, np.int64), scales.shape)
    return {"scale": scales, "zero_point": zeros, "quantized_dimension": axis if scales.size > 1 else 0}
