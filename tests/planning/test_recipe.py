"""Recipes are checked key by key, survive TOML, and become passes only on targets that can take them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from equint.errors import EquintError
from equint.graph.overrides import Override
from equint.hardware.target import TARGETS, Target, target
from equint.ir.model import Model, QSpec
from equint.ops.layers import tiny_graph
from equint.passes.clip_weights import ClipWeights
from equint.passes.correct_bias import CorrectBias
from equint.passes.equalize import Equalize
from equint.passes.quantize import Quantize
from equint.passes.relu6 import Relu6
from equint.passes.weight_shift import WeightShift
from equint.planning.plan import Data, resolve
from equint.planning.recipe import Recipe, built_in, needs_images, parse, recipe, to_toml, without_images
from equint.samples.images import Samples

QUANTIZE: dict[str, Any] = {"pass": "quantize"}
FULL = """
name = "mine"
level = 1
description = "all that can be said"
target = "per-tensor"
bias_bits = 16

[weight]
bits = 6
symmetric = true

[activation]
signed = true
symmetric = true

[[passes]]
pass = "fold_batchnorm"

[[passes]]
pass = "equalize"
sweeps = 7
max_scale = 16

[[passes]]
pass = "relu6"
mode = "target"

[[passes]]
pass = "quantize"

