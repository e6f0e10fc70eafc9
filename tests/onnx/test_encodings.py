"""Float networks with their grids beside them: another reader, and AIMET, make the QDQ model of them again."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime  # type: ignore[import-untyped,unused-ignore]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

import equint
from equint.demo import model_path
from equint.errors import EquintError
from equint.ir.model import QParams
from equint.maths.noise import sqnr_db
from equint.onnx.encodings import BIAS_BITS, encodings, float_network
from handwritten import Array
from nets import Net, networks, sample

WAYS = [("cwq-bc", "per-channel"), ("dfq", "per-tensor"), ("wes", "npu-shift"), ("lwq", "per-tensor-clip")]


def run(proto: ModelProto, x: Array) -> Array:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: x})[0])


def rounded(x: Array, row: Mapping[str, Any]) -> Array:
    """A constant on the grid that a row of `.ranges.json` describes."""
    low = (-(1 << (row["bits"] - 1)) if row["signed"] else 0) + row["narrow"]
    high = low - row["narrow"] + (1 << row["bits"]) - 1
    shape = [-1 if axis == row["axis"] else 1 for axis in range(x.ndim)]
    scale, zero = (np.asarray(row[key], np.float32).reshape(shape if row["axis"] is not None else ()) for key in KEYS)
    wide = np.rint(x.astype(np.float64) / scale) if row["bits"] > 16 else np.rint(x / scale)
    return ((np.clip(wide + zero, low, high) - zero) * scale).astype(np.float32)


KEYS = ("scale", "zero_point")


def simulated(folder: Path, name: str) -> ModelProto:
    """The float network with every grid of `.ranges.json` applied in plain float operators: no QuantizeLinear."""
    proto = onnx.load(folder / f"{name}.onnx")
    rows = {row["name"]: row for row in json.loads((folder / f"{name}.ranges.json").read_text())["tensors"]}
    for tensor in proto.graph.initializer:
        if tensor.name in rows:
            tensor.CopyFrom(
                numpy_helper.from_array(rounded(numpy_helper.to_array(tensor), rows[tensor.name]), tensor.name)
            )
    nodes, reads = list[onnx.NodeProto](), dict[str, str]()
    outputs = {o.name for o in proto.graph.output}

    def on_grid(source: str, out: str, row: Mapping[str, Any]) -> None:
        low = (-(1 << (row["bits"] - 1)) if row["signed"] else 0) + row["narrow"]
        numbers: dict[str, Any] = {
            "s": row["scale"],
            "z": row["zero_point"],
            "l": low,
            "h": low - row["narrow"] + (1 << row["bits"]) - 1,
        }
        for key, value in numbers.items():
            proto.graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), f"{out}::{key}"))
        chain: list[tuple[str, str | None]] = [
            ("Div", "s"),
            ("Round", None),
            ("Add", "z"),
            ("Max", "l"),
            ("Min", "h"),
            ("Sub", "z"),
            ("Mul", "s"),
        ]
        for k, (op, number) in enumerate(chain):
            made = out if k == len(chain) - 1 else f"{out}::{k}"
            nodes.append(helper.make_node(op, [source, f"{out}::{number}"] if number else [source], [made]))
            source = made

    for value in proto.graph.input:
        if value.name in rows:
            on_grid(value.name, f"{value.name}::grid", rows[value.name])
            reads[value.name] = f"{value.name}::grid"
    for node in proto.graph.node:
        node.input[:] = [reads.get(i, i) for i in node.input]
        found = [o for o in node.output if o in rows]
        node.output[:] = [f"{o}::raw" if o in rows else o for o in node.output]
        nodes.append(node)
        for o in found:
            on_grid(f"{o}::raw", o, rows[o])
    assert outputs <= {o for n in nodes for o in n.output} | {i.name for i in proto.graph.input}
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    return proto


@pytest.mark.parametrize("way", [*WAYS, (None, None), (None, "qnn"), (None, "per-tensor-symmetric")])
def test_the_grids_alone_make_the_quantized_network(way: tuple[str | None, str | None], tmp_path: Path) -> None:
    result = equint.quantize(model_path(), *way, input=(0, 1), effort="fast")
    result.save(tmp_path / "net", "onnx-float")
    x = np.random.default_rng(0).uniform(-0.2, 1.2, (8, 1, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(run(simulated(tmp_path, "net"), x), run(result.proto, x), atol=1e-6)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(networks(), st.sampled_from(WAYS), st.sampled_from((4, 8)))
def test_on_random_networks(
    tmp_path_factory: pytest.TempPathFactory, proto: ModelProto, way: tuple[str, str], bits: int
) -> None:
    folder, x = tmp_path_factory.mktemp("float"), sample(proto)
    result = equint.quantize(proto, *way, weight_bits=bits, activation_bits=bits)
    result.save(folder / "net.onnx", "onnx-float")
    wanted, found = run(result.proto, x), run(simulated(folder, "net"), x)
    step = max((float(q.scale) for n, q in result.model.qparams.items() if n in result.model.graph.outputs), default=0)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1.01 * step + 1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize(("recipe", "least"), [("cwq", 60), ("dfq", 40)])  # dfq absorbs biases and lets few values clip
def test_the_float_network_computes_what_the_source_does(recipe: str, least: float, tmp_path: Path) -> None:
    """Weights and activations of 16 bits leave nothing of rounding: what remains is folding and rescaling."""
    result = equint.quantize(model_path(), recipe, "per-channel", input=(0, 1), weight_bits=16, activation_bits=16)
    result.save(tmp_path / "net", "onnx-float")
    x = np.random.default_rng(0).uniform(0, 1, (16, 1, 8, 8)).astype(np.float32)
    wanted, found = run(onnx.load(model_path()), x), run(onnx.load(tmp_path / "net.onnx"), x)
    assert sqnr_db(wanted, found) > least
    kinds = {node.op_type for node in onnx.load(tmp_path / "net.onnx").graph.node}
    assert not kinds & {"BatchNormalization", "QuantizeLinear", "DequantizeLinear"}


def test_what_rounding_costs_the_float_network(tmp_path: Path) -> None:
    """By default its weights are rounded already: nearer to the source than the quantized network."""
    result = equint.quantize(model_path(), input=(0, 1))
    result.save(tmp_path / "net", "onnx-float")
    x = np.random.default_rng(0).uniform(0, 1, (16, 1, 8, 8)).astype(np.float32)
    wanted, found = run(onnx.load(model_path()), x), run(onnx.load(tmp_path / "net.onnx"), x)
    assert sqnr_db(wanted, found) > max(25.0, sqnr_db(wanted, run(result.proto, x)))


def test_a_bias_of_two_layers_has_two_grids() -> None:
    """One bias behind two layers, whose accumulators differ: a copy each, and both are worked out by hand."""
    net = Net(0)
    weights = [net.constant(np.full((2, 3, 1, 1), v), f"w{v}") for v in (0.5, 2.0)]
    bias = net.constant(np.array([1.0, -0.25]), "b")
    outs = [net.op("Conv", net.input, weight, bias, kernel_shape=[1, 1]) for weight in weights]
    model = equint.load(net.build(net.op("Concat", *outs, axis=1)))
    layers = [node for node in model.graph.nodes if node.op == "Conv"]
    grids = {
        node.inputs[1]: QParams(np.array(s, np.float32), np.array(0, np.int32))
        for node, s in zip(layers, (0.25, 1.0), strict=True)
    }
    grids[layers[0].inputs[0]] = QParams(np.array(0.5, np.float32), np.array(0, np.int32))
    graph, found = float_network(replace(model, qparams=grids))
    biases = [node.inputs[2] for node in graph.nodes if node.op == "Conv"]
    assert biases[0] != biases[1]
    assert [float(found[b].scale) for b in biases] == [0.125, 0.5]
    assert {found[b].bits for b in biases} == {BIAS_BITS}


def test_offsets_of_every_kind_of_grid() -> None:
    """real = scale·(q + offset), q from 0: −z of unsigned grids, −z − 2^(b−1) of signed ones."""
    grids = {
        "u": QParams(np.array(0.5, np.float32), np.array(3, np.int32), 8, signed=False),
        "s": QParams(np.array(0.5, np.float32), np.array(-3, np.int32), 8, signed=True),
        "sym": QParams(np.array(0.5, np.float32), np.array(0, np.int32), 4, signed=True),
        "w": QParams(np.array([0.5, 0.25], np.float32), np.zeros(2, np.int32), 8, axis=0),
    }
    graph = equint.load(model_path()).graph.with_consts({"w": np.zeros((2, 1), np.float32)})
    found = encodings(graph, grids)
    rows = {row["name"]: row for key in ("activation_encodings", "param_encodings") for row in found[key]}
    assert {name: row["offset"] for name, row in rows.items()} == {"u": [-3], "s": [-125], "sym": [-8], "w": [-128] * 2}
    assert {name for name, row in rows.items() if row["is_sym"]} == {"sym", "w"}
    assert [row["name"] for row in found["param_encodings"]] == ["w"]
    assert rows["w"]["enc_type"] == "PER_CHANNEL"


ROW = {
    "type": "object",
    "required": ["name", "dtype", "bw", "enc_type", "is_sym", "scale", "offset"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string"},
        "dtype": {"enum": ["INT", "FLOAT"]},
        "bw": {"type": "integer", "minimum": 1, "maximum": 32},
        "enc_type": {"enum": ["PER_TENSOR", "PER_CHANNEL"]},
        "is_sym": {"type": "boolean"},
        "scale": {"type": "array", "items": {"type": "number", "exclusiveMinimum": 0}, "minItems": 1},
        "offset": {"type": "array", "items": {"type": "integer"}, "minItems": 1},
    },
}
SCHEMA = {
    "type": "object",
    "required": ["version", "activation_encodings", "param_encodings"],
    "properties": {
        "version": {"const": "1.0.0"},
        "activation_encodings": {"type": "array", "items": ROW},
        "param_encodings": {"type": "array", "items": ROW},
    },
}
"""Encodings 1.0.0 as aimet-onnx 2.42 writes and checks them (aimet_onnx/_encoding.py, quantsim._validate_encodings)."""


@pytest.mark.parametrize("target", ["qnn", "per-tensor", "npu-shift"])
def test_encodings_keep_to_their_schema(target: str, tmp_path: Path) -> None:
    import jsonschema

    equint.quantize(model_path(), target=target, input=(0, 1), effort="fast").save(tmp_path / "net", "encodings")
    found = json.loads((tmp_path / "net.encodings").read_text())
    jsonschema.validate(found, SCHEMA)
    proto = onnx.load(tmp_path / "net.onnx")
    consts = {t.name for t in proto.graph.initializer}
    made = {o for node in proto.graph.node for o in node.output} | {i.name for i in proto.graph.input}
    assert {row["name"] for row in found["param_encodings"]} <= consts
    assert {row["name"] for row in found["activation_encodings"]} <= made


@pytest.mark.parametrize("target", ["qnn", "per-channel", "per-tensor", "per-tensor-symmetric"])
def test_aimet_makes_the_same_network_of_it(target: str, tmp_path: Path) -> None:
    quantsim = pytest.importorskip("aimet_onnx.quantsim", reason="aimet-onnx is not installed", exc_type=ImportError)
    result = equint.quantize(model_path(), target=target, input=(0, 1), effort="fast")
    result.save(tmp_path / "net", "encodings")
    theirs = quantsim.encodings_to_onnx_qdq(
        str(tmp_path / "net.onnx"), str(tmp_path / "net.encodings"), prequantize_constants=True
    )
    assert theirs.graph.initializer
    assert TensorProto.INT32 in {t.data_type for t in theirs.graph.initializer}  # biases are integers too
    x = np.random.default_rng(0).uniform(-0.2, 1.2, (8, 1, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(run(theirs, x), run(result.proto, x), atol=1e-6)


def test_nothing_is_lost_where_writing_fails(tmp_path: Path) -> None:
    (tmp_path / "net.ranges.json").mkdir()
    result = equint.quantize(model_path(), "cwq", input=(0, 1))
    with pytest.raises(EquintError, match=r"net\.ranges\.json: is a folder"):
        result.save(tmp_path / "net", "onnx-float")
    assert [p.name for p in tmp_path.iterdir()] == ["net.ranges.json"]
    (tmp_path / "other.onnx").mkdir()
    with pytest.raises(EquintError, match=r"other\.onnx: is a folder"):
        result.save(tmp_path / "other", "encodings")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.ranges.json", "other.onnx"]
