"""The integer engine: runs a Program bit for bit, as fast as onnxruntime's float kernels allow.

A float32 holds integers up to 2^24, so a float convolution of integers whose sums stay below is exact, in whatever
order it adds. Requantization is then a product with the factor and the addition of 1.5·2^23, beyond which a float32
has no fraction left. Both can only rise with the accumulator; that they say what the program says is proven at the
accumulators on both sides of every threshold. Where it cannot be proven, integer operators run instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnxruntime as ort

from ..errors import EquintError
from ..ir.model import Array, Name
from ..maths.affine import storage
from ..maths.fixedpoint import FLOAT32_DIGITS
from ..maths.float_proofs import nudge_of, slopes
from . import emit as integer
from .emit import centred_weight, reach
from .emit_moves import move
from .maker import Maker, along, channels_of, rank_of, zero_point
from .program import MOVES, Program, Requantize, Step

MAGIC = 1.5 * 2.0**23
"""Added to a float32, it leaves the nearest integer, ties to even; subtracted again, it leaves that alone."""
EXACT = 1 << FLOAT32_DIGITS
RELU = (0.0, float("inf"))
_KEPT = (  # optimizations that merge what must be rounded one by one, or take any padding for zeros
    ["ConvMulFusion", "ConvAddFusion", "ConvBNFusion", "MatMulScaleFusion", "MatMulAddFusion", "MatMulBNFusion"]
    + ["GemmSumFusion", "WeightBiasQuantization", "Pad_Fusion", "PadFusion"]
)


@dataclass(frozen=True)
class Proof:
    """How the engine computes one step, and why that is the program's arithmetic.

    Attributes:
        way: "float" (float kernels, on integers that they hold), "mixed" (float sums, integer requantization),
            "integer" (integer operators), "moves" (nothing is computed).
    """

    layer: str
    op: str
    way: str
    why: str


class Engine:
    """A program ready to run.

    Args:
        threads: 0 takes as many as there are cores.
        taps: further tensors to return, by name.

    Attributes:
        proof: how each step is computed.

    Raises:
        EquintError: a step of unknown kind, or a tap that the program does not have; the message names it.

    Example:
        >>> from ..ir.model import QParams
        >>> grid = QParams(np.float32(0.5), np.int32(3), signed=False)
        >>> clip = Step("Clip", "clip", ("x",), ("y",), {"axis": 1}, {"low": np.array(3), "high": np.array(9)})
        >>> engine = Engine(Program((clip,), ("x",), ("y",), {"x": grid, "y": grid}, {"x": (1, 3), "y": (1, 3)}))
        >>> engine.run(np.array([[1, 5, 20]], np.uint8))["y"].tolist()
        [[3, 5, 9]]
        >>> engine.real(np.array([[-1.0, 1.0, 2.5]]))["y"].tolist()
        [[0.0, 1.0, 2.5]]
    """

    def __init__(self, program: Program, threads: int = 0, taps: Sequence[Name] = ()) -> None:
        self.program, self.threads = program, threads
        known = {*program.inputs, *(o for step in program.steps for o in step.outputs)}
        for name in taps:
            if name not in known:
                raise EquintError(f"{name}: the program has no such tensor; tap one of its steps' outputs")
        self.outputs = tuple(dict.fromkeys((*program.outputs, *taps)))
        compiled = _Compiler(program, self.outputs)
        self.proof = compiled.steps()
        for name in self.outputs:
            compiled.integers(name)
        types = {n: storage(q) for n, q in program.grids.items()}
        passed = {o: compiled.maker.fresh(f"{o}_again") for o in self.outputs if o in program.inputs}
        for name, again in passed.items():
            compiled.maker.add("Identity", name, to=again)
        types |= {again: types[name] for name, again in passed.items()}
        self._names = [passed.get(o, o) for o in self.outputs]
        self._session = _session(compiled.maker.model(program, types, self._names).SerializeToString(), threads)

    def run(self, feeds: Array | Mapping[Name, Array]) -> dict[Name, Array]:
        """Integers of all outputs, and taps, for integers of the inputs (an array where there is one input).

        Raises:
            EquintError: an input is missing, or its integers are not of the shape, type or grid that the program has.
        """
        given = self._given(feeds)
        checked = {n: _checked(self.program, n, np.asarray(v)) for n, v in given.items()}
        try:
            values = self._session.run(self._names, checked)
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            raise EquintError(f"{self.program.name}: does not run on this input ({reason})") from error
        return dict(zip(self.outputs, values, strict=True))

    def real(self, x: Array | Mapping[Name, Array]) -> dict[Name, Array]:
        """Real outputs for real inputs: quantized, run, and multiplied by their scales."""
        feeds = {n: self.program.quantized(n, np.asarray(v)) for n, v in self._given(x).items()}
        found = self.run(feeds)
        return {n: self.program.real(n, v) if n in self.program.grids else v for n, v in found.items()}

    def trace(self, feeds: Array | Mapping[Name, Array]) -> dict[Name, Array]:
        """Integers of what every step writes."""
        return self._tracer.run(feeds)

    @cached_property
    def _tracer(self) -> Engine:
        return Engine(self.program, self.threads, [o for step in self.program.steps for o in step.outputs if o])

    def _given(self, feeds: Array | Mapping[Name, Array]) -> Mapping[Name, Array]:
        wanted = self.program.inputs
        given = feeds if isinstance(feeds, Mapping) else {wanted[0]: feeds} if len(wanted) == 1 else {}
        if set(given) != set(wanted):
            raise EquintError(f"{self.program.name}: give its inputs {', '.join(wanted)} by name")
        return given


def _session(model: bytes, threads: int) -> Any:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"], disabled_optimizers=list(_KEPT))


def _checked(program: Program, name: Name, value: Array) -> Array:
    """The integers of an input in the type that holds them."""
    grid, shape = program.grids[name], program.shapes.get(name)
    if value.dtype.kind not in "iu":
        raise EquintError(f"{name}: the engine takes integers, not {value.dtype}; use real(), which quantizes")
    if shape is not None and (
        len(shape) != value.ndim
        or any(isinstance(n, int) and n != have for n, have in zip(shape, value.shape, strict=True))
    ):
        raise EquintError(f"{name}: has shape {value.shape}; the program takes {tuple(shape)}")
    held, ends = storage(grid), np.iinfo(value.dtype)
    if (ends.min < grid.qmin or ends.max > grid.qmax) and value.size:
        low, high = int(value.min()), int(value.max())
        if low < grid.qmin or high > grid.qmax:
            raise EquintError(
                f"{name}: holds {low} to {high}, but its grid {grid.qmin} to {grid.qmax}; quantize it first"
            )
    return value.astype(held, copy=False)


# From steps to kernels


def nudges(how: Requantize, program: Program, most: int) -> Array | None:
    """`nudge_of` for all channels of a requantization: `()` or `(C,)`, or None where one has none."""
    fields = (how.mantissa, how.right(program.mantissa_bits), how.low - how.zero_point, how.high - how.zero_point)
    table = np.stack(np.broadcast_arrays(*(np.asarray(f, np.int64) for f in fields)), -1)
    rows, where = np.unique(table.reshape(-1, len(fields)), axis=0, return_inverse=True)
    found = [nudge_of(m, right, first, last, most, program.rounding) for m, right, first, last in rows.tolist()]
    if None in found:
        return None
    return np.array(found, np.float32)[where].reshape(table.shape[:-1])


class _Compiler:
    """Emits steps one by one; every tensor exists as integers, as floats that hold q − z, or as both."""

    def __init__(self, program: Program, wanted: Sequence[Name]) -> None:
        self.program, self.wanted = program, frozenset(wanted)
        names = [*program.inputs, *program.consts, *(o for s in program.steps for o in (*s.outputs, s.name))]
        self.maker = Maker(names)
        self.held = {*program.inputs, *program.consts}  # as integers, under their own name
        self.floats: dict[Name, Name] = {}
        self.flipped: dict[Name, tuple[Name, float]] = {}  # (high − q, high − z) of what is clamped at both ends
        self.readers: dict[Name, list[Step]] = {}
        for step in program.steps:
            for name in step.inputs:
                self.readers.setdefault(name, []).append(step)

    def steps(self) -> tuple[Proof, ...]:
        return tuple(self.step(step) for step in self.program.steps)

    def step(self, step: Step) -> Proof:
        if step.op in MOVES:
            return self.move(step)
        if step.op in ("Clip", "Conv", "ConvTranspose", "Gemm", "Sum", "Mul", "AveragePool", "GlobalAveragePool"):
            return self.clip(step) if step.op == "Clip" else self.sums(step)
        if step.op == "Interpolate":
            return self.interpolate(step)
        return self.table(step) if step.op == "Table" else self.whole(step, "")

    def integers(self, name: Name) -> Name:
        """The tensor in the type that holds it."""
        if name and name not in self.held:
            self.held.add(name)
            q, value, zero = self.program.grids[name], self.centred(name), zero_point(self.program, name)
            if q.bits <= 8:
                self.maker.add("QuantizeLinear", value, np.float32(1), np.array(zero, storage(q)), to=name)
            else:
                self.maker.cast(self.maker.add("Add", value, np.float32(zero)), storage(q), name)
        return name

    def centred(self, name: Name) -> Name:
        """The tensor as float32 of q − z."""
        if name not in self.floats:
            kind, zero, add = storage(self.program.grids[name]), zero_point(self.program, name), self.maker.add
            if name in self.flipped:
                below, top = self.flipped[name]
                self.floats[name] = add("Sub", np.float32(top), below)
            elif kind.itemsize == 1:
                self.floats[name] = add("DequantizeLinear", name, np.float32(1), np.array(zero, kind))
            else:
                self.floats[name] = add("Sub", self.maker.cast(name, np.float32), np.float32(zero))
        return self.floats[name]

    def named(self, name: Name) -> Name:
        self.floats[name] = self.maker.fresh(f"{name}_centred")
        return self.floats[name]

    def whole(self, step: Step, why: str) -> Proof:
        """The step in integer operators."""
        for name in step.inputs:
            self.integers(name)
        integer.emit(self.maker, self.program, step)
        self.held.update(step.outputs)
        return Proof(step.name, step.op, "integer", why)

    def move(self, step: Step) -> Proof:
        grids = self.program.grids
        floats = self.floats.keys() | self.flipped.keys()
        if step.op != "Shape" and any(i in floats for i in step.inputs):
            inputs = [self.centred(i) if i in grids else i for i in step.inputs]
            outputs = [self.named(o) for o in step.outputs]
            move(self.maker, self.program, step, inputs, outputs, np.dtype(np.float32))
        elif step.op == "Shape":
            inputs = [i if i in self.held else self.centred(i) for i in step.inputs]
            move(self.maker, self.program, step, inputs, step.outputs, np.dtype(np.int64))
            self.held.update(step.outputs)
        else:
            self.whole(step, "")
        return Proof(step.name, step.op, "moves", "integers are moved or chosen")

    def clip(self, step: Step) -> Proof:
        (x,), (y,), arrays = step.inputs, step.outputs, step.arrays
        if x in self.held:
            return self.whole(step, "its input is held as integers")
        zero, rank = zero_point(self.program, y), self.rank(step, arrays["low"].size, arrays["high"].size)
        low, high = (
            along(arrays[k], self.axis(step), rank).astype(np.float32) - np.float32(zero) for k in ("low", "high")
        )
        self.maker.add("Min", self.maker.add("Max", self.centred(x), low), high, to=self.named(y))
        return Proof(step.name, step.op, "float", "integers below 2^24 are exact")

    def interpolate(self, step: Step) -> Proof:
        """Both products in floats that hold them, and one rounding in float64."""
        (x,), (y,), q, bits = step.inputs, step.outputs, self.program.grids[step.inputs[0]], int(step.attrs["bits"])
        top, add, zero = max(-q.qmin, q.qmax), self.maker.add, zero_point(self.program, x)
        if top << 2 * bits >= 1 << 52:
            return self.whole(step, "its sums need 64 bits")
        kind = np.float32 if top << bits < EXACT else np.float64
        rows, columns = step.arrays["rows"].astype(kind), step.arrays["columns"].T.astype(np.float64)
        if x not in self.held:
            values = add("Add", self.centred(x), np.float32(zero)) if zero else self.centred(x)
            values = values if kind is np.float32 else self.maker.cast(values, kind)
        else:
            values = self.maker.cast(x, kind)
        sums = add("MatMul", rows, values)
        wide = add("MatMul", sums if kind is np.float64 else self.maker.cast(sums, np.float64), columns)
        scaled = add("Mul", wide, np.float64(2.0 ** (-2 * bits)))
        if self.program.rounding == "half_even":
            near = add("Round", scaled)
        else:
            half = self.program.rounding == "half_up"
            near = add("Floor", add("Add", scaled, np.float64(0.5)) if half else scaled)
        near = self.maker.cast(near, np.float32)
        self.floats[y] = add("Sub", near, np.float32(zero)) if zero else near
        return Proof(step.name, step.op, "float", "float64 holds its sums")

    def table(self, step: Step) -> Proof:
        """A table of two slopes as max(0, up·x) − down·max(0, −x), any other as it is."""
        (x,), (y,), grids, table = step.inputs, step.outputs, self.program.grids, step.arrays["table"]
        q_in, q_out, zero = grids[x], grids[y], zero_point(self.program, y)
        if x in self.held or storage(q_in).itemsize > 1 or storage(q_out).itemsize > 1:
            return self.whole(step, "a table")
        at = np.arange(q_in.qmin, q_in.qmax + 1) - zero_point(self.program, x)
        found = slopes(at, np.atleast_2d(table).astype(np.int64) - zero, q_out.qmin - zero, q_out.qmax - zero)
        if found is None:
            return self.whole(step, "a table")
        up, down = found
        n, add, magic, source = self.channels(step), self.maker.add, np.float32(MAGIC), self.centred(x)
        if n:
            above = self.pointwise(source, n, up, np.float32(0), bounds=RELU)
            below = self.pointwise(source, n, np.float32(-1), np.float32(0), bounds=RELU)
            moved = add("Add", self.pointwise(below, n, -down, magic), above)
        else:
            rank, axis = self.rank(step, up.size), self.axis(step)
            above = add("Relu", add("Mul", source, along(up, axis, rank)))
            below = add("Mul", add("Relu", add("Neg", source)), along(-down, axis, rank))
            moved = add("Add", add("Add", above, below), magic)
        self.settle(step, moved, np.array(q_out.qmin - zero, np.float32), np.array(q_out.qmax - zero, np.float32))
        return Proof(step.name, step.op, "float", "two slopes give every entry of the table")

    def axis(self, step: Step) -> int:
        return int(step.attrs.get("axis", 1))

    def rank(self, step: Step, *sizes: int) -> int:
        return rank_of(self.program, step) if max(sizes) > 1 else 0

    def sums(self, step: Step) -> Proof:
        """A step with an accumulator, in float kernels as far as that is proven."""
        how = step.requantize
        if how is None or storage(self.program.grids[step.outputs[0]]).itemsize > 1:
            return self.whole(step, "its output has more than 8 bits")
        top = int(reach(self.program, step).max(initial=0))
        if top >= EXACT:
            return self.whole(step, f"sums up to {top} exceed 2^24")
        acc = _FLOAT_SUMS[step.op](self, step)
        nudge = nudges(how, self.program, top)
        if nudge is None:
            integer.requantized(self.maker, self.program, step, self.maker.cast(acc, np.int64))
            self.held.update(step.outputs)
            return Proof(step.name, step.op, "mixed", f"sums up to {top} are exact, their rounding is not proven")
        self.requantize(step, how, acc, nudge)
        return Proof(step.name, step.op, "float", f"sums up to {top} are exact, rounding is proven at every threshold")

    def requantize(self, step: Step, how: Requantize, acc: Name, nudge: Array) -> None:
        """q − z = clamp(((acc·factor + nudge) + MAGIC) − MAGIC)."""
        factor = (how.mantissa * 2.0 ** -how.right(self.program.mantissa_bits)).astype(np.float32)
        low, high = ((b - how.zero_point).astype(np.float32) for b in (how.low, how.high))
        nudged, n, axis, add = bool(np.any(nudge)), self.channels(step), self.axis(step), self.maker.add
        rank = self.rank(step, factor.size, nudge.size)
        flip = bool(n) and low.size == high.size == 1 and low.item() == 0 and self.flippable(step, high.item())
        if n and low.size == high.size == 1:
            acc = add("Relu", acc) if flip else acc
            acc = self.pointwise(acc, n, factor, nudge if nudged else np.float32(MAGIC))
            acc = self.pointwise(acc, n, np.float32(1), np.float32(MAGIC)) if nudged else acc
        else:
            acc = add("Mul", acc, along(factor, axis, rank))
            acc = add("Add", acc, along(nudge, axis, rank)) if nudged else acc
            acc = add("Add", acc, np.float32(MAGIC))
        if flip:  # two cheap maxima, one of them within the layer's own convolution, instead of a clamp
            below = self.pointwise(acc, n, np.float32(-1), np.float32(MAGIC + high.item()), bounds=RELU)
            self.flipped[step.outputs[0]] = below, high.item()
        else:
            self.settle(step, acc, low, high)

    def flippable(self, step: Step, top: float) -> bool:
        """Whether everything that reads the step's output can read top − (q − z) as well."""
        (y,), readers = step.outputs, self.readers.get(step.outputs[0], [])
        return y not in self.wanted and all(
            r.op == "Conv" and not any(r.attrs["pads"]) and _flipped_reach(r, top) < EXACT for r in readers
        )

    def settle(self, step: Step, moved: Name, low: Array, high: Array) -> None:
        """q − z = clamp(moved − MAGIC)."""
        n, axis, add, y = self.channels(step), self.axis(step), self.maker.add, self.named(step.outputs[0])
        if n and low.size == high.size == 1:
            self.pointwise(moved, n, np.float32(1), np.float32(-MAGIC), y, (low.item(), high.item()))
            return
        acc, rank = add("Sub", moved, np.float32(MAGIC)), self.rank(step, low.size, high.size)
        if low.size == high.size == 1:
            add("Clip", acc, low.reshape(()), high.reshape(()), to=y)
        else:
            add("Min", add("Max", acc, along(low, axis, rank)), along(high, axis, rank), to=y)

    def channels(self, step: Step) -> int:
        """Channels of an output whose steps are images; 0 for others."""
        shape = self.program.shapes.get(step.outputs[0], ())
        return shape[1] if len(shape) == 4 and isinstance(shape[1], int) and self.axis(step) == 1 else 0

    def pointwise(
        self,
        x: Name,
        channels: int,
        weight: Array | np.generic,
        bias: Array | np.generic,
        to: Name = "",
        bounds: Sequence[float] = (),
    ) -> Name:
        """x·weight + bias per channel as a convolution, which stays in the layout of the others around it."""
        w = np.broadcast_to(np.float32(weight), channels).reshape(channels, 1, 1, 1)
        b = np.broadcast_to(np.float32(bias), channels)
        attrs: dict[str, Any] = {"group": channels, "kernel_shape": [1, 1]}
        if bounds == RELU:
            attrs |= {"domain": "com.microsoft", "activation": "Relu"}
        elif bounds:
            attrs |= {"domain": "com.microsoft", "activation": "Clip", "activation_params": list(bounds)}
        return self.maker.add("FusedConv" if bounds else "Conv", x, w, b, to=to, **attrs)


