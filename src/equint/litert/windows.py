"""Steps that read windows of images: convolutions and pools, with the two paddings that LiteRT has, or a PAD in front.

Signals of one spatial axis are images of height 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..integers.accumulators import groups_of
from ..integers.program import Step
from ..ir.model import Array, Name, QParams
from ..ir.weights import swapped
from ..maths.affine import storage
from .layouts import channels_last
from .writer import Form, Writer

Pair = tuple[int, int]


@dataclass(frozen=True)
class Geometry:
    """Windows over height and width: of kernels before they are dilated."""

    kernel: Pair
    strides: Pair
    dilations: Pair
    before: Pair
    inside: Pair
    outside: Pair

    def padding(self) -> str:
        """SAME or VALID, where that is what the windows need; else empty."""
        spans = [d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]
        each = list(zip(spans, self.strides, self.before, self.inside, self.outside, strict=True))
        if all(b == 0 and o == (i - k) // s + 1 for k, s, b, i, o in each):
            return "VALID"
        same = all(o == -(-i // s) and b == max((o - 1) * s + k - i, 0) // 2 for k, s, b, i, o in each)
        return "SAME" if same else ""

    def widths(self) -> tuple[Pair, Pair]:
        """What to pad before and after height and width, so that VALID windows are the same."""
        spans = [d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]
        after = [
            max((o - 1) * s + k - i - b, 0)
            for k, s, b, i, o in zip(spans, self.strides, self.before, self.inside, self.outside, strict=True)
        ]
        return self.before, (after[0], after[1])


def geometry(writer: Writer, step: Step, kernel: Sequence[int]) -> Geometry:
    """The windows of a step."""
    n = len(kernel)
    if n not in (1, 2):
        raise writer.refuse(step, f"LiteRT has no {step.op} over {n} axes of int8; replace it")
    ones = [1] * n

    def pair(values: Sequence[int], fill: int) -> Pair:
        both = [fill] * (2 - n) + [int(v) for v in values]
        return both[0], both[1]

    return Geometry(
        pair(kernel, 1),
        pair(step.attrs.get("strides", ones), 1),
        pair(step.attrs.get("dilations", ones), 1),
        pair(list(step.attrs["pads"])[:n], 0),
        pair(writer.shape(step.inputs[0])[2:], 1),
        pair(writer.shape(step.outputs[0])[2:], 1),
    )


def image(writer: Writer, name: Name) -> int:
    """A tensor as (N, H, W, C)."""
    rank, x = writer.rank(name), writer.read(name, channels_last(writer.rank(name)))
    if rank == 4:
        return x
    n, channels, length = writer.shape(name)
    made = writer.file.tensor(f"{name}_image", (n, 1, length, channels), writer.dtype(name), writer.grid(name))
    writer.reshape(x, made)
    return made


def imaged(writer: Writer, step: Step, write: Callable[[int, str], None], fuses: bool = True) -> None:
    """What a step makes of images, and of signals."""
    (y,) = step.outputs
    rank = writer.rank(y)

    def signal(made: int, kind: str) -> None:
        n, channels, length = writer.shape(y)
        flat = writer.file.tensor(f"{y}_image", (n, 1, length, channels), writer.dtype(y), writer.grid(y))
        write(flat, kind)
        writer.reshape(flat, made)

    writer.finished(step, channels_last(rank), write if rank == 4 else signal, fuses)


def padded(
    writer: Writer, name: Name, x: int, windows: Geometry, value: int | None = None, whole: bool = False
) -> tuple[int, str]:
    """An image with what its windows need around it, and the padding that is left, none where it must be `whole`.

    Args:
        value: the integer around it; the zero point where it is None.
    """
    kind = windows.padding()
    if kind == "VALID" or (kind and not whole):
        return x, kind
    (top, left), (bottom, right) = windows.widths()
    n, height, width, channels = writer.file.tensors[x]["shape"]
    grid = writer.grid(name)
    shape = (n, height + top + bottom, width + left + right, channels)
    made = writer.file.tensor(f"{name}_padded", shape, writer.dtype(name), grid)
    widths = writer.integers("pads", np.array([[0, 0], [top, bottom], [left, right], [0, 0]]))
    if value is None or value == int(grid.zero_point):
        writer.file.operator("PAD", [x, widths], [made])
    else:
        fill = writer.file.constant("fill", np.array([value], storage(grid)), grid)
        writer.file.operator("PADV2", [x, widths, fill], [made])
    return made, "VALID"


def conv(writer: Writer, step: Step) -> None:
    """CONV_2D, or DEPTHWISE_CONV_2D where every group has one channel."""
    weight, groups = step.arrays["weight"], groups_of(step)
    windows = geometry(writer, step, weight.shape[2:])
    x, padding = padded(writer, step.inputs[0], image(writer, step.inputs[0]), windows)
    depthwise = weight.shape[1] == 1 and groups > 1
    kernel = weight.reshape(len(weight), weight.shape[1], *windows.kernel)
    stored = kernel.transpose(1, 2, 3, 0) if depthwise else kernel.transpose(0, 2, 3, 1)
    inputs = [x, *weights(writer, step, stored, 3 if depthwise else 0)]
    options = _strides(windows) | {"padding": padding, **_dilations(windows)}

    def write(y: int, kind: str) -> None:
        said: dict[str, Any] = {**options, "fused_activation_function": kind}
        if depthwise:
            said["depth_multiplier"] = len(weight) // groups
            writer.file.operator("DEPTHWISE_CONV_2D", inputs, [y], **said)
        else:
            writer.file.operator("CONV_2D", inputs, [y], 6 if groups > 1 else 0, **said)

    imaged(writer, step, write)


def _strides(windows: Geometry) -> dict[str, int]:
    return {"stride_h": windows.strides[0], "stride_w": windows.strides[1]}


def _dilations(windows: Geometry) -> dict[str, int]:
    return {"dilation_h_factor": windows.dilations[0], "dilation_w_factor": windows.dilations[1]}


def weights(writer: Writer, step: Step, stored: Array, axis: int) -> list[int]:
    """The constants of a layer: its weights as they are to be stored, channels along `axis`, and its bias."""
    (x,), (y,) = step.inputs, step.outputs
    scales, zero, kind = layer_scales(writer, step), step.arrays["weight_zero_point"], step.arrays["weight"].dtype
    wide = writer.dtype(x) == "int16"
    if str(kind) != ("int8" if wide else writer.dtype(x)) or (np.any(zero) and kind == np.int8):
        raise writer.refuse(step, f"LiteRT has no {kind} weights of this zero point beside {writer.dtype(x)}")
    grid = QParams(scales, np.broadcast_to(zero.astype(np.int32), scales.shape))
    bias = step.arrays["bias"].astype(np.int64 if wide else np.int32)
    sums = QParams(np.float32(writer.grid(x).scale) * scales, np.zeros(scales.shape, np.int32))
    return [
        writer.file.constant(f"{y}_weight", stored.astype(kind), grid, axis),
        writer.file.constant(f"{y}_bias", bias, sums),
    ]


def layer_scales(writer: Writer, step: Step) -> Array:
    """The scales of a layer's weights, `()` or `(O,)`."""
    return np.asarray(writer.program.weight_scales[step.outputs[0]], np.float32)


