"""Every public name, called twice after every submodule was imported; and one clear line for every wrong type."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable
from dataclasses import is_dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import equint
from equint import Card, EquintError, errors
from equint.cli.main import COMMANDS
from equint.demo import data_path, model_path
from equint.ir.model import Array
from equint.onnx.writer import to_proto
from equint.runtime.session import Session

MODEL, SPAN = model_path(), (0.0, 1.0)
GRAY = Card("gray", (0.0,), (16.0,), range=(0.0, 1.0), data={"eval": data_path()})
CHECKS: dict[str, Callable[[Path], object]] = {}
Check = Callable[[Path], object]


@pytest.fixture(scope="module", autouse=True)
def _everything_is_imported() -> None:
    for module in walk_packages(equint.__path__, "equint."):
        import_module(module.name)


def digits(count: int = 16) -> tuple[Array, Array]:
    """Images as the network wants them, and their classes."""
    with np.load(data_path()) as file:
        x, y = file["x"][:count], file["y"][:count]
    return np.moveaxis(x.reshape(count, 8, 8, -1), -1, 1).astype(np.float32) / 16, y


def check(name: str) -> Callable[[Check], Check]:
    """Keep a check of a public name."""

    def keep(call: Check) -> Check:
        CHECKS[name] = call
        return call

    return keep


def short(value: object) -> None:
    """One line, and facts that JSON can hold."""
    short_repr(value)
    json.dumps(value.facts(), allow_nan=False)  # type: ignore[attr-defined]


def short_repr(value: object) -> None:
    assert is_dataclass(value)
    assert len(repr(value)) < 200
    assert "\n" not in repr(value)
    assert "array" not in repr(value)


@check("Card")
def check_card(_: Path) -> None:
    assert equint.Card("gray", (51.0,), (102.0,)).task == "classification"
    model = equint.quantize(MODEL, "cwq", input=equint.Card("gray", (51.0,), (102.0,))).model
    assert model.qparams["input"].lo == pytest.approx(-0.5, abs=0.02)
    assert model.qparams["input"].hi == pytest.approx(2, abs=0.02)


@check("Model")
def check_model(_: Path) -> None:
    assert repr(equint.load(MODEL)) == f"Model(input → output, nodes={len(equint.load(MODEL).graph.nodes)}, grids=0)"
    assert equint.Model(equint.load(MODEL).graph).qparams == {}


@check("Override")
def check_override(_: Path) -> None:
    wide = equint.Override(layers=("*",), weight_bits=16)
    chosen = next(r for r in equint.recipes() if r.name == "cwq")
    mine = equint.Recipe("mine", passes=chosen.passes, weight=chosen.weight, overrides=(wide,))
    found = equint.quantize(MODEL, mine, input=SPAN).model
    assert {q.bits for n, q in found.qparams.items() if n in found.graph.consts} == {16}


@check("Recipe")
def check_recipe(_: Path) -> None:
    mine = equint.Recipe("mine", passes=(("fold_batchnorm", {}), ("activation_ranges", {"n": 4.0}), ("quantize", {})))
    assert equint.quantize(MODEL, mine, input=SPAN).recipe == "mine"


@check("Result")
def check_result(_: Path) -> None:
    found = equint.quantize(MODEL, "cwq", input=SPAN)
    assert isinstance(found, equint.Result)
    assert equint.Result(found.job, found.model) == equint.Result(found.job, found.model, seconds=3.0)


@check("Samples")
def check_samples(_: Path) -> None:
    images = equint.Samples.of(digits(20)[0])
    assert [len(batch) for batch in images] == [8, 8, 4]
    assert equint.quantize(MODEL, "cwq", data=images, input=SPAN).level == 2


@check("Statistics")
def check_statistics(here: Path) -> None:
    found = equint.calibrate(MODEL, digits(8)[0], input=SPAN)
    found.save(here / "seen.npz")
    assert equint.Statistics.load(here / "seen.npz").images == 8
    assert (found + found).images == 16
    short_repr(found)


@check("Target")
def check_target(_: Path) -> None:
    mine = equint.Target("mine", "four bits", equint.targets()[0].weight, bias_bits=16)
    assert equint.quantize(MODEL, target=mine, input=SPAN).target == "mine"


@check("auto")
def check_auto(_: Path) -> None:
    found = equint.auto(MODEL, card=GRAY, limit=50)
    short(found)
    assert found.held is None
    assert found.evaluation is not None
    measured = equint.evaluate(found.result, None, GRAY, MODEL, limit=50)
    assert found.evaluation.figures == measured.figures


@check("card")
def check_card_of(_: Path) -> None:
    found = equint.card(MODEL, data_path())
    short(found)
    assert (found.card.mean, found.card.std, found.clear) == ((0.0,), (16.0,), True)


@check("calibrate")
def check_calibrate(_: Path) -> None:
    images = digits()[0]
    found = equint.calibrate(MODEL, images, input=SPAN).tensors["output"]
    clean = Session(MODEL).run(images)["output"]
    np.testing.assert_allclose(found.high, clean.max(0), rtol=1e-4, atol=1e-4)


@check("compare")
def check_compare(_: Path) -> None:
    images = digits()[0]
    result = equint.quantize(MODEL, "cwq", input=SPAN)
    found = equint.compare(MODEL, result, images)
    short(found)
    a, b = (Session(m).run(images)["output"].astype(np.float64) for m in (MODEL, result.proto))
    (last,) = [t for t in found.tensors if t.tensor == "output"]
    assert last.sqnr_db == pytest.approx(10 * math.log10(np.square(a).sum() / np.square(b - a).sum()), abs=0.01)
    assert equint.compare(equint.load(MODEL), result.model, images).facts() == found.facts()


@check("compare_board")
def check_compare_board(here: Path) -> None:
    """A value that a board got wrong is found in its layer."""
    equint.export(MODEL, here / "net", "wes", input=SPAN)
    bundle, folder = here / "net.json", here / "golden"
    read = equint.golden(bundle, folder)
    assert equint.compare_board(bundle, folder).first is None
    tensors = json.loads((folder / "golden.json").read_text())["tensors"]
    step = next(s for s in read.steps if s["op"] == "Conv" and s["number"] > 2)
    file = folder / tensors[step["outputs"][0]]["file"]
    values = np.load(file)
    values.flat[0] ^= 1
    np.save(file, values)
    found = equint.compare_board(bundle, folder)
    assert found.first is not None
    assert found.first.layer == step["layer"]


@check("diagnose")
def check_diagnose(_: Path) -> None:
    images, labels = digits(32)
    found = equint.diagnose(MODEL, "lwq", input=SPAN, data=images, labels=labels)
    short(found)
    assert found.best is not None
    assert found.stages["both"].sqnr_db < 6 < found.stages["rewritten"].sqnr_db
    assert equint.quantize(MODEL, found.recipe, input=SPAN, data=images).recipe == found.recipe.name


@check("evaluate")
def check_evaluate(_: Path) -> None:
    images, labels = digits(50)
    found = equint.evaluate(MODEL, data_path(), GRAY, limit=50)
    short(found)
    hits = Session(MODEL).run(images)["output"].argmax(1) == labels
    assert found.figures["top1"] == pytest.approx(100 * hits.mean())
    result = equint.quantize(MODEL, "cwq", input=SPAN)
    judged = equint.evaluate(result, None, GRAY, MODEL, limit=50)
    assert judged.original == pytest.approx(found.figures)
    assert judged.verdict is not None
    for same in (result.model, result.proto):
        assert equint.evaluate(same, None, GRAY, equint.load(MODEL), limit=50).figures == judged.figures
    assert equint.evaluate(equint.program(MODEL, "wes", input=SPAN), None, GRAY, limit=50).figures["top1"] > 90


@check("explain")
def check_explain(_: Path) -> None:
    found = equint.explain(MODEL, "lwq", input=SPAN)
    short(found)
    assert dict(found) == found.facts()
    assert found["layers"] == list(found.layers)
    assert sum(r["share"] for r in (*found.layers, *found.tensors)) == pytest.approx(1)
    assert found.predicted["before"] == found.predicted["after"]  # lwq chooses no scales


@check("export")
def check_export(here: Path) -> None:
    found = equint.export(MODEL, here / "net", "wes", input=SPAN)
    short(found)
    assert sorted(p.name for p in here.iterdir()) == ["net.json", "net.safetensors"]
    assert all(Path(name).stat().st_size == size for name, size in found.files.items())
    again = equint.export(here / "net.json", here / "net.onnx", format="integer")
    assert again.result is None
    assert (here / "net.onnx").stat().st_size == again.files[str(here / "net.onnx")]


@check("from_torch")
def check_from_torch(_: Path) -> None:
    torch = pytest.importorskip("torch", reason="from_torch needs torch")
    layer, x = torch.nn.Conv2d(3, 4, 3), torch.ones(1, 3, 8, 8)
    model = equint.from_torch(layer, x)
    found = Session(to_proto(model.graph)).run(x.numpy())[model.graph.outputs[0]]
    np.testing.assert_allclose(found, layer(x).detach().numpy(), rtol=1e-4, atol=1e-5)


@check("judge")
def check_judge(here: Path) -> None:
    """Candidates in whatever form are the same; against SQNR and agreement as `evaluate` measures them."""
    images, _ = digits(32)
    results = {name: equint.quantize(MODEL, name, input=SPAN) for name in ("lwq", "cwq-bc")}
    results["cwq-bc"].save(here / "saved.onnx")
    candidates = {"plain": results["lwq"].model, "corrected": here / "saved.onnx"}
    found = equint.judge(MODEL, candidates, input=SPAN, data=images)
    short(found)
    assert (found.best, found.images) == ("corrected", 32)
    for name, result in (("plain", results["lwq"]), ("corrected", results["cwq-bc"])):
        figures = equint.evaluate(result, data_path(), GRAY, MODEL, limit=32).figures
        row = next(r for r in found.losses[name] if r.role == "output")
        assert row.sqnr_db == pytest.approx(figures["sqnr_db"], abs=0.01)
        assert row.agreement == pytest.approx(figures["agreement"])
        assert found.sqnr_db[name] == pytest.approx(figures["sqnr_db"], abs=0.01)
    assert "corrected" in equint.judge(MODEL, candidates, input=SPAN).sqnr_db  # made-up pictures


@check("golden")
def check_golden(here: Path) -> None:
    found = equint.golden(MODEL, here / "golden", "wes", input=GRAY, images=3)
    short(found)
    assert found.count == 3
    assert str(data_path()) in found.images
    assert len(list((here / "golden").glob("*.npy"))) >= len(found.steps)


@check("inspect")
def check_inspect(_: Path) -> None:
    found = equint.inspect(MODEL, "per-tensor-clip", input=SPAN)
    short(found)
    assert dict(found) == found.facts()
    assert found.pinned["output"] == "network output"
    shapes = {layer["name"]: tuple(layer["shape"]) for layer in found["layers"]}
    consts = equint.load(MODEL).graph.consts
    assert set(shapes.values()) <= {a.shape for a in consts.values()}


@check("load")
def check_load(_: Path) -> None:
    assert equint.load(MODEL).graph.outputs == ("output",)
    assert equint.load(equint.load(MODEL)).graph.inputs == ("input",)


@check("mixed")
def check_mixed(_: Path) -> None:
    found = equint.mixed(MODEL, 100.0, "lwq", input=SPAN, data=digits()[0])
    short(found)
    assert found.met
    assert found.chosen == ()
    assert 0 < found.drop <= 100


@check("program")
def check_program(_: Path) -> None:
    found = equint.program(MODEL, "wes", input=SPAN)
    short_repr(found)
    assert found.target == "npu-shift"
    assert found.outputs == ("output",)


@check("quantize")
def check_quantize(_: Path) -> None:
    found = equint.quantize(MODEL, input=SPAN)
    short(found)
    images, labels = digits(200)
    assert (Session(found.proto).run(images)["output"].argmax(1) == labels).mean() > 0.95


@check("recipes")
def check_recipes(_: Path) -> None:
    found = equint.recipes()
    assert {"optimal", "dfq", "wes"} <= {r.name for r in found}
    assert all(isinstance(r, equint.Recipe) for r in found)


@check("report")
def check_report(_: Path) -> None:
    result = equint.quantize(MODEL, "cwq", input=SPAN)
    judged = equint.evaluate(result, None, GRAY, MODEL, limit=50)
    page = equint.report(result, input=SPAN, measured=judged, name="digits & <more>")
    assert page.startswith("<!doctype html>")
    assert "digits &amp; &lt;more&gt;" in page
    assert judged.verdict is not None
    assert judged.verdict.words in page
    assert equint.report(result) == equint.report(result, input=SPAN)  # it knows its input


@check("page")
def check_page(folder: Path) -> None:
    facts = {"schema": "equint.quantize/1", **equint.quantize(MODEL, "cwq", input=SPAN).facts(), "file_bytes": 9}
    files = [folder / f"{name}.json" for name in ("a", "b")]
    for file in files:
        file.write_text(json.dumps(facts), "utf-8")
    assert equint.page(files, name="two <runs>").count("two &lt;runs&gt;") == 2


@check("sizes")
def check_sizes(_: Path) -> None:
    found = equint.sizes(MODEL)
    short(found)
    assert found.total["lwq"] == sum(layer["lwq"] for layer in found.layers)
    assert found.total["lwq"] < found.total["wes"] < found.total["cwq"]
    assert equint.sizes(MODEL, sparsity=0.5).total["wes_sparse"] < found.total["wes_sparse"]
    assert equint.sizes(equint.quantize(MODEL, "wes", input=SPAN)).total["weights"] == found.total["weights"]


@check("lint")
def check_lint(_: Path) -> None:
    found = equint.lint(equint.quantize(MODEL, "lwq", "per-tensor", input=SPAN), "openvino")
    short(found)
    assert dict(found) == found.facts()
    assert not found.clean
    assert found.facts()["integer_share"] == 0


@check("sqnr")
def check_sqnr(_: Path) -> None:
    found = equint.sqnr(MODEL, "per-tensor", input=SPAN)
    short(found)
    assert dict(found) == found.facts()
    rows = {name: method["layers"] for name, method in found.methods.items()}
    assert [r["name"] for r in rows["none"]] == [layer["name"] for layer in equint.inspect(MODEL)["layers"]]
    weights = [np.mean([r["predicted"]["weights"] for r in rows[name]]) for name in ("none", "optimal")]
    assert weights[1] > weights[0] + 3


@check("table")
def check_table(here: Path) -> None:
    card = here / "digits.toml"
    card.write_text(
        f'model = "{MODEL}"\n[input]\nkind = "gray"\nstd = 16\nrange = [0, 1]\n[data]\neval = "{data_path()}"\n'
    )
    found = equint.table([card], ["cwq"], limit=20, cache=here / "kept")
    short(found)
    assert [row.recipe for row in found] == ["float", "cwq"]
    assert "| cwq | per-channel | 8/8 |" in found.markdown()
    assert equint.table([card], ["cwq"], limit=20, cache=here / "kept").rows == found.rows


@check("targets")
def check_targets(_: Path) -> None:
    assert [t.name for t in equint.targets()][:2] == ["onnxruntime", "per-tensor-symmetric"]
    assert {"per-tensor", "per-tensor-clip", "npu-shift"} < {t.name for t in equint.targets()}


CLASSES = [name for name, value in vars(errors).items() if inspect.isclass(value)]
NAMES = sorted(set(equint.__all__) - {"__version__"} - set(CLASSES))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_name_twice(name: str, tmp_path: Path) -> None:
    for number in range(2):
        here = tmp_path / str(number)
        here.mkdir()
        CHECKS[name](here)


def test_what_is_exported() -> None:
    assert sorted(equint.__all__) == sorted(set(equint.__all__))
    assert dir(equint) == sorted(equint.__all__)
    assert set(CLASSES) <= set(equint.__all__)
    assert all(issubclass(getattr(equint, name), EquintError) and getattr(equint, name).__doc__ for name in CLASSES)
    assert not hasattr(equint, "magic")


def test_commands_are_functions() -> None:
    commands = {command.__name__ for command in COMMANDS}
    functions = {name for name in equint.__all__ if inspect.isfunction(getattr(equint, name))}
    inside = {"mixed", "judge"}  # quantize --max-drop, and what quantize does with a recipe's candidates
    assert commands - {"demo"} == functions - {"load", "from_torch", "program"} - inside


# Wrong types

JUNK = st.one_of(
    st.builds(object), st.floats(), st.binary(), st.just({}), st.just({1}), st.booleans(), st.just(b""), st.just(print)
)
NUMBERS = st.one_of(st.builds(object), st.floats(), st.text("ab. "), st.booleans(), st.just([]), st.just({}))
RESULT = equint.quantize(MODEL, "cwq", input=SPAN)
WRONG: dict[str, tuple[Any, dict[str, Any]]] = {
    "source": (JUNK, {name: {} for name in ("quantize", "explain", "inspect", "sqnr", "load", "diagnose")}),
    "recipe": (JUNK, {name: {"source": MODEL} for name in ("quantize", "explain", "program", "diagnose")}),
    "target": (JUNK, {name: {"source": MODEL} for name in ("quantize", "explain", "inspect", "sqnr")}),
    "weight_bits": (NUMBERS, {name: {"source": MODEL} for name in ("quantize", "explain", "sizes")}),
    "activation_bits": (NUMBERS, {name: {"source": MODEL} for name in ("quantize", "explain")}),
    "images": (NUMBERS, {name: {"source": MODEL, "data": digits()[0]} for name in ("quantize", "calibrate")}),
    "input": (JUNK, {name: {"source": MODEL} for name in ("quantize", "explain", "inspect", "sqnr")}),
    "data": (
        st.one_of(st.builds(object), st.floats(), st.binary(), st.integers()),
        {name: {"source": MODEL} for name in ("quantize", "auto", "card")},
    ),
    "labels": (st.one_of(st.builds(object), st.floats(), st.booleans()), {"diagnose": {"source": MODEL}}),
    "progress": (st.one_of(st.floats(), st.text()), {name: {"source": MODEL} for name in ("quantize", "explain")}),
    "path": (JUNK, {"export": {"source": MODEL}}),
    "folder": (JUNK, {"golden": {"source": MODEL}}),
    "dump": (JUNK, {"compare_board": {"source": MODEL}}),
    "golden": (JUNK, {"compare_board": {"source": MODEL, "dump": "."}}),
    "max_drop": (st.one_of(st.builds(object), st.text(), st.booleans()), {"mixed": {"source": MODEL}}),
    "sparsity": (st.one_of(st.builds(object), st.text(), st.booleans()), {"sizes": {"source": MODEL}}),
    "resume": (JUNK, {"calibrate": {"source": MODEL, "data": digits()[0]}}),
    "card": (JUNK, {"evaluate": {"source": MODEL}, "compare": {"original": MODEL, "quantized": MODEL}}),
    "against": (JUNK, {"evaluate": {"source": MODEL, "card": GRAY}}),
    "limit": (NUMBERS, {"evaluate": {"source": MODEL, "card": GRAY}, "compare": {"original": 1, "quantized": 1}}),
    "original": (JUNK, {"compare": {"quantized": MODEL}}),
    "quantized": (JUNK, {"compare": {"original": MODEL}}),
    "networks": (JUNK, {"table": {"recipes": ["cwq"]}}),
    "recipes": (JUNK, {"table": {"networks": [MODEL]}}),
    "targets": (JUNK, {"table": {"networks": [MODEL], "recipes": ["cwq"]}}),
    "bits": (JUNK, {"table": {"networks": [MODEL], "recipes": ["cwq"]}}),
    "cache": (JUNK, {"table": {"networks": [MODEL], "recipes": ["cwq"]}}),
    "jobs": (NUMBERS, {"table": {"networks": [MODEL], "recipes": ["cwq"]}}),
    "ray": (
        st.one_of(st.builds(object), st.floats(), st.binary(), st.booleans()),
        {"evaluate": {"source": MODEL, "card": GRAY}},
    ),
    "providers": (st.one_of(st.builds(object), st.floats(), st.binary(), st.just({})), {"quantize": {"source": MODEL}}),
    "result": (JUNK, {"report": {}}),
    "results": (JUNK, {"page": {}}),
    "name": (JUNK, {"report": {"result": RESULT}}),
    "measured": (st.one_of(st.builds(object), st.floats(), st.text()), {"report": {"result": RESULT}}),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("argument", WRONG)
@settings(max_examples=15)
@given(data=st.data())
def test_wrong_types_are_named(argument: str, data: st.DataObject) -> None:
    values, calls = WRONG[argument]
    function, value = data.draw(st.sampled_from(sorted(calls))), data.draw(values)
    with pytest.raises(EquintError, match=argument) as error:
        getattr(equint, function)(**calls[function], **{argument: value})
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


@given(value=JUNK)
@settings(max_examples=15)
def test_a_path_that_is_none(value: object) -> None:
    for wrong in (None, value):
        with pytest.raises(EquintError, match="path"):
            RESULT.save(wrong)  # type: ignore[arg-type]


def test_unknown_options_are_asked_about() -> None:
    with pytest.raises(EquintError, match=r"efort: no such argument; did you mean effort\?"):
        equint.explain(MODEL, efort="fast")  # type: ignore[call-arg]
