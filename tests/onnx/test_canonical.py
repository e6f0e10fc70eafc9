"""Many forms of the same operator become one, exactly; what only looks alike is left."""

from dataclasses import replace
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

import equint
from equint.ir.model import Model
from equint.onnx.reader import read, with_shapes
from equint.onnx.writer import to_proto
from handwritten import Array, assert_same, execute, network, normal


def check(proto: ModelProto, *xs: Array) -> Model:
    model = read(proto)
    assert_same(proto, to_proto(model.graph), *xs)
    return model


def ops(model: Model) -> list[str]:
    return [node.op for node in model.graph.nodes]


# Gemm


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 5),
    inner=st.integers(1, 5),
    columns=st.integers(1, 5),
    trans_a=st.booleans(),
    trans_b=st.booleans(),
    alpha=st.sampled_from([1.0, 0.5, -2.0]),
    beta=st.sampled_from([1.0, 0.25, -3.0, 0.0]),
    addend=st.sampled_from(["", "()", "(1)", "(N)", "(1,N)", "(M,1)", "(M,N)", "(1,1)"]),
    computed=st.booleans(),
)
def test_gemm(
    rows: int,
    inner: int,
    columns: int,
    trans_a: bool,
    trans_b: bool,
    alpha: float,
    beta: float,
    addend: str,
    computed: bool,
) -> None:
    sizes = {"M": rows, "N": columns, "1": 1}
    consts: dict[str, Any] = {"w": normal(*((columns, inner) if trans_b else (inner, columns)))}
    x = normal(*((inner, rows) if trans_a else (rows, inner)), scale=1)
    inputs, xs = f"float[{x.shape[0]},{x.shape[1]}] x", [x]
    if addend:
        c = normal(*(sizes[d] for d in addend.strip("()").split(",") if d), seed=2, scale=1)
        if computed:
            dims = f"[{','.join(map(str, c.shape))}]" if c.shape else ""
            inputs, xs = f"{inputs}, float{dims} c", [x, c]
        else:
            consts["c"] = c
    attrs = f"alpha = {alpha}, beta = {beta}, transA = {int(trans_a)}, transB = {int(trans_b)}"
    body = f"y = Gemm <{attrs}> (x, w{', c' if addend else ''})"
    model = check(network(body, inputs=inputs, output="float[M,N] y", **consts), *xs)
    (gemm,) = [n for n in model.graph.nodes if n.op == "Gemm"]
    assert set(gemm.attrs) <= {"transB"}


def test_gemm_by_hand() -> None:
    proto = network(
        "y = Gemm <alpha = 2.0, beta = 0.5> (x, w, c)",
        inputs="float[N,2] x",
        output="float[N,3] y",
        w=np.ones((2, 3)),
        c=np.ones((1, 3)),
    )
    model = check(proto, np.ones((4, 2), np.float32))
    _, w, c = (model.graph.constant(i) for i in model.graph.nodes[0].inputs)
    assert w is not None
    assert c is not None
    assert (w == 2).all()
    assert c.tolist() == [0.5, 0.5, 0.5]


def test_gemm_column_is_not_a_bias() -> None:
    """As many rows as columns: an addend of shape (M, 1) still differs per row."""
    proto = network("y = Gemm(x, w, c)", inputs="float[4,2] x", output="float[4,4] y", w=normal(2, 4), c=normal(4, 1))
    check(proto, normal(4, 2, scale=1))


def test_shared_gemm_constants() -> None:
    body = "a = Gemm <alpha = 2.0> (x, w, c) b = Gemm <beta = 3.0> (x, w, c) y = Add(a, b)"
    proto = network(body, inputs="float[N,3] x", output="float[N,3] y", w=normal(3, 3), c=normal(3))
    check(proto, normal(2, 3, scale=1))


# MatMul


