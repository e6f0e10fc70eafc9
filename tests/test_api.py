"""The front door: every kind of argument, what comes back, and what is refused."""

from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import equint
import onnx
from equint import EquintError, load, quantize
from equint.demo import model_path
from equint.evaluate.data import Card
from equint.model import Model
from equint.recipe import built_in, recipe
from equint.target import TARGETS, Target, target
from handwritten import execute, network, normal
from nets import random_network, run, sample

DEMO = onnx.load(model_path())


def same(a: onnx.ModelProto, b: onnx.ModelProto) -> bool:
    return bool(a.SerializeToString(deterministic=True) == b.SerializeToString(deterministic=True))


# Sources


def test_sources(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(DEMO, path)
    wanted = quantize(DEMO, input=(0, 1)).proto
    for source in (path, str(path), load(path), load(DEMO)):
        assert same(quantize(source, input=(0, 1)).proto, wanted)


def test_load() -> None:
    model = load(model_path())
    assert isinstance(model, Model)
    assert model.log[0].did == "read"


def test_sources_are_left_alone() -> None:
    proto, model = random_network(3), load(random_network(3))
    before = proto.SerializeToString()
    consts = {n: a.copy() for n, a in model.graph.consts.items()}
    quantize(proto, "dfq")
    quantize(model, "dfq")
    assert proto.SerializeToString() == before
    assert not model.qparams
    for name, array in model.graph.consts.items():
        np.testing.assert_array_equal(array, consts[name])


def test_bad_source(tmp_path: Path) -> None:
    for call in (load, quantize):
        with pytest.raises(EquintError, match=r"absent\.onnx: no such file"):
            call(tmp_path / "absent.onnx")


def test_its_own_result_is_refused() -> None:
    with pytest.raises(EquintError, match="already quantized"):
        quantize(quantize(DEMO, input=(0, 1)).proto)


def test_nothing_to_quantize() -> None:
    with pytest.raises(EquintError, match="nothing to quantize"):
        quantize(network("a = Relu(x) y = Softmax(a)"))


# Recipes and targets


@pytest.mark.parametrize("name", [r.name for r in built_in()])
@pytest.mark.parametrize("on", [None, *(t.name for t in TARGETS)])
def test_recipes_and_targets(name: str, on: str | None) -> None:
    if name.startswith("cwq") and on is not None and target(on).weight.granularity == "tensor":
        with pytest.raises(EquintError, match=f"{name} needs a weight scale per channel, which target {on}"):
            quantize(DEMO, name, on)
        return
    result = quantize(DEMO, name, on, input=(0, 1))
    assert (result.recipe, result.target) == (name, on or recipe(name).target)
    assert result.level == recipe(name).level
    per_channel = {q.axis for q in result.model.qparams.values()} - {None}
    assert bool(per_channel) == (
        recipe(name).weight.get("granularity", target(result.target).weight.granularity) == "channel"
    )


@pytest.mark.parametrize("on", TARGETS, ids=lambda t: t.name)
def test_a_target_alone_takes_its_best_recipe(on: Target) -> None:
    for given in (on, on.name):
        result = quantize(DEMO, target=given, input=(0, 1))
        assert (result.recipe, result.target) == (on.recipe, on.name)


def test_default() -> None:
    result = quantize(DEMO, input=(0, 1))
    assert (result.recipe, result.target) == (TARGETS[0].recipe, TARGETS[0].name)


def test_recipe_from_file_and_value(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        '[[passes]]\npass = "fold_batchnorm"\n[[passes]]\npass = "activation_ranges"\nn = 4.0\n'
        '[[passes]]\npass = "quantize"\n'
    )
    by_file, by_value = quantize(DEMO, path, input=(0, 1)), quantize(DEMO, recipe(path), input=(0, 1))
    assert by_file.recipe == "mine"
    assert same(by_file.proto, by_value.proto)
    assert not same(by_file.proto, quantize(DEMO, "cwq", input=(0, 1)).proto)


def test_own_target() -> None:
    mine = replace(target("per-tensor"), name="mine", bias_bits=16)
    result = quantize(DEMO, target=mine, input=(0, 1))
    assert result.target == "mine"


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"recipe": "magic"}, "unknown recipe 'magic'; choose optimal, lwq"),
        ({"recipe": "absent.toml"}, r"absent\.toml: no such recipe file"),
        ({"target": "magic"}, "unknown target 'magic'; choose per-channel"),
        ({"weight_bits": 1}, "1 bits"),
        ({"weight_bits": 17}, "17 bits"),
        ({"activation_bits": 0}, "0 bits"),
        ({"activation_bits": 32}, "32 bits"),
        ({"input": (1, 0)}, "1.0 to 0.0 is empty"),
        ({"input": (0, float("nan"))}, "not finite"),
        ({"input": (0, 1, 2)}, "lowest and the highest"),
        ({"input": "absent.toml"}, r"absent\.toml: no such card"),
        ({"input": Card("rgb", (0.0,) * 3, (1.0,) * 3)}, "3 means and stds for input input of 1 channels"),
    ],
)
def test_bad_options(options: dict[str, Any], match: str) -> None:
    with pytest.raises(EquintError, match=match) as error:
        quantize(DEMO, **options)
    assert "\n" not in str(error.value)


