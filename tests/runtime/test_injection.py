"""Measured gains against gains known by hand, and against noise put into cut networks by brute force."""

import numpy as np
import pytest

from equint.graph.moments import propagate
from equint.ir.model import Array, Graph, Moments, Name
from equint.noise.gains import Gains, gains
from equint.onnx.reader import read
from equint.onnx.writer import to_proto
from equint.runtime.injection import (
    LEAST,
    LEVEL,
    Injector,
    Source,
    affordable,
    arriving,
    corrected,
    measured_gains,
    scattered,
    single,
    spread,
    steady,
)
from equint.samples.images import Samples
from handwritten import execute, network, normal

SHAPE = (3, 8, 8)
BODY = "h = Conv <pads = [1, 1, 1, 1]> (x, w) r = Relu(h) c = Conv <pads = [1, 1, 1, 1]> (r, v) y = Relu(c)"
DEEP = network(BODY, w=normal(6, 3, 3, 3), v=normal(4, 6, 3, 3, seed=2))
LINEAR = network("h = Conv(x, w) y = Conv(h, v)", w=normal(5, 3, 1, 1), v=normal(4, 5, 1, 1, seed=2))


def pictures(count: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(0, 1, (count, *SHAPE)).astype(np.float32)


def float_graph(proto: object) -> Graph:
    return read(proto).graph  # type: ignore[arg-type]


def rest_of(graph: Graph, name: Name) -> Graph:
    """What stands behind a tensor, which becomes the input."""
    made = [n for n in graph.nodes if name in n.outputs]
    at = graph.nodes.index(made[0])
    shapes = {n: s for n, s in graph.shapes.items() if n == name}
    return Graph(graph.nodes[at + 1 :], graph.consts, (name,), graph.outputs, shapes, opset=graph.opset)


def moments_of(graph: Graph) -> dict[Name, Moments]:
    given = {"x": Moments(np.zeros((1, 3, 1, 1)), np.ones((1, 3, 1, 1)), "given")}
    return propagate(graph, given)


def test_moved_outputs_are_those_of_the_network_behind() -> None:
    graph, x = float_graph(DEEP), pictures(1)
    noisy = Injector(graph, ["h", "r", "x"])
    feed = {"x": x}
    value, error = noisy.values(feed)["r"], np.abs(pictures(2, seed=4)[:1].repeat(2, 1)).astype(np.float32)
    tail = to_proto(rest_of(graph, "r"))
    (before,), (after,) = execute(tail, value), execute(tail, value + error)
    np.testing.assert_allclose(noisy.moved(feed, {"r": error})["y"], after - before, atol=1e-5)
    (clean,), (other,) = execute(DEEP, x), execute(DEEP, x + np.float32(0.5))
    np.testing.assert_allclose(noisy.moved(feed, {"x": np.full_like(x, 0.5)})["y"], other - clean, atol=1e-5)
    assert not noisy.moved(feed, {})["y"].any()


@pytest.mark.parametrize("kind", ["scattered", "steady"])
def test_gains_of_a_linear_network_are_found_whatever_was_predicted(kind: str) -> None:
    """g_c = Σ_o W_oc² / Σ_o E[y_o²] for each channel of a layer of one tap; predicted seven times too high."""
    graph, x = float_graph(LINEAR), pictures(32)
    w, v = (graph.consts[n].reshape(graph.consts[n].shape[:2]).astype(np.float64) for n in ("w", "v"))
    y = np.einsum("oi,nihw->nohw", v @ w, x.astype(np.float64))
    signal = np.square(y).mean((0, 2, 3)).sum()
    true = {name: np.square(m).sum(0).reshape(1, -1, 1, 1) / signal for name, m in (("x", v @ w), ("h", v))}
    wrong = {name: 7 * gain for name, gain in true.items()}
    source = Source(kind, ["x", "h"], scattered if kind == "scattered" else steady)
    found = measured_gains(graph, [Gains(wrong, wrong)], Samples.of(x), [source])
    for name, gain in true.items():
        total = getattr(found, kind)[name].sum() / gain.sum()
        assert 10 * abs(np.log10(total)) < 0.8
        np.testing.assert_allclose(getattr(found, kind)[name] / gain, total)  # the channels' shares stay


def test_behind_activations_they_are_what_brute_force_gives() -> None:
    """Rounding-like noise at h: its total at the output, by the corrected gains, against many runs with fresh noise."""
    graph, x = float_graph(DEEP), pictures(64)
    table = gains(graph, moments_of(graph))
    found = measured_gains(graph, [table], Samples.of(x), [Source("scattered", ["h", "r", "c"], scattered)])
    tail, rng = to_proto(rest_of(graph, "h")), np.random.default_rng(5)
    h = Injector(graph, ["h"]).values({"x": x})["h"]
    error = 0.01 * rng.standard_normal(h.shape) * h.std((0, 2, 3), keepdims=True)
    (clean,), (noisy,) = execute(tail, h), execute(tail, (h + error).astype(np.float32))
    brute = np.square(noisy.astype(np.float64) - clean).sum() / np.square(clean, dtype=np.float64).sum()
    assert 10 * abs(np.log10(arriving(found.scattered["h"], error, 1) / brute)) < 1


def test_of_two_predictions_the_one_counts_that_is_wrong_by_an_even_factor() -> None:
    graph, x = float_graph(LINEAR), pictures(32)
    plain = gains(graph, moments_of(graph))
    uneven = Gains(*({name: gain * (1e4 if name == "x" else 1e-4) for name, gain in t.items()} for t in plain))
    source = [Source("scattered", ["x", "h", "y"], scattered)]
    chosen = measured_gains(graph, [uneven, plain], Samples.of(x), source).scattered
    alone = measured_gains(graph, [plain], Samples.of(x), source).scattered
    for name, gain in alone.items():
        np.testing.assert_allclose(chosen[name], gain)


def test_what_is_not_measured_keeps_its_prediction() -> None:
    table, order = {"x": np.ones((1, 1)), "y": np.full((1, 1), 2.0)}, {"x": 0, "y": 1}
    assert corrected(table, {}, order) == table
    assert [float(g.sum()) for g in corrected(table, {"x": (3.0, 1.0)}, order).values()] == [3.0, 6.0]


def test_what_was_measured_of_a_tensor_counts_for_it() -> None:
    """Ratios of 2 and 3, far from one another: neither is mixed with the other, unlike where noise was a stand-in."""
    order = {name: k for k, name in enumerate("abc")}
    table = {name: np.ones((1, 1)) for name in "abc"}
    measured = {"a": (2.0, 1.0), "c": (30.0, 10.0)}
    own, mixed = ([float(g.sum()) for g in corrected(table, measured, order, way).values()] for way in (True, False))
    assert own[0] == 2
    assert own[2] == 3
    np.testing.assert_allclose(own[1], 32 / 11)  # halfway between, the ratio of the sums
    assert 2 < mixed[0] < mixed[1] == 2.5 < mixed[2] < 3


@pytest.mark.parametrize("draw", [scattered, steady])
def test_noise_has_the_power_that_it_should(draw: object) -> None:
    value = np.maximum(pictures(2, seed=3) * np.array([1, 5, 0.1], np.float32).reshape(3, 1, 1), 0)
    error = draw("x", value, 1, np.random.default_rng(0))  # type: ignore[operator]
    np.testing.assert_allclose(np.square(error).sum() / np.square(value, dtype=np.float64).sum(), LEVEL)
    spread_of = [a.std((0, 2, 3)) for a in (error, value)]
    np.testing.assert_allclose(spread_of[0] / spread_of[0][1], spread_of[1] / spread_of[1][1], rtol=0.3)


def test_scattered_noise_leaves_zeros_alone_and_steady_noise_is_another_channels_signal() -> None:
    value = np.maximum(pictures(1, seed=3), 0)
    error = scattered("x", value, 1, np.random.default_rng(0))
    assert not error[value == 0].any()
    assert np.all(error[value > 0] != 0)
    error = steady("x", value, 1, np.random.default_rng(0))
    alike = np.corrcoef(error.reshape(3, -1), value.reshape(3, -1))[:3, 3:]
    np.testing.assert_allclose(np.sort(np.abs(alike).max(1)), 1, rtol=1e-5)
    assert sorted(np.abs(alike).argmax(1)) == [0, 1, 2]


def test_samples_come_one_by_one_and_names_from_the_whole_depth() -> None:
    graph = float_graph(LINEAR)
    found = list(single(Samples.of(pictures(3)), graph, 2))
    assert [f["x"].shape for f in found] == [(1, *SHAPE)] * 2
    assert spread(range(10), 4) == [0, 3, 6, 9]  # type: ignore[arg-type,comparison-overlap]


def test_large_tensors_are_measured_in_fewer_places() -> None:
    """Ten tensors of 6 values: 30 values pay for five, spread over all; none is too large for the least."""
    names = [f"t{k}" for k in range(10)]
    assert affordable(names, dict.fromkeys(names, 6), 30) == ["t0", "t2", "t4", "t7", "t9"]
    assert affordable(names, dict.fromkeys(names, 6), 60) == names
    assert len(affordable(names, dict.fromkeys(names, 10**9), 30)) == LEAST
    assert affordable(names[:2], dict.fromkeys(names, 10**9), 30) == names[:2]
