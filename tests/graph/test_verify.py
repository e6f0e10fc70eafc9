"""Every kind of damage to a model is found, and the message names it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from equint.errors import EquintError
from equint.graph.verify import verify
from equint.ir.model import Correction, Graph, Model, Moments, Node, QParams
from equint.onnx.reader import read
from nets import random_network

GRAPH = Graph(
    (Node("Conv", ("x", "w", "b"), ("a",), name="first"), Node("Relu", ("a",), ("y",), name="last")),
    {"w": np.ones((2, 3, 1, 1), np.float32), "b": np.zeros(2, np.float32)},
    ("x",),
    ("y",),
    {"x": ("N", 3, 8, 8), "a": ("N", 2, 8, 8), "y": ("N", 2, 8, 8)},
)
MODEL = Model(GRAPH)


def graph(**changes: Any) -> Model:
    return replace(MODEL, graph=replace(GRAPH, **changes))


def consts(name: str, value: Any) -> Model:
    return graph(consts={**GRAPH.consts, name: np.asarray(value, np.float32)})


def moments(mean: Any, std: Any) -> Model:
    return replace(MODEL, moments={"a": Moments(np.asarray(mean), np.asarray(std))})


def grid(name: str = "w", scale: Any = 1.0, zero: int = 0, bits: int = 8) -> Model:
    return replace(MODEL, qparams={name: QParams(np.asarray(scale, np.float32), np.asarray(zero), bits)})


def corrected(name: str, channels: int) -> Model:
    return replace(MODEL, corrected={name: Correction("analytic", np.ones(channels, bool))})


DAMAGE: dict[str, tuple[Callable[[], Model], str]] = {
    "missing": (lambda: graph(nodes=GRAPH.nodes[1:]), "last reads a, which nothing makes"),
    "order": (lambda: graph(nodes=GRAPH.nodes[::-1]), "last reads a"),
    "captured": (
        lambda: graph(nodes=(replace(GRAPH.nodes[0], captured=("ghost",)), GRAPH.nodes[1])),
        "first reads ghost",
    ),
    "constant gone": (lambda: graph(consts={"w": GRAPH.consts["w"]}), "first reads b"),
    "twice": (lambda: graph(nodes=(*GRAPH.nodes, GRAPH.nodes[1])), "last makes y a second time"),
    "overwritten": (lambda: graph(nodes=(*GRAPH.nodes, Node("Relu", ("a",), ("w",)))), "makes w a second time"),
    "output": (lambda: graph(outputs=("y", "z")), "output z is made by nothing"),
    "infinite weight": (lambda: consts("w", np.full((2, 3, 1, 1), np.inf)), "weights of first"),
    "weight not a number": (lambda: consts("w", np.full((2, 3, 1, 1), np.nan)), "weights of first"),
    "bias too long": (lambda: consts("b", np.zeros(3)), "bias of first has 3 values for 2 channels"),
    "infinite bias": (lambda: consts("b", [0, np.inf]), "bias of first"),
    "moments too deep": (lambda: moments(np.zeros((1, 1, 2, 1, 1)), 1.0), "moments of a have more dimensions"),
    "infinite mean": (lambda: moments(np.inf, 1.0), "moments of a"),
    "negative spread": (lambda: moments(0.0, -1.0), "moments of a"),
    "infinite spread": (lambda: moments(0.0, np.inf), "moments of a"),
    "spread not a number": (lambda: moments(0.0, np.nan), "moments of a"),
    "grid for nothing": (lambda: grid("ghost"), "ghost, which does not exist"),
    "scale zero": (lambda: grid(scale=[1.0, 0.0]), "scale of w"),
    "scale infinite": (lambda: grid(scale=np.inf), "scale of w"),
    "zero point above": (lambda: grid(zero=128), "zero point of w"),
    "correction of nothing": (lambda: corrected("y", 2), "biases of y count as corrected"),
    "correction of others": (lambda: corrected("a", 3), "biases of a count as corrected"),
    "zero point below": (lambda: grid(zero=-9, bits=4), "zero point of w"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named(damage: str) -> None:
    broken, message = DAMAGE[damage]
    with pytest.raises(EquintError, match=message):
        verify(broken())


def test_the_pass_that_did_it_is_named() -> None:
    with pytest.raises(EquintError, match="after equalize"):
        verify(graph(nodes=()), "equalize")


def test_sound_models_pass() -> None:
    verify(MODEL)
    verify(grid(scale=[1.0, 2.0]))
    verify(corrected("a", 2))
    verify(moments(np.zeros((1, 2, 1, 1)), np.zeros((1, 2, 1, 1))))
    for seed in range(10):
        verify(read(random_network(seed)))
