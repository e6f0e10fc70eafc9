"""Overrides change the format of what they name, of all that shares it, and of nothing else."""

from typing import Any

import numpy as np
import pytest

from equint.errors import EquintError
from equint.graph.inputs import describe_range
from equint.graph.overrides import Override, formats
from equint.ir.events import EventKind
from equint.ir.model import Model, QSpec
from equint.onnx.qdq import export
from equint.onnx.reader import read
from equint.passes.activation_ranges import ActivationRanges
from equint.passes.correct_bias import CorrectBias
from equint.passes.quantize import Quantize
from equint.passes.round_weights import RoundWeights
from handwritten import execute, network, normal

CHAIN = "a = Conv(x, w) r = Relu(a) b = Conv(r, v) s = Relu(b) y = Conv(s, u)"


def ranged(body: str, **consts: Any) -> Model:
    return ActivationRanges()(describe_range(read(network(body, output="float[] y", **consts)), -1, 1))


def chain() -> Model:
    return ranged(CHAIN, w=normal(4, 3, 3, 3), v=normal(4, 4, 3, 3, seed=2), u=normal(4, 4, 1, 1, seed=3))


def test_a_layer_gets_other_weights_and_no_other_layer_does() -> None:
    plain, after = Quantize()(chain()), Quantize(overrides=(Override(("b",), weight_bits=4),))(chain())
    assert {n: q.bits for n, q in after.qparams.items() if n in "wvu"} == {"w": 8, "v": 4, "u": 8}
    weight = chain().graph.consts["v"]
    expected = np.maximum(weight.max((1, 2, 3)) / 7, -weight.min((1, 2, 3)) / 8)
    np.testing.assert_allclose(after.qparams["v"].scale, expected, rtol=1e-6)
    assert all(np.all(after.qparams[n].scale == plain.qparams[n].scale) for n in ("w", "u", "x", "r", "s", "y"))


def test_granularity_of_one_layer() -> None:
    one = Override(("b",), granularity="channel")
    tensor = QSpec(8, granularity="tensor")
    after = Quantize(weight=tensor, overrides=(one,))(chain())
    assert {n: after.qparams[n].scale.ndim for n in "wvu"} == {"w": 0, "v": 1, "u": 0}


def test_a_float_layer_keeps_its_weight_and_reads_a_float() -> None:
    after = Quantize(overrides=(Override(("b",), float=True),))(chain())
    assert set(after.qparams) == {"x", "w", "s", "u", "y"}
    assert any(e.kind is EventKind.FLOAT_BY_OVERRIDE and e.at == "b" for e in after.log)
    ops = [(n.op_type, n.output[0]) for n in export(after).graph.node]
    assert ("Relu", "r") in ops  # no quantizer does its work


@pytest.mark.parametrize("name", ["a", "r"])
def test_a_tensor_gets_other_bits_by_the_name_of_what_it_is_merged_with_too(name: str) -> None:
    after = Quantize(overrides=(Override(tensors=(name,), activation_bits=16),))(chain())
    assert {n: after.qparams[n].bits for n in ("x", "r", "s", "y")} == {"x": 8, "r": 16, "s": 8, "y": 8}
    assert float(after.qparams["r"].scale) == pytest.approx(float(np.max(chain().ranges["r"].hi)) / 65535)


def test_a_float_tensor_stays_float() -> None:
    after = Quantize(overrides=(Override(tensors=("s",), float=True),))(chain())
    assert "s" not in after.qparams
    assert {"w", "v", "u"} <= after.qparams.keys()


def test_the_last_one_counts() -> None:
    many = (Override(("*",), weight_bits=4), Override(("b",), weight_bits=6), Override(("a",), float=True))
    after = Quantize(overrides=many)(chain())
    assert {n: after.qparams[n].bits for n in "vu"} == {"v": 6, "u": 4}
    assert "w" not in after.qparams
    again = Quantize(overrides=(*many, Override(("a",), weight_bits=5)))(chain())
    assert again.qparams["w"].bits == 5


