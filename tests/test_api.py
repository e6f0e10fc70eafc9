"""The front door: every kind of argument, what comes back, and what is refused."""

from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import equint
from equint import EquintError, load, quantize
from equint.demo import data_path, model_path
from equint.graph.placement import place
from equint.hardware.target import TARGETS, Target, target
from equint.ir.events import EventKind
from equint.ir.model import Array, Model
from equint.onnx.writer import to_proto
from equint.ops.layers import layers
from equint.planning.recipe import built_in, recipe
from equint.runtime.session import Session
from equint.samples.card import Card
from handwritten import execute, network, normal
from nets import random_network, run, sample

DEMO = onnx.load(model_path())


def same(a: onnx.ModelProto, b: onnx.ModelProto) -> bool:
    return bool(a.SerializeToString(deterministic=True) == b.SerializeToString(deterministic=True))


# Sources


def test_sources(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(DEMO, path)
    wanted = quantize(DEMO, "cwq", input=(0, 1)).proto
    for source in (path, str(path), load(path), load(DEMO)):
        assert same(quantize(source, "cwq", input=(0, 1)).proto, wanted)


def test_load() -> None:
    model = load(model_path())
    assert isinstance(model, Model)
    assert model.log[0].kind is EventKind.READ


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
        quantize(quantize(DEMO, "cwq", input=(0, 1)).proto)


def test_nothing_to_quantize() -> None:
    with pytest.raises(EquintError, match="nothing to quantize"):
        quantize(network("a = Relu(x) y = Softmax(a)"))


# Recipes and targets


@pytest.mark.slow
@pytest.mark.parametrize("name", [r.name for r in built_in() if r.level == 1])
@pytest.mark.parametrize("on", [None, *(t.name for t in TARGETS)])
def test_recipes_and_targets(name: str, on: str | None) -> None:
    asked = recipe(name).weight.get("granularity", "tensor")
    if on is not None and asked not in ("tensor", target(on).weight.granularity):
        with pytest.raises(EquintError, match=f"{name} needs a (weight scale|shift) per channel, which target {on}"):
            quantize(DEMO, name, on)
        return
    result = quantize(DEMO, name, on, input=(0, 1))
    assert (result.recipe, result.target) == (name, on or recipe(name).target)
    assert result.level == recipe(name).level
    used = recipe(name).weight.get("granularity", target(result.target).weight.granularity)
    grids = result.model.qparams.values()
    assert any(np.ndim(q.scale) for q in grids) == (used == "channel")
    assert any(q.shift is not None for q in grids) == (used == "shift")


@pytest.mark.parametrize("on", TARGETS, ids=lambda t: t.name)
def test_a_target_alone_takes_its_best_recipe(on: Target) -> None:
    proto = network("y = Conv(x, w)", w=normal(4, 3, 3, 3))
    for given in (on, on.name):
        result = quantize(proto, target=given, input=(0, 1))
        assert (result.recipe, result.target) == (on.recipe, on.name)


def test_default() -> None:
    result = quantize(network("y = Conv(x, w)", w=normal(4, 3, 3, 3)), input=(0, 1))
    assert (result.recipe, result.target) == (TARGETS[0].recipe, "per-channel")
    assert replace(result.hardware, name=TARGETS[0].name) == TARGETS[0]


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
        ({"target": "magic"}, "unknown target 'magic'; choose onnxruntime, per-channel"),
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
    model = quantize(DEMO, "cwq", input=given).model
    (name,) = model.graph.inputs
    return model.qparams[name].lo, model.qparams[name].hi


@pytest.mark.slow
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


@pytest.mark.slow
def test_input_is_inferred_from_the_first_batchnorm() -> None:
    """Calibrated networks saw standard normal inputs: their statistics tell."""
    for seed in range(4):
        proto = random_network(seed, calibrated=True, blocks=["depthwise_separable"], activations=["relu"])
        model = quantize(proto).model
        (event,) = [e for e in model.log if e.source == "inputs"]
        if event.kind is EventKind.INPUT_INFERRED:
            assert not event.warning
            assert 2 < event.facts["hi"] < 8
            assert -8 < event.facts["lo"] < -2
        else:
            assert event.warning


def test_features_without_range_are_inferred() -> None:
    assert EventKind.INPUT_INFERRED in [e.kind for e in quantize(DEMO, "cwq", input=Card("features")).model.log]


def test_two_inputs() -> None:
    inputs = "float[N,3,8,8] x, float[N,3,8,8] z"
    proto = network("a = Conv(x, w) b = Conv(z, w) y = Add(a, b)", inputs=inputs, w=normal(4, 3, 3, 3))
    with pytest.raises(EquintError, match="2 float inputs"):
        quantize(proto, input=(0, 1))
    x, z = normal(2, 3, 8, 8, scale=1), normal(2, 3, 8, 8, seed=2, scale=1)
    wanted, found = (execute(p, x, z)[0] for p in (proto, quantize(proto).proto))
    assert np.square(found - wanted).sum() < 0.03 * np.square(wanted).sum()


# Data

GRAY = Card("gray", (0.0,), (16.0,))


@pytest.fixture(scope="module")
def digits() -> Array:
    """Images as the network wants them."""
    with np.load(data_path()) as stored:
        return np.ascontiguousarray((stored["x"][:40] / np.float32(16)).transpose(0, 3, 1, 2))


@pytest.mark.slow
def test_kinds_of_data(digits: Array, tmp_path: Path) -> None:
    """Images however they come, and what was measured on them, make the same network."""
    np.save(tmp_path / "ready.npy", digits)
    with np.load(data_path()) as stored:
        np.savez(tmp_path / "pixels.npz", x=stored["x"][:40], y=stored["y"][:40])
    equint.calibrate(DEMO, digits).save(tmp_path / "statistics.npz")
    wanted = quantize(DEMO, "cwq", data=digits, input=(0, 1))
    kinds: dict[str, dict[str, Any]] = {
        "parts": {"data": [digits[:7], digits[7:]]},
        "iterator": {"data": iter([digits])},
        "labelled": {"data": [(digits, np.arange(40))]},
        "by name": {"data": [{"input": digits}]},
        "file": {"data": tmp_path / "ready.npy"},
        "file by name": {"data": str(tmp_path / "ready.npy")},
        "statistics": {"data": equint.calibrate(DEMO, digits)},
        "statistics without histograms": {"data": equint.calibrate(DEMO, digits, histograms=False)},
        "statistics in a file": {"data": tmp_path / "statistics.npz"},
        "first of many": {"data": np.concatenate([digits, 9 * digits]), "images": 40},
        "more than there are": {"data": digits, "images": 1000},
        "prepared by a card": {"data": tmp_path / "pixels.npz", "input": GRAY},
        "all that the card has": {"images": 40, "input": replace(GRAY, data={"calibration": tmp_path / "pixels.npz"})},
        "some that the card has": {"images": 40, "input": replace(GRAY, data={"calibration": data_path()})},
    }
    for kind, given in kinds.items():
        found = quantize(DEMO, "cwq", **{"input": (0, 1), **given})
        assert found.level == 2, kind
        ranges, others = found.model.qparams, wanted.model.qparams
        for name, q in others.items():
            if name not in found.model.graph.inputs:  # a card tells more of the input than its range
                np.testing.assert_allclose(ranges[name].scale, q.scale, rtol=1e-5, err_msg=f"{kind}: {name}")


def test_grids_hold_what_the_images_show(digits: Array) -> None:
    """Tensor by tensor, the extremes that numpy finds in the float network, up to half a step of the grid."""
    model = quantize(DEMO, "cwq", data=digits, input=(0, 1)).model
    names = [n for n in model.qparams if n in model.graph.producer]
    values = Session(to_proto(model.graph), taps=names).run(digits)
    assert len(names) > 10
    for tied in place(model.graph).classes:
        seen = [values[n] for n in tied if n in values]
        if seen and not set(tied) & set(model.graph.inputs):
            q, lo, hi = model.qparams[tied[0]], min(v.min() for v in seen), max(v.max() for v in seen)
            assert q.lo == pytest.approx(min(lo, 0), abs=0.51 * float(q.scale) + 1e-4)
            assert q.hi == pytest.approx(max(hi, 0), abs=0.51 * float(q.scale) + 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", [r.name for r in built_in() if r.level == 1])
def test_recipes_look_at_data(name: str, digits: Array) -> None:
    if name == "dfq-published":
        with pytest.raises(EquintError, match="recipe dfq-published looks at no images; leave the data out"):
            quantize(DEMO, name, data=digits)
        return
    without, shown = quantize(DEMO, name, input=(0, 1)), quantize(DEMO, name, data=digits, input=(0, 1))
    assert (without.level, shown.level) == (1, 2)
    assert not any(m.origin == "calibration" for m in without.model.moments.values())
    assert sum(m.origin == "calibration" for m in shown.model.moments.values()) > 10
    corrected = [e for e in shown.model.log if e.kind is EventKind.BIASES_CORRECTED_FROM_IMAGES]
    assert len(corrected) == sum(step == "correct_bias_empirical" for step, _ in recipe(name).passes)
    assert set(without.model.graph.producer) == set(shown.model.graph.producer)


def test_images_bring_results_nearer(digits: Array) -> None:
    """The network's results on images that it was not shown."""
    with np.load(data_path()) as stored:
        x = (stored["x"][200:].astype(np.float32) / 16).transpose(0, 3, 1, 2)
    wanted = run(DEMO, x)[0]

    def noise(**options: Any) -> float:
        return float(np.square(run(quantize(DEMO, "cwq-bc", input=(0, 1), **options).proto, x)[0] - wanted).mean())

    assert noise(data=digits) < 0.7 * noise()


@pytest.mark.slow
def test_explain_on_images(digits: Array) -> None:
    found, without = (equint.explain(DEMO, "cwq", input=(0, 1), data=d) for d in (digits, None))
    by_numbers = equint.explain(DEMO, "cwq", input=(0, 1), data=equint.calibrate(DEMO, digits))
    assert found["predicted"] == by_numbers["predicted"]
    x = digits[:200]
    (wanted,), (quantized,) = run(DEMO, x), run(quantize(DEMO, "cwq", input=(0, 1), data=digits).proto, x)
    measured = 10 * np.log10(np.square(wanted).sum() / np.square(quantized - wanted).sum())
    told, guessed = (e["predicted"]["after"]["total"] for e in (found, without))
    assert told == pytest.approx(measured, abs=4)
    assert abs(told - measured) < abs(guessed - measured) / 2


def test_calibrate(digits: Array, tmp_path: Path) -> None:
    found = equint.calibrate(DEMO, digits)
    values = Session(DEMO, taps=["output"]).run(digits)["output"]
    assert found.images == 40
    np.testing.assert_allclose(found.tensors["output"].high, values.max(0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.tensors["output"].moments.mean.ravel(), values.mean(0), atol=1e-4)
    assert all(t.values is not None for t in found.tensors.values())
    assert all(t.values is None for t in equint.calibrate(DEMO, digits, histograms=False).tensors.values())
    seen: list[int] = []
    path = tmp_path / "so_far.npz"
    assert equint.calibrate(DEMO, digits, images=10, resume=path, progress=seen.append).images == 10
    assert seen[-1] == 10
    again = equint.calibrate(DEMO, digits, resume=path, progress=seen.append)
    assert seen[-1] == again.images == 40
    np.testing.assert_allclose(again.tensors["output"].total, found.tensors["output"].total, rtol=1e-5)
    assert equint.calibrate(DEMO, images=25, data=data_path(), input=GRAY).images == 25
    assert equint.calibrate(DEMO, None, images=5, input=replace(GRAY, data={"calibration": data_path()})).images == 5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"data": "absent.npz"}, r"absent\.npz: no such file"),
        ({"data": Path(__file__)}, r"test_api\.py: not an? .*\.npy|not a readable \.npz or \.npy"),
        ({"data": Path(__file__).parent}, "a folder of pictures needs a card"),
        ({"data": data_path(), "input": Card("rgb", (0.0,) * 3, (1.0,) * 3)}, r"needs \(H, W, 3\)|of 1 channels"),
        ({"data": data_path()}, "the network reads channels first"),
        ({"data": np.zeros((3, 1, 8, 9), np.float32)}, r"which takes \(N, 1, 8, 8\)"),
        ({"data": np.full((3, 1, 8, 8), np.nan)}, "not finite"),
        ({"data": np.zeros((0, 1, 8, 8))}, "empty"),
        ({"data": []}, "empty"),
        ({"data": 7}, "a int; give an array"),
        ({"data": np.zeros(64)}, r"an array of shape \(64,\)"),
        ({"images": 8}, "no images to look at: give data, or a card"),
        ({"images": 8, "input": GRAY}, "no images to look at: give data, or a card"),
        ({"images": 0, "data": np.zeros((3, 1, 8, 8))}, "contradict each other|leaves nothing to measure"),
    ],
    ids=str,
)
def test_bad_data(options: dict[str, Any], match: str) -> None:
    for call in (lambda: quantize(DEMO, **options), lambda: equint.calibrate(DEMO, **{"data": None, **options})):
        with pytest.raises(EquintError, match=match) as error:
            call()
        assert "\n" not in str(error.value)


