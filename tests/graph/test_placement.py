"""Which tensors become integers, and which share a grid: small networks with the answer by hand."""

from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings

import equint
from equint.graph.placement import borders, float_joins, place
from equint.ir.model import Graph
from equint.job import Job
from equint.onnx.reader import read
from handwritten import execute, network, normal
from nets import networks

W, V = normal(4, 3, 3, 3), normal(4, 4, 3, 3)


def graph_of(body: str, **consts: Any) -> Graph:
    return read(network(body, **consts)).graph


def grids(body: str, **consts: Any) -> list[tuple[str, ...]]:
    return sorted(place(graph_of(body, **consts)).classes)


def test_activation_behind_a_layer_is_merged() -> None:
    graph = graph_of("a = Conv(x, w) b = Relu(a) y = Conv(b, v)", w=W, v=V)
    placement = place(graph)
    assert placement.merged == {"a"}
    assert sorted(placement.classes) == [("b",), ("x",), ("y",)]


def test_chain_of_activations_is_merged() -> None:
    body = "a = Conv(x, w) b = Relu(a) y = Clip(b, lo, hi)"
    graph = graph_of(body, w=W, lo=0.0, hi=6.0)
    assert place(graph).merged == {"a", "b"}
    assert sorted(place(graph).classes) == [("x",), ("y",)]


def test_value_that_is_read_elsewhere_is_not_merged() -> None:
    graph = graph_of("a = Conv(x, w) b = Relu(a) y = Add(a, b)", w=W)
    assert place(graph).merged == frozenset()
    assert sorted(place(graph).classes) == [("a",), ("x",), ("y",)]  # y is one function of a


def test_output_is_not_merged() -> None:
    proto = network("y = Conv(x, w) z = Relu(y) u = Conv(z, v)", output="float[N,A,B,C] y, float[N,A,D,E] u", w=W, v=V)
    assert place(read(proto).graph).merged == frozenset()


def test_clip_with_computed_bounds_is_no_activation() -> None:
    proto = network("a = Conv(x, w) y = Clip(a, , hi)", inputs="float[N,3,8,8] x, float hi", w=W)
    assert place(read(proto).graph).merged == frozenset()


PRODUCT = "a = Conv(x, w) g = Sigmoid(a) b = Mul(g, a) y = Conv(b, v)"


@pytest.mark.parametrize(
    ("body", "merged", "classes"),
    [
        ("a = Conv(x, w) b = LeakyRelu(a) y = Conv(b, v)", {"a"}, ["b", "x", "y"]),
        ("a = Conv(x, w) b = HardSwish(a) y = Conv(b, v)", {"a"}, ["b", "x", "y"]),
        ("a = Conv(x, w) c = Add(a, x) b = HardSwish(c) y = Conv(b, v)", {"c"}, ["a", "b", "x", "y"]),
        ("a = Conv(x, w) b = LeakyRelu(a) c = Relu(b) y = Conv(c, v)", {"a", "b"}, ["c", "x", "y"]),
        (PRODUCT, {"a", "g"}, ["b", "x", "y"]),
        (
            "a = Conv(x, w) b = HardSwish(a) c = Transpose <perm = [0, 1, 3, 2]> (b) y = Conv(c, v)",
            {"a"},
            ["b c", "x", "y"],
        ),
        ("a = Conv(x, w) y = LeakyRelu(a)", {"a"}, ["x", "y"]),
        # one rounding is left as it is: the activation's result stays float
        ("a = Conv(x, w) y = HardSwish(a)", set(), ["a", "x"]),
        # read elsewhere, of another kind, behind what is no sum, or behind another activation
        ("a = Conv(x, w) b = LeakyRelu(a) y = Add(a, b)", set(), ["a", "x", "y"]),
        ("a = Conv(x, w) b = Exp(a) y = Conv(b, v)", set(), ["a", "b", "x", "y"]),
        ("a = MaxPool <kernel_shape = [2, 2]> (x) b = LeakyRelu(a) y = Conv(b, w)", set(), ["b", "x a", "y"]),
        ("a = Conv(x, w) b = LeakyRelu(a) c = HardSwish(b) y = Conv(c, v)", {"a"}, ["b", "c", "x", "y"]),
        ("a = Conv(x, w) g = Sigmoid(a) b = Mul(g, x) c = Add(a, b) y = Conv(c, v)", set(), list("abcgxy")),
    ],
)
def test_what_hardware_applies_to_sums(body: str, merged: set[str], classes: list[str]) -> None:
    shapes = {"w": normal(3, 3, 1, 1), "v": normal(4, 3, 1, 1)}
    graph = graph_of(body, **{k: v for k, v in shapes.items() if f" {k})" in body})
    placement = place(replace(graph, fuses=True))
    assert placement.merged == merged
    assert [" ".join(c) for c in sorted(placement.classes)] == classes
    assert placement.clamped == {"b"} & merged - {"a"} if "Relu(b)" in body else not placement.clamped


