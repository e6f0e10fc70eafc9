"""Which channel dominates, and how far the others may grow."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import ArrayLike

from equint.graph.channels import rescale, solve
from equint.graph.dominance import Extremes
from equint.ir.model import Graph, Model, Name, Range
from equint.onnx.reader import read
from nets import Net


def known(model: Model, ranges: dict[Name, tuple[ArrayLike, ArrayLike]]) -> Model:
    """The model with ranges per channel of the given tensors."""
    fields = {
        n: Range(*(np.asarray(end, np.float64).reshape(1, -1, 1, 1) for end in ends)) for n, ends in ranges.items()
    }
    return replace(model, ranges=fields)


def weights(graph: Graph, position: int) -> np.ndarray:
    nodes = [n for n in graph.nodes if n.op == "Conv"]
    return np.asarray(np.abs(graph.consts[nodes[position].inputs[1]]))


def test_a_pair_of_layers_by_brute_force() -> None:
    net = Net(seed=1)
    y = net.relu(net.conv(net.input, 4))
    model = known(read(net.build(net.conv(y, 3))), {y: (np.zeros(4), [4.0, 1.0, 2.0, 0.0])})
    channels = solve(model)
    (group,), extremes = channels.groups, Extremes(model, channels)
    first, second = weights(model.graph, 0).max((1, 2, 3)), weights(model.graph, 1).max((0, 2, 3))
    limits = extremes.limits(group, np.ones(channels.size))
    np.testing.assert_allclose(limits.kernel, first / first.max(), rtol=1e-6)
    np.testing.assert_allclose(limits.activation, [1.0, 0.25, 0.5, 0.0])
    assert np.all(np.isinf(limits.room))
    np.testing.assert_allclose(extremes.successor(group, np.ones(channels.size)), second / second.max(), rtol=1e-6)
    assert extremes.known(group)
    assert extremes.alone(group)
    attenuated = extremes.limits(group, np.ones(channels.size), np.array([0.1, 1.0, 1.0, 1.0]))
    np.testing.assert_allclose(attenuated.activation, [2.0, 0.5, 1.0, 0.0])


def test_scales_of_other_channels_count() -> None:
    net = Net(seed=2)
    x = net.relu(net.conv(net.input, 3))
    y = net.relu(net.conv(x, 4))
    model = known(read(net.build(net.conv(y, 3))), {x: (np.zeros(3), np.ones(3)), y: (np.zeros(4), np.ones(4))})
    channels = solve(model)
    first, second = channels.groups
    scales = np.ones(channels.size)
    scales[first.classes] = [4.0, 0.5, 1.0]
    scales[second.classes] = [1.0, 2.0, 0.25, 1.0]
    found = Extremes(model, channels).limits(second, scales)
    moved = weights(rescale(model, channels, scales).graph, 1).max((1, 2, 3))
    np.testing.assert_allclose(found.kernel, moved / moved.max(), rtol=1e-6)
    np.testing.assert_allclose(found.activation, np.array([1.0, 0.5, 4.0, 1.0]) / 4)


def test_what_is_concatenated_has_one_dominant_channel() -> None:
    net = Net(seed=3)
    a, b = net.relu(net.conv(net.input, 2)), net.relu(net.conv(net.input, 3))
    both = net.concat(a, b)
    ends: dict[Name, tuple[ArrayLike, ArrayLike]] = {
        a: ([0, 0], [8, 2]),
        b: ([0, 0, 0], [1, 2, 4]),
        both: (np.zeros(5), [8, 2, 1, 2, 4]),
    }
    model = known(read(net.build(net.conv(both, 2))), ends)
    channels = solve(model)
    extremes = Extremes(model, channels)
    left, right = channels.groups
    np.testing.assert_allclose(extremes.limits(left, np.ones(channels.size)).activation, [1, 0.25])
    np.testing.assert_allclose(extremes.limits(right, np.ones(channels.size)).activation, [0.125, 0.25, 0.5])
    assert not extremes.alone(left)
    assert not extremes.alone(right)


def test_the_givers_of_a_sum_and_all_its_tensors_hold_it() -> None:
    net = Net(seed=4)
    a, b = net.conv(net.input, 3, 1), net.conv(net.input, 3, 1)
    y = net.relu(net.add(a, b))
    ends: dict[Name, tuple[ArrayLike, ArrayLike]] = {
        a: ([-1, -1, -1], [4, 2, 1]),
        b: ([-8, -2, -2], [1, 1, 1]),
        y: ([0, 0, 0], [2, 2, 4]),
    }
    model = known(read(net.build(net.conv(y, 2))), ends)
    channels = solve(model)
    (group,) = channels.groups
    limits = Extremes(model, channels).limits(group, np.ones(channels.size))
    rows = [weights(model.graph, k).max((1, 2, 3)) for k in (0, 1)]
    np.testing.assert_allclose(limits.kernel, np.max([r / r.max() for r in rows], 0), rtol=1e-6)
    np.testing.assert_allclose(limits.activation, [1, 0.5, 1])


@pytest.mark.parametrize(("scales", "heard"), [([1.0, 1.0], [1.0, 1.0]), ([1.0, 0.0], [1.0, 0.0])])
def test_the_loudest_taker_counts(scales: list[float], heard: list[float]) -> None:
    net = Net(seed=5)
    y = net.relu(net.conv(net.input, 2))
    takers = [net.conv(y, 2, 1), net.conv(y, 2, 1)]
    model = known(read(net.build(net.add(*takers))), {y: ([0, 0], [1, 1])})
    consts = dict(model.graph.consts)
    for node, row in zip([n for n in model.graph.nodes if n.op == "Conv"][1:], ([8.0, 2.0], [1.0, 3.0]), strict=True):
        consts[node.inputs[1]] = (np.array(row) * scales).astype(np.float32).reshape(1, 2, 1, 1).repeat(2, 0)
    model = replace(model, graph=model.graph.with_consts(consts))
    channels = solve(model)
    (group,) = channels.groups
    np.testing.assert_allclose(Extremes(model, channels).successor(group, np.ones(channels.size)), heard)


def test_unread_channels_count_as_evenly_read() -> None:
    net = Net(seed=6)
    y = net.relu(net.conv(net.input, 2))
    model = known(read(net.build(net.conv(y, 2, scale=np.zeros(2)))), {y: ([0, 0], [1, 1])})
    channels = solve(model)
    found = Extremes(model, channels).successor(channels.groups[0], np.ones(channels.size))
    assert found.tolist() == [1.0, 1.0]


def test_room_below_a_bound_for_all() -> None:
    net = Net(seed=7)
    y = net.op("Clip", net.conv(net.input, 4), net.constant(-2.0, "low"), net.constant(6.0, "high"))
    model = known(read(net.build(net.conv(y, 2))), {y: ([0, -1, -2, 0], [6, 2, 0.5, 0])})
    channels = solve(model, priced=frozenset({y}))
    extremes = Extremes(model, channels, frozenset({y}))
    np.testing.assert_allclose(extremes.room[channels.groups[0].classes], [1, 2, 1, np.inf])
    assert np.all(extremes.clipped[channels.groups[0].classes])
    assert np.all(np.isinf(Extremes(model, channels).room))


def test_without_ranges_nothing_is_known() -> None:
    net = Net(seed=8)
    model = read(net.build(net.conv(net.relu(net.conv(net.input, 4)), 2)))
    channels = solve(model)
    assert not Extremes(model, channels).known(channels.groups[0])