def conv_transpose(writer: Writer, step: Step) -> None:
    """TRANSPOSE_CONV, whose whole result is cut where its padding is not LiteRT's."""
    weight, groups = step.arrays["weight"], groups_of(step)
    windows = geometry(writer, step, weight.shape[2:])
    if windows.dilations != (1, 1):
        raise writer.refuse(step, "LiteRT has no dilated TRANSPOSE_CONV; replace it")
    whole = _dense(swapped(weight, groups), groups, step.arrays["weight_zero_point"])  # (O, I, *k)
    kernel = whole.reshape(len(whole), whole.shape[1], *windows.kernel).transpose(0, 2, 3, 1)
    (x,), (y,) = step.inputs, step.outputs
    n, channels, height, width = writer.file.tensors[image(writer, x)]["shape"][0], len(whole), *windows.outside
    backward = Geometry(windows.kernel, windows.strides, (1, 1), windows.before, windows.outside, windows.inside)
    padding = backward.padding()
    constants = weights(writer, step, kernel, 0)
    sizes = zip(windows.inside, windows.strides, windows.kernel, windows.before, windows.outside, strict=True)
    full = [max((i - 1) * s + k, b + o) for i, s, k, b, o in sizes]  # beyond its windows there is the bias alone

    def write(made: int, kind: str) -> None:
        sizes = [n, height, width, channels] if padding else [n, *full, channels]
        whole = made if padding else writer.file.tensor(f"{y}_whole", sizes, writer.dtype(y), writer.grid(y))
        inputs = [writer.integers("size", sizes), constants[0], image(writer, x), constants[1]]
        options = _strides(windows) | {"padding": padding or "VALID", "fused_activation_function": kind}
        writer.file.operator("TRANSPOSE_CONV", inputs, [whole], 0 if kind == "NONE" else 4, **options)
        if not padding:
            _cropped(writer, whole, made, windows)

    imaged(writer, step, write)


