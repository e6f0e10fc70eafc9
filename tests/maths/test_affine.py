"""Quantization agrees with onnxruntime bit for bit, holds zero, covers its range and refuses what has no grid."""

from dataclasses import replace
from functools import cache

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import assume, given, settings
from numpy.typing import NDArray
from onnx import helper

from equint.errors import EquintError
from equint.ir.model import QParams, QSpec
from equint.maths.affine import (
    bounded,
    check_bias_grid,
    choose_qparams,
    dequantize,
    fake_quantize,
    fit_bias,
    quantize,
    quantize_bias,
    round_bias,
    with_integer_ends,
)

Floats = NDArray[np.float32]
STORED = {"int8": (8, True), "uint8": (8, False), "int16": (16, True), "uint16": (16, False)}
bits = st.integers(2, 16)
specs = st.builds(QSpec, bits, st.booleans(), st.booleans(), narrow=st.booleans())
ends = st.floats(-1e6, 1e6, width=32)


@cache
def onnx_quantizer(dtype: str, per_channel: bool) -> ort.InferenceSession:
    """QuantizeLinear and DequantizeLinear of opset 21, along axis 1 or with one scale."""
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    few = ["C"] if per_channel else []
    info = helper.make_tensor_value_info
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], axis=1),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], axis=1),
    ]
    inputs = [info("x", 1, ["N", "C"]), info("s", 1, few), info("z", element, few)]
    outputs = [info("q", element, ["N", "C"]), info("d", 1, ["N", "C"])]
    graph = helper.make_graph(nodes, "quantizer", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def assert_same_bits(x: Floats, scale: Floats, zero: NDArray[np.int32], dtype: str) -> None:
    width, signed = STORED[dtype]
    grid = QParams(scale, zero, width, signed, 1 if scale.ndim else None)
    q, d = onnx_quantizer(dtype, scale.ndim == 1).run(None, {"x": x, "s": scale, "z": zero.astype(dtype)})
    integers = quantize(x, grid)
    np.testing.assert_array_equal(integers, q)
    np.testing.assert_array_equal(dequantize(integers, grid), d)


@st.composite
def quantizations(draw: st.DrawFn) -> tuple[Floats, Floats, NDArray[np.int32], str]:
    """Values of all sizes, many of them half way between two integers, and a grid for them."""
    dtype = draw(st.sampled_from(sorted(STORED)))
    channels = draw(st.integers(1, 4))
    shape = (channels,) if draw(st.booleans()) else ()
    info = np.iinfo(dtype)
    powers = st.integers(-20, 4).map(lambda e: 2.0**e)
    scale = draw(hnp.arrays(np.float32, shape, elements=st.one_of(powers, st.floats(2**-20, 16, width=32))))
    zero = draw(hnp.arrays(np.int32, shape, elements=st.integers(int(info.min), int(info.max))))
    halves = draw(hnp.arrays(np.float32, (3, channels), elements=st.integers(-140_000, 140_000).map(float)))
    others = draw(hnp.arrays(np.float32, (3, channels), elements=st.floats(-(2.0**100), 2.0**100, width=32)))
    return np.concatenate([halves / 2 * scale, others]).astype(np.float32), scale, zero, dtype


@pytest.mark.slow
@settings(max_examples=60)
@given(quantizations())
def test_agrees_with_onnxruntime_bit_for_bit(case: tuple[Floats, Floats, NDArray[np.int32], str]) -> None:
    assert_same_bits(*case)


def test_a_quotient_that_overflows_saturates() -> None:
    x = np.array([[3e38, -3e38, 1.0]], np.float32)
    assert_same_bits(x, np.array(1e-6, np.float32), np.array(3, np.int32), "int8")


def test_ties_round_to_even() -> None:
    grid = QParams(np.array(0.5, np.float32), np.array(0))
    assert quantize(np.array([0.25, 0.75, 1.25, -0.25, -0.75], np.float32), grid).tolist() == [0, 2, 2, 0, -2]


@pytest.mark.parametrize(
    ("lo", "hi", "spec", "scale", "zero_point"),
    [
        (-1.0, 3.0, QSpec(8, signed=False, symmetric=False), 4 / 255, 64),
        (-1.0, 3.0, QSpec(8, signed=True, symmetric=False), 4 / 255, -64),
        (-1.0, 3.0, QSpec(8, signed=True, symmetric=True), 3 / 127, 0),
        (-3.0, 1.0, QSpec(8, signed=True, symmetric=True), 3 / 128, 0),
        (-3.0, 1.0, QSpec(8, signed=True, symmetric=True, narrow=True), 3 / 127, 0),
        (-3.0, 1.0, QSpec(8, signed=False, symmetric=True), 3 / 128, 128),
        (2.0, 3.0, QSpec(4, signed=False, symmetric=False), 3 / 15, 0),
        (-3.0, -2.0, QSpec(4, signed=False, symmetric=False), 3 / 15, 15),
        (0.0, 0.0, QSpec(8, signed=False, symmetric=False), 1, 0),
    ],
)
def test_grids_worked_by_hand(lo: float, hi: float, spec: QSpec, scale: float, zero_point: int) -> None:
    q = choose_qparams(lo, hi, spec)
    assert float(q.scale) == pytest.approx(scale, rel=1e-6)
    assert int(q.zero_point) == zero_point


@settings(max_examples=100)
@given(ends, ends, specs)
def test_every_grid_holds_zero_and_covers_its_range(a: float, b: float, spec: QSpec) -> None:
    lo, hi = min(a, b), max(a, b)
    q = choose_qparams(lo, hi, spec)
    scale, zero = float(q.scale), int(q.zero_point)
    least = (-(2 ** (spec.bits - 1)) if spec.signed else 0) + (1 if spec.narrow else 0)
    most = 2 ** (spec.bits - 1) - 1 if spec.signed else 2**spec.bits - 1
    assert least <= zero <= most
    assert fake_quantize(np.zeros(1, np.float32), q)[0] == 0
    assert scale * (least - zero) <= lo + 0.51 * scale
    assert scale * (most - zero) >= hi - 0.51 * scale


@given(st.lists(st.tuples(ends, ends), min_size=1, max_size=5), specs)
def test_a_channel_has_the_grid_that_it_would_have_alone(ranges: list[tuple[float, float]], spec: QSpec) -> None:
    lo, hi = np.sort(np.array(ranges, np.float32), axis=1).T
    together = choose_qparams(lo, hi, spec, axis=0)
    alone = [choose_qparams(a, b, spec) for a, b in zip(lo, hi, strict=True)]
    assert together.scale.tolist() == [float(q.scale) for q in alone]
    assert together.zero_point.tolist() == [int(q.zero_point) for q in alone]


@pytest.mark.parametrize("width", [1, 17])
def test_refuses_widths_without_a_grid(width: int) -> None:
    with pytest.raises(EquintError, match=f"{width} bits"):
        choose_qparams(-1.0, 1.0, QSpec(width))


@pytest.mark.parametrize("end", [np.inf, np.nan])
def test_refuses_ranges_without_an_end(end: float) -> None:
    with pytest.raises(EquintError, match="not finite"):
        choose_qparams(0.0, end, QSpec(8))


@pytest.mark.slow
@given(
    hnp.arrays(np.float64, 4, elements=st.floats(-1e3, 1e3)),
    hnp.arrays(np.float32, 4, elements=st.floats(2**-20, 1, width=32)),
    st.floats(1e-4, 1),
    st.sampled_from([8, 16, 32]),
    st.booleans(),
)
def test_a_bias_fits_just_so(
    bias: NDArray[np.float64], scale: Floats, input_scale: float, width: int, per_channel: bool
) -> None:
    scale = scale if per_channel else scale[:1].reshape(())
    fitted = fit_bias(scale, bias, input_scale, width).astype(np.float64)
    most = 2**30 if width == 32 else 2 ** (width - 1) - 1  # half of the accumulator that it is added in
    assert fitted.shape == scale.shape
    assert np.all(np.abs(np.rint(bias / (input_scale * fitted))) <= most)
    overflow = np.abs(bias) / (input_scale * fitted * (1 - 1e-5)) > most
    assert np.all((fitted == scale) | (overflow if per_channel else overflow.any()))


def test_biases_stand_at_the_scale_of_the_accumulator() -> None:
    """0.5·0.25 and 0.5·1 a step: 1/0.125 = 8 and -1.25/0.5 = -2.5, a tie that goes to the even -2; then the ends."""
    x = QParams(np.array(0.5, np.float32), np.array(3))
    weight = QParams(np.array([0.25, 1], np.float32), np.zeros(2, np.int32), axis=0)
    integers, scale = quantize_bias(np.array([1, -1.25], np.float32), x, weight)
    assert integers.dtype == np.int32
    assert (integers.tolist(), scale.tolist()) == ([8, -2], [0.125, 0.5])
    shifted = QParams(np.array(1, np.float32), np.array(0), axis=0, shift=np.array([2, 0]))
    assert quantize_bias(np.array([1, -1.25], np.float32), x, shifted)[0].tolist() == [8, -2]
    most = (1 << 31) - 1
    assert quantize_bias(np.array([1e30, -1e30]), x, weight)[0].tolist() == [most, -most]


def test_a_bounded_scale_extends_the_high_end_alone() -> None:
    """Oh et al. (2020), bias overflow, on two channels: (max − min)/255 of [−51, 51]·1e-6 is 4e-7, of [−1, 1.55] 0.01.

    With a bound of 1e-5 the first becomes [−51, 2499]·1e-6, zero at round(5.1) = 5; the second keeps its grid.
    """
    spec = QSpec(8, signed=False, symmetric=False)
    grid = choose_qparams(np.array([-51e-6, -1.0]), np.array([51e-6, 1.55]), spec, 0)
    np.testing.assert_allclose(grid.scale, [4e-7, 0.01], rtol=1e-6)
    wider = bounded(grid, 1e-5, symmetric=False)
    np.testing.assert_allclose(wider.scale, [1e-5, 0.01], rtol=1e-6)
    assert wider.zero_point.tolist() == [5, 100]
    assert bounded(wider, 1e-5, symmetric=False).zero_point.tolist() == [5, 100]


def test_a_bounded_scale_keeps_the_middle_of_symmetric_grids() -> None:
    grid = choose_qparams(np.array([-1e-6, -1.0]), np.array([1e-6, 1.0]), QSpec(8), 0)
    wider = bounded(grid, 1e-5, symmetric=True)
    assert wider.zero_point.tolist() == [0, 0]
    np.testing.assert_allclose(wider.scale, [1e-5, 1 / 127], rtol=1e-6)


def test_a_bias_on_a_grid_of_its_own_by_hand() -> None:
    """max|b| = 3276.7 makes a step of 0.1: 0.26 is 2.6 of them, 0.04 is 0.4, -7.77 is -77.7, and the end is an end."""
    bias = np.array([0.26, -3276.7, 0.04, -7.77], np.float32)
    np.testing.assert_allclose(round_bias(bias, 16, "own"), [0.3, -3276.7, 0.0, -7.8], rtol=1e-6)
    assert round_bias(bias, 16, "accumulator") is bias
    assert round_bias(np.zeros(2, np.float32), 16, "own").tolist() == [0, 0]


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=9))
def test_a_bias_of_its_own_grid_is_a_16_bit_integer_and_stays(values: list[float]) -> None:
    bias = np.array(values, np.float32)
    found = round_bias(bias, 16, "own")
    most = float(np.abs(bias).max())
    assert np.abs(found - bias).max() <= most / 32767 / 2 * (1 + 1e-4)
    if most > 1e-30:
        steps = found.astype(np.float64) / most * 32767
        np.testing.assert_allclose(steps, np.rint(steps), atol=5e-3)
        assert np.abs(steps).max() <= 32767 * (1 + 1e-6)
    np.testing.assert_array_equal(round_bias(found, 16, "own"), found)


