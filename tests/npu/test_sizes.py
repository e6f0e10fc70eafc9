from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from equint.errors import EquintError
from equint.integers.program import Program
from equint.integers.steps import LAYERS
from equint.ir.model import Model, QSpec
from equint.npu.published import TABLE_4, efficientnet_b3, inception_v3, mobilenet_v1, mobilenet_v2, resnet50, table_4
from equint.npu.sizes import SCHEMES, figure_4, layer_bits, network_sizes, paper_tables, parameter_bits
from equint.ops.layers import tiny_graph
from equint.passes.prune import Prune
from equint.passes.quantize import Quantize
from programs import programs


@pytest.mark.parametrize("name", TABLE_4)
def test_table_4_of_the_paper(name: str) -> None:
    size = next(row for row in table_4() if row["network"] == name)
    for scheme, text in size["printed"].items():
        if (name, scheme) == ("EfficientNet B3", "lwq"):  # printed 12.10; the other two say that it is 12.09
            assert round(size[scheme], 4) == 12.0943
            continue
        digits = len(text.split(".")[1])
        assert f"{size[scheme]:.{digits}f}" == text


def test_the_networks_are_the_published_ones() -> None:
    # weights of convolutions and dense layers, without biases and batch norms, as Keras and PyTorch count them
    assert sum(w for w, _ in mobilenet_v1()) == 4_253_864 - 4 * 10_944 - 1000
    assert sum(w for w, _ in mobilenet_v2()) == 3_538_984 - 4 * 17_056 - 1000
    assert sum(w for w, _ in efficientnet_b3()) == 12_320_535 - 4 * 43_648 - 20_080 - 1000 - 7
    assert sum(w for w, _ in resnet50()) == 25_557_032 - 2 * 26_560 - 1000
    assert sum(w for w, _ in inception_v3()) == 23_851_784 - 3 * 17_216 - 1000


def test_table_1_of_the_paper() -> None:
    assert parameter_bits(1) == {"lwq": 32 + 6 + 8, "cwq": 32 + 6 + 8, "wes": 32 + 6 + 8 + 4}
    assert parameter_bits(100) == {"lwq": 46, "cwq": 4600, "wes": 446}


def test_figure_4_as_counted_by_table_1() -> None:
    rows = {(r["part"], r["scheme"], r["channels"]): r for r in paper_tables()}
    away = {key: round(r["counted"] - r["printed"], 2) for key, r in rows.items()}
    assert away["b", "wes", 32] == -0.03
    assert away["b", "wes", 1024] == -0.05
    assert away["b", "cwq", 1024] == 0.01
    assert away["a", "cwq", 1024] == -0.21
    assert away["a", "wes", 32] == -0.05
    assert away["a", "wes", 1024] == 0.05
    assert away["a", "cwq", 32] == 1.68  # not what is printed, by this much
    assert away["b", "cwq", 32] == -0.47


def test_figure_4_as_printed() -> None:
    for row in paper_tables():
        if (row["part"], row["scheme"]) != ("a", "wes"):
            digits = 0 if row["part"] == "a" else 1
            assert f"{row['as_printed']:.{digits}f}" == f"{row['printed']:.{digits}f}"
    shifts = [r["wes_more"] for r in figure_4(as_printed=True) if r["part"] == "a"]
    assert [f"{s:.1f}" for s in shifts] == ["5.3", "5.4", "5.5", "5.5", "5.5", "5.5"]


def test_figure_4_written_out() -> None:
    row = next(r for r in figure_4((32,)) if r["part"] == "b")
    weights = 1024 + 0.8 * 1024 * 8 + 32
    assert row["lwq"] == (weights + 46) / 8
    assert row["cwq"] == (weights + 46 * 32) / 8
    assert row["wes"] == (weights + 46 + 4 * 32) / 8


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(program=programs())
def test_packed_bytes_are_the_formula_up_to_whole_bytes(program: Program) -> None:
    found = network_sizes(program)
    steps = [step for step in program.steps if step.op in LAYERS]
    assert [row["layer"] for row in found["layers"]] == [step.name for step in steps]
    for row, step in zip(found["layers"], steps, strict=True):
        weight = step.arrays["weight"]
        assert row["weights"] == weight.size
        assert row["channels"] == step.arrays["bias"].size
        kept = round(weight.size * (1 - row["zeros"]))
        for ending, count in (("", None), ("_sparse", kept)):
            wanted = layer_bits(weight.size, row["channels"], count, row["bits"])
            below = (
                0
                if step.requantize is None
                else np.size(() if step.requantize.mantissa_below is None else step.requantize.mantissa_below)
            )
            for scheme in SCHEMES:
                more = row[scheme + ending] - (wanted[scheme] + 38 * below) / 8
                assert 0 <= more < 7, scheme  # arrays that begin at whole bytes
    for key in (*SCHEMES, *(f"{s}_sparse" for s in SCHEMES)):
        assert found["total"][key] == sum(row[key] for row in found["layers"])


def test_a_model_by_hand() -> None:
    weight = np.arange(1, 37, dtype=np.float32).reshape(4, 1, 3, 3)
    model = Prune(sparsity=0.5)(Model(tiny_graph().with_consts({"w": weight})))
    found = network_sizes(Quantize(QSpec(4, signed=False, symmetric=False), activation=None)(model))
    assert found["total"]["zeros"] >= 0.5  # those pruned, and small ones that are rounded to zero
    row = found["layers"][0]
    kept = round(36 * (1 - row["zeros"]))
    dense, sparse = 18, 5 + -(-kept * 4 // 8) + 4
    lwq, cwq, wes = 4 + 1 + 1, 4 * 4 + 3 + 4, 4 + 1 + 1 + 2
    assert [row[s] for s in SCHEMES] == [dense + 16 + p for p in (lwq, cwq, wes)]
    assert [row[f"{s}_sparse"] for s in SCHEMES] == [sparse + 16 + p for p in (lwq, cwq, wes)]


def test_a_weight_that_two_layers_share_is_counted_once() -> None:
    graph = tiny_graph()
    node = graph.nodes[0]
    twice = replace(graph, nodes=(node, replace(node, inputs=("y", "w"), outputs=("z",))), outputs=("z",))
    found = network_sizes(Quantize(activation=None)(Model(twice)))
    assert len(found["layers"]) == 1


def test_a_model_without_grids_is_refused() -> None:
    with pytest.raises(EquintError, match="y: its weights have no integer grid yet; quantize the model first"):
        network_sizes(Model(tiny_graph()))
