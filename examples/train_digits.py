"""Train the demo network that ships with equint, and write it as ONNX.

The network is a MobileNet-like CNN (depthwise-separable blocks, inverted residuals
with a linear bottleneck, ReLU6 throughout) for the 8x8 grey digits that come with
scikit-learn. It is a small replica of what makes mobile networks hard to quantize:
once BatchNorm is folded into the convolutions, the weight ranges of the channels
of one layer differ by orders of magnitude, so a single int8 scale per tensor rounds
the small channels to nothing.

That channel spread is encouraged ON PURPOSE, by the initialisation: the BatchNorm
gammas of the layers that feed a depthwise convolution start log-normally distributed
(``GAMMA_MEDIAN``, ``GAMMA_SIGMA``) instead of all at one, and BatchNorm learns slowly
(``BATCHNORM_LR``), which keeps the spread. Because the depthwise BatchNorm normalises
each channel again, the network uses its small and its large channels alike. A few
channels also die in training, with a variance near zero that folding divides by, as
happens in published mobile networks. L2 weight decay is applied to the weights of
convolutions and the classifier but not to BatchNorm. Everything after the
initialisation is ordinary training; no weight is edited afterwards.

Run from anywhere (well under a minute on one CPU core)::

    pip install torch numpy onnx onnxruntime scikit-learn
    python examples/train_digits.py

It writes into ``src/equint/demo`` (or the folder given with ``--out``):

* ``digits.onnx``: opset 17, BatchNormalization unfolded, ReLU6 as Clip.
  ``input`` is float32 [N, 1, 8, 8], pixel / 16; ``output`` is float32 [N, 10], logits.
* ``digits_heldout.npz``: the test split, which training never sees: ``x`` is uint8
  [N, 8, 8, 1] with values 0..16, ``y`` is int64 [N].

Seeds are fixed; another torch version or processor may still round differently and
end in slightly different weights. The images are from the UCI "Optical Recognition
of Handwritten Digits" data set (E. Alpaydin and C. Kaynak, CC BY 4.0).
"""

from __future__ import annotations

import argparse
import math
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

DEMO_DIR = Path(__file__).resolve().parents[1] / "src" / "equint" / "demo"

SEED = 0
HELD_OUT = 500  # images, of 1,797
EPOCHS = 100
BATCH = 64
PEAK_LR = 0.1  # convolutions and classifier weights
BATCHNORM_LR = 0.001  # BatchNorm, and the one bias of the classifier
WEIGHT_DECAY = 1e-3  # on convolutions and the classifier, not on BatchNorm
# Initial BatchNorm gammas of the layers before a depthwise convolution: log-normal,
# with a median so low that few channels run into the upper bound of ReLU6.
GAMMA_MEDIAN = 0.1
GAMMA_SIGMA = 1.75


