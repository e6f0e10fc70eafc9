"""Time and peak memory of `equint quantize` as a whole process.

    python benchmarks/cost.py [--runs N] [--widths] [model.onnx ...]

Without arguments: the real networks of EQUINT_REAL if set, a MobileNetV2 with 3.5 million random weights and a
ResNet-50 with 25.5 million; then how the time of the recipe `optimal` grows with the width of a MobileNetV2,
which --widths measures alone. Every run is a process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

RUNS = (
    ("cwq-bc", "per-channel"),
    ("dfq", "per-tensor-clip"),
    ("optimal", "per-channel"),
    ("optimal", "per-tensor"),
)
WIDTHS = ("0.25", "0.5", "1", "2")


class Cost(NamedTuple):
    """What one process took: seconds, peak MB, seconds of the pass `optimal` (0 without it), millions of weights."""

    seconds: float
    memory: float
    optimal: float
    millions: float


def run(model: Path, recipe: str, target: str, output: Path) -> Cost:
    """One run in a process of its own."""
    command = [sys.executable, "-m", "equint", "quantize", str(model), "-o", str(output), "--recipe", recipe]
    command += ["--target", target, "--input-range", "-1", "1", "--json"]
    start = time.perf_counter()
    with tempfile.TemporaryFile() as told:
        process = subprocess.Popen(command, stdout=told)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        if status:
            sys.exit(f"{model}: failed")
        told.seek(0)
        facts = json.load(told)
    scale = 1 << 20 if sys.platform == "darwin" else 1 << 10
    spent = sum(e["facts"]["seconds"] for e in facts["events"] if e["did"] == "ran optimal")
    return Cost(seconds, usage.ru_maxrss / scale, spent, facts["float_bytes"] / 4e6)


def built(name: str, folder: Path) -> Path:
    """A random network of `networks.py`, written by a process of its own."""
    path = folder / f"{name}.onnx"
    subprocess.run([sys.executable, Path(__file__).with_name("networks.py"), path], check=True)
    return path


def compare(models: list[Path], count: int, output: Path) -> None:
    """Print one row per network, recipe and target: the median of the runs."""
    print("| network | recipe | target | seconds | peak MB |\n|---|---|---|---|---|")
    for model in models:
        for recipe, target in RUNS:
            costs = [run(model, recipe, target, output) for _ in range(count)]
            seconds, memory = median(c.seconds for c in costs), max(c.memory for c in costs)
            print(f"| {model.stem} | {recipe} | {target} | {seconds:.2f} | {memory:.0f} |", flush=True)


def grow(count: int, folder: Path) -> None:
    """Print how long the pass `optimal` takes on wider and wider networks."""
    print("| MobileNetV2 of width | target | million weights | seconds of the pass | seconds per million |")
    print("|---|---|---|---|---|")
    for width in WIDTHS:
        model = built(f"mobilenet_v2_x{width}", folder)
        for target in ("per-channel", "per-tensor"):
            costs = [run(model, "optimal", target, folder / "out.onnx") for _ in range(count)]
            seconds, millions = median(c.optimal for c in costs), costs[0].millions
            cells = f"{millions:.2f} | {seconds:.2f} | {seconds / millions:.2f}"
            print(f"| {width} | {target} | {cells} |", flush=True)


def main() -> None:
    """Print the tables."""
    arguments = sys.argv[1:]
    count = 5
    if "--runs" in arguments:
        at = arguments.index("--runs")
        count = int(arguments[at + 1])
        del arguments[at : at + 2]
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        models = [Path(a) for a in arguments if a != "--widths"]
        if not arguments:
            real = os.environ.get("EQUINT_REAL")
            models = sorted(Path(real, "models").glob("*.onnx")) if real else []
            models += [built(name, here) for name in ("mobilenet_v2_random", "resnet50_random")]
        if models:
            compare(models, count, here / "out.onnx")
        if len(arguments) == arguments.count("--widths"):
            print()
            grow(count, here)


if __name__ == "__main__":
    main()