def test_statistics_that_do_not_fit(digits: Array) -> None:
    other = equint.calibrate(random_network(1), sample(random_network(1), 3))
    with pytest.raises(EquintError, match="of another network; calibrate this one"):
        quantize(DEMO, data=other)
    found = equint.calibrate(DEMO, digits, histograms=False)
    with pytest.raises(EquintError, match="leave the number of images out"):
        quantize(DEMO, data=found, images=3)
    with pytest.raises(EquintError, match="no images to look at"):
        equint.calibrate(DEMO, found)
    counts = replace(recipe("cwq"), passes=(("fold_batchnorm", {}), ("calibrate", {"rule": "mse"}), ("quantize", {})))
    with pytest.raises(EquintError, match="no histogram of tensor"):
        quantize(DEMO, counts, data=found)


# Results


def test_result() -> None:
    result = quantize(DEMO, "dfq", input=(0, 1))
    assert result.proto is result.proto
    assert result.seconds > 0
    assert not result.original.qparams
    assert {layer.weight for layer in layers(result.model.graph)} < result.model.qparams.keys()
    assert all(e.warning for e in result.warnings)
    with pytest.raises(FrozenInstanceError):
        result.recipe = "other"  # type: ignore[misc]
    ran = [e.facts["pass"] for e in result.model.log if e.kind is EventKind.RAN]
    assert ran == [name for name, _ in recipe("dfq").passes]


