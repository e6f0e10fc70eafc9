"""What onnxruntime has fused is read as what it was made of."""

from typing import Any

import numpy as np
import onnxruntime  # type: ignore[import-untyped,unused-ignore]
import pytest
from onnx import ModelProto, helper, load

import equint
from equint.onnx.reader import read
from equint.onnx.writer import to_proto
from handwritten import IMAGE, assert_same, network, normal

CONV: dict[str, Any] = {"w": normal(4, 3, 3, 3), "b": normal(4)}
ROWS = "float[N,5,8] x"
FUSED: dict[str, tuple[str, str, dict[str, Any], list[str]]] = {
    "FusedConv, Relu": (
        'y = FusedConv <activation = "Relu", pads = [1, 1, 1, 1]> (x, w, b)', "", CONV, ["Conv", "Relu"],
    ),
    "FusedConv, Clip": (
        'y = FusedConv <activation = "Clip", activation_params = [0.0, 0.5]> (x, w, b)', "", CONV, ["Conv", "Clip"],
    ),
    "FusedConv, LeakyRelu": (
        'y = FusedConv <activation = "LeakyRelu", activation_params = [0.2]> (x, w)', "", {"w": CONV["w"]},
        ["Conv", "LeakyRelu"],
    ),
    "FusedConv, Sigmoid": ('y = FusedConv <activation = "Sigmoid"> (x, w, b)', "", CONV, ["Conv", "Sigmoid"]),
    "FusedConv, a sum": (
        'z = Relu(x) y = FusedConv <activation = "Relu", pads = [1, 1, 1, 1]> (x, w, b, z)', "",
        {"w": normal(3, 3, 3, 3), "b": normal(3)}, ["Relu", "Conv", "Add", "Relu"],
    ),
    "FusedGemm": (
        'f = Flatten(x) y = FusedGemm <activation = "LeakyRelu", activation_alpha = 0.1, transB = 1> (f, w, b)', "",
        {"w": normal(5, 192), "b": normal(5)}, ["Flatten", "Gemm", "LeakyRelu"],
    ),
    "FusedMatMul": ("y = FusedMatMul <alpha = 0.5, transB = 1> (x, w)", ROWS, {"w": normal(4, 8)}, ["MatMul", "Mul"]),
    "Gelu": ("y = Gelu(x)", ROWS, {}, ["Div", "Erf", "Add", "Mul", "Mul"]),
    "BiasGelu": ("y = BiasGelu(x, b)", ROWS, {"b": normal(8)}, ["Add", "Div", "Erf", "Add", "Mul", "Mul"]),
    "QuickGelu": ("y = QuickGelu <alpha = 1.5> (x)", ROWS, {}, ["Mul", "Sigmoid", "Mul"]),
    "SkipLayerNormalization": (
        "z = Relu(x) y = SkipLayerNormalization <epsilon = 0.001> (x, z, g, b)", ROWS,
        {"g": normal(8), "b": normal(8)}, ["Relu", "Add", "LayerNormalization"],
    ),
}  # fmt: skip


def fused(body: str, inputs: str, consts: dict[str, Any], output: str = "float[] y") -> ModelProto:
    """A model whose operators that ONNX does not have are onnxruntime's."""
    proto = network(body, output=output, inputs=inputs or IMAGE, **consts)
    for node in proto.graph.node:
        if node.op_type.startswith(("Fused", "Skip")) or node.op_type.endswith("Gelu"):
            node.domain = "com.microsoft"
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return proto


@pytest.mark.parametrize("name", FUSED)
def test_computes_the_same_in_operators_of_onnx(name: str) -> None:
    body, inputs, consts, ops = FUSED[name]
    shaped = {"FusedGemm": "float[N,A] y", "": "float[N,A,B,C] y"}.get(name if name == "FusedGemm" else inputs)
    proto = fused(body, inputs, consts, shaped or "float[N,A,B] y")
    graph = read(proto).graph
    assert [node.op for node in graph.nodes] == ops
    assert not graph.domains
    x = normal(2, 5, 8, scale=1) if inputs else normal(2, 3, 8, 8, scale=1)
    assert_same(proto, to_proto(graph), x)


def test_what_the_optimizer_writes_becomes_integer(tmp_path: Any) -> None:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    proto = network("a = Conv(x, w, b) r = Relu(a) y = Conv(r, v)", v=normal(2, 4, 1, 1), **CONV)
    onnxruntime.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])
    written = load(tmp_path / "optimized.onnx")
    assert "FusedConv" in {node.op_type for node in written.graph.node}
    model = equint.quantize(written, input=(-1, 1)).model
    assert sum(name in model.graph.consts for name in model.qparams) == 2
    assert_same(proto, to_proto(read(written).graph))


def test_what_is_not_known_stays() -> None:
    proto = fused('y = FusedConv <activation = "Softplus"> (x, w)', "", {"w": CONV["w"]})
    (node,) = read(proto).graph.nodes
    assert (node.domain, node.op) == ("com.microsoft", "FusedConv")


def test_constants_of_one_network_do_not_meet() -> None:
    proto = fused("a = Gelu(x) b = QuickGelu(a) y = BiasGelu(b, c)", ROWS, {"c": normal(8)}, "float[N,A,B] y")
    assert_same(proto, to_proto(read(proto).graph), np.asarray(normal(2, 5, 8, scale=1)))
