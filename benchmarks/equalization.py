"""One-step and two-step equalization on every real network, as in tables 1 and 2 of Meller et al. 2019.

    EQUINT_REAL=folder python benchmarks/equalization.py [--images N] [--limit N] [--clip] [--bias-bits B]

What is lost to 8-bit quantization per tensor with 16-bit biases (or B): points of top-1 where the network classifies,
with the agreement with the float network and the SQNR of the worst output. --images N takes activation extremes
from N calibration images (the paper: 64), else they follow from moments; --limit N judges on N samples; --clip is
for hardware with a bound per channel, where ReLU6 is no obstacle. The simulation is onnxruntime with graph
optimizations off. Where only activations are quantized, weights of 16 bits and biases of 32 stand for float ones.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from real import Network, networks

import equint
from equint.planning.recipe import Recipe, recipe
from equint.samples.data import images

BLOCKS: Mapping[str, Mapping[str, Any]] = {
    "Weights and activations": {},
    "Weights only": {"activation_bits": "float"},
    "Activations only": {"weight_bits": 16},
}


def methods(bias_bits: int | None) -> dict[str, Recipe]:
    """The same recipe without equalization, with one step and with two."""
    one, two = (replace(r, bias_bits=bias_bits or r.bias_bits) for r in map(recipe, ("one-step", "two-step")))
    none = replace(one, passes=tuple(step for step in one.passes if step[0] != "one_step"))
    return {"no equalization": none, "one-step": one, "two-step": two}


def cell(
    network: Network, before: float | None, chosen: Recipe, target: str, count: int, bits: Mapping[str, Any]
) -> str:
    """One result: points of top-1 less than `before` / agreement, SQNR."""
    options = dict(bits)
    if count:
        options["data"] = images(network.card.data["calibration"], network.card, count)
    if "weight_bits" in bits:  # a bias of 16 bits, at a 256th of the scale, would not fit
        chosen = replace(chosen, bias_bits=32)
    result = equint.quantize(network.model, chosen, target, input=network.card, **options)
    top1, agreement, decibels = network.measure(result.proto)
    if top1 is None or before is None:
        return f"{decibels:.1f} dB"
    return f"{before - top1:.2f} / {agreement:.1f} %, {decibels:.1f} dB"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=0, help="calibration images; 0: extremes from moments")
    parser.add_argument("--limit", type=int, help="samples to judge on")
    parser.add_argument("--clip", action="store_true", help="activations may have a bound per channel")
    parser.add_argument("--bias-bits", type=int, choices=(8, 16, 32), help="width of biases, if not the recipe's")
    args = parser.parse_args()
    target = "per-tensor-clip" if args.clip else "per-tensor"
    table, measured = methods(args.bias_bits), [(n, n.measure(n.model)[0]) for n in networks(args.limit)]
    for title, bits in BLOCKS.items():
        source = f"{args.images} images" if args.images else "moments"
        print(f"## {title}, {target}, extremes from {source}\n")
        print("Points of top-1 lost / agreement with the float network, output SQNR (of the worst output).\n")
        print("| network (float top-1, samples) | " + " | ".join(table) + " |")
        print("|---" * (len(table) + 1) + "|", flush=True)
        for network, top1 in measured:
            samples = sum(map(len, network.inputs))
            head = f"{network.name} ({samples})" if top1 is None else f"{network.name} ({top1:.2f}, {samples})"
            cells = [cell(network, top1, chosen, target, args.images, bits) for chosen in table.values()]
            print(f"| {head} | " + " | ".join(cells) + " |", flush=True)
        print()


if __name__ == "__main__":
    main()
