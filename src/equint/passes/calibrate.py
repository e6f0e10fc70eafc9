"""Moments and ranges of all tensors as measured on images: the user's, or where nothing else tells, generated ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Protocol

import numpy as np

from ..errors import UnusableData, counted
from ..graph.inputs import LEAST
from ..graph.moments import propagate, told
from ..graph.placement import place
from ..graph.ranges import tensor_ranges
from ..ir.events import Event, EventKind
from ..ir.model import Array, Graph, Growth, Model, Moments, Name, Origin, QSpec, Range
from ..maths import ranges as rules
from ..maths.gaussian import unclipped
from ..ops.activations import is_clamp
from ..ops.attributes import clip_bounds, is_cast
from ..ops.layers import leads_to_layer
from ..samples.generated import beside, generated, made_up, misleading, picture_shape
from ..samples.images import Samples
from ..samples.statistics import Statistics, TensorStatistics
from . import Keeps, Need, Stage, needed, require

Rule = Literal["min-max", "image-percentile", "percentile", "mse", "n-sigma"]
StandIn = Literal["auto", "generated", "propagated"]
Without = Literal["allowed", "warned", "refused"]
Beside = Literal["nothing", "made up"]


class Collect(Protocol):
    """Measures what the tensors of a network do on images; `histograms`: their values are counted too."""

    def __call__(
        self,
        graph: Graph,
        images: Samples,
        *,
        histograms: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> Statistics: ...


MARGIN = 1.3
"""Tensors are taken to reach so much further than on generated pictures: measured, docs/moments.md."""
COST = "extremes follow from moments, which may cost all accuracy: give 64 images (docs/recipes.md)"
"""What it costs to go without images that a recipe is published with."""
OUTSIDE = 0.05
"""Images may reach beyond an input's range by this share of its width, as resampled ones do."""
LOOSE = 8.0
"""A range that follows from others' alone and is so many times too wide costs three bits."""
UNLIKE = 2.5
"""What the first BatchNorm puts out may spread so many times as far, or as little, as in training, and its means lie
so many spreads away, before images are in doubt: 0.7 to 1.9, and below 1.6, where they are prepared as in training;
usually 2 to 300 where they are not (docs/calibration.md)."""
FAINT = 1e-12
"""No sensor's values are all so close to 0."""
FEW = 16
"""Fewer images than these are worth a warning: none at all serve better (docs/calibration.md)."""


