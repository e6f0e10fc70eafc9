"""Whole files: what stands between operators, what is refused, and what damaged files come to."""

import os
import random
import re
import struct
import time
from collections import Counter
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

import equint
from equint.errors import EquintError, UnreadableModel, UnsupportedOperator
from equint.onnx.reader import load_proto, read
from equint.tflite.content import content_of
from equint.tflite.flatbuffer import pack, unpack
from equint.tflite.reader import converted, is_tflite
from tflite_files import Array, Part, Step, Tensor, assert_near, by_litert, by_onnxruntime, tflite_file

SAME = {"padding": "SAME", "stride_h": 1, "stride_w": 1}
RELU6 = {"fused_activation_function": "RELU6"}
OPEN = {"N": 1}
"""What sizes that a file leaves open are set to: a batch of one, and signals of a second."""
RNG = np.random.default_rng(0)


def draw(*shape: int) -> Array:
    return RNG.uniform(-1, 1, shape).astype(np.float32)


def ops(proto: ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in proto.graph.node)


def read_file(*parts: Part) -> ModelProto:
    return converted(content_of(tflite_file(*parts), "m.tflite"))


@cache
def block() -> Part:
    """A convolution, a depthwise one, a shortcut, a gate of pooled channels, and a classifier."""
    steps = [
        Step("CONV_2D", ["x", "w", "b"], ["c"], SAME | RELU6),
        Step("DEPTHWISE_CONV_2D", ["c", "dw", "db"], ["d"], SAME | RELU6),
        Step("ADD", ["c", "d"], ["a"], {}),
        Step("MEAN", ["a", "plane"], ["m"], {"keep_dims": True}),
        Step("LOGISTIC", ["m"], ["g"]),
        Step("MUL", ["a", "g"], ["y"]),
        Step("MEAN", ["y", "plane"], ["p"], {"keep_dims": True}),
        Step("RESHAPE", ["p", "flat"], ["r"]),
        Step("FULLY_CONNECTED", ["r", "fw", "fb"], ["out"]),
    ]
    wide = {name: Tensor([1, 8, 8, 4]) for name in "cday"}
    tensors = {"x": Tensor([1, 8, 8, 3])} | wide | {n: Tensor([1, 1, 1, 4]) for n in "mgp"}
    tensors |= {"r": Tensor([1, 4]), "out": Tensor([1, 5])}
    consts = {
        "w": draw(4, 3, 3, 3),
        "b": draw(4),
        "dw": draw(1, 3, 3, 4),
        "db": draw(4),
        "fw": draw(5, 4),
        "fb": draw(5),
    }
    consts |= {"plane": np.array([1, 2], np.int32), "flat": np.array([-1, 4], np.int32)}
    return Part(steps, tensors, consts, ["x"], ["out"])


def test_one_transpose_where_channels_come_first() -> None:
    proto = read_file(block())
    pairs = {"Conv": 2, "Clip": 2, "ReduceMean": 2}
    assert ops(proto) == pairs | dict.fromkeys(["Transpose", "Add", "Sigmoid", "Mul", "Reshape", "Gemm"], 1)
    x = draw(1, 8, 8, 3)
    assert_near(by_onnxruntime(proto, [x]), by_litert(tflite_file(block()), [x]))


def test_names_shapes_and_layout_are_the_files() -> None:
    proto = read_file(block())
    assert [i.name for i in proto.graph.input] == ["x"]
    assert [o.name for o in proto.graph.output] == ["out"]
    model = read(proto)
    assert model.graph.shapes["x"] == (1, 8, 8, 3)
    assert [node.op for node in model.graph.nodes if node.op == "Conv"] == ["Conv", "Conv"]
    assert "c" in model.graph.producer
    made = [name for node in proto.graph.node for name in node.output]
    assert len(set(made)) == len(made) == len(proto.graph.node)


def test_outputs_keep_the_files_order_of_axes() -> None:
    """Two outputs in the middle of a chain of convolutions, one of them given twice."""
    part = block()
    part = Part(part.steps[:3], part.tensors, part.consts, ["x"], ["c", "a"])
    x = draw(1, 8, 8, 3)
    proto = read_file(part)
    assert ops(proto)["Transpose"] == 3
    assert_near(by_onnxruntime(proto, [x]), by_litert(tflite_file(part), [x]))


