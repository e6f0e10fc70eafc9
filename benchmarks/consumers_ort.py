"""onnxruntime as a consumer; as a script, a version of it that another process asks: folders in, `done` out.

python benchmarks/consumers_ort.py MODEL    # then lines with folders: x.npy is read there, y.npz written
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort  # type: ignore[import-untyped,unused-ignore]

INTEGER = ("QLinearConv", "ConvInteger", "QGemm", "QLinearMatMul", "MatMulInteger", "MatMulIntegerToFloat")
FLOAT = ("Conv", "FusedConv", "ConvTranspose", "Gemm", "FusedGemm", "MatMul", "FusedMatMul")


@dataclass(frozen=True)
class Loaded:
    """A network in a runtime: what runs it, its convolutions and dense layers on integers, and all."""

    run: Callable[[Any], list[Any]]
    integer: int
    layers: int
    close: Callable[[], None] = lambda: None


def integer_layers(path: Path) -> tuple[int, int]:
    """Layers on integers, and all, of a model that onnxruntime has optimized."""
    kinds = [node.op_type for node in onnx.load(path).graph.node]
    integer = sum(kind in INTEGER for kind in kinds)
    return integer, integer + sum(kind in FLOAT for kind in kinds)


def load_onnxruntime(path: Path) -> Loaded:
    """onnxruntime on the CPU, all optimizations on, one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = f"{folder}/optimized.onnx"
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        integer, layers = integer_layers(Path(folder) / "optimized.onnx")
    name = session.get_inputs()[0].name
    return Loaded(lambda x: list(session.run(None, {name: x})), integer, layers)


if __name__ == "__main__":
    loaded = load_onnxruntime(Path(sys.argv[1]))
    print(json.dumps({"integer": loaded.integer, "layers": loaded.layers}), flush=True)
    for line in sys.stdin:
        place = Path(line.strip())
        np.savez(place / "y.npz", *loaded.run(np.load(place / "x.npy")))
        print("done", flush=True)
