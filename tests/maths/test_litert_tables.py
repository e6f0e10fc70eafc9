"""Integer functions of LiteRT, against literal scalar loops with C's division and saturating 16 bits."""

import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from equint.maths.litert_tables import hard_swish, leaky, sloped
from equint.maths.quantized_multiplier import multiplied, quantize_multiplier

SCALES = st.floats(0.01, 0.2)
X = np.arange(-200, 56)


def divided(a: int, b: int) -> int:
    return abs(a) // b * (1 if a >= 0 else -1)


def rounded_high(a: int, b: int) -> int:
    return divided(a * b + ((1 << 14) if a * b >= 0 else 1 - (1 << 14)), 1 << 15)


def rounded_shift(x: int, places: int) -> int:
    mask = (1 << places) - 1
    return (x >> places) + ((x & mask) > (mask >> 1) + (x < 0))


def saturated(x: int) -> int:
    return max(-(1 << 15), min((1 << 15) - 1, x))


def scalar_hard_swish(x: int, s: float, y: float, zero: int) -> int:
    fine = np.float32(1 / 128) * np.float32(s)
    (m, e), (n, f) = (quantize_multiplier(float(v)) for v in (fine / np.float32(y), fine / np.float32(3 / 32768)))
    m16, n16 = (min((v + (1 << 15)) >> 16, (1 << 15) - 1) for v in (m, n))
    wide = x << 7
    value, gate = rounded_high(wide, m16), wide
    if f > 0:
        gate = saturated(gate << (f - 1))
    gate = rounded_high(gate, n16)
    if f > 0:
        gate = saturated(gate << 1)
    if f < 0:
        gate = rounded_shift(gate, -f)
    gate = (gate + (1 << 15)) >> 1
    return rounded_shift(divided(gate * value, 1 << 15), -e) + zero


@given(SCALES, SCALES, st.integers(-128, 127))
def test_hard_swish(s: float, y: float, zero: int) -> None:
    found = hard_swish(X, (s, y), zero)
    if found is None:
        assert s / 128 / y >= 1
        return
    assert found.tolist() == [scalar_hard_swish(x, s, y, zero) for x in X.tolist()]


def test_hard_swish_is_near_the_function() -> None:
    found = hard_swish(X, (0.05, 0.03), 0)
    assert found is not None
    real = X * 0.05 * np.clip(X * 0.05 / 6 + 0.5, 0, 1)
    assert np.abs(found * 0.03 - real).max() < 0.03


@given(SCALES, SCALES, st.floats(-0.9, 0.9))
def test_leaky(s: float, y: float, alpha: float) -> None:
    found = leaky(X, (s, y), alpha, 3).tolist()
    a, b = np.float32(s), np.float32(y)
    up, down = quantize_multiplier(float(a / b)), quantize_multiplier(abs(float(a * np.float32(alpha) / b)))
    sign = -1 if alpha < 0 else 1
    for x, q in zip(X.tolist(), found, strict=True):
        one = np.array(x)
        assert q == 3 + (int(multiplied(one, *up)) if x >= 0 else sign * int(multiplied(one, *down)))


@given(SCALES, SCALES, st.lists(st.integers(-128, 127), min_size=1, max_size=4))
def test_slopes_of_channels(s: float, y: float, slopes: list[int]) -> None:
    found, a, b = sloped(X, np.array(slopes)[:, None], (s, 1 / 128, y), 0), np.float32(s), np.float32(y)
    up, down = quantize_multiplier(float(a / b)), quantize_multiplier(float(a * np.float32(1 / 128) / b))
    for row, slope in zip(found, slopes, strict=True):
        for x, q in zip(X.tolist(), row.tolist(), strict=True):
            factor, product = (up, x) if x >= 0 else (down, x * slope)
            assert q == int(multiplied(np.array(product), *factor))
