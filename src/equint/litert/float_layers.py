"""Float products with weights and of two activations, windows, and recurrent layers step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..integers.geometry import Window, window
from ..ir.model import Array, Name, Node
from ..ir.weights import swapped
from .float_moves import part
from .floats import NONE, FloatForm, Floats
from .layouts import channels_last
from .windows import largest_of_taps

LEAST = -3.4e38
"""What stands around the windows of a MAX_POOL_2D."""


def dense(f: Floats, x: int, weight: Array, bias: Array | None, made: int) -> int:
    """FULLY_CONNECTED over the last axis: weight (O, I), bias (O,)."""
    inputs = [x, f.file.constant("weight", weight.astype(np.float32))]
    inputs += [f.file.constant("bias", (np.zeros(len(weight)) if bias is None else bias).astype(np.float32))]
    options: dict[str, Any] = {"keep_num_dims": len(f.file.tensors[made]["shape"]) > 2, **NONE}
    f.file.operator("FULLY_CONNECTED", inputs, [made], 5 if options["keep_num_dims"] else 1, **options)
    return made


def matmul(f: Floats, node: Node) -> None:
    """FULLY_CONNECTED where the second is a matrix of constants, else BATCH_MATMUL."""
    (a, b, *more), (y,) = node.inputs, node.outputs
    bias, known = (f.constant(node, 2) if more else None), f.graph.consts.get(b)
    if known is not None and known.ndim == 2 and f.rank(a) > 1:
        plain = bias is None or bias.size == known.shape[1]
        made = f.made(y) if plain else f.temporary(y, f.shape(y))
        dense(f, f.read(a), known.T, bias.reshape(-1) if bias is not None and plain else None, made)
        if plain:
            return
    else:
        if min(f.rank(a), f.rank(b)) < 2:
            raise f.refuse(node, "LiteRT multiplies no vectors; give it matrices")
        made = f.made(y) if bias is None else f.temporary(y, f.shape(y))
        f.op("BATCH_MATMUL", [f.read(a), f.read(b)], made)
        if bias is None:
            return
    wide = bias.astype(np.float32) if bias is not None else np.zeros(1, np.float32)
    f.op("ADD", [made, f.file.constant("bias", wide)], f.made(y), **NONE)


def gemm(f: Floats, node: Node) -> None:
    """FULLY_CONNECTED, or BATCH_MATMUL and a sum."""
    (a, b, *more), (y,), attrs = node.inputs, node.outputs, node.attrs
    order = (1, 0) if attrs.get("transA", 0) else (0, 1)
    x, known = f.read(a, order), f.graph.consts.get(b)
    bias = f.graph.consts.get(more[0]) if more else None
    alpha, beta = float(attrs.get("alpha", 1.0)), float(attrs.get("beta", 1.0))
    plain = not more or (bias is not None and bias.size in (1, f.shape(y)[1]))
    made = f.made(y) if plain and known is not None else f.temporary(y, f.shape(y))
    if known is not None:
        weight = known if attrs.get("transB", 0) else known.T
        row = None if bias is None or not plain else np.broadcast_to(beta * bias.ravel(), (len(weight),))
        dense(f, x, alpha * weight, row, made)
        if plain:
            return
    else:
        turned = f.read(b, (1, 0) if attrs.get("transB", 0) else (0, 1))
        f.op("BATCH_MATMUL", [x, turned], made)
        made = made if alpha == 1 else f.apply("MUL", [made, f.number(alpha)], **NONE)
    if more:
        added = f.read(more[0])
        added = added if beta == 1 else f.apply("MUL", [added, f.number(beta)], **NONE)
        made = f.apply("ADD", [made, added], **NONE)
    f.put(y, made, (0, 1))


def _image(f: Floats, name: Name) -> int:
    """A value as (N, H, W, C); signals are of height 1."""
    x = f.read(name, channels_last(f.rank(name)))
    if f.rank(name) == 4:
        return x
    n, channels, length = f.shape(name)
    made = f.temporary(name, (n, 1, length, channels))
    f.writer.reshape(x, made)
    return made


def _given(f: Floats, y: Name, image: int) -> None:
    """An image as a node's output."""
    made = f.made(y, channels_last(f.rank(y))) if f.rank(y) == 3 else image
    if f.rank(y) == 3:
        f.writer.reshape(image, made)
    else:
        f.put(y, image, channels_last(4))