def _cropped(writer: Writer, whole: int, made: int, windows: Geometry) -> None:
    ends = [b + o for b, o in zip(windows.before, windows.outside, strict=True)]
    n, channels = (writer.file.tensors[made]["shape"][k] for k in (0, 3))
    begin = writer.integers("begin", [0, *windows.before, 0])
    end = writer.integers("end", [n, *ends, channels])
    writer.file.operator("STRIDED_SLICE", [whole, begin, end, writer.integers("ones", [1] * 4)], [made])


def _dense(weight: Array, groups: int, zero: Array) -> Array:
    """(O, I/G, *k) with what stands for zero between groups: (O, I, *k)."""
    if groups == 1:
        return weight
    outs, ins = len(weight) // groups, weight.shape[1]
    made = np.full((len(weight), ins * groups, *weight.shape[2:]), np.max(zero), weight.dtype)
    for g in range(groups):
        made[g * outs : (g + 1) * outs, g * ins : (g + 1) * ins] = weight[g * outs : (g + 1) * outs]
    return made


def window_mean(writer: Writer, step: Step) -> None:
    """AVERAGE_POOL_2D, which leaves padding out."""
    windows = geometry(writer, step, step.attrs["kernel_shape"])
    if not windows.padding():
        raise writer.refuse(
            step, "LiteRT's AVERAGE_POOL_2D has no such padding; let it count padded values, or pad before"
        )
    _pool(writer, step, "AVERAGE_POOL_2D", image(writer, step.inputs[0]), windows, windows.padding())


def max_pool(writer: Writer, step: Step) -> None:
    """MAX_POOL_2D; around it lies the least integer, which is never taken."""
    windows = geometry(writer, step, step.attrs["kernel_shape"])
    (name,) = step.inputs
    least = int(np.iinfo(storage(writer.grid(name))).min)
    if windows.dilations != (1, 1):
        _dilated(writer, step, windows, least)
        return
    _pool(writer, step, "MAX_POOL_2D", *_before_pool(writer, name, windows, least))


def _dilated(writer: Writer, step: Step, windows: Geometry, least: int) -> None:
    """The largest of a window's taps, each a STRIDED_SLICE."""
    (name,), (y,) = step.inputs, step.outputs
    x, _ = padded(writer, name, image(writer, name), windows, least, whole=True)
    steps = (windows.kernel, windows.strides, windows.dilations)

    def write(made: int, kind: str) -> None:
        sizes = writer.file.tensors[made]["shape"]
        largest_of_taps(writer, x, sizes, steps, writer.dtype(y), writer.grid(y), made)

    imaged(writer, step, write, fuses=False)


