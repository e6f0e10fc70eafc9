"""Steps that move integers, or choose among them, as ONNX operators of any type, floats included."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import EquintError, UnsupportedOperator
from ..ir.model import Array, Name
from .program import Program, Step

if TYPE_CHECKING:
    from .maker import Maker


@dataclass(frozen=True)
class Move:
    """A move to be written: of which step, from which tensors to which, of what type; floats hold q − z."""

    maker: Maker
    program: Program
    step: Step
    inputs: Sequence[Name]
    outputs: Sequence[Name]
    kind: np.dtype[Any]


def as_named(move: Move) -> None:
    """The ONNX operator of the step's name."""
    move.maker.node(move.step.op, move.inputs, move.outputs, **move.step.attrs)


def pad(move: Move) -> None:
    """A Pad whose widths and value are constants."""
    step, attrs = move.step, {k: v for k, v in move.step.attrs.items() if k != "value"}
    zero = move.program.zero_point(step.inputs[0]) if move.kind.kind == "f" else 0
    fill = np.asarray(step.attrs["value"] - zero, move.kind)
    move.maker.add("Pad", move.inputs[0], step.arrays["pads"].astype(np.int64), fill, to=move.outputs[0], **attrs)


def choose(move: Move) -> None:
    """A Where whose condition is that the first input's integers are `value`."""
    step, (x, a, b), (y,) = move.step, move.inputs, move.outputs
    grid = step.inputs[0] in move.program.grids
    kind = move.kind if grid else np.dtype(np.int64)
    value = step.attrs["value"] - (move.program.zero_point(step.inputs[0]) if grid and kind.kind == "f" else 0)
    if grid and kind.kind != "f":
        x, kind = move.maker.cast(x, np.int32), np.dtype(np.int32)
    move.maker.add("Where", move.maker.add("Equal", x, np.asarray(value, kind)), a, b, to=y)


def global_max_pool(move: Move) -> None:
    """A ReduceMax, which takes integers."""
    axes = np.arange(2, move.program.rank(move.step), dtype=np.int64)
    move.maker.add("ReduceMax", move.inputs[0], axes, to=move.outputs[0], keepdims=1)


def resize(move: Move) -> None:
    """Nearest neighbours: by sizes, which are integers, or by positions where only other factors are given."""
    maker, program, step, inputs = move.maker, move.program, move.step, move.inputs
    attrs, out = step.attrs, move.outputs[0]
    if attrs.get("mode", "nearest") not in ("nearest", b"nearest"):
        raise UnsupportedOperator(f"{step.name}: Resize chooses nearest values; lower other modes to Interpolate")
    if len(inputs) > 3 and inputs[3]:
        maker.add("Resize", inputs[0], "", "", inputs[3], to=out, **attrs)
        return
    scales = program.consts[step.inputs[2]].astype(np.float32)
    axes = attrs.get("axes") or range(len(scales))
    if np.all(scales == np.rint(scales)) and "axes" not in attrs:
        sizes = maker.add("Mul", maker.add("Shape", inputs[0]), scales.astype(np.int64))
        maker.add("Resize", inputs[0], "", "", sizes, to=out, **attrs)
        return
    x, shape = inputs[0], program.shape(step, step.inputs[0])
    for axis, scale in zip(axes, scales, strict=True):
        size = shape[axis]
        if scale == 1:
            continue
        if not isinstance(size, int):
            raise UnsupportedOperator(
                f"{step.name}: resizing by {scale} needs sizes that are known; give the network fixed shapes"
            )
        try:
            places = nearest(size, float(scale), attrs)
        except EquintError as error:
            raise UnsupportedOperator(f"{step.name}: {error}") from error
        x = maker.add("Gather", x, places, axis=axis)
    maker.add("Identity", x, to=out)