@pytest.mark.parametrize("shape", [(), (1,), (5,), (1, 5), (1, 1), (1, 1, 5), (1, 1, 1), (4, 1), (4, 5)])
@pytest.mark.parametrize("x", [(4, 3), (4, 4, 3), (2, 4, 3)])
@pytest.mark.parametrize("first", [True, False])
def test_matmul_and_add(shape: tuple[int, ...], x: tuple[int, ...], first: bool) -> None:
    rank = max(len(x), len(shape))
    add = "Add(c, a)" if first else "Add(a, c)"
    proto = network(
        f"a = MatMul(x, w) y = {add}",
        inputs=f"float[{','.join(map(str, x))}] x",
        output=f"float[{','.join('ABC'[:rank])}] y",
        w=normal(3, 5),
        c=normal(*shape, scale=1),
    )
    model = check(proto, normal(*x, scale=1))
    if shape in ((), (5,)):
        assert ops(model) == (["Gemm"] if len(x) == 2 else ["MatMul"])


def test_matmul_column_is_not_a_bias() -> None:
    """As many rows as columns: an addend of shape (M, 1) still differs per row."""
    proto = network(
        "a = MatMul(x, w) y = Add(a, c)", inputs="float[5,3] x", output="float[5,5] y", w=normal(3, 5), c=normal(5, 1)
    )
    check(proto, normal(5, 3, scale=1))


def test_constant_on_the_left() -> None:
    proto = network(
        "a = MatMul(w, x) y = Add(a, c)",
        inputs="float[N,3,6] x",
        output="float[N,5,6] y",
        w=normal(5, 3),
        c=normal(5, 1),
    )
    check(proto, normal(2, 3, 6, scale=1))


def test_square_constant_on_the_left() -> None:
    proto = network(
        "a = MatMul(w, x) y = Add(a, c)", inputs="float[4,4] x", output="float[4,4] y", w=normal(4, 4), c=normal(4)
    )
    check(proto, normal(4, 4, scale=1))


def test_product_of_two_activations() -> None:
    proto = network(
        "a = MatMul(x, z) y = Add(a, c)", inputs="float[4,3] x, float[3,5] z", output="float[4,5] y", c=normal(5)
    )
    assert ops(check(proto, normal(4, 3, scale=1), normal(3, 5, scale=1))) == ["MatMul", "Add"]


def test_product_used_twice() -> None:
    proto = network(
        "a = MatMul(x, w) b = Add(a, c) y = Mul(a, b)",
        inputs="float[4,3] x",
        output="float[4,5] y",
        w=normal(3, 5),
        c=normal(5),
    )
    check(proto, normal(4, 3, scale=1))


def test_product_that_is_an_output() -> None:
    proto = network(
        "a = MatMul(x, w) y = Add(a, c)",
        inputs="float[4,3] x",
        output="float[4,5] y, float[4,5] a",
        w=normal(3, 5),
        c=normal(5),
    )
    check(proto, normal(4, 3, scale=1))


def test_stacked_matrices() -> None:
    proto = network(
        "a = MatMul(x, w) y = Add(a, c)",
        inputs="float[2,4,3] x",
        output="float[2,4,5] y",
        w=normal(2, 3, 5),
        c=normal(5),
    )
    check(proto, normal(2, 4, 3, scale=1))


# Pad


def padded(pads: list[int], conv: str = "", pad: str = "", rest: str = "", **consts: Any) -> Model:
    body = f"a = Pad {pad} (x, pads{', value' if 'value' in consts else ''}) y = Conv {conv} (a, w) {rest}"
    outputs = "float[N,A,B,C] y" + (", float[N,A,B,C] z" if rest else "")
    w = normal(4, 3 + pads[1] + pads[5], 3, 3)
    return check(network(body, output=outputs, pads=np.asarray(pads), w=w, **consts))


