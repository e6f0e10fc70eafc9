"""Networks that onnxruntime does not load or run are refused before work starts."""

import numpy as np
import pytest

from equint.errors import UnreadableModel
from equint.ir.model import Graph, Model, Node
from equint.runtime.entrance import check_runs


def test_what_runs_on_several_rows_alone_is_let_in() -> None:
    node = Node("Reshape", ("x", "k"), ("y",))
    check_runs(Model(Graph((node,), {"k": np.array([-1, 4, 3])}, ("x",), ("y",), {"x": ("NT", 3)})))


def test_what_runs_on_nothing_is_refused_with_the_node() -> None:
    node = Node("Reshape", ("x", "k"), ("y",), name="shaped")
    graph = Graph((node,), {"k": np.array([7, 11])}, ("x",), ("y",), {"x": (1, 3)})
    with pytest.raises(UnreadableModel, match=r"the network: .*shaped.*export it again"):
        check_runs(Model(graph))


def test_operators_of_others_are_left_to_others() -> None:
    node = Node("Thing", ("x",), ("y",), domain="com.nobody")
    check_runs(Model(Graph((node,), {}, ("x",), ("y",), {"x": (1, 3)}, domains={"com.nobody": 1})))


def test_inputs_of_open_sizes_are_not_judged() -> None:
    node = Node("Reshape", ("x", "k"), ("y",))
    check_runs(Model(Graph((node,), {"k": np.array([7, 11])}, ("x",), ("y",), {"x": ("N", "T")})))
