"""What the report is made of, from a result of `equint.quantize`."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from equint import Result
from equint.demo import data_path
from equint.ir.model import Model
from equint.pages.contents import Beside, contents, formats
from equint.passes.activation_ranges import ActivationRanges
from equint.passes.calibrate import Calibrate
from equint.passes.fold_batchnorm import FoldBatchnorm
from equint.passes.quantize import Quantize
from equint.passes.relu6 import Relu6
from equint.samples.images import Samples

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp;{{ 7*7 }}\u2028"
"""A name that would do harm where it is not escaped."""


def digits(count: int = 16) -> Samples:
    """The demo's held-out digits, as its network wants them."""
    with np.load(data_path()) as file:
        x = file["x"][:count]
    return Samples.of(np.moveaxis(x.reshape(len(x), 8, 8, -1), -1, 1).astype(np.float32) / 16)


def plain_grids(result: Result) -> Model:
    """The float network with grids as plain as can be, in the result's format."""
    inputs = result.original.graph.inputs
    known = {n: m for n, m in result.model.moments.items() if n in inputs}
    spans = {n: r for n, r in result.model.ranges.items() if n in inputs}
    original = replace(result.original, moments=known, ranges=spans)
    model = Relu6("channel_clip" if result.hardware.channel_clip else "keep")(FoldBatchnorm()(original))
    weight, activation = formats(result.model)
    return Quantize(weight, activation, result.hardware.bias_bits)(ActivationRanges()(Calibrate()(model)))


def told(
    result: Result, measured: Mapping[str, Any] | None = None, images: Samples | None = None, **given: Any
) -> dict[str, Any]:
    """The contents of a result's report."""
    return contents(result, plain_grids(result), Beside(measured=measured or {}, images=images, **given))