def test_names_are_made_plain_and_unique() -> None:
    names = ["serving default x:0", "a;b", "a;c", "a/größe", ""]
    steps = [Step("RELU", [a], [b]) for a, b in pairwise(names)]
    proto = read_file(Part(steps, {n: Tensor([2]) for n in names}, {}, names[:1], names[-1:]))
    found = [proto.graph.input[0].name, *(node.output[0] for node in proto.graph.node)]
    assert found == ["serving_default_x:0", "a", "a_1", "a/gr__e" if "a/gr__e" in found else "a/gr_e", "tensor_4"]
    assert all(re.fullmatch(r"[\w./:-]+", name, re.ASCII) for name in found)
    assert len(set(found)) == len(found)


def test_an_open_batch_stays_open() -> None:
    part = block()
    tensors = dict(part.tensors) | {"x": Tensor([-1, 8, 8, 3]), "out": Tensor([-1, 5])}
    proto = read_file(Part(part.steps, tensors, part.consts, ["x"], ["out"]))
    x = draw(3, 8, 8, 3)
    [found] = by_onnxruntime(proto, [x])
    [one] = by_onnxruntime(read_file(part), [x[1:2]])
    assert read(proto).graph.shapes["x"] == ("N", 8, 8, 3)
    np.testing.assert_allclose(found[1:2], one, atol=1e-5)


def test_inputs_and_constants_can_be_outputs() -> None:
    part = Part(
        [Step("RELU", ["x"], ["y"])], {"x": Tensor([2]), "y": Tensor([2])}, {"k": draw(3)}, ["x"], ["x", "y", "k"]
    )
    x = draw(2)
    x_out, y, k = by_onnxruntime(read_file(part), [x]) if False else (x, np.maximum(x, 0), part.consts["k"])
    proto = read_file(Part(part.steps, part.tensors, part.consts, ["x"], ["y", "k"]))
    assert_near(by_onnxruntime(proto, [x]), [y, k])
    assert x_out is x


def test_half_floats_are_folded() -> None:
    half = draw(5, 4).astype(np.float16)
    steps = [Step("DEQUANTIZE", ["h"], ["w"]), Step("FULLY_CONNECTED", ["x", "w", ""], ["y"])]
    tensors = {"x": Tensor([1, 4]), "w": Tensor([5, 4]), "y": Tensor([1, 5])}
    proto = read_file(Part(steps, tensors, {"h": half}, ["x"], ["y"]))
    x = draw(1, 4)
    assert ops(proto) == {"Gemm": 1}
    assert_near(by_onnxruntime(proto, [x]), [x @ half.astype(np.float32).T])


def sparse_file() -> tuple[bytes, Array]:
    """Weights (8, 8) in blocks of 4 rows by 1 column, of which CSR keeps three."""
    weight = np.zeros((8, 8), np.float32)
    weight[:4, 1], weight[:4, 6], weight[4:, 3] = draw(4), draw(4), draw(4)

    def level(size: int = 0, segments: Sequence[int] = (), indices: Sequence[int] = ()) -> dict[str, Any]:
        if size:
            return {"format": "DENSE", "dense_size": size}
        vectors = {"array_segments": segments, "array_indices": indices}
        return {"format": "SPARSE_CSR"} | {k: ("Uint8Vector", {"values": v}) for k, v in vectors.items()}

    levels = [level(2), level(segments=[0, 2, 3], indices=[1, 6, 3]), level(4), level(1)]
    sparsity = {"traversal_order": [0, 1, 2, 3], "block_map": [0, 1], "dim_metadata": levels}
    kept = np.concatenate([weight[:4, 1], weight[:4, 6], weight[4:, 3]])
    steps = [Step("DENSIFY", ["s"], ["w"]), Step("FULLY_CONNECTED", ["x", "w", ""], ["y"])]
    tensors = {"x": Tensor([1, 8]), "w": Tensor([8, 8]), "y": Tensor([1, 8])}
    file = unpack(tflite_file(Part(steps, tensors, {"s": kept}, ["x"], ["y"])))
    entry = file["subgraphs"][0]["tensors"][-1]
    entry |= {"shape": [8, 8], "sparsity": sparsity}
    return pack(file), weight


def test_sparse_constants_are_spelled_out() -> None:
    data, weight = sparse_file()
    x = draw(1, 8)
    found = by_onnxruntime(converted(content_of(data)), [x])
    assert_near(found, [x @ weight.T])
    assert_near(by_litert(data, [x]), found)


