"""Heads cut apart: the same results, by onnxruntime; scores live beside boxes that reach hundreds of times further."""

from typing import Any

import numpy as np
import pytest

import equint
from equint.integers.engine import Engine
from equint.ir.model import Graph
from equint.onnx.reader import read
from equint.onnx.writer import to_proto
from equint.ops.layers import layers
from handwritten import Array, assert_same, execute, network, normal

BODY = "a = Conv <pads = [1, 1, 1, 1]> (x, f) r = Relu(a)"
ONE = "c = Conv(r, w, b)"
SPLIT = "boxes, raw = Split <axis = 1> (c, sizes) scores = Sigmoid(raw)"
SLICES = "boxes = Slice(t, zero, four, last) raw = Slice(t, four, seven, last) scores = Sigmoid(raw)"
ANCHORS = "q = Reshape(c, anchors) t = Transpose <perm = [0, 1, 3, 4, 2]> (q)"
ENTRIES = """
    boxes = Slice(t, zero, four, last) raw = Slice(t, five, seven, last) object = Gather <axis = -1> (t, entry)
    scores = Sigmoid(raw)
"""
SIZES: dict[str, Any] = {
    name: np.array(value, np.int64)
    for name, value in {
        "sizes": [4, 3],
        "zero": [0],
        "one": [1],
        "four": [4],
        "five": [5],
        "seven": [7],
        "last": [-1],
        "rows": [0, -1, 7],
        "anchors": [0, 2, 7, 8, 8],
        "flat": [0, 7, -1],
        "entry": 4,
        "front": [0, 1, 2, 3],
        "back": [4, 5, 6],
        "turned": [6, 5, 4],
        "first": [0],
        "second": [2],
        "third": [3],
        "two": [2],
        "size": [7],
    }.items()
}
HEADS = {
    "split": f"{ONE} {SPLIT}",
    "gathers": f"{ONE} boxes = Gather <axis = 1> (c, front) raw = Gather <axis = 1> (c, back) scores = Sigmoid(raw)",
    "transposed and reshaped": f"{ONE} u = Transpose <perm = [0, 2, 3, 1]> (c) t = Reshape(u, rows) {SLICES}",
    "reshaped and transposed": f"{ONE} u = Reshape(c, flat) t = Transpose <perm = [0, 2, 1]> (u) {SLICES}",
    "by anchors": f"{ONE} {ANCHORS} {SLICES}",
    "by anchors, in one row": f"{ONE} {ANCHORS.replace('t =', 'u =')} t = Reshape(u, rows) {SLICES}",
    "transposed convolution": f"c = ConvTranspose(r, w, b) {SPLIT}",
    "matrix product": f"m = Transpose <perm = [0, 2, 3, 1]> (r) n = MatMul(m, w) t = Add(n, b) {SLICES}",
    "product of vectors": f"g = GlobalMaxPool(r) h = Flatten(g) c = Gemm <transB = 1> (h, w, b) {SPLIT}",
}


def head(how: str, far: float = 300.0, anchors: int = 1) -> Any:
    """A network of one head, or of what is given, that makes, for each anchor, four boxes and three scores."""
    w, b = normal(7, 8, seed=3), normal(7, seed=4, scale=0.3)
    w[:4] *= far
    w, b = np.tile(w, (anchors, 1)) * (1 + 0.1 * normal(7 * anchors, 8, seed=5)), np.tile(b, anchors)
    shape = {"matrix": (), "product": ()}.get(how.split()[0], (1, 1))
    w = w.T if how.startswith(("matrix", "transposed conv")) else w
    consts: dict[str, Any] = {"f": normal(8, 3, 3, 3), "w": w.reshape(*w.shape, *shape), "b": b, **SIZES}
    outputs = "float[] boxes, float[] scores" + (", float[] object" if "object" in HEADS.get(how, how) else "")
    inputs = "float[N,3,H,W] x" if "Shape" in HEADS.get(how, how) else "float[N,3,8,8] x"
    return network(f"{BODY} {HEADS.get(how, how)}", inputs=inputs, output=outputs, **consts)


HEADS["one entry alone"] = f"{ONE} u = Transpose <perm = [0, 2, 3, 1]> (c) t = Reshape(u, rows) {ENTRIES}"


COMPUTED = """
    h = Shape(c) i0 = Gather(h, first) i2 = Gather(h, second) i3 = Gather(h, third)
    k = Concat <axis = 0> (i0, two, size, i2, i3) q = Reshape(c, k) t = Transpose <perm = [0, 1, 3, 4, 2]> (q)
"""
HEADS["by anchors, sizes computed"] = f"{ONE} {COMPUTED} {SLICES}"


def anchors_of(how: str) -> int:
    return 2 if "anchors" in how else 1


