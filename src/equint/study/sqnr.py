"""Noise of every layer alone, without equalization and with each kind: predicted, measured, and how far from optimal.

What Meller et al. (2019) show in section 5.1 and figures 4 to 6, for any network and target.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..files import Facts
from ..hardware.target import Target
from ..ir.model import Array, Model, Name, QSpec
from ..ir.weights import Layer
from ..maths.affine import choose_qparams
from ..maths.noise import to_db
from ..noise.prediction import LayerNoise, predict
from ..noise.published import published
from ..ops.layers import layers
from ..passes import Pass
from ..passes.correct_bias import CorrectBias
from ..passes.one_step import OneStep
from ..passes.optimal import Optimal
from ..passes.quantize import Quantize
from ..passes.two_step import TwoStep
from ..planning.run import Progress
from ..runtime.layer_noise import LayerPower, Measured, measure
from ..samples.images import Samples
from .totals import totals
from .weights import by_channel

METHODS = ("none", "one-step", "two-step", "optimal")
"""Kinds of equalization that are compared."""
KINDS = ("weights", "rounding", "clips", "activations", "both")
"""Kinds of noise: of rounded weights; of the rounded input, of what is cut off from it, of these two; of everything."""
PUBLISHED = {kind: kind for kind in ("weights", "output", "y1", "input", "earlier", "y2")} | {"input": "rounding"}
"""What equations 5 to 9 predict (`PublishedSqnr`), and the kind of noise that it is measured as."""
SILENT = 100.0
"""SQNR in dB above which a layer is free of noise: what is measured there is float32's own rounding."""


@dataclass(frozen=True)
class LayerSqnr(Facts):
    """Every layer's noise under each kind of equalization.

    Attributes:
        images: how many were measured on, 0 without.
        methods: for each of `METHODS` what `layer_rows` says (layers), and what `agreement` says of each kind of noise
            predicted from known errors (agreement) and of each of `PUBLISHED` (published_agreement); both are empty
            where nothing was measured. total: SQNR of the network's outputs as `equint.study.totals.Total` has it;
            None where nothing was measured.
    """

    target: str
    images: int
    methods: Mapping[str, Mapping[str, Any]]
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        count = len(self.methods["none"]["layers"])
        return f"LayerSqnr(target={self.target!r}, images={self.images}, layers={count}, methods={list(self.methods)})"


def sqnr(
    reference: Model,
    on: Target,
    images: Samples | None = None,
    progress: Progress | None = None,
    warnings: Sequence[str] = (),
) -> LayerSqnr:
    """Every layer's SQNR at its own output, before its activation.

    Each layer reads what the float network puts out, and only its weights, its input tensor or both are quantized.
    All methods use the same formats, without bias correction; `optimal` chooses ranges too, and may cut off a little.
    At the network's outputs everything is quantized, and biases are corrected from moments, as predictions take them.

    Args:
        reference: the float network, BatchNorms folded, with moments and ranges.
        images: what to measure on; left out, nothing is measured.

    Raises:
        EquintError: as `equint.runtime.layer_noise.measure`.
    """
    grids = Quantize(weight=on.weight, activation=on.activation, bias_bits=on.bias_bits)
    optimal = Optimal(on.weight, on.activation, shift_bits=on.shift_bits)
    steps: tuple[Pass | None, ...] = (None, OneStep(), TwoStep(), optimal)
    seen, table, models = 0, dict[str, Any](), dict[str, tuple[Model, Model]]()
    for number, (name, step) in enumerate(zip(METHODS, steps, strict=True)):
        if progress is not None:
            progress(name, number, len(METHODS))
        before = reference if step is None else step(reference)
        quantized, measured = grids(before), None
        models[name] = before, CorrectBias(on.bias_bits)(quantized)
        if images is not None:
            measured = measure(reference, quantized, images, progress=_within(progress, name, number))
            seen = measured.images
        rows = layer_rows(reference, quantized, on.weight, on.activation, measured)
        kinds = {kind: agreement(pairs(rows, kind)) for kind in KINDS} if images is not None else {}
        theirs = {kind: agreement(published_pairs(rows, kind)) for kind in PUBLISHED} if images is not None else {}
        table[name] = {"layers": rows, "agreement": {kind: found for kind, found in kinds.items() if found}}
        table[name]["published_agreement"] = {kind: found for kind, found in theirs.items() if found}
        table[name]["total"] = None
    if images is not None and seen:
        done = _within(progress, "outputs", len(METHODS) - 1)
        for name, total in totals(reference.graph, models, images, done).items():
            table[name]["total"] = total.facts()
    return LayerSqnr(on.name, seen, table, tuple(warnings))


