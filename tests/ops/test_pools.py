"""Pools: what windows take together, where channels do not lie behind the samples."""

import numpy as np

import equint
from handwritten import network, normal


def test_windows_over_channels_that_a_matmul_made() -> None:
    """Channels lie along the last axis, and a pool takes two of the three together: nothing is told apart behind it."""
    body = "z = MatMul(x, w) y = AveragePool <kernel_shape = [1, 2], strides = [1, 2], pads = [0, 0, 0, 1]> (z)"
    proto = network(body, inputs="float[N,2,2,4] x", output="float[N,2,2,2] y", w=normal(4, 3))
    for recipe in ("lwq", "optimal"):
        result = equint.quantize(proto, recipe, effort="fast", input=(-1, 1))
        known = result.model.moments["y"], result.model.ranges["y"]
        fields = [known[0].mean, known[0].std, known[1].lo, known[1].hi]
        assert [np.broadcast_to(field, (1, 2, 2, 2)).shape for field in fields] == [(1, 2, 2, 2)] * 4
