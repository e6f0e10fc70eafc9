"""Between layers in float: what the exported network rounds, and what it computes beside onnxruntime by hand."""

from dataclasses import replace

import numpy as np
import onnx
import pytest

import equint
from equint.hardware.target import TARGETS
from equint.ir.events import EventKind
from equint.ir.model import Model
from equint.onnx.reader import read
from equint.passes.layers_only import LayersOnly
from equint.planning.recipe import recipe, variants
from handwritten import network, normal

GATED = network(
    "a = Conv(x, w) b = Conv(x, v) c = Tanh(a) d = Sigmoid(b) e = Mul(c, d) f = Add(e, e) y = Conv(f, u)",
    w=normal(4, 3, 1, 1), v=normal(4, 3, 1, 1, seed=2), u=normal(2, 4, 1, 1))  # fmt: skip


def rounded(proto: onnx.ModelProto) -> set[str]:
    """Activations that the file quantizes."""
    constants = {i.name for i in proto.graph.initializer}
    return {n.input[0] for n in proto.graph.node if n.op_type == "QuantizeLinear" and n.input[0] not in constants}


@pytest.mark.parametrize("target", [t.name for t in TARGETS])
def test_only_what_layers_read_and_make_is_rounded_where_the_target_allows_it(target: str) -> None:
    named = {v.name: v for v in variants(recipe("optimal"))}
    x = np.random.default_rng(0).normal(size=(16, 3, 8, 8)).astype(np.float32)
    plain, bare = (equint.quantize(GATED, named[n], target, data=x, effort="fast") for n in ("optimal", "layers only"))
    made = [e for e in bare.model.log if e.kind is EventKind.LAYERS_ONLY]
    if target not in ("onnxruntime", "openvino", "tensorrt"):
        assert not made
        assert rounded(bare.proto) == rounded(plain.proto)
        return
    assert rounded(plain.proto) - rounded(bare.proto) == {"c_float", "d_float", "e_float"}
    assert {"x", "f_float"} <= rounded(bare.proto)
    assert made[0].facts["tensors"] == 3


def test_hardware_without_floats_is_left_alone() -> None:
    graph = read(GATED).graph
    model = Model(replace(graph, integers_only=True))
    assert LayersOnly()(model) is model
    assert LayersOnly(mode="integer")(Model(graph)).graph is graph
