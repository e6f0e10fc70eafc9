"""What rounding in front of activations costs: told where it is much, as it measures, and only then."""

from typing import Any

import numpy as np
import pytest

import equint
from equint.ir.events import Event, EventKind
from equint.result import Result
from handwritten import Array, execute, network, normal

PARTS: dict[str, Any] = {"w": normal(8, 3, 3, 3), "v": normal(8, 8, 3, 3), "u": normal(4, 8, 1, 1)}
BODY = (
    "a = Conv <pads = [1, 1, 1, 1]> (x, w) r = {0} (a) c = Conv <pads = [1, 1, 1, 1]> (r, v) q = {0} (c) y = Conv(q, u)"
)
LEAKY = network(BODY.format("LeakyRelu <alpha = 0.01>"), **PARTS)
X = normal(24, 3, 8, 8, seed=5, scale=0.3)


def costs(result: Result) -> list[Event]:
    return [e for e in result.model.log if e.kind is EventKind.ROUNDED_IN_FRONT]


def quantized(proto: Any, **options: Any) -> Result:
    return equint.quantize(proto, "optimal", "per-channel", weight_bits=12, data=X, **options)


def decibels(result: Result, x: Array) -> float:
    (clean,), (noisy,) = execute(LEAKY, x), execute(result.proto, x)
    return float(10 * np.log10(np.sum(clean**2) / np.sum((noisy - clean) ** 2)))


def test_it_is_told_as_it_measures() -> None:
    found = quantized(LEAKY)
    (event,) = costs(found)
    assert event.facts["tensors"] == 2
    fresh = normal(64, 3, 8, 8, seed=9, scale=0.3)
    gained = decibels(quantized(LEAKY, fused_activations=True), fresh) - decibels(found, fresh)
    assert gained > 1
    assert float(event.facts["cost"]) == pytest.approx(gained, abs=1)
    assert "rounding in front of 2 activations costs" in found.summary()


@pytest.mark.parametrize(
    ("proto", "options"),
    [
        (LEAKY, {"fused_activations": True}),
        (LEAKY, {"effort": "fast"}),
        (LEAKY, {"activation_bits": "float"}),
        (network(BODY.format("Relu"), **PARTS), {}),
    ],
)
def test_it_is_told_only_then(proto: Any, options: dict[str, Any]) -> None:
    assert not costs(quantized(proto, **options))
