"""Our .tflite files beside those of LiteRT's own quantizer, of the same networks and images, as a Markdown table.

    EQUINT_REAL=folder python benchmarks/litert_quantizer.py [options] [network ...]

Needs ai-edge-quantizer, which quantizes a float .tflite file of the network (`float_tflite.py`). Options: --images N
for both (64), --limit N samples of the evaluation data, --effort fast, --rounds N of timing; networks by a part of
their names. Inputs and outputs are int8. Agreement with the float network and SQNR by LiteRT's default kernels; size
of the files; processor time of one sample on one thread: the median ratio over rounds in which all files run in turn.
"""

from __future__ import annotations

import logging
from argparse import ArgumentParser
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any

import numpy as np
from float_tflite import float_file
from litert import entered, judged, outputs
from real import Network, networks

import equint
from equint.ir.model import Array
from equint.samples.data import batches

NAMES = "resnet8", "vww", "dscnn", "mobilenet_v1", "mobilenet_v2", "yolo_fastest"
TARGET = "tflite-int8"
KEY = "serving_default"


def by_litert(path: Path, out: Path, network: Network, count: int) -> None:
    """A float file, quantized by LiteRT's tools on images of the card: int8, a scale per output channel."""
    from ai_edge_quantizer import quantizer, recipe

    found = [x for batch, _ in batches(network.card.data["calibration"], network.card, limit=count) for x in batch]
    name = equint.load(network.model).graph.inputs[0]
    entry = {"dtype": np.float32}
    with redirect_stdout(StringIO()):  # it reports its progress there
        tool = quantizer.Quantizer(str(path))
        tool.load_quantization_recipe(recipe.static_wi8_ai8())
        measured = tool.calibrate({KEY: [{name: entered(entry, x)} for x in found]})
        tool.quantize(measured).export_model(str(out), overwrite=True)


def timed(paths: dict[str, Path], x: Array, rounds: int) -> dict[str, list[float]]:
    """Seconds of one sample that the processor spends, round by round: one thread, default kernels."""
    from ai_edge_litert.interpreter import Interpreter

    runs: dict[str, Any] = {key: Interpreter(str(path), num_threads=1) for key, path in paths.items()}
    for run in runs.values():
        run.allocate_tensors()
        (entry,) = run.get_input_details()
        run.set_tensor(entry["index"], entered(entry, x))
        run.invoke()
    start = process_time()
    for run in runs.values():
        run.invoke()
    count = max(1, int(0.02 * len(runs) / (process_time() - start)))
    seconds: dict[str, list[float]] = {key: [] for key in runs}
    for number in range(rounds):
        for key in sorted(runs, reverse=bool(number % 2)):
            start = process_time()
            for _ in range(count):
                runs[key].invoke()
            seconds[key].append((process_time() - start) / count)
    return seconds


def rows(network: Network, images: int, effort: str, rounds: int) -> list[str]:
    """One network: the float file, LiteRT's, ours with as many images, and ours with none."""
    classes = network.labels is not None
    with TemporaryDirectory() as folder:
        paths = {
            key: Path(folder) / f"{k}.tflite" for k, key in enumerate(("float", "LiteRT's", "ours", "ours, no data"))
        }
        paths["float"].write_bytes(float_file(network.model, network.card))
        by_litert(paths["float"], paths["LiteRT's"], network, images)
        for key, card, looks in (
            ("ours", network.card, {"images": images}),
            ("ours, no data", replace(network.card, data={}), {}),
        ):
            asked: dict[str, Any] = {"target": TARGET, "input": card, "effort": effort, **looks}
            equint.quantize(network.model, **asked).save(paths[key])
        seconds = timed(paths, network.inputs[0][0], rounds)
        theirs = "LiteRT's"
        sizes, found = {key: path.stat().st_size for key, path in paths.items()}, []
        for key, path in paths.items():
            said = judged(network.reference, outputs(path, network.inputs, False), classes)
            size = f"{sizes[key]:,} B ({100 * (sizes[key] / sizes[theirs] - 1):+.1f} %)"
            faster = [
                f"{median(b / a for a, b in zip(seconds[key], seconds[other], strict=True)):.2f}×"
                for other in ("float", "LiteRT's")
            ]
            found.append(f"| {network.name} | {key} | {said} | {size} | {' | '.join(faster)} |")
    return found


def main() -> None:
    """Print the table."""
    parser = ArgumentParser()
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--effort", default="full")
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("networks", nargs="*", default=NAMES)
    asked = parser.parse_args()
    logging.getLogger().setLevel(logging.ERROR)
    print("| network | file | agreement, SQNR | size | speed: float's time over its | LiteRT's time over its |")
    print("|---|---|--:|--:|--:|--:|")
    for network in networks(asked.limit):
        if any(part in network.name for part in asked.networks):
            print("\n".join(rows(network, asked.images, asked.effort, asked.rounds)), flush=True)


if __name__ == "__main__":
    main()
