"""The tables of the paper on data-free quantization, in their shape, on the networks at hand.

    EQUINT_REAL=folder python benchmarks/tables.py [options] [network ...]

Options: --cache FOLDER (what was measured is kept there), --jobs N, --limit N samples, --sections A,B (steps,
correction, methods); networks by a part of their names. The published figures stand in columns of their own: they are
of other networks on other data. The tables on weight shifts are those of benchmarks/wes.py, those of the paper on
weight factorization those of benchmarks/factorization.py.

The simulation is onnxruntime with graph optimizations off. Where a table wants the float network after a rewrite,
weights of 16 bits and float activations stand for it.
"""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from equint.pages.results import FIGURES
from equint.planning.recipe import ActivationBits, Recipe, recipe
from equint.study.table import Row, table

FLOAT: tuple[int, ActivationBits] = (16, "float")
INT8: tuple[int, ActivationBits] = (8, 8)
CLASSIFIERS = ("imagenet", "flowers", "vww", "kws", "resnet")


@dataclass(frozen=True)
class Line:
    """One line of a paper's table: what it is, how it is made, and what was published."""

    title: str
    recipe: Recipe
    target: str = "per-tensor"
    published: tuple[str, ...] = ("",)


def without(name: str, *passes: str) -> Recipe:
    """A built-in recipe less some passes."""
    chosen = recipe(name)
    return replace(chosen, passes=tuple(step for step in chosen.passes if step[0] not in passes))


def also(name: str, before: str, *steps: tuple[str, Mapping[str, Any]]) -> Recipe:
    """A built-in recipe with further passes in front of one of its own, or at the end."""
    chosen = recipe(name)
    names = [step[0] for step in chosen.passes]
    at = names.index(before) if before in names else len(names)
    return replace(chosen, passes=(*chosen.passes[:at], *steps, *chosen.passes[at:]))


PUBLISHED = ("MobileNetV2 float / int8",)
STEPS = (
    Line("original", recipe("lwq"), published=("71.72 / 0.12",)),
    Line("ReLU6 replaced", also("lwq", "calibrate", ("relu6", {"mode": "replace"}))),
    Line("+ equalization", without("dfq-published", "absorb_bias", "correct_bias"), published=("– / 69.91",)),
    Line("+ absorption", without("dfq-published", "correct_bias"), published=("– / 70.92",)),
    Line("equint: equalization", without("dfq", "absorb_bias", "correct_bias", "correct_bias_empirical")),
    Line("equint: + absorption", without("dfq", "correct_bias", "correct_bias_empirical")),
    Line(
        "equint: + absorption, a bound per channel",
        without("dfq", "correct_bias", "correct_bias_empirical"),
        "per-tensor-clip",
    ),
    Line("scale per channel", recipe("cwq"), "per-channel", ("71.72 / 70.65",)),
)
"""Table 1 of Nagel et al. 2019."""

CORRECTION = (
    Line("original", recipe("lwq"), published=("71.72 / 0.12",)),
    Line("bias correction", also("lwq", "", ("correct_bias", {})), published=("– / 52.02",)),
    Line("rescaling + absorption", without("dfq-published", "correct_bias"), published=("– / 70.92",)),
    Line("rescaling + absorption + correction", recipe("dfq-published"), published=("– / 71.19",)),
    Line("equint: rescaling + absorption", without("dfq", "correct_bias", "correct_bias_empirical")),
    Line("equint: rescaling + absorption + correction", recipe("dfq")),
    Line("equint: the same, a bound per channel", recipe("dfq"), "per-tensor-clip"),
)
"""Table 2 of Nagel et al. 2019."""

METHODS = (
    Line("per layer", recipe("lwq"), published=("", "71.72 / 0.12")),
    Line("per channel", recipe("cwq"), "per-channel", ("", "71.72 / 70.65")),
    Line("DFQ as published", recipe("dfq-published"), published=("70.8 / 70.5", "71.72 / 71.19")),
    Line("equint dfq", recipe("dfq")),
    Line("equint dfq, a bound per channel", recipe("dfq"), "per-tensor-clip"),
    Line("equint optimal", recipe("optimal")),
    Line("equint optimal, a bound per channel", recipe("optimal"), "per-tensor-clip"),
    Line("equint optimal, per channel", recipe("optimal"), "per-channel"),
    Line("equint wes-optimal", recipe("wes-optimal"), "npu-shift"),
)
"""Table 5 of Nagel et al. 2019."""


def figure(row: Row) -> tuple[str, float] | None:
    """What a row is judged by, and its value; None where it has a reason instead."""
    return next(((name, float(row.results[name])) for name in FIGURES if name in row.results), None)


