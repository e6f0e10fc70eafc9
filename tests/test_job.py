"""The prologue of all commands: what it reads, once, and the float network that it compares with."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import equint
from commands import Run
from equint import EquintError
from equint.demo import data_path, model_path
from equint.ir.events import EventKind
from equint.ir.model import Array, Model
from equint.job import Job
from equint.maths.noise import sqnr_db
from equint.noise.prediction import predict
from equint.passes import needs
from equint.planning.recipe import built_in, recipe
from handwritten import execute, network, normal

MODEL, SPAN = model_path(), (0.0, 1.0)


@pytest.fixture
def card(tmp_path: Path) -> Path:
    path = tmp_path / "digits.toml"
    path.write_text(
        f'model = "{MODEL}"\n[input]\nkind = "gray"\nmean = 0.0\nstd = 16.0\nrange = [0.0, 1.0]\n'
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


@pytest.mark.parametrize("name", ["lwq", "optimal", "dfq-published"])
def test_recipes_that_go_without_images_are_the_same_on_request(name: str) -> None:
    asked, plain = (Job.of(MODEL, name, input=SPAN, images=count) for count in (0, None))
    assert asked.recipe == plain.recipe
    bare = (
        [(type(p), {k: v for k, v in vars(p).items() if k not in needs(p)}) for p in job.passes]
        for job in (asked, plain)
    )
    assert next(bare) == next(bare)
    given = ([[getattr(p, n) is None for n in needs(p)] for p in job.passes] for job in (asked, plain))
    assert next(given) == next(given)


def test_no_images_and_data_contradict_each_other() -> None:
    for name in ("lwq", "one-step"):
        with pytest.raises(EquintError, match="images = 0 and data contradict each other"):
            Job.of(MODEL, name, input=SPAN, images=0, data=np.zeros((8, 1, 8, 8), np.float32))
    for data in (None, np.zeros((8, 1, 8, 8), np.float32)):
        with pytest.raises(EquintError, match="images = 0 leaves nothing to measure"):
            equint.calibrate(MODEL, data, input=SPAN, images=0)


@pytest.mark.parametrize("images", [None, 0])
@pytest.mark.parametrize("name", ["bias-finetune", "two-step-bias-finetune"])
def test_where_training_needs_images_nothing_else_is_advised(name: str, images: int | None) -> None:
    for look in (equint.quantize, lambda *args, **options: equint.mixed(args[0], 1.0, args[1], **options)):
        with pytest.raises(EquintError, match=f"^recipe {name}: finetune_bias needs images; give data$"):
            look(MODEL, name, input=SPAN, images=images)


@pytest.mark.slow
def test_bits_are_spent_without_images_where_that_is_asked_for(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "int8.onnx"
    asked = ("--recipe", "one-step", "--images", 0, "--max-drop", 0.5, "--weight-bits", 5)
    code, text, error = run("quantize", model_path(), "-o", out, *asked, "--json")
    assert (code, error) == (0, "")
    found = json.loads(text)
    assert (found["recipe"], found["level"]) == ("one-step+mixed", 1)


def test_data_that_nothing_looks_at_are_refused() -> None:
    images = np.zeros((8, 1, 8, 8), np.float32)
    with pytest.raises(EquintError, match="looks at no images; leave the data out"):
        equint.quantize(MODEL, "dfq-published", data=images, input=SPAN)


# What runs a network runs it as it runs: batches, shapes, inputs

W, V, U = normal(8, 3, 3, 3), normal(4, 8, 3, 3, seed=2), normal(256, 10, seed=3)
HEAD = (
    "a = Conv <pads = [1,1,1,1]> (x, w) r = Relu(a) b = Conv <pads = [1,1,1,1]> (r, v) f = Reshape(b, s) y = Gemm(f, u)"
)
X = normal(24, 3, 8, 8, scale=1)


def single(batch: str) -> onnx.ModelProto:
    """A network whose Reshape says that it takes one sample."""
    return network(HEAD, inputs=f"float[{batch},3,8,8] x", output="float[1,10] y", s=[1, 256], w=W, v=V, u=U)


@pytest.mark.slow
@pytest.mark.parametrize("batch", ["1", "N"])
@pytest.mark.parametrize("chosen", [r.name for r in built_in() if r.level >= 2] + ["optimal", "wes-optimal"])
def test_single_samples_whatever_the_recipe_does_with_them(batch: str, chosen: str) -> None:
    """An array, and a list of single samples, serve as well as they serve the same network with a free batch."""
    if any(name == "finetune_bias" for name, _ in recipe(chosen).passes):
        pytest.importorskip("torch", reason="fine-tuning needs the extra equint[torch]")
    free = network(HEAD, output="float[N,10] y", s=[0, 256], w=W, v=V, u=U)
    clean, wanted = quantized_outputs(free), quantized_outputs(equint.quantize(free, chosen, data=X).proto)
    for data in (X, [X[k : k + 1] for k in range(len(X))]):
        found = quantized_outputs(equint.quantize(single(batch), chosen, data=data).proto)
        assert sqnr_db(clean, found) > sqnr_db(clean, wanted) - 3


def quantized_outputs(proto: onnx.ModelProto) -> Array:
    return np.concatenate([execute(proto, X[k : k + 1])[0] for k in range(8)])


def test_shapes_that_inference_does_not_know_are_seen_on_the_first_sample() -> None:
    """A computed Reshape in the middle: every convolution behind it is quantized, and nothing lacks a range."""
    body = """a = Conv <pads = [1,1,1,1]> (x, w) r = Relu(a) n = Shape(r) f = Cast <to = 1> (n) g = Mul(f, one)
              k = Cast <to = 7> (g) m = Reshape(r, k) y = Conv <pads = [1,1,1,1]> (m, v)"""
    proto = network(body, w=W, v=V, one=1.0)
    result = equint.quantize(proto, data=X)
    assert {"w", "v", "r", "y"} <= result.model.qparams.keys()
    assert not [event for event in result.model.log if event.kind is EventKind.FLOAT_WITHOUT_RANGE]
    wanted = np.concatenate([execute(proto, X[:8])[0]])
    assert sqnr_db(wanted, execute(result.proto, X[:8])[0]) > 30


def test_statistics_carry_the_shapes_that_were_seen() -> None:
    proto = network(
        "a = Conv(x, w) n = Shape(a) m = Reshape(a, n) t = Relu(m) y = Conv(t, v)", inputs="float[N,3,H,W] x", w=W, v=V
    )
    measured = equint.calibrate(proto, X)
    assert same_grids(equint.quantize(proto, "cwq", data=measured).model, equint.quantize(proto, "cwq", data=X).model)


def test_several_inputs_by_name(tmp_path: Path) -> None:
    """A picture and a class number: an .npz, a mapping and a list of feeds are the same samples."""
    body = """c = Conv <pads = [1,1,1,1]> (x, w) e = Gather(table, id) s = Reshape(e, shape) a = Add(c, s) r = Relu(a)
              y = Conv(r, v)"""
    consts = {"w": W, "v": V, "table": normal(10, 8, scale=1), "shape": [-1, 8, 1, 1]}
    proto = network(body, inputs="float[N,3,8,8] x, int64[N] id", **consts)  # type: ignore[arg-type]
    classes = np.arange(24) % 10
    np.savez(tmp_path / "samples.npz", x=X, id=classes)
    feeds = [{"x": X[k : k + 1], "id": classes[k : k + 1]} for k in range(24)]
    results = [
        equint.quantize(proto, "cwq", data=d) for d in ({"x": X, "id": classes}, feeds, tmp_path / "samples.npz")
    ]
    assert same_grids(results[0].model, results[1].model)
    assert same_grids(results[0].model, results[2].model)
    found, wanted = (execute(p, X[:8], classes[:8])[0] for p in (results[0].proto, proto))  # type: ignore[arg-type]
    assert sqnr_db(wanted, found) > 30


def test_pixels_that_the_network_itself_prepares() -> None:
    """uint8, channels last: with pictures and without, the convolution sees the same range."""
    body = """f = Cast <to = 1> (x) t = Transpose <perm = [0,3,1,2]> (f) d = Div(t, k) c = Conv(d, w) r = Relu(c)
              y = Conv(r, v)"""
    proto = network(body, inputs="uint8[N,32,32,3] x", w=W, v=V, k=255.0)
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3), np.uint8)
    for data in (pixels, None):
        result = equint.quantize(proto, "cwq", data=data)
        assert {"w", "v", "d", "r"} <= result.model.qparams.keys()
        assert result.model.qparams["d"].hi == pytest.approx(1, abs=0.01)
        found, wanted = (execute(p, pixels[:4])[0] for p in (result.proto, proto))
        assert sqnr_db(wanted, found) > 25


def test_statistics_of_pixels_lie_where_the_channels_are() -> None:
    """Means and stds of three colours for a network that reads channels last: as for its twin that reads them first."""
    first = network("c = Conv(x, w) r = Relu(c) y = Conv(r, v)", inputs="float[N,3,32,32] x", w=W, v=V)
    body = "t = Transpose <perm = [0,3,1,2]> (x) c = Conv(t, w) r = Relu(c) y = Conv(r, v)"
    last = network(body, inputs="float[N,32,32,3] x", w=W, v=V)
    card = equint.Card("rgb", (120.0, 110.0, 100.0), (60.0, 50.0, 40.0))
    a, b = (equint.quantize(proto, "cwq", input=card).model for proto in (first, last))
    assert b.ranges["x"].hi.shape == (1, 1, 1, 3)
    np.testing.assert_allclose(b.ranges["x"].hi.reshape(-1), (255 - np.array([120, 110, 100])) / [60, 50, 40])
    for name in ("r", "y"):
        assert b.qparams[name].hi == pytest.approx(a.qparams[name].hi, rel=0.05)
    with pytest.raises(EquintError, match=r"layout nchw.*has 32 channels there"):
        equint.quantize(last, "cwq", input=replace(card, layout="nchw"))


def test_what_a_sample_shows_does_not_tie_the_network_to_its_size() -> None:
    """Shapes seen on pictures of 8×8, one at a time, and the result reads others, several at once."""
    body = """a = Conv <pads = [1,1,1,1]> (x, w) r = Relu(a) n = Shape(r) f = Reshape(r, n) g = GlobalAveragePool(f)
              h = Flatten(g) z = Gemm(h, u) b = Conv(f, v) y = GlobalAveragePool(b)"""
    proto = network(body, inputs="float[N,3,H,W] x", output="float[] y, float[] z", w=W, v=V, u=normal(8, 5))
    result = equint.quantize(proto, data=[X[k : k + 1] for k in range(24)])
    assert {"w", "v", "u"} <= result.model.qparams.keys()
    larger = normal(3, 3, 14, 11, scale=1, seed=4)
    for found, wanted in zip(execute(result.proto, larger), execute(proto, larger), strict=True):
        assert sqnr_db(wanted, found) > 20


LEAKY = network("a = Conv(x, w) h = LeakyRelu(a) y = Conv(h, v)", w=normal(4, 3, 3, 3), v=normal(4, 4, 3, 3))


@pytest.mark.parametrize(("target", "asked"), [("per-tensor", None), ("npu-shift", None), ("npu-shift", False)])
def test_activations_are_fused_where_the_target_or_the_user_says_so(target: str, asked: bool | None) -> None:
    found = equint.quantize(LEAKY, "lwq", target, input=SPAN, fused_activations=asked)
    fused = target == "npu-shift" and asked is None
    assert found.hardware.fused_activations == fused
    assert ("a" in found.model.qparams) != fused
    other = equint.quantize(LEAKY, "lwq", target, input=SPAN, fused_activations=not fused)
    assert ("a" in other.model.qparams) == fused


def test_fused_activations_are_asked_for_by_true_or_false() -> None:
    with pytest.raises(EquintError, match="fused_activations = 'all': give True or False"):
        equint.quantize(LEAKY, input=SPAN, fused_activations="all")  # type: ignore[arg-type]


def test_layers_are_priced_behind_what_is_fused() -> None:
    """Nothing that is not rounded has noise of its own."""
    found = {f: {t.tensor for t in predict(*_pair(f)).tensors} for f in (False, True)}
    assert found[False] - found[True] == {"a"}


def _pair(fused: bool) -> tuple[Model, Model]:
    return Job.of(LEAKY, "lwq", "per-tensor", input=SPAN, fused_activations=fused).plain()


def test_measured_statistics_serve_both() -> None:
    """What is measured does not hang on the hardware: the layer's own output is measured too."""
    x = normal(8, 3, 8, 8, seed=3, scale=1)
    statistics = equint.calibrate(LEAKY, x)
    assert "a" in statistics.tensors
    for fused in (False, True):
        once = equint.quantize(LEAKY, "lwq", data=statistics, fused_activations=fused)
        again = equint.quantize(LEAKY, "lwq", data=x, fused_activations=fused)
        assert once.model.qparams["h"].scale == again.model.qparams["h"].scale


def test_statistics_say_how_far_the_input_reaches() -> None:
    card = equint.Card("gray", (0.0,), (16.0,))
    statistics = equint.calibrate(model_path(), data_path(), input=card, images=32)
    job = Job.of(model_path(), data=statistics)
    lo, hi = job.network.ranges["input"].lo, job.network.ranges["input"].hi
    assert (np.min(lo), np.max(hi)) == (0.0, 1.0)
    assert np.min(Job.of(model_path(), data=statistics, input=(-1, 1)).network.ranges["input"].lo) == -1.0
