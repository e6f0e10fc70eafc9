"""Functions of one value in several operators: which tensors lie inside, and what they compute, against onnxruntime."""

from typing import Any

import numpy as np
import pytest

import equint
from equint.ops.pointwise import inner_values, is_pointwise, value_of
from handwritten import execute, network

NOTHING = lambda node: False
BODIES = {
    "SiLU": ("s = Sigmoid (x) y = Mul (x, s)", {"s": "x"}),
    "GELU": (
        "d = Div (x, c) e = Erf (d) f = Add (e, one) p = Mul (x, f) y = Mul (p, half)",
        dict.fromkeys("defp", "x"),
    ),
    "HardSwish": (
        "a = Add (x, three) r = Clip (a, zero, six) p = Mul (x, r) y = Div (p, six)",
        dict.fromkeys("arp", "x"),
    ),
    "norm of one value": ("q = Mul (x, x) e = Add (q, one) r = Sqrt (e) y = Div (x, r)", dict.fromkeys("qer", "x")),
    "leaky": ("l = LeakyRelu <alpha = 0.3> (x) y = Max (l, one)", {"l": "x"}),
    "read elsewhere": ("s = Sigmoid (x) t = Mul (x, s) u = Transpose (s) v = Transpose (u) y = Add (t, v)", {}),
    "two values": ("t = Transpose (x) u = Transpose (t) s = Sigmoid (u) y = Mul (x, s)", {}),
}
NUMBERS = {"c": np.sqrt(2), "one": 1.0, "half": 0.5, "three": 3.0, "zero": 0.0, "six": 6.0}


@pytest.mark.parametrize("kind", BODIES)
def test_what_lies_inside(kind: str) -> None:
    body, wanted = BODIES[kind]
    consts: dict[str, Any] = {name: np.float32(value) for name, value in NUMBERS.items()}
    proto = network(body, inputs="float[5] x", output="float[5] y", opset=14, **consts)
    graph = equint.load(proto).graph
    inner = inner_values(graph, NOTHING)
    if not any(node.op in ("HardSwish", "Gelu", "Swish") for node in graph.nodes):  # read as one operator
        assert inner == wanted
    x = np.linspace(-4, 4, 5).astype(np.float32)
    values = {"x": x.astype(np.float64)}
    for node in graph.nodes:
        if is_pointwise(graph, node):
            values[node.outputs[0]] = value_of(graph, node, values)
        else:
            values[node.outputs[0]] = values[node.inputs[0]]  # a transposed vector
    np.testing.assert_allclose(values["y"], execute(proto, x)[0], rtol=1e-5, atol=1e-6)


def test_a_node_that_is_kept_ends_a_function() -> None:
    consts: dict[str, Any] = {name: np.float32(value) for name, value in NUMBERS.items()}
    body = "a = Add (x, three) r = Relu (a) y = Sqrt (r)"
    graph = equint.load(network(body, inputs="float[5] x", output="float[5] y", **consts)).graph
    assert inner_values(graph, NOTHING) == {"a": "x", "r": "x"}
    assert inner_values(graph, lambda node: node.op == "Relu") == {}
