"""README's tables against a fresh run: every cell measured again, and what differs.

    EQUINT_REAL=folder python benchmarks/check.py [--limit-db 0.3] [--write] [network ...]

A cell differs where its SQNR does by more than the limit, or its agreement by more than chance allows: two standard
deviations of the difference of two such shares. Prints every cell that does, and how far apart they are at most; exit
code 1 if any does. Networks by a part of their names. --write puts what was measured into README.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accuracy import cell
from real import networks

from equint.hardware.target import TARGETS, target

README = Path(__file__).parents[1] / "README.md"
HEAD = "| network"
IMAGES = 64


@dataclass(frozen=True)
class Cell:
    """One cell of a table, and what measures it again."""

    network: str
    recipe: str
    target: str
    images: bool
    text: str
    row: str
    column: int

    def __str__(self) -> str:
        return f"{self.network}, {self.recipe} on {self.target}, {f'{IMAGES} images' if self.images else 'no data'}"


def written(text: str) -> Iterator[Cell]:
    """The cells of the tables of results: those of the second were measured with images."""
    tables = [block.splitlines() for block in re.split(r"\n\n", text) if block.startswith(HEAD)]
    for number, (head, _, *rows) in enumerate(tables):
        columns = [name.strip().split("<br>") for name in head.strip("|").split("|")[1:]]
        for row in rows:
            name, *cells = (part.strip() for part in row.strip("|").split("|"))
            for at, (column, found) in enumerate(zip(columns, cells, strict=True)):
                recipe, on = column if len(column) > 1 else (target(column[0]).recipe, column[0])
                if on in {name for t in TARGETS for name in (t.name, *t.aliases)}:
                    yield Cell(name.split(" (")[0], recipe, on, number > 0, found, row, at)


def figures(text: str) -> tuple[float, float]:
    """Agreement in per cent and SQNR in dB of a cell."""
    found = re.search(r"([\d.]+) %, (-?[\d.]+) dB", text)
    if found is None:
        sys.exit(f"no figures in {text!r}")
    return float(found[1]), float(found[2])


def rewritten(text: str, measured: Iterable[tuple[Cell, str]]) -> str:
    """The text, with what was measured in the place of its cells."""
    rows: dict[str, list[str]] = {}
    for one, fresh in measured:
        rows.setdefault(one.row, one.row.split(" | "))[one.column + 1] = fresh
    for row, (*cells, last) in rows.items():
        text = text.replace(row, " | ".join([*cells, last if last.endswith(" |") else f"{last} |"]))
    return text


def by_chance(percent: float, count: int) -> float:
    """Two standard deviations of the difference of two shares of as many samples, per cent; a sample at least."""
    share = min(max(percent / 100, 1 / count), 1 - 1 / count)
    return 200 * float((2 * share * (1 - share) / count) ** 0.5)


def main() -> None:
    """Measure, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit-db", type=float, default=0.3)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("networks", nargs="*")
    asked = parser.parse_args()
    known, differ, most = {n.name: n for n in networks()}, 0, 0.0
    cells = [c for c in written(README.read_text("utf-8")) if c.network in known]
    cells = [c for c in cells if not asked.networks or any(n in c.network for n in asked.networks)]
    measured = list[tuple[Cell, str]]()
    for one in cells:
        network = known[one.network]
        options: dict[str, Any] = {"images": IMAGES} if one.images else {}
        fresh = cell(network, network.model, one.recipe, one.target, options)
        measured.append((one, fresh))
        (agreed, decibels), (agrees, now) = figures(one.text), figures(fresh)
        most = max(most, abs(now - decibels))
        if abs(now - decibels) > asked.limit_db or abs(agrees - agreed) > by_chance(
            agreed, sum(map(len, network.inputs))
        ):
            differ += 1
            print(f"{one}: {one.text} is written, {fresh} measured", flush=True)
    if asked.write:
        README.write_text(rewritten(README.read_text("utf-8"), measured), "utf-8")
    print(f"{len(cells)} cells, {differ} differ; SQNR by {most:.2f} dB at most")
    sys.exit(1 if differ else 0)


if __name__ == "__main__":
    main()
