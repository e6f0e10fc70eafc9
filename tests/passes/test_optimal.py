from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

from equint import load, quantize
from equint.demo import data_path, model_path
from equint.graph.channels import solve
from equint.graph.cross_layer import cross_layer
from equint.graph.overrides import Override
from equint.graph.placement import place
from equint.ir.events import EventKind
from equint.ir.model import Model, QSpec, Range
from equint.maths.affine import choose_qparams
from equint.maths.noise import sqnr_db, to_db
from equint.noise.gains import gains
from equint.noise.objective import Formats, Objective
from equint.noise.rounded import rounded_layers, rounded_tensors
from equint.onnx.qdq import export
from equint.passes.activation_ranges import ActivationRanges
from equint.passes.fold_batchnorm import FoldBatchnorm
from equint.passes.optimal import UNSEEN, Optimal, _fixed
from equint.passes.quantize import Quantize
from equint.planning.recipe import Recipe, recipe
from equint.runtime.session import Session
from equint.samples.card import Card, described
from equint.samples.data import batches
from handwritten import execute, network, normal

TENSOR = QSpec(8, signed=True, symmetric=False)
CHANNEL = QSpec(8, signed=True, symmetric=True, granularity="channel")


def prepared() -> Model:
    return ActivationRanges()(FoldBatchnorm()(described(load(model_path()), (0, 1))))


def clips_of(model: Model) -> frozenset[str]:
    """Clips whose bound the end of a grid may replace: here all of the network's."""
    fixed = _fixed(model, place(model.graph).classes)
    tensors = rounded_tensors(model, gains(model.graph, model.moments))
    return frozenset(t.name for t in tensors if t.activation.clip is not None and t.grid not in fixed)


def objective(weight: QSpec) -> Objective:
    model = prepared()
    table, fixed = gains(model.graph, model.moments), _fixed(model, place(model.graph).classes)
    clips = clips_of(model)
    channels = solve(model, priced=clips)
    tensors = [t for t in rounded_tensors(model, table, channels.ids) if t.grid not in fixed]
    formats = Formats(weight, QSpec(8, False, False))
    return Objective(model, channels, tensors, list(rounded_layers(model, table)), formats, clips)


