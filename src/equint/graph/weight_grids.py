"""The integer grids of weights: per tensor, per channel, or one for channels that were shifted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..ir.events import Event, EventKind
from ..ir.model import Array, QParams, QSpec, Range
from ..ir.weights import Layer
from ..maths.affine import BiasGrid, choose_qparams, fit_bias, round_bias

SHIFTED_BIAS_BITS = 20
"""Width of biases of channels that are shifted, unless more is asked: accumulators stay small, and nothing is lost."""


def weight_grid(
    layer: Layer, weight: Array, spec: QSpec, chosen: Range | None = None, shift: Array | None = None
) -> QParams:
    """The grid of a layer's weight: per output channel where the spec and the layout have one, else one.

    It holds the extremes, or the range `chosen` for it (what lies outside saturates). With granularity "shift" it is
    one grid for the weight whose output channels were multiplied by 2^shift, `(O,)`.
    """
    axis = layer.out_axis() if spec.granularity != "tensor" and not layer.weight_first else None
    if axis is None:
        lo, hi = (weight.min(), weight.max()) if chosen is None else (np.min(chosen.lo), np.max(chosen.hi))
        return choose_qparams(lo, hi, spec)
    others = tuple(d for d in range(weight.ndim) if d != axis)
    if spec.granularity == "shift":
        shift = np.zeros(weight.shape[axis], np.int32) if shift is None else shift
        lo, hi = (np.ldexp(end(others), shift) for end in (weight.min, weight.max))
        lo, hi = (lo.min(), hi.max()) if chosen is None else (np.min(chosen.lo), np.max(chosen.hi))
        return replace(choose_qparams(lo, hi, spec), axis=axis, shift=shift)
    lo, hi = weight.min(others), weight.max(others)
    if chosen is not None:
        lo, hi = np.maximum(lo, chosen.lo), np.minimum(hi, chosen.hi)
    grid = choose_qparams(lo, hi, spec, axis)
    dead = (lo == 0) & (hi == 0)
    fine = grid.scale[~dead].min(initial=1.0) if not dead.all() else np.float32(2.0**-16)
    return replace(grid, scale=np.where(dead, fine, grid.scale).astype(np.float32))


def stored_bias(bias: Array, x: QParams | None, bits: int, grid: BiasGrid) -> Array:
    """A layer's bias as its integers will say it: on a grid of its own if it has one, float beside a float input."""
    return bias if x is None else round_bias(bias, bits, grid)


def fitted(
    layer: Layer,
    grid: QParams,
    bias: Array | None,
    x: QParams | None,
    bias_bits: int,
    events: list[Event],
    shifted_bias_bits: int = SHIFTED_BIAS_BITS,
) -> QParams:
    """The weight grid, its scale raised, or its shifts lowered, where the layer's bias would overflow `bias_bits`.

    Shifts are lowered from `shifted_bias_bits` on, where these are fewer.
    """
    if x is None or bias is None:
        return grid
    if grid.shift is not None:
        grid = _shifted_less(layer, grid, bias, x, min(bias_bits, shifted_bias_bits), events)
    scale = fit_bias(grid.scale, bias.reshape(-1), float(x.scale), bias_bits, grid.power_of_two)
    raised = scale > grid.scale
    if not np.any(raised):
        return grid
    most = float(np.max(scale / grid.scale))
    facts = {"channels": int(np.sum(raised)), "largest factor": most, "bias bits": bias_bits}
    events.append(Event(EventKind.SCALE_RAISED_FOR_BIAS, layer.name, facts, "quantize", warning=bias_bits < 32))
    return replace(grid, scale=scale)


def _shifted_less(layer: Layer, grid: QParams, bias: Array, x: QParams, bits: int, events: list[Event]) -> QParams:
    """Lower shifts where b_o·2^S_o would be large: one channel's bias then costs the others nothing."""
    assert grid.shift is not None
    need = fit_bias(grid.steps, bias.reshape(-1), float(x.scale), bits)
    less = np.ceil(np.log2(need / grid.steps) - 1e-6).astype(np.int32)
    if not np.any(less > 0):
        return grid
    facts = {"channels": int(np.sum(less > 0)), "by at most": int(np.max(less))}
    events.append(Event(EventKind.SHIFTS_LOWERED_FOR_BIASES, layer.name, facts, "quantize"))
    return replace(grid, shift=np.maximum(grid.shift - np.maximum(less, 0), 0))
