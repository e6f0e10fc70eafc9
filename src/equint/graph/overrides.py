"""Exceptions from a recipe's formats: for single layers, and for single tensors."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase

from ..errors import InvalidRecipe, UnknownName
from ..ir.events import Event, EventKind
from ..ir.model import Granularity, Graph, Name, QSpec
from ..ir.weights import Layer
from ..maths.affine import check_bits
from ..ops.layers import layers
from . import clamps
from .placement import place


@dataclass(frozen=True)
class Override:
    """What some layers or tensors have instead of the recipe's formats.

    Attributes:
        layers, tensors: names, or patterns with * and ?.
        weight_bits, granularity: of the weights of these layers.
        activation_bits: of these tensors.
        float: the tensors stay float; the layers keep float weights, and read a float input.

    Raises:
        EquintError: it names nothing, changes nothing, or says of layers what only tensors have.

    Example:
        >>> Override(layers=("conv1",), weight_bits=16).weight_bits
        16
    """

    layers: tuple[str, ...] = ()
    tensors: tuple[str, ...] = ()
    weight_bits: int | None = None
    granularity: Granularity | None = None
    activation_bits: int | None = None
    float: bool = False

    def __post_init__(self) -> None:
        this, of_weights = f"the override of {self.names}", self.weight_bits is not None or self.granularity is not None
        if not self.layers and not self.tensors:
            raise InvalidRecipe("overrides: each needs layers or tensors: names, or patterns such as 'block1/*'")
        if not (of_weights or self.activation_bits is not None or self.float):
            raise InvalidRecipe(f"{this} changes nothing; give weight_bits, granularity, activation_bits or float")
        if self.float and (of_weights or self.activation_bits is not None):
            raise InvalidRecipe(f"{this} is float, which has no bits or granularity; leave them out")
        if of_weights and not self.layers:
            raise InvalidRecipe(f"{this}: weight_bits and granularity are of layers; name layers")
        if self.activation_bits is not None and not self.tensors:
            raise InvalidRecipe(f"{this}: activation_bits are of tensors; name tensors")
        for bits in (self.weight_bits, self.activation_bits):
            if bits is not None:
                check_bits(bits)

    @property
    def names(self) -> str:
        """How messages name it."""
        return ", ".join((*self.layers, *self.tensors))


@dataclass(frozen=True)
class Formats:
    """The format of every weight and of every tensor that is an exception; None is float."""

    weights: Mapping[Name, QSpec | None]  # by the weight's name; tensors: by the tensor's name
    tensors: Mapping[Name, QSpec | None]
    log: tuple[Event, ...] = ()  # how far exceptions reach beyond what was named


def formats(
    graph: Graph,
    overrides: Sequence[Override],
    weight: QSpec,
    activation: QSpec | None,
    apart: Collection[Name] = (),
) -> Formats:
    """What overrides make of a network's formats; where several name the same, the last one counts.

    Tensors that share a grid, and layers that share a weight, have the same format: an override of one is one of all.
    `weight` and `activation` are the recipe's; with `activation` None all tensors stay float. `apart` as in `place`.

    Raises:
        EquintError: a name or pattern that matches nothing.

    Example:
        >>> from ..ops.layers import tiny_graph
        >>> formats(tiny_graph(), [Override(layers=("y",), weight_bits=4)], QSpec(8), None).weights["w"].bits
        4
    """
    every, placement = list(layers(graph)), place(graph, apart)
    classes = {name: names for names in placement.classes for name in names}
    ends = clamps.ends(graph, placement.merged)
    known = [*classes, *(n for n, end in ends.items() if end in classes)]
    weights: dict[Name, QSpec | None] = {}
    tensors: dict[Name, QSpec | None] = {}
    events: dict[tuple[EventKind, str], Event] = {}
    for override in overrides:
        named = _matching(override.layers, [layer.name for layer in every], "layer")
        chosen = [layer for layer in every if layer.name in named]
        for layer in chosen:
            weights[layer.weight] = None if override.float else _changed(weights.get(layer.weight) or weight, override)
        picked = {ends.get(n, n) for n in _matching(override.tensors, known, "tensor")}
        if override.float:
            picked |= {layer.x for layer in chosen if layer.x in classes}
        if activation is None:  # all tensors are float
            picked = set()
        for name in classes:
            if name in picked and (override.float or override.activation_bits is not None):
                spec = None if override.float else replace(activation, bits=override.activation_bits)  # type: ignore[type-var]
                tensors |= dict.fromkeys(classes[name], spec)
        events |= {(e.kind, e.at): e for e in (*_shared_weights(every, chosen), *_shared_grids(classes, picked))}
    return Formats(weights, tensors, tuple(events.values()))


def _changed(spec: QSpec, override: Override) -> QSpec:
    bits, granularity = override.weight_bits or spec.bits, override.granularity or spec.granularity
    return replace(spec, bits=bits, granularity=granularity)


def _matching(patterns: Iterable[str], names: Sequence[str], kind: str) -> set[str]:
    chosen: set[str] = set()
    for pattern in patterns:
        matched = {n for n in names if n == pattern} or {n for n in names if fnmatchcase(n, pattern)}
        if not matched and pattern != "*":
            near = get_close_matches(pattern, names, 3, 0.3)
            hint = f"the nearest are {', '.join(near)}" if near else f"the first are {', '.join(names[:3]) or 'none'}"
            raise UnknownName(f"override: no {kind} is called {pattern!r}; {hint}; correct its name")
        chosen |= matched
    return chosen


def _shared_weights(every: Sequence[Layer], chosen: Sequence[Layer]) -> list[Event]:
    """Layers that were not named, but read the weight of one that was."""
    own, names = {layer.weight for layer in chosen}, {layer.name for layer in chosen}
    others = [layer for layer in every if layer.weight in own and layer.name not in names]
    kind = EventKind.OVERRIDE_OF_SHARED_WEIGHT
    return [Event(kind, layer.name, {"weight": layer.weight}, "quantize") for layer in others]


def _shared_grids(classes: Mapping[Name, tuple[Name, ...]], picked: set[Name]) -> list[Event]:
    """Tensors that were not named, but share the grid of one that was."""
    wider = {names for name, names in classes.items() if name in picked and not picked >= set(names)}
    kind = EventKind.OVERRIDE_OF_SHARED_GRID
    return [Event(kind, names[0], {"tensors": ", ".join(names)}, "quantize") for names in sorted(wider)]
