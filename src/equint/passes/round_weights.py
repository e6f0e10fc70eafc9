"""Rounding in which errors cancel: over the taps of each kernel, or over all that an output reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import permutations, product
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from ..graph.weight_grids import stored_bias
from ..ir.edit import Editor
from ..ir.events import Event, EventKind
from ..ir.model import Array, Correction, Model, Name, QParams
from ..ir.weights import Layer
from ..maths.affine import BiasGrid, dequantize, in_steps, quantize
from ..maths.rounding import RIDGES, fit_error, regressed, second_order
from ..noise.mean_error import mean_error_of
from ..ops.layers import bias_of, layers, still_corrected
from ..samples.generated import LEAST, generated, picture_shape
from ..samples.images import Samples
from . import Keeps, Need, Stage, needed

PICTURES = 32
"""Generated pictures that are shown where there are no images."""
if TYPE_CHECKING:
    from ..runtime.second_moments import SecondMoments

Method = Literal["kernel", "second-order"]


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

    method: Method = "kernel"
    bias_bits: int = needed(Need.BIAS_BITS, 32)
    bias_grid: BiasGrid = needed(Need.BIAS_GRID, "accumulator")
    images: Samples | None = needed(Need.IMAGES, None)
    progress: Callable[[int, int], None] | None = needed(Need.PROGRESS, None)

    def __call__(self, model: Model) -> Model:
        graph, editor = model.graph, Editor(model.graph)
        rounded, why = list[_Rounded](), ""
        if self.method == "second-order":
            images, why = (self.images, "") if self.images is not None else _pictures(model)
            rounded = [] if images is None else self._by_second_moments(model, images)
        done = {r.layer.y for r in rounded}
        rounded += [r for r in _by_kernels(model) if r.layer.y not in done]
        corrected = dict[Name, Correction]()
        for r in rounded:
            editor.set_weight(r.layer, dequantize(r.integers, r.grid))
            bias = (bias_of(graph, r.layer) - r.error).astype(np.float32)
            known = model.qparams.get(r.layer.x)
            editor.set_bias(r.layer, stored_bias(bias, known, self.bias_bits, self.bias_grid))
            corrected[r.layer.y] = Correction("analytic", np.ones(r.error.size, bool))
        facts = {"layers": len(corrected), "weights rounded the other way": sum(r.flips for r in rounded)}
        kind = EventKind.WEIGHTS_ROUNDED if done else EventKind.KERNELS_ROUNDED
        events = [Event(kind, "", facts, "round_weights")]
        if why:
            events.append(Event(EventKind.NOT_ROUNDED_BY_INPUTS, "", {"why": why}, "round_weights"))
        fresh = {y: found for y, found in corrected.items() if y not in model.corrected}
        rounded_graph = editor.done()
        kept = still_corrected(model, rounded_graph)  # what was corrected for other integers no longer is
        return replace(model, graph=rounded_graph, corrected={**kept, **fresh}).noted(*events)

    def _by_second_moments(self, model: Model, images: Samples) -> list[_Rounded]:
        from ..runtime.second_moments import SecondMoments, round_in_order

        graph, done = model.graph, list[_Rounded]()

        def decide(layer: Layer, folds: Sequence[SecondMoments]) -> tuple[Array, Array]:
            grid, weight = model.qparams[layer.weight], graph.consts[layer.weight]
            x, view = SecondMoments.mean_of(folds), layer.unpack(weight).astype(np.float64)
            rows = x.split(view)
            wanted = regressed(rows, x.covariance, x.cross, _ridge(rows, folds))
            exact = in_steps(layer.pack(x.join(wanted, view.shape), weight.shape), grid)
            found = second_order(x.split(layer.unpack(exact)), x.covariance, grid.qmin, grid.qmax)
            integers = layer.pack(x.join(found, view.shape), weight.shape).astype(np.int32)
            rounded = x.split(layer.unpack(dequantize(integers, grid).astype(np.float64)))
            error = x.summed(np.einsum("bon,bn->bo", rounded, x.seen) - np.einsum("bon,bn->bo", rows, x.mean), view)
            bias, known = bias_of(graph, layer), model.qparams.get(layer.x)
            stored = stored_bias((bias - error).astype(np.float32), known, self.bias_bits, self.bias_grid)
            done.append(_Rounded(layer, grid, integers, error, int(np.sum(integers != quantize(weight, grid)))))
            return integers, stored - bias

        round_in_order(model, [la for la in layers(graph) if _alone(model, la)], images, decide, self.progress)
        return done


def _ridge(rows: Array, folds: Sequence[SecondMoments]) -> float:
    """What serves best for moments that the weights were not fitted to: each fold is tried on the others."""
    errors = dict.fromkeys(RIDGES, 0.0)
    for ridge, (a, b) in product(RIDGES, permutations(folds, 2)):
        errors[ridge] += fit_error(regressed(rows, a.covariance, a.cross, ridge), rows, b.covariance, b.cross)
    return min(errors, key=lambda ridge: errors[ridge]) if len(folds) > 1 else np.inf


def _pictures(model: Model) -> tuple[Samples | None, str]:
    """Generated pictures that the network runs on, or why there are none."""
    from ..runtime.first_run import fitting

    shape = picture_shape(model)
    if shape is None or min(shape[1:]) < LEAST:
        return None, "no images given, and the input is no picture"
    images = fitting(model, lambda size: generated(model, picture_shape(model, size) or shape))
    if images is None:
        return None, "no images given, and the network runs on none that was made up"
    return images.first(PICTURES), ""


@dataclass(frozen=True)
class _Rounded:
    """A layer's weight as integers of its grid; what they do to the mean of its outputs, `(O,)`, real units."""

    layer: Layer
    grid: QParams
    integers: Array
    error: Array
    flips: int


