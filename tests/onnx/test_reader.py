"""Reading keeps the function, whatever the exporter wrote: onnxruntime on the original file is the oracle."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from onnx import ModelProto, TensorProto, helper, numpy_helper

from equint.errors import EquintError
from equint.graph.channels import solve
from equint.ir.model import Graph, Model, Node
from equint.onnx.folding import static_reshapes
from equint.onnx.reader import load_proto, read
from equint.onnx.writer import to_proto
from handwritten import Array, assert_same, execute, network, normal
from nets import networks, sample

CONV = "y = Conv <pads = [1, 1, 1, 1]> (x, w)"
W = normal(4, 3, 3, 3)


def ops(model: Model) -> list[str]:
    return [node.op for node in model.graph.nodes]


def check(proto: ModelProto, *xs: Array) -> Model:
    """Read, write, and compare in onnxruntime."""
    model = read(proto)
    assert_same(proto, to_proto(model.graph), *xs)
    return model


def refused(source: Path | ModelProto) -> str:
    with pytest.raises(EquintError) as caught:
        read(source)
    message = str(caught.value)
    assert "\n" not in message
    if isinstance(source, Path):
        assert message.startswith(str(source))
    return message


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(networks())
def test_random_networks(proto: ModelProto) -> None:
    check(proto, sample(proto))


# Old operator sets


def test_clip_with_attributes() -> None:
    for opset in (7, 9, 10):
        model = check(network(f"a = {CONV[4:]} y = Clip <min = 0.0, max = 1.5> (a)", opset=opset, w=W))
        assert ops(model) == ["Conv", "Clip"]
        assert model.graph.opset >= 13


@pytest.mark.parametrize("bounds", ["min = 0.0", "max = 0.5"])
def test_clip_with_one_attribute(bounds: str) -> None:
    check(network(f"a = {CONV[4:]} y = Clip <{bounds}> (a)", opset=9, w=W))


@pytest.mark.parametrize("opset", [7, 9, 10, 11, 12])
def test_batchnorm_dropout_flatten_gemm(opset: int) -> None:
    ratio = "<ratio = 0.4>" if opset < 12 else ""
    body = f"""
        a = {CONV[4:]}
        b = BatchNormalization <epsilon = 0.001> (a, gamma, beta, mean, var)
        c = Relu(b)
        d = Dropout {ratio} (c)
        e = GlobalAveragePool(d)
        f = Flatten(e)
        g = Dropout {ratio} (f)
        y = Gemm <transB = 1> (g, fc, bias)
    """
    named = {"gamma": [1, -2, 0.5, 0.1], "beta": [0.1, 1, -1, 0], "mean": [0, 0.2, 0.3, 0.4], "var": [1, 2, 0.5, 0.01]}
    norms: dict[str, Any] = {k: np.asarray(v, np.float32) for k, v in named.items()}
    proto = network(body, output="float[N,5] y", opset=opset, w=W, fc=normal(5, 4), bias=normal(5), **norms)
    assert ops(check(proto)) == ["Conv", "BatchNormalization", "Relu", "GlobalAveragePool", "Flatten", "Gemm"]


@pytest.mark.parametrize(
    ("opset", "body"),
    [
        (7, 'a = Upsample <mode = "nearest", scales = [1.0, 1.0, 2.0, 2.0]> (x)'),
        (9, 'a = Upsample <mode = "nearest"> (x, scales)'),
        (9, 'a = Upsample <mode = "linear"> (x, scales)'),
        (10, 'a = Resize <mode = "nearest"> (x, scales)'),
        (
            11,
            'a = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor">'
            " (x, roi, scales)",
        ),
        (12, 'a = Resize <mode = "linear", coordinate_transformation_mode = "half_pixel"> (x, roi, scales)'),
    ],
)
def test_upsampling(opset: int, body: str) -> None:
    consts: dict[str, Any] = {"scales": np.asarray([1, 1, 2, 2], np.float32)} if "scales)" in body else {}
    consts |= {"roi": np.zeros(0, np.float32)} if "roi" in body else {}
    check(network(f"{body} y = Conv(a, w)", opset=opset, w=W, **consts))


@pytest.mark.parametrize("opset", [7, 9, 10])
def test_pad_with_attribute(opset: int) -> None:
    body = "a = Pad <pads = [0, 0, 0, 0, 0, 0, 1, 1]> (x) y = Conv <strides = [2, 2]> (a, w)"
    model = check(network(body, opset=opset, w=W))
    assert ops(model) == ["Conv"]


@pytest.mark.parametrize("opset", [9, 11, 12])
def test_attributes_that_later_became_inputs(opset: int) -> None:
    body = """
        a, b = Split <axis = 1, split = [1, 2]> (x)
        c = ReduceMean <axes = [2, 3], keepdims = 1> (b)
        d = Squeeze <axes = [2, 3]> (c)
        e = Unsqueeze <axes = [2, 3]> (d)
        f = ReduceSum <axes = [1], keepdims = 1> (e)
        g = Mul(a, f)
        y = Softmax <axis = 1> (g)
    """
    check(network(body, opset=opset))


def test_slice_with_attributes() -> None:
    check(network("a = Slice <axes = [2, 3], starts = [1, 0], ends = [9, -1]> (x) y = Conv(a, w)", opset=9, w=W))


def test_reshape_to_constant() -> None:
    for opset in (9, 11, 12):
        proto = network(
            "a = Reshape(x, s) y = Gemm(a, w, b)",
            opset=opset,
            output="float[N,4] y",
            s=np.asarray([-1, 192]),
            w=normal(192, 4),
            b=normal(4),
        )
        assert ops(check(proto)) == ["Reshape", "Gemm"]


@pytest.mark.parametrize("opset", [1, 5, 6])
def test_too_old(opset: int) -> None:
    message = refused(network(CONV, opset=opset, w=W))
    assert f"opset {opset} is too old" in message


# Exporters' habits


def test_constant_nodes() -> None:
    body = """
        low = Constant <value_float = 0.0> ()
        high = Constant <value = float {6.0}> ()
        scales = Constant <value_floats = [1.0, 1.0, 2.0, 2.0]> ()
        a = Conv(x, w)
        b = Clip(a, low, high)
        y = Resize <mode = "nearest"> (b, , scales)
    """
    model = check(network(body, w=W))
    assert ops(model) == ["Conv", "Clip", "Resize"]


def test_weights_made_by_nodes() -> None:
    body = (
        "half = Constant <value_float = 0.5> () v = Mul(w, half) t = Transpose <perm = [1, 0, 2, 3]> (v) y = Conv(x, t)"
    )
    model = check(network(body, w=normal(3, 4, 3, 3)))
    assert ops(model) == ["Conv"]


def test_initializers_listed_as_inputs() -> None:
    proto = network(CONV, ir=3, w=W)
    proto.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, W.shape))
    model = read(proto)
    assert model.graph.inputs == ("x",)
    assert_same(network(CONV, w=W), to_proto(model.graph))


FLATTEN = """
    a = Conv(x, w)
    r = Relu(a)
    g = GlobalAveragePool(r)
    {shape}
    f = Reshape(g, target)
    y = Gemm <transB = 1> (f, fc, bias)