def test_save(tmp_path: Path, digits: Array) -> None:
    result = quantize(DEMO, "cwq", input=(0, 1))
    result.save(tmp_path / "int8.onnx")
    assert same(onnx.load(tmp_path / "int8.onnx"), result.proto)
    wanted, found = run(DEMO, digits)[0], run(onnx.load(tmp_path / "int8.onnx"), digits)[0]
    assert np.square(found - wanted).sum() < 0.1 * np.square(wanted).sum()
    with pytest.raises(EquintError, match="cannot write"):
        result.save(tmp_path / "absent" / "int8.onnx")


def test_progress() -> None:
    seen: list[tuple[str, int, int]] = []
    quantize(DEMO, "dfq", input=(0, 1), progress=lambda *step: seen.append(step))
    names = [name for name, _ in recipe("dfq").passes]
    assert seen == [(name, k, len(names)) for k, name in enumerate(names)]


def test_a_guess_about_the_input_is_a_warning() -> None:
    proto = network("y = Conv(x, w)", w=normal(4, 3, 3, 3))
    assert EventKind.INPUT_ASSUMED in [e.kind for e in quantize(proto).warnings]
    assert not any(e.source == "inputs" for e in quantize(proto, input=(0, 1)).warnings)


@pytest.mark.parametrize(("images", "taken"), [(1, 2), (2, 2), (3, 4)])
@pytest.mark.parametrize("given", [False, True])
def test_golden_vectors_are_of_whole_batches(images: int, taken: int, given: bool, tmp_path: Path) -> None:
    """A network that takes two at once; of three images in a file, the last is shown again."""
    proto = network("y = Conv(x, w)", inputs="float[2,3,8,8] x", w=normal(4, 3, 3, 3))
    x = normal(3, 3, 8, 8, scale=0.3)
    np.save(tmp_path / "x.npy", x)
    data = tmp_path / "x.npy" if given else None
    found = equint.golden(proto, tmp_path / "golden", input=Card("features", range=(-1, 1)), data=data, images=images)
    shown = np.load(tmp_path / "golden" / "000_x.npy")
    assert (found.count, len(shown), len(np.load(tmp_path / "golden" / "001_y.npy"))) == (taken, taken, taken)
    if given:
        program = equint.program(proto, input=(-1, 1))
        np.testing.assert_array_equal(shown, program.quantized("x", x[[0, 1, 2, 2][:taken]]))
