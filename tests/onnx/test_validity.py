"""Networks that cannot be what they say: refused by node and attribute, and by onnxruntime too, which names neither."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import ModelProto

import equint
from equint.errors import UnreadableModel
from handwritten import execute, network, normal

CONV = "y = Conv <{}> (x, w)"
WRONG: dict[str, tuple[str, str]] = {
    "stride of none": (CONV.format("strides = [0, 1]"), "strides"),
    "stride backwards": (CONV.format("strides = [-1, 1]"), "strides"),
    "one stride for two dimensions": (CONV.format("strides = [1]"), "strides"),
    "dilation of none": (CONV.format("dilations = [0, 0]"), "dilations"),
    "pads below 0": (CONV.format("pads = [-1, 0, 0, 0]"), "pads"),
    "two pads": (CONV.format("pads = [1, 1]"), "pads"),
    "pads without end": (CONV.format("pads = [1000000000, 0, 0, 0]"), "pads"),
    "another kernel": (CONV.format("kernel_shape = [5, 5]"), "kernel_shape"),
    "padding unheard of": (CONV.format('auto_pad = "SIDEWAYS"'), "auto_pad"),
    "groups that do not divide": (CONV.format("group = 3"), "groups"),
    "groups of other channels": (CONV.format("group = 2"), "channels"),
    "no operator": ("y = Frobnicate (x)", "no operator"),
    "no such attribute": (CONV.format("colour = 3"), "colour"),
    "attribute of another type": (CONV.format("group = 1.5"), "group"),
    "too few inputs": ("y = Conv (x)", "inputs"),
    "no kernel": ("y = MaxPool (x)", "kernel_shape"),
    "pool of stride none": ("y = MaxPool <kernel_shape = [2, 2], strides = [0, 2]> (x)", "strides"),
}
OLDER = ("stride of none", "dilation of none", "pads below 0", "pool of stride none")
"""What 1.25 does not refuse, and 1.32 does."""


def made(body: str) -> ModelProto:
    consts: dict[str, Any] = {"w": normal(4, 3, 3, 3)} if "w)" in body else {}
    return network(body, inputs="float[N,3,8,8] x", **consts)


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_is_refused_by_name(name: str) -> None:
    body, said = WRONG[name]
    version = tuple(map(int, onnxruntime.__version__.split(".")[:2]))
    proto = made(body)
    proto.graph.node[0].name = "first"
    with pytest.raises(UnreadableModel, match=said) as refusal:
        equint.load(proto)
    assert "first" in str(refusal.value)
    assert "\n" not in str(refusal.value)
    if name in OLDER and version < (1, 32):
        pytest.skip(f"onnxruntime {onnxruntime.__version__} takes it, or divides by zero and is gone")
    with pytest.raises(Exception, match="ONNXRuntimeError"):
        execute(proto, np.zeros((1, 3, 8, 8), np.float32))


def test_an_opset_of_the_future_is_refused() -> None:
    proto = made(CONV.format("group = 1"))
    proto.opset_import[0].version = 999
    with pytest.raises(UnreadableModel, match="opset 999"):
        equint.load(proto)
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.Fail):
        execute(proto, np.zeros((1, 3, 8, 8), np.float32))


def test_what_is_right_is_read() -> None:
    """Windows at their bounds, and operators of a runtime's own."""
    body = "a = Conv <strides = [2, 1], dilations = [2, 2], pads = [0, 1, 2, 3]> (x, w) y = custom.Inverse (a)"
    proto = network(body, inputs="float[N,3,8,8] x", w=normal(4, 3, 3, 3))
    assert [node.op for node in equint.load(proto).graph.nodes] == ["Conv", "Inverse"]


DISORDER: dict[str, tuple[Any, str]] = {
    "no input": (lambda graph: graph.input.pop(), "no input"),
    "an input without a name": (lambda graph: setattr(graph.input[0], "name", ""), "an input has no name"),
    "no output": (lambda graph: graph.output.pop(), "no output"),
    "an output without a name": (lambda graph: setattr(graph.output[0], "name", ""), "an output has no name"),
    "an output of nothing": (lambda graph: setattr(graph.output[0], "name", "z"), "output z is made by nothing"),
    "an input of nothing": (lambda graph: graph.node[1].input.__setitem__(0, "z"), "Relu relu reads z"),
    "a value made twice": (lambda graph: _renamed(graph, "c"), "makes c a second time"),
    "nodes in disorder": (lambda graph: graph.node.reverse(), "reads c, which nothing makes before it"),
    "two inputs of a name": (lambda graph: graph.input.append(graph.input[0]), "two inputs are called x"),
    "weights of no column": (lambda graph: _emptied(graph.initializer[0]), "w of Gemm matmul holds nothing"),
}


def _renamed(graph: Any, name: str) -> None:
    graph.node[1].output[0] = graph.output[0].name = name


def _emptied(tensor: Any) -> None:
    tensor.dims[1], tensor.raw_data = 0, b""


@pytest.mark.parametrize("name", DISORDER)
def test_names_and_sizes_that_cannot_be_are_refused_in_a_line_with_the_file(name: str, tmp_path: Path) -> None:
    spoil, said = DISORDER[name]
    proto = network("c = MatMul(x, w) y = Relu(c)", inputs="float[N,8] x", output="float[N,M] y", w=normal(8, 4))
    proto.graph.node[0].name, proto.graph.node[1].name = "matmul", "relu"
    spoil(proto.graph)
    path = tmp_path / "net.onnx"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(UnreadableModel, match=said) as refusal:
        equint.quantize(path, input=(0, 1))
    assert str(refusal.value).startswith(f"{path}: ")
    assert str(refusal.value).endswith("; export it again")


def test_a_network_whose_only_input_is_a_constant_has_none() -> None:
    proto = network("y = MatMul(x, w)", inputs="float[2,8] x", output="float[N,M] y", w=normal(8, 4), x=normal(2, 8))
    with pytest.raises(UnreadableModel, match="no input"):
        equint.quantize(proto)


def test_names_with_line_ends_and_escapes_are_spelled_out() -> None:
    """A terminal is sent nothing but what can be read, and a message is one line."""
    proto = made("y = Frobnicate (x)")
    proto.graph.node[0].name = "fi\nr\x1b[31mst\u2028"
    with pytest.raises(UnreadableModel) as refusal:
        equint.load(proto)
    assert r"Frobnicate fi\nr\x1b[31mst\u2028: no operator" in str(refusal.value)
