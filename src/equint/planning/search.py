"""A recipe and its candidates, measured beside one another: which one is kept, the measurement decides.

Samples that were given are halved: candidates are made of one half and measured on the other, so that ranges which are
too narrow for what was not seen show. The best is then made of all. Without, made-up samples serve. By successive
halving (Jamieson and Talwalkar 2016) all candidates are measured on a few samples, those that are left on more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..graph.inputs import is_picture
from ..graph.moments import propagate
from ..ir.events import Event, EventKind
from ..ir.model import Graph, Model, Name
from ..maths.paired import Gain, Powers, mixed_gain
from ..onnx.qdq import export
from ..ops.layers import layers
from ..ops.work import multiplications
from ..runtime.first_run import fitting
from ..runtime.judge import Judge
from ..runtime.memory import give_back
from ..samples.generated import beside, made_up
from ..samples.images import Samples, split
from .data import folded
from .halves import in_few_steps, made_up_nowhere, of_half, unlike
from .making import Collector, Making, Plan
from .run import Progress, run
from .simpler import least_loss, simpler, without_late_looks

if TYPE_CHECKING:
    from ..onnx.writer import ModelProto

FIRST = 8
"""Samples on which all candidates are measured."""
SHOWN, MADE_UP = 32, 16
"""Samples on which those that are left are measured, and as many that they are made of; where they are made up."""
CHEAP = 1e8
"""Multiply-accumulates of half of the samples and of rounding up to which candidates that lose much are made whole."""
LEFT = 2
"""Candidates that are left after the first samples, beside the recipe itself."""
SURE, SURE_OF_MADE_UP = 0.6, 0.9
"""Another candidate than the recipe itself is kept only with such a chance that it is better on new samples."""
WORTH_DB = 1.0
"""And only if it is expected to gain so much: what rounds and corrects by samples comes later, and makes up for it."""

ALIKE_DB = 0.3
"""Of candidates whose gains to be expected lie within this of the most, the first of the recipe's is kept."""
OTHERS = 4
"""Samples of another kind, which made-up ones stand for, that count as seen beside those that are given: each candidate
is measured on both, and what is better on all together may be so much worse on those that are given, as if these were
fewer by as many: 10·log10(1 + OTHERS/N) dB."""

ENOUGH_DB = 40.0
"""Signal over noise above which it does not matter what those that are given lose."""

MADE_UP_TOLD, OTHERS_TOLD = "made-up samples", "samples left out, made of the other half"

NOT_FINITE = "on made-up samples the float network puts out values that are not finite; give samples"

LOW_DB = 15.0
"""Signal over noise below which a result is worth a warning: classifiers say something else there."""

Plans = Callable[[Samples | None], Mapping[str, Plan]]
Round: TypeAlias = "tuple[Samples, dict[str, ModelProto]]"
"""What is shown, and files of the candidates that it is shown to; in the next round they are made of other samples."""


