"""Whether what a quantization says of its result is so: measured anew, by onnxruntime alone, on fresh samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from equint.ir.model import Array

SLACK = 8.0
"""dB by which fresh samples may show less than those that were measured: of long tails, single values weigh much."""
OTHERS_FAULTS = ("output_dtype INT8 does not match y_zero_point type UINT8", "parameter out of computation range")
"""What onnxruntime says where its optimizations spoil a valid file that runs without them: behind Unsqueeze, Slice and
Reshape int8 grids of opset 21 and above get a uint8 zero point, and its integer GlobalAveragePool takes no grid that is
256 times finer than its input's (1.32)."""
LOW = 15.0
"""dB below which a result is said to lose much."""


def as_stated(folder: Path, out: str, judged: bool) -> None:
    """Raise AssertionError where the file does not run, is not finite as the network is, or is worse than is said.

    Args:
        judged: whether samples that were given were to be measured on: silence then says that little is lost.
    """
    facts = json.loads(out)
    with np.load(folder / "fresh.npz", allow_pickle=False) as file:
        fresh = dict(file)
    plain = run(folder / "out.onnx", fresh, optimized=False)
    _deployed(folder / "out.onnx", fresh)
    wanted = run(folder / "grown.onnx", fresh, optimized=False)
    assert plain.keys() == wanted.keys(), f"outputs {sorted(plain)}, of the network {sorted(wanted)}"
    for name, value in wanted.items():
        assert plain[name].shape == value.shape, f"{name}: {plain[name].shape} where the network gives {value.shape}"
        if np.isfinite(value).all() and not _divides_by_nothing(folder / "grown.onnx"):
            assert np.isfinite(plain[name]).all(), f"{name}: not finite"
    if not all(np.isfinite(value).all() for value in (*wanted.values(), *plain.values())):
        return
    measured, said = sqnr_db(wanted, plain), stated_db(facts)
    told = f"{measured:.1f} dB on fresh samples"
    assert said is None or measured >= min(said, 60) - SLACK, f"{told}, said {said:.1f}"
    low = any(text in warning for warning in facts["warnings"] for text in ("loses much", "tell little", "assumed"))
    assert low or not judged or measured >= LOW - SLACK, f"{told}, and no warning"


def _deployed(path: Path, feeds: dict[str, Array]) -> None:
    """Run it with all optimizations, as onnxruntime does by default; its own faults aside."""
    try:
        run(path, feeds, optimized=True)
    except Exception as error:
        if not any(text in str(error) for text in OTHERS_FAULTS):
            raise


def _divides_by_nothing(path: Path) -> bool:
    """Whether onnxruntime may give NaN for values that are all alike: sqrt(E[x²] − E[x]²) is that of less than 0."""
    import onnx

    return any(node.op_type == "MeanVarianceNormalization" for node in onnx.load(path).graph.node)


def stated_db(facts: dict[str, Any]) -> float | None:
    """What the summary says was measured on samples that were given; None where nothing was."""
    kept = [e["facts"] for e in facts["events"] if e["did"].startswith("kept ") and "SQNR" in e["facts"]]
    if not kept or "made-up" in kept[-1].get("on", "made-up"):
        return None
    return float("inf") if kept[-1]["SQNR"] is None else float(kept[-1]["SQNR"])


def sqnr_db(wanted: dict[str, Array], found: dict[str, Array]) -> float:
    """Signal over noise of all outputs, each alike: 10·log10 of 1 over the mean of noise over signal."""
    shares = []
    for name, value in wanted.items():
        power, noise = (
            np.square(value.astype(np.float64)).sum(),
            np.square(found[name].astype(np.float64) - value).sum(),
        )
        shares.append(0.0 if noise == 0 else float(noise / power) if power > 0 else np.inf)
    mean = float(np.mean(shares))
    return float("inf") if mean == 0 else -10 * float(np.log10(mean))


def run(path: Path, feeds: dict[str, Array], optimized: bool) -> dict[str, Array]:
    """All outputs, in onnxruntime."""
    import onnxruntime as ort

    options, levels = ort.SessionOptions(), ort.GraphOptimizationLevel
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimized else levels.ORT_DISABLE_ALL
    session = ort.InferenceSession(path, options, ["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {i.name: feeds[i.name] for i in session.get_inputs()}), strict=True))
