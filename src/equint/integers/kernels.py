"""Float kernels that compute on integers: what the engine runs where it is proven that they are exact."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..ir.model import Name
from ..maths.fixedpoint import FLOAT32_DIGITS
from ..maths.float_proofs import slopes
from .accumulators import centred_weight
from .emit_sums import stretched
from .program import Step

if TYPE_CHECKING:
    from .engine import Compiler, Proof

MAGIC = 1.5 * 2.0**23
"""Added to a float32, it leaves the nearest integer, ties to even; subtracted again, it leaves that alone."""
EXACT = 1 << FLOAT32_DIGITS
RELU = (0.0, float("inf"))


def reads_flipped(step: Step, top: float) -> bool:
    """Whether a convolution sums exactly if it reads top − (q − z), between 0 and top, instead of q − z."""
    weight = centred_weight(step)
    rows = weight.reshape(len(weight), -1)
    flipped = step.arrays["bias"].astype(np.int64) + rows.sum(1) * top
    most = np.max(np.abs(rows).sum(1) * top + np.abs(flipped), initial=0)
    return not any(step.attrs["pads"]) and bool(most < EXACT)


def conv(compiler: Compiler, step: Step) -> Name:
    """A Conv, of what is flipped as well."""
    (name,) = step.inputs
    attrs = step.lists("strides", "dilations", "pads")
    weight = centred_weight(step)
    bias = np.broadcast_to(step.arrays["bias"].astype(np.int64), len(weight))
    if name in compiler.flipped and name not in compiler.floats:
        x, top = compiler.flipped[name]
        weight, bias = -weight, bias + weight.reshape(len(weight), -1).sum(1) * int(top)
    else:
        x = compiler.centred(name)
    weight, bias = weight.astype(np.float32), bias.astype(np.float32)
    return compiler.maker.add("Conv", x, weight, bias, group=int(step.attrs["group"]), **attrs)


def conv_transpose(compiler: Compiler, step: Step) -> Name:
    """A Conv over the stretched input."""
    weight = centred_weight(step)
    bias = np.broadcast_to(step.arrays["bias"].astype(np.float32), len(weight))
    x = stretched(compiler.maker, step, compiler.centred(step.inputs[0]), np.float32(0))
    attrs = {"group": int(step.attrs["group"]), **step.lists("dilations")}
    return compiler.maker.add("Conv", x, weight.astype(np.float32), bias, **attrs)


def gemm(compiler: Compiler, step: Step) -> Name:
    """A MatMul and its bias."""
    bias = step.arrays["bias"].astype(np.float32)
    acc = compiler.maker.add("MatMul", compiler.centred(step.inputs[0]), centred_weight(step).T.astype(np.float32))
    return compiler.maker.add("Add", acc, bias) if np.any(bias) else acc


def weighted_sum(compiler: Compiler, step: Step) -> Name:
    """Products with coefficients, added; the first takes the bias."""
    coefficients, bias = (step.arrays[k].astype(np.float32) for k in ("coefficients", "bias"))
    program, n, add = compiler.program, compiler.channels(step), compiler.maker.add
    alike = len({program.shapes.get(i) for i in step.inputs}) == 1
    terms = []
    for k, (name, c) in enumerate(zip(step.inputs, coefficients, strict=True)):
        x, b = compiler.centred(name), bias if k == 0 else np.zeros(1, np.float32)
        if n and alike:
            terms.append(compiler.pointwise(x, n, c, b))
        else:
            term = add("Mul", x, program.along(step, c))
            terms.append(add("Add", term, program.along(step, b)) if np.any(b) else term)
    return compiler.maker.total(terms)


def product(compiler: Compiler, step: Step) -> Name:
    """A Mul."""
    a, b = (compiler.centred(name) for name in step.inputs)
    return compiler.maker.add("Mul", a, b)


def average_pool(compiler: Compiler, step: Step) -> Name:
    """A depthwise Conv by ones."""
    n, add = compiler.program.channels(step, step.inputs[0]), compiler.maker.add
    ones = np.ones((n, 1, *step.attrs["kernel_shape"]), np.float32)
    acc = add("Conv", compiler.centred(step.inputs[0]), ones, group=n, **step.lists("strides", "pads"))
    times = step.arrays.get("reciprocals")
    return acc if times is None else add("Mul", acc, times.astype(np.float32))


def window_mean(compiler: Compiler, step: Step) -> Proof:
    """The same sums, and a quotient that is no whole number unless it is exactly one: sums stay below 2^24."""
    (x,), (y,), program, add = step.inputs, step.outputs, compiler.program, compiler.maker.add
    q, counts, zero = program.grids[x], step.arrays["counts"].astype(np.float32), np.float32(program.zero_point(x))
    top = 2 * max(-q.qmin, q.qmax) * int(counts.max(initial=1))
    if top >= EXACT:
        return compiler.whole(step, f"sums up to {top} exceed 2^24")
    total = add("Add", average_pool(compiler, step), zero * counts)
    near = add("Floor", add("Div", add("Add", add("Abs", total), np.floor(counts / 2)), counts))
    mean = add("Mul", add("Sign", total), near)
    add("Sub", mean, np.float32(program.zero_point(y)), to=compiler.named(y))
    return compiler.proven(step, "float", f"sums up to {top} are exact, and so is the division that rounds down")


def global_pool(compiler: Compiler, step: Step) -> Name:
    """A depthwise Conv by ones over the whole image, where its size is known."""
    (name,) = step.inputs
    x, shape = compiler.centred(name), compiler.program.shapes.get(name, ())
    sizes = [n for n in shape[1:] if isinstance(n, int)]
    if len(shape) == 4 and len(sizes) == 3:
        return compiler.maker.add("Conv", x, np.ones((sizes[0], 1, *sizes[1:]), np.float32), group=sizes[0])
    axes = np.arange(2, compiler.program.rank(step), dtype=np.int64)
    return compiler.maker.add("ReduceSum", x, axes, keepdims=1)


def matmul(compiler: Compiler, step: Step) -> Name:
    """A MatMul of two activations."""
    a, b = (compiler.centred(name) for name in step.inputs)
    return compiler.maker.add("MatMul", a, b)


def reduce_sum(compiler: Compiler, step: Step) -> Name:
    """A ReduceSum."""
    axes = np.array(step.attrs["axes"], np.int64)
    return compiler.maker.add("ReduceSum", compiler.centred(step.inputs[0]), axes, keepdims=int(step.attrs["keepdims"]))


def clip(compiler: Compiler, step: Step) -> Proof:
    """Max and Min of floats."""
    (x,), (y,), program, add = step.inputs, step.outputs, compiler.program, compiler.maker.add
    if x in compiler.held and x not in compiler.floats:
        return compiler.whole(step, "its input is held as integers")
    zero = np.float32(program.zero_point(y))
    low, high = (program.along(step, step.arrays[k]).astype(np.float32) - zero for k in ("low", "high"))
    add("Min", add("Max", compiler.centred(x), low), high, to=compiler.named(y))
    return compiler.proven(step, "float", "integers below 2^24 are exact")


def interpolate(compiler: Compiler, step: Step) -> Proof:
    """Both products in floats that hold them, and one rounding in float64."""
    (x,), (y,), program, maker, bits = step.inputs, step.outputs, compiler.program, compiler.maker, step.attrs["bits"]
    q, zero, add = program.grids[x], program.zero_point(x), maker.add
    top = max(-q.qmin, q.qmax)
    if top << 2 * bits >= 1 << 52:
        return compiler.whole(step, "its sums need 64 bits")
    kind = np.float32 if top << bits < EXACT else np.float64
    rows, columns = step.arrays["rows"].astype(kind), step.arrays["columns"].T.astype(np.float64)
    if x not in compiler.held:
        values = add("Add", compiler.centred(x), np.float32(zero)) if zero else compiler.centred(x)
        values = values if kind is np.float32 else maker.cast(values, kind)
    else:
        values = maker.cast(x, kind)
    sums = add("MatMul", rows, values)
    wide = add("MatMul", sums if kind is np.float64 else maker.cast(sums, np.float64), columns)
    scaled = add("Mul", wide, np.float64(2.0 ** (-2 * bits)))
    if program.rounding == "half_even":
        near = add("Round", scaled)
    elif program.rounding in ("double", "half_away"):  # one rounding, ties away from zero
        near = add("Mul", add("Sign", scaled), add("Floor", add("Add", add("Abs", scaled), np.float64(0.5))))
    else:
        half = program.rounding != "truncate"
        near = add("Floor", add("Add", scaled, np.float64(0.5)) if half else scaled)
    near = maker.cast(near, np.float32)
    compiler.floats[y] = add("Sub", near, np.float32(zero)) if zero else near
    return compiler.proven(step, "float", "float64 holds its sums")


def table(compiler: Compiler, step: Step) -> Proof:
    """A table of two slopes as max(0, up·x) − down·max(0, −x), any other as it is."""
    (x,), (y,), program = step.inputs, step.outputs, compiler.program
    q_in, q_out, zero = program.grids[x], program.grids[y], program.zero_point(y)
    if x in compiler.held:
        return compiler.whole(step, "a table")
    at, entries = np.arange(q_in.qmin, q_in.qmax + 1) - program.zero_point(x), np.atleast_2d(step.arrays["table"])
    found = slopes(at, entries.astype(np.int64) - zero, q_out.qmin - zero, q_out.qmax - zero)
    if found is None:
        return compiler.whole(step, "a table")
    up, down = found
    n, add, magic, source = compiler.channels(step), compiler.maker.add, np.float32(MAGIC), compiler.centred(x)
    if n:
        above = compiler.pointwise(source, n, up, np.float32(0), bounds=RELU)
        below = compiler.pointwise(source, n, np.float32(-1), np.float32(0), bounds=RELU)
        moved = add("Add", compiler.pointwise(below, n, -down, magic), above)
    else:
        above = add("Relu", add("Mul", source, program.along(step, up)))
        below = add("Mul", add("Relu", add("Neg", source)), program.along(step, -down))
        moved = add("Add", add("Add", above, below), magic)
    compiler.settle(step, moved, np.array(q_out.qmin - zero, np.float32), np.array(q_out.qmax - zero, np.float32))
    return compiler.proven(step, "float", "two slopes give every entry of the table")
