"""What a network loses once it is quantized, foretold from the float network: what grids do to its values, times gains.

Nothing quantized runs. The float network shows a few samples: how much its grids would round and cut off is seen on
them, how far noise of either kind gets is measured (`injection.py`), and what rounded weights do is predicted from the
errors that they have.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..graph.results import bounded
from ..ir.model import Array, Graph, Model, Name, QParams
from ..maths.affine import fake_quantize
from ..noise.gains import Gains, evenly, gains
from ..noise.prediction import Prediction, predict
from ..noise.rounded import rounded_layers
from ..onnx.writer import to_proto
from ..samples.images import Run, Samples
from .collect import channel_axes
from .injection import SHOWN, SITES, VALUES, Injector, Source, arriving, measured_gains, single, steady
from .session import Session

LAST = 16
"""Samples on which noise in front of a function such as Softmax is put through it: most are far from where it bends."""


@dataclass(frozen=True)
class Forecast:
    """Noise over signal at a network's outputs, meaned over them.

    Attributes:
        weights: of rounded weights, at the outputs, or in front of the function that bounds them. rounding, clips: of
            what grids round and cut off.
        total: of all, taken as independent, at the outputs.
    """

    weights: float
    rounding: float
    clips: float
    total: float


def forecast(
    reference: Model, quantized: Model, samples: Samples, judged: Sequence[Name] = (), sites: int = SITES
) -> Forecast:
    """What the grids of `quantized` do to the network's outputs, told by the float network `reference` on samples.

    Args:
        reference: the float network as it is before grids are chosen, in the units of `quantized`: rescaled like it,
            with moments.
        judged: tensors whose noise over signal counts, all alike; the outputs, if left out.
        sites: tensors into which noise of each kind is put, at most: as many runs of one sample, twice.

    Raises:
        EquintError: samples that the network does not take.
    """
    graph, table = reference.graph, gains(reference.graph, reference.moments)
    reference, quantized = replace(reference, views={}), replace(quantized, views={})
    feeds = list(single(samples, graph, LAST))
    samples = Samples(lambda: feeds, samples.label)
    ends = {name: bounded(graph, name) for name in dict.fromkeys(judged or graph.outputs)}
    before = {name: found[0] for name, found in ends.items() if found is not None and found[0] in graph.producer}
    places = [before.get(name, name) for name in ends]
    plain = predict(reference, quantized, table=table)
    rounded = [t.tensor for t in plain.tensors]
    weighted = [r.layer.y for r in rounded_layers(reference, table) if r.layer.weight in quantized.qparams]

    def error(name: Name, value: Array, axis: int, rng: np.random.Generator) -> Array:
        return fake_quantize(value, quantized.qparams[name]) - value

    sources = Source("scattered", rounded, error, own=True), Source("steady", weighted, steady)
    tables = table, evenly(graph, {name: m for name, m in reference.moments.items() if name in table.scattered})
    measured = measured_gains(graph, tables, samples, sources, places, sites)
    parts = (
        predict(reference, quantized, table=measured).weights,
        *_grids(graph, quantized, plain, measured, feeds[:SHOWN]),
    )
    total = float(sum(parts))
    if before:
        total = _bounded(graph, before, total, list(ends), feeds)
    return Forecast(*parts, total)


def _grids(
    graph: Graph, quantized: Model, plain: Prediction, measured: Gains, shown: Sequence[Mapping[Name, Array]]
) -> tuple[float, float]:
    """Noise over signal of what all grids round and cut off of the float network's values; fewer samples if many."""
    axes, names = channel_axes(graph), [t.tensor for t in plain.tensors]
    read = tuple(name for name in names if name not in graph.inputs)
    session = Session(to_proto(replace(graph, outputs=read or graph.outputs)), optimized=True, lean=True)
    found, seen = list[tuple[float, float]](), 0
    for feed in shown:
        values, rounding, clips = {**feed, **session.run(Run(feed))}, 0.0, 0.0
        for name in names:
            if name in axes:
                rounded, cut = errors(values[name], quantized.qparams[name])
                rounding += arriving(measured.scattered[name], rounded, axes[name])
                clips += arriving(measured.scattered[name], cut, axes[name])
                seen += rounded.size
        found.append((rounding, clips))
        if seen >= VALUES:
            break
    rounding, clips = np.mean(found, 0).tolist()
    return rounding, clips


def errors(value: Array, grid: QParams) -> tuple[Array, Array]:
    """What a grid rounds of a tensor, and what it cuts off.

    Example:
        >>> grid = QParams(np.float32(0.5), np.int32(0), bits=2, signed=False)
        >>> [e.tolist() for e in errors(np.float32([0.375, 2.0]), grid)]
        [[0.125, 0.0], [0.0, -0.5]]
    """
    inside = np.clip(value, grid.lo, grid.hi)
    return fake_quantize(value, grid) - inside, inside - value


def _bounded(
    graph: Graph, before: Mapping[Name, Name], noise: float, judged: Collection[Name], shown: Sequence[Run]
) -> float:
    """Noise over signal at the outputs, for what there is in front of the functions that bound some of them."""
    noisy, rng = Injector(graph, list(before.values()), list(judged)), np.random.default_rng(0)
    signal, moved = (dict.fromkeys(judged, 0.0) for _ in range(2))
    for feed in shown:
        values, added = noisy.values(feed), dict[Name, Array]()
        for name in before.values():
            power = float(np.mean(np.square(values[name], dtype=np.float64)))
            added[name] = np.sqrt(noise * power) * rng.standard_normal(values[name].shape)
        for name, change in noisy.moved(feed, added).items():
            signal[name] += float(np.sum(np.square(values[name], dtype=np.float64)))
            moved[name] += float(np.sum(np.square(change)))
    each = [moved[n] / max(signal[n], 1e-300) if n in before else noise for n in judged]
    return float(np.mean(each))
