"""Samples of networks that fold something else into what they call batch: frames of clips."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

import equint
from equint.integers.engine import Engine
from equint.onnx.reader import read
from equint.planning.data import looked_at
from equint.samples.images import Run
from handwritten import Array, execute, network, normal

FRAMES = 4
CLIPS = [normal(FRAMES, 3, 8, 8, seed=k, scale=1) for k in range(20)]
OTHERS = [normal(FRAMES, 3, 8, 8, seed=100 + k, scale=1) for k in range(20)]
"""Clips that are not shown before."""
SIZES = {"a": (4, 6, 6), "c": (3, 4, 36), "d": (4, 36)}


def clips() -> ModelProto:
    """Each frame less the one before it, the mean of them: runs on whole clips of four frames alone."""
    body = """
        a = Conv(x, w) r = Relu(a) b = Reshape(r, clip)
        late = Slice(b, one, four, one) early = Slice(b, nought, three, one)
        c = Sub(late, early) d = ReduceMean <axes = [1], keepdims = 0> (c) e = Conv <strides = [36]> (d, v)
        f = Reshape(e, rows) y = Gemm(f, u)
    """
    numbers = {"nought": [0], "one": [1], "three": [3], "four": [4]}
    weights: dict[str, Any] = {"w": normal(4, 3, 3, 3), "v": normal(5, 4, 1), "u": normal(5, 2)}
    sizes: dict[str, Any] = {"clip": [-1, FRAMES, 4, 36], "rows": [-1, 5], **numbers}
    return network(body, inputs="float[NT,3,8,8] x", output="float[] y", **weights, **sizes)


def decibels(proto: ModelProto, quantized: ModelProto, x: Array) -> float:
    (clean,), (noisy,) = execute(proto, x), execute(quantized, x)
    return float(10 * np.log10(np.square(clean).sum() / np.square(clean - noisy).sum()))


@pytest.mark.parametrize(
    "data", [CLIPS, np.concatenate(CLIPS), {"x": np.concatenate(CLIPS)}], ids=["list", "array", "npz"]
)
def test_a_clip_is_one_sample(data: Any) -> None:
    model, seen = looked_at(read(clips()), data, None, None)
    assert seen is not None
    runs = list(seen.images or ())
    assert all(isinstance(run, Run) for run in runs)
    assert [run["x"].shape for run in runs] == [(FRAMES, 3, 8, 8)] * len(CLIPS)
    np.testing.assert_array_equal(np.concatenate([run["x"] for run in runs]), np.concatenate(CLIPS))
    shapes = {name: model.graph.shapes[name] for name in SIZES}
    assert {name: shape[1:] for name, shape in shapes.items()} == SIZES
    assert not any(isinstance(shape[0], int) for shape in shapes.values())


def test_entries_are_whole_though_less_would_do() -> None:
    _, seen = looked_at(read(clips()), [np.concatenate(CLIPS[:2])] * 3, None, None)
    assert seen is not None
    assert [run["x"].shape[0] for run in seen.images or ()] == [8] * 3


@pytest.mark.parametrize("data", [CLIPS, np.concatenate(CLIPS)], ids=["list", "array"])
def test_they_are_quantized_and_still_take_any_number_of_clips(data: Any) -> None:
    proto = clips()
    made = equint.quantize(proto, data=data, input=(-4, 4))
    for clip_count in (1, 20):
        assert decibels(proto, made.proto, np.concatenate(OTHERS[:clip_count])) > 15


def test_without_clips_one_is_made_up() -> None:
    model = read(clips())
    untold = replace(model, graph=replace(model.graph, shapes={"x": model.graph.shapes["x"]}))
    model, seen = looked_at(untold, None, None, None)
    assert seen is None
    assert {name: model.graph.shapes[name][1:] for name in SIZES} == SIZES


def test_frames_that_make_no_clip_are_refused() -> None:
    """As those of the array that was given; a list is of entries."""
    frames = np.ones((3, 3, 8, 8), np.float32)
    with pytest.raises(equint.EquintError, match=r"the first of 3 samples: model: does not run on this input"):
        looked_at(read(clips()), frames, None, None)
    with pytest.raises(equint.EquintError, match=r"^model: does not run on this input"):
        looked_at(read(clips()), [frames], None, None)


def test_programs_are_for_the_size_of_the_first_sample() -> None:
    body = (
        "a = Conv <pads = [1, 1, 1, 1]> (x, w) g = GlobalAveragePool (a) s = Shape (a) r = Expand (g, s) y = Mul (a, r)"
    )
    proto = network(body, inputs="float[N,3,H,W] x", output="float[N,4,H,W] y", w=normal(4, 3, 3, 3))
    samples = normal(8, 3, 6, 10, scale=1.0)
    result = equint.quantize(proto, "lwq", "npu-shift", data=samples, effort="fast")
    assert result.model.graph.shapes["x"] == ("N", 3, "H", "W")
    program = result.program
    assert program.shapes["x"] == ("N", 3, 6, 10)
    (wanted,) = execute(result.proto, samples)
    steps = np.abs(Engine(program, threads=1).real(samples)["y"] - wanted) / float(program.grids["y"].scale)
    assert steps.max() < 2.01
    with pytest.raises(equint.EquintError, match="known height and width"):
        _ = equint.quantize(proto, "lwq", "npu-shift", input=(-1, 1)).program
