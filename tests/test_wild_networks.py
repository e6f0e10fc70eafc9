"""Networks that nobody here made, given samples in each of the ways there are: they are quantized, run and stay alive.

They are found in the folder that EQUINT_WILD names, whose wild.py knows their inputs; without it they are skipped.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from wild import given, judge

import equint
from equint.integers.engine import Engine
from equint.ir.events import EventKind
from equint.npu.bundle import load_bundle, save_bundle
from equint.runtime.session import Session
from equint.samples.images import Run

FOLDER = os.environ.get("EQUINT_WILD", "")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not FOLDER, reason="EQUINT_WILD names no folder of networks")]
WAYS = (("cwq", "per-channel", "array"), ("lwq", "per-tensor", "list"), ("wes-published", "npu-shift", "npz"))
FEW = 4
"""Samples that are shown."""


WILD = judge() if FOLDER else None


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("recipe", "target", "kind"), WAYS, ids=[way[2] for way in WAYS])
@pytest.mark.parametrize("name", sorted(WILD.NETWORKS) if WILD else [])
def test_outputs_live_and_every_range_is_known(name: str, recipe: str, target: str, kind: str, tmp_path: Path) -> None:
    assert WILD is not None
    data = given(WILD.feeds(name, "calib")[:FEW], kind, tmp_path)
    result = equint.quantize(WILD.path(name), recipe, target, data=data)
    result.save(tmp_path / "quantized.onnx")
    assert [e.at for e in result.model.log if e.kind is EventKind.FLOAT_WITHOUT_RANGE] == []
    clean, noisy = Session(WILD.path(name)), Session(tmp_path / "quantized.onnx")
    rows = [Run(feed) for feed in WILD.feeds(name, "eval")[:FEW]]
    for output in clean.outputs:
        wanted, found = (np.concatenate([s.run(row)[output].ravel() for row in rows]) for s in (clean, noisy))
        assert np.isfinite(found).all()
        assert found.std() > 0 or wanted.std() == 0


RECURRENT = ("silero_vad", "torch_crnn_lstm_static")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [n for n in sorted(WILD.NETWORKS) if n not in RECURRENT] if WILD else [])
def test_all_but_recurrent_ones_run_in_integers_as_well_as_simulated(name: str, tmp_path: Path) -> None:
    """The bundle on disk, against the QDQ model: within 1 dB of its output SQNR."""
    assert WILD is not None
    data = given(WILD.feeds(name, "calib")[:FEW], "npz", tmp_path)
    result = equint.quantize(WILD.path(name), "wes", "npu-shift", data=data, effort="fast")
    result.save(tmp_path / "quantized.onnx")
    engine = Engine(load_bundle(save_bundle(result.program, tmp_path / "net")[0]), threads=1)
    clean, noisy = Session(WILD.path(name)), Session(tmp_path / "quantized.onnx")
    rows = [Run(feed) for feed in WILD.feeds(name, "eval")[:FEW]]
    wanted, simulated = ([s.run(row) for row in rows] for s in (clean, noisy))
    computed = [engine.real(dict(row)) for row in rows]
    for output in clean.outputs:
        signal, qdq, integers = (
            np.concatenate([r[output].ravel() for r in found]) for found in (wanted, simulated, computed)
        )
        assert sqnr(signal, integers) > sqnr(signal, qdq) - 1


def sqnr(signal: NDArray[Any], found: NDArray[Any]) -> float:
    noise = np.square(found.astype(np.float64) - signal).sum()
    return float(10 * np.log10(np.square(signal.astype(np.float64)).sum() / max(noise, 1e-30)))
