"""The sweep tells what the naive schedule does: for every layer, run the whole network anew over all images."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from onnx import ModelProto, helper, numpy_helper

from equint.graph.inputs import infer_input
from equint.ir.model import Array, Graph, Model, QSpec
from equint.ir.weights import Layer
from equint.onnx.qdq import export
from equint.onnx.reader import read
from equint.onnx.writer import to_proto
from equint.ops.layers import layers
from equint.passes import Pass
from equint.passes.absorb_bias import AbsorbBias
from equint.passes.activation_ranges import ActivationRanges
from equint.passes.equalize import Equalize
from equint.passes.fold_batchnorm import FoldBatchnorm
from equint.passes.quantize import Quantize
from equint.passes.relu6 import Relu6
from equint.runtime import sweep
from equint.runtime.session import Session
from equint.runtime.sweep import mean_errors
from equint.samples.images import Feed, Samples, length
from handwritten import network, normal
from nets import networks, random_network, sample

Errors = dict[str, Array]
Decide = Callable[[Layer, Array], Array]


# The oracle


def corrected(model: Model, changes: Mapping[str, Array]) -> ModelProto:
    """The exported network with something added to what its layers put out before it is rounded: steps of biases."""
    proto = export(model)
    made = {o for node in proto.graph.node for o in node.output}
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    later = {raw_output(made, la): (la, changes[la.name]) for la in layers(model.graph) if la.name in changes}
    for node in nodes:
        proto.graph.node.append(node)
        for k, out in enumerate(node.output):
            if out in later:
                layer, change = later[out]
                if layer.x in model.qparams:
                    step = model.qparams[layer.x].scale * model.qparams[layer.weight].scale
                    change = np.rint(change / step) * step
                shape = [1] * (model.graph.rank(layer.y) or 0)
                shape[layer.y_axis] = change.size
                added = numpy_helper.from_array(change.astype(np.float32).reshape(shape), f"{out}_change")
                proto.graph.initializer.append(added)
                proto.graph.node[-1].output[k] = f"{out}_before"
                proto.graph.node.append(helper.make_node("Add", [f"{out}_before", added.name], [out]))
    return proto


def raw_output(made: set[str], layer: Layer) -> str:
    return f"{layer.y}_float" if f"{layer.y}_float" in made else layer.y


def fold_means(session: Session, feeds: list[Feed], name: str, axis: int, size: int = 1) -> Array:
    """Mean per channel over the images of even and of odd number, `(2, O)`, run `size` by `size`."""
    each: list[Array] = []
    for feed in feeds:
        for k in range(0, length(feed), size):
            some = {n: v[k : k + size] for n, v in feed.items()} if isinstance(feed, Mapping) else feed[k : k + size]
            for value in np.split(session.run(some)[name].astype(np.float64), size):
                each.append(value.mean(tuple(d for d in range(value.ndim) if d != axis % value.ndim)))
    return np.stack([np.mean(each[k::2], 0) if each[k::2] else np.zeros_like(each[0]) for k in range(2)])


def naive(
    model: Model, teacher: Graph, feeds: list[Feed], decide: Decide, size: int = 1
) -> tuple[Errors, dict[str, float]]:
    """Every layer's errors, all layers before it being corrected; and the step of float32 at its largest mean."""
    changes, found, steps = dict[str, Array](), Errors(), dict[str, float]()
    for layer in layers(model.graph):
        if layer.weight not in model.qparams or layer.y not in teacher.producer:
            continue
        proto = corrected(model, changes)
        raw = raw_output({o for node in proto.graph.node for o in node.output}, layer)
        quantized = fold_means(Session(proto, taps=[raw]), feeds, raw, layer.y_axis, size)
        wanted = fold_means(Session(to_proto(teacher), taps=[layer.y]), feeds, layer.y, layer.y_axis, size)
        if layer.y in model.views:
            view = model.views[layer.y]
            wanted = wanted / view.scale.reshape(-1) - view.offset.reshape(-1)
        found[layer.name] = quantized - wanted
        steps[layer.name] = float(np.spacing(np.float32(np.abs(quantized).max())))
        changes[layer.name] = decide(layer, found[layer.name])
    return found, steps


