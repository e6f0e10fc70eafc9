"""Predicted gains agree with noise that is put into networks and measured at their outputs."""

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from numpy.typing import NDArray
from onnx import ModelProto

from equint.graph.channels import rescale, solve
from equint.graph.moments import propagate
from equint.ir.model import Array, Graph, Moments, Node
from equint.noise.constants import NoiseModel
from equint.noise.gains import gains
from equint.onnx.reader import read
from equint.onnx.writer import to_proto
from equint.ops.activations import squared_slope
from equint.passes.fold_batchnorm import FoldBatchnorm
from equint.passes.relu6 import Relu6
from equint.runtime.session import Session
from equint.samples.card import described
from handwritten import network, normal
from nets import networks

Floats = NDArray[np.float64]
NOISE = NoiseModel()
SHAPE = {"x": (3, 8, 8), "z": (3, 8, 8), "u": (1, 8, 8)}


def told(mean: list[float], std: list[float]) -> Moments:
    return Moments(np.array(mean).reshape(1, -1, 1, 1), np.array(std).reshape(1, -1, 1, 1), "given")


KNOWN = {
    "x": told([-0.5, 0.3, 2.0], [1.5, 0.7, 0.4]),
    "z": told([1.0, 0.0, -2.0], [0.5, 2.0, 1.0]),
    "u": told([0.7], [0.6]),
}


def network_of(body: str, n: int, **consts: Any) -> ModelProto:
    inputs = ", ".join(f"float[{n},{','.join(map(str, s))}] {name}" for name, s in SHAPE.items())
    return network(body, inputs=inputs, output="float[] y", opset=20, ir=9, **consts)


def graph_of(body: str, **consts: Any) -> Graph:
    return read(network_of(body, 1, **consts)).graph


def drawn(n: int) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    every = {name: m.mean + m.std * rng.standard_normal((n, *SHAPE[name])) for name, m in KNOWN.items()}
    return {name: x.astype(np.float32) for name, x in every.items()}


def power(y: Array) -> float:
    """Mean square over batch and positions, summed over channels."""
    return float(np.square(y, dtype=np.float64).mean((0, *range(2, y.ndim))).sum())


def signal_power(m: Moments) -> float:
    """The same, as moments say."""
    return float((m.mean**2 + m.std**2).sum())


# Against noise that is drawn and measured