def test_only_what_has_constants_is_applied_to_sums() -> None:
    body, inputs = "a = Conv(x, w) b = PRelu(a, s) y = Conv(b, v)", "float[N,3,8,8] x, float[4,1,1] s"
    graph = replace(read(network(body, inputs=inputs, w=W, v=V)).graph, fuses=True)
    assert "a" not in place(graph).merged


def test_concat_shares_with_all_inputs() -> None:
    body = "a = Conv(x, w) b = Conv(x, v) c = Concat <axis = 1> (a, b, x) y = Conv <group = 1> (c, u)"
    same = {"w": normal(4, 3, 1, 1), "v": normal(4, 3, 1, 1, seed=2), "u": normal(2, 11, 1, 1)}
    assert grids(body, **same) == [("x", "a", "b", "c"), ("y",)]


def test_what_moves_values_keeps_the_grid() -> None:
    body = (
        "a = Conv(x, w) b = MaxPool <kernel_shape = [2, 2]> (a) c = Transpose <perm = [0, 1, 3, 2]> (b) y = Conv(c, v)"
    )
    assert grids(body, w=W, v=V) == [("a", "b", "c"), ("x",), ("y",)]


def test_average_and_sum_have_grids_of_their_own() -> None:
    body = "a = Conv(x, w) b = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (a) y = Add(a, b)"
    assert grids(body, w=W) == [("a",), ("b",), ("x",), ("y",)]


def test_chained_concats_share_one_grid() -> None:
    body = "a = Relu(x) b = Concat <axis = 1> (a, x) c = Concat <axis = 1> (b, b) y = Conv(c, w)"
    assert grids(body, w=normal(4, 12, 3, 3)) == [("x", "a", "b", "c"), ("y",)]


def test_constant_operands_become_integers() -> None:
    graph = graph_of("a = Mul(x, m) b = Add(a, n) y = Conv(b, w)", m=normal(1, 3, 1, 1), n=normal(1, 3, 1, 1), w=W)
    assert place(graph).operands == ("m", "n")


def test_float_islands() -> None:
    graph = graph_of("a = Conv(x, w) b = Sigmoid(a) c = Mul(a, b) d = Exp(c) y = acme.Blur (d)", w=W)
    assert {op: len(labels) for op, labels in borders(graph).items()} == {"Sigmoid": 1, "Exp": 1, "acme::Blur": 1}
    wanted = {n for c in place(graph).classes for n in c}
    assert wanted == {"x", "a"}  # the rest is one function of a, which nothing reads as integers


def alone(body: str, **consts: Any) -> Graph:
    """A graph for hardware that runs integers only."""
    return replace(graph_of(body, **consts), integers_only=True)


def test_where_only_integers_run_every_activation_has_a_grid() -> None:
    graph = alone(
        "a = Conv(x, w) r = Relu(a) s = Softmax(r) t = Transpose <perm = [0, 1, 3, 2]> (s) y = MatMul(s, t)", w=W
    )
    assert sorted(place(graph).classes) == [("r",), ("s", "t"), ("x",), ("y",)]
    graph = alone("a = Conv(x, w) r = Relu(a) s = Softmax(r) y = Tanh(s)", w=W)
    assert sorted(place(graph).classes) == [("r",), ("s",), ("x",), ("y",)]
    assert sorted(place(replace(graph, integers_only=False)).classes) == [("r",), ("x",)]


