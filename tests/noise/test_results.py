"""Results spread further than sums of independent features would: by hand."""

from typing import Literal

import numpy as np
import pytest

from equint.graph.moments import propagate
from equint.ir.model import Moments
from equint.noise.constants import NoiseModel
from equint.noise.results import wide_results
from equint.onnx.reader import read
from handwritten import network, normal

STD = np.array([1.5, 0.7, 0.4])
X = Moments(np.zeros((1, 3, 1, 1)), STD.reshape(1, 3, 1, 1), "given")


@pytest.mark.parametrize("times", [2.5, 1.0])
def test_only_last_layers_without_batchnorm_are_widened(times: float) -> None:
    """The spread of independent inputs is √Σ w²·σ²; `r` is fed by a layer, too, but one that another follows."""
    w, v = normal(4, 3, 1, 1), normal(2, 4, 1, 1)
    graph = read(network("h = Conv(x, w) r = Relu(h) y = Conv(r, v)", w=w, v=v)).graph
    moments = propagate(graph, {"x": X})
    found = wide_results(graph, moments, NoiseModel(results=times))
    wanted = times * np.sqrt(np.square(v.reshape(2, 4)) @ np.square(moments["r"].std.reshape(4)))
    assert set(found) == {"y"}
    np.testing.assert_allclose(found["y"].std.reshape(-1), wanted, rtol=1e-6)
    np.testing.assert_array_equal(found["y"].mean, moments["y"].mean)


@pytest.mark.parametrize(("source", "wide"), [("batchnorm", False), ("calibration", False), ("generated", True)])
def test_what_batchnorm_or_calibration_tells_is_believed(
    source: Literal["batchnorm", "calibration", "generated"], wide: bool
) -> None:
    graph = read(network("y = Conv(x, w)", w=normal(4, 3, 1, 1))).graph
    one = np.ones((1, 4, 1, 1))
    assert ("y" in wide_results(graph, {"x": X, "y": Moments(one, one, source)})) == wide