def _flipped_reach(step: Step, top: float) -> float:
    """`reach` of a convolution that reads top − (q − z), between 0 and top."""
    weight = centred_weight(step)
    sums = weight.reshape(len(weight), -1).sum(1)
    every = np.abs(weight).reshape(len(weight), -1).sum(1) * top
    return float(np.max(every + np.abs(step.arrays["bias"].astype(np.int64) + sums * top), initial=0))


def _conv(self: _Compiler, step: Step) -> Name:
    (name,) = step.inputs
    attrs: dict[str, Any] = {k: [int(i) for i in step.attrs[k]] for k in ("strides", "dilations", "pads")}
    weight = centred_weight(step)
    bias = np.broadcast_to(step.arrays["bias"].astype(np.int64), len(weight))
    if name in self.flipped and name not in self.floats:
        x, top = self.flipped[name]
        weight, bias = -weight, bias + weight.reshape(len(weight), -1).sum(1) * int(top)
    else:
        x = self.centred(name)
    weight, bias = weight.astype(np.float32), bias.astype(np.float32)
    return self.maker.add("Conv", x, weight, bias, group=int(step.attrs["group"]), **attrs)


def _conv_transpose(self: _Compiler, step: Step) -> Name:
    weight, bias = centred_weight(step).astype(np.float32), step.arrays["bias"].astype(np.float32)
    bias = np.broadcast_to(bias, len(weight))
    x = integer.stretched(self.maker, step, self.centred(step.inputs[0]), np.float32(0))
    attrs: dict[str, Any] = {"group": int(step.attrs["group"]), "dilations": [int(i) for i in step.attrs["dilations"]]}
    return self.maker.add("Conv", x, weight, bias, **attrs)


