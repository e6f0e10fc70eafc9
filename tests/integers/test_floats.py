"""Steps in float: onnxruntime's results, and integers of them by hand."""

import numpy as np
import pytest

from equint.errors import UnsupportedOperator
from equint.integers.check import check
from equint.integers.emit import export_integer
from equint.integers.engine import Engine
from equint.integers.program import Program, Step
from equint.ir.model import Graph, Node, QParams
from equint.onnx.writer import to_proto
from handwritten import execute, normal


def grid(scale: float, zero: int) -> QParams:
    return QParams(np.array(scale, np.float32), np.array(zero, np.int32))


def program(graph: Graph, shape: tuple[int, ...]) -> Program:
    """Integers, float operators on what they stand for, and integers of the result."""
    steps = Step("Float", "f", ("x",), ("r",), {"graph": graph}), Step("Quantize", "f", ("r",), ("y",))
    grids, shapes = {"x": grid(0.25, 3), "y": grid(0.5, -2)}, dict.fromkeys(("x", "r", "y"), shape)
    return Program(steps, ("x",), ("y",), grids, shapes, types={"r": "float32"})


def test_integers_are_dequantized_computed_and_rounded_ties_away_from_zero() -> None:
    made = program(Graph((Node("Neg", ("a",), ("b",)),), {}, ("a",), ("b",), {"a": (1, 6), "b": (1, 6)}), (1, 6))
    check(made)
    q = np.array([[2, 4, 5, 6, 127, -128]], np.int8)
    # reals 0.25, -0.25, -0.5, -0.75, -31, 32.75; steps of 0.5: ties 0.5, -0.5, -1, -1.5, -62, 65.5; less 2
    assert Engine(made).run(q)["y"].tolist() == [[-1, -3, -3, -4, -64, 64]]


@pytest.mark.parametrize("opset", [13, 17, 21])
def test_operators_are_those_of_the_networks_opset(opset: int) -> None:
    nodes = Node("LayerNormalization", ("a", "w"), ("n",)), Node("ReduceMean", ("n",), ("b",), {"axes": [-1]})
    consts, shapes = {"w": normal(6)}, {"a": (2, 6), "n": (2, 6), "b": (2, 1)}
    if opset > 17:
        nodes, consts = (nodes[0], Node("ReduceMean", ("n", "k"), ("b",))), {**consts, "k": np.array([-1])}
    graph = Graph(nodes, consts, ("a",), ("b",), shapes, opset=opset)
    made = program(graph, (2, 6))
    taps = Engine(made, taps=["r"])
    q = np.random.default_rng(0).integers(-128, 128, (2, 6)).astype(np.int8)
    (wanted,) = execute(to_proto(graph), made.real("x", q))
    np.testing.assert_allclose(taps.run(q)["r"], wanted, 1e-5, 1e-6)


def test_networks_of_integers_have_no_place_for_them() -> None:
    made = program(Graph((Node("Neg", ("a",), ("b",)),), {}, ("a",), ("b",)), (1, 6))
    with pytest.raises(UnsupportedOperator, match="f: is computed in float"):
        export_integer(made)