class ConvBN(nn.Module):
    """Convolution without bias, BatchNorm and, unless ``linear``, ReLU6."""

    def __init__(
        self,
        cin: int,
        cout: int,
        kernel: int,
        *,
        stride: int = 1,
        groups: int = 1,
        linear: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(cout)
        self.linear = linear
        nn.init.kaiming_normal_(self.conv.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        return x if self.linear else nn.functional.relu6(x)


class Block(nn.Module):
    """A chain of ConvBN layers, with a residual Add around it if ``residual``."""

    def __init__(self, layers: dict[str, ConvBN], *, residual: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(layers)
        self.residual = residual

    def convs(self) -> list[ConvBN]:
        return [layer for layer in self.layers.values() if isinstance(layer, ConvBN)]

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for layer in self.convs():
            y = layer(y)
        return x + y if self.residual else y


def separable(cin: int, cout: int, stride: int = 1, *, linear: bool = False) -> Block:
    """Depthwise 3x3, then pointwise 1x1 (MobileNetV1)."""
    return Block(
        {
            "dw": ConvBN(cin, cin, 3, stride=stride, groups=cin),
            "pw": ConvBN(cin, cout, 1, linear=linear),
        }
    )


def inverted_residual(channels: int, expansion: int) -> Block:
    """Expand 1x1, depthwise 3x3, linear projection 1x1, Add (MobileNetV2)."""
    wide = channels * expansion
    return Block(
        {
            "expand": ConvBN(channels, wide, 1),
            "dw": ConvBN(wide, wide, 3, groups=wide),
            "project": ConvBN(wide, channels, 1, linear=True),
        },
        residual=True,
    )


class DigitsNet(nn.Module):
    """Stem, blocks, global average pool, classifier."""

    def __init__(self) -> None:
        super().__init__()
        blocks = {
            "stem": Block({"conv": ConvBN(1, 8, 3)}),
            "block1": separable(8, 16),
            "block2": separable(16, 24, stride=2),
            "block3": separable(24, 24, linear=True),
            "block4": inverted_residual(24, expansion=4),
            "block5": inverted_residual(24, expansion=4),
            "block6": separable(24, 32, stride=2),
            "block7": separable(32, 32),
            "block8": separable(32, 64),
        }
        self.blocks = nn.ModuleDict(blocks)
        self.classifier = nn.Linear(64, 10)

        layers = [layer for block in blocks.values() for layer in block.convs()]
        for layer, following in pairwise(layers):
            if following.conv.groups > 1 and not layer.linear:
                nn.init.normal_(layer.bn.weight, math.log(GAMMA_MEDIAN), GAMMA_SIGMA)
                layer.bn.weight.data.exp_()

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks.values():
            x = block(x)
        logits: Tensor = self.classifier(x.mean(dim=(2, 3)))
        return logits


def random_shift(x: Tensor) -> Tensor:
    """Shift a batch by up to one pixel each way, padding with background."""
    dy, dx = (int(v) for v in torch.randint(0, 3, (2,)))
    return nn.functional.pad(x, (1, 1, 1, 1))[:, :, dy : dy + 8, dx : dx + 8]


def train(model: DigitsNet, x: Tensor, y: Tensor) -> None:
    """SGD with momentum, a one-cycle learning rate and label-preserving shifts."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim == 1]  # BatchNorm and the bias
    groups: list[dict[str, Any]] = [
        {"params": decayed, "lr": PEAK_LR, "weight_decay": WEIGHT_DECAY},
        {"params": others, "lr": BATCHNORM_LR},
    ]
    optimizer = torch.optim.SGD(groups, momentum=0.9, nesterov=True)
    steps = len(x) // BATCH  # per epoch; the ragged last batch is dropped
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [group["lr"] for group in groups], total_steps=EPOCHS * steps
    )
    model.train()
    for epoch in range(EPOCHS):
        total = 0.0
        for index in torch.randperm(len(x))[: steps * BATCH].view(steps, BATCH):
            loss = nn.functional.cross_entropy(model(random_shift(x[index])), y[index])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call, unused-ignore]
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += loss.item()
        if (epoch + 1) % 10 == 0:
            print(f"epoch {epoch + 1:3d}/{EPOCHS}  loss {total / steps:.4f}")
    model.eval()


class GraphWriter:
    """Collects the nodes and initializers of an ONNX graph."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def constant(self, name: str, value: Tensor | float) -> str:
        array = np.asarray(value.detach().numpy() if isinstance(value, Tensor) else value, dtype=np.float32)
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def node(self, op: str, name: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
        """Add a node; its output tensor is named like the node unless told otherwise."""
        output = output or name
        self.nodes.append(helper.make_node(op, inputs, [output], name, **attributes))
        return output

    def conv_bn(self, layer: ConvBN, name: str, x: str) -> str:
        conv, bn = layer.conv, layer.bn
        pad = conv.kernel_size[0] // 2
        weight = self.constant(f"{name}.weight", conv.weight)
        x = self.node(
            "Conv",
            f"{name}/conv",
            [x, weight],
            kernel_shape=list(conv.kernel_size),
            strides=list(conv.stride),
            pads=[pad] * 4,
            dilations=[1, 1],
            group=conv.groups,
        )
        assert bn.running_mean is not None
        assert bn.running_var is not None
        statistics = {
            "gamma": bn.weight,
            "beta": bn.bias,
            "mean": bn.running_mean,
            "var": bn.running_var,
        }
        inputs = [x, *(self.constant(f"{name}.bn.{k}", v) for k, v in statistics.items())]
        x = self.node("BatchNormalization", f"{name}/bn", inputs, epsilon=bn.eps)
        if layer.linear:
            return x
        return self.node("Clip", f"{name}/relu6", [x, "relu6_min", "relu6_max"])


def to_onnx(model: DigitsNet) -> onnx.ModelProto:
    """Write the trained network as ONNX, every BatchNormalization unfolded."""
    graph = GraphWriter()
    graph.constant("relu6_min", 0.0)
    graph.constant("relu6_max", 6.0)
    x = "input"
    for block_name, block in model.blocks.items():
        assert isinstance(block, Block)
        entry = x
        for layer_name, layer in block.layers.items():
            assert isinstance(layer, ConvBN)
            x = graph.conv_bn(layer, f"{block_name}.{layer_name}", x)
        if block.residual:
            x = graph.node("Add", f"{block_name}/add", [entry, x])
    x = graph.node("GlobalAveragePool", "pool", [x])
    x = graph.node("Flatten", "flatten", [x], axis=1)
    weight = graph.constant("classifier.weight", model.classifier.weight)
    bias = graph.constant("classifier.bias", model.classifier.bias)
    graph.node("Gemm", "classifier/gemm", [x, weight, bias], output="output", transB=1)
    onnx_model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "digits",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 1, 8, 8])],
            [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["N", 10])],
            graph.initializers,
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
        producer_name="equint examples/train_digits.py",
    )
    onnx.checker.check_model(onnx_model, full_check=True)
    return onnx_model


