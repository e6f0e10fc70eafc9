"""Every built-in recipe on every real network: float top-1, agreement and output SQNR, as a Markdown table.

    EQUINT_REAL=folder python benchmarks/accuracy.py [--weights-only] [--short]

8-bit weights and activations (or weights alone with --weights-only), no data; the simulation is onnxruntime
with graph optimizations off. --short prints the classifiers and the columns of the README.
"""

from __future__ import annotations

import sys

from real import Network, networks

import equint
from equint.recipe import ActivationBits

RUNS = (
    ("lwq", "per-tensor"),
    ("dfq-published", "per-tensor"),
    ("dfq", "per-tensor"),
    ("dfq", "per-tensor-clip"),
    ("cwq", "per-channel"),
    ("cwq-bc", "per-channel"),
    ("dfq", "per-channel"),
    ("optimal", "per-tensor"),
    ("optimal", "per-tensor-clip"),
    ("optimal", "per-channel"),
)


SHORT = (RUNS[0], RUNS[2], *RUNS[-3:])


def cell(network: Network, recipe: str, target: str, bits: ActivationBits) -> str:
    """One result: top-1 / agreement, SQNR."""
    result = equint.quantize(network.model, recipe, target, activation_bits=bits, input=network.card)
    top1, agreement, decibels = network.measure(result.proto)
    return f"{decibels:.1f} dB" if top1 is None else f"{top1:.2f} / {agreement:.1f} %, {decibels:.1f} dB"


def main() -> None:
    """Print the tables."""
    weights_only = "--weights-only" in sys.argv
    short = "--short" in sys.argv
    runs = SHORT if short else RUNS
    chosen = [n for n in networks() if n.card.task == "classification" or not short]
    print(f"## {'8-bit weights, float activations' if weights_only else '8-bit weights and activations'}, no data\n")
    print("Top-1 / agreement with the float network, output SQNR (of the worst output).\n")
    print("| network (float top-1, samples) | " + " | ".join(f"{r}<br>{t}" for r, t in runs) + " |")
    print("|---" * (len(runs) + 1) + "|", flush=True)
    for network in chosen:
        top1, _, _ = network.measure(network.model)
        head = (
            f"{network.name} ({sum(map(len, network.inputs))})"
            if top1 is None
            else (f"{network.name} ({top1:.2f}, {sum(map(len, network.inputs))})")
        )
        cells = [cell(network, r, t, "float" if weights_only else None) for r, t in runs]
        print(f"| {head} | " + " | ".join(cells) + " |", flush=True)
    print()


if __name__ == "__main__":
    main()
