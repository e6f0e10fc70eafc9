"""Measured moments and ranges: each rule against numpy on the values themselves, and what is left alone."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest

import equint
from equint.errors import EquintError
from equint.graph.inputs import describe_range, infer_input
from equint.ir.events import EventKind
from equint.ir.model import Array, Moments, QSpec, Range
from equint.maths.affine import choose_qparams, fake_quantize
from equint.maths.gaussian import clipped
from equint.maths.noise import sqnr_db
from equint.onnx.reader import read
from equint.passes.calibrate import MARGIN, Calibrate, Rule
from equint.passes.fold_batchnorm import FoldBatchnorm
from equint.runtime.collect import collect
from equint.samples.generated import generated
from equint.samples.images import Samples
from equint.samples.statistics import Histogram, Statistics, TensorStatistics, fingerprint
from handwritten import execute, network, normal
from nets import Net, random_network, sample
from values import values

RULES: tuple[Rule, ...] = ("min-max", "image-percentile", "percentile", "mse", "n-sigma")
PROTO = network("a = Conv(x, w) r = Clip(a, low, high) y = Conv(r, v)", w=normal(4, 3, 3, 3), v=normal(2, 4, 1, 1),
                low=0.0, high=6.0)  # fmt: skip
MODEL = describe_range(read(PROTO), -4, 4)


def counted(x: Array, histograms: bool = True) -> TensorStatistics:
    """Statistics of values (N, C, H, W), in plain numpy."""
    rows, exact = x.reshape(len(x), -1), x.astype(np.float64)
    return TensorStatistics(
        axis=1,
        rank=x.ndim,
        images=len(x),
        count=x.size // x.shape[1],
        low=exact.min((0, 2, 3)),
        high=exact.max((0, 2, 3)),
        total=exact.sum((0, 2, 3)),
        square=np.square(exact).sum((0, 2, 3)),
        lows=Histogram.of(rows.min(1)),
        highs=Histogram.of(rows.max(1)),
        values=Histogram.of(x) if histograms else None,
    )


def drawn(images: int = 200) -> dict[str, Array]:
    """Values of every tensor: channels of different reach, images of different strength, few far outliers."""
    rng = np.random.default_rng(0)
    strength = rng.exponential(1.0, (images, 1, 1, 1)) + 0.5
    r = np.clip(strength * rng.normal(0.2, [[[0.1]], [[0.5]], [[1.0]], [[2.0]]], (images, 4, 6, 6)), 0, 6)
    y = strength * rng.laplace([[[0.0]], [[3.0]]], [[[1.0]], [[0.2]]], (images, 2, 6, 6))
    x = rng.normal(size=(images, 3, 8, 8))
    return {"x": x.astype(np.float32), "r": r.astype(np.float32), "y": y.astype(np.float32)}


VALUES = drawn()


def statistics(tables: Mapping[str, Array] = VALUES, histograms: bool = True) -> Statistics:
    tensors = {name: counted(x, histograms) for name, x in tables.items()}
    return Statistics(tensors, len(tables["x"]), fingerprint(MODEL.graph))


def ranges(rule: Rule, **options: Any) -> dict[str, tuple[Array, Array]]:
    """Ends per channel, `(C,)`, as a rule finds them."""
    model = Calibrate(rule, statistics=statistics(), **options)(MODEL)
    assert all(model.ranges[n].lo.shape == (1, VALUES[n].shape[1], 1, 1) for n in ("r", "y"))
    return {n: (model.ranges[n].lo.ravel(), model.ranges[n].hi.ravel()) for n in ("r", "y")}


def ends(x: Array) -> tuple[Array, Array]:
    """Extremes per channel."""
    return x.min((0, 2, 3)), x.max((0, 2, 3))


def assert_cut(found: tuple[Array, Array], x: Array, lo: float, hi: float, slack: float) -> None:
    """Channels' extremes, cut at [lo, hi], up to some slack in these."""
    low, high = ends(x)
    np.testing.assert_allclose(found[0], np.maximum(low, lo), rtol=0, atol=slack)
    np.testing.assert_allclose(found[1], np.minimum(high, hi), rtol=0, atol=slack)