"""


@pytest.mark.parametrize(
    "shape",
    [
        # x.view(x.size(0), -1), as different exporter versions wrote it
        """s = Shape(g) zero = Constant <value = int64 {0}> () n = Gather <axis = 0> (s, zero)
           axes = Constant <value_ints = [0]> () u = Unsqueeze(n, axes) m = Constant <value_ints = [-1]> ()
           target = Concat <axis = 0> (u, m)""",
        """s = Shape <start = 0, end = 1> (g) m = Constant <value_ints = [-1]> ()
           target = Concat <axis = 0> (s, m)""",
        """s = Shape(g) zero = Constant <value_ints = [0]> () one = Constant <value_ints = [1]> ()
           n = Slice(s, zero, one, zero) m = Constant <value_ints = [-1]> () target = Concat <axis = 0> (n, m)""",
        # x.view(x.size(0), x.size(1))
        """s = Shape(g) zero = Constant <value_ints = [0]> () one = Constant <value_ints = [1]> ()
           n = Gather(s, zero) c = Gather(s, one) target = Concat <axis = 0> (n, c)""",
        # x.view(x.size(0), x.size(1) * x.size(2) * x.size(3)), sizes with a detour over float
        """s = Shape(g) i0 = Constant <value_ints = [0]> () i1 = Constant <value_ints = [1]> ()
           i2 = Constant <value_ints = [2]> () n = Gather(s, i0) c = Gather(s, i1) h = Gather(s, i2)
           p = Mul(c, h) q = Cast <to = 1> (p) k = Cast <to = 7> (q) target = Concat <axis = 0> (n, k)""",
    ],
    ids=["gather", "shape-slice", "slice", "sizes", "product"],
)
def test_flatten_by_shape_arithmetic(shape: str) -> None:
    consts: dict[str, Any] = {"w": W, "fc": normal(5, 4), "bias": normal(5)}
    model = check(network(FLATTEN.format(shape=shape), output="float[N,5] y", **consts))
    assert ops(model) == ["Conv", "Relu", "GlobalAveragePool", "Reshape", "Gemm"]
    (group,) = solve(model).groups  # channels reach the Gemm
    assert (group.producers, group.consumers, group.classes.size) == (("a",), ("y",), 4)


def test_flatten_with_fixed_batch() -> None:
    shape = (
        "s = Shape(g) zero = Constant <value_ints = [0]> () n = Gather(s, zero) "
        "m = Constant <value_ints = [-1]> () target = Concat <axis = 0> (n, m)"
    )
    consts: dict[str, Any] = {"w": W, "fc": normal(5, 4), "bias": normal(5)}
    proto = network(FLATTEN.format(shape=shape), inputs="float[2,3,8,8] x", output="float[2,5] y", **consts)
    assert "Shape" not in ops(check(proto))


def test_shortcut_by_slice_and_computed_pads() -> None:
    """The parameter-free shortcut of CIFAR ResNets, its pads computed the way torch exports F.pad."""
    body = """
        a = Conv <pads = [1, 1, 1, 1]> (x, w)
        r = Relu(a)
        deep = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (r, v)
        first = Constant <value_ints = [0, 0]> ()
        last = Constant <value_ints = [9223372036854775807, 9223372036854775807]> ()
        axes = Constant <value_ints = [2, 3]> ()
        steps = Constant <value_ints = [2, 2]> ()
        cut = Slice(r, first, last, axes, steps)
        given = Constant <value_ints = [0, 0, 0, 0, 1, 1]> ()
        two = Constant <value_ints = [2]> ()
        more = ConstantOfShape <value = int64[1] {0}> (two)
        all = Concat <axis = 0> (given, more)
        rows = Constant <value_ints = [-1, 2]> ()
        table = Reshape(all, rows)
        begin = Constant <value_ints = [-1]> ()
        end = Constant <value_ints = [-9223372036854775807]> ()
        axis = Constant <value_ints = [0]> ()
        back = Slice(table, begin, end, axis, begin)
        turned = Transpose <perm = [1, 0]> (back)
        flat = Reshape(turned, begin)
        pads = Cast <to = 7> (flat)
        short = Pad(cut, pads)
        y = Add(deep, short)
    """
    model = check(network(body, w=W, v=normal(6, 4, 3, 3)))
    assert ops(model) == ["Conv", "Relu", "Conv", "Slice", "Pad", "Add"]


def test_shortcut_padded_by_channel_difference() -> None:
    """The same with pads from Shape: (planes − x.size(1)) // 2 on both sides."""
    body = """
        deep = Conv <pads = [1, 1, 1, 1]> (x, v)
        s = Shape(x)
        one = Constant <value_ints = [1]> ()
        two = Constant <value_ints = [2]> ()
        five = Constant <value_ints = [7]> ()
        have = Gather(s, one)
        missing = Sub(five, have)
        half = Div(missing, two)
        zero = Constant <value_ints = [0]> ()
        pads = Concat <axis = 0> (zero, half, zero, zero, zero, half, zero, zero)
        short = Pad(x, pads)
        y = Add(deep, short)
    """
    assert ops(check(network(body, v=normal(7, 3, 3, 3)))) == ["Conv", "Pad", "Add"]


