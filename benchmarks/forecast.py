"""The SQNR that a network's outputs are forecast to have, against what is measured, as Markdown tables.

    EQUINT_REAL=folder EQUINT_WILD=folder python benchmarks/forecast.py [part of a name …] [--targets …] [--without]

Each network is quantized with 32 calibration samples, or --without any, by `optimal` as its search measures it: what
rounds and corrects by samples comes later. The forecast is made of these samples, or of made-up ones, and compared with
what the judge measures on 16 of them. `ranked` is what `optimal` minimises, which is no forecast. The time is that of
the forecast, and of quantization.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

from real import networks
from wild import given
from wild import judge as wild_judge

from equint.errors import EquintError
from equint.ir.events import EventKind
from equint.job import Job
from equint.maths.noise import to_db
from equint.onnx.qdq import export
from equint.passes import Stage
from equint.planning.recipe import Recipe, recipe
from equint.planning.run import run
from equint.planning.search import made_up_samples
from equint.runtime.forecast import forecast
from equint.runtime.judge import Judge
from equint.samples.images import split
from equint.study.totals import WITHIN_DB, judged

SAMPLES, SHOWN = 32, 16


def early() -> Recipe:
    """`optimal` without what looks at samples behind the grids."""
    chosen, late = recipe("optimal"), ("correct_bias_empirical",)
    steps = [(name, {} if name == "round_weights" else options) for name, options in chosen.passes]
    return replace(chosen, passes=tuple(step for step in steps if step[0] not in late), candidates=())


def jobs(target: str, without: bool, names: list[str]) -> Iterator[tuple[str, Job]]:
    """Every network of both folders, or those whose names have one of these parts."""
    if os.environ.get("EQUINT_REAL"):
        for network in networks():
            if not names or any(part in network.name for part in names):
                images = None if without else SAMPLES
                yield network.name, Job.of(network.model, early(), target, input=network.card, images=images)
    if os.environ.get("EQUINT_WILD"):
        wild: Any = wild_judge()
        for name in wild.NETWORKS:
            if not names or any(part in name for part in names):
                data = None if without else given(wild.feeds(name, "calib")[:SAMPLES], "list", Path())
                yield name, Job.of(wild.path(name), early(), target, data=data)


def row(job: Job) -> tuple[str, float | None]:
    """A network's cells, and by how much the forecast is off, dB."""
    at = next(k for k, step in enumerate(job.passes) if step.stage is Stage.QUANTIZE)
    start = perf_counter()
    before = run(job.network, job.passes[:at])
    after = run(before, job.passes[at:])
    seconds = perf_counter() - start
    samples = job.samples or made_up_samples(job.network)
    if samples is None:
        return "runs on no made-up samples | | | | |", None
    seat = Judge(job.network.graph, {"quantized": export(after)})
    for feed in split(samples.first(SHOWN), seat.batch):
        seat.show(feed)
    start = perf_counter()
    found = forecast(before, after, samples, judged(seat, before.graph))
    spent = perf_counter() - start
    ranked = next((e.facts["predicted SQNR"] for e in after.log if e.kind is EventKind.OPTIMIZED), float("nan"))
    measured, told = seat.sqnr_db("quantized"), to_db(found)
    return f"{ranked:.1f} | {told:.1f} | {measured:.1f} | {told - measured:+.1f} | {spent:.1f} of {seconds:.1f} s", (
        told - measured
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", nargs="*", default=["per-channel", "per-tensor"])
    parser.add_argument("networks", nargs="*", help="parts of their names; all, if left out")
    parser.add_argument("--without", action="store_true", help="without samples")
    options = parser.parse_args()
    for target in options.targets:
        print(f"\n### {target}, {'no samples' if options.without else f'{SAMPLES} samples'}\n")
        print("| network | ranked, dB | forecast, dB | measured, dB | off by, dB | time for it |")
        print("|---|--:|--:|--:|--:|--:|")
        offs = list[float]()
        for name, job in jobs(target, options.without, options.networks):
            try:
                cells, off = row(job)
            except EquintError as error:
                cells, off = f"refused: {str(error)[:80]} | | | | |", None
            offs += [] if off is None else [off]
            print(f"| {name} | {cells} |", flush=True)
        print(f"\nWithin {WITHIN_DB:g} dB: {sum(abs(off) <= WITHIN_DB for off in offs)} of {len(offs)}")


if __name__ == "__main__":
    main()
