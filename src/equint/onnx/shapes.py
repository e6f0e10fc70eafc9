"""Shapes and types of a network's values, as its file and ONNX's shape inference tell them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, ValueInfoProto, helper

from ..errors import UnreadableModel
from ..ir.model import Graph, Name, Shape
from .newer import passed_through
from .writer import to_proto


def infer_shapes(graph: Graph, known: Mapping[Name, Shape] | None = None) -> Graph:
    """Shapes and types of every value that ONNX's shape inference can tell, from those that are `known`.

    Example:
        >>> from equint.ops.layers import tiny_graph
        >>> infer_shapes(tiny_graph()).shapes["y"]
        ('N', 4, 4, 4)
    """
    proto = to_proto(passed_through(graph), weightless=True)
    foreign = {o for node in graph.nodes if node.domain for o in node.outputs if o in graph.dtypes}
    types = {o: helper.np_dtype_to_tensor_dtype(np.dtype(graph.dtypes[o])) for o in foreign}
    proto.graph.value_info.extend(helper.make_tensor_value_info(o, t, graph.shapes.get(o)) for o, t in types.items())
    seen = {n: s for n, s in (known or {}).items() if n in graph.producer and n not in (*types, *graph.outputs)}
    told = ((n, s, graph.dtypes[n]) for n, s in seen.items() if n in graph.dtypes)
    proto.graph.value_info.extend(
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(np.dtype(t)), s) for n, s, t in told
    )
    try:
        proto = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    except Exception as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise UnreadableModel(f"the network's shapes do not fit together ({reason}); export it again") from error
    shapes, dtypes = described(proto)
    for node in graph.nodes:
        if node.op == "ConvTranspose" and not node.domain and _contradicts(shapes, node.inputs[0], node.outputs[0]):
            del shapes[node.outputs[0]]  # inference takes outputs smaller than inputs for rows
    for name, shape in (known or {}).items():
        if name in graph.producer:
            shapes[name] = _completed(shapes.get(name), shape)
    return replace(graph, shapes=shapes, dtypes={**graph.dtypes, **dtypes})


def _contradicts(shapes: Mapping[Name, Shape], x: Name, y: Name) -> bool:
    """Whether two tensors that have as many axes are known to have not."""
    return x in shapes and y in shapes and len(shapes[x]) != len(shapes[y])


def _completed(inferred: Shape | None, known: Shape) -> Shape:
    if inferred is None or len(inferred) != len(known):
        return known
    both = zip(inferred, known, strict=True)
    return tuple(k if isinstance(k, int) and not isinstance(i, int) else i or k for i, k in both)


def _shape(info: ValueInfoProto) -> Shape | None:
    if not info.type.HasField("tensor_type") or not info.type.tensor_type.HasField("shape"):
        return None
    dims = info.type.tensor_type.shape.dim
    return tuple(max(d.dim_value, 0) or None if d.HasField("dim_value") else d.dim_param or None for d in dims)


def _dtype(info: ValueInfoProto) -> str:
    if not info.type.HasField("tensor_type") or not info.type.tensor_type.elem_type:
        return ""
    if info.type.tensor_type.elem_type == TensorProto.BFLOAT16:
        return "float32"
    try:
        return str(np.dtype(helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)))
    except KeyError as error:
        raise UnreadableModel(f"{info.name} is of type {error}, which ONNX has not; export it again") from error


def described(proto: ModelProto) -> tuple[dict[Name, Shape], dict[Name, str]]:
    """What a file says of its values: shapes, and types as NumPy calls them."""
    infos = [*proto.graph.value_info, *proto.graph.input, *proto.graph.output]
    shapes = {i.name: shape for i in infos if (shape := _shape(i)) is not None}
    return shapes, {i.name: dtype for i in infos if (dtype := _dtype(i))}
