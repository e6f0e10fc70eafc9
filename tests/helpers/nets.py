"""Small random CNNs for the tests: a graph builder, building blocks, and a hypothesis strategy over them.

The builder can also be used by hand:

    net = Net(seed=1)
    x = net.relu(net.batchnorm(net.conv(net.input, 8, bias=False)))
    model = net.build(net.gemm(net.flatten(net.globalpool(x)), 10))

`random_network(seed)` and the strategy `networks()` differ only in the source of their choices: structure
is chosen through `Dice`, weights come from a numpy generator with a seed of its own, so that hypothesis can
shrink the structure.  In all choices the first option, or the smallest number, is the simplest.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypedDict, TypeVar, Unpack

import hypothesis.strategies as st
import numpy as np
import onnx
import onnxruntime  # type: ignore[import-untyped,unused-ignore]
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = helper.make_opsetid("", 17)
Array = NDArray[np.float32]
Floats = NDArray[np.float64]  # weights in the making
Size = int | Sequence[int]  # one number for all spatial axes, or one for each
T = TypeVar("T")


def sample(model: onnx.ModelProto, n: int = 2, seed: int = 0) -> Array:
    """A batch of `n` standard normal inputs for `model`."""
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    return np.random.default_rng(seed).standard_normal((n, *shape[1:]), np.float32)


def run(model: onnx.ModelProto, x: Array) -> list[Array]:
    """The outputs of `model` in onnxruntime, computed as the graph says: nothing is fused or folded."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    return list(session.run(None, {model.graph.input[0].name: x}))


