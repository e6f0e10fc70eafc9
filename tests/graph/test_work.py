"""What multiplies in float is said, with its share of the work."""

import tempfile

import onnx
import onnxruntime  # type: ignore[import-untyped,unused-ignore]
import pytest

import equint
from equint.ir.events import EventKind
from equint.onnx.reader import read
from equint.ops.work import multiplications
from handwritten import network, normal


def test_counts_by_hand() -> None:
    body = """
        a = Conv <strides = [2, 2]> (x, w) b = ConvTranspose <strides = [2, 2]> (a, v) c = GlobalAveragePool(b)
        d = Flatten(c) y = Gemm <transB = 1> (d, u)
    """
    proto = network(body, inputs="float[1,3,8,8] x", output="float[1,5] y", w=normal(4, 3, 2, 2), v=normal(4, 6, 2, 2),
                    u=normal(5, 6))  # fmt: skip
    graph = read(proto).graph
    found = {node.op: multiplications(graph, node) for node in graph.nodes}
    assert found["Conv"] == 4 * 4 * 4 * (3 * 2 * 2)  # 4 channels of 4x4, each from 3 channels of 2x2
    assert found["ConvTranspose"] == (4 * 4 * 4) * (6 * 2 * 2)  # each of its inputs goes to 6 channels of 2x2
    assert found["Gemm"] == 5 * 6
    assert found["GlobalAveragePool"] == 0


def test_a_product_of_activations_is_named_with_its_share() -> None:
    body = """
        a = Conv(x, w) b = Conv(x, v) p = Reshape(a, s) q = Reshape(b, s) y = Gemm <transB = 1> (p, q)
    """
    proto = network(body, inputs="float[1,3,8,8] x", output="float[4,4] y", w=normal(4, 3, 1, 1),
                    v=normal(4, 3, 1, 1, seed=2), s=[4, 64])  # fmt: skip
    (event,) = (e for e in equint.quantize(proto, input=(-1, 1)).warnings if e.kind is EventKind.WORK_FLOAT)
    layers, product = 2 * 4 * 64 * 3, 4 * 64  # rows are taken for samples
    assert event.facts["op"] == "Gemm"
    assert event.facts["share of multiply-accumulates"] == pytest.approx(product / (layers + product), abs=1e-4)


def test_a_matmul_of_activations_is_integer_work() -> None:
    body = """
        a = Conv(x, w) b = Conv(x, v) p = Reshape(a, s) q = Reshape(b, s) t = Transpose <perm = [0, 2, 1]> (q)
        y = MatMul(p, t)
    """
    proto = network(body, output="float[N,4,4] y", w=normal(4, 3, 1, 1), v=normal(4, 3, 1, 1, seed=2), s=[0, 4, 64])
    result = equint.quantize(proto, input=(-1, 1))
    assert not [e for e in result.warnings if e.kind is EventKind.WORK_FLOAT]
    options = onnxruntime.SessionOptions()
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = f"{folder}/optimized.onnx"
        onnxruntime.InferenceSession(result.proto.SerializeToString(), options, ["CPUExecutionProvider"])
        kinds = [node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node]
    assert "QLinearMatMul" in kinds
    assert "MatMul" not in kinds


def test_an_integer_network_says_nothing() -> None:
    result = equint.quantize(network("a = Conv(x, w) y = Relu(a)", w=normal(4, 3, 3, 3)), input=(-1, 1))
    assert not [e for e in result.warnings if e.kind is EventKind.WORK_FLOAT]
