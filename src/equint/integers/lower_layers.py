"""Layers: integer weights and biases, the shifts of their channels, and what follows their sums."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import UnsupportedOperator
from ..ir.model import Array, Name, Node, QParams
from ..ir.weights import Layer
from ..maths.affine import quantize, quantize_bias, storage
from . import lower_litert as litert
from .builder import Lowering, Products
from .geometry import window
from .lower_reductions import ACCUMULATOR, WIDE_ACCUMULATOR
from .program import Step
from .steps import LAYERS, bound


def layer_steps(work: Lowering, layer: Layer) -> None:
    """Integer steps of a layer: its sums, and what brings them on the grid of its output.

    Raises:
        UnsupportedOperator: its weight, input or output stays float.
    """
    node = layer.node
    x = work.grid(layer.x, layer.name)
    q = work.model.qparams.get(layer.weight)
    if q is None:
        raise UnsupportedOperator(f"{layer.name}: its weight {layer.weight} stays float; quantize weights too")
    shift = _shift(work, layer, work.narrow(q, layer.name))
    op = node.op if node.op in LAYERS else "Gemm"
    weight = quantize(work.graph.consts[layer.weight], q).astype(storage(q))
    outs = layer.channels(weight)[1]
    zero = np.asarray(q.zero_point).astype(weight.dtype)
    real = np.zeros(outs) if layer.bias is None else work.graph.consts[layer.bias].reshape(-1)
    arrays = {
        "weight": np.ascontiguousarray(weight.T) if layer.order == "io" else weight,
        "weight_zero_point": zero.reshape(-1)[0].reshape(()) if np.ptp(zero) == 0 else zero,
        "bias": np.broadcast_to(quantize_bias(real, x, q)[0], (outs,)),
    }
    attrs = {"axis": -1} if op == "Gemm" else _geometry(work, layer, weight.shape[2:])
    name, grid, activations = work.result(node)
    read, made = (layer.x, name) if not layer.weight_first else _turned_over(work, node, layer.x, name)
    step = Step(op, layer.name, (read,), (made,), attrs, arrays)
    reach = bound(step, work.grids, work.graph.shapes)
    limit, bits = (WIDE_ACCUMULATOR, 48) if work.wide else (ACCUMULATOR, 32)
    if reach.max() >= limit:
        raise UnsupportedOperator(
            f"{layer.name}: its accumulator may reach {reach.max():.3g}, which {bits} bits do not hold; "
            "use fewer bits for weights"
        )
    factor = np.asarray(x.scale, np.float64) * np.asarray(q.scale, np.float64) / float(grid.scale)
    if work.target.rounding == "truncate":  # half a step in the bias makes it rounding to the nearest
        half = np.rint(0.5 * 2.0**shift / factor)
        bias = arrays["bias"] + np.where(reach + half < ACCUMULATOR, half, 0).astype(np.int32)
        step = replace(step, arrays={**arrays, "bias": bias})
        reach = bound(step, work.grids, work.graph.shapes)
    products: Products = "dense" if op == "Gemm" else "windows"
    how = work.requantize(node, factor, shift, reach, (grid, activations), attrs["axis"], products)
    if work.target.arithmetic == "litert":
        how = litert.of_layer(op, how)
        work.weight_scales[made] = np.asarray(q.scale, np.float32)
    work.steps.append(replace(step, requantize=how))
    if made != name:
        work.grids[made] = grid
        work.add("Transpose", node, [made], name, grid, attrs={"perm": _last_two_swapped(work, node, layer.x)})


def _turned_over(work: Lowering, node: Node, x: Name, name: Name) -> tuple[Name, Name]:
    """The input of a product whose constant stands first, and its result, with their last axes swapped."""
    turned, made = work.fresh(f"{x}_turned"), work.fresh(f"{name}_turned")
    perm = _last_two_swapped(work, node, x)
    work.add("Transpose", node, [x], turned, work.grid(x, node.label), attrs={"perm": perm})
    for new, old in ((turned, x), (made, node.outputs[0])):
        shape = work.graph.shapes.get(old)
        if shape is not None:
            work.shapes[new] = tuple(shape[d] for d in perm)
    return turned, made


def _last_two_swapped(work: Lowering, node: Node, x: Name) -> list[int]:
    rank = work.graph.rank(x)
    if rank is None:
        raise UnsupportedOperator(f"{node.label}: its rank is not known; export the network with shapes")
    return [*range(rank - 2), rank - 1, rank - 2]


def _shift(work: Lowering, layer: Layer, q: QParams) -> Array:
    if q.shift is None:
        return np.zeros((), np.int32)
    least, most = int(q.shift.min()), int(q.shift.max())
    if least < 0 or most >= 1 << work.target.shift_bits:
        wrong = least if least < 0 else most
        raise UnsupportedOperator(
            f"{layer.name}: shift {wrong} does not fit into the {work.target.shift_bits} bits of target "
            f"{work.target.name}; quantize for this target"
        )
    return q.shift


def _geometry(work: Lowering, layer: Layer, kernel: tuple[int, ...]) -> dict[str, Any]:
    found = window(layer.node, kernel, work.graph.shapes.get(layer.x))
    attrs = {"strides": found.strides, "dilations": found.dilations, "pads": found.pads, "group": layer.groups}
    if layer.node.op == "ConvTranspose":
        attrs["output_padding"] = found.output_padding
    return {**attrs, "axis": 1}
