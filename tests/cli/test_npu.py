"""The NPU commands, as a firmware team runs them: export, golden vectors, a board's dump, sizes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime  # type: ignore[import-untyped,unused-ignore]
import pytest

from commands import Run
from equint import quantize
from equint.cli.main import main
from equint.demo import data_path, model_path
from equint.integers.engine import Engine
from equint.npu.bundle import load_bundle

DIGITS = np.load(data_path())["x"][:20].astype(np.float32).reshape(20, 1, *np.load(data_path())["x"].shape[1:3]) / 16


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo network as a bundle."""
    path = tmp_path_factory.mktemp("npu") / "digits.json"
    with pytest.raises(SystemExit) as stop:
        main(["export", str(model_path()), "-o", str(path), "--recipe", "wes", "--input-range", "0", "1"])
    assert not stop.value.code
    return path


@pytest.mark.slow
def test_the_bundle_decides_as_the_simulation(bundle: Path) -> None:
    result = quantize(model_path(), "wes", input=(0, 1))
    session = onnxruntime.InferenceSession(result.proto.SerializeToString(), providers=["CPUExecutionProvider"])
    wanted = session.run(None, {session.get_inputs()[0].name: DIGITS})[0]
    found = next(iter(Engine(load_bundle(bundle)).real(DIGITS).values()))
    assert np.mean(found.argmax(1) == wanted.argmax(1)) >= 0.95
    assert np.abs(found - wanted).max() <= 4 * float(load_bundle(bundle).grids["output"].scale)


def test_a_bundle_becomes_an_integer_model(run: Run, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "digits.int.onnx"
    code, text, _ = run("export", bundle, "-o", out, "--format", "integer", "--json")
    assert code == 0
    assert json.loads(text)["files"] == {str(out): out.stat().st_size}
    model = onnx.load(out)
    assert all(t.data_type != onnx.TensorProto.FLOAT for t in model.graph.initializer)
    program = load_bundle(bundle)
    integers = program.quantized(program.inputs[0], DIGITS)
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    found = session.run(None, {program.inputs[0]: integers})[0]
    np.testing.assert_array_equal(found, Engine(program).run(integers)["output"])


@pytest.mark.slow
def test_the_qdq_form(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "digits.qdq.onnx"
    code, text, _ = run("export", model_path(), "-o", out, "--format", "qdq", "--input-range", 0, 1, "--json")
    assert code == 0
    assert json.loads(text)["target"] == "npu-shift"
    assert any(n.op_type == "QuantizeLinear" for n in onnx.load(out).graph.node)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "ending", "target"), [("onnx-float", ".ranges.json", "per-channel"), ("encodings", ".encodings", "qnn")]
)
def test_a_float_network_and_its_grids(kind: str, ending: str, target: str, run: Run, tmp_path: Path) -> None:
    options = ("--format", kind, "--input-range", 0, 1, "--effort", "fast", "--json")
    code, text, _ = run("export", model_path(), "-o", tmp_path / "net", *options)
    assert code == 0
    said = json.loads(text)
    assert set(said["files"]) == {str(tmp_path / f"net{end}") for end in (".onnx", ending)}
    producer = json.loads((tmp_path / f"net{ending}").read_text())["producer"]
    assert producer["target"] == said["target"] == target


@pytest.mark.slow
def test_a_board_that_rounds_otherwise_is_found(run: Run, bundle: Path, tmp_path: Path) -> None:
    golden, dump = tmp_path / "golden", tmp_path / "dump"
    code, text, _ = run("golden", bundle, "-o", golden, "--json")
    steps = json.loads(text)["steps"]
    assert code == 0
    assert len(steps) == len(load_bundle(bundle).steps)
    shutil.copytree(golden, dump)
    code, text, _ = run("compare-board", bundle, dump)
    assert code == 0, text
    manifest = json.loads((golden / "golden.json").read_text())
    layer = next(s for s in manifest["steps"] if s["op"] == "Conv" and s["number"] > 2)
    file = dump / manifest["tensors"][layer["outputs"][0]]["file"]
    values = np.load(file)
    values.flat[7] ^= 1
    np.save(file, values)
    code, text, _ = run("compare-board", bundle, dump, "--golden", golden, "--json")
    found = json.loads(text)
    assert code == 1
    assert found["first"]["layer"] == layer["layer"]


