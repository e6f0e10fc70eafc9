"""Layer-wise SQNR in the original's units, whatever equalization and absorption did to the tensors."""

from pathlib import Path

import numpy as np
import onnx
import pytest

import equint
from equint.errors import EquintError
from equint.graph.inputs import describe_range
from equint.ir.model import QSpec
from equint.onnx.qdq import export
from equint.onnx.reader import read
from equint.passes.absorb_bias import AbsorbBias
from equint.passes.activation_ranges import ActivationRanges
from equint.passes.equalize import Equalize
from equint.passes.fold_batchnorm import FoldBatchnorm
from equint.passes.quantize import Quantize
from equint.passes.relu6 import Relu6
from equint.study.compare import compare
from handwritten import network, normal
from nets import random_network, sample


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_rewritten_tensors_are_brought_back(tmp_path: Path, seed: int) -> None:
    """At 16 bits, nothing but rounding is left of any rewriting; tensors left in other units would be near 0 dB."""
    proto = random_network(seed, calibrated=True)
    model = describe_range(read(proto), -4, 4)
    wide = Quantize(QSpec(16, granularity="channel"), QSpec(16, signed=False, symmetric=False))
    for step in (FoldBatchnorm(), Relu6("channel_clip"), Equalize(), AbsorbBias(), ActivationRanges(n=20.0), wide):
        model = step(model)
    onnx.save(proto, tmp_path / "float.onnx")
    onnx.save(export(model), tmp_path / "rewritten.onnx")
    rows = compare(tmp_path / "float.onnx", tmp_path / "rewritten.onnx", [sample(proto, 4)])
    assert len(rows) > 2
    assert min(row.sqnr_db for row in rows) > 40


def test_the_ratio_is_that_of_the_outputs(tmp_path: Path) -> None:
    proto = network("h = Conv(x, w) y = Relu(h)", w=normal(4, 3, 3, 3))
    onnx.save(proto, tmp_path / "a.onnx")
    result = equint.quantize(proto, "cwq", weight_bits=3, activation_bits="float", input=(-3, 3))
    result.save(tmp_path / "b.onnx")
    x = normal(2, 3, 8, 8, scale=1.0)
    (row,) = compare(tmp_path / "a.onnx", tmp_path / "b.onnx", [x])
    from handwritten import execute

    (a,), (b,) = execute(proto, x), execute(result.proto, x)
    assert (row.tensor, row.op) == ("y", "Relu")
    assert row.sqnr_db == pytest.approx(
        10 * np.log10((a.astype(float) ** 2).sum() / ((b - a).astype(float) ** 2).sum())
    )
    assert row.peak == pytest.approx(np.abs(a).max())


def test_networks_of_other_origin_share_nothing(tmp_path: Path) -> None:
    onnx.save(network("y = Relu(x)", output="float[N,3,8,8] y"), tmp_path / "a.onnx")
    onnx.save(network("z = Relu(x)", output="float[N,3,8,8] z"), tmp_path / "b.onnx")
    with pytest.raises(EquintError, match="shares no tensor"):
        compare(tmp_path / "a.onnx", tmp_path / "b.onnx")


def test_quantize_leaves_the_graph_to_the_exporter() -> None:
    model = read(network("y = Conv(x, w)", w=normal(4, 3, 3, 3)))
    assert Quantize(activation=None)(model).graph is model.graph
