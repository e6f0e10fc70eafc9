"""The values that flow through equint. All are frozen; passes return new ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, count
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .events import Event

Name = str
"""An ONNX value name: unique in a graph, the key of every table."""

Array = NDArray[Any]
Dim = int | str | None
Shape = tuple[Dim, ...]

Granularity = Literal["tensor", "channel", "shift"]
Origin = Literal["batchnorm", "given", "inferred", "assumed", "propagated", "calibration", "generated"]


@dataclass(frozen=True)
class Node:
    """One operator. `captured` are the outer values that its subgraphs (If, Loop) read."""

    op: str
    inputs: tuple[Name, ...]
    outputs: tuple[Name, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    domain: str = ""
    captured: tuple[Name, ...] = ()

    @property
    def label(self) -> str:
        """How messages name the node: its own name, or its first output."""
        return self.name or next((o for o in self.outputs if o), self.op)

    @property
    def reads(self) -> tuple[Name, ...]:
        """Every value the node needs, subgraphs included; optional empty inputs left out."""
        return tuple(i for i in (*self.inputs, *self.captured) if i)


@dataclass(frozen=True)
class Graph:
    """Operators in topological order with their constants.

    Two operators are wider here than in ONNX, and `onnx/writer.py` lowers them again: Clip takes
    bounds of any broadcastable shape, and MatMul takes an optional bias as third input.

    Attributes:
        fuses: whether it is for hardware that applies activations to a layer's sums before these are rounded.
        integers_only: whether it is for hardware without floats, so that no activation stays float.
        layers_only: whether nothing but layers is to run on integers, all between them in float.
        integer_clamps: whether Min and Max may stand on integers, between QuantizeLinear and DequantizeLinear.
        integer_biases: whether biases are integers behind DequantizeLinear; else floats of the same values.
        tied: operators, by name, whose inputs and outputs must be on one grid.
        fixed: scale and zero point of the grid that an operator's outputs must be on, by the operator's name.
        operators: those that hardware computes on integers, by name; empty: all.
        float_layers: nodes that stay float on it, by name or pattern.

    Example:
        >>> relu = Node("Relu", ("x",), ("y",))
        >>> graph = Graph((relu,), {}, ("x",), ("y",), {"x": ("N", 3), "y": ("N", 3)})
        >>> graph.producer["y"].op, len(graph.consumers["x"])
        ('Relu', 1)
    """

    nodes: tuple[Node, ...]
    consts: Mapping[Name, Array]
    inputs: tuple[Name, ...]
    outputs: tuple[Name, ...]
    shapes: Mapping[Name, Shape] = field(default_factory=dict)
    dtypes: Mapping[Name, str] = field(default_factory=dict)
    opset: int = 17
    domains: Mapping[str, int] = field(default_factory=dict)
    name: str = "equint"
    fuses: bool = False
    integers_only: bool = False
    layers_only: bool = False
    integer_clamps: bool = True
    integer_biases: bool = True
    tied: tuple[str, ...] = ()
    fixed: Mapping[str, tuple[float, int]] = field(default_factory=dict)
    operators: tuple[str, ...] = ()
    float_layers: tuple[str, ...] = ()

    @cached_property
    def producer(self) -> Mapping[Name, Node]:
        """The node that makes each value."""
        return {o: node for node in self.nodes for o in node.outputs if o}

    @cached_property
    def consumers(self) -> Mapping[Name, tuple[Node, ...]]:
        """The nodes that read each value (a node once, even if it reads the value twice)."""
        table: dict[Name, list[Node]] = {}
        for node in self.nodes:
            for i in dict.fromkeys(node.reads):
                table.setdefault(i, []).append(node)
        return {name: tuple(nodes) for name, nodes in table.items()}

    def users(self, name: Name) -> tuple[Node, ...]:
        """The nodes that read `name`; empty for a graph output that nothing else reads."""
        return self.consumers.get(name, ())

    def is_float(self, name: Name) -> bool:
        """Whether a value holds floats (values of unknown type are taken to)."""
        return self.dtypes.get(name, "float32") in ("float32", "float64", "float16", "bfloat16")

    def constant(self, name: Name) -> Array | None:
        """The constant called `name`, or None."""
        return self.consts.get(name) if name else None

    def rank(self, name: Name) -> int | None:
        """Number of dimensions, or None where shape inference could not tell."""
        shape = self.shapes.get(name)
        return None if shape is None else len(shape)

    def fresh(self, stem: Name) -> Name:
        """A value name that is not taken, derived from `stem`."""
        stems = chain((stem,), (f"{stem}_{k}" for k in count(1)))
        return next(n for n in stems if not (n in self.consts or n in self.producer or n in self.inputs))

    def with_consts(self, consts: Mapping[Name, Array]) -> Graph:
        """The same graph with some constants replaced or added."""
        return replace(self, consts={**self.consts, **{n: frozen(a) for n, a in consts.items()}})

    def with_nodes(self, nodes: Iterable[Node], consts: Mapping[Name, Array] | None = None) -> Graph:
        """The same graph with other nodes; constants that nothing reads any more are dropped."""
        nodes = tuple(nodes)
        used = {i for node in nodes for i in node.reads} | set(self.outputs)
        every = {**self.consts, **{n: frozen(a) for n, a in (consts or {}).items()}}
        return replace(self, nodes=nodes, consts={n: a for n, a in every.items() if n in used})


def frozen(array: Array) -> Array:
    """A read-only array; shares memory where it can."""
    view = np.asarray(array).view()
    view.flags.writeable = False
    return view


@dataclass(frozen=True)
class Moments:
    """Mean and standard deviation of a tensor's values, per channel, in real units.

    Both arrays are aligned with the tensor's dimensions: `(1, C, 1, 1)` for a convolution's output,
    so that they broadcast against it whatever reshapes and shuffles it went through.
    """

    mean: Array
    std: Array
    origin: Origin = "propagated"


@dataclass(frozen=True)
class Range:
    """Lowest and highest value of a tensor, in real units; scalars, or aligned like `Moments`."""

    lo: Array
    hi: Array


@dataclass(frozen=True)
class QSpec:
    """The number format wanted for a tensor.

    With `power_of_two` its scales are powers of two. With `by_sign` a signed format with zero point 0 is unsigned for
    tensors in which nothing is negative.
    """

    bits: int = 8
    signed: bool = True
    symmetric: bool = True
    granularity: Granularity = "tensor"
    narrow: bool = False
    power_of_two: bool = False
    by_sign: bool = False


@dataclass(frozen=True)
class QParams:
    """The number format chosen: real = scale · 2^-shift · (q − zero_point).

    `scale` is `()` per tensor or `(C,)` along `axis`; `zero_point` has the same shape. `shift` is None, or `(C,)` along
    `axis` behind a scale per tensor. `power_of_two` asks of whoever changes the scale that it stays one.

    Example:
        >>> q = QParams(np.float32(0.5), np.int32(3), bits=8, signed=False)
        >>> q.qmin, q.qmax, q.lo, q.hi
        (0, 255, -1.5, 126.0)
    """

    scale: Array
    zero_point: Array
    bits: int = 8
    signed: bool = True
    axis: int | None = None
    shift: Array | None = None
    narrow: bool = False
    power_of_two: bool = False

    @property
    def qmin(self) -> int:
        """Smallest integer of the grid."""
        return (-(1 << (self.bits - 1)) if self.signed else 0) + int(self.narrow)

    @property
    def qmax(self) -> int:
        """Largest integer of the grid."""
        return (1 << (self.bits - 1)) - 1 if self.signed else (1 << self.bits) - 1

    @property
    def steps(self) -> Array:
        """Size of a step, scale · 2^-shift: `()` or `(C,)` along `axis`."""
        return self.scale if self.shift is None else np.ldexp(self.scale, -self.shift.astype(np.int32))

    @property
    def lo(self) -> float:
        """Smallest real value of a per-tensor grid."""
        return float(np.min(self.scale * (self.qmin - self.zero_point)))

    @property
    def hi(self) -> float:
        """Largest real value of a per-tensor grid."""
        return float(np.max(self.scale * (self.qmax - self.zero_point)))


@dataclass(frozen=True)
class View:
    """How a rewritten tensor relates to the network that was read: original = scale·(value + offset)."""

    scale: Array
    offset: Array


@dataclass(frozen=True)
class Correction:
    """Which of a layer's biases make up for the mean error of its rounded weights, `(O,)` booleans; and how found."""

    how: Literal["analytic", "empirical", "fine-tuned"]
    channels: Array


