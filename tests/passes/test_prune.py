from dataclasses import replace
from math import floor
from typing import Literal

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from equint.errors import EquintError
from equint.graph.inputs import describe_range
from equint.ir.events import EventKind
from equint.ir.model import Graph, Model, Node
from equint.onnx.reader import read
from equint.ops.layers import layers, tiny_graph
from equint.passes.activation_ranges import ActivationRanges
from equint.passes.fold_batchnorm import FoldBatchnorm
from equint.passes.prune import Prune, without_smallest
from nets import Net
from values import values

WEIGHT = np.array([[0.5, -0.25], [0.25, -1.0]], np.float32)


def dense(*nodes: Node) -> Model:
    """Gemm layers that all read `WEIGHT`."""
    return Model(Graph(nodes, {"w": WEIGHT}, ("x",), (nodes[-1].outputs[0],)))


def test_a_threshold_takes_what_is_less_than_it() -> None:
    model = dense(Node("Gemm", ("x", "w"), ("y",)))
    assert Prune(threshold=0.25)(model).graph.consts["w"].tolist() == WEIGHT.tolist()
    after = Prune(threshold=0.2500001)(model)
    assert after.graph.consts["w"].tolist() == [[0.5, 0.0], [0.0, -1.0]]
    assert after.graph.consts["w"].dtype == np.float32
    assert after.log[0].facts == {"zeros": 2, "share": 0.5}
    assert after.log[0].at == "y"
    assert model.graph.consts["w"] is WEIGHT
    assert WEIGHT[0, 1] == -0.25


def test_of_equal_magnitudes_the_first_go() -> None:
    after = Prune(sparsity=0.25)(dense(Node("Gemm", ("x", "w"), ("y",))))
    assert after.graph.consts["w"].tolist() == [[0.5, 0.0], [0.25, -1.0]]


@settings(max_examples=40)
@given(st.integers(1, 60), st.integers(1, 99), st.integers(0, 2**32 - 1))
def test_exactly_the_share_goes_and_nothing_smaller_stays(size: int, percent: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.choice([-2, -1, 1, 2, 3], size=size).astype(np.float32)  # many ties, no zeros
    graph = tiny_graph().with_consts({"w": np.resize(weight, (4, 1, 3, 3))})
    before = graph.consts["w"]
    after = Prune(sparsity=percent / 100)(Model(graph)).graph.consts["w"]
    assert int(np.sum(after == 0)) == floor(percent * before.size // 100)
    gone = np.abs(before[after == 0])
    assert gone.max(initial=0) <= np.abs(before[after != 0]).min(initial=np.inf)
    np.testing.assert_array_equal(after[after != 0], before[after != 0])


def test_zeros_that_were_there_count() -> None:
    weight = np.array([3.0, 0.0, -1.0, 0.0])
    assert without_smallest(weight, 2).tolist() == weight.tolist()
    assert without_smallest(weight, 3).tolist() == [3.0, 0.0, 0.0, 0.0]


def test_a_shared_weight_is_pruned_once_and_stays_shared() -> None:
    model = dense(Node("Gemm", ("x", "w"), ("h",)), Node("Gemm", ("h", "w"), ("y",)))
    after = Prune(sparsity=0.5)(model)
    assert [layer.weight for layer in layers(after.graph)] == ["w", "w"]
    assert int(np.sum(after.graph.consts["w"] == 0)) == 2
    assert after.log[-1].facts == {"layers": 1, "zeros": 2, "share": 0.5}


def test_a_weight_that_something_else_reads_is_left_alone() -> None:
    model = dense(Node("Gemm", ("x", "w"), ("h",)), Node("Add", ("h", "w"), ("y",)))
    after = Prune(sparsity=0.5)(model)
    assert after.graph.consts["w"] is WEIGHT
    assert [e.kind for e in after.log] == [EventKind.LAYER_NOT_PRUNED, EventKind.PRUNED]


def test_a_layer_without_weights_left_is_a_warning() -> None:
    after = Prune(threshold=5.0)(dense(Node("Gemm", ("x", "w"), ("y",))))
    assert [e.warning for e in after.log] == [True, False]


def test_biases_stay() -> None:
    layer = Node("Gemm", ("x", "w", "b"), ("y",))
    bias = np.full(2, 0.01, np.float32)
    model = Model(replace(dense(layer).graph, consts={"w": WEIGHT, "b": bias}))
    assert Prune(threshold=0.3)(model).graph.consts["b"] is bias


@pytest.mark.parametrize(
    ("threshold", "sparsity"),
    [(0.0, 0.0), (0.1, 0.1), (-1.0, 0.0), (float("inf"), 0.0), (float("nan"), 0.0), (0.0, 1.0), (0.0, -0.5)],
)
def test_exactly_one_of_both_is_asked_for(threshold: float, sparsity: float) -> None:
    with pytest.raises(EquintError, match=r"not both|choose"):
        Prune(threshold, sparsity)


def described(seed: int = 0) -> Model:
    net = Net(seed, shape=(3, 16, 16), calibrated=True)
    x = net.relu(net.batchnorm(net.conv(net.input, 12)))
    x = net.relu(net.batchnorm(net.conv(x, 12, groups=12)))
    x = net.relu(net.batchnorm(net.conv(x, 16, 1)))
    proto = net.build(net.gemm(net.flatten(net.globalpool(x)), 5))
    return ActivationRanges()(FoldBatchnorm()(describe_range(read(proto), -3, 3)))


def test_biases_take_up_the_mean_of_what_is_pruned() -> None:
    net = Net(4, shape=(3, 16, 16))
    model = describe_range(read(net.build(net.conv(net.input, 12))), 0, 2)
    pruned = Prune(sparsity=0.3)(model)
    weight = next(layers(model.graph)).weight
    bare = replace(model, graph=model.graph.with_consts({weight: pruned.graph.consts[weight]}))
    mean = float(model.moments[net.input].mean.reshape(-1)[0])
    x = np.random.default_rng(0).normal(mean, 0.2, (64, 3, 16, 16)).astype(np.float32)
    wanted, corrected, left = (values(m, x)[0].mean((0, 2, 3)) for m in (model, pruned, bare))
    assert np.abs(corrected - wanted).max() < 0.02 * np.abs(left - wanted).max()


@pytest.mark.parametrize("seed", range(3))
def test_pruned_by_what_it_costs_at_the_outputs_it_costs_less(seed: int) -> None:
    model = described(seed)
    x = np.random.default_rng(0).normal(size=(64, 3, 16, 16)).astype(np.float32)
    wanted = values(model, x)[0]
    noise = {}
    costs: tuple[Literal["weights"], Literal["outputs"]] = ("weights", "outputs")
    for cost in costs:
        pruned = Prune(sparsity=0.25, cost=cost)(model)
        assert pruned.log[-1].facts["share"] == pytest.approx(0.25, abs=0.01)
        noise[cost] = float(np.square(values(pruned, x)[0] - wanted).mean())
    assert noise["outputs"] < noise["weights"]
