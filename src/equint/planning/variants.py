"""Many variants of one recipe on one network: what their first passes make is made once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ..hardware.target import Target
from ..ir.model import Model
from ..passes import Pass, Stage
from .data import folded
from .plan import Data, check_images, resolve
from .recipe import Recipe, looks
from .run import run


def rewrites(chosen: Recipe) -> Recipe:
    """The part of a recipe that rewrites the network before anything is measured or scaled."""
    return _only(chosen, ("fold_batchnorm", "relu6"))


def unscaled(chosen: Recipe) -> Recipe:
    """A recipe without all that chooses scales: the float network that it would quantize, with ranges."""
    found = _only(chosen, ("fold_batchnorm", "relu6", "calibrate", "activation_ranges"))
    if "activation_ranges" not in dict(found.passes):
        found = replace(found, passes=(*found.passes, ("activation_ranges", {})))
    return found


def _only(chosen: Recipe, names: Sequence[str]) -> Recipe:
    return replace(chosen, passes=tuple(step for step in chosen.passes if step[0] in names))


def quantizer(ready: Model, on: Target, data: Data | None = None) -> Callable[[Recipe], Model]:
    """What recipes make of a network; the passes in front of `quantize` run once for all recipes that share them."""
    made: list[tuple[tuple[Pass, ...], Model]] = []
    seen = data or Data(teacher=folded(ready).graph)

    def quantize(chosen: Recipe) -> Model:
        check_images(chosen, data)
        passes = resolve(chosen, on, data=seen if looks(chosen) else None)
        at = next(k for k, step in enumerate(passes) if step.stage is Stage.QUANTIZE)
        before = next((model for first, model in made if first == passes[:at]), None)
        if before is None:
            before = run(ready, passes[:at])
            made.append((passes[:at], before))
        return run(before, passes[at:])

    return quantize
