"""Weight equalizing shifts (Oh et al. 2020) on the real networks, as Markdown tables and two figures.

    EQUINT_REAL=folder python benchmarks/wes.py [options] [network ...]

Options: --images N (64) for the rows with images, --limit N samples per network, --layers, --sections A,B (weights,
methods, search, bias, clipping), --json FILE, --figures FOLDER; networks by a part of their names.

8-bit weights unless said otherwise. The simulation is onnxruntime with graph optimizations off. Slow networks are
judged on fewer samples (SAMPLES); the number is in the first table.
"""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import repeat
from pathlib import Path
from statistics import mean
from typing import Any

import bars
import numpy as np
import svg
from real import Network, networks
from shift_search import COLUMNS, MOST, SPEC, TIMES, compared, groups, real_layers, synthetic_layers

import equint
from equint.ir.events import EventKind
from equint.ir.model import Model
from equint.ir.weights import as_rows
from equint.maths.scales import overlap_ratio
from equint.maths.shifts import SEARCHES
from equint.ops.layers import layers
from equint.passes.calibrate import Calibrate
from equint.passes.fold_batchnorm import FoldBatchnorm
from equint.planning.recipe import ActivationBits, Recipe, recipe
from equint.samples.card import described
from equint.study.weights import WeightFit, channel_ends, kind_of, mean_of, weight_fits

SAMPLES = {
    "deeplabv3_mnv2_dm05_257_voc": 8,
    "resnet20_cifar10": 500,
    "resnet8_cifar10_mlperftiny": 500,
    "yolo_fastest_11_coco": 24,
}
DRAWN = "mobilenet_v1_025_224_imagenet"
BLUE, ORANGE = "#2f6db3", "#e08a2c"


@dataclass(frozen=True)
class Run:
    """One way to quantize a network."""

    recipe: Recipe
    target: str | None = None
    weight_bits: int = 8
    activation_bits: ActivationBits = None
    images: int = 0


@dataclass(frozen=True)
class Measured:
    """What came out: `Network.measure`, means over layers of eq. 9 and φ, channels whose scale was raised, share of the
    weights' error that clipping saved."""

    top1: float | None
    agreement: float | None
    decibels: float
    overlap: float
    error: float
    raised: int
    saved: float
    fits: tuple[WeightFit, ...]

    def __str__(self) -> str:
        if self.top1 is None:
            return f"{self.decibels:.1f} dB"
        return f"{self.top1:.2f} / {self.agreement:.1f} %, {self.decibels:.1f} dB"


def varied(name: str, **options: Mapping[str, Any] | None) -> Recipe:
    """A built-in recipe with other options of passes, or without a pass (None)."""
    chosen = recipe(name)
    kept = [(p, {**o, **(options.get(p) or {})}) for p, o in chosen.passes if options.get(p, {}) is not None]
    return replace(chosen, passes=tuple(kept))


def with_pass(chosen: Recipe, behind: str, name: str, **options: Any) -> Recipe:
    """A recipe with one more pass behind another."""
    at = [p for p, _ in chosen.passes].index(behind) + 1
    return replace(chosen, passes=(*chosen.passes[:at], (name, options), *chosen.passes[at:]))


EXACT = varied("wes-published", weight_shift={"search": "exact"})
CLIPPED = recipe("wes-published-clipped")
AT_OUTPUTS = varied("wes-published", weight_shift={"search": "exact", "cost": "outputs"})
CLIPPED_AT_OUTPUTS = with_pass(AT_OUTPUTS, "weight_shift", "clip_weights")
FINE_LIMITED = recipe("cwq-published")
FINE = varied("cwq-published", quantize={"min_scale": 0.0})
FINE_CLIPPED = with_pass(FINE, "activation_ranges", "clip_weights", search="grid", cost="weights")


def corrected(chosen: Recipe) -> Recipe:
    """With analytic bias correction."""
    return with_pass(chosen, "quantize", "correct_bias")


