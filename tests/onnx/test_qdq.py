"""The exported model: valid, runnable, exactly what its grids say, and integer after onnxruntime's optimizer."""

from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
import onnxruntime  # type: ignore[import-untyped,unused-ignore]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

import equint
from equint.demo import model_path
from equint.errors import UnreadableModel
from equint.ir.model import QSpec
from equint.onnx.qdq import views_of
from equint.runtime.session import Session
from handwritten import Array, execute, network, normal, operators
from nets import Net, networks, random_network, run, sample

TARGETS = [("cwq-bc", "per-channel"), ("dfq", "per-tensor"), ("dfq", "per-tensor-clip")]
WAYS = [("lwq", "per-tensor"), ("cwq", "per-channel"), *TARGETS, ("dfq", "per-channel")]
BITS = (4, 8, 16)


def initializers(proto: ModelProto) -> dict[str, NDArray[np.generic]]:
    return {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}


def producers(proto: ModelProto) -> dict[str, onnx.NodeProto]:
    return {o: node for node in proto.graph.node for o in node.output}


def opset(proto: ModelProto) -> int:
    return next(int(o.version) for o in proto.opset_import if not o.domain)


def integers(proto: ModelProto, x: Array) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """Every integer activation that is dequantized, by the name of what it becomes."""
    consts = initializers(proto)
    reads = {n.output[0]: n.input[0] for n in proto.graph.node if n.op_type == "DequantizeLinear"}
    taps = {out: q for out, q in reads.items() if q not in consts}
    values = Session(proto, taps=list(taps.values())).run(x)
    return ((out, values[q]) for out, q in taps.items())


def sqnr(proto: ModelProto, quantized: ModelProto) -> float:
    x = sample(proto, 8)
    signal, noisy = run(proto, x)[0].astype(np.float64), run(quantized, x)[0]
    return float(10 * np.log10(max(np.square(signal).sum(), 1e-30) / max(np.square(noisy - signal).sum(), 1e-30)))


def near(signal: Array, noisy: Array) -> bool:
    """At least 15 dB of signal above the noise."""
    return bool(np.square(noisy - signal).sum() < 10**-1.5 * np.square(signal).sum())


# On random networks


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(networks(), st.sampled_from(WAYS), st.sampled_from(BITS), st.sampled_from([*BITS, "float"]))
def test_valid_and_runs(proto: ModelProto, way: tuple[str, str], weight: int, activation: int) -> None:
    result = equint.quantize(proto, *way, weight_bits=weight, activation_bits=activation)
    made = result.proto
    onnx.checker.check_model(made, full_check=True)
    for ours, theirs in ((made.graph.input, proto.graph.input), (made.graph.output, proto.graph.output)):
        assert [v.name for v in ours] == [v.name for v in theirs]
    x = sample(proto)
    (wanted,), (found,) = run(proto, x), run(made, x)
    assert found.shape == wanted.shape
    assert np.isfinite(found).all()
    wide = weight == 16 or activation == 16
    assert (opset(made) == 21) == wide
    kinds = {a.dtype for a in initializers(made).values()}
    assert (np.dtype(np.int16) in kinds) == (weight == 16)
    assert (np.dtype(np.uint16) in kinds) == (activation == 16)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(networks(), st.sampled_from(WAYS), st.sampled_from([2, 3, 4, 5, 7]), st.sampled_from([2, 3, 4, 6]))
def test_narrow_grids_hold(proto: ModelProto, way: tuple[str, str], weight: int, activation: int) -> None:
    made = equint.quantize(proto, *way, weight_bits=weight, activation_bits=activation).proto
    consts = initializers(made)
    for name, found in integers(made, 10 * sample(proto)):
        assert found.dtype == np.uint8, name
        assert found.max() < 1 << activation, name
    weights = [a for n, a in consts.items() if n.endswith("_quantized") and a.dtype == np.int8]
    assert weights
    for w in weights:
        assert -(1 << weight - 1) <= w.min() <= w.max() < 1 << weight - 1


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS, ids="/".join)
def test_sane_at_8_bits(way: tuple[str, str]) -> None:
    models = [random_network(seed, calibrated=True) for seed in range(15)]
    assert median(sqnr(m, equint.quantize(m, *way).proto) for m in models) > 10


