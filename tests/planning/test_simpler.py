"""What a plan leaves out, and that it is left out where onnxruntime says that it did harm."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest

from equint.hardware.target import target
from equint.ir.edit import Editor
from equint.ir.events import EventKind
from equint.ir.model import Model
from equint.onnx.qdq import export
from equint.onnx.reader import read
from equint.passes import Keeps, Need, Pass, Stage, needed
from equint.passes.optimal import Optimal
from equint.planning.plan import Data, resolve
from equint.planning.recipe import recipe
from equint.planning.search import measured, search
from equint.planning.simpler import simpler
from equint.samples.card import described
from equint.samples.images import Samples
from handwritten import Array, execute, network, normal

BODY = "a = Conv <pads = [1, 1, 1, 1]> (x, w, b) r = Relu(a) y = Conv(r, v)"
PROTO = network(BODY, w=normal(6, 3, 3, 3), b=normal(6, seed=3), v=normal(4, 6, 1, 1, seed=4))
SPAN = (-1.5, 1.5)


@dataclass(frozen=True)
class Shift:
    """What a correction does that is wrong by so much."""

    keeps: ClassVar[Keeps] = Keeps.TOPOLOGY
    stage: ClassVar[Stage] = Stage.CORRECTION
    by: float = 0.0
    images: Any = needed(Need.IMAGES, None)

    def __call__(self, model: Model) -> Model:
        editor = Editor(model.graph)
        name = model.graph.nodes[0].inputs[2]
        editor.set(model.graph.nodes[0], 2, (model.graph.consts[name] + self.by).astype(np.float32), name)
        return replace(model, graph=editor.done())


def plan(images: Samples | None, by: float) -> Sequence[Pass]:
    steps = resolve(recipe("lwq"), target("per-tensor"), data=Data(images))
    return [*(step for step in steps if step.stage is not Stage.ROUNDING), Shift(by)]


def decibels(model: Model, x: Array) -> float:
    (clean,), (noisy,) = execute(PROTO, x), execute(export(model), x)
    return float(10 * np.log10(np.sum(clean**2) / np.sum((noisy - clean) ** 2)))


@pytest.mark.parametrize(("by", "left"), [(0.0, False), (0.5, True)])
def test_a_correction_that_does_harm_is_left_out(by: float, left: bool) -> None:
    network, x = described(read(PROTO), SPAN), Samples.of(normal(16, 3, 8, 8, seed=5, scale=0.3))
    model = search(network, lambda images: {"own": plan(images, by), "twin": plan(images, by)}, x)
    fresh = normal(64, 3, 8, 8, seed=9, scale=0.3)
    harmless = search(network, lambda images: {"own": plan(images, 0.0)}, x)
    said = [e for e in model.log if e.kind is EventKind.LEFT_OUT]
    assert [e.facts["what"] for e in said] == (["corrections from samples"] if left else [])
    assert decibels(model, fresh) == pytest.approx(decibels(harmless, fresh), abs=1e-6)
    if said:
        assert said[0].facts["SQNR with"] < 15 < said[0].facts["SQNR"]


@pytest.mark.parametrize(("by", "left"), [(0.0, False), (2.0, True)])
def test_so_it_is_where_nothing_else_is_tried_and_much_is_lost(by: float, left: bool) -> None:
    network, x = described(read(PROTO), SPAN), Samples.of(normal(16, 3, 8, 8, seed=5, scale=0.3))
    model = measured(network, plan(x, by), x)
    kinds = [e.kind for e in model.log]
    assert (EventKind.LEFT_OUT in kinds, EventKind.MEASURED_LOW in kinds) == (left, False)
    assert decibels(model, normal(64, 3, 8, 8, seed=9, scale=0.3)) > 25


def names(plans: Mapping[str, Sequence[Pass]]) -> dict[str, list[str]]:
    return {name: [type(step).__name__ for step in steps] for name, steps in plans.items()}


def test_what_is_left_out() -> None:
    full = resolve(recipe("optimal"), target("per-channel"), data=Data(Samples.of(normal(2, 3, 8, 8))))
    own = [type(step).__name__ for step in full]
    late = ["RoundWeights", "CorrectBias", "CorrectBiasEmpirical"]
    found = names(simpler(full, scaled=False))
    assert own[-3:] == late
    assert found["corrections from samples"] == [*own[:-3], "CorrectBias"]
    assert found["corrections"] == own[:-3]
    assert found["scales"] == [step for step in own if step != Optimal.__name__]
    assert found["scales and corrections"] == [step for step in own[:-3] if step != Optimal.__name__]
    assert list(simpler(full)) == ["corrections from samples", "corrections"]
    assert not simpler(full[:-3])
