"""Which biases are corrected stays right whatever is done to the weights that they were corrected for."""

import numpy as np
import pytest

from equint.graph.inputs import infer_input
from equint.ir.model import Model
from equint.onnx.reader import read
from equint.ops.layers import bias_of, layers
from equint.passes import Pass
from equint.passes.activation_ranges import ActivationRanges
from equint.passes.correct_bias import CorrectBias
from equint.passes.correct_bias_empirical import CorrectBiasEmpirical
from equint.passes.equalize import Equalize
from equint.passes.fold_batchnorm import FoldBatchnorm
from equint.passes.prune import Prune
from equint.passes.quantize import Quantize
from equint.passes.round_weights import RoundWeights
from equint.samples.images import Samples
from nets import random_network, sample

SEEDS = range(4)


def quantized(seed: int) -> Model:
    model = infer_input(read(random_network(seed, calibrated=True)))
    for step in (FoldBatchnorm(), ActivationRanges(), Quantize()):
        model = step(model)
    return model


def weights(model: Model) -> dict[str, bytes]:
    return {layer.y: model.graph.consts[layer.weight].tobytes() for layer in layers(model.graph)}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("step", [Equalize(), Prune(threshold=0.01), FoldBatchnorm()], ids=lambda s: type(s).__name__)
def test_layers_with_other_weights_are_corrected_no_more(step: Pass, seed: int) -> None:
    model = CorrectBias()(quantized(seed))
    after = step(model)
    assert model.corrected.keys() == weights(model).keys()
    unchanged = {y for y, weight in weights(after).items() if weight == weights(model)[y]}
    assert after.corrected.keys() <= unchanged
    if not isinstance(step, Prune):  # which writes all layers anew
        assert after.corrected.keys() == unchanged


@pytest.mark.parametrize("seed", SEEDS)
def test_rounding_the_other_way_corrects_what_it_does(seed: int) -> None:
    model = quantized(seed)
    rounded = RoundWeights()(model)
    assert all(np.all(c.channels) and c.how == "analytic" for c in rounded.corrected.values())
    assert len(rounded.corrected) == rounded.log[-1].facts["layers"]
    before = CorrectBias()(model)
    late = RoundWeights()(before)
    assert late.corrected.keys() == before.corrected.keys() - rounded.corrected.keys()


def test_new_grids_have_errors_of_their_own() -> None:
    assert Quantize()(CorrectBias()(quantized(0))).corrected == {}


@pytest.mark.parametrize("seed", SEEDS)
def test_biases_stay_on_their_own_grids_whoever_changes_them(seed: int) -> None:
    """Multiples of max|b|/32767, up to what float32 keeps, and no weight's scale is raised for them."""
    proto = random_network(seed, calibrated=True)
    own = {"bias_bits": 16, "bias_grid": "own"}
    model = ActivationRanges()(FoldBatchnorm()(infer_input(read(proto))))
    plain = Quantize()(model).qparams
    model = Quantize(**own)(model)  # type: ignore[arg-type]
    steps = (RoundWeights(**own), CorrectBias(**own), CorrectBiasEmpirical(**own, images=Samples.of(sample(proto, 8))))  # type: ignore[arg-type]
    for step in (*steps, CorrectBias(16, "own")):
        model = step(model)
        for layer in layers(model.graph):
            bias = bias_of(model.graph, layer).astype(np.float64)
            if layer.x in model.qparams and layer.weight in model.qparams and np.any(bias):
                steps_up = bias / np.abs(bias).max() * 32767
                np.testing.assert_allclose(steps_up, np.rint(steps_up), atol=5e-3)
    for layer in layers(model.graph):
        np.testing.assert_array_equal(model.qparams[layer.weight].scale, plain[layer.weight].scale)
