"""What each ONNX operator computes, in torch: inputs as positional, attributes (in small letters) as keyword arguments.

Every function has a gradient wherever it makes sense; the integers between QuantizeLinear and DequantizeLinear are
whole numbers in float tensors, and rounding lets gradients pass (the straight-through estimator).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, reduce
from typing import TYPE_CHECKING, Any

from ..errors import UnsupportedOperator
from .lazy_torch import functional, torch
from .torch_moves import Ints, Widths, ints, padded

if TYPE_CHECKING:
    from torch import Tensor


def conv(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    *,
    strides: Ints = (),
    pads: Ints = (),
    dilations: Ints = (),
    group: int = 1,
    auto_pad: str = "NOTSET",
    kernel_shape: Ints = (),
) -> Tensor:
    """Conv of one to three spatial axes; pads that differ at both ends are added first."""
    n = x.ndim - 2
    strides, dilations = _each(strides, n), _each(dilations, n)
    spans = [(k - 1) * d + 1 for k, d in zip(w.shape[2:], dilations, strict=True)]
    widths = _widths(x.shape[2:], spans, strides, pads, auto_pad)
    even = all(before == after for before, after in widths)
    x = x if even else padded(x, widths)
    run: Any = (functional.conv1d, functional.conv2d, functional.conv3d)[n - 1]
    y: Tensor = run(x, w, b, list(strides), [before for before, _ in widths] if even else 0, list(dilations), group)
    return y


def conv_transpose(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    *,
    strides: Ints = (),
    pads: Ints = (),
    dilations: Ints = (),
    group: int = 1,
    auto_pad: str = "NOTSET",
    kernel_shape: Ints = (),
    output_padding: Ints = (),
    output_shape: Ints = (),
) -> Tensor:
    """ConvTranspose: everything that the input reaches, then cut (or padded) to the size asked for."""
    n = x.ndim - 2
    strides, dilations = _each(strides, n), _each(dilations, n)
    run: Any = (functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d)[n - 1]
    y: Tensor = run(x, w, None, list(strides), 0, 0, group, list(dilations))
    widths = []
    for d in range(n):
        extra = output_padding[d] if output_padding else 0
        before, after = (pads[d], pads[n + d]) if pads else (0, 0)
        if output_shape or auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            wanted = output_shape[-n:][d] if output_shape else x.shape[2 + d] * strides[d]
            total = y.shape[2 + d] + extra - wanted
            before = total // 2 if auto_pad == "SAME_UPPER" else total - total // 2
            after = total - before
        widths.append((-before, extra - after))
    y = padded(y, widths)
    return y if b is None else y + b.reshape(-1, *[1] * n)


def _each(values: Ints, n: int) -> Ints:
    return values or [1] * n


def _widths(sizes: Ints, spans: Ints, strides: Ints, pads: Ints, auto_pad: str) -> Widths:
    """The padding of each spatial axis, worked out where `auto_pad` leaves it open."""
    n = len(sizes)
    if auto_pad not in ("SAME_UPPER", "SAME_LOWER"):
        return [(pads[d], pads[n + d]) if pads and auto_pad == "NOTSET" else (0, 0) for d in range(n)]
    totals = [
        max((-(-size // s) - 1) * s + span - size, 0) for size, span, s in zip(sizes, spans, strides, strict=True)
    ]
    small = [(t // 2, t - t // 2) for t in totals]
    return small if auto_pad == "SAME_UPPER" else [(b, a) for a, b in small]


def max_pool(
    x: Tensor,
    *,
    kernel_shape: Ints,
    strides: Ints = (),
    pads: Ints = (),
    dilations: Ints = (),
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    storage_order: int = 0,
) -> Tensor:
    """MaxPool, without its second output."""
    n = x.ndim - 2
    strides, dilations = _each(strides, n), _each(dilations, n)
    spans = [(k - 1) * d + 1 for k, d in zip(kernel_shape, dilations, strict=True)]
    _, reach = _pool_widths(x.shape[2:], spans, strides, pads, auto_pad, ceil_mode)
    run: Any = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)[n - 1]
    y: Tensor = run(padded(x, reach, -math.inf), list(kernel_shape), list(strides), 0, list(dilations))
    return y


def average_pool(
    x: Tensor,
    *,
    kernel_shape: Ints,
    strides: Ints = (),
    pads: Ints = (),
    dilations: Ints = (),
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
) -> Tensor:
    """AveragePool: sums over windows by the number of values that count there."""
    n = x.ndim - 2
    if any(d != 1 for d in dilations):
        raise UnsupportedOperator("dilations are not supported here")
    strides = _each(strides, n)
    widths, reach = _pool_widths(x.shape[2:], kernel_shape, strides, pads, auto_pad, ceil_mode)
    run: Any = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)[n - 1]
    total: Tensor = run(padded(x, reach), list(kernel_shape), list(strides))
    if not any(w > 0 for pair in reach for w in pair):
        return total
    counted = torch.ones_like(x[:1, :1])
    if count_include_pad:
        counted = padded(counted, widths, 1.0)
        reach = [(b - wb, a - wa) for (b, a), (wb, wa) in zip(reach, widths, strict=True)]
    share: Tensor = run(padded(counted, reach), list(kernel_shape), list(strides))
    return total / share


def _pool_widths(
    sizes: Ints, spans: Ints, strides: Ints, pads: Ints, auto_pad: str, ceil_mode: int
) -> tuple[Widths, Widths]:
    """The padding asked for, and how far the windows reach: beyond it where sizes are rounded up."""
    widths, reach = _widths(sizes, spans, strides, pads, auto_pad), []
    for size, span, stride, (before, after) in zip(sizes, spans, strides, widths, strict=True):
        room = size + before + after - span
        count = (-(-room // stride) if ceil_mode else room // stride) + 1
        if ceil_mode and (count - 1) * stride >= size + before:  # a window that would start behind the input
            count -= 1
        reach.append((before, (count - 1) * stride + span - size - before))
    return widths, reach


def gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transa: int = 0,
    transb: int = 0,
) -> Tensor:
    """α·A'·B' + β·C."""
    a, b = (a.T if transa else a), (b.T if transb else b)
    if c is not None and alpha == beta == 1 and c.ndim == 1:
        return torch.addmm(c, a, b)
    y = a @ b if alpha == 1 else alpha * (a @ b)
    return y if c is None else y + (c if beta == 1 else beta * c)


def batch_norm(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    mean: Tensor,
    variance: Tensor,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
) -> Tensor:
    """BatchNormalization with the statistics that it stores."""
    if training_mode:
        raise UnsupportedOperator("in training mode; export the network for inference")
    return functional.batch_norm(x, mean, variance, gamma, beta, False, 0.0, epsilon)


def divide(a: Tensor, b: Tensor) -> Tensor:
    """Quotient; of whole numbers, cut off."""
    return torch.div(a, b) if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def maximum(*values: Tensor) -> Tensor:
    """The greatest; where two are equal the gradient goes to the first, all of it."""
    return reduce(lambda a, b: torch.where(a >= b, a, b), values)


def minimum(*values: Tensor) -> Tensor:
    """The smallest; where two are equal the gradient goes to the first, all of it."""
    return reduce(lambda a, b: torch.where(a <= b, a, b), values)


def reducer(method: str) -> Callable[..., Tensor]:
    """A Reduce… operator by a tensor's method, its axes an attribute or an input."""

    def run(
        x: Tensor,
        chosen: Tensor | None = None,
        *,
        axes: Ints | None = None,
        keepdims: int = 1,
        noop_with_empty_axes: int = 0,
    ) -> Tensor:
        over = list(axes or ()) if chosen is None else ints(chosen)
        if not over and noop_with_empty_axes:
            return x
        reduced: Tensor = getattr(x, method)(over or list(range(x.ndim)), bool(keepdims))
        return reduced

    return run


