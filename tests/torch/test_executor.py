"""Torch computes what onnxruntime does: operator by operator, random networks, real ones; float and quantized."""

import copy
import os
import pickle
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from numpy.typing import ArrayLike

from equint import load, quantize
from equint.errors import EquintError
from equint.ir.model import Array, Graph, Name, Node
from equint.onnx.qdq import qdq_graph
from equint.onnx.reader import read
from equint.onnx.writer import to_proto
from equint.ops.layers import tiny_graph
from equint.runtime.session import Session, random_inputs
from equint.torch.executor import module, steps
from handwritten import normal
from nets import networks, random_network, sample
from values import assert_close

torch = pytest.importorskip("torch", reason="needs the extra equint[torch]")
torch.set_num_threads(1)

FOLDER = os.environ.get("EQUINT_REAL", "")
IMAGE = normal(2, 6, 7, 9, scale=1)
LINE, CUBE, ROWS = normal(2, 6, 11, scale=1), normal(2, 6, 5, 6, 7, scale=1), normal(4, 6, scale=1)
POSITIVE = np.abs(IMAGE) + np.float32(0.1)


@dataclass(frozen=True)
class Case:
    """One operator, its first input, its further inputs (None: left out) and its attributes."""

    op: str
    x: Array
    consts: tuple[ArrayLike | None, ...]
    attrs: dict[str, Any]
    outputs: int = 1
    opset: int = 17
    dtype: str = "float32"

    def graph(self) -> Graph:
        consts = {f"c{k}": floats(c) for k, c in enumerate(self.consts) if c is not None}
        names = [f"c{k}" if c is not None else "" for k, c in enumerate(self.consts)]
        outputs = tuple(f"y{k}" for k in range(self.outputs))
        node = Node(self.op, ("x", *names), outputs, self.attrs)
        dtypes = {"x": str(self.x.dtype), **dict.fromkeys(outputs, self.dtype)}
        return Graph((node,), consts, ("x",), outputs, {"x": self.x.shape}, dtypes, self.opset)


def floats(value: ArrayLike) -> Array:
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype == np.float64 else array


def case(op: str, x: Array, *consts: ArrayLike | None, **attrs: Any) -> Case:
    own = {k: attrs.pop(k) for k in ("outputs", "opset", "dtype") if k in attrs}
    return Case(op, x, consts, attrs, **own)


def ints(*values: int) -> Array:
    return np.asarray(values, np.int64)