def test_identity_and_dropout_go() -> None:
    body = "a = Identity(x) b = Conv(a, w) c = Dropout(b) d = Relu(c) e, mask = Dropout(d) f = Identity(e) y = Neg(f)"
    assert ops(check(network(body, w=W))) == ["Conv", "Relu", "Neg"]


def test_identity_as_output_and_shared_source() -> None:
    body = "a = Conv(x, w) y = Identity(a) z = Relu(a)"
    model = check(network(body, output="float[N,A,B,C] y, float[N,A,B,C] z", w=W))
    assert model.graph.outputs == ("y", "z")


def test_identity_of_input_and_of_weight() -> None:
    check(network("y = Identity(x)"))
    assert ops(check(network("v = Identity(w) y = Conv(x, v)", w=W))) == ["Conv"]


def test_dropout_mask_in_use() -> None:
    body = "a, mask = Dropout(x) b = Cast <to = 1> (mask) y = Mul(a, b)"
    check(network(body))


def test_nodes_without_effect_go() -> None:
    assert ops(check(network("a = Relu(x) dead = Exp(a) y = Conv(a, w)", w=W))) == ["Relu", "Conv"]


def test_local_functions() -> None:
    functions = """<domain: "mine", opset_import: ["" : 17]>
        hswish (a) => (b) { c = HardSigmoid <alpha = 0.2> (a) b = Mul(a, c) }"""
    proto = network("a = Conv(x, w) y = mine.hswish (a)", rest=functions, w=W)
    assert ops(check(proto)) == ["Conv", "HardSigmoid", "Mul"]


