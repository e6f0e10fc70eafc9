"""Every weight layout means what the operator computes, and coverage is what onnxruntime counts."""

from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import example, given, settings

from equint.ir.model import Array, Graph, Model, Node
from equint.ir.weights import Layer
from equint.onnx.reader import read
from equint.ops.layers import as_layer, coverage, layers, pads_zero
from handwritten import network, normal
from nets import run
from values import assert_close, values

IMAGE, ROWS, SERIES = (6, 5, 5), (6,), (6, 7)
LAYOUTS = {  # operator, weight, the input without its batch axis
    "conv": ("Conv(x, w)", (4, 6, 3, 3), IMAGE),
    "grouped": ("Conv <group = 2> (x, w)", (4, 3, 3, 2), IMAGE),
    "depthwise": ("Conv <group = 6> (x, w)", (12, 1, 3, 3), IMAGE),
    "1-D": ("Conv <strides = [2]> (x, w)", (4, 6, 3), SERIES),
    "transposed": ("ConvTranspose <strides = [2, 2]> (x, w)", (6, 4, 3, 3), IMAGE),
    "transposed, grouped": ("ConvTranspose <group = 2> (x, w)", (6, 2, 3, 2), IMAGE),
    "gemm": ("Gemm(x, w)", (6, 4), ROWS),
    "gemm, transposed": ("Gemm <transB = 1> (x, w)", (4, 6), ROWS),
    "matmul": ("MatMul(x, w)", (6, 4), (3, 6)),
    "matmul, constant first": ("MatMul(w, x)", (4, 6), SERIES),
}


def loaded(layout: str) -> tuple[Model, Layer]:
    body, shape, size = LAYOUTS[layout]
    dims = ",".join(["N", *map(str, size)])
    output = f"float[N,{','.join('ABC'[: len(size)])}] y"
    model = read(network(f"y = {body}", inputs=f"float[{dims}] x", output=output, w=normal(*shape)))
    return model, next(layers(model.graph))


