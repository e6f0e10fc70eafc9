"""What layers read, against whole networks run anew."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
from onnx import ModelProto

from equint.graph.inputs import infer_input
from equint.ir.model import Array, Model
from equint.ir.weights import Layer
from equint.maths.affine import dequantize, quantize
from equint.onnx.qdq import export
from equint.onnx.reader import read
from equint.onnx.writer import to_proto
from equint.ops.layers import bias_of, layers
from equint.passes.activation_ranges import ActivationRanges
from equint.passes.equalize import Equalize
from equint.passes.fold_batchnorm import FoldBatchnorm
from equint.passes.quantize import Quantize
from equint.runtime import second_moments
from equint.runtime.batches import BATCH
from equint.runtime.second_moments import SecondMoments, round_in_order
from equint.runtime.session import Session
from equint.samples.images import Samples
from handwritten import network, normal

X = normal(12, 3, 6, 6, scale=1.0)


def quantized() -> Model:
    """Three pointwise convolutions behind one another and a sum around the second: all that is read is plain to see."""
    proto = network(
        "a = Conv (x, u) b = Relu (a) c = Conv (b, v) d = Add (b, c) y = Conv (d, w)",
        inputs="float[N,3,6,6] x",
        u=normal(8, 3, 1, 1),
        v=normal(8, 8, 1, 1, seed=2),
        w=normal(5, 8, 1, 1, seed=3),
    )
    model = infer_input(read(proto))
    for step in (FoldBatchnorm(), ActivationRanges(), Quantize()):
        model = step(model)
    return model


def rows(proto: ModelProto, name: str) -> Array:
    values = Session(proto, taps=[name]).run(X)[name]
    return np.moveaxis(values, 1, -1).reshape(-1, values.shape[1]).astype(np.float64)


def test_each_layer_is_shown_what_both_networks_give_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(second_moments, "FEWEST", 36)
    model, found = quantized(), dict[str, SecondMoments]()
    now = {"model": model}

    def decide(layer: Layer, moments: Iterable[SecondMoments]) -> tuple[Array, Array]:
        folds = list(moments)
        graph, grid = now["model"].graph, model.qparams[layer.weight]
        x, seen = rows(to_proto(model.graph), layer.x), rows(export(now["model"]), read_as(layer))
        half = np.arange(len(x)) // 36 // BATCH % 2  # every other batch
        for k, fold in enumerate(folds):
            a, b = x[half == k], seen[half == k]
            np.testing.assert_allclose(fold.mean[0], a.mean(0), atol=1e-5)
            np.testing.assert_allclose(fold.seen[0], b.mean(0), atol=1e-5)
            np.testing.assert_allclose(fold.covariance[0], np.cov(b.T, bias=True), atol=1e-5)
            both = (a - a.mean(0)).T @ (b - b.mean(0)) / len(a)
            np.testing.assert_allclose(fold.cross[0], both, atol=1e-5)
        found[layer.y] = folds[0]
        integers = quantize(graph.consts[layer.weight], grid) // 2 * 2  # a bad choice, to be seen further down
        rounded = graph.with_consts({layer.weight: dequantize(integers, grid)})
        now["model"] = replace(now["model"], graph=rounded)
        return integers, np.zeros(len(integers))

    def read_as(layer: Layer) -> str:
        return "x_dequantized" if layer.x == "x" else layer.x

    round_in_order(model, list(layers(model.graph)), Samples.of(X), decide)
    assert list(found) == [layer.y for layer in layers(model.graph)]


def test_of_many_inputs_only_blocks_of_channels_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(second_moments, "WIDEST", 5)
    model, shapes = quantized(), dict[str, tuple[int, ...]]()

    def decide(layer: Layer, moments: Iterable[SecondMoments]) -> tuple[Array, Array]:
        folds = list(moments)
        weight = layer.unpack(model.graph.consts[layer.weight])
        split = folds[0].split(weight)
        shapes[layer.y] = split.shape
        assert np.array_equal(folds[0].join(split, weight.shape), weight)
        assert np.array_equal(split[-1], weight[0, :, -split.shape[2] :, 0])
        integers = quantize(model.graph.consts[layer.weight], model.qparams[layer.weight])
        return integers, np.zeros(weight.shape[1])

    round_in_order(model, list(layers(model.graph)), Samples.of(X), decide)
    assert list(shapes.values()) == [(1, 8, 3), (2, 8, 4), (2, 5, 4)]


@pytest.mark.parametrize("blocks", [1, 3])
def test_values_far_from_zero_and_close_together_keep_how_they_vary(blocks: int) -> None:
    """Of values near 30,000 that vary by 1, products in float32 lose more than that; numpy's float64 does not."""
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(600, 6)) @ rng.normal(size=(6, 6))
    x, seen = (3e4 + mixed).astype(np.float32), (3e4 + 1.1 * mixed).astype(np.float32)
    sums, n = second_moments._Sums(blocks, 6 // blocks), 6 // blocks
    for at in range(0, 600, 100):
        sums.add([x[at : at + 100]], seen[at : at + 100], seen[at : at + 100].mean(0, np.float64))
    found = sums.moments(6 * x.mean(0, np.float64))
    both = np.cov(np.concatenate([x, seen], 1).astype(np.float64).T, bias=True)
    largest = np.abs(both).max()
    for k, own in enumerate(slice(at, at + n) for at in range(0, 6, n)):
        np.testing.assert_allclose(found.covariance[k], both[6:, 6:][own, own], atol=1e-5 * largest)
        np.testing.assert_allclose(found.cross[k], both[:6, 6:][own, own], atol=1e-5 * largest)
    np.testing.assert_allclose(found.mean.ravel(), x.astype(np.float64).mean(0), rtol=1e-7)
    assert np.linalg.eigvalsh(found.covariance).min() > -1e-6 * largest


def test_what_the_float_network_has_is_read_in_the_units_of_the_rewritten_one() -> None:
    """Equalization keeps the function: the given network, read by the views, shows what the rewritten shows."""
    proto = network(
        "a = Conv (x, u) b = Relu (a) y = Conv (b, w)",
        inputs="float[N,3,6,6] x",
        u=normal(8, 3, 1, 1) * np.logspace(-1, 1, 8, dtype=np.float32).reshape(8, 1, 1, 1),
        w=normal(5, 8, 1, 1, seed=3),
    )
    given = FoldBatchnorm()(infer_input(read(proto)))
    model = given
    for step in (Equalize(), ActivationRanges(), Quantize()):
        model = step(model)
    assert any((view.scale != 1).any() for view in model.views.values())
    seen = []
    for teacher in (None, given.graph):
        found: dict[str, SecondMoments] = {}

        def decide(
            layer: Layer, folds: Iterable[SecondMoments], found: dict[str, SecondMoments] = found
        ) -> tuple[Array, Array]:
            found[layer.y] = SecondMoments.mean_of(list(folds))
            integers = quantize(model.graph.consts[layer.weight], model.qparams[layer.weight])
            return integers, bias_of(model.graph, layer)

        round_in_order(model, list(layers(model.graph)), Samples.of(X), decide, teacher=teacher)
        seen.append(found)
    for y, own in seen[0].items():
        np.testing.assert_allclose(seen[1][y].mean, own.mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(seen[1][y].cross, own.cross, rtol=1e-3, atol=1e-5)