def search(network: Model, plans: Plans, images: Samples | None, progress: Progress | None = None) -> Model:
    """What the best of several plans makes of a network, measured beside the float network.

    Passes that plans begin with alike run once. What looks at samples behind the grids takes long and changes little in
    the order of candidates: only the best gets it.

    Args:
        network: float, with what is known of its input.
        plans: passes by the name of a candidate, for the samples that they may look at; the first is the recipe itself.
        images: what to make and measure candidates on; None: what is generated. Where there are fewer than two, or
            nothing can be made up, the first plan is kept.

    Raises:
        EquintError: as `run`.
    """
    kinds = images is not None and _reads_pictures(network.graph)

    def offered(samples: Samples | None) -> dict[str, Plan]:
        return unlike(plans(samples) if kinds else made_up_nowhere(plans(samples)))

    finished = offered(images)
    own = next(iter(finished))
    if images is None:
        seen, shown, parts = None, made_up_samples(network), {}
    else:
        several = len(list(islice(split(images, 1), 2))) > 1
        seen, shown = images.every(2).first(SHOWN), images.every(2, 1) if several else None
        parts = {images: (seen, images.where(lambda number: number % 2 == 1 or number >= 2 * SHOWN))}
    if shown is None:
        why = "one sample alone tells nothing" if images else "no samples, and none that it runs on are made up"
        return run(network, finished[own], progress).noted(_untold(why))
    if seen is None:
        early: dict[str, Plan] = {name: without_late_looks(plan) for name, plan in finished.items()}
        early = unlike({name: in_few_steps(plan, early[own]) for name, plan in early.items()})
    else:
        early = unlike({name: of_half(without_late_looks(plan)) for name, plan in offered(seen).items()})
    collect = Collector(parts)
    making = Making(network, [*early.values(), *finished.values()], collect, progress)
    models = {name: making(plan) for name, plan in early.items()}
    if not models[own].qparams:
        return models[own]
    others = None
    if kinds and images is not None and len(models) > 1:
        others = fitting(network.graph, lambda size: beside(network, images))
    protos = _exported(models)
    del models  # what follows needs the memory
    making.keep([one for plan in finished.values() for one in (plan, *simpler(plan).values())])
    found = _measured(network, [(shown, protos)], images is None, others)
    if np.isnan(found.reached_db):  # infinite in the float network: of samples given that is refused
        return run(network, finished[own], progress).noted(_untold(NOT_FINITE))
    if seen is not None and found.reached_db < LOW_DB and _is_cheap(network.graph, seen):
        rounds = _made_whole(network, offered, (seen, shown.first(SHOWN)), collect, progress)
        found = _measured(network, rounds, False, others)
    model = _made(network, making, finished[found.kept], found, shown).noted(*found.events())
    if images is not None:  # of which it is made by now: what was measured before that stands
        return model.noted(*found.warnings(OTHERS_TOLD))
    last = _measured(network, [(shown, _exported({"": model}))], True)
    return model.noted(
        Event(EventKind.MEASURED, "", {"on": MADE_UP_TOLD, **last.reached()}, "search"), *last.warnings(MADE_UP_TOLD)
    )


def _made(network: Model, making: Making, plan: Plan, found: Search, shown: Samples) -> Model:
    """What the best plan makes of all samples; less of it where what was not measured before makes it worse."""
    others = {} if found.made_up and found.doubts else simpler(plan)
    model = making.last(plan, list(others.values()))
    before = found.judge.sqnr_db(found.kept, slice(FIRST))
    give_back()
    return least_loss(network, model, others, making, shown.first(FIRST), found.made_up, before)


