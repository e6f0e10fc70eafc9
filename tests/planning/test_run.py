"""Passes run in order, are verified after each, and are timed."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest

from equint.errors import EquintError
from equint.ir.events import EventKind
from equint.ir.model import Graph, Model, Moments, Node
from equint.ops.layers import tiny_graph
from equint.passes import Keeps, Stage
from equint.passes.fold_batchnorm import FoldBatchnorm
from equint.passes.quantize import Quantize
from equint.planning.run import run


@dataclass(frozen=True)
class SpoilMoments:
    """A pass with a bug."""

    keeps: ClassVar[Keeps] = Keeps.FLOATS
    stage: ClassVar[Stage] = Stage.BEFORE

    def __call__(self, model: Model) -> Model:
        return replace(model, moments={"y": Moments(np.array(np.nan), np.array(1.0))})


def test_progress_and_time_are_told_for_each_pass() -> None:
    told: list[tuple[str, int, int]] = []
    model = run(Model(tiny_graph()), [FoldBatchnorm(), Quantize(activation=None)], lambda *what: told.append(what))
    assert told == [("fold_batchnorm", 0, 2), ("quantize", 1, 2)]
    timed = [e for e in model.log if e.kind is EventKind.RAN]
    assert [e.facts["pass"] for e in timed] == ["fold_batchnorm", "quantize"]
    assert all(e.facts["seconds"] >= 0 for e in timed)


def test_a_pass_that_damages_the_model_is_named() -> None:
    with pytest.raises(EquintError, match=r"moments of y.*after spoil_moments"):
        run(Model(tiny_graph()), [SpoilMoments()])


@dataclass(frozen=True)
class Break:
    """A pass that promises more than it keeps."""

    keeps: Keeps
    what: Callable[[Graph], Graph]
    stage: ClassVar[Stage] = Stage.BEFORE

    def __call__(self, model: Model) -> Model:
        return replace(model, graph=self.what(model.graph))


def other_weights(graph: Graph) -> Graph:
    return graph.with_consts({"w": 2 * graph.consts["w"]})


def other_attributes(graph: Graph) -> Graph:
    return graph.with_nodes(replace(node, attrs={**node.attrs, "auto_pad": "VALID"}) for node in graph.nodes)


def one_node_more(graph: Graph) -> Graph:
    first = replace(graph.nodes[0], outputs=("early",))
    return graph.with_nodes([first, Node("Relu", ("early",), graph.nodes[0].outputs), *graph.nodes[1:]])


def with_bias(graph: Graph) -> Graph:
    node = graph.nodes[0]
    return graph.with_nodes([replace(node, inputs=(*node.inputs[:2], "b"))], {"b": np.zeros(4, np.float32)})


@pytest.mark.parametrize(
    ("keeps", "what"),
    [
        (Keeps.FLOATS, other_weights),
        (Keeps.FLOATS, one_node_more),
        (Keeps.TOPOLOGY, one_node_more),
        (Keeps.TOPOLOGY, other_attributes),
    ],
)
def test_a_promise_that_is_not_kept_names_the_pass(keeps: Keeps, what: Callable[[Graph], Graph]) -> None:
    with pytest.raises(EquintError, match=f"pass break promises '{keeps.value}"):
        run(Model(tiny_graph()), [Break(keeps, what)])


@pytest.mark.parametrize(
    ("keeps", "what"),
    [(Keeps.TOPOLOGY, other_weights), (Keeps.TOPOLOGY, with_bias), (Keeps.FUNCTION, one_node_more)],
)
def test_what_was_not_promised_may_change(keeps: Keeps, what: Callable[[Graph], Graph]) -> None:
    after, wanted = run(Model(tiny_graph()), [Break(keeps, what)]).graph, what(tiny_graph())
    assert after.nodes == wanted.nodes
    assert after.consts.keys() == wanted.consts.keys()
    for name, value in wanted.consts.items():
        np.testing.assert_array_equal(after.consts[name], value)