def rounded(**options: Any) -> Recipe:
    """`wes` without clipping, with other options of its shifts."""
    return varied("wes", weight_shift=options, clip_weights=None)


CORRECTED = corrected(recipe("wes-published"))
FULLY_CORRECTED = with_pass(CORRECTED, "correct_bias", "correct_bias_empirical")
UNCORRECTED = varied("wes", correct_bias=None, correct_bias_empirical=None)

WEIGHTS = {
    "LWQ": recipe("lwq"),
    "deterministic": recipe("wes-published"),
    "iterative": recipe("wes-published-iterative"),
    "exact": EXACT,
    "exact, cost at outputs": AT_OUTPUTS,
    "depthwise only": varied("wes-published", weight_shift={"layers": "depthwise"}),
}
METHODS = {
    "LWQ (`lwq`)": (Run(recipe("lwq")), ("0.10", "0.11")),
    "CWQ (`cwq`: int8, symmetric)": (Run(recipe("cwq")), ("", "")),
    "CWQ as published (uint8, zero points)": (Run(FINE, "per-channel"), ("69.74", "70.98")),
    "CWQ, scales at least 1e-5": (Run(FINE_LIMITED, "per-channel"), ("", "")),
    "CWQ^wc, grid of ends": (Run(FINE_CLIPPED, "per-channel"), ("69.97", "70.98")),
    "`cwq-bc`": (Run(recipe("cwq-bc")), ("", "")),
    "DFQ (`dfq-published`)": (Run(recipe("dfq-published")), ("66.67", "69.12")),
    "`dfq`, per-tensor": (Run(recipe("dfq"), "per-tensor"), ("", "")),
    "WES (`wes-published`)": (Run(recipe("wes-published")), ("69.68", "69.73")),
    "WES iterative (`wes-published-iterative`)": (Run(recipe("wes-published-iterative")), ("", "")),
    "WES^wc as published (Nelder-Mead)": (Run(CLIPPED), ("69.78", "70.96")),
    "WES exact, cost at outputs": (Run(AT_OUTPUTS), ("", "")),
    "WES^wc, exact, cost at outputs, both searches": (Run(CLIPPED_AT_OUTPUTS), ("", "")),
    "`wes`": (Run(recipe("wes")), ("", "")),
    "`wes-optimal`": (Run(recipe("wes-optimal")), ("", "")),
}
FLOAT = ("70.60", "71.87")
CLIPS = {
    "no clipping": recipe("wes-published-iterative"),
    "Nelder-Mead as published": CLIPPED,
    "bias correction, no clipping": corrected(AT_OUTPUTS),
    "bias correction, clipped": corrected(CLIPPED_AT_OUTPUTS),
}