def test_where_only_integers_run_a_function_of_one_value_has_one_grid_at_its_end() -> None:
    numbers = {"three": np.float32(3), "zero": np.float32(0), "six": np.float32(6)}
    body = "a = Conv(x, w) b = Add(a, three) c = Clip(b, zero, six) d = Mul(a, c) y = Div(d, six)"
    graph = alone(body, w=W, **numbers)
    placement = place(graph)
    assert placement.inner == dict.fromkeys("bcd", "a")
    assert sorted(placement.classes) == [("a",), ("x",), ("y",)]
    assert placement.merged == frozenset()


def test_a_function_of_one_value_stays_one_table_on_hardware_that_fuses() -> None:
    """x·σ(1.7·x): the Sigmoid does not belong to the sums of 1.7·x, which are part of the function themselves."""
    graph = replace(
        alone("a = Conv(x, w) b = Mul(a, c) s = Sigmoid(b) y = Mul(a, s)", w=W, c=np.float32(1.7)), fuses=True
    )
    placement = place(graph)
    assert placement.inner == dict.fromkeys("bs", "a")
    assert not placement.fused
    assert sorted(placement.classes) == [("a",), ("x",), ("y",)]


def test_where_only_integers_run_what_has_an_integer_form_does_not_stay_float() -> None:
    graph = alone("a = Conv(x, w) s = Softmax(a) b = Sigmoid(s) y = acme.Blur (b)", w=W)
    assert set(borders(replace(graph, integers_only=False))) == {"Softmax", "Sigmoid", "acme::Blur"}
    assert set(borders(graph)) == {"acme::Blur"}


def test_where_only_integers_run_parts_that_are_picked_again_share_a_grid() -> None:
    body = "a = Conv(x, w) b = Conv(x, v) c = Concat <axis = 1> (a, b) d = Slice(c, s, e, k) y = Conv(d, u)"
    consts = {"s": [0], "e": [3], "k": [1], "w": W, "v": normal(4, 3, 3, 3, seed=2), "u": normal(4, 3, 1, 1)}
    assert float_joins(graph_of(body, **consts), {"c"}) == {"c"}
    assert float_joins(alone(body, **consts), {"c"}) == frozenset()


def test_integers_in_the_graph_are_left() -> None:
    proto = network("a = Conv(x, w) b = ArgMax <axis = 1> (a) y = Identity(b)", output="int64[N,A,B,C] y", w=W)
    assert not {"b", "y"} & {n for c in place(read(proto).graph).classes for n in c}


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(networks())
def test_classes_of_random_networks(proto: onnx.ModelProto) -> None:
    """Classes are apart, in order, of float activations, and never of what is merged into another."""
    graph = read(proto).graph
    placement = place(graph)
    order = [*graph.inputs, *(o for node in graph.nodes for o in node.outputs)]
    for a, b in combinations(placement.classes, 2):
        assert not set(a) & set(b)
    for names in placement.classes:
        assert sorted(names, key=order.index) == list(names)
        assert not set(names) & placement.merged
    wanted = {n for c in placement.classes for n in c}
    weighted = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
    for node in graph.nodes:
        if node.op in weighted:
            assert node.inputs[0] in wanted
            assert node.outputs[0] in wanted | placement.merged
        source = graph.producer.get(node.inputs[0])
        if node.op in {"Relu", "Clip"} and source is not None and source.op in weighted:
            alone = len(graph.users(node.inputs[0])) == 1
            assert (node.inputs[0] in placement.merged) == alone
    for node in graph.nodes:
        if node.op == "Concat" and node.outputs[0] in wanted:
            (home,) = [c for c in placement.classes if node.outputs[0] in c]
            assert set(node.inputs) <= set(home)


def test_a_network_with_recurrent_operators_is_placed_as_for_other_targets() -> None:
    body = "h = LSTM <hidden_size = 4> (x, w, r) s = Squeeze (h, one) y = MatMul (s, v)"
    consts: dict[str, Any] = {"w": normal(1, 16, 3), "r": normal(1, 16, 4), "v": normal(4, 2), "one": [1]}
    proto = network(body, inputs="float[5,N,3] x", output="float[5,N,2] y", **consts)
    grids = [Job.of(proto, "lwq", target).network.graph.integers_only for target in ("npu-shift", "per-channel")]
    assert grids == [False, False]
    assert Job.of(network("y = Conv(x, w)", w=W), "lwq", "npu-shift").network.graph.integers_only


