"""Activations on their grids: how often each value occurs, and what share lies beyond the ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..graph.placement import stored_as
from ..ir.model import Array, Model, Name, QParams
from ..onnx.writer import to_proto
from ..ops.layers import layers
from ..runtime.batches import at_once
from ..runtime.session import Session
from ..samples.images import Samples, length, split

INSIDE, BEYOND = 48, 8
"""Bars over the grid, and beyond each of its ends; the outermost hold all that lies farther."""
LOOKED_AT = 8
"""Samples that are counted at most."""


def activation_histograms(model: Model, images: Samples) -> dict[str, Any]:
    """What the float network puts on each activation grid of a quantized one.

    Args:
        model: quantized; its graph is float, in the units of the grids.

    Returns:
        samples, tensors: by name lo, hi (ends of the grid, real), bits, counts (`INSIDE` bars over the grid, `BEYOND`
        on each side), saturated (share of values beyond the ends, 0 to 1).

    Raises:
        EquintError: the network does not run on the samples.

    Example:
        >>> from ..ops.layers import tiny_graph
        >>> model = Model(tiny_graph(), qparams={"y": QParams(np.float32(0.5), np.int32(0), 4)})
        >>> images = Samples.of(np.ones((1, 4, 4, 4), np.float32))
        >>> activation_histograms(model, images)["tensors"]["y"]["saturated"] > 0
        True
    """
    names = [n for n in model.qparams if n not in model.graph.consts and model.graph.is_float(n)]
    counts = {name: np.zeros(INSIDE + 2 * BEYOND, np.int64) for name in names}
    beyond = dict.fromkeys(names, 0)
    session, samples = Session(to_proto(model.graph), taps=_within(model, names)), 0
    for feed in split(images.first(LOOKED_AT), at_once(model.graph)):
        found = session.run(feed)
        given = feed if isinstance(feed, dict) else dict.fromkeys(session.inputs[:1], feed)
        samples += length(feed)
        for name in names:
            values = np.asarray(found[name] if name in found else given[name])
            counts[name] += histogram(values, model.qparams[name])
            beyond[name] += saturated(values, model.qparams[name])
    tensors = {name: _row(model.qparams[name], counts[name], beyond[name]) for name in names if counts[name].any()}
    return {"samples": samples, "tensors": tensors}


def histogram(values: Array, grid: QParams) -> Array:
    """Counts in `INSIDE` bars from end to end of a grid, and `BEYOND` of the same width on each side.

    Example:
        >>> grid = QParams(np.float32(1.0), np.int32(0), 8)
        >>> np.flatnonzero(histogram(np.array([-128.0, 127.0, 1e9, 0.0]), grid)).tolist()
        [8, 32, 55, 63]
    """
    lo, hi = ends(grid)
    width = (hi - lo) / INSIDE
    place = np.floor((np.asarray(values, np.float64).ravel() - lo) / width).clip(-BEYOND, INSIDE + BEYOND - 1)
    top = np.asarray(values).ravel() == hi
    place[top] = INSIDE - 1
    return np.bincount(place.astype(np.intp) + BEYOND, minlength=INSIDE + 2 * BEYOND)


def saturated(values: Array, grid: QParams) -> int:
    """How many values lie more than half a step beyond the ends of their grid.

    Example:
        >>> saturated(np.array([127.4, 127.6, -129.0, 0.0]), QParams(np.float32(1.0), np.int32(0), 8))
        2
    """
    (lo, hi), half = ends(grid), float(np.max(grid.steps)) / 2
    return int(np.count_nonzero((values < lo - half) | (values > hi + half)))


def ends(grid: QParams) -> tuple[float, float]:
    """Lowest and highest value of a grid, in real units."""
    steps, zero = np.asarray(grid.steps, np.float64), np.asarray(grid.zero_point)
    return float(np.min(steps * (grid.qmin - zero))), float(np.max(steps * (grid.qmax - zero)))


def layer_tensors(model: Model) -> list[dict[str, Name]]:
    """Of every layer the tensors of its input and output that have grids."""
    rows = []
    for layer in layers(model.graph):
        both = {"input": layer.x, "output": stored_as(model.graph, layer.y)}
        rows.append({side: name for side, name in both.items() if name in model.qparams})
    return rows


def _within(model: Model, names: Sequence[Name]) -> list[Name]:
    """Tensors that are neither inputs nor outputs."""
    return [n for n in names if n in model.graph.producer and n not in model.graph.outputs]


def _row(grid: QParams, counts: Array, beyond: int) -> dict[str, Any]:
    lo, hi = ends(grid)
    total = int(counts.sum())
    return {"lo": lo, "hi": hi, "bits": grid.bits, "counts": counts.tolist(), "saturated": beyond / total}