def widths(graph: Graph) -> list[int]:
    """Output channels of the layers behind the first."""
    return [la.channels(graph.consts[la.weight])[1] for la in list(layers(graph))[1:]]


def sqnr(wanted: Array, found: Array) -> float:
    """Of what differs from the mean: a constant is worth nothing."""
    return float(10 * np.log10(np.square(wanted - wanted.mean()).sum() / np.square(wanted - found).sum()))


@pytest.mark.parametrize("how", HEADS)
def test_each_part_has_a_layer_and_results_stay(how: str) -> None:
    proto = head(how, anchors=anchors_of(how))
    graph = read(proto).graph
    parts = [4, 3] if "one entry" not in how else [4, 2, 1]
    assert sorted(widths(graph)) == sorted(n * anchors_of(how) for n in parts)
    assert not {"Split", "Slice"} & {node.op for node in graph.nodes}
    assert_same(proto, to_proto(graph), tolerance=1e-6)


def test_levels_joined_before_they_are_cut() -> None:
    """Two heads, their positions behind one another, and only then boxes, one entry and scores."""
    levels = """
        c = Conv(r, w, b) u = Transpose <perm = [0, 2, 3, 1]> (c) l = Reshape(u, rows)
        m = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r) d = Conv(m, w, b)
        v = Transpose <perm = [0, 2, 3, 1]> (d) k = Reshape(v, rows)
        t = Concat <axis = 1> (l, k)
    """
    proto = head(f"{levels} {ENTRIES}")
    graph = read(proto).graph
    assert sorted(widths(graph)) == [1, 1, 2, 2, 4, 4]
    assert_same(proto, to_proto(graph), tolerance=1e-6)
    x = normal(8, 3, 8, 8, seed=9, scale=1)
    quantized = equint.quantize(proto, target="npu-shift", data=normal(32, 3, 8, 8, scale=1))
    assert min(sqnr(a, b) for a, b in zip(execute(proto, x), execute(quantized.proto, x), strict=True)) > 20


@pytest.mark.parametrize("target", ["per-channel", "per-tensor", "npu-shift"])
@pytest.mark.parametrize("how", HEADS)
def test_scores_live_beside_boxes(how: str, target: str) -> None:
    """On one grid with the boxes every score is the same number."""
    proto, x = head(how, anchors=anchors_of(how)), normal(8, 3, 8, 8, seed=9, scale=1)
    result = equint.quantize(proto, target=target, data=normal(32, 3, 8, 8, scale=1))
    wanted, found = execute(proto, x), execute(result.proto, x)
    assert min(sqnr(a, b) for a, b in zip(wanted, found, strict=True)) > 20
    assert not result.warnings


@pytest.mark.parametrize("how", ["split", "by anchors", "transposed and reshaped"])
def test_programs_make_the_same_parts(how: str) -> None:
    body = HEADS[how].replace("scores = Sigmoid(raw)", "").replace("raw", "scores")
    proto, x = head(body, anchors=anchors_of(how)), normal(8, 3, 8, 8, seed=9, scale=1)
    found = Engine(equint.quantize(proto, target="npu-shift", data=normal(32, 3, 8, 8, scale=1)).program).real(x)
    for name, wanted in zip(("boxes", "scores"), execute(proto, x), strict=True):
        assert sqnr(wanted, found[name]) > 20


WHOLE = {
    "channels counted": f"{ONE} {SPLIT} h = Shape(c) object = Cast <to = 1> (h)",
    "read whole too": f"{ONE} {SPLIT} object = Relu(c)",
    "a result itself": f"object = Conv(r, w, b) {SPLIT.replace('(c,', '(object,')}",
    "parts that overlap": f"{ONE} boxes = Slice(c, zero, five, one) raw = Slice(c, four, seven, one)"
    " scores = Sigmoid(raw)",
    "cut along rows": f"{ONE} boxes = Slice(c, zero, four, last) raw = Slice(c, four, seven, last)"
    " scores = Sigmoid(raw)",
    "an activation between": f"{ONE} t = Relu(c) {SPLIT.replace('(c,', '(t,')}",
    "taken backwards": f"{ONE} boxes = Gather <axis = 1> (c, front) raw = Gather <axis = 1> (c, turned)"
    " scores = Sigmoid(raw)",
}


@pytest.mark.parametrize("how", WHOLE)
def test_what_is_not_cut_into_parts_stays_whole(how: str) -> None:
    proto = head(WHOLE[how])
    graph = read(proto).graph
    assert widths(graph) == [7]
    assert_same(proto, to_proto(graph), tolerance=1e-6)


@pytest.mark.parametrize(("far", "parts"), [(1.0, 1), (4.0, 1), (30.0, 2)])
def test_parts_that_reach_alike_share_their_layer(far: float, parts: int) -> None:
    assert len(widths(read(head("split", far)).graph)) == parts
