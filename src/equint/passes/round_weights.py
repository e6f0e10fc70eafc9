"""Rounding in which errors cancel: over the taps of each kernel, or over all that an output reads."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from ..graph.inputs import LEAST
from ..graph.weight_grids import stored_bias
from ..ir.edit import Editor
from ..ir.events import Event, EventKind
from ..ir.model import Array, Correction, Graph, Model, Name, QParams
from ..ir.weights import Layer
from ..maths.affine import BiasGrid, dequantize, in_steps, quantize
from ..maths.rounding import RIDGES, as_strong, fit_error, regressed, second_order, uncertainty
from ..noise.mean_error import mean_error_of
from ..ops.layers import bias_of, layers, still_corrected
from ..samples.generated import generated, misleading, picture_shape
from ..samples.images import Samples
from . import Keeps, Need, Stage, needed

if TYPE_CHECKING:
    from ..runtime.second_moments import SecondMoments

Method = Literal["kernel", "second-order"]

PICTURES = 32
"""Generated pictures that are shown where there are no images."""
TELLING = 64
"""Rows of a layer's weight that tell how firmly all of them are held, at most."""


@dataclass(frozen=True)
class RoundWeights:
    """Round some weights the other way, so that errors cancel in what comes of them.

    - `kernel`: so that |Σ_k ΔW_oik| ≤ Δw/2 in every kernel. Its taps see neighbouring pixels, which are alike: the
      error Σ_k ΔW_oik·x_k is nearly x·Σ_k ΔW_oik. As many taps as the rounded sum of errors has steps move by one step,
      those first that were nearest to it (Guo et al. 2022, SQuant, kernel-wise). Layers with one tap per kernel, and
      weights that saturate, are left alone.
    - `second-order`: so that Δw·H·Δwᵀ is small, H being the second moments of all that an output reads in the quantized
      network, whose layers are rounded in order. Before that a layer's weights are fitted to what it reads there in
      place of what it reads in the float network, as firmly as holds on images that they were not fitted to
      (`equint.maths.rounding`). Without images generated pictures are shown, whose means are half trusted: moments are
      about zero, weights are held firmly, and a bias takes the mean of two errors, theirs and that which the moments
      tell. Where the input is no picture it is done by kernels.

    The weights become values of their grid; what the change does to the mean of an output goes into its bias. Weights
    that several operators read are left alone.
    """

    keeps: ClassVar[Keeps] = Keeps.TOPOLOGY
    stage: ClassVar[Stage] = Stage.ROUNDING

    method: Method = "kernel"
    bias_bits: int = needed(Need.BIAS_BITS, 32)
    bias_grid: BiasGrid = needed(Need.BIAS_GRID, "accumulator")
    images: Samples | None = needed(Need.IMAGES, None)
    teacher: Graph | None = needed(Need.TEACHER, None)
    progress: Callable[[int, int], None] | None = needed(Need.PROGRESS, None)

    def __call__(self, model: Model) -> Model:
        graph, editor = model.graph, Editor(model.graph)
        by_inputs, why = dict[Name, _Rounded](), ""
        if self.method == "second-order":
            images, why = (self.images, "") if self.images is not None else _pictures(model)
            by_inputs = {} if images is None else self._by_second_moments(model, images)
        rounded = {**self._by_kernels(model, by_inputs.keys()), **by_inputs}
        for r in rounded.values():
            editor.set_weight(r.layer, dequantize(r.integers, r.grid))
            editor.set_bias(r.layer, r.bias)
        flips = sum(int(np.sum(r.integers != quantize(graph.consts[r.layer.weight], r.grid))) for r in rounded.values())
        facts = {"layers": len(rounded), "weights rounded the other way": flips}
        events = [
            Event(EventKind.WEIGHTS_ROUNDED if by_inputs else EventKind.KERNELS_ROUNDED, "", facts, "round_weights")
        ]
        if why:
            events.append(Event(EventKind.NOT_ROUNDED_BY_INPUTS, "", {"why": why}, "round_weights"))
        shown = by_inputs.keys() if self.images is not None else ()
        corrected = {
            y: Correction("empirical" if y in shown else "analytic", np.ones(r.bias.size, bool))
            for y, r in rounded.items()
        }
        fresh = {y: found for y, found in corrected.items() if y not in model.corrected}
        rounded_graph = editor.done()
        kept = still_corrected(model, rounded_graph)  # what was corrected for other integers no longer is
        return replace(model, graph=rounded_graph, corrected={**kept, **fresh}).noted(*events)

    def _stored(self, model: Model, layer: Layer, error: Array) -> Array:
        """A layer's bias, less the mean error that its weight makes."""
        bias = (bias_of(model.graph, layer) - error).astype(np.float32)
        return stored_bias(bias, model.qparams.get(layer.x), self.bias_bits, self.bias_grid)

    def _by_kernels(self, model: Model, but: Container[Name]) -> dict[Name, _Rounded]:
        graph, done = model.graph, dict[Name, _Rounded]()
        for layer in (la for la in _alone(model) if la.y not in but):
            x, weight, grid = model.moments.get(layer.x), graph.consts[layer.weight], model.qparams[layer.weight]
            if x is not None and layer.unpack(weight).shape[-1] > 1:
                integers = kernel_rounding(layer, weight, quantize(weight, grid), grid)
                error = mean_error_of(graph, layer, dequantize(integers, grid) - weight, x)
                done[layer.y] = _Rounded(layer, grid, integers, self._stored(model, layer, error))
        return done

    def _by_second_moments(self, model: Model, images: Samples) -> dict[Name, _Rounded]:
        from ..runtime.second_moments import SecondMoments, round_in_order

        chosen = {layer.y: layer for layer in _alone(model)}
        integers = dict[Name, Array]()

        def decide(layer: Layer, seen: Iterable[SecondMoments]) -> tuple[Array, Array]:
            grid, weight = model.qparams[layer.weight], model.graph.consts[layer.weight]
            folds = [fold if self.images is not None else fold.about_zero() for fold in seen]
            x, view = SecondMoments.mean_of(folds), layer.unpack(weight).astype(np.float64)
            rows = x.split(view)
            fit, ridges = (regressed, RIDGES) if self.images is not None else _made_up_fit(grid)
            ridge = _ridge(rows, folds, ridges, fit)
            del folds  # which are large
            wanted = fit(rows, x.covariance, rows @ x.cross, ridge)
            exact = in_steps(layer.pack(x.join(wanted, view.shape), weight.shape), grid)
            damping = uncertainty(x.covariance, x.rows)
            found = second_order(x.split(layer.unpack(exact)), x.covariance, grid.qmin, grid.qmax, damping)
            integers[layer.y] = layer.pack(x.join(found, view.shape), weight.shape).astype(np.int32)
            rounded = x.split(layer.unpack(dequantize(integers[layer.y], grid)).astype(np.float64))
            error = x.summed(np.einsum("bon,bn->bo", rounded, x.seen) - np.einsum("bon,bn->bo", rows, x.mean), view)
            if self.images is None and layer.x in model.moments:
                change = dequantize(integers[layer.y], grid) - weight
                error = (error + mean_error_of(model.graph, layer, change, model.moments[layer.x])) / 2
            return integers[layer.y], self._stored(model, layer, error)

        biases = round_in_order(model, list(chosen.values()), images, decide, self.progress, self.teacher)
        return {y: _Rounded(chosen[y], model.qparams[chosen[y].weight], integers[y], b) for y, b in biases.items()}


