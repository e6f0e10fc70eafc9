"""Every weight and activation gets the grid that its range asks for, shared where it must be."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto
from onnx.numpy_helper import to_array

import equint
from equint.errors import EquintError
from equint.graph.inputs import describe_range
from equint.graph.overrides import Override
from equint.ir.events import EventKind
from equint.ir.model import Array, Model, QSpec
from equint.maths.noise import sqnr_db
from equint.onnx.qdq import export
from equint.onnx.reader import read
from equint.onnx.writer import to_proto
from equint.ops.layers import layers
from equint.passes import Keeps
from equint.passes.activation_ranges import ActivationRanges
from equint.passes.quantize import Quantize
from handwritten import execute, network, normal
from nets import sample


def ranged(body: str, reach: float = 1.0, **consts: Any) -> Model:
    model = describe_range(read(network(body, output="float[] y", **consts)), -reach, reach)
    return ActivationRanges()(model)


def test_weights_have_a_grid_for_each_output_channel() -> None:
    w = normal(4, 3, 3, 3)
    for body, axis, weight in (
        ("y = Conv(x, w)", 0, w),
        ("y = ConvTranspose(x, w)", 1, w.transpose(1, 0, 2, 3)),
        ("f = GlobalMaxPool(x) g = Flatten(f) y = Gemm(g, w)", 1, w[:, :, 0, 0].T),
    ):
        grid = Quantize()(ranged(body, w=weight)).qparams["w"]
        others = tuple(d for d in range(weight.ndim) if d != axis)
        assert grid.axis == axis
        bound = np.maximum(weight.max(others) / 127, -weight.min(others) / 128)
        np.testing.assert_allclose(grid.scale, bound, rtol=1e-6)
        assert not grid.zero_point.any()


def test_one_grid_for_a_tensor_on_request() -> None:
    w = normal(4, 3, 3, 3)
    spec = QSpec(4, signed=True, symmetric=False, granularity="tensor")
    grid = Quantize(weight=spec)(ranged("y = Conv(x, w)", w=w)).qparams["w"]
    assert grid.axis is None
    assert float(grid.scale) == pytest.approx(float(w.max() - w.min()) / 15)
    assert int(grid.zero_point) == round(-8 - float(w.min()) / float(grid.scale))


def test_a_grouped_transposed_convolution_has_one_grid_and_says_so() -> None:
    body = "a = Conv(x, v) y = ConvTranspose <group = 2> (a, w)"
    after = Quantize()(ranged(body, v=normal(4, 3, 1, 1), w=normal(4, 2, 2, 2)))
    assert after.qparams["w"].scale.ndim == 0
    assert any(e.kind is EventKind.ONE_GRID for e in after.log)


def test_an_activation_has_the_grid_of_its_range() -> None:
    model = ranged("a = Conv(x, w) y = Relu(a)", w=normal(4, 3, 1, 1))
    after = Quantize(activation=QSpec(6, signed=False, symmetric=False))(model)
    span, grid = model.ranges["y"], after.qparams["y"]
    assert (grid.qmin, grid.qmax, int(grid.zero_point)) == (0, 63, 0)
    assert float(grid.scale) == pytest.approx(float(np.max(span.hi)) / 63)
    assert "a" not in after.qparams


@pytest.mark.parametrize(
    ("body", "tensors"),
    [
        ("a = Conv(x, w) b = Conv(x, v) y = Concat <axis = 1> (a, b)", "aby"),
        ("a = Conv(x, w) y = MaxPool <kernel_shape = [2, 2]> (a)", "ay"),
        ("a = Conv(x, w) b = Transpose <perm = [0, 2, 3, 1]> (a) y = MatMul(b, m)", "ab"),
        ("a = Conv(x, w) b, c = Split <axis = 1> (a, s) y = Add(b, c)", "abc"),
        ("a = Conv(x, w) b = Resize(a, , r) y = Conv <group = 4> (b, u)", "ab"),
    ],
)
def test_tensors_that_must_share_a_grid_share_one_object(body: str, tensors: str) -> None:
    consts: dict[str, Any] = {
        "w": 3 * normal(4, 3, 1, 1),
        "v": normal(4, 3, 1, 1, seed=2),
        "m": normal(4, 2),
        "u": normal(4, 1, 1, 1),
    }
    model = ranged(body, s=[2, 2], r=np.array([1.0, 1.0, 2.0, 2.0]), **consts)
    qparams = Quantize()(model).qparams
    grids = [qparams[t] for t in tensors]
    assert all(g is grids[0] for g in grids)
    low = min(float(model.ranges[t].lo.min()) for t in tensors)
    high = max(float(model.ranges[t].hi.max()) for t in tensors)
    assert float(grids[0].scale) == pytest.approx((high - low) / 255)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_a_bias_that_overflows_raises_the_scale(bits: int, granularity: str) -> None:
    bias = np.array([0.0, 1.0, 1e4, 0.01])
    weight = QSpec(8, granularity="channel" if granularity == "channel" else "tensor")
    model = ranged("y = Conv(x, w, b)", w=normal(4, 3, 1, 1), b=bias)
    wide, after = Quantize(weight=weight)(model), Quantize(weight=weight, bias_bits=bits)(model)
    plain, raised = (np.broadcast_to(m.qparams["w"].scale.astype(np.float64), 4) for m in (wide, after))
    x_scale = float(after.qparams["x"].scale)
    need = np.abs(bias) / (x_scale * (2 ** (bits - 1) - 1))
    wanted = np.maximum(plain, need if granularity == "channel" else need.max())
    np.testing.assert_allclose(raised, wanted, rtol=1e-5)
    event = next(e for e in after.log if e.kind is EventKind.SCALE_RAISED_FOR_BIAS)
    assert event.warning
    assert event.facts["bias bits"] == bits
    assert event.facts["largest factor"] == pytest.approx(float((wanted / plain).max()), rel=1e-4)
    assert not any(e.kind is event.kind for e in wide.log)


def test_a_dead_channel_keeps_its_bias() -> None:
    """Its weights are all zero, so any scale serves them; the bias, stored at that scale too, needs a fine one."""
    w = 0.01 * normal(4, 3, 1, 1)
    w[1] = 0
    model = ranged("y = Conv(x, w, b)", reach=255.0, w=w, b=[0.0, 3.3, 0.0, 0.0])
    after = Quantize()(model)
    proto = export(after)
    x = sample(proto)
    found: Array = execute(proto, x)[0][:, 1]
    step = float(after.qparams["y"].scale)
    assert np.abs(found - 3.3).max() <= 0.51 * step


def test_weights_only() -> None:
    after = Quantize(activation=None)(ranged("a = Conv(x, w) y = Relu(a)", w=normal(4, 3, 1, 1)))
    assert set(after.qparams) == {"w"}


def test_where_nothing_tells_a_range_it_stays_float_and_is_said() -> None:
    model = read(network("a = Conv(x, w) b = Softsign(a) y = Conv(b, v)", w=normal(4, 3, 1, 1), v=normal(4, 4, 1, 1)))
    after = Quantize()(model)
    assert set(after.qparams) == {"w", "v"}
    assert {e.at for e in after.log if e.kind is EventKind.FLOAT_WITHOUT_RANGE} == {"x", "a", "b", "y"}
    assert [e.facts["op"] for e in after.log if e.kind is EventKind.OPERATOR_FLOAT] == ["Softsign"]


def test_says_so_where_nothing_has_weights() -> None:
    assert Quantize()(read(network("y = Relu(x)"))).log[-1].kind is EventKind.NOTHING_TO_QUANTIZE


@pytest.mark.parametrize("step", [Quantize(weight=QSpec(1)), Quantize(weight=QSpec(17)), Quantize(bias_bits=24)])
def test_refuses_widths_without_a_grid(step: Quantize) -> None:
    with pytest.raises(EquintError, match="bits cannot be quantized to"):
        step(ranged("y = Conv(x, w)", w=normal(4, 3, 1, 1)))


def test_a_bias_on_a_grid_of_its_own_by_hand() -> None:
    """Its step is 3276.7/32767 = 0.1; s_in·s_w = 1/64, where 3276.7 is 209709, which 16 bits do not hold.

    So 0.26 becomes 0.3, 19.2 steps of 1/64: 19; -0.04 becomes 0. The weight keeps its scale, which 16 bits at s_in·s_w
    would raise by 209709/32767.
    """
    weight = QSpec(8, granularity="tensor")
    w, b = np.array([1, 0.5, -1], np.float32).reshape(3, 1, 1, 1) * 127 / 8, [3276.7, 0.26, -0.04]
    body = "y = Conv(x, w, b)"
    model = describe_range(read(network(body, inputs="float[N,1,4,4] x", output="float[] y", w=w, b=b)), 0, 255 / 8)
    after = Quantize(weight=weight, bias_bits=16, bias_grid="own")(ActivationRanges()(model))
    assert (float(after.qparams["x"].scale), float(after.qparams["w"].scale)) == (0.125, 0.125)
    np.testing.assert_allclose(after.graph.consts["b"], [3276.7, 0.3, 0], rtol=1e-6)
    (stored,) = (to_array(t) for t in export(after).graph.initializer if t.data_type == TensorProto.INT32 and t.dims)
    assert stored.tolist() == [209709, 19, 0]
    assert not any(e.kind is EventKind.SCALE_RAISED_FOR_BIAS for e in after.log)
    raised = Quantize(weight=weight, bias_bits=16)(ActivationRanges()(model))
    assert float(raised.qparams["w"].scale) == pytest.approx(0.125 * 209709 / 32767, rel=1e-4)


def test_a_bias_that_overflows_32_bits_raises_the_scale_whatever_its_grid() -> None:
    model = ranged("y = Conv(x, w, b)", w=1e-6 * normal(4, 3, 1, 1), b=[1e4, 0.0, 1.0, -1.0])
    after = Quantize(weight=QSpec(8, granularity="tensor"), bias_bits=16, bias_grid="own")(model)
    integers = after.graph.consts["b"] / (after.qparams["x"].scale * after.qparams["w"].scale.astype(np.float64))
    assert 2**29 < np.abs(integers).max() <= 2**30
    assert any(e.kind is EventKind.SCALE_RAISED_FOR_BIAS for e in after.log)


def test_float_biases_have_no_grid() -> None:
    """Beside a float input, or a weight that stays float."""
    model = ranged("y = Conv(x, w, b)", w=normal(4, 3, 1, 1), b=[1e4, 0.26, 1.0, -1.0])
    layer = next(layers(model.graph))
    for step in (
        Quantize(activation=None, bias_bits=16, bias_grid="own"),
        Quantize(bias_bits=16, bias_grid="own", overrides=(Override((layer.name,), float=True),)),
    ):
        np.testing.assert_array_equal(step(model).graph.consts["b"], model.graph.consts["b"])


def test_what_it_keeps_depends_on_the_grid_of_biases() -> None:
    assert Quantize().keeps is Keeps.FLOATS
    assert Quantize(bias_bits=16, bias_grid="own").keeps is Keeps.TOPOLOGY


def test_a_bound_on_scales_keeps_a_bias_within_32_bits() -> None:
    """Oh et al. (2020), bias overflow: a channel of ±1e-9 and a bias of 0.5, which 2^31 steps of it do not reach.

    s_in = 2/254; (max − min)/255 = 7.8e-12, so that b/(s_in·s_w) would be 8.1e12. At the bound of 1e-5 it is
    0.5·254/2 / 1e-5 = 6.35e6; without one the scale is raised until it is 2^30.
    """
    w = np.array([[1e-9, -1e-9, 0], [1, -0.5, 0.5]], np.float32).reshape(2, 3, 1, 1)
    model = ranged("y = Conv(x, w, b)", w=w, b=np.array([0.5, 0.5], np.float32))
    spec = QSpec(8, signed=False, symmetric=False, granularity="channel")
    for bound, stored in ((1e-5, 6.35e6), (0.0, 2.0**30)):
        after = Quantize(spec, min_scale=bound)(model)
        x, grid = after.qparams["x"], after.qparams["w"]
        assert float(x.scale) == pytest.approx(2 / 254, rel=1e-6)  # both ends are integers of the input's grid
        assert 0.5 / (float(x.scale) * float(grid.scale[0])) == pytest.approx(stored, rel=1e-4)
        assert grid.scale[1] == pytest.approx(1.5 / 255, rel=1e-6)
        raised = [e.facts["channels"] for e in after.log if e.kind is EventKind.SCALE_BOUNDED]
        assert raised == ([1] if bound else [])


@pytest.mark.parametrize(
    ("mode", "inside"), [("cubic", 1), ("linear", 0), ("nearest", 0)], ids=["cubic", "linear", "nearest"]
)
def test_a_resize_that_overshoots_has_a_grid_of_its_own(mode: str, inside: int) -> None:
    """Behind a clip to 0…1 cubic interpolation reaches from −0.4 to 1.4."""
    body = f'a = Conv(x, w) c = Clip(a, l, h) u = Resize <mode = "{mode}"> (c, , s) y = Conv(u, v)'
    consts: dict[str, Any] = {"w": 3 * normal(4, 3, 1, 1), "v": normal(2, 4, 3, 3), "l": 0.0, "h": 1.0}
    model = ranged(body, s=np.array([1.0, 1.0, 2.0, 2.0]), **consts)
    grids, x = Quantize()(model).qparams, normal(8, 3, 8, 8, scale=1)
    (u,) = execute(to_proto(replace(model.graph, outputs=("u",))), x)
    step = float(grids["u"].scale)
    assert (grids["u"] is not grids["c"]) == bool(inside)
    assert grids["u"].lo - step <= u.min()
    assert u.max() <= grids["u"].hi + step
    assert (u.min() < -0.05) == bool(inside)


def test_an_extrapolated_value_lies_on_the_grid() -> None:
    how = 'mode = "linear", coordinate_transformation_mode = "tf_crop_and_resize", extrapolation_value = 5.0'
    body = f"a = Conv(x, w) c = Sigmoid(a) u = Resize <{how}> (c, o, s) y = Conv(u, v)"
    consts: dict[str, Any] = {"w": normal(4, 3, 1, 1), "v": normal(2, 4, 3, 3), "s": np.array([1.0, 1.0, 2.0, 2.0])}
    model = ranged(body, o=np.array([0.0, 0, -0.5, -0.5, 1, 1, 1.5, 1.5]), **consts)
    assert Quantize()(model).qparams["u"].hi >= 5


@pytest.mark.parametrize(("value", "held"), [(1.5, True), (-1e9, False)])
def test_a_padded_value_lies_on_the_grid_unless_others_would_die_of_it(value: float, held: bool) -> None:
    body = "a = Conv(x, w) c = Clip(a, l, h) p = Pad(c, n, d) y = Conv(p, v)"
    consts: dict[str, Any] = {"w": normal(4, 3, 1, 1), "v": normal(2, 4, 3, 3), "l": 0.0, "h": 1.0, "d": value}
    grid = Quantize()(ranged(body, n=[0, 0, 1, 1, 0, 0, 1, 1], **consts)).qparams["p"]
    assert (grid.lo - float(grid.scale) <= value <= grid.hi + float(grid.scale)) == held
    assert float(grid.scale) < 0.02


@pytest.mark.parametrize("target", ["per-channel", "per-tensor", "npu-shift"])
def test_a_mask_in_front_of_a_softmax_takes_no_bits_from_the_scores(target: str) -> None:
    """Masked scores lie at -10,000: a grid that held them would have steps of 39, and all shares would be equal."""
    body = """q = MatMul(x, a) k = MatMul(x, b) t = Transpose <perm = [0, 2, 1]> (k) s = MatMul(q, t) m = Add(s, mask)
        p = Softmax <axis = -1> (m) v = MatMul(x, c) y = MatMul(p, v)"""
    mask = np.where(np.tril(np.ones((6, 6))) > 0, 0, -1e4).astype(np.float32)
    weights: dict[str, Any] = {name: normal(8, 8, seed=k) for k, name in enumerate("abc")}
    proto = network(body, inputs="float[N,6,8] x", output="float[N,6,8] y", mask=mask, **weights)
    x = normal(32, 6, 8, seed=9, scale=1.0)
    found = equint.quantize(proto, "optimal", target, data=x, effort="fast")
    (wanted,), (given,) = execute(proto, x), execute(found.proto, x)
    assert sqnr_db(wanted, given) > 25


@pytest.mark.parametrize(("signed", "symmetric", "zero"), [(False, False, 0), (True, False, -128), (True, True, None)])
def test_shares_have_a_grid_of_their_own(signed: bool, symmetric: bool, zero: int | None) -> None:
    """What a Softmax gives is in 256ths, as TFLite has it, where zero points allow it; else by its range."""
    model = ranged(
        "a = Conv(x, w) p = Softmax <axis = 1> (a) y = Conv(p, v)", w=normal(4, 3, 1, 1), v=normal(2, 4, 1, 1)
    )
    grid = Quantize(activation=QSpec(8, signed=signed, symmetric=symmetric))(model).qparams["p"]
    if zero is None:
        assert float(grid.scale) == pytest.approx(model.ranges["p"].hi.max() / 127)
    else:
        assert (float(grid.scale), int(grid.zero_point)) == (1 / 256, zero)
