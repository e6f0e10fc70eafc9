"""From an ONNX file of any exporter to a `Graph` with constants folded, shapes known and few surprises."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, helper, numpy_helper

from ..errors import InvalidOption, UnknownName, UnreadableModel
from ..files import is_bundle, readable
from ..graph.inputs import CHANNELS, describe_pixels, is_picture, layout_of
from ..ir.events import Event, EventKind
from ..ir.model import Array, Graph, Model, Name, Node, Shape, frozen
from ..tflite.reader import is_tflite, load_tflite, told_preparation
from .agreement import check_agreement
from .branches import branches_taken
from .canonical import canonical, padded_outputs, ranked_scans
from .folding import folded, static_reshapes
from .functions import inlined
from .fusions import taken_apart
from .heads import heads_apart
from .masks import masks_bounded
from .picks import picks_of_parts
from .pieces import put_together
from .shapes import described, infer_shapes
from .validity import check_inputs, check_names, check_operators, check_texts, check_weights, check_windows

OLDEST, NATIVE = 7, 13
MOST = (1 << 31) - 1
"""Bytes of a model file: protobuf takes no more; larger weights lie in files of their own."""
_ALREADY_INTEGER = frozenset(
    ["QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger"]
)


def read(source: str | os.PathLike[str] | ModelProto) -> Model:
    """Read a float network.

    Opsets before 13 are converted, local functions inlined, constants folded (shape arithmetic included),
    Identity and Dropout removed, Gemm and MatMul brought to one form and zero Pads merged into convolutions.

    Args:
        source: path of an .onnx or .tflite file, or a loaded ONNX model.

    Raises:
        EquintError: no such file, not ONNX, truncated, missing external data, unsupported opset, already
            quantized, or weights that are not finite.

    Example:
        >>> from equint.onnx.writer import to_proto
        >>> from equint.ops.layers import tiny_graph
        >>> read(to_proto(tiny_graph())).graph.nodes[0].op
        'Conv'
    """
    label = "model" if isinstance(source, ModelProto) else os.fspath(source)
    proto = source if isinstance(source, ModelProto) else load_proto(source)
    check_texts(proto, label)
    if not proto.graph.node:
        raise UnreadableModel(f"{label}: no operators in it; is it an ONNX model? Export it again")
    proto = _modern(proto, label)
    check_float(proto, label)
    check_operators(proto, label)
    written = decode(proto, label)
    check_names(written, label)
    check_windows(written, label)
    check_agreement(written, label)
    graph = masks_bounded(settled(taken_apart(written)))
    check_names(graph, label)
    check_inputs(graph, label)
    check_weights(graph, label)
    found = Model(graph, source="" if isinstance(source, ModelProto) else os.path.abspath(source))
    found = found.noted(Event(EventKind.READ, label, {"nodes": len(graph.nodes), "opset": graph.opset}, "read"))
    return _prepared(found, proto)


def _prepared(model: Model, proto: ModelProto) -> Model:
    """The network with what a TFLite file says of pixels that its only input is made of."""
    told, (name, *others) = told_preparation(proto), model.graph.inputs
    if told is None or others or not model.graph.is_float(name) or not is_picture(model.graph.shapes.get(name)):
        return model
    channels = model.graph.shapes[name][CHANNELS[layout_of(model.graph.shapes[name])]]
    return describe_pixels(model, *told, source="as the file says") if len(told[0]) in (1, channels) else model


def settled(graph: Graph, shapes: Mapping[Name, Shape] | None = None, fold: bool = True) -> Graph:
    """Constants folded, branches taken that are known, what does nothing left out, operators in one form.

    Args:
        shapes: of tensors, beside those that inference finds.
        fold: whether sizes may become constants.

    Example:
        >>> from .folding import Node
        >>> graph = Graph((Node("Identity", ("x",), ("y",)), Node("Relu", ("y",), ("z",))), {}, ("x",), ("z",))
        >>> [node.op for node in settled(graph).nodes]
        ['Relu']
    """
    shapes = shapes or {}
    told, graph = graph.shapes, infer_shapes(graph, shapes)
    if fold:
        while (padded := padded_outputs(graph)) is not graph:  # what was inferred behind them may be wrong
            told = {name: shape for name, shape in told.items() if name not in graph.outputs}
            graph = infer_shapes(replace(padded, shapes=told), shapes)
        graph = folded(graph)
        while (taken := branches_taken(graph, _body)) is not graph:
            graph = folded(infer_shapes(taken, shapes))
        graph = infer_shapes(_without_dead(_without_identity(graph)), shapes)
        picked = picks_of_parts(graph)
        if picked is not graph:
            graph = infer_shapes(_without_dead(_without_identity(picked)), shapes)
        graph = infer_shapes(_without_dead(static_reshapes(graph)), shapes)
    graph = infer_shapes(canonical(put_together(_without_dead(graph))), shapes)
    cut = heads_apart(graph)
    return ranked_scans(graph if cut is graph else infer_shapes(cut, shapes))


def with_shapes(model: Model, shapes: Mapping[Name, Shape], fold: bool = True) -> Model:
    """The network settled with what is known of its tensors' shapes; arguments as for `settled`."""
    inputs = {name: shapes[name] for name in model.graph.inputs if name in shapes}
    graph = replace(model.graph, shapes={**model.graph.shapes, **inputs})
    return replace(model, graph=settled(graph, shapes, fold))


