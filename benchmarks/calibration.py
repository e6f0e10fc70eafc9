"""What looking at images costs: calibration, its memory, and the empirical bias correction.

    python benchmarks/calibration.py [--rounds N] [--images N] [--only speed|memory|correction]

On a MobileNetV2 with random weights, and where EQUINT_REAL is set on the real networks: the same batch of random inputs
again and again, whose values do not matter to time.

Times are in units of one pass of the same images through onnxruntime, in the same process and in batches of the same
size, each followed by the next in every round; the figures are medians of the rounds' ratios. A float pass is that of
the folded network with onnxruntime's optimizations, a quantized one that of the exported network without them, which is
how it is simulated. Setting up (reading the graph, making the session) is left out of the ratios and shown beside them.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np
from networks import mobilenet_v2

import equint
from equint.ir.events import EventKind
from equint.ir.model import Array, Graph, Model
from equint.onnx.qdq import export
from equint.onnx.writer import to_proto
from equint.passes.correct_bias_empirical import CorrectBiasEmpirical
from equint.passes.fold_batchnorm import FoldBatchnorm
from equint.runtime.batches import BATCH
from equint.runtime.collect import collect
from equint.runtime.session import Session, random_inputs
from equint.samples.images import Samples

BIG = 50_000
"""Values per image from which 256 images are enough, and 512 below."""
MEMORY = (100, 1000)
"""Images of the memory table."""


@dataclass
class Repeated:
    """One batch again and again, which notes when it is asked for the first time and when it is used up."""

    batch: Array
    count: int
    started: float = 0.0
    ended: float = 0.0
    label: str = field(default="random", compare=False)

    def __iter__(self) -> Iterator[Array]:
        self.started = time.perf_counter()
        for _ in range(self.count):
            yield self.batch
        self.ended = time.perf_counter()


def passed(session: Session, shown: Repeated) -> float:
    """Seconds of a pass through a session."""
    for batch in shown:
        session.run(batch)
    return shown.ended - shown.started


def calibrated(graph: Graph, shown: Repeated, histograms: bool) -> tuple[float, float]:
    """Seconds of calibration over all images, and before and after them."""
    start = time.perf_counter()
    collect(graph, Samples.of(shown), histograms=histograms)
    end = time.perf_counter()
    return shown.ended - shown.started, shown.started - start + end - shown.ended


def models() -> Iterator[tuple[str, Model]]:
    """Every network, as it is calibrated."""
    yield "MobileNetV2, random", equint.load(mobilenet_v2())
    if os.environ.get("EQUINT_REAL"):
        from real import networks

        for network in networks():
            yield network.name, equint.load(network.model)


def shown_to(model: Model, images: int | None) -> Repeated:
    """The batches for a network."""
    (batch,) = random_inputs(Session(to_proto(model.graph)), BATCH).values()
    count = images or (256 if batch[0].size >= BIG else 512)
    return Repeated(batch, max(1, count // BATCH))


def speed(rounds: int, images: int | None) -> None:
    """Print what calibration costs."""
    print("| network | images | float pass, ms per image | calibration ÷ float pass | with histograms | setup, s |")
    print("|---|---|---|---|---|---|", flush=True)
    for name, read in models():
        graph = FoldBatchnorm()(read).graph
        shown = shown_to(read, images)
        session = Session(to_proto(graph), optimized=True)
        session.run(shown.batch)
        plain, ratios, counted, setup = list[float](), list[float](), list[float](), list[float]()
        for _ in range(rounds):
            plain.append(passed(session, shown))
            seconds, around = calibrated(graph, shown, False)
            ratios.append(seconds / plain[-1])
            setup.append(around)
            counted.append(calibrated(graph, shown, True)[0] / plain[-1])
        count = shown.count * BATCH
        cells = (f"{1e3 * median(plain) / count:.2f}", f"{median(ratios):.2f}", f"{median(counted):.2f}")
        print(f"| {name} | {count} | {' | '.join(cells)} | {median(setup):.2f} |", flush=True)


def correction(rounds: int, images: int | None) -> None:
    """Print what the empirical bias correction costs."""
    print("| network | layers | images | quantized pass, ms per image | correction ÷ quantized pass | seconds |")
    print("|---|---|---|---|---|---|", flush=True)
    for name, read in models():
        shown = shown_to(read, images)
        one = Samples.of(shown.batch)
        model = equint.quantize(read, "cwq", data=equint.calibrate(read, one, histograms=False)).model
        session = Session(export(model))
        session.run(shown.batch)
        corrects = CorrectBiasEmpirical(images=Samples.of(shown), teacher=read.graph)
        plain, whole = list[float](), list[float]()
        for _ in range(rounds):
            plain.append(passed(session, shown))
            start = time.perf_counter()
            log = corrects(model).log
            whole.append(time.perf_counter() - start)
        layers = next(e.facts["layers"] for e in reversed(log) if e.kind is EventKind.BIASES_CORRECTED_FROM_IMAGES)
        count = shown.count * BATCH
        ratio = median(w / p for w, p in zip(whole, plain, strict=True))
        cells = f"{1e3 * median(plain) / count:.2f} | {ratio:.2f} | {median(whole):.1f}"
        print(f"| {name} | {layers} | {count} | {cells} |", flush=True)


def megabytes() -> float:
    """Peak memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def peak(count: int, histograms: bool) -> None:
    """Calibrate the MobileNetV2 on so many images, each batch made anew, and print the peak memory in MB."""
    rng = np.random.default_rng(0)
    batches = (rng.standard_normal((BATCH, 3, 224, 224), np.float32) for _ in range(count // BATCH))
    model = FoldBatchnorm()(equint.load(mobilenet_v2()))
    before = megabytes()
    collect(model.graph, Samples(lambda: batches), histograms=histograms)
    print(f"{megabytes():.0f} {before:.0f}")


def memory() -> None:
    """Print the peak memory of calibration, each in a process of its own."""
    print("| MobileNetV2, random, 224×224 | images | peak MB | of which before calibration |\n|---|---|---|---|")
    for histograms in (False, True):
        for count in MEMORY:
            command = [sys.executable, str(Path(__file__)), "--peak", str(count), *(["--histograms"] * histograms)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            cells = " | ".join(done.stdout.split())
            print(f"| {'with' if histograms else 'without'} histograms | {count} | {cells} |", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds that ratios are the medians of")
    parser.add_argument("--images", type=int, help="images in every pass; 256 large or 512 small ones if left out")
    parser.add_argument("--only", choices=("speed", "memory", "correction"), help="one of the tables")
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--histograms", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak:
        peak(args.peak, args.histograms)
        return
    if args.only in (None, "speed"):
        speed(args.rounds, args.images)
    if args.only in (None, "memory"):
        memory()
    if args.only in (None, "correction"):
        correction(args.rounds, args.images)


if __name__ == "__main__":
    main()