def test_more_bits_less_noise() -> None:
    model = random_network(2, calibrated=True, count=(2, 3))
    found = [sqnr(model, equint.quantize(model, "cwq", weight_bits=b, activation_bits=b).proto) for b in (4, 6, 8, 12)]
    assert found == sorted(found)


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(networks(blocks=("two_branches", "split_merge", "fork", "conv_bn_act", "pool"), count=(2, 4)))
def test_concat_inputs_share_a_grid(proto: ModelProto) -> None:
    made = equint.quantize(proto, "cwq").proto
    consts, made_by = initializers(made), producers(made)
    for node in made.graph.node:
        if node.op_type != "Concat":
            continue
        (after,) = [n for n in made.graph.node if node.output[0] in n.input]
        behind = [made_by[i] for i in node.input]
        assert {n.op_type for n in behind} == {"DequantizeLinear"}
        assert after.op_type == "QuantizeLinear"
        assert len({tuple(consts[i].item() for i in n.input[1:]) for n in [*behind, after]}) == 1


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(networks(), st.sampled_from(WAYS))
def test_weights_and_biases_are_stored_as_integers(proto: ModelProto, way: tuple[str, str]) -> None:
    made = equint.quantize(proto, *way).proto
    consts, made_by = initializers(made), producers(made)
    for node in made.graph.node:
        if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            continue
        for position, dtype in enumerate((np.uint8, np.int8, np.int32)[: len(node.input)]):
            source = made_by[node.input[position]]
            assert source.op_type == "DequantizeLinear"
            if position:
                assert consts[source.input[0]].dtype == dtype


def test_the_same_input_gives_the_same_file() -> None:
    proto = random_network(5)
    once, again = (equint.quantize(proto, "dfq").proto.SerializeToString(deterministic=True) for _ in range(2))
    assert once == again


# Exactly what the grids say


def convolve(x: NDArray[np.int64], w: NDArray[np.int64], stride: int = 1) -> NDArray[np.int64]:
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], (2, 3))[:, :, ::stride, ::stride]
    found: NDArray[np.int64] = np.einsum("nchwij,ocij->nohw", windows, w)
    return found


