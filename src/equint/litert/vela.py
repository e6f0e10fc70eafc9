"""What Vela asks of the sizes of operators that it puts on Ethos-U: bounds of U55, U65 and U85, the narrower of each.

Source: Arm, ethos-u-vela 5.2.0, the report that `vela --supported-ops-report` writes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from ..ir.model import Array
from .file import File

MOST_SIZE = 1 << 16
"""Of any axis of a feature map, and of products of some."""
MOST_WEIGHTS = 127 << 16
"""Sum of the magnitudes of the weights that make one output."""
MOST_STRIDE, MOST_KERNEL, MOST_HEIGHT = 3, 8, 256
MOST_REDUCED = 1 << 24
MOST_AXIS = 4095


@dataclass(frozen=True)
class Written:
    """An operator as it stands in a file: sizes of its tensors, its options, its constants."""

    code: str
    inputs: Sequence[tuple[int, ...]]
    outputs: Sequence[tuple[int, ...]]
    options: Mapping[str, Any]
    constants: Sequence[Array | None]

    @property
    def strides(self) -> tuple[int, int]:
        """Of rows and of columns."""
        return int(self.options["stride_h"]), int(self.options["stride_w"])


def beyond(file: File, operator: Mapping[str, Any]) -> str:
    """Which of Vela's bounds an operator of a file does not keep to; empty where it keeps to all.

    Example:
        >>> file = File()
        >>> x, y = file.tensor("x", (1, 70000, 1, 4), "int8"), file.tensor("y", (1, 70000, 1, 4), "int8")
        >>> file.operator("RELU", [x], [y])
        >>> beyond(file, file.operators[0])
        'RELU of 70000 positions along an axis, of which Ethos-U takes 65536'
    """
    op = _written(file, operator)
    longest = max((max(shape, default=1) for shape in (*op.inputs[:1], *op.outputs)), default=1)
    if longest > MOST_SIZE:
        return f"{op.code} of {longest} positions along an axis, of which Ethos-U takes {MOST_SIZE}"
    why = _BOUNDS[op.code](op) if op.code in _BOUNDS else ""
    return f"{op.code} {why}" if why else ""


def _written(file: File, operator: Mapping[str, Any]) -> Written:
    code = next(name for (name, _), index in file.codes.items() if index == operator["opcode_index"])
    found: tuple[str, Mapping[str, Any]] = (
        operator.get("builtin_options") or operator.get("builtin_options_2") or ("", {})
    )
    inputs, outputs = ([tuple(file.tensors[i]["shape"]) for i in operator[side]] for side in ("inputs", "outputs"))
    return Written(code, inputs, outputs, found[1], [_constant(file, i) for i in operator["inputs"]])


def _constant(file: File, index: int) -> Array | None:
    tensor = file.tensors[index]
    if not tensor["buffer"] or tensor["type"] not in ("INT8", "INT32"):
        return None
    data: Array = file.buffers[tensor["buffer"]]["data"]
    return np.asarray(data.view(tensor["type"].lower()).reshape(tensor["shape"]))


def _sums(op: Written, axis: int) -> str:
    weight = op.constants[1]
    if weight is None:
        return ""
    most = int(np.abs(weight.astype(np.int64)).sum(tuple(a for a in range(weight.ndim) if a != axis)).max(initial=0))
    return f"with weights of magnitude {most} for one output, of which Ethos-U sums {MOST_WEIGHTS}" * (
        most > MOST_WEIGHTS
    )


def _far(op: Written) -> str:
    """Strides above 3 in windows that are dilated or padded."""
    dilations = (op.options.get("dilation_h_factor", 1), op.options.get("dilation_w_factor", 1))
    plain = op.options["padding"] == "VALID" and dilations == (1, 1)
    apart = max(op.strides) > MOST_STRIDE and not plain
    return f"of stride {max(op.strides)}, which Ethos-U takes above 3 without padding and dilation alone" * apart


def _conv(op: Written) -> str:
    return _far(op) or _sums(op, 0)


def _depthwise(op: Written) -> str:
    if max(op.strides) > MOST_STRIDE:
        return f"of stride {max(op.strides)}, of which Ethos-U takes 3"
    return _sums(op, 3)


def _transposed(op: Written) -> str:
    (_, kh, kw, _), (_, ih, iw, _), (_, oh, ow, _) = op.inputs[1], op.inputs[2], op.outputs[0]
    (sh, sw), same = op.strides, op.options["padding"] == "SAME"
    lines = (op.strides == (2, 1) and iw == kw == 1) or (op.strides == (1, 2) and ih == kh == 1)
    if op.strides not in ((1, 1), (2, 2)) and not lines:
        return f"of strides {sh} and {sw}, of which Ethos-U takes 1 and 2"
    whole = [i * s + (0 if same else k - s) for i, s, k in ((ih, sh, kh), (iw, sw, kw))]
    if [oh, ow] != whole:
        return f"to {oh}x{ow}, which is not the input times the stride, as Ethos-U takes it"
    return _sums(op, 0)


def _pool(op: Written) -> str:
    height, width = int(op.options["filter_height"]), int(op.options["filter_width"])
    small = op.options["padding"] != "VALID" and op.code == "AVERAGE_POOL_2D"
    if small and max(height, width) > MOST_KERNEL:
        return f"of {height}x{width} with padding, of which Ethos-U takes {MOST_KERNEL}x{MOST_KERNEL}"
    if height > MOST_HEIGHT or height * width > MOST_SIZE:
        return f"of {height}x{width}, of which Ethos-U takes {MOST_HEIGHT} rows and {MOST_SIZE} values"
    return _far(op)


def _mean(op: Written) -> str:
    shape, axes = op.inputs[0], op.constants[1]
    over = [] if axes is None else [int(a) % len(shape) for a in axes.ravel()]
    sizes = [shape[a] for a in over]
    if len(shape) == 4 and shape[0] != 1:
        return f"of a batch of {shape[0]}, of which Ethos-U takes 1"
    if prod(sizes) > MOST_REDUCED or max(sizes, default=1) > MOST_AXIS:
        return f"over {'x'.join(map(str, sizes))} values, of which Ethos-U takes {MOST_AXIS} along an axis"
    if len(shape) == 4 and 3 in over and 1 not in shape[1:]:
        return "over channels of images, which Ethos-U takes along one row or column alone"
    return ""


def _resize(op: Written) -> str:
    (_, ih, iw, _), (_, oh, ow, _) = op.inputs[0], op.outputs[0]
    if (ih, iw) in ((1, 1), (oh, ow)):
        return ""
    less = int(bool(op.options.get("align_corners")))
    steps = [(o - less, i - less) for o, i in ((oh, ih), (ow, iw))]
    factors = {o / i for o, i in steps if i > 0 and (o, i) != (1 - less, 1 - less)}
    halves = bool(op.options.get("half_pixel_centers")) and op.code == "RESIZE_BILINEAR"
    known = {2.0} if halves else {2.0, 4.0, 8.0}
    if len(factors) == 1 and factors <= known:
        return ""
    return f"from {ih}x{iw} to {oh}x{ow}; Ethos-U takes both sides {'2' if halves else '2, 4 or 8'} times as large"


def _softmax(op: Written) -> str:
    positions = prod(op.inputs[0][:-1])
    return f"of {positions} positions, of which Ethos-U takes {MOST_SIZE - 1}" * (positions >= MOST_SIZE)


def _transpose(op: Written) -> str:
    shape = op.inputs[0]
    wide = [n for n in shape if n > 1]
    if len(shape) > 8 or (len(wide) > 3 and prod(sorted(wide)[2:]) > MOST_SIZE):
        return f"of {'x'.join(map(str, shape))}, of which Ethos-U takes {MOST_SIZE} values along all axes but two"
    return ""


def _slice(op: Written) -> str:
    strides = op.constants[3] if len(op.constants) > 3 else None
    backward = strides is not None and bool(np.any(strides < 0))
    return "from the end to the front, which Ethos-U does not take" * backward


_BOUNDS: Mapping[str, Callable[[Written], str]] = {
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _depthwise,
    "FULLY_CONNECTED": lambda op: _sums(op, 0),
    "TRANSPOSE_CONV": _transposed,
    **dict.fromkeys(("AVERAGE_POOL_2D", "MAX_POOL_2D"), _pool),
    "MEAN": _mean,
    **dict.fromkeys(("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"), _resize),
    "SOFTMAX": _softmax,
    "TRANSPOSE": _transpose,
    "STRIDED_SLICE": _slice,
}