def test_tensors_on_one_grid_change_together_and_it_is_said() -> None:
    body = "a = Conv(x, w) b = Conv(x, v) y = Concat <axis = 1> (a, b)"
    model = ranged(body, w=normal(4, 3, 1, 1), v=normal(4, 3, 1, 1, seed=2))
    after = Quantize(overrides=(Override(tensors=("a",), activation_bits=16),))(model)
    assert {after.qparams[n].bits for n in "aby"} == {16}
    told = next(e for e in after.log if e.kind is EventKind.OVERRIDE_OF_SHARED_GRID)
    assert sorted(told.facts["tensors"].split(", ")) == ["a", "b", "y"]


def test_layers_with_one_weight_change_together_and_it_is_said() -> None:
    model = ranged("a = Conv(x, w) y = Conv(a, w)", w=normal(3, 3, 1, 1))
    after = Quantize(overrides=(Override(("a",), weight_bits=4),))(model)
    assert after.qparams["w"].bits == 4
    assert any(e.kind is EventKind.OVERRIDE_OF_SHARED_WEIGHT and e.at == "y" for e in after.log)


def test_what_follows_honours_them() -> None:
    model = Quantize(overrides=(Override(("b",), float=True), Override(("a",), weight_bits=4)))(chain())
    after = CorrectBias()(RoundWeights()(model))
    np.testing.assert_array_equal(after.graph.consts["v"], chain().graph.consts["v"])
    assert "v" not in after.qparams
    proto = export(after)
    x = normal(2, 3, 8, 8, scale=0.3)
    assert np.isfinite(execute(proto, x)[0]).all()


def test_more_bits_come_nearer_to_the_float_network() -> None:
    x = np.clip(normal(4, 3, 8, 8, scale=0.3), -1, 1)
    wanted = execute(
        network(CHAIN, w=normal(4, 3, 3, 3), v=normal(4, 4, 3, 3, seed=2), u=normal(4, 4, 1, 1, seed=3)), x
    )
    errors = []
    for overrides in ((), (Override(("*",), ("*",), weight_bits=16, activation_bits=16),)):
        found = execute(export(Quantize(weight=QSpec(6), overrides=overrides)(chain())), x)
        errors.append(float(np.abs(found[0] - wanted[0]).max()))
    assert errors[1] < errors[0] / 30


@pytest.mark.parametrize(
    ("override", "named"),
    [
        (Override(("conv1",), float=True), "no layer is called 'conv1'"),
        (Override(("q*",), float=True), r"no layer is called 'q\*'; the first are a, b, y"),
        (Override(tensors=("w",), float=True), "no tensor is called 'w'"),
    ],
)
def test_a_name_that_matches_nothing_is_named(override: Override, named: str) -> None:
    with pytest.raises(EquintError, match=named):
        formats(chain().graph, [override], QSpec(), QSpec())


def test_the_nearest_names_are_named() -> None:
    body = "block_a = Conv(x, w) r = Relu(block_a) y = Conv(r, v)"
    model = ranged(body, w=normal(4, 3, 3, 3), v=normal(4, 4, 3, 3))
    with pytest.raises(EquintError, match="the nearest are block_a"):
        Quantize(overrides=(Override(("block_b",), float=True),))(model)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"float": True}, "needs layers or tensors"),
        ({"layers": ("a",)}, "changes nothing"),
        ({"layers": ("a",), "float": True, "weight_bits": 4}, "no bits or granularity"),
        ({"tensors": ("a",), "weight_bits": 4}, "are of layers"),
        ({"layers": ("a",), "activation_bits": 4}, "are of tensors"),
        ({"layers": ("a",), "weight_bits": 1}, "2 to 16"),
    ],
)
def test_overrides_without_sense_are_refused(given: dict[str, Any], why: str) -> None:
    with pytest.raises(EquintError, match=why):
        Override(**given)
