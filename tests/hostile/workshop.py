"""Good files of every kind that commands read, made once: what cases spoil."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

from equint.cli.main import main
from equint.planning.recipe import source as recipe_source
from tflite_files import Part, Step, Tensor, tflite_file

CARD = """model = "net.onnx"
task = "classification"
labels = "labels.txt"

[input]
kind = "rgb"
mean = [0, 0, 0]
std = [255, 255, 255]
size = [8, 8]

[data]
eval = "data.npz"
calibration = "data.npz"
"""
TARGET = """name = "mine"
description = "of one's own"
bias_bits = 32
recipe = "lwq"
formats = ["qdq"]

[weight]
bits = 8
granularity = "channel"

[activation]
bits = 8

[[rules]]
rule = "weight-type"
source = "a manual"
date = "2026-01-01"
"""
PNGS = ("pictures/cat/a.png", "pictures/cat/b.png", "pictures/dog/a.png", "pictures/dog/b.png")


def network() -> ModelProto:
    """A small network with a BatchNorm, a depthwise convolution and a classifier, opset 17."""
    rng = np.random.default_rng(7)

    def const(name: str, *shape: int, low: float = -1.0) -> TensorProto:
        scale = 1 / math.sqrt(max(math.prod(shape[1:]), 1))
        return numpy_helper.from_array((rng.uniform(low, 1, shape) * scale).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], "conv1", pads=[1, 1, 1, 1], strides=[1, 1]),
        helper.make_node("BatchNormalization", ["c1", "g1", "b1", "m1", "v1"], ["n1"], "norm1"),
        helper.make_node("Relu", ["n1"], ["r1"], "relu1"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], "conv2", group=6, pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c2"], ["r2"], "relu2"),
        helper.make_node("MaxPool", ["r2"], ["p2"], "pool2", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p2"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["y"], "gemm", transB=1),
    ]
    consts = [const("w1", 6, 3, 3, 3), const("g1", 6, low=0.5), const("b1", 6), const("m1", 6)]
    consts += [const("v1", 6, low=0.5), const("w2", 6, 1, 3, 3), const("w3", 4, 96), const("b3", 4)]
    ends: list[tuple[str, list[int | str | None]]] = [("x", ["N", 3, 8, 8]), ("y", ["N", 4])]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in ends]
    graph = helper.make_graph(nodes, "net", values[:1], values[1:], consts)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def tflite() -> bytes:
    """A float .tflite file: a convolution with ReLU6, a mean and a fully connected layer."""
    rng = np.random.default_rng(8)
    consts = {
        "w": rng.normal(size=(4, 3, 3, 3)).astype(np.float32),
        "b": rng.normal(size=4).astype(np.float32),
        "v": rng.normal(size=(5, 4)).astype(np.float32),
        "axes": np.array([1, 2], np.int32),
    }
    conv = {"padding": "SAME", "stride_w": 1, "stride_h": 1, "fused_activation_function": "RELU6"}
    steps = [
        Step("CONV_2D", ["x", "w", "b"], ["c"], conv),
        Step("MEAN", ["c", "axes"], ["m"], {"keep_dims": False}),
        Step("FULLY_CONNECTED", ["m", "v", ""], ["y"]),
    ]
    shapes = {"x": (1, 8, 8, 3), "c": (1, 8, 8, 4), "m": (1, 4), "y": (1, 5)}
    return tflite_file(Part(steps, {n: Tensor(s) for n, s in shapes.items()}, consts, ["x"], ["y"]))


def furnish(folder: Path) -> None:
    """Make all good files in a folder that is the working directory; equint itself makes those that it writes."""
    from PIL import Image

    rng = np.random.default_rng(9)
    onnx.save(network(), folder / "net.onnx")
    beside = network()
    onnx.save(beside, folder / "ext.onnx", save_as_external_data=True, location="ext.bin", size_threshold=0)
    (folder / "lite.tflite").write_bytes(tflite())
    (folder / "net.toml").write_text(CARD)
    (folder / "labels.txt").write_text("cat\ndog\nbird\nfish\n")
    (folder / "mine.toml").write_text(recipe_source("lwq").replace('name = "lwq"', 'name = "mine"'))
    (folder / "target.toml").write_text(TARGET)
    pixels, labels = rng.integers(0, 256, (8, 8, 8, 3), np.uint8), rng.integers(0, 4, 8)
    np.savez(folder / "data.npz", x=pixels, y=labels)
    np.savez(folder / "arrays.npz", x=rng.uniform(0, 1, (8, 3, 8, 8)).astype(np.float32), y=labels)
    np.save(folder / "arrays.npy", rng.uniform(0, 1, (8, 3, 8, 8)).astype(np.float32))
    for k, name in enumerate(PNGS):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[k]).save(folder / name)
    ranged = ["--input-range", "0", "1"]
    for command in (
        ["quantize", "net.onnx", "-o", "int8.onnx", "--recipe", "lwq", *ranged],
        ["calibrate", "net.onnx", "-o", "stats.npz", "--data", "arrays.npz"],
        ["export", "net.onnx", "-o", "bundle.json", "--recipe", "lwq", "--target", "npu-shift", *ranged],
        ["golden", "bundle.json", "-o", "golden", "--data", "arrays.npz", "--raw"],
        ["quantize", "net.onnx", "-o", "int8.tflite", "--recipe", "lwq", *ranged],
    ):
        _done(command)


def _done(command: list[str]) -> None:
    try:
        main(command)
    except SystemExit as stop:
        if stop.code:
            raise AssertionError(f"{command}: {stop.code}") from stop
