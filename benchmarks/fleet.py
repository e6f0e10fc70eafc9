"""What a cell of a fleet costs: CPU seconds, memory and bytes, measured on real networks (docs/fleets.md).

Each row is a process of its own: the network quantized in one way, then measured beside its float original on pictures
of its card, their reading included. CPU seconds hang less on what else the machine does than seconds on the clock.

    EQUINT_REAL=folder python benchmarks/fleet.py [--pictures 200]
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
from pathlib import Path
from time import process_time

import equint
from equint.samples.card import read_card

NETWORKS = ("resnet20_cifar10", "mobilenet_v1_025_224_imagenet", "mobilenet_v2_035_224_flowers")
RECIPES = ("lwq", "optimal")


def run(name: str, recipe: str, limit: int) -> None:
    """One cell, printed: CPU seconds of quantizing, CPU milliseconds a picture, peak in MB, bytes of the network."""
    card, network = (Path(os.environ["EQUINT_REAL"]) / f for f in (f"{name}.toml", f"models/{name}.onnx"))
    start = process_time()
    result = equint.quantize(network, recipe, input=card)
    made = process_time()
    equint.evaluate(result, None, read_card(card), network, limit=limit)
    pace = 1000 * (process_time() - made) / limit
    print(made - start, pace, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, network.stat().st_size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        run(given.run[0], given.run[1], given.pictures)
        return
    print("| network | kB | recipe | quantize, CPU s | a picture, CPU ms | peak, MB |")
    print("|---|--:|---|--:|--:|--:|")
    for name in given.networks:
        for recipe in RECIPES:
            command = [sys.executable, __file__, "--pictures", str(given.pictures), "--run", name, recipe]
            found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
            quantize, pace, peak, size = map(float, found)
            print(f"| {name} | {size / 1e3:.0f} | {recipe} | {quantize:.1f} | {pace:.1f} | {peak:.0f} |", flush=True)


if __name__ == "__main__":
    main()