def test_foreign_operators_pass_through() -> None:
    proto = network('a = Conv(x, w) b = acme.Blur <sigma = 1.5, name = "soft"> (a) y = Relu(b)', w=W)
    node = to_proto(read(proto).graph).graph.node[1]
    assert (node.domain, node.op_type) == ("acme", "Blur")
    assert {a.name: helper.get_attribute_value(a) for a in node.attribute} == {"sigma": 1.5, "name": b"soft"}
    assert {o.domain for o in to_proto(read(proto).graph).opset_import} == {"", "acme"}


def test_subgraphs_keep_what_they_capture() -> None:
    body = """
        i = Identity(x)
        a = Conv(i, w)
        unused = Neg(a)
        d = Identity(a)
        y = If (flag) <
            then_branch = yes () => (float[N,A,B,C] t) { t = Conv(d, v) },
            else_branch = no () => (float[N,A,B,C] e) { q = Relu(d) e = Conv(q, v) }
        >
    """
    proto = network(body, inputs="float[N,3,8,8] x, bool flag", w=W, v=normal(2, 4, 1, 1))
    model = read(proto)
    assert "v" in model.graph.consts
    x = normal(2, 3, 8, 8, scale=1)
    for flag in (True, False):
        assert_same(proto, to_proto(model.graph), x, np.asarray(flag))


@pytest.mark.parametrize(
    ("size", "w", "pads"),
    [
        ((16,), (4, 3, 5), "[2, 2]"),
        ((8, 9), (4, 3, 3, 3), "[1, 1, 1, 1]"),
        ((4, 6, 8), (4, 3, 3, 1, 3), "[1, 0, 1, 1, 0, 1]"),
    ],
)
@pytest.mark.parametrize("symbolic", [False, True])
def test_spatial_ranks(size: tuple[int, ...], w: tuple[int, ...], pads: str, symbolic: bool) -> None:
    dims = "HWD"[: len(size)] if symbolic else size
    outs = ",".join("ABC"[: len(size)])
    proto = network(
        f"a = Conv <pads = {pads}> (x, w, b) y = Relu(a)",
        inputs=f"float[N,3,{','.join(map(str, dims))}] x",
        output=f"float[N,4,{outs}] y",
        w=normal(*w),
        b=normal(4),
    )
    model = check(proto, normal(2, 3, *size, scale=1))
    assert model.graph.shapes["a"][:2] == ("N", 4)


# What cannot be used


def test_already_quantized() -> None:
    body = "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) y = Conv(d, w)"
    assert "already quantized" in refused(network(body, s=np.float32(0.1), z=np.uint8(3), w=W))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_not_finite(value: float) -> None:
    broken = W.copy()
    broken[1, 2, 0, 0] = value
    proto = network("y = Conv(x, kernel)", kernel=broken)
    proto.graph.node[0].name = "stem"
    message = refused(proto)
    assert "kernel" in message
    assert "stem" in message


def test_infinite_clip_bound_is_fine() -> None:
    check(network("a = Conv(x, w) y = Clip(a, low, high)", w=W, low=np.float32(0), high=np.float32(np.inf)))


