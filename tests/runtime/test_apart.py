"""Networks whose ranks onnxruntime infers wrongly: it runs them, but loads nothing beside them that counts axes."""

import numpy as np
import pytest
from onnx import ModelProto

from equint.errors import EquintError
from equint.ir.model import Graph
from equint.onnx.reader import read, with_shapes
from equint.planning.data import looked_at
from equint.runtime.apart import Measuring
from equint.runtime.collect import collect
from equint.runtime.first_run import first_run
from equint.samples.images import Samples
from handwritten import execute, network, normal

X = normal(6, 3, 8, 8, scale=1)


def shrinking() -> ModelProto:
    """A transposed convolution whose output is smaller than its input, and whose weights are computed."""
    body = """
        m = GlobalAveragePool(x) s = ReduceMean <keepdims = 0> (m) v = Mul(w, s)
        a = ConvTranspose <output_shape = [5, 6]> (x, v) y = Sin(a)
    """
    proto = network(body, inputs="float[1,3,8,8] x", output="float[] y", w=normal(3, 4, 3, 3, scale=30))
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    return proto


def seen(proto: ModelProto) -> Graph:
    model = read(proto)
    found = first_run(model.graph, X)
    return with_shapes(model, found.shapes, found.settled).graph


@pytest.mark.parametrize("histograms", [False, True])
def test_they_are_measured(histograms: bool) -> None:
    graph = seen(shrinking())
    assert graph.shapes["y"] == (1, 4, 5, 6)
    found = collect(graph, Samples.of(X), histograms=histograms).tensors["y"]
    y = np.concatenate([execute(shrinking(), x[None])[0] for x in X])
    np.testing.assert_allclose(found.low, y.min((0, 2, 3)), atol=1e-5)
    np.testing.assert_allclose(found.high, y.max((0, 2, 3)), atol=1e-5)
    np.testing.assert_allclose(found.total / found.count, y.mean((0, 2, 3)), atol=1e-5)
    np.testing.assert_allclose(found.square / found.count, np.square(y).mean((0, 2, 3)), rtol=1e-4)


def test_a_made_up_sample_tells_their_ranks() -> None:
    model, _ = looked_at(read(shrinking()), None, None, None)
    assert model.graph.shapes["y"] == (1, 4, 5, 6)


def test_a_network_that_does_not_load_is_refused() -> None:
    graph = read(network("y = Relu(x)")).graph
    (node,) = graph.nodes
    wrong = graph.with_nodes([type(node)("NoSuchOperator", node.inputs, node.outputs)])
    with pytest.raises(EquintError, match="onnxruntime cannot load it"):
        Measuring(wrong, ())
