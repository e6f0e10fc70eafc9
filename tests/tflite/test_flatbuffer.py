"""Tables read and written: against bytes laid by hand, and against LiteRT's own module."""

import random
import struct
import time
from typing import Any

import numpy as np
import pytest

from equint.errors import EquintError, OutputRefused
from equint.tflite import flatbuffer
from equint.tflite.flatbuffer import pack, unpack
from equint.tflite.schema import operator_code

OPTIONS = ("Conv2DOptions", {"padding": "VALID", "stride_w": 2, "stride_h": 1, "fused_activation_function": "RELU6"})
WEIGHTS = np.arange(12, dtype=np.float32).reshape(1, 2, 2, 3)


def small() -> dict[str, Any]:
    """A model of one convolution with most kinds of fields."""
    quantization = {"scale": [0.5, 0.25], "zero_point": [0, -3], "quantized_dimension": 3}
    tensors = [
        {"shape": [1, 4, 4, 3], "type": "FLOAT32", "name": "in", "shape_signature": [-1, 4, 4, 3]},
        {"shape": [1, 2, 2, 3], "type": "FLOAT32", "buffer": 1, "name": "w", "quantization": quantization},
        {"shape": [1, 3, 2, 1], "type": "FLOAT32", "name": "größe", "is_variable": True, "has_rank": True},
    ]
    node = {"inputs": [0, 1, -1], "outputs": [2], "builtin_options": OPTIONS, "mutating_variable_inputs": [True, False]}
    return {
        "version": 3,
        "description": "a test",
        "operator_codes": [operator_code("CONV_2D", 2)],
        "subgraphs": [{"tensors": tensors, "inputs": [0], "outputs": [2], "operators": [node], "name": "main"}],
        "buffers": [{}, {"data": WEIGHTS}],
        "metadata": [{"name": "m", "buffer": 1}],
    }


def test_a_file_laid_by_hand() -> None:
    """root → Model{version: 3, description: "hi"}; the vtable lies behind the table, which is allowed."""
    table = struct.pack("<iIII", -16, 3, 0, 12)  # to the vtable, version, padding, to the string
    vtable = struct.pack("<HHHHHH", 12, 16, 4, 0, 0, 12)
    text = struct.pack("<I", 2) + b"hi\0"
    file = struct.pack("<I4s", 8, b"TFL3") + table + vtable
    file = file[:20] + struct.pack("<I", len(file) - 20) + file[24:] + text
    found = unpack(file)
    assert (found["version"], found["description"], found["subgraphs"]) == (3, "hi", [])


def test_what_is_written_is_read() -> None:
    found = unpack(pack(small()))
    graph = found["subgraphs"][0]
    first, weights, last = graph["tensors"]
    assert first["shape_signature"].tolist() == [-1, 4, 4, 3]
    assert weights["quantization"]["zero_point"].tolist() == [0, -3]
    assert (last["name"], last["is_variable"], last["sparsity"]) == ("größe", True, None)
    node = graph["operators"][0]
    defaults = {"dilation_w_factor": 1, "dilation_h_factor": 1, "quantized_bias_type": "FLOAT32"}
    assert node["builtin_options"] == (OPTIONS[0], OPTIONS[1] | defaults)
    assert node["inputs"].tolist() == [0, 1, -1]
    assert node["mutating_variable_inputs"].tolist() == [True, False]
    assert found["buffers"][1]["data"].view("<f4").tolist() == WEIGHTS.ravel().tolist()


def test_buffers_lie_at_multiples_of_16() -> None:
    values = small()
    values["buffers"] += [{"data": np.full(n, 200 + n, np.uint8)} for n in (1, 7, 33)]
    file = pack(values)
    for n in (1, 7, 33):
        assert file.index(bytes([200 + n]) * n) % 16 == 0
    assert file[4:8] == b"TFL3"


def test_written_as_litert_reads_it() -> None:
    published: Any = pytest.importorskip("ai_edge_litert.schema_py_generated", reason="LiteRT is not installed")
    model = published.ModelT.InitFromObj(published.Model.GetRootAs(pack(small()), 0))
    graph = model.subgraphs[0]
    options = graph.operators[0].builtinOptions
    assert isinstance(options, published.Conv2DOptionsT)
    assert (options.padding, options.strideW, options.strideH) == (published.Padding.VALID, 2, 1)
    assert [tensor.name for tensor in graph.tensors] == [b"in", b"w", "größe".encode()]
    assert graph.tensors[1].quantization.zeroPoint.tolist() == [0, -3]
    assert model.buffers[1].data.tobytes() == WEIGHTS.tobytes()
    assert model.operatorCodes[0].builtinCode == published.BuiltinOperator.CONV_2D


def test_read_as_litert_writes_it() -> None:
    published: Any = pytest.importorskip("ai_edge_litert.schema_py_generated", reason="LiteRT is not installed")
    import flatbuffers

    model = published.ModelT.InitFromObj(published.Model.GetRootAs(pack(small()), 0))
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    np.testing.assert_equal(unpack(bytes(builder.Output())), unpack(pack(small())))


@pytest.mark.parametrize(
    "values",
    [
        {"versions": 3},
        {"buffers": [{"data": [1]}]},
        {"subgraphs": [{"tensors": [{"type": "FLOAT12"}]}]},
        {"subgraphs": [{"operators": [{"builtin_options": ("NoOptions", {})}]}]},
    ],
)
def test_what_the_schema_does_not_name_is_not_written(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"no field|buffer 0|the schema has no"):
        pack(values)


def test_over_two_gigabytes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flatbuffer, "MOST", 100)
    with pytest.raises(OutputRefused, match="2 GB"):
        pack(small() | {"buffers": [{}, {"data": np.zeros(200, np.uint8)}]})


@pytest.mark.parametrize("seed", range(400))
def test_damaged_files_are_read_or_refused_in_one_line(seed: int) -> None:
    file, draw = bytearray(pack(small())), random.Random(seed)
    for _ in range(draw.choice([1, 2, 8])):
        at = draw.randrange(len(file) - 4)
        huge = struct.pack(
            "<I", draw.choice([0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, len(file), draw.getrandbits(32)])
        )
        file[at : at + 4] = draw.choice([huge, bytes([file[at] ^ (1 << draw.randrange(8))])])
    cut = bytes(file[: draw.randrange(len(file))] if draw.random() < 0.3 else file)
    began = time.monotonic()
    said = ""
    try:
        unpack(cut, "m.tflite")
    except EquintError as error:
        said = str(error)
    assert not said or said.startswith("m.tflite: ")
    assert "\n" not in said
    assert time.monotonic() - began < 1


def test_tables_that_share_bytes_are_refused() -> None:
    """A thousand names for one subgraph of a thousand names for one tensor: a million tables in 8 kB."""
    file = bytearray(pack({"subgraphs": [{"tensors": [{"name": "x" * 99}] * 1000}] + [{}] * 999}))
    first = unpack(bytes(file))
    assert len(first["subgraphs"][0]["tensors"]) == 1000
    at = next(
        i
        for i in range(0, len(file) - 4, 4)
        if struct.unpack_from("<I", file, i)[0] == 1000 and i + 4 + struct.unpack_from("<I", file, i + 4)[0] < len(file)
    )
    lead = at + 4 + struct.unpack_from("<I", file, at + 4)[0]
    for i in range(1000):
        struct.pack_into("<I", file, at + 4 + 4 * i, lead - (at + 4 + 4 * i))
    with pytest.raises(EquintError, match="damaged"):
        unpack(bytes(file))