# Rules


def test_min_max() -> None:
    for name, found in ranges("min-max").items():
        assert_cut(found, VALUES[name], -np.inf, np.inf, 0.0)


@pytest.mark.parametrize(("percent", "usual"), [(0.0, 1.0), (0.5, 0.5), (10.0, 10.0)])
def test_image_percentile(percent: float, usual: float) -> None:
    """So many of 200 images reach further, on either side."""
    for name, found in ranges("image-percentile", percent=percent).items():
        rows = VALUES[name].reshape(200, -1)
        lows, highs, k = np.sort(rows.min(1)), np.sort(rows.max(1)), int(2 * usual)
        assert_cut(found, VALUES[name], lows[k], highs[-1 - k], 2.0**-10 * float(np.ptp(rows)))


@pytest.mark.parametrize(("percent", "usual"), [(0.0, 0.01), (0.05, 0.05), (1.0, 1.0)])
def test_percentile(percent: float, usual: float) -> None:
    for name, found in ranges("percentile", percent=percent).items():
        ordered = np.sort(VALUES[name], axis=None)
        k = int(usual / 100 * ordered.size)
        assert_cut(found, VALUES[name], ordered[k], ordered[-1 - k], 2.0**-9 * float(np.ptp(ordered)))


@pytest.mark.slow
@pytest.mark.parametrize("bits", [3, 4, 8])
def test_mse(bits: int) -> None:
    """No other cut of the extremes makes much less error on the values."""
    spec = QSpec(bits, signed=False, symmetric=False)
    for name, (low, high) in ranges("mse", activation=spec).items():
        x = VALUES[name].ravel()

        def error(lo: float, hi: float, x: Array = x) -> float:
            rounded = fake_quantize(x, choose_qparams(lo, hi, spec))
            return float(np.square(rounded - x, dtype=np.float64).mean())

        shares = np.geomspace(0.1, 1, 25)
        best = min(error(a * x.min(), b * x.max()) for a in shares for b in shares)
        assert error(low.min(), high.max()) <= 1.02 * best
        assert_cut((low, high), VALUES[name], low.min(), high.max(), 0.0)
    assert (
        ranges("mse", activation=None)["y"][1].max() == ranges("mse", activation=QSpec(8, False, False))["y"][1].max()
    )


