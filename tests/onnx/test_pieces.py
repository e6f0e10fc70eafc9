"""Functions that exporters write in pieces are read as one operator, and compute the same."""

from typing import Any

import numpy as np
import pytest

import equint
from equint.graph.channels import rescale, solve
from equint.onnx.writer import to_proto
from equint.ops.layers import layers
from handwritten import Array, assert_same, execute, network, normal

TOKENS, IMAGES = "float[N,5,8] x", "float[N,8,4,6] x"
GAIN, BIAS = normal(8, seed=3, scale=1) + 2, normal(8, seed=4, scale=1)
CENTRED = "m = ReduceMean <axes = [-1]> (x) c = Sub (x, m) "
BY_POW = CENTRED + "q = Pow (c, two) v = ReduceMean <axes = [-1]> (q) a = Add (v, eps) r = Sqrt (a) n = Div (c, r) "
CHANNELS = BY_POW.replace("[-1]", "[1]")
POSITIONS = BY_POW.replace("[-1]", "[2, 3]")
GROUPS = "a = Reshape (x, grouped) b = InstanceNormalization (a, ones, zeros) s = Shape (x) n = Reshape (b, s) "
AFFINE = "g = Mul (n, gain) y = Add (g, bias)"
SUM = "q = Mul (x, x) t = ReduceSum <keepdims = 1> (q, last) "
BODIES: dict[str, tuple[str, str, list[str]]] = {
    "LayerNorm by Pow": (BY_POW + AFFINE, TOKENS, ["LayerNormalization"]),
    "LayerNorm, no gains": (BY_POW.replace("n = Div", "y = Div"), TOKENS, ["LayerNormalization"]),
    "LayerNorm, subtracted twice": (
        CENTRED + "d = Sub (x, m) q = Mul (d, d) v = ReduceMean <axes = [2]> (q) a = Add (eps, v) r = Sqrt (a) "
        "i = Reciprocal (r) n = Mul (i, c) g = Mul (gain, n) y = Add (bias, g)",
        TOKENS.replace("N", "2"), ["LayerNormalization"],
    ),
    "LayerNorm by a power of -1/2": (
        CENTRED + "q = Mul (c, c) v = ReduceMean <axes = [-1]> (q) a = Add (v, eps) r = Pow (a, minus) "
        "n = Mul (c, r) y = Mul (n, gain)",
        TOKENS, ["LayerNormalization"],
    ),
    "LayerNorm over channels": (CHANNELS + AFFINE, IMAGES, ["Transpose", "LayerNormalization", "Transpose"]),
    "InstanceNorm": (POSITIONS + AFFINE, IMAGES, ["InstanceNormalization"]),
    "GroupNorm": (GROUPS + AFFINE, IMAGES, ["GroupNormalization"]),
    "GroupNorm, no gains": (GROUPS.replace("n = Re", "y = Re"), IMAGES, ["GroupNormalization"]),
    "RMSNorm": (
        "q = Pow (x, two) v = ReduceMean <axes = [-1]> (q) a = Add (v, eps) r = Sqrt (a) n = Div (x, r) "
        "y = Mul (n, gain)",
        TOKENS, ["RMSNormalization"],
    ),
    "length": ("l = ReduceL2 <axes = [-1]> (x) y = Div (x, l)", TOKENS, ["LpNormalization"]),
    "length, as torch writes it": (
        "l = ReduceL2 <axes = [1], keepdims = 1> (x) c = Clip (l, tiny) s = Shape (x) e = Expand (c, s) y = Div (x, e)",
        IMAGES, ["LpNormalization"],
    ),
    "length by a sum": (SUM + "l = Sqrt (t) y = Div (x, l)", TOKENS, ["LpNormalization"]),
    "length with a number": (SUM + "a = Add (t, eps) l = Sqrt (a) y = Div (x, l)", TOKENS, ["RMSNormalization"]),
    "Softmax": (
        "g = ReduceMax <axes = [1]> (x) d = Sub (x, g) e = Exp (d) t = ReduceSum (e, one) y = Div (e, t)",
        TOKENS, ["Softmax"],
    ),
    "Softmax, nothing subtracted": ("e = Exp (x) t = ReduceSum (e, last) y = Div (e, t)", TOKENS, ["Softmax"]),
}  # fmt: skip
NO_FUNCTION: dict[str, str] = {
    "read elsewhere": BY_POW + "g = Mul (n, gain) y = Add (g, c)",
    "another variance": CENTRED + "q = Mul (x, x) v = ReduceMean <axes = [-1]> (q) r = Sqrt (v) y = Div (c, r)",
    "other axes": BY_POW.replace("m = ReduceMean <axes = [-1]>", "m = ReduceMean <axes = [1]>") + AFFINE,
    "a result": BY_POW + "y = Add (n, v)",
}


