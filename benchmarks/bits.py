"""Fewer bits per weight: recipes from 8 to 4 bits on two MobileNets, as a Markdown table.

    EQUINT_REAL=folder python benchmarks/bits.py [--limit N] [--figure docs/bits.svg]

Activations keep 8 bits; nothing is trained and no data is used. The simulation is onnxruntime with graph
optimizations off.
"""

from __future__ import annotations

import sys
from pathlib import Path

from real import Network, networks
from svg import Panel, Series, write

import equint

NETWORKS = ("mobilenet_v1_025_224_imagenet", "mobilenet_v2_035_224_flowers")
RUNS = (
    ("lwq", "per-tensor-clip", "#999999"),
    ("cwq", "per-channel", "#2f6db3"),
    ("dfq", "per-tensor-clip", "#d2691e"),
    ("optimal", "per-tensor-clip", "#2f7d5b"),
)
BITS = (8, 7, 6, 5, 4)


def measured(network: Network, recipe: str, target: str, bits: int) -> tuple[float, float, float]:
    """(top-1 %, agreement with float %, SQNR dB) of one quantization."""
    result = equint.quantize(network.model, recipe, target, weight_bits=bits, activation_bits=8, input=network.card)
    top1, agreement, decibels = network.measure(result.proto)
    if top1 is None or agreement is None:
        sys.exit(f"{network.name}: no classifier")
    return top1, agreement, decibels


def main() -> None:
    """Print the table and draw the figure."""
    limit = int(sys.argv[sys.argv.index("--limit") + 1]) if "--limit" in sys.argv else None
    panels = []
    print("Top-1 / agreement with the float network, output SQNR; weights of so many bits, activations of 8.\n")
    for network in (n for n in networks(limit) if n.name in NETWORKS):
        float_top1 = network.measure(network.model)[0] or 0.0
        print(f"### {network.name} (float top-1 {float_top1:.2f}, {sum(map(len, network.inputs))} images)\n")
        print("| recipe | target | " + " | ".join(f"{b} bits" for b in BITS) + " |")
        print("|---" * (len(BITS) + 2) + "|", flush=True)
        drawn = [Series("float", "#222222", [BITS[0], BITS[-1]], [float_top1] * 2, "dashes")]
        for recipe, target, colour in RUNS:
            found = [measured(network, recipe, target, b) for b in BITS]
            cells = [f"{t:.2f} / {a:.1f} %, {d:.1f} dB" for t, a, d in found]
            print(f"| {recipe} | {target} | " + " | ".join(cells) + " |", flush=True)
            drawn.append(Series(f"{recipe}, {target}", colour, BITS, [t for t, _, _ in found]))
        print()
        panels.append(Panel(network.name, "bits per weight", "top-1, %", drawn, x_ticks=BITS, y_span=(0.0, float_top1)))
    if "--figure" in sys.argv:
        path = Path(sys.argv[sys.argv.index("--figure") + 1])
        write(path, "Top-1 accuracy against bits per weight", panels)


if __name__ == "__main__":
    main()
