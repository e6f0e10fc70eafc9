"""What is in a file: operators, layouts, activations, grids; LiteRT itself runs them in tests/consumers."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

import equint
from equint.demo import model_path
from equint.errors import EquintError, InvalidOption, TargetMismatch
from equint.ir.model import QParams
from equint.litert.writer import activation, write
from equint.tflite.flatbuffer import unpack
from handwritten import network, normal

TARGET = "tflite-int8"


def operators(file: bytes) -> Counter[str]:
    found = unpack(file)
    codes = [code["builtin_code"] for code in found["operator_codes"]]
    return Counter(codes[op["opcode_index"]] for op in found["subgraphs"][0]["operators"])


def written(model: ModelProto, target: str = TARGET, recipe: str = "lwq") -> bytes:
    return write(equint.quantize(model, recipe, target, input=(-3, 3), effort="fast").program)


def options(file: bytes, code: str) -> list[dict[str, Any]]:
    found = unpack(file)
    codes = [c["builtin_code"] for c in found["operator_codes"]]
    ops = found["subgraphs"][0]["operators"]
    return [op["builtin_options"][1] for op in ops if codes[op["opcode_index"]] == code]


def grid(scale: float, zero_point: int) -> QParams:
    return QParams(np.array(scale, np.float32), np.array(zero_point, np.int32))


def test_images_need_no_transposes() -> None:
    body = """c = Conv (x, w) r = Relu (c) p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r)
        d = Conv <group = 8> (p, v) s = Relu (d) e = Conv (s, u) j = Concat <axis = 1> (s, e)
        g = GlobalAveragePool (j) f = Flatten (g) y = Gemm (f, k)"""
    weights: dict[str, Any] = {
        "w": normal(8, 3, 3, 3),
        "v": normal(8, 1, 1, 1),
        "u": normal(8, 8, 1, 1),
        "k": normal(16, 5),
    }
    found = operators(written(network(body, output="float[N,5] y", **weights)))
    assert not found["TRANSPOSE"]
    assert found["DEPTHWISE_CONV_2D"] == 1
    assert found["CONV_2D"] == 2


def test_images_that_have_their_channels_last_keep_them_there() -> None:
    body = """t = Transpose <perm = [0, 3, 1, 2]> (x) c = Conv (t, w) y = Transpose <perm = [0, 2, 3, 1]> (c)"""
    file = written(network(body, inputs="float[1,8,6,3] x", output="float[1,6,4,5] y", w=normal(5, 3, 3, 3)))
    assert operators(file) == {"CONV_2D": 1}
    tensors = {t["name"]: t["shape"].tolist() for t in unpack(file)["subgraphs"][0]["tensors"]}
    assert tensors["x"] == [1, 8, 6, 3]
    assert [1, 6, 4, 5] in tensors.values()


def test_features_of_images_stay_where_they_are_for_products() -> None:
    body = "c = Conv (x, w) f = Flatten (c) y = Gemm (f, k)"
    found = operators(
        written(network(body, inputs="float[1,3,6,6] x", output="float[1,5] y", w=normal(8, 3, 3, 3), k=normal(128, 5)))
    )
    assert found == {"CONV_2D": 1, "RESHAPE": 1, "FULLY_CONNECTED": 1}


@pytest.mark.parametrize(
    ("low", "high", "kind"),
    [(-128, 127, "NONE"), (-100, 127, "RELU"), (-100, 20, "RELU6"), (-120, -80, "RELU_N1_TO_1"), (-100, 19, "")],
)
def test_clamps_are_activations_where_they_fall_together(low: int, high: int, kind: str) -> None:
    assert activation(grid(0.05, -100), np.array(low), np.array(high)) == kind


def test_clamps_of_channels_are_none() -> None:
    assert activation(grid(0.05, -100), np.array([-100, -128]), np.array(127)) == ""


def test_a_file_says_where_it_comes_from(tmp_path: Path) -> None:
    result = equint.quantize(model_path(), target=TARGET, input=(0, 1), effort="fast")
    result.save(tmp_path / "digits.tflite")
    found = unpack((tmp_path / "digits.tflite").read_bytes())
    entry = next(e for e in found["metadata"] if e["name"] == "equint")
    about = json.loads(found["buffers"][entry["buffer"]]["data"].tobytes())
    axes = {result.model.graph.inputs[0]: [0, 2, 3, 1]}
    assert about == {"equint": equint.__version__, "recipe": "optimal", "target": TARGET, "level": 1, "axes": axes}


@pytest.mark.parametrize("io", [None, "float", "uint8"])
def test_the_signature_has_the_networks_names(io: str | None, tmp_path: Path) -> None:
    result = equint.quantize(model_path(), "lwq", TARGET, input=(0, 1), effort="fast")
    result.save(tmp_path / "digits.tflite", io=io)
    (signature,) = unpack((tmp_path / "digits.tflite").read_bytes())["signature_defs"]
    graph = result.model.graph
    assert [entry["name"] for entry in signature["inputs"]] == list(graph.inputs)
    assert [entry["name"] for entry in signature["outputs"]] == list(graph.outputs)


def test_uint8_is_written_as_in_the_first_version() -> None:
    body = "c = Conv (x, w) r = Relu (c) p = MaxPool <kernel_shape = [2, 2]> (r) y = Conv (p, v)"
    model = network(body, w=normal(8, 3, 3, 3), v=normal(4, 8, 1, 1), inputs="float[1,3,8,8] x")
    found = unpack(written(model, "tflite-uint8"))
    assert {code["version"] for code in found["operator_codes"]} == {1}
    kinds = {t["name"]: t["type"] for t in found["subgraphs"][0]["tensors"]}
    assert kinds["x"] == kinds["y_weight"] == "UINT8"
    assert kinds["y_bias"] == "INT32"


def test_weights_and_grids_are_those_of_the_model() -> None:
    result = equint.quantize(model_path(), "cwq", TARGET, input=(0, 1), effort="fast")
    tensors = {t["name"]: t for t in unpack(write(result.program))["subgraphs"][0]["tensors"]}
    grids = {n: q for n, q in result.model.qparams.items() if n not in result.model.graph.consts and n in tensors}
    assert len(grids) > 3
    for name, chosen in grids.items():
        assert tensors[name]["quantization"]["scale"].tolist() == [np.float32(chosen.scale)]
        assert tensors[name]["quantization"]["zero_point"].tolist() == [int(chosen.zero_point)]
    scales = [t["quantization"]["scale"].size for n, t in tensors.items() if n.endswith("_weight")]
    assert min(scales) > 1


def test_paddings_are_same_valid_or_a_pad() -> None:
    body = """a = Conv <pads = [1, 1, 1, 1]> (x, w) b = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (a, v)
        y = Conv (b, v)"""
    file = written(network(body, inputs="float[1,3,12,12] x", w=normal(4, 3, 3, 3), v=normal(4, 4, 3, 3)))
    assert [o["padding"] for o in options(file, "CONV_2D")] == ["SAME", "VALID", "VALID"]
    assert operators(file)["PAD"] == 1  # one row above, where SAME has one below


@pytest.mark.parametrize("io", ["half", "int16", ""])
def test_other_types_of_inputs_are_refused(io: str, tmp_path: Path) -> None:
    result = equint.quantize(model_path(), "lwq", TARGET, input=(0, 1), effort="fast")
    with pytest.raises(InvalidOption, match="choose int8, uint8, float"):
        result.save(tmp_path / "digits.tflite", io=io)


def test_only_files_for_litert_have_such_types(tmp_path: Path) -> None:
    result = equint.quantize(model_path(), "lwq", TARGET, input=(0, 1), effort="fast")
    with pytest.raises(InvalidOption, match=r"only \.tflite files"):
        result.save(tmp_path / "digits.onnx", io="float")
    result.save(tmp_path / "digits.onnx")
    assert (tmp_path / "digits.onnx").stat().st_size > 0


def test_other_arithmetic_is_refused(tmp_path: Path) -> None:
    result = equint.quantize(model_path(), "lwq", "per-tensor", input=(0, 1), effort="fast")
    with pytest.raises(TargetMismatch, match="target per-tensor: LiteRT computes otherwise; quantize for tflite-int8"):
        result.save(tmp_path / "digits.tflite")
    with pytest.raises(EquintError, match="LiteRT's arithmetic"):
        write(equint.program(model_path(), "wes", input=(0, 1)))


def test_activations_of_fewer_bits_are_refused_by_name() -> None:
    proto = network("y = Conv(x, w)", inputs="float[1,3,8,8] x", w=normal(4, 3, 3, 3))
    made = equint.quantize(proto, "lwq", TARGET, input=(-3, 3), activation_bits=4, effort="fast")
    with pytest.raises(EquintError, match="x: grid of 4 bits"):
        write(made.program)


def test_16_bits_have_weights_of_8_and_biases_of_64(tmp_path: Path) -> None:
    proto = network("c = Conv(x, w) r = Relu (c) y = Conv (r, v)", inputs="float[1,3,8,8] x",
                    w=normal(4, 3, 3, 3), v=normal(2, 4, 3, 3))  # fmt: skip
    result = equint.quantize(proto, "cwq", "tflite-int16", input=(-3, 3), effort="fast")
    kinds = {t["name"]: t["type"] for t in unpack(write(result.program))["subgraphs"][0]["tensors"]}
    assert kinds == {"x": "INT16", "r_weight": "INT8", "r_bias": "INT64", "r": "INT16",
                     "y_weight": "INT8", "y_bias": "INT64", "y": "INT16"}  # fmt: skip
    with pytest.raises(InvalidOption, match="io = 'uint8': activations are int16; choose float"):
        result.save(tmp_path / "net.tflite", io="uint8")