W, DEPTHWISE, GROUPED = normal(4, 6, 3, 3), normal(12, 1, 3, 2), normal(4, 3, 3, 3)
BACK, BACK_GROUPED = normal(6, 4, 3, 3), normal(6, 2, 3, 2)
B = normal(4, scale=1)
CHANNELS = tuple(np.abs(normal(6, seed=s, scale=1)) + 0.1 for s in range(4))
WINDOW = {"kernel_shape": [3, 2], "strides": [2, 2]}
CASES = [
    case("Conv", IMAGE, W),
    case("Conv", IMAGE, W, B, kernel_shape=[3, 3], strides=[2, 1], pads=[1, 2, 1, 2]),
    case("Conv", IMAGE, W, B, pads=[0, 1, 2, 0], dilations=[2, 1]),
    case("Conv", IMAGE, DEPTHWISE, group=6, pads=[1, 1, 1, 1]),
    case("Conv", IMAGE, GROUPED, B, group=2, strides=[2, 2]),
    case("Conv", IMAGE, W, auto_pad="SAME_UPPER", strides=[2, 2]),
    case("Conv", IMAGE, W[:, :, :2], auto_pad="SAME_LOWER"),
    case("Conv", IMAGE, W, auto_pad="VALID"),
    case("Conv", LINE, normal(4, 6, 3), B, pads=[2, 0]),
    case("Conv", CUBE, normal(4, 6, 2, 2, 2), B),
    case("ConvTranspose", IMAGE, BACK),
    case("ConvTranspose", IMAGE, BACK, B, strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1]),
    case("ConvTranspose", IMAGE, BACK_GROUPED, B, group=2, strides=[3, 2], pads=[0, 1, 2, 0]),
    case("ConvTranspose", IMAGE, BACK, dilations=[2, 1]),
    case("ConvTranspose", IMAGE, BACK, strides=[2, 2], auto_pad="SAME_UPPER"),
    case("ConvTranspose", IMAGE, BACK, strides=[2, 2], auto_pad="SAME_LOWER"),
    case("ConvTranspose", IMAGE, BACK, strides=[2, 3], output_shape=[14, 27]),
    case("ConvTranspose", LINE, normal(6, 4, 4), B, strides=[2]),
    case("Gemm", ROWS, normal(6, 3)),
    case("Gemm", ROWS, normal(3, 6), normal(3), transB=1),
    case("Gemm", ROWS, normal(4, 3), normal(1, 3), transA=1, alpha=0.5, beta=2.0),
    case("MatMul", ROWS, normal(6, 3)),
    case("MatMul", ROWS, normal(6, 3), normal(3)),
    case("MatMul", IMAGE, normal(9, 3), normal(3)),
    case("BatchNormalization", IMAGE, *CHANNELS, epsilon=1e-3),
    case("Relu", IMAGE),
    case("Clip", IMAGE, -0.5, 1.0),
    case("Clip", IMAGE, None, 1.0),
    case("Clip", IMAGE, np.zeros(()), CHANNELS[0].reshape(6, 1, 1)),
    case("Clip", IMAGE),
    case("LeakyRelu", IMAGE, alpha=0.2),
    case("LeakyRelu", IMAGE),
    case("PRelu", IMAGE, normal(6, 1, 1)),
    case("PRelu", IMAGE, normal(1)),
    case("Sigmoid", IMAGE),
    case("Tanh", IMAGE),
    case("HardSigmoid", IMAGE),
    case("HardSigmoid", IMAGE, alpha=1 / 6, beta=0.4),
    case("HardSwish", IMAGE),
    case("Softmax", IMAGE),
    case("Softmax", IMAGE, axis=1),
    case("Elu", IMAGE, alpha=0.5),
    case("Softplus", IMAGE),
    case("Exp", IMAGE),
    case("Log", POSITIVE),
    case("Sqrt", POSITIVE),
    case("Erf", IMAGE),
    case("Abs", IMAGE),
    case("Neg", IMAGE),
    case("Floor", IMAGE),
    case("Ceil", IMAGE),
    case("Reciprocal", POSITIVE),
    case("Gelu", IMAGE, opset=20),
    case("Gelu", IMAGE, approximate="tanh", opset=20),
    case("Mish", IMAGE, opset=18),
    case("Add", IMAGE, normal(6, 1, 1)),
    case("Sub", IMAGE, normal(9)),
    case("Mul", IMAGE, normal(2, 6, 1, 1)),
    case("Div", IMAGE, CHANNELS[1].reshape(6, 1, 1)),
    case("Div", ints(7, -7, 9), ints(2, 2, -4), dtype="int64"),
    case("Pow", POSITIVE, 1.5),
    case("Max", IMAGE, 0.1, normal(9)),
    case("Min", IMAGE, 0.1, normal(9)),
    case("Sum", IMAGE, normal(6, 1, 1), normal(9)),
    case("Equal", ints(1, 2), ints(1, 3), dtype="bool"),
    case("Where", np.array([True, False]), normal(3, 2), normal(3, 1)),
    case("Concat", IMAGE, normal(2, 1, 7, 9), axis=1),
    case("Split", IMAGE, ints(2, 4), axis=1, outputs=2),
    case("Split", IMAGE, axis=1, outputs=3),
    case("Split", IMAGE, axis=-2, num_outputs=4, outputs=4, opset=18),
    case("Slice", IMAGE, ints(1, 8), ints(1 << 62, 0), ints(1, 3), ints(2, -3)),
    case("Slice", IMAGE, ints(-3), ints(-1), ints(2)),
    case("Slice", IMAGE, ints(0, 1), ints(1, 4)),
    case("Slice", IMAGE, ints(-1), ints(-(1 << 62)), ints(1), ints(-1)),
    case("Pad", IMAGE, ints(0, 0, 1, 2, 0, 3, 0, 1)),
    case("Pad", IMAGE, ints(0, 0, 1, -2, 0, 0, 0, 1), 0.5),
    case("Pad", IMAGE, ints(1, 2, 0, 1), None, ints(2, -1), mode="reflect", opset=18),
    case("Pad", IMAGE, ints(0, 0, 1, 2, 0, 0, 0, 1), mode="edge"),
    case("MaxPool", IMAGE, **WINDOW),
    case("MaxPool", IMAGE, **WINDOW, pads=[1, 0, 2, 1], ceil_mode=1),
    case("MaxPool", IMAGE, **WINDOW, dilations=[2, 3], ceil_mode=1),
    case("MaxPool", IMAGE, **WINDOW, auto_pad="SAME_UPPER"),
    case("MaxPool", LINE, kernel_shape=[3]),
    case("AveragePool", IMAGE, **WINDOW),
    case("AveragePool", IMAGE, **WINDOW, pads=[1, 0, 1, 1]),
    case("AveragePool", IMAGE, **WINDOW, pads=[1, 0, 1, 1], count_include_pad=1),
    case("AveragePool", IMAGE, **WINDOW, ceil_mode=1),
    case("AveragePool", IMAGE, **WINDOW, pads=[1, 1, 1, 1], ceil_mode=1),
    case("AveragePool", IMAGE, **WINDOW, pads=[1, 1, 1, 1], ceil_mode=1, count_include_pad=1, opset=19),
    case("AveragePool", IMAGE, **WINDOW, auto_pad="SAME_LOWER"),
    case("GlobalAveragePool", IMAGE),
    case("GlobalAveragePool", LINE),
    case("GlobalMaxPool", IMAGE),
    case("ReduceMean", IMAGE, axes=[2, 3], keepdims=0),
    case("ReduceMean", IMAGE, ints(-1, 1), opset=18),
    case("ReduceMean", IMAGE),
    case("ReduceMax", IMAGE, axes=[1]),
    case("ReduceMin", IMAGE, axes=[1]),
    case("ReduceSum", IMAGE, ints(1), keepdims=0),
    case("ReduceSum", IMAGE, noop_with_empty_axes=1),
    case("Reshape", IMAGE, ints(0, -1, 9)),
    case("Flatten", IMAGE),
    case("Flatten", IMAGE, axis=-1),
    case("Transpose", IMAGE, perm=[0, 2, 3, 1]),
    case("Transpose", IMAGE),
    case("Squeeze", IMAGE[:, :1], ints(1)),
    case("Squeeze", IMAGE[:1, :1]),
    case("Unsqueeze", IMAGE, ints(0, -1)),
    case("Expand", IMAGE[:, :1], ints(1, 5, 1, 1)),
    case("Gather", IMAGE, ints(2, -1, 2), axis=1),
    case("Gather", IMAGE, np.asarray(3), axis=-1),
    case("Shape", IMAGE, dtype="int64"),
    case("Shape", IMAGE, start=1, end=-1, dtype="int64"),
    case("Cast", IMAGE, to=onnx.TensorProto.INT64, dtype="int64"),
    case("ConstantOfShape", ints(2, 3)),
    case("ConstantOfShape", ints(2), value=onnx.numpy_helper.from_array(ints(7)), dtype="int64"),
    case("DepthToSpace", normal(2, 12, 3, 4), blocksize=2),
    case("DepthToSpace", normal(2, 12, 3, 4), blocksize=2, mode="CRD"),
    case("Identity", IMAGE),
    case("Dropout", IMAGE),
    *(
        case("Resize", IMAGE, None, [1.0, 1.0, *by], mode=mode, coordinate_transformation_mode=place)
        for mode in ("nearest", "linear")
        for place in ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
        for by in ([2.0, 3.0], [0.5, 1.5])
    ),
    *(
        case("Resize", IMAGE, None, None, ints(2, 6, 13, 5), mode=mode, coordinate_transformation_mode="half_pixel")
        for mode in ("nearest", "linear")
    ),
    *(
        case("Resize", IMAGE, None, [1.0, 1.0, 2.0, 2.0], nearest_mode=near, coordinate_transformation_mode=place)
        for near in ("floor", "ceil", "round_prefer_ceil")
        for place in ("asymmetric", "half_pixel")
    ),
    case("Resize", IMAGE, None, [2.0], axes=[3], opset=18),
    *(
        case("QuantizeLinear", IMAGE, 0.05, np.array(3, kind), dtype=kind, opset=21)
        for kind in ("uint8", "int8", "uint16", "int16")
    ),
    case("QuantizeLinear", IMAGE, 0.05, dtype="uint8"),
    case("QuantizeLinear", IMAGE, CHANNELS[0], np.arange(6, dtype=np.int8), axis=1, dtype="int8"),
    case("DequantizeLinear", IMAGE.astype(np.int8), 0.05, np.int8(3)),
    case("DequantizeLinear", (1e5 * IMAGE).astype(np.int32), normal(9), axis=-1),
]