class Bench:
    """The networks, and everything measured on them so far."""

    def __init__(self, asked: Namespace) -> None:
        chosen = [n for n in networks() if not asked.networks or any(part in n.name for part in asked.networks)]
        self.networks = [replace(n, limit=asked.limit or SAMPLES.get(n.name)) for n in chosen]
        self.starts = dict[str, Model]()
        self.kept = dict[tuple[str, str], Measured]()
        self.rows = list[dict[str, Any]]()

    def start(self, network: Network) -> Model:
        """The folded network, calibrated without images: what all runs without images begin with."""
        if network.name not in self.starts:
            folded = FoldBatchnorm()(described(equint.load(network.model), network.card))
            self.starts[network.name] = Calibrate()(folded)
        return self.starts[network.name]

    def measure(self, network: Network, run: Run) -> Measured:
        """Quantize and judge, once."""
        key = network.name, repr(run)
        if key not in self.kept:
            self.kept[key] = self._measured(network, run)
        return self.kept[key]

    def _measured(self, network: Network, run: Run) -> Measured:
        names = [p for p, _ in run.recipe.passes]
        source: Any = network.model
        chosen = run.recipe
        if not run.images and "calibrate" in names:
            source = self.start(network)
            chosen = replace(chosen, passes=tuple(p for p in chosen.passes if p[0] != "calibrate"))
        bits: dict[str, Any] = {"weight_bits": run.weight_bits, "activation_bits": run.activation_bits}
        result = equint.quantize(source, chosen, run.target, input=network.card, images=run.images or None, **bits)
        log = result.model.log
        raised = sum(e.facts["channels"] for e in log if e.kind is EventKind.SCALE_BOUNDED)
        saved = sum(e.facts["quantization error saved"] for e in log if e.kind is EventKind.WEIGHTS_CLIPPED)
        fits = tuple(weight_fits(result.model))
        return Measured(*network.measure(result.proto), *mean_of(fits), raised, saved, fits)

    def ahead(self, runs: Iterable[Run]) -> None:
        """Measure on all networks, two at a time: onnxruntime leaves Python's lock."""
        with ThreadPoolExecutor(2) as pool:
            for run in runs:
                list(pool.map(self.measure, self.networks, repeat(run)))

    def table(self, section: str, runs: Mapping[str, Run], extra: Mapping[str, Sequence[str]] | None = None) -> None:
        """A row for every run, a column for every network, their mean SQNR, and columns of other numbers."""
        for label, run in runs.items():
            self.ahead([run])
            cells = [self.told(section, label, n, run) for n in self.networks]
            level = f"{mean(c.decibels for c in cells):.2f} dB"
            print(row(label, *map(str, cells), level, *((extra or {}).get(label, ()))), flush=True)

    def told(self, section: str, label: str, network: Network, run: Run) -> Measured:
        """`measure`, written down for --json."""
        found = self.measure(network, run)
        facts = asdict(found)
        facts["layers"] = facts.pop("fits") if section == "weights" else []
        self.rows.append({"section": section, "network": network.name, "row": label, **facts})
        return found


def row(*cells: str) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def head(*cells: str) -> str:
    """The head of a Markdown table."""
    return row(*cells) + "\n" + "|---" * len(cells) + "|"


def short(network: Network) -> str:
    """A network's name, in words that wrap."""
    return network.name.replace("_", " ")


def weights(bench: Bench, layerwise: bool) -> None:
    """Table 2 and figure 3: weights alone."""
    print(
        "\n## Weights only\n\nMeans over the layers: overlap ratio (eq. 9), φ of LWQ, φ of the others in its units.\n"
    )
    runs = {label: Run(r, activation_bits="float") for label, r in WEIGHTS.items()}
    labels = list(runs)
    print(head("network", *(f"overlap, {k}" for k in labels[:5]), "φ, LWQ", *(f"φ, {k}" for k in labels[1:])))
    bench.ahead(runs.values())
    table = {n.name: {k: bench.told("weights", k, n, run) for k, run in runs.items()} for n in bench.networks}
    for name, found in table.items():
        base = found["LWQ"].error
        overlaps = [f"{found[k].overlap:.3f}" for k in labels[:5]]
        print(row(name, *overlaps, f"{base:.2e}", *(f"{found[k].error / base:.3f}" for k in labels[1:])))
    print("\nTop-1 / agreement with the float network, output SQNR of the worst output.\n")
    print(head("network (samples)", "float", *labels))
    for n in bench.networks:
        exact, _, _ = n.measure(n.model)
        count = sum(map(len, n.inputs))
        print(
            row(f"{n.name} ({count})", f"{exact:.2f}" if exact is not None else "", *map(str, table[n.name].values()))
        )
    if layerwise:
        _print_layers(table, labels)


