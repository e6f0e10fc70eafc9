"""Steps that move integers: mostly another order of the same memory, or one operator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import EquintError
from ..integers.emit_moves import nearest
from ..integers.program import Step
from ..ir.model import Array
from .layouts import Order, as_written, channels_last, reshaped, stored, transposed
from .writer import Form, Writer


def reshape(writer: Writer, step: Step) -> None:
    """A RESHAPE of what lies in memory, where axes that are split or joined lie side by side; else of a moved copy.

    Features that are flattened out of images for matrix products alone stay where they are: the products' weights are
    put in their order.
    """
    name, (y,) = step.inputs[0], step.outputs
    before, after = writer.shape(name), writer.shape(y)
    x, order = writer.place(name)
    made = reshaped(before, after, order)
    readers = writer.readers.get(y, [])
    products = bool(readers) and all(r.op == "Gemm" for r in readers) and y not in writer.program.outputs
    if made is None and products and len(after) == 2 and order[0] == 0 and before[0] == after[0]:
        made = as_written(2)
        places = np.arange(int(np.prod(before[1:]))).reshape(before[1:])
        writer.mixed[y] = places.transpose([axis - 1 for axis in order[1:]]).ravel()
    if made is None:
        x, made = writer.read(name, as_written(len(before))), as_written(len(after))
    _renamed(writer, step, x, made)


def _renamed(writer: Writer, step: Step, x: int, order: Order) -> None:
    """The same memory in another shape."""
    (y,) = step.outputs
    if tuple(writer.file.tensors[x]["shape"]) == stored(writer.shape(y), order):
        writer.put(y, x, order)
    else:
        writer.reshape(x, writer.made(y, order))


def transpose(writer: Writer, step: Step) -> None:
    """Nothing: the same memory, whose axes have other names."""
    x, order = writer.place(step.inputs[0])
    perm = step.attrs.get("perm") or range(len(order))[::-1]
    writer.put(step.outputs[0], x, transposed(order, [int(p) for p in perm]))


def identity(writer: Writer, step: Step) -> None:
    """Nothing."""
    writer.put(step.outputs[0], *writer.place(step.inputs[0]))


def concat(writer: Writer, step: Step) -> None:
    """CONCATENATION of tensors of one order."""
    (y,), consts = step.outputs, writer.program.consts
    order = next((writer.place(n)[1] for n in step.inputs if n not in consts), channels_last(writer.rank(y)))
    axis = int(step.attrs["axis"]) % len(order)
    inputs = [writer.read(name, order) for name in step.inputs]
    options: dict[str, Any] = {"axis": order.index(axis), "fused_activation_function": "NONE"}
    writer.file.operator("CONCATENATION", inputs, [writer.made(y, order)], **options)


def split(writer: Writer, step: Step) -> None:
    """SPLIT_V."""
    x, order = writer.place(step.inputs[0])
    axis = int(step.attrs["axis"]) % len(order)
    sizes = writer.integers("sizes", writer.sizes(step, step.inputs[1]))
    outputs = [writer.made(y, order) for y in step.outputs]
    inputs = [x, sizes, writer.integers("axis", order.index(axis))]
    writer.file.operator("SPLIT_V", inputs, outputs, num_splits=len(outputs))


def cut(writer: Writer, step: Step) -> None:
    """STRIDED_SLICE."""
    name, (y,) = step.inputs[0], step.outputs
    x, order = writer.place(name)
    given = [writer.sizes(step, n) if n else None for n in (*step.inputs[1:], "", "")][:4]
    starts, ends = given[0] or [], given[1] or []
    axes, steps = given[2] or list(range(len(starts))), given[3] or [1] * len(starts)
    shape = writer.shape(name)
    slices = dict[int, tuple[int, int, int]]()
    for axis, start, stop, stride in zip(axes, starts, ends, steps, strict=True):
        size = shape[axis % len(shape)]
        slices[axis % len(shape)] = slice(start, stop, stride).indices(size)
    whole = [slices.get(axis, (0, shape[axis], 1)) for axis in order]
    begin, end, strides = ([w[k] for w in whole] for k in range(3))
    mask = sum(1 << k for k, e in enumerate(end) if e < 0)  # down to the first, and it too
    inputs = [x, *(writer.integers(n, v) for n, v in (("begin", begin), ("end", end), ("strides", strides)))]
    version = 4 if len(order) > 4 else 0
    writer.file.operator("STRIDED_SLICE", inputs, [writer.made(y, order)], version, end_mask=mask)


def pad(writer: Writer, step: Step) -> None:
    """PAD, PADV2 with another value than zero's, or MIRROR_PAD."""
    name, (y,) = step.inputs[0], step.outputs
    x, order = writer.place(name)
    ends = np.asarray(step.arrays["pads"]).reshape(2, -1).T
    if np.any(ends < 0):
        raise writer.refuse(step, "LiteRT pads by nothing below 0; slice instead")
    widths, mode = writer.integers("pads", ends[list(order)]), step.attrs.get("mode", "constant")
    value, grid, made = int(step.attrs["value"]), writer.grid(name), writer.made(y, order)
    if mode == "reflect":
        writer.file.operator("MIRROR_PAD", [x, widths], [made], mode="REFLECT")
    elif mode != "constant":
        raise writer.refuse(step, f"LiteRT has no padding in mode {mode}; use constant or reflect")
    elif value == int(grid.zero_point):
        writer.file.operator("PAD", [x, widths], [made])
    else:
        fill = writer.file.constant("fill", np.array([value], writer.dtype(name)), grid)
        writer.file.operator("PADV2", [x, widths, fill], [made])


