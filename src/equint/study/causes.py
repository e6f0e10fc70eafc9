"""Why a layer loses what it loses when it is quantized."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..ir.events import EventKind
from ..ir.fields import channel_means
from ..ir.model import Array, Model, Name, QParams
from ..ir.weights import Layer
from ..maths.affine import fake_quantize
from ..noise.mean_error import mean_error
from ..onnx.writer import to_proto
from ..ops.layers import as_layer, layers
from ..runtime.session import Session
from .sensitivity import LayerCost, Sensitivity
from .trials import Truth

SPREAD = 8.0
"""Channels whose weights reach so many times further than others' are a cause, where they share a grid."""
OUTLIERS = 16.0
"""A grid that reaches so many times the tensor's root mean square is one."""
_FOR_BIASES = (EventKind.SCALE_RAISED_FOR_BIAS, EventKind.SHIFTS_LOWERED_FOR_BIASES)
FEW = 8
"""Batches that tensors are looked at on."""


@dataclass(frozen=True)
class Cause:
    """One reason, the facts it stands on, and the same in words.

    Attributes:
        kind: "weight spread", "weight outliers", "mean error", "bias", "dead channels", "few weight bits",
            "weights", "clip", "activation outliers", "activation spread", "few activation bits" or "activations".
    """

    kind: str
    facts: Mapping[str, Any]
    text: str


def causes(plain: Model, quantized: Model, ranked: Sensitivity, known: Truth) -> dict[Name, tuple[Cause, ...]]:
    """Causes of every layer that was measured, those of what costs more first.

    Weights: how far channels on one grid differ, what a bias or outliers did to the scale, channels that are dead.
    Output tensor, looked at on the images: what the grid cuts off, and how much of it few values or channels fill.
    """
    own = {layer.y: layer for layer in layers(quantized.graph)}
    wanted = [cost for cost in ranked.layers if cost.alone is not None]
    seen = _seen(plain, quantized, {c.tensor for c in wanted if c.tensor}, known)
    tensor_db = {t.tensor: t.alone.sqnr_db for t in ranked.tensors if t.alone is not None}
    found = {}
    for cost in wanted:
        layer = own[cost.output]
        shifted, of_weights = _mean_error(layer, plain, quantized), _weights(layer, quantized)
        if of_weights[0].kind == "weights" and shifted:
            of_weights = of_weights[1:]
        of_weights += shifted
        of_tensor = _tensor(quantized.qparams[cost.tensor], seen[cost.tensor]) if cost.tensor in seen else []
        first = _weights_first(cost, tensor_db)
        found[cost.layer] = tuple((*of_weights, *of_tensor) if first else (*of_tensor, *of_weights))
    return found


def _weights_first(cost: LayerCost, tensors: Mapping[Name, float]) -> bool:
    """Whether its weights cost more than its output tensor, where both are measured, or else than the rest of both."""
    if cost.weights is None or cost.alone is None:
        return True
    if cost.tensor in tensors:
        return cost.weights.sqnr_db <= tensors[cost.tensor]
    return cost.weights.sqnr_db <= cost.alone.sqnr_db + 3


def _mean_error(layer: Layer, plain: Model, quantized: Model) -> list[Cause]:
    """Whether rounded weights shift the layer's outputs more than they scatter them, and nobody corrects it."""
    x = plain.moments.get(layer.x)
    own = as_layer(plain.graph, plain.graph.producer[layer.y])
    if x is None or own is None:
        return []
    weight, grid = plain.graph.consts[own.weight], quantized.qparams[layer.weight]
    error = own.unpack(fake_quantize(weight, grid) - weight).astype(np.float64)
    g, _, i, _ = error.shape
    std = channel_means(np.square(x.std), own.x_axis, g * i).reshape(g, i)
    scattered = float(np.einsum("goik,gi->", np.square(error), std))
    correction = quantized.corrected.get(layer.y)
    left = np.ones(g * error.shape[1]) if correction is None else ~correction.channels
    shifted = float(np.sum(left * np.square(mean_error(plain.graph, own, grid, x))))
    if shifted <= scattered:
        return []
    facts = {"shifted over scattered": shifted / max(scattered, 1e-30)}
    return [Cause("mean error", facts, "rounding shifts the mean of its outputs, and no bias correction takes it back")]