@pytest.mark.parametrize("pads", [[0, 0, 1, 1, 0, 0, 1, 1], [0, 0, 0, 0, 0, 0, 1, 2], [0] * 8])
@pytest.mark.parametrize("conv", ["", "<strides = [2, 2]>", "<pads = [1, 0, 2, 1]>", '<auto_pad = "VALID">'])
def test_pad_becomes_the_convolutions(pads: list[int], conv: str) -> None:
    assert ops(padded(pads, conv)) == ["Conv"]


def test_pad_with_value_zero() -> None:
    assert ops(padded([0, 0, 1, 1, 0, 0, 1, 1], value=np.zeros((), np.float32))) == ["Conv"]


def test_pad_read_by_two_convolutions() -> None:
    model = padded([0, 0, 1, 1, 0, 0, 1, 1], rest="z = Conv <strides = [2, 2]> (a, w)")
    assert ops(model) == ["Conv", "Conv"]


def test_pad_with_axes() -> None:
    body = "a = Pad(x, pads, , axes) y = Conv(a, w)"
    consts: dict[str, Any] = {"pads": np.asarray([1, 2, 0, 1]), "axes": np.asarray([3, -2])}
    assert ops(check(network(body, opset=18, w=normal(4, 3, 3, 3), **consts))) == ["Conv"]


@pytest.mark.parametrize(
    ("pads", "options"),
    [
        ([0, 0, 1, 1, 0, 0, 1, 1], {"value": np.full((), 1.5, np.float32)}),
        ([0, 0, 1, 1, 0, 0, 1, 1], {"pad": '<mode = "reflect">'}),
        ([0, 0, 1, 1, 0, 0, 1, 1], {"pad": '<mode = "edge">'}),
        ([0, 0, 1, 1, 0, 0, 1, 1], {"conv": '<auto_pad = "SAME_UPPER">'}),
        ([0, 0, 1, 1, 0, 0, 1, 1], {"rest": "z = MaxPool <kernel_shape = [2, 2]> (a)"}),
        ([0, 0, 1, 1, 0, 0, 1, 1], {"rest": "z = Identity(a)"}),
        ([0, 0, -1, 0, 0, 0, 0, 1], {}),
        ([0, 1, 0, 0, 0, 1, 0, 0], {}),
    ],
    ids=["value", "reflect", "edge", "same", "pooled", "output", "crop", "channels"],
)
def test_pad_stays(pads: list[int], options: dict[str, str]) -> None:
    assert "Pad" in ops(padded(pads, **options))


# Clip


def test_bounds_of_one_element_become_scalars() -> None:
    proto = network("a = Conv(x, w) y = Clip(a, low, high)", w=normal(4, 3, 3, 3), low=[0.0], high=[1.0])
    model = read(proto)
    assert [model.graph.consts[i].shape for i in model.graph.nodes[1].inputs[1:]] == [(), ()]
    scalar = network("a = Conv(x, w) y = Clip(a, low, high)", w=normal(4, 3, 3, 3), low=0.0, high=1.0)
    assert_same(scalar, to_proto(model.graph))


def test_bound_with_other_readers() -> None:
    proto = network("a = Mul(x, high) y = Clip(a, low, high)", low=0.0, high=1.5)
    check(proto)


# Computed biases, counted pads


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
def test_a_computed_bias_is_added_afterwards(op: str) -> None:
    body = f"""
        g = GlobalAveragePool(x) f = Reshape(g, s) q = Gemm <transB = 1> (f, u) b = Squeeze(q, z)
        c = {op} <pads = [1, 1, 1, 1]> (x, w, b) y = Relu(c)
    """
    w = normal(4, 3, 3, 3) if op == "Conv" else normal(3, 4, 3, 3)
    consts: dict[str, Any] = {"w": w, "u": normal(4, 3), "s": [1, 3], "z": [0]}
    proto = network(body, inputs="float[1,3,8,8] x", **consts)
    model = check(proto, normal(1, 3, 8, 8, scale=1))
    (layer,) = (node for node in model.graph.nodes if node.op == op)
    assert len(layer.inputs) == 2


