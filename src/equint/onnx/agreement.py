"""Whether a network's shapes agree from node to node, and its tensors fit into memory: before anything is folded."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import onnx

from ..errors import UnreadableModel, reason
from ..ir.model import Graph, Node, Shape
from .newer import passed_through
from .writer import to_proto

LARGEST = 1 << 30
"""Bytes of the largest tensor that a network may have for one batch of its own."""
_NODE = re.compile(r"\(op_type:(?P<op>[^,)]*)(?:, node name: (?P<name>.*?))?\): ?(?:\[\w+\] ?)?(?P<why>.*)")


def check_agreement(graph: Graph, label: str) -> None:
    """ONNX's own inference goes through, node by node, from the inputs' shapes alone.

    Raises:
        UnreadableModel: naming the first node that does not fit, and why.

    Example:
        >>> node = Node("Concat", ("x", "x"), ("y",), {"axis": 9}, name="join")
        >>> check_agreement(Graph((node,), {}, ("x",), ("y",), {"x": (1, 3)}), "net.onnx")
        Traceback (most recent call last):
        ...
        equint.errors.UnreadableModel: net.onnx: Concat join: axis must be in [-rank, rank-1].; export it again
    """
    inputs = {name: graph.shapes[name] for name in graph.inputs if name in graph.shapes}
    proto = to_proto(passed_through(replace(graph, shapes=inputs)), weightless=True)
    try:
        found = onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    except Exception as error:
        known = _NODE.search(" ".join(str(error).split()))
        if known and "(op_type:" in known["why"]:  # in what ONNX writes an operator in: no mistake of the network's
            return
        where = f"{known['op']} {known['name'] or ''}".strip() + f": {known['why']}" if known else reason(error)
        raise UnreadableModel(f"{label}: {where[:300].strip()}; export it again") from error
    described = [*found.graph.value_info, *found.graph.output]
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in described}
    _check_sizes(graph, {**{n: tuple(s) for n, s in shapes.items()}, **inputs}, label)


def _check_sizes(graph: Graph, shapes: dict[str, Shape], label: str) -> None:
    for name in graph.inputs:
        if graph.dtypes.get(name) == "object":
            raise UnreadableModel(f"{label}: input {name} holds texts; export the network behind what reads them")
        if (size := _bytes(shapes.get(name))) > LARGEST:
            raise UnreadableModel(f"{label}: input {name} {_told(size, shapes[name])}")
    for node in graph.nodes:
        for name in node.outputs:
            if (size := _bytes(shapes.get(name))) > LARGEST:
                raise UnreadableModel(f"{label}: {node.op} {node.label}: {name} {_told(size, shapes[name])}")
        wrong = next(_wrong_norm(graph, node), None) or _wrong_places(graph, node, shapes) or _wrong_bias(graph, node)
        if wrong is not None:
            raise UnreadableModel(f"{label}: {node.op} {node.label}: {wrong}; export it again")


def _told(size: float, shape: Shape) -> str:
    sizes = "×".join(str(n or "?") for n in shape)
    return (
        f"takes {size / 2**30:.3g} GiB as {sizes}, of {LARGEST / 2**30:g} at most; "
        "export it for smaller inputs, or with a free batch"
    )


def _bytes(shape: Shape | None) -> float:
    """What a tensor takes as float32; sizes that are free count once."""
    return 4.0 * math.prod(float(n) for n in shape or () if isinstance(n, int) and n > 0)


def _wrong_bias(graph: Graph, node: Node) -> str | None:
    """A Gemm's bias that is not one number for each output."""
    weight, bias = (graph.consts.get(i) for i in (*node.inputs[1:3], "", "")[:2])
    if node.op != "Gemm" or node.domain or weight is None or bias is None or weight.ndim != 2 or not bias.ndim:
        return None
    outputs = weight.shape[0 if node.attrs.get("transB", 0) else 1]
    return None if bias.shape[-1] in (1, outputs) else f"bias {node.inputs[2]} {bias.shape} for {outputs} outputs"


def _wrong_places(graph: Graph, node: Node, shapes: dict[str, Shape]) -> str | None:
    """Places beyond a tensor's end: inference leaves them to the runtime, and folding does not."""
    if node.domain or len(node.inputs) < 2:
        return None
    shape, places = shapes.get(node.inputs[0]), graph.consts.get(node.inputs[1])
    array = graph.consts.get(node.inputs[0])
    shape = array.shape if array is not None else shape
    if node.op != "Gather" or not shape or places is None or not places.size or places.dtype.kind not in "iu":
        return None
    count = shape[int(node.attrs.get("axis", 0)) % len(shape)]
    if isinstance(count, int) and count > 0 and not (-count <= places.min() and places.max() < count):
        return f"place {places.max() if places.max() >= count else places.min()} of {count}"
    return None


def _wrong_norm(graph: Graph, node: Node) -> Iterator[str]:
    """What inference leaves to the runtime: a BatchNorm's constants, one for each channel, and its variance."""
    if node.op != "BatchNormalization" or node.domain:
        return
    constants = {i: graph.consts[i] for i in node.inputs[1:5] if i in graph.consts}
    shape = graph.shapes.get(node.inputs[0])
    counts = {array.shape for array in constants.values()}
    told = shape[1] if shape is not None and len(shape) > 1 and isinstance(shape[1], int) else None
    if len(counts) > 1 or any(len(c) != 1 for c in counts) or (told and counts - {(told,)}):
        sizes = ", ".join(f"{name} {array.shape}" for name, array in constants.items())
        yield f"one number for each {f'of {told} channels' if told else 'channel'} is needed, not {sizes}"
    odd = next((name for name, array in constants.items() if array.dtype.kind != "f"), None)
    if odd is not None:
        yield f"{odd} is {constants[odd].dtype} where floats belong"
    variance, epsilon = constants.get(node.inputs[4]), node.attrs.get("epsilon", 1e-5)
    if not math.isfinite(epsilon):
        yield f"epsilon {epsilon}, which must be finite"
    elif variance is not None and variance.size and not np.min(variance) + epsilon > 0:
        yield f"variance {node.inputs[4]} down to {np.min(variance):g}, which with epsilon {epsilon:g} is not above 0"