def _print_layers(table: Mapping[str, Mapping[str, Measured]], labels: Sequence[str]) -> None:
    print("\n### Layer by layer\n")
    print(head("network", "layer", "kind", *(f"overlap, {k}" for k in labels), *(f"φ, {k}" for k in labels)))
    for name, found in table.items():
        for fits in zip(*(m.fits for m in found.values()), strict=True):
            cells = [f"{f.overlap:.3f}" for f in fits] + [f"{f.error:.2e}" for f in fits]
            print(row(name, fits[0].layer, fits[0].kind, *cells))


def methods(bench: Bench) -> None:
    """Table 3: 8-bit weights and activations."""
    print("\n## 8-bit weights and activations, no data\n")
    print(
        "Top-1 / agreement, output SQNR. The last columns are the paper's, of other networks and with 1,000 images.\n"
    )
    published = ("published: MobileNet v1 1.0", "published: MobileNet v2 1.0")
    print(head("method", *map(short, bench.networks), "mean SQNR", *published))
    tops = [n.measure(n.model)[0] for n in bench.networks]
    print(row("float", *("" if t is None else f"{t:.2f}" for t in tops), "", *FLOAT))
    bench.table("methods", {k: run for k, (run, _) in METHODS.items()}, {k: told for k, (_, told) in METHODS.items()})
    print("\nChannels whose scale the bound of 1e-5 raises:\n")
    for n in bench.networks:
        found = bench.measure(n, METHODS["CWQ, scales at least 1e-5"][0])
        print(f"- {n.name}: {found.raised} of {sum(f.channels for f in found.fits)}")


def search(bench: Bench) -> None:
    """The exact search against the others."""
    print("\n## Searches of the total range\n")
    print(f"φ of all weights alike; the exact search is checked to be never worse. Best time of {TIMES}, in turn.\n")
    print(head(*COLUMNS))
    real = [s for n in bench.networks for s in real_layers(n.name, bench.start(n).graph)]
    found = [*real, *synthetic_layers()]
    for label, group in groups(found).items():
        print(row(label, *compared(group)), flush=True)
    bench.rows += [{"section": "search", **asdict(s)} for s in found]


def bias(bench: Bench, images: int) -> None:
    """What the steps of `wes` and images add."""
    print(f"\n## What bias correction, the other steps of `wes` and {images} images add\n")
    runs = {
        "WES (`wes-published`)": Run(recipe("wes-published")),
        "with bias correction (b. c.)": Run(CORRECTED),
        "iterative, b. c.": Run(corrected(recipe("wes-published-iterative"))),
        "exact, b. c.": Run(corrected(EXACT)),
        "exact, cost at outputs, b. c.": Run(corrected(AT_OUTPUTS)),
        "the same, clipped": Run(corrected(CLIPPED_AT_OUTPUTS)),
        "deterministic, b. c. and kernel rounding": Run(rounded(search="deterministic")),
        "exact, b. c. and kernel rounding": Run(rounded(cost="weights")),
        "exact, cost at outputs, b. c. and kernel rounding": Run(rounded()),
        "the same and clipping from 20 %: `wes`": Run(recipe("wes")),
        "`wes` without b. c.": Run(UNCORRECTED),
        "`wes-optimal`": Run(recipe("wes-optimal")),
        f"{images} images, WES": Run(recipe("wes-published"), images=images),
        f"{images} images, b. c.": Run(CORRECTED, images=images),
        f"{images} images, b. c. analytic and from images": Run(FULLY_CORRECTED, images=images),
        f"{images} images, `wes`": Run(recipe("wes"), images=images),
        f"{images} images, `wes-optimal`": Run(recipe("wes-optimal"), images=images),
    }
    print(head("8-bit weights and activations", *map(short, bench.networks), "mean SQNR"))
    bench.table("bias", runs)


