"""The prologue of all commands: what it reads, once, and the float network that it compares with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import equint
from equint import EquintError
from equint.demo import data_path, model_path
from equint.ir.events import EventKind
from equint.ir.model import Model
from equint.job import Job
from equint.planning.recipe import built_in

MODEL, SPAN = model_path(), (0.0, 1.0)


@pytest.fixture
def card(tmp_path: Path) -> Path:
    path = tmp_path / "digits.toml"
    path.write_text(
        f'model = "{MODEL}"\n[input]\nkind = "gray"\nmean = 0.0\nstd = 16.0\n'
        f'[data]\neval = "{data_path()}"\ncalibration = "{data_path()}"\n'
    )
    return path


COMMANDS: Mapping[str, Callable[[Path, Path], object]] = {
    "quantize": lambda card, _: equint.quantize(MODEL, "cwq", input=card, images=16),
    "explain": lambda card, _: equint.explain(MODEL, "lwq", input=card, images=16),
    "inspect": lambda card, _: equint.inspect(MODEL, input=card),
    "sqnr": lambda card, _: equint.sqnr(MODEL, input=card),
    "calibrate": lambda card, _: equint.calibrate(MODEL, input=card, images=16),
    "mixed": lambda card, _: equint.mixed(MODEL, 100.0, "lwq", input=card, images=16),
    "evaluate": lambda card, _: equint.evaluate(MODEL, None, card, MODEL, limit=16),
    "compare": lambda card, _: equint.compare(MODEL, MODEL, None, card, limit=4),
    "golden": lambda card, here: equint.golden(MODEL, here / "golden", "wes", input=card),
    "report": lambda card, _: equint.report(equint.quantize(MODEL, "cwq", input=card)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_the_card_is_read_once(name: str, card: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads, whole = [0], Path.read_text

    def counted(self: Path, *given: Any, **options: Any) -> str:
        reads[0] += self == card
        return whole(self, *given, **options)

    monkeypatch.setattr(Path, "read_text", counted)
    COMMANDS[name](card, tmp_path)
    assert reads == [1]


def same_grids(a: Model, b: Model) -> bool:
    return a.qparams.keys() == b.qparams.keys() and all(
        np.array_equal(a.qparams[n].scale, q.scale) and np.array_equal(a.qparams[n].zero_point, q.zero_point)
        for n, q in b.qparams.items()
    )


@pytest.mark.parametrize("name", ["lwq", "cwq"])
def test_plain_grids_are_those_of_a_recipe_without_scales(name: str) -> None:
    _, before = Job.of(MODEL, name, input=SPAN).plain()
    assert same_grids(before, equint.quantize(MODEL, name, input=SPAN).model)


@pytest.mark.slow
def test_optimal_starts_from_the_plain_grids_of_its_target() -> None:
    _, before = Job.of(MODEL, "optimal", "per-tensor", input=SPAN).plain()
    assert same_grids(before, equint.quantize(MODEL, "lwq", "per-tensor", input=SPAN).model)
    assert not same_grids(before, equint.quantize(MODEL, "optimal", "per-tensor", input=SPAN).model)


def test_the_reference_is_rewritten_as_the_recipe_says() -> None:
    """DFQ as published drops the bounds of ReLU6, and so does the network that its noise is compared with."""
    kept, dropped = (Job.of(MODEL, name, "per-tensor", input=SPAN) for name in ("dfq", "dfq-published"))
    for job, clips in ((kept, True), (dropped, False)):
        for model in (job.rewritten(), job.reference()):
            ops = {node.op for node in model.graph.nodes}
            assert "BatchNormalization" not in ops
            assert ("Clip" in ops) == clips


@pytest.mark.parametrize("bits", [{"weight_bits": 4}, {"activation_bits": 6}, {"activation_bits": "float"}])
def test_a_recipe_that_is_spelled_out_says_the_same(bits: dict[str, Any]) -> None:
    job = Job.of(MODEL, "cwq", input=SPAN, **bits)
    assert same_grids(equint.quantize(MODEL, job.spelled, input=SPAN).model, job.run())


@pytest.mark.slow
@pytest.mark.parametrize("name", [r.name for r in built_in() if r.level == 1])
def test_references_know_ranges_and_moments_of_all_that_has_a_grid(name: str) -> None:
    reference, before = Job.of(MODEL, name, input=SPAN).plain()
    activations = before.qparams.keys() - reference.graph.consts.keys()
    assert activations <= reference.ranges.keys()
    assert activations <= reference.moments.keys()
    assert len(activations) > 10


@pytest.mark.parametrize("name", ["one-step", "two-step"])
def test_recipes_that_need_images_go_without_on_request(name: str) -> None:
    with pytest.raises(EquintError, match="give data, or images = 64"):
        equint.quantize(MODEL, name, input=SPAN)
    asked = equint.quantize(MODEL, name, input=SPAN, images=0)
    assert asked.level == 1
    assert [e.kind for e in asked.warnings if e.source == "calibrate"] == [EventKind.IMAGES_LEFT_OUT]
    shown = equint.quantize(MODEL, name, input=SPAN, data=np.random.default_rng(0).random((16, 1, 8, 8), np.float32))
    assert shown.level == 2
    with pytest.raises(EquintError, match="recipe lwq goes without images anyway"):
        equint.quantize(MODEL, "lwq", input=SPAN, images=0)


def test_data_that_nothing_looks_at_are_refused() -> None:
    images = np.zeros((8, 1, 8, 8), np.float32)
    with pytest.raises(EquintError, match="looks at no images; leave the data out"):
        equint.quantize(MODEL, "dfq-published", data=images, input=SPAN)