@pytest.mark.parametrize("bits", [8, 32])
def test_only_16_bits_have_a_bias_grid_of_their_own(bits: int) -> None:
    check_bias_grid(bits, "accumulator")
    check_bias_grid(16, "own")
    with pytest.raises(EquintError, match=f"biases of 16 bits, and these have {bits}"):
        check_bias_grid(bits, "own")


@given(st.floats(-50, 0), st.floats(0, 50), st.booleans(), st.booleans())
def test_scales_that_are_powers_of_two(lo: float, hi: float, signed: bool, symmetric: bool) -> None:
    """The worst error is that of the next power, which would be coarser; with half the step it would be larger."""
    assume(hi - lo > 1e-3)
    q = choose_qparams(lo, hi, QSpec(8, signed=signed, symmetric=symmetric, power_of_two=True))
    assert np.frexp(q.scale)[0] == 0.5
    assert q.power_of_two

    def worst(grid: QParams) -> float:
        x = np.linspace(lo, hi, 2001, dtype=np.float32)
        return float(np.abs(fake_quantize(x, grid) - x).max())

    slack = 1.0 if symmetric else 1.5  # a zero point is rounded, too
    assert worst(q) <= slack * q.scale * (1 + 1e-5)
    if symmetric:
        assert worst(replace(q, scale=q.scale / 2)) > q.scale / 2 * (1 - 1e-5)
        again = choose_qparams(q.lo, q.hi, QSpec(8, signed=signed, power_of_two=True))
        assert again.scale == q.scale