def run(graph: Graph, *xs: Array) -> list[Array]:
    """The outputs in torch."""
    with torch.no_grad():
        found = module(graph)(*(torch.tensor(x) if x.dtype != np.uint16 else x for x in xs))
    return [y.numpy() for y in (found if isinstance(found, tuple) else (found,))]


@pytest.mark.slow
@pytest.mark.parametrize("c", CASES, ids=lambda c: c.op)
def test_operators(c: Case) -> None:
    graph = c.graph()
    wanted = Session(to_proto(graph)).run({"x": c.x})
    found = run(graph, c.x)
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted.values(), strict=True):
        assert_close(a.astype(b.dtype) if c.op == "QuantizeLinear" else a, b, 1e-6)
        assert c.op == "QuantizeLinear" or a.dtype == b.dtype


# Networks


@pytest.mark.slow
@settings(max_examples=30)
@given(proto=networks())
def test_random_networks(proto: onnx.ModelProto) -> None:
    model, x = read(proto), sample(proto)
    for wanted, found in zip(Session(to_proto(model.graph)).run(x).values(), run(model.graph, x), strict=True):
        assert_close(found, wanted)


def equal_but_for_ties(graph: Graph, feeds: dict[Name, Array]) -> None:
    """Every operator gives what it gives in onnxruntime for the same inputs; integers may be one off, rarely."""
    made = [o for node in graph.nodes for o in node.outputs]
    values = feeds | Session(to_proto(graph), taps=made).run(feeds)
    for node in graph.nodes:
        inputs = tuple(dict.fromkeys(i for i in node.reads if i in values))
        part = replace(graph, nodes=(node,), inputs=inputs, outputs=node.outputs)
        floats = [values[i].astype(np.float32) if values[i].dtype.kind in "iu" else values[i] for i in inputs]
        for found, wanted in zip(run(part, *floats), (values[o] for o in node.outputs), strict=True):
            if node.op == "QuantizeLinear":
                off = np.abs(found - wanted.astype(np.float32))
                assert off.max() <= 1
                assert off.mean() <= 1e-3
            else:
                assert_close(found, wanted.astype(found.dtype), 1e-5)