def per_tensor(w: Array, bits: int) -> tuple[float, NDArray[np.int64]]:
    """Asymmetric signed grid: scale and (integer − zero point)."""
    lo, hi = min(0.0, float(w.min())), max(0.0, float(w.max()))
    scale = np.float32((hi - lo) / (2**bits - 1))
    zero = round(-(2 ** (bits - 1)) - lo / ((hi - lo) / (2**bits - 1)))
    q = np.clip(np.rint(w / scale) + zero, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return float(scale), (q - zero).astype(np.int64)


def per_channel(w: Array, bits: int) -> tuple[Array, NDArray[np.int64]]:
    lo, hi = w.min((1, 2, 3)), w.max((1, 2, 3))
    scale = np.maximum(-lo.astype(np.float64) / 2 ** (bits - 1), hi.astype(np.float64) / (2 ** (bits - 1) - 1))
    scale32 = scale.astype(np.float32)
    q = np.clip(np.rint(w / scale32.reshape(-1, 1, 1, 1)), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return scale32, q.astype(np.int64)


def column(scale: Array | float) -> NDArray[np.float64]:
    """One number for each channel of (C, H, W)."""
    return np.reshape(np.asarray(scale, np.float64), (-1, 1, 1))


@pytest.mark.parametrize(("recipe", "bits"), [("lwq", 8), ("lwq", 4), ("cwq", 8), ("cwq", 5)])
def test_against_integer_arithmetic(recipe: str, bits: int) -> None:
    """Two layers computed with integers alone in the test equal the exported model, integer by integer."""
    w1, b1, w2 = normal(6, 3, 3, 3), normal(6, scale=0.2), normal(4, 6, 3, 3, seed=2)
    body = "a = Conv(x, w1, b1) h = Relu(a) y = Conv <strides = [2, 2]> (h, w2)"
    result = equint.quantize(
        network(body, w1=w1, b1=b1, w2=w2), recipe, weight_bits=bits, activation_bits=bits, input=(-1, 2)
    )
    x = np.random.default_rng(0).uniform(-1.2, 2.2, (2, 3, 8, 8)).astype(np.float32)
    top, grids = 2**bits - 1, result.model.qparams

    z_x = round(top / 3)  # the range is widened until -1 is an integer of its grid, and 2
    s_x = max(1 / z_x, 2 / (top - z_x))
    assert float(grids["x"].scale) == pytest.approx(s_x)
    q_x = np.clip(np.rint(x / np.float32(s_x)) + z_x, 0, top)
    of_weight: Callable[[Array, int], tuple[Array | float, NDArray[np.int64]]]
    of_weight = per_tensor if recipe == "lwq" else per_channel
    s_1, q_1 = of_weight(w1, bits)
    s_2, q_2 = of_weight(w2, bits)
    s_h, z_h, s_y, z_y = (f(grids[t]) for t in "hy" for f in (lambda g: float(g.scale), lambda g: int(g.zero_point)))
    bias = np.rint(b1.astype(np.float64) / (s_x * np.asarray(s_1, np.float64)))

    sums = convolve((q_x - z_x).astype(np.int64), q_1) + bias.astype(np.int64).reshape(-1, 1, 1)
    q_h = np.clip(np.rint(sums * s_x * column(s_1) / s_h) + z_h, z_h, top)
    sums = convolve((q_h - z_h).astype(np.int64), q_2, 2)
    q_y = np.clip(np.rint(sums * s_h * column(s_2) / s_y) + z_y, 0, top)

    found = dict(integers(result.proto, x))
    np.testing.assert_array_equal(found["x_dequantized"], q_x)
    np.testing.assert_array_equal(found["h"], q_h)
    np.testing.assert_array_equal(found["y"], q_y)
    np.testing.assert_allclose(execute(result.proto, x)[0], (q_y - z_y) * s_y, rtol=1e-6)


def test_weights_only_is_float_arithmetic_with_rounded_weights() -> None:
    w, b = normal(4, 3, 3, 3), normal(4)
    made = equint.quantize(network("y = Conv(x, w, b)", w=w, b=b), "cwq", activation_bits="float").proto
    assert operators(made.graph.node) == ["DequantizeLinear", "Conv"]
    scale, q = per_channel(w, 8)
    rounded = network("y = Conv(x, w, b)", w=(q * scale.reshape(-1, 1, 1, 1)).astype(np.float32), b=b)
    x = normal(2, 3, 8, 8, scale=1)
    np.testing.assert_allclose(execute(made, x)[0], execute(rounded, x)[0], rtol=1e-5, atol=1e-6)


# Activations


W, V = normal(6, 3, 3, 3), normal(4, 6, 3, 3)


def test_relu_is_done_by_the_quantizer() -> None:
    proto = network("a = Conv(x, w) h = Relu(a) y = Conv(h, v)", w=W, v=V)
    made = equint.quantize(proto, "cwq", input=(0, 1)).proto
    assert not {"Relu", "Clip", "Max", "Min"} & set(operators(made.graph.node))
    assert producers(made)["h"].op_type == "DequantizeLinear"


def test_bound_inside_the_grid_becomes_an_integer_clamp() -> None:
    """A clip at 0.05 below what else shares its grid: the concat's other branch reaches further."""
    body = "a = Conv(x, w) h = Clip(a, lo, hi) c = Concat <axis = 1> (h, x) y = Conv(c, v)"
    made = equint.quantize(
        network(body, w=normal(6, 3, 1, 1), v=normal(4, 9, 3, 3), lo=0.0, hi=0.05), "cwq", input=(-1, 1)
    ).proto
    ops = operators(made.graph.node)
    assert "Clip" not in ops
    assert {"Max", "Min"} <= set(ops)
    h = Session(made, taps=["h"]).run(normal(2, 3, 8, 8, scale=1))["h"]
    step = float(initializers(made)["h_scale"])
    assert h.min() == 0
    assert 0.05 - step <= h.max() <= 0.05 + step


def test_clamp_per_channel() -> None:
    net = Net(seed=3, shape=(3, 8, 8), calibrated=True)
    h = net.relu6(net.batchnorm(net.conv(net.input, 8, scale=10 ** net.rng.uniform(-1, 1, 8))))
    proto = net.build(net.conv(h, 4))
    made = equint.quantize(proto, "dfq", "per-tensor-clip").proto
    consts, made_by = initializers(made), producers(made)
    (clamp,) = [n for n in made.graph.node if n.op_type == "Min"]
    bound = consts[clamp.input[1]]
    assert bound.dtype == np.uint8
    assert bound.shape == (1, 8, 1, 1)
    assert np.unique(bound).size > 1
    assert made_by[clamp.input[0]].op_type == "QuantizeLinear"
    (after,) = [n for n in made.graph.node if clamp.output[0] in n.input]
    assert after.op_type == "DequantizeLinear"
    assert sqnr(proto, made) > 25


def test_16_bits_keep_bounds_that_the_grid_does_not() -> None:
    """onnxruntime's clamps know no 16-bit integers: the activation stays float where the grid reaches further."""
    body = "a = Conv(x, w) h = Clip(a, lo, hi) c = Concat <axis = 1> (h, x) y = Conv(c, v)"
    proto = network(body, w=normal(6, 3, 1, 1), v=normal(4, 9, 3, 3), lo=0.0, hi=0.05)
    made = equint.quantize(proto, "cwq", activation_bits=16, weight_bits=16, input=(-4, 4)).proto
    x = np.clip(normal(2, 3, 8, 8, scale=1), -4, 4)
    np.testing.assert_allclose(execute(made, x)[0], execute(proto, x)[0], atol=1e-3)


def test_leaky_relu_keeps_its_negative_side() -> None:
    proto = network("a = Conv(x, w) h = LeakyRelu <alpha = 0.1> (a) y = Conv(h, v)", w=W, v=V)
    made = equint.quantize(proto, "cwq", input=(-4, 4)).proto
    assert operators(made.graph.node).count("LeakyRelu") == 1
    x = np.clip(normal(2, 3, 8, 8, scale=1), -4, 4)
    signal, noisy = execute(proto, x)[0], execute(made, x)[0]
    assert near(signal, noisy)


@pytest.mark.parametrize(
    "activation", ["LeakyRelu <alpha = 0.1> (a)", "PRelu (a, p)", "HardSwish (a)", "Mul (a, g)", "Clip (b, , p)"]
)
def test_nothing_is_rounded_in_front_of_what_hardware_fuses(activation: str) -> None:
    """The float network with rounded input and weights, as onnxruntime computes it, rounded once behind."""
    gate = {"Mul": "g = Sigmoid(a)", "Clip": "b = LeakyRelu <alpha = 0.5> (a)"}.get(activation.split()[0], "")
    head = f"a = Conv(x, w) \n {gate} \n h = {activation} \n "
    consts: dict[str, Any] = {
        "w": W,
        "p": np.float32(0.4) if "Clip" in activation else normal(6, 1, 1, seed=3, scale=0.5),
    }
    consts = {k: v for k, v in consts.items() if f" {k})" in head}
    proto = network(head + "y = Conv(h, v)", v=V, **consts)
    made = equint.quantize(proto, "cwq", input=(-4, 4), fused_activations=True).proto
    kinds = operators(made.graph.node)
    assert kinds.count("QuantizeLinear") == 3  # of x, h and y
    assert kinds.count("Mul") + kinds.count("LeakyRelu") + kinds.count("PRelu") + kinds.count("HardSwish") == 1
    x = np.clip(normal(2, 3, 8, 8, scale=1), -4, 4)
    tapped = ModelProto.FromString(made.SerializeToString())
    for name in ("x_dequantized", "w_dequantized", "h"):
        tapped.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    _, rounded_x, rounded_w, found = execute(tapped, x)
    wanted = execute(network(head, output="float[N,A,B,C] h", **{**consts, "w": rounded_w}), rounded_x)[0]
    table = {t.name: onnx.numpy_helper.to_array(t) for t in made.graph.initializer}
    scale, zero = table["h_scale"], table["h_zero_point"].astype(int)
    q = np.clip(np.rint(wanted / scale) + zero, 0, 255)
    apart = np.abs((q - zero) * scale - found) / scale
    assert apart.max() < 1.01
    assert np.mean(apart > 0.5) < 0.01  # ties that another order of summing turns


def test_intermediate_outputs_keep_their_names() -> None:
    proto = network(
        "a = Conv(x, w) h = Relu(a) y = Conv(h, v)",
        w=W,
        v=V,
        output="float[N,A,B,C] a, float[N,A,B,C] h, float[N,D,E,F] y",
    )
    made = equint.quantize(proto, "cwq", input=(-4, 4)).proto
    assert [o.name for o in made.graph.output] == ["a", "h", "y"]
    x = np.clip(normal(2, 3, 8, 8, scale=1), -4, 4)
    for signal, noisy in zip(execute(proto, x), execute(made, x), strict=True):
        assert near(signal, noisy)


def test_two_outputs_of_one_node() -> None:
    body = "a = Conv(x, w) p, q = Split <axis = 1> (a, sizes) r = Conv(p, v) s = Conv(q, v) y = Add(r, s)"
    proto = network(body, w=W, v=normal(4, 3, 3, 3), sizes=np.asarray([3, 3]))
    made = equint.quantize(proto, "cwq", input=(-4, 4)).proto
    onnx.checker.check_model(made, full_check=True)
    x = np.clip(normal(2, 3, 8, 8, scale=1), -4, 4)
    signal, noisy = execute(proto, x)[0], execute(made, x)[0]
    assert near(signal, noisy)


def test_foreign_operators_stay() -> None:
    made = equint.quantize(
        network("a = Conv(x, w) b = acme.Blur (a) y = Conv(b, v)", w=W, v=V), "cwq", input=(0, 1)
    ).proto
    (foreign,) = [n for n in made.graph.node if n.domain]
    assert (foreign.domain, foreign.op_type) == ("acme", "Blur")


def test_subgraphs_read_what_they_read_before() -> None:
    body = """a = Conv(x, w) h = Relu(a)
        y = If (flag) < then_branch = yes () => (float[N,A,B,C] t) { t = Neg(h) },
                        else_branch = no () => (float[N,A,B,C] e) { e = Abs(h) } >"""
    proto = network(body, inputs="float[N,3,8,8] x, bool flag", w=W)
    made = equint.quantize(proto, "cwq", input=(-4, 4)).proto
    x = np.clip(normal(2, 3, 8, 8, scale=1), -4, 4)
    for flag in (True, False):
        feeds = x, np.asarray(flag)
        signal, noisy = (execute(p, *feeds)[0] for p in (proto, made))
        assert near(signal, noisy)


# Metadata


def test_views_travel_in_the_metadata() -> None:
    net = Net(seed=1, calibrated=True)
    h = net.relu(net.batchnorm(net.conv(net.input, 8, scale=10 ** net.rng.uniform(-1, 1, 8))))
    proto = net.build(net.conv(h, 4))
    result = equint.quantize(proto, "dfq", "per-tensor")
    assert result.model.views
    found = views_of(ModelProto.FromString(result.proto.SerializeToString()))
    assert found.keys() == result.model.views.keys()
    for name, view in result.model.views.items():
        np.testing.assert_allclose(found[name].scale, view.scale, rtol=1e-6)
        np.testing.assert_allclose(found[name].offset, view.offset, rtol=1e-6)
    assert views_of(proto) == {}


NONE = (
    '{"low": 0, "high": 1}',
    '{"low": NaN, "high": 1, "mean": 0, "std": 1}',
    '{"low": 2, "high": 1, "mean": 0, "std": 1}',
)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("inputs", value) for value in ("{", "[]", '{"input": 1}', *(f'{{"input": {told}}}' for told in NONE))),
        *(("views", value) for value in ("", "[]", '{"arrays": [], "views": {"pool": [[0, [1]], [0, [1]]]}}')),
        ("views", '{"arrays": ["AA"], "views": {}}'),
    ],
)
def test_metadata_that_equint_did_not_write_are_refused(tmp_path: Path, key: str, value: str) -> None:
    proto = equint.quantize(model_path(), input=(0, 1), effort="fast").proto
    next(p for p in proto.metadata_props if p.key == f"equint.{key}").value = value
    onnx.save(proto, tmp_path / "q.onnx")
    with pytest.raises(UnreadableModel, match=rf"q\.onnx: its metadata equint\.{key} are not as equint writes them"):
        equint.compare(model_path(), tmp_path / "q.onnx")


