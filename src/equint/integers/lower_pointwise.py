"""Sums, products, functions of one value and clamps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ..errors import UnsupportedOperator
from ..ir.model import Array, Name, Node, QParams
from ..maths.affine import dequantize, quantize, storage
from ..ops.activations import clamps, negative_slope
from ..ops.arithmetic import constant_bounds
from ..ops.attributes import clip_bounds
from ..ops.curves import curve_of
from ..ops.operator import Form
from ..ops.pointwise import operands, value_of
from . import lower_litert as litert
from . import lower_reductions as wholes
from .builder import Lowering, same
from .lower_reductions import requantized
from .program import Step


def _sum(work: Lowering, node: Node) -> None:
    signs = (1.0, -1.0) if node.op == "Sub" else (1.0,) * len(node.inputs)
    name, q, activations = work.result(node)
    offset, tensors, factors = np.zeros(()), [], []
    for i, sign in zip(node.inputs, signs, strict=True):
        if i in work.graph.consts and not work.differs_by_position(node, work.graph.consts[i]):
            offset = offset + sign * work.constant(i).astype(np.float64)
        else:
            i = work.operand(i, work.graph.consts[i], work.target.activation) if i in work.graph.consts else i
            tensors.append(i)
            factors.append(np.asarray(sign * float(work.grid(i, node.label).scale) / float(q.scale)))
    work.weighted(node, tensors, name, (q, activations), factors, offset / float(q.scale))


def _product(work: Lowering, node: Node) -> None:
    tensors, constants = work.tensors(node)
    name, q, activations = work.result(node)
    if constants:
        constant = work.constant(constants[0]).astype(np.float64)
        if node.op == "Div":
            if node.inputs[0] in constants:
                _divided(work, node, constant)
                return
            constant = 1 / constant
        if work.differs_by_position(node, constant):
            scaled = work.operand(
                constants[0] if node.op == "Mul" else f"{constants[0]}_reciprocal", constant, work.target.activation
            )
            _multiplied(work, node, [tensors[0], scaled], (name, q, activations))
            return
        factor = constant * (float(work.grid(tensors[0], node.label).scale) / float(q.scale))
        work.weighted(node, tensors, name, (q, activations), [factor], np.zeros(()))
        return
    if node.op == "Div":
        wholes.quotient(work, node)
        return
    _multiplied(work, node, tensors, (name, q, activations))


def _multiplied(work: Lowering, node: Node, tensors: Sequence[Name], last: tuple[Name, QParams, list[Node]]) -> None:
    name, q, activations = last
    grids = [work.grid(i, node.label) for i in tensors]
    factor = np.asarray(float(grids[0].scale) * float(grids[1].scale) / float(q.scale))
    requantized(work, node, Step("Mul", node.label, tuple(tensors), (name,), {"axis": 1}), factor, (q, activations))


def _divided(work: Lowering, node: Node, constant: Array) -> None:
    """A constant, or one for each channel, divided by an activation."""
    (values,), axis = work.channels(node, constant)
    column = values.reshape(-1, 1) if values.ndim else values
    table(work, node, lambda x: column / x, axis)


def _function(work: Lowering, node: Node) -> None:
    curve = curve_of(work.graph, node)
    if curve is not None:
        table(work, node, curve)
        return
    slope = negative_slope(work.graph, node)
    if slope is None:
        raise UnsupportedOperator(f"{node.label}: its slope or exponent is computed; make it a constant")
    (slopes,), axis = work.channels(node, slope.astype(np.float32))
    if work.target.arithmetic == "litert":
        litert.sloping(work, node, slopes, axis)
        return
    column = slopes.reshape(-1, 1) if slopes.ndim else slopes
    table(work, node, lambda x: np.where(x >= 0, x, column * x), axis)


def pointwise(work: Lowering, node: Node) -> None:
    """The end of a function of one value in several operators: one table."""
    (root,) = {work.placement.inner.get(i, i) for i in operands(work.graph, node)}

    def made(name: Name, x: Array) -> Array:
        return x if name == root else value_at(work.graph.producer[name], x)

    def value_at(of: Node, x: Array) -> Array:
        return value_of(work.graph, of, {i: made(i, x) for i in operands(work.graph, of)})

    table(work, node, lambda x: value_at(node, x), given=root)


def _clamp(work: Lowering, node: Node) -> None:
    if not clamps(node) and constant_bounds(work.graph, node)[0] is None:
        wholes.compared(work, node)
        return
    lo, hi = clip_bounds(work.graph, node) if clamps(node) else constant_bounds(work.graph, node)
    if lo is None or hi is None:
        raise UnsupportedOperator(f"{node.label}: its bounds are computed; make them constants")
    (name, *_), _ = work.tensors(node)
    x, out = work.grid(name, node.label), node.outputs[0]
    q = work.grids.get(out, x)
    if clamps(node) and same(x, q):
        work.clipped(node, name, out, q, [node])
        return
    if work.target.arithmetic == "litert":
        litert.clamped(work, node, name, q)
        return
    (lo, hi), axis = work.channels(node, lo.astype(np.float32), hi.astype(np.float32))
    lo, hi = (b.reshape(-1, 1) if b.ndim else b for b in (lo, hi))
    table(work, node, lambda v: np.minimum(np.maximum(v, lo), hi), axis)


def table(work: Lowering, node: Node, function: Callable[[Array], Array], axis: int = 1, given: Name = "") -> None:
    """Every value of the input's grid through a function of real values, and onto the output's grid."""
    if work.target.arithmetic == "litert":
        litert.table(work, node, function, axis, given)
        return
    given = given or work.tensors(node)[0][0]
    x = work.grid(given, node.label)
    name, q, activations = work.result(node)
    low, high, _ = work.clamp(node, q, activations, (axis,))
    with np.errstate(all="ignore"):  # what is not finite ends at an end of the grid
        real = function(dequantize(np.arange(x.qmin, x.qmax + 1), x)).astype(np.float32)
    real = np.where(np.isnan(real), np.float32(0), real)
    ends = [b.reshape(-1, 1) if b.ndim else b for b in (low, high)]
    table = np.minimum(np.maximum(quantize(real, q), ends[0]), ends[1]).astype(storage(q))
    work.add("Table", node, [given], name, q, attrs={"axis": axis}, arrays={"table": table})


FORMS: Mapping[Form, Callable[[Lowering, Node], None]] = {
    Form.SUM: _sum,
    Form.PRODUCT: _product,
    Form.TABLE: _function,
    Form.CLAMP: _clamp,
}
"""How the pointwise ones among the forms are built."""
