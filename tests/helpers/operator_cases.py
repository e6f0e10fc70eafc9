"""Operators as they stand in networks: for each one a few lines of ONNX, in every spelling that the standard has.

A case computes `y` from the activation `a`, or from `a` and `b`. It makes three networks:

    alone   a, b → y
    rear    a, b → y → layer → out
    whole   x → layers → a, b → y → layer → out

The layers in front turn standard normal x into independent channels of known mean and spread; the one behind
weighs its channels differently, each by itself. Where `y` has no channels that a layer could read, it is the output.
"""

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from handwritten import Array, execute, network, normal

Floats = NDArray[np.float64]
Part = tuple[str, dict[str, Any]]  # lines, and the constants that they read
IR = {20: 9, 21: 10, 22: 10, 23: 11, 24: 11}
MEANS, STDS = np.array([-0.5, 0.4, 1.2, 0.1, -0.8, 0.7]), np.array([1.5, 0.7, 1.0, 0.5, 1.2])


@dataclass(frozen=True, eq=False)
class Case:
    """One spelling of one operator.

    Attributes:
        body: what makes y, in ONNX's text form. consts: its constants by name.
        shape: (C, *spatial) of a, and of b.
        positive: whether the operator wants positive values.
        spread: by which factor the predicted spread may differ: layers take their inputs as slightly correlated.
        loose: by which factor the predicted range may be wider than what 100 samples show.
        sqnr: dB that 8 bits leave at least.
    """

    op: str
    spelling: str
    body: str
    consts: dict[str, Any] = field(default_factory=dict)
    shape: tuple[int, ...] = (4, 6, 6)
    opset: int = 17
    dtype: str = "float"
    positive: bool = False
    spread: float = 1.12
    loose: float = 1.3
    sqnr: float = 15.0

    @property
    def id(self) -> str:
        return f"{self.op}-{self.spelling.replace(' ', '_') or 'plain'}"

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        return tuple(name for name in "ab" if re.search(rf"\b{name}\b", self.body))

    @cached_property
    def known(self) -> dict[str, tuple[Floats, Floats]]:
        """Mean and standard deviation of every channel of a and b: fields (1, C, …)."""
        n, rank = self.shape[0], len(self.shape) + 1
        found = {}
        for k, name in enumerate(self.inputs):
            mean, std = np.resize(np.roll(MEANS, k), n), np.resize(np.roll(STDS, 2 * k), n)
            mean, std = (4 + mean / 2, std * 0.4) if self.positive else (mean, std)
            found[name] = mean.reshape(1, -1, *[1] * (rank - 2)), std.reshape(1, -1, *[1] * (rank - 2))
        return found

    @cached_property
    def alone(self) -> ModelProto:
        return self._network(self.inputs, "y", (self.body, self.consts))

    @cached_property
    def rear(self) -> ModelProto:
        return self._network(self.inputs, self.output, (self.body, self.consts), self._behind)

    @cached_property
    def whole(self) -> ModelProto:
        return self._network(("x",), self.output, self._front, (self.body, self.consts), self._behind)

    @property
    def output(self) -> str:
        return "out" if self._behind[0] else "y"

    @cached_property
    def _front(self) -> Part:
        """Layers with orthogonal rows, so that the channels of a and b are independent of each other."""
        n, rest = self.shape[0], [1] * (len(self.shape) - 1)
        turn = np.linalg.qr(np.random.default_rng(5).standard_normal((2 * n, 2 * n)))[0]
        lines, consts = "", dict[str, Any]()
        for k, (name, (mean, std)) in enumerate(self.known.items()):
            lines += f"{name} = {self._layer(len(self.shape) + 1)} (x, w{name}, m{name}) \n"
            consts[f"w{name}"] = (turn[k * n : k * n + n] * std.reshape(-1, 1)).reshape(n, 2 * n, *rest)
            consts[f"m{name}"] = mean.reshape(-1)
        return lines, consts

    @cached_property
    def _behind(self) -> Part:
        (y,) = execute(self.alone, *self.draws(1).values())
        if y.ndim not in (2, 3, 4, 5) or y.dtype != np.float32:
            return "", {}
        weight = np.diag(3.0 ** np.linspace(-1.5, 1.5, y.shape[1]))
        return f"out = {self._layer(y.ndim)} (y, wo)", {"wo": weight.reshape(*weight.shape, *[1] * (y.ndim - 2))}

    @staticmethod
    def _layer(rank: int) -> str:
        return "Gemm <transB = 1>" if rank == 2 else "Conv"

    def _network(self, inputs: tuple[str, ...], output: str, *parts: Part) -> ModelProto:
        sizes = {"x": 2 * self.shape[0]}
        shapes = {n: ["N", sizes.get(n, self.shape[0]), *self.shape[1:]] for n in inputs}
        return network(
            "\n".join(lines for lines, _ in parts),
            inputs=", ".join(f"float[{','.join(map(str, s))}] {n}" for n, s in shapes.items()),
            output=f"{self.dtype if output == 'y' else 'float'}[] {output}",
            opset=self.opset,
            ir=IR.get(self.opset, 8),
            **{name: value for _, consts in parts for name, value in consts.items()},
        )

    def draws(self, n: int, seed: int = 0) -> dict[str, Array]:
        """Independent normal values of a and b."""
        return self._drawn(np.random.default_rng(seed), (n, *self.shape))

    def flat_draws(self, n: int, seed: int = 0) -> dict[str, Array]:
        """Normal values of a and b, those of all positions of a channel equal."""
        return self._drawn(np.random.default_rng(seed), (n, self.shape[0], *[1] * (len(self.shape) - 1)))

    def _drawn(self, rng: np.random.Generator, shape: tuple[int, ...]) -> dict[str, Array]:
        found = {}
        for name, (mean, std) in self.known.items():
            z = np.broadcast_to(rng.standard_normal(shape), (shape[0], *self.shape))
            found[name] = np.ascontiguousarray(mean + std * z, dtype=np.float32)
        return found


