"""The default beside every built-in recipe, on every network, target and kind of data: is it ever worse?

    EQUINT_REAL=folder EQUINT_WILD=folder python benchmarks/choice.py [options] [network ...]

Options: --targets A,B; --recipes A,B; --samples given none; --effort full; networks by a part of their names. A row
holds the output SQNR of the worst output for every recipe, in dB, and how far the default lies below the best of the
others. Recipes run without candidates but for the default, which is measured as it is. Each row is measured in a
process of its own; what fails says why.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from real import networks
from wild import given, judge

import equint
from equint.hardware.target import target as hardware_target
from equint.ir.model import Array, Name
from equint.maths.noise import sqnr_db
from equint.planning.recipe import needs_images, recipe
from equint.runtime.session import Session
from equint.samples.images import Run

OTHERS = {
    "per-channel": ("cwq", "cwq-bc", "dfq"),
    "per-tensor": ("lwq", "dfq", "one-step", "two-step"),
    "per-tensor-clip": ("dfq",),
    "npu-shift": ("lwq", "dfq", "wes"),
}
"""Recipes that measure well somewhere, by target."""
SAMPLES = ("given", "none")
IMAGES, SHOWN = 64, 200
"""Samples that are given where there are as many, and samples that results are measured on."""
SECONDS = 1800


@dataclass(frozen=True)
class Case:
    """A network, what is known of its input, and what to judge it on."""

    name: str
    model: Any
    options: dict[str, Any]
    feeds: list[Any]


def real_case(name: str, kind: str) -> Case:
    """One network of EQUINT_REAL."""
    network = next(n for n in networks(SHOWN) if n.name == name)
    options: dict[str, Any] = {"input": network.card, **({"images": IMAGES} if kind == "given" else {})}
    return Case(name, network.model, options, network.inputs)


def wild_case(name: str, kind: str) -> Case:
    """One network of EQUINT_WILD."""
    wild = judge()
    data = given(wild.feeds(name, "calib"), "list", Path()) if kind == "given" else None
    return Case(name, wild.path(name), {"data": data}, [Run(feed) for feed in wild.feeds(name, "eval")])


def cases(asked: list[str]) -> Iterator[tuple[str, Callable[[str], Case]]]:
    """Every network of both folders, small ones first as their names were asked for."""
    found = list[tuple[str, Callable[[str], Case]]]()
    if os.environ.get("EQUINT_REAL"):
        found += [(n.name, partial(real_case, n.name)) for n in networks()]
    if os.environ.get("EQUINT_WILD"):
        found += [(name, partial(wild_case, name)) for name in judge().NETWORKS]
    if not found:
        sys.exit("set EQUINT_REAL or EQUINT_WILD to a folder of networks")
    return ((name, case) for name, case in found if not asked or any(a in name for a in asked))


def worst(case: Case, clean: list[dict[Name, Array]], proto: Any) -> float:
    """Output SQNR of the worst output, dB."""
    session = Session(proto)
    noisy = [dict(session.run(feed)) for feed in case.feeds]
    return min(
        sqnr_db(*(np.concatenate([np.ravel(run[o]).astype(np.float64) for run in runs]) for runs in (clean, noisy)))
        for o in clean[0]
    )


def measured(make: Callable[[str], Case], target: str, kind: str, asked: list[str], effort: Any, results: Any) -> None:
    """Cells of one row, one by one; runs in a process of its own."""
    case = make(kind)
    reference = Session(case.model)
    clean = [dict(reference.run(feed)) for feed in case.feeds]
    for name in asked:
        chosen = recipe(name)
        if kind == "none" and needs_images(chosen):
            continue
        options = {**case.options, "effort": effort if name == asked[0] else "fast"}
        try:
            cell: float | str = worst(case, clean, equint.quantize(case.model, chosen, target, **options).proto)
        except equint.EquintError as error:
            cell = str(error)[:80]
        results.put((name, cell))
    results.put(None)


def row(make: Callable[[str], Case], target: str, kind: str, asked: list[str], effort: str) -> dict[str, float | str]:
    """What each recipe reaches."""
    context, found = multiprocessing.get_context("spawn"), dict[str, float | str]()
    results = context.Queue()
    process = context.Process(target=measured, args=(make, target, kind, asked, effort, results))
    process.start()
    try:
        while (cell := results.get(timeout=SECONDS)) is not None:
            found[cell[0]] = cell[1]
    except Exception as error:
        found["failed"] = type(error).__name__
    process.kill()
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", default=",".join(OTHERS))
    parser.add_argument("--recipes", help="others than the default, separated by commas; else those of the target")
    parser.add_argument("--samples", nargs="*", default=SAMPLES, choices=SAMPLES)
    parser.add_argument("--effort", default="full")
    parser.add_argument("networks", nargs="*")
    options = parser.parse_args()
    print("| network | target | samples | default | others | default below the best of them |")
    print("|---|---|---|--:|---|--:|")
    for name, make in cases(options.networks):
        for target in options.targets.split(","):
            own = hardware_target(target).recipe
            others = OTHERS[target] if options.recipes is None else tuple(filter(None, options.recipes.split(",")))
            for kind in options.samples:
                found = row(make, target, kind, [own, *others], options.effort)
                default = found.pop(own, "–")
                numbers = [v for v in found.values() if isinstance(v, float)]
                below = f"{max(numbers) - default:.1f}" if isinstance(default, float) and numbers else "–"
                cells = ", ".join(f"{k} {v:.1f}" if isinstance(v, float) else f"{k} {v}" for k, v in found.items())
                head = f"{default:.1f}" if isinstance(default, float) else default
                print(f"| {name} | {target} | {kind} | {head} | {cells} | {below} |", flush=True)


if __name__ == "__main__":
    main()
