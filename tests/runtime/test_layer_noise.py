"""Every layer's own noise against loops by hand, and against the exported network with one thing quantized."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from equint.errors import EquintError
from equint.graph.channels import solve
from equint.graph.inputs import describe_range
from equint.ir.model import Array, Model, QParams, QSpec, View
from equint.onnx.qdq import export
from equint.onnx.reader import read
from equint.ops.layers import layers, tiny_graph
from equint.passes.calibrate import Calibrate
from equint.passes.fold_batchnorm import FoldBatchnorm
from equint.passes.one_step import OneStep
from equint.passes.quantize import Quantize
from equint.runtime.layer_noise import LayerPower, measure
from equint.runtime.session import Session
from equint.samples.images import Samples
from handwritten import network, normal
from nets import random_network, sample

KINDS = ("weights", "activations", "both")


def convolved(x: Array, w: Array, b: Array) -> Array:
    """A convolution padded by one, in plain loops."""
    n, _, height, width = x.shape
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    y = np.zeros((n, len(w), height, width))
    for i in range(height):
        for j in range(width):
            window = padded[:, None, :, i : i + 3, j : j + 3]
            y[:, :, i, j] = (window * w[None]).sum((2, 3, 4)) + b
    return y


def rounded(x: Array, scale: float, lo: int, hi: int) -> Array:
    return np.asarray(np.clip(np.rint(x / scale), lo, hi) * scale)


def on_grid(scale: float, zero_point: int = 0, bits: int = 8, signed: bool = True) -> QParams:
    return QParams(np.asarray(scale, np.float32), np.asarray(zero_point, np.int32), bits, signed)


def power(a: Array, b: Array | float = 0.0) -> float:
    return float(np.sum(np.square(a.astype(np.float64) - b)))


@pytest.mark.parametrize("bits", [4, 8, 12])
def test_one_convolution_by_hand(bits: int) -> None:
    """Widths that no runtime has a quantizer for are as good as 8 bits."""
    w, b, x = normal(4, 3, 3, 3), normal(4, seed=2, scale=1.0), normal(6, 3, 8, 8, seed=3, scale=1.0)
    model = read(network("y = Conv <pads = [1, 1, 1, 1]> (x, w, b)", w=w, b=b))
    half = 1 << (bits - 1)
    w_step, x_step, zero = float(np.abs(w).max() / (half - 1)), 4.0 / (2 * half - 1), half // 2
    grids = {"w": on_grid(w_step, 0, bits), "x": on_grid(x_step, zero, bits, signed=False)}
    found = measure(model, replace(model, qparams=grids), Samples.of(x))
    w_hat, x_hat = rounded(w, w_step, -half, half - 1), rounded(x, x_step, -zero, 2 * half - 1 - zero)
    y = convolved(x, w, b)
    wanted = LayerPower(
        signal=power(y),
        weights=power(convolved(x, w_hat, b), y),
        activations=power(convolved(x_hat, w, b), y),
        both=power(convolved(x_hat, w_hat, b), y),
        rounding=power(convolved(np.rint(x / x_step) * x_step, w, b), y),
        clips=power(convolved(np.clip(x, -zero * x_step, (2 * half - 1 - zero) * x_step), w, b), y),
    )
    assert found.images == 6
    assert wanted.clips is not None
    assert wanted.clips > 0
    assert found.layers.keys() == {"y"}
    known = {kind: value for kind, value in vars(found.layers["y"]).items() if value is not None}
    assert known == pytest.approx({k: v for k, v in vars(wanted).items() if v is not None}, rel=1e-3)


def test_two_layers_by_hand() -> None:
    """What the second makes of the first's rounded weights, of its rounded output, and of all with its own weights."""
    w, v, x = normal(4, 3, 1, 1), normal(2, 4, 1, 1, seed=2), normal(6, 3, 8, 8, seed=3, scale=1.0)
    model = read(network("h = Conv(x, w) r = Relu(h) y = Conv(r, v)", w=w, v=v))
    steps = {"w": float(np.abs(w).max() / 7), "v": float(np.abs(v).max() / 7), "r": 0.05}
    grids = {name: on_grid(step, 0, 4) for name, step in steps.items()} | {"r": on_grid(0.05, 0, 8, signed=False)}
    found = measure(model, replace(model, qparams=grids), Samples.of(x)).layers

    def conv(a: Array, b: Array) -> Array:
        return np.asarray(np.einsum("oi,nihw->nohw", b[:, :, 0, 0].astype(np.float64), a))

    w_hat, v_hat = rounded(w, steps["w"], -8, 7), rounded(v, steps["v"], -8, 7)
    h, h_hat = conv(x, w), conv(x, w_hat)
    r, r_hat = np.maximum(h, 0), np.maximum(h_hat, 0)
    y = conv(r, v)
    assert found["h"].stored == pytest.approx(power(r), rel=1e-3)
    assert found["h"].output == pytest.approx(power(rounded(r, 0.05, 0, 255), r), rel=1e-2)
    assert found["h"].y1 == pytest.approx(power(rounded(r_hat, 0.05, 0, 255), r), rel=1e-2)
    assert (found["h"].earlier, found["h"].y2) == (None, None)
    assert found["y"].earlier == pytest.approx(power(conv(r_hat, v), y), rel=1e-3)
    assert found["y"].y2 == pytest.approx(power(conv(rounded(r_hat, 0.05, 0, 255), v_hat), y), rel=1e-2)
    assert found["y"].y1 is None  # its output has no grid


