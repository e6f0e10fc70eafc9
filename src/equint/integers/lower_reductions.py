"""Steps over whole axes: products of activations, shares, means, extremes, quotients, normalizations."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..errors import UnsupportedOperator
from ..graph import clamps
from ..ir.model import Array, Dim, Name, Node, QParams, Shape
from ..maths.fixedpoint import MOST_SHIFT
from ..maths.integer_functions import exponentials, root_table
from ..ops.attributes import reduced_axes
from ..ops.norms import Norm, norm_of
from ..ops.operator import Form
from .builder import COEFFICIENT, Lowering, Products, power
from .lower_moves import moved
from .program import Requantize, Step
from .reductions import FRACTION_BITS, QUOTIENT_BITS, SHARE_BITS, UNKNOWN_SIZE, normalized_bound
from .steps import bound

ACCUMULATOR = 1 << 31
"""What the accumulator of a layer stays below."""
WIDE_ACCUMULATOR = 1 << 47
"""The same of products of 16 bits, which LiteRT adds in 64."""
EXPONENTIAL_BITS = 22
"""Most binary places of the exponentials of a Softmax: fewer where their sum would not fit into 32 bits."""
MOST_EXTRA = 1 << 61
"""Most that is added to a variance; with it, all fits into 63 bits."""
MOST_COUNT = 1 << 21
"""Over how many values statistics are taken at most: their squares fit into 63 bits."""

Last = tuple[QParams, list[Node]]


def requantized(
    work: Lowering, node: Node, step: Step, factor: Array, last: Last, products: Products | None = None
) -> None:
    """Add a step whose accumulator, times a factor, is what the output's grid holds; `products` as in `requantize`."""
    reach = bound(step, work.grids, {**work.graph.shapes, **work.shapes})
    if reach.max() >= (WIDE_ACCUMULATOR if products and work.wide else ACCUMULATOR):
        raise UnsupportedOperator(f"{node.label}: its window is too large for a 32-bit accumulator")
    how = work.requantize(node, factor, np.zeros((), np.int32), reach, last, products=products)
    work.steps.append(replace(step, requantize=how))
    work.grids[step.outputs[0]] = last[0]


def product(work: Lowering, node: Node) -> None:
    """A MatMul of two activations."""
    consts = work.graph.consts
    a, b = (work.operand(i, consts[i], work.target.activation) if i in consts else i for i in node.inputs[:2])
    name, q, activations = work.result(node)
    scales = [float(work.grid(i, node.label).scale) for i in (a, b)]
    step = Step("MatMul", node.label, (a, b), (name,), {"axis": -1})
    factor = np.asarray(scales[0] * scales[1] / float(q.scale))
    requantized(work, node, step, factor, (q, activations), products="windows")


def quotient(work: Lowering, node: Node) -> None:
    """A Div of two activations."""
    name, q, activations = work.result(node)
    a, b = (float(work.grid(i, node.label).scale) for i in node.inputs)
    step = Step("Div", node.label, node.inputs, (name,), {"axis": 1})
    factor = np.asarray(math.ldexp(a / (b * float(q.scale)), -QUOTIENT_BITS))
    requantized(work, node, step, factor, (q, activations))


def softmax(work: Lowering, node: Node, made: Name = "") -> None:
    """A table of e^-x, sums and quotients; as tensor `made`, which has a grid, where that is given."""
    x, shape = work.grid(node.inputs[0], node.label), work.graph.shapes.get(node.inputs[0])
    name, q, activations = (made, work.grids[made], []) if made else work.result(node)
    old = work.graph.opset < 13  # all axes from this one on together
    axis = int(node.attrs.get("axis", 1 if old else -1))
    if shape is None:
        raise UnsupportedOperator(f"{node.label}: its rank is not known; export the network with shapes")
    axis %= len(shape)
    if old and axis != len(shape) - 1 and any(n != 1 for n in shape[axis + 1 :]):
        raise UnsupportedOperator(f"{node.label}: a Softmax over several axes has no integer form; export to opset 13")
    count = shape[axis]
    size = count if isinstance(count, int) else UNKNOWN_SIZE
    bits = min(EXPONENTIAL_BITS, 31 - size.bit_length())
    table = exponentials(float(x.scale), x.qmax - x.qmin + 1, bits).astype(np.int32)
    arrays = {"exponentials": table}
    step = Step("Softmax", node.label, node.inputs[:1], (name,), {"over": axis, "axis": 1}, arrays)
    factor = np.asarray(math.ldexp(1 / float(q.scale), -SHARE_BITS))
    requantized(work, node, step, factor, (q, activations))


