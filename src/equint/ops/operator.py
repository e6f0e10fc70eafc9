"""What an operator is: one description, with a facet for every question that a walk over a network asks of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np

from ..ir.model import Array, Graph, Moments, Name, Node, Range

Pair = tuple[Array, Array]
"""Mean and standard deviation of a tensor, as fields."""


@dataclass(frozen=True)
class Unknown:
    """A facet that nothing is known of, and why: whoever meets it says so."""

    why: str


class Rule(Enum):
    """What an operator does with the channel scale of its input."""

    ABSORBS = "its weights take up the scales of its inputs and give its outputs new ones"
    PASSES = "each output channel has the scale of its input channel"
    CLIPS = "passes scales where its bounds allow it; bounds per channel are divided by them"
    MOVES = "scales go where values go"
    JOINS = "the inputs' channels stand behind one another"
    TIES = "inputs and output share one scale per channel; constants are divided by it"
    GAINS = "its gains and biases give its outputs new scales; what it reads is pinned to 1"
    GATES = "one input passes, the others are pinned to 1"
    GROUPS = "channels that become one share a scale"
    IGNORES = "reads no values"


@dataclass(frozen=True)
class Scales:
    """How channel scales travel through an operator.

    Attributes:
        refuses: why a node of it does not do so (empty if it does), by graph, node and the input's field.
    """

    rule: Rule
    refuses: Callable[[Graph, Node, Array], str] = lambda graph, node, field: ""


@dataclass(frozen=True)
class Grid:
    """How integers travel through an operator.

    Attributes:
        keeps: its outputs hold only values of its first input, or between them, so that one grid serves both.
    """

    integer: bool = False  # it reads and writes integers; what is not integer stays float between two grids
    layer: bool = False  # it does so where its weight is constant
    keeps: bool = False
    ties: bool = False  # all its inputs share that grid
    constants: bool = False  # constants that it reads become integers too
    fused: bool = False  # a quantizer's saturation does it, where its bounds are constant
    applied: bool = False  # some hardware does it to the sums of a layer, before these are rounded


class Form(Enum):
    """The integer form of an operator, which `equint.integers.lower` builds."""

    LAYER = "products with weights, summed and requantized"
    SUM = "inputs and constants at a common scale"
    PRODUCT = "two inputs, or one and a constant"
    CLAMP = "a clamp, or a table where grids differ"
    TABLE = "every value of the input's grid through the function"
    AVERAGE_POOL = "sums over windows"
    GLOBAL_AVERAGE = "sums over all positions"
    MEAN = "a global pool, or sums over axes"
    SUM_OVER_AXES = "sums over axes"
    EXTREME = "the largest or least along axes"
    SOFTMAX = "shares, by a table of exponentials"
    NORMALIZE = "statistics of its own values, by an integer root"
    MAX_POOL = "the largest in each window"
    MOVE = "integers moved"
    CONCAT = "integers of one grid behind one another"
    IDENTITY = "nothing"
    SPLIT = "integers moved, sizes spelled out"
    PAD = "integers put around"
    CHOOSE = "one of two, where another value is a number"
    RESIZE = "nearest integers, or weighted means of them"


@dataclass(frozen=True)
class Backward:
    """What a gain facet sees: what is known of all tensors, and the gains of what stands behind the node.

    Attributes:
        behind: gains of the node's outputs and of everything after it: output noise over output signal, per unit of
            noise variance in a channel.
        grown: how much further noise grows behind a layer whose outputs vary κ times as much as independent inputs
            would make them.
    """

    graph: Graph
    moments: Mapping[Name, Moments]
    behind: Mapping[Name, Array]
    averaged: Callable[[float], float]  # what averaging n values leaves of noise's variance
    grown: Callable[[Array], Array]

    def shape(self, name: Name) -> tuple[int, ...]:
        """Shape of a tensor's gains: that of its moments, with every channel even where all have the same."""
        m, shape = self.moments[name], self.graph.shapes.get(name)
        channels = shape[1] if shape is not None and len(shape) == m.mean.ndim > 1 else 1
        finer = (1, channels) + (1,) * (m.mean.ndim - 2) if isinstance(channels, int) and m.mean.ndim > 1 else ()
        return np.broadcast_shapes(m.mean.shape, m.std.shape, finer)

    def places(self, name: Name, first: int = 0) -> Array:
        """Every value of a tensor's gains numbered from `first`, so that what moves them tells where they went."""
        shape = self.shape(name)
        return first + np.arange(np.prod(shape, dtype=int)).reshape(shape)

    def output(self, name: Name) -> Array | None:
        """Gain of a network output: noise over the signal's power, summed over channels."""
        if name not in self.moments:
            return None
        m = self.moments[name]
        power = np.broadcast_to(np.square(m.mean) + np.square(m.std), self.shape(name))
        return np.full(power.shape, 1 / max(float(power.sum()), 1e-30))


Gained = list[tuple[Name, Array | None]]
"""Gains that a node adds to its inputs."""
MomentsFacet = Callable[[Graph, Node, Sequence[Pair | None]], list[Pair] | None]
BoundFacet = Callable[[Graph, Node, Sequence[Range | None]], list[Range] | None]
GainFacet = Callable[[Node, Backward], Gained | None]
Torch = Callable[..., Any]
FieldsFacet = Callable[[Graph, Node, Array, float], list[Array] | None]


@dataclass(frozen=True)
class Operator:
    """One operator of ONNX.

    Functions give None where a node's shapes or constants do not tell.

    Attributes:
        fields: the per-channel fields of its outputs for that of its first input; padding holds the last argument.
        moments: mean and spread of its outputs for those of its inputs: constants have spread 0, None is unknown.
        bound: lowest and highest value of its outputs, for those of its inputs.
        wide: its outputs may be told by their moments to reach less far than `bound` says.
        gain: how noise in its inputs reaches the network's outputs.
        scales: how channel scales travel through it.
        grid: how integers do.
        steps: its integer form.
        torch: its outputs in torch; inputs as positional, attributes (in small letters) as keyword arguments.
        curve: the function that it applies to every value, for nodes whose constants are known.
        multiplies: it multiplies its inputs, in any order.
        averages: it averages neighbouring values, whose rare large ones stay large.
    """

    name: str
    moments: MomentsFacet | Unknown
    bound: BoundFacet | Unknown
    gain: GainFacet | Unknown
    scales: Scales | Unknown
    grid: Grid | Unknown
    steps: Form | Unknown
    torch: Torch | Unknown
    fields: FieldsFacet | Unknown = Unknown("it computes with values")
    curve: Callable[[Graph, Node], Callable[[Array], Array] | None] | None = field(default=None, repr=False)
    wide: bool = False
    multiplies: bool = False
    averages: bool = False


def by_name(*operators: Operator) -> Mapping[str, Operator]:
    """Operators as a table by their ONNX name."""
    return {operator.name: operator for operator in operators}


FACETS = ("moments", "bound", "gain", "scales", "grid", "steps", "torch")
"""The facets that every operator has, or says why not."""