def test_products_with_the_weight_on_either_side() -> None:
    x = normal(3, 5, 8, 6, seed=4, scale=1.0)
    for order, w in (("(x, w)", normal(6, 4)), ("(w, x)", normal(4, 8))):
        model = read(network(f"y = MatMul {order}", inputs="float[N,5,8,6] x", output="float[N,A,B,C] y", w=w))
        step = 0.25
        found = measure(model, replace(model, qparams={"w": on_grid(step)}), Samples.of(x)).layers["y"]
        exact, noisy = (x @ v if order == "(x, w)" else v @ x for v in (w, rounded(w, step, -128, 127)))
        assert found.signal == pytest.approx(power(exact), rel=1e-4)
        assert found.weights == pytest.approx(power(noisy, exact), rel=1e-4)
        assert (found.activations, found.both) == (None, None)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_rescaled_networks_against_their_export(seed: int) -> None:
    """The exported network with one weight, one tensor or both quantized: its noise at that layer, in float units.

    Values halfway between two steps may go either way, which shows in tensors of few values.
    """
    proto = random_network(seed, calibrated=True, activations=("relu", "linear", "leaky", "prelu"))
    x = sample(proto, 8)
    model = Calibrate(images=Samples.of(x))(FoldBatchnorm()(describe_range(read(proto), -4, 4)))
    scaled = OneStep(shared_clips=False)(model)
    quantized = Quantize(QSpec(6, granularity="tensor"), QSpec(6, signed=False, symmetric=False))(scaled)
    found = measure(model, quantized, Samples.of(x)).layers
    exact = Session(export(scaled), taps=[la.y for la in layers(scaled.graph)]).run(x)
    assert found.keys() == {la.y for la in layers(model.graph)}
    for layer in layers(quantized.graph):
        scale = quantized.views[layer.y].scale if layer.y in quantized.views else np.ones(1)
        y = exact[layer.y] * scale
        assert found[layer.y].signal == pytest.approx(power(y), rel=1e-3)
        for kind, names in zip(KINDS, ((layer.weight,), (layer.x,), (layer.weight, layer.x)), strict=True):
            if not all(name in quantized.qparams for name in names):
                assert getattr(found[layer.y], kind) is None
                continue
            bias = {layer.bias: scaled.graph.consts[layer.bias]} if layer.bias else {}
            one = replace(scaled, qparams={name: quantized.qparams[name] for name in names})
            one = replace(one, graph=one.graph.with_consts(bias))
            noisy = Session(export(one), taps=[layer.y]).run(x)[layer.y] * scale
            wanted = 10 * np.log10(max(power(noisy, y), 1e-8 * power(y)) / power(y))
            measured = 10 * np.log10(max(getattr(found[layer.y], kind), 1e-8 * power(y)) / power(y))
            assert measured == pytest.approx(wanted, abs=0.05 if kind == "weights" else 0.5), (layer.name, kind)


def test_a_bound_that_moved_is_noise_of_the_input() -> None:
    """Channels halved behind ReLU6 let twice as much pass: 6 becomes 12 in the float network's units."""
    body = "h = Conv(x, w) r = Clip(h, low, high) y = Conv(r, v)"
    v = normal(2, 4, 1, 1, seed=5)
    proto = network(body, w=10 * normal(4, 3, 1, 1), v=v, low=0.0, high=6.0)
    model, x = read(proto), normal(4, 3, 8, 8, seed=6, scale=1.0)
    half = np.full((1, 4, 1, 1), 2.0)
    views = {name: View(half, np.zeros(1)) for name in ("h", "r")}
    consts = {"w": model.graph.consts["w"] / 2, "v": model.graph.consts["v"] * 2}
    grid = on_grid(6 / 4095, 0, 12, signed=False)
    moved = Model(model.graph.with_consts(consts), qparams={"r": grid}, views=views)
    found = measure(model, moved, Samples.of(x)).layers["y"]
    h = np.einsum("oi,nihw->nohw", model.graph.consts["w"][:, :, 0, 0], x)
    wrong = np.clip(h, 0, 12) - np.clip(h, 0, 6)
    wanted = power(np.einsum("oi,nihw->nohw", v[:, :, 0, 0], wrong))
    assert found.clips == pytest.approx(wanted, rel=1e-3)
    assert found.activations == pytest.approx(wanted, rel=1e-2)
    assert found.rounding is not None
    assert found.rounding < 1e-4 * wanted


