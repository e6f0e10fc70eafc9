"""Plans of candidates as they are compared: of half of the samples, in few steps, each of them once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..passes import Pass
from ..passes.calibrate import Calibrate
from ..passes.headroom import Headroom
from ..passes.optimal import Optimal
from .making import Plan
from .recipe import QUICK_STEPS


def made_up_nowhere(plans: Mapping[str, Plan]) -> dict[str, Plan]:
    """Plans where nothing is made up to be shown beside samples."""
    return {
        name: [replace(step, beside="nothing") if isinstance(step, Calibrate) else step for step in plan]
        for name, plan in plans.items()
    }


def unlike(plans: Mapping[str, Plan]) -> dict[str, Plan]:
    """Plans, the first of those that are the same.

    Example:
        >>> from ..passes.relu6 import Relu6
        >>> list(unlike({"a": [], "b": [Relu6()], "c": [Relu6()]}))
        ['a', 'b']
    """
    found = dict[str, Plan]()
    for name, plan in plans.items():
        if list(plan) not in found.values():
            found[name] = list(plan)
    return found


def of_half(plan: Plan) -> Plan:
    """A plan for half of the samples, as it would be for all: measured ranges are widened by what these would add.

    Example:
        >>> [type(step).__name__ for step in of_half([Calibrate()])]
        ['Calibrate', 'Headroom']
    """
    steps = list[Pass]()
    for step in in_few_steps(plan):
        steps += [step, Headroom(1.0)] if isinstance(step, Calibrate) else [step]
    return steps


def in_few_steps(plan: Plan, whole: Plan = ()) -> Plan:
    """A plan that searches scales in few steps.

    Not where it begins as the `whole` plan does, with which it shares what was found.
    """
    return [
        replace(step, iterations=min(step.iterations, QUICK_STEPS))
        if isinstance(step, Optimal) and plan[: k + 1] != whole[: k + 1]
        else step
        for k, step in enumerate(plan)
    ]
