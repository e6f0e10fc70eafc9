"""Activations on their grids: counted again value by value."""

from __future__ import annotations

import numpy as np

import equint
from equint.demo import model_path
from equint.ir.model import QParams
from equint.onnx.writer import to_proto
from equint.pages.activations import BEYOND, INSIDE, activation_histograms, ends, histogram, layer_tensors, saturated
from equint.runtime.session import Session
from reports import digits


def test_bars_and_saturation_by_hand() -> None:
    """uint8 from 0 to 25.5 in steps of 0.1: each of 48 bars takes 0.53125."""
    grid = QParams(np.array(0.1, np.float32), np.array(0), 8, signed=False)
    assert np.allclose(ends(grid), (0.0, 25.5))
    values = np.array([0.0, 0.54, 25.5, 25.54, 25.56, -0.04, -0.06, 1000.0])
    counts = histogram(values, grid)
    assert counts.sum() == len(values)
    assert (counts[BEYOND], counts[BEYOND + 1]) == (1, 1)
    assert counts[:BEYOND].sum() == 2
    assert counts[-1] == 1
    assert counts[BEYOND + INSIDE :].sum() == 3 + (counts[BEYOND + INSIDE - 1] == 0)
    assert saturated(values, grid) == 3


def test_counted_again_on_the_demo() -> None:
    model = equint.quantize(model_path(), "cwq", input=(0, 1)).model
    images = digits(4)
    found = activation_histograms(model, images)
    assert found["samples"] == 4
    name = next(n for n in found["tensors"] if n in model.graph.producer and n not in model.graph.outputs)
    (feed,) = images
    values = Session(to_proto(model.graph), taps=[name]).run(feed)[name].ravel()
    grid, row = model.qparams[name], found["tensors"][name]
    low, high = (float(grid.scale) * (q - int(grid.zero_point)) for q in (grid.qmin, grid.qmax))
    assert np.allclose((row["lo"], row["hi"]), (low, high))
    half = float(grid.scale) / 2
    beyond = sum(1 for v in values if v < low - half or v > high + half)
    assert row["saturated"] == beyond / len(values)
    assert sum(row["counts"]) == len(values)
    assert sum(row["counts"][:BEYOND]) == sum(1 for v in values if v < low)


def test_layers_name_tensors_that_have_grids() -> None:
    model = equint.quantize(model_path(), "cwq", input=(0, 1)).model
    rows = layer_tensors(model)
    assert rows[0]["input"] == model.graph.inputs[0]
    assert all(name in model.qparams for row in rows for name in row.values())
