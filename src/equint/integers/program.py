"""An integer network: what an NPU executes, what bundles hold and what the engine runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import EquintError
from ..ir.model import Array, Name, QParams, Shape
from ..maths.affine import dequantize, quantize, storage
from ..maths.fixedpoint import Rounding

MOVES = frozenset(
    ["Concat", "Reshape", "Flatten", "Transpose", "Slice", "Split", "Squeeze", "Unsqueeze", "Identity", "Expand"]
    + ["Gather", "DepthToSpace", "SpaceToDepth", "Shape", "Resize", "MaxPool", "GlobalMaxPool", "Pad"]
)
"""Steps that move integers, or choose among them, just as the ONNX operator of the name; Resize takes nearest ones."""
LAYERS = frozenset(["Conv", "ConvTranspose", "Gemm"])
"""Steps with weights."""


@dataclass(frozen=True)
class Requantize:
    """q = clamp(round(acc · mantissa / 2^right) + zero_point, low, high), right = mantissa_bits − exponent + shift.

    `mantissa`, `exponent` and `shift` (the layer's scale compound M·2^s and 2^-S of Oh et al. 2020, Algorithm 2), `low`
    and `high` are `()` or `(C,)` along the step's channel axis; `low` and `high` are integers of the output's grid.
    """

    mantissa: Array
    exponent: Array
    shift: Array
    zero_point: int
    low: Array
    high: Array

    def right(self, mantissa_bits: int) -> Array:
        """Places by which the product is shifted: `()` or `(C,)`."""
        return np.asarray(mantissa_bits - self.exponent.astype(np.int64) + self.shift.astype(np.int64))


@dataclass(frozen=True)
class Step:
    """One integer operator. z is the zero point of a tensor's grid, q its integers; sums are exact.

    Conv           acc = Σ (q_x − z_x)·(weight − weight_zero_point) + bias; padding adds nothing. weight (O, I/G, *k),
                   weight_zero_point () or (O,), bias (O,); attrs strides, dilations, pads, group: all always there
    ConvTranspose  the same; weight (I, O/G, *k); attrs also output_padding
    Gemm           acc = Σ (q_x − z_x)·(weight − weight_zero_point) + bias over the last axis; weight (O, I)
    Sum            acc = Σ_k coefficients[k]·(q_k − z_k) + bias; coefficients (K, 1) or (K, C), bias () or (C,)
    Mul            acc = (q_a − z_a)·(q_b − z_b), broadcast as in ONNX
    AveragePool    acc = Σ (q − z) over the window; attrs kernel_shape, strides, pads; with array `reciprocals`
                   (*spatial) it is multiplied, position by position (windows that hold padding count fewer values)
    GlobalAveragePool  acc = Σ (q − z) over all positions
    Interpolate    q = round(rows · q · columnsᵀ / 2^(2·bits)), the last two axes; rows (H', H), columns (W', W) of
                   integers ≥ 0, each row of either summing to 2^bits (attr)
    Table          q = table[q − qmin] or table[c, q − qmin]: any function of one value
    Clip           q = clamp(q, low, high): () or (C,)
    Pad            attrs `value`: the integer that is put around; array `pads` as in ONNX
    and MOVES      as in ONNX, with constant inputs among `Program.consts`

    Those that have an accumulator are requantized; the others keep the grid. `(C,)` arrays run along attr `axis`
    (1, or -1 for Gemm), which every step with such arrays has.

    Attributes:
        name: how messages call the layer.
        arrays: integer constants by role.
    """

    op: str
    name: str
    inputs: tuple[Name, ...]
    outputs: tuple[Name, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, Array] = field(default_factory=dict)
    requantize: Requantize | None = None


@dataclass(frozen=True)
class Program:
    """Steps in topological order over integer tensors.

    Attributes:
        grids: of every integer activation, so that `real = scale·(q − zero_point)`; shape tensors have none.
        shapes: as far as known. consts: inputs of steps that move integers: int64, or scales of a Resize.
        rounding, mantissa_bits, exponent_bits, shift_bits: of the target.
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

    def __repr__(self) -> str:
        return f"Program({self.name!r}, {', '.join(self.inputs)} → {', '.join(self.outputs)}, steps={len(self.steps)})"

    def quantized(self, name: Name, values: Array) -> Array:
        """Integers of real values on the grid of tensor `name`, as they are stored: at the border of the device.

        Raises:
            EquintError: a value is not a number, or infinite.
        """
        if not np.all(np.isfinite(values)):
            raise EquintError(f"{name}: holds values that are not finite; check how the inputs are prepared")
        return quantize(values, self.grids[name]).astype(storage(self.grids[name]))

    def real(self, name: Name, integers: Array) -> Array:
        """Real values of integers on the grid of tensor `name`."""
        return dequantize(integers.astype(np.int32), self.grids[name])
