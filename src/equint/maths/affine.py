"""Uniform affine quantization: real = scale · (q − zero_point), rounding half to even as ONNX does."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from ..errors import InvalidOption, UnusableData
from ..ir.fields import aligned
from ..ir.model import Array, QParams, QSpec

TINY = float(np.finfo(np.float32).tiny)

BiasGrid = Literal["accumulator", "own"]
"""Where the precision of an integer bias comes from: from the sums that it is added to, or from its own extremes."""


def choose_qparams(lo: Array | float, hi: Array | float, spec: QSpec, axis: int | None = None) -> QParams:
    """The grid of `spec` (2 to 16 bits) that covers [lo, hi], `()` or `(C,)` along `axis`, and holds zero exactly.

    Asymmetric: scale = (hi − lo)/(qmax − qmin) after the range is widened to hold 0, and
    zero_point = round(qmin − lo/scale), so that real 0 is the integer zero_point. Symmetric: signed
    grids have zero_point 0 and scale = max(|lo|/|qmin|, |hi|/qmax); unsigned grids put the zero_point
    in the middle (Krishnamoorthi 2018, eq. 1-4; ONNX QuantizeLinear). With `power_of_two` the scale is the least
    power of two on whose grid no value of the range is off by more than a step: the next one would round no better.
    With `by_sign` a range without negative values has an unsigned grid, whose zero_point is 0 too.

    Raises:
        EquintError: bits outside 2 to 16, or a range that is not finite.

    Example:
        >>> q = choose_qparams(np.float32(-1.0), np.float32(3.0), QSpec(8, signed=False, symmetric=False))
        >>> int(q.zero_point), round(float(q.scale), 6)
        (64, 0.015686)
    """
    check_bits(spec.bits)
    if not (np.all(np.isfinite(lo)) and np.all(np.isfinite(hi))):
        raise UnusableData("a range to quantize is not finite; check the weights and the input range")
    if spec.by_sign and np.all(np.asarray(lo) >= 0):
        spec = replace(spec, signed=False, symmetric=False)
    grid = QParams(np.ones(()), np.zeros(()), spec.bits, spec.signed, axis, None, spec.narrow, spec.power_of_two)
    qmin, qmax, beyond = grid.qmin, grid.qmax, int(spec.power_of_two)
    low, high = np.minimum(np.asarray(lo, np.float64), 0), np.maximum(np.asarray(hi, np.float64), 0)
    if spec.symmetric:
        zero = 0 if spec.signed else 1 << (spec.bits - 1)
        scale = _allowed(np.maximum(low / (qmin - zero - beyond), high / (qmax - zero + beyond)), spec.power_of_two)
        zero_point = np.full(np.shape(scale), zero)
    else:
        scale = _allowed((high - low) / (qmax - qmin + beyond), spec.power_of_two)
        zero_point = np.clip(np.rint(qmin - low / np.maximum(scale, TINY)), qmin, qmax)
    scale = np.where(scale < TINY, 1.0, scale).astype(np.float32)
    return replace(grid, scale=scale, zero_point=zero_point.astype(np.int32))


def with_integer_ends(lo: float, hi: float, bits: int) -> tuple[float, float]:
    """An asymmetric range, widened by at most a step until both its ends are integers of its grid, as zero is.

    For what lies on a grid of its own. Pixels p of 8 bits as (p − 127.5)/127.5 all lie halfway between two integers of
    the grid of [−1, 1]: rounding is off by half a step, a quarter of its square in power where others lose a twelfth,
    and a runtime that multiplies by 1/scale where ONNX divides rounds every second pixel the other way.

    Example:
        >>> [round(float(x) * 127, 6) for x in with_integer_ends(-1.0, 1.0, 8)]
        [-127.0, 128.0]
        >>> with_integer_ends(0.0, 1.0, 8)
        (0.0, 1.0)
    """
    most = (1 << bits) - 1
    if not lo < 0 < hi:
        return lo, hi
    below = math.floor(-lo / (hi - lo) * most)
    zeros = (min(max(zero, 1), most - 1) for zero in (below, below + 1))
    step, zero = min((max(-lo / zero, hi / (most - zero)), zero) for zero in zeros)
    return -zero * step, (most - zero) * step


def _allowed(scale: Array, power_of_two: bool) -> Array:
    return next_power_of_two(scale) if power_of_two else scale


def next_power_of_two(scale: Array) -> Array:
    """The least power of two that is not below a scale, but for what float32 rounds; 0 stays.

    Example:
        >>> next_power_of_two(np.array([0.0, 0.3, 0.5])).tolist()
        [0.0, 0.5, 0.5]
    """
    positive = np.maximum(np.asarray(scale, np.float64), TINY)
    return np.where(scale > 0, np.exp2(np.ceil(np.log2(positive) - 1e-6)), 0.0)


def storage(q: QParams) -> np.dtype[Any]:
    """The integer type that holds a grid: 8 or 16 bits wide."""
    if q.bits <= 8:
        return np.dtype(np.int8 if q.signed else np.uint8)
    return np.dtype(np.int16 if q.signed else np.uint16)


def check_bits(bits: int) -> None:
    """Refuse bit widths that no grid here has. Raises EquintError: outside 2 to 16."""
    if not 2 <= bits <= 16:
        raise InvalidOption(f"{bits} bits cannot be quantized to: choose 2 to 16")


def quantize(x: Array, q: QParams) -> Array:
    """Integers of `q` for real `x`: clip(round(x/scale) + zero_point, qmin, qmax), half to even.

    Computed in float32 as ONNX's QuantizeLinear does, so both agree bit for bit.

    Example:
        >>> q = choose_qparams(np.float32(-1), np.float32(1), QSpec(8))
        >>> quantize(np.array([-1.0, 0.0, 2.0], np.float32), q).tolist()
        [-127, 0, 127]
    """
    scale, zero_point = along_axis(q.steps, q.axis, x.ndim), along_axis(q.zero_point, q.axis, x.ndim)
    with np.errstate(over="ignore"):  # a quotient beyond float32 saturates as it should
        scaled = np.rint(x.astype(np.float32) / scale) + zero_point.astype(np.float32)
    integers: Array = np.clip(scaled, q.qmin, q.qmax).astype(np.int32)
    return integers


def dequantize(integers: Array, q: QParams) -> Array:
    """Real float32 values of integers: scale · (q − zero_point)."""
    scale, zero_point = along_axis(q.steps, q.axis, integers.ndim), along_axis(q.zero_point, q.axis, integers.ndim)
    return ((integers - zero_point).astype(np.float32) * scale).astype(np.float32)


def in_steps(x: Array, q: QParams) -> Array:
    """Real `x` in steps of `q`, zero point included, not rounded: x/scale + zero_point, float64.

    Example:
        >>> q = QParams(np.float32(0.5), np.int32(3))
        >>> in_steps(np.array([1.2]), q).tolist()
        [5.4]
    """
    scale, zero_point = along_axis(q.steps, q.axis, x.ndim), along_axis(q.zero_point, q.axis, x.ndim)
    return np.asarray(x.astype(np.float64) / scale + zero_point)


def fake_quantize(x: Array, q: QParams) -> Array:
    """The real values that `x` becomes: dequantize(quantize(x))."""
    return dequantize(quantize(x, q), q)


def quantize_bias(bias: Array, x: QParams, weight: QParams) -> tuple[Array, Array]:
    """A layer's bias at the scale of its accumulator: (int32 of the shape of `bias`, scale `()` or `(C,)`).

    scale = s_in·s_w·2^-shift, integers = round(bias/scale) within ±(2^31 − 1), half to even.

    Example:
        >>> x, weight = (QParams(np.float32(s), np.int32(0)) for s in (0.5, 0.25))
        >>> quantize_bias(np.array([1.0, -0.3]), x, weight)[0].tolist()
        [8, -2]
    """
    scale = np.asarray(x.scale * weight.steps, np.float32)
    integers = np.clip(np.rint(bias.astype(np.float64) / scale), -(1 << 31) + 1, (1 << 31) - 1)
    return integers.astype(np.int32), scale


def fit_bias(scale: Array, bias: Array, input_scale: float, bits: int, power_of_two: bool = False) -> Array:
    """The weight scale, raised just enough that the bias fits its integer grid; to a power of two where it must be one.

    A bias is stored at scale s_in·s_w; |b| ≤ qmax·s_in·s_w asks for s_w ≥ |b|/(qmax·s_in). A 32-bit bias
    is added in a 32-bit accumulator, of which it may fill half.
    """
    qmax = float((1 << (bits - 1)) - 1) if bits < 32 else float(1 << 30)
    need = np.abs(bias.astype(np.float64)) / (qmax * input_scale) * (1 + 1e-6)
    need = need.max(initial=0.0) if np.ndim(scale) == 0 else need
    return np.maximum(np.asarray(scale, np.float64), _allowed(np.asarray(need), power_of_two)).astype(np.float32)


def bounded(q: QParams, least: float, symmetric: bool) -> QParams:
    """The grid with scales of at least `least`: where one is less, the low end stays and the high end is extended.

    max ← min + least·(qmax − qmin), and the zero point of [min, max] (Oh et al. 2020, bias overflow). Symmetric grids
    are extended at both ends.

    Example:
        >>> q = choose_qparams(np.float32(-1e-3), np.float32(4e-4), QSpec(8, signed=False, symmetric=False))
        >>> wider = bounded(q, 1e-5, symmetric=False)
        >>> int(q.zero_point), int(wider.zero_point), round(wider.lo, 5), round(wider.hi, 5)
        (182, 100, -0.001, 0.00155)
    """
    low = q.scale < least
    scale = np.where(low, _allowed(np.asarray(least), q.power_of_two), q.scale).astype(np.float32)
    if symmetric:
        return replace(q, scale=scale)
    below = (q.zero_point - q.qmin) * (q.scale / scale)  # steps from the low end to zero: fewer, for they are longer
    zero_point = np.where(low, np.rint(q.qmin + below), q.zero_point).astype(np.int32)
    return replace(q, scale=scale, zero_point=zero_point)


def check_bias_grid(bits: int, grid: BiasGrid) -> None:
    """Refuse a grid of its own for biases that are not of 16 bits. Raises EquintError: any other width."""
    if grid == "own" and bits != 16:
        raise InvalidOption(f'bias_grid = "own" is for biases of 16 bits, and these have {bits}; set bias_bits = 16')


def round_bias(bias: Array, bits: int, grid: BiasGrid) -> Array:
    """A bias on the grid of its own extremes, float32: scale = max|b|/(2^(bits−1) − 1), half to even.

    Meller et al. 2019, sections 1 and 5: every tensor has a scale according to its extremum values, and biases are
    encoded using 16 bits. With grid "accumulator" it stays as it is: `quantize_bias` rounds it once.

    Example:
        >>> round_bias(np.array([32767.0, 0.4, -2.6]), 16, "own").tolist()
        [32767.0, 0.0, -3.0]
    """
    if grid == "accumulator":
        return bias
    scale = float(np.max(np.abs(bias), initial=0.0)) / ((1 << (bits - 1)) - 1)
    if scale < TINY:
        return bias
    return (scale * np.rint(bias.astype(np.float64) / scale)).astype(np.float32)


def summed_bits(bits: int, grid: BiasGrid) -> int:
    """How many bits a bias may take at the scale of its accumulator: one that has a grid of its own takes all 32.

    Example:
        >>> summed_bits(16, "accumulator"), summed_bits(16, "own")
        (16, 32)
    """
    return 32 if grid == "own" else bits


def along_axis(values: Array, axis: int | None, rank: int) -> Array:
    """`(C,)` values shaped to broadcast along `axis` of a rank-`rank` array; scalars pass."""
    values = np.asarray(values)
    if values.ndim == 0 or axis is None:
        return values
    return aligned(values, axis, rank)