def _weights(layer: Layer, model: Model) -> list[Cause]:
    grid, weight = model.qparams[layer.weight], model.graph.consts[layer.weight]
    view = np.abs(layer.unpack(weight)).astype(np.float64)
    reach, power = view.max((-1, -2)).ravel(), np.sqrt(np.square(view).mean((-1, -2))).ravel()
    if grid.shift is not None:
        reach, power = reach * 2.0**grid.shift, power * 2.0**grid.shift
    living = reach > 1e-5 * reach.max(initial=0)
    shared = grid.axis is None or grid.shift is not None
    found = []
    spread = float(reach[living].max() / reach[living].min()) if living.any() else 1.0
    if shared and spread >= SPREAD:
        typical = float(reach[living].max() / np.median(reach[living]))
        facts = {"spread": spread, "over the median": typical}
        text = f"its channels' weights reach {spread:.3g} times further in one than in another and share one grid"
        found.append(Cause("weight spread", facts, text))
    peaks = reach[living] / np.maximum(power[living], 1e-30)
    if living.any() and not found and float(peaks.max()) >= OUTLIERS:
        facts = {"largest over rms": float(peaks.max())}
        found.append(Cause("weight outliers", facts, f"one weight is {peaks.max():.3g} times a channel's usual"))
    dead = int(np.sum(~living))
    raised = [e for e in model.log if e.at == layer.name and e.kind in _FOR_BIASES]
    if raised and raised[-1].facts["channels"] > dead:
        text = "its bias is so large that the weights' scale had to be raised"
        found.append(Cause("bias", dict(raised[-1].facts), text))
    if dead:
        found.append(Cause("dead channels", {"channels": dead}, f"{dead} of {reach.size} channels are dead"))
    if grid.bits < 8:
        found.append(Cause("few weight bits", {"bits": grid.bits}, f"{grid.bits} bits are few for its weights"))
    if all(c.kind == "dead channels" for c in found):
        found.insert(0, Cause("weights", {}, "rounding of its weights; nothing about them stands out"))
    return found


@dataclass(frozen=True)
class _Seen:
    """A tensor on the images: what its grid cuts off and rounds, over the signal; and its shape."""

    cut: float
    rounded: float
    low: float
    high: float
    rms: float
    spread: float


def _tensor(grid: QParams, seen: _Seen) -> list[Cause]:
    found = []
    if seen.cut > max(seen.rounded, 1e-12):
        facts = {"lowest": seen.low, "highest": seen.high, "grid": [grid.lo, grid.hi]}
        text = f"its output reaches {seen.low:.3g} to {seen.high:.3g}, its grid only {grid.lo:.3g} to {grid.hi:.3g}"
        found.append(Cause("clip", facts, text))
    reach = max(grid.hi, -grid.lo) / max(seen.rms, 1e-30)
    if not found and reach >= OUTLIERS:
        text = f"its output's grid reaches {reach:.3g} times the output's root mean square: few values need it"
        found.append(Cause("activation outliers", {"reach over rms": reach}, text))
    if not found and seen.spread >= SPREAD:
        text = f"its output's channels differ {seen.spread:.3g} times and share one grid"
        found.append(Cause("activation spread", {"spread": seen.spread}, text))
    if grid.bits < 8:
        found.append(Cause("few activation bits", {"bits": grid.bits}, f"{grid.bits} bits are few for its output"))
    return found or [Cause("activations", {}, "rounding of its output; nothing about it stands out")]


def _seen(plain: Model, quantized: Model, tensors: set[Name], known: Truth) -> dict[Name, _Seen]:
    """The tensors of the float network on some of the images."""
    names = sorted(tensors & plain.graph.producer.keys())
    if not names:
        return {}
    session = Session(to_proto(plain.graph), taps=names)
    sums, count = {name: np.zeros(3) for name in names}, dict.fromkeys(names, 0)
    low, high = dict.fromkeys(names, np.inf), dict.fromkeys(names, -np.inf)
    channels: dict[Name, Array] = {}
    for feed in known.feeds[:FEW]:
        outputs = session.run(feed)
        for name in names:
            x, grid = outputs[name], quantized.qparams[name]
            inside = np.clip(x, grid.lo, grid.hi)
            errors = (x, x - inside, fake_quantize(inside, grid) - inside)
            sums[name] += [float(np.sum(np.square(v, dtype=np.float64))) for v in errors]
            low[name], high[name] = min(low[name], float(x.min())), max(high[name], float(x.max()))
            peak = np.abs(x).max((0, *range(2, x.ndim))) if x.ndim > 1 else np.abs(x)
            channels[name] = np.maximum(channels[name], peak) if name in channels else peak
            count[name] += x.size
    table = {}
    for name, (signal, cut, rounded) in sums.items():
        living = channels[name][channels[name] > 1e-5 * channels[name].max(initial=0)]
        spread = float(living.max() / np.median(living)) if living.size else 1.0
        power, rms = max(signal, 1e-300), float(np.sqrt(signal / max(count[name], 1)))
        table[name] = _Seen(cut / power, rounded / power, low[name], high[name], rms, spread)
    return table