@dataclass(frozen=True)
class Calibrate:
    """Show the network images, and keep what its tensors do: mean and spread, lowest and highest value per channel.

    The range of a tensor is its channels' extremes, cut where a rule says:

    - `min-max`: nowhere.
    - `image-percentile`: at the `percent` percentile of the images' lowest values, and mirrored (WES: 1 %).
    - `percentile`: `percent` per cent of all values lie beyond either end (0.01 %).
    - `mse`: the ends whose grid makes the least mean squared error.
    - `n-sigma`: mean ± n·std per channel.

    Without images no rule but the first can be followed, and a warning says so.

    What stands between a layer and its ReLU or clip is never stored: its moments are those of the Gaussian that the
    activation turns into what was measured (docs/calibration.md). Without images, a network whose BatchNorms tell of
    all that layers read is left to them; another is shown generated pictures if its input looks like pictures, for
    what they do not tell (`graph/moments.told`). Tensors are taken to reach
    MARGIN times further than on these, and the network's results as far as their moments say.

    Attributes:
        percent: 0 is what the rule usually takes.
        stand_in: where neither images nor BatchNorms tell: `generated` pictures, what is `propagated` from the
            input, or by the input's shape (`auto`).
        without_images: whether a recipe that is published with images goes without: `refused` unless asked for, which
            makes it `warned`.
        first: look at the first so many images, where there are more.
        beside: `made up` samples are shown beside images, prepared like these, so that ranges also hold what another
            kind of samples does.
        statistics: what was measured before, in place of images.
        collect: measures, in place of `runtime.collect.collect`.

    Raises:
        EquintError: no images where they may not be left out, statistics of another network, or without the
            histograms that the rule needs.

    Example:
        >>> from equint.ops.layers import tiny_graph
        >>> model = Calibrate(images=Samples.of(np.ones((2, 4, 4, 4), np.float32)))(Model(tiny_graph()))
        >>> model.moments["y"].origin, float(model.ranges["y"].hi.max())
        ('calibration', 9.0)
    """

    keeps: ClassVar[Keeps] = Keeps.FLOATS
    stage: ClassVar[Stage] = Stage.BEFORE

    rule: Rule = "min-max"
    percent: float = 0.0
    n: float = 6.0
    stand_in: StandIn = "auto"
    without_images: Without = "allowed"
    first: float = math.inf
    beside: Beside = "nothing"
    images: Samples | None = needed(Need.IMAGES, None)
    statistics: Statistics | None = needed(Need.STATISTICS, None)
    collect: Collect | None = needed(Need.COLLECT, None)
    activation: QSpec | None = needed(Need.ACTIVATION, QSpec(8, signed=False, symmetric=False))
    progress: Callable[[int, int], None] | None = needed(Need.PROGRESS, None)

    def __post_init__(self) -> None:
        require("percent", self.percent, 0 <= self.percent < 50, "0 to 50")
        require("first", self.first, self.first >= 1, "1 or more")
        require("n", self.n, 0 < self.n < math.inf, "a number above 0")

    def __call__(self, model: Model) -> Model:
        if self.statistics is not None:
            return self._applied(model, self.statistics)
        if self.images is not None:
            images = self.images.first(int(self.first)) if self.first < math.inf else self.images
            counted = self.rule in ("percentile", "mse")
            found = self._measured(model, images, counted)
            return self._applied(model, self._further(model, images, found, counted))
        if self.without_images == "refused":
            raise UnusableData(
                "the recipe takes activation extremes from images, 64 as published: give data, or images = 64 and a "
                "card that names some; images = 0 takes them from moments, at a cost (docs/recipes.md)"
            )
        if self.without_images == "warned":
            model = model.noted(Event(EventKind.IMAGES_LEFT_OUT, "", {"why": COST}, "calibrate", warning=True))
        samples, why = self._stand_in(model)
        if samples is None:
            return self._completed(model.noted(self._without(why)))
        imagined = self._imagined(model, self._measured(model, samples, counted=False), samples.label)
        return imagined if self.rule == "min-max" else imagined.noted(self._without("no images to look at"))

    def _measured(self, model: Model, images: Samples, counted: bool) -> Statistics:
        """What the network's tensors do on images; where `counted`, with histograms."""
        from ..runtime.collect import collect

        progress = self.progress
        tell = None if progress is None else lambda done: progress(done, 0)
        return (self.collect or collect)(model.graph, images, histograms=counted, progress=tell)

    def _further(self, model: Model, images: Samples, found: Statistics, counted: bool) -> Statistics:
        """What images show, with what made-up samples do beside them."""
        from ..runtime.first_run import fitting

        made = None if self.beside == "nothing" else fitting(model.graph, lambda size: beside(model, images))
        return found if made is None else found + self._measured(model, made, counted)

    def _without(self, why: str) -> Event:
        """That no images were shown; a warning where the rule cannot be followed without."""
        unmet = self.rule != "min-max"
        why += f"; ranges are not those of rule {self.rule}, which needs images" if unmet else ""
        return Event(EventKind.NOT_CALIBRATED, "", {"why": why}, "calibrate", warning=unmet)

    def _stand_in(self, model: Model) -> tuple[Samples | None, str]:
        """Generated pictures, waveforms or features, or why none are shown."""
        if misleading(model) or (model.trained and not _untold(model)):
            return None, "no images to look at; BatchNorm tells means and spreads"
        if self.stand_in == "propagated":
            return None, "no images to look at; means and spreads are propagated from the input"
        shape = picture_shape(model)
        if shape is not None and min(shape[1:]) < LEAST and self.stand_in == "auto":
            return None, "no images to look at, and the input is too small for a picture"
        from ..runtime.first_run import fitting

        def made(size: int) -> Samples | None:
            return made_up(model, size) if shape is None else generated(model, picture_shape(model, size) or shape)

        images = fitting(model.graph, made)
        return (
            images,
            "" if images is not None else "no images to look at, and the network runs on none that was made up",
        )

    def _completed(self, model: Model) -> Model:
        """What is to become integer, and of which nothing tells a range, as made-up samples show it.

        That operands reach so far or so far says little of quotients and products of them: where moments are not known
        and samples reach LOOSE times less far, these tell.
        """
        graph, known = model.graph, propagate(model.graph, model.moments)
        told = tensor_ranges(graph, known, model.ranges, self.n)
        sure = told.keys() & (known.keys() | model.ranges.keys())
        if self.stand_in == "propagated" or all(t in sure for tensors in place(graph).classes for t in tensors):
            return model
        from ..runtime.first_run import fitting

        images = fitting(model.graph, lambda size: made_up(model, size))
        found = {} if images is None else self._measured(model, images, counted=False).tensors
        missing = {name: t for name, t in found.items() if name not in sure and _beyond(told.get(name), t)}
        if not missing:
            return model
        moments = {name: replace(t.moments, origin="generated") for name, t in missing.items()}
        ranges = {name: Range(MARGIN * t.field(t.low), MARGIN * t.field(t.high)) for name, t in missing.items()}
        facts = {"tensors": len(missing), "why": "neither BatchNorm nor propagation tells; give images"}
        event = Event(EventKind.RANGES_FROM_MADE_UP_SAMPLES, "", facts, "calibrate", warning=True)
        known = propagate(graph, {**model.moments, **moments})
        return replace(model, moments=known, ranges={**model.ranges, **ranges}).noted(event)

    def _imagined(self, model: Model, statistics: Statistics, what: str) -> Model:
        """What made-up samples show of tensors that BatchNorms tell nothing of: these know better."""
        graph = model.graph
        if model.trained:
            known = told(graph, model.moments)
            statistics = replace(statistics, tensors={n: t for n, t in statistics.tensors.items() if n not in known})
        seen = replace(self, rule="min-max")._applied(model, statistics, "generated", what)
        inputs = [*graph.inputs, *(n.outputs[0] for n in graph.nodes if is_cast(n) and n.inputs[0] in graph.inputs)]
        sure = tensor_ranges(graph, {}, {n: model.ranges[n] for n in inputs if n in model.ranges}, 0.0)
        further = {
            n: _within(Range(MARGIN * r.lo, MARGIN * r.hi), sure.get(n))
            for n, r in seen.ranges.items()
            if n in statistics.tensors and n not in graph.inputs and leads_to_layer(graph, n)
        }
        return replace(seen, ranges={**model.ranges, **further})

    def _applied(self, model: Model, statistics: Statistics, origin: Origin = "calibration", what: str = "") -> Model:
        graph = model.graph
        table = {name: t for name, t in statistics.tensors.items() if name in graph.producer or name in graph.inputs}
        for name, t in table.items():
            shape = graph.shapes.get(name)
            if len(shape or ()) != t.rank or (t.low.size > 1 and (not shape or shape[t.axis] != t.low.size)):
                raise UnusableData(f"statistics of tensor {name} are of another network; calibrate this one")
        measured = {name: replace(t.moments, origin=origin) for name, t in table.items()}
        given = [n for n in graph.inputs if n in model.moments and model.moments[n].origin == "given"]
        if origin == "generated":  # pictures were made to fit what is known of the input
            given = [n for n in graph.inputs if n in model.moments and n in model.ranges]
        kept = {n: model.moments[n] for n in given if origin == "generated"}
        moments = {**model.moments, **measured, **kept}
        ranges = {name: self._range(name, t) for name, t in table.items()}
        for name in given:  # a card knows better than a few images how far an input reaches
            ranges[name] = model.ranges[name]
        moments |= _before_activations(graph, moments)
        facts: dict[str, Any] = {"images": statistics.images, "tensors": len(table), "ranges": self.rule}
        few = statistics.images < FEW
        if few:
            facts["why"] = f"fewer than {FEW} images tell little of ranges; no images at all may serve better"
        imagined = origin == "generated"
        if imagined:
            some = f"{counted(len(table), 'tensor')}, {next(iter(table), '')} first"
            facts["why"] = f"BatchNorms tell nothing of {some}" if model.trained else "there is no BatchNorm"
            facts["what"] = what
        kind = EventKind.CALIBRATED_ON_PICTURES if imagined else EventKind.CALIBRATED
        event = Event(kind, "", facts, "calibrate", warning=few or imagined)
        doubts = [] if imagined else [*_doubts(model, statistics, given), *_unlike_training(model, moments)]
        known = replace(model, moments=propagate(graph, moments), ranges={**model.ranges, **ranges})
        if not imagined:
            known = replace(known, growth={name: _growth(t) for name, t in table.items()})
        return known.noted(event, *doubts)

    def _range(self, name: Name, t: TensorStatistics) -> Range:
        low, high = t.low, t.high
        if self.rule == "n-sigma":
            m = t.moments
            low, high = (np.clip((m.mean + side * m.std).reshape(-1), low, high) for side in (-self.n, self.n))
        elif self.rule == "image-percentile":
            share = (self.percent or 1.0) / 100
            low = np.maximum(low, rules.quantile(t.lows.edges, t.lows.counts, share))
            high = np.minimum(high, rules.quantile(t.highs.edges, t.highs.counts, share, top=True))
        elif self.rule in ("percentile", "mse"):
            h = t.values
            if h is None:
                raise UnusableData(f"the statistics hold no histogram of tensor {name}; calibrate with histograms")
            if self.rule == "percentile":
                lo, hi = rules.histogram_percentile(h.edges, h.counts, self.percent or 0.01)
            else:
                lo, hi = rules.mse(h.edges, h.counts, self.activation or QSpec(8, signed=False, symmetric=False))
            low, high = np.maximum(low, lo), np.minimum(high, hi)
        return Range(t.field(low), t.field(np.maximum(low, high)))


