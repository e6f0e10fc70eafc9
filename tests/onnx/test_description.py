"""Files of several tools are described as they are: what is said to compute on integers does so in onnxruntime."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import ModelProto, helper, numpy_helper

import equint
from equint.demo import model_path
from equint.errors import UnreadableModel
from equint.hardware.target import target
from equint.onnx.description import describe
from handwritten import network, normal


class Reader:
    """What onnxruntime's quantizer calibrates on."""

    def __init__(self) -> None:
        self.left = [{"x": normal(1, 3, 8, 8)} for _ in range(4)]

    def get_next(self) -> dict[str, Any] | None:
        return self.left.pop() if self.left else None


def plain() -> ModelProto:
    text = "h = Conv<pads = [1, 1, 1, 1]>(x, w, b) r = Relu(h) k = Conv(r, v) p = GlobalAveragePool(k) f = Flatten(p)"
    return network(f"{text} y = Gemm<transB = 1>(f, d, e)", w=normal(8, 3, 3, 3), b=normal(8), v=normal(4, 8, 1, 1),
                   d=normal(5, 4), e=normal(5), output="float[N,5] y")  # fmt: skip


def by_onnxruntime(folder: Path, form: str, **options: Any) -> ModelProto:
    """Quantized by onnxruntime's own tool: another exporter, whose files are none of ours."""
    quantization = pytest.importorskip("onnxruntime.quantization", exc_type=ImportError)
    before, after = folder / "float.onnx", folder / "int8.onnx"
    onnx.save(plain(), before)
    quantization.quantize_static(before, after, Reader(), quant_format=quantization.QuantFormat[form], **options)
    return onnx.load(after)


def run_in_integers(proto: ModelProto, folder: Path) -> Counter[str]:
    """Operators of the network as onnxruntime runs it."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.log_severity_level = 3
    ort.InferenceSession(proto.SerializeToString(), options)
    return Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
def test_files_of_another_tool(tmp_path: Path, form: str, per_channel: bool) -> None:
    quantization = pytest.importorskip("onnxruntime.quantization", exc_type=ImportError)
    kinds = {"weight_type": quantization.QuantType.QInt8, "activation_type": quantization.QuantType.QUInt8}
    proto = by_onnxruntime(tmp_path, form, per_channel=per_channel, **kinds)
    found = describe(proto)
    assert [layer.op for layer in found.layers] == ["Conv", "Conv", "Gemm"]
    assert not any(layer.why_float for layer in found.layers)
    assert all(layer.weight is not None and (layer.weight.scale.size > 1) == per_channel for layer in found.layers[:2])
    assert [layer.work for layer in found.layers] == [8 * 8 * 8 * 27, 8 * 8 * 4 * 8, 5 * 4]
    assert equint.lint(proto, "onnxruntime").clean
    refused = {f.rule for f in equint.lint(proto, "tensorrt").findings if f.level == "error"}
    assert {"activation-type", "bias"} <= refused
    assert ("weight-axis" in {f.rule for f in equint.lint(proto, "per-tensor-symmetric").findings}) == per_channel


def changed(how: str) -> ModelProto:
    """Our own file, one thing in it changed that onnxruntime's integer kernels do not take."""
    proto = equint.quantize(plain(), "cwq", input=(-1, 1)).proto
    nodes, consts = {n.output[0]: n for n in proto.graph.node}, {t.name: t for t in proto.graph.initializer}
    conv = next(n for n in proto.graph.node if n.op_type == "Conv")
    if how == "float input":
        conv.input[0] = nodes[nodes[conv.input[0]].input[0]].input[0]
    elif how == "float weight":
        dq = nodes[conv.input[1]]
        scale, q = (numpy_helper.to_array(consts[dq.input[k]]) for k in (1, 0))
        value = q * scale.reshape(-1, 1, 1, 1)
        proto.graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), "w_float"))
        conv.input[1] = "w_float"
    elif how == "unrounded output":
        quantizer = next(n for n in proto.graph.node if n.op_type == "QuantizeLinear" and n.input[0] == conv.output[0])
        behind = next(
            n for n in proto.graph.node if n.op_type == "DequantizeLinear" and n.input[0] == quantizer.output[0]
        )
        second = [n for n in proto.graph.node if n.op_type == "Conv"][1]
        second.input[0] = conv.output[0]
        proto.graph.node.remove(quantizer)
        proto.graph.node.remove(behind)
    return proto


@pytest.mark.parametrize("how", ["as it is", "float input", "float weight", "unrounded output"])
def test_what_is_said_to_be_float_is_float_in_onnxruntime(how: str, tmp_path: Path) -> None:
    proto = changed(how)
    found = equint.lint(proto, "onnxruntime")
    floats = {f.at for f in found.findings if f.rule in ("float-layer", "layer-output")}
    ran = run_in_integers(proto, tmp_path)
    assert ran["Conv"] + ran["FusedConv"] == len(floats)
    assert ran["QLinearConv"] == 2 - len(floats)
    assert (how == "as it is") == (not floats)


