"""Means over windows, over whole pictures, and over spatial axes, as sums times a factor."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from ..errors import UnsupportedOperator
from ..ir.model import Array, Node
from ..ops.operator import Form
from . import lower_reductions as wholes
from .builder import Lowering
from .geometry import static, window
from .lower_reductions import requantized
from .program import Step


def _average_pool(work: Lowering, node: Node) -> None:
    sizes = work.graph.shapes.get(node.inputs[0])
    kernel = tuple(node.attrs["kernel_shape"])
    found = window(node, kernel, sizes)
    if any(d != 1 for d in found.dilations):
        raise UnsupportedOperator(f"{node.label}: a dilated AveragePool has no integer form; replace it")
    arrays, count = {}, math.prod(kernel)
    if any(found.pads) and not node.attrs.get("count_include_pad", 0):
        arrays["reciprocals"], count = _reciprocals(found.counts(kernel, static(sizes, node.label)))
    attrs = {"kernel_shape": list(kernel), "strides": found.strides, "pads": found.pads, "axis": 1}
    _averaged(work, node, count, Step("AveragePool", node.label, node.inputs[:1], (), attrs, arrays))


def _global_pool(work: Lowering, node: Node) -> None:
    count = math.prod(static(work.graph.shapes.get(node.inputs[0]), node.label))
    _averaged(work, node, count, Step("GlobalAveragePool", node.label, node.inputs[:1], (), {"axis": 1}))


def _averaged(work: Lowering, node: Node, count: int, step: Step) -> None:
    x = work.grid(node.inputs[0], node.label)
    name, q, activations = work.result(node, given=x)
    factor = np.asarray(float(x.scale) / (float(q.scale) * count))
    requantized(work, node, replace(step, outputs=(name,)), factor, (q, activations))


def _mean(work: Lowering, node: Node) -> None:
    """A spatial ReduceMean, as a global pool and, without keepdims, a Squeeze; one over other axes as their sum."""
    shape, axes = work.graph.shapes.get(node.inputs[0]), wholes.axes_of(work, node)
    if shape is None or axes != list(range(2, len(shape))):
        wholes.reduction(work, node)
        return
    if node.attrs.get("keepdims", 1):
        _global_pool(work, node)
        return
    out = node.outputs[0]
    pooled = work.fresh(f"{out}_pooled")
    work.grids[pooled] = work.result(node, given=work.grid(node.inputs[0], node.label))[1]
    work.shapes[pooled] = (*shape[:2], *(1 for _ in shape[2:]))
    _global_pool(work, replace(node, outputs=(pooled,), name=node.label))
    inputs = (pooled, work.integers(f"{out}_axes", axes))
    work.add("Squeeze", node, inputs, out, work.grids[pooled])


def _reciprocals(counts: Array) -> tuple[Array, int]:
    """Integers R with R/whole = 1/count by position, and `whole`; exact where the counts' multiple is small."""
    whole = min(math.lcm(*counts.ravel().tolist()), 1 << 12)
    return np.rint(whole / counts).astype(np.int32), whole


FORMS: Mapping[Form, Callable[[Lowering, Node], None]] = {
    Form.AVERAGE_POOL: _average_pool,
    Form.GLOBAL_AVERAGE: _global_pool,
    Form.MEAN: _mean,
}
"""How the means among the forms are built."""