@pytest.mark.slow
def test_sizes(run: Run, bundle: Path) -> None:
    code, text, _ = run("sizes", model_path(), "--json")
    total = json.loads(text)["total"]
    assert code == 0
    assert total["lwq"] < total["wes"] < total["cwq"]
    code, text, _ = run("sizes", bundle, "--json")
    assert json.loads(text)["total"]["wes"] == total["wes"]
    code, text, _ = run("sizes", model_path(), "--sparsity", 0.4, "--json")
    pruned = json.loads(text)["total"]
    assert pruned["zeros"] >= 0.39  # whole weights of each layer
    assert pruned["wes_sparse"] < total["wes_sparse"]
    assert run("sizes")[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (
            ["export", "{model}", "-o", "{out}", "--format", "bin"],
            "--format bin: choose npu, integer, qdq, tflite, onnx-float, encodings",
        ),
        (["export", "{model}", "-o", "{out}", "--sparse", "maybe"], "--sparse maybe: choose auto, yes or no"),
        (
            ["export", "{model}", "-o", "{out}", "--recipe", "cwq"],
            "needs a weight scale per channel, which target npu-shift",
        ),
        (["export", "{bundle}", "-o", "{out}.onnx", "--format", "qdq"], "a bundle holds no scales of layers"),
        (["export", "{bundle}", "-o", "{out}", "--format", "onnx-float"], "a bundle holds no scales of layers"),
        (["export", "{model}", "-o", "{model}", "--format", "encodings"], "would overwrite"),
        (["export", "{bundle}", "-o", "{out}", "--recipe", "wes"], "is quantized already"),
        (["export", "{bundle}", "-o", "{bundle}"], "would overwrite"),
        (["export", "{model}", "-o", "{out}", "--activation-bits", "float"], "activations are float"),
        (["export", "gone.onnx", "-o", "{out}"], "gone.onnx: no such file"),
        (["golden", "gone.json", "-o", "{out}"], "gone.json: no such file"),
        (["compare-board", "{bundle}", "gone"], "gone: no such folder"),
        (["export", "card.toml", "-o", "{out}"], "card.toml: no such file"),
        (["sizes", "gone.onnx"], "gone.onnx: no such file"),
        (["sizes", "{bundle}", "--sparsity", "0.2"], "a bundle's weights are what they are"),
    ],
)
def test_bad_input_is_one_line(run: Run, bundle: Path, tmp_path: Path, arguments: list[str], why: str) -> None:
    names = {"model": model_path(), "bundle": bundle, "out": tmp_path / "out.json"}
    code, _, err = run(*(a.format(**names) for a in arguments))
    assert code == 2
    assert len(err.strip().splitlines()) == 1
    assert why in err


def test_a_name_that_asks_for_another_format_is_refused(run: Run, tmp_path: Path) -> None:
    code, text, err = run("export", model_path(), "-o", tmp_path / "b.tflite", "--input-range", 0, 1)
    assert (code, text, list(tmp_path.iterdir())) == (2, "", [])
    assert "b.tflite: format npu writes no .tflite file; choose format tflite, or another name" in err


def test_a_bundle_is_measured_without_a_card(run: Run, bundle: Path) -> None:
    pixels = ("--mean", "0", "--std", "16")
    code, out, _ = run("evaluate", bundle, *pixels, "--data", data_path(), "--limit", "100", "--json")
    assert code == 0
    assert json.loads(out)["top1"] > 90
    code, _, err = run("evaluate", bundle, "--data", data_path(), "--limit", "100")
    assert (code, err.count("\n")) == (2, 1)
    assert "the network reads channels first; give the array as x.transpose(0, 3, 1, 2), or a card" in err