# After onnxruntime's optimizer


def mobilenet() -> ModelProto:
    net = Net(seed=1, shape=(3, 16, 16), calibrated=True)

    def block(x: str, channels: int, kernel: int = 1, groups: int = 1, stride: int = 1) -> str:
        y = net.conv(x, channels, kernel, groups=groups, stride=stride, bias=False)
        return net.batchnorm(y)

    x = net.relu6(block(net.input, 8, 3, stride=2))
    x = net.relu6(block(x, 8, 3, groups=8))
    x = block(x, 12)
    y = net.relu6(block(x, 24))
    y = net.relu6(block(y, 24, 3, groups=24))
    x = net.add(x, block(y, 12))
    x = net.relu6(block(x, 32))
    return net.build(net.gemm(net.flatten(net.globalpool(x)), 10))


def resnet() -> ModelProto:
    net = Net(seed=2, shape=(3, 16, 16), calibrated=True)
    x = net.relu(net.batchnorm(net.conv(net.input, 8, bias=False)))
    x = net.maxpool(x, 3, 2, 1)
    y = net.relu(net.batchnorm(net.conv(x, 8, bias=False)))
    x = net.relu(net.add(net.batchnorm(net.conv(y, 8, bias=False)), x))
    y = net.relu(net.batchnorm(net.conv(x, 16, stride=2, bias=False)))
    y = net.batchnorm(net.conv(y, 16, bias=False))
    x = net.relu(net.add(y, net.batchnorm(net.conv(x, 16, 1, stride=2, bias=False))))
    return net.build(net.matmul(net.reducemean(x), 10))