def test_pads_that_an_average_counts_become_a_pad_where_sizes_are_rounded_up() -> None:
    how = "kernel_shape = [3, 3], strides = [2, 2], pads = [0, 1, 1, 0], count_include_pad = 1"
    model = check(network(f"y = AveragePool <{how}, ceil_mode = 1> (x)"))
    assert ops(model) == ["Pad", "AveragePool"]
    assert ops(check(network(f"y = AveragePool <{how}> (x)"))) == ["AveragePool"]
    bare = check(
        network("y = AveragePool <kernel_shape = [2, 2], strides = [3, 3], count_include_pad = 1, ceil_mode = 1> (x)")
    )
    assert "count_include_pad" not in bare.graph.nodes[0].attrs


@pytest.mark.parametrize(("kernel", "step", "pads"), [(2, 2, (0, 1)), (2, 2, (1, 1)), (3, 2, (1, 2)), (3, 3, (2, 2))])
def test_windows_that_begin_in_the_padding_behind_are_none(kernel: int, step: int, pads: tuple[int, int]) -> None:
    begin, end = pads
    how = f"kernel_shape = [1, {kernel}], strides = [1, {step}], pads = [0, {begin}, 0, {end}], count_include_pad = 1"
    for width in range(5, 13):
        proto = network(f"y = AveragePool <{how}, ceil_mode = 1> (x)", inputs=f"float[N,3,8,{width}] x")
        check(proto, normal(2, 3, 8, width, scale=1))


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize(("kernel", "step", "pads"), [(1, 2, (0, 0)), (1, 3, (0, 0)), (2, 3, (1, 1)), (3, 3, (0, 2))])
def test_sizes_count_no_window_behind_all_values(op: str, kernel: int, step: int, pads: tuple[int, int]) -> None:
    begin, end = pads
    how = f"kernel_shape = [2, {kernel}], strides = [2, {step}], pads = [0, {begin}, 1, {end}], ceil_mode = 1"
    for width in range(5, 13):
        x = normal(2, 3, 8, width, scale=1)
        proto = network(f"y = {op} <{how}> (x)", inputs=f"float[N,3,8,{width}] x")
        model = check(proto, x)
        assert model.graph.shapes["y"][1:] == execute(proto, x)[0].shape[1:]


def test_a_concat_has_no_empty_operands() -> None:
    body = "a = Conv(x, w) y = Concat <axis = 1> (a, none, a)"
    consts: dict[str, Any] = {"w": normal(4, 3, 3, 3), "none": np.zeros((1, 0, 6, 6), np.float32)}
    model = check(network(body, inputs="float[1,3,8,8] x", **consts), normal(1, 3, 8, 8))
    (concat,) = (node for node in model.graph.nodes if node.op == "Concat")
    assert concat.inputs == ("a", "a")


# Shapes that inference gets wrong, or cannot find in parts of a network


