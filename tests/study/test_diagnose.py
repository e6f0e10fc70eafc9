"""A network with one known fault: the diagnosis names it, and the remedy keeps its promise."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

import equint
from equint.errors import EquintError
from equint.hardware.target import target
from equint.ir.events import EventKind
from equint.ir.model import Array, Model
from equint.pages.diagnosis import text
from equint.planning.recipe import Recipe, parse, recipe
from equint.samples.images import Samples
from equint.study.diagnose import Diagnosis, diagnose, shown
from trying import classifier, classifier_file, pictures, quantizer, wide

X = Samples.of(pictures(64))


def found(model: Model, chosen: Recipe, on: str, shown: Samples | None = X, **given: Any) -> Diagnosis:
    hardware = target(on)
    return diagnose(model, chosen, hardware, quantizer(model, hardware, shown), X, **given)


def kinds(d: Diagnosis, layer: str) -> list[str]:
    return [c.kind for c in d.causes[layer]]


@pytest.mark.slow
def test_a_channel_that_is_much_wider() -> None:
    d = found(classifier(wide(2, 1000.0)), recipe("lwq"), "per-channel", None)
    assert d.sensitivity.layers[0].layer == "b"
    spread = next(c for c in d.causes["b"] if c.kind == "weight spread")
    assert spread.facts["spread"] > 500
    assert "activation outliers" in kinds(d, "b")  # the channel's activations are as wide
    tried = {(r.kind, r.at): r.gain for r in d.remedies}
    assert tried["recipe", "optimal"] > 10
    assert d.best is not None
    assert d.best.gain == pytest.approx(max(tried.values()), abs=0.5)
    assert d.best.checked == pytest.approx(d.best.gain, rel=0.2)
    assert d.recipe is d.best.recipe


@pytest.mark.slow
def test_the_weights_of_one_layer_get_a_scale_per_channel() -> None:
    """Weights alone: nothing else is to be gained."""

    def change(consts: dict[str, Any]) -> None:
        consts["wb"][2] *= 1000
        consts["bb"][2] *= 1000
        consts["wc"][:, 2] /= 1000
        consts["wc"][:, 2] *= 0  # nobody reads the wide channel

    model = classifier(change)
    lwq = recipe("lwq")
    floats = replace(lwq, activation={"bits": 16})
    d = found(model, floats, "per-channel", None)
    gains = {(r.kind, r.at): r.gain for r in d.remedies}
    assert gains["granularity", "b"] > 5
    assert kinds(d, "b")[0] == "weight spread"


@pytest.mark.slow
def test_a_range_that_cuts_off() -> None:
    passes = [{"pass": "calibrate", "rule": "percentile", "percent": 15.0}, {"pass": "quantize"}]
    chosen = parse({"name": "tight", "target": "per-channel", "passes": passes}, "tight")
    d = found(classifier(), chosen, "per-channel")
    clipped = [name for name, causes in d.causes.items() if causes[0].kind == "clip"]
    assert set(clipped) >= {"a", "b"}
    assert d.stages["activations"].sqnr_db < d.stages["weights"].sqnr_db
    assert d.best is not None
    assert d.best.kind in ("ranges", "recipe")
    assert d.best.gain > 5
    gains = {r.kind: r.gain for r in d.remedies}
    assert gains["ranges"] > 5
    assert d.best.checked == pytest.approx(d.best.gain, rel=0.2)


@pytest.mark.slow
def test_a_bias_that_does_not_fit() -> None:
    def change(consts: dict[str, Any]) -> None:
        consts["bb"][1] += 60

    chosen = replace(recipe("lwq"), bias_bits=8)
    model = classifier(change)
    d = found(model, chosen, "per-channel", None)
    assert "bias" in kinds(d, "b")
    log = quantizer(model, target("per-channel"))(chosen).log
    (event,) = [e for e in log if e.kind is EventKind.SCALE_RAISED_FOR_BIAS and e.at == "b"]
    assert event.sentence in d.warnings


@pytest.mark.slow
def test_one_tensor_with_a_far_outlier_asks_for_16_bits() -> None:
    d = found(classifier(wide(2, 1000.0)), recipe("cwq"), "per-channel")
    assert d.sensitivity.tensors[0].tensor == "rb"
    assert "activation spread" in kinds(d, "b") or "activation outliers" in kinds(d, "b")
    gains = {(r.kind, r.at): r.gain for r in d.remedies}
    assert gains["16 bits", "rb"] > 10


def answers(proto: onnx.ModelProto, images: Array) -> Array:
    """By onnxruntime alone, with nothing optimized."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    found = onnxruntime.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])
    return np.asarray(found.run(None, {found.get_inputs()[0].name: images})[0], np.float64)


def each_db(proto: onnx.ModelProto, quantized: onnx.ModelProto, images: Array) -> Array:
    """SQNR of each image, in dB."""
    wanted = answers(proto, images)
    return np.asarray(10 * np.log10((wanted**2).sum(1) / ((answers(quantized, images) - wanted) ** 2).sum(1)))


