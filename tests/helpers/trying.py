"""Small classifiers with one known fault, and recipes applied to them, for the tests of diagnoses."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx

from equint.graph.inputs import describe_range
from equint.hardware.target import Target
from equint.ir.model import Model
from equint.onnx.reader import read
from equint.planning import variants
from equint.planning.plan import Data
from equint.planning.recipe import Recipe
from equint.samples.images import Samples
from handwritten import Array, network, normal

BODY = """
a = Conv <pads = [1, 1, 1, 1]> (x, wa, ba) ra = Relu(a)
b = Conv <pads = [1, 1, 1, 1]> (ra, wb, bb) rb = Relu(b)
c = Conv <pads = [1, 1, 1, 1]> (rb, wc, bc) rc = Relu(c)
p = GlobalAveragePool(rc) f = Flatten(p) y = Gemm <transB = 1> (f, wd, bd)
"""


def classifier(change: Callable[[dict[str, Any]], None] = lambda consts: None) -> Model:
    """Three convolutions and a dense layer on inputs from -1 to 1."""
    return describe_range(read(classifier_file(change)), -1, 1)


def classifier_file(change: Callable[[dict[str, Any]], None] = lambda consts: None) -> onnx.ModelProto:
    """The same, as a file holds it."""
    consts: dict[str, Any] = {
        "wa": normal(6, 3, 3, 3, seed=1) * 2,
        "ba": normal(6, seed=2) * np.float32(0.1),
        "wb": normal(6, 6, 3, 3, seed=3) * 2,
        "bb": normal(6, seed=4) * np.float32(0.1),
        "wc": normal(8, 6, 3, 3, seed=5) * 2,
        "bc": normal(8, seed=6) * np.float32(0.1),
        "wd": normal(5, 8, seed=7) * 3,
        "bd": normal(5, seed=8) * np.float32(0.1),
    }
    change(consts)
    return network(BODY, output="float[N,5] y", **consts)


def wide(channel: int, factor: float) -> Callable[[dict[str, Any]], None]:
    """One output channel of b reaches much further than the others, and c takes it back."""

    def change(consts: dict[str, Any]) -> None:
        consts["wb"][channel] *= factor
        consts["bb"][channel] *= factor
        consts["wc"][:, channel] /= factor

    return change


def pictures(count: int = 64, seed: int = 0) -> Array:
    """Images whose mean differs, so that the classifier has something to tell apart."""
    rng = np.random.default_rng(seed)
    x = 0.35 * rng.standard_normal((count, 3, 8, 8)) + rng.uniform(-0.5, 0.5, (count, 3, 1, 1))
    return np.clip(x, -1, 1).astype(np.float32)


def quantizer(model: Model, on: Target, shown: Samples | None = None) -> Callable[[Recipe], Model]:
    """What recipes make of the model; those that look at images look at these."""
    return variants.quantizer(model, on, None if shown is None else Data(images=shown, teacher=model.graph))
