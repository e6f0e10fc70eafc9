"""What Qualcomm's HTP makes of files for several targets: its x86 emulation, the simulation and the float network.

    EQUINT_REAL=folder python benchmarks/htp.py [--limit 32] [--images 64] [--target NAME] [network ...]

Needs `pip install -e ".[consumers]"`. Prints docs/consumers.md's table: the SQNR at the outputs of the simulation
against the float network, with float activations too, and of HTP against both. Networks by a part of their names;
--images 0 quantizes without data.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from consumers import fixed, load_qnn
from real import Network, machine, networks

import equint
from equint.ir.model import Array, Model
from equint.maths.noise import sqnr_db
from equint.onnx.qdq import export

TARGETS = ("qnn", "per-channel", "per-tensor-symmetric", "per-tensor")
NETWORKS = ("mobilenet_v1_025_224", "mobilenet_v2")


def weights_only(model: Model) -> Model:
    """The same network with float activations."""
    return replace(model, qparams={n: q for n, q in model.qparams.items() if n in model.graph.consts})


def emulated(network: Network, result: equint.Result, folder: Path) -> list[Array]:
    """What HTP gives for the network's samples, one output after the other."""
    result.save(folder / "file.onnx")
    loaded = load_qnn(fixed(folder / "file.onnx", folder / "file.onnx"))
    if loaded.integer < loaded.layers:
        raise SystemExit(f"{network.name}: {loaded.integer} of {loaded.layers} layers run on HTP")
    found = [loaded.run(x[k : k + 1]) for x in network.inputs for k in range(len(x))]
    return [np.concatenate([one[k].reshape(1, -1) for one in found]) for k in range(len(found[0]))]


def whole(outputs: Sequence[Sequence[Array]]) -> list[Array]:
    """Outputs of batches, one array each."""
    return [np.concatenate([batch[k].reshape(len(batch[k]), -1) for batch in outputs]) for k in range(len(outputs[0]))]


def worst(wanted: Sequence[Array], found: Sequence[Array]) -> float:
    """SQNR of the worst output, dB."""
    return min(sqnr_db(a, b) for a, b in zip(wanted, found, strict=True))


def row(network: Network, target: str, images: int, folder: Path) -> Iterator[str]:
    """A row's cells."""
    options: dict[str, Any] = {"images": images} if images else {}
    result = equint.quantize(network.model, target=target, input=network.card, **options)
    floats, simulated = whole(network.reference), whole(network.outputs(result.proto))
    yield from (target, network.name, f"{images} images" if images else "no data")
    yield f"{worst(floats, simulated):.1f} dB"
    yield f"{worst(floats, whole(network.outputs(export(weights_only(result.model))))):.1f} dB"
    found = emulated(network, result, folder)
    yield f"{worst(floats, found):.1f} dB"
    yield f"{worst(simulated, found):.1f} dB"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", metavar="NETWORK")
    parser.add_argument("--limit", type=int, default=32)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--target", action="append")
    given = parser.parse_args()
    head = ["target", "network", "calibration", "simulation", "float activations", "HTP", "HTP : simulation"]
    print(f"| {' | '.join(head)} |\n{'|---' * len(head)}|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for network in networks(given.limit):
            if any(name in network.name for name in given.networks or NETWORKS):
                for target in given.target or TARGETS:
                    cells = row(network, target, given.images, Path(folder))
                    print(f"| {' | '.join(cells)} |", flush=True)
    print(f"\n{machine()}\n")


if __name__ == "__main__":
    main()
