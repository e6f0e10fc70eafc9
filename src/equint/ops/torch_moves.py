"""What operators that move values without computing with them do, in torch: shapes, slices, padding, resizing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UnsupportedOperator
from ..ir.model import Array
from .lazy_torch import functional, torch

if TYPE_CHECKING:
    from torch import Tensor

Ints = Sequence[int]
Widths = list[tuple[int, int]]
"""(before, after) for each axis."""
DTYPES = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 9: "bool", 10: "float16", 11: "float64"}
"""ONNX's numbers of element types, as torch calls them."""


def padded(x: Tensor, widths: Widths, value: float = 0.0) -> Tensor:
    """`x` with the last axes widened, or cut where a width is negative."""
    if not any(w for pair in widths for w in pair):
        return x
    return functional.pad(x, [w for pair in reversed(widths) for w in pair], value=value)


def ints(values: Tensor) -> list[int]:
    """A tensor of whole numbers as Python's, as shapes and axes are given."""
    return [int(v) for v in values.reshape(-1).tolist()]


def reshape(x: Tensor, shape: Tensor, *, allowzero: int = 0) -> Tensor:
    """Reshape; a zero keeps a size unless `allowzero`."""
    sizes = ints(shape)
    return x.reshape(sizes if allowzero else [s or x.shape[k] for k, s in enumerate(sizes)])


def flatten(x: Tensor, *, axis: int = 1) -> Tensor:
    """Two axes: those before `axis`, and the others."""
    return x.reshape(math.prod(x.shape[: axis if axis >= 0 else axis + x.ndim]), -1)


def squeeze(x: Tensor, chosen: Tensor | None = None, *, axes: Ints = ()) -> Tensor:
    """Without the axes named by attribute or input, each of size 1; without all such where none is named."""
    which = tuple(axes) if chosen is None else tuple(ints(chosen))
    return x.squeeze(which) if which else x.squeeze()


def unsqueeze(x: Tensor, chosen: Tensor) -> Tensor:
    """With further axes of size 1, at places counted in the result."""
    rank = x.ndim + chosen.numel()
    for axis in sorted(a % rank for a in ints(chosen)):
        x = x.unsqueeze(axis)
    return x


def expand(x: Tensor, shape: Tensor) -> Tensor:
    """Broadcast, in both directions."""
    return x.expand(np.broadcast_shapes(tuple(x.shape), ints(shape)))


def shape_of(x: Tensor, *, start: int = 0, end: int | None = None) -> Tensor:
    """Some or all sizes, as int64."""
    return torch.tensor(list(x.shape)[start:end], dtype=torch.int64)