@pytest.mark.parametrize("n", [1.0, 3.0, 100.0])
def test_n_sigma(n: float) -> None:
    for name, (low, high) in ranges("n-sigma", n=n).items():
        x = VALUES[name].astype(np.float64)
        mean, std = x.mean((0, 2, 3)), x.std((0, 2, 3))
        np.testing.assert_allclose(low, np.maximum(mean - n * std, ends(x)[0]), rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(high, np.minimum(mean + n * std, ends(x)[1]), rtol=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_a_channel_beyond_the_cut_keeps_an_empty_range(rule: Rule) -> None:
    """One channel lies where a rule cuts the others off: its range may be a point, but never turned around."""
    x = {**VALUES, "r": VALUES["r"].copy()}
    x["r"][:, 1] = 1e3
    model = Calibrate(rule, percent=30.0, n=0.5, statistics=statistics(x))(MODEL)
    assert all(np.all(r.lo <= r.hi) for r in model.ranges.values())


# Moments


def test_moments_are_those_of_the_values() -> None:
    model = Calibrate(statistics=statistics())(MODEL)
    for name, x in VALUES.items():
        assert model.moments[name].origin == "calibration"
        np.testing.assert_allclose(model.moments[name].mean.ravel(), x.mean((0, 2, 3), np.float64), rtol=1e-9)
        np.testing.assert_allclose(model.moments[name].std.ravel(), x.std((0, 2, 3), np.float64), rtol=1e-6)


def test_before_an_activation_stands_the_gaussian_that_it_clips() -> None:
    """Whatever BatchNorm knew of it."""
    mean, std = np.array([0.5, -1.0, 3.0, 7.0]), np.array([1.0, 2.0, 3.0, 1.5])
    first, spread = clipped(mean, std, 0.0, 6.0)
    r = replace(counted(VALUES["r"]), total=first, square=np.square(first) + np.square(spread), count=1)
    found = replace(statistics(), tensors={**statistics().tensors, "r": r})
    known = Moments(np.zeros((1, 4, 1, 1)), np.ones((1, 4, 1, 1)), "batchnorm")
    for before in ({}, {"a": known}):
        model = Calibrate(statistics=found)(replace(MODEL, moments={**MODEL.moments, **before}))
        a = model.moments["a"]
        assert (a.origin, a.mean.shape) == ("calibration", (1, 4, 1, 1))
        np.testing.assert_allclose(a.mean.ravel(), mean, rtol=1e-4)
        np.testing.assert_allclose(a.std.ravel(), std, rtol=1e-4)


def test_before_an_activation_on_a_network() -> None:
    """Sums of many normal inputs are normal, so that the guess must be near what the layer really puts out."""
    net = Net(seed=2, shape=(16, 10, 10), calibrated=True)
    proto = net.build(net.conv(net.relu6(net.batchnorm(net.conv(net.input, 8, scale=np.ones(8)))), 4, 1))
    x = sample(proto, 64)
    model = Calibrate(images=Samples.of(x))(FoldBatchnorm()(read(proto)))
    (name,) = [n.inputs[0] for n in model.graph.nodes if n.op == "Clip"]
    (truth,) = values(model, x, [name])
    spread = truth.std((0, 2, 3))
    seen = (truth > 0).mean((0, 2, 3)) > 0.05
    assert seen.sum() >= 4
    found = model.moments[name]
    assert np.all(np.abs(found.mean.ravel() - truth.mean((0, 2, 3)))[seen] < 0.2 * spread[seen])
    np.testing.assert_allclose(found.std.ravel()[seen], spread[seen], rtol=0.2)


def test_what_is_not_measured_is_propagated() -> None:
    """Tensors that only move values are left out of calibration, not of what is known afterwards."""
    proto = network("a = Conv(x, w) t = Transpose <perm = [0, 2, 3, 1]> (a) y = MatMul(t, v)", w=normal(4, 3, 3, 3),
                    v=normal(4, 2))  # fmt: skip
    model = Calibrate(images=Samples.of(VALUES["x"]))(infer_input(read(proto)))
    np.testing.assert_allclose(model.moments["t"].mean.ravel(), model.moments["a"].mean.ravel(), rtol=1e-6)


# What stays


def test_the_range_of_a_card_stays() -> None:
    for given in (MODEL, infer_input(read(PROTO))):
        after = Calibrate(statistics=statistics())(given)
        if given is MODEL:
            assert (after.ranges["x"].lo.item(), after.ranges["x"].hi.item()) == (-4, 4)
        else:
            np.testing.assert_array_equal(after.ranges["x"].hi.ravel(), ends(VALUES["x"])[1])


def test_what_was_not_looked_at_stays() -> None:
    other = {"b": Range(np.zeros(1), np.ones(1))}
    given = replace(MODEL, ranges={**MODEL.ranges, **other})
    after = Calibrate(statistics=statistics())(given)
    assert after.ranges["b"] is other["b"]
    assert after.graph is given.graph
    assert after.log[-1].facts == {"images": 200, "tensors": 3, "ranges": "min-max"}


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES)
def test_statistics_do_what_the_images_would(rule: Rule) -> None:
    for seed in range(3):
        proto = random_network(seed, calibrated=True)
        model = infer_input(FoldBatchnorm()(read(proto)))
        shown = Samples.of(sample(proto, 12))
        found = collect(model.graph, shown, histograms=True)
        by_images, by_numbers = Calibrate(rule, images=shown)(model), Calibrate(rule, statistics=found)(model)
        assert by_images.ranges.keys() == by_numbers.ranges.keys()
        for name, r in by_images.ranges.items():
            np.testing.assert_array_equal(r.lo, by_numbers.ranges[name].lo)
            np.testing.assert_array_equal(r.hi, by_numbers.ranges[name].hi)
        for name, m in by_images.moments.items():
            np.testing.assert_array_equal(m.mean, by_numbers.moments[name].mean)
            np.testing.assert_array_equal(m.std, by_numbers.moments[name].std)


@pytest.mark.parametrize("count", [1, 15, 16])
def test_few_images_are_worth_a_warning(count: int) -> None:
    after = Calibrate(images=Samples.of(VALUES["x"][:count]))(MODEL)
    assert after.log[-1].kind is EventKind.CALIBRATED
    assert after.log[-1].warning == (count < 16)
    assert ("why" in after.log[-1].facts) == (count < 16)


def test_without_images_batchnorm_is_left_alone() -> None:
    model = infer_input(FoldBatchnorm()(read(random_network(1, calibrated=True, blocks=["conv_bn_act"]))))
    assert any(m.origin == "batchnorm" for m in model.moments.values())
    after = Calibrate()(model)
    assert after == model.noted(after.log[-1])
    assert after.log[-1].kind is EventKind.NOT_CALIBRATED
    assert "no images to look at" in after.log[-1].facts["why"]


PARTLY = network(
    "a = Conv(x, w) n = BatchNormalization(a, s, b, m, v) h = Conv(n, u) g = Relu(h) y = Conv(g, t)",
    inputs="float[N,3,32,32] x", w=normal(4, 3, 3, 3), u=normal(5, 4, 3, 3), t=normal(2, 5, 1, 1),
    s=[2.0, 1.0, 3.0, 0.5], b=[1.0, -2.0, 0.0, 4.0], m=np.zeros(4), v=np.ones(4))  # fmt: skip


def test_pictures_tell_what_batchnorms_do_not() -> None:
    model = FoldBatchnorm()(describe_range(read(PARTLY), 0, 255))
    after = Calibrate()(model)
    assert after.log[-1].kind is EventKind.CALIBRATED_ON_PICTURES
    assert after.log[-1].warning
    assert re.search(r"BatchNorms tell nothing of \d+ tensors?, \w+ first", after.log[-1].facts["why"])
    np.testing.assert_allclose(after.moments["n"].mean.ravel(), [1, -2, 0, 4])
    np.testing.assert_allclose(after.moments["n"].std.ravel(), [2, 1, 3, 0.5], rtol=1e-4)
    assert "n" not in after.ranges
    assert after.moments["g"].origin == "generated"
    PARTLY.graph.output.append(onnx.helper.make_tensor_value_info("g", onnx.TensorProto.FLOAT, None))
    shown = [x for x in generated(model, (3, 32, 32)) if isinstance(x, np.ndarray)]
    reached = max(execute(PARTLY, x)[1].max() for x in shown)
    assert float(after.ranges["g"].hi.max()) == pytest.approx(MARGIN * reached, rel=1e-4)


def test_pictures_of_an_input_of_which_nothing_is_known_tell_less_than_batchnorms() -> None:
    model = infer_input(FoldBatchnorm()(read(PARTLY)))
    assumed = replace(model, moments={**model.moments, "x": replace(model.moments["x"], origin="assumed")})
    assert Calibrate()(assumed).log[-1].kind is EventKind.NOT_CALIBRATED


def test_a_rule_that_needs_images_says_so_where_there_are_none() -> None:
    for stand_in in ("generated", "propagated"):
        model = infer_input(FoldBatchnorm()(read(random_network(2, blocks=["pool"]))))
        after = Calibrate("image-percentile", stand_in=stand_in)(model)
        assert after.log[-1].kind is EventKind.NOT_CALIBRATED
        assert after.log[-1].warning
        assert "ranges are not those of rule image-percentile, which needs images" in after.log[-1].facts["why"]


def test_progress() -> None:
    seen: list[tuple[int, int]] = []
    Calibrate(images=Samples.of(VALUES["x"][:10]), progress=lambda *done: seen.append(done))(MODEL)
    assert seen == [(4, 0), (8, 0), (10, 0)]


# What is refused


@pytest.mark.parametrize("rule", ["percentile", "mse"])
def test_rules_that_need_histograms(rule: Rule) -> None:
    step = Calibrate(rule, statistics=statistics(histograms=False))
    with pytest.raises(EquintError, match="no histogram of tensor x; calibrate with histograms"):
        step(MODEL)


@pytest.mark.parametrize("body", ["r = Conv(x, v) y = Relu(r)", "f = Flatten(x) r = Gemm(f, u) y = Relu(r)"])
def test_statistics_of_another_network(body: str) -> None:
    consts: dict[str, Any] = {"v": normal(7, 3, 1, 1)} if "v" in body else {"u": normal(192, 4)}
    other = read(network(body, output="float[] y", **consts))
    with pytest.raises(EquintError, match="tensor r are of another network"):
        Calibrate(statistics=statistics())(other)


@pytest.mark.parametrize("options", [{"percent": -1.0}, {"percent": 50.0}, {"n": 0.0}, {"n": float("inf")}])
def test_options_that_make_no_sense(options: dict[str, float]) -> None:
    with pytest.raises(EquintError, match=next(iter(options))):
        Calibrate(**options)  # type: ignore[arg-type]


def test_images_are_left_out_only_where_that_is_asked_for() -> None:
    with pytest.raises(EquintError, match="images = 0 takes them from moments, at a cost"):
        Calibrate(without_images="refused")(MODEL)
    after = Calibrate(without_images="warned")(MODEL)
    (warning,) = (e for e in after.log if e.kind is EventKind.IMAGES_LEFT_OUT)
    assert warning.warning
    assert "may cost all accuracy" in warning.facts["why"]
    assert after.ranges == Calibrate()(MODEL).ranges
    seen = Calibrate(without_images="refused", images=Samples.of(sample(PROTO, 20)))(MODEL)
    assert not any(e.warning for e in seen.log)


def test_no_more_images_than_asked_for() -> None:
    x = np.arange(40, dtype=np.float32).reshape(40, 1, 1, 1) * np.ones((1, 3, 8, 8), np.float32)
    after = Calibrate(images=Samples.of(x), first=18)(replace(MODEL, moments={}, ranges={}))
    assert float(np.max(after.ranges["x"].hi)) == 17
    with pytest.raises(EquintError, match="first = 0"):
        Calibrate(first=0)


# Data that cannot be right


def doubts(x: Array, low: float = -4, high: float = 4) -> list[str]:
    model = Calibrate(images=Samples.of(x))(describe_range(read(PROTO), low, high))
    found = [e for e in model.log if e.kind is EventKind.CALIBRATION_DOUBTFUL]
    assert all(e.warning for e in found)
    return [str(e.facts["why"]) for e in found]


@pytest.mark.parametrize(("gain", "moved", "found"), [(1, 0, 0), (2, 0, 0), (255, 0, 1), (1 / 255, 0, 1), (1, 9, 1)])
def test_images_unlike_those_of_training_are_named(gain: float, moved: float, found: int) -> None:
    """The BatchNorm was trained on x = N(0, 1) behind a convolution of one weight: mean 0, spread 1."""
    norm: dict[str, Any] = {"s": [1.0] * 3, "b": [0.0] * 3, "m": [0.0] * 3, "v": [1.0] * 3}
    body = "c = Conv(x, w) d = BatchNormalization(c, s, b, m, v) y = Relu(d)"
    model = read(network(body, inputs="float[N,3,8,8] x", w=np.eye(3).reshape(3, 3, 1, 1), **norm))
    x = gain * np.random.default_rng(0).standard_normal((32, 3, 8, 8)).astype(np.float32) + moved
    after = Calibrate(images=Samples.of(x))(FoldBatchnorm()(model))
    doubted = [e for e in after.log if e.kind is EventKind.CALIBRATION_DOUBTFUL]
    assert len(doubted) == found
    for event in doubted:
        assert "check how they are prepared" in event.facts["why"]
        assert event.facts["means moved, in spreads"] == pytest.approx(moved, abs=0.6 + 0.6 * gain)


def test_images_that_cannot_be_right_are_named() -> None:
    x = VALUES["x"][:20]
    assert doubts(x, -9, 9) == []
    assert doubts(0 * x) == ["all values of all images are the same"]
    assert doubts(np.repeat(x[:1], 20, 0), -9, 9) == ["all images are the same"]
    assert doubts(x, 0, 1) == ["images reach beyond the input range given"]
    assert doubts(np.clip(x, -4.3, 4.3)) == []
    assert doubts(2 * np.clip(x, -2.3, 2.3)) == ["images reach beyond the input range given"]


@pytest.mark.parametrize("x", [0 * VALUES["x"][:20], np.repeat(VALUES["x"][:1], 20, 0), VALUES["x"][:1]])
def test_such_images_still_make_a_network(x: Array) -> None:
    result = equint.quantize(PROTO, data=x.astype(np.float32))
    assert result.warnings
    (found,) = execute(result.proto, VALUES["x"][:2])
    assert np.isfinite(found).all()


@pytest.mark.parametrize("trained", [False, True])
def test_what_nothing_tells_is_measured_on_made_up_samples(trained: bool) -> None:
    """A Where stops what is known of the input: what lies behind it is measured on features of the input's spread.

    A BatchNorm knows better, but where of the input itself nothing tells, only of what no BatchNorm does.
    """
    body = "a = MatMul(x, w) c = Greater(a, zero) b = Where(c, a, small) y = MatMul(b, v)"
    consts: dict[str, Any] = {"w": normal(16, 8), "v": normal(8, 4), "zero": 0.0, "small": -0.25}
    if trained:
        ones = np.ones(8, np.float32)
        consts |= {"g": ones, "m": 0 * ones, "s": 16 * ones}
        body = body.replace("a = MatMul(x, w)", "h = MatMul(x, w) r = Tanh(h) a = BatchNormalization(r, g, m, m, s)")
    model = infer_input(FoldBatchnorm()(read(network(body, inputs="float[N,16] x", output="float[N,4] y", **consts))))
    found = Calibrate()(model)
    kinds = EventKind.CALIBRATED_ON_PICTURES, EventKind.RANGES_FROM_MADE_UP_SAMPLES
    (event,) = [e for e in found.log if e.kind in kinds]
    assert (event.kind, event.warning) == (kinds[trained], True)
    assert np.all(found.ranges["b"].lo <= -0.25)
    x = np.random.default_rng(5).normal(size=(4096, 16))
    assert not [e for e in Calibrate(images=Samples.of(x.astype(np.float32)))(model).log if e.kind in kinds]
    if not trained:
        a = x @ consts["w"]
        b = np.where(a > 0, a, -0.25)
        assert 0.5 * b.max() < float(found.ranges["b"].hi.max()) < 3 * b.max()
        np.testing.assert_allclose(found.moments["b"].mean.ravel(), b.mean(0), atol=1.2)


def test_a_quotient_of_which_only_its_operands_ranges_are_known_is_measured() -> None:
    """LayerNorm in pieces: its n = 32 values cannot reach beyond √(n − 1); their ranges' quotient reaches thousands."""
    body = """h = Gemm(x, w) m = ReduceMean <axes = [1]> (h) d = Sub(h, m) p = Pow(d, two)
              v = ReduceMean <axes = [1]> (p) e = Add(v, eps) s = Sqrt(e) q = Div(d, s) y = Gemm(q, u)"""
    consts: dict[str, Any] = {"w": normal(16, 32), "u": normal(32, 4)}
    consts |= {"two": np.float32(2), "eps": np.float32(1e-5)}
    proto = network(body, inputs="float[N,16] x", output="float[] y", **consts)
    result = equint.quantize(proto, input=(-4, 4))
    quotient = result.model.ranges["q"]
    assert 1 < float(np.max(quotient.hi)) <= 1.3 * 31**0.5
    x = np.random.default_rng(0).uniform(-4, 4, (64, 16)).astype(np.float32)
    (clean,), (noisy,) = execute(proto, x), execute(result.proto, x)
    assert sqnr_db(clean, noisy) > 20