MEASURED: dict[str, tuple[str, dict[str, Any]]] = {
    "nothing": ("y = Identity(x)", {}),
    "Relu": ("y = Relu(x)", {}),
    "Clip": ("y = Clip(x, lo, hi)", {"lo": -0.25, "hi": 1.0}),
    "LeakyRelu": ("y = LeakyRelu <alpha = 0.4> (x)", {}),
    "PRelu": ("y = PRelu(x, c)", {"c": np.array([0.5, -0.7, 0.1]).reshape(3, 1, 1)}),
    "Add": ("y = Add(x, z)", {}),
    "Add a constant": ("y = Add(x, c)", {"c": np.array([1.0, 2.0, 3.0]).reshape(3, 1, 1)}),
    "Sub from a constant": ("y = Sub(c, x)", {"c": np.array([1.0, 2.0, 3.0]).reshape(3, 1, 1)}),
    "Sum": ("r = Relu(z) y = Sum(x, r)", {}),
    "Add for all channels": ("y = Add(x, u)", {}),
    "Mul by a constant": ("y = Mul(x, c)", {"c": np.array([0.5, -2.0, 1.5]).reshape(3, 1, 1)}),
    "Div by a constant": ("y = Div(x, c)", {"c": np.array([0.5, -2.0, 1.5]).reshape(3, 1, 1)}),
    "Mul": ("y = Mul(x, z)", {}),
    "gate for all channels": ("y = Mul(x, u)", {}),
    "Concat": ("r = Relu(z) y = Concat <axis = 1> (x, r, u)", {}),
    "Split": ("a, b = Split <axis = 1> (x, s) y = Concat <axis = 1> (b, z, a)", {"s": [1, 2]}),
    "half of a Split": ("a, y = Split <axis = 1> (x, s)", {"s": [1, 2]}),
    "Slice": ("y = Slice(x, i1, i3, i1)", {"i1": [1], "i3": [3]}),
    "Gather": ("y = Gather <axis = 1> (x, i)", {"i": [2, 0]}),
    "Transpose": ("y = Transpose <perm = [0, 1, 3, 2]> (x)", {}),
    "shuffle": (
        "j = Concat <axis = 1> (x, z) a = Reshape(j, s) b = Transpose <perm = [0, 2, 1, 3, 4]> (a)"
        "c = Reshape(b, t) y = Slice(c, i1, i3, i1)",
        {"s": [0, 2, 3, 8, 8], "t": [0, 6, 8, 8], "i1": [1], "i3": [3]},
    ),
    "Flatten": ("y = Flatten(x)", {}),
    "Pad": ("y = Pad(x, p)", {"p": [0, 1, 0, 0, 0, 2, 0, 0]}),
    "Resize": ("y = Resize(x, , c)", {"c": [1.0, 1.0, 2.0, 2.0]}),
    "DepthToSpace": ("j = Concat <axis = 1> (x, z, x, z) y = DepthToSpace <blocksize = 2> (j)", {}),
    "Conv": ("y = Conv <pads = [1, 1, 0, 2]> (x, w)", {"w": normal(4, 3, 3, 3)}),
    "strided": ("y = Conv <group = 3, strides = [2, 2]> (x, w)", {"w": normal(6, 1, 2, 2)}),
    "ConvTranspose": ("y = ConvTranspose <group = 3, strides = [1, 2]> (x, w)", {"w": normal(3, 2, 3, 2)}),
    "Gemm": ("f = Flatten(x) y = Gemm <transB = 1> (f, w)", {"w": normal(7, 192)}),
    "MatMul": ("f = Flatten(x) y = MatMul(f, w)", {"w": normal(192, 7)}),
    "depthwise, pointwise": (
        "d = Conv <group = 3, pads = [1, 1, 1, 1]> (x, v) y = Conv(d, w)",
        {"v": normal(3, 1, 3, 3), "w": normal(5, 3, 1, 1)},
    ),
    "Sigmoid": ("y = Sigmoid(x)", {}),
    "Tanh": ("y = Tanh(x)", {}),
    "HardSigmoid": ("y = HardSigmoid <alpha = 0.3> (x)", {}),
    "HardSwish": ("y = HardSwish(x)", {}),
    "Gelu": ("y = Gelu(x)", {}),
    "Gelu by tanh": ('y = Gelu <approximate = "tanh"> (x)', {}),
    "Mish": ("y = Mish(x)", {}),
    "Elu": ("y = Elu <alpha = 0.5> (x)", {}),
    "Softplus": ("y = Softplus(x)", {}),
    "Erf": ("y = Erf(x)", {}),
    "Exp": ("y = Exp(u)", {}),
    "Pow": ("y = Pow(x, c)", {"c": 2.0}),
    "Abs": ("y = Abs(x)", {}),
    "Neg": ("y = Neg(x)", {}),
    "SiLU": ("s = Sigmoid(x) y = Mul(x, s)", {}),
    "HardSwish in two": ("s = HardSigmoid(x) y = Mul(s, x)", {}),
    "squeeze and excite": ("s = Sigmoid(z) y = Mul(x, s)", {}),
    "Max": ("y = Max(x, c)", {"c": 0.25}),
    "Min": ("y = Min(c, x)", {"c": np.array([0.0, 0.5, 2.0]).reshape(3, 1, 1)}),
    "SpaceToDepth": ("y = SpaceToDepth <blocksize = 2> (x)", {}),
    "Squeeze": ("s = Unsqueeze(x, i4) y = Squeeze(s, i4)", {"i4": [4]}),
    "two branches": (
        "a = Conv(x, v) b = Conv(x, w) y = Add(a, b)",  # of different taps, so that their noise is independent
        {"v": normal(4, 3, 1, 2) * [1, 0], "w": normal(4, 3, 1, 2, seed=2) * [0, 1]},
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", MEASURED)
def test_noise_that_arrives_is_as_predicted(case: str) -> None:
    """Scattered noise in every channel of every input, by itself; layers take it as independent here."""
    body, consts = MEASURED[case]
    graph, n = graph_of(body, **consts), 1000
    moments = propagate(graph, KNOWN)
    signal = signal_power(moments[graph.outputs[0]])
    tables = gains(graph, moments, NoiseModel(likeness=0.0))
    session, clean = Session(network_of(body, n, **consts), threads=1), drawn(n)
    before = session.run(clean)["y"].astype(np.float64)
    rng = np.random.default_rng(1)
    for name, shape in SHAPE.items():
        if name not in tables.scattered:
            assert not re.search(rf"\b{name}\b", body)
            continue
        np.testing.assert_allclose(tables.steady[name], tables.scattered[name])
        found, wanted = tables.scattered[name].reshape(-1) * signal, []
        for c in range(shape[0]):
            level = 0.01 * float(KNOWN[name].std.flat[c])
            noisy = clean[name].copy()
            noisy[:, c] += level * rng.standard_normal((n, *shape[1:]))
            wanted.append(power(session.run({**clean, name: noisy})["y"] - before) / level**2)
        np.testing.assert_allclose(found, wanted, rtol=0.06, atol=0.01 * max(wanted))


ACTIVE: dict[str, tuple[Node, dict[str, Any]]] = {
    "Relu": (Node("Relu", ("x",), ("y",)), {}),
    "Clip": (Node("Clip", ("x", "lo", "hi"), ("y",)), {"lo": np.float32(0), "hi": np.float32(1.2)}),
    "Clip above": (Node("Clip", ("x", "", "hi"), ("y",)), {"hi": np.float32(0.5)}),
    "Clip per channel": (
        Node("Clip", ("x", "lo", "hi"), ("y",)),
        {"lo": np.float32(-0.5), "hi": np.array([0.5, 1.0, 2.2], np.float32).reshape(3, 1, 1)},
    ),
    "LeakyRelu": (Node("LeakyRelu", ("x",), ("y",), {"alpha": 0.6}), {}),
    "LeakyRelu by default": (Node("LeakyRelu", ("x",), ("y",)), {}),
    "PRelu": (Node("PRelu", ("x", "c"), ("y",)), {"c": np.array([-2.0, 0.0, 0.5], np.float32).reshape(3, 1, 1)}),
}


@pytest.mark.parametrize("case", ACTIVE)
def test_mean_squared_slopes_agree_with_sampling(case: str) -> None:
    node, consts = ACTIVE[case]
    graph = Graph((node,), consts, ("x",), ("y",), {"x": ("N", 3, 8, 8), "y": ("N", 3, 8, 8)})
    session, x, step = Session(to_proto(graph), threads=1), drawn(2000)["x"], 2.0**-10
    rise = session.run(x + np.float32(step))["y"] - session.run(x)["y"]
    slopes = np.square(rise / step, dtype=np.float64).mean((0, 2, 3))
    found = np.broadcast_to(squared_slope(graph, node, KNOWN["x"]), (1, 3, 1, 1)).reshape(-1)
    np.testing.assert_allclose(found, slopes, rtol=0.02, atol=2e-3)


# Against loops


def test_a_chain_of_dense_layers_against_loops() -> None:
    """Every layer's gain by the formula, with what propagation says of how its outputs vary."""
    weights = {"w1": normal(4, 3, 3, 3), "w2": normal(5, 4, 2, 2)}
    graph = graph_of("h = Conv(x, w1) y = Conv(h, w2)", **weights)
    moments = propagate(graph, KNOWN)
    variance = {n: np.square(m.std).reshape(-1) for n, m in moments.items()}
    behind = np.full(5, 1 / float((moments["y"].mean ** 2 + moments["y"].std ** 2).sum()))
    for w, x, y in (("w2", "h", "y"), ("w1", "x", "h")):
        energy = np.square(weights[w], dtype=np.float64).sum((2, 3))
        gain = np.zeros(energy.shape[1])
        for o, row in enumerate(energy):
            alike = variance[y][o] / sum(e * v for e, v in zip(row, variance[x], strict=True))
            for i, e in enumerate(row):
                gain[i] += alike**NOISE.likeness * behind[o] * e
        for table in gains(graph, moments):
            np.testing.assert_allclose(table[x].reshape(-1), gain)
        behind = gain


def test_noise_grows_with_what_batchnorm_says_beyond_independence() -> None:
    """A layer whose outputs vary k times as much as for independent inputs lets k^likeness times the noise pass."""
    graph = graph_of("y = Conv(x, w)", w=normal(4, 3, 1, 1))
    apart = np.square(normal(4, 3, 1, 1).reshape(4, 3), dtype=np.float64) @ np.square(KNOWN["x"].std).reshape(-1)
    known = [np.sqrt(apart * k) for k in (np.ones(4), np.full(4, 9.0))]
    one, nine = (gains(graph, {**KNOWN, "y": told([0.0] * 4, list(std))}).scattered["x"] for std in known)
    np.testing.assert_allclose(nine * 9, one * 9**NOISE.likeness)  # relative to nine times the power


# By hand


@pytest.mark.parametrize(
    ("body", "n"),
    [
        ("y = AveragePool <kernel_shape = [2, 3]> (x)", 6),
        ("y = GlobalAveragePool(x)", 64),
        ("y = ReduceMean <keepdims = 0> (x, a)", 64),
    ],
)
def test_averaging_leaves_a_share_of_the_noise(body: str, n: int) -> None:
    """More than if positions were independent, less than if they were equal."""
    graph = graph_of(body, **({"a": [2, 3]} if "Reduce" in body else {}))
    moments = propagate(graph, KNOWN)
    found, signal = gains(graph, moments), signal_power(moments["y"])
    assert found.scattered["x"].shape == found.steady["x"].shape == (1, 3, 1, 1)
    np.testing.assert_allclose(found.scattered["x"] * signal, NOISE.pooled + (1 - NOISE.pooled) / n)
    np.testing.assert_allclose(found.steady["x"] * signal, 1 / np.sqrt(n))


def test_how_alike_noise_grows_is_limited() -> None:
    """κ = 100 in every channel of a layer: believed, noise grows a hundredfold; else as the limit says."""
    graph = graph_of("y = Conv(x, w)", w=normal(4, 3, 1, 1))
    apart = np.square(normal(4, 3, 1, 1).reshape(4, 3), dtype=np.float64) @ np.square(KNOWN["x"].std).reshape(-1)
    moments = {**KNOWN, "y": told([0.0] * 4, list(10 * np.sqrt(apart)))}
    none, half, most = (
        gains(graph, moments, NoiseModel(likeness=alike, kappa_limit=limit)).steady["x"]
        for alike, limit in ((0.0, 1e3), (0.5, 16.0), (1.0, 1e3))
    )
    np.testing.assert_allclose(half, none * 4)
    np.testing.assert_allclose(most, none * 100)


def test_the_largest_of_several_keeps_its_noise() -> None:
    graph = graph_of("y = MaxPool <kernel_shape = [2, 2]> (x)")
    moments = propagate(graph, KNOWN)
    np.testing.assert_allclose(gains(graph, moments).scattered["x"] * signal_power(moments["y"]), 1)


def test_every_path_counts() -> None:
    """What is read twice has the gains of both ways, and outputs add up."""
    graph = graph_of("h = Relu(x) y = Concat <axis = 1> (h, h)")
    moments = propagate(graph, KNOWN)
    np.testing.assert_allclose(gains(graph, moments).scattered["h"], 2 / signal_power(moments["y"]))
    several = Graph(graph.nodes, graph.consts, graph.inputs, ("h", "y"), graph.shapes)
    both = 2 / signal_power(moments["y"]) + 1 / signal_power(moments["h"])
    np.testing.assert_allclose(gains(several, moments).scattered["h"], both)


def test_what_is_added_to_itself_is_doubled_with_its_noise() -> None:
    graph = graph_of("y = Add(x, x)")
    moments = propagate(graph, KNOWN)
    np.testing.assert_allclose(moments["y"].std, 2 * KNOWN["x"].std)
    np.testing.assert_allclose(gains(graph, moments).scattered["x"], 4 / signal_power(moments["y"]))


@pytest.mark.parametrize("body", ["h = Softmax <axis = 1> (x)", "h = custom.Swirl (x)"])
def test_an_unknown_operator_ends_the_path_as_if_it_were_an_output(body: str) -> None:
    graph = graph_of(f"{body} y = Conv(h, w)", w=normal(4, 3, 1, 1))
    moments = propagate(graph, {**KNOWN, "h": told([0.5, 0.4, 0.3], [0.1, 0.2, 0.3])})
    found = gains(graph, moments).scattered
    np.testing.assert_allclose(found["x"], np.full((1, 3, 1, 1), 1 / signal_power(KNOWN["x"])))


def test_a_gate_that_is_computed_passes_its_own_gain_and_the_signal_squared() -> None:
    graph = graph_of("s = Sigmoid(z) y = Mul(x, s)")
    moments = propagate(graph, KNOWN)
    found = gains(graph, moments).scattered
    signal = signal_power(moments["y"])
    for name, other in (("x", moments["s"]), ("s", moments["x"])):
        np.testing.assert_allclose(found[name] * signal, other.mean**2 + other.std**2)


def test_what_leads_nowhere_has_no_gain() -> None:
    graph = graph_of("h = Relu(z) y = Relu(x)")
    assert set(gains(graph, propagate(graph, KNOWN)).scattered) == {"x", "y"}


@pytest.mark.slow
@settings(max_examples=40)
@given(networks())
def test_no_choice_of_scales_changes_a_gain(proto: ModelProto) -> None:
    """Noise n/s² in a channel that was divided by s does what n did before."""
    model = Relu6("channel_clip")(FoldBatchnorm()(described(read(proto), (-3, 3))))
    channels = solve(model)
    scales = 10 ** np.random.default_rng(0).uniform(-1, 1, channels.size)
    before, after = (gains(m.graph, propagate(m.graph, m.moments)) for m in (model, rescale(model, channels, scales)))
    scales[0] = 1
    for old, new in zip(before, after, strict=True):
        assert old.keys() == new.keys()
        for name, gain in old.items():
            ids = channels.ids.get(name)
            original = new[name] / (1.0 if ids is None else np.square(scales[ids]))
            wide = tuple(d for d, (a, b) in enumerate(zip(gain.shape, original.shape, strict=True)) if a == 1 < b)
            np.testing.assert_allclose(original.sum(wide, keepdims=True), gain, rtol=1e-4, atol=1e-30)


def test_an_unknown_last_operator_ends_the_path() -> None:
    """Where an output has no moments, what leads to it counts as the output."""
    found = gains(
        graph_of("r = Relu(x) y = LogSoftmax(r)"), known := propagate(graph_of("r = Relu(x) y = Neg(r)"), KNOWN)
    )
    np.testing.assert_allclose(found.scattered["r"], 1 / signal_power(known["r"]))
    assert "x" in found.steady


def test_channels_with_equal_moments_keep_their_own_gains() -> None:
    """A field that is the same along the channels is one number; the channels are still many."""
    graph = graph_of("f = Flatten(x) y = Gemm(f, w)", w=np.random.default_rng(0).normal(size=(192, 5)))
    same = Moments(np.ones((1, 1, 1, 1)), np.ones((1, 1, 1, 1)), "given")
    apart = Moments(np.array([1.0, 1 + 1e-9, 1.0]).reshape(1, 3, 1, 1), np.ones((1, 3, 1, 1)), "given")
    one, many = (gains(graph, propagate(graph, {**KNOWN, "x": m})).scattered["x"] for m in (same, apart))
    np.testing.assert_allclose(np.broadcast_to(one, many.shape), many, rtol=1e-5)


@pytest.mark.parametrize("operands", ["x, c", "c, x"])
def test_the_constant_of_a_maximum_may_stand_first(operands: str) -> None:
    graph = graph_of(f"y = Max({operands})", c=np.zeros(1, np.float32))
    assert set(gains(graph, propagate(graph, KNOWN)).scattered) == {"x", "y"}


def test_averaging_channels_shares_the_gain_among_them() -> None:
    """Independent noise in C channels: each adds 1/C² of its variance to their mean."""
    graph = graph_of("y = ReduceMean<keepdims = 1>(x, axes)", axes=np.array([1, 2, 3]))
    known = propagate(graph, KNOWN)
    found = gains(graph, known)
    share = NOISE.pooled + (1 - NOISE.pooled) / 64
    np.testing.assert_allclose(found.scattered["x"], found.scattered["y"] * share / 9 * np.ones((1, 3, 1, 1)))


def test_a_resize_of_channels_is_an_end() -> None:
    """Its channels are no longer those of its input: what stands before it is judged as a result would be."""
    body = 'a = Conv(x, w) r = Resize<mode = "nearest">(a, , s) y = Conv(r, v)'
    scales = np.array([1, 2, 2, 1], np.float32)
    proto = network(body, w=normal(4, 3, 3, 3), v=normal(2, 8, 1, 1), s=scales)
    model = described(read(proto), (-1, 1))
    found = gains(model.graph, propagate(model.graph, model.moments)).steady
    assert found["a"].sum() > 0
    assert found["r"].shape[1] in (1, 8)