def along(values: Array, axis: int, rank: int) -> Array:
    return values.reshape([values.size if d == axis % rank else 1 for d in range(rank)])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pack_undoes_unpack(layout: str) -> None:
    model, layer = loaded(layout)
    weight = model.graph.consts[layer.weight]
    view = layer.unpack(weight)
    assert view.shape[:3] == (layer.groups, layer.channels(weight)[1] // layer.groups, 6 // layer.groups)
    np.testing.assert_array_equal(layer.pack(view, weight.shape), weight)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_view_has_the_channels_of_input_and_output(layout: str) -> None:
    """Weights times s_o/t_i, fed with x_i·t_i, put out y_o·s_o."""
    model, layer = loaded(layout)
    weight = model.graph.consts[layer.weight]
    inputs, outputs = layer.channels(weight)
    rng = np.random.default_rng(0)
    t, s = rng.uniform(0.5, 2, inputs).astype(np.float32), rng.uniform(0.5, 2, outputs).astype(np.float32)
    view = layer.unpack(weight)
    g, o, i, _ = view.shape
    scaled = layer.pack(view * s.reshape(g, o, 1, 1) / t.reshape(g, 1, i, 1), weight.shape)
    x = rng.normal(size=(2, *LAYOUTS[layout][2])).astype(np.float32)
    (y,) = values(model, x)
    rescaled = replace(model, graph=model.graph.with_consts({layer.weight: scaled}))
    (found,) = values(rescaled, x * along(t, layer.x_axis, x.ndim))
    assert_close(found, y * along(s, layer.y_axis, y.ndim), 1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_stored_axis_of_output_channels(layout: str) -> None:
    model, layer = loaded(layout)
    axis, weight = layer.out_axis(), model.graph.consts[layer.weight]
    if layout == "transposed, grouped":
        assert axis is None
        return
    assert axis is not None
    muted = np.moveaxis(np.array(weight), axis, 0)
    muted[1] = 0
    changed = replace(model, graph=model.graph.with_consts({layer.weight: np.moveaxis(muted, 0, axis)}))
    x = np.ones((1, *LAYOUTS[layout][2]), np.float32)
    differs = np.moveaxis(values(changed, x)[0] != values(model, x)[0], layer.y_axis, 0)
    assert [bool(d.any()) for d in differs] == [o == 1 for o in range(len(differs))]


@pytest.mark.parametrize(
    "node",
    [
        Node("Conv", ("x", "computed"), ("y",)),
        Node("Conv", ("x", "w", "computed"), ("y",)),
        Node("Conv", ("x", "w"), ("y",), domain="other"),
        Node("Gemm", ("x", "m"), ("y",), {"transA": 1}),
        Node("MatMul", ("x", "w"), ("y",)),
        Node("Add", ("x", "m"), ("y",)),
    ],
)
def test_what_is_no_layer(node: Node) -> None:
    graph = Graph((node,), {"w": np.ones((2, 2, 1, 1), np.float32), "m": np.ones((2, 2), np.float32)}, ("x",), ("y",))
    assert as_layer(graph, node) is None


@st.composite
def windows(draw: st.DrawFn) -> str:
    """Attributes of a convolution over 7×6 positions."""

    def pair(low: int, high: int) -> list[int]:
        return [draw(st.integers(low, high)) for _ in range(2)]

    return f"kernel_shape = {pair(1, 3)}, strides = {pair(1, 3)}, pads = {pair(0, 2) + pair(0, 2)}"


def counted(op: str, attributes: str) -> tuple[Array, Array]:
    """Coverage, and the share of outputs that each tap reaches: each has an output channel to itself."""
    kernel = eval(attributes.split("kernel_shape = ")[1].split("]")[0] + "]")
    taps = kernel[0] * kernel[1]
    shape = (taps, 1, *kernel) if op == "Conv" else (1, taps, *kernel)
    proto = network(
        f"y = {op} <{attributes}> (x, w)", inputs="float[N,1,7,6] x", w=np.eye(taps, dtype=np.float32).reshape(shape)
    )
    (y,) = run(proto, np.ones((1, 1, 7, 6), np.float32))
    graph = read(proto).graph
    layer = next(layers(graph))
    return coverage(layer, tuple(kernel), graph.shapes[layer.x]), y[0].mean((1, 2))


@settings(max_examples=60)
@given(windows(), st.integers(1, 2))
def test_coverage_of_a_convolution(window: str, dilation: int) -> None:
    found, wanted = counted("Conv", f"{window}, dilations = [1, {dilation}]")
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


@settings(max_examples=40)
@given(windows())
@example("kernel_shape = [3, 2], strides = [2, 3], pads = [1, 0, 0, 1], output_padding = [1, 2]")
def test_coverage_of_a_transposed_convolution(window: str) -> None:
    found, wanted = counted("ConvTranspose", window)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize("padding", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("kernel", [[3, 3], [4, 2]])
def test_coverage_with_automatic_padding(op: str, padding: str, kernel: list[int]) -> None:
    found, wanted = counted(op, f'kernel_shape = {kernel}, strides = [2, 2], auto_pad = "{padding}"')
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_coverage_where_the_size_is_unknown() -> None:
    node = Node("Conv", ("x", "w"), ("y",), {"pads": [1, 1, 1, 1], "strides": [2, 2]})
    graph = Graph((node,), {"w": np.ones((1, 1, 3, 3), np.float32)}, ("x",), ("y",))
    layer = next(layers(graph))
    assert coverage(layer, (3, 3), None).tolist() == [1.0] * 9
    transposed = replace(layer, node=replace(node, op="ConvTranspose"))
    assert coverage(transposed, (3, 3), None).tolist() == [0.25] * 9


@pytest.mark.parametrize(
    ("op", "attributes", "pads"),
    [
        ("Conv", {}, False),
        ("Conv", {"pads": [0, 0, 0, 0]}, False),
        ("Conv", {"pads": [0, 0, 1, 0]}, True),
        ("Conv", {"auto_pad": "SAME_UPPER"}, True),
        ("Conv", {"auto_pad": "VALID"}, False),
        ("ConvTranspose", {}, True),
    ],
)
def test_which_layers_see_zeros_at_the_border(op: str, attributes: dict[str, object], pads: bool) -> None:
    node = Node(op, ("x", "w"), ("y",), attributes)
    layer = as_layer(Graph((node,), {"w": np.ones((2, 2, 3, 3), np.float32)}, ("x",), ("y",)), node)
    assert layer is not None
    assert pads_zero(layer) is pads