def nearest(size: int, scale: float, attrs: Mapping[str, Any]) -> Array:
    """Which of `size` positions each position of a Resize by `scale` takes, in the float32 arithmetic of onnxruntime.

    Raises:
        EquintError: a mode that ONNX does not have for nearest values.

    Example:
        >>> nearest(3, 1.5, {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}).tolist()
        [0, 0, 1, 2]
    """
    text = {k: v.decode() if isinstance(v, bytes) else v for k, v in attrs.items()}
    how, rounding = (
        text.get("coordinate_transformation_mode", "half_pixel"),
        text.get("nearest_mode", "round_prefer_floor"),
    )
    out, factor, half = int(np.float32(size) * np.float32(scale)), np.float32(scale), np.float32(0.5)
    x = np.arange(out, dtype=np.float32)
    middle = (x + half) / factor - half
    places = {
        "asymmetric": x / factor,
        "half_pixel": middle,
        "pytorch_half_pixel": middle if out > 1 else x * 0,
        "align_corners": x * np.float32(size - 1) / np.float32(max(out - 1, 1)),
    }
    rounders: Mapping[str, Callable[[Array], Array]] = {
        "floor": np.floor,
        "ceil": np.ceil,
        "round_prefer_floor": lambda v: np.ceil(v - half),
        "round_prefer_ceil": lambda v: np.floor(v + half),
    }
    if how not in places or rounding not in rounders:
        raise UnsupportedOperator(
            f"Resize by {scale} with {how} and {rounding} cannot be written; resize by a whole factor"
        )
    return np.clip(rounders[rounding](places[how]), 0, size - 1).astype(np.int64)


def blocks(move: Move) -> None:
    """DepthToSpace and SpaceToDepth as what they are: Reshape, Transpose, Reshape."""
    maker, step, x, b = move.maker, move.step, move.inputs[0], int(move.step.attrs["blocksize"])
    n = move.program.channels(step, step.inputs[0])
    height, width = maker.add("Shape", x, start=2, end=3), maker.add("Shape", x, start=3, end=4)
    if step.op == "DepthToSpace":
        n //= b * b
        columns_first = step.attrs.get("mode", "DCR") in ("CRD", b"CRD")
        head = [0, n, b, b] if columns_first else [0, b, b, n]
        apart = maker.add("Concat", np.array(head), height, width, axis=0)
        order = [0, 1, 4, 2, 5, 3] if columns_first else [0, 3, 4, 1, 5, 2]
        sizes = [maker.add("Mul", s, np.array([b])) for s in (height, width)]
    else:
        sizes = [maker.add("Div", s, np.array([b])) for s in (height, width)]
        apart = maker.add("Concat", np.array([0, n]), sizes[0], np.array([b]), sizes[1], np.array([b]), axis=0)
        order, n = [0, 3, 5, 1, 2, 4], n * b * b
    turned = maker.add("Transpose", maker.add("Reshape", x, apart), perm=order)
    maker.add("Reshape", turned, maker.add("Concat", np.array([0, n]), *sizes, axis=0), to=move.outputs[0])


# Functions of single values, and interpolation, of integers alone


def interpolate(maker: Maker, program: Program, step: Step) -> None:
    """Two products and one rounding in 64 bits."""
    q, right = program.grids[step.inputs[0]], 2 * int(step.attrs["bits"])
    rows, columns = (step.arrays[k].astype(np.int64) for k in ("rows", "columns"))
    wide = maker.add("MatMul", maker.add("MatMul", rows, maker.cast(step.inputs[0], np.int64)), columns.T)
    limit = np.array([max(-q.qmin, q.qmax) << right], object)
    rounding = "half_away" if program.rounding == "double" else program.rounding  # there is one rounding
    near = maker.rounded_shift(wide, np.array([right], object), limit, rounding, lambda a: a, step.name)
    maker.cast(near, program.storage(step.outputs[0]), step.outputs[0])


def table(maker: Maker, program: Program, step: Step) -> None:
    """A Gather from the table, or from the tables of all channels one behind the other."""
    table, first = step.arrays["table"], program.grids[step.inputs[0]].qmin
    offset = np.asarray(-first, np.int32)
    if table.ndim == 2:
        starts = np.arange(len(table), dtype=np.int32) * np.int32(table.shape[1]) - np.int32(first)
        offset = program.along(step, starts)
    index = maker.cast(step.inputs[0], np.int32)
    index = maker.add("Add", index, offset) if np.any(offset) else index
    values = table.reshape(-1).astype(program.storage(step.outputs[0]))
    maker.add("Gather", values, index, to=step.outputs[0], axis=0)


def clip(maker: Maker, program: Program, step: Step) -> None:
    """A Clip; Max and Min where the bounds differ by channel."""
    (x,), (y,), low, high = step.inputs, step.outputs, step.arrays["low"], step.arrays["high"]
    kind = program.storage(y)
    if low.size == high.size == 1:
        maker.add("Clip", x, low.reshape(()).astype(kind), high.reshape(()).astype(kind), to=y)
        return
    low, high = (program.along(step, b).astype(np.int32) for b in (low, high))
    maker.cast(maker.add("Min", maker.add("Max", maker.cast(x, np.int32), low), high), kind, y)
