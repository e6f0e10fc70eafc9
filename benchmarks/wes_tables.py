"""Tables 1 to 4 and figure 3 of Oh et al. (2020) with their printed columns, on the networks at hand, as Markdown.

    EQUINT_REAL=folder python benchmarks/wes_tables.py [options] [network ...]

Options: --tables 1,2,3,figure3,pruning,differences,4 (all); --images N (64) for the activations' ranges, of which the
published recipes take the 1 % percentile of per-image extremes; --limit N samples per network; --json FILE; networks by
a part of their names. Every network is measured by its task's own figure (docs/tasks.md) in onnxruntime, graph
optimizations off; SQNR is that of the worst output against the float network. The published rows are of other networks,
on other data, with 1,000 images.
"""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

from real import Network, networks
from wes import SAMPLES, head, row, short, varied, with_pass

import equint
from equint.hardware.target import target
from equint.integers.lower import lower
from equint.maths.fixedpoint import Mantissa
from equint.npu.published import table_4
from equint.npu.sizes import MEGABYTE, SCHEMES, network_sizes, parameter_bits
from equint.ops.layers import layers
from equint.planning.recipe import Recipe, recipe
from equint.samples.statistics import Statistics
from equint.scoring.metrics import evaluate
from equint.scoring.tasks import Measure, task_of
from equint.study.weights import mean_of, weight_fits

WES, ITERATIVE = recipe("wes-published"), recipe("wes-published-iterative")
PERCENTILE = {"rule": "image-percentile", "percent": 1.0}
CLIP = {"search": "nelder-mead", "cost": "weights"}


def clipped(chosen: Recipe, behind: str) -> Recipe:
    """With weight clipping as published."""
    return with_pass(chosen, behind, "clip_weights", **CLIP)


def fixed(percent: float) -> Recipe:
    """WES with weights clipped at a fixed percentile."""
    return with_pass(WES, "weight_shift", "clip_weights", search="percentile", percent=percent)


ROOM = {"shifted_bias_bits": 20}
LWQ = varied("lwq", calibrate=PERCENTILE)
DFQ = with_pass(recipe("dfq-published"), "absorb_bias", "calibrate", **PERCENTILE)
DEPTHWISE = varied("wes-published", weight_shift={"layers": "depthwise"})
METHODS: dict[str, tuple[Recipe, str]] = {
    "LWQ": (LWQ, "per-tensor"),
    "CWQ": (recipe("cwq-published"), "per-channel"),
    "CWQ^wc": (clipped(recipe("cwq-published"), "activation_ranges"), "per-channel"),
    "DFQ": (DFQ, "per-tensor"),
    "DFQ^wc": (clipped(DFQ, "activation_ranges"), "per-tensor"),
    "WES, deterministic": (WES, "npu-shift"),
    "WES": (ITERATIVE, "npu-shift"),
    "WES^wc": (recipe("wes-published-clipped"), "npu-shift"),
}
DIFFERENCES: dict[str, tuple[Recipe, str]] = {
    "as published": (WES, "npu-shift"),
    "shifts lowered for biases of more than 20 bits": (varied("wes-published", quantize=ROOM), "npu-shift"),
    "activations: extremes of all images": (varied("wes-published", calibrate={"rule": "min-max"}), "npu-shift"),
    "weights clipped, Nelder-Mead": (clipped(WES, "weight_shift"), "npu-shift"),
    "weights clipped at 0.01 %": (fixed(0.01), "npu-shift"),
    "weights clipped at 0.1 %": (fixed(0.1), "npu-shift"),
    "weights clipped at 1 %": (fixed(1.0), "npu-shift"),
    "CWQ as published": (recipe("cwq-published"), "per-channel"),
    "CWQ without a bound on scales": (varied("cwq-published", quantize={"min_scale": 0.0}), "per-channel"),
}
PUBLISHED_3 = (
    ("MobileNet v1, ImageNet", "top-1", "70.60", "0.10", "69.74", "69.97", "66.67", "67.52", "", "69.68", "69.78"),
    ("MobileNet v2, ImageNet", "top-1", "71.87", "0.11", "70.98", "70.98", "69.12", "", "", "69.73", "70.96"),
    ("EfficientNet B3, ImageNet", "top-1", "81.38", "74.08", "80.20", "", "", "", "", "80.14", ""),
    ("ResNet50 v1, ImageNet", "top-1", "76.48", "76.18", "76.20", "", "", "", "", "76.29", ""),
    ("Inception v3, ImageNet", "top-1", "77.97", "77.62", "77.61", "", "", "", "", "77.64", ""),
    ("ResNet56, Cifar10", "top-1", "93.37", "93.28", "93.18", "", "", "", "", "93.29", ""),
    ("MobileNet-SSD, Widerface", "mAP", "54.29", "52.32", "55.20", "", "", "", "", "55.05", ""),
    ("FSRCNN, 91Im / Set14", "PSNR", "30.79", "30.62", "30.59", "", "", "", "", "30.64", ""),
    ("FSRCNN, 91Im / Set14", "SSIM", "0.898", "0.893", "0.893", "", "", "", "", "0.894", ""),
)
SEARCHES = {
    "LWQ": LWQ,
    "Deterministic": WES,
    "Iterative": ITERATIVE,
    "exact (ours)": varied("wes-published", weight_shift={"search": "exact"}),
}
PUBLISHED_2 = (
    ("MobileNet v1", "", "0.535", "0.542", "", "0.00402", "0.00398", "", "70.60", "", "69.5", "69.7", ""),
    ("MobileNet v2", "", "0.586", "0.599", "", "0.00202", "0.00199", "", "71.87", "", "69.8", "69.8", ""),
)
PRUNED = {
    "WES": WES,
    "WES, pruned": with_pass(WES, "activation_ranges", "prune", sparsity=0.2, cost="weights"),
    "`wes`": recipe("wes"),
    "`wes`, pruned where it costs least": with_pass(recipe("wes"), "activation_ranges", "prune", sparsity=0.2),
}


