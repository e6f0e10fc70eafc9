"""Branches that are always taken compute what the If computed."""

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

import equint
from equint.errors import InvalidOption
from equint.ir.events import EventKind
from equint.ir.model import Model
from equint.onnx.reader import read, with_constants
from equint.onnx.writer import to_proto
from equint.runtime.session import Session
from equint.samples.images import Run
from handwritten import assert_same, execute, network, normal

W, V = normal(4, 3, 3, 3), normal(4, 3, 3, 3, seed=2)


def body(name: str, weight: str, relu: bool) -> onnx.GraphProto:
    """A convolution of the outer x, with a constant of its own; its inner name is the same in both branches."""
    nodes = [helper.make_node("Conv", ["x", weight], ["inner"])]
    nodes += [helper.make_node("Relu", ["inner"], ["half"])] if relu else [helper.make_node("Neg", ["inner"], ["half"])]
    nodes += [helper.make_node("Mul", ["half", "two"], [f"{name}_out"])]
    result = helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, None)
    return helper.make_graph(nodes, name, [], [result], [numpy_helper.from_array(np.array(2, np.float32), "two")])


def branching(condition: bool | None = None, nested: bool = False) -> ModelProto:
    """If(rate = 16000) of two convolutions; the rate is an input where no condition is given."""
    nodes, inputs, consts = (
        [],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        {"w": W, "v": V},
    )
    if condition is None:
        inputs.append(helper.make_tensor_value_info("rate", TensorProto.INT64, []))
        consts["wanted"] = np.array(16000)
        nodes.append(helper.make_node("Equal", ["rate", "wanted"], ["c"]))
    else:
        consts["c"] = np.array(condition)
    yes = body("yes", "w", relu=True)
    if nested:
        inner = helper.make_node("If", ["c"], ["deep"], then_branch=yes, else_branch=body("no", "v", relu=False))
        result = helper.make_tensor_value_info("deep", TensorProto.FLOAT, None)
        yes = helper.make_graph([inner], "outer", [], [result])
    nodes.append(helper.make_node("If", ["c"], ["y"], then_branch=yes, else_branch=body("no", "v", relu=False)))
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4, 6, 6])]
    arrays = [numpy_helper.from_array(np.asarray(value), name) for name, value in consts.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, arrays)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def ops(model: Model) -> list[str]:
    return [node.op for node in model.graph.nodes]


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("condition", [False, True])
def test_constant_conditions(condition: bool, nested: bool) -> None:
    proto = branching(condition, nested)
    model = read(proto)
    assert ops(model) == ["Conv", "Relu" if condition else "Neg", "Mul"]
    assert_same(proto, to_proto(model.graph))


@pytest.mark.parametrize("rate", [16000, 8000])
def test_an_input_that_is_set_decides(rate: int) -> None:
    proto = branching()
    model = with_constants(read(proto), {"rate": rate})
    assert ops(model) == ["Conv", "Relu" if rate == 16000 else "Neg", "Mul"]
    assert model.graph.inputs == ("x",)
    x = normal(2, 3, 8, 8, scale=1)
    wanted = execute(proto, x, np.array(rate))
    np.testing.assert_allclose(execute(to_proto(model.graph), x)[0], wanted[0], atol=1e-5)


@pytest.mark.parametrize("value", [1j, "16000", None, [[1], [2, 3]], b"1", np.array(["1"]), [], np.zeros((2, 0))])
def test_what_holds_no_real_numbers_cannot_be_set(value: object) -> None:
    with pytest.raises(InvalidOption, match=r"^set rate = .*: the input cannot take it"):
        with_constants(read(branching()), {"rate": value})


def test_an_array_without_numbers_cannot_be_set() -> None:
    proto = network("y = Add(x, h)", inputs="float[N,8] x, float[2,N,8] h")
    with pytest.raises(InvalidOption, match="the input cannot take it"):
        with_constants(read(proto), {"h": np.zeros((2, 0, 8), np.float32)})


def test_numbers_fill_the_size_that_is_free() -> None:
    """Those of one sample, whatever its length is."""
    proto = network(
        "e = Gather(t, ids) y = Mul(x, e)", inputs="float[N,L] x, int64[N,L] ids", t=[1.0, 10.0, 100.0, 1000.0]
    )
    graph = with_constants(read(proto), {"ids": [3, 1, 2]}).graph
    x = np.ones((1, 3), np.float32)
    np.testing.assert_array_equal(execute(to_proto(graph), x)[0], [[1000, 10, 100]])
    with pytest.raises(InvalidOption, match=r"3 numbers do not make one sample of shape \(N, 2\)"):
        with_constants(read(network("y = Add(x, k)", inputs="float[N,2] x, float[N,2] k")), {"k": [1, 2, 3]})


def test_convolutions_inside_are_quantized_once_the_branch_is_known_and_named_before() -> None:
    proto, x = branching(), normal(8, 3, 8, 8, scale=1)
    tail = [helper.make_node("Conv", ["y", "u"], ["z"])]
    proto.graph.node.extend(tail)
    proto.graph.initializer.append(numpy_helper.from_array(normal(2, 4, 1, 1), "u"))
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 2, 6, 6]))
    left = equint.quantize(proto, data=[{"x": x[k : k + 1], "rate": np.array(16000)} for k in range(8)])
    named = [event for event in left.warnings if event.kind is EventKind.BODY_FLOAT]
    assert [(event.at, event.facts["layers"]) for event in named] == [("y", 2)]
    found = equint.quantize(proto, data=x, set={"rate": 16000})
    assert {name for name in found.model.qparams if name in found.model.graph.consts} >= {"w", "u"}
    assert not [event for event in found.warnings if event.kind is EventKind.BODY_FLOAT]


def test_a_moved_tensor_that_a_branch_reads_has_a_grid_of_its_own() -> None:
    """Without one, onnxruntime's optimizer passes that of its source on into the branch, and aborts."""
    condition = helper.make_node("Greater", ["rate", "zero"], ["c"])
    moved = [helper.make_node("Conv", ["x", "w"], ["a"]), helper.make_node("Unsqueeze", ["a", "axis"], ["m"])]
    result = helper.make_tensor_value_info("t", TensorProto.FLOAT, None)
    yes, no = (helper.make_graph([helper.make_node(op, ["m"], ["t"])], op, [], [result]) for op in ("Sigmoid", "Tanh"))
    branch = helper.make_node("If", ["c"], ["y"], then_branch=yes, else_branch=no)
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8]),
        helper.make_tensor_value_info("rate", TensorProto.FLOAT, []),
    ]
    consts = {"w": W, "axis": np.array([4]), "zero": np.array(0, np.float32)}
    arrays = [numpy_helper.from_array(value, name) for name, value in consts.items()]
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([condition, *moved, branch], "g", inputs, [out], arrays)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    x = normal(8, 3, 8, 8, scale=1)
    feeds = [{"x": x[k : k + 1], "rate": np.array(1, np.float32)} for k in range(8)]
    quantized = equint.quantize(proto, data=feeds)
    assert quantized.model.qparams["m"].scale == quantized.model.qparams["a"].scale
    found = Session(quantized.proto, optimized=True).run(Run(feeds[0]))["y"]
    wanted = Session(proto).run(Run(feeds[0]))["y"]
    assert np.square(found - wanted).sum() < 1e-3 * np.square(wanted).sum()
