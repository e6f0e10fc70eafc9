"""The demo: float, naive int8 and equint on held-out digits."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from .. import api
from ..planning.run import Progress
from ..planning.summary import kilobytes, sizes
from ..samples.card import Card
from ..scoring.metrics import evaluate
from . import data_path, model_path

CARD = Card("gray", (0.0,), (16.0,))
"""Digits have 17 grey levels, 0 to 16."""
_RUNS = (
    ("naive int8, per tensor", "lwq", "per-tensor"),
    ("equint int8, per tensor", "optimal", "per-tensor"),
    ("equint int8, per tensor with channel clamp", "optimal", "per-tensor-clip"),
    ("equint int8, per channel", "optimal", "per-channel"),
)


def run(progress: Progress | None = None) -> list[dict[str, Any]]:
    """Quantize the bundled network in several ways, without data, and measure each on held-out digits.

    Returns:
        One row per network: name, accuracy and agreement with float in per cent, size of the parameters.
    """
    floats = evaluate(model_path(), data_path(), CARD)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, recipe, target in _RUNS:
            result = api.quantize(model_path(), recipe, target, input=(0.0, 1.0), progress=progress)
            path = Path(folder) / "digits.int8.onnx"
            result.save(path)
            found = evaluate(path, data_path(), CARD, model_path())
            before, after = map(kilobytes, sizes(result.model))
            if not rows:
                rows.append({"network": "float", "accuracy": floats["top1"], "agreement": 100.0, "size": before})
            row = {"network": name, "accuracy": found["top1"], "agreement": found["agreement"]}
            rows.append({**row, "recipe": recipe, "target": target, "size": after})
    return rows
