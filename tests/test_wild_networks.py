"""Networks that nobody here made, given samples in each of the ways there are: they are quantized, run and stay alive.

They are found in the folder that EQUINT_WILD names, whose wild.py knows their inputs; without it they are skipped.
"""

import os
from pathlib import Path

import numpy as np
import pytest
from wild import given, judge

import equint
from equint.ir.events import EventKind
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
