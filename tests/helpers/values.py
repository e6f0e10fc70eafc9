"""What a `Model` computes in onnxruntime, and how near two results are."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from equint.ir.model import Model
from equint.onnx.writer import to_proto
from nets import run

Array = NDArray[Any]


def values(model: Model, x: Array, names: Sequence[str] = ()) -> list[Array]:
    """The outputs of the float network for `x`, or any tensors by name."""
    graph = model.graph if not names else replace(model.graph, outputs=tuple(names))
    return list(run(to_proto(graph), x))


def assert_close(found: Array, wanted: Array, tolerance: float = 1e-4) -> None:
    """Equal in shape, and in value up to `tolerance` of the greatest magnitude."""
    assert found.shape == wanted.shape
    scale = float(np.abs(wanted).max(initial=0.0))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * max(scale, 1e-6))
