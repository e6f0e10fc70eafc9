"""Forecasts against what onnxruntime measures of the quantized network."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from equint.ir.model import Array, Model
from equint.job import Job
from equint.maths.noise import to_db
from equint.onnx.qdq import export
from equint.passes import Stage
from equint.planning.run import run
from equint.runtime.forecast import forecast, rounded_twins
from equint.samples.images import Samples
from handwritten import execute, network, normal

DEEP = "a = Conv <pads = [1, 1, 1, 1]> (x, w) r = Relu(a) c = Conv <pads = [1, 1, 1, 1]> (r, v) q = Relu(c)"
WEIGHTS: dict[str, Any] = {"w": normal(6, 3, 3, 3), "v": normal(6, 6, 3, 3, seed=2), "u": normal(4, 6, 1, 1, seed=3)}
PLAIN = network(f"{DEEP} y = Conv(q, u)", **WEIGHTS)
DECIDED = network(f"{DEEP} z = Conv(q, u) y = Softmax <axis = 1> (z)", **{**WEIGHTS, "u": 12 * WEIGHTS["u"]})


def images(count: int) -> Array:
    return normal(count, 3, 8, 8, seed=5, scale=0.5)


def plain_and_quantized(proto: object, x: Array, target: str) -> tuple[Model, Model]:
    job = Job.of(proto, "lwq", target, input=(-2.0, 2.0), data=x)
    at = next(k for k, step in enumerate(job.passes) if step.stage is Stage.QUANTIZE)
    before = run(job.network, job.passes[:at])
    return before, run(before, job.passes[at:])


def measured_db(proto: object, quantized: Model, x: Array) -> float:
    (clean,), (noisy,) = execute(proto, x), execute(export(quantized), x)  # type: ignore[arg-type]
    return float(10 * np.log10(np.sum(clean.astype(np.float64) ** 2) / np.sum((noisy.astype(np.float64) - clean) ** 2)))


@pytest.mark.parametrize("target", ["per-channel", "per-tensor"])
@pytest.mark.parametrize("proto", [PLAIN, DECIDED], ids=["plain", "softmax"])
def test_a_forecast_comes_near_what_is_measured(proto: object, target: str) -> None:
    x = images(16)
    before, quantized = plain_and_quantized(proto, x, target)
    assert abs(to_db(forecast(before, quantized, Samples.of(x))) - measured_db(proto, quantized, x)) < 1.5


def test_what_a_narrow_grid_cuts_off_is_seen_on_samples() -> None:
    x = images(16)
    before, quantized = plain_and_quantized(PLAIN, x, "per-tensor")
    grid = quantized.qparams["r"]
    finer = replace(grid, scale=grid.scale / np.float32(4))
    narrow = replace(quantized, qparams={**quantized.qparams, "r": finer})
    assert abs(to_db(forecast(before, narrow, Samples.of(x))) - measured_db(PLAIN, narrow, x)) < 1


def test_nothing_that_a_grid_holds_out_reaches_a_function_that_does_not_take_it() -> None:
    x = images(16)
    proto = network(f"{DEEP} p = Add(q, e) z = Log(p) y = Conv(z, u)", **WEIGHTS, e=np.array(0.01, np.float32))
    before, quantized = plain_and_quantized(proto, x, "per-channel")
    assert abs(to_db(forecast(before, quantized, Samples.of(x))) - measured_db(proto, quantized, x)) < 3


def test_noise_without_end_is_a_number_still() -> None:
    x = images(4)
    body = f"{DEEP} z = Conv(q, u)"
    (z,) = execute(network(body.replace("z =", "y ="), **WEIGHTS), x)
    proto = network(f"{body} s = Add(z, e) y = Log(s)", **WEIGHTS, e=np.array(1e-5 - z.min(), np.float32))
    before, quantized = plain_and_quantized(proto, x, "per-channel")
    assert np.isfinite(forecast(before, quantized, Samples.of(x)))


def test_twins_are_the_layers_that_quantization_changes_with_its_weights() -> None:
    before, quantized = plain_and_quantized(PLAIN, images(16), "per-channel")
    twins = {next(iter(twin.outputs)): twin for twin in rounded_twins(before.graph, quantized)}
    assert set(twins) == {"a", "c", "y"}
    (weight,) = (value for value in twins["a"].consts.values() if value.ndim == 4)
    grid = quantized.qparams[quantized.graph.producer["a"].inputs[1]]
    steps = weight / np.reshape(grid.scale, (-1, 1, 1, 1))
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)