Fit = Callable[[Array, Array, Array, float], Array]


def _made_up_fit(grid: QParams) -> tuple[Fit, Sequence[float]]:
    """A fit to made-up samples, and how firmly weights may be held.

    How noisy inputs are is half trusted, half-way to where weights keep their strength; all the way where grids are
    coarse: every layer takes a share of the strength, and the last has little left. Where scales are powers of two a
    layer that is held less firmly may cost the network 4 dB, or none, by how processors round.
    """
    trusted = 0.0 if grid.bits < 8 or grid.power_of_two else 0.5

    def fit(weights: Array, covariance: Array, made: Array, ridge: float) -> Array:
        fitted = regressed(weights, covariance, made, ridge)
        return trusted * fitted + (1 - trusted) * as_strong(fitted, weights, made)

    return fit, RIDGES[2:] if grid.power_of_two else RIDGES[1:]


def _ridge(rows: Array, folds: Sequence[SecondMoments], ridges: Sequence[float], fit: Fit) -> float:
    """How firmly weights are held: least error for moments that they were not fitted to.

    Each fold is tried on the others. What is worse on one of them than weights left as they are has fitted its noise.
    """
    if len(folds) < 2:
        return np.inf
    rows = rows[:, :: -(-rows.shape[1] // TELLING)]
    told = [(fold.covariance, rows @ fold.cross) for fold in folds]
    errors = {
        ridge: np.array([fit_error(fit(rows, *one, ridge), *other) for one, other in permutations(told, 2)])
        for ridge in ridges
    }
    serving = [ridge for ridge in ridges if np.all(errors[ridge] <= errors[np.inf])]
    return min(serving, key=lambda ridge: errors[ridge].sum())


def _pictures(model: Model) -> tuple[Samples | None, str]:
    """Generated pictures that the network runs on, or why there are none."""
    shape = picture_shape(model)
    if shape is None or min(shape[1:]) < LEAST:
        return None, f"no images to look at, and the input is no picture of {LEAST} pixels or more"
    if misleading(model):
        return None, "no images to look at, and nothing tells how far the input reaches"
    from ..runtime.first_run import fitting

    images = fitting(model.graph, lambda size: generated(model, picture_shape(model, size) or shape))
    if images is None:
        return None, "no images to look at, and the network runs on none that was made up"
    return images.first(PICTURES), ""


@dataclass(frozen=True)
class _Rounded:
    """A layer's weight as integers of its grid, and the bias `(O,)` that goes with them."""

    layer: Layer
    grid: QParams
    integers: Array
    bias: Array


def _alone(model: Model) -> Iterator[Layer]:
    """Layers whose weight becomes integers that no other operator reads."""
    users = model.graph.users
    return (la for la in layers(model.graph) if la.weight in model.qparams and len(users(la.weight)) == 1)


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
