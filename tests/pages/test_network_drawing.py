"""The network as a graph: its boxes and edges are those of the network, its colours those of its grids and noise."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

import equint
from equint.demo import model_path
from equint.ops.layers import layers
from equint.pages.network_drawing import drawing, graph_of, share_band, share_labels
from handwritten import network, normal


def residual() -> equint.Result:
    proto = network(
        "a = Conv(x, w) r = Relu(a) b = Conv(r, v) s = Add(b, r) y = Conv(s, v2)",
        w=normal(6, 3, 1, 1),
        v=normal(6, 6, 1, 1),
        v2=normal(2, 6, 1, 1, seed=3),
    )
    return equint.quantize(proto, "cwq", input=(0, 1))


def test_boxes_and_edges_by_hand() -> None:
    """The Relu is part of its layer; the branch around the second layer is an edge of its own."""
    boxes, edges = graph_of(residual().model, ["conv 1×1"] * 3, {})
    assert [b.text for b in boxes] == ["x", "1 conv 1×1", "2 conv 1×1", "Add", "3 conv 1×1", "y"]
    assert sorted(edges) == [(0, 1), (1, 2), (1, 3), (2, 3), (3, 4), (4, 5)]
    assert [b.layer for b in boxes] == [None, 0, 1, None, 2, None]
    assert [b.form for b in boxes] == ["", "integer", "integer", "integer", "integer", ""]


def test_a_layer_without_a_grid_is_float() -> None:
    model = residual().model
    third = list(layers(model.graph))[2].weight
    bare = replace(model, qparams={n: q for n, q in model.qparams.items() if n != third})
    boxes, _ = graph_of(bare, ["conv"] * 3, {})
    assert [b.form for b in boxes if b.layer is not None] == ["integer", "integer", "float"]


def test_what_moves_integers_is_integer() -> None:
    """Between the grids of two layers nothing is computed: reshaped and turned values stay integers."""
    proto = network(
        "a = Conv(x, w) s = Reshape(a, k) t = Transpose <perm = [0, 2, 1, 3, 4]> (s) u = Reshape(t, m) y = Conv(u, v)",
        w=normal(6, 3, 1, 1),
        k=np.array([1, 2, 3, 8, 8]),
        m=np.array([1, 6, 8, 8]),
        v=normal(2, 6, 1, 1),
    )
    boxes, _ = graph_of(equint.quantize(proto, "cwq", input=(0, 1)).model, ["conv"] * 2, {})
    assert {b.text: b.form for b in boxes if b.text in ("Reshape", "Transpose")} == dict.fromkeys(
        ("Reshape", "Transpose"), "integer"
    )


def test_noise_stands_where_it_enters() -> None:
    """Of a layer's weights at its sums, and of its output behind the activation that is part of it."""
    model = residual().model
    first = next(iter(layers(model.graph))).y
    boxes, _ = graph_of(model, ["conv"] * 3, {first: 0.25, model.graph.users(first)[0].outputs[0]: 0.125})
    assert [b.share for b in boxes] == [0.0, 0.375, 0.0, 0.0, 0.0, 0.0]


def test_bands_have_labels() -> None:
    assert [share_band(s) for s in (0.0, 0.0099, 0.01, 0.199, 1.0)] == [0, 0, 1, 4, 5]
    assert len(share_labels()) == 6


def test_every_layer_can_be_chosen_in_the_drawing() -> None:
    model = equint.quantize(model_path(), "cwq", input=(0, 1)).model
    count = len(list(layers(model.graph)))
    drawn = drawing(model, ["<conv>"] * count, {})
    assert sorted(map(int, re.findall(r'data-layer="(\d+)"', drawn))) == list(range(count))
    assert "<conv>" not in drawn