def axes_of(work: Lowering, node: Node) -> list[int]:
    """Over which axes a node reduces; an error where that is not known."""
    rank = work.graph.rank(node.inputs[0])
    axes = None if rank is None else reduced_axes(work.graph, node, rank)
    if axes is None:
        raise UnsupportedOperator(f"{node.label}: its axes are computed, or its rank is not known; make them constants")
    return sorted(axes)


def count_of(work: Lowering, node: Node, axes: Sequence[int]) -> int:
    """How many values there are along some axes of a node's input."""
    shape = work.graph.shapes.get(node.inputs[0]) or ()
    return _count(node, [shape[a] for a in axes])


def _count(node: Node, sizes: Sequence[Dim]) -> int:
    known = [n for n in sizes if isinstance(n, int)]
    if len(known) < len(sizes):
        raise UnsupportedOperator(
            f"{node.label}: how many values it takes together is not known; export the network with static shapes"
        )
    return math.prod(known)


def reduction(work: Lowering, node: Node) -> None:
    """A ReduceMean or ReduceSum."""
    axes = axes_of(work, node)
    count = count_of(work, node, axes) if node.op == "ReduceMean" else 1
    x = work.grid(node.inputs[0], node.label)
    name, q, activations = work.result(node, given=x)
    attrs = {"axes": axes, "keepdims": int(node.attrs.get("keepdims", 1)), "axis": 1}
    step = Step("ReduceSum", node.label, node.inputs[:1], (name,), attrs)
    requantized(work, node, step, np.asarray(float(x.scale) / (float(q.scale) * count)), (q, activations))


def extreme(work: Lowering, node: Node) -> None:
    """A ReduceMax or ReduceMin: integers of its input, on another grid behind that where it has one."""
    attrs = {"axes": axes_of(work, node), "keepdims": int(node.attrs.get("keepdims", 1))}
    moved(work, node, node.op, node.inputs[:1], attrs)


def compared(work: Lowering, node: Node) -> None:
    """A Max or Min of activations: all on the output's grid, then compared; a constant clamps what that gives."""
    out = node.outputs[0]
    q = work.grid(out, node.label)
    tensors, constants = work.tensors(node)
    names = [work.rescaled(node, i, (q, [])) for i in dict.fromkeys(tensors)]
    made = work.fresh(f"{out}_compared") if constants else out
    if len(names) > 1 or not constants:
        work.add(node.op, node, names, made, q)
        work.shapes[made] = work.graph.shapes.get(out) or ()
    else:
        made = names[0]
    for k, constant in enumerate(constants):
        at = clamps.on_grid(work.graph.consts[constant].astype(np.float64), q)
        ends = (at, np.asarray(q.qmax)) if node.op == "Max" else (np.asarray(q.qmin), at)
        (low, high), axis = work.channels(node, *ends)
        name = out if k == len(constants) - 1 else work.fresh(f"{out}_compared")
        arrays = {"low": low.astype(np.int32), "high": high.astype(np.int32)}
        work.add("Clip", node, [made], name, q, attrs={"axis": axis}, arrays=arrays)
        work.shapes[name] = work.graph.shapes.get(out) or ()
        made = name


def normalization(work: Lowering, node: Node) -> None:
    """A normalization by the statistics of its own values, with gains and biases."""
    shape = work.graph.shapes.get(node.inputs[0])
    if any(node.outputs[1:]):
        raise UnsupportedOperator(f"{node.label}: its mean and deviation have no integer form; leave these outputs out")
    norm = None if shape is None else norm_of(work.graph, node, shape)
    if norm is None or shape is None:
        raise UnsupportedOperator(
            f"{node.label}: {node.op} of this kind has no integer form, or its scale, bias or sizes are not constants; "
            "make them so"
        )
    if len(norm.axes) > 1 and any(work.differs_by_position(node, a) for a in (norm.gain, norm.bias)):
        _flattened(work, node, norm, shape)
    else:
        _normalized(work, node, norm, shape)