def test_half_precision() -> None:
    proto = network(CONV, inputs="float16[N,3,8,8] x", output="float16[N,A,B,C] y", w=W.astype(np.float16))
    message = refused(proto)
    assert "float16" in message
    assert "float32" in message


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    onnx.save(network(CONV, w=W), path)
    return path


def test_file(saved: Path) -> None:
    proto = network(CONV, w=W)
    assert_same(proto, to_proto(read(saved).graph))
    assert_same(proto, to_proto(read(str(saved)).graph))
    assert load_proto(saved) == proto


@pytest.mark.parametrize("keep", [1, 10, 100, 400])
def test_truncated_file(saved: Path, keep: int) -> None:
    saved.write_bytes(saved.read_bytes()[:keep])
    refused(saved)


@pytest.mark.parametrize("content", [b"", b"hello, this is text\n", b"\x89PNG\r\n\x1a\n", bytes(100)])
def test_other_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    refused(path)


def test_no_file(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "absent.onnx")
    refused(tmp_path)


def external(folder: Path) -> Path:
    path = folder / "net.onnx"
    onnx.save_model(network(CONV, w=W), path, save_as_external_data=True, location="net.bin", size_threshold=0)
    return path


def test_external_data(tmp_path: Path) -> None:
    assert_same(network(CONV, w=W), to_proto(read(external(tmp_path)).graph))


def test_external_data_missing(tmp_path: Path) -> None:
    path = external(tmp_path)
    (tmp_path / "net.bin").unlink()
    assert "net.bin" in refused(path)


def test_external_data_truncated(tmp_path: Path) -> None:
    path = external(tmp_path)
    data = tmp_path / "net.bin"
    data.write_bytes(data.read_bytes()[:40])
    refused(path)


def test_initializer_truncated() -> None:
    proto = network(CONV, w=W)
    proto.graph.initializer[0].raw_data = numpy_helper.from_array(W).raw_data[:40]
    assert "w" in refused(proto)


def test_the_source_is_left_alone() -> None:
    proto = network(
        "i = Identity(x) y = Gemm <alpha = 2.0> (i, w)", inputs="float[N,3] x", output="float[N,4] y", w=normal(3, 4)
    )
    before = proto.SerializeToString()
    model = read(proto)
    assert proto.SerializeToString() == before
    with pytest.raises(ValueError, match="read-only"):
        next(iter(model.graph.consts.values()))[:] = 0


def test_several_inputs_and_outputs() -> None:
    proto = network(
        "a = Conv(x, w) b = Conv(z, w) y = Add(a, b) u = Relu(b)",
        inputs="float[N,3,8,8] x, float[N,3,8,8] z",
        output="float[N,A,B,C] y, float[N,A,B,C] u",
        w=W,
    )
    model = check(proto, normal(1, 3, 8, 8, scale=1), normal(1, 3, 8, 8, seed=2, scale=1))
    assert (model.graph.inputs, model.graph.outputs) == (("x", "z"), ("y", "u"))


@pytest.mark.parametrize("fill", ["ConstantOfShape(n)", "Expand(one, n)"])
def test_folding_makes_no_large_constants(fill: str) -> None:
    """Sixteen million zeros stay the three nodes that they were."""
    proto = network(f"z = {fill} s = ReduceSum(z) y = Add(x, s)", n=[4000, 4000], one=np.ones(1), output="float[] y")
    graph = read(proto).graph
    assert sum(a.nbytes for a in graph.consts.values()) < 1000
    assert_same(proto, to_proto(graph))


def test_constants_that_old_files_do_not_list_as_inputs() -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Relu", ["c"], ["y"])]
    infos = [
        helper.make_tensor_value_info("x", 1, ["N", 3, 8, 8]),
        helper.make_tensor_value_info("y", 1, ["N", 4, 6, 6]),
    ]
    graph = helper.make_graph(nodes, "old", infos[:1], infos[1:], [numpy_helper.from_array(normal(4, 3, 3, 3), "w")])
    for opset in (7, 8, 9):
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=3)
        assert [node.op for node in read(proto).graph.nodes] == ["Conv", "Relu"]


@pytest.mark.parametrize(("shape", "group"), [((4, 3, 3, 3), 3), ((0, 3, 3, 3), 1), ((4, 3, 3, 3), 0)])
def test_weights_that_make_no_sense_name_their_node(shape: tuple[int, ...], group: int) -> None:
    graph = Graph(
        (Node("Conv", ("x", "w"), ("y",), {"group": group}, "odd"),),
        {"w": np.zeros(shape, np.float32)}, ("x",), ("y",), {"x": ("N", 3, 8, 8)},
    )  # fmt: skip
    with pytest.raises(EquintError, match=r"odd|shapes do not fit"):
        read(to_proto(graph))


