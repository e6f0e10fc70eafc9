"""Forecasts against what onnxruntime measures of the quantized network."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import equint
from equint.ir.model import Array, Model
from equint.job import Job
from equint.maths.noise import to_db
from equint.onnx.qdq import export
from equint.passes import Stage
from equint.planning.run import run
from equint.runtime.forecast import errors, forecast
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
def test_a_forecast_comes_near_what_is_measured(target: str) -> None:
    x = images(32)
    before, quantized = plain_and_quantized(PLAIN, x, target)
    found = forecast(before, quantized, Samples.of(x))
    assert abs(to_db(found.total) - measured_db(PLAIN, quantized, x)) < 1.5
    assert found.total == pytest.approx(found.weights + found.rounding + found.clips)


def test_noise_in_front_of_a_softmax_is_put_through_it() -> None:
    x = images(32)
    before, quantized = plain_and_quantized(DECIDED, x, "per-tensor")
    found = forecast(before, quantized, Samples.of(x))
    measured = measured_db(DECIDED, quantized, x)
    assert abs(to_db(found.total) - measured) < 3
    assert found.total != found.weights + found.rounding + found.clips


def test_what_a_narrow_grid_cuts_off_is_seen_on_samples() -> None:
    x = images(32)
    before, quantized = plain_and_quantized(PLAIN, x, "per-tensor")
    grid = quantized.qparams["r"]
    finer = replace(grid, scale=grid.scale / np.float32(4))
    narrow = replace(quantized, qparams={**quantized.qparams, "r": finer})
    wide, found = (forecast(before, model, Samples.of(x)) for model in (quantized, narrow))
    assert found.clips > 10 * wide.clips
    assert abs(to_db(found.total) - measured_db(PLAIN, narrow, x)) < 2


def test_errors_add_up_to_what_the_grid_changes() -> None:
    x = images(1)
    result = equint.quantize(PLAIN, "lwq", "per-tensor", input=(-0.3, 0.3))
    grid = result.model.qparams["x"]
    rounded, cut = errors(x, grid)
    assert np.abs(rounded).max() <= float(grid.scale) / 2 * (1 + 1e-4)
    integers = np.clip(np.rint(x / grid.scale) + grid.zero_point, grid.qmin, grid.qmax)
    np.testing.assert_allclose(x + rounded + cut, (integers - grid.zero_point) * grid.scale, atol=1e-6)