def yolo() -> ModelProto:
    net = Net(seed=3, shape=(3, 16, 16), calibrated=True)
    fine = net.leaky(net.batchnorm(net.conv(net.input, 8, stride=2, bias=False)))
    coarse = net.leaky(net.batchnorm(net.conv(net.maxpool(fine), 16, bias=False)))
    up = net.upsample(net.leaky(net.batchnorm(net.conv(coarse, 8, 1, bias=False))))
    x = net.concat(up, fine)
    x = net.leaky(net.batchnorm(net.conv(x, 16, groups=16, bias=False)))
    return net.build(net.conv(x, 18, 1))


FLOATS = {"Conv", "Gemm", "MatMul", "FusedConv", "FusedGemm", "FusedMatMul"}


def deployed(proto: ModelProto, folder: Path) -> list[str]:
    """The operators that onnxruntime makes of a model before it chooses layouts."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])
    return operators(onnx.load(folder / "optimized.onnx").graph.node)


@pytest.mark.slow
@pytest.mark.parametrize(
    "make", [mobilenet, resnet, yolo, lambda: onnx.load(model_path())], ids=["mobilenet", "resnet", "yolo", "demo"]
)
@pytest.mark.parametrize("way", TARGETS, ids="/".join)
def test_nothing_is_computed_in_float(make: Callable[[], ModelProto], way: tuple[str, str], tmp_path: Path) -> None:
    proto = make()
    ops = deployed(equint.quantize(proto, *way).proto, tmp_path)
    layers = sum(n.op_type in FLOATS for n in proto.graph.node)
    assert not FLOATS & set(ops)
    assert sum(op in ("QLinearConv", "QGemm", "QLinearMatMul", "MatMulIntegerToFloat") for op in ops) == layers


@pytest.mark.slow
@pytest.mark.parametrize("make", [mobilenet, resnet, yolo])
@pytest.mark.parametrize("target", ["per-channel", "per-tensor", "per-tensor-clip"])
def test_accuracy_of_common_shapes(make: Callable[[], ModelProto], target: str) -> None:
    proto = make()
    assert sqnr(proto, equint.quantize(proto, "dfq", target).proto) > 18


def test_equalization_serves_activations_too() -> None:
    """Channels of very different size behind LeakyReLU share one grid: a scale per weight channel is no help."""
    proto = yolo()
    plain, equalized = (sqnr(proto, equint.quantize(proto, r, "per-channel").proto) for r in ("cwq-bc", "dfq"))
    assert equalized > plain + 10


def test_output_types() -> None:
    made = equint.quantize(mobilenet(), "cwq").proto
    assert made.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
    assert helper.printable_value_info(made.graph.input[0]) == helper.printable_value_info(mobilenet().graph.input[0])


# What strangers' networks brought up


def both_ways(proto: ModelProto, x: Array, **options: object) -> tuple[Array, Array, Array]:
    """The float output, the quantized network's as simulated, and as deployed on integer kernels."""
    quantized = equint.quantize(proto, **options).proto  # type: ignore[arg-type]
    simulated, deployed = (next(iter(Session(quantized, optimized=way).run(x).values())) for way in (False, True))
    return execute(proto, x)[0], simulated, deployed


