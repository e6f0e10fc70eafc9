"""The predicted noise against loops over layers and channels, its gradient against differences."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import ModelProto
from scipy.stats import laplace

from equint.graph.channels import Channels, rescale, solve
from equint.ir.model import Model, QSpec
from equint.maths.affine import choose_qparams
from equint.maths.noise import rounding
from equint.noise.constants import MEASURED
from equint.noise.gains import gains
from equint.noise.objective import Formats, Objective
from equint.noise.rounded import RoundedLayer, RoundedTensor, rounded_layers, rounded_tensors
from equint.onnx.reader import read
from equint.ops.layers import layers
from equint.passes.activation_ranges import ActivationRanges
from equint.passes.fold_batchnorm import FoldBatchnorm
from equint.samples.card import described
from nets import BLOCKS, Net, networks

Floats = NDArray[np.float64]

WEIGHTS = {
    "per tensor": QSpec(8, signed=True, symmetric=True),
    "per tensor, asymmetric": QSpec(4, signed=True, symmetric=False),
    "per tensor and shift": QSpec(4, signed=False, symmetric=False, granularity="shift"),
    "per channel": QSpec(4, signed=True, symmetric=True, granularity="channel"),
    "per channel, asymmetric": QSpec(8, signed=True, symmetric=False, granularity="channel"),
}
ACTIVATIONS = {
    "float": None,
    "asymmetric": QSpec(8, signed=False, symmetric=False),
    "symmetric": QSpec(6, signed=True, symmetric=True),
    "by sign": QSpec(6, signed=True, symmetric=True, by_sign=True),
}
formats = pytest.mark.parametrize("weight", WEIGHTS)
APART = tuple(name for name in BLOCKS if name != "shared_weights")
"""A range is found by the name of its weight, so every layer needs one of its own where ranges are compared."""


@dataclass(frozen=True)
class Case:
    """An objective and what it was made from; every grid may move, and every clip's bound."""

    model: Model
    channels: Channels
    tensors: list[RoundedTensor]
    weights: list[RoundedLayer]
    movable: frozenset[str]
    noise: Objective

    def start(self, seed: int = 0, spread: float = 0.5) -> Floats:
        free, scales = self.noise.free, np.ones(self.channels.size)
        scales[free] = np.exp(np.random.default_rng(seed).normal(0, spread, free.size))
        return np.asarray(self.noise.start(scales), np.float64)

    def classes(self, s: RoundedTensor) -> NDArray[np.int64]:
        """Of every channel of a tensor."""
        return np.broadcast_to(self.channels.ids[s.name], s.shape).ravel()

    def lift(self, s: RoundedLayer) -> Floats:
        """2^S of every output channel of a layer, `(G, O)`."""
        shift = self.noise.shifts().get(s.layer.y, np.zeros(s.gain.size, np.int32))
        return np.asarray(2.0 ** shift.reshape(s.gain.shape))

    def narrowed(self, x: Floats, by: float) -> Floats:
        """The same scales with all ranges `by` times as wide."""
        return x + np.where(np.arange(x.size) < self.noise.free.size, 0, np.log(by))


def case(proto: ModelProto, weight: str, activation: str = "asymmetric", ranged: bool = True) -> Case:
    model = ActivationRanges()(FoldBatchnorm()(described(read(proto), (-3, 3))))
    model = model if ranged else replace(model, ranges={})
    gain = gains(model.graph, model.moments)
    clips = {s.name: s.activation.clip for s in rounded_tensors(model, gain)}
    movable = frozenset(name for name, clip in clips.items() if clip is not None and clip.outputs[0] == name)
    channels = solve(model, priced=movable)
    tensors, weights = list(rounded_tensors(model, gain, channels.ids)), list(rounded_layers(model, gain))
    formats = Formats(WEIGHTS[weight], ACTIVATIONS[activation], shift_bits=4)
    noise = Objective(model, channels, tensors, weights, formats, movable)
    return Case(model, channels, tensors, weights, movable, noise)


def plain(seed: int = 0) -> ModelProto:
    """Two residual branches, clips, a leaky ReLU, depthwise layers and an average."""
    net = Net(seed)
    x = net.relu6(net.batchnorm(net.conv(net.input, 6)))
    y = net.leaky(net.conv(x, 6, groups=6))
    y = net.relu6(net.add(x, net.batchnorm(net.conv(y, 6, 1))))
    y = net.conv(net.relu(net.conv(net.avgpool(y), 8)), 4)
    return net.build(net.gemm(net.flatten(net.globalpool(y)), 5))


