"""CPU time and peak memory of `quantize` beside onnxruntime's own quantizer, on networks that nobody shaped for equint.

    EQUINT_WILD=folder python benchmarks/wild_cost.py [--efforts fast full] [network ...]

Both are given the same calibration samples, from the folder's wild.py; onnxruntime quantizes as that folder's yardstick
does (min-max, per-channel). Each runs in a process of its own with one thread, whose seconds of user and system time
count, importing included.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from wild import given, judge

import equint


class Spent(NamedTuple):
    """What a process took: CPU seconds, and MB of resident memory at most."""

    seconds: float
    memory: float


def quantized(name: str, effort: str) -> None:
    """What a process does, by how it was asked."""
    wild = judge()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "quantized.onnx"
        if effort == "onnxruntime":
            wild.yardstick(name, path)
        else:
            data = given(wild.feeds(name, "calib"), "list", Path(folder))
            equint.quantize(wild.path(name), data=data, effort="full" if effort == "full" else "fast").save(path)


def spent(name: str, effort: str) -> Spent | None:
    """What it took in a process of its own; None where it failed."""
    command = [sys.executable, str(Path(__file__).absolute()), "--one", name, effort]
    with tempfile.TemporaryDirectory() as folder:  # onnxruntime's quantizer leaves files where it runs
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
    return None if status else Spent(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--efforts", nargs="*", default=["fast"], choices=["fast", "full"])
    parser.add_argument("--one", nargs=2, metavar=("NETWORK", "EFFORT"), help="quantize one, and print nothing")
    parser.add_argument("networks", nargs="*")
    options = parser.parse_args()
    if options.one:
        quantized(*options.one)
        return
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    columns = [f"{effort}: CPU s, MB, times" for effort in options.efforts]
    print(f"| network | onnxruntime: CPU s, MB | {' | '.join(columns)} |\n|---|--:|{'--:|' * len(columns)}")
    for name in options.networks or judge().NETWORKS:
        plain, cells = spent(name, "onnxruntime"), list[str]()
        for effort in options.efforts:
            own = spent(name, effort)
            if own is None:
                cells.append("fails")
            else:
                times = f", {own.seconds / plain.seconds:.1f}" if plain else ""
                cells.append(f"{own.seconds:.1f}, {own.memory:.0f}{times}")
        beside = f"{plain.seconds:.1f}, {plain.memory:.0f}" if plain else "fails"
        print(f"| {name} | {beside} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