def _gemm(self: _Compiler, step: Step) -> Name:
    acc = self.maker.add("MatMul", self.centred(step.inputs[0]), centred_weight(step).T.astype(np.float32))
    return self.maker.add("Add", acc, step.arrays["bias"].astype(np.float32)) if np.any(step.arrays["bias"]) else acc


def _sum(self: _Compiler, step: Step) -> Name:
    coefficients, bias = (step.arrays[k].astype(np.float32) for k in ("coefficients", "bias"))
    axis, n, add = self.axis(step), self.channels(step), self.maker.add
    alike = len({self.program.shapes.get(i) for i in step.inputs}) == 1
    rank = self.rank(step, coefficients.shape[1], bias.size)
    terms = []
    for k, (name, c) in enumerate(zip(step.inputs, coefficients, strict=True)):
        x, b = self.centred(name), bias if k == 0 else np.zeros(1, np.float32)
        if n and alike:
            terms.append(self.pointwise(x, n, c, b))
        else:
            term = add("Mul", x, along(c, axis, rank))
            terms.append(add("Add", term, along(b, axis, rank)) if np.any(b) else term)
    acc = terms[0]
    for term in terms[1:]:
        acc = add("Add", acc, term)
    return acc


def _mul(self: _Compiler, step: Step) -> Name:
    a, b = (self.centred(name) for name in step.inputs)
    return self.maker.add("Mul", a, b)


