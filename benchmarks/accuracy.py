"""Every built-in recipe on every real network: float top-1, agreement and output SQNR, as a Markdown table.

    EQUINT_REAL=folder python benchmarks/accuracy.py [options] [network ...]

Options: --weights-only, --short, --published, --targets, --images N, --hide-batchnorm, --limit N samples; networks by a
part of their names.

8-bit weights and activations (or weights alone with --weights-only), no data or N of the card's calibration images;
the simulation is onnxruntime with graph optimizations off. --short prints the classifiers and the columns of the
README. --published runs every recipe that is a paper's method on its own target, with 64 images (or N) where it looks
at some, and `two-step-bias-finetune`, with torch, on classifiers alone. --hide-batchnorm folds BatchNorm first, as
exporters do, so that its statistics are lost: then the recipes `cwq-bc`, `dfq` and `optimal` are compared with
themselves, with moments propagated from the input, from generated pictures, and from images. --targets prints
docs/targets.md's table: every built-in target with its best recipe; targets of the same integers share a column.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from typing import Any

from real import Network, machine, networks

import equint
from equint.hardware.target import TARGETS, TOLD, Target
from equint.ir.model import Model
from equint.passes.fold_batchnorm import FoldBatchnorm
from equint.planning.recipe import ActivationBits, Recipe, looks, recipe

Source = Model | str | PathLike[str]

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
    ("wes", "npu-shift"),
    ("wes-optimal", "npu-shift"),
)


HIDDEN = (("optimal", "per-tensor"), ("optimal", "per-tensor-clip"), ("optimal", "per-channel"))
SHORT = (RUNS[0], RUNS[2], *RUNS[-5:])
PUBLISHED = tuple(
    (name, recipe(name).target)
    for name in (
        "lwq",
        "dfq-published",
        "one-step",
        "two-step",
        "two-step-bias-finetune",
        "cwq-published",
        "wes-published",
        "wes-published-iterative",
        "wes-published-clipped",
    )
)


def targeted() -> dict[tuple[str, str], str]:
    """(recipe, target) of every built-in target, and the names of those that make the same integers of it."""
    found = list[list[Target]]()
    for on in TARGETS:
        alike = next((same for same in found if _decides(same[0]) == _decides(on)), None)
        found.append([on]) if alike is None else alike.append(on)
    return {(same[0].recipe, same[0].name): ", ".join(on.name for on in same) for same in found}


def _decides(on: Target) -> dict[str, object]:
    return {"recipe": on.recipe, **{k: v for k, v in vars(on).items() if k not in (*TOLD, "rounding")}}


def cell(network: Network, source: Source, recipe: str | Recipe, target: str, options: Mapping[str, Any]) -> str:
    """One result: top-1 / agreement, SQNR."""
    result = equint.quantize(source, recipe, target, input=network.card, **options)
    top1, agreement, decibels = network.measure(result.proto)
    return f"{decibels:.1f} dB" if top1 is None else f"{top1:.2f} / {agreement:.1f} %, {decibels:.1f} dB"


def plain(network: Network, name: str, target: str, options: Mapping[str, Any]) -> str:
    """One result of the network as its file says it."""
    return cell(network, network.model, name, target, options)


def published(network: Network, name: str, target: str, options: Mapping[str, Any]) -> str:
    """One result of a paper's method: without images where it looks at none; what distils scores needs scores."""
    if name.endswith("finetune") and network.card.task != "classification":
        return "–"
    return plain(network, name, target, options if looks(recipe(name)) else {**options, "images": None})


def propagated(name: str) -> Recipe:
    """A recipe that leaves networks without BatchNorm to what is propagated from the input."""
    chosen = recipe(name)
    passes = [(p, {**o, "stand_in": "propagated"} if p == "calibrate" else o) for p, o in chosen.passes]
    return replace(chosen, passes=tuple(passes))


def hidden(network: Network, images: int) -> list[str]:
    """Cells of one network whose BatchNorms are hidden."""
    folded = Model(FoldBatchnorm()(equint.load(network.model)).graph)
    cells = []
    for name, target in HIDDEN:
        cells.append(cell(network, network.model, name, target, {}))
        cells += [cell(network, folded, r, target, {}) for r in (propagated(name), name)]
        cells.append(cell(network, folded, name, target, {"images": images}))
    return cells


def head(network: Network) -> str:
    """The first column."""
    top1, _, _ = network.measure(network.model)
    count = sum(map(len, network.inputs))
    return f"{network.name} ({count})" if top1 is None else f"{network.name} ({top1:.2f}, {count})"


def main() -> None:
    """Print the tables."""
    parser = ArgumentParser()
    for flag in ("--weights-only", "--short", "--published", "--targets", "--hide-batchnorm"):
        parser.add_argument(flag, action="store_true")
    parser.add_argument("--images", type=int, default=0)
    parser.add_argument("--limit", type=int)
    parser.add_argument("networks", nargs="*")
    asked = parser.parse_args()
    runs = PUBLISHED if asked.published else SHORT if asked.short else RUNS[-5:] if asked.images else RUNS
    names = targeted() if asked.targets else {}
    runs = tuple(names) or runs
    asked.images = asked.images or (64 if asked.published else 0)
    bits: ActivationBits = "float" if asked.weights_only else None
    options: dict[str, Any] = {"activation_bits": bits, **({"images": asked.images} if asked.images else {})}
    shown = f"{asked.images} images" if asked.images else "no data"
    print(
        f"## {'8-bit weights, float activations' if asked.weights_only else '8-bit weights and activations'}, {shown}\n"
    )
    print("Top-1 / agreement with the float network, output SQNR (of the worst output).\n")
    columns = [f"{r}<br>{names.get((r, t), t)}" for r, t in runs]
    if asked.hide_batchnorm:
        columns = [f"{r}<br>{t}<br>{w}" for r, t in HIDDEN for w in ("BatchNorm", "propagated", "generated", "images")]
    print("| network (float top-1, samples) | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 1) + "|", flush=True)
    for network in networks(asked.limit):
        skipped = asked.short and network.card.task != "classification"
        if skipped or (asked.networks and not any(n in network.name for n in asked.networks)):
            continue
        if asked.hide_batchnorm:
            cells = hidden(network, asked.images or 64)
        else:
            one = published if asked.published else plain
            cells = [one(network, r, t, options) for r, t in runs]
        print(f"| {head(network)} | " + " | ".join(cells) + " |", flush=True)
    print(f"\n{machine()}\n")


if __name__ == "__main__":
    main()