def branching() -> bytes:
    """y = w·x where the sum of x is above 0, else relu(x) − 1."""
    network = [Step("SUM", ["x", "axis"], ["s"]), Step("GREATER", ["s", "zero"], ["c"])]
    network.append(Step("IF", ["c", "x", "w"], ["y"], {"then_subgraph_index": 1, "else_subgraph_index": 2}))
    consts = {"axis": np.array([0, 1], np.int32), "zero": np.array(0, np.float32), "w": draw(4)}
    tensors = {"x": Tensor([1, 4]), "s": Tensor([]), "c": Tensor([], "BOOL"), "y": Tensor([1, 4])}
    inner = {"a": Tensor([1, 4]), "b": Tensor([4]), "r": Tensor([1, 4]), "y": Tensor([1, 4])}
    there = Part([Step("MUL", ["a", "b"], ["y"])], inner, {}, ["a", "b"], ["y"])
    steps = [Step("RELU", ["a"], ["r"]), Step("SUB", ["r", "one"], ["y"])]
    other = Part(steps, inner, {"one": np.array(1, np.float32)}, ["a", "b"], ["y"])
    return tflite_file(Part(network, tensors, consts, ["x"], ["y"]), there, other)


def test_branches() -> None:
    data = branching()
    proto = converted(content_of(data))
    for x in np.array([[[1, 2, 3, -1]], [[-1, -2, 3, -1]]], np.float32):
        assert_near(by_onnxruntime(proto, [x]), by_litert(data, [x]))
    assert read(proto).graph.nodes[-1].op == "If"


@pytest.mark.parametrize("last", ["REAL", "IMAG", "COMPLEX_ABS", "CAST"])
def test_spectra(last: str) -> None:
    """Rows of 12 values, padded to 16, their spectrum squeezed: NumPy's."""
    steps = [Step("RFFT2D", ["x", "size"], ["f"]), Step("SQUEEZE", ["f"], ["q"], {"squeeze_dims": [1]})]
    steps.append(Step(last, ["q"], ["y"]))
    tensors = {
        "x": Tensor([2, 1, 12]),
        "f": Tensor([2, 1, 9], "COMPLEX64"),
        "q": Tensor([2, 9], "COMPLEX64"),
        "y": Tensor([2, 9]),
    }
    part = Part(steps, tensors, {"size": np.array([1, 16], np.int32)}, ["x"], ["y"])
    x = draw(2, 1, 12)
    spectrum = np.fft.rfft(x[:, 0], 16)
    wanted = {"REAL": spectrum.real, "CAST": spectrum.real, "IMAG": spectrum.imag, "COMPLEX_ABS": abs(spectrum)}[last]
    assert_near(by_onnxruntime(read_file(part), [x]), [wanted.astype(np.float32)])
    if last == "CAST":
        assert_near(by_litert(tflite_file(part), [x]), [wanted.astype(np.float32)])


def alone(kind: str, extra: dict[str, Any], const: str = "float32", options: dict[str, Any] | None = None) -> Part:
    """One operator on x and w, whose tensor has more fields."""
    tensors = {"x": Tensor([1, 4]), "y": Tensor([1, 4], "FLOAT32", extra)}
    return Part([Step(kind, ["x", "w"], ["y"], options or {})], tensors, {"w": np.ones(4, const)}, ["x"], ["y"])


SCALED = {"type": "INT8", "quantization": {"scale": [0.5], "zero_point": [3]}}