@pytest.mark.parametrize("bias", [None, normal(8, 1), normal(1, 1)], ids=["none", "column", "scalar"])
def test_a_weight_that_comes_first_keeps_its_column_of_biases(bias: Array | None) -> None:
    """Square, so that a bias added along the wrong axis would fit."""
    body = "y = MatMul(w, x)" if bias is None else "p = MatMul(w, x) y = Add(p, b)"
    consts: dict[str, Any] = {"w": normal(8, 8)} | ({} if bias is None else {"b": bias})
    proto = network(body, inputs="float[N,8,8] x", output="float[N,8,8] y", **consts)
    x = np.clip(normal(64, 8, 8, scale=0.4), -1, 1)
    for found in both_ways(proto, x, input=(-1, 1))[1:]:
        assert near(execute(proto, x)[0], found)


@pytest.mark.parametrize("weight", [1e-6, 1e-3])
def test_a_large_bias_beside_small_weights_does_not_overflow_the_accumulator(weight: float) -> None:
    """A bias at the end of 32 bits would wrap as soon as a product is added: only integer kernels show it."""
    consts: dict[str, Any] = {
        "w": normal(8, 3, 3, 3) * np.float32(weight),
        "b": np.linspace(-2, 2, 8).astype(np.float32),
    }
    x = np.clip(normal(4, 3, 8, 8, scale=0.4), -1, 1)
    for target in ("per-channel", "per-tensor"):
        clean, simulated, deployed = both_ways(network("h = Conv(x, w, b) y = Relu(h)", **consts), x, target=target)
        assert near(clean, simulated)
        assert near(clean, deployed)


