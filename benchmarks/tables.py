"""What prints the tables of the papers in their shape: benchmarks/dfq.py and benchmarks/factorization_figures.py.

Options: --cache FOLDER (what was measured is kept there), --jobs N, --limit N samples, --images N (64) where a method
looks at images, --sections A,B; networks by a part of their names. The published figures stand in columns of their own:
they are of other networks on other data.

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
    images: bool = False


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


def lost(row: Row, before: Row) -> str:
    """Points of the float network's figure that are lost."""
    now, then = figure(row), figure(before)
    if now is None or then is None or now[0] != then[0]:
        return shown(row)
    return f"{then[1] - now[1]:.2f}"


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
        for target, looks in dict.fromkeys((line.target, line.images) for line in lines):
            these = [replace(x.recipe, name=x.title) for x in lines if (x.target, x.images) == (target, looks)]
            options: dict[str, Any] = {"images": self.asked.images if looks else None, "limit": self.asked.limit}
            options |= {"cache": self.asked.cache, "jobs": self.asked.jobs, "progress": _told, "bits": bits}
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


def run(description: str, sections: Mapping[str, Callable[[Bench], None]]) -> None:
    """Read the options and print the sections that they name."""
    parser = ArgumentParser(description=description, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*")
    parser.add_argument("--cache", type=Path, default=Path("table-cache"))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--sections", default=",".join(sections))
    bench = Bench(parser.parse_args())
    for name in filter(None, bench.asked.sections.split(",")):
        sections[name](bench)
