"""Where windows lie: TFLite's SAME and VALID as ONNX's explicit pads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .content import Dims


def same_pads(size: int, window: int, stride: int) -> tuple[int, int]:
    """Padding in front and behind, of SAME: ⌈size/stride⌉ windows, the odd one out behind.

    Args:
        window: how far a window reaches, dilation included.

    Example:
        >>> same_pads(224, 3, 2), same_pads(112, 3, 1)
        ((0, 1), (1, 1))
    """
    total = max((-(-size // stride) - 1) * stride + window - size, 0)
    return total // 2, total - total // 2


def padding(kind: str, sizes: Dims, windows: Sequence[int], strides: Sequence[int]) -> dict[str, Any]:
    """ONNX's attributes for a padding; `auto_pad` where sizes are open.

    Example:
        >>> padding("SAME", (5, 5), (3, 3), (2, 2)), padding("SAME", (None, 5), (3, 3), (2, 2))
        ({'pads': [1, 1, 1, 1]}, {'auto_pad': 'SAME_UPPER'})
        >>> padding("VALID", (5, 5), (3, 3), (2, 2))
        {}
    """
    if kind == "VALID":
        return {}
    known = [size for size in sizes if size is not None]
    if len(known) < len(sizes):
        if any(stride != 1 for stride in strides):
            return {"auto_pad": "SAME_UPPER"}
        known = list(windows)  # in strides of 1 sizes do not matter
    pairs = [same_pads(*each) for each in zip(known, windows, strides, strict=True)]
    pads = [front for front, _ in pairs] + [behind for _, behind in pairs]
    return {"pads": pads} if any(pads) else {}


def transposed_padding(
    kind: str, sizes: Sequence[int], made: Sequence[int], windows: Sequence[int], strides: Sequence[int]
) -> dict[str, Any]:
    """ONNX's attributes for a transposed convolution that makes given sizes.

    TFLite pads as the convolution would that makes `sizes` of `made`. ONNX makes (size − 1)·stride + window − pads
    + output_padding.

    Raises:
        ValueError: no such convolution.

    Example:
        >>> transposed_padding("SAME", (4,), (8,), (3,), (2,))
        {'pads': [0, 1]}
        >>> transposed_padding("VALID", (4,), (10,), (2,), (2,))
        {'output_padding': [2]}
    """
    fronts, behinds, spare = list[int](), list[int](), list[int]()
    for size, out, window, stride in zip(sizes, made, windows, strides, strict=True):
        front = same_pads(out, window, stride)[0] if kind == "SAME" else 0
        behind = (size - 1) * stride + window - out - front
        fronts.append(front)
        behinds.append(max(behind, 0))
        spare.append(max(-behind, 0))
    attrs: dict[str, Any] = {}
    if any(fronts + behinds):
        attrs["pads"] = fronts + behinds
    if any(spare):
        attrs["output_padding"] = spare
    return attrs
