"""Run passes one after the other: verify, hold to its promise, time and log each."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import is_dataclass, replace
from time import perf_counter
from typing import Any

from ..errors import InvalidRecipe
from ..graph.verify import verify
from ..ir.events import Event, EventKind
from ..ir.model import Graph, Model
from ..passes import Keeps, Need, Pass, needs
from ..runtime.memory import give_back

Progress = Callable[[str, int, int], None]
"""Called before each pass with its name, its number and how many there are; within long passes again."""


def run(model: Model, passes: Sequence[Pass], progress: Progress | None = None) -> Model:
    """The model after all passes; each leaves an event with its time in seconds.

    Raises:
        EquintError: naming the pass that broke the model or its promise.
    """
    verify(model)
    for number, step in enumerate(passes):
        model = ran(model, step, progress, number, len(passes))
    return model


def ran(model: Model, step: Pass, progress: Progress | None = None, number: int = 0, count: int = 1) -> Model:
    """The model, which is well formed, after one pass, the `number`th of so many: see `run`."""
    from threadpoolctl import threadpool_limits

    name = pass_name(type(step))
    if progress is not None:
        progress(name, number, count)
        step = _telling(step, progress, name, number, count)
    give_back()
    start = perf_counter()
    with threadpool_limits(1, "blas"):  # threads add in other orders, and wait for each other longer than they work
        after = step(model)
    seconds = perf_counter() - start
    verify(after, name)
    _check_promise(step.keeps, name, model.graph, after.graph)
    return after.noted(Event(EventKind.RAN, "", {"pass": name, "seconds": seconds}, "pipeline"))


def _check_promise(keeps: Keeps, name: str, before: Graph, after: Graph) -> None:
    """What is cheap to see of a promise: whether nodes and, where promised, constants are the same."""
    if keeps not in (Keeps.TOPOLOGY, Keeps.FLOATS) or before is after:
        return
    kept = _skeleton(before) == _skeleton(after)
    if keeps is Keeps.FLOATS:
        kept &= before.nodes == after.nodes and before.consts.keys() == after.consts.keys()
        kept = kept and all(after.consts[n] is value for n, value in before.consts.items())
    if not kept:
        raise InvalidRecipe(f"pass {name} promises {keeps.value!r} and does not keep it; declare another promise")


def _skeleton(graph: Graph) -> list[tuple[Any, ...]]:
    """The nodes, whatever their constants are called."""
    return [
        (n.op, n.domain, n.name, [i for i in n.reads if i not in graph.consts], n.outputs, n.attrs) for n in graph.nodes
    ]


def _telling(step: Pass, progress: Progress, name: str, number: int, count: int) -> Pass:
    """The pass, where it takes long and asks whom to tell, telling how far it is."""

    def within(done: int, total: int) -> None:
        progress(f"{name} {done} of {total}" if total else f"{name} {done}", number, count)

    if not is_dataclass(step):
        return step
    informed: Pass = replace(step, **{key: within for key, need in needs(step).items() if need is Need.PROGRESS})
    return informed


def pass_name(kind: type) -> str:
    """How recipes call a pass."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", kind.__name__).lower()