@dataclass(frozen=True)
class Subject:
    """A network, what its task measures, and what its tensors do on the images."""

    network: Network
    images: int

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The task's own figures: PSNR and SSIM where pictures are made, both AP where boxes are, else the first."""
        every = task_of(self.network.card.task).measures
        return every if self.network.card.task in ("super-resolution", "detection") else every[:1]

    @cached_property
    def statistics(self) -> Statistics:
        """Measured once for all methods that leave the network as it is."""
        return equint.calibrate(self.network.model, input=self.network.card, images=self.images)

    @cached_property
    def original(self) -> dict[str, Any]:
        """The float network, measured."""
        return self.measure(self.network.model)

    def measure(self, model: Any) -> dict[str, Any]:
        """The task's figures, agreement and SQNR against the float network."""
        network = self.network
        return evaluate(model, network.card.data["eval"], network.card, network.model, limit=network.limit)

    def quantized(self, chosen: Recipe, on: str, activations: Any = None) -> equint.Result:
        """By a recipe; ranges from the images where activations are quantized."""
        model, card = self.network.model, self.network.card
        if activations == "float":
            plain = replace(chosen, passes=tuple(p for p in chosen.passes if p[0] != "calibrate"))
            return equint.quantize(model, plain, on, input=card, activation_bits="float")
        if any(name == "equalize" for name, _ in chosen.passes):  # another network by the time it is shown the images
            return equint.quantize(model, chosen, on, input=card, images=self.images)
        return equint.quantize(model, chosen, on, input=card, data=self.statistics)


class Tables:
    """Prints tables, and keeps what was measured."""

    def __init__(self, subjects: Iterable[Subject]) -> None:
        self.subjects = list(subjects)
        self.known = dict[tuple[str, str, str], dict[str, Any]]()

    def found(self, subject: Subject, label: str, chosen: Recipe, on: str, activations: Any = None) -> dict[str, Any]:
        """Quantized and measured, once."""
        key = subject.network.name, repr((chosen.passes, on)), str(activations)
        if key not in self.known:
            result = subject.quantized(chosen, on, activations)
            overlap, error = mean_of(tuple(weight_fits(result.model)))
            sizes = network_sizes(result.model)["total"]
            facts: dict[str, Any] = {
                "network": subject.network.name,
                "row": label,
                "activations": str(activations or 8),
            }
            facts |= {"overlap": overlap, "error": error, "zeros": sizes["zeros"]}
            self.known[key] = facts | subject.measure(result.proto)
        return self.known[key]

    def cells(self, subject: Subject, found: Mapping[str, Any], noise: bool = True) -> str:
        """The task's figures, and SQNR."""
        told = " / ".join(f"{found[m.key]:.{max(m.decimals, 2)}f}" for m in subject.measures)
        return f"{told} ({found['sqnr_db']:.1f} dB)" if noise else told


