"""Less of a plan, where that loses less: corrections, rounding by inputs and scaling are each left out, and measured.

What looks at samples behind the grids takes long, so candidates are compared without it; and it is fitted to means and
squares of what layers read. In front of a logarithm, or of anything else that magnifies what is small, it can do harm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from ..ir.events import Event, EventKind
from ..ir.model import Model
from ..onnx.qdq import export
from ..passes import LOOKS, Pass, Stage, needs
from ..passes.optimal import Optimal
from ..runtime.judge import seated
from ..samples.images import Samples
from .making import Plan

WORTH_DB, SURE = 0.5, 0.75
"""Less of a plan is kept where it makes so much less noise, with such a chance on new samples."""
LATE = (Stage.ROUNDING, Stage.CORRECTION)


def without_late_looks(plan: Plan) -> list[Pass]:
    """A plan less what looks at samples behind the grids."""
    return [step for step in plan if step.stage not in LATE or not LOOKS & set(needs(step).values())]


def simpler(plan: Plan, scaled: bool = True) -> dict[str, Plan]:
    """Plans with less in them, by what they leave out; none that is the plan itself, or another once more.

    Args:
        scaled: whether all keep the search for scales; else each is there without it as well.

    Example:
        >>> from equint.hardware.target import target
        >>> from equint.planning.plan import resolve
        >>> from equint.planning.recipe import recipe
        >>> plan = resolve(recipe("optimal"), target("per-channel"))
        >>> {what: len(plan) - len(less) for what, less in simpler(plan).items()}
        {'corrections from samples': 2, 'corrections': 3}
    """
    plain = [step for step in plan if step.stage not in LATE]
    found = {"corrections from samples": without_late_looks(plan), "corrections": plain}
    if not scaled:
        for name, steps in {"scales": list(plan), **found}.items():
            less = [step for step in steps if not isinstance(step, Optimal)]
            found[name if name == "scales" else f"scales and {name}"] = less
    kept = dict[str, Plan]()
    for name, steps in found.items():
        if steps != list(plan) and steps not in kept.values():
            kept[name] = steps
    return kept


def least_loss(
    network: Model,
    model: Model,
    others: Mapping[str, Plan],
    make: Callable[[Plan], Model],
    shown: Samples,
    made_up: bool,
    before: float = np.inf,
) -> Model:
    """The model, or what the best of other plans makes, where that surely loses less.

    Args:
        network: the float network, with what is known of its input; model: what was made of it.
        others: plans by what they leave out; make: what runs them.
        shown: what all are measured on; made_up: whether these samples are.
        before: what was left on them before, dB: a model that keeps nearly as much is not held against others.

    Raises:
        EquintError: as a plan's passes, and as the judge.
    """
    if not others:
        return model
    if np.isfinite(before):
        alone = seated(network.graph, {"": export(model)}, shown, made_up=made_up)
        if alone.sqnr_db("") > before - WORTH_DB:
            return model
    models = {"": model, **{name: make(plan) for name, plan in others.items()}}
    judge = seated(network.graph, {name: export(m) for name, m in models.items()}, shown, made_up=made_up)
    best = max(judge.candidates, key=judge.sqnr_db)
    gained, sure = judge.gain("", best)
    if gained < WORTH_DB or sure <= SURE:
        return model
    facts = {"what": best, "gain": gained, "SQNR": judge.sqnr_db(best), "SQNR with": judge.sqnr_db("")}
    return models[best].noted(Event(EventKind.LEFT_OUT, "", facts, "search"))
