"""Speed of the integer engine against the float network, one thread, and what it may have proven.

    EQUINT_REAL=... python benchmarks/integer.py [--rounds 30] [--target npu-shift] [--recipe lwq] [--only mobilenet]

Every real network, one image at a time. Both run alternately in one process, so that a noisy machine slows both; the
figure is the ratio of the median times. The engine's outputs are compared with the integer-only export's.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable

import numpy as np
from real import Network, networks

import equint
from equint.hardware.target import target
from equint.integers.emit import export_integer
from equint.integers.engine import Engine
from equint.integers.lower import lower
from equint.integers.program import Program
from equint.ir.model import Array
from equint.runtime.session import Session


def main() -> None:
    """Print one line for each network."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--target", default="npu-shift")
    parser.add_argument("--recipe", default="lwq")
    parser.add_argument("--only", default="", help="part of a network's name")
    given = parser.parse_args()
    print("| network | steps: float/mixed/integer | float ms | engine ms | speed against float | exact |")
    print("|---|---|---|---|---|---|")
    for network in networks(limit=1):
        if given.only in network.name:
            print(row(network, given.recipe, given.target, given.rounds), flush=True)


def row(network: Network, recipe: str, name: str, rounds: int) -> str:
    """One network's line of the table."""
    try:
        model = equint.quantize(network.model, recipe, name, input=network.card).model
        program = lower(model, target(name))
    except equint.EquintError as error:
        return f"| {network.name} | {error} | | | | |"
    engine, x = Engine(program, threads=1), network.inputs[0]
    fast, slow = alternately(network, engine, program, x, rounds)
    ways = Counter(p.way for p in engine.proof)
    counts = " / ".join(str(ways[way]) for way in ("float", "mixed", "integer"))
    return f"| {network.name} | {counts} | {fast:.3f} | {slow:.3f} | {fast / slow:.2f}× | {exact(engine, program, x)} |"


def alternately(network: Network, engine: Engine, program: Program, x: Array, rounds: int) -> tuple[float, float]:
    """Median milliseconds of the float network and of the engine."""
    session = Session(network.model, optimized=True, threads=1)
    real, integers = {session.inputs[0]: x}, {program.inputs[0]: program.quantized(program.inputs[0], x)}
    runs: tuple[Callable[[], object], ...] = (lambda: session.run(real), lambda: engine.run(integers))
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for run, found in zip(runs, times, strict=True):
            run()  # whatever ran before has left the caches to it
            start = time.perf_counter()
            for _ in range(3):
                run()
            found.append((time.perf_counter() - start) / 3)
    return 1e3 * float(np.median(times[0])), 1e3 * float(np.median(times[1]))


def exact(engine: Engine, program: Program, x: Array) -> str:
    """Whether the engine and the integer-only export give the same integers."""
    feeds = {program.inputs[0]: program.quantized(program.inputs[0], x)}
    found, wanted = engine.run(feeds), Session(export_integer(program)).run(feeds)
    return "yes" if all(np.array_equal(found[o], wanted[o]) for o in program.outputs) else "no"


if __name__ == "__main__":
    main()
