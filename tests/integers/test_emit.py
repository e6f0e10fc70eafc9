"""Integer export: onnxruntime computes the program's integers, and no tensor is float."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper, shape_inference

from equint.errors import EquintError
from equint.integers.emit import export_integer
from equint.integers.emit_moves import nearest
from equint.integers.emit_sums import weight_bytes
from equint.integers.program import Program, Requantize, Step
from equint.ir.model import QParams
from equint.maths.affine import storage
from handwritten import execute
from programs import feeds_for, literal, programs

Array = NDArray[Any]
INTEGERS = {getattr(TensorProto, f"{u}INT{n}") for u in ("", "U") for n in (8, 16, 32, 64)}


def run(proto: ModelProto, program: Program, feeds: dict[str, Array]) -> dict[str, Array]:
    return dict(zip(program.outputs, execute(proto, *(feeds[n] for n in program.inputs)), strict=True))


def agree(program: Program, batch: int = 2) -> None:
    feeds, proto = feeds_for(program, batch), export_integer(program)
    wanted, found = literal(program, feeds), run(proto, program, feeds)
    for name in program.outputs:
        assert found[name].dtype == wanted[name].dtype
        np.testing.assert_array_equal(found[name], wanted[name])


def grid(zero: int, bits: int = 8, signed: bool = False) -> QParams:
    return QParams(np.array(0.1, np.float32), np.array(zero, np.int32), bits, signed)


def how(mantissa: Any, exponent: Any, to: QParams, low: int | None = None, high: int | None = None) -> Requantize:
    ends = (to.qmin if low is None else low, to.qmax if high is None else high)
    small = [np.asarray(v, np.int32) for v in (exponent, 0, *ends)]
    return Requantize(np.asarray(mantissa, np.int64), small[0], small[1], int(to.zero_point), small[2], small[3])


def single(
    op: str,
    x: QParams,
    y: QParams,
    shape: tuple[Any, ...],
    out: tuple[Any, ...],
    rounding: Any = "half_up",
    **given: Any,
) -> Program:
    step = Step(op, "the layer", ("x", *given.pop("inputs", ())), ("y",), **given)
    consts = step.attrs.get("consts", {})
    step = replace(step, attrs={k: v for k, v in step.attrs.items() if k != "consts"})
    return Program((step,), ("x",), ("y",), {"x": x, "y": y}, {"x": shape, "y": out}, consts, rounding)


def conv(weight: Array, zero: Any = 0, pads: int = 0, op: str = "Conv", **attrs: Any) -> dict[str, Any]:
    n, outs = weight.ndim - 2, len(weight) if op == "Conv" else weight.shape[1]
    every = {"strides": [1] * n, "dilations": [1] * n, "pads": [pads] * 2 * n, "group": 1, "axis": 1}
    arrays = {"weight": weight, "weight_zero_point": np.asarray(zero), "bias": np.arange(outs, dtype=np.int32)}
    return {"attrs": {**every, **attrs}, "arrays": arrays}


@pytest.mark.slow
@given(programs())
@settings(max_examples=60)
def test_random_programs(program: Program) -> None:
    agree(program)


@given(programs())
@settings(max_examples=30)
def test_no_tensor_is_float(program: Program) -> None:
    proto = export_integer(program)
    inferred = shape_inference.infer_shapes(proto, strict_mode=True)
    infos = [*inferred.graph.input, *inferred.graph.output, *inferred.graph.value_info]
    assert {i.type.tensor_type.elem_type for i in infos} | {t.data_type for t in proto.graph.initializer} <= INTEGERS
    made = {o for node in proto.graph.node for o in node.output}
    assert made <= {i.name for i in infos}  # the type of every tensor is known
    assert all(a.type not in (a.FLOAT, a.FLOATS, a.TENSOR) for node in proto.graph.node for a in node.attribute)
    assert made >= {o for step in program.steps for o in step.outputs}


def test_a_convolution_worked_by_hand() -> None:
    """(7 − 3)·(5 − 1) + (1 − 3)·(0 − 1) + 10 = 28, ·0.75 = 21, + 2 = 23, clamped to 22 in the second channel."""
    weight = np.array([[5, 0], [5, 0]], np.uint8).reshape(2, 2, 1, 1)
    layer = conv(weight, np.uint8(1))
    layer["arrays"]["bias"] = np.array([10, 10], np.int32)
    requantize = replace(how(3 << 30, 0, grid(2)), high=np.array([255, 22]))
    program = single("Conv", grid(3), grid(2), (1, 2, 1, 1), (1, 2, 1, 1), **layer, requantize=requantize)
    found = run(export_integer(program), program, {"x": np.array([7, 1], np.uint8).reshape(1, 2, 1, 1)})
    assert found["y"].ravel().tolist() == [23, 22]


@pytest.mark.parametrize("rounding", ["half_up", "half_even", "truncate"])
@pytest.mark.parametrize("signed", [False, True])
def test_weights_wider_than_a_byte(rounding: str, signed: bool) -> None:
    x, y = grid(30, 8, signed), grid(-7 if signed else 7, 8, signed)
    rng = np.random.default_rng(0)
    weight = rng.integers(-(1 << 11), 1 << 11, (3, 2, 2, 2)).astype(np.int16)
    layer = conv(weight, np.arange(3), pads=1)
    agree(single("Conv", x, y, ("N", 2, 4, 4), ("N", 3, 5, 5), rounding, **layer, requantize=how(3 << 30, -11, y)))
    layer = conv(weight.swapaxes(0, 1), 5, op="ConvTranspose", strides=[2, 2], output_padding=[1, 0])
    transposed = single(
        "ConvTranspose", x, y, ("N", 2, 3, 3), ("N", 3, 7, 6), rounding, **layer, requantize=how(3 << 30, -11, y)
    )
    agree(transposed)
    attrs = {"kernel_shape": [2, 2], "strides": [2, 1], "pads": [1, 0, 0, 1], "axis": 1}
    pool = single(
        "AveragePool", x, y, ("N", 2, 4, 4), ("N", 2, 2, 4), rounding, attrs=attrs, requantize=how(3 << 30, -2, y)
    )
    agree(pool)


@pytest.mark.parametrize("signed", [False, True])
def test_moves(signed: bool) -> None:
    q = grid(3, 8, signed)
    shapes = ("N", 4, 4, 6)
    pool = {"kernel_shape": [2, 3], "strides": [1, 2], "pads": [1, 0, 0, 2], "dilations": [2, 1]}
    agree(single("MaxPool", q, q, shapes, ("N", 4, 3, 3), attrs=pool))
    agree(single("GlobalMaxPool", q, q, shapes, ("N", 4, 1, 1)))
    agree(single("SpaceToDepth", q, q, shapes, ("N", 16, 2, 3), attrs={"blocksize": 2}))
    agree(single("DepthToSpace", q, q, shapes, ("N", 1, 8, 12), attrs={"blocksize": 2, "mode": "CRD"}))
    clip = {"low": np.array([0, 1, 2, 3]), "high": np.array(9)}
    agree(single("Clip", q, q, shapes, shapes, attrs={"axis": 1}, arrays=clip))
    pads = {"pads": np.array([0, 0, 1, 0, 0, 0, 0, 2])}
    agree(single("Pad", q, q, shapes, ("N", 4, 5, 8), attrs={"value": 3}, arrays=pads))
    sizes = {"consts": {"sizes": np.array([2, 4, 7, 3])}, "mode": "nearest"}
    agree(single("Resize", q, q, shapes, ("N", 4, 7, 3), inputs=("", "", "sizes"), attrs=sizes))


MODES = ("asymmetric", "half_pixel", "pytorch_half_pixel", "align_corners")


@pytest.mark.parametrize("rounding", ["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"])
@pytest.mark.parametrize("mode", MODES)
def test_nearest_positions_are_those_of_onnxruntime(mode: str, rounding: str) -> None:
    attrs = {"mode": "nearest", "coordinate_transformation_mode": mode, "nearest_mode": rounding}
    for size, scale in ((5, 1.6), (7, 0.5), (4, 2.5), (9, 0.37), (3, 3.0), (6, 1.7)):
        node = helper.make_node("Resize", ["x", "", "scales"], ["y"], **attrs)
        scales = numpy_helper.from_array(np.array([scale], np.float32), "scales")
        info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in "xy"]
        info[0] = helper.make_tensor_value_info("x", TensorProto.FLOAT, [size])
        graph = helper.make_graph([node], "g", info[:1], info[1:], [scales])
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=8)
        (wanted,) = execute(proto, np.arange(size, dtype=np.float32))
        assert nearest(size, scale, attrs).tolist() == wanted.tolist(), (size, scale)


def test_resize_by_a_broken_factor() -> None:
    attrs = {"consts": {"s": np.array([1, 1, 1.6, 0.5], np.float32)}, "mode": "nearest"}
    agree(single("Resize", grid(3), grid(3), ("N", 2, 5, 7), ("N", 2, 8, 3), inputs=("", "s"), attrs=attrs))


@given(st.integers(0, 2**16), st.sampled_from([100, 255, 256, 5000, 70000]))
def test_weights_in_bytes(seed: int, most: int) -> None:
    weight = np.random.default_rng(seed).integers(-most, most, (3, 4), endpoint=True)
    parts = weight_bytes(weight)
    assert all(a.dtype == np.uint8 and 0 <= z <= 255 for _, a, z in parts)
    np.testing.assert_array_equal(sum(f * (a.astype(np.int64) - z) for f, a, z in parts), weight)


@pytest.mark.parametrize("rounding", ["half_up", "half_even", "truncate"])
@pytest.mark.parametrize("exponent", [-30, -23, -9, 0, 20])
def test_shifts_to_the_ends(exponent: int, rounding: str) -> None:
    """A product of up to 2^61 and shifts of 12 to 62 places."""
    weight = np.array([127, -128, 1], np.int8).reshape(3, 1, 1)
    layer = conv(weight, np.array([-3, 0, 2], np.int8))
    layer["arrays"]["bias"] = np.array([1 << 28, -(1 << 28), 1])
    program = single("Conv", grid(9), grid(5), ("N", 1, 64), ("N", 3, 64), rounding, **layer)
    for mantissa in ((1 << 32) - 1, 1 << 31, 3 << 30):
        step = replace(program.steps[0], requantize=how(mantissa, exponent, grid(5)))
        agree(replace(program, steps=(step,)), 4)


def test_ties_of_every_parity() -> None:
    """Halves, which the three roundings treat differently: 0.5·acc for every acc around zero."""
    table = {r: [] for r in ("half_up", "half_even", "truncate")}  # type: dict[Any, list[int]]
    for rounding, found in table.items():
        program = single(
            "GlobalAveragePool", grid(8), grid(8), ("N", 1, 1), ("N", 1, 1), rounding, attrs={"axis": 1},
            requantize=how(1 << 31, 0, grid(8)),
        )  # fmt: skip
        x = np.arange(3, 14, dtype=np.uint8).reshape(-1, 1, 1)
        found += (run(export_integer(program), program, {"x": x})["y"].astype(int).ravel() - 8).tolist()
    assert table["half_up"] == [-2, -2, -1, -1, 0, 0, 1, 1, 2, 2, 3]
    assert table["half_even"] == [-2, -2, -2, -1, 0, 0, 0, 1, 2, 2, 2]
    assert table["truncate"] == [-3, -2, -2, -1, -1, 0, 0, 1, 1, 2, 2]


def test_what_is_written_beside_the_nodes() -> None:
    program = single(
        "Clip",
        grid(3),
        grid(3),
        ("N", 2),
        ("N", 2),
        attrs={"axis": 1},
        arrays={"low": np.array(3), "high": np.array(9)},
    )
    proto = export_integer(program)
    (grids,) = (json.loads(p.value) for p in proto.metadata_props if p.key == "equint.grids")
    assert grids["x"]["zero_point"] == 3
    assert np.float32(grids["x"]["scale"]) == np.float32(0.1)
    assert [i.name for i in proto.graph.input] == ["x"]
    assert proto.graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8
    assert str(storage(program.grids["x"])) == "uint8"


def test_what_cannot_be_written_is_named() -> None:
    q = grid(3)
    with pytest.raises(EquintError, match="the layer: there is no integer operator 'Erf'"):
        export_integer(single("Erf", q, q, ("N", 2), ("N", 2)))
    large = conv(np.full((1, 1 << 17, 1, 1), 255, np.uint8))
    with pytest.raises(EquintError, match="the layer: its sums do not fit into 32 bits"):
        export_integer(single("Conv", q, q, (1, 1 << 17, 1, 1), (1, 1, 1, 1), **large, requantize=how(1 << 31, 0, q)))
    bias = conv(np.ones((1, 1, 1, 1), np.uint8))
    bias["arrays"]["bias"] = np.array([1 << 32])
    with pytest.raises(EquintError, match="the layer: an accumulator times its mantissa"):
        export_integer(single("Conv", q, q, (1, 1, 1, 1), (1, 1, 1, 1), **bias, requantize=how((1 << 32) - 1, 0, q)))
    with pytest.raises(EquintError, match="the layer: Conv has no requantization"):
        export_integer(single("Conv", q, q, (1, 1, 1, 1), (1, 1, 1, 1), **bias))
    linear = {"consts": {"s": np.array([1, 1, 2, 2], np.float32)}, "mode": "linear"}
    with pytest.raises(EquintError, match="the layer: Resize chooses nearest values"):
        export_integer(single("Resize", q, q, ("N", 2, 5, 7), ("N", 2, 10, 14), inputs=("", "s"), attrs=linear))
