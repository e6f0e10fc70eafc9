"""Float operators that move values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..errors import EquintError
from ..integers.emit_moves import nearest
from ..ir.model import Array, Node
from ..ops.attributes import pad_widths
from .floats import FloatForm, Floats
from .layouts import as_written, channels_last, reshaped, transposed


def reshape(f: Floats, node: Node) -> None:
    """RESHAPE of what lies in memory, where axes that are split or joined lie side by side; else of a moved copy."""
    (x, *_), (y,) = node.inputs, node.outputs
    order = f.order(x)
    after = reshaped(f.shape(x), f.shape(y), order)
    given = f.read(x, order) if after is not None else f.read(x)
    f.writer.reshape(given, f.made(y, after))


def transpose(f: Floats, node: Node) -> None:
    """The same memory, whose axes have other names."""
    (x,), (y,), order = node.inputs, node.outputs, f.order(node.inputs[0])
    perm = node.attrs.get("perm") or range(len(order))[::-1]
    f.put(y, f.read(x, order), transposed(order, [int(p) for p in perm]))


def concat(f: Floats, node: Node) -> None:
    """CONCATENATION of values of one order."""
    (y,) = node.outputs
    order = next((f.order(n) for n in node.inputs if n not in f.graph.consts), as_written(f.rank(y)))
    axis = order.index(int(node.attrs["axis"]) % len(order))
    inputs = [f.read(name, order) for name in node.inputs]
    f.op("CONCATENATION", inputs, f.made(y, order), axis=axis, fused_activation_function="NONE")


def split(f: Floats, node: Node) -> None:
    """SPLIT_V."""
    x, order = node.inputs[0], f.order(node.inputs[0])
    axis = int(node.attrs.get("axis", 0)) % len(order)
    sizes = f.ints32("sizes", [f.shape(o)[axis] for o in node.outputs])
    inputs = [f.read(x, order), sizes, f.ints32("axis", order.index(axis))]
    made = [f.made(o, order) for o in node.outputs]
    f.file.operator("SPLIT_V", inputs, made, 1, num_splits=len(made))


def cut(f: Floats, node: Node) -> None:
    """STRIDED_SLICE."""
    (x, *_), (y,), order, shape = node.inputs, node.outputs, f.order(node.inputs[0]), f.shape(node.inputs[0])
    keys = ("starts", "ends", "axes", "steps")
    given = [f.ints(node, k) if k < len(node.inputs) else node.attrs.get(key) for k, key in enumerate(keys, 1)]
    starts, ends = given[0] or [], given[1] or []
    axes, steps = given[2] or list(range(len(starts))), given[3] or [1] * len(starts)
    slices = {
        a % len(shape): slice(s, e, t).indices(shape[a % len(shape)])
        for a, s, e, t in zip(axes, starts, ends, steps, strict=True)
    }
    whole = [slices.get(axis, (0, shape[axis], 1)) for axis in order]
    part(f, f.read(x, order), whole, f.made(y, order))


def part(f: Floats, x: int, whole: Sequence[tuple[int, int, int]], made: int) -> int:
    """STRIDED_SLICE of a tensor of the file: begin, end and stride of each axis."""
    begin, end, strides = ([w[k] for w in whole] for k in range(3))
    mask = sum(1 << k for k, e in enumerate(end) if e < 0)  # down to the first, and it too
    inputs = [x, *(f.ints32(n, v) for n, v in (("begin", begin), ("end", end), ("strides", strides)))]
    return f.op("STRIDED_SLICE", inputs, made, end_mask=mask)


def pad(f: Floats, node: Node) -> None:
    """PADV2, or what is repeated by a GATHER along each axis."""
    (x, *_), (y,), order, shape = node.inputs, node.outputs, f.order(node.inputs[0]), f.shape(node.inputs[0])
    widths, mode = pad_widths(f.graph, node, len(shape)), node.attrs.get("mode", "constant")
    if widths is None or any(n < 0 for pair in widths for n in pair):
        raise f.refuse(node, "its widths are computed, or below 0; make them constants, or slice instead")
    given = f.read(x, order)
    if mode == "constant":
        value = f.constant(node, 2)
        fill = f.file.constant("fill", np.full((1,), 0 if value is None else value.ravel()[0], f.dtype(x)))
        f.op("PADV2", [given, f.ints32("pads", np.array(widths)[list(order)]), fill], f.made(y, order))
        return
    kinds = {"reflect": "reflect", "edge": "edge", "wrap": "wrap"}
    chosen = {a: np.pad(np.arange(shape[a]), w, kinds[mode]) for a, w in enumerate(widths) if any(w)}  # type: ignore[call-overload]
    f.put(y, picked(f, given, order, chosen, f.dtype(x)), order)


def picked(f: Floats, x: int, order: Sequence[int], chosen: Mapping[int, Array], dtype: str) -> int:
    """GATHER along axes, one after the other."""
    for axis, indices in chosen.items():
        shape = list(f.file.tensors[x]["shape"])
        shape[order.index(axis)] = len(indices)
        made = f.temporary("picked", shape, dtype)
        x = f.op("GATHER", [x, f.ints32("indices", indices)], made, axis=order.index(axis))
    return x


def gather(f: Floats, node: Node) -> None:
    """GATHER; indices that are computed count from the end where they are below 0."""
    (x, indices), (y,), shape = node.inputs, node.outputs, f.shape(node.inputs[0])
    axis = int(node.attrs.get("axis", 0)) % len(shape)
    known = f.graph.consts.get(indices)
    if known is not None:
        at = f.ints32("indices", known % shape[axis])
    else:
        size = f.file.constant("size", np.asarray(shape[axis], f.dtype(indices)))
        made = f.temporary(indices, f.shape(indices), f.dtype(indices))
        at = f.op("FLOOR_MOD", [f.read(indices), size], made)
    f.op("GATHER", [f.read(x), at], f.made(y), axis=axis)


def expand(f: Floats, node: Node) -> None:
    """BROADCAST_TO."""
    (x, *_), (y,) = node.inputs, node.outputs
    f.file.operator("BROADCAST_TO", [f.read(x), f.ints32("shape", f.shape(y))], [f.made(y)], 3)


def tile(f: Floats, node: Node) -> None:
    """TILE."""
    (x, *_), (y,) = node.inputs, node.outputs
    times = [b // a for a, b in zip(f.shape(x), f.shape(y), strict=True)]
    f.op("TILE", [f.read(x), f.ints32("times", times)], f.made(y))


def blocks(f: Floats, node: Node) -> None:
    """DEPTH_TO_SPACE or SPACE_TO_DEPTH; channels are put in LiteRT's order first where ONNX has another."""
    (x,), (y,), size, order = node.inputs, node.outputs, int(node.attrs["blocksize"]), channels_last(4)
    given, channels = f.read(x, order), f.shape(x)[1]
    count = channels // size**2
    if node.op == "DepthToSpace" and node.attrs.get("mode", "DCR") in ("CRD", b"CRD") and count > 1:
        turned = np.arange(channels).reshape(count, size**2).T.ravel()
        given = picked(f, given, order, {1: turned}, "float32")
    code = "DEPTH_TO_SPACE" if node.op == "DepthToSpace" else "SPACE_TO_DEPTH"
    f.op(code, [given], f.made(y, order), block_size=size)


