"""Masks that no number can hold a square of: what Softmax makes of them stays, and networks with them are quantized."""

from typing import Any

import numpy as np
import pytest

import equint
from equint.maths.noise import sqnr_db
from equint.onnx.masks import MASKED
from equint.onnx.reader import read
from equint.onnx.writer import to_proto
from handwritten import execute, network, normal

LEAST = float(np.finfo(np.float32).min)
BODY = """q = MatMul(x, w) k = MatMul(x, v) t = Transpose <perm = [0, 2, 1]> (k) s = MatMul(q, t)
          z = {masked} p = Softmax(z) y = MatMul(p, q)"""
WAYS = {"added": "Add(s, m)", "chosen": "Where(c, s, m)"}


def attention(way: str, value: float) -> Any:
    causal = np.triu(np.ones((6, 6), bool), 1)
    m = np.where(causal, np.float32(value), np.float32(0)) if way == "added" else np.float32(value)
    consts: dict[str, Any] = {"w": normal(8, 8), "v": normal(8, 8, seed=1), "m": m, "c": ~causal}
    return network(BODY.format(masked=WAYS[way]), inputs="float[N,6,8] x", output="float[N,6,8] y", **consts)


@pytest.mark.parametrize("value", [-np.inf, LEAST, -1e9])
@pytest.mark.parametrize("way", WAYS)
def test_what_is_hidden_stays_hidden(way: str, value: float) -> None:
    proto, x = attention(way, value), normal(32, 6, 8, seed=2)
    model = read(proto)
    assert float(model.graph.consts["m"].min()) == MASKED

    (wanted,), (found,) = execute(proto, x), execute(to_proto(model.graph), x)
    np.testing.assert_array_equal(found, wanted)
    for data in (x, None):
        result = equint.quantize(proto, data=data, input=(float(x.min()), float(x.max())), effort="fast")
        assert sqnr_db(wanted, execute(result.proto, x)[0]) > 15


def test_other_constants_stay_as_they_are() -> None:
    proto = network("z = Add(x, m) y = Conv(z, w)", w=normal(4, 3, 3, 3), m=np.full((1, 3, 1, 1), -1e6, np.float32))
    assert float(read(proto).graph.consts["m"].min()) == -1e6


@pytest.mark.parametrize(("value", "what"), [(-np.inf, "where -inf masks, give -10000"), (np.nan, "remove those")])
def test_masks_among_samples_are_refused_with_what_to_give(value: float, what: str) -> None:
    body = BODY.format(masked="Add(s, m)")
    inputs = "float[N,6,8] x, float[N,6,6] m"
    proto = network(body, inputs=inputs, output="float[N,6,8] y", w=normal(8, 8), v=normal(8, 8, seed=1))
    masks = np.where(np.triu(np.ones((32, 6, 6), bool), 1), np.float32(value), np.float32(0))
    with pytest.raises(equint.EquintError, match=what):
        equint.quantize(proto, data={"x": normal(32, 6, 8, seed=2), "m": masks})