[[passes]]
pass = "correct_bias"
"""


@pytest.mark.parametrize(
    ("table", "named"),
    [
        ({"passes": [QUANTIZE], "pases": []}, "'pases'"),
        ({"passes": [QUANTIZE], "bias_bits": 12}, "bias_bits = 12"),
        ({"passes": [QUANTIZE], "bias_bits": 16.0}, "bias_bits = 16.0; choose 8, 16 or 32"),
        ({"passes": [QUANTIZE], "bias_bits": True}, "bias_bits = True"),
        ({"passes": [QUANTIZE], "bias_grid": "mine"}, "bias_grid = 'mine'; choose accumulator or own"),
        ({"passes": [QUANTIZE], "level": True}, "level = True"),
        ({"passes": [QUANTIZE], "weight": {"bit": 8}}, r"'bit' in \[weight\]"),
        ({"passes": [QUANTIZE], "activation": {"bits": "8"}}, r"bits = '8' in \[activation\]; expected int"),
        ({"passes": [QUANTIZE], "weight": {"bits": True}}, "bits = True"),
        ({"passes": [QUANTIZE], "weight": {"symmetric": 1}}, "symmetric = 1"),
        ({"passes": [QUANTIZE], "weight": {"granularity": "row"}}, "granularity = 'row'.*'channel'"),
        ({"passes": [QUANTIZE], "weight": 8}, r"\[weight\] must be a table"),
        ({"passes": []}, "needs"),
        ({"passes": QUANTIZE}, "needs"),
        ({}, "needs"),
        ({"passes": ["quantize"]}, "must be a table"),
        ({"passes": [{"pass": "quantise"}]}, "'quantise'.*fold_batchnorm"),
        ({"passes": [{"pass": ["quantize"]}]}, "unknown pass"),
        ({"passes": [{"sweeps": 3}]}, "unknown pass"),
        ({"passes": [QUANTIZE, {"pass": "equalize", "sweep": 3}]}, "'sweep' in pass equalize.*sweeps"),
        ({"passes": [QUANTIZE, {"pass": "equalize", "sweeps": 1.5}]}, "sweeps = 1.5"),
        ({"passes": [QUANTIZE, {"pass": "equalize", "tolerance": True}]}, "tolerance = True"),
        ({"passes": [QUANTIZE, {"pass": "relu6", "mode": "drop"}]}, "mode = 'drop'.*'keep'"),
        ({"passes": [{"pass": "quantize", "bias_bits": 8}]}, "'bias_bits' in pass quantize"),
        ({"passes": [{"pass": "fold_batchnorm"}]}, "no pass quantizes"),
        ({"passes": [QUANTIZE], "level": 5}, "level = 5"),
        ({"passes": [QUANTIZE], "target": "abacus"}, "'abacus'"),
        ({"passes": [QUANTIZE], "overrides": {"layers": ["a"]}}, r"write \[\[overrides\]\]"),
        ({"passes": [QUANTIZE], "overrides": ["a"]}, "must be a table"),
        ({"passes": [QUANTIZE], "overrides": [{"layer": ["a"]}]}, r"'layer' in \[\[overrides\]\]; known.*layers"),
        ({"passes": [QUANTIZE], "overrides": [{"layers": "a", "float": True}]}, "layers = 'a'.*a list of names"),
        ({"passes": [QUANTIZE], "overrides": [{"layers": ["a"], "float": 1}]}, "float = 1 in .*; expected bool"),
        ({"passes": [QUANTIZE], "overrides": [{"layers": ["a"], "weight_bits": "8"}]}, "expected int"),
        ({"passes": [QUANTIZE], "overrides": [{"layers": ["a"], "weight_bits": True}]}, "expected int"),
        ({"passes": [QUANTIZE], "overrides": [{"layers": ["a"], "granularity": "row"}]}, "granularity = 'row'"),
        ({"passes": [QUANTIZE], "overrides": [{"layers": ["a"]}]}, "mine: the override of a changes nothing"),
        ({"passes": [{"pass": "quantize", "overrides": []}]}, "'overrides' in pass quantize"),
    ],
)
def test_what_is_wrong_is_named(table: dict[str, Any], named: str) -> None:
    with pytest.raises(EquintError, match=named):
        parse(table, "mine")


def test_a_file_says_what_it_says(tmp_path: Path) -> None:
    path = tmp_path / "whatever.toml"
    path.write_text(FULL, "utf-8")
    assert recipe(path) == recipe(str(path)) == Recipe(
        "mine", "all that can be said", 1, "per-tensor", {"bits": 6, "symmetric": True},
        {"signed": True, "symmetric": True},
        16,
        (("fold_batchnorm", {}), ("equalize", {"sweeps": 7, "max_scale": 16}), ("relu6", {"mode": "target"}),
         ("quantize", {}), ("correct_bias", {})),
    )  # fmt: skip


def test_a_file_without_a_name_is_called_after_itself(tmp_path: Path) -> None:
    path = tmp_path / "short.toml"
    path.write_text('[[passes]]\npass = "quantize"\n', "utf-8")
    assert recipe(path).name == "short"


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("gone.toml", None, "no such recipe"),
        ("bad.toml", b"= 3", "not a readable"),
        ("bad.toml", b"\xff\xfe", "not a readable"),
        ("unknown", None, "unknown recipe 'unknown'; choose optimal, lwq"),
    ],
)
def test_unreadable_files_are_named(tmp_path: Path, name: str, content: bytes | None, why: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(EquintError, match=why):
        recipe(str(tmp_path / name) if name.endswith(".toml") else name)


@pytest.mark.parametrize("chosen", built_in(), ids=lambda r: r.name)
@pytest.mark.parametrize("hardware", TARGETS, ids=lambda t: t.name)
def test_built_in_recipes_resolve_wherever_their_weights_fit(chosen: Recipe, hardware: Target) -> None:
    assert recipe(chosen.name) is chosen
    if chosen.weight.get("granularity", "tensor") not in ("tensor", hardware.weight.granularity):
        what = "weight scale" if chosen.weight["granularity"] == "channel" else "shift"
        with pytest.raises(EquintError, match=f"{chosen.name} needs a {what} per channel.*{hardware.name}"):
            resolve(chosen, hardware)
    else:
        assert len(resolve(chosen, hardware)) == len(chosen.passes)


def test_target_and_recipe_meet_in_the_passes() -> None:
    hardware = target("per-tensor")
    _, equalize, relu6, quantize, correct = resolve(parse_full(), hardware)
    assert equalize == Equalize(sweeps=7, max_scale=16)
    assert relu6 == Relu6("keep")
    assert isinstance(quantize, Quantize)
    assert (quantize.weight.bits, quantize.weight.symmetric, quantize.weight.granularity) == (6, True, "tensor")
    assert quantize.activation is not None
    assert (quantize.activation.bits, quantize.activation.signed) == (8, True)
    assert correct == CorrectBias(16)


def parse_full() -> Recipe:
    import tomllib

    return parse(tomllib.loads(FULL), "full")


def test_clips_follow_the_target() -> None:
    modes = {t.name: next(p for p in resolve(recipe("dfq"), t) if isinstance(p, Relu6)).mode for t in TARGETS}
    assert modes.pop("per-tensor-clip") == "channel_clip"
    assert {"onnxruntime", "per-tensor", "npu-shift"} < modes.keys()
    assert set(modes.values()) == {"keep"}


def test_bits_asked_for_come_last() -> None:
    quantize = resolve(parse_full(), target("per-tensor"), weight_bits=4, activation_bits=16)[3]
    assert isinstance(quantize, Quantize)
    assert quantize.weight.bits == 4
    assert quantize.activation is not None
    assert quantize.activation.bits == 16
    floating = resolve(parse_full(), target("per-tensor"), activation_bits="float")[3]
    assert isinstance(floating, Quantize)
    assert floating.activation is None


@pytest.mark.parametrize("asked", [{"weight_bits": 1}, {"weight_bits": 17}, {"activation_bits": 1}])
def test_bits_that_cannot_be_are_refused(asked: dict[str, int]) -> None:
    with pytest.raises(EquintError, match="bits cannot be quantized to"):
        resolve(recipe("lwq"), target("per-tensor"), asked.get("weight_bits"), asked.get("activation_bits"))


def test_bias_bits_reach_the_passes() -> None:
    chosen = parse({"passes": [QUANTIZE, {"pass": "correct_bias"}], "bias_bits": 16}, "mine")
    quantize, correct = resolve(chosen, target("per-tensor"))
    assert isinstance(quantize, Quantize)
    assert quantize.bias_bits == 16
    assert correct == CorrectBias(16)


def test_the_grid_of_biases_reaches_the_passes() -> None:
    steps = [QUANTIZE, *({"pass": name} for name in ("round_weights", "correct_bias", "correct_bias_empirical"))]
    chosen = parse({"passes": steps, "bias_bits": 16, "bias_grid": "own"}, "mine")
    for step in resolve(chosen, target("per-tensor")):
        assert (vars(step)["bias_bits"], vars(step)["bias_grid"]) == (16, "own")
    with pytest.raises(EquintError, match='recipe mine: bias_grid = "own" is for biases of 16 bits, and these have 32'):
        resolve(parse({"passes": [QUANTIZE], "bias_grid": "own"}, "mine"), target("per-tensor"))


def test_recipes_of_the_factorization_paper_are_as_published() -> None:
    """Biases of 16 bits on their own grids, 64 images, and nothing between equalization and fine-tuning."""
    for name, level in (("one-step", 2), ("two-step", 2), ("two-step-bias-finetune", 3)):
        chosen = recipe(name)
        assert (chosen.level, chosen.bias_bits, chosen.bias_grid) == (level, 16, "own")
        assert "calibrate" in needs_images(chosen)
        assert "calibrate" not in needs_images(without_images(chosen))
    names = [name for name, _ in recipe("two-step-bias-finetune").passes]
    assert names[names.index("two_step") :] == ["two_step", "quantize", "finetune_bias"]
    assert without_images(recipe("optimal")) == recipe("optimal")


@pytest.mark.parametrize("asked", [{"weight": {"granularity": "shift"}}, {"activation": {"granularity": "channel"}}])
def test_what_no_target_takes_is_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(EquintError, match="mine"):
        resolve(parse({"passes": [QUANTIZE], **asked}, "mine"), target("per-channel"))


OVERRIDES = """
[[overrides]]
layers = ["conv1", "block/*"]
weight_bits = 16
granularity = "channel"

