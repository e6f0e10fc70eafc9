"""Joins of ranges that differ much tie no grids, and what a grid does not resolve is named."""

from typing import Any

import numpy as np
import pytest

import equint
from equint.graph.ties import joins_apart
from equint.ir.events import EventKind
from equint.ir.model import Graph, Node, Range
from equint.onnx.qdq import export
from handwritten import Array, execute, network, normal

BOXES, SCORES = 4, 6
HEAD: dict[str, Any] = {
    "w": normal(16, 3, 3, 3),
    "v": normal(BOXES, 16, 1, 1, scale=15),
    "b": np.array([320.0, 320, 100, 100]),
    "u": normal(SCORES, 16, 1, 1, seed=2),
}
BODY = "a = Conv <pads = [1, 1, 1, 1]> (x, w) r = Relu(a) boxes = Conv(r, v, b) l = Conv(r, u) scores = Sigmoid(l)"
JOINS = {
    "at once": "y = Concat <axis = 1> (boxes, scores)",
    "behind moves": "p = Reshape(boxes, s) q = Reshape(scores, s) y = Concat <axis = 1> (p, q)",
    "moved afterwards": "j = Concat <axis = 1> (boxes, scores) t = Reshape(j, s) y = Transpose <perm = [0, 2, 1]> (t)",
    "twice": """
        j = Concat <axis = 1> (boxes, scores) t = Reshape(j, s) y = Concat <axis = 2> (t, t)
    """,
}


def images(count: int, seed: int = 0) -> Array:
    return normal(count, 3, 8, 8, seed=seed, scale=1)


def sqnr(wanted: Array, found: Array) -> float:
    return float(10 * np.log10(np.square(wanted).sum() / np.square(wanted - found).sum()))


def scores_of(y: Array) -> Array:
    axis = next(d for d, n in enumerate(y.shape) if n == BOXES + SCORES)
    return np.asarray(np.take(y, range(BOXES, BOXES + SCORES), axis))


@pytest.mark.parametrize("how", JOINS)
@pytest.mark.parametrize("target", ["per-channel", "npu-shift"])
def test_scores_live_beside_boxes(how: str, target: str) -> None:
    """On the boxes' grid every score would be 0: a step there is more than 2."""
    proto = network(f"{BODY} {JOINS[how]}", output="float[] y", s=[0, -1, 64] if "s)" in JOINS[how] else [0], **HEAD)
    result = equint.quantize(proto, "lwq" if target == "per-channel" else None, target, data=images(32))
    x = images(8, seed=9)
    wanted, found = execute(proto, x)[0], execute(result.proto, x)[0]
    assert sqnr(scores_of(wanted), scores_of(found)) > 25
    assert sqnr(wanted, found) > 25
    assert not [e for e in result.warnings if e.kind is EventKind.SPREAD_BELOW_STEP]


def reach(**widths: float) -> dict[str, Range]:
    return {name: Range(np.zeros(1), np.full(1, width)) for name, width in widths.items()}


JOIN = Node("Concat", ("a", "b"), ("y",), {"axis": 1})
RESULT = Graph((JOIN,), {}, ("a", "b"), ("y",))
READ = Node("Conv", ("y", "w"), ("z",))


@pytest.mark.parametrize(("width", "apart"), [(7.9, set()), (8.0, {"y"}), (640.0, {"y"})])
def test_at_a_result_what_would_lose_three_bits_keeps_its_grid(width: float, apart: set[str]) -> None:
    assert joins_apart(RESULT, reach(a=1, b=width)) == apart


def test_inside_only_what_others_read_too_keeps_its_grid() -> None:
    """One grid of width 10: noise 100 where a is read by another, and 100 in the join. Its own: 1, and 1 + 100."""
    weight = {"w": np.ones((1, 2, 1, 1), np.float32)}
    inside = Graph((JOIN, READ), weight, ("a", "b"), ("z",))
    other = Graph((JOIN, READ, Node("Conv", ("a", "w"), ("c",))), weight, ("a", "b"), ("z", "c"))
    assert joins_apart(inside, reach(a=1, b=10)) == set()
    assert joins_apart(other, reach(a=1, b=10)) == {"y"}
    assert joins_apart(other, reach(a=1, b=4)) == set()


