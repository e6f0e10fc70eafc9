"""What LiteRT makes of .tflite files, beside our own simulation of the same integers, as a Markdown table.

    EQUINT_REAL=folder python benchmarks/litert.py [options] [network ...]

Options: --images N (calibration images of the card; 0, the default: no data), --limit N samples of the evaluation data,
--effort fast, --targets A B; networks by a part of their names. Agreement with the float network and output SQNR of the
QDQ simulation, of LiteRT's reference kernels and of those that it takes by default (one thread).
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from real import Network, networks

import equint
from equint.ir.model import Array
from equint.maths.noise import sqnr_db

TARGETS = ("tflite-int8", "tflite-int8-per-tensor")


def entered(detail: dict[str, Any], x: Array) -> Array:
    """One float sample, channels second, as an input of a file takes it."""
    x, kind = np.moveaxis(x[None], 1, -1) if x.ndim > 2 else x[None], detail["dtype"]
    if np.issubdtype(kind, np.floating):
        return np.ascontiguousarray(x)
    (scale, zero), ends = detail["quantization"], np.iinfo(kind)
    return np.asarray(np.clip(np.rint(x / scale) + zero, ends.min, ends.max).astype(kind))


def left(detail: dict[str, Any], y: Array) -> Array:
    """A result, real and channels second."""
    if not np.issubdtype(detail["dtype"], np.floating):
        scale, zero = detail["quantization"]
        y = (y.astype(np.float32) - zero) * np.float32(scale)
    return np.moveaxis(y, -1, 1) if y.ndim > 3 else y


def outputs(path: Path, feeds: Sequence[Array], reference: bool) -> list[list[Array]]:
    """What LiteRT gives for float images, channels second, sample by sample; so are the results."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kernels = OpResolverType.BUILTIN_REF if reference else OpResolverType.AUTO
    interpreter = Interpreter(str(path), experimental_op_resolver_type=kernels, num_threads=1)
    interpreter.allocate_tensors()
    (entry,), ends, results = interpreter.get_input_details(), interpreter.get_output_details(), []
    for x in (x for batch in feeds for x in batch):
        interpreter.set_tensor(entry["index"], entered(entry, x))
        interpreter.invoke()
        results.append([left(end, interpreter.get_tensor(end["index"])) for end in ends])
    return results


def judged(wanted: Sequence[Sequence[Array]], found: Sequence[Sequence[Array]], classes: bool) -> str:
    """Agreement, where it is classes, and SQNR of the worst output."""
    pairs = [[np.concatenate([o[k] for o in outputs]) for outputs in (wanted, found)] for k in range(len(wanted[0]))]
    decibels = min(sqnr_db(a.ravel(), b.ravel()) for a, b in pairs)
    agreement = 100 * float(np.mean(pairs[0][0].argmax(1) == pairs[0][1].argmax(1)))
    return f"{agreement:.1f} %, {decibels:.1f} dB" if classes else f"{decibels:.1f} dB"


def row(network: Network, target: str, images: int, effort: str) -> str:
    """One network on one target."""
    card = network.card if images else replace(network.card, data={})
    options = {"images": images} if images else {}
    result = equint.quantize(network.model, target=target, input=card, effort=effort, **options)  # type: ignore[arg-type]
    classes = network.labels is not None
    with TemporaryDirectory() as folder:
        path = Path(folder) / "net.tflite"
        result.save(path, io="float")
        found = [network.outputs(result.proto), *(outputs(path, network.inputs, ref) for ref in (True, False))]
        cells = [judged(network.reference, each, classes) for each in found]
        size = path.stat().st_size
    data = str(images) if images else "none"
    return f"| {network.name} | `{target}` | {data} | {' | '.join(cells)} | {size / 1000:.0f} kB |"


def main() -> None:
    """Print the table."""
    parser = ArgumentParser()
    parser.add_argument("--images", type=int, default=0)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--effort", default="full")
    parser.add_argument("--targets", nargs="*", default=TARGETS)
    parser.add_argument("networks", nargs="*")
    asked = parser.parse_args()
    print("| network | target | images | simulation | LiteRT, reference kernels | LiteRT, default kernels | file |")
    print("|---|---|--:|--:|--:|--:|--:|")
    for network in networks(asked.limit):
        if not asked.networks or any(part in network.name for part in asked.networks):
            for target in asked.targets:
                print(row(network, target, asked.images, asked.effort), flush=True)


if __name__ == "__main__":
    main()