def case(op: str, spelling: str, body: str, **more: Any) -> Case:
    """A case; what is no attribute of it is a constant of the network."""
    own = {k: more.pop(k) for k in ("shape", "opset", "dtype", "positive", "spread", "loose", "sqnr") if k in more}
    return Case(op, spelling, body, more, **own)


def column(*values: float) -> Floats:
    """One number for each channel of (N, C, H, W)."""
    return np.array(values).reshape(-1, 1, 1)


LINE, ROW, EIGHT = (4, 8), (4,), (8, 6, 6)
W, V = normal(6, 4, 3, 3), normal(6)
FACTORS, OFFSETS = column(0.5, -2.0, 1.5, 0.8), column(1.0, -0.3, 0.2, 0.6)
FULL = normal(1, 4, 6, 6, seed=3, scale=1)
LAYER: dict[str, Any] = {"spread": 1.6, "loose": 3.5}
ONE = np.float32(1)
NEAREST = 'mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"'
POOL = "m = MaxPool <kernel_shape = [2, 2]> (a)"  # so that what follows is not folded into the layer in front
BIG = 1 << 62

CASES = (
    # Layers
    case("Conv", "padded", "y = Conv <pads = [1, 1, 1, 1]> (a, w, v)", w=W, v=V, **LAYER),
    case("Conv", "automatic", 'y = Conv <auto_pad = "SAME_UPPER", strides = [2, 2]> (a, w)', w=W, **LAYER),
    case("Conv", "grouped", "y = Conv <group = 2, dilations = [2, 1]> (a, w, v)", w=normal(6, 2, 3, 2), v=V, **LAYER),
    case("Conv", "depthwise", "y = Conv <group = 4> (a, w)", w=normal(8, 1, 3, 3), **LAYER),
    case("Conv", "1-D", "y = Conv <pads = [1, 1]> (a, w, v)", w=normal(6, 4, 3), v=V, shape=LINE, **LAYER),
    case("Conv", "3-D", "y = Conv (a, w, v)", w=normal(6, 4, 2, 2, 2), v=V, shape=(4, 3, 4, 4), **LAYER),
    case("ConvTranspose", "depthwise", "y = ConvTranspose <group = 4> (a, w)", w=normal(4, 1, 2, 2), **LAYER),
    case("ConvTranspose", "strided", "y = ConvTranspose <strides = [2, 2]> (a, w)", w=normal(4, 6, 2, 2), **LAYER),
    case(
        "ConvTranspose", "grouped",
        "y = ConvTranspose <group = 2, strides = [2, 1], pads = [1, 0, 0, 1], output_padding = [1, 0]> (a, w)",
        w=normal(4, 3, 3, 2), spread=2.0, loose=3.5,  # its mean differs from position to position
    ),
    case("Gemm", "", "y = Gemm (a, w, v)", w=normal(4, 6), v=V, shape=ROW, **LAYER),
    case("Gemm", "transB", "y = Gemm <transB = 1> (a, w)", w=normal(6, 4), shape=ROW, **LAYER),
    case(
        "Gemm", "factors", "y = Gemm <transB = 1, alpha = 0.5, beta = 2.0> (a, w, v)",
        w=normal(6, 4), v=normal(1, 6), shape=ROW, **LAYER,
    ),
    case("Gemm", "transA", "t = Transpose (a) y = Gemm <transA = 1> (t, w)", w=normal(4, 6), shape=ROW, **LAYER),
    case("MatMul", "rank 2", "y = MatMul (a, w)", w=normal(4, 6), shape=ROW, **LAYER),
    case("MatMul", "biased", "p = MatMul (a, w) y = Add (p, v)", w=normal(6, 6, seed=4), v=V, **LAYER),
    case("MatMul", "right", "y = MatMul (a, w)", w=normal(8, 6), shape=LINE, **LAYER),
    case("MatMul", "left", "y = MatMul (w, a)", w=normal(6, 4), shape=LINE, **LAYER),
    case("MatMul", "activations", "y = MatMul (a, b)", **LAYER),
    # Normalizations
    case(
        "BatchNormalization", "", "y = BatchNormalization (a, c, d, m, s)", c=[0.5, -1.5, 2.0, 1.0],
        d=[0.1, -0.2, 0.3, 1.0], m=MEANS[:4], s=np.square(STDS[:4]), loose=2.5,
    ),
    case(
        "BatchNormalization", "behind ReLU", "r = Relu (a) y = BatchNormalization (r, c, d, m, s)",
        c=[0.5, -1.5, 2.0, 1.0], d=[0.1, -0.2, 0.3, 1.0], m=[0.38, 0.52, 1.28, 0.25], s=[0.56, 0.25, 0.77, 0.1],
        loose=3.5, spread=1.3,
    ),
    case("LayerNormalization", "last", "y = LayerNormalization <axis = -1> (a, c, d)", c=V[:6], d=V[:6]),
    case("LayerNormalization", "all", "y = LayerNormalization <axis = 1> (a, c)", c=FULL[0]),
    case("InstanceNormalization", "", "y = InstanceNormalization (a, c, d)", c=V[:4], d=V[1:5], loose=3.0),
    case(
        "GroupNormalization", "", "y = GroupNormalization <num_groups = 2> (a, c, d)",
        c=V[:4], d=V[1:5], opset=21, loose=3.0,
    ),
    case("RMSNormalization", "", "y = RMSNormalization (a, c)", c=V[:6], opset=23, loose=1.5),
    case("LpNormalization", "", "y = LpNormalization <axis = 1, p = 2> (a)", shape=(24, 3, 3), loose=3.0),
    case("MeanVarianceNormalization", "", "y = MeanVarianceNormalization (a)"),
    case("Softmax", "channels", "y = Softmax <axis = 1> (a)", loose=2.0),
    case("Softmax", "last", "y = Softmax (a)", loose=2.0),
    # Activations
    case("Relu", "", "y = Relu (a)"),
    case("Relu", "pooled", f"{POOL} y = Relu (m)", loose=3.0),
    case("Clip", "inputs", "y = Clip (a, c, d)", c=np.float32(-0.5), d=np.float32(1)),
    case("Clip", "attributes", "y = Clip <min = 0.0, max = 1.0> (a)", opset=10),
    case("Clip", "constants", "c = Constant <value_float = -0.4> () y = Clip (a, c)"),
    case("Clip", "channel", "t = Max (a, c) y = Min (t, d)", c=OFFSETS - 1.5, d=OFFSETS + 0.5),
    case("Clip", "above", "y = Clip (a, , d)", d=np.float32(0.6)),
    case("Clip", "below", "y = Clip (a, c)", c=np.float32(0)),
    case("LeakyRelu", "", "y = LeakyRelu <alpha = 0.8> (a)"),
    case("LeakyRelu", "default", "y = LeakyRelu (a)"),
    case("PRelu", "channel", "y = PRelu (a, c)", c=column(1.5, -2.0, 0.1, 0.25)),
    case("PRelu", "shared", "y = PRelu (a, c)", c=[0.7]),
    case("Sigmoid", "", "y = Sigmoid (a)"),
    case("Tanh", "", "y = Tanh (a)"),
    case("HardSigmoid", "", "y = HardSigmoid <alpha = 0.4, beta = 0.3> (a)"),
    case("HardSigmoid", "default", "y = HardSigmoid (a)"),
    case("HardSwish", "", "y = HardSwish (a)"),
    case("HardSwish", "by HardSigmoid", "s = HardSigmoid <alpha = 0.16666667> (a) y = Mul (a, s)"),
    case(
        "HardSwish", "by ReLU6", "s = Add (a, c) t = Clip (s, d, e) u = Mul (a, t) y = Div (u, e)",
        c=np.float32(3), d=np.float32(0), e=np.float32(6),
    ),
    case("Swish", "", "y = Swish (a)", opset=24),
    case("Swish", "steep", "y = Swish <alpha = 1.7> (a)", opset=24),
    case("Swish", "by Sigmoid", "s = Sigmoid (a) y = Mul (a, s)"),
    case("Swish", "by Sigmoid first", "s = Sigmoid (a) y = Mul (s, a)"),
    case("Elu", "", "y = Elu <alpha = 0.7> (a)"),
    case("Softplus", "", "y = Softplus (a)"),
    case("Gelu", "", "y = Gelu (a)", opset=20),
    case("Gelu", "tanh", 'y = Gelu <approximate = "tanh"> (a)', opset=20),
    case(
        "Gelu", "by Erf", "s = Div (a, c) t = Erf (s) u = Add (t, d) p = Mul (a, u) y = Mul (p, e)",
        c=np.sqrt(2), d=ONE, e=ONE / 2,
    ),
    case("Mish", "", "y = Mish (a)", opset=22),
    case("Mish", "by Softplus", "s = Softplus (a) t = Tanh (s) y = Mul (a, t)"),
    case("Exp", "", "h = Mul (a, c) y = Exp (h)", c=np.float32(0.3), loose=3.0),
    case("Log", "", "y = Log (a)", positive=True),
    case("Sqrt", "", "y = Sqrt (a)", positive=True),
    case("Reciprocal", "", "y = Reciprocal (a)", positive=True),
    case("Erf", "", "y = Erf (a)"),
    case("Abs", "", "y = Abs (a)"),
    case("Neg", "", "y = Neg (a)"),
    case("Floor", "", "y = Floor (a)", sqnr=12.0),
    case("Ceil", "", "y = Ceil (a)", sqnr=12.0),
    case("Pow", "square", "y = Pow (a, c)", c=np.float32(2)),
    case("Pow", "cube", "y = Pow (a, c)", c=np.float32(3), sqnr=12.0),
    case("Pow", "root", "y = Pow (a, c)", c=np.float32(0.5), positive=True),
    # Arithmetic
    case("Add", "activations", "y = Add (a, b)"),
    case("Add", "rectified", "s = Add (a, b) y = Relu (s)"),
    case("Add", "channel", "y = Add (a, c)", c=OFFSETS),
    case("Add", "pooled", f"{POOL} y = Add (m, c)", c=OFFSETS, loose=3.0),
    case("Add", "first", "y = Add (c, a)", c=OFFSETS.reshape(1, 4, 1, 1)),
    case("Add", "full", "y = Add (a, c)", c=FULL),
    case("Add", "scalar", "y = Add (a, c)", c=ONE),
    case("Add", "gate", "g = GlobalAveragePool (b) y = Add (a, g)", spread=1.4, loose=2.5),
    case("Add", "itself", "y = Add (a, a)"),
    case("Sub", "activations", "y = Sub (a, b)"),
    case("Sub", "constant", "y = Sub (a, c)", c=OFFSETS),
    case("Sub", "from constant", "y = Sub (c, a)", c=OFFSETS),
    case("Mul", "activations", "y = Mul (a, b)"),
    case("Mul", "channel", "y = Mul (a, c)", c=FACTORS),
    case("Mul", "pooled", f"{POOL} y = Mul (m, c)", c=FACTORS, loose=3.0),
    case("Mul", "full", "y = Mul (c, a)", c=FULL),
    case("Mul", "scalar", "y = Mul (a, c)", c=np.float32(-0.7)),
    case("Mul", "gate", "s = Sigmoid (b) g = GlobalAveragePool (s) y = Mul (a, g)", loose=3.0),
    case("Mul", "itself", "y = Mul (a, a)"),
    case("Div", "constant", "y = Div (a, c)", c=FACTORS),
    case("Div", "scalar", "y = Div (a, c)", c=np.float32(-3)),
    case("Div", "of constant", "y = Div (c, a)", c=FACTORS, positive=True),
    case("Div", "activations", "y = Div (a, b)", positive=True),
    case("Sum", "three", "t = Relu (b) y = Sum (a, b, t)", spread=1.4),
    case("Sum", "constant", "y = Sum (a, b, c)", c=OFFSETS),
    case("Sum", "single", "y = Sum (a)"),
    case("Max", "constant", "y = Max (a, c)", c=OFFSETS),
    case("Max", "constant first", "y = Max (c, a)", c=np.float32(0)),
    case("Max", "activations", "y = Max (a, b)"),
    case("Max", "three", "y = Max (a, b, c)", c=OFFSETS),
    case("Min", "constant", "y = Min (a, c)", c=OFFSETS),
    case("Min", "activations", "y = Min (a, b)"),
    case("Where", "mask", "y = Where (c, a, b)", c=FULL > 0),
    case("Equal", "mask", "q = Equal (a, c) y = Where (q, b, a)", c=OFFSETS),
    # Pools and reductions
    case("MaxPool", "", "y = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (a)", loose=3.0),
    case("MaxPool", "padded", "y = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (a)", loose=4.0),
    case("MaxPool", "dilated", "y = MaxPool <kernel_shape = [2, 2], dilations = [2, 2]> (a)", loose=3.0),
    case("MaxPool", "ceil", "y = MaxPool <kernel_shape = [3, 3], strides = [2, 2], ceil_mode = 1> (a)", loose=4.0),
    case("AveragePool", "", "y = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (a)", loose=4.0),
    case(
        "AveragePool", "padded", "y = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (a)", loose=4.0,
    ),
    case(
        "AveragePool", "counted",
        "y = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = 1> (a)", loose=4.0,
    ),
    case(
        "AveragePool", "ceil", "y = AveragePool <kernel_shape = [3, 3], strides = [2, 2], ceil_mode = 1> (a)",
        loose=4.0,
    ),
    case("AveragePool", "1-D", "y = AveragePool <kernel_shape = [2]> (a)", shape=LINE, loose=4.0),
    case("GlobalAveragePool", "", "y = GlobalAveragePool (a)", loose=12.0),
    case("GlobalMaxPool", "", "y = GlobalMaxPool (a)", loose=12.0),
    case("ReduceMean", "attribute", "y = ReduceMean <axes = [2, 3]> (a)", loose=12.0),
    case("ReduceMean", "input", "y = ReduceMean (a, e)", e=[-1, -2], opset=18, loose=12.0),
    case("ReduceMean", "dropped", "y = ReduceMean <axes = [2, 3], keepdims = 0> (a)", loose=12.0),
    case("ReduceMean", "channels", "y = ReduceMean <axes = [1]> (a)", loose=12.0),
    case("ReduceMax", "attribute", "y = ReduceMax <axes = [2, 3]> (a)", loose=12.0),
    case("ReduceMax", "dropped", "y = ReduceMax <keepdims = 0> (a, e)", e=[2, 3], opset=18, loose=12.0),
    case("ReduceMin", "attribute", "y = ReduceMin <axes = [2, 3]> (a)", loose=12.0),
    case("ReduceMin", "input", "y = ReduceMin (a, e)", e=[3], opset=18, loose=12.0),
    case("ReduceSum", "input", "y = ReduceSum (a, e)", e=[2, 3], loose=12.0),
    case("ReduceSum", "attribute", "y = ReduceSum <axes = [3], keepdims = 0> (a)", opset=11, loose=12.0),
    case("ArgMax", "", "y = ArgMax <axis = 1> (a)", sqnr=12.0, dtype="int64"),
    # Moves
    case("Identity", "", "y = Identity (a)", **LAYER),
    case("Dropout", "", "y = Dropout (a)", **LAYER),
    case("Dropout", "attribute", "y = Dropout <ratio = 0.3> (a)", opset=10, **LAYER),
    case("Flatten", "", "y = Flatten (a)"),
    case("Reshape", "flat", "y = Reshape (a, s)", s=[0, -1]),
    case("Reshape", "tokens", "y = Reshape (a, s)", s=[0, 4, 36]),
    case(
        "Reshape", "shuffle",
        "r = Reshape (a, s) t = Transpose <perm = [0, 2, 1, 3, 4]> (r) y = Reshape (t, u)",
        s=[0, 2, 2, 6, 6], u=[0, 4, 6, 6],
    ),
    case("Transpose", "spatial", "y = Transpose <perm = [0, 1, 3, 2]> (a)"),
    case(
        "Transpose", "there and back",
        "t = Transpose <perm = [0, 2, 3, 1]> (a) r = Relu (t) y = Transpose <perm = [0, 3, 1, 2]> (r)",
    ),
    case("Squeeze", "input", "g = GlobalMaxPool (a) y = Squeeze (g, e)", e=[2, 3], loose=12.0),
    case("Squeeze", "attribute", "g = GlobalMaxPool (a) y = Squeeze <axes = [3]> (g)", opset=11, loose=12.0),
    case("Squeeze", "all", "g = ReduceMax <axes = [2]> (a) y = Squeeze (g, e)", e=[-2], loose=12.0),
    case("Unsqueeze", "input", "y = Unsqueeze (a, e)", e=[2], shape=LINE),
    case("Unsqueeze", "attribute", "y = Unsqueeze <axes = [2, 3]> (a)", shape=ROW, opset=11),
    case("Slice", "channels", "y = Slice (a, s, t, e)", s=[1], t=[3], e=[1]),
    case("Slice", "backwards", "y = Slice (a, s, t, e, d)", s=[-1], t=[-BIG], e=[1], d=[-1]),
    case("Slice", "every other", "y = Slice (a, s, t, e, d)", s=[3, 0], t=[-5, BIG], e=[1, 3], d=[-2, 2]),
    case("Slice", "attributes", "y = Slice <axes = [1, 2], starts = [0, 1], ends = [2, -1]> (a)", opset=9),
    case("Split", "input", "s, t = Split <axis = 1> (a, e) y = Concat <axis = 1> (t, b, s)", e=[1, 3]),
    case("Split", "attribute", "s, y = Split <axis = 1, split = [1, 3]> (a)", opset=11),
    case("Split", "three", "s, t, u = Split <axis = 1> (a, e) y = Concat <axis = 1> (u, t)", e=[1, 1, 2]),
    case("Split", "equal", "s, t = Split <axis = 1> (a) y = Add (s, t)"),
    case("Split", "number", "y, t = Split <axis = -3, num_outputs = 2> (a)", opset=18),
    case("Concat", "channels", "y = Concat <axis = 1> (a, b)"),
    case("Concat", "negative axis", "y = Concat <axis = -3> (b, a)"),
    case("Concat", "rows", "y = Concat <axis = 2> (a, b)"),
    case("Pad", "zeros", "r = Relu (a) y = Pad (r, p)", p=[0, 0, 1, 0, 0, 0, 0, 2], **LAYER),
    case("Pad", "value", "y = Pad (a, p, c)", p=[0, 0, 1, 1, 0, 0, 1, 1], c=np.float32(0.25), spread=1.5),
    case("Pad", "channels", "y = Pad (a, p)", p=[0, 1, 0, 0, 0, 2, 0, 0]),
    case("Pad", "reflect", 'y = Pad <mode = "reflect"> (a, p)', p=[0, 0, 1, 2, 0, 0, 0, 2]),
    case("Pad", "edge", 'y = Pad <mode = "edge"> (a, p)', p=[0, 0, 1, 2, 0, 0, 0, 2]),
    case("Pad", "attributes", 'y = Pad <pads = [0, 0, 1, 0, 0, 0, 0, 2], value = 0.0> (a)', opset=10, **LAYER),
    case("Expand", "", "g = GlobalMaxPool (a) y = Expand (g, s)", s=[1, 4, 3, 3], loose=12.0),
    case("Gather", "channels", "y = Gather <axis = 1> (a, i)", i=[2, 0, 3]),
    case("Gather", "negative", "y = Gather <axis = -3> (a, i)", i=[-1, 0, 2, 1]),
    case("Gather", "scalar", "y = Gather <axis = 2> (a, i)", i=np.int64(3)),
    case("DepthToSpace", "DCR", "y = DepthToSpace <blocksize = 2> (a)", shape=EIGHT),
    case("DepthToSpace", "CRD", 'y = DepthToSpace <blocksize = 2, mode = "CRD"> (a)', shape=EIGHT),
    case("SpaceToDepth", "", "y = SpaceToDepth <blocksize = 2> (a)"),
    case("Resize", "scales", f"y = Resize <{NEAREST}> (a, , s)", s=[1.0, 1.0, 2.0, 2.0]),
    case("Resize", "sizes", f"y = Resize <{NEAREST}, axes = [2, 3]> (a, , , s)", s=[12, 9], opset=18),
    case("Resize", "opset 10", 'y = Resize <mode = "nearest"> (a, s)', s=[1.0, 1.0, 2.0, 2.0], opset=10),
    case("Resize", "Upsample", 'y = Upsample <mode = "nearest"> (a, s)', s=[1.0, 1.0, 2.0, 2.0], opset=9, **LAYER),
    case("Resize", "linear", 'y = Resize <mode = "linear"> (a, , s)', s=[1.0, 1.0, 2.0, 2.0], loose=3.0),
    case(
        "Resize", "aligned",
        'y = Resize <mode = "linear", coordinate_transformation_mode = "align_corners"> (a, , s)',
        s=[1.0, 1.0, 2.0, 2.0], loose=3.0,
    ),
    # What handles shapes and types
    case("Shape", "", "s = Shape (b) y = Reshape (a, s)"),
    case("Size", "", "k = Size (w) f = Cast <to = 1> (k) y = Mul (a, f)", w=V),
    case("Cast", "double", "h = Cast <to = 11> (a) y = Cast <to = 1> (h)"),
    case("Cast", "half", "h = Cast <to = 10> (a) y = Cast <to = 1> (h)"),
    case("ConstantOfShape", "", "s = Shape (b) z = ConstantOfShape (s) y = Add (a, z)"),
)  # fmt: skip
