"""Small .tflite files, and what LiteRT and onnxruntime make of files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import ModelProto

from equint.tflite.flatbuffer import pack
from equint.tflite.schema import DTYPES, operator_code, schema

Array = NDArray[Any]
VERSIONS = {"BROADCAST_TO": 2}
"""Of operators that LiteRT has no longer in their first version."""
TYPES = {numpy: name for name, numpy in DTYPES.items()}


@dataclass(frozen=True)
class Step:
    """An operator of a small file: kind, names of tensors ("" for one that is left out), options."""

    kind: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    options: Mapping[str, Any] = field(default_factory=dict)
    custom: bytes = b""


@dataclass(frozen=True)
class Tensor:
    """Shape and type; -1 for what a file leaves open."""

    shape: Sequence[int]
    type: str = "FLOAT32"
    extra: Mapping[str, Any] = field(default_factory=dict)

    def fields(self, name: str, buffer: int) -> dict[str, Any]:
        shape = [max(n, 1) if n < 0 else n for n in self.shape]
        signature = {"shape_signature": list(self.shape)} if min(self.shape, default=0) < 0 else {}
        plain = {"shape": shape, "type": self.type, "name": name, "buffer": buffer}
        return plain | signature | dict(self.extra)


@dataclass(frozen=True)
class Part:
    """A subgraph: steps, tensors that are not constant, constants, inputs and outputs by name."""

    steps: Sequence[Step]
    tensors: Mapping[str, Tensor]
    consts: Mapping[str, Array]
    inputs: Sequence[str]
    outputs: Sequence[str]


def tflite_file(*parts: Part) -> bytes:
    """A file of subgraphs, the network first."""
    kinds = list(dict.fromkeys(step.kind for part in parts for step in part.steps))
    buffers: list[dict[str, Any]] = [{}]
    subgraphs = []
    for part in parts:
        numbers, tensors = dict[str, int](), list[dict[str, Any]]()
        for name, tensor in part.tensors.items():
            numbers[name] = len(tensors)
            tensors.append(tensor.fields(name, 0))
        for name, array in part.consts.items():
            numbers[name] = len(tensors)
            buffers.append({"data": array})
            tensors.append(Tensor(array.shape, TYPES[str(array.dtype)]).fields(name, len(buffers) - 1))
        subgraphs.append(
            {
                "tensors": tensors,
                "inputs": [numbers[n] for n in part.inputs],
                "outputs": [numbers[n] for n in part.outputs],
                "operators": [_operator(step, kinds, numbers) for step in part.steps],
                "name": "main",
            }
        )
    codes = [_code(kind) for kind in kinds]
    return pack({"version": 3, "operator_codes": codes, "subgraphs": subgraphs, "buffers": buffers})


def _code(kind: str) -> dict[str, Any]:
    if kind.startswith("CUSTOM "):
        return operator_code("CUSTOM") | {"custom_code": kind.removeprefix("CUSTOM ")}
    return operator_code(kind, VERSIONS.get(kind, 1))


def _operator(step: Step, kinds: Sequence[str], numbers: Mapping[str, int]) -> dict[str, Any]:
    table = schema().options.get(step.kind)
    values: dict[str, Any] = {
        "opcode_index": kinds.index(step.kind),
        "inputs": [numbers[n] if n else -1 for n in step.inputs],
        "outputs": [numbers[n] for n in step.outputs],
    }
    if table:
        values[schema().union_of(step.kind)] = (table, dict(step.options))
    if step.custom:
        values["custom_options"] = np.frombuffer(step.custom, np.uint8)
    return values


def by_onnxruntime(proto: ModelProto, feeds: Sequence[Array]) -> list[Array]:
    """The outputs of an ONNX model, graph optimizations off."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [i.name for i in session.get_inputs()]
    return [np.asarray(v) for v in session.run(None, dict(zip(names, feeds, strict=True)))]


def by_litert(data: bytes, feeds: Sequence[Array], reference: bool = False) -> list[Array]:
    """The outputs of a .tflite file in LiteRT; skips the test where it is not installed."""
    litert = pytest.importorskip("ai_edge_litert.interpreter", reason="LiteRT is not installed")
    kernels = litert.OpResolverType.BUILTIN_REF if reference else litert.OpResolverType.AUTO
    interpreter = litert.Interpreter(model_content=data, experimental_op_resolver_type=kernels, num_threads=1)
    details = interpreter.get_input_details()
    for detail, feed in zip(details, feeds, strict=True):
        if list(detail["shape"]) != list(feed.shape):
            interpreter.resize_tensor_input(detail["index"], feed.shape)
    interpreter.allocate_tensors()
    for detail, feed in zip(details, feeds, strict=True):
        interpreter.set_tensor(detail["index"], feed)
    interpreter.invoke()
    return [np.array(interpreter.get_tensor(d["index"])) for d in interpreter.get_output_details()]


def assert_near(found: Sequence[Array], wanted: Sequence[Array], tolerance: float = 1e-5) -> None:
    """Equal in type and shape, and in value up to a share of each output's greatest magnitude."""
    for one, other in zip(found, wanted, strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        scale = float(np.abs(other.astype(np.float64)).max(initial=1e-6))
        np.testing.assert_allclose(one.astype(np.float64), other.astype(np.float64), rtol=0, atol=tolerance * scale)