@pytest.mark.slow
@settings(max_examples=15)
@given(proto=networks(calibrated=True))
def test_random_quantized_networks(proto: onnx.ModelProto) -> None:
    result = quantize(proto, "dfq", "per-tensor-clip", input=(-3, 3))
    equal_but_for_ties(qdq_graph(result.model), {"input": sample(proto)})


@pytest.mark.slow
@pytest.mark.parametrize("bits", [4, 8, 12])
def test_bits(bits: int) -> None:
    """Narrow grids clamp within 8 bits, wide ones use 16."""
    proto = random_network(3, calibrated=True)
    result = quantize(proto, "dfq", weight_bits=bits, activation_bits=bits, input=(-3, 3))
    equal_but_for_ties(qdq_graph(result.model), {"input": sample(proto)})


def test_qdq_graph_is_what_export_writes() -> None:
    result = quantize(random_network(1), "dfq", weight_bits=12, activation_bits=12, input=(-3, 3))
    x = sample(random_network(1))
    graph = qdq_graph(result.model)
    assert graph.opset == 21
    found, wanted = (Session(proto).run(x)["output"] for proto in (to_proto(graph), result.proto))
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.skipif(not FOLDER, reason="EQUINT_REAL names no folder of real networks")
@pytest.mark.parametrize("path", sorted(Path(FOLDER, "models").glob("*.onnx")) if FOLDER else [], ids=lambda p: p.stem)
def test_real_networks(path: Path) -> None:
    model = load(path)
    session = Session(to_proto(model.graph))
    x = random_inputs(session, 2)
    for wanted, found in zip(session.run(x).values(), run(model.graph, *x.values()), strict=True):
        assert_close(found, wanted)
    equal_but_for_ties(qdq_graph(quantize(model, "cwq", input=(-3, 3)).model), x)


# Gradients, constants, modules


