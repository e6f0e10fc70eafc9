from dataclasses import replace

import numpy as np
import pytest

from equint.errors import EquintError
from equint.ir.events import EventKind
from equint.ir.model import Model, QSpec
from equint.maths.affine import fake_quantize
from equint.onnx.reader import read
from equint.ops.layers import layers
from equint.passes.clip_weights import ClipWeights
from equint.passes.quantize import Quantize
from equint.passes.weight_shift import WeightShift
from nets import Net

SHIFT = QSpec(4, signed=False, symmetric=False, granularity="shift")
CHANNEL = QSpec(4, granularity="channel")


def heavy(seed: int = 0) -> Model:
    """Weights with a few far outliers, in channels of very different range."""
    net = Net(seed)
    x = net.relu(net.conv(net.input, 8, scale=np.logspace(-2, 0, 8)))
    model = read(net.build(net.conv(x, 4, 1)))
    rng = np.random.default_rng(seed)
    consts = {la.weight: model.graph.consts[la.weight] for la in layers(model.graph)}
    tails = {n: (w * (1 + 3 * (rng.random(w.shape) < 0.02))).astype(np.float32) for n, w in consts.items()}
    return replace(model, graph=model.graph.with_consts(tails))


def noise(model: Model) -> list[float]:
    consts, grids = model.graph.consts, model.qparams
    weights = [la.weight for la in layers(model.graph)]
    return [float(np.mean(np.square(fake_quantize(consts[w], grids[w]) - consts[w]))) for w in weights]


def test_clipping_lowers_the_error_of_shifted_weights() -> None:
    model = WeightShift(SHIFT, cost="weights")(heavy())
    plain, clipped = (noise(Quantize(SHIFT)(m)) for m in (model, ClipWeights(SHIFT, cost="weights")(model)))
    assert all(after <= before * (1 + 1e-6) for before, after in zip(plain, clipped, strict=True))
    assert sum(clipped) < 0.9 * sum(plain)


def test_clipping_lowers_the_error_of_every_channel() -> None:
    model = heavy(1)
    weight = next(layers(model.graph)).weight
    grids = [Quantize(CHANNEL)(m).qparams[weight] for m in (model, ClipWeights(CHANNEL, cost="weights")(model))]
    value = model.graph.consts[weight]
    before, after = (np.square(fake_quantize(value, g) - value).mean((1, 2, 3)) for g in grids)
    assert np.all(after <= before * (1 + 1e-6))
    assert after.sum() < 0.9 * before.sum()


def test_ranges_are_kept_where_little_would_be_saved() -> None:
    model = ClipWeights(SHIFT, least_saving=0.999)(WeightShift(SHIFT)(heavy()))
    assert not model.ranges
    assert model.log[-1].kind is EventKind.WEIGHTS_CLIPPED
    assert model.log[-1].facts["layers"] == 0
    assert model.log[-1].facts["of"] == 2


def test_a_fixed_percentile_is_that_of_the_shifted_weights() -> None:
    model = WeightShift(SHIFT, cost="weights")(heavy())
    clipped = ClipWeights(SHIFT, search="percentile", percent=2.0)(model)
    assert clipped.log[-1].facts["layers"] == 2
    for layer in layers(model.graph):
        shift = model.shifts[layer.weight].reshape(-1, 1, 1, 1)
        lo, hi = np.percentile(np.ldexp(model.graph.consts[layer.weight], shift).astype(np.float64), [2, 98])
        found = clipped.ranges[layer.weight]
        np.testing.assert_allclose([found.lo, found.hi], [lo, hi])


def test_a_percentile_that_cannot_be_is_refused() -> None:
    with pytest.raises(EquintError, match="percent = 50"):
        ClipWeights(search="percentile", percent=50.0)
