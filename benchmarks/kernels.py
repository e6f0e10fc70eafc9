"""The default under other BLAS kernels and threads: the same integers, or figures how far apart?

    EQUINT_REAL=folder EQUINT_WILD=folder python benchmarks/kernels.py [options] [network ...]

Options: --targets A,B; --samples given none; --effort full; networks by a part of their names. Every cell is a process
of its own: the output SQNR of the worst output, dB, by OPENBLAS_CORETYPE and OMP_NUM_THREADS; = where the file is the
same to the byte as in the first column. Kernels that a processor does not have are those of OpenBLAS's choice.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
from collections.abc import Callable
from hashlib import sha256

from choice import SAMPLES, Case, cases, worst

import equint
from equint.runtime.session import Session

WAYS = (("Haswell", 1), ("SkylakeX", 1), ("Haswell", 2))
"""Kernels (of AVX2, of AVX512) and threads."""


def measured(make: Callable[[str], Case], target: str, kind: str, effort: str) -> tuple[float, str]:
    """SQNR of the worst output, and what the file is known by; runs in a process of its own."""
    case = make(kind)
    proto = equint.quantize(case.model, target=target, **case.options, effort=effort).proto  # type: ignore[arg-type]
    reference = Session(case.model)
    clean = [dict(reference.run(feed)) for feed in case.feeds]
    return worst(case, clean, proto), sha256(proto.graph.SerializeToString(deterministic=True)).hexdigest()


def under(
    kernel: str, threads: int, make: Callable[[str], Case], target: str, kind: str, effort: str
) -> tuple[float, str]:
    """What is measured where linear algebra is done so."""
    os.environ |= {"OPENBLAS_CORETYPE": kernel, "OMP_NUM_THREADS": str(threads)}
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measured, (make, target, kind, effort))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", default="per-channel,per-tensor")
    parser.add_argument("--samples", nargs="*", default=SAMPLES, choices=SAMPLES)
    parser.add_argument("--effort", default="full")
    parser.add_argument("networks", nargs="*")
    asked = parser.parse_args()
    print(f"| network | target | samples | {' | '.join(f'{kernel}, {n}' for kernel, n in WAYS)} | apart |")
    print(f"|---|---|---|{'--:|' * (len(WAYS) + 1)}")
    for name, make in cases(asked.networks):
        for target in asked.targets.split(","):
            for kind in asked.samples:
                found = [under(kernel, threads, make, target, kind, asked.effort) for kernel, threads in WAYS]
                cells = [f"{decibels:.2f}{' =' if file == found[0][1] else ''}" for decibels, file in found]
                apart = max(decibels for decibels, _ in found) - min(decibels for decibels, _ in found)
                print(f"| {name} | {target} | {kind} | {' | '.join(cells)} | {apart:.2f} |", flush=True)


if __name__ == "__main__":
    main()
