"""Integer programs for the tests: a literal executor, and small random programs written by hand.

`literal` computes what `equint.integers.program` specifies, in loops and with Python's integers; `algorithm_2` is one
convolution exactly as Oh et al. (2020) print it, one number at a time.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import hypothesis.strategies as st
import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

import literal_sums
from equint.integers.program import Program, Requantize, Step
from equint.integers.steps import MOVES
from equint.ir.model import QParams
from equint.maths.affine import storage
from handwritten import execute

Array = NDArray[Any]


# The literal executor


def literal(program: Program, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """All integers of every tensor: activations in their storage type, shapes as int64.

    `feeds` holds the integers of the program's inputs.
    """
    values: dict[str, Array] = {name: np.asarray(feeds[name]) for name in program.inputs}
    for step in program.steps:
        inputs = [program.consts[i] if i in program.consts else values[i] if i else np.zeros(0) for i in step.inputs]
        for name, result in zip(step.outputs, run_step(program, step, inputs), strict=True):
            values[name] = stored(program, name, result)
    return values


def stored(program: Program, name: str, result: Array) -> Array:
    """Integers in the type that holds them; it is a bug of the program if they lie outside the grid."""
    grid = program.grids.get(name)
    if grid is None:
        return np.asarray(result, np.int64)
    integers = np.asarray(result).astype(np.int64)
    assert integers.size == 0 or (grid.qmin <= integers.min() and integers.max() <= grid.qmax), name
    return integers.astype(storage(grid))


def run_step(program: Program, step: Step, inputs: list[Array]) -> list[Array]:
    """The outputs of one step for the integers of its inputs."""
    if step.op in MOVES:
        return moved(program, step, inputs)
    integers = [np.asarray(i).astype(np.int64) for i in inputs]
    zeros = [int(program.grids[i].zero_point) if i in program.grids else 0 for i in step.inputs]
    centred = [q - z for q, z in zip(integers, zeros, strict=True)]
    if step.op == "Table":
        return [table_values(step, integers[0] - program.grids[step.inputs[0]].qmin)]
    if step.op == "Clip":
        low, high = (along(step, step.arrays[k], integers[0].ndim) for k in ("low", "high"))
        return [np.minimum(np.maximum(integers[0], low), high)]
    if step.op == "WindowMean":
        return [literal_sums.window_mean(step, integers[0])]
    if step.op == "Interpolate":
        return [interpolated(program, step, integers[0])]
    assert step.requantize is not None
    return [requantized(program, step, step.requantize, ACCUMULATORS[step.op](step, centred))]


def along(step: Step, values: Array, rank: int) -> Array:
    """`()` or `(C,)` values against a tensor of this rank, along the step's channel axis."""
    values = np.asarray(values)
    if values.ndim == 0 or values.size == 1:
        return values.reshape(())
    shape = [1] * rank
    shape[step.attrs["axis"]] = values.size
    return values.reshape(shape)


def rounded(product: int, right: int, rounding: str) -> int:
    """product / 2^right as an integer: to nearest with ties up, to even or away from zero, or the floor; or twice."""
    if rounding == "double":
        places = min(right, 31)
        return rounded(rounded(product, places, "half_up"), right - places, "half_away")
    if rounding == "half_away":
        return rounded(abs(product), right, "half_up") * (1 if product >= 0 else -1)
    floor, rest = divmod(product, 1 << right)
    if rounding == "truncate":
        return floor
    above = 2 * rest - (1 << right)
    return floor + (above > 0 or (above == 0 and (rounding == "half_up" or floor % 2 == 1)))


def requantized(program: Program, step: Step, how: Requantize, acc: Array) -> Array:
    """q = clamp(round(acc · mantissa / 2^right) + zero_point, low, high), number by number, in Python's integers.

    Where there are other factors for negative accumulators, those count for them.
    """
    below = (how.mantissa, how.exponent) if how.mantissa_below is None else (how.mantissa_below, how.exponent_below)
    fields = (how.mantissa, how.exponent, *below, how.shift, how.low, how.high)
    every = np.broadcast_arrays(acc, *(along(step, np.asarray(f), acc.ndim) for f in fields))
    out = []
    for a, m, e, m_below, e_below, s, low, high in zip(*(e.ravel().tolist() for e in every), strict=True):
        if a < 0:
            m, e = m_below, e_below
        right = program.mantissa_bits - e + s
        assert 1 <= right <= 62, step.name
        assert abs(a) < 1 << 31, step.name
        q = rounded(a * m, right, how.rounding or program.rounding) + how.zero_point
        out.append(min(max(q, low), high))
    return np.array(out, np.int64).reshape(acc.shape)