def gather(x: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    """The slices at `indices` along an axis; negative ones count from the end."""
    axis %= x.ndim
    indices = indices.to(x.device, torch.int64)
    picked = x.index_select(axis, torch.where(indices < 0, indices + x.shape[axis], indices).reshape(-1))
    return picked.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


def concat(*parts: Tensor, axis: int) -> Tensor:
    """Parts one behind the other along an axis."""
    return torch.cat(parts, axis)


def split(
    x: Tensor, chosen: Tensor | None = None, *, axis: int = 0, outputs: int = 1, num_outputs: int = 0
) -> tuple[Tensor, ...]:
    """Parts of given sizes, or nearly equal ones."""
    size = x.shape[axis]
    part = -(-size // outputs)
    sizes = ints(chosen) if chosen is not None else [part] * (outputs - 1) + [size - part * (outputs - 1)]
    return torch.split(x, sizes, axis)


def slice_(
    x: Tensor, starts: Tensor, ends: Tensor, chosen: Tensor | None = None, steps: Tensor | None = None
) -> Tensor:
    """Slice along any axes, backwards too."""
    first, last = ints(starts), ints(ends)
    axes = list(range(len(first))) if chosen is None else ints(chosen)
    for k, axis in enumerate(axes):
        part = slice(first[k], last[k], 1 if steps is None else ints(steps)[k])
        start, stop, step = part.indices(x.shape[axis])
        if step < 0:
            x = x.index_select(axis, torch.arange(start, stop, step, device=x.device))
        elif (start, stop, step) != (0, x.shape[axis], 1):
            x = x.movedim(axis, 0)[start:stop:step].movedim(0, axis)
    return x


def pad(
    x: Tensor, widths: Tensor, value: Tensor | None = None, chosen: Tensor | None = None, *, mode: str = "constant"
) -> Tensor:
    """Pad with a constant, or with what is there."""
    numbers = ints(widths)
    half = len(numbers) // 2
    pairs: Widths = [(0, 0)] * x.ndim
    for k, axis in enumerate(range(x.ndim) if chosen is None else ints(chosen)):
        pairs[axis] = (numbers[k], numbers[half + k])
    if mode == "constant":
        return padded(x, pairs, 0.0 if value is None else float(value))
    how: Any = mode
    x = padded(x, [(min(b, 0), min(a, 0)) for b, a in pairs])
    for axis, (before, after) in enumerate(pairs):
        if before > 0 or after > 0:
            places = np.pad(np.arange(x.shape[axis]), (max(before, 0), max(after, 0)), how)
            x = x.index_select(axis, torch.as_tensor(places, device=x.device))
    return x


def depth_to_space(x: Tensor, *, blocksize: int, mode: str = "DCR") -> Tensor:
    """Channels to blocks of pixels: depth first (DCR) or columns first (CRD)."""
    if mode == "CRD":
        return functional.pixel_shuffle(x, blocksize)
    n, c, h, w = x.shape
    parts = x.reshape(n, blocksize, blocksize, c // blocksize**2, h, w)
    return parts.permute(0, 3, 4, 1, 5, 2).reshape(n, c // blocksize**2, h * blocksize, w * blocksize)


def space_to_depth(x: Tensor, *, blocksize: int) -> Tensor:
    """Blocks of pixels to channels: all channels for each place in a block."""
    n, c, h, w = x.shape
    parts = x.reshape(n, c, h // blocksize, blocksize, w // blocksize, blocksize)
    return parts.permute(0, 3, 5, 1, 2, 4).reshape(n, c * blocksize**2, h // blocksize, w // blocksize)


def dropout(x: Tensor, ratio: Tensor | None = None, training: Tensor | None = None, *, seed: int = 0) -> Any:
    """Nothing: networks are run as they are deployed."""
    return x, torch.ones_like(x, dtype=torch.bool)


def cast(x: Tensor, *, to: int, saturate: int = 1) -> Tensor:
    """Another element type, by ONNX's number for it."""
    if to not in DTYPES:
        raise UnsupportedOperator(f"element type {to} is not supported here")
    return x.to(getattr(torch, DTYPES[to]))


def constant_of_shape(shape: Tensor, *, value: Any = None) -> Tensor:
    """A tensor of one value, 0 where none is given."""
    if value is None:
        return torch.zeros(ints(shape))
    from onnx import numpy_helper

    return torch.tensor(numpy_helper.to_array(value)).reshape(()).expand(ints(shape))


def resize(
    x: Tensor,
    roi: Tensor | None = None,
    scales: Tensor | None = None,
    sizes: Tensor | None = None,
    *,
    mode: str = "nearest",
    coordinate_transformation_mode: str = "half_pixel",
    nearest_mode: str = "round_prefer_floor",
    axes: Ints = (),
    antialias: int = 0,
    keep_aspect_ratio_policy: str = "stretch",
    cubic_coeff_a: float = 0.0,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
) -> Tensor:
    """Resize axis by axis, by nearest neighbours or linear interpolation; scales count where there are no sizes."""
    known = mode in ("nearest", "linear") and coordinate_transformation_mode in _COORDINATES
    if not known or antialias or keep_aspect_ratio_policy != "stretch":
        how = ", ".join((mode, coordinate_transformation_mode, keep_aspect_ratio_policy, f"antialias {antialias}"))
        raise UnsupportedOperator(f"{how} is not supported here; nearest and linear without antialias are")
    for k, axis in enumerate(axes or range(x.ndim)):
        old = x.shape[axis]
        if sizes is not None and sizes.numel():
            new = ints(sizes)[k]
            scale = new / old
        else:
            assert scales is not None
            scale = float(scales.reshape(-1)[k])
            new = int(old * scale)
        if scale == 1:
            continue
        places = _COORDINATES[coordinate_transformation_mode](np.arange(new, dtype=np.float32), scale, old, new)
        x = _nearest(x, axis, places, nearest_mode) if mode == "nearest" else _linear(x, axis, places)
    return x


_COORDINATES: Mapping[str, Callable[[Array, float, int, int], Array]] = {
    "half_pixel": lambda i, scale, old, new: (i + 0.5) / np.float32(scale) - 0.5,
    "pytorch_half_pixel": lambda i, scale, old, new: (i + 0.5) / np.float32(scale) - 0.5 if new > 1 else 0 * i,
    "align_corners": lambda i, scale, old, new: i * np.float32(old - 1) / np.float32(max(new - 1, 1)),
    "asymmetric": lambda i, scale, old, new: i / np.float32(scale),
    "half_pixel_symmetric": lambda i, scale, old, new: (
        old / 2 * (1 - new / (scale * old)) + (i + 0.5) / np.float32(scale) - 0.5
    ),
}
_ROUND: Mapping[str, Callable[[Array], Array]] = {
    "round_prefer_floor": lambda c: np.ceil(c - 0.5),
    "round_prefer_ceil": lambda c: np.floor(c + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


def _nearest(x: Tensor, axis: int, places: Array, how: str) -> Tensor:
    index = np.clip(_ROUND[how](places), 0, x.shape[axis] - 1).astype(np.int64)
    return x.index_select(axis, torch.as_tensor(index, device=x.device))


def _linear(x: Tensor, axis: int, places: Array) -> Tensor:
    places = np.clip(places, 0, x.shape[axis] - 1)
    below = np.floor(places).astype(np.int64)
    above = np.minimum(below + 1, x.shape[axis] - 1)
    share = torch.as_tensor((places - below).astype(np.float32), device=x.device)
    share = share.reshape([-1 if d == axis else 1 for d in range(x.ndim)])
    low, high = (x.index_select(axis, torch.as_tensor(i, device=x.device)) for i in (below, above))
    return low * (1 - share) + high * share
