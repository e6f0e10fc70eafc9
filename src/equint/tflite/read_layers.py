"""Convolutions and matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from ..ir.model import Name
from .call import Call, reads
from .content import Dims
from .draft import Axes, Value, channels_first, plain
from .windows import padding, transposed_padding

_LETTERS = {2: "hw", 3: "dhw"}


def _per_axis(call: Call, what: str, count: int, default: int | None = None) -> list[int]:
    """An option of each spatial axis: stride_h, stride_w, …"""
    found = [int(call.option(what.format(letter), default)) for letter in _LETTERS[count]]
    if min(found) < 1:
        call.refuse(f"has {what.format('h')} {found[-2]}, {what.format('w')} {found[-1]}")
    return found


def kernel_of(call: Call, weight: Value, axes: Axes) -> list[int]:
    """Sizes of a kernel, whose spatial axes are the last two or three of an ONNX weight."""
    if len(axes) != weight.rank:
        call.refuse(f"has weights of {weight.rank} axes")
    sizes = [weight.dims[axis] for axis in axes[2:]]
    if any(not n for n in sizes):
        call.refuse("has weights of unknown or no size")
    return [n for n in sizes if n is not None]


def _bias(call: Call, k: int) -> Name:
    if not call.has(k):
        return ""
    value = call.value(k)
    name = call.placed(value, plain(value.rank))
    return name


def _convolve(call: Call, axes: Axes, group: int) -> None:
    """Input, weight, bias; `axes`: of the weight as ONNX has it, (out, in, …)."""
    x, weight = call.value(0), call.value(1)
    first, kernel = channels_first(x.rank), kernel_of(call, weight, axes)
    count = len(kernel)
    if x.rank != count + 2:
        call.refuse(f"takes an input of {x.rank} axes")
    strides = _per_axis(call, "stride_{}", count)
    dilations = _per_axis(call, "dilation_{}_factor", count, 1)
    reach = [(size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True)]
    attrs: dict[str, Any] = {"kernel_shape": kernel, "strides": strides}
    attrs |= {"dilations": dilations} if any(d != 1 for d in dilations) else {}
    attrs |= {"group": group} if group != 1 else {}
    attrs |= padding(call.option("padding"), x.dims[1:-1], reach, strides)
    call.give(call.add("Conv", call.placed(x, first), call.placed(weight, axes), _bias(call, 2), **attrs), first)


@reads("CONV_2D")
def _conv_2d(call: Call) -> None:
    x, weight = call.value(0), call.value(1)  # (out, h, w, in / groups)
    channels, inner = x.dims[-1] if x.dims else None, weight.dims[-1] if weight.dims else None
    if not channels or not inner or channels % inner:
        call.refuse(f"has weights for {inner} of {channels} channels")
    _convolve(call, (0, 3, 1, 2), channels // inner)


@reads("DEPTHWISE_CONV_2D")
def _depthwise(call: Call) -> None:
    x = call.value(0)
    channels = x.dims[-1] if x.dims else None
    if not channels:
        call.refuse("takes an unknown number of channels")
    _convolve(call, (3, 0, 1, 2), channels)  # weights (1, h, w, out)


@reads("CONV_3D")
def _conv_3d(call: Call) -> None:
    _convolve(call, (4, 3, 0, 1, 2), 1)  # weights (d, h, w, in, out)


@reads("TRANSPOSE_CONV")
def _transpose_conv(call: Call) -> None:
    _spread_out(call, (3, 0, 1, 2))  # weights (out, h, w, in)


@reads("CONV_3D_TRANSPOSE")
def _conv_3d_transpose(call: Call) -> None:
    _spread_out(call, (4, 3, 0, 1, 2))  # weights (d, h, w, out, in)


def _spread_out(call: Call, axes: Axes) -> None:
    """Output shape, weight, input, bias; `axes`: of the weight as ONNX has it, (in, out, …)."""
    weight, x = call.value(1), call.value(2)
    first, kernel = channels_first(x.rank), kernel_of(call, weight, axes)
    target = call.value(0).data
    made = [int(n) for n in target.reshape(-1)[1:-1]] if target is not None else list(call.dims()[1:-1])
    transposed(call, x, kernel, made, [call.placed(weight, axes), _bias(call, 3)], first)


def transposed(
    call: Call, x: Value, kernel: list[int], made: Sequence[int | None], operands: Sequence[Name], first: Axes
) -> None:
    """A transposed convolution that makes given sizes; `operands`: its weight as ONNX has it, and its bias."""
    sizes = [n for n in x.dims[1:-1] if n]
    sized = [n for n in made if n]
    if len(sizes) != len(kernel) or len(sized) != len(kernel):
        call.refuse(f"makes {list(made)} of {list(x.dims[1:-1])}: sizes must be known")
    strides = _per_axis(call, "stride_{}", len(kernel))
    attrs = transposed_padding(call.option("padding"), sizes, sized, kernel, strides)
    if any(spare >= stride for spare, stride in zip(attrs.get("output_padding", []), strides, strict=False)):
        call.refuse(f"makes {sized} of {sizes} in strides of {strides}")
    attrs |= {"kernel_shape": kernel, "strides": strides}
    call.give(call.add("ConvTranspose", call.placed(x, first), *operands, **attrs), first)


@reads("FULLY_CONNECTED")
def _fully_connected(call: Call) -> None:
    """(…, in)·(out, in)ᵀ; without `keep_num_dims` all in front of the inputs is one axis."""
    x, weight = call.value(0), call.value(1)
    if call.option("weights_format", "DEFAULT") != "DEFAULT":
        call.refuse("has shuffled weights, which only quantized files have")
    if weight.rank != 2 or not x.rank or not weight.dims[1]:
        call.refuse(f"has weights of shape {list(weight.dims)}")
    rows = x.rank != 2 and not call.option("keep_num_dims")
    if rows or x.dims[-1] not in (None, weight.dims[1]):
        name = flat(call, x, [-1, weight.dims[1]])
    else:
        name = call.placed(x, plain(x.rank))
    bias = _bias(call, 2)
    if x.rank == 2 or rows:
        made = call.add("Gemm", name, call.placed(weight, (0, 1)), bias, transB=1)
    else:
        made = call.add("MatMul", name, call.placed(weight, (1, 0)))
        made = call.add("Add", made, bias) if bias else made
    call.give(made, plain(2 if rows else x.rank))


def check_sizes(call: Call, dims: Dims, target: Sequence[int | None]) -> None:
    """Refuses a shape, -1 what is left, that does not hold as many values."""
    known = [n for n in dims if n is not None]
    sizes = [n for n in target if n is not None and n >= 0]
    if len(known) < len(dims):
        return
    whole, part = prod(known), prod(sizes)
    if whole != part if len(sizes) == len(target) else not part or whole % part:
        call.refuse(f"reshapes {list(dims)} to {list(target)}")


def flat(call: Call, value: Value, target: Sequence[int | None]) -> Name:
    """A value in another shape; in its own order of axes where nothing but axes of size 1 would move."""
    check_sizes(call, value.dims, target)
    ordered = [axis for axis in value.axes if value.dims[axis] != 1]
    stays = value.data is None and ordered == sorted(ordered) and all(n != 0 for n in target)
    name = value.name if stays else call.placed(value, plain(value.rank))
    return call.add("Reshape", name, call.const(target, "shape"))


@reads("BATCH_MATMUL")
def _batch_matmul(call: Call) -> None:
    names = []
    for k, flipped in enumerate((call.option("adj_x", False), call.option("adj_y", False))):
        value = call.value(k)
        if value.rank < 2:
            call.refuse(f"takes {value.name} with {value.rank} axes")
        axes = plain(value.rank)
        names.append(call.placed(value, (*axes[:-2], axes[-1], axes[-2]) if flipped else axes))
    call.give(call.add("MatMul", *names))


@reads("EMBEDDING_LOOKUP")
def _embedding_lookup(call: Call) -> None:
    call.give(call.add("Gather", call.plain(1), call.indices(0), axis=0))
