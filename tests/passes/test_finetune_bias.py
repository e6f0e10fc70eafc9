"""Bias fine-tuning: on a network that rounding breaks, it brings the outputs nearer; nothing but biases changes."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import equint
from equint.demo import data_path, model_path
from equint.errors import EquintError
from equint.ir.model import Model
from equint.maths.noise import sqnr_db
from equint.onnx.qdq import export
from equint.passes.finetune_bias import FinetuneBias
from equint.planning.recipe import recipe
from equint.runtime.session import Session
from equint.samples.card import Card, read_card
from equint.samples.data import batches, images
from equint.samples.images import Samples

pytest.importorskip("torch", reason="needs the extra equint[torch]")
CARD = Card("gray", (0.0,), (16.0,))


def digits(count: int) -> Samples:
    return images(data_path(), CARD, count)


def poor() -> equint.Result:
    """The bundled network in 4-bit weights without any correction: far from its float original."""
    return equint.quantize(model_path(), "cwq", input=CARD, data=digits(64), weight_bits=4)


def quality(model: Model, float_outputs: list[np.ndarray], inputs: list[np.ndarray]) -> float:
    session = Session(export(model))
    found = [session.run(x)[session.outputs[0]] for x in inputs]
    return sqnr_db(np.concatenate(float_outputs), np.concatenate(found))


@pytest.mark.slow
def test_outputs_come_nearer_on_images_that_were_not_seen() -> None:
    result = poor()
    inputs = [x for x, _ in batches(data_path(), CARD)][2:12]
    reference = Session(model_path(), optimized=True)
    wanted = [reference.run(x)[reference.outputs[0]] for x in inputs]
    tune = FinetuneBias(steps=60, augment=False, images=digits(64), teacher=result.original.graph)
    tuned = tune(result.model)
    assert quality(tuned, wanted, inputs) > quality(result.model, wanted, inputs) + 1.0


@pytest.mark.slow
def test_only_biases_change() -> None:
    model = poor().model
    tuned = FinetuneBias(steps=5, held_out=0.0, augment=False, images=digits(32))(model)
    assert [(n.op, n.inputs[:2], n.outputs) for n in tuned.graph.nodes] == [
        (n.op, n.inputs[:2], n.outputs) for n in model.graph.nodes
    ]
    for node in model.graph.nodes:
        for name in node.inputs[1:2]:
            if name in model.graph.consts:
                np.testing.assert_array_equal(tuned.graph.consts[name], model.graph.consts[name])


def test_without_images_it_says_what_to_do() -> None:
    with pytest.raises(EquintError, match="needs images; give data"):
        equint.quantize(model_path(), "bias-finetune", input=CARD)


@pytest.mark.parametrize(
    "bad", [{"steps": 0}, {"batch": 0}, {"rate": 0.0}, {"temperature": 0.0}, {"held_out": 1.0}, {"seed": -1}]
)
def test_options_that_make_no_sense(bad: dict[str, float]) -> None:
    with pytest.raises(EquintError, match=next(iter(bad))):
        replace(FinetuneBias(), **bad)  # type: ignore[arg-type]


def test_recipes_with_it_are_level_three() -> None:
    for name in ("bias-finetune", "two-step-bias-finetune", "optimal-bias-finetune"):
        assert recipe(name).level == 3
        assert recipe(name).passes[-1][0] == "finetune_bias"


@pytest.mark.skipif(not os.environ.get("EQUINT_REAL"), reason="EQUINT_REAL names no folder of real networks")
def test_the_real_wake_words_network() -> None:
    """Few steps, for time: 4-bit weights, which biases alone make up for a good part."""
    folder = Path(os.environ["EQUINT_REAL"])
    card = read_card(folder / "mobilenet_v1_025_96_vww.toml")
    path = folder / "models" / "mobilenet_v1_025_96_vww.onnx"
    shown = images(card.data["calibration"], card, 48)
    result = equint.quantize(path, "optimal", "per-tensor", input=card, data=shown, weight_bits=4)
    tuned = FinetuneBias(steps=30, images=shown, teacher=result.original.graph)(result.model)
    inputs = [x for x, _ in batches(card.data["eval"], card, limit=96)]
    reference = Session(path, optimized=True)
    wanted = [reference.run(x)[reference.outputs[0]] for x in inputs]
    assert quality(tuned, wanted, inputs) >= quality(result.model, wanted, inputs)