def _untold(model: Model) -> bool:
    """Whether BatchNorms leave open how far something reaches that is to become integer and that layers read."""
    sure, graph = told(model.graph, model.moments), model.graph
    return any(n not in sure and leads_to_layer(graph, n) for names in place(graph).classes for n in names)


def _unlike_training(model: Model, measured: Mapping[Name, Moments]) -> Iterator[Event]:
    """A warning for images that the first BatchNorm has not seen the like of in training."""
    graph = model.graph
    for name in (o for node in graph.nodes for o in node.outputs):
        trained, found = model.moments.get(name), measured.get(name)
        if trained is None or found is None or (trained.origin, found.origin) != ("batchnorm", "calibration"):
            continue
        std, spread, mean, seen = np.broadcast_arrays(trained.std, found.std, trained.mean, found.mean)
        alive = (std > 0) & (spread > 0)
        if not alive.any():
            continue
        ratio = float(np.median(spread[alive] / std[alive]))
        shift = float(np.median(np.abs(seen - mean)[alive] / std[alive]))
        if max(ratio, 1 / ratio, shift) > UNLIKE:
            why = (
                "images are unlike those of training, as the first BatchNorm behind the input remembers them; check "
                "how they are prepared (pixels 0 to 255 or 0 to 1, mean and std of the card)"
            )
            facts = {"why": why, "spread over trained spread": ratio, "means moved, in spreads": shift}
            yield Event(EventKind.CALIBRATION_DOUBTFUL, name, facts, "calibrate", warning=True)
        return