def _within(progress: Progress | None, name: str, number: int) -> Callable[[int], None] | None:
    return None if progress is None else lambda done: progress(f"{name}, image {done}", number, len(METHODS))


def layer_rows(
    reference: Model, quantized: Model, weight: QSpec, activation: QSpec, measured: Measured | None = None
) -> list[dict[str, Any]]:
    """What is known of every layer, SQNR in dB; None where nothing is quantized, nothing known, or nothing lost.

    Args:
        quantized: the network with grids; its channels may be rescaled and its clips moved.
        weight, activation: formats of the grids.

    Returns:
        name, tensor (its output) and input of each layer;
        predicted, from the errors that rounded weights have, and measured: for each of `KINDS` (measured is None
            without measurement, and has what `PUBLISHED` is compared with as well);
        published: what equations 5 to 9 predict of every layer's grids, for each of `PUBLISHED`;
        equalization: for weights and activations (the input tensor), what is `reached` and the `bound` that optimal
            equalization would reach: `weight_equalization` and `tensor_equalization`.
    """
    predicted = {noise.tensor: noise for noise in predict(reference, quantized).layers}
    own, rows = {layer.y: layer for layer in layers(quantized.graph)}, list[dict[str, Any]]()
    theirs = published(reference, quantized)
    for layer in layers(reference.graph):
        if layer.y not in own:
            continue
        equalization = {"weights": weight_equalization(quantized, own[layer.y], weight)}
        equalization["activations"] = tensor_equalization(reference, quantized, layer.x, activation)
        row: dict[str, Any] = {"name": layer.name, "tensor": layer.y, "input": layer.x}
        row["predicted"] = _predicted(predicted.get(layer.y))
        row["published"] = _decibels({kind: _inverse(getattr(theirs[layer.y], kind)) for kind in PUBLISHED})
        row["measured"] = None if measured is None else _measured(measured, layer.y)
        rows.append({**row, "equalization": {k: {"reached": a, "bound": b} for k, (a, b) in equalization.items()}})
    return rows


def weight_equalization(model: Model, layer: Layer, spec: QSpec) -> tuple[float | None, float | None]:
    """How well the output channels of a layer's weights share their grid, and how well they could: SQNR in dB.

    ΣW²/ΣΔW² with uniform noise (Meller et al. 2019, section 5.1), and the same where every output channel is scaled
    until it fills the grid. No scales of output channels exceed that while the grid holds all weights; where it cuts
    some off, as `optimal` may, their error counts too. Where each channel has its own grid, nothing is left to reach.
    """
    grid = model.qparams.get(layer.weight)
    if grid is None:
        return None, None
    flat = by_channel(layer, model.graph.consts[layer.weight])
    power = np.mean(np.square(flat, dtype=np.float64), axis=1)
    alone = choose_qparams(flat.min(1), flat.max(1), spec).scale
    step, zero = (a.reshape(-1).astype(np.float64) for a in (grid.steps, grid.zero_point))
    lo, hi = (step * (end - zero) for end in (grid.qmin - 0.5, grid.qmax + 0.5))
    beyond = flat - np.clip(flat, lo[:, None], hi[:, None])
    return _filled(power, step, np.mean(np.square(beyond), axis=1)), _filled(power, alone)


def tensor_equalization(
    reference: Model, quantized: Model, name: Name, spec: QSpec
) -> tuple[float | None, float | None]:
    """How well a tensor's channels share their grid, and how well they could: SQNR in dB, from moments.

    ΣY²/ΣΔY² with uniform noise (Meller et al. 2019, section 5.1), and the same where every channel's range fills the
    grid, as in `weight_equalization`. Ranges are those of `reference`: where `optimal` chooses narrower ones it may
    exceed the bound, and what it cuts off is not counted.
    """
    grid, known, moments = quantized.qparams.get(name), reference.ranges.get(name), reference.moments.get(name)
    if grid is None or known is None or moments is None:
        return None, None
    scale = quantized.views[name].scale if name in quantized.views else np.ones(1)
    lo, hi, power, steps = np.broadcast_arrays(
        known.lo, known.hi, np.square(moments.mean) + np.square(moments.std), grid.steps * scale
    )
    power = np.where(hi > lo, power, 0.0)
    return _filled(power, steps), _filled(power, choose_qparams(lo, hi, spec).scale)


