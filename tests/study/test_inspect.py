"""What inspect says of a network worked out by hand."""

from typing import Any

import numpy as np
import pytest

from equint import inspect
from handwritten import network

W = np.zeros((4, 3, 1, 1), np.float32)
W[:, 0, 0, 0] = [1.0, 0.5, 0.25, 0.0]


def test_layers_groups_and_borders() -> None:
    body = "h = Conv(x, w) r = Relu(h) s = Conv(r, v) y = Softmax(s)"
    found = inspect(network(body, w=W, v=np.ones((2, 4, 1, 1), np.float32)), input=(0, 1))
    first, second = found["layers"]
    assert (first["channels"], first["dead"], first["spread"]) == (4, 1, pytest.approx(4.0))
    assert first["overlap_ratio"] == pytest.approx((1 + 0.5 + 0.25 + 0) / 4)
    assert second["overlap_ratio"] == 1.0  # both channels' ranges are the single point 1
    (group,) = found["groups"]
    assert (group["channels"], group["givers"], group["takers"]) == (4, ["h"], ["s"])
    assert set(group["tensors"]) == {"h", "r"}
    assert found["borders"] == {"Softmax": ["y"]}
    assert "Softmax" in found["pinned"]["s"]


def test_targets_that_clamp_per_channel_free_what_reaches_the_bound() -> None:
    consts: dict[str, Any] = {"w": 100 * np.ones((4, 3, 1, 1)), "low": 0.0, "high": 6.0, "v": np.ones((2, 4, 1, 1))}
    proto = network("h = Conv(x, w) r = Clip(h, low, high) y = Conv(r, v)", **consts)
    assert inspect(proto, "per-tensor", input=(0, 1))["groups"] == []
    (group,) = inspect(proto, "per-tensor-clip", input=(0, 1))["groups"]
    assert (group["channels"], group["clips"]) == (4, ["r"])
