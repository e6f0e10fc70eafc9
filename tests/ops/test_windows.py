"""What taps meet, against what onnxruntime computes of it."""

import numpy as np
import pytest

from equint.ir.model import Array, Node
from equint.onnx.reader import read
from equint.ops.layers import layers
from equint.ops.windows import OUTSIDE, Windows, met, share_met
from handwritten import execute, network, normal

IMAGE = "float[N,4,7,6] x"
CASES = {
    "plain": ("Conv", "", (5, 4, 3, 2)),
    "padded": ("Conv", "pads = [1, 0, 2, 1]", (5, 4, 3, 2)),
    "strided": ("Conv", "strides = [2, 3], pads = [1, 1, 1, 1]", (5, 4, 3, 3)),
    "dilated": ("Conv", "dilations = [2, 1], pads = [2, 1, 2, 1]", (5, 4, 3, 3)),
    "grouped": ("Conv", "group = 2, pads = [1, 1, 1, 1]", (6, 2, 3, 3)),
    "depthwise": ("Conv", "group = 4, strides = [2, 2]", (4, 1, 3, 3)),
    "same": ("Conv", 'auto_pad = "SAME_UPPER", strides = [2, 2]', (5, 4, 3, 3)),
    "same, the other way": ("Conv", 'auto_pad = "SAME_LOWER", strides = [2, 2]', (5, 4, 2, 2)),
    "valid": ("Conv", 'auto_pad = "VALID"', (5, 4, 3, 3)),
    "transposed": ("ConvTranspose", "", (4, 5, 3, 2)),
    "transposed, strided": ("ConvTranspose", "strides = [2, 3], pads = [1, 0, 0, 1]", (4, 5, 3, 4)),
    "transposed, grouped": ("ConvTranspose", "strides = [2, 2], group = 2, dilations = [2, 1]", (4, 3, 2, 3)),
    "transposed, longer": ("ConvTranspose", "strides = [3, 2], output_padding = [1, 1]", (4, 5, 2, 2)),
    "transposed, same": ("ConvTranspose", 'strides = [2, 2], auto_pad = "SAME_UPPER"', (4, 5, 3, 3)),
    "transposed, of a size": ("ConvTranspose", "strides = [2, 2], output_shape = [14, 13]", (4, 5, 3, 3)),
}


def products(body: str, inputs: str, x: Array, w: Array, count: int = 10_000) -> tuple[Array, Array]:
    """A layer's outputs with its channels last, one row a position: from its patches, and as onnxruntime has them."""
    proto = network(body, inputs=inputs, w=w)
    graph = read(proto).graph
    layer = next(layers(graph))
    weight = layer.unpack(graph.consts[layer.weight])
    windows = Windows(layer, graph.consts[layer.weight].shape[2:], x.shape[2:])
    rows = windows.patches(x, count, np.random.default_rng(0))
    if count == 10_000:
        np.testing.assert_allclose(windows.mean(x), rows.mean(0, np.float64), atol=1e-6)
    found = np.einsum("rgn,gon->rgo", rows, weight.reshape(*weight.shape[:2], -1)).reshape(len(rows), -1)
    wanted = np.moveaxis(execute(proto, x)[0], layer.y_axis, -1).reshape(-1, found.shape[1])
    return found, wanted


@pytest.mark.parametrize("name", CASES)
def test_all_patches_give_the_output(name: str) -> None:
    op, attributes, shape = CASES[name]
    kernel = f"kernel_shape = {list(shape[2:])}"
    body = f"y = {op} <{', '.join(filter(None, (kernel, attributes)))}> (x, w)"
    found, wanted = products(body, IMAGE, normal(3, 4, 7, 6), normal(*shape, seed=2))
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize("stride", [1, 2, 3, 5])
@pytest.mark.parametrize("pads", [(0, 0), (1, 2), (7, 4)])
def test_shares_are_counts_of_the_table(op: str, stride: int, pads: tuple[int, int]) -> None:
    for dilation, taps, size in ((1, 3, 7), (2, 4, 9), (3, 2, 30), (1, 7, 20)):
        attributes = {"strides": [stride], "dilations": [dilation], "pads": pads}
        node = Node(op, ("x", "w"), ("y",), attributes)
        table = met(node, 0, taps, size)
        if len(table):
            np.testing.assert_array_equal(share_met(node, 0, taps, size), (table != OUTSIDE).mean(0))


@pytest.mark.parametrize(
    ("body", "inputs", "shape", "weight"),
    [
        ("y = Gemm (x, w)", "float[N,5] x", (3, 5), (5, 4)),
        ("y = Gemm <transB = 1> (x, w)", "float[N,5] x", (3, 5), (4, 5)),
        ("y = MatMul (x, w)", "float[N,7,5] x", (3, 7, 5), (5, 4)),
        ("y = MatMul (w, x)", "float[N,5,7] x", (3, 5, 7), (4, 5)),
    ],
)
def test_all_rows_give_the_product(body: str, inputs: str, shape: tuple[int, ...], weight: tuple[int, ...]) -> None:
    found, wanted = products(body, inputs, normal(*shape), normal(*weight, seed=2))
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_one_and_three_axes() -> None:
    found, wanted = products("y = Conv <pads = [1, 1]> (x, w)", "float[N,2,9] x", normal(3, 2, 9), normal(3, 2, 3))
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    body = "y = Conv <strides = [1, 2, 1]> (x, w)"
    found, wanted = products(body, "float[N,2,4,5,3] x", normal(3, 2, 4, 5, 3), normal(3, 2, 2, 3, 2))
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("inputs", ["float[N,4,7,6] x", "float[N,42,4] x"])
def test_some_patches_are_drawn_alike_and_none_twice(inputs: str) -> None:
    image = inputs.count(",") == 3
    shape, body = ((3, 4, 7, 6), "y = Conv (x, w)") if image else ((3, 42, 4), "y = MatMul (x, w)")
    weight = normal(5, 4, 1, 1) if image else normal(4, 5)
    found, wanted = products(body, inputs, normal(*shape), weight, count=10)
    assert len(found) == 30
    hit = [int(np.flatnonzero(np.isclose(wanted, row, atol=1e-6).all(1))[0]) for row in found]
    assert len(set(hit)) == 30
    again, _ = products(body, inputs, normal(*shape), weight, count=10)
    assert np.array_equal(found, again)