def _average_pool(self: _Compiler, step: Step) -> Name:
    n = channels_of(self.program, step, step.inputs[0])
    ones = np.ones((n, 1, *step.attrs["kernel_shape"]), np.float32)
    attrs: dict[str, Any] = {k: [int(i) for i in step.attrs[k]] for k in ("strides", "pads")}
    acc = self.maker.add("Conv", self.centred(step.inputs[0]), ones, group=n, **attrs)
    return (
        self.maker.add("Mul", acc, step.arrays["reciprocals"].astype(np.float32))
        if "reciprocals" in step.arrays
        else acc
    )


def _global_average_pool(self: _Compiler, step: Step) -> Name:
    (name,) = step.inputs
    x, shape = self.centred(name), self.program.shapes.get(name, ())
    sizes = [n for n in shape[1:] if isinstance(n, int)]
    if len(shape) == 4 and len(sizes) == 3:
        return self.maker.add("Conv", x, np.ones((sizes[0], 1, *sizes[1:]), np.float32), group=sizes[0])
    axes = np.arange(2, rank_of(self.program, step), dtype=np.int64)
    return self.maker.add("ReduceSum", x, axes, keepdims=1)


_FLOAT_SUMS: Mapping[str, Callable[[_Compiler, Step], Name]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "Sum": _sum,
    "Mul": _mul,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global_average_pool,
}
