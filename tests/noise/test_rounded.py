"""What is said of every tensor and weight that becomes integer, on graphs small enough to know it by hand."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm

from equint.graph.moments import propagate
from equint.graph.placement import place
from equint.ir.model import Array, Graph, Model, Moments, Range
from equint.noise.constants import NoiseModel
from equint.noise.gains import Gains
from equint.noise.rounded import RoundedLayer, RoundedTensor, _furthest, rounded_layers, rounded_tensors
from equint.onnx.reader import read
from equint.runtime.session import Session
from handwritten import network, normal

Floats = NDArray[np.float64]
NOISE = NoiseModel()
MEAN, STD = np.array([-0.5, 0.3, 2.0]), np.array([1.5, 0.7, 0.4])
CONV = {"w": normal(4, 3, 1, 1), "b": normal(4), "v": normal(2, 4, 1, 1)}
"""A layer in front and one behind; what stands between `a` and `h` is what the tests are about."""


def field(values: Any) -> Floats:
    return np.asarray(values, np.float64).reshape(1, -1, 1, 1)


X = Moments(field(MEAN), field(STD), "given")
A = Moments(field([0.1, -0.4, 0.8, 0.3]), field([1.0, 0.5, 0.7, 1.2]), "batchnorm")


def model_of(body: str, known: dict[str, Moments] | None = None, **consts: Any) -> Model:
    body = body if " y = " in f" {body}" else f"a = Conv(x, w, b) {body} y = Conv(h, v)"
    used = {k: v for k, v in CONV.items() if k in body} | consts
    graph = read(network(body, inputs="float[2,3,8,8] x", output="float[] y", opset=18, **used)).graph
    return Model(graph, propagate(graph, {"x": X, "a": A, **(known or {})}))


def numbered(model: Model) -> Gains:
    """Gains that tell every channel of every tensor apart."""
    scattered, first = {}, 1.0
    for name, m in model.moments.items():
        scattered[name] = first + np.arange(m.mean.size).reshape(m.mean.shape)
        first += m.mean.size
    return Gains(scattered, {name: 100 * gain for name, gain in scattered.items()})


def tensors_of(model: Model, fields: dict[str, Array] | None = None) -> dict[str, RoundedTensor]:
    found = list(rounded_tensors(model, numbered(model), fields))
    assert len({s.name for s in found}) == len(found)
    return {s.name: s for s in found}


def says(s: RoundedTensor, m: Moments, floor: Any = -np.inf, cap: Any = np.inf) -> None:
    """What stands before the activation, and where that clips."""
    for values, wanted in (
        (s.before.mean, m.mean),
        (s.before.std, m.std),
        (s.activation.floor, floor),
        (s.activation.cap, cap),
    ):
        np.testing.assert_allclose(values, np.broadcast_to(np.asarray(wanted, np.float64).reshape(-1), values.shape))


# Tensors


def test_a_relu_is_rounded_where_it_lets_through() -> None:
    model = model_of("h = Relu(a)")
    found = tensors_of(model)
    assert list(found) == ["x", "h", "y"]  # `a` is merged with its activation
    h = found["h"]
    says(h, A, floor=0)
    np.testing.assert_allclose(h.active, np.reshape(norm.sf(0, A.mean, A.std), -1))
    np.testing.assert_array_equal(h.activation.slope, 1)
    np.testing.assert_array_equal([h.before.up, h.before.down], [h.before.std, h.before.std])
    assert h.shape == (1, 4, 1, 1)
    assert h.activation.clip is None


def test_layers_and_inputs_are_rounded_everywhere() -> None:
    found = tensors_of(model_of("h = Sigmoid(a)"))
    for name, m in (("x", X), ("a", A)):
        says(found[name], m)
        np.testing.assert_array_equal(found[name].active, 1)


def test_an_input_reaches_no_further_than_its_range() -> None:
    model = model_of("h = Relu(a)")
    ranged = replace(model, ranges={"x": Range(np.array(-1.0), field([1, 2, 3]))})
    says(tensors_of(ranged)["x"], X, floor=-1, cap=[1, 2, 3])


def test_layers_are_not_believed_to_reach_far_unless_batchnorm_tells_or_their_tails_are_heavy() -> None:
    model = model_of(
        "a = Conv(x, w, b) c = Conv(x, w) d = Conv <group = 3> (x, dw) y = Concat <axis = 1> (a, c, d)",
        dw=normal(3, 1, 1, 1),
    )
    found, c = tensors_of(model), model.moments["c"]
    says(found["c"], c, floor=c.mean - NOISE.extent * c.std, cap=c.mean + NOISE.extent * c.std)
    says(found["d"], model.moments["d"])
    says(found["a"], A)


def test_gains_and_grids_are_those_of_the_tensor() -> None:
    model = model_of("h = Relu(a)")
    table, classes = numbered(model), place(model.graph).classes
    for name, s in tensors_of(model).items():
        assert name in classes[s.grid]
        np.testing.assert_array_equal(s.scattered, table.scattered[name].reshape(-1))
        np.testing.assert_array_equal(s.steady, table.steady[name].reshape(-1))


def test_a_clip_with_one_bound_is_told() -> None:
    model = model_of("h = Clip(a, lo, hi)", lo=0.0, hi=0.4)
    h = tensors_of(model)["h"]
    says(h, A, floor=0, cap=np.float32(0.4))
    share = norm.cdf(0.4, A.mean, A.std) - norm.cdf(0, A.mean, A.std)
    np.testing.assert_allclose(h.active, np.reshape(share, -1))
    assert h.activation.clip is model.graph.producer["h"]


def test_a_clip_with_a_bound_for_each_channel_is_not_shared() -> None:
    model = model_of("h = Clip(a, lo, hi)", lo=-0.1, hi=0.4)
    bounds = field([0.1, 0.2, 0.4, 0.8])
    model = replace(model, graph=model.graph.with_consts({"hi": bounds}))
    h = tensors_of(model)["h"]
    says(h, A, floor=np.float32(-0.1), cap=bounds)
    share = norm.cdf(bounds, A.mean, A.std) - norm.cdf(np.float32(-0.1), A.mean, A.std)
    np.testing.assert_allclose(h.active, np.reshape(share, -1))
    assert h.activation.clip is None


def test_activations_in_a_row_clip_together() -> None:
    model = model_of("r = Relu(a) h = Clip(r, lo, hi)", lo=-1.0, hi=0.5)
    found = tensors_of(model)
    assert "r" not in found
    says(found["h"], A, floor=0, cap=0.5)
    assert found["h"].activation.clip is model.graph.producer["h"]


def test_an_activation_that_is_not_the_only_reader_is_rounded_beside_its_input() -> None:
    found = tensors_of(model_of("a = Conv(x, w, b) h = Relu(a) c = Conv(a, v) d = Conv(h, v) y = Add(c, d)"))
    assert {"a", "h"} < set(found)
    says(found["a"], A)
    says(found["h"], A, floor=0)
    assert found["h"].grid != found["a"].grid


def test_a_leaky_relu_has_a_slope_and_no_floor() -> None:
    model = model_of("h = LeakyRelu <alpha = 0.25> (a)")
    h = tensors_of(model)["h"]
    says(h, A)
    np.testing.assert_array_equal(h.activation.slope, 0.25)
    np.testing.assert_array_equal(h.active, 1)


@pytest.mark.parametrize(("lowest", "floor"), [(None, -np.inf), (-1.0, -np.inf), (0.0, 0.0)])
def test_a_sum_reaches_as_far_as_its_moments_say(lowest: float | None, floor: float) -> None:
    """Its range is only looked at for its sign: a sum of what is never negative has a floor."""
    model = model_of("c = Conv(x, w) h = Add(a, c)")
    if lowest is not None:
        model = replace(model, ranges={"h": Range(np.full((1, 4, 1, 1), lowest), np.full((1, 4, 1, 1), 3.0))})
    says(tensors_of(model)["h"], model.moments["h"], floor=floor)


def test_what_else_is_computed_reaches_as_far_as_its_range() -> None:
    model = model_of("s = Sigmoid(a) h = Mul(a, s)")
    ranged = replace(model, ranges={"h": Range(field([-0.3] * 4), field([1, 2, 3, 4]))})
    says(tensors_of(ranged)["h"], model.moments["h"], floor=-0.3, cap=[1, 2, 3, 4])
    says(tensors_of(model)["h"], model.moments["h"])


@pytest.mark.parametrize(
    "pool", ["AveragePool <kernel_shape = [2, 2]> (r)", "GlobalAveragePool(r)", "ReduceMean(r, spatial)"]
)
def test_an_average_reaches_as_far_as_what_it_averages(pool: str) -> None:
    model = model_of(f"r = Relu(a) h = {pool}", spatial=np.array([2, 3]))
    ranges = {"r": Range(np.zeros((1, 1, 1, 1)), field([1, 2, 3, 4])), "h": Range(np.zeros(1), field([0.1] * 4))}
    h = tensors_of(replace(model, ranges=ranges))["h"]
    says(h, model.moments["h"], floor=0, cap=[1, 2, 3, 4])


@pytest.mark.parametrize(
    "moved",
    [
        "m = ReduceMean <keepdims = 0> (r, spatial) h = Reshape(m, flat)",
        "m = ReduceMean(r, spatial) h = Flatten(m)",
        "m = ReduceMean(r, spatial) s = Squeeze(m, spatial) h = Reshape(s, flat)",
    ],
)
def test_an_average_that_is_moved_reaches_as_far(moved: str) -> None:
    """As torch writes it: x.mean((2, 3)) in front of a linear layer, whose grid stands behind the move."""
    consts: dict[str, Any] = {"spatial": np.array([2, 3]), "flat": np.array([-1, 4]), "u": normal(4, 2)}
    model = model_of(f"a = Conv(x, w, b) r = Relu(a) {moved} y = MatMul(h, u)", **consts)
    low, near = np.zeros((1, 1, 1, 1)), field([0.1] * 4)
    ranges = {"r": Range(low, field([1, 2, 3, 4])), "m": Range(low, near), "h": Range(low[..., 0, 0], near[..., 0, 0])}
    (h,) = (t for t in tensors_of(replace(model, ranges=ranges)).values() if t.name in ("m", "s", "h"))
    says(h, model.moments[h.name], floor=0, cap=[1, 2, 3, 4])


def test_a_long_way_of_moves_is_walked() -> None:
    consts: dict[str, Any] = {"spatial": np.array([2, 3]), "shape": np.array([-1, 4, 1, 1]), "u": normal(4, 2)}
    moves = " ".join(f"m{k + 1} = Reshape(m{k}, shape)" for k in range(1200))
    body = f"a = Conv(x, w, b) r = Relu(a) m0 = ReduceMean(r, spatial) {moves} h = Flatten(m1200) y = MatMul(h, u)"
    model = model_of(body, **consts)
    model = replace(model, ranges={"r": Range(np.zeros((1, 1, 1, 1)), field([1, 2, 3, 4]))})
    found = _furthest(model, "h")
    assert found is not None
    assert found.hi.tolist() == [[1, 2, 3, 4]]


@pytest.mark.parametrize(
    ("body", "counted"),
    [
        ("r = Relu(a) h = MaxPool <kernel_shape = [2, 2]> (r)", "x r y"),
        ("r = Relu(a) h = Resize(r, , d)", "x r y"),
        ("r = Relu(a) h = Transpose <perm = [0, 1, 3, 2]> (r)", "x r y"),
        ("r, s = Split <axis = 1> (a, two) h = Concat <axis = 1> (s, r)", "x a y"),
        (
            "c = Conv(x, w) r = Relu(a) s = Relu(c) t = Concat <axis = 1> (r, s) h = Slice(t, zero, four, one)",
            "x r y",
        ),
        ("r = Relu(a) h = AveragePool <kernel_shape = [2, 2]> (r)", "x r h y"),
        ("r = Relu(a) h = Add(r, r)", "x r h y"),
    ],
)
def test_values_that_only_pass_on_are_rounded_once(body: str, counted: str) -> None:
    consts: dict[str, Any] = {"d": [1.0, 1.0, 2.0, 2.0], "two": [2, 2], "zero": [0], "one": [1], "four": [4]}
    assert set(tensors_of(model_of(body, **consts))) == set(counted.split())


def test_branches_of_a_concat_share_its_grid() -> None:
    body = "a = Conv(x, w, b) c = Conv(x, w) r = Relu(a) s = Relu(c) t = Concat <axis = 1> (r, s) y = Conv(t, u)"
    found = tensors_of(model_of(body, u=normal(2, 8, 1, 1)))
    assert found["r"].grid == found["s"].grid != found["y"].grid


@pytest.mark.parametrize(
    ("body", "doubt"),
    [
        ("h = Relu(a)", 1),
        ("d = Conv <group = 4> (a, dw) h = Relu(d)", NOISE.doubt),
        ("h = AveragePool <kernel_shape = [2, 2]> (a)", NOISE.doubt),
        ("d = Conv <group = 4> (a, dw) h = LeakyRelu (d)", NOISE.doubt),
        ("d = GlobalAveragePool(a) h = Mul(a, d)", NOISE.doubt),
        ("d = Conv <group = 4> (a, dw) h = Conv(d, dense)", 1),
    ],
)
def test_heavy_tails_are_doubted(body: str, doubt: float) -> None:
    model = model_of(body, dw=normal(4, 1, 1, 1, scale=1), dense=normal(4, 4, 1, 1))
    h = tensors_of(model)["h"]
    np.testing.assert_allclose([h.before.up, h.before.down], [doubt * h.before.std] * 2)


def test_what_batchnorm_knows_is_not_doubted() -> None:
    told = Moments(field([0, 0, 0, 0]), field([1, 1, 1, 1]), "batchnorm")
    model = model_of("d = Conv <group = 4> (a, dw) h = Relu(d)", {"d": told}, dw=normal(4, 1, 1, 1))
    h = tensors_of(model)["h"]
    np.testing.assert_array_equal(h.before.up, h.before.std)


LOW, HIGH = field([-11.5, -5.5, 0.2, -60]), field([12.5, 6.5, 0.8, 100])
"""Extremes in four channels, all of mean 0.5 and deviation 1: twelve, six, hardly any and very many from the mean."""


@pytest.mark.parametrize(
    ("body", "tensor", "up", "down"),
    [
        ("h = Sigmoid(a)", "a", [2, 1, 0.3, 4], [2, 1, 0.3, 4]),
        ("h = Relu(a)", "h", [2, 1, 0.3, 4], [1, 1, 0.3, 1]),  # of what it cuts off, nothing is known
        ("h = Clip(a, , most)", "h", [1, 1, 0.3, 1], [2, 1, 0.3, 4]),
    ],
)
def test_measured_extremes_say_how_tails_fall_off(body: str, tensor: str, up: list[float], down: list[float]) -> None:
    """A spread is a sixth of their distance from the mean, but no less than 0.3 and no more than 4 deviations."""
    known = Moments(field([0.5] * 4), field([1] * 4), "calibration")
    model = model_of(body, {"a": known, "h": known}, most=1.0)
    high = np.minimum(HIGH, 1.0) if "Clip" in body else HIGH
    model = replace(model, ranges={"a": Range(LOW, HIGH), "h": Range(np.maximum(LOW, 0), high)})
    before = tensors_of(model)[tensor].before
    np.testing.assert_allclose(before.up, up)
    np.testing.assert_allclose(before.down, down)


@pytest.mark.parametrize(
    ("pool", "origin", "spread"),
    [
        ("GlobalAveragePool(r)", "generated", NOISE.doubt),
        ("GlobalAveragePool(r)", "calibration", 0.5),
        ("AveragePool <kernel_shape = [2, 2]> (r)", "generated", 0.5),
    ],
)
def test_what_made_up_pictures_are_in_the_mean_says_little_of_others(pool: str, origin: Any, spread: float) -> None:
    """Measured extremes lie six spreads off, here three standard deviations; one mean a picture is doubted instead."""
    model = model_of(f"r = Relu(a) h = {pool}", {"h": Moments(field([1.0] * 4), field([0.1] * 4), origin)})
    ranges = {"r": Range(np.zeros((1, 1, 1, 1)), field([9] * 4)), "h": Range(field([0.7] * 4), field([1.3] * 4))}
    np.testing.assert_allclose(tensors_of(replace(model, ranges=ranges))["h"].before.up, 0.1 * spread)


def test_constants_are_those_that_are_passed() -> None:
    """Twice the doubt, half the extent, tails that end at three spreads and are never light."""
    noise = NoiseModel(doubt=6.0, extent=3.0, tail=3.0, light=1.0)
    body = "a = Conv(x, w, b) c = Conv(x, w) d = Conv <group = 3> (x, dw) y = Concat <axis = 1> (a, c, d)"
    model = model_of(body, {"a": Moments(field([0.5] * 4), field([1] * 4), "calibration")}, dw=normal(3, 1, 1, 1))
    model = replace(model, ranges={"a": Range(LOW, HIGH)})
    found, c = {s.name: s for s in rounded_tensors(model, numbered(model), noise=noise)}, model.moments["c"]
    np.testing.assert_allclose(found["d"].before.up, 6 * found["d"].before.std)
    says(found["c"], c, floor=c.mean - 3 * c.std, cap=c.mean + 3 * c.std)
    np.testing.assert_allclose(found["a"].before.up, [4, 2, 1, 4])


def test_finer_fields_share_the_gain() -> None:
    """One number for all channels of the input becomes one for each; together they have the same gain."""
    model = model_of("h = Relu(a)")
    moments = {**model.moments, "x": Moments(field([0.5]), field([2.0]), "given")}
    model = replace(model, moments=moments)
    whole, parts = tensors_of(model)["x"], tensors_of(model, {"x": np.arange(3).reshape(1, 3, 1, 1)})["x"]
    assert parts.shape == (1, 3, 1, 1)
    np.testing.assert_array_equal(parts.before.std, [2, 2, 2])
    np.testing.assert_allclose(parts.scattered, np.full(3, whole.scattered[0] / 3))
    np.testing.assert_allclose(parts.steady, np.full(3, whole.steady[0] / 3))


def test_tensors_of_which_nothing_is_known_are_left_out() -> None:
    model, table = model_of("h = Relu(a)"), numbered(model_of("h = Relu(a)"))
    silent = Gains({n: g for n, g in table.scattered.items() if n != "h"}, table.steady)
    assert [s.name for s in rounded_tensors(model, silent)] == ["x", "y"]
    unknown = replace(model, moments={n: m for n, m in model.moments.items() if n != "y"})
    assert [s.name for s in rounded_tensors(unknown, table)] == ["x", "h"]


# Weights

LAYERS: dict[str, tuple[str, dict[str, Any]]] = {
    "Conv": ("y = Conv(x, w)", {"w": normal(4, 3, 3, 3)}),
    "padded": ("y = Conv <pads = [1, 2, 0, 1]> (x, w)", {"w": normal(4, 3, 3, 2)}),
    "strided": ("y = Conv <strides = [2, 3], pads = [1, 1, 1, 1]> (x, w)", {"w": normal(4, 3, 3, 3)}),
    "depthwise": ("y = Conv <group = 3, pads = [1, 1, 1, 1]> (x, w)", {"w": normal(6, 1, 3, 3)}),
    "ConvTranspose": ("y = ConvTranspose <strides = [2, 2]> (x, w)", {"w": normal(3, 5, 3, 3)}),
    "Gemm": ("f = Flatten(x) y = Gemm(f, w)", {"w": normal(192, 5)}),
}


def layer_of(body: str, **consts: Any) -> tuple[Model, RoundedLayer]:
    model = model_of(body, **consts)
    (rounded,) = rounded_layers(model, numbered(model))
    return model, rounded


@pytest.mark.parametrize("case", LAYERS)
def test_weight_energies_against_loops(case: str) -> None:
    """Σ over taps: the share c of positions where a tap meets the input, times Var[x], plus c·(1 − c)·E[x]²."""
    body, consts = LAYERS[case]
    model, rounded = layer_of(body, **consts)
    g, o, i, taps = rounded.layer.unpack(consts["w"]).shape
    variance, mean = (np.repeat(v, 64) if case == "Gemm" else v for v in (STD**2, X.mean.reshape(-1)))
    shares = met(model.graph, consts["w"].shape[2:])
    wanted = [
        [sum(s * variance[k * i + c] + s * (1 - s) * mean[k * i + c] ** 2 for s in shares) for c in range(i)]
        for k in range(g)
    ]
    np.testing.assert_allclose(rounded.energy, wanted)
    gain = numbered(model).steady["y"].reshape(-1)
    np.testing.assert_array_equal(rounded.gain, [[gain[k * o + r] for r in range(o)] for k in range(g)])
    assert rounded.taps == taps


def met(graph: Graph, kernel: tuple[int, ...]) -> list[float]:
    """For every tap the share of positions where it meets the input: counted position by position, axis by axis."""
    (node,) = [n for n in graph.nodes if "y" in n.outputs]
    shares = [1.0]
    for d, k in enumerate(kernel):
        n, m = (int(graph.shapes[name][2 + d] or 0) for name in ("x", "y"))
        stride, before = node.attrs.get("strides", [1, 1])[d], node.attrs.get("pads", [0] * 4)[d]
        reads = n if node.op == "ConvTranspose" else m
        bound = m if node.op == "ConvTranspose" else n
        own = [sum(0 <= p * stride + tap - before < bound for p in range(reads)) / m for tap in range(k)]
        shares = [first * second for first in shares for second in own]
    return shares


@pytest.mark.parametrize("case", LAYERS)
def test_wrong_weights_make_the_noise_that_energies_say(case: str) -> None:
    """In onnxruntime: how outputs vary if weights are nothing but error, plus or minus 0.1."""
    body, consts = LAYERS[case]
    _, rounded = layer_of(body, **consts)
    rng, n, found = np.random.default_rng(0), 32, []
    for _ in range(40):  # borders meet several errors at once: only on average over errors do they add up
        error = rng.choice([-0.1, 0.1], consts["w"].shape)
        x = (X.mean + X.std * rng.standard_normal((n, 3, 8, 8))).astype(np.float32)
        y = Session(network(body, inputs=f"float[{n},3,8,8] x", output="float[] y", w=error), threads=1).run(x)["y"]
        found.append(y.astype(np.float64).var((0, *range(2, y.ndim))))
    wanted = 0.01 * np.repeat(rounded.energy.sum(-1), rounded.gain.shape[1])
    np.testing.assert_allclose(np.mean(found, 0), wanted, rtol=0.3)
    assert np.mean(found) == pytest.approx(np.mean(wanted), rel=0.1)