@pytest.mark.parametrize("weight", [TENSOR, CHANNEL])
def test_gradient_agrees_with_differences(weight: QSpec) -> None:
    noise = objective(weight)
    rng = np.random.default_rng(0)
    x = noise.start(np.ones(noise.classes)) + rng.normal(0, 0.2, noise.size)
    _, gradient = noise(x)
    for _ in range(5):
        d, step = rng.normal(size=x.size), 1e-6
        slope = (noise(x + step * d)[0].total - noise(x - step * d)[0].total) / (2 * step)
        assert float(gradient @ d) == pytest.approx(slope, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("weight", [TENSOR, CHANNEL])
def test_no_start_predicts_less_noise(weight: QSpec) -> None:
    """By the noise of an objective of its own: of the network as it is, and after cross-layer equalization."""
    noise, model = objective(weight), prepared()
    facts = next(e.facts for e in Optimal(weight)(model).log if e.kind is EventKind.OPTIMIZED)
    channels = solve(model, priced=clips_of(model))
    for scales in (np.ones(channels.size), cross_layer(model, channels)):
        x = noise.start(scales)
        assert facts["predicted SQNR"] >= to_db(noise(x)[0].total) + 1


@pytest.mark.slow
@pytest.mark.parametrize("target", ["per-tensor", "per-channel"])
def test_noise_that_is_measured_falls(target: str) -> None:
    """On images of the demo that nothing was chosen on, against ranges from moments alone."""
    images = np.concatenate([x for x, _ in batches(data_path(), Card("gray", (0.0,), (16.0,)), 64, 256)])
    (wanted,) = Session(model_path()).run(images).values()
    plain, chosen = (
        sqnr_db(wanted, *Session(quantize(model_path(), r, target, input=(0, 1)).proto).run(images).values())
        for r in ("lwq" if target == "per-tensor" else "cwq", "optimal")
    )
    assert chosen > plain + 1


@pytest.mark.slow
def test_the_same_network_gives_the_same_answer() -> None:
    first, second = Optimal(TENSOR)(prepared()), Optimal(TENSOR)(prepared())
    for name, weight in first.graph.consts.items():
        np.testing.assert_array_equal(weight, second.graph.consts[name])


@pytest.mark.slow
def test_every_grid_gets_the_chosen_weight_range() -> None:
    result = quantize(model_path(), "optimal", "per-tensor", input=(0, 1))
    for name, grid in result.model.qparams.items():
        chosen = result.model.ranges.get(name) if name in result.model.graph.consts else None
        if chosen is not None:
            assert grid.hi == pytest.approx(float(chosen.hi), abs=float(grid.scale))
            assert grid.lo == pytest.approx(float(chosen.lo), abs=float(grid.scale))


def test_layers_that_share_a_weight_keep_all_of_it() -> None:
    """Two layers with one weight, rescaled differently: neither copy is cut to the other's range."""
    first = np.diag([10.0, 1.0, 1.0, 0.1]).reshape(4, 4, 1, 1)
    body = "a = Conv(x, first) r = Relu(a) b = Conv(r, w) s = Relu(b) c = Conv(s, w) t = Relu(c) y = Conv(t, v)"
    proto = network(body, inputs="float[N,4,8,8] x", first=first, w=normal(4, 4, 1, 1), v=normal(4, 4, 1, 1))
    result = quantize(proto, "optimal", "per-channel", input=(-1, 1))
    x = np.random.default_rng(1).uniform(-1, 1, (32, 4, 8, 8)).astype(np.float32)
    outputs = [next(iter(Session(p).run(x).values())) for p in (proto, result.proto)]
    print(sqnr_db(*outputs))
    assert sqnr_db(*outputs) > 30


def test_collapsed_means_of_a_shuffle() -> None:
    """Means that are all zero become one number behind a reshape; the deviations do not."""
    body = "a = Conv(x, w) s = Reshape(a, first) t = Reshape(s, second) h = Add(t, t) y = Conv(h, v)"
    shapes: dict[str, Any] = {"first": np.array([8, 2, 2, 8, 8]), "second": np.array([8, 4, 8, 8])}
    proto = network(body, inputs="float[8,4,8,8] x", w=normal(4, 4, 1, 1), v=normal(4, 4, 1, 1), **shapes)
    x = np.random.default_rng(0).uniform(-1, 1, (8, 4, 8, 8)).astype(np.float32)
    (wanted,), (found,) = execute(proto, x), execute(quantize(proto, "optimal", "per-tensor", input=(-1, 1)).proto, x)
    assert sqnr_db(wanted, found) > 25


def test_a_constant_channel_before_a_depthwise_layer_does_no_harm() -> None:
    """Moments that contradict each other (no spread in, some spread out) are no reason to ruin the others."""
    rng, consts = np.random.default_rng(0), dict[str, Any]()
    consts |= {
        "w": rng.normal(size=(8, 3, 3, 3)) / 5,
        "d": rng.normal(size=(8, 1, 3, 3)) / 3,
        "v": rng.normal(size=(4, 8, 1, 1)),
    }
    for name, gamma, beta in (("a", np.r_[0.0, np.ones(7)], 0.5), ("b", np.ones(8), 0.1)):
        consts |= {f"{name}1": gamma, f"{name}2": np.full(8, beta), f"{name}3": np.zeros(8), f"{name}4": np.ones(8)}
    body = """h = Conv <pads = [1, 1, 1, 1]> (x, w) n = BatchNormalization(h, a1, a2, a3, a4) r = Relu(n)
        k = Conv <pads = [1, 1, 1, 1], group = 8> (r, d) m = BatchNormalization(k, b1, b2, b3, b4)
        s = Relu(m) y = Conv(s, v)"""
    proto = network(body, inputs="float[N,3,16,16] x", **consts)
    x = rng.uniform(-1, 1, (8, 3, 16, 16)).astype(np.float32)
    wanted = Session(proto).run(x)["y"]
    for target in ("per-tensor", "per-channel"):
        found = Session(quantize(proto, "optimal", target, input=(-1, 1)).proto).run(x)["y"]
        assert sqnr_db(wanted, found) > 15


def test_squares_are_not_cut_off() -> None:
    """The product of a tensor with itself reaches much further than that of independent ones."""
    body = "h = Conv(x, w) r = Relu(h) q = Mul(r, r) y = Conv(q, v)"
    proto = network(body, inputs="float[N,3,16,16] x", w=normal(8, 3, 1, 1), v=normal(4, 8, 1, 1))
    x = np.clip(np.random.default_rng(0).normal(size=(16, 3, 16, 16)), -2.5, 2.5).astype(np.float32)
    wanted = Session(proto).run(x)["y"]
    found, plain = (
        Session(quantize(proto, r, "per-tensor", input=(-2.5, 2.5)).proto).run(x)["y"] for r in ("optimal", "lwq")
    )
    assert sqnr_db(wanted, found) > min(sqnr_db(wanted, plain) - 6, 30)


@pytest.mark.slow
def test_no_scale_is_better_when_all_are_tried() -> None:
    """Two channels, one of them 50 times as wide: every ratio of scales, set by hand and measured by onnxruntime."""
    then = normal(8, 2, 1, 1, seed=2)
    x = np.random.default_rng(0).uniform(-1, 1, (64, 3, 8, 8)).astype(np.float32)

    def scaled(by: float) -> ModelProto:
        reach = np.array([1.0, 50 * by]).reshape(2, 1, 1, 1)
        weights: dict[str, Any] = {"w": reach * normal(2, 3, 1, 1), "v": then / reach.reshape(1, 2, 1, 1)}
        return network("h = Conv(x, w) r = Relu(h) y = Conv(r, v)", **weights)

    def measured(proto: ModelProto, chosen: Recipe) -> float:
        (found,) = execute(quantize(proto, chosen, "per-tensor", input=(-1, 1)).proto, x)
        return sqnr_db(wanted, found)

    (wanted,) = execute(scaled(1), x)
    fine = (Override(tensors=("y",), activation_bits=16),)
    plain, optimal = (replace(recipe(name), overrides=fine) for name in ("lwq", "optimal"))
    tried = [measured(scaled(2.0**-k), plain) for k in np.arange(0, 10, 0.5)]
    assert max(tried) > tried[0] + 10
    assert measured(scaled(1), optimal) > max(tried) - 1


@pytest.mark.parametrize("weight", [TENSOR, CHANNEL])
def test_what_another_processor_rounds_differently_changes_nothing(weight: QSpec) -> None:
    """Sums in another order differ in the last digits; thousands of steps would make other scales of that."""
    model, rng = prepared(), np.random.default_rng(0)
    last = {name: 1 + 2e-16 * rng.integers(-3, 4, m.std.shape) for name, m in model.moments.items()}
    close = {name: replace(m, std=m.std * last[name]) for name, m in model.moments.items()}
    a, b = (Optimal(weight=weight)(replace(model, moments=m)) for m in (model.moments, close))
    assert any((m.std != model.moments[n].std).any() for n, m in close.items())
    for name, value in a.graph.consts.items():
        np.testing.assert_array_equal(value, b.graph.consts[name], err_msg=name)
    for name, found in a.ranges.items():
        np.testing.assert_array_equal(found.hi, b.ranges[name].hi, err_msg=name)


@pytest.mark.slow
def test_powers_of_two_are_chosen_and_not_rounded_to() -> None:
    """Scales go on until ranges fit: less noise is measured than where the best ranges are rounded to powers behind."""
    images = np.concatenate([x for x, _ in batches(data_path(), Card("gray", (0.0,), (16.0,)), 64, 256)])
    (wanted,) = Session(model_path()).run(images).values()
    weight, activation = QSpec(8, narrow=True), QSpec(8)
    powers = replace(weight, power_of_two=True), replace(activation, power_of_two=True)
    found = {}
    for name, formats in (("chosen", powers), ("rounded", (weight, activation))):
        model = Quantize(*powers)(Optimal(*formats)(prepared()))
        scales = [np.ravel(grid.scale) for grid in model.qparams.values()]
        assert all(np.frexp(scale)[0] == 0.5 for scale in np.concatenate(scales))
        found[name] = sqnr_db(wanted, *Session(export(model)).run(images).values())
    assert found["chosen"] > found["rounded"] + 1


def test_unseen_tails_are_given_room_where_steps_are_powers_of_two() -> None:
    """The same moments, told by BatchNorms or measured: where nobody has seen values, less is cut off."""
    model, spec = prepared(), QSpec(8, power_of_two=True, by_sign=True)
    measured = {name: replace(m, origin="calibration") for name, m in model.moments.items()}
    cut = [
        next(e for e in Optimal(TENSOR, spec)(m).log if e.kind == EventKind.OPTIMIZED).facts["of clips"]
        for m in (model, replace(model, moments=measured))
    ]
    assert cut[0] + 10 * np.log10(UNSEEN) > cut[1] + 1


@pytest.mark.parametrize(("end", "step"), [(31.0, 0.25), (34.0, 0.25), (40.0, 0.5), (63.0, 0.5)])
def test_results_take_half_the_step_where_that_holds_nearly_all(end: float, step: float) -> None:
    """127 quarters are 31.75: of 34 all but the last 7 %, of 40 four fifths."""
    model = prepared()
    (name,) = model.graph.outputs
    wide = Range(np.array(-end), np.array(end / 2))
    model = replace(model, ranges={**model.ranges, name: wide})
    spec = QSpec(8, power_of_two=True)
    found = Optimal(QSpec(8), spec, iterations=1)(model).ranges[name]
    assert choose_qparams(found.lo, found.hi, spec).scale == step
    assert Optimal(QSpec(8), QSpec(8), iterations=1)(model).ranges[name] is wide


@pytest.mark.parametrize("target", ["npu-shift", "per-tensor", "per-channel"])
@pytest.mark.filterwarnings("error")
def test_weights_that_are_all_zero_are_quantized_without_a_word_of_numpys(target: str) -> None:
    proto = network("y = Conv(x, w)", inputs="float[1,3,8,8] x", w=np.zeros((4, 3, 3, 3), np.float32))
    made = quantize(proto, target=target, input=(0, 1))
    assert not execute(made.proto, normal(1, 3, 8, 8))[0].any()