# The gradient


@pytest.mark.slow
@pytest.mark.parametrize("activation", ACTIVATIONS)
@formats
@settings(max_examples=4)
@given(networks(count=(1, 4)), st.integers(0, 99))
def test_the_gradient_agrees_with_differences(weight: str, activation: str, proto: ModelProto, seed: int) -> None:
    """Where ranges hold nearly everything, and where weights and values are cut off."""
    it, rng = case(proto, weight, activation), np.random.default_rng(seed)
    for by in (1.0, 0.4):
        x = it.narrowed(it.start(seed), by) + rng.normal(0, 0.1, it.noise.size)
        _, gradient = it.noise(x)
        for _ in range(3):
            d, step = rng.normal(size=x.size), 1e-6
            ends = [it.noise(x + sign * step * d)[0].total for sign in (1, -1)]
            slack = 1e-4 * float(np.linalg.norm(gradient * d)) + 1e-9 * max(ends)
            assert float(gradient @ d) == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=slack)


@pytest.mark.slow
@formats
def test_every_part_of_the_gradient_agrees_with_differences(weight: str) -> None:
    """One variable at a time, in a network that has all kinds of noise."""
    it = case(plain(), weight)
    x = it.narrowed(it.start(), 0.5)
    noise, gradient = it.noise(x)
    assert min(noise.weights, noise.clipped_weights, noise.activations, noise.clipped_activations) > 0
    slopes = []
    for one in np.eye(x.size) * 1e-5:
        slopes.append((it.noise(x + one)[0].total - it.noise(x - one)[0].total) / 2e-5)
    np.testing.assert_allclose(gradient, slopes, rtol=1e-4, atol=1e-6 * float(np.abs(gradient).max()))


# The value