def main() -> None:
    parser = argparse.ArgumentParser(description="Train equint's demo network.")
    parser.add_argument("--out", type=Path, default=DEMO_DIR, help="folder to write into")
    out_dir: Path = parser.parse_args().out
    out_dir.mkdir(parents=True, exist_ok=True)

    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True)

    digits = load_digits()
    images = digits.images.astype(np.uint8)  # (1797, 8, 8), 0..16
    labels = digits.target.astype(np.int64)
    x_train, x_test, y_train, y_test = train_test_split(
        images, labels, test_size=HELD_OUT, stratify=labels, random_state=SEED
    )

    model = DigitsNet()
    start = time.perf_counter()
    train(model, torch.from_numpy(x_train / np.float32(16))[:, None], torch.from_numpy(y_train))
    print(f"trained in {time.perf_counter() - start:.0f} s")

    onnx_path = out_dir / "digits.onnx"
    onnx.save(to_onnx(model), onnx_path)
    x = x_test[:, None] / np.float32(16)
    with torch.no_grad():
        torch_logits = model(torch.from_numpy(x)).numpy()
    session = ort.InferenceSession(onnx_path, providers=["CPUExecutionProvider"])
    onnx_logits = np.asarray(session.run(["output"], {"input": x})[0])
    difference = float(np.abs(torch_logits - onnx_logits).max())
    assert difference < 1e-4, f"ONNX and torch disagree by {difference}"
    accuracy = float((onnx_logits.argmax(axis=1) == y_test).mean())
    print(f"held-out accuracy {accuracy:.2%}, ONNX within {difference:.1e} of torch")

    data_path = out_dir / "digits_heldout.npz"
    np.savez_compressed(data_path, x=x_test[..., None], y=y_test)
    for path in (onnx_path, data_path):
        print(f"{path.name}: {path.stat().st_size / 1000:.1f} kB")


if __name__ == "__main__":
    main()
