import numpy as np
import pytest

from equint.ir.model import QSpec
from equint.maths.affine import choose_qparams, quantize
from equint.ops.layers import layers, tiny_graph
from equint.passes.round_weights import kernel_rounding


@pytest.mark.parametrize("seed", range(5))
def test_every_kernel_keeps_its_sum_within_half_a_step(seed: int) -> None:
    layer = next(layers(tiny_graph()))
    weight = np.random.default_rng(seed).normal(size=(4, 1, 3, 3)).astype(np.float32)
    grid = choose_qparams(weight.min(), weight.max(), QSpec(4))
    exact, nearest = weight / grid.scale, quantize(weight, grid)
    rounded = kernel_rounding(layer, weight, nearest, grid)
    assert np.abs((rounded - exact).sum((1, 2, 3))).max() <= 0.5 + 1e-3
    assert np.abs(rounded - exact).max() < 1