def test_clamps_on_integers() -> None:
    """They are told by the activations of the network that they stand for, and its input by its own name."""
    proto = equint.quantize(model_path(), target="per-tensor-clip", input=(0, 1)).proto
    clamps = [n.name.removesuffix(f"_{n.op_type}") for n in proto.graph.node if n.op_type in ("Min", "Max")]
    assert list(describe(proto).clamps) == list(dict.fromkeys(clamps))
    assert len(clamps) > 10
    assert {f.at for f in equint.lint(proto, "qnn").findings if f.level == "error"} == set(clamps)
    own = onnx.load(model_path()).graph
    assert set(clamps) <= {n.name for n in own.node} | {o for n in own.node for o in n.output}
    assert own.input[0].name in describe(proto).activations


def test_constants_between_quantizers_are_weights() -> None:
    """Weights that are float, rounded and read back, as quantization aware training exports them."""
    w = normal(4, 3, 3, 3)
    proto = network(
        "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) wq = QuantizeLinear<axis = 0>(w, ws, wz) "
        "wd = DequantizeLinear<axis = 0>(wq, ws, wz) y = Conv(d, wd)",
        w=w, s=np.float32(0.1), z=np.uint8(3), ws=(np.abs(w).max((1, 2, 3)) / 127).astype(np.float32),
        wz=np.zeros(4, np.int8),
    )  # fmt: skip
    (layer,) = describe(proto).layers
    assert layer.weight is not None
    assert (layer.weight.axis, layer.lowest, layer.why_float) == (
        0,
        int(np.rint(w / np.abs(w).max((1, 2, 3), keepdims=True) * 127).min()),
        "",
    )
    assert list(describe(proto).activations) == ["d"]


def test_what_cannot_be_judged() -> None:
    with pytest.raises(UnreadableModel, match="nothing in it is quantized"):
        describe(plain())
    with pytest.raises(UnreadableModel, match="no operators"):
        describe(helper.make_model(helper.make_graph([], "g", [], [])))


@pytest.mark.parametrize("name", [t.name for t in equint.targets()])
def test_what_quantize_writes_is_clean_and_runs(name: str) -> None:
    """On the bundled network, with its best recipe, for every target; onnxruntime runs each file, and it still tells
    digits apart."""
    result = equint.quantize(model_path(), target=name, input=(0, 1))
    found = equint.lint(result)
    assert found.target == name
    assert found.clean, found.findings
    assert found.integer_share == 1
    x = np.random.default_rng(0).uniform(0, 1, (64, 1, 8, 8)).astype(np.float32)
    before, after = (
        ort.InferenceSession(p).run(None, {"input": x})[0]
        for p in (str(model_path()), result.proto.SerializeToString())
    )
    assert np.square(after - before).mean() < 0.05 * np.square(before).mean()
    kinds = {t.data_type for t in result.proto.graph.initializer}
    format_ = target(name).activation
    assert (onnx.TensorProto.UINT8 in kinds) == (format_.by_sign or not format_.signed)


@pytest.mark.parametrize("computed", [False, True])
def test_other_operators_on_integers(tmp_path: Path, computed: bool) -> None:
    """Sums, curves and joins by onnxruntime's quantizer; its convolutions' weights may be computed when run."""
    quantization = pytest.importorskip("onnxruntime.quantization", exc_type=ImportError)
    made = "v = Mul(u, u)" if computed else "v = Identity(w)"
    proto = network(f"{made} h = Conv(x, v, b) s = Sigmoid(h) a = Add(h, s) y = Concat<axis = 1>(a, s)",
                    u=normal(4, 3, 1, 1), w=normal(4, 3, 1, 1), b=normal(4), output="float[N,8,8,8] y")  # fmt: skip
    before, after = tmp_path / "float.onnx", tmp_path / "int8.onnx"
    onnx.save(proto, before)
    kinds = {"weight_type": quantization.QuantType.QInt8, "activation_type": quantization.QuantType.QUInt8}
    quantization.quantize_static(before, after, Reader(), quant_format=quantization.QuantFormat.QOperator, **kinds)
    ran = run_in_integers(onnx.load(after), tmp_path)
    assert {"QLinearAdd", "QLinearSigmoid", "QLinearConcat"} <= ran.keys()
    found = equint.lint(after, "onnxruntime")
    assert [(f.rule, f.what) for f in found.findings if f.rule in ("bias", "float-operator")] == []
    tensors = {n.output[0] for n in onnx.load(after).graph.node if n.op_type.startswith("QLinear")}
    assert tensors <= describe(onnx.load(after)).activations.keys()
    assert {f.at for f in equint.lint(after, "tensorrt").findings if f.rule == "activation-type"} >= tensors


def test_damaged_quantizers_are_named() -> None:
    proto = equint.quantize(plain(), "cwq", input=(-1, 1)).proto
    lost = ModelProto.FromString(proto.SerializeToString())
    node = next(n for n in lost.graph.node if n.op_type == "QuantizeLinear")
    del node.input[1:]
    with pytest.raises(UnreadableModel, match=f"net.onnx: {node.name}: QuantizeLinear without a scale"):
        describe(lost, "net.onnx")
    weight = next(t for t in proto.graph.initializer if t.dims == [8])
    reader = next(n for n in proto.graph.node if n.op_type == "DequantizeLinear" and weight.name == n.input[1])
    weight.CopyFrom(numpy_helper.from_array(np.ones(7, np.float32), weight.name))
    with pytest.raises(UnreadableModel, match=f"net.onnx: {reader.name}: 7 scales along axis 0 of shape"):
        describe(proto, "net.onnx")