@given(st.floats(-50, 50), st.floats(0, 50), st.booleans())
def test_what_has_nothing_negative_has_all_levels(lo: float, hi: float, power_of_two: bool) -> None:
    assume(lo <= hi and hi > 1e-3)
    q = choose_qparams(lo, hi, QSpec(8, by_sign=True, power_of_two=power_of_two))
    alone = QSpec(8, signed=lo < 0, symmetric=lo < 0, power_of_two=power_of_two)
    assert (float(q.scale), int(q.zero_point), q.signed) == (float(choose_qparams(lo, hi, alone).scale), 0, lo < 0)


def test_a_picture_keeps_its_last_bit() -> None:
    """[-1, 1] on 8 bits: step 1/128 is off by 1/128 at 1 alone; step 1/64 would be off by as much everywhere."""
    q = choose_qparams(-1.0, 1.0, QSpec(8, power_of_two=True))
    assert q.scale == 1 / 128


def test_a_bias_raises_a_power_of_two_to_another() -> None:
    """|b| ≤ 32767·s_in·s_w: 5/(32767·2^-12) = 0.625, of which the next power is 1."""
    assert fit_bias(np.array(2.0**-6), np.array([5.0]), 2.0**-12, 16, power_of_two=True) == 1
    assert fit_bias(np.array(2.0**-6), np.array([5.0]), 2.0**-12, 16) == pytest.approx(5 / (32767 * 2.0**-12), rel=2e-6)


