"""What explain says of the bundled network, and whether what it promises comes true."""

from __future__ import annotations

import numpy as np
import pytest

import equint
from equint import load
from equint.demo import model_path
from equint.errors import EquintError
from equint.noise.prediction import predict
from equint.passes.activation_ranges import ActivationRanges
from equint.passes.fold_batchnorm import FoldBatchnorm
from equint.passes.quantize import Quantize
from equint.passes.relu6 import Relu6
from equint.planning.recipe import Recipe
from equint.samples.card import described
from handwritten import network, normal


def test_everything_is_there_and_adds_up() -> None:
    found = equint.explain(model_path(), target="per-tensor", input=(0, 1))
    assert sorted(found) == ["changes", "layers", "predicted", "tensors", "warnings"]
    shares = [row["share"] for row in found["layers"]] + [t["share"] for t in found["tensors"]]
    assert sum(shares) == pytest.approx(1.0)
    for row in found["layers"]:
        known = {k: v for k, v in row["after"].items() if v is not None}
        assert row["limit"] == min(known, key=known.__getitem__)  # the smallest SQNR


def test_the_promised_gain_of_scales_per_channel_is_what_it_predicts_there() -> None:
    here = equint.explain(model_path(), target="per-tensor", input=(0, 1))
    there = equint.explain(model_path(), target="per-channel", input=(0, 1))
    (change,) = [c for c in here["changes"] if c["change"] == "weight scales per channel"]
    gain = there["predicted"]["after"]["total"] - here["predicted"]["after"]["total"]
    assert change["gain"] == pytest.approx(gain, abs=0.01)
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
