"""Networks grown at random over all operators: branches, odd shapes, extreme weights, several inputs and outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

from equint.ir.model import Array

OPSETS = {13: 8, 17: 8, 18: 8, 20: 9, 21: 10, 23: 11, 24: 11}
"""Versions of the standard, and of the file's format that they need."""
WIDEST = 4096
"""Values of a sample's tensor, beyond which nothing grows."""
Shape = tuple[int, ...]


class Grown:
    """A network as it grows; shapes are those of one sample, without the batch."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng, self.opset = rng, int(rng.choice(list(OPSETS), p=[0.2, 0.3, 0.1, 0.1, 0.1, 0.1, 0.1]))
        self.nodes: list[onnx.NodeProto] = []
        self.consts: dict[str, TensorProto] = {}
        self.types: dict[str, onnx.TypeProto] = {}
        self.inputs: list[str] = []
        self.loud = bool(rng.random() < 0.3)

    def input(self, *shape: int) -> str:
        """Another input of the network."""
        name = f"in{len(self.inputs)}"
        self.inputs.append(name)
        self.types[name] = helper.make_tensor_type_proto(TensorProto.FLOAT, ["N", *shape])
        return name

    def shape(self, x: str) -> Shape:
        return tuple(d.dim_value for d in self.types[x].tensor_type.shape.dim)[1:]

    def const(self, value: Any, dtype: type = np.float32) -> str:
        """A constant of the network."""
        name = f"k{len(self.consts)}"
        self.consts[name] = numpy_helper.from_array(np.asarray(value, dtype), name)
        self.types[name] = helper.make_tensor_type_proto(self.consts[name].data_type, self.consts[name].dims)
        return name

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """A node; its only output, or all. Raises ValueError where onnx finds no shape for it."""
        names = [f"{kind.lower()}{len(self.nodes)}" + (f"_{k}" if outputs > 1 else "") for k in range(outputs)]
        node = helper.make_node(kind, inputs, names, f"{kind}{len(self.nodes)}", **attributes)
        types = onnx.shape_inference.infer_node_outputs(
            onnx.defs.get_schema(kind, self.opset),
            node,
            {i: self.types[i] for i in inputs if i},
            {i: self.consts[i] for i in inputs if i in self.consts},
            opset_imports=[helper.make_opsetid("", self.opset)],
        )
        if kind in ("MeanVarianceNormalization", "GroupNormalization") or (
            kind == "Reshape" and inputs[1] not in self.consts
        ):
            types = {
                names[0]: self.types[inputs[0]]
            }  # nothing is inferred of functions, and of shapes that are computed
        for made in types.values() if kind != "Shape" else ():
            if made.tensor_type.shape.dim and any(i in self.types and i not in self.consts for i in inputs):
                made.tensor_type.shape.dim[0].dim_param = "N"
        self.types |= types
        self.nodes.append(node)
        return names[0] if outputs == 1 else names

    def some(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high, endpoint=True))

    def pick(self, *choices: Any) -> Any:
        return choices[self.rng.integers(len(choices))]

    def weights(self, *shape: int, fan: int | None = None) -> Array:
        """Weights, usual ones or extreme: dead channels, one outlier, tiny, huge, of one sign, all alike."""
        w = self.rng.normal(0, 1 / math.sqrt(fan or max(math.prod(shape[1:]), 1)), shape)
        if not self.loud:
            return w
        way = self.some(0, 11)
        if way == 0:
            w[self.rng.random(shape[0]) < 0.5] = 0
        elif way == 1:
            w.reshape(-1)[self.some(0, w.size - 1)] *= 1e3
        elif way == 2:
            w *= 10.0 ** self.rng.uniform(-6, 6, (shape[0], *[1] * (len(shape) - 1)))
        elif way == 3:
            w = np.abs(w)
        elif way == 4:
            w *= 10.0 ** self.rng.integers(-30, 5)
        elif way == 5:
            w[:] = 0
        elif way == 6:
            w[:] = w.reshape(-1)[0]
        elif way == 7:
            w = np.rint(w)
        return w

    def bias(self, channels: int) -> Array:
        """Biases: small, none, tiny or huge, for some of the channels."""
        b = self.rng.normal(0, 0.3, channels)
        if self.loud and self.rng.random() < 0.4:
            b *= np.where(self.rng.random(channels) < 0.5, 10.0 ** self.rng.integers(-20, 6), 1)
        return b

    def built(self, outputs: Sequence[str]) -> ModelProto:
        """The network with these outputs."""
        ends = [helper.make_value_info(name, self.types[name]) for name in (*self.inputs, *outputs)]
        count = len(self.inputs)
        graph = helper.make_graph(self.nodes, "grown", ends[:count], ends[count:], list(self.consts.values()))
        opsets = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=OPSETS[self.opset])


Grow = Callable[[Grown, str], Any]
RANKS: dict[Grow, tuple[int, ...]] = {}
"""What may grow on a tensor of how many dimensions, the sample's own."""


