"""Integer programs: layer by layer what the QDQ model computes, and a reason where there is none."""

import os
import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper

import equint
from equint.errors import EquintError, UnsupportedOperator
from equint.hardware.target import Target, target
from equint.integers.engine import Engine
from equint.integers.lower import lower
from equint.integers.program import Program, Step
from equint.integers.steps import LAYERS, bound
from equint.ir.model import Model, QParams, QSpec
from equint.maths.fixedpoint import Rounding, compound
from equint.maths.interpolation import MODES
from equint.onnx.qdq import export
from equint.ops.layers import layers
from equint.passes.activation_ranges import ActivationRanges
from equint.passes.fold_batchnorm import FoldBatchnorm
from equint.passes.quantize import Quantize
from equint.runtime.session import Session
from equint.samples.card import described, read_card
from equint.samples.images import Run
from handwritten import Array, network, normal
from nets import BLOCKS, Options, networks, sample
from programs import ACCUMULATORS, algorithm_2, literal, programs, run_step

NPU = target("npu-shift")
CLIPPED = replace(NPU, channel_clip=True)
FLOAT = {"squeeze_excite", "inverted_residual"}  # sigmoids
INTEGER: Options = {
    "blocks": [b for b in BLOCKS if b not in FLOAT],
    "activations": ["relu", "linear", "relu6", "leaky", "prelu", "prelu_shared"],
}
ROUNDINGS: tuple[Rounding, ...] = ("half_up", "half_even")
GRANULARITIES = ("tensor", "channel", "shift")
FOLDER = os.environ.get("EQUINT_REAL", "")
CARDS = sorted(Path(FOLDER).glob("*.toml")) if FOLDER else []


def grid(scale: float = 0.5, zero: int = 3, **more: Any) -> QParams:
    """An unsigned grid."""
    return QParams(np.array(scale, np.float32), np.array(zero, np.int32), signed=False, **more)


def quantized(proto: ModelProto, granularity: str = "tensor", bits: int = 8, signed: bool = False) -> Model:
    """Folded and quantized for the NPU; channels shifted by what their range leaves, where granularity is shift."""
    model = ActivationRanges()(FoldBatchnorm()(described(equint.load(proto), None)))
    if granularity == "shift":
        chosen = [layer for layer in layers(model.graph) if layer.out_axis() is not None]
        weights = {layer.weight: layer.unpack(model.graph.consts[layer.weight]) for layer in chosen}
        model = replace(model, shifts={name: shifts(weight) for name, weight in weights.items()})
    weight = QSpec(bits, signed=signed, symmetric=False, granularity=granularity)  # type: ignore[arg-type]
    return Quantize(weight, NPU.activation)(model)


