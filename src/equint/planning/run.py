"""Run passes one after the other: verify, time and log each."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass, replace
from time import perf_counter

from ..graph.verify import verify
from ..ir.events import Event, EventKind
from ..ir.model import Model
from ..passes import Pass

Progress = Callable[[str, int, int], None]
"""Called before each pass with its name, its number and how many there are; within long passes again."""


def run(model: Model, passes: Sequence[Pass], progress: Progress | None = None) -> Model:
    """The model after all passes; each leaves an event with its time in seconds.

    Example:
        >>> from ..ir.weights import tiny_graph
        >>> from ..passes.quantize import Quantize
        >>> run(Model(tiny_graph()), [Quantize(activation=None)]).log[-1].text
        'ran quantize'
    """
    verify(model)
    for number, step in enumerate(passes):
        name = pass_name(step)
        if progress is not None:
            progress(name, number, len(passes))
            step = _telling(step, progress, name, number, len(passes))
        start = perf_counter()
        model = step(model)
        verify(model, name)
        model = model.noted(Event(EventKind.RAN, "", {"pass": name, "seconds": perf_counter() - start}, "pipeline"))
    return model


def _telling(step: Pass, progress: Progress, name: str, number: int, count: int) -> Pass:
    """The pass, where it takes long and has a field for it, telling how far it is."""

    def within(done: int, total: int) -> None:
        progress(f"{name} {done} of {total}" if total else f"{name} {done}", number, count)

    if not is_dataclass(step) or "progress" not in {f.name for f in fields(step)}:
        return step
    told: Pass = replace(step, progress=within)
    return told


def pass_name(step: Pass) -> str:
    """How recipes call a pass.

    Example:
        >>> from ..passes.fold_batchnorm import FoldBatchnorm
        >>> pass_name(FoldBatchnorm())
        'fold_batchnorm'
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(step).__name__).lower()