def _flattened(work: Lowering, node: Node, norm: Norm, shape: Shape) -> None:
    """Gains that differ by position, as gains of the channels that the last axes are together."""
    (x, *_), (out, *_), front = node.inputs, node.outputs, norm.axes[0]
    q = work.grid(x, node.label)
    name, last, _ = work.result(node)
    count = count_of(work, node, norm.axes)
    flat, made = work.fresh(f"{x}_flat"), work.fresh(f"{out}_flat")
    work.add("Reshape", node, (x, work.integers(f"{flat}_shape", [0] * front + [-1])), flat, q)
    work.shapes |= dict.fromkeys((flat, made), (*shape[:front], count))
    gain, bias = (np.broadcast_to(a, [n if isinstance(n, int) else 1 for n in shape]) for a in (norm.gain, norm.bias))
    each = (a.reshape(-1, count)[0] for a in (gain, bias))
    inner = replace(norm, axes=(front,), **dict(zip(("gain", "bias"), each, strict=True)))
    _normalized(work, node, inner, (*shape[:front], count), flat, made)
    sizes = [int(n) for n in shape[front:] if isinstance(n, int)]
    work.add("Reshape", node, (made, work.integers(f"{made}_shape", [0] * front + sizes)), name, last)


def _normalized(work: Lowering, node: Node, norm: Norm, shape: Shape, given: Name = "", made: Name = "") -> None:
    source = given or node.inputs[0]
    x = work.grid(source, node.label)
    name, q, activations = work.result(node)
    name = made or name
    count = _count(node, [shape[a] for a in (norm.axes if not norm.groups else range(1, len(shape)))])
    count //= max(norm.groups, 1)
    if count > MOST_COUNT:
        raise UnsupportedOperator(f"{node.label}: statistics over {count} values do not fit into 64 bits; cut it up")
    extra = round(min(count**2 * norm.epsilon / float(x.scale) ** 2, MOST_EXTRA))
    factors = norm.gain / float(q.scale), norm.bias / float(q.scale)
    (gain, bias), axis = work.channels(node, *factors)
    most, largest = normalized_bound(count), float(np.max(np.abs(gain)))
    total = largest * most + float(np.max(np.abs(bias))) * 2.0**FRACTION_BITS
    digits = work.target.mantissa_bits
    places = min(power(COEFFICIENT, largest), power(ACCUMULATOR - most - 2, total)) + FRACTION_BITS
    places = min(places, (1 << work.target.exponent_bits - 1) + 1, MOST_SHIFT + 1 - digits)
    arrays: dict[str, Array] = {
        "gains": np.rint(np.ldexp(gain, places - FRACTION_BITS)).astype(np.int32),
        "bias": np.rint(np.ldexp(bias, places)).astype(np.int32),
        "roots": root_table().astype(np.uint16),
    }
    attrs = {"axes": list(norm.axes), "groups": norm.groups, "count": count, "centred": int(norm.centred)}
    step = Step("Normalize", node.label, (source,), (name,), {**attrs, "extra": extra, "axis": axis}, arrays)
    low, high, _ = work.clamp(node, q, activations, (axis,))
    zero = np.zeros((), np.int32)
    mantissa, exponent = np.asarray(1 << (digits - 1), np.int64), np.asarray(1 - places, np.int32)
    how = Requantize(mantissa, exponent, zero, int(q.zero_point), low, high)
    work.check(node, how, int(np.max(bound(step, work.grids, work.graph.shapes))))
    work.steps.append(replace(step, requantize=how))
    work.grids[name] = q


FORMS: Mapping[Form, Callable[[Lowering, Node], None]] = {
    Form.SOFTMAX: softmax,
    Form.SUM_OVER_AXES: reduction,
    Form.EXTREME: extreme,
    Form.NORMALIZE: normalization,
}
"""How steps over whole axes are built."""