def test_a_computed_reshape_that_moves_values_into_the_batch_stays() -> None:
    """The first output dimension is unknown and not the batch: [0, 4] would not hold the values."""
    body = (
        "d = Shape(x) n = Gather(d, zero) m = Mul(n, six) u = Unsqueeze(m, zero1) t = Concat <axis = 0> (u, four)"
        " r = Reshape(x, t) y = Relu(r)"
    )
    consts: dict[str, Any] = {"zero": np.int64(0), "six": np.int64(6), "zero1": [0], "four": [4]}
    check(network(body, inputs="float[N,6,4] x", output="float[M,4] y", **consts), normal(2, 6, 4))


@pytest.mark.parametrize(("after", "target"), [((None, 24), [0, 24]), ((None, 4), None), ((8, 6), [8, 6])])
def test_only_certain_targets_become_constant(after: tuple[int | None, ...], target: list[int] | None) -> None:
    node = Node("Reshape", ("x", "s"), ("y",))
    graph = static_reshapes(Graph((node,), {}, ("x", "s"), ("y",), {"x": ("N", 6, 4), "y": after}))
    name = graph.nodes[0].inputs[1]
    assert (graph.consts[name].tolist() if target else name) == (target or "s")


# Constants in other forms


@pytest.mark.parametrize("linear", [True, False])
def test_sparse_constants_are_spelled_out(linear: bool) -> None:
    w = normal(4, 3, 3, 3)
    w[np.abs(w) < 0.2] = 0
    proto = network("y = Conv(x, w)", w=w)
    del proto.graph.initializer[:]
    at = np.flatnonzero(w).astype(np.int64) if linear else np.argwhere(w).astype(np.int64)
    values = numpy_helper.from_array(w.ravel()[np.flatnonzero(w)], "w")
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(at, "places"), list(w.shape))
    proto.graph.sparse_initializer.append(sparse)
    assert np.array_equal(read(proto).graph.consts["w"], w)


@pytest.mark.parametrize("place", [999, -1])
def test_a_sparse_constant_that_is_damaged_is_refused(place: int) -> None:
    proto = network("y = Conv(x, w)", w=normal(4, 3, 3, 3))
    del proto.graph.initializer[:]
    values = numpy_helper.from_array(np.ones(1, np.float32), "w")
    places = numpy_helper.from_array(np.array([place], np.int64), "places")
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [4, 3, 3, 3]))
    with pytest.raises(EquintError, match="sparse constant w is damaged"):
        read(proto)


def test_bfloat16_weights_are_read_as_the_numbers_that_they_are() -> None:
    """bfloat16 is a float32 without its last 16 digits."""
    w = normal(4, 3, 3, 3)
    cut = (w.view(np.uint32) & 0xFFFF0000).view(np.float32)
    proto = network("c = Cast <to = 1> (w) y = Conv(x, c)")
    raw = (cut.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    proto.graph.initializer.append(helper.make_tensor("w", TensorProto.BFLOAT16, w.shape, raw, raw=True))
    graph = read(proto).graph
    assert [node.op for node in graph.nodes] == ["Conv"]
    assert np.array_equal(graph.consts[graph.nodes[0].inputs[1]], cut)


def test_a_network_that_computes_in_bfloat16_is_read_in_float32() -> None:
    """What Casts to bfloat16 round is less than what 8 bits round."""
    w = normal(4, 3, 3, 3)
    cut = (w.view(np.uint32) & 0xFFFF0000).view(np.float32)
    proto = network("a = Cast <to = 16> (x) c = Conv(a, w) y = Cast <to = 1> (c)")
    raw = (cut.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    proto.graph.initializer.append(helper.make_tensor("w", TensorProto.BFLOAT16, w.shape, raw, raw=True))
    x = normal(2, 3, 8, 8, scale=1)
    (found,) = execute(to_proto(read(proto).graph), x)
    (wanted,) = execute(network("y = Conv(x, w)", w=cut), x)
    np.testing.assert_allclose(found, wanted, atol=1e-6)
