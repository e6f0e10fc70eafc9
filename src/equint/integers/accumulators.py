"""The sums of steps before they are requantized: as the program says, one by one, and the largest that they can be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

import numpy as np

from ..errors import UnsupportedOperator
from ..ir.model import Array, Shape
from ..ir.weights import swapped
from ..maths.quantized_multiplier import multiplied
from .geometry import Window
from .program import Step, along

Span = tuple[int, int]
"""The least and the greatest q − z of a grid."""


def groups_of(step: Step) -> int:
    """In how many groups a step's channels are; an error where that is no whole number above 0."""
    groups = step.attrs.get("group", 1)
    if isinstance(groups, int) and groups >= 1:
        return groups
    raise UnsupportedOperator(f"group = {groups!r}: give a whole number above 0")


def outputs_of(step: Step) -> int:
    """How many channels a layer makes."""
    shape = step.arrays["weight"].shape
    return int(shape[1]) * groups_of(step) if step.op == "ConvTranspose" else int(shape[0])


def centred_weight(step: Step, subtract_zero: bool = True) -> Array:
    """weight − weight_zero_point as int64, in the order that Conv has: (O, I/G, *k), or (O, I) for Gemm.

    A ConvTranspose is a convolution of the stretched input (`stretched_pads`) by its taps from last to first.

    Example:
        >>> arrays = {"weight": np.arange(3, dtype=np.uint8).reshape(1, 1, 3), "weight_zero_point": np.uint8(1)}
        >>> centred_weight(Step("ConvTranspose", "c", ("x",), ("y",), {"group": 1}, arrays)).tolist()
        [[[1, 0, -1]]]
    """
    weight = step.arrays["weight"].astype(np.int64)
    if step.op == "ConvTranspose":
        weight = np.flip(swapped(weight, groups_of(step)), tuple(range(2, weight.ndim)))
    zero = step.arrays["weight_zero_point"].astype(np.int64)
    return weight - along(zero, 0, weight.ndim) if subtract_zero else weight