POOLED = "a = Conv(x, w) b = Add(a, c) m = MaxPool<kernel_shape=[2,2]>(b) y = Conv(m, v)"


@pytest.mark.parametrize(
    ("operators", "classes", "operands"),
    [
        ((), [("a",), ("b", "m"), ("x",), ("y",)], ("c",)),
        (("Conv", "Add", "MaxPool"), [("a",), ("b", "m"), ("x",), ("y",)], ("c",)),
        (("Conv", "Add"), [("a",), ("b",), ("m",), ("x",), ("y",)], ("c",)),
        (("Conv", "MaxPool"), [("a",), ("b", "m"), ("x",), ("y",)], ()),
        (("Conv",), [("a",), ("m",), ("x",), ("y",)], ()),
        (("Add",), [("a",), ("b",)], ("c",)),
        (("Softmax",), [], ()),
    ],
)
def test_only_what_is_listed_is_on_integers(
    operators: tuple[str, ...], classes: list[tuple[str, ...]], operands: tuple[str, ...]
) -> None:
    graph = replace(graph_of(POOLED, w=W, v=V, c=normal(4, 1, 1)), operators=operators)
    placement = place(graph)
    assert sorted(placement.classes) == classes
    assert placement.operands == operands


def test_a_quantizer_that_replaces_an_activation_needs_no_operator() -> None:
    graph = graph_of("a = Conv(x, w) b = Relu(a) y = Conv(b, v)", w=W, v=V)
    assert place(replace(graph, operators=("Conv",))) == place(graph)


def test_an_activation_is_applied_to_sums_where_it_is_listed() -> None:
    graph = replace(graph_of("a = Conv(x, w) b = LeakyRelu(a) y = Conv(b, v)", w=W, v=V), fuses=True)
    assert place(replace(graph, operators=("Conv", "LeakyRelu"))).fused.keys() == {"a"}
    apart = place(replace(graph, operators=("Conv",)))
    assert (apart.fused, sorted(apart.classes)) == ({}, [("a",), ("b",), ("x",), ("y",)])


def test_a_node_is_kept_float_by_its_name() -> None:
    """What it reads is still rounded where others read it; what it makes, where a layer does."""
    body = "a = Conv(x, w) b = Relu(a) p = Conv(b, v) q = Conv(b, v) r = Add(p, q) y = Conv(r, v)"
    graph = graph_of(body, w=W, v=V)
    assert sorted(place(replace(graph, float_layers=("q",))).classes) == [
        ("b",),
        ("p",),
        ("q",),
        ("r",),
        ("x",),
        ("y",),
    ]
    assert sorted(place(replace(graph, float_layers=("q", "r"))).classes) == [("b",), ("p",), ("r",), ("x",), ("y",)]
    assert sorted(place(replace(graph, float_layers=("[pqr]",))).classes) == [("b",), ("r",), ("x",), ("y",)]
    assert sorted(place(replace(graph, float_layers=("a", "[pqr]"))).classes) == [("r",), ("y",)]


@pytest.mark.parametrize("wide", ["double", "float16"])
@pytest.mark.parametrize("target", ["npu-shift", "onnxruntime"])
def test_doubles_and_halfs_stay_as_they_are(wide: str, target: str) -> None:
    """ONNX quantizes float32 alone: between the casts nothing is rounded, and onnxruntime runs the file."""
    to = onnx.TensorProto.DOUBLE if wide == "double" else onnx.TensorProto.FLOAT16
    body = f"a = Conv(x, w) d = Cast <to = {to}> (a) m = Mul(d, d) b = Cast <to = 1> (m) y = Conv(b, v)"
    proto = network(body, w=W, v=V)
    images = normal(4, 3, 8, 8, scale=1)
    made = equint.quantize(proto, target=target, input=(-4, 4))
    assert made.model.qparams.keys().isdisjoint({"d", "m"})
    (wanted,), (found,) = execute(proto, images), execute(made.proto, images)
    assert 10 * np.log10(np.square(wanted).sum() / np.square(found - wanted).sum()) > 20
