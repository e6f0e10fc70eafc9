"""How fast Python and the command line start, and what an installation takes, library by library.

    python benchmarks/start.py

Each command runs in fresh processes of this Python; told are the least CPU seconds of all, and the least on the clock,
which other processes on the machine lengthen. Sizes are of the files that pip recorded, compiled ones included.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from importlib.metadata import Distribution, distribution, requires
from pathlib import Path

from packaging.requirements import Requirement

TIMES = 15
STARTS = {
    "`python -c pass`": ["-c", "pass"],
    "`import equint`": ["-c", "import equint"],
    "`equint --version`": ["-m", "equint", "--version"],
    "`equint --help`": ["-m", "equint", "--help"],
    "`equint quantize --help`": ["-m", "equint", "quantize", "--help"],
    "`equint targets`": ["-m", "equint", "targets"],
    "`equint recipes`": ["-m", "equint", "recipes"],
    "`import equint; equint.quantize`": ["-c", "import equint; equint.quantize"],
}


def seconds(arguments: list[str]) -> tuple[float, float]:
    """Least CPU time, and least time on the clock, of a fresh process."""
    spent, clock = [], []
    for _ in range(TIMES):
        before, begun = _children(), time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        clock.append(time.perf_counter() - begun)
        spent.append(_children() - before)
    return min(spent), min(clock)


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def installed() -> dict[str, Distribution]:
    """equint and all that it needs, extras left out."""
    found: dict[str, Distribution] = {}
    waiting = ["equint"]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found[name] = distribution(name)
        needed = (Requirement(text) for text in requires(name) or ())
        waiting += [r.name.lower() for r in needed if r.marker is None or r.marker.evaluate({"extra": ""})]
    return found


def megabytes(found: Distribution) -> float:
    """Size of the files of one library."""
    paths = [Path(str(file.locate())) for file in found.files or ()]
    return sum(path.stat().st_size for path in paths if path.is_file()) / 1e6


def main() -> None:
    print("| start | CPU s | s |\n|---|--:|--:|")
    for name, arguments in STARTS.items():
        spent, clock = seconds(arguments)
        print(f"| {name} | {spent:.2f} | {clock:.2f} |", flush=True)
    sizes = sorted(((megabytes(d), n) for n, d in installed().items()), reverse=True)
    print("\n| library | MB |\n|---|--:|")
    for size, name in sizes[:7]:
        print(f"| {name} | {size:.0f} |")
    print(f"| {len(sizes) - 7} others | {sum(size for size, _ in sizes[7:]):.0f} |")
    print(f"| all | {sum(size for size, _ in sizes):.0f} |")


if __name__ == "__main__":
    main()
