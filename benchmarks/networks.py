"""Networks of well-known sizes with random weights: enough to measure time and memory on."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from equint.ir.model import Array

_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels, blocks and stride of MobileNetV2's stages (Sandler et al. 2018, table 2)."""
_BOTTLENECKS = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
"""Inner channels, blocks and stride of ResNet-50's stages (He et al. 2015, table 1)."""


class _Builder:
    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.consts: list[onnx.TensorProto] = []

    def const(self, name: str, value: Array) -> str:
        self.consts.append(numpy_helper.from_array(value.astype(np.float32), name))
        return name

    def conv(self, x: str, name: str, i: int, o: int, k: int = 1, stride: int = 1, group: int = 1) -> str:
        fan_in = i // group * k * k
        w = self.const(f"{name}.weight", self.rng.normal(0, (2 / fan_in) ** 0.5, (o, i // group, k, k)))
        node = helper.make_node(
            "Conv",
            [x, w],
            [f"{name}.conv"],
            f"{name}.conv",
            kernel_shape=[k, k],
            strides=[stride] * 2,
            pads=[k // 2] * 4,
            group=group,
        )
        self.nodes.append(node)
        stats = {
            "gamma": np.exp(self.rng.normal(-0.3, 0.6, o)),
            "beta": self.rng.normal(0.2, 0.5, o),
            "mean": self.rng.normal(0, 0.3, o),
            "var": np.exp(self.rng.normal(0, 0.7, o)),
        }
        inputs = [f"{name}.conv", *(self.const(f"{name}.{k}", v) for k, v in stats.items())]
        self.nodes.append(helper.make_node("BatchNormalization", inputs, [f"{name}.bn"], f"{name}.bn"))
        return f"{name}.bn"

    def relu6(self, x: str) -> str:
        self.nodes.append(helper.make_node("Clip", [x, "zero", "six"], [f"{x}.relu6"], f"{x}.relu6"))
        return f"{x}.relu6"

    def relu(self, x: str) -> str:
        self.nodes.append(helper.make_node("Relu", [x], [f"{x}.relu"], f"{x}.relu"))
        return f"{x}.relu"

    def add(self, a: str, b: str, name: str) -> str:
        self.nodes.append(helper.make_node("Add", [a, b], [name], name))
        return name

    def classifier(self, x: str, channels: int, classes: int) -> None:
        self.nodes.append(helper.make_node("GlobalAveragePool", [x], ["pool"], "pool"))
        self.nodes.append(helper.make_node("Flatten", ["pool"], ["flat"], "flat"))
        weight = self.const("classifier.weight", self.rng.normal(0, channels**-0.5, (classes, channels)))
        bias = self.const("classifier.bias", np.zeros(classes))
        self.nodes.append(helper.make_node("Gemm", ["flat", weight, bias], ["output"], "classifier", transB=1))


def mobilenet_v2(seed: int = 0, classes: int = 1000, width: float = 1.0) -> onnx.ModelProto:
    """MobileNetV2 at 224 pixels: 3.5 million random weights at width 1, BatchNorm unfolded.

    `width` multiplies the channels of every layer but the results.
    """
    net = _Builder(seed)
    net.const("zero", np.asarray(0.0))
    net.const("six", np.asarray(6.0))
    channels = round(32 * width)
    x = net.relu6(net.conv("input", "stem", 3, channels, 3, 2))
    for s, (expand, full, blocks, stride) in enumerate(_STAGES):
        out = round(full * width)
        for b in range(blocks):
            name, wide, before = f"stage{s}.{b}", channels * expand, x
            if expand > 1:
                x = net.relu6(net.conv(x, f"{name}.expand", channels, wide))
            x = net.relu6(net.conv(x, f"{name}.depthwise", wide, wide, 3, stride if b == 0 else 1, wide))
            x = net.conv(x, f"{name}.project", wide, out)
            if b:
                x = net.add(before, x, f"{name}.add")
            channels = out
    last = round(1280 * width)
    x = net.relu6(net.conv(x, "head", channels, last))
    net.classifier(x, last, classes)
    return _model(net, [("input", ["N", 3, 224, 224])], [("output", ["N", classes])])


def resnet50(seed: int = 0, classes: int = 1000) -> onnx.ModelProto:
    """ResNet-50 at 224 pixels: 25.5 million random weights, BatchNorm unfolded."""
    net = _Builder(seed)
    x, channels = net.relu(net.conv("input", "stem", 3, 64, 7, 2)), 64
    pool = helper.make_node("MaxPool", [x], ["stem.pool"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    net.nodes.append(pool)
    x = "stem.pool"
    for s, (inner, blocks, first) in enumerate(_BOTTLENECKS):
        for b in range(blocks):
            name, stride, before = f"stage{s}.{b}", first if b == 0 else 1, x
            x = net.relu(net.conv(x, f"{name}.reduce", channels, inner))
            x = net.relu(net.conv(x, f"{name}.middle", inner, inner, 3, stride))
            x = net.conv(x, f"{name}.expand", inner, 4 * inner)
            if b == 0:
                before = net.conv(before, f"{name}.shortcut", channels, 4 * inner, 1, stride)
            x = net.relu(net.add(before, x, f"{name}.add"))
            channels = 4 * inner
    net.classifier(x, channels, classes)
    return _model(net, [("input", ["N", 3, 224, 224])], [("output", ["N", classes])])


def _model(
    net: _Builder, inputs: list[tuple[str, list[int | str]]], outputs: list[tuple[str, list[int | str]]]
) -> onnx.ModelProto:
    infos = [
        [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, s) for n, s in side] for side in (inputs, outputs)
    ]
    graph = helper.make_graph(net.nodes, "random", infos[0], infos[1], net.consts)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def save(model: onnx.ModelProto, path: Path) -> Path:
    """Write a model and return its path."""
    onnx.save(model, path)
    return path


BUILDERS: dict[str, Callable[[], onnx.ModelProto]] = {
    "mobilenet_v2_random": mobilenet_v2,
    "resnet50_random": resnet50,
    "mobilenet_v2_x0.25": partial(mobilenet_v2, width=0.25),
    "mobilenet_v2_x0.5": partial(mobilenet_v2, width=0.5),
    "mobilenet_v2_x1": mobilenet_v2,
    "mobilenet_v2_x2": partial(mobilenet_v2, width=2.0),
}
"""What can be built by name: the file's, without .onnx."""

if __name__ == "__main__":
    save(BUILDERS[Path(sys.argv[1]).stem](), Path(sys.argv[1]))