def stored_zero_point(step: Step, zero_point: Array, shape: tuple[int, ...]) -> Array:
    """The zero point of a layer's weights, `()` or `(O,)`, so that it broadcasts against weights as they are stored.

    Example:
        >>> step = Step("ConvTranspose", "c", ("x",), ("y",), {"group": 2})
        >>> stored_zero_point(step, np.arange(4), (2, 2, 3)).tolist()
        [[[0], [1]], [[2], [3]]]
    """
    if zero_point.ndim == 0:
        return zero_point
    column = zero_point.reshape(-1, *[1] * (len(shape) - 1))
    if step.op != "ConvTranspose":
        return column
    groups = groups_of(step)
    return swapped(np.broadcast_to(column, (len(column), shape[0] // groups, *column.shape[2:])), groups)


def stretched_pads(step: Step) -> tuple[list[int], list[int]]:
    """What is padded before and after a ConvTranspose's input, once `strides` − 1 zeros stand behind every position.

    Less than nothing where positions are cut off.
    """
    kernel, attrs, n = step.arrays["weight"].shape[2:], step.attrs, len(step.attrs["pads"]) // 2
    spread = [d * (k - 1) for d, k in zip(attrs["dilations"], kernel, strict=True)]
    after = [e - (t - 1) for e, t in zip(attrs["output_padding"], attrs["strides"], strict=True)]
    return (
        [s - p for s, p in zip(spread, attrs["pads"][:n], strict=True)],
        [s - p + a for s, p, a in zip(spread, attrs["pads"][n:], after, strict=True)],
    )


# Accumulators without their bias, whole tensors at once; float64 holds the sums of layers exactly


def conv(step: Step, inputs: Sequence[Array], around: int, weight_zero: bool) -> Array:
    """Σ x·weight over the windows, with `around` in the padding."""
    x = _padded(inputs[0], step.attrs["pads"], around)
    return _correlated(step, x, step.attrs["strides"], weight_zero)


def conv_transpose(step: Step, inputs: Sequence[Array], around: int, weight_zero: bool) -> Array:
    """The same over the stretched input, which is padded by nothing else."""
    (x,), strides = inputs, step.attrs["strides"]
    apart = np.zeros((*x.shape[:2], *(n * t for n, t in zip(x.shape[2:], strides, strict=True))), x.dtype)
    apart[(slice(None), slice(None), *(slice(None, None, t) for t in strides))] = x
    before, after = stretched_pads(step)
    return _correlated(step, _padded(apart, [*before, *after], 0), [1] * len(strides), weight_zero)


def gemm(step: Step, inputs: Sequence[Array], around: int, weight_zero: bool) -> Array:
    """Σ x·weight over the last axis."""
    return np.asarray((inputs[0].astype(np.float64) @ centred_weight(step, weight_zero).T).astype(np.int64))


def weighted_sum(step: Step, inputs: Sequence[Array], around: int, weight_zero: bool) -> Array:
    """Σ_k coefficients[k]·x_k."""
    rank = max(x.ndim for x in inputs)
    coefficients = step.arrays["coefficients"].astype(np.int64)
    terms = (along(c, step.axis, rank) * x for c, x in zip(coefficients, inputs, strict=True))
    return np.asarray(sum(terms, np.zeros((), np.int64)))


def scaled_sum(step: Step, inputs: Sequence[Array], around: int, weight_zero: bool) -> Array:
    """Σ_k signs[k]·round(x_k·2^left·multipliers[k]·2^(exponents[k] − 31))."""
    terms = (
        s * multiplied(x << int(step.attrs["left"]), m, e) for x, m, e, s in zip(inputs, *scales_of(step), strict=True)
    )
    return np.asarray(sum(terms, np.zeros((), np.int64)))


def scales_of(step: Step) -> Sequence[Sequence[int]]:
    """Multipliers, exponents and signs of a ScaledSum's inputs."""
    return [step.arrays[key].astype(np.int64).tolist() for key in ("multipliers", "exponents", "signs")]


def product(step: Step, inputs: Sequence[Array], around: int, weight_zero: bool) -> Array:
    """x_a·x_b."""
    return np.asarray(inputs[0] * inputs[1])


def average_pool(step: Step, inputs: Sequence[Array], around: int, weight_zero: bool) -> Array:
    """Σ x over the windows, with `around` in the padding, times the reciprocal of each position."""
    kernel = step.attrs["kernel_shape"]
    x = _padded(inputs[0], step.attrs["pads"], around)
    acc = sum(x[taps] for taps in _taps(kernel, [1] * len(kernel), step.attrs["strides"], x.shape[2:]))
    return np.asarray(acc * step.arrays["reciprocals"].astype(np.int64) if "reciprocals" in step.arrays else acc)


def global_pool(step: Step, inputs: Sequence[Array], around: int, weight_zero: bool) -> Array:
    """Σ x over all positions."""
    return np.asarray(inputs[0].sum(axis=tuple(range(2, inputs[0].ndim)), keepdims=True))


def _padded(x: Array, pads: Sequence[int], around: int) -> Array:
    """x with `around` before and after its spatial dimensions, or less of it where pads are below 0."""
    half = len(pads) // 2
    pairs = [(0, 0), (0, 0), *zip(pads[:half], pads[half:], strict=True)]
    x = np.pad(x, [(max(b, 0), max(a, 0)) for b, a in pairs], constant_values=around)
    return np.asarray(x[tuple(slice(max(-b, 0), n - max(-a, 0)) for (b, a), n in zip(pairs, x.shape, strict=True))])


def _taps(
    kernel: Sequence[int], dilations: Sequence[int], strides: Sequence[int], sizes: Sequence[int]
) -> Iterator[tuple[slice, ...]]:
    """For every tap in the order of storage, the positions that it meets, behind images and channels."""
    ends = [n - d * (k - 1) for n, d, k in zip(sizes, dilations, kernel, strict=True)]
    for tap in np.ndindex(*kernel):
        firsts = [t * d for t, d in zip(tap, dilations, strict=True)]
        window = (slice(f, f + n, s) for f, n, s in zip(firsts, ends, strides, strict=True))
        yield (slice(None), slice(None), *window)


def _correlated(step: Step, x: Array, strides: Sequence[int], weight_zero: bool) -> Array:
    """A plain convolution without padding."""
    weight, groups, x = centred_weight(step, weight_zero), groups_of(step), x.astype(np.float64)
    parts = [x[taps] for taps in _taps(weight.shape[2:], step.attrs["dilations"], strides, x.shape[2:])]
    sizes, split = parts[0].shape[2:], weight.reshape(groups, -1, weight.shape[1], len(parts)).astype(np.float64)
    acc = sum(split[..., k] @ part.reshape(len(x), groups, -1, prod(sizes)) for k, part in enumerate(parts))
    return np.asarray(acc).reshape(len(x), len(weight), *sizes).astype(np.int64)


# The largest magnitude of a step's partial sums, in whatever order they are added


def layer_bound(step: Step, spans: Sequence[Span], shape: Shape | None) -> Array:
    """max(Σ positive products, −Σ negative products) + |bias|: `(O,)`."""
    weight = centred_weight(step)
    rows = weight.reshape(len(weight), -1)
    up, down = np.maximum(rows, 0).sum(1), np.maximum(-rows, 0).sum(1)
    low, high = max(0, -spans[0][0]), max(0, spans[0][1])
    sums = np.maximum(up * high + down * low, up * low + down * high)
    return np.asarray(sums + np.abs(step.arrays["bias"].astype(np.int64)))


def weighted_sum_bound(step: Step, spans: Sequence[Span], shape: Shape | None) -> Array:
    """Σ_k |coefficients[k]|·max|x_k| + |bias|: `(1,)` or `(C,)`."""
    most = np.array([farthest(span) for span in spans])
    terms = np.abs(step.arrays["coefficients"].astype(np.int64)) * most[:, None]
    return np.asarray(terms.sum(0) + np.abs(step.arrays["bias"].astype(np.int64)))


def scaled_sum_bound(step: Step, spans: Sequence[Span], shape: Shape | None) -> Array:
    """Σ_k max|x_k|·2^left·multipliers[k]·2^(exponents[k] − 31), each rounded up: `()`."""
    far = [np.asarray(farthest(span) << int(step.attrs["left"])) for span in spans]
    multipliers, exponents, _ = scales_of(step)
    return np.asarray(sum(int(multiplied(f, m, e)) + 1 for f, m, e in zip(far, multipliers, exponents, strict=True)))


def product_bound(step: Step, spans: Sequence[Span], shape: Shape | None) -> Array:
    """max|x_a|·max|x_b|: `()`."""
    return np.asarray(prod(map(farthest, spans)))


def average_pool_bound(step: Step, spans: Sequence[Span], shape: Shape | None) -> Array:
    """The most values in a window, times the reciprocal of its position, times max|x|: `()`."""
    kernel, attrs = step.attrs["kernel_shape"], step.attrs
    sizes = [n for n in (shape or ())[2:] if isinstance(n, int)]
    times, count = step.arrays.get("reciprocals", np.ones((), np.int64)), np.asarray(prod(kernel))
    if len(sizes) == len(kernel) and "reciprocals" in step.arrays:
        count = Window(attrs["strides"], [1] * len(kernel), attrs["pads"], []).counts(kernel, sizes)
    return np.asarray(int(np.max(count * np.abs(times.astype(np.int64)), initial=1)) * farthest(spans[0]))


def global_pool_bound(step: Step, spans: Sequence[Span], shape: Shape | None) -> Array:
    """The number of positions times max|x|: `()`; 65,536 for a size that is not known."""
    sizes = (None,) if shape is None else shape[2:]
    return np.asarray(farthest(spans[0]) * prod(n if isinstance(n, int) else 1 << 16 for n in sizes))


def farthest(span: Span) -> int:
    """The largest magnitude of a span."""
    return max(-span[0], span[1])
