"""Layer-wise SQNR in the original's units, whatever equalization and absorption did to the tensors."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import equint
from equint.demo import data_path, model_path
from equint.errors import EquintError
from equint.graph.inputs import describe_range
from equint.ir.model import QSpec
from equint.onnx.qdq import export
from equint.onnx.reader import read
from equint.passes.absorb_bias import AbsorbBias
from equint.passes.activation_ranges import ActivationRanges
from equint.passes.equalize import Equalize
from equint.passes.fold_batchnorm import FoldBatchnorm
from equint.passes.quantize import Quantize
from equint.passes.relu6 import Relu6
from equint.study.compare import compare
from handwritten import network, normal
from nets import random_network, sample


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_rewritten_tensors_are_brought_back(tmp_path: Path, seed: int) -> None:
    """At 16 bits, nothing but rounding is left of any rewriting; tensors left in other units would be near 0 dB."""
    proto = random_network(seed, calibrated=True)
    model = describe_range(read(proto), -4, 4)
    wide = Quantize(QSpec(16, granularity="channel"), QSpec(16, signed=False, symmetric=False))
    for step in (FoldBatchnorm(), Relu6("channel_clip"), Equalize(), AbsorbBias(), ActivationRanges(n=20.0), wide):
        model = step(model)
    onnx.save(proto, tmp_path / "float.onnx")
    onnx.save(export(model), tmp_path / "rewritten.onnx")
    rows = compare(tmp_path / "float.onnx", tmp_path / "rewritten.onnx", [sample(proto, 4)])
    assert len(rows) > 2
    assert min(row.sqnr_db for row in rows) > 40


def test_the_ratio_is_that_of_the_outputs(tmp_path: Path) -> None:
    proto = network("h = Conv(x, w) y = Relu(h)", w=normal(4, 3, 3, 3))
    onnx.save(proto, tmp_path / "a.onnx")
    result = equint.quantize(proto, "cwq", weight_bits=3, activation_bits="float", input=(-3, 3))
    result.save(tmp_path / "b.onnx")
    x = normal(2, 3, 8, 8, scale=1.0)
    (row,) = compare(tmp_path / "a.onnx", tmp_path / "b.onnx", [x])
    from handwritten import execute

    (a,), (b,) = execute(proto, x), execute(result.proto, x)
    assert (row.tensor, row.op) == ("y", "Relu")
    assert row.sqnr_db == pytest.approx(
        10 * np.log10((a.astype(float) ** 2).sum() / ((b - a).astype(float) ** 2).sum())
    )
    assert row.peak == pytest.approx(np.abs(a).max())


def test_what_is_not_finite_is_counted_and_is_not_called_exact() -> None:
    """A division by zero in the quantized network alone, at one of four positions."""
    clean = network("h = Identity(x) q = QuantizeLinear(h, s) y = DequantizeLinear(q, s)", s=np.float32(0.5))
    (row,) = compare(clean, clean, [np.ones((1, 3, 8, 8), np.float32)])
    assert (row.sqnr_db, row.not_finite) == (float("inf"), 0)
    (row,) = compare(clean, _nan_at(clean), [np.ones((1, 3, 8, 8), np.float32)])
    assert np.isnan(row.sqnr_db)
    assert row.not_finite == 3 * 8 * 8


def _nan_at(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same with a scale that is NaN."""
    broken = onnx.ModelProto()
    broken.CopyFrom(proto)
    for tensor in broken.graph.initializer:
        tensor.CopyFrom(onnx.numpy_helper.from_array(np.array(np.nan, np.float32), tensor.name))
    return broken


def test_networks_of_other_origin_share_nothing(tmp_path: Path) -> None:
    onnx.save(network("y = Relu(x)", output="float[N,3,8,8] y"), tmp_path / "a.onnx")
    onnx.save(network("z = Relu(x)", output="float[N,3,8,8] z"), tmp_path / "b.onnx")
    with pytest.raises(EquintError, match="shares no tensor"):
        compare(tmp_path / "a.onnx", tmp_path / "b.onnx")


def test_quantize_leaves_the_graph_to_the_exporter() -> None:
    model = read(network("y = Conv(x, w)", w=normal(4, 3, 3, 3)))
    assert Quantize(activation=None)(model).graph is model.graph


def with_a_rate(folder: Path) -> tuple[Path, Path, dict[str, Any]]:
    """A network with a recurrent state and a rate, the same quantized with the rate a constant, and its samples."""
    body = "r = Cast <to = 1> (rate) g = Mul(x, r) h = Gemm(g, w) "
    body += "s = ReduceMean <keepdims = 0, axes = [0]> (state) y = Add(h, s)"
    inputs = "float[1,6] x, float[2,1,4] state, int64 rate"
    proto = network(body, inputs=inputs, output="float[1,4] y", w=normal(6, 4))
    onnx.save(proto, folder / "float.onnx")
    rng = np.random.default_rng(0)
    x, state = (rng.normal(size=size).astype(np.float32) for size in ((12, 6), (24, 1, 4)))
    arrays = {"x": x, "state": state}
    equint.quantize(proto, "lwq", data=arrays, set={"rate": 3}).save(folder / "int8.onnx")
    return folder / "float.onnx", folder / "int8.onnx", {**arrays, "rate": np.array(3)}