@pytest.mark.slow
@formats
@settings(max_examples=15)
@given(networks(blocks=APART))
def test_weight_noise_is_the_sum_over_layers(weight: str, proto: ModelProto) -> None:
    it, spec = case(proto, weight), WEIGHTS[weight]
    x = it.start()
    scales, ranges, total = it.noise.scales(x), it.noise.weight_ranges(x), 0.0
    levels = 2 ** (spec.bits - 1) - 1 if spec.symmetric else 2**spec.bits - 1
    for s in it.weights:
        gives = scales[it.channels.of_output(it.model.graph, s.layer)].reshape(s.gain.shape)
        takes = scales[it.channels.of_input(it.model.graph, s.layer)].reshape(s.energy.shape)
        chosen = ranges[s.layer.y]
        step = (chosen.hi if spec.symmetric else chosen.hi - chosen.lo) / levels
        step = step.reshape(s.gain.shape) if step.ndim else step
        total += float(
            (s.gain * (gives / it.lift(s)) ** 2 * rounding(step) * (s.energy / takes**2).sum(-1, keepdims=True)).sum()
        )
    assert it.noise(x)[0].weights == pytest.approx(total, rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("activation", ACTIVATIONS)
@settings(max_examples=15)
@given(networks())
def test_activation_noise_is_the_sum_over_channels(activation: str, proto: ModelProto) -> None:
    it, spec = case(proto, "per tensor", activation), ACTIVATIONS[activation]
    x = it.start()
    scales, ranges, total = it.noise.scales(x), it.noise.tensor_ranges(x), 0.0
    for s in it.tensors if spec is not None else ():
        step = float(ranges[s.grid].hi - ranges[s.grid].lo) / (2**spec.bits - 1) if spec is not None else 0.0
        ids = it.classes(s)
        for c, scale in enumerate(scales[ids]):
            total += s.scattered[c] * s.active[c] * (scale * step) ** 2 / 12
    assert it.noise(x)[0].activations == pytest.approx(total, rel=1e-9)


@pytest.mark.slow
def test_what_is_cut_off_counts_as_often_as_is_told() -> None:
    it, formats = case(plain(), "per tensor"), Formats(WEIGHTS["per tensor"], ACTIVATIONS["asymmetric"], shift_bits=4)
    model = replace(MEASURED, saturation=4.0)
    often = Objective(it.model, it.channels, it.tensors, it.weights, formats, it.movable, model)
    x = it.narrowed(it.start(), 0.5)
    (once, _), (noise, _) = it.noise(x), often(x)
    assert noise.clipped_activations == pytest.approx(4 * once.clipped_activations)
    assert replace(noise, clipped_activations=once.clipped_activations) == once


def leaky(z: Floats, s: RoundedTensor) -> Floats:
    """What the tensor's activation makes of values, but for its upper bound."""
    return np.maximum(np.where(z < 0, s.activation.slope * z, z), s.activation.floor)


@pytest.mark.slow
@pytest.mark.parametrize("by", [0.3, 2.0])
@settings(max_examples=10)
@given(networks(count=(1, 4)))
def test_what_ranges_cut_off_against_sampling(by: float, proto: ModelProto) -> None:
    """Channel by channel: a grid saturates at its ends, and is all that clips where the bound may move."""
    it = case(proto, "per tensor")
    wider = [replace(s, before=replace(s.before, down=1.5 * s.before.down)) for s in it.tensors]
    formats = Formats(WEIGHTS["per tensor"], ACTIVATIONS["asymmetric"])
    it = replace(it, tensors=wider, noise=Objective(it.model, it.channels, wider, it.weights, formats, it.movable))
    x = it.narrowed(it.start(), by)
    scales, ranges, total, power = it.noise.scales(x), it.noise.tensor_ranges(x), 0.0, 0.0
    unit = laplace(scale=1 / np.sqrt(2)).ppf((np.arange(5000) + 0.5) / 5000)[:, None]
    for s in it.tensors:
        lowest, highest = (float(end) * scales[it.classes(s)] for end in (ranges[s.grid].lo, ranges[s.grid].hi))
        above, below = (leaky(s.before.mean + spread * unit, s) for spread in (s.before.up, s.before.down))
        wanted = np.minimum(above, s.activation.cap)
        moves = s.activation.clip is not None and s.activation.clip.outputs[0] in it.movable
        square = np.square(np.minimum(above if moves else wanted, highest) - wanted)
        square += np.square(np.maximum(below, lowest) - below)
        total += float((s.steady * square.mean(0)).sum())
        power += float((s.steady * np.square(s.before.up)).sum())
    assert it.noise(x)[0].clipped_activations == pytest.approx(total, rel=0.02, abs=1e-3 * power)


@pytest.mark.slow
@formats
@settings(max_examples=15)
@given(networks(blocks=APART), st.integers(0, 99))
def test_clipped_weights_are_all_seen(weight: str, proto: ModelProto, seed: int) -> None:
    """The largest tap of every pair of channels, wherever the noise was asked for before: by small steps and large."""
    it, rng = case(proto, weight), np.random.default_rng(seed)
    wide = it.start(seed)
    narrow = it.narrowed(wide, 0.5) - rng.uniform(0, 0.3, wide.size) * (np.arange(wide.size) >= it.noise.free.size)
    for share in (0.0, 0.1, 0.2, 0.5, 0.6, 1.0, 0.9):
        x = wide + share * (narrow - wide) + rng.normal(0, 0.02, wide.size)
        assert it.noise(x)[0].clipped_weights == pytest.approx(hinge(it, x, WEIGHTS[weight]), rel=1e-4, abs=1e-30)


@pytest.mark.slow
@settings(max_examples=15)
@given(networks(blocks=APART), st.integers(0, 99), st.sampled_from([0.5, 1.0, 1.7]))
def test_shifts_chosen_anew_never_cost_more(proto: ModelProto, seed: int, by: float) -> None:
    it = case(proto, "per tensor and shift")
    x = it.narrowed(it.start(seed), by)
    before = it.noise(x)[0].total
    it.noise.choose_shifts(x)
    after = it.noise(x)[0].total
    assert after <= before * (1 + 1e-6)
    it.noise.choose_shifts(x)
    assert it.noise(x)[0].total <= after * (1 + 1e-6)
    assert all(s.min() >= 0 and s.max() <= 15 for s in it.noise.shifts().values())


POWERS = {
    "powers, per tensor": QSpec(8, power_of_two=True),
    "powers, asymmetric": QSpec(4, symmetric=False, power_of_two=True),
    "powers, per channel": QSpec(6, granularity="channel", power_of_two=True),
}


@pytest.mark.slow
@pytest.mark.parametrize("weight", POWERS)
@settings(max_examples=8)
@given(proto=networks(blocks=APART), seed=st.integers(0, 99), by=st.sampled_from([0.5, 1.0, 1.7]))
def test_the_best_powers_of_two(weight: str, proto: ModelProto, seed: int, by: float) -> None:
    """What is chosen gives grids whose scales are powers of two, and no single range would do better with another."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(WEIGHTS, weight, POWERS[weight])
        patch.setitem(ACTIVATIONS, "powers", QSpec(8, power_of_two=True))
        it = case(proto, weight, "powers")
    x = it.narrowed(it.start(seed), by)
    for _ in range(8):  # each tries the powers next to it
        x = it.noise.with_powers(x)
    ranges = [(r, POWERS[weight]) for r in it.noise.weight_ranges(x).values()]
    ranges += [(r, QSpec(8)) for r in it.noise.tensor_ranges(x).values()]
    for r, spec in ranges:
        scale = choose_qparams(r.lo, r.hi, replace(spec, power_of_two=False)).scale
        np.testing.assert_allclose(np.log2(scale), np.rint(np.log2(scale)), atol=1e-5)
        np.testing.assert_allclose(choose_qparams(r.lo, r.hi, replace(spec, power_of_two=True)).scale, scale, rtol=1e-6)
    ends = it.noise.weights.ends + [it.noise.tensors.high]
    assert {*np.concatenate(it.noise.powers)} == {*np.concatenate(ends)}
    it.noise.settled = np.concatenate(ends)
    least, gradient = it.noise(x)
    assert not gradient[it.noise.settled].any()  # from now on they stay
    for unit in range(min(6, ends[0].size)):
        for factor in (0.5, 2.0):
            other = x.copy()
            for variables in it.noise.weights.ends:
                other[variables[unit]] += np.log(factor)
            assert it.noise(other)[0].total >= least.total * (1 - 1e-9)
    for variable in it.noise.tensors.high[:6]:
        for factor in (0.5, 2.0):
            other = x.copy()
            other[variable] += np.log(factor)
            assert it.noise(other)[0].total >= least.total * (1 - 1e-9)


def hinge(it: Case, x: Floats, spec: QSpec) -> float:
    """What lies outside the weights' ranges, from the rescaled weights themselves."""
    scales, ranges, total = it.noise.scales(x), it.noise.weight_ranges(x), 0.0
    scaled = rescale(it.model, it.channels, scales).graph
    weights = {layer.y: layer.unpack(scaled.consts[layer.weight]).astype(np.float64) for layer in layers(scaled)}
    for s in it.weights:
        w, (lo, hi) = weights[s.layer.y], (ranges[s.layer.y].lo, ranges[s.layer.y].hi)
        lo, hi = (np.broadcast_to(e.reshape(s.gain.shape) if e.ndim else e, s.gain.shape)[..., None] for e in (lo, hi))
        w = w * it.lift(s)[..., None, None]
        over, under = np.maximum(w.max(-1) - hi, 0), np.maximum(lo - w.min(-1), 0)
        square = np.maximum(over, under) ** 2 if spec.symmetric else over**2 + under**2
        gives = scales[it.channels.of_output(it.model.graph, s.layer)].reshape(s.gain.shape)
        takes = scales[it.channels.of_input(it.model.graph, s.layer)].reshape(s.energy.shape)
        worth = s.gain * (gives / it.lift(s)) ** 2, s.energy / takes**2 / s.taps
        total += float(np.einsum("go,gi,goi->", *worth, square))
    return total


# Ranges


@pytest.mark.slow
@formats
@settings(max_examples=15)
@given(networks(blocks=APART), st.integers(0, 99))
def test_the_start_holds_all_weights_and_reaches_no_further(weight: str, proto: ModelProto, seed: int) -> None:
    it, spec = case(proto, weight), WEIGHTS[weight]
    x = it.start(seed)
    noise = it.noise(x)[0]
    assert noise.clipped_weights <= 1e-9 * noise.weights
    scaled = rescale(it.model, it.channels, it.noise.scales(x)).graph
    weights = {layer.y: layer.unpack(scaled.consts[layer.weight]) for layer in layers(scaled)}
    ranges = it.noise.weight_ranges(x)
    for s in it.weights:
        chosen, w = ranges[s.layer.y], weights[s.layer.y] * it.lift(s)[..., None, None]
        rows = w.reshape(chosen.hi.size, -1)  # one a channel, or one in all
        lo, hi = np.minimum(rows.min(1), 0), np.maximum(rows.max(1), 0)
        lo, hi = (np.minimum(lo, -hi), np.maximum(-lo, hi)) if spec.symmetric else (lo, hi)
        slack = 1e-5 * float(np.abs(w).max()) + 1e-20  # no range is quite zero
        np.testing.assert_allclose(chosen.lo.reshape(-1), lo, rtol=1e-5, atol=slack)
        np.testing.assert_allclose(chosen.hi.reshape(-1), hi, rtol=1e-5, atol=slack)


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["asymmetric", "symmetric"])
@settings(max_examples=15)
@given(networks(), st.integers(0, 99), st.booleans())
def test_the_start_holds_all_that_tensors_reach(activation: str, proto: ModelProto, seed: int, ranged: bool) -> None:
    """By their ranges or else six deviations, but no further than what clips them."""
    it = case(proto, "per tensor", activation, ranged)
    x = it.start(seed)
    scales, ranges, ends = it.noise.scales(x), it.noise.tensor_ranges(x), dict[int, list[float]]()
    for s in it.tensors:
        lo, hi = s.before.mean - 6 * s.before.std, s.before.mean + 6 * s.before.std
        if ranged:
            known = it.model.ranges[s.name]
            lo, hi = (np.broadcast_to(e, s.shape).ravel() for e in (known.lo, known.hi))
        scale, between = scales[it.classes(s)], s.activation
        lo, hi = np.maximum(lo, between.floor) / scale, np.minimum(hi, between.cap) / scale
        least, most = ends.get(s.grid, [0.0, 0.0])
        ends[s.grid] = [min(least, float(lo.min())), max(most, float(hi.max()))]
    assert ranges.keys() == ends.keys()
    for grid, (least, most) in ends.items():
        far = max(-least, most)
        if activation == "symmetric":
            least, most = -far, far
        assert float(ranges[grid].lo) == pytest.approx(least, abs=1e-6 * far)
        assert float(ranges[grid].hi) == pytest.approx(most, abs=1e-6 * far)


