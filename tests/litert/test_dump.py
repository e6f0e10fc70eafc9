"""What a .tflite file's tensors are of a program: there and back, by name and by number, and what does not fit."""

from pathlib import Path

import numpy as np
import onnx
import pytest

import equint
from equint.demo import model_path
from equint.errors import InvalidOption, UnusableData
from equint.integers.engine import Engine
from equint.integers.program import Program
from equint.ir.model import Array
from equint.litert.dump import NETWORK, TENSORS, Kept, kept, read_dump
from equint.litert.writer import write
from equint.tflite.content import content_of
from handwritten import network, normal
from litert_runs import random_integers

TARGET = "tflite-int8"
ASKED = {"input": (0, 1), "target": TARGET}


def flattened() -> onnx.ModelProto:
    """Features that are flattened out of images, which the file keeps as they lie."""
    return network(
        "a = Conv <pads = [1, 1, 1, 1]> (x, w) r = Relu (a) f = Flatten (r) y = Gemm <transB = 1> (f, v)",
        w=normal(4, 3, 3, 3),
        v=normal(5, 4 * 6 * 5),
        inputs="float[1,3,6,5] x",
        output="float[1,5] y",
    )


def computed(program: Program) -> dict[str, Array]:
    (x,) = random_integers(program, 2)
    return {**Engine(program, threads=1).trace({program.inputs[0]: x}), program.inputs[0]: x}


@pytest.mark.parametrize("io", [None, "float"])
def test_a_files_tensors_are_the_programs(io: str | None, tmp_path: Path) -> None:
    program = equint.quantize(flattened(), "lwq", TARGET, input=(-3, 3), effort="fast").program
    values, places = computed(program), kept(program, io)  # type: ignore[arg-type]
    (graph,) = content_of(write(program, io), quantized=True).subgraphs  # type: ignore[arg-type]
    made = {name: place.stored(values[name]) for name, place in places.items()}
    for name, place in places.items():
        tensor = graph.tensors[place.index]
        assert (tensor.name, tensor.dims[1:]) == (place.name, made[name].shape[1:])
        maker = next((o for o in graph.operators if place.index in o.outputs), None)
        assert place.operator == ("" if maker is None else f"#{maker.number} {maker.kind}")
    assert any(place.features is not None for place in places.values())
    named, numbered = tmp_path / "named.npz", tmp_path / "numbered"
    np.savez(named, **{places[n].name: v for n, v in made.items()})  # type: ignore[arg-type]
    numbered.mkdir()
    for name, array in made.items():
        np.save(numbered / f"{places[name].index}.npy", array)
    for dump in (named, numbered):
        found = read_dump(dump, places)
        assert found.keys() == places.keys()
        assert all(np.array_equal(found[name], values[name]) for name in places)


def test_golden_vectors_and_the_first_operator_that_differs(tmp_path: Path) -> None:
    folder = tmp_path / "golden"
    equint.golden(model_path(), folder, **ASKED, images=3)  # type: ignore[arg-type]
    equint.golden(model_path(), folder, **ASKED, images=2)  # type: ignore[arg-type]
    assert (folder / NETWORK).read_bytes()[4:8] == b"TFL3"
    assert equint.lint(folder / NETWORK, TARGET).clean
    assert equint.compare_board(model_path(), folder / TENSORS, **ASKED).first is None  # type: ignore[arg-type]
    assert equint.compare_board(model_path(), folder, **ASKED).first is None  # type: ignore[arg-type]
    with np.load(folder / TENSORS) as found:
        tensors = dict(found)
    (graph,) = content_of((folder / NETWORK).read_bytes(), quantized=True).subgraphs
    layers = [o for o in graph.operators if o.kind == "CONV_2D"]
    wrong = graph.tensors[layers[1].outputs[0]]
    tensors[wrong.name] = tensors[wrong.name].copy()
    tensors[wrong.name][1, 2, 3, 0] ^= 1
    dump = tmp_path / "dump.npz"
    np.savez(dump, **tensors)
    for golden in (None, folder):
        first = equint.compare_board(model_path(), dump, golden, **ASKED).first  # type: ignore[arg-type]
        assert first is not None
        assert first.mismatch is not None
        assert first.mismatch.file == f"#{layers[1].number} CONV_2D, tensor {wrong.index} {wrong.name}"
        assert first.mismatch.index == (1, 0, 2, 3)


def test_dumps_that_cannot_be_compared(tmp_path: Path) -> None:
    dump, broken = tmp_path / "d.npz", tmp_path / "broken.npz"
    broken.write_bytes(b"PK\x03\x04 no archive")
    np.savez(dump, other=np.zeros(3, np.int8))
    with pytest.raises(
        UnusableData, match=r"d\.npz: holds none of the file's \d+ tensors; name them as it does \(input\)"
    ):
        equint.compare_board(model_path(), dump, **ASKED)  # type: ignore[arg-type]
    with pytest.raises(UnusableData, match=r"broken\.npz: not a readable \.npz or \.npy file"):
        equint.compare_board(model_path(), broken, **ASKED)  # type: ignore[arg-type]
    with pytest.raises(UnusableData, match=r"gone\.npz: no such file"):
        equint.compare_board(model_path(), tmp_path / "gone.npz", **ASKED)  # type: ignore[arg-type]
    np.savez(dump, input=np.zeros((1, 8, 8), np.int8))
    with pytest.raises(UnusableData, match=r"input, tensor 0 input: shape \[1, 8, 8\], wanted 4 axes"):
        equint.compare_board(model_path(), dump, **ASKED)  # type: ignore[arg-type]
    np.savez(dump, output=np.zeros((1, 10), np.int8))
    with pytest.raises(
        UnusableData, match=r"holds no input \(input, tensor 0 input\); dump it too, or give the golden"
    ):
        equint.compare_board(model_path(), dump, **ASKED)  # type: ignore[arg-type]
    np.savez(dump, input=np.zeros((1, 8, 8, 1), np.float32))
    with pytest.raises(UnusableData, match="input: "):
        equint.compare_board(model_path(), dump, **ASKED)  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match=r"only \.tflite files have other inputs and outputs"):
        equint.compare_board(model_path(), dump, input=(0, 1), io="float")


def test_features_go_back_to_their_places() -> None:
    place = Kept(3, "f", "", (0, 1), np.array([2, 0, 1]))
    values = np.arange(6).reshape(2, 3)
    assert place.stored(values).tolist() == [[2, 0, 1], [5, 3, 4]]
    assert np.array_equal(place.read(place.stored(values)), values)