def with_constants(model: Model, values: Mapping[Name, Any]) -> Model:
    """The network with some of its inputs as constants, and what hangs on them folded.

    Args:
        values: numbers, or arrays of the inputs' shapes.

    Raises:
        UnknownName: no such input. InvalidOption: a value that the input cannot take.

    Example:
        >>> from .folding import Node
        >>> nodes = Node("Mul", ("k", "k"), ("kk",)), Node("Mul", ("x", "kk"), ("y",))
        >>> model = Model(Graph(nodes, {}, ("x", "k"), ("y",), {"x": ("N", 2), "k": ()}))
        >>> fixed = with_constants(model, {"k": 3}).graph
        >>> fixed.inputs, float(fixed.consts["kk"])
        (('x',), 9.0)
    """
    graph, made = model.graph, dict[Name, Array]()
    for name, value in values.items():
        if name not in graph.inputs:
            raise UnknownName(f"set {name}: the network has no such input; it has {', '.join(graph.inputs)}")
        made[name] = _as_input(graph, name, value)
    if not made:
        return model
    left = tuple(n for n in graph.inputs if n not in made)
    if not left:
        raise InvalidOption("set: every input of the network becomes a constant; leave one")
    graph = replace(graph, inputs=left, consts={**graph.consts, **{n: frozen(a) for n, a in made.items()}})
    return replace(model, graph=settled(graph))


def _as_input(graph: Graph, name: Name, value: Any) -> Array:
    wanted, dtype = graph.shapes.get(name), graph.dtypes.get(name, "float32")
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "biuf":
            raise TypeError("give real numbers")
        if not array.size and 0 not in (wanted or ()):
            raise ValueError("it holds nothing")
        cast = array.astype(dtype)
        if not np.allclose(cast.astype(np.float64), array.astype(np.float64)):
            raise ValueError(f"it takes {dtype}")
        if wanted is not None and cast.ndim != len(wanted):
            cast = _filling(cast, wanted)
    except (TypeError, ValueError) as error:
        raise InvalidOption(f"set {name} = {value!r}: the input cannot take it ({error})") from error
    fixed = wanted or ()
    if any(isinstance(n, int) and n != have for n, have in zip(fixed, cast.shape, strict=True) if wanted is not None):
        raise InvalidOption(f"set {name}: shape {cast.shape}, and the input takes {tuple(fixed)}")
    return np.ascontiguousarray(cast).reshape(cast.shape)


def _filling(values: Array, wanted: Shape) -> Array:
    """Numbers in an input's shape: for one sample, the last size that is free being as many as there are.

    Example:
        >>> _filling(np.arange(3), ("N", "L")).shape, _filling(np.array(1), ("N", 2)).shape
        ((1, 3), (1, 2))
    """
    free = max((axis for axis, n in enumerate(wanted) if axis and not isinstance(n, int)), default=0)
    sizes = [n if isinstance(n, int) else 1 for n in wanted]
    if values.size == 1:
        return np.broadcast_to(values, sizes)
    try:
        return values.reshape([-1 if free and axis == free else n for axis, n in enumerate(sizes)])
    except ValueError as error:
        asked = ", ".join(str(n or "?") for n in wanted)
        raise ValueError(f"{values.size} numbers do not make one sample of shape ({asked})") from error


def check_float(proto: ModelProto, label: str) -> None:
    """Refuse a network that is quantized already.

    Raises:
        UnreadableModel: naming the node that tells.
    """
    for node in proto.graph.node:
        if node.op_type in _ALREADY_INTEGER:
            raise UnreadableModel(f"{label}: already quantized ({node.op_type} {node.name}); give the float model")