def on(*ranks: int) -> Callable[[Grow], Grow]:
    """Say on which tensors something grows."""

    def keep(grow: Grow) -> Grow:
        RANKS[grow] = ranks
        return grow

    return keep


@on(2, 3, 4)
def conv(net: Grown, x: str) -> str:
    channels, *sizes = net.shape(x)
    groups = net.pick(1, 1, channels, math.gcd(channels, 2))
    out = groups * net.some(1, max(1, 12 // groups))
    kernel = [net.some(1, min(3, n)) for n in sizes]
    attributes: dict[str, Any] = {"kernel_shape": kernel, "group": groups}
    if net.rng.random() < 0.3:
        attributes["auto_pad"] = net.pick("SAME_UPPER", "SAME_LOWER", "VALID")
    else:
        attributes["pads"] = [net.some(0, k - 1) for _ in range(2) for k in kernel]
        attributes["dilations"] = [net.some(1, 2) if (k - 1) * 2 < n else 1 for k, n in zip(kernel, sizes, strict=True)]
    attributes["strides"] = [net.some(1, 2) for _ in sizes]
    w = net.const(net.weights(out, channels // groups, *kernel))
    return str(net.op("Conv", x, w, *([net.const(net.bias(out))] if net.rng.random() < 0.7 else []), **attributes))


@on(2, 3, 4)
def conv_transpose(net: Grown, x: str) -> str:
    channels, *sizes = net.shape(x)
    groups = net.pick(1, 1, channels)
    kernel, each = [net.some(1, 3) for _ in sizes], net.some(1, 4)
    w = net.const(net.weights(channels, each, *kernel, fan=channels // groups * math.prod(kernel)))
    strides = [net.some(1, 2) for _ in sizes]
    return str(net.op("ConvTranspose", x, w, net.const(net.bias(each * groups)), group=groups, strides=strides))


@on(1)
def gemm(net: Grown, x: str) -> str:
    n, out = net.shape(x)[0], net.some(1, 12)
    if net.rng.random() < 0.5:
        return str(net.op("Gemm", x, net.const(net.weights(out, n)), net.const(net.bias(out)), transB=1))
    return str(net.op("Gemm", x, net.const(net.weights(n, out, fan=n)), alpha=net.pick(1.0, 0.5, -2.0)))


@on(1, 2, 3)
def matmul(net: Grown, x: str) -> str:
    n, out = net.shape(x)[-1], net.some(1, 9)
    y = net.op("MatMul", x, net.const(net.weights(n, out, fan=n)))
    return str(net.op("Add", y, net.const(net.bias(out))) if net.rng.random() < 0.5 else y)


@on(2, 3)
def attention(net: Grown, x: str) -> str:
    rank = len(net.shape(x)) + 1
    turned = net.op("Transpose", x, perm=[*range(rank - 2), rank - 1, rank - 2])
    alike = net.op("Mul", net.op("MatMul", x, turned), net.const(1 / math.sqrt(net.shape(x)[-1])))
    return str(net.op("MatMul", net.op("Softmax", alike, axis=-1), x))


@on(1, 2, 3, 4)
def batchnorm(net: Grown, x: str) -> str:
    n = net.shape(x)[0]
    gamma, beta, mean = net.rng.normal(1, 0.3, n), net.bias(n), net.rng.normal(0, 0.3, n)
    variance = net.rng.uniform(0.3, 2, n)
    if net.loud and net.rng.random() < 0.4:
        variance *= 10.0 ** net.rng.integers(-8, 3, n)
        gamma[net.rng.random(n) < 0.3] = 0
    return str(net.op("BatchNormalization", x, *(net.const(v) for v in (gamma, beta, mean, variance))))


@on(1, 2, 3, 4)
def norm(net: Grown, x: str) -> str:
    shape = net.shape(x)
    known = ["LpNormalization", "MeanVarianceNormalization", "InstanceNormalization", "Softmax"]
    known += ["LayerNormalization"] * (net.opset >= 17) + ["RMSNormalization"] * (net.opset >= 23)
    known += ["GroupNormalization"] * (net.opset >= 21)
    kind = net.pick(*known)
    if kind == "InstanceNormalization" and len(shape) == 1:
        kind = "Softmax"
    if kind in ("LpNormalization", "Softmax"):
        return str(net.op(kind, x, axis=net.some(1, len(shape))))
    if kind == "MeanVarianceNormalization":
        return str(net.op(kind, x, axes=[0, *range(2, len(shape) + 1)]))
    if kind in ("InstanceNormalization", "GroupNormalization"):
        more = {"num_groups": math.gcd(shape[0], 2)} if kind[0] == "G" else {}
        return str(net.op(kind, x, *(net.const(net.rng.normal(1, 0.3, shape[0])) for _ in range(2)), **more))
    return str(net.op(kind, x, net.const(net.rng.normal(1, 0.3, shape[-1]))))


@on(1, 2, 3, 4)
def activation(net: Grown, x: str) -> str:
    plain = ["Relu", "Relu", "Sigmoid", "Tanh", "HardSigmoid", "Elu", "Softplus", "Erf", "Abs", "Neg", "Floor", "Ceil"]
    plain += ["LeakyRelu"] + ["HardSwish"] * (net.opset >= 14) + ["Mish"] * (net.opset >= 18)
    plain += ["Gelu"] * (net.opset >= 20) + ["Swish"] * (net.opset >= 24)
    kind = net.pick(*plain, "Clip", "PRelu", "Exp", "Log", "Sqrt", "Reciprocal", "Pow")
    if kind == "Clip":
        low = float(net.rng.normal())
        return str(net.op(kind, x, net.const(low), net.const(low + float(net.rng.exponential(2)))))
    if kind == "PRelu":
        return str(
            net.op(kind, x, net.const(net.rng.normal(0.2, 0.3, (net.shape(x)[0], *[1] * (len(net.shape(x)) - 1)))))
        )
    if kind == "Exp":
        return str(net.op(kind, net.op("Clip", x, net.const(-5), net.const(3))))
    if kind in ("Log", "Sqrt", "Reciprocal"):
        return str(net.op(kind, net.op("Add", net.op("Softplus", x), net.const(0.1))))
    if kind == "Pow":
        return str(net.op(kind, x, net.const(net.pick(2.0, 3.0))))
    return str(net.op(kind, x))


@on(1, 2, 3, 4)
def arithmetic(net: Grown, x: str) -> str:
    shape = net.shape(x)
    sizes = net.pick((), (shape[0], *[1] * (len(shape) - 1)), (1, *shape), shape[-1:])
    value = net.rng.normal(0.3, 1, sizes)
    kind = net.pick("Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Where", "Equal")
    if kind == "Where":
        return str(net.op(kind, net.const(value > 0, np.bool_), x, net.const(0.5)))
    if kind == "Equal":
        return str(net.op("Where", net.op(kind, x, net.const(value)), net.const(0.0), x))
    if kind == "Div":
        value = np.sign(value) * (np.abs(value) + 0.2) + (value == 0)
    if net.loud and net.rng.random() < 0.2:
        value = value * 10.0 ** net.rng.integers(-12, 6)
    return str(
        net.op(kind, *((x, net.const(value)) if net.rng.random() < 0.8 or kind == "Div" else (net.const(value), x)))
    )


@on(2, 3, 4)
def pool(net: Grown, x: str) -> str:
    sizes = net.shape(x)[1:]
    kind = net.pick("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Reduce", "Reduce")
    if kind.startswith("Global"):
        return str(net.op(kind, x))
    if kind == "Reduce":
        return reduced(net, x)
    kernel = [net.some(1, min(3, n)) for n in sizes]
    pads = [net.some(0, k - 1) for _ in range(2) for k in kernel]
    more: dict[str, Any] = {"count_include_pad": net.some(0, 1)} if kind == "AveragePool" else {}
    strides = [net.some(1, 2) for _ in sizes]
    return str(net.op(kind, x, kernel_shape=kernel, pads=pads, strides=strides, ceil_mode=net.some(0, 1), **more))


def reduced(net: Grown, x: str) -> str:
    """A mean, sum or extreme over some of the dimensions."""
    kind, rank = net.pick("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"), len(net.shape(x))
    keep = 1 if rank < 3 else net.some(0, 1)
    axes = sorted({net.some(1, rank) for _ in range(net.some(1, rank - 1))})
    if net.opset >= 18 or kind == "ReduceSum":
        return str(net.op(kind, x, net.const(axes, np.int64), keepdims=keep))
    return str(net.op(kind, x, axes=axes, keepdims=keep))


@on(1, 2, 3, 4)
def moved(net: Grown, x: str) -> str:
    shape = net.shape(x)
    rank = len(shape)
    kind = net.pick(
        "Identity", "Dropout", "Flatten", "Reshape", "Transpose", "Unsqueeze", "Slice", "Split", "Pad", "Gather"
    )
    if kind == "Flatten":
        return str(net.op(kind, x))
    if kind == "Reshape":
        cut = net.some(1, rank)
        return str(net.op(kind, x, net.const([0, *shape[: cut - 1], -1], np.int64)))
    if kind == "Transpose":
        return str(net.op(kind, x, perm=[0, *(1 + net.rng.permutation(rank)).tolist()]))
    if kind == "Unsqueeze":
        wide = net.op(kind, x, net.const([net.some(1, rank)], np.int64))
        return str(net.op("Squeeze", wide, net.const([1], np.int64)) if net.shape(wide)[0] == 1 else wide)
    axis = net.some(1, rank)
    n = shape[axis - 1]
    if kind == "Slice":
        start = net.some(0, n - 1)
        return str(net.op(kind, x, *(net.const([v], np.int64) for v in (start, net.some(start + 1, n), axis))))
    if kind == "Split" and n > 1:
        at = net.some(1, n - 1)
        parts = net.op(kind, x, net.const([at, n - at], np.int64), outputs=2, axis=axis)
        return str(net.op("Concat", *reversed(parts), axis=axis))
    if kind == "Pad":
        pads = [0, *(net.some(0, 1) for _ in shape), 0, *(net.some(0, 1) for _ in shape)]
        return str(net.op(kind, x, net.const(pads, np.int64), net.const(net.pick(0.0, 0.5))))
    if kind == "Gather":
        places = [net.some(-n, n - 1) for _ in range(net.some(1, n))]
        return str(net.op(kind, x, net.const(places, np.int64), axis=axis))
    return str(net.op("Identity" if kind == "Split" else kind, x))


@on(3)
def resized(net: Grown, x: str) -> str:
    channels, height, width = net.shape(x)
    kind = net.pick("Resize", "DepthToSpace", "SpaceToDepth", "Expand")
    if kind == "DepthToSpace" and channels % 4 == 0:
        return str(net.op(kind, x, blocksize=2, mode=net.pick("DCR", "CRD")))
    if kind == "SpaceToDepth" and height % 2 == 0 == width % 2:
        return str(net.op(kind, x, blocksize=2))
    if kind == "Expand":
        small = net.op("GlobalMaxPool", x)
        return str(net.op(kind, small, net.const([1, channels, height, width], np.int64)))
    mode = {
        "mode": net.pick("nearest", "linear"),
        "coordinate_transformation_mode": net.pick("asymmetric", "half_pixel"),
    }
    return str(net.op("Resize", x, "", net.const([1, 1, 2, net.pick(1, 2)]), nearest_mode="floor", **mode))


@on(1, 2, 3)
def typed(net: Grown, x: str) -> str:
    kind = net.pick("Cast", "Shape", "Size", "ConstantOfShape")
    if kind == "Cast":
        wide = net.op("Cast", x, to=int(net.pick(TensorProto.DOUBLE, TensorProto.FLOAT16)))
        return str(net.op("Cast", wide, to=int(TensorProto.FLOAT)))
    if kind == "Shape":
        return str(net.op("Reshape", net.op("Relu", x), net.op("Shape", x)))
    if kind == "Size":
        count = net.op("Cast", net.op("Size", net.const(np.ones(3))), to=int(TensorProto.FLOAT))
        return str(net.op("Mul", x, count))
    zeros = net.op("ConstantOfShape", net.const([1, *net.shape(x)], np.int64))
    return str(net.op("Add", x, zeros))


def joined(net: Grown, tensors: Sequence[str], x: str) -> str:
    """Two branches become one: a sum, a product, a choice, or side by side."""
    alike = [t for t in tensors if net.shape(t) == net.shape(x)]
    other = net.pick(*alike)
    if net.rng.random() < 0.3:
        return str(net.op("Concat", x, other, axis=1))
    if net.rng.random() < 0.2 and len(net.shape(x)) > 1:
        gate = net.op("Sigmoid", net.op("GlobalAveragePool", other))
        return str(net.op("Mul", x, gate))
    return str(net.op(net.pick("Add", "Add", "Sub", "Mul", "Max", "Min", "Sum"), x, other))


def network(rng: np.random.Generator, size: int) -> ModelProto:
    """A network of about so many operators that onnx takes; its outputs are finite on ordinary inputs in most cases."""
    net = Grown(rng)
    start = net.pick((3, 8, 8), (1, 8, 8), (4, 7, 5), (6, 12), (10,), (2, 4, 5, 3), (1, 1, 1), (5, 1, 9))
    tensors = [net.input(*start) for _ in range(net.pick(1, 1, 1, 2))]
    first = RANKED[len(start)][0]
    tensors.append(first(net, tensors[0]))
    for _ in range(size):
        x = tensors[-1] if rng.random() < 0.7 else net.pick(*tensors)
        rank = len(net.shape(x))
        before = len(net.nodes)
        try:
            kind = net.pick(*RANKED[rank]) if rng.random() < 0.8 else None
            y = joined(net, tensors, x) if kind is None else kind(net, x)
            if min(net.shape(y)) < 1 or math.prod(net.shape(y)) > WIDEST or not 1 <= len(net.shape(y)) <= 4:
                raise ValueError(y)
            tensors.append(y)
        except (ValueError, RuntimeError, onnx.shape_inference.InferenceError):
            del net.nodes[before:]
    read = {i for node in net.nodes for i in node.input}
    ends = [t for t in tensors if t not in read and t not in net.inputs] or [tensors[-1]]
    return net.built(ends[-4:])


RANKED = {rank: [grow for grow, ranks in RANKS.items() if rank in ranks] for rank in range(1, 5)}
