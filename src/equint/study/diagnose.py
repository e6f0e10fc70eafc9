"""What is wrong with a quantized network, in the order in which an expert looks, and what mends it: measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ..crew.workers import Alone, Crew, in_order
from ..errors import UnusableData, counted
from ..files import jsonable
from ..graph.overrides import Override
from ..hardware.target import Target
from ..ir.model import Array, Model, Name
from ..onnx.qdq import qdq_graph
from ..ops.layers import layers
from ..planning.recipe import Recipe, to_toml
from ..planning.run import Progress
from ..runtime.machine import Machine, here
from ..runtime.machine import on as running_on
from ..samples.generated import generated, picture_shape
from ..samples.images import Samples
from .causes import Cause, causes
from .remedies import Trial, trials
from .sensitivity import RANKED, TOP, Sensitivity, sensitivity
from .trials import Score, Truth, composed, scores, shared_scores, together, truth

Quantizer = Callable[[Recipe], Model]
"""What a recipe makes of the network."""

ALONE = Alone()
NEAR = 0.5
"""Gains in dB that differ by less are the same: the cheaper remedy is preferred."""
WORTH = 0.3
"""Gains in dB below this are no gain."""
COSTS = ("recipe", "ranges", "granularity", "16 bits", "together", "float")
"""Remedies by what they cost, the cheapest first."""


@dataclass(frozen=True)
class Remedy:
    """Something that was tried.

    Attributes:
        kind: one of `COSTS`; at: the layer or tensor it is for.
        score: on the images it was chosen on; gain: of the typical image there, in dB; error: the standard error of it.
        agreement_gain: in points, where the network chooses among classes.
        checked: gain in dB on images that it was not chosen on; None where it was not checked.
    """

    kind: str
    at: str
    recipe: Recipe
    score: Score
    gain: float
    error: float = 0.0
    agreement_gain: float | None = None
    checked: float | None = None

    @property
    def expected(self) -> float:
        """Gain on all images together: what to expect of others, since the best of many flatters itself."""
        return self.gain if self.checked is None else (self.gain + self.checked) / 2


@dataclass(frozen=True)
class Diagnosis:
    """What was found.

    Attributes:
        images: how many it was found on; checked_on: how many others the best remedy was checked on.
        input: what was seen at the input, and the range that was assumed there.
        stages: name to score: "rewritten" (still float), "weights" alone, "activations" alone, "both".
        float_top1: of the original, in per cent, where there are labels; causes: of the costliest layers.
        remedies: what was tried, the most rewarding first; best: the one to take, or None where nothing helps.
        recipe: the recipe to use: the best remedy's, or what was diagnosed.
    """

    images: int
    checked_on: int
    input: Mapping[str, Any]
    stages: Mapping[str, Score]
    float_top1: float | None
    sensitivity: Sensitivity
    causes: Mapping[Name, tuple[Cause, ...]]
    remedies: tuple[Remedy, ...]
    best: Remedy | None
    recipe: Recipe
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        best = None if self.best is None else f"{self.best.kind} {self.best.at}"
        return f"Diagnosis(images={self.images}, both={self.stages['both'].sqnr_db:.1f} dB, best={best!r})"

    def facts(self) -> dict[str, Any]:
        """Everything, ready for JSON; recipes as TOML, SQNRs of exact answers as None."""
        found = {**_table(replace(self, remedies=(), best=None, recipe=Recipe(""))), "recipe": to_toml(self.recipe)}
        told = [{**_table(r), "recipe": r.recipe.name, "toml": to_toml(r.recipe)} for r in self.remedies]
        kept = ("kind", "at", "gain", "error", "checked", "expected")
        best = None if self.best is None else {k: getattr(self.best, k) for k in kept}
        ready: dict[str, Any] = jsonable({**found, "remedies": told, "best": best})
        return ready


def _table(found: Diagnosis | Remedy) -> dict[str, Any]:
    return asdict(found, dict_factory=lambda items: {k: v for k, v in items if k != "each_db"})


def diagnose(
    original: Model,
    chosen: Recipe,
    on: Target,
    quantize: Quantizer,
    images: Samples,
    *,
    labels: Array | None = None,
    top: int = TOP,
    worst: int = 3,
    progress: Progress | None = None,
    crew: Crew = ALONE,
) -> Diagnosis:
    """Find what a recipe loses on a network, where, why, and what gets it back.

    Half of the images serve to find it, and the other half to check what the best remedy promised.

    Args:
        chosen: the recipe that is diagnosed; on: the target; labels: `(N,)` class of each image.
        quantize: what a recipe makes of the network: it is called with many variants that begin alike.
        top: layers, and tensors, that are measured; worst: how many of them remedies are tried for.
        crew: who measures variants; what is found is the same.

    Raises:
        EquintError: fewer than two batches' worth of images, or a float network whose outputs are not finite.
    """
    steps = ("float network", "stages", "layers and tensors", "remedies", "check")

    def tell(number: int) -> None:
        if progress is not None:
            progress(steps[number], number, len(steps))

    tell(0)
    every = truth(original.graph, images, labels)
    for name in (n for outputs in every.outputs for n, value in outputs.items() if not np.isfinite(value).all()):
        raise UnusableData(f"output {name} of the float network is not finite on these images; mend that first")
    fit, check = (every.batches(slice(start, None, 2)) for start in (0, 1))
    if not check.feeds:
        raise UnusableData(f"{images.label}: {counted(every.images, 'image')}: too few; give 16 or more, better 64")
    tell(1)
    quantized, plain = quantize(chosen), quantize(unquantized(chosen))
    stages = _stages(plain, quantized, fit, crew)
    tell(2)
    ranked = sensitivity(plain, quantized, fit.batches(slice(RANKED)), top, crew)
    seen = _input(every, plain)
    found = causes(plain, quantized, ranked, fit)
    tell(3)
    proposals = trials(chosen, on, plain, quantized, ranked, worst)
    tried = _tried(chosen, proposals, _Measured(quantize, quantized, stages["both"], fit, crew))
    tell(4)
    best = _best(tried)
    if best is not None:
        after = scores({"": qdq_graph(quantized), "best": qdq_graph(quantize(best.recipe))}, check)
        checked, _ = after["best"].gain(after[""])
        confirmed = replace(best, checked=checked)
        tried = [confirmed if r is best else r for r in tried]
        best = confirmed if checked >= WORTH else None
    warnings = [e.sentence for e in quantized.log if e.warning] + _doubts(seen, stages, every)
    top1, tried, use = _float_top1(every), sorted(tried, key=lambda r: -r.gain), best.recipe if best else chosen
    where = (fit.images, check.images, seen, stages, top1, ranked, found)
    return Diagnosis(*where, tuple(tried), best, use, tuple(dict.fromkeys(warnings)))


def shown(model: Model) -> Samples:
    """Generated pictures, where there are no images to look at.

    Raises:
        EquintError: its input is no picture.
    """
    shape = picture_shape(model)
    if shape is None:
        name = next((n for n in model.graph.inputs if model.graph.is_float(n)), "")
        raise UnusableData(f"no images to look at, and the input {name} is no picture; give data")
    return generated(model, shape)


def unquantized(chosen: Recipe) -> Recipe:
    """The recipe up to its grids, and none of those: the float network that it quantizes."""
    names = [name for name, _ in chosen.passes]
    everything = Override(("*",), ("*",), float=True)
    return replace(chosen, passes=chosen.passes[: names.index("quantize") + 1], overrides=(everything,))


def _stages(plain: Model, quantized: Model, known: Truth, crew: Crew) -> dict[str, Score]:
    every = [layer.y for layer in layers(quantized.graph)]
    variants = {
        "rewritten": composed(plain, quantized, [], []),
        "weights": composed(plain, quantized, every, []),
        "activations": composed(plain, quantized, [], list(quantized.qparams)),
        "both": quantized,
    }
    return shared_scores(crew, {name: qdq_graph(model) for name, model in variants.items()}, known)


def _input(known: Truth, plain: Model) -> dict[str, Any]:
    """What was seen at the first float input, and what share of it lies beyond the range assumed there."""
    name = next((n for n in plain.graph.inputs if plain.graph.is_float(n) and n in known.feeds[0]), None)
    if name is None:
        return {}
    values = [feed[name] for feed in known.feeds]
    low, high = float(min(v.min() for v in values)), float(max(v.max() for v in values))
    found: dict[str, Any] = {"name": name, "low": low, "high": high}
    if name in plain.ranges:
        lo, hi = float(np.min(plain.ranges[name].lo)), float(np.max(plain.ranges[name].hi))
        slack = 1e-3 * (hi - lo)
        beyond = sum(int(np.sum((v < lo - slack) | (v > hi + slack))) for v in values) / sum(v.size for v in values)
        found |= {"range": [lo, hi], "beyond": beyond, "used": (high - low) / max(hi - lo, 1e-30)}
    return found


def _doubts(seen: Mapping[str, Any], stages: Mapping[str, Score], known: Truth) -> list[str]:
    found = []
    if seen.get("beyond", 0.0) > 0.01:
        span = "{:.4g} to {:.4g}".format(*seen["range"])
        share = f"{100 * seen['beyond']:.0f} % of the input lies beyond the range"
        found.append(f"{share} {span} that was assumed; give the card, or the range")
    if seen.get("used", 1.0) < 0.25:
        share = f"the images fill {100 * seen['used']:.0f} % of the input's range"
        found.append(f"{share}; are they prepared as they should?")
    if stages["rewritten"].sqnr_db < stages["both"].sqnr_db + 3:
        found.append("the recipe changes the network before anything is quantized; try another recipe")
    if known.images < 32:
        found.append(f"{counted(known.images, 'image')}: gains are told only roughly; give 64")
    return found


def _float_top1(known: Truth) -> float | None:
    first = [outputs[next(iter(outputs))] for outputs in known.outputs]
    if not known.labels or first[0].ndim != 2:
        return None
    hits = sum(int(np.sum(y.argmax(1) == own)) for y, own in zip(first, known.labels, strict=True))
    return 100 * hits / known.images


@dataclass(frozen=True)
class _Measured:
    """What measures proposals.

    Attributes:
        quantize: what a recipe makes of the network; now, before: what was diagnosed, and its score.
    """

    quantize: Quantizer
    now: Model
    before: Score
    known: Truth
    crew: Crew

    def of(self, wanted: Sequence[Trial]) -> list[Remedy]:
        """Each proposal, tried."""
        shared = (self.quantize, self.now, self.known, replace(here(), threads=self.crew.threads))
        groups = together(self.crew, [trial.recipe for trial in wanted], 1)
        every = (score for part in in_order(self.crew, _trying, shared, groups) for score in part)
        return [self._remedy(trial, score) for trial, score in zip(wanted, every, strict=True)]

    def _remedy(self, trial: Trial, score: Score) -> Remedy:
        better, then = score.agreement, self.before.agreement
        points = None if better is None or then is None else better - then
        return Remedy(trial.kind, trial.at, trial.recipe, score, *score.gain(self.before), points)


def _trying(shared: tuple[Quantizer, Model, Truth, Machine]) -> Callable[[Sequence[Recipe]], list[Score]]:
    """What makes networks of recipes and measures them; what they share with the one diagnosed runs once."""
    quantize, now, known, machine = shared
    base = qdq_graph(now)

    def work(recipes: Sequence[Recipe]) -> list[Score]:
        with running_on(machine):
            graphs = {number: qdq_graph(quantize(recipe)) for number, recipe in enumerate(recipes)}
            found = scores(graphs, known, base)
        return [found[number] for number in graphs]

    return work


def _tried(chosen: Recipe, proposals: list[Trial], measured: _Measured) -> list[Remedy]:
    """Every proposal measured; and the overrides that help, together."""
    done = measured.of(proposals)
    helping = [r for r in done if r.kind in ("granularity", "16 bits") and r.gain >= WORTH]
    if len(helping) > 1:
        joined = dict.fromkeys(o for r in helping for o in r.recipe.overrides[len(chosen.overrides) :])
        recipe = replace(helping[0].recipe, overrides=(*chosen.overrides, *joined))
        done += measured.of([Trial("together", ", ".join(r.at for r in helping), recipe)])
    return done


def _best(tried: list[Remedy]) -> Remedy | None:
    worthy = [r for r in tried if r.gain >= max(WORTH, r.error)]
    near = [r for r in worthy if r.gain >= max(w.gain for w in worthy) - NEAR]
    return min(near, key=lambda r: (COSTS.index(r.kind), -r.gain), default=None)
