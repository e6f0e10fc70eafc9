"""From a float .tflite file to an ONNX model, which `onnx/reader.py` reads like any other."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UnreadableModel, reason
from . import read_control, read_layers, read_parts, read_pointwise, read_pools, read_shapes, read_spectra
from .call import CONVERSIONS
from .content import Content, content_of
from .conversion import graph_of
from .draft import Draft, Value, plain
from .metadata import Preparation
from .schema import IDENTIFIER, schema
from .scope import Scope

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 17
"""ONNX's operators that are written: equint's own."""
PREPARATION = "tflite.preparation"
"""The model's property that holds how its input is made of pixels: [mean, spread] in JSON."""
_LARGE = 1024  # bytes of a constant that nobody takes for a shape
FAMILIES = (read_layers, read_pointwise, read_pools, read_shapes, read_parts, read_control, read_spectra)
"""Modules of conversions."""


def is_tflite(path: str | os.PathLike[str]) -> bool:
    """Whether a file is TFLite, by its identifier; a damaged one by its name."""
    if os.fspath(path).endswith(".tflite"):
        return True
    try:
        with open(path, "rb") as file:
            return file.read(8)[4:] == IDENTIFIER
    except OSError:
        return False


def load_tflite(path: str | os.PathLike[str]) -> ModelProto:
    """A float .tflite file as an ONNX model.

    Inputs and outputs are the file's, with its shapes: pictures have their channels last. Between them convolutions
    have their channels first, and there are Transposes only where one meets the other.

    Raises:
        UnreadableModel: no TFLite file, damaged, or quantized; it names the tensor.
        UnsupportedOperator: an operator that has no conversion; it names it and its number.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UnreadableModel(f"{path}: cannot be read ({error.strerror or error})") from error
    return converted(content_of(data, os.fspath(path)))


def converted(content: Content) -> ModelProto:
    """What a file holds, as an ONNX model; raises as `load_tflite` does."""
    from onnx import helper

    scope = Scope(content, 0, Draft())
    graph = scope.graph
    if not graph.outputs or not graph.operators:
        raise UnreadableModel(f"{content.label}: no operators in it; export it again")
    for index in graph.inputs:
        tensor = graph.tensors[index]
        scope.known[index] = Value(scope.names[index], plain(len(tensor.dims)), tensor.dims, tensor.dtype)
    made = graph_of(scope, graph.inputs)
    proto = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    _check_shapes(proto, scope)
    if content.preparation is not None and len(graph.inputs) == 1:
        helper.set_model_props(proto, {PREPARATION: json.dumps(content.preparation)})
    return proto


def told_preparation(proto: ModelProto) -> Preparation | None:
    """How the file that a model was made of says that its only input is made of pixels.

    Example:
        >>> from onnx import helper
        >>> proto = helper.make_model(helper.make_graph([], "g", [], []))
        >>> helper.set_model_props(proto, {PREPARATION: "[[127.5], [127.5]]"})
        >>> told_preparation(proto)
        ((127.5,), (127.5,))
    """
    text = next((entry.value for entry in proto.metadata_props if entry.key == PREPARATION), None)
    if text is None:
        return None
    mean, std = json.loads(text)
    return tuple(mean), tuple(std)


def _check_shapes(proto: ModelProto, scope: Scope) -> None:
    """Holds a file to the shapes that it tells: windows were laid by them, and runtimes work them out anew.

    Raises:
        UnreadableModel: shapes that do not fit together, or that differ from what operators make.
    """
    from onnx import shape_inference

    try:
        found = shape_inference.infer_shapes(_without_weights(proto), strict_mode=True, data_prop=True)
    except Exception as error:
        raise UnreadableModel(
            f"{scope.label}: damaged (its shapes do not fit together: {reason(error)}); copy or export it again"
        ) from error
    infos = {info.name: info.type.tensor_type for info in found.graph.value_info}
    for index, value in scope.known.items():
        info = infos.get(value.name)
        if value.data is not None or info is None or not info.HasField("shape"):
            continue
        told = [value.dims[axis] for axis in value.axes]
        sizes = [d.dim_value if d.HasField("dim_value") else None for d in info.shape.dim]
        if len(told) != len(sizes) or any(a != b for a, b in zip(told, sizes, strict=True) if None not in (a, b)):
            name, made = scope.graph.tensors[index].name, [n if n is not None else -1 for n in sizes]
            raise UnreadableModel(
                f"{scope.label}: tensor {name} has sizes {[n or -1 for n in told]}, and its operator makes {made}; "
                "export it again"
            )


def _without_weights(proto: ModelProto) -> ModelProto:
    """The model with its large constants as inputs, of which shapes do not depend."""
    from onnx import helper

    graph = proto.graph
    large = [tensor for tensor in graph.initializer if len(tensor.raw_data) > _LARGE]
    small = [tensor for tensor in graph.initializer if len(tensor.raw_data) <= _LARGE]
    told = [helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims) for tensor in large]
    light = helper.make_graph(graph.node, graph.name, [*graph.input, *told], graph.output, small)
    return helper.make_model(light, opset_imports=proto.opset_import, ir_version=proto.ir_version)


def operators_read() -> tuple[str, ...]:
    """All operators that have a conversion, in the schema's order, custom ones last."""
    order = schema().enums["BuiltinOperator"].numbers
    return tuple(sorted(CONVERSIONS, key=lambda kind: (order.get(kind, len(order)), kind)))
