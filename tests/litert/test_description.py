"""Files of any origin as rules look at them: what each operator is of, and what it is called."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import equint
from equint.demo import model_path
from equint.errors import EquintError, TargetMismatch, UnknownName, UnreadableModel
from equint.hardware.lint import Description, Findings, lint
from equint.hardware.target import target
from equint.ir.model import Array, QParams
from equint.litert.description import describe
from equint.litert.file import File
from equint.tflite.content import content_of
from equint.tflite.flatbuffer import pack


def on(scale: float, zero: int, signed: bool = True) -> QParams:
    """A grid of one scale."""
    return QParams(np.array(scale, np.float32), np.array(zero, np.int32), signed=signed)


GRID = on(0.5, 3)
FIXED = on(1 / 256, -128)


def layer(
    file: File,
    x: int,
    kind: str = "CONV_2D",
    weight: Array | None = None,
    scales: Any = 0.25,
    bias: float | None = 1.0,
    dtype: str = "int8",
    axis: int = 0,
    y: int | None = None,
) -> int:
    """A layer of four channels on one value for each of four inputs; its bias at `bias` times the right scale."""
    scale = np.asarray(scales, np.float32)
    weight = np.full((4, 1, 1, 4), 3) if weight is None else weight
    grid = QParams(scale, np.zeros(scale.shape, np.int32))
    inputs = [x, file.constant("w", weight.astype(dtype), grid, axis)]
    if bias is not None:
        sums = QParams(np.float32(0.5) * scale * np.float32(bias), np.zeros(scale.shape, np.int32))
        inputs.append(file.constant("b", np.arange(4, dtype=np.int32), sums))
    made = file.tensor("y", (1, 2, 2, 4), "int8", GRID) if y is None else y
    options: dict[str, Any] = {} if kind == "FULLY_CONNECTED" else {"padding": "VALID", "stride_h": 1, "stride_w": 1}
    file.operator(kind, inputs, [made], **options)
    return made


def described(file: File, x: int, y: int) -> Description:
    return describe(content_of(file.packed([x], [y], ""), quantized=True))


def found(file: File, x: int, y: int, name: str = "tflite-int8") -> list[tuple[str, str, str]]:
    return [(f.rule, f.at, f.what) for f in lint(described(file, x, y), target(name)).findings]


def image(file: File, dtype: str = "int8", grid: QParams | None = GRID, name: str = "x") -> int:
    return file.tensor(name, (1, 2, 2, 4), dtype, grid)


def test_a_file_that_keeps_to_the_specification_is_clean() -> None:
    file = File()
    x = image(file)
    y = layer(file, x, scales=[0.25, 0.5, 1, 2])
    assert found(file, x, y) == []
    (form,) = described(file, x, y).layers
    assert (form.node, form.work, form.out_axis, form.lowest) == ("#0 CONV_2D y", 4 * 4 * 4, 0, 0)


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"weight": np.full((4, 1, 1, 4), 200), "dtype": "uint8"}, "weight-type", "uint8 weights, not int8"),
    ({"weight": np.full((4, 1, 1, 4), -128)}, "weight-narrow", "its weight holds -128"),
    ({"scales": [0.25, 0.5, 1, 2], "axis": 3}, "weight-axis", "scales along axis 3 of its weight"),
    ({"bias": 1.5}, "bias", "the scale of its bias is 50% off s_x·s_w"),
]


@pytest.mark.parametrize(("changed", "rule", "what"), WRONG, ids=[rule for _, rule, _ in WRONG])
def test_layers_that_do_not_keep_to_it(changed: dict[str, Any], rule: str, what: str) -> None:
    file = File()
    x = image(file)
    ((got, at, said),) = found(file, x, layer(file, x, **changed))
    assert (got, at) == (rule, "#0 CONV_2D y")
    assert said.startswith(what)


def test_one_scale_per_weight_for_hardware_that_has_one() -> None:
    file = File()
    x = image(file)
    y = layer(file, x, scales=[0.25, 0.5, 1, 2])
    assert found(file, x, y, "tflite-int8-per-tensor") == [("weight-axis", "#0 CONV_2D y", "4 scales for one weight")]


def test_a_bias_without_a_scale_and_one_in_float() -> None:
    file = File()
    x, y = image(file), image(file, name="y")
    w = file.constant("w", np.full((4, 1, 1, 4), 3, np.int8), on(0.25, 0))
    plain, real = file.constant("b", np.zeros(4, np.int32)), file.constant("f", np.zeros(4, np.float32))
    file.operator("CONV_2D", [x, w, plain], [y])
    file.operator("CONV_2D", [y, w, real], [image(file, name="z")])
    assert found(file, x, y) == [
        ("bias", "#0 CONV_2D y", "the scale of its bias is 100% off s_x·s_w"),
        ("bias", "#1 CONV_2D z", "its bias is float"),
    ]


def test_work_is_counted_by_the_layout_of_each_operators_weight() -> None:
    file = File()
    x = image(file)
    depthwise = np.ones((1, 3, 3, 4))
    y = layer(file, x, "DEPTHWISE_CONV_2D", depthwise, [0.25, 0.5, 1, 2], axis=3)
    flat = file.tensor("flat", (1, 16), "int8", GRID)
    file.operator("RESHAPE", [y], [flat])
    top = layer(file, flat, "FULLY_CONNECTED", np.ones((4, 16)), y=file.tensor("top", (1, 4), "int8", GRID))
    forms = described(file, x, top).layers
    assert [(f.op, f.work, f.out_axis) for f in forms] == [
        ("DEPTHWISE_CONV_2D", 16 * 9, 3),
        ("FULLY_CONNECTED", 4 * 16, 0),
    ]
    assert found(file, x, top) == []


def test_grids_that_must_be_equal_and_fixed_ones() -> None:
    file = File()
    x, other = image(file), on(0.25, 3)
    pooled, joined, top = (
        image(file, grid=grid, name=name) for name, grid in zip("pjt", (GRID, other, other), strict=True)
    )
    file.operator("MAX_POOL_2D", [x], [pooled])
    file.operator("CONCATENATION", [x, pooled], [joined])
    file.operator("SOFTMAX", [joined], [top])
    assert found(file, x, top) == [
        ("ties", "#1 CONCATENATION j", "CONCATENATION between grids that differ (scales 0.5, 0.5, 0.25)"),
        ("fixed-grid", "#2 SOFTMAX t", "SOFTMAX gives scale 0.25, zero point 3, not 0.00390625, -128"),
    ]
    good = File()
    x, top = image(good), image(good, grid=FIXED, name="t")
    good.operator("SOFTMAX", [x], [top])
    assert found(good, x, top) == []


def test_places_in_a_table_have_a_grid_of_their_own() -> None:
    file = File()
    places, table = file.tensor("i", (1, 4), "int32", GRID), on(0.1, 0)
    y = file.tensor("y", (1, 4), "int8", table)
    file.operator("GATHER", [file.constant("t", np.arange(8, dtype=np.int8), table), places], [y], axis=0)
    assert not any(rule == "ties" for rule, *_ in found(file, places, y))


def test_layers_and_operators_in_float_with_their_share_of_the_work() -> None:
    """Three quarters of the work stay float: the second convolution has twelve inputs for each output, not four."""
    file = File()
    x = image(file)
    y = layer(file, x)
    real = image(file, "float32", None, "r")
    file.operator("DEQUANTIZE", [y], [real])
    wide = layer(file, real, weight=np.ones((4, 1, 3, 4)), y=image(file, "float32", None, "h"), bias=None)
    top = image(file, "float32", None, "t")
    file.operator("SIN", [wide], [top])
    said = lint(described(file, x, top), target("tflite-int8"))
    assert said.integer_share == 0.25
    assert [(f.rule, f.at, f.float_share) for f in said.findings] == [
        ("float-layer", "#2 CONV_2D h", 0.75),
        ("float-operator", "#1 DEQUANTIZE r", 0.0),
        ("float-operator", "#3 SIN t", 0.0),
    ]
    assert said.findings[0].what == (
        "CONV_2D has 75.0 % of all work, and its input is float, beside int8 weights: it is hybrid"
    )
    assert said.clean


@pytest.mark.parametrize("kind", ["float32", "uint8"])
def test_conversions_at_the_ends_are_asked_for(kind: str) -> None:
    file = File()
    grid = None if kind == "float32" else on(0.5, 131, signed=False)
    outer, x = image(file, kind, grid, "outer"), image(file)
    file.operator("QUANTIZE", [outer], [x])
    y, out = layer(file, x), image(file, kind, grid, "out")
    file.operator("DEQUANTIZE" if grid is None else "QUANTIZE", [y], [out])
    assert found(file, outer, out) == []
    assert found(file, outer, out, "ethos-u") == []


def test_operators_that_an_npu_leaves_to_the_cpu() -> None:
    file = File()
    x, y = image(file), file.tensor("y", (1, 4, 4, 1), "int8", GRID)
    file.operator("DEPTH_TO_SPACE", [x], [y], block_size=2)
    assert found(file, x, y, "ethos-u") == [
        ("litert-operator", "#0 DEPTH_TO_SPACE y", "it does not run DEPTH_TO_SPACE")
    ]
    assert found(file, x, y) == []


def test_weights_of_four_bits_are_read_by_halves() -> None:
    file = File()
    x = image(file)
    y = layer(file, x, weight=np.zeros((4, 1, 1, 2)), bias=None)  # 8 bytes: 16 values
    weight = next(t for t in file.tensors if t["name"] == "w")
    weight |= {"type": "INT4", "shape": [4, 1, 1, 4]}
    data = file.buffers[weight["buffer"]]["data"].copy()
    data[3] = 0x80
    file.buffers[weight["buffer"]]["data"] = data
    assert [what for _, _, what in found(file, x, y)] == ["int4 weights, not int8", "its weight holds -8"]


def test_tensors_and_free_sizes_are_named() -> None:
    file = File()
    x = file.tensor("x", (1, 4), "uint8", on(0.5, 3, signed=False), free=[0])
    y = file.tensor("y", (1, 4), "int8", FIXED)
    file.operator("LOGISTIC", [x], [y])
    assert found(file, x, y, "ethos-u") == [
        ("activation-type", "x (tensor 0, input)", "a tensor of uint8, not int8"),
        ("static-shapes", "x", "shape (?, 4) is not fixed"),
    ]


def test_damaged_scales_and_files_without_any() -> None:
    file = File()
    x = image(file)
    y = layer(file, x)
    file.tensors[x]["quantization"] = {"scale": [0.5, 0.25], "zero_point": [0, 0], "quantized_dimension": 3}
    with pytest.raises(UnreadableModel, match=r"m.tflite: damaged \(2 scales along axis 3 of tensor x"):
        content_of(file.packed([x], [y], ""), "m.tflite", quantized=True)
    file.tensors[x]["quantization"] = {"scale": [np.nan], "zero_point": [0]}
    with pytest.raises(UnreadableModel, match="damaged"):
        content_of(file.packed([x], [y], ""), "m.tflite", quantized=True)
    real = File()
    x, y = (image(real, "float32", None, name) for name in "xy")
    real.operator("RELU", [x], [y])
    with pytest.raises(UnreadableModel, match="nothing in it is quantized"):
        describe(content_of(real.packed([x], [y], ""), quantized=True))


def test_what_is_compiled_is_judged_before() -> None:
    file = File()
    x, y = image(file), image(file, name="y")
    file.operator("CUSTOM", [x], [y])
    model = file.model([x], [y])
    model["operator_codes"][0]["custom_code"] = "ethos-u"
    with pytest.raises(
        UnreadableModel, match=r"m\.tflite: compiled by Vela already; give the file that it was made of"
    ):
        describe(content_of(pack(model), "m.tflite", quantized=True))


@pytest.mark.parametrize("name", ["tflite-int8", "tflite-int8-per-tensor", "tflite-uint8", "ethos-u"])
@pytest.mark.parametrize("io", [None, "float"])
def test_what_equint_writes_is_clean_for_the_target_that_it_names(name: str, io: str | None, tmp_path: Path) -> None:
    path = tmp_path / "digits.tflite"
    equint.quantize(model_path(), target=name, input=(0, 1), effort="fast").save(path, io=io)
    said = equint.lint(path)
    assert (said.target, said.target_from, said.findings, said.integer_share) == (name, "file", (), 1.0)
    if name == "tflite-int8":
        assert {f.rule for f in equint.lint(path, "tflite-int8-per-tensor").findings} == {"weight-axis"}
        assert {f.rule for f in equint.lint(path, "tflite-uint8").findings} >= {"weight-type", "activation-type"}


def test_who_a_file_is_for(tmp_path: Path) -> None:
    path = tmp_path / "x.tflite"
    file = File(signed=False)
    grid = on(0.5, 3, signed=False)
    x, y = (image(file, "uint8", grid, name) for name in "xy")
    file.operator("MAX_POOL_2D", [x], [y])
    path.write_bytes(file.packed([x], [y], ""))
    said: Findings = equint.lint(path)
    assert (said.target, said.target_from, said.clean) == ("tflite-uint8", "assumed", True)
    with pytest.raises(TargetMismatch, match=r"takes no \.tflite files; choose tflite-int8"):
        equint.lint(path, "openvino")
    path.write_bytes(file.packed([x], [y], "", equint=b'{"target": "mine", "own": true}'))
    with pytest.raises(UnknownName, match="made for 'mine', a target of your own"):
        equint.lint(path)
    assert equint.lint(path, "tflite-uint8").target_from == "asked"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(EquintError, match="damaged or truncated"):
        equint.lint(path)
