"""What can be tried against what a quantized network loses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..graph.overrides import Override
from ..hardware.target import Target
from ..ir.model import Model
from ..ops.layers import layers
from ..planning.recipe import Recipe, recipe
from .sensitivity import Sensitivity

RECIPES: Mapping[str, tuple[str, ...]] = {
    "channel": ("optimal", "cwq-bc"),
    "tensor": ("optimal", "dfq"),
    "shift": ("wes-optimal", "wes"),
}
"""Recipes worth a try, by the finest granularity of weights that a target takes."""


@dataclass(frozen=True)
class Trial:
    """A recipe to try: its kind ("recipe", "ranges", "granularity" …), and the recipe, layer or tensor it names."""

    kind: str
    at: str
    recipe: Recipe


def takes_floats(on: Target) -> bool:
    """Whether parts of a network may be float, or have 16 bits, on a target; those with shifts take integers alone."""
    return on.weight.granularity != "shift"


def trials(chosen: Recipe, on: Target, plain: Model, quantized: Model, ranked: Sensitivity, worst: int) -> list[Trial]:
    """What to try: other recipes, and other formats for what costs most."""
    found = [Trial("recipe", r.name, r) for r in _recipes(chosen, on)]
    ranges = min_max(chosen)
    if ranges is not None:
        found.append(Trial("ranges", "min-max", ranges))
    grids = {layer.y: quantized.qparams.get(layer.weight) for layer in layers(quantized.graph)}
    costly = [c for c in ranked.layers if c.alone is not None]
    for cost in sorted(costly, key=lambda c: c.weights.sqnr_db if c.weights else 0.0)[:worst]:
        grid = grids[cost.output]
        if on.weight.granularity == "channel" and grid is not None and grid.axis is None:
            found.append(_with(chosen, "granularity", cost.layer, Override((cost.layer,), granularity="channel")))
    if takes_floats(on):
        for grid_cost in [t for t in ranked.tensors if t.alone is not None][:worst]:
            if quantized.qparams[grid_cost.tensor].bits < 16:
                wider = Override(tensors=(grid_cost.tensor,), activation_bits=16)
                found.append(_with(chosen, "16 bits", grid_cost.tensor, wider))
        for cost in costly[:worst]:
            found.append(_with(chosen, "float", cost.layer, Override((cost.layer,), float=True)))
    return found


def min_max(chosen: Recipe) -> Recipe | None:
    """The recipe with ranges that hold all that was seen; None where it has those."""
    passes = [
        (name, {k: v for k, v in options.items() if k not in ("rule", "percent")} if name == "calibrate" else options)
        for name, options in chosen.passes
    ]
    before = dict(chosen.passes).get("calibrate", {}).get("rule", "min-max")
    return None if before == "min-max" else replace(chosen, name=f"{chosen.name}+min-max", passes=tuple(passes))


def _recipes(chosen: Recipe, on: Target) -> list[Recipe]:
    """Other recipes with the same bits and overrides, each alone: what is measured is what is written."""
    kept: dict[str, Any] = {key: getattr(chosen, key) for key in ("bias_bits", "bias_grid", "target", "overrides")}
    kept["candidates"] = ()
    weight, activation = ({k: v for k, v in t.items() if k == "bits"} for t in (chosen.weight, chosen.activation))
    others = [recipe(name) for name in RECIPES[on.weight.granularity] if name != chosen.name]
    return [
        replace(o, weight={**o.weight, **weight}, activation={**o.activation, **activation}, **kept) for o in others
    ]


def _with(chosen: Recipe, kind: str, at: str, override: Override) -> Trial:
    return Trial(kind, at, replace(chosen, name=f"{chosen.name}+overrides", overrides=(*chosen.overrides, override)))