@pytest.mark.slow
def test_it_ends_in_a_recipe_file_that_does_what_was_promised(tmp_path: Path) -> None:
    """Every remedy, from its text: onnxruntime measures the gain that was told, and nearly that on other images."""
    proto, images, on = classifier_file(wide(2, 1000.0)), pictures(64), "per-channel"
    facts = found(classifier(wide(2, 1000.0)), recipe("cwq"), on, None).facts()
    first = np.arange(64) // 8 % 2 == 0  # every other batch was tried on, the rest checked on
    before = equint.quantize(proto, "cwq", on, input=(-1, 1)).proto
    path = tmp_path / "mended.toml"
    for told in facts["remedies"]:
        path.write_text(told["toml"], "utf-8")
        after = equint.quantize(proto, path, on, input=(-1, 1)).proto
        gain = each_db(proto, after, images) - each_db(proto, before, images)
        assert gain[first].mean() == pytest.approx(told["gain"], abs=0.01), told["at"]
        error = gain[first].std(ddof=1) / np.sqrt(first.sum())
        assert error == pytest.approx(told["error"], rel=0.01, abs=0.001)
        if (told["kind"], told["at"]) == (facts["best"]["kind"], facts["best"]["at"]):
            assert gain[~first].mean() == pytest.approx(told["checked"], abs=0.01)
            assert facts["recipe"] == told["toml"]
            others = pictures(256, seed=1)
            gain = each_db(proto, after, others) - each_db(proto, before, others)
            assert gain.mean() == pytest.approx(facts["best"]["expected"], abs=1.5)
    assert facts["best"]["gain"] > 10


@pytest.mark.slow
def test_what_it_tells_is_json_and_a_recipe_that_is_read_back(tmp_path: Path) -> None:
    d = found(classifier(wide(2, 1000.0)), recipe("cwq"), "per-channel")
    path = tmp_path / "mended.toml"
    path.write_text(json.loads(json.dumps(d.facts(), allow_nan=False))["recipe"], "utf-8")
    assert recipe(path) == d.recipe
    for remedy in d.remedies:
        assert remedy.at in text(d.facts())


@pytest.mark.slow
def test_a_good_network_is_left_alone_or_gains_what_is_said() -> None:
    d = found(classifier(), replace(recipe("cwq"), weight={"bits": 16}, activation={"bits": 16}), "per-channel", None)
    assert d.stages["both"].sqnr_db > 50
    assert d.stages["both"].agreement == 100


@pytest.mark.slow
def test_labels_tell_whether_the_float_network_is_right() -> None:
    chosen = answers(classifier_file(), pictures(64)).argmax(1)
    half = np.where(np.arange(64) % 2, chosen, (chosen + 1) % 5)
    d = found(classifier(), recipe("cwq"), "per-channel", None, labels=half)
    assert d.float_top1 == 50
    assert d.stages["rewritten"].top1 == 50  # of the first half: every batch has as many odd images as even ones


@pytest.mark.slow
def test_images_that_were_not_prepared() -> None:
    hardware, model = target("per-channel"), classifier()
    loud = Samples.of(100 * pictures(32))
    d = diagnose(model, recipe("cwq"), hardware, quantizer(model, hardware), loud)
    calm = diagnose(model, recipe("cwq"), hardware, quantizer(model, hardware), Samples.of(pictures(32)))
    assert d.input["range"] == [-1, 1]
    assert d.input["beyond"] == pytest.approx(np.mean(np.abs(100 * pictures(32)) > 1.002), abs=1e-4)
    assert calm.input["beyond"] == 0
    (doubt,) = set(d.warnings) - set(calm.warnings)
    assert f"{100 * d.input['beyond']:.0f} %" in doubt


@pytest.mark.slow
def test_integers_alone_are_offered_no_floats() -> None:
    d = found(classifier(), recipe("wes"), "npu-shift", None)
    assert {r.kind for r in d.remedies} == {"recipe"}


def test_too_few_images() -> None:
    hardware, model = target("per-channel"), classifier()
    with pytest.raises(EquintError, match="4 images: too few"):
        diagnose(model, recipe("cwq"), hardware, quantizer(model, hardware), Samples.of(pictures(4)))


def test_a_float_network_that_is_not_finite() -> None:
    def change(consts: dict[str, Any]) -> None:
        consts["wa"] *= 1e30
        consts["wb"] *= 1e30

    model, hardware = classifier(change), target("per-channel")
    with pytest.raises(EquintError, match="not finite"):
        diagnose(model, recipe("cwq"), hardware, quantizer(model, hardware), X)


def test_pictures_stand_in() -> None:
    batch = next(iter(shown(classifier())))
    assert isinstance(batch, np.ndarray)
    assert batch.shape == (8, 3, 8, 8)
    assert np.abs(batch).max() <= 1