def test_only_grids_of_the_tensors_given_are_variables() -> None:
    it = case(plain(), "per tensor")
    fixed = {it.tensors[0].grid, it.tensors[-1].grid}
    tensors = [s for s in it.tensors if s.grid not in fixed]
    formats = Formats(WEIGHTS["per tensor"], ACTIVATIONS["asymmetric"])
    rest = Objective(it.model, it.channels, tensors, it.weights, formats, it.movable)
    assert set(rest.tensor_ranges(rest.start(np.ones(it.channels.size)))) == {s.grid for s in it.tensors} - fixed
    assert it.noise.size - rest.size == sum(1 + (it.noise.tensor_ranges(it.start())[g].lo < 0) for g in fixed)


# Invariance


@pytest.mark.slow
@settings(max_examples=15)
@given(networks(blocks=APART), st.integers(0, 99))
def test_output_scales_cost_nothing_where_every_channel_has_its_grid(proto: ModelProto, seed: int) -> None:
    """Each layer by itself: its rows grow, their steps grow as much, and their gains shrink."""
    it, rng = case(proto, "per channel", "float"), np.random.default_rng(seed)
    for s in it.weights:
        if s.layer.out_axis() is None:  # a grouped ConvTranspose has one grid for all
            continue
        gives, takes = it.channels.of_output(it.model.graph, s.layer), it.channels.of_input(it.model.graph, s.layer)
        alone = Objective(it.model, it.channels, [], [s], Formats(WEIGHTS["per channel"], None), it.movable)
        scales = np.ones(it.channels.size)
        own = np.setdiff1d(gives, takes)
        scales[own] = np.exp(rng.normal(size=own.size))
        ends = [alone(alone.start(given))[0].weights for given in (scales, np.ones(it.channels.size))]
        assert ends[0] == pytest.approx(ends[1], rel=1e-6)


@pytest.mark.slow
@formats
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_one_factor_for_all_channels_of_a_tensor_changes_nothing(weight: str, activation: str) -> None:
    """Everything is in original units: where all that share grids are scaled alike, so are the grids."""
    it = case(plain(), weight, activation)
    assert len(it.channels.groups) >= 4
    scales = np.ones(it.channels.size)
    before = it.noise(it.noise.start(scales))[0]
    for group in it.channels.groups:
        factor = np.ones(it.channels.size)
        factor[group.classes] = 2.7
        after = it.noise(it.noise.start(factor))[0]
        assert after.weights == pytest.approx(before.weights, rel=1e-5)
        assert after.activations == pytest.approx(before.activations, rel=1e-6)
        assert after.clipped_activations == pytest.approx(before.clipped_activations, rel=1e-6)