def name_of(subject: Subject, samples: int) -> tuple[str, str]:
    """The network with its samples, and its figures."""
    return f"{short(subject.network)} ({samples})", " / ".join(m.title for m in subject.measures)


def table_1() -> None:
    """Bits of what quantization adds to a layer."""
    print("\n## Table 1: bits of a layer's parameters, N output channels\n")
    print(head("weight parameter", "LWQ, DFQ", "CWQ", "WES"))
    print(row("scale compound: mantissa M", "32", "32·N", "32"))
    print(row("scale compound: exponent s", "6", "6·N", "6"))
    print(row("channel-wise shift S", "–", "–", "4·N"))
    print(row("zero point z", "8", "8·N", "8"))
    for n in (1, 32, 1024):
        print(row(f"together, N = {n}", *(f"{parameter_bits(n)[s]:,}" for s in SCHEMES)))


def table_2(tables: Tables) -> None:
    """Deterministic or iterative search, weights alone."""
    print("\n## Table 2: the total range; 8-bit weights, float activations\n")
    labels = list(SEARCHES)
    first = [*(f"overlap, {k}" for k in labels), *(f"φ, {k}" for k in labels[1:])]
    print(head("network (samples)", *first, "FP32", *labels))
    for subject in tables.subjects:
        ways = {k: "per-tensor" if k == "LWQ" else "npu-shift" for k in labels}
        every = [tables.found(subject, k, SEARCHES[k], on, "float") for k, on in ways.items()]
        name, _ = name_of(subject, subject.original["samples"])
        overlaps, errors = [f"{f['overlap']:.3f}" for f in every], [f"{f['error']:.3g}" for f in every[1:]]
        told = [tables.cells(subject, f) for f in every]
        print(row(name, *overlaps, *errors, tables.cells(subject, subject.original, False), *told), flush=True)
    for name, *cells in PUBLISHED_2:
        print(row(f"*published: {name}*", *cells))


def table_3(tables: Tables) -> None:
    """All methods, weights and activations."""
    print("\n## Table 3: 8-bit weights and activations\n")
    print(head("network (samples)", "figure", "FP32", *METHODS))
    for subject in tables.subjects:
        told = [tables.cells(subject, tables.found(subject, k, *how)) for k, how in METHODS.items()]
        label = name_of(subject, subject.original["samples"])
        print(row(*label, tables.cells(subject, subject.original, False), *told), flush=True)
    for name, *cells in PUBLISHED_3:
        print(row(f"*published: {name}*", *cells))


def figure_3(tables: Tables) -> None:
    """LWQ against WES, and shifts of depthwise layers alone."""
    print("\n## Figure 3: LWQ and WES (deterministic); 8-bit weights and activations\n")
    columns = ("overlap: LWQ → WES", "times", "φ: LWQ → WES", "times", "FP32", "LWQ", "WES", "depthwise layers alone")
    print(head("network", *columns))
    for subject in tables.subjects:
        lwq, wes = (tables.found(subject, k, *METHODS[k]) for k in ("LWQ", "WES, deterministic"))
        part = tables.found(subject, "WES, depthwise layers alone", DEPTHWISE, "npu-shift")
        grown, less = wes["overlap"] / lwq["overlap"], lwq["error"] / wes["error"]
        overlaps = f"{lwq['overlap']:.3f} → {wes['overlap']:.3f}", f"{grown:.1f}"
        errors = f"{lwq['error']:.2g} → {wes['error']:.2g}", f"{less:.1f}"
        told = [tables.cells(subject, f, f is not subject.original) for f in (subject.original, lwq, wes, part)]
        print(row(short(subject.network), *overlaps, *errors, *told), flush=True)
    print(row("*published*", "", "2 to 3", "", "3 to 12", *4 * ("",)))
    print(row("*published: MobileNet v1*", *4 * ("",), "70.60", "0.10", "69.68", "63.16"))
    print(row("*published: MobileNet v2*", *4 * ("",), "71.87", "0.11", "69.73", ""))
    print(row("*published: EfficientNet B3*", *4 * ("",), "81.38", "74.08", "80.14", ""))