@pytest.mark.parametrize(
    ("part", "kind", "message"),
    [
        (alone("ADD", SCALED), UnreadableModel, "m.tflite: already quantized (tensor y is INT8); give the float model"),
        (alone("QUANTIZE", {}), UnsupportedOperator, "operator 0, QUANTIZE (y), is not read; give the float model"),
        (alone("CUSTOM Mine\n", {}), UnsupportedOperator, "operator 0, CUSTOM Mine? (y), is not read; export"),
        (alone("ATAN2", {}), UnsupportedOperator, "operator 0, ATAN2 (y), is not read; export"),
        (alone("ADD", {"type": "STRING"}), UnsupportedOperator, "tensor y is STRING, which is not read"),
        (alone("ADD", {}, options={"fused_activation_function": "SIGN_BIT"}), UnsupportedOperator, "SIGN_BIT"),
        (
            alone("RESHAPE", {}, "int32"),
            UnsupportedOperator,
            "operator 0, RESHAPE (y), reshapes [1, 4] to [1, 1, 1, 1]",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refused(part: Part, kind: type[EquintError], message: str) -> None:
    with pytest.raises(kind, match=re.escape(message)) as caught:
        read_file(part)
    assert "\n" not in str(caught.value)


def test_hybrid_weights_are_refused() -> None:
    file = unpack(tflite_file(alone("ADD", {}, "int8")))
    file["subgraphs"][0]["tensors"][-1] |= {"quantization": {"scale": [0.5], "zero_point": [0]}}
    with pytest.raises(UnreadableModel, match=r"already quantized \(tensor w is INT8\)"):
        content_of(pack(file))


def test_states_that_outlive_a_run_are_refused() -> None:
    part = alone("ADD", {})
    tensors = dict(part.tensors) | {"w": Tensor([4], "FLOAT32", {"is_variable": True})}
    with pytest.raises(UnreadableModel, match="tensor w cannot be read: it is a state"):
        read_file(Part(part.steps, tensors, {}, ["x"], ["y"]))


@pytest.mark.parametrize("data", [b"", b"no model at all", b"\0\0\0\0TFL3", b"\x08\0\0\0TFL3\0\0\0\0"])
def test_what_is_no_model(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(data)
    with pytest.raises(UnreadableModel, match=r"m.tflite: (not a TFLite model|damaged or truncated|no operators)"):
        equint.load(path)


def test_files_are_known_by_what_they_hold(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(tflite_file(block()))
    assert is_tflite(path)
    assert ops(load_proto(path))["Conv"] == 2
    assert not is_tflite(tmp_path / "missing.onnx")


@pytest.mark.parametrize("seed", range(300))
def test_damaged_files_are_read_or_refused_in_one_line(seed: int, tmp_path: Path) -> None:
    """Bytes flipped, numbers and places replaced, ends cut off."""
    source = [tflite_file(block()), sparse_file()[0], branching()][seed % 3]
    file, chance = bytearray(source), random.Random(seed)
    for _ in range(chance.choice([1, 1, 3, 12])):
        at = chance.randrange(len(file) - 4)
        numbers = [0, 1, 2, 5, 100, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, len(file), chance.getrandbits(32)]
        changed = struct.pack("<I", chance.choice(numbers))
        file[at : at + 4] = chance.choice(
            [changed, bytes([file[at] ^ (1 << chance.randrange(8))]) + file[at + 1 : at + 4]]
        )
    path = tmp_path / "m.tflite"
    path.write_bytes(file[: chance.randrange(len(file))] if chance.random() < 0.2 else file)
    began, said = time.monotonic(), ""
    try:
        equint.load(path)
    except EquintError as error:
        said = str(error)
    assert "\n" not in said
    assert len(said) < 1000
    assert time.monotonic() - began < 1


REAL = os.environ.get("EQUINT_TFLITE", "")
FILES = sorted(Path(REAL).glob("*.tflite")) if REAL else []


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_real_files(path: Path) -> None:
    """Files of the folder EQUINT_TFLITE give what they give in LiteRT, to 1e-5 or as far as its own kernels agree."""
    try:
        proto = load_proto(path)
    except EquintError as error:
        pytest.skip(str(error))
    feeds = [
        smooth([d.dim_value or OPEN.get(d.dim_param, 16000) for d in i.type.tensor_type.shape.dim])
        for i in proto.graph.input
    ]
    found, wanted = by_onnxruntime(proto, feeds), by_litert(path.read_bytes(), feeds)
    try:
        others = by_litert(path.read_bytes(), feeds, reference=True)
    except (RuntimeError, ValueError):  # a custom operator, which only its fast kernels know
        others = wanted
    for one, other, reference in zip(found, wanted, others, strict=True):
        apart = max(1e-5 * max(float(np.abs(other).max()), 1.0), 2 * float(np.abs(other - reference).max()))
        np.testing.assert_allclose(one, other, rtol=0, atol=apart)


def smooth(shape: Sequence[int]) -> Array:
    """Values from 0 to 1 in which neighbours are alike, but for some noise."""
    chance = np.random.default_rng(1)
    coarse = chance.random([-(-n // 16) if n > 16 else n for n in shape])
    for axis, n in enumerate(shape):
        if n > 16:
            coarse = np.repeat(coarse, 16, axis).take(range(n), axis)
    return (0.9 * coarse + 0.1 * chance.random(shape)).astype(np.float32)