def test_quantizers_let_gradients_pass_inside_their_grid() -> None:
    nodes = (
        Node("QuantizeLinear", ("x", "s", "z"), ("q",)),
        Node("Min", ("q", "top"), ("t",)),
        Node("DequantizeLinear", ("t", "s", "z"), ("y",)),
    )
    consts = {"s": np.float32(0.5), "z": np.uint8(2), "top": np.uint8(100)}
    net = module(Graph(nodes, {k: np.asarray(v) for k, v in consts.items()}, ("x",), ("y",)))
    x = torch.tensor([-1.3, -1.0, 0.1, 49.0, 49.3, 200.0], requires_grad=True)
    y = net(x)
    assert y.tolist() == [-1, -1, 0, 49, 49, 49]
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 1, 1, 0, 0]


def test_gradients_reach_the_biases_of_a_quantized_network() -> None:
    """Moving all biases a little along the gradient moves the mean output as much as it says, but for rounding."""
    proto = random_network(1, calibrated=True)
    graph = qdq_graph(quantize(proto, "dfq", weight_bits=16, activation_bits=16, input=(-3, 3)).model)
    net = module(graph, [n.inputs[2] for n in graph.nodes if n.op in ("Conv", "Gemm") and len(n.inputs) > 2])
    x, step = torch.tensor(sample(proto, 64)), 0.01
    before = net(x).mean()
    before.backward()
    slopes = [p.grad for p in net.parameters() if p.grad is not None]
    norm = sum(float((g**2).sum()) for g in slopes) ** 0.5
    with torch.no_grad():
        for parameter, slope in zip(net.parameters(), slopes, strict=True):
            parameter.add_(slope, alpha=step / norm)
        assert float(net(x).mean() - before) == pytest.approx(step * norm, rel=0.1)


def test_constants_are_buffers_and_parameters() -> None:
    graph = tiny_graph()
    net = module(graph, ["w"])
    assert [p.shape for p in net.parameters()] == [(4, 1, 3, 3)]
    assert not list(module(graph).parameters())
    assert len(module(graph).state_dict()) == 1


@pytest.mark.parametrize("name", ["x", "nothing"])
def test_only_float_constants_can_be_trained(name: Name) -> None:
    with pytest.raises(EquintError, match=f"{name} cannot be trained"):
        module(tiny_graph(), [name])


def test_modules_can_be_copied_and_pickled() -> None:
    net = module(qdq_graph(quantize(random_network(2), "dfq", input=(-3, 3)).model))
    x = torch.tensor(sample(random_network(2)))
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(twin(x), net(x))


def test_values_are_let_go_after_their_last_use() -> None:
    nodes = (Node("Relu", ("x",), ("a",)), Node("Neg", ("a",), ("b",)), Node("Add", ("a", "b"), ("y",)))
    assert [s.done for s in steps(Graph(nodes, {}, ("x",), ("y", "b")))] == [("x",), (), ("a",)]


# What cannot be run


def refused(graph: Graph, *parts: str) -> None:
    with pytest.raises(EquintError) as error:
        module(graph)(torch.ones(1, 4, 4, 4))
    message = str(error.value)
    assert "\n" not in message
    assert all(part in message for part in parts), message


def one(node: Node) -> Graph:
    return Graph((node,), {"c": np.ones((2, 2), np.float32)}, ("x",), node.outputs)


def test_what_cannot_be_run_is_named() -> None:
    refused(one(Node("LSTM", ("x",), ("y",), name="memory")), "LSTM memory", "replace it")
    refused(one(Node("Blur", ("x",), ("y",), domain="acme")), "acme::Blur y")
    refused(one(Node("Conv", ("x", "c"), ("y",), {"turned": 1})), "Conv y", "attribute turned")
    refused(one(Node("Resize", ("x", "", "c"), ("y",), {"mode": "cubic"})), "Resize y", "cubic")
    refused(one(Node("BatchNormalization", ("x", *"cccc"), ("y",), {"training_mode": 1})), "training mode")
    refused(one(Node("AveragePool", ("x",), ("y",), {"kernel_shape": [2, 2], "dilations": [2, 2]})), "dilations")
    refused(one(Node("MaxPool", ("x",), ("y", "i"), {"kernel_shape": [2, 2]})), "MaxPool y", "first output")
    refused(one(Node("Cast", ("x",), ("y",), {"to": onnx.TensorProto.STRING})), "Cast y", "type 8")
    refused(one(Node("MatMul", ("x", "c"), ("y",))), "MatMul y does not run")


def test_inputs_are_counted() -> None:
    with pytest.raises(EquintError, match="2 inputs given; the network has 1: x"):
        module(tiny_graph())(torch.ones(1), torch.ones(1))
