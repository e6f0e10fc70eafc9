"""The random networks are valid, run, and among them have everything that the other tests rely on."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from onnx import numpy_helper

from nets import ACTIVATIONS, BLOCKS, HEADS, Net, networks, random_network, run, sample

PLAIN = """
Add AveragePool BatchNormalization Clip Concat Conv ConvTranspose Flatten Gemm GlobalAveragePool HardSigmoid
HardSwish LeakyRelu MatMul MaxPool Mul PRelu Pad ReduceMean Relu Reshape Resize Sigmoid Split Transpose
depthwise grouped strided dilated unpadded dead shared 1-D
"""


def check(model: onnx.ModelProto) -> None:
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    (y,) = run(model, sample(model))
    assert y.shape[0] == 2
    assert np.isfinite(y).all()
    assert np.abs(y).max() < 1000


def features(model: onnx.ModelProto) -> set[str]:
    """Operators, and names for the shapes and constellations that deserve a test."""
    found = {node.op_type for node in model.graph.node}
    weights = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    uses = [name for node in model.graph.node for name in node.input]
    found |= {"several consumers" for name in uses if name not in weights and uses.count(name) > 1}
    for node in model.graph.node:
        if node.op_type == "Conv":
            w = weights[node.input[1]]
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            rows = np.abs(w).max(tuple(range(1, w.ndim)))
            pads = np.array(attributes["pads"]).reshape(2, -1)
            found |= {
                name
                for name, true in {
                    "1-D": w.ndim == 3,
                    "depthwise": attributes["group"] > 1 and w.shape[1] == 1,
                    "grouped": attributes["group"] > 1 and w.shape[1] > 1,
                    "strided": max(attributes["strides"]) > 1,
                    "dilated": max(attributes["dilations"]) > 1,
                    "unpadded": w[0, 0].size > 1 and not pads.any(),
                    "unevenly padded": bool((pads[0] != pads[1]).any()),
                    "not square": len({*w.shape[2:]}) > 1,
                    "no bias": len(node.input) == 2,
                    "dead": rows.min() == 0,
                    "nearly dead": 0 < rows.min() < 1e-7,
                    "shared": uses.count(node.input[1]) > 1,
                }.items()
                if true
            }
        if node.op_type == "BatchNormalization":
            gamma, variance = weights[node.input[1]], weights[node.input[4]]
            found |= {"negative gamma"} if gamma.min() < 0 else set()
            found |= {"zero gamma"} if (gamma == 0).any() else set()
            found |= {"tiny gamma"} if (0 < np.abs(gamma)[gamma != 0].min(initial=1) < 1e-4) else set()
            found |= {"spread variance"} if variance.max() > 100 * variance.min() else set()
    return found


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(networks())
def test_networks_run(model: onnx.ModelProto) -> None:
    check(model)


@settings(max_examples=10, deadline=None)
@given(networks(calibrated=True))
def test_calibrated_networks_run(model: onnx.ModelProto) -> None:
    check(model)


@pytest.mark.slow
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("rank", [1, 2])
def test_every_block_runs(block: str, rank: int) -> None:
    for seed in range(5):
        check(random_network(seed, blocks=[block], count=(1, 3), ranks=[rank]))


@pytest.mark.slow
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("head", HEADS)
def test_every_head_and_activation_runs(head: str, activation: str) -> None:
    check(random_network(0, heads=[head], activations=[activation]))


def test_seeds_are_reproducible() -> None:
    assert random_network(3).SerializeToString() == random_network(3).SerializeToString()
    assert random_network(3).SerializeToString() != random_network(4).SerializeToString()


@pytest.mark.slow
def test_networks_have_all_features() -> None:
    expected = set(PLAIN.split())
    expected |= {"several consumers", "unevenly padded", "not square", "no bias", "nearly dead"}
    expected |= {"negative gamma", "zero gamma", "tiny gamma", "spread variance"}
    assert expected <= set().union(*(features(random_network(seed)) for seed in range(100)))


def test_calibrated_statistics_are_true() -> None:
    net = Net(seed=1, calibrated=True)
    x = net.batchnorm(net.conv(net.input, 8))
    gamma, beta = (numpy_helper.to_array(net.constants[name]) for name in net.nodes[-1].input[1:3])
    model = net.build(x)
    (y,) = run(model, sample(model, n=64))
    np.testing.assert_allclose(y.mean((0, 2, 3)), beta, atol=1e-4)
    np.testing.assert_allclose(y.std((0, 2, 3)), np.abs(gamma), atol=1e-4)
