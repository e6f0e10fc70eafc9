"""Rounding that keeps the sum of every kernel: errors of neighbouring taps cancel."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ..graph.weight_grids import stored_bias
from ..ir.edit import Editor
from ..ir.events import Event, EventKind
from ..ir.model import Array, Correction, Model, Name, QParams
from ..ir.weights import Layer
from ..maths.affine import BiasGrid, along_axis, dequantize, quantize
from ..noise.mean_error import mean_error_of
from ..ops.layers import bias_of, layers, still_corrected
from . import Keeps, Need, Stage, needed


@dataclass(frozen=True)
class RoundWeights:
    """Round some weights the other way, so that |Σ_k ΔW_oik| ≤ Δw/2 in every kernel.

    A kernel's taps see neighbouring pixels, which are alike: the error Σ_k ΔW_oik·x_k is nearly x·Σ_k ΔW_oik. As
    many taps as the rounded sum of errors has steps move by one step, those first that were nearest to it (Guo et
    al. 2022, SQuant, kernel-wise). The weights become values of their grid; what the change does to the mean of
    an output goes into its bias. Layers with one tap per kernel, and weights that saturate, are left alone.
    """

    keeps: ClassVar[Keeps] = Keeps.TOPOLOGY
    stage: ClassVar[Stage] = Stage.ROUNDING

    bias_bits: int = needed(Need.BIAS_BITS, 32)
    bias_grid: BiasGrid = needed(Need.BIAS_GRID, "accumulator")

    def __call__(self, model: Model) -> Model:
        graph, editor = model.graph, Editor(model.graph)
        flips, corrected = 0, dict[Name, Correction]()
        for layer in layers(graph):
            grid, x = model.qparams.get(layer.weight), model.moments.get(layer.x)
            weight = graph.consts[layer.weight]
            shared = len(graph.users(layer.weight)) > 1
            if grid is None or x is None or shared or layer.unpack(weight).shape[-1] == 1:
                continue
            nearest = quantize(weight, grid)
            integers = kernel_rounding(layer, weight, nearest, grid)
            rounded = dequantize(integers, grid)
            error = mean_error_of(graph, layer, rounded - weight, x)
            editor.set_weight(layer, rounded)
            bias = (bias_of(graph, layer) - error).astype(np.float32)
            known = model.qparams.get(layer.x)
            editor.set_bias(layer, stored_bias(bias, known, self.bias_bits, self.bias_grid))
            flips += int(np.sum(integers != nearest))
            corrected[layer.y] = Correction("analytic", np.ones(error.size, bool))
        facts = {"layers": len(corrected), "weights rounded the other way": flips}
        done = Event(EventKind.KERNELS_ROUNDED, "", facts, "round_weights")
        fresh = {y: found for y, found in corrected.items() if y not in model.corrected}
        rounded_graph = editor.done()
        kept = still_corrected(model, rounded_graph)  # what was corrected for other integers no longer is
        return replace(model, graph=rounded_graph, corrected={**kept, **fresh}).noted(done)


def kernel_rounding(layer: Layer, weight: Array, nearest: Array, grid: QParams) -> Array:
    """Integers for a weight whose errors nearly cancel over the taps of each kernel; `nearest` those of plain rounding.

    Example:
        >>> from equint.ops.layers import tiny_graph
        >>> layer, grid = next(layers(tiny_graph())), QParams(np.float32(1), np.int32(0))
        >>> weight = np.full((4, 1, 3, 3), 0.4, np.float32)
        >>> int(kernel_rounding(layer, weight, quantize(weight, grid), grid)[0].sum())  # 9 times 0.4
        4
    """
    scale, zero = along_axis(grid.steps, grid.axis, weight.ndim), along_axis(grid.zero_point, grid.axis, weight.ndim)
    exact = weight.astype(np.float64) / scale + zero
    error = layer.unpack(nearest - exact)
    open_ = np.abs(error) <= 0.5 + 1e-3
    error = np.where(open_, error, 0.0)
    steps = np.rint(error.sum(-1, keepdims=True))
    signed = error * np.sign(steps)
    order = np.argsort(-signed, axis=-1, kind="stable")
    rank = np.argsort(order, axis=-1, kind="stable")
    flip = (rank < np.abs(steps)) & (signed > 0)
    integers = layer.unpack(nearest) - (flip * np.sign(steps)).astype(nearest.dtype)
    return layer.pack(np.clip(integers, grid.qmin, grid.qmax), weight.shape)