# Bits


@pytest.mark.parametrize("bits", [2, 5, 8, 12, 16])
def test_bits(bits: int) -> None:
    result = quantize(DEMO, "cwq", weight_bits=bits, activation_bits=16, input=(0, 1))
    weights = {n: q for n, q in result.model.qparams.items() if n in result.model.graph.consts}
    assert {q.bits for q in weights.values() if q.signed} == {bits}
    assert {q.bits for n, q in result.model.qparams.items() if n not in weights} == {16}


def test_float_activations() -> None:
    result = quantize(DEMO, activation_bits="float", input=(0, 1))
    assert set(result.model.qparams) <= set(result.model.graph.consts)
    ops = {n.op_type for n in result.proto.graph.node}
    assert "DequantizeLinear" in ops
    assert "QuantizeLinear" not in ops


# What is known of the input


def input_range(given: Any) -> tuple[float, float]:
    model = quantize(DEMO, input=given).model
    (name,) = model.graph.inputs
    return model.qparams[name].lo, model.qparams[name].hi


def test_input(tmp_path: Path) -> None:
    path = tmp_path / "card.toml"
    path.write_text('[input]\nkind = "gray"\nmean = 51\nstd = 102\n')
    gray = Card("gray", (51.0,), (102.0,))
    for given, lo, hi in (
        ((0, 1), 0, 1),
        ([-1.0, 3.0], -1, 3),
        (path, -0.5, 2),
        (str(path), -0.5, 2),
        (gray, -0.5, 2),
        (replace(gray, range=(-2.0, 2.0)), -2, 2),
        (Card("features", range=(0.0, 4.0)), 0, 4),
    ):
        found = input_range(given)
        assert found == pytest.approx((lo, hi), abs=0.02 * (hi - lo))


def test_input_is_inferred_from_the_first_batchnorm() -> None:
    """Calibrated networks saw standard normal inputs: their statistics tell."""
    for seed in range(4):
        proto = random_network(seed, calibrated=True, blocks=["depthwise_separable"], activations=["relu"])
        model = quantize(proto).model
        (event,) = [e for e in model.log if e.did.startswith("input range")]
        if "inferred" in event.did:
            assert not event.warning
            assert 2 < event.facts["hi"] < 8
            assert -8 < event.facts["lo"] < -2
        else:
            assert event.warning


def test_features_without_range_are_inferred() -> None:
    events = [e.did for e in quantize(DEMO, input=Card("features")).model.log]
    assert any(e.startswith("input range inferred") for e in events)


def test_two_inputs() -> None:
    inputs = "float[N,3,8,8] x, float[N,3,8,8] z"
    proto = network("a = Conv(x, w) b = Conv(z, w) y = Add(a, b)", inputs=inputs, w=normal(4, 3, 3, 3))
    with pytest.raises(EquintError, match="2 float inputs"):
        quantize(proto, input=(0, 1))
    x, z = normal(2, 3, 8, 8, scale=1), normal(2, 3, 8, 8, seed=2, scale=1)
    wanted, found = (execute(p, x, z)[0] for p in (proto, quantize(proto).proto))
    assert np.square(found - wanted).sum() < 0.03 * np.square(wanted).sum()


# Results


def test_result() -> None:
    result = quantize(DEMO, input=(0, 1))
    assert result.proto is result.proto
    assert result.seconds > 0
    assert not result.original.qparams
    assert result.model.qparams
    assert all(e.warning for e in result.warnings)
    with pytest.raises(FrozenInstanceError):
        result.recipe = "other"  # type: ignore[misc]
    ran = [e.did.removeprefix("ran ") for e in result.model.log if e.did.startswith("ran ")]
    assert ran == [name for name, _ in recipe("optimal").passes]


def test_save(tmp_path: Path) -> None:
    result = quantize(DEMO, input=(0, 1))
    result.save(tmp_path / "int8.onnx")
    assert same(onnx.load(tmp_path / "int8.onnx"), result.proto)
    x = sample(DEMO)
    assert np.isfinite(run(result.proto, x)[0]).all()
    with pytest.raises(EquintError, match="cannot write"):
        result.save(tmp_path / "absent" / "int8.onnx")


def test_progress() -> None:
    seen: list[tuple[str, int, int]] = []
    quantize(DEMO, "dfq", input=(0, 1), progress=lambda *step: seen.append(step))
    names = [name for name, _ in recipe("dfq").passes]
    assert seen == [(name, k, len(names)) for k, name in enumerate(names)]


def test_a_guess_about_the_input_is_a_warning() -> None:
    proto = network("y = Conv(x, w)", w=normal(4, 3, 3, 3))
    assert any("assumed standard normal" in e.did for e in quantize(proto).warnings)
    assert not any("assumed" in e.did for e in quantize(proto, input=(0, 1)).warnings)


def test_public_names() -> None:
    assert set(equint.__all__) == {"EquintError", "Result", "__version__", "explain", "load", "quantize"}
    assert all(hasattr(equint, name) for name in equint.__all__)
    assert not hasattr(equint, "magic")
