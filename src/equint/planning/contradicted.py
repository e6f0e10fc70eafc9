"""Whether the input that is described is the one that a network was trained on, as BatchNorms and statistics tell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from ..errors import EquintError, UnusableData
from ..ir.events import Event, EventKind
from ..ir.model import Array, Model, Name, Range
from ..runtime.training import OFF, Apart, Training
from ..samples.images import Samples, split
from ..samples.statistics import Statistics, TensorStatistics
from .plan import Data
from .search import made_up_samples

SHOWN = 8
"""Samples that are held against BatchNorms."""
FAR = 1.5
"""Distance from training, in spreads and doublings, from which it is told: of thirteen networks whose input is known it
was 0.08 to 0.95, up to 1.2 on made-up samples; for pixels from −1 to 1 that should be from 0 to 255, 3 and more."""
BEYOND, NARROW = 0.1, 1 / 16
"""Shares of the range described: values that were measured so far outside it, or fill less of it, are of another."""
ADVICE = "correct --input-range, or mean, std and range in the card, or give the samples that it is for"
ANYWAY = "--force (force=True) goes on with it"


def contradictions(network: Model, data: Data | None, force: bool = False) -> Iterator[Event]:
    """Warnings where the input lies far from what the first BatchNorms saw, or from what statistics hold.

    Args:
        network: float, with its BatchNorms and what is known of its input.
        data: samples or statistics; None: samples are made up.
        force: warn too where most channels of the first layer, or of the input, lie over `OFF` spreads off.

    Raises:
        UnusableData: they do, with the numbers and what to do.
    """
    statistics = None if data is None else data.statistics
    if statistics is not None:
        for name in network.graph.inputs:
            yield from _against(network, name, statistics.tensors.get(name), force)
        network = _as_measured(network, statistics)
    training = Training(network.graph)
    apart = _apart(network, training, None if data is None else data.images)
    if not apart:
        return
    first, name = apart[0], network.graph.inputs[0]
    off = 2 * first.off > first.of
    if off and not force:
        where = f"{name}: {first.off} of {first.of} channels in front of {training.norms[0].label}"
        saw = (
            f"lie over {OFF:g} spreads off what that BatchNorm saw in training (means {first.means:.3g} spreads off, "
            f"values spread {first.spread:.3g} times as wide): the input is not as described"
        )
        raise UnusableData(f"{where} {saw}; {ADVICE}; {ANYWAY}")
    if off or sum(a.distance for a in apart) / len(apart) >= FAR:
        far = max(apart, key=lambda a: a.distance)
        why = f"values there spread {far.spread:.2g} times as wide, with means {far.means:.1f} spreads off"
        yield Event(EventKind.INPUT_CONTRADICTED, name, {"why": f"{why}; {ADVICE}"}, "input", warning=True)


def _apart(network: Model, training: Training, images: Samples | None) -> list[Apart]:
    """How far the input lies from training; nothing where nothing tells."""
    shown = (images or made_up_samples(network)) if training.norms else None
    try:
        return [] if shown is None else training.apart(split(shown.first(SHOWN), 1))
    except EquintError:  # what does not run is told by who needs it
        return []


def _against(network: Model, name: Name, seen: TensorStatistics | None, force: bool) -> Iterator[Event]:
    """A warning, or the refusal, where statistics are of another input than a card or range describes."""
    if seen is None or name not in network.ranges or network.moments[name].origin != "given":
        return
    low, high = (np.ravel(v) for v in (network.ranges[name].lo, network.ranges[name].hi))
    if low.size not in (1, seen.low.size):
        counts = f"the card describes {low.size} channels, the statistics are of {seen.low.size}"
        raise UnusableData(f"{name}: {counts}; correct mean and std in the card, or measure with this card")
    width = high - low
    outside = np.maximum(low - seen.low, seen.high - high) > BEYOND * width
    if not np.any(outside | (seen.high - seen.low < NARROW * width)):
        return
    said = f"measured {seen.low.min():.4g} to {seen.high.max():.4g}, described {low.min():.4g} to {high.max():.4g}"
    todo = "correct the card or range, or measure again with it"
    off = _spreads_off(network, name, seen) > OFF
    if not force and 2 * np.count_nonzero(off) > off.size:
        where = f"{name}: {np.count_nonzero(off)} of {off.size} channels of the statistics"
        raise UnusableData(f"{where} lie over {OFF:g} spreads off the input as described ({said}); {todo}; {ANYWAY}")
    yield Event(EventKind.STATISTICS_CONTRADICTED, name, {"why": f"{said}; {todo}"}, "input", warning=True)


def _spreads_off(network: Model, name: Name, seen: TensorStatistics) -> Array:
    """`(C,)`: how far values measured lie from the mean described, or the other way around, in the other's spreads."""
    said, found = network.moments[name], seen.moments
    mean, std, measured, spread = (np.ravel(v) for v in (said.mean, said.std, found.mean, found.std))
    away, least = np.abs(measured - mean), np.finfo(np.float64).tiny
    ways = [np.hypot(away, a) / np.maximum(b, least) for a, b in ((spread, std), (std, spread))]
    return np.asarray(np.maximum(*ways))


def _as_measured(network: Model, statistics: Statistics) -> Model:
    """The network whose inputs are known as statistics hold them."""
    seen = {n: statistics.tensors[n] for n in network.graph.inputs if n in statistics.tensors}
    moments = {name: one.moments for name, one in seen.items()}
    ranges = {name: Range(one.field(one.low), one.field(one.high)) for name, one in seen.items()}
    return replace(network, moments={**network.moments, **moments}, ranges={**network.ranges, **ranges})