def test_names_that_are_taken_are_left_alone() -> None:
    body = "x_scale = Relu(x) x_QuantizeLinear = Conv(x_scale, x_quantized) y = Relu(x_QuantizeLinear)"
    proto = network(body, x_quantized=normal(4, 3, 3, 3))
    x = np.clip(normal(4, 3, 8, 8, scale=0.4), -1, 1)
    clean, simulated, deployed = both_ways(proto, x, input=(-1, 1))
    assert near(clean, simulated)
    assert near(clean, deployed)


# Runtimes without clamps on integers, or without integer biases


def as_written(proto: ModelProto, x: Array, bits: int, **files: Any) -> tuple[list[str], Array]:
    """Operators of what is written for int8 activations about zero, and what it computes."""
    on = equint.Target("dsp", "", QSpec(8, narrow=True), QSpec(8), **files)
    made = equint.quantize(proto, "dfq", on, activation_bits=bits, data=x).proto
    return operators(made.graph.node), run(made, x)[0]


@pytest.mark.parametrize("bits", [8, 4, 16])
def test_activations_in_front_of_the_quantizer_compute_the_same(bits: int) -> None:
    """What an integer clamp does behind it, a Relu or Clip does in front, bit for bit."""
    proto = network("h = Conv(x, w) r = Relu(h) k = Conv(r, v) c = Clip(k, lo, hi) y = Conv(c, u)",
                    w=normal(6, 3, 3, 3), v=normal(6, 6, 1, 1), u=normal(4, 6, 1, 1),
                    lo=np.float32(-0.25), hi=np.float32(0.5))  # fmt: skip
    x = normal(16, 3, 8, 8)
    (ops, inside), (other, front) = (as_written(proto, x, bits, integer_clamps=clamps) for clamps in (True, False))
    np.testing.assert_array_equal(inside, front)
    assert not {"Max", "Min"} & set(other)
    assert "Relu" in other
    assert {"Max", "Min"} & set(ops) or bits == 16


