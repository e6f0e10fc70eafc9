"""The rules for channel scales do what their formulas say, and what sweeping them over a network arrives at."""

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from numpy.typing import NDArray

from equint.maths.scales import dominance, equalizing, matching, overlap_ratio, triple
from equint.onnx.reader import read
from equint.ops.layers import layers
from equint.passes.equalize import Equalize
from nets import Net

Floats = NDArray[np.float64]
ranges = hnp.arrays(np.float64, 6, elements=st.floats(1e-6, 1e6))


@given(ranges, ranges)
def test_a_pair_meets_at_the_geometric_mean(r1: Floats, r2: Floats) -> None:
    s = equalizing(r1, r2)
    np.testing.assert_allclose(r1 / s, np.sqrt(r1 * r2), rtol=1e-9)
    np.testing.assert_allclose(r2 * s, np.sqrt(r1 * r2), rtol=1e-9)


def test_a_dead_side_keeps_scale_one() -> None:
    assert equalizing(np.array([0.0, 4.0, 0.0]), np.array([9.0, 0.0, 0.0])).tolist() == [1.0, 1.0, 1.0]


@pytest.mark.slow
@given(ranges, ranges, ranges)
def test_a_triple_meets_at_the_cubic_mean(r1: Floats, r2: Floats, r3: Floats) -> None:
    s12, s23 = triple(r1, r2, r3)
    for met in (r1 / s12, r2 * s12 / s23, r3 * s23):
        np.testing.assert_allclose(met, np.cbrt(r1 * r2 * r3), rtol=1e-9)


def test_sweeps_over_a_depthwise_net_converge_to_the_triple() -> None:
    net = Net(seed=3)
    x = net.relu(net.conv(net.input, 8, 1, scale=np.logspace(-2, 2, 8)))
    x = net.relu(net.conv(x, 8, groups=8, scale=np.logspace(1, -1, 8)))
    model = read(net.build(net.conv(x, 5, 1)))
    before = [model.graph.consts[la.weight] for la in layers(model.graph)]
    w1, w2, w3 = (np.abs(w).astype(np.float64) for w in before)
    s12, s23 = triple(w1.max((1, 2, 3)), w2.max((1, 2, 3)), w3.max((0, 2, 3)))
    swept = Equalize(reach_limit=0, tolerance=1e-9, sweeps=1000, max_scale=1e9)(model).graph
    w1, w2, w3 = (swept.consts[la.weight] for la in layers(swept))
    np.testing.assert_allclose(w1, before[0] / s12.reshape(-1, 1, 1, 1), rtol=1e-5)
    np.testing.assert_allclose(w2, before[1] * (s12 / s23).reshape(-1, 1, 1, 1), rtol=1e-5)
    np.testing.assert_allclose(w3, before[2] * s23.reshape(1, -1, 1, 1), rtol=1e-5)


def test_dominance_by_hand() -> None:
    x, n = np.array([4.0, 1.0, 0.5, 0.0]), np.array([0.25, 0.5, 1.0, 1.0])
    assert dominance(x).tolist() == [1, 0.25, 0.125, 0]
    assert dominance(x, others=8.0).tolist() == [0.5, 0.125, 0.0625, 0]
    assert dominance(x, n).tolist() == [4, 1, 0.5, 0]
    assert dominance(x, n, others=2.0).tolist() == [2, 0.5, 0.25, 0]
    assert dominance(np.zeros(2)).tolist() == [0, 0]
    assert dominance(np.array([4.0, 0.0]), np.array([0.0, 1.0])).tolist() == [1, 0]  # nothing of it is read


def test_matching_by_hand() -> None:
    """min(kerScale, actScale, S_max) of kerScale = 1, 4, 8, ∞, 1/32 and actScale = 2, 1, 4, ∞, 1."""
    kernel, activation = np.array([1, 0.25, 0.125, 0, 32]), np.array([0.5, 1, 0.25, 0, 1])
    assert matching(kernel, activation, 16.0).tolist() == [1, 1, 4, 16, 1 / 16]


@given(ranges, ranges, st.floats(1, 1e3))
def test_one_step_lifts_all_and_no_maximum(ker: Floats, act: Floats, s_max: float) -> None:
    c = matching(dominance(ker), dominance(act), s_max)
    assert np.all((c >= 1) & (c <= s_max * (1 + 1e-12)))
    for x in (ker, act):
        assert (c * x).max() <= x.max() * (1 + 1e-12)
    at_a_limit = np.isclose(c * ker, ker.max()) | np.isclose(c * act, act.max()) | np.isclose(c, s_max)
    assert np.all(at_a_limit)


@given(ranges, ranges, ranges)
def test_two_steps_never_lift_the_successor(ker: Floats, act: Floats, suc: Floats) -> None:
    """Both algorithms scale no channel by less than n, so that suc/C never exceeds the largest of suc."""
    n = dominance(suc)
    c = matching(dominance(ker, n), dominance(act, n), 1e20)
    assert np.all(suc / c <= suc.max() * (1 + 1e-9))
    for x in (ker, act):
        assert (c * x).max() <= (n * x).max() * (1 + 1e-9)


def test_overlap_ratio_by_hand() -> None:
    lo, hi = np.array([-1.0, -0.5, 0.0]), np.array([1.0, 0.5, 0.25])
    assert overlap_ratio(lo, hi) == pytest.approx((2 + 1 + 0.25) / 3 / 2)
    assert overlap_ratio(np.array([-1.0, -1.0]), np.array([2.0, 2.0])) == 1
    assert overlap_ratio(np.zeros(3), np.zeros(3)) == 1