def _filled(power: Array, step: Array, cut: Array | float = 0.0) -> float | None:
    """SQNR in dB of channels on one grid, once each is scaled so that the grid's `step` is the same for all.

    mean(power/step²) / (1/12 + mean(cut/step²)), over channels that are not all zero: zeros are exact.

    Args:
        power, cut: `(C,)` mean squares of values, and of what lies beyond the grid.
    """
    live = power > 0
    if not live.any():
        return None
    signal, lost = (
        np.mean((np.broadcast_to(a, live.shape) / np.square(step, dtype=np.float64))[live]) for a in (power, cut)
    )
    return to_db(float((1 / 12 + lost) / signal))


def _predicted(noise: LayerNoise | None) -> dict[str, float | None]:
    weights, rounding, clips = (None,) * 3 if noise is None else (noise.weights, noise.activations, noise.clips)
    activations = None if rounding is None else rounding + (clips or 0.0)
    both = None if weights is None or activations is None else weights + activations
    return _decibels(dict(zip(KINDS, (weights, rounding, clips, activations, both), strict=True)))


def _measured(measured: Measured, name: Name) -> dict[str, float | None]:
    found = measured.layers.get(name, LayerPower(0.0))
    ratios = {kind: _over(getattr(found, kind), found.signal) for kind in (*KINDS, "earlier", "y2")}
    return _decibels(ratios | {kind: _over(getattr(found, kind), found.stored) for kind in ("output", "y1")})


def _over(noise: float | None, signal: float | None) -> float | None:
    return None if noise is None or not signal else noise / signal


def _inverse(ratio: float | None) -> float | None:
    return None if ratio is None else 1 / ratio


def _decibels(ratios: Mapping[str, float | None]) -> dict[str, float | None]:
    """SQNR in dB of noise over signal; None where there is no noise."""
    table = ((kind, None if r is None or r <= 0 else to_db(r)) for kind, r in ratios.items())
    return {kind: None if value is None or value > SILENT else value for kind, value in table}


def pairs(rows: Sequence[Mapping[str, Any]], kind: str) -> list[tuple[float, float]]:
    """(predicted, measured) SQNR of a kind of noise in every layer of which both are known."""
    both = [(row["predicted"].get(kind), (row["measured"] or {}).get(kind)) for row in rows]
    return [(p, m) for p, m in both if p is not None and m is not None]


def published_pairs(rows: Sequence[Mapping[str, Any]], kind: str) -> list[tuple[float, float]]:
    """(published prediction, measured) SQNR of one of `PUBLISHED` in every layer of which both are known."""
    both = [(row["published"].get(kind), (row["measured"] or {}).get(PUBLISHED[kind])) for row in rows]
    return [(p, m) for p, m in both if p is not None and m is not None]


def agreement(known: Sequence[tuple[float, float]]) -> dict[str, float]:
    """How well (predicted, measured) SQNRs agree; nothing for less than three.

    Returns:
        layers: their number; correlation; rms: root mean square of predicted − measured; mean: of the same, in dB.

    Example:
        >>> agreement([(10.0, 11.0), (20.0, 22.0), (30.0, 33.0)])
        {'layers': 3, 'correlation': 1.0, 'rms': 2.160246899469287, 'mean': -2.0}
    """
    if len(known) < 3:
        return {}
    predicted, measured = np.array(known).T
    error = predicted - measured
    alike = np.ptp(predicted) == 0 or np.ptp(measured) == 0
    correlation = 0.0 if alike else float(np.corrcoef(predicted, measured)[0, 1])
    rms = float(np.sqrt(np.mean(np.square(error))))
    return {"layers": len(known), "correlation": correlation, "rms": rms, "mean": float(np.mean(error))}