def _alone(model: Model, layer: Layer) -> bool:
    """Whether a layer's weight becomes integers that no other operator reads."""
    return layer.weight in model.qparams and len(model.graph.users(layer.weight)) == 1


def _by_kernels(model: Model) -> Iterator[_Rounded]:
    graph = model.graph
    for layer in layers(graph):
        x, weight = model.moments.get(layer.x), graph.consts[layer.weight]
        if x is None or not _alone(model, layer) or layer.unpack(weight).shape[-1] == 1:
            continue
        grid = model.qparams[layer.weight]
        nearest = quantize(weight, grid)
        integers = kernel_rounding(layer, weight, nearest, grid)
        error = mean_error_of(graph, layer, dequantize(integers, grid) - weight, x)
        yield _Rounded(layer, grid, integers, error, int(np.sum(integers != nearest)))


def kernel_rounding(layer: Layer, weight: Array, nearest: Array, grid: QParams) -> Array:
    """Integers for a weight whose errors nearly cancel over the taps of each kernel; `nearest` those of plain rounding.

    Example:
        >>> from equint.ops.layers import tiny_graph
        >>> layer, grid = next(layers(tiny_graph())), QParams(np.float32(1), np.int32(0))
        >>> weight = np.full((4, 1, 3, 3), 0.4, np.float32)
        >>> int(kernel_rounding(layer, weight, quantize(weight, grid), grid)[0].sum())  # 9 times 0.4
        4
    """
    error = layer.unpack(nearest - in_steps(weight, grid))
    open_ = np.abs(error) <= 0.5 + 1e-3
    error = np.where(open_, error, 0.0)
    steps = np.rint(error.sum(-1, keepdims=True))
    signed = error * np.sign(steps)
    order = np.argsort(-signed, axis=-1, kind="stable")
    rank = np.argsort(order, axis=-1, kind="stable")
    flip = (rank < np.abs(steps)) & (signed > 0)
    integers = layer.unpack(nearest) - (flip * np.sign(steps)).astype(nearest.dtype)
    return layer.pack(np.clip(integers, grid.qmin, grid.qmax), weight.shape)