def shifts(weight: Array) -> NDArray[Any]:
    """How often the weights of each channel can be doubled before they are the layer's largest."""
    reach = np.abs(weight).max((2, 3)).reshape(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        room = np.floor(np.log2(reach.max() / reach))
    return np.asarray(np.clip(np.nan_to_num(room, posinf=0), 0, 15).astype(np.int32))


def in_steps(model: Model, program: Program, x: Array) -> dict[str, NDArray[Any]]:
    """Every tensor of the program as the QDQ model computes it, in steps of its grid."""
    proto = export(model)
    made = {o for node in proto.graph.node for o in node.output}
    names = {n: f"{n}_dequantized" if n in program.inputs else n for n in program.grids}
    taps = {n: t for n, t in names.items() if t in made}
    values = Session(proto, taps=list(taps.values()), threads=1).run(x)
    return {
        n: values[t].astype(np.float64) / float(program.grids[n].scale) + int(program.grids[n].zero_point)
        for n, t in taps.items()
    }


def apart(model: Model, program: Program, x: Array) -> dict[str, float]:
    """By step, how far its results are from the QDQ model's when it reads the QDQ model's integers."""
    wanted = in_steps(model, program, x)
    values = {n: np.rint(v).astype(np.int64) for n, v in wanted.items()}
    values = {program.inputs[0]: program.quantized(program.inputs[0], x), **values}
    found: dict[str, float] = {}
    for step in program.steps:
        inputs = [program.consts[i] if i in program.consts else values[i] if i else np.zeros(0) for i in step.inputs]
        for name, result in zip(step.outputs, run_step(program, step, inputs), strict=True):
            values.setdefault(name, result)
            if name in wanted:
                assert result.shape == wanted[name].shape, step.name
                found[name] = float(np.abs(result - wanted[name]).max(initial=0))
    assert set(found) == {o for s in program.steps for o in s.outputs} & set(wanted)
    return found


def lowered(model: Model, aim: Target = NPU) -> Program:
    """A random network's program; joins that no one grid can hold are refused by design, and are no example."""
    try:
        return lower(model, aim)
    except UnsupportedOperator as refusal:
        if "joined on one grid" in str(refusal):
            reject()
        raise


def assert_follows(model: Model, aim: Target = NPU, x: Array | None = None) -> Program:
    """Each step is within one step of the grid of what the QDQ model computes from the same integers."""
    program = lowered(model, aim)
    x = x if x is not None else sample(export(model))
    differences = apart(model, program, x)
    assert max(differences.values()) <= 1.001, differences
    return program


def test_the_mantissa_is_the_nearest_where_the_target_wants_that() -> None:
    model = small(x=grid(0.3), w=grid(0.07), y=grid(1.7))
    (step,) = (s for s in lower(model, replace(NPU, mantissa="nearest")).steps if s.requantize)
    grids = model.qparams
    factor = float(np.float64(grids["x"].scale) * grids["w"].scale / grids["y"].scale)
    assert step.requantize is not None
    found = int(step.requantize.mantissa), int(step.requantize.exponent)
    assert found == compound(factor)


# On random networks


@pytest.mark.slow
@settings(max_examples=40)
@given(networks(**INTEGER), st.sampled_from(GRANULARITIES), st.booleans(), st.sampled_from(ROUNDINGS))
def test_every_step_is_within_one_of_the_qdq_model(
    proto: ModelProto, way: str, signed: bool, rounding: Rounding
) -> None:
    aim = replace(NPU, rounding=rounding, mantissa_bits=16 if signed else 32)
    model = quantized(proto, way, signed=signed)
    program = assert_follows(model, aim, sample(proto))
    assert (program.rounding, program.mantissa_bits, program.target) == (rounding, aim.mantissa_bits, "npu-shift")
    for step in program.steps:
        assert set(step.outputs) <= {*program.grids}
        shift = step.requantize.shift if step.requantize else np.zeros(())
        assert shift.min() >= 0
        assert shift.max() < 16


@pytest.mark.slow
@settings(max_examples=15)
@given(networks(**INTEGER), st.sampled_from(GRANULARITIES))
def test_the_whole_network_is_near_the_qdq_model(proto: ModelProto, way: str) -> None:
    model = quantized(proto, way)
    program, x = lowered(model), sample(proto)
    feeds = {program.inputs[0]: program.quantized(program.inputs[0], x)}
    (out,) = program.outputs
    apart = literal(program, feeds)[out] - in_steps(model, program, x)[out]
    assert np.sqrt(np.square(apart).mean()) < 1


@pytest.mark.slow
@settings(max_examples=10)
@given(networks(**INTEGER), st.sampled_from(GRANULARITIES))
def test_weights_and_biases_are_those_of_the_qdq_model(proto: ModelProto, way: str) -> None:
    model = quantized(proto, way)
    stored = {t.name: numpy_helper.to_array(t) for t in export(model).graph.initializer}
    wanted = {layer.name: layer for layer in layers(model.graph)}
    for step in lowered(model).steps:
        if step.op in LAYERS:
            layer = wanted[step.name]
            weight = stored[f"{layer.weight}_quantized"]
            np.testing.assert_array_equal(step.arrays["weight"], weight.T if layer.order == "io" else weight)
            assert step.arrays["weight"].dtype == np.uint8
            bias = stored[f"{layer.y}_bias_quantized"] if layer.bias else 0 * step.arrays["bias"]
            np.testing.assert_array_equal(step.arrays["bias"], bias)


# Operator by operator


W, V, U = normal(4, 3, 3, 3), normal(4, 3, 3, 3, seed=2), normal(3, 4, 3, 3)
POINT, HALVES = normal(2, 4, 1, 1), normal(2, 2, 1, 1)
ONE = "a = Conv <pads = [1, 1, 1, 1]> (x, w) \n "
TWO = ONE + "b = Conv <pads = [1, 1, 1, 1]> (x, v) \n "
POOLED = ONE + "m = MaxPool <kernel_shape = [2, 2]> (a) \n "
MEAN = ONE + "y = AveragePool "
NEAREST = 'mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"'
LINES: dict[str, tuple[str, dict[str, Any], str]] = {
    "multiplied": (TWO + "y = Mul (a, b)", {}, "Mul"),
    "multiplied, then clipped": (TWO + "p = Mul (a, b) \n y = Relu (p)", {}, "Mul"),
    "squared": (ONE + "y = Mul (a, a)", {}, "Mul"),
    "gated": (TWO + "g = GlobalAveragePool (a) \n y = Mul (b, g)", {}, "GlobalAveragePool Mul"),
    "added": (TWO + "s = Add (a, b) \n y = Relu (s)", {}, "Sum"),
    "added, broadcast": (TWO + "g = GlobalAveragePool (a) \n y = Add (b, g)", {}, "Sum"),
    "added to itself": (ONE + "y = Add (a, a)", {}, "Sum"),
    "scaled by channel": (POOLED + "y = Mul (k, m)", {"k": normal(4, 1, 1)}, "Sum"),
    "scaled": (POOLED + "y = Mul (m, k)", {"k": np.float32(-0.3)}, "Sum"),
    "shifted by channel": (POOLED + "y = Add (m, k)", {"k": normal(1, 4, 1, 1)}, "Sum"),
    "averaged": (MEAN + "<kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (a)", {}, "AveragePool"),
    "averaged with its padding": (
        MEAN + "<kernel_shape = [3, 2], pads = [1, 0, 1, 1], count_include_pad = 1> (a)", {}, "AveragePool",
    ),
    "averaged, padded automatically": (
        MEAN + '<kernel_shape = [4, 3], strides = [3, 2], auto_pad = "SAME_UPPER"> (a)', {}, "AveragePool",
    ),
    "averaged, rounded up in vain": (
        MEAN + "<kernel_shape = [2, 2], strides = [2, 2], ceil_mode = 1> (a)", {}, "AveragePool",
    ),
    "averaged over many counts": (MEAN + "<kernel_shape = [7, 7], pads = [3, 3, 3, 3]> (a)", {}, "AveragePool"),
    "mean": (ONE + "y = ReduceMean <axes = [2, 3], keepdims = 1> (a)", {}, "GlobalAveragePool"),
    "greatest, clipped": (POOLED + "y = Relu (m)", {}, "MaxPool Sum"),
    "greatest, padded automatically": (
        ONE + 'y = MaxPool <kernel_shape = [3, 3], strides = [2, 2], auto_pad = "SAME_LOWER"> (a)', {}, "MaxPool",
    ),
    "greatest, rounded up": (
        ONE + "y = MaxPool <kernel_shape = [3, 3], strides = [2, 2], ceil_mode = 1> (a)", {}, "MaxPool",
    ),
    "greatest of all": (ONE + "y = GlobalMaxPool (a)", {}, "GlobalMaxPool"),
    "same upper": ('y = Conv <strides = [2, 3], auto_pad = "SAME_UPPER"> (x, w)', {}, "Conv"),
    "same lower": ('y = Conv <strides = [2, 3], auto_pad = "SAME_LOWER"> (x, w)', {}, "Conv"),
    "transposed, padded": (
        "y = ConvTranspose <strides = [2, 2], pads = [1, 0, 1, 1], output_padding = [1, 0], dilations = [1, 2]> (x, u)",
        {}, "ConvTranspose",
    ),
    "transposed to a shape": (
        "y = ConvTranspose <strides = [2, 2], output_shape = [16, 16]> (x, u)", {}, "ConvTranspose",
    ),
    "transposed, padded automatically": (
        'y = ConvTranspose <strides = [2, 2], auto_pad = "SAME_UPPER"> (x, u)', {}, "ConvTranspose",
    ),
    "multiplied by a matrix": (ONE + "y = MatMul (a, k)", {"k": normal(8, 5)}, "Gemm"),
    "padded by a value": (
        ONE + "m = Pad (a, p, c) \n y = Conv (m, k)",
        {"p": [0, 0, 1, 0, 0, 0, 0, 2], "c": np.float32(0.25), "k": normal(2, 4, 3, 3)}, "Pad",
    ),
    "padded by reflection": (
        ONE + 'm = Pad <mode = "reflect"> (a, p) \n y = Conv (m, k)',
        {"p": [0, 0, 1, 2, 0, 0, 0, 2], "k": normal(2, 4, 3, 3)}, "Pad",
    ),
    "moved about": (
        ONE + "s = Slice (a, i, j, h, e) \n d = DepthToSpace <blocksize = 2> (s) \n "
        "t = Transpose <perm = [0, 1, 3, 2]> (d) \n y = SpaceToDepth <blocksize = 2> (t)",
        {"i": [0], "j": [8], "h": [2], "e": [2]}, "Slice DepthToSpace Transpose SpaceToDepth",
    ),
    "gathered": (ONE + "g = Gather <axis = 1> (a, i) \n y = Conv (g, k)", {"i": [2, 0], "k": HALVES}, "Gather"),
    "squeezed": (
        ONE + "g = GlobalMaxPool (a) \n s = Squeeze (g, e) \n r = Unsqueeze (s, e) \n y = Conv (r, k)",
        {"e": [2, 3], "k": POINT}, "Squeeze Unsqueeze",
    ),
    "clipped twice": (
        ONE + "m = Clip (a, l, h) \n n = Relu (m) \n y = Conv (n, k)",
        {"l": np.float32(-0.5), "h": np.float32(0.7), "k": POINT}, "Conv",
    ),
    "clipped beside": (ONE + "m = Relu (a) \n c = Conv (a, k) \n y = Add (c, m)", {"k": normal(4, 4, 1, 1)}, "Sum"),
    "clipped beside, twice": (
        ONE + "m = Relu (a) \n n = Clip (m, l, h) \n c = Conv (n, k) \n y = Add (c, a)",
        {"l": np.float32(0), "h": np.float32(0.2), "k": normal(4, 4, 1, 1)}, "Table",
    ),
    "clipped first": ("m = Relu (x) \n y = Conv (m, w)", {}, "Clip"),
    "nearest": (ONE + f"y = Resize <{NEAREST}> (a, , s)", {"s": np.array([1, 1, 2, 3.0])}, "Resize"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("way", ["tensor", "shift"])
def test_operators(line: str, way: str) -> None:
    body, consts, ops = LINES[line]
    proto = network(body, **used({"w": W, "v": V, "u": U, **consts}, body))
    program = assert_follows(quantized(proto, way), x=normal(2, 3, 8, 8, scale=1))
    assert {*ops.split()} <= {step.op for step in program.steps}


def used(consts: dict[str, Any], body: str) -> dict[str, Any]:
    """The constants that some node reads."""
    return {k: v for k, v in consts.items() if re.search(rf"[(,] *{k}[,)]", body)}


@pytest.mark.parametrize("mode", sorted(MODES))
@pytest.mark.parametrize("scales", [(2, 3), (0.5, 1.4), (0.125, 1), (3.3, 0.4)])
def test_linear_interpolation(mode: str, scales: tuple[float, float]) -> None:
    opset = 19 if mode == "half_pixel_symmetric" else 17
    how = f'mode = "linear", coordinate_transformation_mode = "{mode}"'
    body = ONE + f"y = Resize <{how}> (a, , s)"
    proto = network(body, opset=opset, w=W, s=np.array([1, 1, *scales], np.float64))
    program = assert_follows(quantized(proto), x=normal(2, 3, 8, 8, scale=1))
    step = program.steps[-1]
    assert step.op == "Interpolate"
    for matrix in (step.arrays["rows"], step.arrays["columns"]):
        assert matrix.min() >= 0
        assert set(matrix.sum(1).tolist()) == {1 << step.attrs["bits"]}


@pytest.mark.parametrize(("rank", "shape"), [(1, "float[N,3,9] x"), (3, "float[N,3,5,4,6] x")])
def test_convolutions_of_one_and_three_dimensions(rank: int, shape: str) -> None:
    same = 'auto_pad = "SAME_UPPER"'
    output = "float[N,A,B] y" if rank == 1 else "float[N,A,B,C,D] y"
    body = f"a = Conv <{same}> (x, w) \n y = AveragePool <kernel_shape = {[2] * rank}> (a)"
    proto = network(body, inputs=shape, output=output, w=normal(4, 3, *[3] * rank))
    x = normal(2, 3, *((9,) if rank == 1 else (5, 4, 6)), scale=1)
    assert_follows(quantized(proto), x=x)


def test_matrices_on_many_rows() -> None:
    proto = network(
        "p = MatMul (x, w) \n y = Add (p, b)",
        inputs="float[N,5,6] x",
        output="float[N,5,3] y",
        w=normal(6, 3),
        b=normal(3),
    )
    (step,) = assert_follows(quantized(proto, "channel"), x=normal(2, 5, 6, scale=1)).steps
    assert (step.op, step.arrays["weight"].shape, step.attrs["axis"]) == ("Gemm", (3, 6), -1)
    assert step.requantize is not None
    assert step.requantize.mantissa.shape == (3,)


def test_shapes_that_are_computed_are_carried_over() -> None:
    body = ONE + "s = Shape (x) \n n = Gather <axis = 0> (s, z) \n c = Concat <axis = 0> (n, r) \n y = Reshape (a, c)"
    proto = network(body, output="float[N,A] y", w=W, z=np.array([0]), r=np.array([-1]))
    program = lower(quantized(proto), NPU)
    x = normal(2, 3, 8, 8, scale=1)
    values = literal(program, {"x": program.quantized("x", x)})
    np.testing.assert_array_equal(values["y"], values["a"].reshape(2, -1))


def test_split_without_sizes() -> None:
    body = ONE + "p, q = Split <axis = 1, num_outputs = 2> (a) \n y = Add (p, q)"
    program = assert_follows(quantized(network(body, opset=18, w=W)), x=normal(2, 3, 8, 8, scale=1))
    split = next(s for s in program.steps if s.op == "Split")
    assert program.consts[split.inputs[1]].tolist() == [2, 2]


def test_bounds_per_channel() -> None:
    model = quantized(network(ONE + "y = Clip (a, l, h)", w=W, l=np.float32(-1), h=np.float32(2)))
    high = np.array([0.5, 1.0, np.inf, 0.25], np.float32).reshape(4, 1, 1)
    model = replace(model, graph=model.graph.with_consts({"h": high}))
    (step,) = assert_follows(model, CLIPPED, normal(2, 3, 8, 8, scale=1)).steps
    assert step.requantize is not None
    assert step.requantize.high.shape == (4,)
    q = model.qparams["y"]
    ends = np.rint(high.ravel() / q.scale) + q.zero_point
    np.testing.assert_array_equal(step.requantize.high, np.minimum(ends, 255))


def test_a_clip_is_a_bound_of_the_integers() -> None:
    """Real −0.5 and 0.75 on a grid of step 0.25 with zero point 3 are 1 and 6."""
    body = "a = Conv (x, w) \n y = Clip (a, l, h)"
    proto = network(body, w=W, l=np.array(-0.5, np.float32), h=np.array(0.75, np.float32))
    model = replace(equint.load(proto), qparams={"x": grid(), "w": grid(), "y": grid(0.25)})
    (step,) = lower(model, NPU).steps
    assert step.requantize is not None
    assert (step.outputs, int(step.requantize.low), int(step.requantize.high)) == (("y",), 1, 6)


def test_inputs_of_a_concat_are_brought_to_its_grid() -> None:
    model = quantized(network(TWO + "y = Concat <axis = 1> (a, b)", w=W, v=V))
    model = replace(model, qparams={**model.qparams, "b": grid(0.07, 100)})
    program = assert_follows(model, x=normal(2, 3, 8, 8, scale=1))
    assert [s.op for s in program.steps] == ["Conv", "Conv", "Sum", "Concat"]


def test_channels_too_faint_for_any_exponent_stay_at_zero() -> None:
    weight = W * np.array([1, 1e-12, 1, 1], np.float32).reshape(4, 1, 1, 1)
    model = quantized(network("y = Conv (x, w)", w=weight), "channel")
    program = lower(model, NPU)
    values = literal(program, {"x": program.quantized("x", normal(2, 3, 8, 8, scale=1))})["y"]
    assert np.all(values[:, 1] == program.grids["y"].zero_point)
    assert len(np.unique(values[:, 0])) > 10


def test_hand_worked_convolution() -> None:
    """The compound is 0.5·0.25/0.5 = 0.5·2^-1, and channel 1 has a shift of 3: 0.25 is stored as 8 steps of 0.25/8."""
    weight = grid(0.25, 1, axis=0, shift=np.array([0, 3]))
    values: dict[str, Any] = {"w": np.array([0.5, 0.25]).reshape(2, 1, 1, 1), "b": np.array([1.0, -0.5])}
    proto = network("y = Conv (x, w, b)", inputs="float[N,1,2,2] x", **values)
    model = replace(equint.load(proto), qparams={"x": grid(), "y": grid(), "w": weight})
    program = lower(model, replace(NPU, mantissa_bits=16))
    (step,) = program.steps
    assert step.arrays["weight"].ravel().tolist() == [3, 9]
    assert step.arrays["bias"].tolist() == [8, -32]
    assert step.requantize is not None
    assert step.requantize.right(16).tolist() == [17, 20]
    assert int(step.requantize.mantissa) == 1 << 15
    q = np.array([[[[3, 4], [103, 0]]]], np.uint8)  # real 0, 0.5, 50, -1.5
    found = literal(program, {"x": q})["y"]
    assert found[0, 0].ravel().tolist() == [5, 6, 55, 4]  # 3 + (8 + 2·(q − 3))/4, ties up
    assert found[0, 1].ravel().tolist() == [2, 2, 27, 1]  # 3 + (−32 + 8·(q − 3))/32
    np.testing.assert_array_equal(algorithm_2(program, step, q), found)


def test_compounds_are_near_the_real_factor() -> None:
    model = quantized(network("y = Conv (x, w)", w=normal(8, 3, 3, 3)), "channel")
    (step,) = lower(model, NPU).steps
    how, q = step.requantize, model.qparams
    assert how is not None
    wanted = q["x"].scale * q["w"].scale.astype(np.float64) / q["y"].scale
    np.testing.assert_allclose(how.mantissa * 2.0 ** (how.exponent - 32), wanted, rtol=2**-17)
    assert np.all((how.mantissa >= 1 << 31) & (how.mantissa < 1 << 32))


def test_sums_have_coefficients_of_few_bits() -> None:
    body = TWO + "m = Mul (a, k) \n y = Add (m, b)"
    program = lower(quantized(network(body, w=W, v=V, k=np.array([5, 0.01, 1, 0]).reshape(4, 1, 1))), NPU)
    for step in program.steps:
        if step.op == "Sum":
            coefficients, grids = step.arrays["coefficients"].astype(np.int64), [program.grids[i] for i in step.inputs]
            far = np.array([[max(g.qmax - int(g.zero_point), int(g.zero_point) - g.qmin)] for g in grids])
            assert np.abs(coefficients).max() < 1 << 15
            assert ((np.abs(coefficients) * far).sum(0) + np.abs(step.arrays["bias"])).max() < 1 << 24
            assert step.requantize is not None
            assert int(step.requantize.mantissa) == 1 << 31


# Accumulators


@settings(max_examples=40)
@given(programs())
def test_no_accumulator_goes_beyond_its_reach(program: Program) -> None:
    for step in program.steps:
        if step.op in LAYERS:
            x = program.grids[step.inputs[0]]
            reach = bound(step, program.grids, program.shapes)
            shape = [s if isinstance(s, int) else 2 for s in program.shapes[step.inputs[0]]]
            for seed in range(3):
                q = np.random.default_rng(seed).choice([x.qmin, x.qmax], shape)
                acc = np.abs(ACCUMULATORS[step.op](step, [q - int(x.zero_point)]))
                others = tuple(d for d in range(acc.ndim) if d != step.attrs["axis"] % acc.ndim)
                assert np.all(acc.max(others) <= reach)


@settings(max_examples=30)
@given(st.integers(0, 1000))
def test_reach_is_attained(seed: int) -> None:
    rng = np.random.default_rng(seed)
    weight, zero = rng.integers(0, 255, (3, 4, 2, 2)), np.array([0, 128, 255])
    bias = rng.integers(-500, 500, 3)
    x = grid(1.0, int(rng.integers(0, 255)))
    arrays = {"weight": weight, "weight_zero_point": zero, "bias": bias}
    found = bound(Step("Conv", "c", ("x",), ("y",), {"group": 1}, arrays), {"x": x}, {})
    for o in range(3):
        sums = [0, 0]
        for w in (weight[o] - zero[o]).ravel().tolist():
            ends = [w * (e - int(x.zero_point)) for e in (0, 255)]
            sums = [sums[0] + max(ends), sums[1] + min(ends)]
        assert found[o] == max(sums[0], -sums[1]) + abs(int(bias[o]))


@pytest.mark.parametrize("op", ["Mul", "Add"])
def test_constants_of_a_tensor_with_one_axis(op: str) -> None:
    """Its only axis is the last; the QDQ model is the oracle, to a step of the grid."""
    inputs, output = "float[N,3,8,8] x, float[4] b", "float[N,A,B,C] y, float[4] s"
    proto = network(f"y = Conv(x, w) s = {op}(b, c)", inputs=inputs, output=output, w=W, c=[0.5, -1.0, 2.0, 1.5])
    result = equint.quantize(proto, target=NPU)
    feeds = {"x": normal(2, 3, 8, 8, scale=1), "b": np.array([-1.5, 0.25, 1.0, 2.0], np.float32)}
    found, wanted = Engine(result.program).real(feeds), Session(result.proto).run(Run(feeds))
    for name, values in wanted.items():
        step = float(result.model.qparams[name].scale)
        np.testing.assert_allclose(found[name], values, rtol=0, atol=1.01 * step, err_msg=name)
    exact = feeds["b"] * [0.5, -1.0, 2.0, 1.5] if op == "Mul" else feeds["b"] + [0.5, -1.0, 2.0, 1.5]
    np.testing.assert_allclose(found["s"], exact, rtol=0, atol=0.1)


# What cannot be lowered


DOUBLED = np.array([1, 1, 2, 2.0])
REFUSED = {
    "a = Conv (x, w) \n y = LogSoftmax (a)": "y: LogSoftmax has no integer form; end the network before it",
    "a = Conv (x, w) \n y = other.Mystery (a)": "y: other::Mystery has no integer form",
    "a = Conv (x, w) \n y = ReduceMean <axes = [0]> (a)": "y: how many values it takes together is not known",
    "a = Conv (x, w) \n y, d = LayerNormalization (a, l)": "y: its mean and deviation have no integer form",
    "a = Conv (x, w) \n y = LpNormalization <p = 1> (a)": "y: LpNormalization of this kind has no integer form",
    "a = Conv (x, w) \n b = Greater (a, a) \n y = Where (b, a, a)": "b: Greater has no integer form",
    "a = Conv (x, w) \n b = Equal (a, a) \n y = Where (b, a, a)": "y: its condition is computed otherwise",
    "a = Conv (x, w) \n y = AveragePool <kernel_shape = [3, 3], strides = [2, 2], ceil_mode = 1> (a)":
        "y: AveragePool with ceil_mode has windows that hang over the end",
    "a = Conv (x, w) \n y = AveragePool <kernel_shape = [2, 2], dilations = [2, 2], pads = [1, 1, 1, 1]> (a)":
        "y: a dilated AveragePool",
    "a = Conv (x, w) \n h = ReduceMax <keepdims = 0> (a) \n y = Pad (a, p, h)": "y: its widths or value are computed",
    "a = Conv (x, w) \n y, i = MaxPool <kernel_shape = [2, 2]> (a)": "y: the indices of a MaxPool",
    'a = Conv (x, w) \n y = Resize <mode = "cubic"> (a, , s)': r"y: Resize \(cubic\) has no integer form",
    "a = Conv (x, w) \n y = PRelu (a, t)": "y: a constant differs by position",
    "a = Conv (x, w) \n y = Conv (a, a)": "y: Conv has no integer form",
    "a = Conv (x, w) \n g = GlobalMaxPool (a) \n y = PRelu (a, g)": "y: its slope or exponent is computed",
    "a = Conv (x, w) \n g = ReduceMax <keepdims = 0> (a) \n y = Clip (a, g)": "y: its bounds are computed",
    "a = Conv (x, w) \n b = LogSoftmax (a) \n c = Det (b) \n y = LogSoftmax (c)":
        r"b: LogSoftmax at 2 nodes, Det \(c\) have no integer form",
}  # fmt: skip


@pytest.mark.parametrize("body", REFUSED)
def test_operators_without_integer_form(body: str) -> None:
    consts = {"w": W, "s": DOUBLED, "t": normal(4, 6, 6), "l": normal(6), "p": np.zeros(8, np.int64)}
    newer: dict[str, Any] = {"opset": 19, "ir": 9} if "dilations" in body else {}
    model = ranged(quantized(network(body, **used(consts, body), **newer)))
    with pytest.raises(EquintError, match=REFUSED[body]):
        lower(model, NPU)


def ranged(model: Model) -> Model:
    """A grid for every float activation that has none, so that nothing is refused for want of one."""
    spare = grid(0.1, 128)
    every = [o for n in model.graph.nodes for o in n.outputs if o and model.graph.is_float(o)]
    return replace(model, qparams={**dict.fromkeys(every, spare), **model.qparams})


def small(**qparams: QParams | None) -> Model:
    """A convolution whose grids are given; None takes one away."""
    model = equint.load(network("y = Conv (x, w)", w=W))
    every = {"x": grid(), "w": grid(), "y": grid(), **qparams}
    return replace(model, qparams={n: q for n, q in every.items() if q is not None})


SHIFTED = np.array([0, 1, 2, 15])
LONG = replace(NPU, exponent_bits=8)


@pytest.mark.parametrize(
    ("model", "aim", "message"),
    [
        (small(y=None), NPU, "y stays float: nothing tells its range; give data or an input range"),
        (small(x=None), NPU, "input x stays float: nothing tells its range"),
        (small(w=None), NPU, "y: its weight w stays float"),
        (small(w=grid(bits=16)), NPU, "y: grid of 16 bits; integer programs hold 8 or fewer"),
        (small(x=grid(bits=16)), NPU, "input x: grid of 16 bits"),
        (small(y=grid(bits=12)), NPU, "y: grid of 12 bits"),
        (small(w=grid(axis=0, shift=SHIFTED + 1)), NPU, "y: shift 16 does not fit into the 4 bits of target npu-shift"),
        (small(w=grid(axis=0, shift=SHIFTED - 1)), NPU, "y: shift -1 does not fit"),
        (small(w=grid(axis=0, shift=SHIFTED // 15)), target("per-tensor"), "y: shift 1 does not fit into the 0 bits"),
        (small(y=grid(1e-12)), replace(NPU, mantissa_bits=8), "y: scale compound .* too large for a mantissa of 8"),
        (small(y=grid(1e-6)), replace(NPU, mantissa_bits=10), "y: scale compound .* is too large for a mantissa of 10"),
        (small(y=grid(1e4)), replace(NPU, exponent_bits=4), "y: scale compound .* needs exponent -15, which 4 bits do"),
        (small(y=grid(1e7), w=grid(1e-3, axis=0, shift=SHIFTED)), LONG, "y: its product is shifted right by 81 places"),
    ],
)  # fmt: skip
def test_grids_that_the_hardware_does_not_hold(model: Model, aim: Target, message: str) -> None:
    with pytest.raises(EquintError, match=message):
        lower(model, aim)


def test_a_result_of_next_to_no_range_saturates() -> None:
    """Whatever is not exactly 0 lies beyond the grid, as in the QDQ model."""
    model = small(x=grid(0.5, 3), w=grid(0.5, 3), y=grid(1e-12, 7))
    program = lower(model, NPU)
    x = np.random.default_rng(0).uniform(-1.5, 1.5, (2, 3, 8, 8)).astype(np.float32)
    assert max(apart(model, program, x).values()) < 1e-3
    found = Engine(program, threads=1).run(program.quantized("x", x))["y"]
    assert set(np.unique(found)) <= {0, 7, 255}


def test_shifts_of_zero_need_no_shifter() -> None:
    lower(small(w=grid(axis=0, shift=np.zeros(4, int))), target("per-tensor"))


def test_accumulators_that_may_overflow() -> None:
    wide = np.full((1, 1 << 16, 1, 1), 200, np.float32)
    proto = network("y = Conv (x, w)", inputs="float[N,65536,1,1] x", w=wide)
    model = replace(equint.load(proto), qparams=dict.fromkeys("xwy", grid(1.0, 0)))
    with pytest.raises(EquintError, match=r"y: its accumulator may reach 3.34e\+09, which 32 bits do not hold"):
        lower(model, NPU)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('y = Conv <auto_pad = "SAME_UPPER"> (x, w)', "y: needs an input of known height and width"),
        ("a = Conv (x, w) \n y = GlobalAveragePool (a)", "y: needs an input of known height and width"),
        ('a = Conv (x, w) \n y = Resize <mode = "linear"> (a, , s)', "y: needs an input of known height and width"),
    ],
)
def test_sizes_that_must_be_known(body: str, message: str) -> None:
    consts = used({"w": W, "s": DOUBLED}, body)
    model = ranged(quantized(network(body, inputs="float[N,3,H,W] x", **consts)))
    with pytest.raises(EquintError, match=message):
        lower(model, NPU)


# Real networks


@pytest.mark.skipif(not FOLDER, reason="EQUINT_REAL names no folder of real networks")
@pytest.mark.parametrize("card", CARDS, ids=lambda path: path.stem)
def test_real_networks(card: Path) -> None:
    source = card.parent / tomllib.loads(card.read_text())["model"]
    result = equint.quantize(source, "lwq", "per-tensor", input=read_card(card))
    program = lower(result.model, target("per-tensor"))
    assert program.results == result.model.graph.outputs
    assert sum(s.op in LAYERS for s in program.steps) == sum(1 for _ in layers(result.model.graph))
    assert {*program.outputs} <= {*program.grids}


def test_a_target_that_leaves_operators_float_says_which_does_not() -> None:
    proto = network("a = Conv (x, w) y = Softmax (a)", w=W)
    x = np.random.default_rng(0).normal(size=(8, 3, 8, 8)).astype(np.float32)
    result = equint.quantize(proto, "lwq", "per-tensor", data=x)
    with pytest.raises(
        EquintError,
        match="y stays float on target per-tensor; cut what reads it in float off the network, or quantize for one of",
    ):
        _ = result.program