def test_a_clip_that_the_grid_ends_before_is_a_relu() -> None:
    proto = network("h = Conv(x, w) r = Clip(h, lo, hi) y = Conv(r, v)", w=normal(6, 3, 3, 3), v=normal(4, 6, 1, 1),
                    lo=np.float32(0), hi=np.float32(1e6))  # fmt: skip
    ops, _ = as_written(proto, normal(16, 3, 8, 8), 8, integer_clamps=False)
    assert ops.count("Relu") == 1
    assert "Clip" not in ops


def test_float_biases_have_the_values_of_the_integers() -> None:
    proto = network("h = Conv(x, w, b) y = Conv(h, v, c)", w=normal(6, 3, 3, 3), b=normal(6), v=normal(4, 6, 1, 1),
                    c=normal(4))  # fmt: skip
    x = normal(16, 3, 8, 8)
    (_, integer), (ops, floats) = (as_written(proto, x, 8, integer_biases=biases) for biases in (True, False))
    np.testing.assert_allclose(floats, integer, atol=1e-5 * np.abs(integer).max())
    assert ops.count("DequantizeLinear") == 2 + 3


@pytest.mark.parametrize(("ties", "one"), [((), False), (("Concat",), True)])
def test_joins_share_a_grid_where_hardware_asks_for_it(ties: tuple[str, ...], one: bool) -> None:
    proto = network("a = Conv(x, w) b = Conv(x, v) y = Concat<axis = 1>(a, b)", w=normal(4, 3, 1, 1) * 100,
                    v=normal(4, 3, 1, 1))  # fmt: skip
    on = equint.Target("dsp", "", QSpec(8), ties=ties)
    qparams = equint.quantize(proto, "lwq", on, data=normal(16, 3, 8, 8)).model.qparams
    assert (qparams["a"].scale == qparams["b"].scale) == one