@pytest.mark.parametrize("auto", ["NOTSET", "SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize(("strides", "asked"), [([1, 1], [7, 5]), ([2, 1], [4, 9]), ([2, 3], [17, 21])])
def test_an_output_smaller_than_its_input_has_the_rank_of_a_picture(
    auto: str, strides: list[int], asked: list[int]
) -> None:
    """ONNX takes it for one of two dimensions."""
    how = f'<auto_pad = "{auto}", strides = {strides}, output_shape = {asked}>'
    proto = network(f"y = ConvTranspose {how} (x, w)", output="float[] y", w=normal(3, 4, 3, 4))
    del proto.graph.output[0].type.tensor_type.shape.dim[:]
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    graph = check(proto, normal(2, 3, 8, 8, scale=1)).graph
    assert graph.shapes["y"] == ("N", 4, *asked)


def test_an_output_larger_than_what_windows_reach_stays_as_it_is() -> None:
    how = "<strides = [2, 2], output_shape = [18, 18]>"
    proto = network(f"y = ConvTranspose {how} (x, w)", inputs="float[N,3,8,8] x", w=normal(3, 4, 3, 3))
    assert "output_shape" in read(proto).graph.nodes[0].attrs


def test_a_scan_runs_where_nothing_tells_the_shapes_of_its_inputs() -> None:
    """Elsewhere than in the whole network: h ← h + x_t, each put out, from a start whose sizes are computed."""
    loose = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("h", "t", "sum", "each")]
    steps = [helper.make_node("Add", ["h", "t"], ["sum"]), helper.make_node("Identity", ["sum"], ["each"])]
    scan = helper.make_node(
        "Scan", ["start", "x"], ["y", "z"], body=helper.make_graph(steps, "b", loose[:2], loose[2:])
    )
    scan.attribute.append(helper.make_attribute("num_scan_inputs", 1))
    proto = network(
        "n = Shape(x) s = Slice(n, one, three) start = Expand(zero, s)", inputs="float[T,N,4] x", zero=[[0.0]]
    )
    proto.graph.initializer.extend(numpy_helper.from_array(np.array([k]), n) for k, n in ((1, "one"), (3, "three")))
    proto.graph.node.append(scan)
    del proto.graph.output[:]
    proto.graph.output.extend(helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in "yz")
    shapes = {"start": ("N", 4), "y": ("N", 4), "z": ("T", "N", 4)}
    graph = with_shapes(read(proto), shapes).graph
    part = replace(graph, shapes={}, inputs=("start", "x")).with_nodes(n for n in graph.nodes if n.op == "Scan")
    x = normal(5, 2, 4, scale=1)
    last, each = execute(to_proto(part), np.zeros((2, 4), np.float32), x)
    np.testing.assert_allclose(last, x.sum(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(each, np.cumsum(x, 0), rtol=1e-5, atol=1e-6)


def test_a_vector_times_a_matrix_is_one_row() -> None:
    """And as such quantized; without a batch nothing else could tell samples apart."""
    proto = network("a = MatMul(x, w) y = Relu(a)", inputs="float[8] x", output="float[M] y", w=normal(8, 4))
    x = normal(8, scale=1)
    assert ops(check(proto, x)) == ["Unsqueeze", "MatMul", "Squeeze", "Relu"]
    made = equint.quantize(proto, input=(-4, 4))
    (wanted,), (found,) = execute(proto, x), execute(made.proto, x)
    assert 10 * np.log10(np.square(wanted).sum() / np.square(found - wanted).sum()) > 20


DILATED = "a = Conv(x, w) y = AveragePool <kernel_shape = [3, 2], dilations = [2, 1], {}> (a)"


@pytest.mark.parametrize(
    ("attrs", "op"),
    [
        ("strides = [2, 1]", "Conv"),
        ("pads = [1, 0, 1, 1], count_include_pad = 1", "Conv"),
        ("pads = [1, 0, 1, 1]", "AveragePool"),
        ("strides = [2, 2], ceil_mode = 1", "AveragePool"),
    ],
)
def test_means_over_windows_with_gaps(attrs: str, op: str) -> None:
    """What onnxruntime averages in float; and of integers it loads, which it does not of such a pool between them."""
    proto = network(DILATED.format(attrs), opset=19, ir=9, w=normal(4, 3, 3, 3), inputs="float[N,3,12,12] x")
    x = normal(8, 3, 12, 12, seed=2)
    assert ops(check(proto, x)) == ["Conv", op]
    if op == "Conv":
        made = equint.quantize(proto, "cwq", data=x).proto
        session = onnxruntime.InferenceSession(made.SerializeToString())
        (wanted,), (found,) = execute(proto, x), session.run(None, {"x": x})
        assert np.square(found - wanted).sum() < 0.01 * np.square(wanted).sum()