def test_each_network_is_given_the_inputs_that_it_has(tmp_path: Path) -> None:
    clean, noisy, arrays = with_a_rate(tmp_path)
    from handwritten import execute

    states = arrays["state"].reshape(12, 2, 1, 4)
    pairs = list(zip(np.split(arrays["x"], 12), states, strict=True))
    a = np.stack([execute(onnx.load(clean), x, s, arrays["rate"])[0] for x, s in pairs]).astype(np.float64)
    b = np.stack([execute(onnx.load(noisy), x, s)[0] for x, s in pairs])
    ratio = pytest.approx(10 * np.log10((a**2).sum() / ((a - b) ** 2).sum()), rel=1e-5)
    np.savez(tmp_path / "clips.npz", **arrays)
    for data in (tmp_path / "clips.npz", arrays):
        assert equint.compare(clean, noisy, data).tensors[-1].sqnr_db == ratio
    card = equint.Card("features", task="features")
    found = equint.evaluate(noisy, tmp_path / "clips.npz", card, clean, progress=lambda *_: None)
    assert (found.figures["samples"], found.figures["sqnr_db"]) == (12, ratio)


def test_an_input_that_only_one_network_has_is_named_where_it_is_missing(tmp_path: Path) -> None:
    clean, noisy, arrays = with_a_rate(tmp_path)
    del arrays["rate"]
    np.savez(tmp_path / "clips.npz", **arrays)
    for look in (
        lambda: equint.compare(clean, noisy, tmp_path / "clips.npz"),
        lambda: equint.evaluate(noisy, tmp_path / "clips.npz", against=clean),
    ):
        with pytest.raises(EquintError, match=r"clips\.npz: holds state, x but no rate; store an array for each of"):
            look()
    with pytest.raises(EquintError, match="data: nothing for input rate"):
        equint.compare(clean, noisy, arrays)


def test_inputs_are_made_up_as_the_network_takes_them(tmp_path: Path) -> None:
    """A state of two layers stays two, and one symbol is one size."""
    body = "t = Transpose <perm = [1, 0, 2]> (state) f = Reshape(t, to) g = Gemm(f, w) "
    body += "l = ReduceSum <keepdims = 1> (x, last) y = Add(g, l) r = Add(x, other)"
    inputs = "float[N,T] x, float[N,T] other, float[2,N,4] state"
    consts: dict[str, Any] = {"w": normal(8, 5), "to": np.array([-1, 8]), "last": np.array([1])}
    proto = network(body, inputs=inputs, output="float[N,5] y", **consts)
    proto.graph.output.append(onnx.helper.make_tensor_value_info("r", onnx.TensorProto.FLOAT, ["N", "T"]))
    onnx.save(proto, tmp_path / "float.onnx")
    equint.quantize(proto, "lwq").save(tmp_path / "int8.onnx")
    found = {row.tensor: row.sqnr_db for row in equint.compare(tmp_path / "float.onnx", tmp_path / "int8.onnx").tensors}
    assert 15 < found["y"] < 60


def test_where_nothing_made_up_runs_data_is_asked_for(tmp_path: Path) -> None:
    body = "r = Reshape(x, to) y = Gemm(r, w)"
    proto = network(body, inputs="float[N,T] x", output="float[M,9] y", w=normal(9, 9), to=np.array([-1, 9]))
    onnx.save(proto, tmp_path / "float.onnx")
    equint.quantize(proto, "lwq", data=normal(8, 9)).save(tmp_path / "int8.onnx")
    with pytest.raises(EquintError, match="runs on no inputs that were made up; give --data"):
        equint.compare(tmp_path / "float.onnx", tmp_path / "int8.onnx")
    assert equint.compare(tmp_path / "float.onnx", tmp_path / "int8.onnx", normal(8, 9)).tensors[-1].sqnr_db > 15


def test_a_comparison_ends_with_a_verdict_that_knows_its_samples() -> None:
    quantized = equint.quantize(model_path(), input=(0, 1))
    card = equint.Card("gray", (0.0,), (16.0,))
    told = equint.compare(model_path(), quantized, data_path(), card).verdict
    assert (told.samples, told.status != "made up") == (16, True)
    assert told.chance is not None
    assert "on others like them" in told.words
    random = equint.compare(model_path(), quantized).verdict
    assert "made-up sample" in random.words


@pytest.mark.parametrize("name", ["q.tflite", "Q.TFLITE"])
def test_quantized_tflite_files_are_refused_with_what_to_do(tmp_path: Path, name: str) -> None:
    result = equint.quantize(model_path(), target="tflite-int8", input=(0, 1), effort="fast")
    result.save(tmp_path / name)
    todo = r"only LiteRT runs that, .*; quantize to an \.onnx file for the same target, tflite-int8, which rounds as it"
    for refused in (equint.compare, lambda model, file: equint.evaluate(file, data_path(), against=model)):
        with pytest.raises(EquintError, match=todo):
            refused(model_path(), tmp_path / name)
    assert equint.lint(tmp_path / name).clean
