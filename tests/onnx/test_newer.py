"""What an opset has not is written in several operators that it has, and computes what the newer operator does."""

from dataclasses import replace
from typing import Any

import pytest

import equint
from equint.onnx.newer import without_newer
from equint.onnx.writer import to_proto
from handwritten import IMAGE, assert_same, network, normal

CASES = {  # in the opset that has it, and older ones
    "LayerNormalization": ("y = LayerNormalization <axis = 2, epsilon = 0.1> (x, s, b)", 17, (8, 8), [13, 16]),
    "RMSNormalization": ("y = RMSNormalization <axis = -2, epsilon = 0.1> (x, s)", 23, (8, 8), [13, 17, 18, 21]),
    "GroupNormalization": ("y = GroupNormalization <num_groups = 2> (x, s, b)", 21, (6,), [13, 17, 18, 20]),
}


@pytest.mark.parametrize("op", CASES)
def test_computes_what_the_newer_operator_does(op: str) -> None:
    body, opset, shape, older = CASES[op]
    inputs = "float[N,6,8,8] x" if op == "GroupNormalization" else IMAGE
    consts: dict[str, Any] = {"s": normal(*shape, scale=1)} | (
        {"b": normal(*shape, seed=2, scale=1)} if "b)" in body else {}
    )
    proto = network(body, inputs=inputs, opset=opset, ir=11 if opset > 21 else 10, **consts)
    graph = equint.load(proto).graph
    assert without_newer(graph) is graph
    x = normal(2, 6 if op == "GroupNormalization" else 3, 8, 8, scale=1)
    for version in older:
        written = to_proto(replace(graph, opset=version))
        assert op not in {node.op_type for node in written.graph.node}
        assert_same(proto, written, x)