@dataclass(frozen=True)
class Search:
    """What was measured.

    Attributes:
        own: the recipe itself, by name; left: those that were shown all samples.
        made_up: whether samples were; assumed: then, the inputs of which nothing tells how far they reach.
        others: what made-up samples show beside those that were given; None where they tell nothing.
        crossed: whether candidates are made of either half of the samples, and so shown all.
    """

    own: str
    judge: Judge
    left: tuple[str, ...]
    made_up: bool
    assumed: tuple[Name, ...] = ()
    others: Judge | None = None
    crossed: bool = False

    @cached_property
    def doubts(self) -> tuple[str, ...]:
        """Why the samples tell little."""
        return (*(f"nothing tells how far {name} reaches" for name in self.assumed), *self.judge.blind())

    @property
    def given(self) -> int:
        """How many samples there are to make candidates of and to measure them on, as far as they are shown."""
        return self.judge.images if self.crossed else 2 * self.judge.images

    def gain(self, name: str) -> Gain:
        """How much less noise a candidate makes than the recipe itself, in dB, and how surely, on all kinds."""
        kinds = [self._powers(self.judge, name, self.given)]
        if self.others is not None:
            kinds.append(self._powers(self.others, name, OTHERS))
        return mixed_gain(kinds)

    def _powers(self, judge: Judge, name: str, weight: float) -> Powers:
        (signal, before), (_, after) = judge.powers(self.own), judge.powers(name)
        least = min(len(before), len(after))
        return Powers(signal[:least], before[:least], after[:least], weight)

    @cached_property
    def kept(self) -> str:
        """The candidate that loses least, if it is surely enough better than the recipe itself."""
        others = [name for name in self.judge.candidates if name in self.left and name != self.own]
        gains = {name: self.gain(name) for name in others if self._as_good(name)}
        most = max((gain.expected for gain in gains.values()), default=np.nan)
        near = [name for name, gain in gains.items() if gain.expected > most - ALIKE_DB]
        if not near:
            return self.own
        best, gain = near[0], gains[near[0]]
        if gain.expected < WORTH_DB or (self.made_up and (gain.chance < SURE_OF_MADE_UP or self.doubts)):
            return self.own
        return best if gain.chance > SURE else self.own

    def _as_good(self, name: str) -> bool:
        """Whether a candidate loses no more on the samples that were given than another kind may cost them."""
        most = 10 * np.log10(1 + OTHERS / self.given)
        lost = -self.judge.gain(self.own, name)[0]
        return self.made_up or lost < most or self.judge.sqnr_db(name) > ENOUGH_DB

    @property
    def reached_db(self) -> float:
        """What is left of the signal with the candidate that is kept."""
        return self.judge.sqnr_db(self.kept)

    def events(self) -> Iterator[Event]:
        """What was measured of each candidate, and which was kept."""
        for name in self.judge.candidates:
            facts: dict[str, Any] = {"SQNR": self.judge.sqnr_db(name), "samples": self.judge.shown(name)}
            if self.others is not None:
                facts["SQNR of another kind"] = self.others.sqnr_db(name)
            if name != self.own:
                gain = self.gain(name)
                facts |= {"gain": gain.expected, "chance": gain.chance}
            if name not in self.left:
                own = self.judge.sqnr_db(self.own, slice(self.judge.shown(name)))
                facts["why"] = f"left out after the first samples, on which {self.own} has {own:.1f} dB"
            yield Event(EventKind.CANDIDATE_MEASURED, "", {"candidate": name, **facts}, "search")
        on = MADE_UP_TOLD if self.made_up else OTHERS_TOLD
        about = {"candidate": self.kept, "count": len(self.judge.candidates), "on": on, **self.reached()}
        if self.others is not None and self.judge.gain(self.own, self.kept)[0] < WORTH_DB and self.kept != self.own:
            gained = self.others.gain(self.own, self.kept)[0]
            about["why"] = f"it loses {gained:.1f} dB less on samples of another kind, which were made up"
        yield Event(EventKind.CANDIDATE_KEPT, "", about, "search")

    def reached(self) -> dict[str, Any]:
        """What the candidate that is kept reaches, on how many samples, and where that lies on others."""
        likely = self.judge.likely_db(self.kept)
        between = {} if likely is None else {"SQNR from": likely.low, "SQNR to": likely.high}
        return {"SQNR": self.reached_db, "samples": self.judge.shown(self.kept), **between}

    def warnings(self, on: str) -> Iterator[Event]:
        """Why what was measured is little to rely on, or low."""
        if self.doubts:
            told = {"why": "; ".join(self.doubts), "on": on}
            yield Event(EventKind.MEASURED_DOUBTFULLY, "", told, "search", warning=self.made_up)
        if (reached := self.reached_db) < LOW_DB:
            give = "the input's range (--input-range, or a card) or samples" if self.assumed else "samples"
            todo = f"give {give} (--images or --data)" if self.made_up else "`equint diagnose` says what costs most"
            low = {"SQNR": f"{reached:.1f}", "on": on, "why": f"below {LOW_DB:.0f} results change; {todo}"}
            yield Event(EventKind.MEASURED_LOW, "", low, "search", warning=True)


def measured(network: Model, plan: Plan, images: Samples | None, progress: Progress | None = None) -> Model:
    """What a plan makes of a network, measured on a few samples, or on made-up ones.

    Where it loses much, less of the plan is tried; and where that does too, a warning says so.

    Args:
        network: the float network, with what is known of its input.

    Raises:
        EquintError: as `run`.
    """
    model = run(network, plan, progress)
    shown = made_up_samples(network) if images is None else images
    if shown is None or not model.qparams:
        return model
    first = shown.first(FIRST)
    found = _measured(network, [(first, _exported({"": model}))], images is None)
    if np.isnan(found.reached_db):
        return model.noted(_untold(NOT_FINITE))
    telling = images is not None or not found.doubts
    if found.reached_db < LOW_DB and telling:
        others = simpler(plan, scaled=False)
        making = Making(network, list(others.values()), Collector({}), None)
        less = least_loss(network, model, others, making, first, images is None)
        if less is not model:
            model, found = less, _measured(network, [(first, _exported({"": less}))], images is None)
    on = MADE_UP_TOLD if images is None else "samples"
    reached = Event(EventKind.MEASURED, "", {"on": on, **found.reached()}, "search")
    return model.noted(reached, *found.warnings(on))