def swept(model: Model, teacher: Graph, feeds: list[Feed], decide: Decide) -> Errors:
    found = Errors()

    def noted(layer: Layer, errors: Array) -> Array:
        found[layer.name] = errors
        return decide(layer, errors)

    biases = mean_errors(model, teacher, Samples.of(feeds), noted)
    assert list(biases) == [la.y for la in layers(model.graph) if la.name in found]
    return found


def take_out(layer: Layer, errors: Array) -> Array:
    """The usual decision."""
    return np.asarray(-errors.mean(0))


def shake(layer: Layer, errors: Array) -> Array:
    """Corrections large enough that every layer behind sees them."""
    return np.asarray(np.random.default_rng(len(layer.name)).normal(0, 0.3, errors.shape[1]))


def assert_agree(model: Model, teacher: Graph, feeds: list[Feed], decide: Decide, size: int = 1) -> Errors:
    """Up to what a few values that are rounded the other way do to a mean, and to what float32 holds of it."""
    found = swept(model, teacher, feeds, decide)
    wanted, steps = naive(model, teacher, feeds, decide, size)
    assert list(found) == list(wanted)
    largest = max(float(np.abs(errors).max()) for errors in wanted.values())
    for name, errors in wanted.items():
        tolerance = 0.02 * float(np.abs(errors).max()) + 1e-4 * largest + steps[name]
        np.testing.assert_allclose(found[name], errors, rtol=0, atol=tolerance, err_msg=name)
    return found


# Agreement

EQUALIZED: tuple[Pass, ...] = (Relu6("channel_clip"), Equalize(), AbsorbBias())
GRIDS = {
    "4 bits per tensor": Quantize(QSpec(4, granularity="tensor")),
    "4 bits per channel": Quantize(QSpec(4, granularity="channel")),
    "weights alone": Quantize(QSpec(3, granularity="channel"), None),
    "16 bits": Quantize(QSpec(5, granularity="channel"), QSpec(12, signed=False, symmetric=False)),
}


def quantized(proto: ModelProto, grid: Pass, *before: Pass) -> tuple[Model, Graph]:
    """The quantized network, and the float one."""
    original = infer_input(read(proto))
    model = FoldBatchnorm()(original)
    for step in (*before, ActivationRanges(), grid):
        model = step(model)
    return model, original.graph


@pytest.mark.slow
@settings(max_examples=12)
@given(
    proto=networks(calibrated=True, count=(1, 4)),
    grid=st.sampled_from(sorted(GRIDS)),
    equalized=st.booleans(),
    decide=st.sampled_from([take_out, shake]),
)
def test_random_networks(proto: ModelProto, grid: str, equalized: bool, decide: Decide) -> None:
    """With branches, gates, shared weights; and rescaled, so that the float network's units are others."""
    model, teacher = quantized(proto, GRIDS[grid], *(EQUALIZED if equalized else ()))
    assert_agree(model, teacher, [sample(proto, 5), sample(proto, 4, seed=1)], decide)


W, V, U = normal(4, 3, 3, 3), normal(4, 5), normal(5, 2)
TWO = "a = Conv(x, w) r = Relu(a) y = Conv(r, v)"
LAST = "t = Transpose <perm = [0, 2, 3, 1]> (x) m = MatMul(t, v) r = Relu(m) y = MatMul(r, u)"
ROWS = "a = Conv(x, w) t = Transpose <perm = [0, 2, 3, 1]> (a) r = Reshape(t, s) m = Gemm(r, v) y = Gemm(m, u)"
SPLIT = "a = Conv(x, w) p, q = Split <axis = 1> (a) c = Conv(p, v) d = Conv(q, v) y = Concat <axis = 1> (d, c, p)"
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "rank 2": ("[N,3]", "a = Gemm(x, w, b) r = Relu(a) y = MatMul(r, v)", {"w": normal(3, 4), "b": normal(4), "v": V}),
    "channels last": ("[N,4,6,6]", LAST, {"v": V, "u": U}),
    "channels last, opset 18": ("[N,4,6,6]", LAST, {"v": V, "u": U, "opset": 18}),
    "channels last, opset 21": ("[N,4,6,6]", LAST, {"v": V, "u": U, "opset": 21, "ir": 10}),
    "tokens": ("[N,5,6]", "m = MatMul(x, w) y = Relu(m)", {"w": normal(6, 4)}),
    "tokens with biases": (
        "[N,5,6]",
        "m = MatMul(x, w) a = Add(m, b) y = Relu(a)",
        {"w": normal(6, 4), "b": normal(4)},
    ),
    "weight first": (
        "[N,6,5]",
        "m = MatMul(w, x) r = Relu(m) y = MatMul(v, r)",
        {"w": normal(4, 6), "v": normal(3, 4)},
    ),
    "any size": ("[N,3,H,W]", TWO, {"w": W, "v": normal(2, 4, 1, 1)}),
    "one image": ("[1,3,8,8]", TWO, {"w": W, "v": normal(2, 4, 1, 1)}),
    "three images": ("[3,3,8,8]", TWO, {"w": W, "v": normal(2, 4, 1, 1)}),
    "rows of all images": ("[N,3,8,8]", ROWS, {"w": W, "v": V, "u": U, "s": [-1, 4]}),
    "rows of one image": ("[1,3,8,8]", ROWS, {"w": W, "v": V, "u": U, "s": [-1, 4]}),
    "float between": (
        "[N,3,8,8]",
        "a = Conv(x, w) e = Softmax <axis = 1> (a) d = Conv(e, v) y = Add(d, e)",
        {"w": W, "v": normal(4, 4, 1, 1)},
    ),
    "parts": ("[N,3,8,8]", SPLIT, {"w": W, "v": normal(2, 2, 1, 1)}),
}


