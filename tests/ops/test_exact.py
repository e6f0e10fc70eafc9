"""What is never rounded: found by its structure, and what rounding it would do, run in onnxruntime."""

from typing import Any

import numpy as np
import pytest

import equint
from equint.errors import EquintError
from equint.ir.events import EventKind
from equint.ops.exact import magnitudes
from handwritten import execute, network, normal


def test_what_lies_inside_a_magnitude() -> None:
    """Squares, their sum and what is added to it; not where one of them is no square, or is read elsewhere."""
    consts: dict[str, Any] = {"one": np.float32(1), "two": np.float32(2)}
    rows: dict[str, Any] = {"inputs": "float[5] x", "output": "float[5] y"}
    body = "t = Exp (x) p = Pow (x, two) q = Mul (t, t) a = Add (p, q) b = Add (a, one) r = Sqrt (b) y = Neg (r)"
    assert magnitudes(equint.load(network(body, **rows, **consts)).graph) == {*"pqab"}
    for other in (body.replace("Mul (t, t)", "Mul (t, x)"), body.replace("Neg (r)", "Add (r, a)")):
        assert not magnitudes(equint.load(network(other, **rows, **consts)).graph)


@pytest.mark.parametrize(
    "body",
    [
        "m = MatMul (x, w) k = Max (m, e) y = Log (k)",
        "m = MatMul (x, w) r = Relu (m) k = Add (r, e) t = Transpose (k) y = Log (t)",
        "m = MatMul (x, w) r = Relu (m) k = Add (r, e) y = Div (x, k)",
        "m = MatMul (x, w) r = Relu (m) k = Max (r, e) y = Reciprocal (k)",
    ],
)
def test_nothing_becomes_zero_that_has_a_logarithm_or_divides(body: str) -> None:
    """Half of the values lie at the ε of 1e-7, far below a step."""
    proto = network(body, inputs="float[20,6] x", output="float[A,B] y", w=normal(6, 6), e=np.float32(1e-7))
    x = normal(20, 6, seed=1)
    result = equint.quantize(proto, "cwq", data=[x])
    (wanted,), (found,) = execute(proto, x), execute(result.proto, x)
    assert np.isfinite(found).all()
    assert np.median(np.abs(found - wanted) / np.abs(wanted)) < 0.1


def test_numbers_told_once_a_sample_are_not_rounded() -> None:
    """A step of time of 0 to 999: 256 steps would tell few of them apart."""
    body = "n = Cast <to = 1> (step) a = Mul (n, f) u = Unsqueeze (a, axis) s = Sin (u) m = Gemm (s, w) y = Add (x, m)"
    consts: dict[str, Any] = {"w": normal(1, 6), "axis": np.array([1]), "f": np.float32(1)}
    proto = network(body, inputs="float[N,6] x, int64[N] step", output="float[A,B] y", **consts)
    given = [{"x": normal(1, 6, seed=step), "step": np.array([step])} for step in range(0, 999, 100)]
    result = equint.quantize(proto, "cwq", data=given)
    assert not {"n", "a", "u"} & {*result.model.qparams}
    feed = {"x": normal(1, 6), "step": np.array([451])}
    (wanted,), (found,) = execute(proto, *feed.values()), execute(result.proto, *feed.values())
    np.testing.assert_allclose(found, wanted, atol=2 * result.model.qparams["y"].scale.item())


@pytest.mark.parametrize(
    "body",
    [
        "m = MatMul (p, mel) k = Add (m, e) l = Log (k) y = MatMul (l, v)",
        "m = MatMul (p, mel) k = Add (m, e) t = Transpose (k) l = Log (t) n = Transpose (l) y = MatMul (n, v)",
    ],
)
def test_a_layer_of_which_a_logarithm_is_taken_stays_as_it_is(body: str) -> None:
    """Filters of powers: where there is silence ε alone is left, and a corrected bias would bring it below 0."""
    consts: dict[str, Any] = {"mel": np.abs(normal(64, 6, seed=3)), "e": np.float32(1e-6), "v": normal(6, 6, seed=5)}
    loud = np.where(np.arange(40) % 2, 1, 1e-4)[:, None].astype(np.float32)
    x = normal(40, 64, seed=4) * loud
    proto = network(f"p = Mul (x, x) {body}", inputs="float[N,64] x", output="float[A,B] y", **consts)
    result = equint.quantize(proto, "optimal", data=[x])
    np.testing.assert_array_equal(result.model.graph.consts["mel"], consts["mel"])
    assert {"mel", "v"} & {*result.model.qparams} == {"v"}
    (event,) = (e for e in result.model.log if e.kind is EventKind.FLOAT_BY_DESIGN)
    assert "logarithm" in str(event.facts["why"])
    assert np.isfinite(execute(result.proto, x)[0]).all()
    whole = equint.quantize(proto, "dfq", target="npu-shift", data=[x])
    assert "mel" in whole.model.qparams


def test_a_network_of_such_a_layer_alone_is_refused() -> None:
    """It says that the layer is left, not that there is none."""
    proto = network("m = MatMul (x, w) y = Log (m)", inputs="float[N,6] x", output="float[A,B] y", w=np.eye(6))
    with pytest.raises(EquintError, match=r"none of its layers on integers .a logarithm is taken of its result"):
        equint.quantize(proto, input=(1, 2))