def test_pixels_do_not_lie_between_two_integers() -> None:
    """Pixels as (p − 127.5)/127.5: all ties on the grid of [−1, 1], on the widened one an integer each."""
    spec, pixels = QSpec(8, signed=False, symmetric=False), np.arange(256, dtype=np.float32)
    x = ((pixels - 127.5) / 127.5).astype(np.float32)
    plain, wide = choose_qparams(-1.0, 1.0, spec), choose_qparams(*with_integer_ends(-1.0, 1.0, 8), spec)
    assert len(np.unique(quantize(x, plain))) < 200
    assert len(np.unique(quantize(x, wide))) >= 254
    powers = [np.mean(np.square(dequantize(quantize(x, q), q) - x)) / float(q.scale) ** 2 for q in (plain, wide)]
    assert powers == pytest.approx([1 / 4, 1 / 12], rel=0.05)
    between = [np.abs(x / q.scale - np.rint(x / q.scale)).max() for q in (plain, wide)]
    assert between[0] == pytest.approx(0.5, abs=1e-4)


@given(st.floats(-1e3, 0), st.floats(0, 1e3), st.sampled_from((4, 8, 16)))
def test_ends_become_integers(lo: float, hi: float, bits: int) -> None:
    low, high = with_integer_ends(lo, hi, bits)
    assert low <= lo * (1 - 1e-9)
    assert high >= hi * (1 - 1e-9)
    if (low, high) != (lo, hi):
        step = (high - low) / ((1 << bits) - 1)
        assert -low / step == pytest.approx(round(-low / step), abs=1e-6)
        assert (lo - low) + (high - hi) <= 1.1 * step
