"""What outputs are made of, and what bounds them."""

import numpy as np
import pytest

from equint.graph.results import bounded, parts
from equint.onnx.reader import read
from handwritten import network

TWO = "c = Concat <axis = 1> (a, b) d = Transpose <perm = [0, 2, 3, 1]> (c)"


def test_parts_are_found_behind_moves_and_joins_of_joins() -> None:
    body = f"a = Relu(x) b = Neg(x) e = Exp(x) {TWO} f = Transpose <perm = [0, 2, 3, 1]> (e)"
    body += " y = Concat <axis = 3> (d, f)"
    graph = read(network(body)).graph
    assert parts(graph, "y") == ("a", "b", "e")
    assert parts(graph, "a") == ("a",)


def test_constants_are_no_parts() -> None:
    graph = read(network("a = Relu(x) y = Concat <axis = 1> (a, k)", k=np.ones((1, 1, 8, 8)))).graph
    assert parts(graph, "y") == ("y",)


@pytest.mark.parametrize(
    ("body", "reach"), [("Sigmoid(x)", 1), ("Softmax <axis = 1> (x)", 1), ("Tanh(x)", 1), ("HardSigmoid(x)", 1)]
)
def test_what_keeps_values_within_bounds(body: str, reach: float) -> None:
    graph = read(network(f"s = {body} y = Transpose <perm = [0, 2, 3, 1]> (s)")).graph
    assert bounded(graph, "y") == ("x", reach)


@pytest.mark.parametrize(
    "body", ["Relu(x)", "Exp(x)", "Neg(x)", "Softplus(x)", "GlobalAveragePool(x)", "Clip(x, low, high)"]
)
def test_what_does_not(body: str) -> None:
    graph = read(network(f"y = {body}", low=np.array(0.0), high=np.array(6.0))).graph
    assert bounded(graph, "y") is None