def shown(row: Row | None) -> str:
    """A row's figure as the papers write it."""
    found = None if row is None else figure(row)
    if found is None:
        return "–" if row is not None and row.reason else ""
    name, value = found
    return f"{value:.2f}" if name == "top1" else f"{value:.1f} {FIGURES[name][0].rpartition(', ')[2]}"


class Bench:
    """The networks that were asked for and how to measure them."""

    def __init__(self, asked: Namespace) -> None:
        folder = os.environ.get("EQUINT_REAL")
        if not folder:
            sys.exit("set EQUINT_REAL to a folder of cards (docs/cards.md) with models and data")
        self.cards = [c for c in sorted(Path(folder).glob("*.toml")) if _among(c.stem, asked.networks)]
        self.asked = asked

    def rows(self, lines: Sequence[Line], bits: Sequence[tuple[int, ActivationBits]], kinds: Sequence[str]) -> Rows:
        """Every line on every network whose name has one of `kinds` in it."""
        cards = [card for card in self.cards if _among(card.stem, kinds)]
        found = Rows([], {}, {})
        for target in dict.fromkeys(line.target for line in lines):
            these = [replace(x.recipe, name=x.title) for x in lines if x.target == target]
            options: dict[str, Any] = {"limit": self.asked.limit, "cache": self.asked.cache, "jobs": self.asked.jobs}
            options |= {"progress": _told, "bits": bits}
            for row in table(cards, these, [target], **options):
                if row.target:
                    found.cells[row.network, row.recipe, (row.weight_bits, row.activation_bits)] = row
                else:
                    found.floats[row.network] = row
        found.networks.extend(found.floats)
        return found


@dataclass(frozen=True)
class Rows:
    """Results by network, line and bit widths."""

    networks: list[str]
    floats: dict[str, Row]
    cells: dict[tuple[str, str, tuple[Any, Any]], Row]


def _among(name: str, parts: Sequence[str]) -> bool:
    return not parts or any(part in name for part in parts)


def _told(done: int, total: int, name: str) -> None:
    print(f"{done}/{total} {name}", file=sys.stderr, flush=True)


def printed(
    title: str, lines: Sequence[Line], rows: Rows, published: Sequence[str], cell: Callable[[str, str], str]
) -> None:
    """A table with networks as columns, the published ones last."""
    heads = [f"{n}<br>({shown(rows.floats[n])}, {rows.floats[n].results.get('samples', 0)})" for n in rows.networks]
    heads += [f"*published: {name}*" for name in published]
    print(f"## {title}\n\n| | {' | '.join(heads)} |\n|---{'|--:' * len(heads)}|")
    for line in lines:
        theirs = [f"*{text.strip()}*" if text.strip() else "" for text in line.published]
        theirs += [""] * (len(published) - len(theirs))
        print(f"| {line.title} | {' | '.join([*(cell(n, line.title) for n in rows.networks), *theirs])} |")
    print(flush=True)


def both(rows: Rows) -> Callable[[str, str], str]:
    """Cells of two figures: the float network after the rewrite, and its 8-bit form."""
    return lambda n, line: f"{shown(rows.cells.get((n, line, FLOAT)))} / {shown(rows.cells.get((n, line, INT8)))}"


def steps(bench: Bench) -> None:
    """Equalization and absorption, step by step."""
    rows = bench.rows(STEPS, (FLOAT, INT8), CLASSIFIERS)
    printed("Top-1 after every step, float / int8", STEPS, rows, PUBLISHED, both(rows))


def correction(bench: Bench) -> None:
    """What bias correction does, alone and behind equalization."""
    rows = bench.rows(CORRECTION, (FLOAT, INT8), CLASSIFIERS)
    printed("Top-1 with and without bias correction, float / int8", CORRECTION, rows, PUBLISHED, both(rows))


def methods(bench: Bench) -> None:
    """Methods compared, on every network."""
    rows = bench.rows(METHODS, (INT8,), ())
    published = ("MobileNetV1 float / int8", "MobileNetV2 float / int8")
    printed(
        "Methods compared, 8 bits, no data", METHODS, rows, published, lambda n, t: shown(rows.cells.get((n, t, INT8)))
    )


SECTIONS: Mapping[str, Callable[[Bench], None]] = {
    "steps": steps,
    "correction": correction,
    "methods": methods,
}


def main() -> None:
    """Print the tables."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*")
    parser.add_argument("--cache", type=Path, default=Path("table-cache"))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--sections", default=",".join(SECTIONS))
    bench = Bench(parser.parse_args())
    for name in filter(None, bench.asked.sections.split(",")):
        SECTIONS[name](bench)


if __name__ == "__main__":
    main()
