"""An integer network: what an NPU executes, what bundles hold and what the engine runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..errors import UnusableData
from ..ir.model import Array, Graph, Name, QParams, Shape
from ..maths.affine import along_axis, dequantize, quantize, storage
from ..maths.fixedpoint import Rounding


@dataclass(frozen=True)
class Requantize:
    """q = clamp(round(acc · mantissa / 2^right) + zero_point, low, high), right = mantissa_bits − exponent + shift.

    `mantissa`, `exponent` and `shift` (the layer's scale compound M·2^s and 2^-S of Oh et al. 2020, Algorithm 2), `low`
    and `high` are `()` or `(C,)` along the step's channel axis; `low` and `high` are integers of the output's grid.

    An activation of two straight parts that acts on the accumulator (LeakyRelu, PRelu) has other factors for acc < 0:
    `mantissa_below`, which may be 0 or negative as a PRelu's slopes may, and `exponent_below`. `rounding` is this
    step's own, where it rounds otherwise than the program.
    """

    mantissa: Array
    exponent: Array
    shift: Array
    zero_point: int
    low: Array
    high: Array
    mantissa_below: Array | None = None
    exponent_below: Array | None = None
    rounding: Rounding | None = None

    @property
    def sides(self) -> tuple[Requantize, ...]:
        """Itself, and what takes its place for acc < 0 if there is something."""
        if self.mantissa_below is None or self.exponent_below is None:
            return (self,)
        above = replace(self, mantissa_below=None, exponent_below=None)
        return above, replace(above, mantissa=self.mantissa_below, exponent=self.exponent_below)

    def right(self, mantissa_bits: int) -> Array:
        """Places by which the product is shifted: `()` or `(C,)`."""
        return np.asarray(mantissa_bits - self.exponent.astype(np.int64) + self.shift.astype(np.int64))


@dataclass(frozen=True)
class Step:
    """One integer operator; what each computes stands in `equint.integers.steps.STEPS`.

    Attributes:
        name: how messages call the layer.
        arrays: integer constants by role; those of shape `(C,)` run along `axis`.
        requantize: of steps that have an accumulator; the others keep the grid.
    """

    op: str
    name: str
    inputs: tuple[Name, ...]
    outputs: tuple[Name, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, Array] = field(default_factory=dict)
    requantize: Requantize | None = None

    @property
    def axis(self) -> int:
        """The channel axis: 1, or -1 for Gemm."""
        return int(self.attrs.get("axis", 1))

    @property
    def label(self) -> str:
        """How messages call the step: by its name, or by its operator where it has none."""
        return self.name or self.op

    def lists(self, *keys: str) -> dict[str, Any]:
        """Attributes that are lists of whole numbers."""
        return {key: [int(n) for n in self.attrs[key]] for key in keys}


@dataclass(frozen=True)
class Program:
    """Steps in topological order over integer tensors: q stands for scale·(q − z), z the zero point of the grid.

    Attributes:
        grids: of every integer activation; shape tensors have none.
        shapes: as far as known. consts: what steps read and no step makes: integers on a grid, int64 of shapes,
            or scales of a Resize.
        rounding, mantissa_bits, exponent_bits, shift_bits: of the target.
        weight_scales: of layers, by what they make: `()` or `(O,)`, real units; for LiteRT's files, which tell scales
            and leave multipliers to the runtime. Other programs have none: no step needs them.
        types: NumPy's names of what has no grid and is no size in int64: floats, on hardware that has them beside
            integers, and masks.
        joins: what whoever runs the program does in float to its real outputs, where parts of a result have grids of
            their own (`equint.integers.joins`).
    """

    steps: tuple[Step, ...]
    inputs: tuple[Name, ...]
    outputs: tuple[Name, ...]
    grids: Mapping[Name, QParams]
    shapes: Mapping[Name, Shape] = field(default_factory=dict)
    consts: Mapping[Name, Array] = field(default_factory=dict)
    rounding: Rounding = "half_up"
    mantissa_bits: int = 32
    exponent_bits: int = 6
    shift_bits: int = 4
    target: str = ""
    name: str = "equint"
    joins: Graph | None = None
    weight_scales: Mapping[Name, Array] = field(default_factory=dict)
    types: Mapping[Name, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Program({self.name!r}, {', '.join(self.inputs)} → {', '.join(self.outputs)}, steps={len(self.steps)})"

    @property
    def results(self) -> tuple[Name, ...]:
        """The network's results: its outputs, joined where they are joined in float."""
        return self.outputs if self.joins is None else self.joins.outputs

    def quantized(self, name: Name, values: Array) -> Array:
        """Integers of real values on the grid of tensor `name`; an error where one is not finite."""
        if not np.all(np.isfinite(values)):
            raise UnusableData(f"{name}: holds values that are not finite; check how the inputs are prepared")
        return quantize(values, self.grids[name]).astype(self.storage(name))

    def real(self, name: Name, integers: Array) -> Array:
        """Real values of integers on the grid of tensor `name`."""
        return dequantize(integers.astype(np.int32), self.grids[name])

    def storage(self, name: Name) -> np.dtype[Any]:
        """The type that holds a tensor: that of its grid, or its own; int64 for shapes."""
        return storage(self.grids[name]) if name in self.grids else np.dtype(self.types.get(name, "int64"))

    def grid(self, name: Name) -> QParams:
        """The grid of a tensor; an error where it has none, as inputs that are no activations."""
        if name not in self.grids:
            raise UnusableData(f"{name}: holds {self.storage(name)} and has no grid; leave it out of what is compared")
        return self.grids[name]

    def zero_point(self, name: Name) -> int:
        """The integer that stands for zero."""
        return int(self.grids[name].zero_point)

    def shape(self, step: Step, name: Name) -> Shape:
        """The shape of a tensor that the step reads or writes; an error where it is not known."""
        if name not in self.shapes:
            raise UnusableData(
                f"{step.name}: the shape of {name} is not known; infer the network's shapes before lowering it"
            )
        return self.shapes[name]

    def rank(self, step: Step) -> int:
        """Number of dimensions of what the step writes; a convolution's weight has as many."""
        rank = np.ndim(step.arrays.get("weight", 0))
        return rank if rank > 2 else len(self.shape(step, step.outputs[0]))

    def along(self, step: Step, values: Array) -> Array:
        """`()` or `(C,)` values of a step against what it writes."""
        if np.size(values) == 1:
            return np.reshape(values, ())
        return along(values, step.axis, -step.axis if step.axis < 0 else self.rank(step))

    def channels(self, step: Step, name: Name) -> int:
        """Size of axis 1 of a tensor that the step reads or writes; an error where it is not known."""
        shape = self.shape(step, name)
        if len(shape) < 2 or not isinstance(shape[1], int):
            raise UnusableData(
                f"{step.name}: the number of channels of {name} is not known; give the network fixed shapes"
            )
        return shape[1]


def along(values: Array, axis: int, rank: int) -> Array:
    """`()` or `(C,)` values against a tensor of this rank; one value alone is a scalar."""
    values = np.asarray(values)
    if values.size == 1:
        return values.reshape(())
    shape = along_axis(values, axis, rank).shape
    first = next(k for k, n in enumerate(shape) if n > 1)
    return values.reshape(shape[first:])
