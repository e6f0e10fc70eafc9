"""Peak memory of evaluation and calibration while pictures stream: as a folder, an .npz, a .tar and a .tar.gz shard.

Pictures are made up, 32 × 32 pixels, by processes of their own, since a process begins with the peak of the one that
started it; each run is one too, and what it peaks at is the system's own figure.

    EQUINT_REAL=folder python benchmarks/streaming.py [--counts 1000 10000 50000]
"""

from __future__ import annotations

import argparse
import gzip
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from time import perf_counter

import numpy as np
from PIL import Image

import equint
from equint.ir.model import Array
from equint.samples.card import Card

NETWORK = "resnet8_cifar10_mlperftiny"
SOURCES = ("folder", "npz", "tar", "tar.gz")
CARD = Card("rgb", (0.0,) * 3, (1.0,) * 3, (32, 32))


def pictures(count: int) -> Iterator[tuple[str, Array, int]]:
    """Names, pixels and classes: coarse squares in noise, so that files are as large as photographs of this size."""
    rng = np.random.default_rng(0)
    for k in range(count):
        coarse = rng.integers(0, 256, (4, 4, 3), np.uint8).repeat(8, 0).repeat(8, 1)
        noise = rng.integers(-20, 21, coarse.shape)
        yield f"{k:06}", np.clip(coarse + noise, 0, 255).astype(np.uint8), int(rng.integers(10))


def make(place: Path, source: str, count: int) -> Path:
    """The pictures in a form."""
    path = place / ("pictures" if source == "folder" else f"pictures.{source}")
    if source == "npz":
        x = np.lib.format.open_memmap(place / "x.npy", "w+", np.uint8, (count, 32, 32, 3))
        y = np.zeros(count, np.int64)
        for k, (_, pixels, label) in enumerate(pictures(count)):
            x[k], y[k] = pixels, label
        np.savez(path, x=x, y=y)
        (place / "x.npy").unlink()
    elif source == "folder":
        path.mkdir()
        rows = ["file,label"]
        for name, pixels, label in pictures(count):
            Image.fromarray(pixels).save(path / f"{name}.jpg")
            rows.append(f"{name}.jpg,{label}")
        (path / "labels.csv").write_text("\n".join(rows), "utf-8")
    else:
        with path.open("wb") as raw, ExitStack() as rest:
            packed = (
                rest.enter_context(gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=1)) if source != "tar" else raw
            )
            archive = rest.enter_context(tarfile.TarFile(fileobj=packed, mode="w"))
            for name, pixels, label in pictures(count):
                held = BytesIO()
                Image.fromarray(pixels).save(held, "jpeg")
                for ending, content in (("cls", str(label).encode()), ("jpg", held.getvalue())):
                    member = tarfile.TarInfo(f"{name}.{ending}")
                    member.size = len(content)
                    archive.addfile(member, BytesIO(content))
    return path


def run(work: str, data: Path) -> None:
    """One measurement, printed: seconds, samples, and the peak of this process in kB."""
    network = Path(os.environ["EQUINT_REAL"]) / "models" / f"{NETWORK}.onnx"
    start = perf_counter()
    if work == "evaluate":
        seen = equint.evaluate(network, data, CARD).figures["samples"]
    else:
        seen = equint.calibrate(network, data, input=CARD, histograms=work == "histograms").images
    print(seen, perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 10_000, 50_000])
    parser.add_argument("--work", nargs="+", default=["evaluate", "calibrate"])
    parser.add_argument("--sources", nargs="+", default=SOURCES)
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--make", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        run(given.run[0], Path(given.run[1]))
        return
    if given.make:
        print(make(Path(given.make[0]), given.make[1], int(given.make[2])))
        return
    counts = given.counts
    print(f"| data | | {' | '.join(f'{n:,}, MB' for n in counts)} | largest ÷ smallest | ms a picture |")
    print("|---|---|" + "--:|" * (len(counts) + 2))
    for source in given.sources:
        with tempfile.TemporaryDirectory() as place:
            made = {}
            for count in counts:
                (Path(place) / str(count)).mkdir()
                command = [sys.executable, __file__, "--make", str(Path(place) / str(count)), source, str(count)]
                made[count] = Path(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())
            for work in given.work:
                peaks, pace = list[float](), 0.0
                for count, data in made.items():
                    command = [sys.executable, __file__, "--run", work, str(data)]
                    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
                    assert int(out[0]) == count
                    peaks.append(int(out[2]) / 1024)
                    pace = 1000 * float(out[1]) / count
                row = " | ".join(f"{peak:.0f}" for peak in peaks)
                print(f"| {source} | {work} | {row} | {max(peaks) / min(peaks):.3f} | {pace:.2f} |", flush=True)


if __name__ == "__main__":
    main()
