"""BatchNormalization and constants disappear into what stands beside them, whatever that is."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from equint import quantize
from equint.ir.events import EventKind
from equint.ir.model import Model, Moments
from equint.maths.noise import sqnr_db
from equint.onnx.reader import read
from equint.onnx.writer import to_proto
from equint.ops.layers import layers
from equint.passes.fold_batchnorm import FoldBatchnorm
from handwritten import execute, network, normal
from nets import sample
from values import assert_close, values

GAMMA, BETA = np.array([1.5, -0.7, 0.0, 1e-5]), np.array([0.3, 2.0, -1.0, 0.5])
BATCHNORM: dict[str, Any] = {
    "g": GAMMA,
    "e": BETA,
    "m": np.array([0.1, -2.0, 3.0, 0.0]),
    "v": np.array([0.5, 2.0, 1e-6, 4.0]),
}
BN = "BatchNormalization"
ROW, IMAGE, SERIES = "float[N,4] x", "float[N,4,6,6] x", "float[N,4,5] x"
FOLDS: dict[str, tuple[str, str, dict[str, Any], dict[str, int]]] = {
    "behind a convolution": (
        f"a = Conv <pads = [1, 1, 1, 1]> (x, w, b) y = {BN}(a, g, e, m, v)",
        IMAGE, {"w": normal(4, 4, 3, 3), "b": normal(4)}, {"behind a layer": 1},
    ),
    "behind a depthwise convolution without bias": (
        f"a = Conv <group = 4> (x, w) y = {BN}(a, g, e, m, v)",
        IMAGE, {"w": normal(4, 1, 3, 3)}, {"behind a layer": 1},
    ),
    "behind a transposed convolution": (
        f"a = ConvTranspose <strides = [2, 2]> (x, w, b) y = {BN}(a, g, e, m, v)",
        IMAGE, {"w": normal(4, 4, 2, 2), "b": normal(4)}, {"behind a layer": 1},
    ),
    "behind a grouped transposed convolution": (
        f"a = ConvTranspose <group = 2> (x, w) y = {BN}(a, g, e, m, v)",
        IMAGE, {"w": normal(4, 2, 2, 2)}, {"behind a layer": 1},
    ),
    "behind a product": (
        f"a = Gemm <transB = 1> (x, w, b) y = {BN}(a, g, e, m, v)",
        ROW, {"w": normal(4, 4), "b": normal(4)}, {"behind a layer": 1},
    ),
    "twice": (
        f"a = Conv(x, w) b = {BN}(a, g, e, m, v) y = {BN}(b, g, e, m, v)",
        IMAGE, {"w": normal(4, 4, 1, 1)}, {"behind a layer": 2},
    ),
    "before two convolutions": (
        f"a = {BN}(x, g, e, m, v) c = Conv(a, w, b) d = Conv(a, u) y = Add(c, d)",
        IMAGE, {"w": normal(5, 4, 2, 2), "b": normal(5), "u": normal(5, 4, 2, 2, seed=2)}, {"before a layer": 1},
    ),
    "before a convolution": (
        f"a = {BN}(x, g, e, m, v) y = Conv <group = 2> (a, w, b)",
        IMAGE, {"w": normal(6, 2, 2, 2), "b": normal(6)}, {"before a layer": 1},
    ),
    "before a product": (
        f"a = {BN}(x, g, e, m, v) y = Gemm(a, w)", ROW, {"w": normal(4, 3)}, {"before a layer": 1},
    ),
    "before a convolution that pads": (
        f"a = {BN}(x, g, e, m, v) y = Conv <pads = [1, 1, 1, 1]> (a, w)",
        IMAGE, {"w": normal(5, 4, 3, 3)}, {"as depthwise": 1},
    ),
    "before something else": (
        f"a = {BN}(x, g, e, m, v) r = Relu(a) y = Conv(r, w)", IMAGE, {"w": normal(5, 4, 1, 1)}, {"as depthwise": 1},
    ),
    "alone": (f"y = {BN}(x, g, e, m, v)", IMAGE, {}, {"as depthwise": 1}),
    "alone in a series": (f"y = {BN}(x, g, e, m, v)", SERIES, {}, {"as depthwise": 1}),
    "alone in rows": (f"y = {BN}(x, g, e, m, v)", ROW, {}, {"as Mul and Add": 1}),
    "behind a reshaped product": (
        f"a = Gemm <transB = 1> (x, w, b) r = Reshape(a, s) y = {BN}(r, g, e, m, v)",
        ROW, {"w": normal(8, 4), "b": normal(8), "s": [0, 4, 2]}, {"behind a layer": 1},
    ),
    "behind a squeezed convolution": (
        f"a = Conv(x, w) r = Squeeze(a, z) y = {BN}(r, g, e, m, v)",
        IMAGE, {"w": normal(4, 4, 1, 6), "z": [3]}, {"behind a layer": 1},
    ),
    "behind a turned convolution": (
        f"a = Conv(x, w) r = Transpose <perm = [0, 2, 1, 3]> (a) y = {BN}(r, g, e, m, v)",
        IMAGE, {"w": normal(5, 4, 3, 3)}, {"as depthwise": 1},
    ),
    "where others read the convolution": (
        f"a = Conv(x, w) b = {BN}(a, g, e, m, v) y = Add(a, b)", IMAGE, {"w": normal(4, 4, 1, 1)}, {"as depthwise": 1},
    ),
    "shared weights": (
        f"a = Conv(x, w, b) c = {BN}(a, g, e, m, v) d = Conv(c, w, b) y = Relu(d)",
        IMAGE, {"w": normal(4, 4, 1, 1), "b": normal(4)}, {"behind a layer": 1},
    ),
    "constants": (
        "a = Conv(x, w, b) c = Mul(a, k) d = Sub(k, c) f = Div(d, two) y = Add(f, k)",
        IMAGE, {"w": normal(4, 4, 1, 1), "b": normal(4), "k": normal(4, 1, 1), "two": 2.0}, {"constants": 4},
    ),
    "constants behind MatMul": (
        "a = MatMul(x, w) c = Mul(a, k) y = Sub(c, k)",
        SERIES, {"w": normal(5, 3), "k": normal(3)}, {"constants": 2},
    ),
    "constants behind a MatMul whose weight comes first": (
        "a = MatMul(w, x) c = Mul(a, k) y = Add(c, k)",
        SERIES, {"w": normal(3, 4), "k": normal(3, 1)}, {"constants": 2},
    ),
    "constants that differ by position": (
        "a = Conv(x, w) y = Mul(a, k)", IMAGE, {"w": normal(4, 4, 1, 1), "k": normal(6, 1)}, {},
    ),
}  # fmt: skip


def folded(case: str) -> tuple[Model, Model, dict[str, Any], Any]:
    body, shape, consts, _ = FOLDS[case]
    proto = network(body, inputs=shape, output="float[] y", **{**BATCHNORM, **consts})
    model = read(proto)
    after = FoldBatchnorm()(model)
    event = next(e for e in after.log if e.kind is EventKind.BATCHNORM_FOLDED)
    return model, after, dict(event.facts), sample(proto)


@pytest.mark.parametrize("case", FOLDS)
def test_the_function_stays_and_the_operators_go(case: str) -> None:
    model, after, facts, x = folded(case)
    assert_close(values(after, x)[0], values(model, x)[0])
    assert BN not in {node.op for node in after.graph.nodes}
    assert facts == FOLDS[case][3]


def test_beta_and_gamma_become_moments() -> None:
    _, after, _, _ = folded("behind a convolution")
    found = after.moments["y"]
    assert found.origin == "batchnorm"
    np.testing.assert_allclose(found.mean.reshape(-1), BETA)
    np.testing.assert_allclose(found.std.reshape(-1), np.abs(GAMMA) * np.sqrt(BATCHNORM["v"] / (BATCHNORM["v"] + 1e-5)))
    assert found.mean.shape == (1, 4, 1, 1)


def test_running_statistics_are_moments_of_what_is_normalised() -> None:
    _, after, _, _ = folded("where others read the convolution")
    np.testing.assert_allclose(after.moments["a"].mean.reshape(-1), BATCHNORM["m"])
    np.testing.assert_allclose(after.moments["a"].std.reshape(-1), np.sqrt(BATCHNORM["v"]))


def test_moments_move_with_folded_constants() -> None:
    model, _, _, _ = folded("constants")
    mean, std = np.full((1, 4, 1, 1), 2.0), np.full((1, 4, 1, 1), 3.0)
    after = FoldBatchnorm()(replace(model, moments={"a": Moments(mean, std, "batchnorm")}))
    k = normal(4, 1, 1)[None]
    np.testing.assert_allclose(after.moments["y"].mean, (k - 2 * k) / 2 + k, rtol=1e-6)
    np.testing.assert_allclose(after.moments["y"].std, 3 * np.abs(k) / 2, rtol=1e-6)


def test_a_worked_example() -> None:
    body = f"a = Conv(x, w, b) y = {BN} <epsilon = 0.0> (a, g, e, m, v)"
    batchnorm: dict[str, Any] = {"g": [3.0, -1.0], "e": [5.0, 1.0], "m": [0.0, 2.0], "v": [4.0, 0.25]}
    proto = network(body, inputs="float[N,1,4,4] x", w=[[[[2.0]]], [[[1.0]]]], b=[1.0, 0.0], **batchnorm)
    graph = FoldBatchnorm()(read(proto)).graph
    (layer,) = layers(graph)
    assert layer.bias is not None
    assert graph.consts[layer.weight].reshape(-1).tolist() == [3.0, -2.0]
    assert graph.consts[layer.bias].tolist() == [6.5, 5.0]


def test_all_constants_behind_a_layer_are_folded_at_once() -> None:
    body = f"a = Conv(x, w) n = {BN}(a, g, e, m, v) p = Mul(n, k) q = Sub(p, k) y = Add(q, k)"
    proto = network(body, inputs=IMAGE, w=normal(4, 4, 1, 1), k=normal(4, 1, 1, scale=1), **BATCHNORM)
    after = FoldBatchnorm()(read(proto))
    assert [n.op for n in after.graph.nodes] == ["Conv"]
    x = normal(2, 4, 6, 6, scale=1)
    np.testing.assert_allclose(execute(to_proto(after.graph), x)[0], execute(proto, x)[0], rtol=1e-4, atol=1e-5)


def test_a_batchnorm_in_training_is_left_with_an_event() -> None:
    body = f"a = Conv(x, w) y, p, q = {BN} <training_mode = 1> (a, g, e, m, v)"
    after = FoldBatchnorm()(read(network(body, inputs=IMAGE, w=normal(4, 4, 1, 1), **BATCHNORM)))
    assert [n.op for n in after.graph.nodes] == ["Conv", BN]
    assert EventKind.BATCHNORM_LEFT in [e.kind for e in after.log]


@pytest.mark.parametrize("moved", ["Squeeze(a, z)", "Slice(a, f, t, z)", "Transpose <perm = [0, 1, 3, 2]> (a)"])
def test_what_lies_between_a_layer_and_its_batchnorm_is_called_otherwise(moved: str) -> None:
    """Its values are others than before; empirical correction compares by name, and 16 bits lose next to nothing."""
    body = f"a = Conv(x, w) r = {moved} q = {BN}(r, g, e, m, v) y = Relu(q)"
    consts: dict[str, Any] = {"w": normal(4, 4, 6, 4), "z": [3], "f": [0], "t": [1]}
    proto = network(body, inputs="float[N,4,6,4] x", output="float[] y", **consts, **BATCHNORM)
    model = FoldBatchnorm()(read(proto))
    assert {"a", "r"}.isdisjoint(o for node in model.graph.nodes for o in node.outputs)
    x = normal(32, 4, 6, 4, scale=1)
    result = quantize(proto, "cwq-bc", data=x, weight_bits=16, activation_bits=16)
    (clean,), (noisy,) = execute(proto, x), execute(result.proto, x)
    assert sqnr_db(clean, noisy) > 60