class Net:
    """An ONNX graph under construction: the methods append nodes and return the name of the result."""

    input = "input"

    def __init__(self, seed: int = 0, shape: Sequence[int] = (3, 8, 8), calibrated: bool = False) -> None:
        self.rng = np.random.default_rng(seed)
        self.calibrated = calibrated
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, TensorProto] = {}
        self.types = {self.input: helper.make_tensor_type_proto(TensorProto.FLOAT, ["N", *shape])}
        self.deviations: dict[str, Floats] = {}  # what to expect in each channel, where that is not about 1

    def shape(self, x: str) -> tuple[int, ...]:
        """The shape of a tensor without its batch axis: channels first."""
        return tuple(d.dim_value for d in self.types[x].tensor_type.shape.dim)[1:]

    def channels(self, x: str) -> int:
        return self.shape(x)[0]

    def each(self, size: Size, x: str) -> list[int]:
        """One `size` for each spatial axis of `x`."""
        return [size] * (len(self.shape(x)) - 1) if isinstance(size, int) else list(size)

    def constant(self, value: Floats | Sequence[int] | float, name: str) -> str:
        """A new initializer: int64 for a sequence of ints, else float32."""
        name = f"{name}_{len(self.constants)}"
        integer = not isinstance(value, float | np.ndarray)
        tensor = numpy_helper.from_array(np.asarray(value, np.int64 if integer else np.float32), name)
        self.constants[name] = tensor
        self.types[name] = helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
        return name

    def op(self, op_type: str, *inputs: str, **attributes: float | str | Sequence[int]) -> str:
        return self.ops(op_type, 1, *inputs, **attributes)[0]

    def ops(self, op_type: str, n: int, *inputs: str, **attributes: float | str | Sequence[int]) -> list[str]:
        """Append any node, one with `n` outputs; onnx infers their types."""
        name = f"{op_type}_{len(self.nodes)}"
        outputs = [name] if n == 1 else [f"{name}.{i}" for i in range(n)]
        node = helper.make_node(op_type, inputs, outputs, name)
        node.attribute.extend(helper.make_attribute(k, v) for k, v in attributes.items())
        types = onnx.shape_inference.infer_node_outputs(
            onnx.defs.get_schema(op_type, OPSET.version),
            node,
            {i: self.types[i] for i in inputs if i},
            {i: self.constants[i] for i in inputs if i in self.constants},
            opset_imports=[OPSET],
        )
        for output in types.values():  # Resize, for one, forgets the name of the batch axis
            output.tensor_type.shape.dim[0].dim_param = "N"
        self.types |= types
        self.nodes.append(node)
        return outputs

    def build(self, result: str) -> onnx.ModelProto:
        """The checked model with `result` as its only output, renamed to `output`."""
        if result == self.input:
            result = self.op("Identity", result)
        value = helper.make_value_info("output", self.types[result])
        source = helper.make_value_info(self.input, self.types[self.input])
        graph = helper.make_graph(self.nodes, "net", [source], [value], list(self.constants.values()))
        for node in graph.node:
            node.input[:] = ["output" if i == result else i for i in node.input]
            node.output[:] = ["output" if o == result else o for o in node.output]
        model = helper.make_model(graph, opset_imports=[OPSET], ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        return model

    # Layers with weights, normalised to keep magnitudes about 1

    def normal(self, *shape: int, variance: float = 1.0) -> Floats:
        return self.rng.normal(0.0, math.sqrt(variance), shape)

    def bias(self, channels: int, scale: Floats | float = 1.0) -> str:
        return self.constant(self.normal(channels, variance=0.1) * scale, "bias")

    def conv(
        self,
        x: str,
        channels: int,
        kernel: Size = 3,
        *,
        stride: Size = 1,
        dilation: Size = 1,
        groups: int = 1,
        pads: Sequence[int] | None = None,
        bias: bool = True,
        scale: Floats | None = None,
        weight: str | None = None,
    ) -> str:
        """A convolution, padded by default to keep the size of `x` (at stride 1).

        `scale` multiplies each output channel (but not the bias where it is next to nothing); `weight` names
        the initializer of another convolution to use again.
        """
        kernel, dilation = self.each(kernel, x), self.each(dilation, x)
        scale = np.ones(channels) if scale is None else scale
        if weight is None:
            shape = (channels, self.channels(x) // groups, *kernel)
            values = self.normal(*shape, variance=1.5 / math.prod(shape[1:]))
            weight = self.constant(values * scale.reshape(-1, *[1] * (len(shape) - 1)), "weight")
        if pads is None:
            extents = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
            pads = [e // 2 for e in extents] + [e - e // 2 for e in extents]
        deviation = np.where(scale < 1e-6, 1.0, scale)
        inputs = [x, weight, self.bias(channels, deviation)] if bias else [x, weight]
        strides = self.each(stride, x)
        window = {"kernel_shape": kernel, "strides": strides, "dilations": dilation, "pads": pads}
        y = self.op("Conv", *inputs, group=groups, **window)
        self.deviations[y] = deviation
        return y

    def convtranspose(
        self, x: str, channels: int, kernel: int = 2, *, stride: int = 2, groups: int = 1, bias: bool = True
    ) -> str:
        """A transposed convolution that makes `x` larger `stride` times, which is at most `kernel`."""
        cut = kernel - stride
        window = {k: self.each(n, x) for k, n in (("kernel_shape", kernel), ("strides", stride))}
        pads = self.each(cut // 2, x) + self.each(cut - cut // 2, x)
        shape = (self.channels(x), channels // groups, *window["kernel_shape"])
        fan_in = shape[0] / groups * (kernel / stride) ** len(shape[2:])
        weight = self.constant(self.normal(*shape, variance=1.5 / fan_in), "weight")
        inputs = [x, weight, self.bias(channels)] if bias else [x, weight]
        return self.op("ConvTranspose", *inputs, group=groups, pads=pads, **window)

    def batchnorm(self, x: str, dead: int = 0) -> str:
        """Batch normalization with gammas of all sizes and signs, the first `dead` of them 0.

        Mean and variance are the true ones on `sample` if the net is calibrated, else random ones near those.
        """
        n = self.channels(x)
        gamma = 10 ** self.rng.uniform(-1, 0.5, n) * self.rng.choice([1, 1, 1, -1], n)
        gamma *= self.rng.choice([1, 1e-5], n, p=[0.95, 0.05])
        gamma[:dead] = 0
        if self.calibrated:
            mean, variance = self.statistics(x)
        else:
            deviation = self.deviations.get(x, np.ones(n))
            mean, variance = deviation * self.normal(n) / 3, deviation**2 * 10 ** self.rng.uniform(-0.5, 1, n)
        named = {"gamma": gamma, "beta": self.normal(n) / 3, "mean": mean, "variance": variance}
        inputs = [self.constant(values, name) for name, values in named.items()]
        return self.op("BatchNormalization", x, *inputs, epsilon=1e-5)

    def statistics(self, x: str, n: int = 64) -> tuple[Floats, Floats]:
        """Mean and variance of each channel of `x` for a standard normal input."""
        model = Net(shape=self.shape(x)).build(self.input) if x == self.input else self.build(x)
        values = run(model, sample(model, n))[0].astype(np.float64)
        axes = (0, *range(2, values.ndim))
        return values.mean(axes), values.var(axes)

    def gemm(
        self,
        x: str,
        units: int,
        *,
        trans_b: bool = True,
        alpha: float = 1.0,
        beta: float = 1.0,
        bias: bool = True,
    ) -> str:
        values = self.normal(units, self.channels(x), variance=1 / self.channels(x)) / alpha
        weight = self.constant(values if trans_b else values.T, "weight")
        inputs = [x, weight, self.bias(units)] if bias else [x, weight]
        return self.op("Gemm", *inputs, transB=int(trans_b), alpha=alpha, beta=beta)

    def matmul(self, x: str, units: int, *, bias: bool = True) -> str:
        """A linear layer as MatMul and, with a bias, Add."""
        weight = self.normal(self.channels(x), units, variance=1 / self.channels(x))
        y = self.op("MatMul", x, self.constant(weight, "weight"))
        return self.add(y, self.bias(units)) if bias else y

    def per_channel(self, values: Floats, x: str) -> str:
        """A constant that broadcasts one value to each channel of `x` (or the only one to all)."""
        return self.constant(values.reshape(-1, *self.each(1, x)), "channels")

    def mul_channels(self, x: str) -> str:
        n = self.channels(x)
        factors = self.rng.uniform(0.3, 1.5, n) * self.rng.choice([1, 1, -1], n)
        return self.op("Mul", x, self.per_channel(factors, x))

    def add_channels(self, x: str) -> str:
        return self.add(x, self.per_channel(self.normal(self.channels(x)) / 3, x))

    def gate(self, x: str, hidden: int = 4, hard: bool = False) -> str:
        """Squeeze and excite: each channel of `x` times a number from 0 to 1 computed from all of them."""
        y = self.conv(self.relu(self.conv(self.globalpool(x), hidden, 1)), self.channels(x), 1)
        y = self.op("HardSigmoid", y, alpha=1 / 6, beta=0.5) if hard else self.sigmoid(y)
        return self.op("Mul", x, y)

    # Activations

    def linear(self, x: str) -> str:
        """No activation at all."""
        return x

    def relu(self, x: str) -> str:
        return self.op("Relu", x)

    def relu6(self, x: str) -> str:
        return self.op("Clip", x, self.constant(0.0, "low"), self.constant(6.0, "high"))

    def leaky(self, x: str) -> str:
        return self.op("LeakyRelu", x, alpha=self.rng.uniform(0.01, 0.3))

    def prelu(self, x: str, shared: bool = False) -> str:
        """PReLU with a slope for each channel or one for all, not always positive."""
        slopes = self.rng.uniform(-0.1, 0.5, 1 if shared else self.channels(x))
        return self.op("PRelu", x, self.per_channel(slopes, x))

    def prelu_shared(self, x: str) -> str:
        return self.prelu(x, shared=True)

    def sigmoid(self, x: str) -> str:
        return self.op("Sigmoid", x)

    def swish(self, x: str) -> str:
        return self.op("Mul", x, self.sigmoid(x))

    def hardswish(self, x: str) -> str:
        return self.op("HardSwish", x)

    # Layers without weights

    def add(self, x: str, y: str) -> str:
        return self.op("Add", x, y)

    def concat(self, *parts: str) -> str:
        return self.op("Concat", *parts, axis=1)

    def split(self, x: str, *sizes: int) -> list[str]:
        return self.ops("Split", len(sizes), x, self.constant(sizes, "sizes"), axis=1)

    def shuffle(self, x: str, groups: int) -> str:
        """The channel shuffle of ShuffleNet."""
        n, *size = self.shape(x)
        y = self.op("Reshape", x, self.constant([0, groups, n // groups, *size], "shape"))
        y = self.op("Transpose", y, perm=[0, 2, 1, *range(3, 3 + len(size))])
        return self.op("Reshape", y, self.constant([0, n, *size], "shape"))

    def maxpool(self, x: str, kernel: int = 2, stride: int = 2, pad: int = 0) -> str:
        window = {"kernel_shape": self.each(kernel, x), "strides": self.each(stride, x)}
        return self.op("MaxPool", x, pads=self.each(pad, x) * 2, **window)

    def avgpool(self, x: str, kernel: int = 2, stride: int = 2, pad: int = 0, count_pad: bool = False) -> str:
        window = {"kernel_shape": self.each(kernel, x), "strides": self.each(stride, x)}
        pads = self.each(pad, x) * 2
        return self.op("AveragePool", x, pads=pads, count_include_pad=int(count_pad), **window)

    def globalpool(self, x: str) -> str:
        return self.op("GlobalAveragePool", x)

    def reducemean(self, x: str) -> str:
        """Global average pool and flatten in one node."""
        return self.op("ReduceMean", x, axes=list(range(2, len(self.shape(x)) + 1)), keepdims=0)

    def flatten(self, x: str) -> str:
        return self.op("Flatten", x)

    def upsample(self, x: str) -> str:
        """Nearest neighbours, twice the size."""
        scales = self.constant(np.array([1.0, 1.0, *self.each(2, x)]), "scales")
        how = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return self.op("Resize", x, "", scales, mode="nearest", **how)

    def pad(self, x: str, before: int = 1, after: int = 1) -> str:
        pads = [0, 0, *self.each(before, x), 0, 0, *self.each(after, x)]
        return self.op("Pad", x, self.constant(pads, "pads"), self.constant(0.0, "zero"))


ACTIVATIONS: dict[str, Callable[[Net, str], str]] = {
    "relu": Net.relu,
    "linear": Net.linear,
    "relu6": Net.relu6,
    "leaky": Net.leaky,
    "prelu": Net.prelu,
    "prelu_shared": Net.prelu_shared,
    "swish": Net.swish,
    "hardswish": Net.hardswish,
}


@dataclass(frozen=True)
class Dice:
    """The source of all choices about structure: `integer(low, high)` chooses with both ends included."""

    integer: Callable[[int, int], int]
    activations: Sequence[str]

    def flag(self) -> bool:
        return self.integer(0, 1) == 1

    def pick(self, options: Sequence[T]) -> T:
        return options[self.integer(0, len(options) - 1)]

    def width(self, multiple: int = 1) -> int:
        """A number of channels from 4 to 16, as far as `multiple` has a multiple there."""
        return multiple * self.integer(math.ceil(4 / multiple), max(1, 16 // multiple))

    def groups(self, n: int) -> int:
        """Into how many groups `n` channels go, more than one if possible."""
        return self.pick([d for d in range(2, n + 1) if n % d == 0] or [1])

    def activate(self, net: Net, x: str) -> str:
        return ACTIVATIONS[self.pick(self.activations)](net, x)


# Building blocks: each continues the net after `x`, which has spatial axes, and so has what it returns.


def room(net: Net, x: str) -> int:
    return min(net.shape(x)[1:])


def maybe_bn(net: Net, dice: Dice, x: str) -> str:
    return net.batchnorm(x) if dice.flag() else x


def conv_bn_act(net: Net, dice: Dice, x: str, channels: int = 0, groups: int = 1) -> str:
    """A convolution of any geometry, maybe a batch norm, and an activation."""
    kernel = [dice.pick((3, 1, 5, 2)) for _ in net.shape(x)[1:]]
    dilation = 2 if room(net, x) > 3 and dice.integer(0, 3) == 3 else 1
    stride = 2 if room(net, x) > 3 and dice.integer(0, 3) == 3 else 1
    extent = [dilation * (k - 1) for k in kernel]
    pads = None
    if room(net, x) > max(extent) and dice.integer(0, 3) == 3:
        pads = [dice.integer(0, 2) for _ in extent * 2]  # not symmetric
    norm = dice.flag()
    channels = channels or dice.width(groups)
    y = net.conv(
        x,
        channels,
        kernel,
        stride=stride,
        dilation=dilation,
        groups=groups,
        pads=pads,
        bias=dice.flag(),
        scale=10 ** net.rng.uniform(-1, 1, channels) if norm else None,
    )
    return dice.activate(net, net.batchnorm(y) if norm else y)


def conv_bn(net: Net, dice: Dice, x: str, n: int, kernel: int = 3, groups: int = 1, stride: int = 1) -> str:
    """A convolution that keeps the size of `x` (at stride 1), and a batch norm or not."""
    return maybe_bn(net, dice, net.conv(x, n, kernel, groups=groups, stride=stride, bias=dice.flag()))


def depthwise_separable(net: Net, dice: Dice, x: str) -> str:
    multiplier = 2 if net.channels(x) <= 8 and dice.integer(0, 3) == 3 else 1
    y = conv_bn_act(net, dice, x, net.channels(x) * multiplier, net.channels(x))
    return dice.activate(net, conv_bn(net, dice, y, dice.width(), 1))


def grouped(net: Net, dice: Dice, x: str) -> str:
    return conv_bn_act(net, dice, x, groups=dice.groups(net.channels(x)))


def inverted_residual(net: Net, dice: Dice, x: str) -> str:
    """Expand, depthwise, maybe a gate, project without activation, add."""
    n = net.channels(x) * dice.integer(1, 2)
    y = dice.activate(net, conv_bn(net, dice, x, n, 1))
    y = dice.activate(net, conv_bn(net, dice, y, n, 3, groups=n))
    y = net.gate(y) if dice.flag() else y
    return net.add(x, conv_bn(net, dice, y, net.channels(x), 1))


def projected_residual(net: Net, dice: Dice, x: str) -> str:
    n, stride = dice.width(), 2 if room(net, x) > 3 and dice.flag() else 1
    y = dice.activate(net, conv_bn(net, dice, x, n, 3, stride=stride))
    y = conv_bn(net, dice, y, n)
    return dice.activate(net, net.add(y, conv_bn(net, dice, x, n, 1, stride=stride)))


def two_branches(net: Net, dice: Dice, x: str) -> str:
    left = dice.activate(net, conv_bn(net, dice, x, dice.width(), 1))
    right = dice.activate(net, conv_bn(net, dice, x, dice.width(), 3))
    parts = [left, right, x] if dice.flag() else [left, right]
    return net.concat(*parts)


def split_merge(net: Net, dice: Dice, x: str) -> str:
    """Process one part of the channels, then concatenate or, if the parts match, add."""
    n = net.channels(x)
    left, right = net.split(x, n // 2, n - n // 2)
    right = dice.activate(net, conv_bn(net, dice, right, n - n // 2))
    return net.add(left, right) if n % 2 == 0 and dice.flag() else net.concat(left, right)


def channel_shuffle(net: Net, dice: Dice, x: str) -> str:
    groups = dice.groups(net.channels(x))
    y = dice.activate(net, conv_bn(net, dice, x, dice.width(groups), 1, groups=groups))
    y = net.shuffle(y, groups)
    return conv_bn(net, dice, y, net.channels(y), 3, groups=net.channels(y))


def shared_weights(net: Net, dice: Dice, x: str) -> str:
    """Two convolutions with the same weight, parallel or in a row, each with its own batch norm or none."""
    n = net.channels(x)
    y = net.conv(x, n, bias=dice.flag())
    weight = net.nodes[-1].input[1]
    first = dice.activate(net, maybe_bn(net, dice, y))
    row = dice.flag()
    y = net.conv(first if row else x, n, weight=weight, bias=dice.flag())
    second = dice.activate(net, maybe_bn(net, dice, y))
    return second if row else net.add(first, second)


def transposed(net: Net, dice: Dice, x: str) -> str:
    groups = dice.groups(net.channels(x)) if dice.flag() else 1
    stride = 2 if room(net, x) <= 8 and dice.flag() else 1
    kernel = dice.integer(stride, 4)
    y = net.convtranspose(x, dice.width(groups), kernel, stride=stride, groups=groups, bias=dice.flag())
    return dice.activate(net, maybe_bn(net, dice, y))


def dead_channels(net: Net, dice: Dice, x: str, factor: float = 0.0) -> str:
    """Some output channels have (nearly) no weights, some a gamma of 0."""
    n = dice.width()
    scale = np.ones(n)
    scale[-dice.integer(1, 3) :] = factor
    y = net.conv(x, n, scale=scale, bias=dice.flag())
    y = net.batchnorm(y, dead=dice.integer(0, 2)) if dice.flag() else y
    return dice.activate(net, conv_bn(net, dice, dice.activate(net, y), dice.width(), 1))


def near_dead_channels(net: Net, dice: Dice, x: str) -> str:
    return dead_channels(net, dice, x, factor=1e-9)


def squeeze_excite(net: Net, dice: Dice, x: str) -> str:
    y = dice.activate(net, conv_bn(net, dice, x, dice.width()))
    return net.gate(y, dice.integer(1, 4), hard=dice.flag())


def pool(net: Net, dice: Dice, x: str) -> str:
    kernel, stride, pad = dice.pick(((2, 2, 0), (3, 2, 1), (3, 1, 1))) if room(net, x) > 3 else (3, 1, 1)
    if dice.flag():
        return net.avgpool(x, kernel, stride, pad, count_pad=dice.flag())
    return net.maxpool(x, kernel, stride, pad)


def upsample(net: Net, dice: Dice, x: str) -> str:
    return conv_bn(net, dice, net.upsample(x) if room(net, x) <= 8 else x, dice.width())


def fork(net: Net, dice: Dice, x: str) -> str:
    """The result of a convolution is used before and after its batch norm or activation."""
    y = conv_bn(net, dice, x, dice.width())
    z = dice.activate(net, net.batchnorm(y) if dice.flag() else net.relu(y))
    return net.add(y, net.conv(z, net.channels(z), 1)) if dice.flag() else net.concat(y, z)


def preactivation(net: Net, dice: Dice, x: str) -> str:
    """Batch norm and activation before the (padded) convolution."""
    y = dice.activate(net, net.batchnorm(x))
    return net.conv(y, dice.width(), dice.pick((1, 3)), bias=dice.flag())


def lone_batchnorm(net: Net, dice: Dice, x: str) -> str:
    return net.batchnorm(net.relu(x) if dice.flag() else x)


def channel_constants(net: Net, dice: Dice, x: str) -> str:
    """Multiply and add constants, maybe right after a convolution."""
    y = net.conv(x, dice.width(), 1) if dice.flag() else x
    y = net.mul_channels(y) if dice.flag() else y
    return dice.activate(net, net.add_channels(y))


def padded(net: Net, dice: Dice, x: str) -> str:
    y = net.pad(x, dice.integer(0, 1), dice.integer(1, 2))
    return dice.activate(net, net.conv(y, dice.width(), 2, pads=[0] * 2 * len(net.shape(x)[1:])))


# Heads: what comes after the last block.


def spatial(net: Net, dice: Dice, x: str) -> str:
    return net.conv(x, dice.width(), dice.pick((1, 3)))


def pooled_gemm(net: Net, dice: Dice, x: str) -> str:
    x = net.flatten(net.globalpool(x)) if dice.flag() else net.reducemean(x)
    return linear_layers(net, dice, x)


def flat_gemm(net: Net, dice: Dice, x: str) -> str:
    return linear_layers(net, dice, net.flatten(x))


def pooled_conv(net: Net, dice: Dice, x: str) -> str:
    return net.flatten(net.conv(net.globalpool(x), dice.width(), 1))


def linear_layers(net: Net, dice: Dice, x: str) -> str:
    if dice.flag():
        x = dice.activate(net, net.gemm(x, dice.width(), bias=dice.flag()))
    if dice.flag():
        return net.matmul(x, dice.width(), bias=dice.flag())
    alpha, beta = net.rng.uniform(0.5, 2, 2) if dice.integer(0, 3) == 3 else (1.0, 1.0)
    return net.gemm(x, dice.width(), trans_b=not dice.flag(), alpha=alpha, beta=beta, bias=dice.flag())


Block = Callable[[Net, Dice, str], str]
HEADS: dict[str, Block] = {f.__name__: f for f in (spatial, pooled_gemm, flat_gemm, pooled_conv)}
BLOCKS: dict[str, Block] = {
    f.__name__: f
    for f in (
        conv_bn_act,
        depthwise_separable,
        grouped,
        inverted_residual,
        projected_residual,
        two_branches,
        split_merge,
        channel_shuffle,
        shared_weights,
        transposed,
        dead_channels,
        near_dead_channels,
        squeeze_excite,
        pool,
        upsample,
        fork,
        preactivation,
        lone_batchnorm,
        channel_constants,
        padded,
    )
}


class Options(TypedDict, total=False):
    """What to choose from; the names are those of the tables above."""

    calibrated: bool  # let batch norms have the true mean and variance of a standard normal input
    blocks: Sequence[str]
    heads: Sequence[str]
    activations: Sequence[str]
    count: tuple[int, int]  # the least and the greatest number of blocks
    ranks: Sequence[int]  # numbers of spatial axes


def random_network(seed: int, **options: Unpack[Options]) -> onnx.ModelProto:
    """The network for a seed."""
    rng = np.random.default_rng(seed)
    return grow(lambda low, high: int(rng.integers(low, high, endpoint=True)), seed, options)


@st.composite
def networks(draw: st.DrawFn, **options: Unpack[Options]) -> onnx.ModelProto:
    """A strategy for networks that shrinks to few and plain blocks."""
    seed = draw(st.integers(0, 2**16))
    return grow(lambda low, high: draw(st.integers(low, high)), seed, options)


def grow(integer: Callable[[int, int], int], seed: int, options: Options) -> onnx.ModelProto:
    dice = Dice(integer, options.get("activations", tuple(ACTIVATIONS)))
    size = [dice.integer(8, 12) for _ in range(dice.pick(options.get("ranks", (2, 2, 2, 1))))]
    net = Net(seed, (3, *size), options.get("calibrated", False))
    x = net.input
    least, most = options.get("count", (2, 6))
    for i in range(most):
        if i >= least and dice.integer(0, 4) == 0:  # rather than draw the count: so blocks can be dropped
            break
        x = BLOCKS[dice.pick(options.get("blocks", tuple(BLOCKS)))](net, dice, x)
    return net.build(HEADS[dice.pick(options.get("heads", tuple(HEADS)))](net, dice, x))
