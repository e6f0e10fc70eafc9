"""What candidates lose, against loops over onnxruntime's outputs; blindness, chances and parts by hand."""

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from equint.errors import EquintError
from equint.graph.inputs import describe_range
from equint.hardware.target import target
from equint.ir.model import Model
from equint.onnx.qdq import export
from equint.onnx.reader import read
from equint.onnx.writer import to_proto
from equint.planning.plan import resolve
from equint.planning.recipe import recipe
from equint.planning.run import run
from equint.runtime.judge import Judge, Judgement, judge
from equint.samples.images import Samples
from equint.study.compare import compare
from handwritten import Array, execute, network, normal

HEAD = """
f = Conv <pads = [1, 1, 1, 1]> (x, w) r = Relu(f) b = Conv(r, v) s = Conv(r, u) t = Sigmoid(s)
y = Concat <axis = 1> (b, t)
"""
WEIGHTS: dict[str, Any] = {
    "w": normal(8, 3, 3, 3),
    "v": 300 * normal(4, 8, 1, 1, seed=2),
    "u": normal(2, 8, 1, 1, seed=3),
}


def quantized(model: Model, name: str) -> Model:
    return run(model, resolve(recipe(name), target("per-channel")))


def db(signal: Array, noisy: Array) -> float:
    a, b = signal.astype(np.float64), noisy.astype(np.float64)
    return float(10 * np.log10(np.sum(a**2) / np.sum((a - b) ** 2)))


def judged(model: Model, candidates: dict[str, Model], x: Array) -> Judgement:
    protos = {name: export(candidate) for name, candidate in candidates.items()}
    return judge(model.graph, protos, Samples.of(x))


def test_each_part_of_an_output_has_its_own_figures() -> None:
    """Boxes reach 300, scores 1: on their common grid all of the scores is lost, which the whole output hides."""
    proto = network(HEAD, **WEIGHTS)
    model, x = describe_range(read(proto), -1, 1), normal(10, 3, 8, 8, scale=0.3)
    candidate = quantized(model, "cwq")
    (clean,), (noisy,) = execute(proto, x), execute(export(candidate), x)
    found = judged(model, {"cwq": candidate}, x)
    rows = {row.part: row for row in found.losses["cwq"] if row.role == "output"}
    assert set(rows) == {"b", "t"}
    for name, own in (("b", slice(0, 4)), ("t", slice(4, 6))):
        assert rows[name].sqnr_db == pytest.approx(db(clean[:, own], noisy[:, own]), abs=1e-3)
    worst = np.mean([10 ** (-row.sqnr_db / 10) for row in rows.values()])
    assert found.sqnr_db["cwq"] == pytest.approx(-10 * np.log10(worst), abs=1e-3)


def test_tensors_inside_are_compared_in_the_units_of_the_original() -> None:
    body = "a = Conv(x, w) r = Relu(a) c = Conv(r, v) q = Relu(c) d = Conv(q, u) p = Relu(d) y = Conv(p, z)"
    consts: dict[str, Any] = {
        "w": normal(4, 3, 3, 3),
        "v": normal(6, 4, 1, 1),
        "u": normal(6, 6, 1, 1),
        "z": normal(2, 6, 1, 1),
    }
    proto = network(body, **consts)
    model, x = describe_range(read(proto), -1, 1), normal(6, 3, 8, 8, scale=0.3)
    scaled = quantized(model, "dfq")
    assert any(np.any(view.scale != 1) for view in scaled.views.values())
    inside = [row for row in judged(model, {"dfq": scaled}, x).losses["dfq"] if row.role == "inside"]
    known = {t.tensor: t.sqnr_db for t in compare(proto, export(scaled), [x])}
    assert len(inside) == 3
    for row in inside:
        assert row.sqnr_db == pytest.approx(known[row.tensor], abs=1e-3)


