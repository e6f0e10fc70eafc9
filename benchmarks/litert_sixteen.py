"""FSRCNN as .tflite of 8 and of 16 bits: PSNR against the true pictures, SQNR against the float network.

    EQUINT_REAL=folder python benchmarks/litert_sixteen.py [--effort full]

The pictures of set5, their middle 256 x 256 pixels made half as large, bicubic; calibrated on the same. PSNR without
four pixels at each side, in LiteRT's reference kernels and in those that it takes by default (one thread).
"""

from __future__ import annotations

import os
from argparse import ArgumentParser
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from litert_wild import of_litert
from PIL import Image

import equint
from equint.integers.engine import Engine
from equint.ir.model import Array
from equint.maths.noise import sqnr_db
from equint.runtime.session import Session
from equint.samples.images import Run

SIDE = 128


def pictures(folder: Path) -> list[tuple[Array, Array]]:
    """Small pictures, 0 to 1, and the large ones that they are of, 0 to 255."""
    found = []
    for path in sorted(folder.glob("*.png")):
        luma = Image.open(path).convert("YCbCr").split()[0]
        left, top = ((n - 2 * SIDE) // 2 for n in luma.size)
        large = luma.crop((left, top, left + 2 * SIDE, top + 2 * SIDE))
        small = large.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        found.append((np.asarray(small, np.float32)[None, None] / 255, np.asarray(large, np.float64)))
    return found


def psnr(found: Array, wanted: Array) -> float:
    """In dB, of pixels rounded to whole numbers."""
    pixels = np.clip(np.round(found.reshape(wanted.shape) * 255), 0, 255)
    return float(10 * np.log10(255**2 / np.mean((pixels - wanted)[4:-4, 4:-4] ** 2)))


def main() -> None:
    """Print the table."""
    parser = ArgumentParser()
    parser.add_argument("--effort", default="fast")
    asked, real = parser.parse_args(), Path(os.environ["EQUINT_REAL"])
    model, shown = real / "models/fsrcnn_x2.onnx", pictures(real / "set5")
    clean, samples = Session(model), np.concatenate([small for small, _ in shown])
    (name,) = clean.inputs
    feeds = [{name: small} for small, _ in shown]
    wanted = [next(iter(clean.run(Run(feed)).values())) for feed in feeds]

    def cell(found: list[Array]) -> str:
        mean = np.mean([psnr(y, large) for y, (_, large) in zip(found, shown, strict=True)])
        return f"{mean:.2f}, {sqnr_db(np.concatenate(wanted).ravel(), np.concatenate(found).ravel()):.1f} dB"

    print("| target | simulation | engine | LiteRT, reference kernels | LiteRT, default kernels | file |")
    print("|---|--:|--:|--:|--:|--:|")
    print(f"| float | {np.mean([psnr(y, large) for y, (_, large) in zip(wanted, shown, strict=True)]):.2f} | | | | |")
    for target in ("tflite-int8", "tflite-int8-per-tensor", "tflite-int16"):
        result = equint.quantize(model, target=target, data=samples, effort=asked.effort)
        engine, simulated, (out,) = Engine(result.program, threads=1), Session(result.proto), result.program.outputs
        with TemporaryDirectory() as folder:
            path = Path(folder) / "net.tflite"
            result.save(path, io="float")
            found = [[simulated.run(Run(feed))[out] for feed in feeds], [engine.real(feed)[out] for feed in feeds]]
            found += [[r[out] for r in of_litert(path, feeds, [out], reference)] for reference in (True, False)]
            print(f"| `{target}` | {' | '.join(map(cell, found))} | {path.stat().st_size / 1000:.0f} kB |", flush=True)


if __name__ == "__main__":
    main()
