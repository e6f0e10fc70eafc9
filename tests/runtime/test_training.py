"""How far samples lie from training, against moments by hand."""

import numpy as np
import pytest

from equint.ir.model import Array
from equint.onnx.reader import read
from equint.runtime.training import Training
from handwritten import network, normal

BODY = "a = Conv(x, w) y = BatchNormalization(a, gain, bias, mean, variance)"


def trained(mean: Array, variance: Array) -> Training:
    w = np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)
    one = np.ones(3)
    return Training(read(network(BODY, w=w, gain=one, bias=0 * one, mean=mean, variance=variance)).graph)


def test_by_hand() -> None:
    """Channels are the pixels' own: means off by 1, 2 and 3 spreads, which are twice as wide as in training."""
    x = normal(64, 3, 8, 8, seed=1)
    mean, std = x.mean((0, 2, 3)), x.std((0, 2, 3)) / 2
    (apart,) = trained(mean + np.array([1, -2, 3]) * std, np.square(std)).apart([x[:32], x[32:]])
    assert apart.means == pytest.approx(2, rel=1e-4)
    assert apart.spread == pytest.approx(2, rel=1e-4)
    assert apart.distance == pytest.approx(3, rel=1e-4)


def test_nothing_to_hold_samples_against() -> None:
    assert Training(read(network("y = Relu(x)")).graph).apart([normal(1, 3, 8, 8)]) == []
    assert trained(np.zeros(3), np.zeros(3)).norms == []