def largest_of_taps(
    writer: Writer,
    x: int,
    sizes: Sequence[int],
    steps: tuple[Pair, Pair, Pair],
    dtype: str,
    grid: QParams | None,
    made: int | None = None,
) -> int:
    """MAXIMUM of the taps of windows that lie inside an image: first of rows, then of columns.

    Args:
        sizes: of the result; steps: kernel, strides, dilations.
    """
    n, height, width, channels = sizes
    for axis, count in ((1, height), (2, width)):
        kernel, stride, dilation = (pair[axis - 1] for pair in steps)
        shape = [n, count, writer.file.tensors[x]["shape"][2] if axis == 1 else width, channels]
        taps = list[int]()
        for k in range(kernel):
            begin, end = [0] * 4, list(writer.file.tensors[x]["shape"])
            begin[axis], end[axis] = k * dilation, k * dilation + (count - 1) * stride + 1
            jumps = [stride if a == axis else 1 for a in range(4)]
            taps.append(writer.file.tensor("tap", shape, dtype, grid))
            inputs = [x, *(writer.integers(w, v) for w, v in (("begin", begin), ("end", end), ("strides", jumps)))]
            writer.file.operator("STRIDED_SLICE", inputs, [taps[-1]])
        x = taps[0]
        for k, tap in enumerate(taps[1:], 2):
            last = axis == 2 and k == kernel and made is not None
            y = made if last and made is not None else writer.file.tensor("largest", shape, dtype, grid)
            writer.file.operator("MAXIMUM", [x, tap], [y])
            x = y
    if made is not None and x != made:
        writer.reshape(x, made)
    return x


def _before_pool(writer: Writer, name: Name, windows: Geometry, least: int) -> tuple[int, Geometry, str]:
    x, padding = padded(writer, name, image(writer, name), windows, least)
    return x, windows, padding


def _pool(writer: Writer, step: Step, op: str, x: int, windows: Geometry, padding: str) -> None:
    sizes = {"filter_height": windows.kernel[0], "filter_width": windows.kernel[1]}
    options: dict[str, Any] = {**_strides(windows), **sizes, "padding": padding}

    def write(y: int, kind: str) -> None:
        writer.file.operator(op, [x], [y], **options, fused_activation_function=kind)

    imaged(writer, step, write)


def gemm(writer: Writer, step: Step) -> None:
    """FULLY_CONNECTED over the last axis; of features flattened out of images in the order in which they lie."""
    (name,) = step.inputs
    rank, weight = writer.rank(name), step.arrays["weight"]
    if name in writer.mixed:
        (x, _), weight = writer.places[name][0], weight[:, writer.mixed[name]]
    else:
        have = writer.place(name)[1]
        x = writer.read(name, have if have[-1] == rank - 1 else tuple(range(rank)))
    order = next(o for i, o in writer.places[name] if i == x)
    inputs = [x, *weights(writer, step, weight, 0)]

    def write(made: int, kind: str) -> None:
        options: dict[str, Any] = {"keep_num_dims": rank > 2, "fused_activation_function": kind}
        keeps = rank > 2 and writer.dtype(name) != "int16"
        writer.file.operator("FULLY_CONNECTED", inputs, [made], 5 if keeps else 0, **options)

    writer.finished(step, order, write)


def matmul(writer: Writer, step: Step) -> None:
    """BATCH_MATMUL of two tensors."""
    if writer.dtype(step.inputs[0]) == "uint8":
        raise writer.refuse(step, "LiteRT multiplies no matrices of uint8; quantize for tflite-int8-per-tensor")
    inputs = [writer.read(name, tuple(range(writer.rank(name)))) for name in step.inputs]
    order = tuple(range(writer.rank(step.outputs[0])))
    writer.finished(step, order, lambda y, kind: writer.file.operator("BATCH_MATMUL", inputs, [y]), fuses=False)


FORMS: Mapping[str, Form] = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "Gemm": gemm,
    "MatMul": matmul,
    "WindowMean": window_mean,
    "MaxPool": max_pool,
}
