"""ONNX models written by hand, as text, for the tests; and onnxruntime to compare two models.

proto = network("y = Conv <pads = [1, 1, 1, 1]> (x, w)", w=normal(4, 3, 3, 3))
assert_same(proto, rewritten(proto))
"""

import math
import re
from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime  # type: ignore[import-untyped,unused-ignore]
from numpy.typing import ArrayLike, NDArray
from onnx import ModelProto, numpy_helper, parser

Array = NDArray[np.float32]
IMAGE = "float[N,3,8,8] x"


def normal(*shape: int, seed: int = 1, scale: float | None = None) -> Array:
    """Random weights; by default scaled down by the square root of the fan-in, as if all but the first axis were it."""
    fan = math.prod(shape[1:]) if len(shape) > 1 else 1
    values = np.random.default_rng(seed).normal(0, scale or 1 / math.sqrt(max(fan, 1)), shape)
    return values.astype(np.float32)


def network(
    body: str,
    *,
    inputs: str = IMAGE,
    output: str = "float[N,A,B,C] y",
    opset: int = 17,
    ir: int = 8,
    rest: str = "",
    **consts: ArrayLike,
) -> ModelProto:
    """A model of ONNX's text form: one node a line; `rest` holds local functions; double numbers become floats."""
    domains = set(re.findall(r"= (\w+)\.\w+ ", body))
    sets = ", ".join([f'"" : {opset}', *(f'"{d}" : 1' for d in sorted(domains))])
    text = f"<ir_version: {ir}, opset_import: [{sets}]> net ({inputs}) => ({output}) {{ {body} }} {rest}"
    model = parser.parse_model(text)
    for name, value in consts.items():
        array = np.asarray(value)
        array = array.astype(np.float32) if array.dtype == np.float64 else array
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    return model


def execute(model: ModelProto, *xs: Array) -> list[Array]:
    """The outputs of a model in onnxruntime, computed as the graph says."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    return list(session.run(None, {i.name: x for i, x in zip(session.get_inputs(), xs, strict=True)}))


def assert_same(before: ModelProto, after: ModelProto, *xs: Array, tolerance: float = 1e-4) -> None:
    """Both valid models agree, in shapes and up to `tolerance` of the greatest value, by default on random images."""
    onnx.checker.check_model(after, full_check=True)
    xs = xs or (normal(2, 3, 8, 8, scale=1),)
    for wanted, found in zip(execute(before, *xs), execute(after, *xs), strict=True):
        assert found.shape == wanted.shape
        assert np.isfinite(wanted).all()
        np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * max(np.abs(wanted).max(), 1e-6))


def operators(nodes: Sequence[onnx.NodeProto]) -> list[str]:
    return [node.op_type for node in nodes]
