"""From a `Graph` to an ONNX model, and a model to a file that appears whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, ValueInfoProto, helper, numpy_helper
from onnx import ModelProto as ModelProto

from ..drafts import drafted_together
from ..ir.model import Graph, Name, Node
from .newer import without_newer

EXTERNAL_ABOVE = (1 << 31) - (1 << 26)
"""Bytes of constants above which a file cannot hold them and external data is written."""


def to_proto(graph: Graph, weightless: bool = False) -> ModelProto:
    """The graph as an ONNX model of float operators.

    Args:
        weightless: large constants become typed inputs, which is enough for shape inference and keeps
            networks of any size within protobuf's 2 GB.

    Example:
        >>> from equint.ops.layers import tiny_graph
        >>> to_proto(tiny_graph()).graph.node[0].op_type
        'Conv'
    """
    graph = lowered(graph)
    inputs, outputs = ([value_info(graph, name) for name in side] for side in (graph.inputs, graph.outputs))
    nodes = [_node(node) for node in graph.nodes]
    proto = model_proto(helper.make_graph(nodes, graph.name, inputs, outputs), graph.opset, graph.domains)
    for name, array in graph.consts.items():  # one by one: with the graph, all would be copied twice
        if weightless and array.size > 1024 and array.dtype.kind == "f":
            element = int(helper.np_dtype_to_tensor_dtype(array.dtype))
            proto.graph.input.append(helper.make_tensor_value_info(name, element, array.shape))
        else:
            proto.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    return proto


def model_proto(graph: onnx.GraphProto, opset: int, domains: dict[str, int] | Any) -> ModelProto:
    """Wrap a graph with its operator sets; the IR version is the oldest that has them."""
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, v) for d, v in domains.items() if d)]
    return helper.make_model(graph, opset_imports=opsets, producer_name="equint", ir_version=8 if opset <= 18 else 10)


def said_of(proto: ModelProto, key: str) -> str | None:
    """What equint says of a file in its metadata, such as its "target"; None of files of other origin.

    Example:
        >>> from equint.ops.layers import tiny_graph
        >>> proto = to_proto(tiny_graph())
        >>> helper.set_model_props(proto, {"equint.target": "qnn"})
        >>> said_of(proto, "target"), said_of(proto, "recipe")
        ('qnn', None)
    """
    return next((p.value for p in proto.metadata_props if p.key == f"equint.{key}"), None)


def value_info(graph: Graph, name: Name) -> ValueInfoProto:
    """Type and shape of a value as ONNX describes it."""
    element = getattr(TensorProto, _ONNX_TYPES.get(graph.dtypes.get(name, "float32"), "FLOAT"))
    return helper.make_tensor_value_info(name, element, graph.shapes.get(name))


def lowered(graph: Graph) -> Graph:
    """The same network in plain ONNX: Clip with a bound per channel as Max and Min, MatMul with bias as Add, and what
    is newer than the opset in several operators.

    Example:
        >>> node = Node("MatMul", ("x", "w", "b"), ("y",))
        >>> [n.op for n in lowered(Graph((node,), {"b": np.ones(2)}, ("x",), ("y",))).nodes]
        ['MatMul', 'Add']
    """
    nodes, graph = list[Node](), without_newer(graph)
    for node in graph.nodes:
        if node.op == "MatMul" and len(node.inputs) == 3 and not node.domain:
            product = graph.fresh(f"{node.outputs[0]}_product")
            nodes.append(replace(node, inputs=node.inputs[:2], outputs=(product,)))
            nodes.append(Node("Add", (product, node.inputs[2]), node.outputs, name=node.name and f"{node.name}_bias"))
        elif node.op == "Clip" and any(
            (bound := graph.constant(i)) is not None and bound.size > 1 for i in node.inputs[1:]
        ):
            nodes.extend(_clip(graph, node))
        else:
            nodes.append(node)
    return graph if nodes == list(graph.nodes) else graph.with_nodes(nodes)


def _clip(graph: Graph, node: Node) -> list[Node]:
    steps = [(op, i) for op, i in zip(("Max", "Min"), node.inputs[1:], strict=False) if i]
    value, nodes = node.inputs[0], []
    for k, (op, bound) in enumerate(steps):
        out = node.outputs[0] if k == len(steps) - 1 else graph.fresh(f"{node.outputs[0]}_{op.lower()}")
        zero = graph.constant(bound)
        if op == "Max" and zero is not None and not np.any(zero):
            nodes.append(Node("Relu", (value,), (out,), name=node.name and f"{node.name}_relu"))
        else:
            nodes.append(Node(op, (value, bound), (out,), name=node.name and f"{node.name}_{op.lower()}"))
        value = out
    return nodes


def _node(node: Node) -> onnx.NodeProto:
    proto = helper.make_node(node.op, node.inputs, node.outputs, node.name or None, domain=node.domain or None)
    proto.attribute.extend(_attributes(node))
    return proto


def _attributes(node: Node) -> Iterable[AttributeProto]:
    for key, value in sorted(node.attrs.items()):
        if isinstance(value, np.ndarray):
            value = numpy_helper.from_array(value)
        if isinstance(value, (list, tuple)) and not value:
            yield helper.make_attribute(key, value, attr_type=AttributeProto.INTS)
        else:
            yield helper.make_attribute(key, value)


_ONNX_TYPES = {
    "float32": "FLOAT", "float64": "DOUBLE", "float16": "FLOAT16", "bfloat16": "BFLOAT16", "int8": "INT8",
    "uint8": "UINT8", "int16": "INT16", "uint16": "UINT16", "int32": "INT32", "int64": "INT64",
    "uint32": "UINT32", "uint64": "UINT64", "bool": "BOOL", "str": "STRING",
}  # fmt: skip


def beside(path: str | os.PathLike[str]) -> Path:
    """The file that holds the constants of a model too large for one.

    Example:
        >>> beside("out/net.onnx").name
        'net.onnx.data'
    """
    target = Path(path).resolve()
    return target.with_name(f"{target.name}.data")


def save_proto(proto: ModelProto, path: str | os.PathLike[str], external_above: int = EXTERNAL_ABOVE) -> None:
    """Write a model; constants above `external_above` bytes go to `<name>.data` beside it.

    Everything is written under temporary names in the same folder and renamed, so no half-written model
    exists.

    Raises:
        EquintError: the folder does not exist or cannot be written.
    """
    with drafted_together(parts(proto, path, external_above)) as drafts:
        put(proto, *drafts)


def parts(proto: ModelProto, path: str | os.PathLike[str], external_above: int = EXTERNAL_ABOVE) -> tuple[Path, ...]:
    """The files of a model: one, or two where its constants take more than so many bytes."""
    size = sum(len(t.raw_data) for t in proto.graph.initializer)
    return (Path(path), beside(path)) if size > external_above else (Path(path),)


def put(proto: ModelProto, draft: Path, data: Path | None = None) -> None:
    """Write a model to a draft, its constants to another where there is one."""
    if data is None:
        draft.write_bytes(proto.SerializeToString())
        return
    copy = ModelProto()  # save_model moves the constants out of what it is given
    copy.CopyFrom(proto)
    onnx.save_model(copy, draft, save_as_external_data=True, location=data.name, size_threshold=1024)
