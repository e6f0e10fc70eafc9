"""Any scales of the free classes leave a network's outputs as they were, and the classes are those one expects."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

import equint
from equint.graph.channels import Channels, rescale, solve
from equint.ir.model import Array, Model, Moments, Range
from equint.onnx.reader import read
from equint.ops.layers import layers
from equint.passes.fold_batchnorm import FoldBatchnorm
from equint.passes.relu6 import Relu6
from handwritten import execute, network, normal
from nets import Net, networks, random_network, sample
from values import assert_close, values


def random_scales(channels: Channels, seed: int = 0) -> NDArray[np.float64]:
    """From a tenth to ten for every class, the pinned one included: rescale must not look at that."""
    return np.maximum(10 ** np.random.default_rng(seed).uniform(-1, 1, channels.size), channels.floor)


def assert_function_kept(model: Model, x: Array) -> Channels:
    """Rescale at random: outputs stay, and every tensor is what its view says."""
    channels = solve(model)
    scaled = rescale(model, channels, random_scales(channels))
    for found, wanted in zip(values(scaled, x), values(model, x), strict=True):
        assert_close(found, wanted)
    names = [n for n in scaled.views if model.graph.is_float(n)]
    if names:
        for name, found, wanted in zip(names, values(scaled, x, names), values(model, x, names), strict=True):
            view = scaled.views[name]
            assert_close(view.scale * (found + view.offset), wanted)
    return channels


@pytest.mark.slow
@settings(max_examples=50)
@given(networks())
def test_random_scales_keep_the_function(proto: ModelProto) -> None:
    assert_function_kept(Relu6("channel_clip")(FoldBatchnorm()(read(proto))), sample(proto))


BETWEEN = [  # what stands between a layer of four channels and the next, and how many of them are free
    ("h = Relu(a)", 4),
    ("h = LeakyRelu(a)", 4),
    ("h = PRelu(a, four)", 4),
    ("h = MaxPool <kernel_shape = [2, 2]> (a)", 4),
    ("h = AveragePool <kernel_shape = [2, 2], pads = [1, 1, 0, 0], count_include_pad = 1> (a)", 4),
    ("h = GlobalAveragePool(a)", 4),
    ("h = GlobalMaxPool(a)", 4),
    ("h = ReduceMean <axes = [2, 3]> (a)", 4),
    ("h = ReduceMax <axes = [-1]> (a)", 4),
    ("m = ReduceMean <axes = [1]> (a) h = Add(a, m)", 0),
    ("h = Mul(a, four)", 4),
    ("h = Div(a, four)", 4),
    ("h = Div(four, a)", 0),
    ("h = Add(four, a)", 4),
    ("h = Sub(a, four)", 4),
    ("h = Sub(one, a)", 4),
    ("h = Max(a, four)", 4),
    ("h = Min(a, one)", 4),
    ("h = Clip(a, zero)", 4),
    ("h = Clip(a, , one)", 0),
    ("h = Mul(a, a)", 0),
    ("s = Sigmoid(a) h = Mul(a, s)", 0),
    ("b = Conv(x, w1) s = Sigmoid(b) h = Mul(s, a)", 4),
    ("b = Conv(x, w1) h = Add(a, b)", 4),
    ("b = Conv(x, w1) h = Sum(a, b, four)", 4),
    ("b = Conv(x, w1) h = Max(a, b)", 4),
    ("b = Conv(x, w1) h = Mul(a, b)", 4),
    ("b = Conv(x, w1) s = Softplus(b) h = Div(a, s)", 4),
    ("g = ReduceMax <axes = [1]> (a) h = Div(a, g)", 0),
    ("b, c = Split <axis = 1> (a, ones) h = Concat <axis = 1> (c, b)", 4),
    ("b, c = Split <axis = 1> (a, ones) h = Add(b, c)", 2),
    ("h = Concat <axis = 2> (a, a)", 4),
    ("h = Concat <axis = 3> (a, x4)", 0),
    ("h = Slice(a, i1, i3, i1)", 2),
    ("h = Gather <axis = 1> (a, i3)", 1),
    ("b = Transpose <perm = [0, 2, 3, 1]> (a) h = Transpose <perm = [0, 3, 1, 2]> (b)", 4),
    ("b = Transpose <perm = [0, 1, 3, 2]> (a) h = Relu(b)", 4),
    ("b = Reshape(a, grouped) c = Transpose <perm = [0, 2, 1, 3, 4]> (b) h = Reshape(c, flat)", 4),
    ("b = Reshape(a, grouped) c = ReduceMax <axes = [2], keepdims = 0> (b) h = Relu(c)", 0),
    ("h = DepthToSpace <blocksize = 2> (a)", 1),
    ('h = DepthToSpace <blocksize = 2, mode = "CRD"> (a)', 1),
    ("h = Pad(a, pads)", 4),
    ("h = Pad(a, pads, one)", 0),
    ('h = Pad <mode = "reflect"> (a, pads)', 4),
    ("h = Pad(a, more)", 4),
    ("h = Resize(a, , doubled)", 4),
    ("h = LRN <size = 3> (a)", 0),
    ("h = Softmax <axis = 1> (a)", 0),
    ("h = HardSwish(a)", 0),
    ("h = InstanceNormalization(a, gain, bias)", 4),
    ("n = InstanceNormalization(a, gain, bias) h = Relu(n)", 4),
    ("n = InstanceNormalization(a, gain, bias) h = Add(a, n)", 0),
    ("h = LayerNormalization <axis = 1> (a, four)", 0),
    ("h = Abs(a)", 4),
    ("h = Erf(a)", 0),
]


@pytest.mark.slow
@pytest.mark.parametrize(("body", "free"), BETWEEN)
def test_every_operator_keeps_the_function(body: str, free: int) -> None:
    floats: dict[str, Any] = {
        "four": np.array([0.5, -1.0, 2.0, 0.25]).reshape(4, 1, 1), "one": 0.3, "zero": 0.0,
        "gain": [0.5, -1.0, 2.0, 0.25], "bias": [1.0, 2.0, 0.0, -1.0],
        "doubled": [1.0, 1.0, 2.0, 2.0], "x4": normal(2, 4, 8, 2), "w1": normal(4, 3, 1, 1), "b1": normal(4),
    }  # fmt: skip
    ints: dict[str, Any] = {
        "ones": [2, 2], "i1": [1], "i3": [3], "grouped": [0, 2, 2, 8, 8], "flat": [0, 4, 8, 8],
        "pads": [0, 0, 1, 2, 0, 0, 0, 1], "more": [0, 1, 0, 0, 0, 2, 0, 0],
    }  # fmt: skip
    start = f"a = Conv(x, w1, b1) {body}"
    every = {**{k: np.asarray(v, np.float32) for k, v in floats.items()}, **ints}
    draft = network(start, output="float[] h", inputs="float[2,3,8,8] x", **every)
    shape = values(read(draft), sample(draft))[0].shape
    if len(shape) == 4:
        end = "y = Conv(h, w2)"
        every["w2"] = normal(5, shape[1], 1, 1)
    elif len(shape) == 2:
        end, every["w2"] = "y = Gemm(h, w2)", normal(shape[1], 5)
    else:
        end, every["w2"] = "y = Conv(h, w2)", normal(5, shape[1], 1)
    proto = network(f"{start} {end}", output="float[] y", inputs="float[2,3,8,8] x", **every)
    channels = assert_function_kept(read(proto), sample(proto))
    assert sum(g.classes.size for g in channels.groups) == free


def classes(channels: Channels, name: str) -> list[int]:
    return list(channels.ids[name].reshape(-1).tolist())


def test_a_residual_sum_ties_its_branches() -> None:
    net = Net()
    stem = net.conv(net.input, 4)
    branch = net.conv(net.relu(stem), 4)
    total = net.add(stem, branch)
    model = read(net.build(net.conv(total, 3)))
    channels = solve(model)
    (group,) = channels.groups
    assert len(group.producers) == len(group.consumers) == 2
    assert classes(channels, stem) == classes(channels, branch) == classes(channels, total) == list(group.classes)
    assert set(group.tensors) == {stem, branch, total, net.nodes[1].output[0]}


def test_concat_stacks_and_split_cuts() -> None:
    net = Net()
    a, b = net.conv(net.input, 2), net.conv(net.input, 3)
    joined = net.concat(a, net.relu(b))
    left, right = net.split(joined, 4, 1)
    channels = solve(read(net.build(net.concat(net.conv(left, 2), net.conv(right, 2)))))
    assert classes(channels, joined) == classes(channels, a) + classes(channels, b)
    assert classes(channels, left) + classes(channels, right) == classes(channels, joined)
    assert len(set(classes(channels, joined))) == 5


def test_shuffle_permutes() -> None:
    net = Net()
    x = net.conv(net.input, 6)
    y = net.shuffle(x, 2)
    channels = solve(read(net.build(net.conv(y, 3))))
    a, b, c, d, e, f = classes(channels, x)
    assert classes(channels, y) == [a, d, b, e, c, f]


def test_flatten_repeats() -> None:
    net = Net(shape=(3, 2, 2))
    x = net.conv(net.input, 3)
    model = read(net.build(net.gemm(net.flatten(x), 5)))
    channels = solve(model)
    gemm = list(layers(model.graph))[-1]
    assert channels.of_input(model.graph, gemm).tolist() == np.repeat(classes(channels, x), 4).tolist()


def test_every_consumer_is_a_taker() -> None:
    net = Net()
    x = net.relu(net.conv(net.input, 4))
    parts = [net.conv(x, 2), net.conv(x, 3)]
    channels = solve(read(net.build(net.concat(*parts))))
    (group,) = channels.groups
    assert len(group.producers) == 1
    assert len(group.consumers) == 2


@pytest.mark.parametrize("product", ["Mul(g, x)", "Mul(x, g)"])
@pytest.mark.parametrize(
    "act", ["r = Relu(e)", "r = Clip(e, zero, six)", "p = Add(e, three) c = Relu(p) r = Mul(c, four)"]
)
def test_what_is_gated_passes_its_scale_wherever_it_stands(product: str, act: str) -> None:
    """The gate's scale is free as far as it goes, but stops at the product, whichever of the two is named first."""
    body = f"""a = Conv(input, w0) x = Relu(a) m = GlobalAveragePool(x) e = Conv(m, w1) {act} g = Relu(r)
               h = {product} y = Conv(h, w2)"""
    consts: dict[str, Any] = {
        "w0": normal(4, 3, 3, 3),
        "w1": normal(4, 4, 1, 1, seed=1),
        "w2": normal(5, 4, 1, 1, seed=2),
    }
    consts |= {"zero": np.float32(0), "six": np.float32(6), "three": np.float32(3), "four": normal(1, 4, 1, 1, seed=3)}
    model = read(network(body, inputs="float[N,3,8,8] input", **consts))
    channels = assert_function_kept(model, normal(2, 3, 8, 8, seed=4))
    assert set(classes(channels, "g")) == {0}
    assert classes(channels, "h") == classes(channels, "x")
    assert len(set(classes(channels, "x")) - {0}) == 4


