"""Errors put into a float network, against networks that are cut where they are put in."""

import numpy as np

from equint.ir.model import Array, Graph, Name
from equint.onnx.reader import read
from equint.onnx.writer import to_proto
from equint.runtime.injection import Injector
from handwritten import execute, network, normal

SHAPE = (3, 8, 8)
BODY = "h = Conv <pads = [1, 1, 1, 1]> (x, w) r = Relu(h) c = Conv <pads = [1, 1, 1, 1]> (r, v) y = Relu(c)"
DEEP = network(BODY, w=normal(6, 3, 3, 3), v=normal(4, 6, 3, 3, seed=2))
GRAPH = read(DEEP).graph


def pictures(count: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(0, 1, (count, *SHAPE)).astype(np.float32)


def rest_of(graph: Graph, name: Name) -> Graph:
    """What stands behind a tensor, which becomes the input."""
    at = graph.nodes.index(graph.producer[name])
    return Graph(graph.nodes[at + 1 :], graph.consts, (name,), graph.outputs, {}, opset=graph.opset)


def test_outputs_are_those_of_the_network_behind() -> None:
    x = pictures(1)
    noisy = Injector(GRAPH, {"h": None, "r": None, "x": None}, ["r", "y"])
    value, error = noisy.run({"x": x}, {})["r"], np.abs(pictures(2, seed=4)[:1].repeat(2, 1)).astype(np.float32)
    (after,) = execute(to_proto(rest_of(GRAPH, "r")), value + error)
    np.testing.assert_allclose(noisy.run({"x": x}, {"r": error})["y"], after, atol=1e-5)
    (other,) = execute(DEEP, x + np.float32(0.5))
    np.testing.assert_allclose(noisy.run({"x": x}, {"x": np.full_like(x, 0.5)})["y"], other, atol=1e-5)
    np.testing.assert_allclose(noisy.run({"x": x}, {})["y"], execute(DEEP, x)[0], atol=1e-5)


def test_errors_end_where_a_grid_ends() -> None:
    x = pictures(1)
    noisy = Injector(GRAPH, {"h": None, "r": (0.0, 1.5)}, ["r", "y"])
    plain = Injector(GRAPH, {}, ["h"]).run({"x": x}, {})["h"]
    error = pictures(2, seed=4)[:1].repeat(2, 1).astype(np.float32)
    found = noisy.run({"x": x}, {"h": error, "r": 0.1 * error})
    held = np.clip(np.maximum(plain + error, 0) + np.float32(0.1) * error, 0, 1.5)
    np.testing.assert_allclose(found["r"], held, atol=1e-5)
    np.testing.assert_allclose(found["y"], execute(to_proto(rest_of(GRAPH, "r")), held)[0], atol=1e-4)