def load_proto(path: str | os.PathLike[str]) -> ModelProto:
    """An ONNX file as it stands, quantized or not, external data included; a float TFLite file as ONNX."""
    path = Path(path)
    readable(path, UnreadableModel, "file", MOST)
    if is_tflite(path):
        return load_tflite(path)
    try:
        proto = onnx.load(path, load_external_data=False)
    except Exception as error:
        if is_bundle(path):
            raise UnreadableModel(f"{path}: a bundle is quantized already; give the float ONNX network") from error
        if str(path).endswith(".toml"):
            raise UnreadableModel(
                f"{path}: a card or recipe; give the ONNX network, and this with --card or --recipe"
            ) from error
        raise UnreadableModel(f"{path}: not an ONNX model, or a truncated one; export it again") from error
    try:
        for file in external_files(path):
            readable(file, UnreadableModel, "file of weights")
        onnx.load_external_data_for_model(proto, str(path.parent))
    except Exception as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise UnreadableModel(
            f"{path}: external data is missing or damaged ({reason}); copy it beside the model"
        ) from error
    return proto


def external_files(path: str | os.PathLike[str]) -> set[Path]:
    """The files in which an ONNX file keeps its weights; none where it is no ONNX file."""
    try:
        proto = onnx.load(path, load_external_data=False)
    except Exception:
        return set()  # who reads it says what is wrong
    tensors = [*proto.graph.initializer, *(a.t for node in proto.graph.node for a in node.attribute)]
    named = (entry.value for tensor in tensors for entry in tensor.external_data if entry.key == "location")
    return {(Path(path).parent / name).resolve() for name in named}


def _modern(proto: ModelProto, label: str) -> ModelProto:
    proto = inlined(proto, label)
    version = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), None)
    if version is None:
        raise UnreadableModel(f"{label}: names no ONNX operator set; export it again")
    if version >= NATIVE:
        return proto
    if version < OLDEST:
        raise UnreadableModel(f"{label}: opset {version} is too old to convert; export it with opset 13 or newer")
    from onnx import version_converter

    modern = ModelProto()
    modern.CopyFrom(proto)
    modern.ir_version = max(proto.ir_version, 4)  # before 4, constants had to be listed as inputs too
    try:
        return _as_before_11(version_converter.convert_version(modern, NATIVE), version)
    except Exception as error:
        reason = str(error).strip().splitlines()[-1][:200]
        raise UnreadableModel(
            f"{label}: opset {version} could not be converted ({reason}); export it with opset 13 or newer"
        ) from error


def _as_before_11(proto: ModelProto, version: int) -> ModelProto:
    """Upsample and Resize had no coordinate modes before opset 11: x_in = x_out / scale, nearest rounded down."""
    modes = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    for node in proto.graph.node if version < 11 else ():
        if node.op_type == "Resize" and node.domain in ("", "ai.onnx"):
            kept = [a for a in node.attribute if a.name not in modes]
            del node.attribute[:]
            node.attribute.extend([*kept, *(helper.make_attribute(k, v) for k, v in modes.items())])
    return proto


def decode(proto: ModelProto, label: str) -> Graph:
    """The operators and constants of a model that names its operator set, as they stand: nothing is folded."""
    nodes, consts = _body(proto.graph, label)
    opset = next(o.version for o in proto.opset_import if o.domain in ("", "ai.onnx"))
    return Graph(
        tuple(nodes),
        {n: frozen(a) for n, a in consts.items()},
        tuple(i.name for i in proto.graph.input if i.name not in consts),
        tuple(o.name for o in proto.graph.output),
        *described(proto),
        opset,
        {o.domain: o.version for o in proto.opset_import if o.domain not in ("", "ai.onnx")},
        proto.graph.name or "equint",
    )


def _body(graph: GraphProto, label: str = "model") -> tuple[list[Node], dict[Name, Array]]:
    """Nodes and constants of a network, or of a branch of one."""
    twice = next((n for n, count in Counter(t.name for t in graph.initializer).items() if count > 1), None)
    if twice is not None:
        raise UnreadableModel(f"{label}: two constants are called {twice}; export it again")
    consts = {tensor.name: _array(tensor, label) for tensor in graph.initializer}
    consts |= {sparse.values.name: _dense(sparse, label) for sparse in graph.sparse_initializer}
    nodes = []
    for node in graph.node:
        attrs = {a.name: _attribute(a) for a in node.attribute}
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
            if len(node.output) != 1 or len(attrs) != 1:
                where = node.name or ", ".join(node.output) or "without a name"
                raise UnreadableModel(
                    f"{label}: Constant {where}: one value and one output belong to it; export it again"
                )
            consts[node.output[0]] = _constant(attrs, label)
            continue
        domain = "" if node.domain == "ai.onnx" else node.domain
        if node.op_type == "Cast" and not domain and attrs.get("to") == TensorProto.BFLOAT16:
            attrs["to"] = int(TensorProto.FLOAT)
        captured = tuple(dict.fromkeys(_captured(node.attribute)))
        nodes.append(Node(node.op_type, tuple(node.input), tuple(node.output), attrs, node.name, domain, captured))
    return nodes, consts