@pytest.mark.slow
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("case", CASES)
def test_layouts(case: str, grid: str) -> None:
    shape, body, consts = CASES[case]
    proto = network(body, inputs=f"float{shape} x", output="float[] y", **consts)
    model, teacher = quantized(proto, GRIDS[grid])
    sizes = [n if isinstance(n, int) else 9 for n in model.graph.shapes["x"]][1:]
    x = np.random.default_rng(0).normal(size=(12, *sizes)).astype(np.float32)
    fixed = 3 if shape[1] == "3" else 1
    assert len(assert_agree(model, teacher, [x[:9], x[9:]], shake, fixed)) == sum(1 for _ in layers(model.graph))


def test_biases_of_products_in_16_bits() -> None:
    """Opset 17 has no quantizers of 16 bits: the network is converted, and a bias stays part of its product."""
    proto = network(
        "m = MatMul(x, w) y = Add(m, b)", inputs="float[N,5,6] x", output="float[] y", w=normal(6, 4), b=V[0, :4]
    )
    model, teacher = quantized(proto, GRIDS["16 bits"])
    assert len(assert_agree(model, teacher, [normal(9, 5, 6, scale=1)], shake)) == 1
    assert [n.op_type for n in export(model).graph.node].count("DequantizeLinear") == 4  # input, weight, bias, output


def test_several_inputs() -> None:
    body = "a = Conv(x, w) g = Gemm(z, v) e = Unsqueeze(g, k) p = Add(a, e) y = Conv(p, u)"
    inputs = "float[N,3,8,8] x, float[N,2] z"
    proto = network(body, inputs=inputs, w=W, v=normal(2, 4), k=[2, 3], u=normal(2, 4, 1, 1))
    model, teacher = quantized(proto, GRIDS["4 bits per tensor"])
    rng = np.random.default_rng(0)
    feeds: list[Feed] = [
        {"z": rng.standard_normal((n, 2), np.float32), "x": rng.standard_normal((n, 3, 8, 8), np.float32)}
        for n in (9, 2)
    ]
    assert len(assert_agree(model, teacher, feeds, shake)) == 3


def test_one_image_tells_one_fold() -> None:
    proto = random_network(6)
    model, teacher = quantized(proto, GRIDS["4 bits per tensor"])
    found = assert_agree(model, teacher, [sample(proto, 1)], take_out)
    assert all(np.any(errors[0]) and not np.any(errors[1]) for errors in found.values())


def test_an_iterator_is_read_as_often_as_needed() -> None:
    proto = random_network(6)
    model, teacher = quantized(proto, GRIDS["4 bits per channel"])
    x, found = sample(proto, 10), Errors()

    def note(layer: Layer, errors: Array) -> Array:
        found[layer.name] = errors
        return take_out(layer, errors)

    mean_errors(model, teacher, Samples.of(iter([x[:4], x[4:]])), note)
    wanted = swept(model, teacher, [x], take_out)
    for name, errors in wanted.items():
        np.testing.assert_allclose(found[name], errors, rtol=0, atol=0.02 * np.abs(errors).max())