def test_inside_inputs_are_rounded_again_on_the_join_s_grid() -> None:
    body = """
        a = Conv <pads = [1, 1, 1, 1]> (x, w) b = Conv <pads = [1, 1, 1, 1]> (x, v) j = Concat <axis = 1> (a, b)
        k = Conv(j, u) l = Conv(a, t) y = Add(k, l)
    """
    consts: dict[str, Any] = {"w": normal(4, 3, 3, 3), "v": 40 * normal(4, 3, 3, 3, seed=2)}
    proto = network(body, u=normal(4, 8, 1, 1), t=120 * normal(4, 4, 1, 1), **consts)
    result = equint.quantize(proto, "lwq", "per-tensor", data=images(32))
    grids = result.model.qparams
    assert result.model.apart == {"j"}
    assert float(grids["a"].scale) < float(grids["j"].scale) / 4
    x = images(8, seed=9)
    assert sqnr(execute(proto, x)[0], execute(result.proto, x)[0]) > 30


def test_channels_that_one_grid_does_not_resolve_are_named() -> None:
    """A convolution that makes boxes and scores at once has one grid for both: nothing can help, but it is said."""
    w = np.concatenate([200 * normal(2, 3, 1, 1), 0.1 * normal(3, 3, 1, 1)])
    result = equint.quantize(network("y = Conv(x, w)", w=w), "lwq", "per-channel", data=images(32))
    (found,) = (e for e in result.warnings if e.kind is EventKind.SPREAD_BELOW_STEP)
    y = execute(network("y = Conv(x, w)", w=w), images(32))[0]
    step = float(result.model.qparams["y"].scale)
    assert found.at == "y"
    assert found.facts["channels"] == int(np.sum(np.ptp(y, (0, 2, 3)) < step)) == 3


PARTS = "a = Conv(x, w) r = Relu(a) b, c = Split <axis = 1> (r, s)"


def named(proto: Any) -> tuple[list[Any], Any]:
    """The warnings of steps that resolve nothing, and the grid of r."""
    result = equint.quantize(proto, "lwq", "per-channel", data=images(32))
    events = [e for e in result.warnings if e.kind is EventKind.SPREAD_BELOW_STEP]
    return events, result.model.qparams["r"]


def test_a_part_that_its_grid_does_not_resolve_is_named() -> None:
    w = np.concatenate([200 * normal(2, 3, 1, 1), 0.1 * normal(2, 3, 1, 1)])
    proto = network(f"{PARTS} d = Conv(b, v) e = Conv(c, v) y = Add(d, e)", w=w, s=[2, 2], v=normal(3, 2, 1, 1))
    assert [e.at for e in named(proto)[0]] == ["c"]


MOVED = "a = Conv(x, w) r = Relu(a) t = Transpose <perm = [0, 2, 3, 1]> (r) b, c = Split <axis = 3> (t, s)"


@pytest.mark.parametrize("how", [PARTS, MOVED])
@pytest.mark.parametrize(("weak", "names"), [(0.1, ["c"]), (0.4, ["c"]), (8.0, []), (200.0, []), (0.0, [])])
def test_a_part_that_floats_read_is_named_too(how: str, weak: float, names: list[str]) -> None:
    """Neither part is an integer tensor itself; its values lie on the grid of the layer all the same."""
    w = np.concatenate([200 * np.abs(normal(4, 3, 1, 1)), weak * normal(2, 3, 1, 1, seed=2)])
    proto = network(f"{how} y = Cos(c) z = Cos(b)", output="float[] y, float[] z", w=w, s=[4, 2])
    events, grid = named(proto)
    assert [e.at for e in events] == names
    values = np.maximum(np.einsum("oi,nihw->nohw", w[4:, :, 0, 0], images(32)), 0)
    lost = [np.unique(np.round(channel / grid.scale)).size <= 2 for channel in values.swapaxes(0, 1)]
    assert all(lost) == bool(names) or not weak


@pytest.mark.parametrize(("weak", "count", "names"), [(0.1, 6, ["r"]), (0.1, 3, []), (1e-5, 6, []), (40.0, 6, [])])
def test_a_clear_share_of_a_layer_s_channels_is_named(weak: float, count: int, names: list[str]) -> None:
    """Six of ten channels below a step; not three of ten, and none that are as good as constant."""
    w = np.concatenate([200 * normal(10 - count, 3, 1, 1), weak * normal(count, 3, 1, 1, seed=2)])
    proto = network("a = Conv(x, w) r = Relu(a) y = Conv(r, v)", w=w, v=normal(3, 10, 1, 1))
    assert [e.at for e in named(proto)[0] if e.at != "y"] == names


def test_the_exported_join_is_float() -> None:
    proto = network(f"{BODY} {JOINS['at once']}", output="float[] y", s=[0], **HEAD)
    model = equint.quantize(proto, "lwq", "per-channel", data=images(32)).model
    assert {"boxes", "scores"} <= model.qparams.keys()
    assert "y" not in model.qparams
    (join,) = (n for n in export(model).graph.node if n.op_type == "Concat")
    assert list(join.input) == ["boxes", "scores"]
    assert list(join.output) == ["y"]