def consts(body: str, shape: str) -> dict[str, Any]:
    column = (-1, 1, 1) if "[N,8,4,6]" in shape else (-1,)
    known: dict[str, Any] = {
        "two": 2.0, "eps": 0.02, "minus": -0.5, "tiny": 1e-12, "gain": GAIN.reshape(column),
        "bias": BIAS.reshape(column), "grouped": np.array([0, 2, -1]), "ones": np.ones(2), "zeros": np.zeros(2),
        "last": np.array([-1]), "one": np.array([1]),
    }  # fmt: skip
    words = body.replace("(", " ").replace(")", " ").replace(",", " ").split()
    read = {k: np.asarray(v) for k, v in known.items() if k in words}
    return {k: v if v.dtype.kind == "i" else v.astype(np.float32) for k, v in read.items()}


def drawn(inputs: str) -> Array:
    return normal(2, *((8, 4, 6) if "8,4,6" in inputs else (5, 8)), seed=9, scale=2) + 1


@pytest.mark.parametrize("opset", [13, 17])
@pytest.mark.parametrize("name", BODIES)
def test_is_one_operator_and_computes_the_same(name: str, opset: int) -> None:
    body, inputs, wanted = BODIES[name]
    proto = network(body, inputs=inputs, output="float[] y", opset=opset, **consts(body, inputs))
    graph = equint.load(proto).graph
    assert [node.op for node in graph.nodes] == wanted
    assert_same(proto, to_proto(graph), drawn(inputs))


@pytest.mark.parametrize("name", NO_FUNCTION)
def test_what_is_no_such_function_stays(name: str) -> None:
    body = NO_FUNCTION[name]
    proto = network(body, inputs=TOKENS, output="float[] y", **consts(body, TOKENS))
    graph = equint.load(proto).graph
    assert "LayerNormalization" not in {node.op for node in graph.nodes}
    assert_same(proto, to_proto(graph), drawn(TOKENS))


@pytest.mark.parametrize("name", ["LayerNorm by Pow", "LayerNorm over channels", "GroupNorm", "RMSNorm"])
def test_nothing_is_rounded_between_the_pieces(name: str) -> None:
    """Of the function in a QDQ model: one quantizer in front, one behind, for all targets with floats."""
    body, inputs, _ = BODIES[name]
    body = body.replace("(x", "(h").replace(", x)", ", h)").replace("y = ", "z = ")
    rows = inputs == TOKENS
    layer = ("MatMul", (8, 8)) if rows else ("Conv", (8, 8, 1, 1))
    known = {**consts(body, inputs), "w": normal(*layer[1]), "u": normal(*layer[1], seed=5)}
    proto = network(
        f"h = {layer[0]} (x, w) {body} y = {layer[0]} (z, u)", inputs=inputs, output="float[] y", opset=13, **known
    )
    for target in ("per-channel", "per-tensor"):
        made = equint.quantize(proto, "lwq", target, input=(-4, 4))
        assert {n for n in made.model.qparams if n not in made.model.graph.consts} == {"x", "h", "z", "y"}
        assert [node.op_type for node in made.proto.graph.node].count("QuantizeLinear") == 4
        x = np.clip(drawn(inputs), -4, 4)
        signal, noise = execute(proto, x)[0], execute(made.proto, x)[0] - execute(proto, x)[0]
        assert np.square(signal).sum() > 100 * np.square(noise).sum()


@pytest.mark.parametrize("name", ["LayerNorm by Pow", "LayerNorm over channels", "GroupNorm", "RMSNorm"])
def test_gains_take_up_channel_scales(name: str) -> None:
    """All eight channels behind the function are free, and any scales of theirs leave what the network computes."""
    body, inputs, _ = BODIES[name]
    rows = inputs == TOKENS
    weight = normal(8, 4) if rows else normal(4, 8, 1, 1)
    end = f"o = {'MatMul' if rows else 'Conv'} (y, w)"
    proto = network(f"{body} {end}", inputs=inputs, output="float[] o", opset=13, w=weight, **consts(body, inputs))
    model = equint.load(proto)
    channels = solve(model)
    (group,) = channels.groups
    assert group.classes.size == 8
    assert not group.producers
    assert group.consumers == tuple(layer.name for layer in layers(model.graph))
    scales = 10 ** np.random.default_rng(0).uniform(-1, 1, channels.size)
    scaled = rescale(model, channels, scales)
    view = scaled.views["y"].scale
    np.testing.assert_allclose(np.sort(view.ravel()), np.sort(scales[group.classes]))
    assert_same(proto, to_proto(scaled.graph), drawn(inputs))
