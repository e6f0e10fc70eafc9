"""How pictures were prepared: found again in BatchNorms that saw them, whatever lies before, and in folded ones."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from equint.graph.inputs import infer_input
from equint.graph.preparation import BYTES, NORMALISED, PREPARATIONS, SIGNED, UNIT, Preparation, remembered
from equint.maths.pictures import pictures
from equint.onnx.reader import read
from handwritten import execute, network, normal

Floats = NDArray[np.float32]
SHAPE = "float[N,3,32,32] x"
POOLED = "b = Conv(x, w, c) r = Relu(b) a = MaxPool <kernel_shape = [2, 2]> (r)"
BEHIND = {"at once": "a = Conv(x, w, c)", "behind": POOLED}


def shown(by: Preparation) -> Floats:
    return np.asarray(by.lo + (by.hi - by.lo) / 255 * pictures(24, 32, 32), np.float32)


def weights(seed: int) -> Floats:
    """Filters of which some are edges, without a sum, and some are colours."""
    return normal(32, 3, 3, 3, seed=seed) + normal(32, 1, 1, 1, seed=seed + 9)


@pytest.mark.parametrize("body", BEHIND.values(), ids=BEHIND)
@pytest.mark.parametrize("by", PREPARATIONS)
def test_batchnorms_remember_pictures(by: Preparation, body: str) -> None:
    x, w = shown(by), weights(1) / by.std
    (plain,) = execute(network("y = Conv(x, w)", inputs=SHAPE, w=w), x)
    c = normal(32, seed=3) - plain.mean((0, 2, 3))
    (a,) = execute(network(body.replace("a =", "y ="), inputs=SHAPE, w=w, c=c), x)
    statistics: dict[str, Any] = {"m": a.mean((0, 2, 3)), "v": a.var((0, 2, 3))}
    ones = np.ones(32, np.float32)
    consts: dict[str, Any] = {"w": w, "c": c, "g": ones, "z": 0 * ones, **statistics}
    whole = network(f"{body} y = BatchNormalization(a, g, z, m, v)", inputs=SHAPE, **consts)
    found = remembered(read(whole).graph, "x")
    assert found == (by, "the first BatchNorm") or (found is None and by in (SIGNED, NORMALISED))  # which are alike
    model = infer_input(read(whole))
    assert model.moments["x"].origin == ("inferred" if found or body != POOLED else "assumed")
    if found:
        assert (model.ranges["x"].lo.item(), model.ranges["x"].hi.item()) == (by.lo, by.hi)


def folded(by: Preparation, seed: int, shift: float) -> Any:
    """A convolution into which the BatchNorm behind it was folded, with β of that spread."""
    w = weights(seed)
    (a,) = execute(network("y = Conv(x, w)", inputs=SHAPE, w=w), shown(by))
    spread = a.std((0, 2, 3))
    bias = shift * normal(32, seed=seed + 1) - a.mean((0, 2, 3)) / spread
    body = 't = Pad <mode = "constant"> (x, p) y = Conv(t, w, c)'
    pads = np.array([0, 0, 1, 1, 0, 0, 1, 1])
    return network(body, inputs=SHAPE, w=w / spread[:, None, None, None], c=bias.astype(np.float32), p=pads)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("by", [UNIT, BYTES])
def test_biases_take_the_mean_of_pixels_out(by: Preparation, seed: int) -> None:
    assert remembered(read(folded(by, seed, 0.2)).graph, "x") == (by, "the first layer's biases")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("by", [SIGNED, NORMALISED])
def test_what_has_no_mean_leaves_no_trace(by: Preparation, seed: int) -> None:
    assert remembered(read(folded(by, seed, 0.5)).graph, "x") is None


def test_small_inputs_and_features_are_no_pictures() -> None:
    proto = folded(UNIT, 0, 0.2)
    assert infer_input(read(proto)).moments["x"].origin == "inferred"
    assert infer_input(read(proto), pictures=False).moments["x"].origin == "assumed"