[[overrides]]
tensors = ["pool\\"s"]
activation_bits = 16

[[overrides]]
layers = ["last"]
float = true
"""


def test_overrides_are_read_and_reach_quantize() -> None:
    import tomllib

    chosen = parse(tomllib.loads(FULL + OVERRIDES), "full")
    wanted = (
        Override(("conv1", "block/*"), weight_bits=16, granularity="channel"),
        Override(tensors=('pool"s',), activation_bits=16),
        Override(("last",), float=True),
    )
    assert chosen.overrides == wanted
    quantize = next(p for p in resolve(chosen, target("per-channel")) if isinstance(p, Quantize))
    assert quantize.overrides == wanted
    with pytest.raises(EquintError, match=r"conv1.*granularity channel, which target per-tensor does not take"):
        resolve(chosen, target("per-tensor"))


@pytest.mark.parametrize("chosen", built_in(), ids=lambda r: r.name)
def test_what_is_written_reads_back_the_same(chosen: Recipe, tmp_path: Path) -> None:
    path = tmp_path / "again.toml"
    path.write_text(to_toml(chosen), "utf-8")
    assert parse(read_toml(path), "again") == chosen


def test_everything_that_can_be_said_survives(tmp_path: Path) -> None:
    path = tmp_path / "again.toml"
    path.write_text(FULL.replace('"all that can be said"', "'a \"b\" c:\\d ä'") + OVERRIDES, "utf-8")
    chosen = recipe(path)
    assert chosen.description == 'a "b" c:\\d ä'
    path.write_text(to_toml(chosen), "utf-8")
    assert recipe(path) == chosen


def read_toml(path: Path) -> dict[str, Any]:
    import tomllib

    return tomllib.loads(path.read_text("utf-8"))


def test_weights_are_clipped_behind_their_shifts_and_before_quantization() -> None:
    """Oh et al. (2020), "Weight clipping": after the WES process, just before layer-wise quantization."""
    made = resolve(recipe("wes-published-clipped"), target("npu-shift"))
    kinds = [type(p).__name__ for p in made]
    assert kinds[-3:] == ["WeightShift", "ClipWeights", "Quantize"]
    shift, clip, quantize = made[-3:]
    assert isinstance(shift, WeightShift)
    assert isinstance(clip, ClipWeights)
    assert (shift.search, shift.cost, clip.search, clip.cost) == ("nelder-mead", "weights") * 2
    assert isinstance(quantize, Quantize)
    assert quantize.weight == QSpec(8, signed=False, symmetric=False, granularity="shift")


@pytest.mark.parametrize("name", ["wes-published", "wes-published-iterative", "wes-published-clipped", "cwq-published"])
def test_published_ranges_are_the_images_percentile_and_a_warning_without_images(name: str) -> None:
    """At the 1 % percentile of 200 images' extremes, and without images it is said that ranges are others."""
    rng = np.random.default_rng(0)
    images = np.clip(rng.normal(size=(200, 4, 4, 4)), -2, 2).astype(np.float32)
    lowest, highest = np.linspace(-9, -3, 200), np.linspace(3, 12, 200)
    images[:, 0, 0, 0], images[:, 1, 1, 1] = rng.permutation(lowest), rng.permutation(highest)
    chosen = recipe(name)
    folded, calibrate, *_ = resolve(chosen, target(chosen.target), data=Data(Samples.of(images)))
    graph = tiny_graph()
    at = calibrate(folded(Model(graph))).ranges["x"]
    assert float(at.lo.min()) == pytest.approx(lowest[2], abs=0.05)  # of 200 images, one per cent reaches further
    assert float(at.hi.max()) == pytest.approx(highest[-3], abs=0.05)
    _, blind, *_ = resolve(chosen, target(chosen.target))
    said = [str(e.facts.get("why")) for e in blind(Model(graph)).log if e.warning]
    assert sum("ranges are not those of rule image-percentile, which needs images" in why for why in said) == 1