def _growth(t: TensorStatistics) -> Growth:
    """By how much the ends of a tensor's range grow with twice as many samples, and of how many values they are."""
    low, high = abs(float(t.low.min())), abs(float(t.high.max()))
    downwards = rules.last_doubling(-t.lows.edges[::-1], t.lows.counts[::-1])
    upwards = rules.last_doubling(t.highs.edges, t.highs.counts)
    shares = (downwards / low if low else 0.0), (upwards / high if high else 0.0)
    return Growth(*shares, t.images, t.count / max(t.images, 1), t.low.size)


def _doubts(model: Model, statistics: Statistics, given: Collection[Name]) -> Iterator[Event]:
    """A warning for images that cannot be what the network will see."""

    def doubt(at: Name, why: str, **facts: float) -> Event:
        return Event(EventKind.CALIBRATION_DOUBTFUL, at, {"why": why, **facts}, "calibrate", warning=True)

    tensors = statistics.tensors
    inputs = {n: tensors[n] for n in model.graph.inputs if n in tensors}
    for name, t in inputs.items():
        low, high = float(t.low.min()), float(t.high.max())
        if low == high:
            yield doubt(name, "all values of all images are the same", value=low)
        elif max(abs(low), abs(high)) < FAINT:
            yield doubt(name, "no value is further from 0 than that; check how images are scaled", low=low, high=high)
        if name in given and name in model.ranges:
            least, most = float(np.min(model.ranges[name].lo)), float(np.max(model.ranges[name].hi))
            slack = OUTSIDE * (most - least)
            if low < least - slack or high > most + slack:
                yield doubt(
                    name, "images reach beyond the input range given", low=low, high=high, least=least, most=most
                )
    differ = any(h.counts.size > 1 for t in tensors.values() for h in (t.lows, t.highs))
    if statistics.images > 1 and tensors and not differ and any(t.low.min() < t.high.max() for t in inputs.values()):
        yield doubt("", "all images are the same", images=statistics.images)


def _beyond(told: Range | None, found: TensorStatistics) -> bool:
    """Whether nothing tells how far a tensor reaches, or what does is far from what samples show."""
    return told is None or _reach(told.lo, told.hi) > LOOSE * _reach(found.low, found.high)


def _reach(low: Array, high: Array) -> float:
    """The greatest magnitude between these ends."""
    return float(max(np.max(np.abs(low)), np.max(np.abs(high))))


def _within(found: Range, bound: Range | None) -> Range:
    """A range, no further than it can be."""
    return found if bound is None else Range(np.maximum(found.lo, bound.lo), np.minimum(found.hi, bound.hi))


def _before_activations(graph: Graph, measured: dict[Name, Moments]) -> dict[Name, Moments]:
    """Moments of what stands between layers and activations, from what the activations put out."""
    merged, inferred = place(graph).merged, dict[Name, Moments]()
    for node in reversed(graph.nodes):
        if not is_clamp(graph, node) or node.inputs[0] not in merged:
            continue
        after = inferred.get(node.outputs[0]) or measured.get(node.outputs[0])
        lo, hi = clip_bounds(graph, node)
        if after is None or after.origin not in ("calibration", "generated") or lo is None or hi is None:
            continue
        shape = np.broadcast_shapes(after.mean.shape, lo.shape, hi.shape)
        mean, std = (np.broadcast_to(a, shape) for a in (after.mean, after.std))
        inferred[node.inputs[0]] = Moments(*unclipped(mean, std, lo, hi), after.origin)
    return inferred