def resize(f: Floats, node: Node) -> None:
    """A GATHER along each axis of nearest values, or RESIZE_BILINEAR."""
    (x, *_), (y,), rank = node.inputs, node.outputs, f.rank(node.inputs[0])
    before, after, order = f.shape(x), f.shape(y), channels_last(rank)
    mode, how = node.attrs.get("mode", "nearest"), node.attrs.get("coordinate_transformation_mode", "half_pixel")
    given = f.read(x, order)
    if mode == "nearest":
        try:
            chosen = {a: nearest(n, after[a] / n, node.attrs) for a, n in enumerate(before) if after[a] != n}
        except EquintError as error:
            raise f.refuse(node, str(error)) from error
        f.put(y, picked(f, given, order, chosen, f.dtype(x)), order)
        return
    known = how in ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
    if mode != "linear" or rank != 4 or not known or node.attrs.get("antialias", 0):
        raise f.refuse(node, f"LiteRT does not resize so ({mode}, {how}); use nearest, or linear over two axes")
    options = {"align_corners": how == "align_corners", "half_pixel_centers": "half_pixel" in how}
    f.op("RESIZE_BILINEAR", [given, f.ints32("size", after[2:])], f.made(y, order), **options)


def sizes(f: Floats, node: Node) -> None:
    """A constant: all sizes are known."""
    (x,), (y,) = node.inputs, node.outputs
    shape = f.shape(x)[node.attrs.get("start", 0) : node.attrs.get("end")]
    f.put(y, f.file.constant(y, np.array(shape, np.int64)), (0,))


_RESHAPES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
FORMS: Mapping[str, FloatForm] = {
    **dict.fromkeys(_RESHAPES, reshape),
    "Transpose": transpose,
    "Concat": concat,
    "Split": split,
    "Slice": cut,
    "Pad": pad,
    "Gather": gather,
    "Expand": expand,
    "Tile": tile,
    "DepthToSpace": blocks,
    "SpaceToDepth": blocks,
    "Resize": resize,
    "Shape": sizes,
}