def _array(tensor: onnx.TensorProto, label: str) -> Array:
    try:
        if any(n < 0 for n in tensor.dims):
            raise ValueError("sizes below 0")
        array = numpy_helper.to_array(tensor)
        # what is stored as bfloat16 is a float32 with half its digits cut off: NumPy computes with the whole
        return array.astype(np.float32) if tensor.data_type == TensorProto.BFLOAT16 else array
    except Exception as error:
        raise UnreadableModel(f"{label}: constant {tensor.name} is damaged; export the model again") from error


def _dense(sparse: onnx.SparseTensorProto, label: str) -> Array:
    """A sparse constant, all its zeros spelled out."""
    values, indices = _array(sparse.values, label), _array(sparse.indices, label)
    dense = np.zeros(tuple(sparse.dims), values.dtype)
    try:
        if indices.size and indices.min() < 0:
            raise IndexError("indices count from 0")
        if indices.ndim == 2:
            dense[tuple(indices.T)] = values
        else:
            dense.reshape(-1)[indices] = values
    except (IndexError, ValueError) as error:
        raise UnreadableModel(
            f"{label}: sparse constant {sparse.values.name} is damaged; export the model again"
        ) from error
    return dense


def _constant(attrs: Mapping[str, Any], label: str) -> Array:
    key, value = next(iter(attrs.items()))
    if key == "value":
        return _array(value, label)
    if key == "sparse_value":
        return _dense(value, label)
    if key.startswith("value_float"):
        return np.asarray(value, np.float32)
    if key.startswith("value_int"):
        return np.asarray(value, np.int64)
    if key.startswith("value_string"):
        return np.asarray(value, np.str_)
    raise UnreadableModel(f"{label}: a Constant holds {key}, which is not supported; make it dense")


def _attribute(attribute: AttributeProto) -> Any:
    value = helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, (str, int, float)) or hasattr(value, "SerializeToString"):
        return value
    return [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in value]


def _captured(attributes: Iterable[AttributeProto]) -> Iterable[Name]:
    """Names that subgraphs read from outside."""
    for attribute in attributes:
        for sub in [attribute.g] if attribute.type == AttributeProto.GRAPH else attribute.graphs:
            own = {v.name for v in (*sub.input, *sub.initializer)} | {o for n in sub.node for o in n.output}
            wanted = [i for n in sub.node for i in (*n.input, *_captured(n.attribute))] + [o.name for o in sub.output]
            yield from (name for name in wanted if name and name not in own)


def _without_identity(graph: Graph) -> Graph:
    """Identity, inference-time Dropout and Casts to the type at hand removed, their readers reading the source."""
    source: dict[Name, Name] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        node = replace(node, inputs=tuple(source.get(i, i) for i in node.inputs))
        masked = any(graph.users(o) or o in graph.outputs for o in node.outputs[1:] if o)
        idle = node.op == "Identity" or (node.op == "Dropout" and not masked) or _casts_to_itself(graph, node)
        out = node.outputs[0]
        captured = any(out in user.captured for user in graph.users(out))
        if idle and not node.domain and out not in graph.outputs and not captured:
            source[out] = node.inputs[0]
        else:
            nodes.append(node)
    return graph.with_nodes(nodes)


def _casts_to_itself(graph: Graph, node: Node) -> bool:
    to = node.attrs.get("to") if node.op == "Cast" else None
    return to is not None and graph.dtypes.get(node.inputs[0]) == str(np.dtype(helper.tensor_dtype_to_np_dtype(to)))


def _without_dead(graph: Graph) -> Graph:
    """Nodes that no output depends on removed."""
    wanted, kept = set(graph.outputs), []
    for node in reversed(graph.nodes):
        if any(o in wanted for o in node.outputs):
            wanted.update(node.reads)
            kept.append(node)
    return graph.with_nodes(reversed(kept))
