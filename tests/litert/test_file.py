"""Files in the making, as the reader of the format sees them."""

import numpy as np

from equint.ir.model import QParams
from equint.litert.file import File
from equint.tflite.flatbuffer import unpack


def grid(scale: float, zero_point: int) -> QParams:
    return QParams(np.array(scale, np.float32), np.array(zero_point, np.int32))


def test_constants_are_stored_once() -> None:
    file = File()
    x = file.tensor("x", (1, 2), "int8")
    half = grid(0.5, 0)
    same = [file.constant(name, np.array([1, 2], np.int8), half) for name in ("a", "b")]
    other = file.constant("c", np.array([1, 2], np.int8), grid(0.25, 0))
    assert same[0] == same[1] != other  # another tensor on another grid, of the same bytes
    found = unpack(file.packed([x], [x], "test"))
    tensors = found["subgraphs"][0]["tensors"]
    assert tensors[same[0]]["buffer"] == tensors[other]["buffer"]
    assert len(found["buffers"]) == 2


def test_buffers_begin_at_multiples_of_16() -> None:
    file = File()
    x = file.tensor("x", (1, 2), "int8")
    arrays = [np.arange(k, dtype=np.int8) + k for k in (1, 7, 30, 33)]
    for k, array in enumerate(arrays):
        file.constant(str(k), array)
    data = file.packed([x], [x], "test", note=b"odd")
    for array in arrays[1:]:
        assert data.index(array.tobytes()) % 16 == 0


def test_names_are_unique_and_codes_shared() -> None:
    file = File()
    x, y, z = (file.tensor("x", (1, 2), "int8") for _ in range(3))
    file.operator("LOGISTIC", [x], [y])
    file.operator("LOGISTIC", [y], [z])
    found = unpack(file.packed([x], [z], "test", equint=b"{}"))
    graph = found["subgraphs"][0]
    assert len({t["name"] for t in graph["tensors"]}) == 3
    assert [code["builtin_code"] for code in found["operator_codes"]] == ["LOGISTIC"]
    assert found["operator_codes"][0]["version"] == 2  # the first that takes int8
    assert found["metadata"][0]["name"] == "equint"
    assert found["signature_defs"][0]["signature_key"] == "serving_default"


def test_scales_of_channels_run_along_their_axis() -> None:
    file = File()
    grid = QParams(np.array([0.5, 0.25], np.float32), np.zeros(2, np.int32))
    w = file.constant("w", np.ones((1, 3, 3, 2), np.int8), grid, 3)
    made = unpack(file.packed([w], [w], "test"))["subgraphs"][0]["tensors"][w]["quantization"]
    assert made["scale"].tolist() == [0.5, 0.25]
    assert made["zero_point"].tolist() == [0, 0]
    assert made["quantized_dimension"] == 3