def gather(writer: Writer, step: Step) -> None:
    """GATHER by constant indices."""
    name, indices = step.inputs
    (y,), shape = step.outputs, writer.shape(name)
    axis = int(step.attrs.get("axis", 0)) % len(shape)
    x, order = writer.read(name, as_written(len(shape))), as_written(writer.rank(y))
    chosen = np.asarray(writer.sizes(step, indices)).reshape(writer.program.consts[indices].shape) % shape[axis]
    _gathered(writer, x, chosen, axis, writer.made(y, order))


def _gathered(writer: Writer, x: int, chosen: Array, axis: int, made: int) -> None:
    writer.file.operator("GATHER", [x, writer.integers("indices", chosen)], [made], axis=axis)


def blocks(writer: Writer, step: Step) -> None:
    """DEPTH_TO_SPACE or SPACE_TO_DEPTH; channels are put in LiteRT's order first where ONNX has another."""
    name, (y,), size = step.inputs[0], step.outputs, int(step.attrs["blocksize"])
    order, shape = channels_last(4), writer.shape(name)
    x = writer.read(name, order)
    if writer.dtype(y) == "int16":
        _wide_blocks(writer, step, x)
        return
    if step.op == "DepthToSpace":
        count = shape[1] // size**2
        if step.attrs.get("mode", "DCR") in ("CRD", b"CRD") and count > 1:
            chosen = np.arange(shape[1]).reshape(count, size**2).T.ravel()
            turned = writer.file.tensor(f"{name}_blocks", stored(shape, order), writer.dtype(name), writer.grid(name))
            _gathered(writer, x, chosen, 3, turned)
            x = turned
        writer.file.operator("DEPTH_TO_SPACE", [x], [writer.made(y, order)], block_size=size)
    else:
        writer.file.operator("SPACE_TO_DEPTH", [x], [writer.made(y, order)], block_size=size)


