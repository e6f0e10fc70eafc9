"""Where the windows of convolutions and pools lie: automatic padding resolved, sizes checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import UnsupportedOperator
from ..ir.model import Array, Node, Shape


@dataclass(frozen=True)
class Window:
    """Strides, dilations and pads, as ONNX orders them; `output_padding` is of ConvTranspose."""

    strides: list[int]
    dilations: list[int]
    pads: list[int]
    output_padding: list[int]

    def counts(self, kernel: Sequence[int], sizes: Sequence[int]) -> Array:
        """How many values, not padding, lie in the window at every output position: `(*spatial)`."""
        n, total = len(kernel), np.ones((), np.int64)
        for d in range(n):
            out = (sizes[d] + self.pads[d] + self.pads[n + d] - kernel[d]) // self.strides[d] + 1
            first = np.arange(out) * self.strides[d] - self.pads[d]
            inside = np.minimum(first + kernel[d], sizes[d]) - np.maximum(first, 0)
            total = np.multiply.outer(total, inside)
        return np.asarray(total)


def window(node: Node, kernel: Sequence[int], shape: Shape | None, whole: bool = True) -> Window:
    """The geometry of a Conv, ConvTranspose or pool over an input of this shape.

    Args:
        whole: refuse a ceil_mode that adds windows which hang over the end.

    Raises:
        EquintError: automatic padding, or ceil_mode, with sizes that are not known; windows over the end.

    Example:
        >>> same = Node("Conv", ("x", "w"), ("y",), {"auto_pad": "SAME_UPPER", "strides": [2]})
        >>> window(same, (3,), ("N", 8, 6)).pads
        [0, 1]
    """
    n, attrs = len(kernel), node.attrs
    strides, dilations = list(attrs.get("strides", [1] * n)), list(attrs.get("dilations", [1] * n))
    extra = list(attrs.get("output_padding", [0] * n))
    pads = list(attrs.get("pads") or [0] * 2 * n)
    auto = attrs.get("auto_pad", "NOTSET")
    spans = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    if auto == "VALID":
        pads = [0] * 2 * n
    elif auto != "NOTSET" or attrs.get("output_shape"):
        sizes = static(shape, node.label)
        if node.op == "ConvTranspose":
            wanted = list(attrs.get("output_shape") or [s * t for s, t in zip(sizes, strides, strict=True)])[-n:]
            full = [t * (s - 1) + e + k for t, s, e, k in zip(strides, sizes, extra, spans, strict=True)]
            totals = [f - w for f, w in zip(full, wanted, strict=True)]
        else:
            ends = [(-(-s // t) - 1) * t + k for s, t, k in zip(sizes, strides, spans, strict=True)]
            totals = [max(e - s, 0) for e, s in zip(ends, sizes, strict=True)]
        if min(totals) < 0:
            raise UnsupportedOperator(f"{node.label}: its output is larger than its windows reach; give pads instead")
        less = [t // 2 for t in totals]
        more = [t - h for t, h in zip(totals, less, strict=True)]
        pads = less + more if auto == "SAME_UPPER" else more + less
    if whole and attrs.get("ceil_mode", 0):
        sizes = static(shape, node.label)
        rests = [(s + pads[d] + pads[n + d] - spans[d]) % strides[d] for d, s in enumerate(sizes)]
        if any(rests):
            raise UnsupportedOperator(
                f"{node.label}: {node.op} with ceil_mode has windows that hang over the end; pad instead"
            )
    return Window(strides, dilations, pads, extra)


def static(shape: Shape | None, label: str) -> tuple[int, ...]:
    """The spatial sizes of a shape; an error where some are not known."""
    sizes = [s for s in (shape or ())[2:] if isinstance(s, int)]
    if shape is None or len(sizes) != len(shape) - 2:
        raise UnsupportedOperator(
            f"{label}: needs an input of known height and width; export the network with static shapes"
        )
    return tuple(sizes)
