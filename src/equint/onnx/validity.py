"""Whether a network can be what it says it is: established once, when it is read, node by node."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto

from ..errors import UnreadableModel
from ..graph.verify import disorder
from ..ir.model import Graph, Node

NEWEST = onnx.defs.onnx_opset_version()
WIDEST_PAD = 1 << 16
"""No window is padded by more: what it makes would fit into no memory."""
_ONNX = ("", "ai.onnx")
_AUTO_PADS = ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")
_WINDOWS = ("Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool")
_CONVOLUTIONS = ("Conv", "ConvTranspose")


def check_texts(proto: ModelProto, label: str) -> None:
    """Names are texts, in UTF-8, as ONNX has it; protobuf finds out only when they are asked for.

    Raises:
        UnreadableModel: naming the first that is none, by its place.
    """
    waiting: list[tuple[str, Any]] = [("model", proto)]
    while waiting:
        where, message = waiting.pop()
        if isinstance(message, TensorProto):  # whose values are many, and no texts
            parts: list[tuple[Any, Any]] = [(None, message.external_data)]
            texts: list[Any] = [message.name]
        else:
            fields = message.ListFields()
            parts = [(field, value) for field, value in fields if field.message_type is not None]
            told = [value for field, value in fields if field.type == field.TYPE_STRING]
            texts = [text for value in told for text in ([value] if isinstance(value, (str, bytes)) else value)]
        if any(isinstance(text, bytes) for text in texts):  # what protobuf gives in the place of what is none
            raise UnreadableModel(f"{label}: a name in {where} that is not UTF-8; export it again")
        for field, value in parts:
            each = value if isinstance(value, Sequence) or hasattr(value, "add") else [value]
            named = where if field is None else field.name
            waiting += [(f"{named} {k + 1}" if len(each) > 1 else named, one) for k, one in enumerate(each)]


def check_operators(proto: ModelProto, label: str) -> None:
    """Every operator against ONNX's own description: that it exists, its inputs, outputs and attributes.

    Operators of other domains are left to the runtime.

    Raises:
        UnreadableModel: naming the first that does not fit, and why.

    Example:
        >>> from onnx import helper
        >>> graph = helper.make_graph([helper.make_node("Frobnicate", ["x"], ["y"], "first")], "net", [], [])
        >>> check_operators(helper.make_model(graph), "net.onnx")
        Traceback (most recent call last):
        ...
        equint.errors.UnreadableModel: net.onnx: Frobnicate first: no operator of ONNX's; export it again
    """
    opset = next((o.version for o in proto.opset_import if o.domain in _ONNX), NEWEST)
    if opset > NEWEST:
        raise UnreadableModel(f"{label}: opset {opset} is newer than any known here ({NEWEST}); export it with that")
    for node in proto.graph.node:
        wrong = next(_wrong_operator(node, opset), None) if node.domain in _ONNX else None
        if wrong is not None:
            where = node.name or f"that makes {', '.join(node.output)}"
            raise UnreadableModel(f"{label}: {node.op_type or 'node'} {where}: {wrong}; export it again")


def _wrong_operator(node: NodeProto, opset: int) -> Iterator[str]:
    if not onnx.defs.has(node.op_type, max_inclusive_version=opset):
        later = onnx.defs.has(node.op_type)
        since = f", which has it from opset {onnx.defs.get_schema(node.op_type).since_version} on" if later else ""
        yield f"no operator of ONNX's{f' opset {opset}' if later else ''}{since}"
        return
    schema = onnx.defs.get_schema(node.op_type, opset)
    for many, least, most, what in (
        (node.input, schema.min_input, schema.max_input, "inputs"),
        (node.output, schema.min_output, schema.max_output, "outputs"),
    ):
        if not least <= len(many) <= most:
            yield f"{len(many)} {what} where it takes {least if least == most else f'{least} to {most}'}"
    given = {a.name: a for a in node.attribute}
    for name, attribute in given.items():
        known = schema.attributes.get(name)
        if known is None:
            yield f"no attribute {name} in opset {opset}"
        elif AttributeProto.AttributeType.Name(attribute.type) != (wanted := str(known.type).rpartition(".")[2]):
            yield f"attribute {name} is no {wanted}"
    for name, known in schema.attributes.items():
        if known.required and name not in given:
            yield f"attribute {name} is missing"


def check_names(graph: Graph, label: str) -> None:
    """A network has inputs and outputs with names, and each value is made once, before it is read.

    Raises:
        UnreadableModel: naming the value, and the node that reads or makes it.

    Example:
        >>> check_names(Graph((), {}, (), ("y",)), "net.onnx")
        Traceback (most recent call last):
        ...
        equint.errors.UnreadableModel: net.onnx: no input, so that all it gives is constant; export it again
    """
    wrong = next(_wrong_names(graph), None)
    if wrong is not None:
        raise UnreadableModel(f"{label}: {wrong}; export it again")


def _wrong_names(graph: Graph) -> Iterator[str]:
    if not graph.inputs:
        yield "no input, so that all it gives is constant"
    if not graph.outputs:
        yield "no output"
    for names, what in ((graph.inputs, "an input"), (graph.outputs, "an output")):
        if not all(names):
            yield f"{what} has no name"
    twice = next((name for k, name in enumerate(graph.inputs) if name in graph.inputs[:k]), None)
    if twice is not None:
        yield f"two inputs are called {twice}"
    yield from disorder(graph)


def check_windows(graph: Graph, label: str) -> None:
    """What convolutions and pools say of their windows: as many numbers as dimensions, each in its bounds.

    Raises:
        UnreadableModel: naming node and attribute.

    Example:
        >>> node = Node("MaxPool", ("x",), ("y",), {"kernel_shape": [2, 2], "strides": [0, 1]}, name="pool")
        >>> check_windows(Graph((node,), {}, ("x",), ("y",)), "net.onnx")
        Traceback (most recent call last):
        ...
        equint.errors.UnreadableModel: net.onnx: MaxPool pool: strides [0, 1], which begin at 1; export it again
    """
    for node in graph.nodes:
        if node.op in _WINDOWS and not node.domain:
            for wrong in _wrong_windows(graph, node):
                raise UnreadableModel(f"{label}: {node.op} {node.label}: {wrong}; export it again")


def _wrong_windows(graph: Graph, node: Node) -> Iterator[str]:
    weight = graph.constant(node.inputs[1]) if node.op in _CONVOLUTIONS and len(node.inputs) > 1 else None
    attributes: Mapping[str, Sequence[int]] = {
        key: list(map(int, node.attrs[key])) for key in _ENDS if key in node.attrs and np.ndim(node.attrs[key]) == 1
    }
    kernel = attributes.get("kernel_shape", ())
    sizes = list(weight.shape[2:]) if weight is not None else list(kernel)
    for key, values in attributes.items():
        least, most = _ENDS[key]
        count = len(sizes) * (2 if key == "pads" else 1)
        if sizes and len(values) != count:
            yield f"{key} {list(values)} for {len(sizes)} dimensions, which take {count} numbers"
        if any(v < least for v in values):
            yield f"{key} {list(values)}, which begin at {least}"
        if any(v > most for v in values):
            yield f"{key} {list(values)}, which end at {most}"
    padding = node.attrs.get("auto_pad", "NOTSET")
    padding = padding.decode("utf-8", "replace") if isinstance(padding, bytes) else str(padding)
    if padding not in _AUTO_PADS:
        yield f"auto_pad {padding!r}, which is one of {', '.join(_AUTO_PADS)}"
    if weight is not None:
        yield from _wrong_weights(graph, node, weight, kernel)


def _wrong_weights(graph: Graph, node: Node, weight: Any, kernel: Sequence[int]) -> Iterator[str]:
    groups, shape = int(node.attrs.get("group", 1)), graph.shapes.get(node.inputs[0])
    if weight.size == 0 or weight.ndim < 3 or groups < 1 or weight.shape[0] % groups:
        yield f"weights {weight.shape} in {groups} groups"
    if kernel and tuple(kernel) != weight.shape[2:]:
        yield f"kernel_shape {list(kernel)} for weights {weight.shape}"
    read = weight.shape[1] * groups if node.op == "Conv" else weight.shape[0]
    if shape is not None and len(shape) != weight.ndim:
        yield f"input {node.inputs[0]} of {len(shape)} dimensions for weights {weight.shape}"
    elif shape is not None and isinstance(shape[1], int) and shape[1] != read:
        yield f"input {node.inputs[0]} of {shape[1]} channels for weights {weight.shape} in {groups} groups"


_ENDS = {
    "kernel_shape": (1, WIDEST_PAD),
    "strides": (1, WIDEST_PAD),
    "dilations": (1, WIDEST_PAD),
    "pads": (0, WIDEST_PAD),
    "output_padding": (0, WIDEST_PAD),
}
"""Least and largest value of each attribute of a window."""


def check_inputs(graph: Graph, label: str) -> None:
    """Inputs have shapes, and what reads them agrees with these.

    Raises:
        UnreadableModel: naming the input, or the node.
    """
    for name in graph.inputs:
        if graph.is_float(name) and graph.rank(name) is None:
            raise UnreadableModel(f"{label}: input {name} has no shape; export it with one (symbolic sizes will do)")
    check_windows(graph, label)


def check_weights(graph: Graph, label: str) -> None:
    """Constants are finite, and those of layers float32 and not empty.

    Raises:
        UnreadableModel: naming the constant and who reads it.
    """
    for name, array in graph.consts.items():
        if array.dtype.kind != "f":
            continue
        user = next(iter(graph.users(name)), None)
        where = f"{user.op} {user.label}" if user else "the output"
        if np.isnan(array).any() or (array.size > 1 and np.isinf(array).any()):
            raise UnreadableModel(f"{label}: {name} of {where} holds NaN or infinite values; train or export it again")
        if user is None or user.domain or user.op not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            continue
        if array.size == 0:
            raise UnreadableModel(f"{label}: {name} of {where} holds nothing, shape {array.shape}; export it again")
        if array.dtype != np.float32:
            raise UnreadableModel(f"{label}: {name} of {where} is {array.dtype}; convert the model to float32 first")