def test_a_corrected_bias_counts_with_the_weights() -> None:
    w, b, x = np.ones((2, 3, 1, 1)), np.zeros(2), normal(2, 3, 8, 8, seed=7, scale=1.0)
    model = read(network("y = Conv(x, w, b)", w=w, b=b))
    grid = {"w": on_grid(1.0)}
    corrected = Model(model.graph.with_consts({"b": np.array([0.5, 0.0], np.float32)}), qparams=grid)
    found = measure(model, corrected, Samples.of(x)).layers["y"]
    assert found.weights == pytest.approx(0.25 * 2 * 64, rel=1e-5)


def test_images_flow_through_in_small_batches() -> None:
    alive: list[weakref.ref[Array]] = []
    most, done = 0, list[int]()

    def batches() -> Iterator[Array]:
        nonlocal most
        for k in range(20):
            batch = np.full((6, 4, 4, 4), k + 1, np.float32)
            alive.append(weakref.ref(batch))
            most = max(most, sum(ref() is not None for ref in alive))
            yield batch

    quantized = Model(tiny_graph(), qparams={"w": on_grid(0.75)})
    found = measure(Model(tiny_graph()), quantized, Samples(batches), progress=done.append)
    assert found.images == 120
    assert done[:4] == [4, 6, 10, 12]
    assert most <= 3
    (layer,) = found.layers.values()
    assert layer.weights == pytest.approx(layer.signal / 16, rel=1e-4)


@pytest.mark.parametrize("opset", [17, 18])
def test_a_baked_in_batch_counts_every_sample_once(opset: int) -> None:
    """Five samples where four go at once: what fills the second batch up is no sample."""
    body = "a = Conv <pads = [1, 1, 1, 1]> (x, w) g = GlobalAveragePool(a) f = Reshape(g, s) y = MatMul(f, v)"
    consts: dict[str, Any] = {"w": normal(4, 3, 3, 3), "v": normal(4, 5)}
    x = Samples.of(normal(5, 3, 8, 8, seed=8, scale=1.0))
    found = []
    for front, rows in ((4, 4), ("N", -1)):
        inputs = f"float[{front},3,8,8] x"
        proto = network(body, inputs=inputs, output="float[] y", opset=opset, s=[rows, 4], **consts)
        model = describe_range(read(proto), -3, 3)
        found.append(measure(model, replace(model, qparams={"w": on_grid(0.1), "v": on_grid(0.1)}), x))
    fixed, free = found
    assert fixed.images == free.images == 5
    for name, powers in free.layers.items():
        for kind in ("signal", "weights"):
            assert getattr(fixed.layers[name], kind) == pytest.approx(getattr(powers, kind), rel=1e-5)


def test_nothing_quantized_is_nothing_measured() -> None:
    found = measure(Model(tiny_graph()), Model(tiny_graph()), Samples.of(np.ones((1, 4, 4, 4), np.float32)))
    assert (found.images, found.layers) == (0, {})


def test_refuses_what_it_cannot_compare() -> None:
    model, images = Model(tiny_graph()), Samples.of(np.full((1, 4, 4, 4), 3e38, np.float32))
    grid = {"w": on_grid(0.75)}
    with pytest.raises(EquintError, match="tensor y takes values that are not finite"):
        measure(model, replace(model, qparams=grid), images)
    shifted = replace(model, qparams=grid, views={"y": View(np.ones(1), np.ones(1))})
    with pytest.raises(EquintError, match="was shifted"):
        measure(model, shifted, images)


def test_names_of_the_network_are_left_alone() -> None:
    proto = network(
        "noise = Conv(x, noise0) noise_ = Relu(noise) y = Conv(noise_, v)",
        noise0=normal(4, 3, 1, 1),
        v=normal(2, 4, 1, 1),
    )
    model = read(proto)
    assert solve(model).groups
    quantized = Quantize(QSpec(8), None)(model)
    found = measure(model, quantized, Samples.of(normal(2, 3, 8, 8, seed=8, scale=1.0)))
    assert found.layers.keys() == {"noise", "y"}
