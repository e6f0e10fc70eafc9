"""Draw README's picture: channel ranges of the demo network's layers before and after equalization.

    python examples/picture.py            # writes docs/ranges.svg

Every bar is one output channel's weight range, on the grid of 256 integers that its layer shares.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import equint
from equint.demo import model_path
from equint.ir.model import Array, Model
from equint.maths.scales import overlap_ratio
from equint.ops.layers import layers

WIDTH, PANEL, GAP, HEIGHT = 860, 400, 40, 150
LAYERS = 3


def ranges(model: Model) -> dict[str, tuple[Array, Array]]:
    """Lowest and highest weight of each output channel, by layer."""
    found = {}
    for layer in layers(model.graph):
        view = layer.unpack(model.graph.consts[layer.weight])
        found[layer.y] = (view.min((-1, -2)).ravel(), view.max((-1, -2)).ravel())
    return found


def panel(x: float, y: float, title: str, lo: Array, hi: Array, colour: str) -> list[str]:
    """One layer: a bar per channel, scaled to the layer's own range."""
    reach = float(max(np.abs(lo).max(), np.abs(hi).max()))
    step, middle, half = PANEL / lo.size, y + HEIGHT / 2 + 14, HEIGHT / 2 - 18
    parts = [
        f'<text x="{x}" y="{y + 8}" class="t">{title}</text>',
        f'<text x="{x + PANEL}" y="{y + 8}" class="v" text-anchor="end">overlap {overlap_ratio(lo, hi):.2f}</text>',
        f'<line x1="{x}" x2="{x + PANEL}" y1="{middle:.1f}" y2="{middle:.1f}" class="a"/>',
    ]
    for k in range(lo.size):
        top, bottom = middle - half * hi[k] / reach, middle - half * lo[k] / reach
        parts.append(
            f'<rect x="{x + k * step + 0.15 * step:.1f}" y="{top:.1f}" width="{0.7 * step:.1f}" '
            f'height="{max(bottom - top, 0.6):.1f}" fill="{colour}"/>'
        )
    return parts


def main() -> None:
    """Write the picture."""
    naive = ranges(equint.quantize(model_path(), "lwq", input=(0, 1)).model)
    equalized = ranges(equint.quantize(model_path(), "dfq", "per-tensor-clip", input=(0, 1)).model)
    worst = sorted(naive, key=lambda name: overlap_ratio(*naive[name]))[:LAYERS]
    height = 62 + LAYERS * (HEIGHT + 16)
    svg = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        'aria-label="Weight ranges of channels before and after equalization" font-family="sans-serif">',
        "<style>.h{font-size:17px;font-weight:600;fill:#222}.t{font-size:12px;fill:#555}.v{font-size:12px;fill:#222}"
        ".a{stroke:#bbb;stroke-width:1}</style>",
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        '<text x="10" y="26" class="h">as trained: channels use few of the 256 steps</text>',
        f'<text x="{10 + PANEL + GAP}" y="26" class="h">equalized: same function, no data used</text>',
    ]
    for row, name in enumerate(worst):
        y = 52 + row * (HEIGHT + 16)
        svg += panel(10, y, name, *naive[name], "#c0504d")
        svg += panel(10 + PANEL + GAP, y, name, *equalized[name], "#2f7d5b")
    path = Path(__file__).parents[1] / "docs" / "ranges.svg"
    path.write_text("\n".join([*svg, "</svg>", ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
