"""Overlap ratio and quantization error against literal loops and numbers worked out by hand."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

import equint
from equint.ir.model import Model, QParams, QSpec
from equint.onnx.qdq import export
from equint.ops.layers import layers
from equint.passes.quantize import Quantize
from equint.passes.weight_shift import WeightShift
from equint.study.weights import WeightFit, channel_ends, kind_of, mean_of, weight_fits
from handwritten import network

BODY = """
h = Conv (x, w)
d = Conv <group = 4> (h, v)
s = Conv (d, p)
g = GlobalAveragePool (s)
f = Flatten (g)
y = Gemm (f, m)
"""


def model(seed: int = 0) -> Model:
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> Any:
        spread = rng.lognormal(0, 2, (shape[0], *[1] * (len(shape) - 1)))
        return (rng.normal(size=shape) * spread).astype(np.float32)

    consts = {"w": draw(4, 3, 3, 3), "v": draw(4, 1, 3, 3), "p": draw(6, 4, 1, 1), "m": draw(2, 6).T.copy()}
    return equint.load(network(BODY, output="float[N,2] y", **consts))


def own(found: Model, granularity: Any) -> list[WeightFit]:
    return list(weight_fits(Quantize(QSpec(8, signed=False, symmetric=False, granularity=granularity), None)(found)))


def test_kinds() -> None:
    graph = model().graph
    found = [kind_of(layer, graph.consts[layer.weight]) for layer in layers(graph)]
    assert found == ["other", "depthwise", "pointwise", "pointwise"]


def test_a_grouped_convolution_with_several_inputs_is_other() -> None:
    w = np.ones((4, 2, 1, 1), np.float32)
    graph = equint.load(network("y = Conv <group = 2> (x, w)", inputs="float[N,4,8,8] x", w=w)).graph
    assert [kind_of(layer, graph.consts[layer.weight]) for layer in layers(graph)] == ["other"]


def test_ends_of_a_matrix_stored_by_input() -> None:
    found = model()
    layer = list(layers(found.graph))[-1]
    m = found.graph.consts[layer.weight]
    lo, hi = channel_ends(layer, m, np.array([0, 3]))
    assert lo.tolist() == [min(m[:, 0]), 8 * min(m[:, 1])]
    assert hi.tolist() == [max(m[:, 0]), 8 * max(m[:, 1])]


def test_overlap_and_error_by_hand() -> None:
    w = np.array([[[[1.0]]], [[[-0.25]]], [[[0.3]]]], np.float32)
    found = replace(
        equint.load(network("y = Conv (x, w)", inputs="float[N,1,8,8] x", w=w)),
        qparams={
            "w": QParams(np.array(0.5, np.float32), np.array(0, np.int32), 8, True, 0, np.array([0, 2, 1], np.int32))
        },
    )
    (fit,) = weight_fits(found)
    # steps 0.5, 0.125, 0.25: only 0.3 is rounded, to 0.25; every channel is a point, so that none overlaps another
    assert (fit.kind, fit.channels, fit.weights, fit.overlap) == ("pointwise", 3, 3, 0.0)
    assert fit.error == pytest.approx(0.05**2 / 3)
    assert fit.signal == pytest.approx((1 + 0.0625 + 0.09) / 3)


@pytest.mark.parametrize("granularity", ["tensor", "channel", "shift"])
def test_error_is_that_of_the_weights_written_to_onnx(granularity: Any) -> None:
    """The oracle dequantizes the integers of the exported file with loops, channel by channel."""
    found = WeightShift(search="deterministic")(model())
    quantized = Quantize(QSpec(8, signed=False, symmetric=False, granularity=granularity), None)(found)
    consts = {i.name: numpy_helper.to_array(i) for i in export(quantized).graph.initializer}
    nodes = {n.output[0]: n for n in export(quantized).graph.node}
    fits = list(weight_fits(quantized))
    taken = [n for n in nodes.values() if n.op_type in ("Conv", "Gemm")]
    for fit, node, layer in zip(fits, taken, layers(quantized.graph), strict=True):
        maker = nodes[node.input[1]]
        q, scale, zero = (consts[i] for i in maker.input)
        axis = next((a.i for a in maker.attribute if a.name == "axis"), 0)
        total = 0.0
        weight = quantized.graph.consts[layer.weight]
        for place in np.ndindex(weight.shape):
            s, z = (v if v.ndim == 0 else v[place[axis]] for v in (scale, zero))
            total += (float(s) * (int(q[place]) - int(z)) - float(weight[place])) ** 2
        assert fit.error == pytest.approx(total / weight.size, rel=1e-4)


def test_overlap_of_shifted_weights_with_loops() -> None:
    found = WeightShift(search="deterministic")(model(3))
    for fit, layer in zip(own(found, "shift"), layers(found.graph), strict=True):
        weight = np.moveaxis(found.graph.consts[layer.weight], layer.out_axis() or 0, 0)
        ends = [
            (float(row.min()) * 2.0**s, float(row.max()) * 2.0**s)
            for row, s in zip(weight, found.shifts[layer.weight].tolist(), strict=True)
        ]
        whole = max(hi for _, hi in ends) - min(lo for lo, _ in ends)
        assert fit.overlap == pytest.approx(sum(hi - lo for lo, hi in ends) / len(ends) / whole)


def test_shifts_raise_the_overlap_and_lower_the_error() -> None:
    plain, shifted = own(model(), "tensor"), own(WeightShift(search="exact", cost="weights")(model()), "shift")
    assert all(b.error <= a.error * (1 + 1e-9) for a, b in zip(plain, shifted, strict=True))
    assert mean_of(shifted)[0] > 1.3 * mean_of(plain)[0]


def test_float_weights_are_left_out() -> None:
    assert list(weight_fits(model())) == []