@cache
def _rounding() -> Any:
    """round(x/scale) + zero, saturated; its gradient is 1/scale inside the grid and 0 outside."""

    class Rounding(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, scale: Tensor, zero: Tensor | None, qmin: int, qmax: int) -> Tensor:
            q = torch.div(x, scale).round_()
            q = q if zero is None else q.add_(zero)
            ctx.save_for_backward((q >= qmin) & (q <= qmax), scale)
            return q.clamp_(qmin, qmax)

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Any:
            inside, scale = ctx.saved_tensors
            return grads[0] * inside / scale, None, None, None, None

    return Rounding


def quantize_linear(
    x: Tensor,
    scale: Tensor,
    zero: Tensor | None = None,
    *,
    qmin: int,
    qmax: int,
    axis: int = 1,
    saturate: int = 1,
    output_dtype: int = 0,
    precision: int = 0,
    block_size: int = 0,
) -> Tensor:
    """clamp(round(x/scale) + zero, qmin, qmax), half to even, with the straight-through gradient."""
    zero = None if zero is None else _along(zero, axis, x.ndim)
    q: Tensor = _rounding().apply(x, _along(scale, axis, x.ndim), zero, qmin, qmax)
    return q


def dequantize_linear(
    q: Tensor, scale: Tensor, zero: Tensor | None = None, *, axis: int = 1, block_size: int = 0
) -> Tensor:
    """(q − zero)·scale."""
    centred = q if zero is None else q - _along(zero, axis, q.ndim)
    return centred * _along(scale, axis, q.ndim)


def _along(values: Tensor, axis: int, rank: int) -> Tensor:
    if values.numel() == 1:
        return values.reshape(())
    if values.ndim > 1:
        raise UnsupportedOperator("scales per block are not supported here")
    return values.reshape([-1 if d == axis % rank else 1 for d in range(rank)])
