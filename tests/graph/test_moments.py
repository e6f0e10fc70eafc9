"""What is propagated agrees with what onnxruntime computes on many inputs of the right distribution."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper

from equint.graph.moments import heavy_tailed, propagate
from equint.graph.moments import told as told_by_batchnorm
from equint.graph.ranges import tensor_ranges
from equint.ir.model import Array, Graph, Model, Moments, Node, Origin, Range
from equint.onnx.reader import read
from equint.ops.curves import CURVES
from equint.ops.layers import layer_moments, layers
from equint.ops.pools import window
from equint.passes.fold_batchnorm import FoldBatchnorm
from handwritten import execute, network, normal
from nets import networks, random_network, sample
from values import values

Floats = NDArray[np.float64]
MEAN, STD = np.array([-0.5, 0.3, 2.0]), np.array([1.5, 0.7, 0.4])
MEAN_Z, STD_Z = np.array([1.0, 0.0, -2.0]), np.array([0.5, 2.0, 1.0])


def told(mean: Floats, std: Floats, origin: Origin = "given") -> Moments:
    return Moments(mean.reshape(1, -1, 1, 1), std.reshape(1, -1, 1, 1), origin)


def channelwise(x: Array) -> tuple[Floats, Floats]:
    axes = (0, *range(2, x.ndim))
    return x.mean(axes, dtype=np.float64), x.std(axes, dtype=np.float64)


def least_variance(proto: ModelProto) -> float:
    """The smallest variance that a BatchNorm of the network has stored; 1 without one."""
    stored = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    variances = [stored[n.input[4]] for n in proto.graph.node if n.op_type == "BatchNormalization"]
    return min((float(v.min()) for v in variances), default=1.0)


def calibrated(proto: ModelProto) -> Model:
    """The folded network, its input known to be standard normal, which its BatchNorms agree with."""
    model = read(proto)
    shape = (1,) * (model.graph.rank(model.graph.inputs[0]) or 0)
    given_input = Moments(np.zeros(shape), np.ones(shape), "given")
    return FoldBatchnorm()(replace(model, moments={model.graph.inputs[0]: given_input}))


@pytest.mark.slow
@settings(max_examples=25)
@given(networks(calibrated=True))
def test_what_batchnorm_knows_is_true(proto: ModelProto) -> None:
    assume(least_variance(proto) > 1e-5)  # below, a BatchNorm makes signals of what float32 rounded
    model = calibrated(proto)
    graph = model.graph
    names = [n for n, m in model.moments.items() if m.origin == "batchnorm" and n in graph.producer]
    if not names:
        return
    for name, x in zip(names, values(model, sample(proto, 64), names), strict=True):
        mean, std = channelwise(x)
        scale = float(np.abs(x).max()) + 1e-3
        np.testing.assert_allclose(model.moments[name].mean.reshape(-1), mean, atol=2e-3 * scale)
        np.testing.assert_allclose(model.moments[name].std.reshape(-1), std, atol=2e-3 * scale)


@pytest.mark.slow
def test_what_follows_batchnorm_is_near() -> None:
    """In standard deviations of the channel; not exact, because what BatchNorm puts out is not quite Gaussian."""
    errors: list[float] = []
    for seed in range(30):
        proto = random_network(seed, calibrated=True, activations=["relu", "relu6", "leaky", "prelu"])
        model = calibrated(proto)
        sources = {n: m.origin for n, m in model.moments.items()}
        makers = [n for n in model.graph.nodes if n.op in ("Relu", "Clip", "LeakyRelu", "PRelu")]
        names = [n.outputs[0] for n in makers if sources.get(n.inputs[0]) == "batchnorm"]
        for name, x in zip(names, values(model, sample(proto, 64), names) if names else [], strict=True):
            mean, std = channelwise(x)
            live = std > 1e-3
            errors += list(np.abs(model.moments[name].mean.reshape(-1) - mean)[live] / std[live])
    assert len(errors) > 300
    assert np.median(errors) < 0.03
    assert np.quantile(errors, 0.95) < 0.2


SINGLE: dict[str, tuple[str, dict[str, Any]]] = {
    "Relu": ("y = Relu(x)", {}),
    "Clip": ("y = Clip(x, lo, hi)", {"lo": 0.0, "hi": 1.0}),
    "Clip below": ("y = Clip(x, lo)", {"lo": -0.25}),
    "LeakyRelu": ("y = LeakyRelu <alpha = 0.2> (x)", {}),
    "PRelu": ("y = PRelu(x, c)", {"c": np.array([0.5, -0.2, 0.1]).reshape(3, 1, 1)}),
    "Sigmoid": ("y = Sigmoid(x)", {}),
    "Tanh": ("y = Tanh(x)", {}),
    "HardSigmoid": ("y = HardSigmoid <alpha = 0.4, beta = 0.3> (x)", {}),
    "HardSwish": ("y = HardSwish(x)", {}),
    "Elu": ("y = Elu <alpha = 0.7> (x)", {}),
    "Softplus": ("y = Softplus(x)", {}),
    "Exp": ("h = Mul(x, c) y = Exp(h)", {"c": 0.5}),
    "Abs": ("y = Abs(x)", {}),
    "Neg": ("y = Neg(x)", {}),
    "Gelu": ("y = Gelu(x)", {}),
    "Mish": ("y = Mish(x)", {}),
    "SiLU": ("s = Sigmoid(x) y = Mul(x, s)", {}),
    "HardSwish by hand": ("s = HardSigmoid <alpha = 0.166667> (x) y = Mul(s, x)", {}),
    "gate": ("s = Sigmoid(z) y = Mul(x, s)", {}),
    "Add": ("y = Add(x, z)", {}),
    "Sub": ("y = Sub(x, z)", {}),
    "Sum": ("r = Relu(z) y = Sum(x, r, c)", {"c": 0.5}),
    "Add constant": ("y = Add(c, x)", {"c": np.array([1.0, 2.0, 3.0]).reshape(3, 1, 1)}),
    "Sub from constant": ("y = Sub(c, x)", {"c": np.array([1.0, 2.0, 3.0]).reshape(1, 3, 1, 1)}),
    "Mul constant": ("y = Mul(x, c)", {"c": -2.0}),
    "Div constant": ("y = Div(x, c)", {"c": -2.0}),
    "Max constant": ("y = Max(x, c)", {"c": np.array([0.0, 0.5, 2.0]).reshape(3, 1, 1)}),
    "Min constant": ("y = Min(x, c)", {"c": 0.5}),
    "Concat": ("r = Relu(z) y = Concat <axis = 1> (x, r)", {}),
    "Split": ("a, y = Split <axis = 1> (x, s)", {"s": [1, 2]}),
    "Transpose": ("y = Transpose <perm = [0, 1, 3, 2]> (x)", {}),
    "Resize": ("y = Resize(x, , c)", {"c": [1.0, 1.0, 2.0, 2.0]}),
    "DepthToSpace": ("a = Concat <axis = 1> (x, z, x, z) y = DepthToSpace <blocksize = 2> (a)", {}),
    "DepthToSpace CRD": ('a = Concat <axis = 1> (x, z, x, z) y = DepthToSpace <blocksize = 2, mode = "CRD"> (a)', {}),
}  # fmt: skip


LAYERS: dict[str, tuple[str, dict[str, Any]]] = {
    "Conv": ("y = Conv(r, w, b)", {"w": normal(4, 3, 3, 3), "b": normal(4)}),
    "strided": ("y = Conv <group = 3, strides = [2, 2]> (r, w)", {"w": normal(6, 1, 2, 2)}),
    "padded": ("y = Conv <pads = [1, 1, 0, 2]> (r, w, b)", {"w": normal(4, 3, 3, 3), "b": normal(4)}),
    "ConvTranspose": ("y = ConvTranspose <group = 3, strides = [1, 2]> (r, w)", {"w": normal(3, 2, 3, 2)}),
    "Gemm": ("f = GlobalAveragePool(r) g = Flatten(f) y = Gemm(g, w, b)", {"w": normal(3, 5), "b": normal(5)}),
}


def described(body: str, consts: dict[str, Any], n: int = 1500) -> tuple[Graph, dict[str, Moments], list[Array]]:
    """A graph of two Gaussian inputs, what is known of them, and draws."""
    inputs = f"float[{n},3,8,8] x, float[{n},3,8,8] z"
    proto = network(body, inputs=inputs, output="float[] y", opset=20, ir=9, **consts)
    rng = np.random.default_rng(0)
    known = {"x": told(MEAN, STD), "z": told(MEAN_Z, STD_Z)}
    draws = [(m.mean + m.std * rng.standard_normal((n, 3, 8, 8))).astype(np.float32) for m in known.values()]
    return read(proto).graph, known, list(execute(proto, *draws))


@pytest.mark.slow
@pytest.mark.parametrize("case", SINGLE)
def test_one_operator_against_simulation(case: str) -> None:
    graph, known, (y,) = described(*SINGLE[case])
    found = propagate(graph, known)[graph.outputs[0]]
    assert found.mean.ndim == y.ndim
    mean, std = channelwise(y)
    tolerance = 0.02 * std.max()
    np.testing.assert_allclose(np.broadcast_to(found.mean.reshape(-1), mean.shape), mean, atol=tolerance)
    np.testing.assert_allclose(np.broadcast_to(found.std.reshape(-1), std.shape), std, atol=tolerance)


@pytest.mark.parametrize("case", LAYERS)
def test_layers_against_simulation(case: str) -> None:
    """The mean is exact; the spread lies between that of independent and that of fully correlated inputs."""
    body, consts = LAYERS[case]
    graph, known, (y,) = described(f"r = Relu(x) {body}", consts)
    (layer,) = layers(graph)
    moments = propagate(graph, known)
    mean, _ = channelwise(y)
    found = moments["y"]
    np.testing.assert_allclose(found.mean.reshape(-1), mean, atol=0.005 * np.abs(y).max())
    x = moments[layer.x]
    apart, between, together = (layer_moments(graph, layer, x, c)[1] for c in (0.0, 0.5, 1.0))
    assert np.all((apart <= between + 1e-12) & (between <= together + 1e-12))


@pytest.mark.parametrize("case", ["Conv", "strided"])
def test_the_spread_of_independent_inputs_against_simulation(case: str) -> None:
    body, consts = LAYERS[case]
    graph, known, (y,) = described(f"r = Relu(x) {body}", consts)
    (layer,) = layers(graph)
    _, found = layer_moments(graph, layer, propagate(graph, known)["r"], correlation=0)
    np.testing.assert_allclose(found, channelwise(y)[1], rtol=0.02)


def test_the_spread_of_equal_inputs_against_simulation() -> None:
    """Nothing is more correlated than three channels that are equal, and weights of one sign."""
    weight = np.abs(normal(4, 3, 1, 1))
    graph, known, _ = described("r = Relu(x) y = Conv(r, w)", {"w": weight})
    x = np.random.default_rng(0).standard_normal(100_000)
    measured = (weight.reshape(4, 3) * STD).sum(1) * x.std()
    (layer,) = layers(graph)
    equal = told(np.zeros(3), STD)
    _, found = layer_moments(graph, layer, equal, correlation=1)
    np.testing.assert_allclose(found, measured, rtol=0.01)


def test_a_bound_for_each_channel() -> None:
    node = Node("Clip", ("x", "lo", "hi"), ("y",))
    high = np.array([0.5, 1.0, 6.0]).reshape(1, 3, 1, 1)
    x = told(MEAN, STD)
    found = propagate(Graph((node,), {"lo": np.zeros(()), "hi": high}, ("x",), ("y",)), {"x": x})["y"]
    draws = x.mean + x.std * np.random.default_rng(0).standard_normal((200_000, 3, 1, 1))
    measured = channelwise(np.clip(draws, 0, high))
    np.testing.assert_allclose(found.mean.reshape(-1), measured[0], atol=0.01)
    np.testing.assert_allclose(found.std.reshape(-1), measured[1], atol=0.01)


@pytest.mark.parametrize(
    "body",
    [
        "y = AveragePool <kernel_shape = [2, 2]> (x)",
        "y = GlobalAveragePool(x)",
        "y = ReduceMean <keepdims = 0> (x, c)",
    ],
)
def test_averaging_keeps_the_mean(body: str) -> None:
    graph, known, (y,) = described(body, {"c": [2, 3]} if "Reduce" in body else {})
    found = propagate(graph, known)["y"]
    np.testing.assert_allclose(found.mean.reshape(-1), MEAN, rtol=1e-12)
    assert found.mean.ndim == y.ndim
    assert np.all(found.std.reshape(-1) < STD)


def test_windows_by_hand() -> None:
    graph = described("a = MaxPool <kernel_shape = [2, 3]> (x) y = GlobalMaxPool(a)", {})[0]
    assert [window(graph, node) for node in graph.nodes] == [6, 7 * 6]


def test_what_is_known_is_kept_and_the_unknown_stays_unknown() -> None:
    graph, known, _ = described("a = Relu(x) b = Softsign(a) y = Relu(b)", {})
    fixed = told(MEAN, STD, "batchnorm")
    found = propagate(graph, {**known, "a": fixed})
    assert found["a"] is fixed
    assert "y" not in found
    stale = replace(fixed, origin="propagated")
    np.testing.assert_array_equal(propagate(graph, {**known, "a": stale})["a"].mean, propagate(graph, known)["a"].mean)


BOUNDED = [
    c for c in SINGLE if c.split()[0] in CURVES.keys() | {"Softmax", "Relu", "Clip", "LeakyRelu", "PRelu", "Max", "Min"}
]


@pytest.mark.parametrize("case", [*BOUNDED, "SiLU", "gate", "Concat", "Split", "DepthToSpace", "Mul constant"])
def test_nothing_leaves_its_tensor_ranges(case: str) -> None:
    """As long as the inputs stay within the three standard deviations that they are said to reach."""
    body, consts = SINGLE[case]
    graph, known, _ = described(body, consts, n=200)
    rng = np.random.default_rng(0)
    draws = [
        (known[i].mean + known[i].std * np.clip(rng.normal(size=(200, 3, 8, 8)), -3, 3)).astype(np.float32)
        for i in ("x", "z")
    ]
    shape = "float[200,3,8,8] x, float[200,3,8,8] z"
    (y,) = execute(network(body, inputs=shape, output="float[] y", opset=20, ir=9, **consts), *draws)
    ranges = {n: Range(m.mean - 3 * m.std, m.mean + 3 * m.std) for n, m in known.items()}
    found = tensor_ranges(graph, propagate(graph, known), ranges, 3.0)[graph.outputs[0]]
    lo, hi = (np.broadcast_to(end, y.shape) for end in (found.lo, found.hi))
    slack = 0.02 * float(np.max(hi - lo))  # what the sampling of a curve may miss
    assert np.all(y >= lo - slack)
    assert np.all(y <= hi + slack)
    assert np.max(hi - lo) < 3 * (y.max() - y.min())


def test_the_reach_of_a_sum_is_that_of_its_spread() -> None:
    graph, known, _ = described("y = Add(x, z)", {}, n=1)
    found = tensor_ranges(graph, propagate(graph, known), {}, 6.0)["y"]
    mean, std = MEAN + MEAN_Z, np.hypot(STD, STD_Z)
    np.testing.assert_allclose(found.lo.reshape(-1), mean - 6 * std)
    np.testing.assert_allclose(found.hi.reshape(-1), mean + 6 * std)


HEAVY: list[tuple[str, str]] = [  # a graph, and the tensors whose reach is in doubt
    ("y = Conv(x, dense)", ""),
    ("y = Conv <group = 3> (x, single)", "y"),
    ("h = Slice(x, zero, one, one) y = Conv(h, lone)", "y"),  # one input channel is like a depthwise layer
    ("y = Conv <group = 2> (p, pairs)", ""),
    ("y = AveragePool <kernel_shape = [2, 2]> (x)", "y"),
    ("y = GlobalAveragePool(x)", "y"),
    ("y = ReduceMean <keepdims = 0> (x, spatial)", "y"),
    ("y = MaxPool <kernel_shape = [2, 2]> (x)", ""),
    ("a = Conv <group = 3> (x, single) b = Relu(a) c = MaxPool <kernel_shape = [2, 2]> (b) y = Sigmoid(c)", "a b c y"),
    ("a = GlobalAveragePool(x) b = Sigmoid(a) y = Mul(x, b)", "a b y"),
    ("a = Conv <group = 3> (x, single) b = Relu(a) y = Conv(b, dense)", "a b"),
    ("a = Conv <group = 3> (x, single) y = Conv <group = 3> (a, single)", "a y"),
    ("a = GlobalAveragePool(x) b = Flatten(a) y = Gemm(b, flat)", "a b"),
    ("a = Conv <group = 3> (x, single) y = Concat <axis = 1> (x, a)", "a y"),
]


@pytest.mark.parametrize(("body", "doubted"), HEAVY)
def test_averages_and_depthwise_layers_have_heavy_tails_until_a_sum_over_channels(body: str, doubted: str) -> None:
    consts: dict[str, Any] = {
        "dense": normal(4, 3, 1, 1), "single": normal(3, 1, 1, 1), "lone": normal(2, 1, 1, 1), "flat": normal(3, 2),
        "pairs": normal(4, 2, 1, 1), "spatial": [2, 3], "zero": [0], "one": [1],
    }  # fmt: skip
    body = f"p = Conv(x, dense) {body}" if "p," in body else body
    graph, known, _ = described(body, consts, n=1)
    assert heavy_tailed(graph, propagate(graph, known)) == set(doubted.split())


def test_what_batchnorm_knows_has_no_heavy_tails() -> None:
    graph, known, _ = described("a = Conv <group = 3> (x, w) b = Relu(a) y = Exp(b)", {"w": normal(3, 1, 1, 1)}, n=1)
    assert heavy_tailed(graph, propagate(graph, {**known, "a": told(MEAN, STD, "batchnorm")})) == set()
    assert heavy_tailed(graph, propagate(graph, {**known, "b": told(MEAN, STD, "batchnorm")})) == {"a"}


def test_tensors_without_moments_have_no_tails_to_doubt() -> None:
    graph, known, _ = described("a = Softsign(x) y = GlobalAveragePool(a)", {}, n=1)
    assert heavy_tailed(graph, propagate(graph, known)) == set()


def test_what_batchnorms_tell_ends_at_layers_without_one_and_at_products_of_activations() -> None:
    body = """a = Conv(x, w) n = BatchNormalization(a, s, b, m, v) r = Relu(n) p = MaxPool<kernel_shape = [2, 2]>(r)
        g = Sigmoid(p) q = Mul(p, g) o = Tanh(p) e = Mul(q, o) f = Relu(e)
        h = Conv(q, u) z = Add(h, f) y = Conv(z, u)"""
    proto = network(body, w=normal(4, 3, 3, 3), u=normal(4, 4, 1, 1), s=np.ones(4), b=np.zeros(4),
                    m=np.zeros(4), v=np.ones(4))  # fmt: skip
    model = FoldBatchnorm()(read(proto))
    sure = told_by_batchnorm(model.graph, model.moments)
    assert {"x", "n", "r", "p", "g", "q", "o"} <= sure  # q is a function of one value: its moments follow
    assert not {"e", "f", "h", "z", "y"} & sure


def test_a_product_of_ranges_whose_ends_have_shapes_of_their_own() -> None:
    """Behind a ReLU the lowest value is one for all channels, the highest is not."""
    graph = read(network("y = Mul(x, r)", output="float[N,3] y", inputs="float[N,3] x, float[N,3] r")).graph
    known = {
        "x": Range(np.full((1, 1), -2.0), np.full((1, 1), 2.0)),
        "r": Range(np.zeros((1, 1)), np.array([[1.0, 2.0, 3.0]])),
    }
    found = tensor_ranges(graph, {}, known, 6.0)["y"]
    np.testing.assert_allclose(np.broadcast_to(found.hi, (1, 3)), [[2.0, 4.0, 6.0]])
    np.testing.assert_allclose(np.broadcast_to(found.lo, (1, 3)), [[-2.0, -4.0, -6.0]])
