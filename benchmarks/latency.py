"""int8 speed in onnxruntime, one thread, against float and against onnxruntime's own quantizer.

    python benchmarks/latency.py [--rounds 30]

A MobileNetV2 with random weights. Networks take turns in random order within each round, so that a noisy machine
slows all of them; the figures are ratios of medians.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
from networks import mobilenet_v2, save
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.preprocess import quant_pre_process

import equint
from equint.ir.model import Array


class _Noise(CalibrationDataReader):
    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.feeds = iter([{"input": rng.normal(size=(1, 3, 224, 224)).astype(np.float32)} for _ in range(4)])

    def get_next(self) -> dict[str, Array] | None:
        return next(self.feeds, None)


def main() -> None:
    """Print latencies and ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        models = {"float": save(mobilenet_v2(), here / "float.onnx")}
        for target in ("per-channel", "per-tensor", "per-tensor-clip"):
            models[f"equint {target}"] = here / f"{target}.onnx"
            equint.quantize(models["float"], target=target, input=(-2.0, 2.0)).save(models[f"equint {target}"])
        quant_pre_process(str(models["float"]), str(here / "prepared.onnx"))
        for name, kind in (("U8S8", QuantType.QUInt8), ("S8S8", QuantType.QInt8)):
            for per_channel in (False, True):
                label = f"onnxruntime {name} {'per-channel' if per_channel else 'per-tensor'}"
                models[label] = here / f"{name}{per_channel}.onnx"
                quantize_static(
                    str(here / "prepared.onnx"),
                    str(models[label]),
                    _Noise(),
                    per_channel=per_channel,
                    activation_type=kind,
                )
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        sessions = {
            name: ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            for name, path in models.items()
        }
        x = np.random.default_rng(1).normal(size=(1, 3, 224, 224)).astype(np.float32)
        times: dict[str, list[float]] = {name: [] for name in sessions}
        order = np.random.default_rng(0)
        for _ in range(rounds):
            for name in order.permutation(list(sessions)):
                session = sessions[name]
                session.run(None, {"input": x})  # whatever ran before has left the caches to it
                start = time.perf_counter()
                for _ in range(3):
                    session.run(None, {"input": x})
                times[name].append((time.perf_counter() - start) / 3)
    reference = np.median(times["float"])
    print("| network | ms | speed against float |\n|---|---|---|")
    for name, found in times.items():
        print(f"| {name} | {1e3 * np.median(found):.2f} | {reference / np.median(found):.2f}× |")


if __name__ == "__main__":
    main()