def test_saturated_dead_and_agreeing() -> None:
    body = "g = GlobalAveragePool(x) h = Flatten(g) y = Gemm(h, w)"
    weights = np.eye(3), np.diag([1.0, 0.0, 0.0]), np.zeros((3, 3))
    proto, half, dead = (network(body, output="float[N,A] y", w=w) for w in weights)
    x = np.zeros((4, 3, 8, 8), np.float32)
    x[:, :] = np.array([[3, 2, 1], [1, 2, 3], [9, 1, 1], [1, 1, 9]], np.float32)[:, :, None, None]
    found = judge(read(proto).graph, {"half": half, "dead": dead}, Samples.of(x))
    own = {name: next(r for r in rows if r.role == "output") for name, rows in found.losses.items()}
    assert own["half"].agreement == 50.0  # where the first class is best
    assert (own["half"].dead, own["dead"].dead) == (False, True)
    assert found.best == "half"


def test_saturated_share_is_that_of_values_beyond_the_grid() -> None:
    proto = network("y = Conv(x, w)", w=np.eye(3).reshape(3, 3, 1, 1))
    model, x = describe_range(read(proto), -1, 1), normal(8, 3, 8, 8, scale=4.0)
    candidate = quantized(model, "cwq")
    low, high = candidate.qparams["y"].lo, candidate.qparams["y"].hi
    step = float(candidate.qparams["y"].scale)
    row = next(r for r in judged(model, {"cwq": candidate}, x).losses["cwq"] if r.role == "output")
    assert row.saturated == pytest.approx(np.mean((x < low - step / 2) | (x > high + step / 2)), abs=1e-6)
    assert row.saturated is not None
    assert row.saturated > 0.01


def test_a_detector_that_sees_nothing_is_judged_in_front_of_its_sigmoid() -> None:
    """Scores of 1e-5 rank nothing: what stands before them does, and the judgement says so."""
    body = "a = Conv(x, w) r = Relu(a) s = Conv(r, v, bias) y = Sigmoid(s)"
    consts: dict[str, Any] = {"w": normal(8, 3, 3, 3), "v": normal(2, 8, 1, 1)}
    x = normal(8, 3, 8, 8, scale=0.3)
    model, seeing = (describe_range(read(network(body, **consts, bias=np.full(2, b))), -1, 1) for b in (-12.0, 0.0))
    found = judged(model, {"good": quantized(model, "cwq"), "bad": quantized(model, "lwq")}, x)
    before = {name: next(r for r in rows if r.role == "before") for name, rows in found.losses.items()}
    assert any("y reaches" in why for why in found.blind)
    for name, row in before.items():
        assert row.tensor == "s"
        assert found.sqnr_db[name] == pytest.approx(row.sqnr_db)
    awake = judged(seeing, {"good": quantized(seeing, "cwq")}, x)
    assert awake.blind == ()
    assert awake.sqnr_db["good"] == pytest.approx(awake.losses["good"][0].sqnr_db)


def test_samples_that_excite_less_than_expected_make_blind() -> None:
    graph = read(network("y = Conv(x, w)", w=normal(4, 3, 3, 3))).graph
    x = normal(4, 3, 8, 8, scale=1.0)
    power = float(np.mean(np.square(execute(to_proto(graph), x)[0])))
    for expected, blind in ((power, False), (90 * power, False), (110 * power, True)):  # 20 dB is a factor of 100
        seat = Judge(graph, {"same": to_proto(graph)}, {"y": expected})
        seat.show(x)
        assert bool(seat.blind()) == blind


def test_batches_are_not_kept() -> None:
    graph = read(network("y = Conv(x, w)", w=normal(4, 3, 3, 3))).graph
    shown = list[weakref.ref[Array]]()

    def batches() -> Iterator[Array]:
        for seed in range(4):
            batch = normal(4, 3, 8, 8, seed=seed)
            shown.append(weakref.ref(batch))
            yield batch
            del batch
            gc.collect()
            assert sum(ref() is not None for ref in shown) <= 1

    assert judge(graph, {"same": to_proto(graph)}, Samples(batches)).images == 16


def test_a_network_of_other_outputs_is_refused() -> None:
    graph = read(network("y = Conv(x, w)", w=normal(4, 3, 3, 3))).graph
    other = network("z = Conv(x, w)", output="float[N,A,B,C] z", w=normal(4, 3, 3, 3))
    with pytest.raises(EquintError, match="candidate mine has no output y"):
        Judge(graph, {"mine": other})
