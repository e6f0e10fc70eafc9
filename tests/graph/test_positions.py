"""Constants that differ by position are values that a channel takes: moments and ranges against onnxruntime."""

from typing import Any

import numpy as np
import pytest

import equint
from equint.graph.inputs import describe_range
from equint.graph.moments import propagate
from equint.graph.ranges import tensor_ranges
from equint.ir.model import Moments
from equint.onnx.reader import read
from handwritten import execute, network, normal

GRID = np.stack(np.meshgrid(np.linspace(-1, 1, 8), np.linspace(0, 7, 8)))[None]
SHAPES = {"every position": (1, 4, 8, 8), "a map": (8, 8), "one channel": (1, 1, 8, 8), "a row": (8,)}


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Max"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_moments_and_ranges_hold_all_positions(op: str, shape: tuple[int, ...]) -> None:
    proto = network(f"a = Conv(x, w) y = {op}(a, k)", w=normal(4, 3, 1, 1), k=normal(*shape, seed=3, scale=2))
    graph = read(proto).graph
    given = {"x": Moments(np.zeros((1, 3, 1, 1)), np.ones((1, 3, 1, 1)), "given")}
    moments = propagate(graph, given)
    y = execute(proto, normal(400, 3, 8, 8, scale=1))[0].astype(np.float64)
    assert moments["y"].mean.shape in ((1, 4, 1, 1), (1, 1, 1, 1))
    over = (0, 2, 3)
    np.testing.assert_allclose(moments["y"].mean.ravel(), y.mean(over), atol=0.1 * float(y.std()))
    np.testing.assert_allclose(moments["y"].std.ravel(), y.std(over), rtol=0.15)
    found = tensor_ranges(graph, moments, {}, n=6.0)["y"]
    assert found.lo.shape in ((1, 4, 1, 1), (1, 1, 1, 1))
    assert np.all(found.lo.ravel() <= y.min(over))
    assert np.all(y.max(over) <= found.hi.ravel())


BODIES: dict[str, tuple[str, dict[str, Any]]] = {
    "added": ("r = Relu(a) k = Add(r, c) q = Relu(k) y = Conv(q, v)", {"c": normal(1, 4, 8, 8, scale=2)}),
    "multiplied": ("r = Relu(a) k = Mul(c, r) y = Conv(k, v)", {"c": normal(8, 8, scale=2)}),
    "joined": ("r = Relu(a) k = Concat <axis = 1> (r, c) y = Conv(k, u)", {"c": GRID}),
}


@pytest.mark.parametrize("how", BODIES)
@pytest.mark.parametrize("target", ["per-channel", "per-tensor", "per-tensor-clip", "npu-shift"])
def test_layers_beside_them_become_integer(how: str, target: str) -> None:
    body, consts = BODIES[how]
    inputs = "float[1,3,8,8] x" if how == "joined" else "float[N,3,8,8] x"
    weights: dict[str, Any] = {"w": normal(4, 3, 3, 3), "v": normal(2, 4, 1, 1), "u": normal(2, 6, 1, 1)}
    used = {n: w for n, w in weights.items() if n == "w" or f" {n})" in body}
    proto = network(f"a = Conv <pads = [1, 1, 1, 1]> (x, w) {body}", inputs=inputs, **used, **consts)
    model = equint.quantize(proto, target=target, input=(-3, 3)).model
    assert {"x", "k", "y"} <= model.qparams.keys() or {"x", "q", "y"} <= model.qparams.keys()
    x = np.clip(normal(1, 3, 8, 8, scale=1), -3, 3)
    wanted = execute(proto, x)[0]
    found = execute(equint.quantize(proto, target=target, input=(-3, 3)).proto, x)[0]
    assert 10 * np.log10(np.square(wanted).sum() / np.square(wanted - found).sum()) > 15


@pytest.mark.parametrize("recipe", ["lwq", "optimal"])
def test_a_joined_constant_fits_on_the_grid_that_it_shares(recipe: str) -> None:
    body, consts = BODIES["joined"]
    weights: dict[str, Any] = {"w": normal(4, 3, 3, 3), "u": normal(2, 6, 1, 1)}
    proto = network(f"a = Conv <pads = [1, 1, 1, 1]> (x, w) {body}", inputs="float[1,3,8,8] x", **weights, **consts)
    model = equint.quantize(proto, recipe, input=(-3, 3)).model
    grid = model.qparams["c"]
    assert grid is model.qparams["k"]
    assert grid.lo <= -1 + float(grid.scale)
    assert grid.hi >= 7 - float(grid.scale)


def test_a_softmax_of_which_nothing_is_known_has_the_rank_of_its_tensor() -> None:
    graph = read(network("a = Erf(x) s = Softmax <axis = 1> (a) y = Transpose <perm = [0, 2, 3, 1]> (s)")).graph
    found = tensor_ranges(describe_range(read(network("y = Relu(x)")), -1, 1).graph, {}, {}, 6.0)
    assert found == {}
    ranges = tensor_ranges(graph, {}, {}, n=6.0)
    assert ranges["y"].lo.shape == (1, 1, 1, 1)
    assert float(ranges["y"].hi.max()) == 1.0
