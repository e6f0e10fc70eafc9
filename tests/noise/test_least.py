"""The search for the least noise: what it ends with, beside what its parts give."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from onnx import ModelProto

from equint.graph.channels import solve
from equint.ir.model import Array, QSpec
from equint.noise.gains import gains
from equint.noise.least import least
from equint.noise.objective import Formats, Objective
from equint.noise.rounded import rounded_layers, rounded_tensors
from equint.onnx.reader import read
from equint.passes.activation_ranges import ActivationRanges
from equint.passes.fold_batchnorm import FoldBatchnorm
from equint.samples.card import described
from nets import Net, networks

WEIGHT, ACTIVATION = QSpec(8, narrow=True), QSpec(8, by_sign=True)


def objective(proto: ModelProto, power_of_two: bool) -> Objective:
    model = ActivationRanges()(FoldBatchnorm()(described(read(proto), (-3, 3))))
    gain, channels = gains(model.graph, model.moments), solve(model)
    tensors, layers = list(rounded_tensors(model, gain, channels.ids)), list(rounded_layers(model, gain))
    weight, activation = (replace(spec, power_of_two=power_of_two) for spec in (WEIGHT, ACTIVATION))
    return Objective(model, channels, tensors, layers, Formats(weight, activation), frozenset())


def chain(seed: int) -> ModelProto:
    """Layers between ReLUs: every tensor but the first and the last has a free scale."""
    net = Net(seed)
    x = net.relu(net.batchnorm(net.conv(net.input, 8)))
    for _ in range(4):
        x = net.relu(net.batchnorm(net.conv(x, 8)))
    return net.build(net.gemm(net.flatten(net.globalpool(x)), 5))


def ones(noise: Objective) -> list[Array]:
    return [np.ones(noise.classes)]


@pytest.mark.parametrize("seed", range(4))
def test_free_scales_make_powers_of_two_cheap(seed: int) -> None:
    """Where each range is a power of two by itself and the scales then go on, more noise is left."""
    noise = objective(chain(seed), power_of_two=True)
    free = least(objective(chain(seed), power_of_two=False), ones(noise), 200)[1].total
    x, found, steps = least(noise, ones(noise), 200)
    apart = noise.with_powers(least(objective(chain(seed), power_of_two=False), ones(noise), 200)[0])
    assert steps > 0
    assert found.total == noise(x)[0].total
    assert found.total < 1.6 * free  # 2 dB; each range alone may be off by an octave
    assert found.total < noise(apart)[0].total


@settings(max_examples=10)
@given(networks(count=(1, 4)))
def test_all_steps_are_powers_of_two(proto: ModelProto) -> None:
    noise = objective(proto, power_of_two=True)
    x = least(noise, ones(noise), 100)[0]
    for name, found in noise.weight_ranges(x).items():
        assert np.log2(found.hi / 127) == pytest.approx(np.rint(np.log2(found.hi / 127)), abs=1e-6), name
    for found in noise.tensor_ranges(x).values():
        step = np.log2((found.hi - found.lo) / (254 if found.lo < 0 else 255))
        assert step == pytest.approx(np.rint(step), abs=1e-6)


@pytest.mark.parametrize("seed", range(2))
def test_no_other_power_for_one_range_does_better_at_once(seed: int) -> None:
    noise = objective(chain(seed), power_of_two=True)
    x, found, _ = least(noise, ones(noise), 200)
    for ends in noise.powers:
        for octave in (np.log(2), -np.log(2)):
            other = x.copy()
            other[ends] += octave
            assert noise(other)[0].total > found.total * (1 - 1e-3)