def test_squeeze_and_excite_pins_the_gate_alone() -> None:
    net = Net()
    x = net.conv(net.input, 4)
    y = net.gate(x)
    channels = solve(read(net.build(net.conv(y, 3))))
    gate = net.nodes[-2].input[1]
    assert classes(channels, x) == classes(channels, y)
    assert 0 not in classes(channels, x)
    assert set(classes(channels, gate)) == {0}


def attention(spread: Array) -> ModelProto:
    """Two heads of three channels, any number of rows of five tokens; channels of V are `spread` (6,) times larger."""
    width = len(spread)
    into = normal(width, 3 * width, seed=1) / np.sqrt(width)
    into[:, 2 * width :] *= spread
    return network(
        """qkv = MatMul(x, into) parts = Reshape(qkv, heads) each = Transpose <perm = [2, 0, 3, 1, 4]> (parts)
           q1, k1, v1 = Split <axis = 0> (each, ones)
           q = Squeeze(q1, first) k = Squeeze(k1, first) v = Squeeze(v1, first)
           kt = Transpose <perm = [0, 1, 3, 2]> (k) s = MatMul(q, kt) p = Softmax <axis = -1> (s) mixed = MatMul(p, v)
           back = Transpose <perm = [0, 2, 1, 3]> (mixed) flat = Reshape(back, tokens) y = MatMul(flat, out)""",
        inputs=f"float[N,5,{width}] x",
        output=f"float[N,5,{width}] y",
        into=into,
        out=(normal(width, width, seed=2).T / spread).T,
        heads=[-1, 5, 3, 2, width // 2],
        tokens=[-1, 5, width],
        ones=[1, 1, 1],
        first=[0],
    )


def test_columns_of_a_product_of_activations_pass_where_its_first_factor_is_pinned() -> None:
    model = read(attention(np.ones(6)))
    channels = assert_function_kept(model, normal(4, 5, 6, seed=4))
    (group,) = channels.groups
    assert (group.classes.size, set(classes(channels, "p"))) == (6, {0})
    assert set(classes(channels, "flat")) == set(classes(channels, "v")) == set(group.classes.tolist())


def test_channels_of_values_are_equalized() -> None:
    """Spread channels of V, of which weights of one scale hold few: less is lost than where an output pins them."""
    x, free = normal(64, 5, 6, seed=5), attention(np.array([1.0, 30.0, 0.02, 4.0, 100.0, 0.3]))
    pinned = attention(np.array([1.0, 30.0, 0.02, 4.0, 100.0, 0.3]))
    pinned.graph.output.append(helper.make_tensor_value_info("v", TensorProto.FLOAT, ["N", 2, 5, 3]))
    wanted = execute(free, x)[0]
    for bits, share in ((16, 0.05), (8, 1.0)):  # of activations, whose rounding hides that of weights
        options: dict[str, Any] = {"target": "per-tensor", "data": x[:32], "activation_bits": bits}
        found = [execute(equint.quantize(p, **options).proto, x)[0] for p in (free, pinned)]
        free_noise, pinned_noise = (np.square(y - wanted).mean() for y in found)
        assert free_noise < share * pinned_noise


def test_an_unknown_operator_pins_and_is_named() -> None:
    body = "a = Conv(x, w) b = custom.Swirl (a) y = Conv(b, v)"
    proto = network(body, w=normal(4, 3, 1, 1), v=normal(2, 4, 1, 1))
    channels = solve(read(proto))
    assert channels.groups == ()
    assert "Swirl" in channels.pinned["a"]


def test_shared_weights_are_separated() -> None:
    body = "a = Conv(x, w, b) r = Relu(a) c = Conv(r, w, b) y = Conv(c, w)"
    proto = network(body, w=normal(3, 3, 1, 1), b=normal(3))
    model = read(proto)
    assert_function_kept(model, sample(proto))
    channels = solve(model)
    graph = rescale(model, channels, random_scales(channels)).graph
    assert len({layer.weight for layer in layers(graph)}) == 3
    np.testing.assert_array_equal(model.graph.consts["w"], normal(3, 3, 1, 1))


def clipped(mean: list[float], std: list[float]) -> Model:
    """Two convolutions and a shared bound of 6 between them; what reaches it is known."""
    net = Net()
    x = net.conv(net.input, len(mean), 1)
    model = read(net.build(net.conv(net.relu6(x), 3)))
    shaped = [np.array(v).reshape(1, -1, 1, 1) for v in (mean, std)]
    return replace(model, moments={x: Moments(shaped[0], shaped[1], "batchnorm")})


def test_a_shared_bound_pins_the_channels_that_reach_it() -> None:
    model = clipped([0.0, 1.0, 5.0], [0.1, 0.5, 0.5])
    channels = solve(model, clip_reach=6.0)
    first, second, third = classes(channels, model.graph.nodes[0].outputs[0])
    assert third == 0 < first < second
    np.testing.assert_allclose(channels.floor[[first, second]], [0.6 / 6, (1 + 3) / 6])
    assert "1 of 3 channels" in next(iter(channels.pinned.values()))


def test_a_shared_bound_pins_all_by_default() -> None:
    model = clipped([0.0, 1.0, 5.0], [0.1, 0.5, 0.5])
    assert solve(model).groups == ()


def test_a_shared_bound_pins_all_where_nothing_is_known() -> None:
    model = replace(clipped([0.0], [0.1]), moments={})
    assert solve(model, clip_reach=6.0).groups == ()


def test_descriptions_are_rescaled_too() -> None:
    model = clipped([0.0, 1.0], [0.1, 0.5])
    name = model.graph.nodes[0].outputs[0]
    model = replace(model, ranges={name: Range(np.array(-1.0), np.array([[[[2.0]], [[4.0]]]]).reshape(1, 2, 1, 1))})
    channels = solve(model, clip_reach=6.0)
    scales = np.ones(channels.size)
    scales[classes(channels, name)] = [2.0, 4.0]
    scaled = rescale(model, channels, scales)
    assert scaled.moments[name].mean.reshape(-1).tolist() == [0.0, 0.25]
    assert scaled.moments[name].std.reshape(-1).tolist() == [0.05, 0.125]
    assert scaled.ranges[name].lo.reshape(-1).tolist() == [-0.5, -0.25]
    assert scaled.ranges[name].hi.reshape(-1).tolist() == [1.0, 1.0]


@pytest.mark.slow
def test_most_random_networks_have_free_channels() -> None:
    """So that the property above says something."""
    found = [solve(Relu6("channel_clip")(FoldBatchnorm()(read(random_network(seed))))).groups for seed in range(40)]
    assert sum(map(bool, found)) >= 30


def test_blocks_of_a_tensor_whose_scales_lie_along_positions_are_a_border() -> None:
    """A matrix product's outputs lie along the last axis, which DepthToSpace spreads channels over."""
    body = "a = Conv(x, w) h = MatMul(a, k) y = DepthToSpace <blocksize = 2> (h)"
    proto = network(body, inputs="float[2,3,8,6] x", w=normal(4, 3, 1, 1), k=normal(6, 3))
    model = read(proto)
    assert solve(model).ids["h"].max() == 0
    result = equint.quantize(proto, input=(-3, 3), effort="fast")
    (clean,), (noisy,) = execute(proto, sample(proto)), execute(result.proto, sample(proto))
    assert clean.shape == noisy.shape
