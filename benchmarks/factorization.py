"""Tables 1 and 2 of Meller et al. 2019 on the networks at hand: equalization by factors, and biases fine-tuned.

    EQUINT_REAL=folder python benchmarks/factorization.py [options] [network ...]

Options: --parts table1,table2; --images N (64) that activation extremes are taken from, 0: moments; --bias-images N
(1000) that biases are fine-tuned on, or as many as there are; --limit N judges on N samples; networks by a part of
their names (table 2: those with depthwise layers, unless some are named).

8 bits per tensor, 16-bit biases on grids of their own. The published figures are of other networks on other data. The
simulation is onnxruntime with graph optimizations off. Where only activations are quantized, weights of 16 bits stand
for float ones; where only weights are, biases stay float.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from real import Network, networks

import equint
from equint.planning.recipe import Recipe, needs_images, recipe

DEPTHWISE = ("mobilenet", "kws")
BLOCKS: Mapping[str, Mapping[str, Any]] = {
    "weights and activations": {},
    "weights only": {"activation_bits": "float"},
    "activations only": {"weight_bits": 16},
}
TABLE_1 = (
    ("weights and activations", "ResNet-V1-50", "75.2 %", "0.25", "0.38", "0.25"),
    ("", "ResNet-V1-152", "76.8 %", "1.27", "0.80", "0.78"),
    ("", "Inception-V3", "77.9 %", "0.66", "0.47", "0.35"),
    ("", "Inception-V1", "69.8 %", "2.23", "0.41", "0.39"),
    ("", "DenseNet-121", "74.3 %", "5.78", "0.42", "0.35"),
    ("weights only", "ResNet-V1-152", "76.8 %", "0.23", "0.19", "0.16"),
    ("", "Inception-V3", "77.9 %", "0.55", "0.36", "0.32"),
    ("activations only", "ResNet-V1-152", "76.8 %", "0.98", "0.66", "0.62"),
    ("", "Inception-V3", "77.9 %", "0.09", "0.03", "0.05"),
)
"""As printed: quantized, network, float top-1, points lost without, with one-step and with two-step equalization."""


@dataclass(frozen=True)
class Line:
    """One way to quantize, and what was published of it: points lost by MobileNet V1-1.0, V2-1.0 and V2-1.4."""

    title: str
    recipe: Recipe
    published: tuple[str, ...] = ("", "", "")
    target: str = "per-tensor"
    tuned: bool = False


def without(name: str, *passes: str) -> Recipe:
    """A built-in recipe less some passes."""
    chosen = recipe(name)
    return replace(chosen, passes=tuple(step for step in chosen.passes if step[0] not in passes))


METHODS = (
    Line("no equalization", without("one-step", "one_step"), ("7.89", "42.68", "8.06")),
    Line("one-step", recipe("one-step"), ("6.12", "4.07", "6.21")),
    Line("two-step", recipe("two-step"), ("3.2", "2.1", "1.9")),
)
TABLE_2 = (
    *METHODS,
    Line("biases only", without("two-step-bias-finetune", "two_step"), ("1.3", "1.5", "1.4"), tuned=True),
    Line("two-step + biases", recipe("two-step-bias-finetune"), ("0.95", "0.61", "0.55"), tuned=True),
    Line("equint optimal", recipe("optimal")),
    Line("one-step, a bound per channel", recipe("one-step"), target="per-tensor-clip"),
    Line("two-step, a bound per channel", recipe("two-step"), target="per-tensor-clip"),
)


@dataclass(frozen=True)
class Figures:
    """Top-1, agreement in per cent and points of top-1 lost, None where a network does not classify; SQNR in dB."""

    top1: float | None
    agreement: float | None
    lost: float | None
    decibels: float

    def __str__(self) -> str:
        if self.top1 is None:
            return f"{self.decibels:.1f} dB"
        return f"**{self.lost:.2f}**: {self.top1:.2f} / {self.agreement:.1f} %, {self.decibels:.1f} dB"


def measured(network: Network, line: Line, asked: Namespace, bits: Mapping[str, Any]) -> Figures:
    """A network quantized in one way, and judged."""
    count = asked.bias_images if line.tuned else asked.images
    if count == 0 and not needs_images(line.recipe):
        count = None
    result = equint.quantize(network.model, line.recipe, line.target, input=network.card, images=count, **bits)
    before, (top1, agreement, decibels) = network.measure(network.model)[0], network.measure(result.proto)
    return Figures(top1, agreement, None if top1 is None or before is None else before - top1, decibels)


def total(parts: Sequence[Figures]) -> Figures:
    """What losses and noise powers add up to."""
    power = sum(10 ** (-p.decibels / 10) for p in parts)
    known = [p.lost for p in parts if p.lost is not None]
    return Figures(None, None, sum(known) if known else None, float(-10 * np.log10(power)))


def table1(asked: Namespace) -> None:
    """Losses by what is quantized, and whether those of weights and of activations add up to that of both."""
    heads = [*BLOCKS, "weights + activations, added"]
    print(f"## Table 1: points of top-1 lost ({asked.images} images)\n")
    print(f"| network (float top-1, samples) | | {' | '.join(heads)} |\n|---{'|---' * (len(heads) + 1)}|", flush=True)
    for network in chosen(asked, ()):
        for line in METHODS:
            found = [measured(network, line, asked, bits) for bits in BLOCKS.values()]
            both = total(found[1:])
            added = f"{both.decibels:.1f} dB" if both.lost is None else f"**{both.lost:.2f}**, {both.decibels:.1f} dB"
            cells = [*map(str, found), added]
            print(f"| {head(network)} | {line.title} | {' | '.join(cells)} |", flush=True)
    print("\n| *published* | network | float | no equalization | one-step | two-step |\n|---|---|--:|--:|--:|--:|")
    for row in TABLE_1:
        print(f"| {' | '.join(row)} |")
    print()


def table2(asked: Namespace) -> None:
    """MobileNets, where ReLU6 holds channels back, and biases fine-tuned."""
    nets = list(chosen(asked, DEPTHWISE))
    heads = [*map(head, nets), *(f"*published {name}*" for name in ("V1-1.0", "V2-1.0", "V2-1.4"))]
    print(f"## Table 2: points of top-1 lost ({asked.images} images)\n")
    print(f"| | {' | '.join(heads)} |\n|---{'|---' * len(nets)}|--:|--:|--:|", flush=True)
    for line in TABLE_2:
        cells = [str(measured(network, line, asked, {})) for network in nets]
        print(f"| {line.title} | {' | '.join([*cells, *line.published])} |", flush=True)
    print()


def chosen(asked: Namespace, kinds: Sequence[str]) -> Iterator[Network]:
    """The networks that are named, or else those of some kinds."""
    parts = asked.networks or kinds
    return (n for n in networks(asked.limit) if not parts or any(part in n.name for part in parts))


def head(network: Network) -> str:
    """A network's name, float top-1 and number of samples."""
    top1, samples = network.measure(network.model)[0], sum(map(len, network.inputs))
    return f"{network.name} ({samples})" if top1 is None else f"{network.name} ({top1:.2f}, {samples})"


PARTS: Mapping[str, Callable[[Namespace], None]] = {"table1": table1, "table2": table2}


def main() -> None:
    """Print the tables."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--bias-images", type=int, default=1000)
    parser.add_argument("--limit", type=int)
    asked = parser.parse_args()
    for part in asked.parts.split(","):
        PARTS[part](asked)


if __name__ == "__main__":
    main()
