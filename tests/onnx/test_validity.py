"""Networks that cannot be what they say: refused by node and attribute, and by onnxruntime too, which names neither."""

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


def made(body: str) -> ModelProto:
    consts: dict[str, Any] = {"w": normal(4, 3, 3, 3)} if "w)" in body else {}
    return network(body, inputs="float[N,3,8,8] x", **consts)


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_is_refused_by_name(name: str) -> None:
    body, said = WRONG[name]
    proto = made(body)
    proto.graph.node[0].name = "first"
    with pytest.raises(UnreadableModel, match=said) as refusal:
        equint.load(proto)
    assert "first" in str(refusal.value)
    assert "\n" not in str(refusal.value)
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