def test_layers_that_the_float_network_does_not_have() -> None:
    """Nobody decides about them, and they stay as they are."""
    proto = network("a = Conv(x, w) r = Relu(a) b = Conv(r, v) y = Conv(b, v)", w=W, v=normal(4, 4, 1, 1))
    model, teacher = quantized(proto, GRIDS["4 bits per tensor"])
    renamed = [replace(n, inputs=tuple(o.replace("b", "c") for o in n.inputs)) for n in teacher.nodes]
    renamed = [replace(n, outputs=tuple(o.replace("b", "c") for o in n.outputs)) for n in renamed]
    other = replace(teacher, nodes=tuple(renamed))
    asked = [la.y for la in layers(model.graph) if la.name in assert_agree(model, other, [sample(proto, 5)], shake)]
    assert asked == ["a", "y"]


@pytest.mark.parametrize("grid", GRIDS)
def test_the_biases_that_come_back_are_those_exported(grid: str) -> None:
    """What is stored and what is added, in whole steps where the bias will be an integer."""
    proto = random_network(6)
    model, teacher = quantized(proto, GRIDS[grid])
    changes = {
        la.y: shake(la, np.zeros((2, la.channels(model.graph.consts[la.weight])[1]))) for la in layers(model.graph)
    }
    found = mean_errors(model, teacher, Samples.of(sample(proto, 3)), lambda la, _: changes[la.y])
    for la in layers(model.graph):
        before = np.zeros(1) if la.bias is None else model.graph.consts[la.bias].astype(np.float64)
        wanted = before + changes[la.y]
        if la.x in model.qparams:
            step = (model.qparams[la.x].scale * model.qparams[la.weight].scale).astype(np.float64)
            wanted = (np.rint(before / step) + np.rint(changes[la.y] / step)) * step
        np.testing.assert_allclose(found[la.y], wanted, rtol=1e-5, atol=1e-6)


def test_progress() -> None:
    proto, seen = random_network(5), list[tuple[int, int]]()
    model, teacher = quantized(proto, GRIDS["4 bits per tensor"])
    count = sum(1 for _ in layers(model.graph))
    mean_errors(model, teacher, Samples.of(sample(proto, 2)), take_out, lambda *done: seen.append(done))
    assert seen == [(k, count) for k in range(count)]


# Cost


@pytest.mark.slow
@settings(max_examples=10)
@given(proto=networks(count=(1, 5)), grid=st.sampled_from(sorted(GRIDS)))
def test_every_layer_runs_at_most_twice(proto: ModelProto, grid: str) -> None:
    """Whatever the number of layers: the sweep goes on from what is stored."""
    model, teacher = quantized(proto, GRIDS[grid])
    runs = dict[str, int]()

    class Counted(Session):
        def __init__(self, source: Any, *args: Any, **options: Any) -> None:
            super().__init__(source, *args, **options)
            for node in source.graph.node:
                if any(i.endswith("_open_bias") for i in node.input):
                    runs[node.output[0]] = runs.get(node.output[0], 0) + 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep, "Session", Counted)
        mean_errors(model, teacher, Samples.of(sample(proto, 3)), take_out)
    assert len(runs) == sum(1 for _ in layers(model.graph))
    assert max(runs.values()) <= 2


def test_products_of_unknown_rank_are_taken_row_by_row() -> None:
    """Shapes that inference could not tell change nothing of what is measured."""
    body = "t = Transpose <perm = [0, 2, 3, 1]> (x) a = MatMul(t, w) r = Relu(a) y = MatMul(r, v)"
    proto = network(body, w=normal(3, 4), v=normal(4, 2))
    model = Quantize()(ActivationRanges()(infer_input(read(proto))))
    unknown = {n: s for n, s in model.graph.shapes.items() if n not in ("a", "r", "y")}
    images = Samples.of(normal(6, 3, 8, 8, scale=1))

    def errors(graph: Graph) -> Errors:
        seen: Errors = {}

        def decide(layer: Layer, error: Array) -> Array:
            seen[layer.y] = error
            return np.zeros(error.shape[1])

        sweep.mean_errors(replace(model, graph=graph), read(proto).graph, images, decide)
        return seen

    wanted, found = errors(model.graph), errors(replace(model.graph, shapes=unknown))
    assert wanted.keys() == found.keys() == {"a", "y"}
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], atol=1e-6)
