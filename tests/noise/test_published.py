"""Equations 5 to 9 on small networks, in numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from equint.ir.model import Array, Model, Moments, QParams, View
from equint.noise.published import published
from equint.onnx.reader import read
from handwritten import network


def grid(step: float, bits: int = 4, signed: bool = True) -> QParams:
    return QParams(np.asarray(step, np.float32), np.asarray(0, np.int32), bits, signed)


def spread(*stds: float) -> Moments:
    """Channels of mean 0."""
    std = np.array(stds).reshape(1, -1, 1, 1)
    return Moments(0 * std, std)


def two_layers(groups: int = 1, **weights: Any) -> Model:
    """3×3, ReLU, 1×1; E{X²} is (1 + 9)/2 = 5, E{Y1²} 50 before and 8 behind the ReLU, E{Y2²} 32."""
    body = f"h = Conv <group = {groups}> (x, w) r = Relu(h) y = Conv(r, v)"
    model = read(network(body, inputs="float[N,2,8,8] x", output="float[N,2,6,6] y", **weights))
    moments = {"x": spread(1, 3), "h": spread(6, 8), "r": spread(np.sqrt(6), np.sqrt(10)), "y": spread(4, np.sqrt(48))}
    return replace(model, moments=moments)


V = np.array([[1.0, 2.0], [3.0, 0.0]]).reshape(2, 2, 1, 1)
ERROR = (0.25 * 15 / 16) ** 2 / 12
"""E{ΔW²} on a grid of 16 values, 0.25 apart: its range is 15 steps, and eq. 6 divides that by 16."""


def test_two_layers_by_hand() -> None:
    model = two_layers(w=np.ones((2, 2, 3, 3)), v=V)
    grids = {"w": grid(0.25), "v": grid(0.5), "r": grid(0.125, signed=False)}
    found = published(model, replace(model, qparams=grids))
    first, stored, own = 9 * 2 * 5 * ERROR, ERROR / 4, 1 * 2 * 8 * ERROR * 4
    assert found["h"].weights == pytest.approx(50 / first)
    assert found["h"].output == pytest.approx(8 / stored)
    assert found["h"].y1 == pytest.approx(8 / (first + stored))
    assert (found["h"].input, found["h"].earlier, found["h"].y2) == (None, None, None)
    assert found["y"].weights == pytest.approx(32 / own)
    assert found["y"].input == pytest.approx(32 / (7 * stored))  # ΣW2² is 5 and 9, 7 in the mean
    assert found["y"].earlier == pytest.approx(32 / (7 * first))
    assert found["y"].y2 == pytest.approx(32 / (7 * first + 7 * stored + own))
    assert (found["y"].output, found["y"].y1) == (None, None)


def test_a_depthwise_layer_reads_one_channel_of_its_own_energy() -> None:
    """F_in is 1, and E{X²} 1 and 9: 9·1·(1 + 9)/2, a half of what a full convolution would have."""
    model = two_layers(groups=2, w=np.ones((2, 1, 3, 3)), v=V)
    found = published(model, replace(model, qparams={"w": grid(0.25)}))["h"]
    assert found.weights == pytest.approx(50 / (9 * 1 * 5 * ERROR))
    each = QParams(np.array([0.25, 0.5], np.float32), np.zeros(2, np.int32), 4, axis=0)
    apart = published(model, replace(model, qparams={"w": each}))["h"]
    assert apart.weights == pytest.approx(50 / (9 * (1 * ERROR + 9 * 4 * ERROR) / 2))


def test_rescaled_channels_count_in_the_float_networks_units() -> None:
    """The first channel of h and r is halved: on the same grids its noise is twice as high, E{..} (4 + 1)/2 times."""
    model = two_layers(w=np.ones((2, 2, 3, 3)), v=V)
    scale: Array = np.array([2.0, 1.0]).reshape(1, 2, 1, 1)
    views = {name: View(scale, np.zeros(1)) for name in ("h", "r")}
    consts = {"w": model.graph.consts["w"] / scale.reshape(2, 1, 1, 1), "v": V * scale}
    scaled = replace(model, graph=model.graph.with_consts(consts), views=views)
    grids = {"w": grid(0.25), "v": grid(0.5), "r": grid(0.125, signed=False)}
    found = published(model, replace(scaled, qparams=grids))
    first, stored = 9 * 2 * 5 * ERROR, ERROR / 4
    assert found["h"].weights == pytest.approx(50 / (2.5 * first))
    assert found["h"].output == pytest.approx(8 / (2.5 * stored))
    rows = (4 + 4 + 36) / 2  # ΣW2² of the doubled weights
    assert found["y"].input == pytest.approx(32 / (rows * stored))
    assert found["y"].earlier == pytest.approx(32 / (rows * first))
    energy = (6 / 4 + 10) / 2
    assert found["y"].weights == pytest.approx(32 / (2 * energy * 4 * ERROR))


def test_what_is_not_known_is_not_predicted() -> None:
    model = two_layers(w=np.ones((2, 2, 3, 3)), v=V)
    every = replace(model, qparams={"w": grid(0.25), "v": grid(0.5), "r": grid(0.125, signed=False)})
    blank = published(replace(model, moments={}), every)
    assert {v for found in blank.values() for v in vars(found).values()} == {None}
    plain = published(model, model)
    assert {v for found in plain.values() for v in vars(found).values()} == {None}
