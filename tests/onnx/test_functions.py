"""Local functions take the place of their calls, and are bounded in depth and size."""

from typing import Any

import pytest
from onnx import ModelProto, TensorProto, helper

from equint.errors import UnreadableModel
from equint.onnx.functions import inlined

SETS = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]


def function(name: str, *calls: str) -> Any:
    nodes = [helper.make_node(c, [f"t{k}"], [f"t{k + 1}"], domain="own") for k, c in enumerate(calls)]
    nodes.append(helper.make_node("Relu", [f"t{len(calls)}"], ["b"]))
    return helper.make_function("own", name, ["t0"], ["b"], nodes, SETS)


def calling(name: str, *functions: Any) -> ModelProto:
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in "xy"]
    graph = helper.make_graph([helper.make_node(name, ["x"], ["y"], domain="own")], "net", ends[:1], ends[1:])
    return helper.make_model(graph, opset_imports=SETS, functions=functions)


def test_calls_become_what_they_call() -> None:
    proto = inlined(calling("g", function("f"), function("g", "f", "f")), "net.onnx")
    assert [node.op_type for node in proto.graph.node] == ["Relu"] * 3


def test_functions_that_double_are_refused_before_they_do() -> None:
    doubling = [function("f0"), *(function(f"f{k}", f"f{k - 1}", f"f{k - 1}") for k in range(1, 27))]
    with pytest.raises(UnreadableModel, match=r"net.onnx: function f26 becomes 1\.34e\+08 nodes"):
        inlined(calling("f26", *doubling), "net.onnx")


@pytest.mark.parametrize("functions", [[function("f", "f")], [function("f", "g"), function("g", "f")]])
def test_functions_that_call_themselves_are_refused(functions: list[Any]) -> None:
    with pytest.raises(UnreadableModel, match="calls itself"):
        inlined(calling("f", *functions), "net.onnx")


def test_deep_calls_are_refused() -> None:
    deep = [function("f0"), *(function(f"f{k}", f"f{k - 1}") for k in range(1, 300))]
    with pytest.raises(UnreadableModel, match="300 calls deep"):
        inlined(calling("f299", *deep), "net.onnx")
