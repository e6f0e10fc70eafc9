"""Shapes that do not agree from node to node are refused when a network is read, by node."""

from typing import Any

import numpy as np
import pytest

from equint.errors import UnreadableModel
from equint.onnx.reader import read
from handwritten import network, normal

BATCHNORM: dict[str, Any] = {"g": np.ones(4), "e": np.zeros(4), "m": np.zeros(4), "v": np.ones(4)}
WRONG: dict[str, tuple[str, dict[str, Any], str]] = {
    "a join of other sizes": ("y = Concat <axis = 1> (x, k)", {"k": np.ones((1, 1, 3, 3))}, "Concat"),
    "an axis that is not there": ("y = Softmax <axis = 9> (x)", {}, "Softmax"),
    "sums of other sizes": ("y = Add (x, k)", {"k": np.ones((7, 1, 1))}, "Add"),
    "a pad of wrong length": ("y = Pad (x, k)", {"k": [1, 1]}, "Pad"),
    "places beyond the end": ("y = Gather <axis = 1> (x, k)", {"k": [9]}, "place 9 of 4"),
    "places before the beginning": ("y = Gather <axis = 1> (x, k)", {"k": [-5]}, "place -5 of 4"),
    "steps of 0": ("y = Slice (x, s, t, a, k)", {"s": [0], "t": [2], "a": [1], "k": [0]}, "cannot be 0 for Slice"),
    "a bias of another length": ("f = Flatten(x) y = Gemm(f, w, b)", {"w": np.ones((4, 3)), "b": np.ones(4)}, "bias b"),
    "more than memory holds": ("y = Expand (x, k)", {"k": [1000, 4, 1000, 1000]}, "GiB"),
    "a variance below 0": ("y = BatchNormalization(x, g, e, m, v)", {**BATCHNORM, "v": -np.ones(4)}, "variance v"),
    "a short mean": ("y = BatchNormalization(x, g, e, m, v)", {**BATCHNORM, "m": np.ones(3)}, "between 3 and 4"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_does_not_fit_is_refused_by_node(what: str) -> None:
    body, consts, said = WRONG[what]
    with pytest.raises(UnreadableModel, match=said):
        read(network(body, inputs="float[N,4,1,1] x", output="float[] y", **consts))


def test_what_fits_is_read() -> None:
    body = "a = Conv(x, w) y = BatchNormalization(a, g, e, m, v)"
    proto = network(body, inputs="float[N,4,6,6] x", w=normal(4, 4, 1, 1), **BATCHNORM)
    assert [node.op for node in read(proto).graph.nodes] == ["Conv", "BatchNormalization"]