def _sizes(f: Floats, name: Name) -> list[int]:
    """An image's sizes as the file has them."""
    n, channels, *spatial = f.shape(name)
    return [n, *([1] if len(spatial) == 1 else []), *spatial, channels]


def _padded(f: Floats, x: int, pads: Sequence[int], value: float = 0.0) -> int:
    """An image with numbers around it."""
    half = len(pads) // 2
    ends = [[0, 0], *([[0, 0]] if half == 1 else []), *([pads[k], pads[half + k]] for k in range(half)), [0, 0]]
    if not np.any(ends):
        return x
    shape = [n + a + b for n, (a, b) in zip(f.file.tensors[x]["shape"], ends, strict=True)]
    fill = f.file.constant("fill", np.array([value], np.float32))
    return f.op("PADV2", [x, f.ints32("pads", np.array(ends)), fill], f.temporary("padded", shape))


def _pair(values: Sequence[int]) -> tuple[int, int]:
    both = [1] * (2 - len(values)) + [int(v) for v in values]
    return both[0], both[1]


def conv(f: Floats, node: Node) -> None:
    """CONV_2D or DEPTHWISE_CONV_2D of a padded image; CONV_3D."""
    (x, _, *_), (y,), weight = node.inputs, node.outputs, f.constant(node, 1)
    if weight is None or weight.ndim not in (3, 4, 5):
        raise f.refuse(node, "LiteRT has no convolution over so many axes, or without constant weights")
    groups, bias = int(node.attrs.get("group", 1)), f.constant(node, 2)
    where = window(node, weight.shape[2:], f.shape(x))
    row = f.file.constant("bias", (np.zeros(len(weight)) if bias is None else bias).astype(np.float32))
    if weight.ndim == 5:
        _volume(f, node, weight, row, where.pads, (where.strides, where.dilations))
        return
    given = _padded(f, _image(f, x), where.pads)
    kernel = weight.reshape(*weight.shape[:2], *_pair(weight.shape[2:]))
    depthwise = weight.shape[1] == 1 and groups > 1
    laid = kernel.transpose((1, 2, 3, 0) if depthwise else (0, 2, 3, 1)).astype(np.float32)
    (sh, sw), (dh, dw) = _pair(where.strides), _pair(where.dilations)
    strides: dict[str, Any] = {"padding": "VALID", "stride_h": sh, "stride_w": sw}
    options = {**strides, "dilation_h_factor": dh, "dilation_w_factor": dw}
    options |= {**NONE} | ({"depth_multiplier": len(weight) // groups} if depthwise else {})
    code = "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"
    made = f.temporary(y, _sizes(f, y))
    f.file.operator(code, [given, f.file.constant("weight", laid), row], [made], 6 if groups > 1 else 0, **options)
    _given(f, y, made)


def _volume(
    f: Floats, node: Node, weight: Array, row: int, pads: Sequence[int], steps: tuple[Sequence[int], Sequence[int]]
) -> None:
    (x, *_), (y,), order = node.inputs, node.outputs, (0, 2, 3, 4, 1)
    if int(node.attrs.get("group", 1)) != 1:
        raise f.refuse(node, "LiteRT has no convolution in groups over three axes; replace it")
    given = _padded(f, f.read(x, order), pads)
    kernel = f.file.constant("weight", weight.transpose(2, 3, 4, 1, 0).astype(np.float32))
    keys = [[f"stride_{a}" for a in "dhw"], [f"dilation_{a}_factor" for a in "dhw"]]
    options: dict[str, Any] = {
        k: int(v) for names, values in zip(keys, steps, strict=True) for k, v in zip(names, values, strict=True)
    }
    f.op("CONV_3D", [given, kernel, row], f.made(y, order), padding="VALID", **options, **NONE)


def conv_transpose(f: Floats, node: Node) -> None:
    """TRANSPOSE_CONV of a kernel with zeros between its taps where it is dilated, cut."""
    (x, *_), (y,), weight, bias = node.inputs, node.outputs, f.constant(node, 1), f.constant(node, 2)
    if weight is None or weight.ndim not in (3, 4):
        raise f.refuse(node, "LiteRT has no TRANSPOSE_CONV over so many axes, or without constant weights")
    groups, where = int(node.attrs.get("group", 1)), window(node, weight.shape[2:], f.shape(x))
    whole = swapped(weight, groups)
    kernel = _apart(_of_all(whole, groups), where.dilations)
    kernel = kernel.reshape(*kernel.shape[:2], *_pair(kernel.shape[2:]))
    n, height, width, _ = _sizes(f, x)
    (sh, sw), (kh, kw) = _pair(where.strides), kernel.shape[2:]
    half = len(where.pads) // 2
    before = [0] * (2 - half) + where.pads[:half]
    _, oh, ow, channels = _sizes(f, y)
    full = [max((height - 1) * sh + kh, before[0] + oh), max((width - 1) * sw + kw, before[1] + ow)]
    made = f.temporary(y, [n, *full, channels])
    row = f.file.constant("bias", (np.zeros(channels) if bias is None else bias).astype(np.float32))
    laid = f.file.constant("weight", kernel.transpose(0, 2, 3, 1).astype(np.float32))
    inputs = [f.ints32("size", [n, *full, channels]), laid, _image(f, x), row]
    f.op("TRANSPOSE_CONV", inputs, made, padding="VALID", stride_h=sh, stride_w=sw, **NONE)
    whole_axes = [(0, n, 1), *((b, b + o, 1) for b, o in zip(before, (oh, ow), strict=True)), (0, channels, 1)]
    _given(f, y, part(f, made, whole_axes, f.temporary(y, _sizes(f, y))))


def _of_all(weight: Array, groups: int) -> Array:
    """(O, I/G, *k) with zeros between groups: (O, I, *k)."""
    outs, ins = len(weight) // groups, weight.shape[1]
    made = np.zeros((len(weight), ins * groups, *weight.shape[2:]), weight.dtype)
    for g in range(groups):
        made[g * outs : (g + 1) * outs, g * ins : (g + 1) * ins] = weight[g * outs : (g + 1) * outs]
    return made


def _apart(kernel: Array, dilations: Sequence[int]) -> Array:
    sizes = [d * (k - 1) + 1 for d, k in zip(dilations, kernel.shape[2:], strict=True)]
    made = np.zeros((*kernel.shape[:2], *sizes), kernel.dtype)
    made[(slice(None), slice(None), *(slice(None, None, d) for d in dilations))] = kernel
    return made


def pool(f: Floats, node: Node) -> None:
    """MAX_POOL_2D of an image with what is never taken around it, or the largest of its taps where it is dilated."""
    (x,), (y, *rest) = node.inputs, node.outputs
    kernel, where, pads = _windows(f, node)
    if any(rest):
        raise f.refuse(node, "LiteRT's MAX_POOL_2D gives no indices; leave them out")
    given = _padded(f, _image(f, x), pads, LEAST)
    sizes = _sizes(f, y)
    if any(d != 1 for d in where.dilations):
        steps = (_pair(kernel), _pair(where.strides), _pair(where.dilations))
        _given(f, y, largest_of_taps(f.writer, given, sizes, steps, "float32", None))
        return
    (sh, sw), (kh, kw) = _pair(where.strides), _pair(kernel)
    options = {"padding": "VALID", "stride_h": sh, "stride_w": sw, "filter_height": kh, "filter_width": kw, **NONE}
    _given(f, y, f.op("MAX_POOL_2D", [given], f.temporary(y, sizes), **options))


def average(f: Floats, node: Node) -> None:
    """DEPTHWISE_CONV_2D by ones, times the reciprocals of how many values windows hold."""
    (x,), (y,) = node.inputs, node.outputs
    kernel, where, pads = _windows(f, node)
    given, sizes = _padded(f, _image(f, x), pads), _sizes(f, y)
    ones = f.file.constant("ones", np.ones((1, *_pair(kernel), sizes[3]), np.float32))
    zeros = f.file.constant("bias", np.zeros(sizes[3], np.float32))
    (sh, sw), (dh, dw) = _pair(where.strides), _pair(where.dilations)
    strides: dict[str, Any] = {"padding": "VALID", "stride_h": sh, "stride_w": sw, "depth_multiplier": 1}
    options = {**strides, "dilation_h_factor": dh, "dilation_w_factor": dw, **NONE}
    total = f.temporary(y, sizes)
    f.file.operator("DEPTHWISE_CONV_2D", [given, ones, zeros], [total], 0, **options)
    counts = _counts(f, node, kernel, where)
    shares = f.file.constant("shares", (1 / counts).astype(np.float32).reshape(1, *sizes[1:3], 1))
    _given(f, y, f.apply("MUL", [total, shares], y, **NONE))


def _windows(f: Floats, node: Node) -> tuple[list[int], Window, list[int]]:
    """A pool's kernel, its windows, and its pads with what the last windows need beyond them."""
    (x, *_), (y, *_) = node.inputs, node.outputs
    kernel = [int(k) for k in node.attrs["kernel_shape"]]
    if len(kernel) > 2:
        raise f.refuse(node, f"LiteRT has no {node.op} over three axes; replace it")
    where, half = window(node, kernel, f.shape(x), whole=False), len(kernel)
    pads = list(where.pads)
    for d in range(half):
        inside, outside = f.shape(x)[2 + d], f.shape(y)[2 + d]
        needed = (outside - 1) * where.strides[d] + where.dilations[d] * (kernel[d] - 1) + 1
        pads[half + d] = max(needed - inside - pads[d], 0)
    return kernel, where, pads


def _counts(f: Floats, node: Node, kernel: Sequence[int], where: Window) -> Array:
    """How many values a window holds, by position: padding where it counts, never what lies beyond that."""
    total, half = np.ones(()), len(kernel)
    for d in range(half):
        inside, outside = f.shape(node.inputs[0])[2 + d], f.shape(node.outputs[0])[2 + d]
        first = np.arange(outside)[:, None] * where.strides[d] - where.pads[d]
        taps = first + np.arange(kernel[d])[None] * where.dilations[d]
        low, high = (-where.pads[d], inside + where.pads[half + d]) if _counts_padding(node) else (0, inside)
        total = np.multiply.outer(total, ((taps >= low) & (taps < high)).sum(1))
    return np.asarray(total)


def _counts_padding(node: Node) -> bool:
    return bool(node.attrs.get("count_include_pad", 0))


def global_pool(f: Floats, node: Node) -> None:
    """MEAN or REDUCE_MAX over all positions."""
    (x,), (y,), order = node.inputs, node.outputs, f.order(node.inputs[0])
    over = f.ints32("axes", [order.index(a) for a in range(2, f.rank(x))])
    code = "MEAN" if node.op == "GlobalAveragePool" else "REDUCE_MAX"
    f.op(code, [f.read(x, order), over], f.made(y, order), keep_dims=True)


FORMS: Mapping[str, FloatForm] = {
    "MatMul": matmul,
    "Gemm": gemm,
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "MaxPool": pool,
    "AveragePool": average,
    "GlobalAveragePool": global_pool,
    "GlobalMaxPool": global_pool,
}
