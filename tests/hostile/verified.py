"""Whether what a command wrote is what it should be: others load and run it, and it is near the float network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from .case import Case

LEAST = 8.0
"""SQNR in dB below which a network of 8 bits is no longer the float one's: no case here has fewer bits."""


def verified(case: Case, folder: Path) -> None:
    """Raise AssertionError where a file that a case's success left is damaged or wrong."""
    for name in case.writes:
        path = folder / name
        if not path.exists():
            continue
        if path.suffix == ".onnx":
            _runs(path, folder / "net.onnx", case.kind != "bytes")
        elif path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                assert "header" in arrays
        elif path.suffix == ".json":
            json.loads(path.read_text("utf-8"))
        elif path.suffix == ".toml":
            import tomllib

            tomllib.loads(path.read_text("utf-8"))
        elif path.suffix == ".html":
            assert "</html>" in path.read_text("utf-8")


def _runs(path: Path, original: Path, near: bool) -> None:
    """onnxruntime loads a file, and gives on made-up samples what the float network gives, if that is there.

    Args:
        near: how near is asked too; weights of which bytes were changed may hold what no 8 bits hold.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(path, options, ["CPUExecutionProvider"])
    feeds = {i.name: _sample(i) for i in session.get_inputs()}
    found = session.run(None, feeds)
    try:
        floats = ort.InferenceSession(original, options, ["CPUExecutionProvider"])
        wanted = floats.run(None, {i.name: feeds[i.name] for i in floats.get_inputs()})
    except Exception:
        return  # a TFLite network, or one that onnxruntime does not take as it stands
    for a, b in zip(found, wanted, strict=True) if all(v.dtype == np.float32 for v in feeds.values()) else ():
        assert a.shape == b.shape, f"{path.name}: {a.shape} where the float network gives {b.shape}"
        power, noise = float(np.square(b, dtype=np.float64).sum()), float(np.square(a - b, dtype=np.float64).sum())
        assert np.isfinite(noise), f"{path.name}: not finite"
        assert not near or noise <= power * 10 ** (-LEAST / 10) + 1e-6 * b.size, (
            f"{path.name}: {10 * np.log10(power / noise):.1f} dB beside the float network"
        )


def _sample(described: Any) -> Any:
    usual = (2, 3, 8, 8)  # of the workshop's network, for what a file leaves open
    sizes = [n if isinstance(n, int) and n > 0 else usual[k % 4] for k, n in enumerate(described.shape)]
    values = np.random.default_rng(0).uniform(0, 1, sizes)
    if described.type == "tensor(float)":
        return values.astype(np.float32)
    return np.round(values * 100).astype(described.type.removeprefix("tensor(").removesuffix(")"))