def clipping(bench: Bench) -> None:
    """Clipping at 8 and 4 bits, activations float."""
    print("\n## Clipping behind the shifts, weights only\n\nWith the mean share of the weights' error that it saves.\n")
    print(head("bits, clipping", *map(short, bench.networks)))
    for bits in (8, 4):
        for label, chosen in CLIPS.items():
            run = Run(chosen, weight_bits=bits, activation_bits="float")
            bench.ahead([run])
            found = [bench.told("clipping", f"{bits} bits, {label}", n, run) for n in bench.networks]
            cells = [f"{m} ({100 * m.saved:.0f} %)" if m.saved else str(m) for m in found]
            print(row(f"{bits}, {label}", *cells), flush=True)


def draw_ranges(bench: Bench, path: Path) -> None:
    """Figure 1: ranges of the channels of a depthwise layer, as they are and shifted."""
    network = next((n for n in bench.networks if n.name == DRAWN), bench.networks[0])
    graph = bench.start(network).graph
    first, *others = (n for n in layers(graph) if kind_of(n, graph.consts[n.weight]) == "depthwise")
    layer = next((n for n in (first, *others) if graph.consts[n.weight].shape[0] >= 16), first)
    rows = as_rows(graph.consts[layer.weight], 0)
    found = SEARCHES["deterministic"](rows, SPEC, MOST, None).shifts
    panels = []
    for title, shift in (("Depthwise layer, as it is", 0 * found), ("Every channel shifted", found)):
        lo, hi = channel_ends(layer, graph.consts[layer.weight], shift)
        ends = [
            svg.Series("lowest to highest weight", BLUE, (k, k), (float(a), float(b)), "line")
            for k, (a, b) in enumerate(zip(lo, hi, strict=True), 1)
        ]
        channels, middle = range(1, len(lo) + 1), np.median(np.ldexp(rows, shift[:, None]), 1).tolist()
        shown = [*ends, svg.Series("median", ORANGE, channels, middle, "points")]
        title = f"{title}: overlap ratio {overlap_ratio(lo, hi):.2f}"
        panels.append(svg.Panel(title, "output channel", "weight", shown))
    svg.write(path, "Ranges of a depthwise layer's channels before and after the shifts", panels)


def draw_ablation(bench: Bench, path: Path) -> None:
    """Figure 3: overlap, error and results of LWQ and WES, weights only."""
    found = [
        [bench.measure(n, Run(WEIGHTS[k], activation_bits="float")) for k in ("LWQ", "deterministic")]
        for n in bench.networks
    ]
    tops = [n.measure(n.model)[0] for n in bench.networks]
    panels = [
        bars.Bars("overlap ratio", [[m.overlap for m in pair] for pair in found], top=1.0),
        bars.Bars("error φ, LWQ = 1", [[m.error / pair[0].error for m in pair] for pair in found], top=1.0),
        bars.Bars("output SQNR, dB", [[m.decibels for m in pair] for pair in found], digits=1),
        bars.Bars("top-1, %", [[m.top1 for m in pair] for pair in found], tops, digits=1, top=100.0),
    ]
    names = [short(n) for n in bench.networks]
    bars.write(path, "LWQ and WES on every network", names, [("LWQ", BLUE), ("WES", ORANGE)], panels, "float network")


def main() -> None:
    """Print the tables and draw the figures."""
    parser = ArgumentParser()
    parser.add_argument("networks", nargs="*")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--layers", action="store_true")
    parser.add_argument("--sections", default="weights,methods,search,bias,clipping")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--figures", type=Path)
    asked = parser.parse_args()
    bench = Bench(asked)
    sections = {
        "weights": lambda: weights(bench, asked.layers),
        "methods": lambda: methods(bench),
        "search": lambda: search(bench),
        "bias": lambda: bias(bench, asked.images),
        "clipping": lambda: clipping(bench),
    }
    for name in filter(None, asked.sections.split(",")):
        sections[name]()
    if asked.figures:
        draw_ranges(bench, asked.figures / "wes-ranges.svg")
        draw_ablation(bench, asked.figures / "wes-ablation.svg")
    if asked.json:
        asked.json.write_text(json.dumps(bench.rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
