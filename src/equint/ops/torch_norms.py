"""What each normalization of ONNX computes, in torch: inputs as positional, attributes as keyword arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import UnsupportedOperator
from .lazy_torch import functional, torch
from .torch_moves import Ints

if TYPE_CHECKING:
    from torch import Tensor

LEAST = 1e-30
"""What is shorter is divided by this."""


def layer(
    x: Tensor, scale: Tensor, bias: Tensor | None = None, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> Tensor:
    """LayerNormalization over the axes from `axis` on."""
    y: Tensor = functional.layer_norm(x, x.shape[axis:], None, None, epsilon) * scale
    return y if bias is None else y + bias


def root_mean_square(x: Tensor, scale: Tensor, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1) -> Tensor:
    """RMSNormalization over the axes from `axis` on."""
    axes = tuple(range(axis % x.ndim, x.ndim))
    return x * torch.rsqrt(x.square().mean(axes, keepdim=True) + epsilon) * scale


def instance(x: Tensor, scale: Tensor, bias: Tensor, *, epsilon: float = 1e-5) -> Tensor:
    """InstanceNormalization: over all positions of a channel, single ones too."""
    return group(x, scale, bias, num_groups=x.shape[1], epsilon=epsilon)


def group(
    x: Tensor, scale: Tensor, bias: Tensor, *, num_groups: int, epsilon: float = 1e-5, stash_type: int = 1
) -> Tensor:
    """GroupNormalization, with a scale and bias for each channel or for each group."""
    grouped = x.reshape(x.shape[0], num_groups, -1)
    y = functional.layer_norm(grouped, grouped.shape[2:], None, None, epsilon).reshape(x.shape)
    column = (-1, *[1] * (x.ndim - 2))
    gain, offset = (a.repeat_interleave(x.shape[1] // len(a)).reshape(column) for a in (scale, bias))
    return y * gain + offset


def length(x: Tensor, *, axis: int = -1, p: int = 2) -> Tensor:
    """LpNormalization."""
    if p not in (1, 2):
        raise UnsupportedOperator(f"p is {p}; give 1 or 2")
    y: Tensor = x / torch.linalg.vector_norm(x, p, axis, keepdim=True).clamp(min=LEAST)
    return y


def mean_variance(x: Tensor, *, axes: Ints = (0, 2, 3)) -> Tensor:
    """MeanVarianceNormalization."""
    centred = x - x.mean(tuple(axes), keepdim=True)
    return centred / (centred.square().mean(tuple(axes), keepdim=True).sqrt() + 1e-9)