def centred_weight(step: Step, axis: int = 0) -> Array:
    weight, zero = step.arrays["weight"].astype(np.int64), step.arrays["weight_zero_point"].astype(np.int64)
    return weight - (zero.reshape([-1 if d == axis else 1 for d in range(weight.ndim)]) if zero.ndim else zero)


def bias_of(step: Step, rank: int) -> Array:
    return along(step, step.arrays["bias"].astype(np.int64), rank)


def taps(first: Sequence[int], size: Sequence[int], strides: Sequence[int]) -> tuple[slice, ...]:
    """Every `stride`-th position of each axis, `size` of them from `first` on."""
    return tuple(slice(f, f + (n - 1) * t + 1, t) for f, n, t in zip(first, size, strides, strict=True))


def at_tap(weight: Array, tap: tuple[int, ...]) -> Array:
    index: Any = (..., *tap)
    return np.asarray(weight[index])


def conv(step: Step, inputs: list[Array]) -> Array:
    """Tap by tap, all positions of a tap at once."""
    x, weight = inputs[0], centred_weight(step)
    n, kernel, groups = weight.ndim - 2, weight.shape[2:], step.attrs["group"]
    strides, dilations, pads = (step.attrs[k] for k in ("strides", "dilations", "pads"))
    x = np.pad(x, [(0, 0), (0, 0), *zip(pads[:n], pads[n:], strict=True)])
    size = [(x.shape[2 + d] - dilations[d] * (kernel[d] - 1) - 1) // strides[d] + 1 for d in range(n)]
    acc = np.zeros((len(x), len(weight), *size), np.int64)
    ins, outs = weight.shape[1], len(weight) // groups
    for tap in itertools.product(*map(range, kernel)):
        first = [t * d for t, d in zip(tap, dilations, strict=True)]
        window = taps(first, size, strides)
        part = x[(slice(None), slice(None), *window)]
        for g in range(groups):
            mine = slice(g * outs, (g + 1) * outs)
            taken = part[:, g * ins : (g + 1) * ins]
            acc[:, mine] += np.einsum("ni...,oi->no...", taken, at_tap(weight[mine], tap))
    return acc + bias_of(step, acc.ndim)


def conv_transpose(step: Step, inputs: list[Array]) -> Array:
    """Tap by tap: what each input position adds to the canvas, which is then cropped by the pads."""
    x, groups = inputs[0], step.attrs["group"]
    stored_weight, zero = step.arrays["weight"].astype(np.int64), step.arrays["weight_zero_point"].astype(np.int64)
    n, kernel = x.ndim - 2, stored_weight.shape[2:]
    ins, outs = stored_weight.shape[0] // groups, stored_weight.shape[1]
    zeros = np.broadcast_to(zero, (groups * outs,))
    strides, dilations, pads, extra = (step.attrs[k] for k in ("strides", "dilations", "pads", "output_padding"))
    full = [(x.shape[2 + d] - 1) * strides[d] + dilations[d] * (kernel[d] - 1) + 1 + extra[d] for d in range(n)]
    acc = np.zeros((len(x), groups * outs, *full), np.int64)
    for tap, g in itertools.product(itertools.product(*map(range, kernel)), range(groups)):
        first = [t * d for t, d in zip(tap, dilations, strict=True)]
        size = x.shape[2:]
        window = taps(first, size, strides)
        mine = slice(g * outs, (g + 1) * outs)
        weight = at_tap(stored_weight[g * ins : (g + 1) * ins], tap) - zeros[mine]
        acc[(slice(None), mine, *window)] += np.einsum("ni...,io->no...", x[:, g * ins : (g + 1) * ins], weight)
    crop = tuple(slice(pads[d], full[d] - pads[n + d]) for d in range(n))
    acc = acc[(slice(None), slice(None), *crop)]
    return acc + bias_of(step, acc.ndim)


def gemm(step: Step, inputs: list[Array]) -> Array:
    weight = centred_weight(step)
    acc = np.zeros((*inputs[0].shape[:-1], len(weight)), np.int64)
    for o, i in itertools.product(range(weight.shape[0]), range(weight.shape[1])):
        acc[..., o] += inputs[0][..., i] * weight[o, i]
    return acc + step.arrays["bias"].astype(np.int64)


def weighted_sum(step: Step, inputs: list[Array]) -> Array:
    rank = max(i.ndim for i in inputs)
    terms = [
        along(step, c.astype(np.int64), rank) * q for c, q in zip(step.arrays["coefficients"], inputs, strict=True)
    ]
    return np.asarray(sum(terms) + bias_of(step, rank))


def product(step: Step, inputs: list[Array]) -> Array:
    return np.asarray(inputs[0] * inputs[1])


def average_pool(step: Step, inputs: list[Array]) -> Array:
    kernel, strides, pads = (step.attrs[k] for k in ("kernel_shape", "strides", "pads"))
    n = len(kernel)
    x = np.pad(inputs[0], [(0, 0), (0, 0), *zip(pads[:n], pads[n:], strict=True)])
    size = [(x.shape[2 + d] - kernel[d]) // strides[d] + 1 for d in range(n)]
    acc = np.zeros((*x.shape[:2], *size), np.int64)
    for at in itertools.product(*map(range, size)):
        window = tuple(slice(p * s, p * s + k) for p, s, k in zip(at, strides, kernel, strict=True))
        at_all: tuple[Any, ...] = (..., *at)
        acc[at_all] = x[(slice(None), slice(None), *window)].sum(tuple(range(2, x.ndim)))
    return acc * step.arrays["reciprocals"].astype(np.int64) if "reciprocals" in step.arrays else acc


def global_average_pool(step: Step, inputs: list[Array]) -> Array:
    return np.asarray(inputs[0].sum(tuple(range(2, inputs[0].ndim)), keepdims=True))


ACCUMULATORS: dict[str, Callable[[Step, list[Array]], Array]] = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "Gemm": gemm,
    "Sum": weighted_sum,
    "ScaledSum": literal_sums.scaled_sum,
    "Mul": product,
    "AveragePool": average_pool,
    "GlobalAveragePool": global_average_pool,
    "MatMul": literal_sums.matmul,
    "ReduceSum": literal_sums.reduce_sum,
    "Div": literal_sums.quotient,
    "Softmax": literal_sums.softmax,
    "Normalize": literal_sums.normalize,
}


def table_values(step: Step, index: Array) -> Array:
    table = step.arrays["table"].astype(np.int64)
    if table.ndim == 1:
        return np.asarray(table[index])
    return np.asarray(table[along(step, np.arange(len(table)), index.ndim), index])


def interpolated(program: Program, step: Step, q: Array) -> Array:
    """Exact sums of products with both matrices, then one rounding, the target's."""
    rows, columns = (step.arrays[k].astype(np.int64) for k in ("rows", "columns"))
    exact = np.einsum("ah,nchw,bw->ncab", rows, q, columns)
    right = 2 * step.attrs["bits"]
    way = "half_away" if program.rounding == "double" else program.rounding
    return np.array([rounded(v, right, way) for v in exact.ravel().tolist()]).reshape(exact.shape)


def moved(program: Program, step: Step, inputs: list[Array]) -> list[Array]:
    """The ONNX operator of the name in onnxruntime, on integers held as floats, which all operators take."""
    names = list(step.inputs)
    if step.op == "Where":
        return [np.where(np.asarray(inputs[0]).astype(np.int64) == step.attrs["value"], inputs[1], inputs[2])]
    attrs = {k: v for k, v in step.attrs.items() if k not in ("axis",) or step.op in ("Concat", "Flatten", *AXIS)}
    consts = {n: np.asarray(i) for n, i in zip(names, inputs, strict=True) if n in program.consts}
    if step.op == "Pad":
        consts |= {"pads": np.asarray(step.arrays["pads"], np.int64), "value": np.array(attrs.pop("value"), np.float32)}
        names += ["pads", "value"]
    fed: dict[str, Array] = {
        n: np.asarray(i).astype(np.float32 if n in program.grids else np.int64)
        for n, i in zip(names, inputs, strict=False)
        if n and n not in program.consts
    }
    types = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.int64): TensorProto.INT64}
    node = helper.make_node(step.op, names, step.outputs, **attrs)
    outputs = [
        helper.make_tensor_value_info(o, TensorProto.FLOAT if o in program.grids else TensorProto.INT64, None)
        for o in step.outputs
    ]
    graph = helper.make_graph(
        [node],
        "move",
        [helper.make_tensor_value_info(n, types[a.dtype], a.shape) for n, a in fed.items()],
        outputs,
        [helper.make_tensor(n, types[np.asarray(a).dtype], np.shape(a), np.ravel(a)) for n, a in consts.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return execute(model, *fed.values())


AXIS = ("Split", "Gather")


def algorithm_2(program: Program, step: Step, q_in: Array) -> Array:
    """Algorithm 2 of Oh et al. (2020) for a Conv step over two spatial axes, one number at a time.

    acc32 is a sum of products of 16-bit differences; the scale compound is M·2^s, M = mantissa/2^mantissa_bits;
    the paper's 2^s and 2^-S_z are one shift here, and what it drops is rounded as the target says.
    """
    how, attrs = step.requantize, step.attrs
    assert how is not None
    z_in, z_out = int(program.grids[step.inputs[0]].zero_point), how.zero_point
    q_w, q_b = step.arrays["weight"], step.arrays["bias"]
    c_out, c_in, h_w, w_w = q_w.shape
    below = (how.mantissa, how.exponent) if how.mantissa_below is None else (how.mantissa_below, how.exponent_below)
    z_w, mantissa, exponent, m_below, e_below, shift, low, high = (
        np.broadcast_to(np.asarray(a), (c_out,)).tolist()
        for a in (
            *(step.arrays["weight_zero_point"], how.mantissa, how.exponent, *below),
            *(how.shift, how.low, how.high),
        )
    )
    (stride_y, stride_x), (dilation_y, dilation_x) = attrs["strides"], attrs["dilations"]
    top, left, bottom, right = attrs["pads"]
    n, _, h_in, w_in = q_in.shape
    h_out = (h_in + top + bottom - dilation_y * (h_w - 1) - 1) // stride_y + 1
    w_out = (w_in + left + right - dilation_x * (w_w - 1) - 1) // stride_x + 1
    q_out = np.zeros((n, c_out, h_out, w_out), np.int64)
    for b, x, y, z in itertools.product(range(n), range(w_out), range(h_out), range(c_out)):
        acc = 0
        ix_, iy_ = x * stride_x - left, y * stride_y - top
        group = z // (c_out // attrs["group"])
        for i, j in itertools.product(range(w_w), range(h_w)):
            ix, iy = ix_ + i * dilation_x, iy_ + j * dilation_y
            if 0 <= ix < w_in and 0 <= iy < h_in:
                for k in range(c_in):
                    acc += (int(q_in[b, group * c_in + k, iy, ix]) - z_in) * (int(q_w[z, k, j, i]) - z_w[z])
        acc += int(q_b[z])
        m, e = (m_below[z], e_below[z]) if acc < 0 else (mantissa[z], exponent[z])  # as LeakyRelu and PRelu ask for
        out = rounded(acc * m, program.mantissa_bits - e + shift[z], program.rounding)
        q_out[b, z, y, x] = min(max(out + z_out, low[z]), high[z])
    return q_out


# Programs compared


def assert_same(found: Any, wanted: Any, at: str = "program") -> None:
    """Equal in every field, in dtypes and in the types of containers."""
    if isinstance(wanted, np.ndarray | np.generic):
        assert isinstance(found, np.ndarray), at
        assert found.dtype == wanted.dtype, at
        assert found.shape == wanted.shape, at
        assert found.tobytes() == wanted.tobytes(), at
    elif hasattr(wanted, "__dataclass_fields__"):
        assert type(found) is type(wanted), at
        for name in wanted.__dataclass_fields__:
            assert_same(getattr(found, name), getattr(wanted, name), f"{at}.{name}")
    elif isinstance(wanted, Mapping):
        assert list(found) == list(wanted), at
        for key in wanted:
            assert_same(found[key], wanted[key], f"{at}[{key!r}]")
    elif isinstance(wanted, tuple | list):
        assert type(found) is type(wanted), at
        assert len(found) == len(wanted), at
        for k, (f, w) in enumerate(zip(found, wanted, strict=True)):
            assert_same(f, w, f"{at}[{k}]")
    else:
        assert type(found) is type(wanted), at
        assert found == wanted or (found != found and wanted != wanted), at


# Random programs


@dataclass
class Maker:
    """A program in the making; structure is chosen by `integer(low, high)`, numbers by `rng`."""

    integer: Callable[[int, int], int]
    rng: np.random.Generator
    rounding: Any = "half_up"
    mantissa_bits: int = 32
    steps: list[Step] = field(default_factory=list)
    grids: dict[str, QParams] = field(default_factory=dict)
    shapes: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    consts: dict[str, Array] = field(default_factory=dict)

    def pick(self, *options: Any) -> Any:
        return options[self.integer(0, len(options) - 1)]

    def grid(self) -> QParams:
        """An 8-bit grid, now and then one of fewer bits."""
        bits, signed = (self.pick(8, 8, 8, 4), self.pick(False, True))
        empty = QParams(np.array(0, np.float32), np.array(0, np.int32), bits, signed)
        zero = int(self.rng.integers(empty.qmin, empty.qmax, endpoint=True))
        scale = np.array(self.rng.uniform(0.01, 0.1), np.float32)
        return replace(empty, scale=scale, zero_point=np.array(zero, np.int32))

    def tensor(self, stem: str, shape: tuple[Any, ...], grid: QParams | None) -> str:
        name = f"{stem}{len(self.shapes)}"
        self.shapes[name] = shape
        if grid is not None:
            self.grids[name] = grid
        return name

    def requantize(self, grid: QParams, spread: float, channels: int) -> Requantize:
        """A compound that spreads accumulators of this deviation over the grid, per layer or per channel."""
        each = (channels,) if channels and self.integer(0, 2) == 2 else ()
        shifts = self.rng.integers(0, self.pick(0, 3, 15), channels, endpoint=True) if channels else np.zeros((), int)
        near = round(math.log2(2**grid.bits / 4 / max(spread, 1)) + float(np.mean(shifts)) / 2)
        most = self.mantissa_bits - 1
        exponent = np.clip(near + self.rng.integers(-1, 1, each, endpoint=True), -15, min(most, 31))
        mantissa = self.rng.integers(1 << most, 1 << (most + 1), each)
        low, high = np.asarray(grid.qmin), np.asarray(grid.qmax)
        clamp = self.integer(0, 3)
        if clamp == 1:
            low = np.asarray(min(int(grid.zero_point), grid.qmax))
        elif clamp == 2 and channels:
            low = self.rng.integers(grid.qmin, int(grid.zero_point), channels, endpoint=True)
            high = self.rng.integers(int(grid.zero_point), grid.qmax, channels, endpoint=True)
        small = [np.asarray(a, np.int32) for a in (exponent, shifts, low, high)]
        made = Requantize(np.asarray(mantissa, np.int64), small[0], small[1], int(grid.zero_point), small[2], small[3])
        if self.integer(0, 3) < 3:
            return made
        each = (channels,) if channels and self.integer(0, 1) else ()
        slopes = self.rng.integers(-(1 << most) // 2, 1 << most, each) * self.rng.integers(0, 2, each, endpoint=True)
        return replace(made, mantissa_below=np.asarray(slopes, np.int64) // 2, exponent_below=small[0].max())

    def add(self, op: str, inputs: tuple[str, ...], shape: tuple[Any, ...], grid: QParams, **given: Any) -> str:
        out = self.tensor(op.lower(), shape, grid)
        self.steps.append(Step(op, f"{op}_{len(self.steps)}", inputs, (out,), **given))
        return out

    def channels(self, x: str) -> int:
        return int(self.shapes[x][1])

    def size(self, x: str) -> tuple[int, ...]:
        return tuple(int(s) for s in self.shapes[x][2:])

    def weight(self, shape: tuple[int, ...], outs: int) -> tuple[dict[str, Array], float]:
        """Weight, its zero point, bias; and the deviation of a weight."""
        signed = self.pick(False, True)
        dtype, half = (np.int8, 0) if signed else (np.uint8, 128)
        weight = np.clip(np.rint(self.rng.normal(half, 40, shape)), half - 128, half + 127).astype(dtype)
        each = self.integer(0, 2) == 2
        zero = (self.rng.integers(-20, 20, outs if each else ()) + half).astype(dtype)
        return {"weight": weight, "weight_zero_point": zero}, 45.0

    def spread(self, x: str) -> float:
        return 2.0 ** self.grids[x].bits / 3

    def conv(self, x: str) -> str:
        n, size = self.channels(x), self.size(x)
        groups = self.pick(1, n, *(g for g in (2, 3) if n % g == 0))
        outs = groups * self.integer(1, max(1, 4 // groups))
        kernel = [self.integer(1, min(3, s)) for s in size]
        dilations = [
            2 if 2 * (k - 1) + 1 <= s and self.integer(0, 2) == 2 else 1 for k, s in zip(kernel, size, strict=True)
        ]
        strides = [self.integer(1, 2) for _ in size]
        pads = [self.integer(0, 2) for _ in range(2 * len(size))]
        arrays, deviation = self.weight((outs, n // groups, *kernel), outs)
        spread = deviation * self.spread(x) * math.sqrt(n // groups * math.prod(kernel))
        arrays["bias"] = np.rint(self.rng.normal(0, spread, outs)).astype(np.int32)
        before, after = pads[: len(size)], pads[len(size) :]
        lengths = [
            (s + a + b - d * (k - 1) - 1) // t + 1
            for s, a, b, d, k, t in zip(size, before, after, dilations, kernel, strides, strict=True)
        ]
        attrs = {"strides": strides, "dilations": dilations, "pads": pads, "group": groups, "axis": 1}
        grid = self.grid()
        how = self.requantize(grid, spread, outs)
        return self.add("Conv", (x,), ("N", outs, *lengths), grid, attrs=attrs, arrays=arrays, requantize=how)

    def conv_transpose(self, x: str) -> str:
        n, size = self.channels(x), self.size(x)
        groups = self.pick(1, n, *(g for g in (2, 3) if n % g == 0))
        outs, strides = self.integer(1, 2), [self.integer(1, 2) for _ in size]
        kernel = [self.integer(s, 3) for s in strides]
        dilations = [self.pick(1, 1, 2) for _ in size]
        extra = [self.integer(0, s - 1) for s in strides]
        pads = [
            self.integer(0, 1) if t * (s - 1) + k > 2 else 0 for t, s, k in zip(strides, size, kernel, strict=True)
        ] * 2
        arrays, deviation = self.weight((n, outs, *kernel), groups * outs)
        spread = deviation * self.spread(x) * math.sqrt(n // groups * math.prod(kernel))
        arrays["bias"] = np.rint(self.rng.normal(0, spread, groups * outs)).astype(np.int32)
        lengths = [
            (s - 1) * t + d * (k - 1) + 1 + e - 2 * p
            for s, t, d, k, e, p in zip(size, strides, dilations, kernel, extra, pads, strict=False)
        ]
        attrs = {"strides": strides, "dilations": dilations, "pads": pads, "group": groups, "output_padding": extra}
        grid = self.grid()
        how = self.requantize(grid, spread, groups * outs)
        shape = ("N", groups * outs, *lengths)
        return self.add("ConvTranspose", (x,), shape, grid, attrs={**attrs, "axis": 1}, arrays=arrays, requantize=how)

    def gemm(self, x: str) -> str:
        if len(self.shapes[x]) != 2:
            flat = self.tensor("flat", ("N", self.channels(x) * math.prod(self.size(x))), self.grids[x])
            self.steps.append(Step("Flatten", f"Flatten_{len(self.steps)}", (x,), (flat,), {"axis": 1}))
            x = flat
        ins, outs = self.channels(x), self.integer(1, 5)
        arrays, deviation = self.weight((outs, ins), outs)
        spread = deviation * self.spread(x) * math.sqrt(ins)
        arrays["bias"] = np.rint(self.rng.normal(0, spread, outs)).astype(np.int32)
        grid = self.grid()
        how = self.requantize(grid, spread, outs)
        return self.add("Gemm", (x,), ("N", outs), grid, attrs={"axis": -1}, arrays=arrays, requantize=how)

    def mate(self, x: str) -> str:
        """A tensor of the same shape: an earlier one, or the same."""
        same = [n for n, s in self.shapes.items() if s == self.shapes[x] and n in self.grids]
        return str(self.pick(*same))

    def sum(self, x: str) -> str:
        inputs = (x, self.mate(x))[: self.integer(1, 2)]
        n = self.channels(x)
        each = self.pick(1, n)
        coefficients = self.rng.integers(-(1 << 14), 1 << 14, (len(inputs), each)).astype(np.int32)
        spread = (1 << 13) * self.spread(x)
        bias = np.rint(self.rng.normal(0, spread, n if each == n else ())).astype(np.int32)
        grid = self.grid()
        how = self.requantize(grid, spread, n)
        arrays = {"coefficients": coefficients, "bias": bias}
        return self.add("Sum", inputs, self.shapes[x], grid, attrs={"axis": 1}, arrays=arrays, requantize=how)

    def mul(self, x: str) -> str:
        other, grid = self.mate(x), self.grid()
        how = self.requantize(grid, self.spread(x) * self.spread(other), 0)
        return self.add("Mul", (x, other), self.shapes[x], grid, attrs={"axis": 1}, requantize=how)

    def pool(self, x: str) -> str:
        size, shape = self.size(x), self.shapes[x]
        kernel, strides = [min(2, s) for s in size], [self.integer(1, 2) for _ in size]
        pads = [self.integer(0, 1) if k > 1 else 0 for k in kernel] * 2
        lengths = [
            (s + 2 * p - k) // t + 1 for s, p, k, t in zip(size, pads[: len(size)], kernel, strides, strict=True)
        ]
        attrs: dict[str, Any] = {"kernel_shape": kernel, "strides": strides, "pads": pads}
        kind = self.integer(0, 3)
        if kind == 0:
            return self.add("MaxPool", (x,), (*shape[:2], *lengths), self.grids[x], attrs=attrs)
        grid = self.grid()
        attrs["axis"] = 1
        if kind == 1:
            how = self.requantize(grid, self.spread(x) * math.prod(size), 0)
            shape = (*shape[:2], *(1 for _ in size))
            return self.add("GlobalAveragePool", (x,), shape, grid, attrs={"axis": 1}, requantize=how)
        arrays = {"reciprocals": self.rng.integers(1, 4096, lengths).astype(np.int32)} if kind == 3 else {}
        how = self.requantize(grid, self.spread(x) * (4096 if kind == 3 else 1) * math.prod(kernel), 0)
        shape = (*shape[:2], *lengths)
        return self.add("AveragePool", (x,), shape, grid, attrs=attrs, arrays=arrays, requantize=how)

    def interpolate(self, x: str) -> str:
        if len(self.size(x)) != 2:
            return self.clip(x)
        bits, outs = 11, [self.integer(1, 8) for _ in range(2)]
        matrices = []
        for out, s in zip(outs, self.size(x), strict=True):
            matrix = np.zeros((out, s), np.int32)
            first, second = self.rng.integers(0, s, (2, out))
            share = self.rng.integers(0, 1 << bits, out, endpoint=True)
            np.add.at(matrix, (np.arange(out), first), share)
            np.add.at(matrix, (np.arange(out), second), (1 << bits) - share)
            matrices.append(matrix)
        arrays = dict(zip(("rows", "columns"), matrices, strict=True))
        shape = (*self.shapes[x][:2], *outs)
        return self.add("Interpolate", (x,), shape, self.grids[x], attrs={"bits": bits}, arrays=arrays)

    def table(self, x: str) -> str:
        grid, n, levels = self.grid(), self.channels(x), 1 << self.grids[x].bits
        shape = self.pick((levels,), (n, levels))
        table = self.rng.integers(grid.qmin, grid.qmax, shape, endpoint=True).astype(storage(grid))
        return self.add("Table", (x,), self.shapes[x], grid, attrs={"axis": 1}, arrays={"table": table})

    def clip(self, x: str) -> str:
        grid, each = self.grids[x], self.pick((), (self.channels(x),))
        low, high = np.sort(self.rng.integers(grid.qmin, grid.qmax, (2, *each), endpoint=True), axis=0).astype(np.int32)
        return self.add("Clip", (x,), self.shapes[x], grid, attrs={"axis": 1}, arrays={"low": low, "high": high})

    def concat(self, x: str) -> str:
        same = [n for n, s in self.shapes.items() if s == self.shapes[x] and self.grids.get(n) == self.grids[x]]
        other = self.pick(x, *same)
        shape = (self.shapes[x][0], 2 * self.channels(x), *self.shapes[x][2:])
        return self.add("Concat", (x, other), shape, self.grids[x], attrs={"axis": 1})

    def pad(self, x: str) -> str:
        size, grid = self.size(x), self.grids[x]
        pads = [0, 0, *(self.integer(0, 1) for _ in size), 0, 0, *(self.integer(0, 1) for _ in size)]
        half = len(pads) // 2
        shape = (*self.shapes[x][:2], *(s + pads[2 + d] + pads[half + 2 + d] for d, s in enumerate(size)))
        attrs = {"value": int(grid.zero_point)}
        return self.add("Pad", (x,), shape, grid, attrs=attrs, arrays={"pads": np.array(pads, np.int64)})

    def transpose(self, x: str) -> str:
        if len(self.size(x)) != 2:
            return self.clip(x)
        n, c, h, w = self.shapes[x]
        return self.add("Transpose", (x,), (n, c, w, h), self.grids[x], attrs={"perm": [0, 1, 3, 2]})

    def const(self, values: Sequence[int]) -> str:
        name = f"const{len(self.consts)}"
        self.consts[name] = np.array(values, np.int64)
        return name

    def reshape(self, x: str) -> str:
        """The channels halved, where they can be, and the last axis doubled."""
        n = self.channels(x)
        if n % 2:
            return self.slice(x)
        shape = (n // 2, *self.size(x)[:-1], 2 * self.size(x)[-1])
        return self.add("Reshape", (x, self.const((0, *shape))), ("N", *shape), self.grids[x])

    def slice(self, x: str) -> str:
        """Every second position of the last axis."""
        *rest, last = self.shapes[x]
        bounds = (self.const((0,)), self.const((last,)), self.const((-1,)), self.const((2,)))
        return self.add("Slice", (x, *bounds), (*rest, -(-last // 2)), self.grids[x])

    def resize(self, x: str) -> str:
        """Nearest neighbours, twice the size."""
        if max(self.size(x)) > 8:
            return self.clip(x)
        scales = f"scales{len(self.consts)}"
        self.consts[scales] = np.array([1, 1, *(2 for _ in self.size(x))], np.float32)
        shape = (*self.shapes[x][:2], *(2 * s for s in self.size(x)))
        attrs = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return self.add("Resize", (x, "", scales), shape, self.grids[x], attrs=attrs)

    def depth_to_space(self, x: str) -> str:
        n, size = self.channels(x), self.size(x)
        if n % 4 or len(size) != 2:
            return self.resize(x)
        shape = ("N", n // 4, *(2 * s for s in size))
        attrs = {"blocksize": 2, "mode": self.pick("DCR", "CRD")}
        return self.add("DepthToSpace", (x,), shape, self.grids[x], attrs=attrs)

    def split(self, x: str) -> str:
        n = self.channels(x)
        if n < 2:
            return self.clip(x)
        left = self.integer(1, n - 1)
        sizes = self.const((left, n - left))
        outs = tuple(
            self.tensor("split", (self.shapes[x][0], c, *self.shapes[x][2:]), self.grids[x]) for c in (left, n - left)
        )
        self.steps.append(Step("Split", f"Split_{len(self.steps)}", (x, sizes), outs, {"axis": 1}))
        return outs[0]


KINDS: tuple[Callable[[Maker, str], str], ...] = (
    Maker.conv, Maker.gemm, Maker.sum, Maker.mul, Maker.pool, Maker.table, Maker.clip, Maker.concat, Maker.pad,
    Maker.conv_transpose, Maker.interpolate, Maker.transpose, Maker.split, Maker.reshape, Maker.resize,
    Maker.depth_to_space, Maker.conv,
)  # fmt: skip
FLAT = (Maker.gemm, Maker.sum, Maker.mul, Maker.table, Maker.clip, Maker.concat)


def grow_program(integer: Callable[[int, int], int], seed: int) -> Program:
    """A program of one to five steps (a Gemm may bring a Flatten)."""
    maker = Maker(integer, np.random.default_rng(seed))
    maker.rounding = maker.pick("half_up", "half_even", "truncate")
    maker.mantissa_bits = maker.pick(32, 16)
    size = tuple(integer(3, 6) for _ in range(maker.pick(2, 2, 2, 1)))
    first = x = maker.tensor("input", ("N", integer(1, 4), *size), maker.grid())
    for _ in range(integer(1, 5)):
        kinds = KINDS if len(maker.shapes[x]) > 2 else FLAT
        x = kinds[integer(0, len(kinds) - 1)](maker, x)
    return Program(
        tuple(maker.steps), (first,), (x,), maker.grids, maker.shapes, maker.consts, maker.rounding,
        maker.mantissa_bits, 6, 4, "npu-shift",
    )  # fmt: skip


def random_program(seed: int) -> Program:
    """The program for a seed."""
    rng = np.random.default_rng(seed)
    return grow_program(lambda low, high: int(rng.integers(low, high, endpoint=True)), seed)


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """A strategy for programs that shrinks to few and plain steps."""
    seed = draw(st.integers(0, 2**16))
    return grow_program(lambda low, high: draw(st.integers(low, high)), seed)


def feeds_for(program: Program, batch: int = 2, seed: int = 0) -> dict[str, Array]:
    """Random integers for the program's inputs, its extremes among them."""
    rng = np.random.default_rng(seed)
    feeds = {}
    for name in program.inputs:
        grid = program.grids[name]
        shape = [batch if not isinstance(s, int) else s for s in program.shapes[name]]
        q = rng.integers(grid.qmin, grid.qmax, shape, endpoint=True)
        q.flat[:2] = grid.qmin, grid.qmax
        feeds[name] = q.astype(storage(grid))
    return feeds
