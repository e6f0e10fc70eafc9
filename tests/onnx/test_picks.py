"""Picks of a join's parts read the parts: the same results, by onnxruntime, and no join where none is needed."""

from typing import Any

import numpy as np
import pytest

import equint
from equint.onnx.reader import read
from equint.onnx.writer import to_proto
from handwritten import execute, network, normal

JOIN = "a = Conv(x, v) b = Conv(x, w) c = Concat <axis = 1> (a, b)"
SPLIT = "d, e = Split <axis = 1> (c, s)"
GATHER = "d = Gather <axis = 1> (c, p) e = Gather <axis = 1> (c, q)"


def weights() -> dict[str, Any]:
    return {"v": 60 * normal(4, 3, 1, 1), "w": normal(3, 3, 1, 1)}


@pytest.mark.parametrize(
    ("picks", "left", "consts"),
    [
        (SPLIT, 0, {"s": [4, 3]}),
        (SPLIT, 1, {"s": [3, 4]}),
        ("d = Slice(c, z, f, o) e = Slice(c, f, t, o)", 0, {"z": [0], "f": [4], "t": [7], "o": [1]}),
        ("d = Slice(c, z, f, o) e = Slice(c, f, t, o)", 0, {"z": [0], "f": [4], "t": [2**31 - 1], "o": [-3]}),
        ("d = Slice(c, z, f, o) e = Slice(c, f, t, o)", 1, {"z": [1], "f": [4], "t": [7], "o": [1]}),
        ("d = Slice(c, z, f, o) e = Slice(c, f, t, o)", 1, {"z": [0], "f": [2], "t": [4], "o": [2]}),
        (GATHER, 0, {"p": [0, 1, 2, 3], "q": [4, 5, 6]}),
        (GATHER, 1, {"p": [0, 1, 2, 3], "q": [6, 5, 4]}),
    ],
    ids=[
        *("split", "split elsewhere", "slice", "slice to the end", "slice elsewhere", "slice along another axis"),
        *("gather", "gather in another order"),
    ],
)
def test_picks_of_whole_parts_need_no_join(picks: str, left: int, consts: dict[str, list[int]]) -> None:
    body = f"{JOIN} {picks} y = Sigmoid(d) r = Relu(e)"
    held: dict[str, Any] = {k: np.array(v, np.int64) for k, v in consts.items()}
    proto = network(body, inputs="float[N,3,4,4] x", output="float[] y, float[] r", **weights(), **held)
    graph = read(proto).graph
    assert sum(node.op == "Concat" for node in graph.nodes) == left
    x = normal(2, 3, 4, 4)
    for found, wanted in zip(execute(to_proto(graph), x), execute(proto, x), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)


def test_scores_behind_a_joined_head_stay_alive() -> None:
    """Boxes reach sixty times further than scores; levels are joined along another axis, and then split."""
    levels = (
        "a = Conv(x, v) b = Conv(x, w) c = Concat <axis = 1> (a, b) r = Reshape(c, h)"
        " k = Concat <axis = 2> (r, r) boxes, raw = Split <axis = 1> (k, s) scores = Sigmoid(raw)"
        " y = Concat <axis = 1> (boxes, scores)"
    )
    sizes: dict[str, Any] = {"h": np.array([0, 7, -1], np.int64), "s": np.array([4, 3], np.int64)}
    proto = network(levels, inputs="float[N,3,8,8] x", output="float[] y", **weights(), **sizes)
    x = normal(4, 3, 8, 8, scale=1.0)
    quantized = equint.quantize(proto, "cwq", "per-channel", data=normal(16, 3, 8, 8, scale=1.0))
    (found,), (wanted,) = execute(quantized.proto, x), execute(proto, x)
    scores = slice(4, 7)
    off = np.square(found[:, scores] - wanted[:, scores]).mean() / wanted[:, scores].var()
    assert -10 * np.log10(off) > 20
