"""Several plans for one network: what they begin with alike runs once, and what was measured is not measured again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import is_dataclass, replace
from functools import partial

from ..ir.model import Graph, Model
from ..passes import Need, Pass, needs
from ..runtime.collect import collect
from ..samples.images import Samples
from ..samples.statistics import Statistics, fingerprint, merged
from .run import Progress, ran

Plan = Sequence[Pass]


class Collector:
    """Measures samples in parts; what was measured of a network before is added, and not measured again.

    Args:
        parts: of samples; others are one part.
    """

    def __init__(self, parts: Mapping[Samples, Sequence[Samples]]) -> None:
        self.parts, self.known = parts, dict[tuple[Samples, str, bool], Statistics]()

    def __call__(
        self,
        graph: Graph,
        images: Samples,
        *,
        histograms: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> Statistics:
        network, found = fingerprint(graph), list[Statistics]()
        for part in self.parts.get(images, (images,)):
            key = part, network, histograms
            if key not in self.known:
                before = sum(statistics.images for statistics in found)
                tell = None if progress is None else partial(_further, progress, before)
                self.known[key] = collect(graph, part, histograms=histograms, progress=tell)
            found.append(self.known[key])
        return merged(found)


def _further(progress: Callable[[int], None], before: int, done: int) -> None:
    progress(before + done)


class Making:
    """Runs plans; what several of them begin with is run once."""

    def __init__(self, network: Model, plans: Sequence[Plan], collect: Collector, progress: Progress | None) -> None:
        self.collect, self.progress, self.plans = collect, progress, [list(plan) for plan in plans]
        self.made: list[tuple[list[Pass], Model]] = [([], network)]

    def __call__(self, plan: Sequence[Pass]) -> Model:
        steps = list(plan)
        done, model = max((found for found in self.made if steps[: len(found[0])] == found[0]), key=lambda f: len(f[0]))
        for k in range(len(done), len(steps)):
            model = ran(model, self._informed(steps[k]), self.progress)
            ahead = steps[: k + 1]
            if k + 1 == len(steps) or sum(other[: k + 1] == ahead for other in self.plans) > 1:
                self.made.append((ahead, model))
        return model

    def _informed(self, step: Pass) -> Pass:
        """The pass with what measures samples, where it needs that; plans are compared without."""
        if not is_dataclass(step):
            return step
        given = {key: self.collect for key, need in needs(step).items() if need is Need.COLLECT}
        informed: Pass = replace(step, **given)
        return informed

    def keep(self, plans: Collection[Plan]) -> None:
        """Drop what was made that none of these plans begins with: it takes memory."""
        self.made = [found for found in self.made if any(list(plan[: len(found[0])]) == found[0] for plan in plans)]

    def last(self, plan: Plan, others: Sequence[Plan] = ()) -> Model:
        """What a plan makes, after which no other runs but `others`; what was made for any other is dropped."""
        self.plans = [list(one) for one in (plan, *others)]
        self.keep(self.plans)
        return self(plan)