def _wide_blocks(writer: Writer, step: Step, x: int) -> None:
    """The same in a RESHAPE, a TRANSPOSE and a RESHAPE: LiteRT has neither operator of int16."""
    (y,), size, order = step.outputs, int(step.attrs["blocksize"]), channels_last(4)
    n, height, width, channels = (int(k) for k in writer.file.tensors[x]["shape"])
    count, perm = channels // size**2, (0, 1, 3, 2, 4, 5)
    split = (n, height, width, size, size, count)
    if step.op != "DepthToSpace":
        split = (n, height // size, size, width // size, size, channels)
    elif step.attrs.get("mode", "DCR") in ("CRD", b"CRD"):
        split, perm = (n, height, width, count, size, size), (0, 1, 4, 2, 5, 3)
    apart = writer.raw(y, split)
    writer.reshape(x, apart)
    turned = writer.raw(y, [split[axis] for axis in perm])
    writer.file.operator("TRANSPOSE", [apart, writer.integers("perm", perm)], [turned], 5)
    writer.reshape(turned, writer.made(y, order))


def resize(writer: Writer, step: Step) -> None:
    """RESIZE_NEAREST_NEIGHBOR where it takes the same values; else a GATHER along each axis."""
    name, (y,) = step.inputs[0], step.outputs
    before, after, order = writer.shape(name), writer.shape(y), channels_last(writer.rank(y))
    taken = [_taken(writer, step, a, b) for a, b in zip(before[2:], after[2:], strict=True)]
    x = writer.read(name, order)
    for half in (False, True):
        if len(taken) == 2 and all(
            np.array_equal(t, _nearest(a, b, half)) for t, a, b in zip(taken, before[2:], after[2:], strict=True)
        ):
            size, options = writer.integers("size", after[2:]), {"half_pixel_centers": half}
            version = 3 if half else 2
            writer.file.operator("RESIZE_NEAREST_NEIGHBOR", [x, size], [writer.made(y, order)], version, **options)
            return
    shape = list(stored(before, order))
    for axis, chosen in enumerate(taken, 1):
        shape[axis] = len(chosen)
        last = axis == len(taken)
        made = (
            writer.made(y, order) if last else writer.file.tensor(f"{y}_part", shape, writer.dtype(y), writer.grid(y))
        )
        _gathered(writer, x, chosen, axis, made)
        x = made


def _taken(writer: Writer, step: Step, before: int, after: int) -> Array:
    """Which positions an axis takes of its input's."""
    try:
        chosen = nearest(before, after / before, step.attrs)
    except EquintError as error:
        raise writer.refuse(step, str(error)) from error
    if len(chosen) != after:
        raise writer.refuse(step, f"resizes {before} positions to {after} by another factor; give sizes")
    return chosen


def _nearest(before: int, after: int, half: bool) -> Array:
    """The positions that RESIZE_NEAREST_NEIGHBOR takes, in float32."""
    at = (np.arange(after, dtype=np.float32) + np.float32(0.5 if half else 0)) * (
        np.float32(before) / np.float32(after)
    )
    return np.asarray(np.minimum(np.floor(at).astype(np.int64), before - 1))


def interpolate(writer: Writer, step: Step) -> None:
    """RESIZE_BILINEAR."""
    name, (y,), mode = step.inputs[0], step.outputs, step.attrs.get("mode", "")
    order, sizes = channels_last(4), writer.shape(y)[2:]
    known = {"half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric"}
    if mode not in known or (mode == "pytorch_half_pixel" and 1 in sizes):
        raise writer.refuse(step, f"LiteRT does not resize so ({mode}); use half_pixel or align_corners")
    options = {"align_corners": mode == "align_corners", "half_pixel_centers": "half_pixel" in mode}
    inputs = [writer.read(name, order), writer.integers("size", sizes)]
    writer.file.operator("RESIZE_BILINEAR", inputs, [writer.made(y, order)], **options)


def expand(writer: Writer, step: Step) -> None:
    """TILE."""
    name, (y,) = step.inputs[0], step.outputs
    rank, shape = writer.rank(y), writer.shape(name)
    wide = (1,) * (rank - len(shape)) + shape
    x = writer.read(name, as_written(len(shape)))
    if wide != shape:
        made = writer.file.tensor(f"{name}_wide", wide, writer.dtype(name), writer.grid(name))
        writer.reshape(x, made)
        x = made
    times = [b // a for a, b in zip(wide, writer.shape(y), strict=True)]
    writer.file.operator("TILE", [x, writer.integers("times", times)], [writer.made(y, as_written(rank))])


_RESHAPES: Sequence[str] = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
FORMS: Mapping[str, Form] = {
    **dict.fromkeys(_RESHAPES, reshape),
    "Transpose": transpose,
    "Identity": identity,
    "Concat": concat,
    "Split": split,
    "Slice": cut,
    "Pad": pad,
    "Gather": gather,
    **dict.fromkeys(("DepthToSpace", "SpaceToDepth"), blocks),
    "Resize": resize,
    "Interpolate": interpolate,
    "Expand": expand,
}