class Growth(NamedTuple):
    """How a measured range grows with samples: its ends with twice as many, as shares of them.

    `samples` it was measured on, each of which has so many `values` in each of its `channels`; 0 where nobody counted.
    """

    low: float
    high: float
    samples: int = 0
    values: float = 0.0
    channels: int = 1


@dataclass(frozen=True)
class Model:
    """A network and everything known about it.

    `moments` and `ranges` describe float tensors, `qparams` the tensors and weights that will be
    integers, `views` the tensors that were rescaled or shifted, `log` what every pass did. `shifts` holds, by weight,
    the powers of two that its output channels are multiplied by before they share a grid: `(O,)`; the range of a
    weight that has some is of the shifted weight. `corrected` holds, by layer output, the biases that were corrected;
    `apart` outputs of joins whose inputs keep grids of their own. `growth` holds how ends of measured ranges grow with
    samples. `source` is the file that the network was read from, empty where it was none.
    """

    graph: Graph
    moments: Mapping[Name, Moments] = field(default_factory=dict)
    ranges: Mapping[Name, Range] = field(default_factory=dict)
    qparams: Mapping[Name, QParams] = field(default_factory=dict)
    views: Mapping[Name, View] = field(default_factory=dict)
    shifts: Mapping[Name, Array] = field(default_factory=dict)
    corrected: Mapping[Name, Correction] = field(default_factory=dict)
    apart: frozenset[Name] = frozenset()
    growth: Mapping[Name, Growth] = field(default_factory=dict)
    log: tuple[Event, ...] = ()
    source: str = field(default="", compare=False)

    def __repr__(self) -> str:
        inputs, outputs = (", ".join(names) for names in (self.graph.inputs, self.graph.outputs))
        return f"Model({inputs} → {outputs}, nodes={len(self.graph.nodes)}, grids={len(self.qparams)})"

    @property
    def trained(self) -> bool:
        """Whether a BatchNorm tells moments of something."""
        return any(m.origin == "batchnorm" for m in self.moments.values())

    def noted(self, *events: Event) -> Model:
        """The same model with events added to its log."""
        return replace(self, log=(*self.log, *events))