def pruning(tables: Tables) -> None:
    """Twenty per cent of every layer's weights set to zero."""
    print("\n## Pruning of 20 %, 8-bit weights and activations\n")
    print(head("network", "zeros", "FP32", *PRUNED))
    for subject in tables.subjects:
        every = [tables.found(subject, k, r, "npu-shift") for k, r in PRUNED.items()]
        told = [tables.cells(subject, f) for f in every]
        zeros = f"{100 * every[0]['zeros']:.1f} → {100 * every[1]['zeros']:.1f} %"
        original = tables.cells(subject, subject.original, False)
        print(row(short(subject.network), zeros, original, *told), flush=True)
    print(row("*published*", "20 %", "", "", "less than 1 point lost", "", ""))


def differences(tables: Tables) -> None:
    """One thing at a time done otherwise; at last in integers, with either mantissa."""
    print("\n## What single differences cost; 8-bit weights and activations, deterministic shifts\n")
    print(head("variant", *(short(s.network) for s in tables.subjects)))
    for label, how in DIFFERENCES.items():
        print(row(label, *(tables.cells(s, tables.found(s, label, *how)) for s in tables.subjects)), flush=True)
    for mantissa in get_args(Mantissa):
        on = replace(target("npu-shift"), mantissa=mantissa)
        every = [s.measure(lower(s.quantized(WES, "npu-shift").model, on)) for s in tables.subjects]
        told = [tables.cells(s, found) for s, found in zip(tables.subjects, every, strict=True)]
        print(row(f"as published, in integers, M {mantissa}", *told), flush=True)


def sizes(tables: Tables) -> None:
    """MB of parameters: as printed, as counted, and of the networks at hand, packed."""
    print(f"\n## Table 4: MB of parameters (1 MB = {MEGABYTE:,} bytes), not compressed\n")
    print(head("network", "FP32", "LWQ, DFQ", "CWQ", "WES"))
    for counted in table_4():
        keys = ("fp32", *SCHEMES)
        cells = [f"{counted[k]:.{len(counted['printed'][k].split('.')[1])}f} ({counted['printed'][k]})" for k in keys]
        print(row(f"{counted['network']} (in brackets: published)", *cells))
    for subject in tables.subjects:
        result = subject.quantized(LWQ, "per-tensor", "float")
        total = network_sizes(result.model)["total"]
        graph = result.model.graph
        held = {la.weight for la in layers(graph)} | {la.bias for la in layers(graph) if la.bias}
        floats = 4 * sum(graph.consts[name].size for name in held)
        print(row(short(subject.network), *(f"{n / MEGABYTE:.3f}" for n in (floats, *(total[s] for s in SCHEMES)))))


def main() -> None:
    """Print the tables."""
    parser = ArgumentParser()
    parser.add_argument("networks", nargs="*")
    parser.add_argument("--tables", default="1,2,3,figure3,pruning,differences,4")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--json", type=Path)
    asked: Namespace = parser.parse_args()
    chosen = [n for n in networks() if not asked.networks or any(part in n.name for part in asked.networks)]
    subjects = [Subject(replace(n, limit=asked.limit or SAMPLES.get(n.name)), asked.images) for n in chosen]
    tables = Tables(subjects)
    every: dict[str, Callable[[], None]] = {
        "1": table_1,
        "2": lambda: table_2(tables),
        "3": lambda: table_3(tables),
        "figure3": lambda: figure_3(tables),
        "pruning": lambda: pruning(tables),
        "differences": lambda: differences(tables),
        "4": lambda: sizes(tables),
    }
    for name in filter(None, asked.tables.split(",")):
        every[name]()
    if asked.json:
        asked.json.write_text(json.dumps([*tables.known.values()], indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