def _untold(why: str) -> Event:
    return Event(EventKind.NOTHING_MEASURED, "", {"why": why}, "search")


def _exported(models: Mapping[str, Model]) -> dict[str, ModelProto]:
    """Files of models; what changes nothing is no candidate."""
    protos: dict[str, ModelProto] = {}
    for name, model in models.items():
        proto = export(model)
        if proto not in protos.values():
            protos[name] = proto
    return protos


def _measured(network: Model, rounds: Sequence[Round], made_up: bool, others: Samples | None = None) -> Search:
    """Candidates beside the float network, the first of them the recipe itself, by successive halving.

    Args:
        rounds: the files are dropped once sessions are made of them: they take memory.
        made_up: whether samples are; others: such that are shown beside those that were given.
    """
    (shown, protos), *later = rounds
    names = own, *rest = tuple(protos)
    expected = expected_power(network)
    give_back()
    assumed = [n for n in network.graph.inputs if n in network.moments and network.moments[n].origin == "assumed"]
    judge = Judge(network.graph, protos, expected, made_up)
    protos.clear()
    give_back()
    found = Search(
        own, judge, names, made_up, tuple(assumed) if made_up else (), _seen(judge, network, others), bool(later)
    )
    for feed in split(shown.first(MADE_UP if made_up else SHOWN), judge.batch):
        judge.show(feed)
        if len(found.left) == len(names) and judge.images >= FIRST and not later:
            ranked = sorted(rest, key=lambda name: found.gain(name).expected, reverse=True)[:LEFT]
            found = replace(found, left=(own, *ranked))
            judge.leave(set(names) - set(found.left))
    for fresh, again in later:
        judge.go_on_with(again)
        again.clear()
        judge.show_all(fresh)
    judge.leave(names)
    give_back()
    return found


def _seen(judge: Judge, network: Model, others: Samples | None) -> Judge | None:
    """What a judge's candidates lose on samples of another kind; None where these do not show what the network does."""
    if others is None:
        return None
    seat = judge.again(made_up=True)
    seat.show_all(others.first(FIRST))
    seat.leave(seat.candidates)
    return None if seat.blind() else seat


def _reads_pictures(graph: Graph) -> bool:
    """Whether another kind of samples can be made up: nothing tells what features or spectra of one would look like."""
    return all(is_picture(graph.shapes.get(name)) for name in graph.inputs)


def _is_cheap(graph: Graph, half: Samples) -> bool:
    """Whether making all candidates whole takes seconds: what half of the samples takes, and what rounding does."""
    each = sum(multiplications(graph, node) for node in graph.nodes)
    shapes = [layer.unpack(graph.consts[layer.weight]).shape for layer in layers(graph)]
    rounded = sum(g * o * (i * taps) ** 2 for g, o, i, taps in shapes)  # every row meets all second moments
    return bool(each + rounded < CHEAP and each * sum(1 for _ in split(half, 1)) + rounded < CHEAP)


def _made_whole(
    network: Model,
    offered: Plans,
    halves: tuple[Samples, Samples],
    collect: Collector,
    progress: Progress | None,
) -> list[Round]:
    """Candidates with all that looks at samples, of either half, to be measured on the other."""
    rounds = list[Round]()
    for half, rest in (halves, halves[::-1]):
        plans = unlike({name: of_half(plan) for name, plan in offered(half).items()})
        if rounds:  # what one half showed to change nothing is no candidate
            plans = {name: plans[name] for name in rounds[0][1]}
        making = Making(network, [*plans.values()], collect, progress)
        models = {name: making(plan) for name, plan in plans.items()}
        rounds.append((rest, {name: export(m) for name, m in models.items()} if rounds else _exported(models)))
    return rounds


def made_up_samples(network: Model) -> Samples | None:
    """Samples to measure a network on where none are given; None where it runs on none that can be made up."""
    return fitting(network.graph, lambda size: made_up(network, size))


def expected_power(network: Model) -> dict[Name, float]:
    """Mean square of every tensor, real units squared, as far as a network's BatchNorms tell."""
    known = folded(network)
    if not known.trained:
        return {}
    moments = propagate(known.graph, known.moments)
    return {name: float(np.mean(np.square(m.mean) + np.square(m.std))) for name, m in moments.items()}
