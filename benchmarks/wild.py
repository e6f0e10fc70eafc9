"""Networks that nobody shaped for equint: quantized in every way, each in a process of its own.

    EQUINT_WILD=folder python benchmarks/wild.py [--networks …] [--targets …] [--samples …] [--yardstick]

The folder's wild.py knows the inputs of each network. A row says how many convolutions and matrix products run on
integers once onnxruntime has optimized the file, of how many in the float network (onnxruntime's own quantizer beside
it, with --yardstick), how many outputs are alive, and the SQNR of each. What fails is a row with the reason.
"""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

import equint
from equint.ir.model import Array, Name
from equint.maths.noise import sqnr_db
from equint.runtime.session import Session
from equint.samples.images import Run

TARGETS = ("per-channel", "per-tensor", "npu-shift")
SAMPLES = ("list", "array", "npz", "none")
INTEGER = ("QLinear", "QGemm", "ConvInteger", "MatMulInteger", "DynamicQuantize")
SECONDS = 900
"""A cell that takes longer is killed."""

Feeds = list[dict[Name, Array]]


def judge() -> Any:
    """The folder's wild.py."""
    folder = os.environ.get("EQUINT_WILD")
    if not folder:
        sys.exit("set EQUINT_WILD to a folder of networks with its wild.py")
    spec = importlib.util.spec_from_file_location("wild_inputs", Path(folder) / "wild.py")
    if spec is None or spec.loader is None:
        sys.exit(f"{folder}: no wild.py in it")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def given(feeds: Feeds, kind: str, folder: Path) -> Any:
    """The samples as a list of single ones, as arrays, as an .npz, or none."""
    if kind == "none":
        return None
    if kind == "list":
        return [next(iter(f.values())) if len(f) == 1 else f for f in feeds]
    joined = {k: np.concatenate([f[k] for f in feeds]) if v.ndim else v for k, v in feeds[0].items()}
    if kind == "array":
        return next(iter(joined.values())) if len(joined) == 1 else joined
    np.savez(folder / "samples.npz", **joined)  # type: ignore[arg-type]
    return folder / "samples.npz"


def kernels(counts: Mapping[str, int]) -> tuple[int, int]:
    """Integer kernels and all kernels of convolutions and matrix products."""
    integer = sum(n for op, n in counts.items() if op.startswith(INTEGER))
    return integer, sum(counts.values())


def dead(clean: Array, noisy: Array) -> bool:
    """Whether an output that varied is constant."""
    return bool(noisy.std() == 0 and clean.std() > 0)


def measured(wild: Any, name: str, path: Path) -> str:
    """Integer kernels of all, outputs alive, SQNR of each."""
    clean, noisy = Session(wild.path(name)), Session(path)
    rows = [Run(feed) for feed in wild.feeds(name, "eval")]
    pairs = {o: ([], []) for o in clean.outputs}  # type: Mapping[Name, tuple[list[Array], list[Array]]]
    for row in rows:
        wanted, found = clean.run(row), noisy.run(row)
        for output, (a, b) in pairs.items():
            a.append(wanted[output].astype(np.float64))
            b.append(found[output].astype(np.float64))
    both = [(np.stack(a), np.stack(b)) for a, b in pairs.values()]
    alive = sum(not dead(a, b) for a, b in both)
    integer, every = kernels(wild.kernels(path))
    decibels = " ".join(f"{sqnr_db(a, b):.1f}" for a, b in both)
    return f"{integer} of {every} | {alive} of {len(both)} | {decibels}"


def cell(name: str, target: str, kind: str, results: Any) -> None:
    """One row; runs in a process of its own."""
    wild, start = judge(), perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "quantized.onnx"
        feeds = wild.feeds(name, "calib")
        try:
            result = equint.quantize(wild.path(name), target=target, data=given(feeds, kind, Path(folder)))
            result.save(path)
            untold = sum(event.kind.name == "FLOAT_WITHOUT_RANGE" for event in result.model.log)
            results.put(f"{measured(wild, name, path)} | {untold} | {perf_counter() - start:.0f} s")
        except equint.EquintError as error:
            results.put(f"refused: {str(error)[:160]} | | | |")
        except Exception as error:
            results.put(f"{type(error).__name__}: {str(error)[:160]} | | | |")


def isolated(name: str, target: str, kind: str) -> str:
    """A row, or what became of the process that was to make it."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=cell, args=(name, target, kind, results))
    process.start()
    process.join(SECONDS)
    if process.is_alive():
        process.kill()
        return f"killed after {SECONDS} s | | | |"
    return results.get(timeout=5) if process.exitcode == 0 else f"died ({process.exitcode}) | | | |"


def yardstick(wild: Any, name: str) -> str:
    """onnxruntime's own quantizer: integer kernels of all, and the SQNR of its outputs."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "yardstick.onnx"
        try:
            wild.yardstick(name, path)
            return measured(wild, name, path)
        except Exception as error:
            return f"{type(error).__name__} | |"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="*", help="names; all if left out")
    parser.add_argument("--targets", nargs="*", default=TARGETS)
    parser.add_argument("--samples", nargs="*", default=SAMPLES, choices=SAMPLES)
    parser.add_argument("--yardstick", action="store_true", help="also onnxruntime's own quantizer")
    options = parser.parse_args(arguments)
    wild = judge()
    print("| network | target | samples | integer kernels | outputs alive | SQNR, dB | without range | time |")
    print("|---|---|---|--:|--:|---|--:|--:|")
    for name in options.networks or wild.NETWORKS:
        if options.yardstick:
            print(f"| {name} | onnxruntime | list | {yardstick(wild, name)} | | |", flush=True)
        for target in options.targets:
            for kind in options.samples:
                print(f"| {name} | {target} | {kind} | {isolated(name, target, kind)} |", flush=True)


if __name__ == "__main__":
    main()
