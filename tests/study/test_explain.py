"""What explain says of the bundled network, and whether what it promises comes true."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest

import equint
from equint import load
from equint.demo import model_path
from equint.errors import EquintError
from equint.graph.overrides import Override
from equint.noise.prediction import predict
from equint.onnx.qdq import export
from equint.ops.layers import layers
from equint.passes.activation_ranges import ActivationRanges
from equint.passes.fold_batchnorm import FoldBatchnorm
from equint.passes.quantize import Quantize
from equint.passes.relu6 import Relu6
from equint.planning.recipe import Recipe, parse, recipe
from equint.samples.card import described
from handwritten import execute, network, normal


@pytest.mark.slow
def test_everything_is_there_and_adds_up() -> None:
    found = equint.explain(model_path(), target="per-tensor", input=(0, 1))
    assert sorted(found) == ["changes", "layers", "predicted", "tensors", "warnings"]
    shares = [row["share"] for row in found["layers"]] + [t["share"] for t in found["tensors"]]
    assert sum(shares) == pytest.approx(1.0)
    for row in found["layers"]:
        known = {k: v for k, v in row["after"].items() if v is not None}
        assert row["limit"] == min(known, key=known.__getitem__)  # the smallest SQNR


BODY = "a = Conv(x, wa, ba) ra = Relu(a) b = Conv(ra, wb, bb) rb = Relu(b) y = Conv(rb, wc)"
SPREAD = 2.0 ** np.linspace(-4, 0, 32).reshape(32, 1, 1, 1)
WEIGHTS: dict[str, Any] = {
    "wa": normal(32, 3, 3, 3, seed=1) * SPREAD,
    "ba": normal(32, seed=2) * 0.3,
    "wb": normal(32, 32, 3, 3, seed=3) * SPREAD,
    "bb": normal(32, seed=4) * 0.3,
    "wc": normal(16, 32, 1, 1, seed=5),
}
PROTO = network(BODY, inputs="float[N,3,16,16] x", **WEIGHTS)
PIXELS = np.random.default_rng(0).uniform(-1, 1, (32, 3, 16, 16)).astype(np.float32)
PLAIN = parse({"passes": [{"pass": "activation_ranges"}, {"pass": "quantize"}]}, "plain")
FOUR_BITS = replace(PLAIN, weight={"bits": 4}, overrides=(Override(tensors=("y",), activation_bits=16),))


def measured(quantized: onnx.ModelProto) -> float:
    """SQNR in dB by onnxruntime, on pixels drawn at random."""
    (wanted,), (found,) = execute(PROTO, PIXELS), execute(quantized, PIXELS)
    return 10 * float(np.log10(np.square(wanted).sum() / np.square(found - wanted).sum()))


@pytest.mark.parametrize(
    "chosen", [PLAIN, FOUR_BITS, recipe("optimal"), recipe("dfq")], ids=["plain", "4 bits", "optimal", "dfq"]
)
def test_what_it_promises_is_what_is_measured(chosen: Recipe) -> None:
    found = equint.explain(PROTO, chosen, "per-tensor", input=(-1, 1))
    now = measured(equint.quantize(PROTO, chosen, "per-tensor", input=(-1, 1)).proto)
    assert found["predicted"]["after"]["total"] == pytest.approx(now, abs=2)
    gains = {(c["change"], c["at"]): c["gain"] for c in found["changes"]}
    per_channel = measured(equint.quantize(PROTO, chosen, "per-channel", input=(-1, 1)).proto) - now
    assert gains["weight scales per channel", ""] == pytest.approx(per_channel, rel=0.4, abs=0.2)
    for (change, at), gain in gains.items():
        if change == "16-bit activations":
            wide = replace(chosen, overrides=(*chosen.overrides, Override(tensors=(at,), activation_bits=16)))
            after = measured(equint.quantize(PROTO, wide, "per-tensor", input=(-1, 1)).proto)
            assert gain == pytest.approx(after - now, rel=0.25, abs=0.2)


def test_shares_are_what_each_makes_alone() -> None:
    """One weight, or one activation, quantized and nothing else."""
    found = equint.explain(PROTO, PLAIN, "per-tensor", input=(-1, 1))
    model = equint.quantize(PROTO, PLAIN, "per-tensor", input=(-1, 1)).model
    total = found["predicted"]["after"]["total"]
    shares = {t["name"]: t["share"] for t in found["tensors"]}
    shares |= {la.weight: row["share"] for la, row in zip(layers(model.graph), found["layers"], strict=True)}
    assert shares.keys() == model.qparams.keys()
    errors = [
        total - 10 * np.log10(share) - measured(export(replace(model, qparams={name: model.qparams[name]})))
        for name, share in shares.items()
    ]
    assert np.median(np.abs(errors)) < 1
    assert np.max(np.abs(errors)) < 4


def test_scales_per_channel_are_promised_only_where_there_are_none() -> None:
    there = equint.explain(model_path(), target="per-channel", input=(0, 1))
    assert not [c for c in there["changes"] if c["change"] == "weight scales per channel"]


def test_a_described_input_is_no_guess() -> None:
    """Samples would tell the input's range where it had to be inferred, and add nothing where it was given."""
    model = described(load(model_path()), None)
    known = described(load(model_path()), (0, 1))
    gaps = []
    for start in (model, known):
        reference = ActivationRanges()(Relu6("keep")(FoldBatchnorm()(start)))
        (noise,) = [t for t in predict(reference, Quantize()(reference)).tensors if t.tensor == "input"]
        gaps.append((noise.rounding + noise.clips) / noise.known)
    assert gaps[0] > 1
    assert gaps[1] == pytest.approx(1.0)


def test_float_activations_leave_weights_as_the_limit() -> None:
    found = equint.explain(model_path(), target="per-tensor", activation_bits="float", input=(0, 1))
    assert {row["limit"] for row in found["layers"]} == {"weights"}
    assert found["tensors"] == []


def test_refuses_a_recipe_that_quantizes_nothing() -> None:
    nothing = Recipe("nothing", passes=(("fold_batchnorm", {}),))
    with pytest.raises(EquintError, match="nothing to explain"):
        equint.explain(model_path(), nothing)


def test_a_silent_layer_is_no_error() -> None:
    """A last layer of zeros puts out no signal that noise could be compared with."""
    proto = network("h = Conv(x, w) y = Conv(h, v)", w=normal(4, 3, 1, 1), v=np.zeros((2, 4, 1, 1)))
    found = equint.explain(proto, target="per-tensor", input=(0, 1))
    assert found["layers"][-1]["after"] == {"weights": None, "activations": None, "clips": None}
