"""What calibration measures is what numpy makes of every tensor, however the images come and the run is cut."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from onnx import ModelProto

from crews import Backwards
from equint.crew.workers import Alone
from equint.errors import EquintError
from equint.graph.placement import place
from equint.ir.model import Array, Graph
from equint.onnx.reader import read
from equint.onnx.writer import to_proto
from equint.ops.attributes import clip_bounds
from equint.passes.fold_batchnorm import FoldBatchnorm
from equint.runtime import batches, running
from equint.runtime import collect as calibrate
from equint.runtime.collect import collect
from equint.runtime.session import Session
from equint.runtime.taps import channel_axes
from equint.samples.images import SPAN, Feed, Samples, length
from equint.samples.statistics import Histogram, Statistics, TensorStatistics
from handwritten import execute, network, normal
from nets import networks, random_network, sample

# The oracle: numpy on tapped activations, image by image


def tapped(graph: Graph, feeds: Iterable[Feed], names: Iterable[str], size: int = 1) -> list[dict[str, Array]]:
    """The values of tensors for every `size` images, computed as the graph says."""
    session = Session(to_proto(graph), taps=[n for n in names if n not in graph.inputs])
    found = []
    for feed in feeds:
        table = dict(feed) if isinstance(feed, Mapping) else {graph.inputs[0]: feed}
        for k in range(0, length(feed), size):
            part = {n: v[k : k + size] for n, v in table.items()}
            found.append({**part, **session.run(part)})
    return found


def floor(graph: Graph, name: str) -> float:
    """What a ReLU or clip of feature maps is told to let through at least, which nobody needs to measure."""
    node = graph.producer.get(name)
    if node is None or node.op not in ("Relu", "Clip") or (graph.rank(name) or 0) < 3:
        return np.inf
    low, _ = clip_bounds(graph, node)
    return np.inf if low is None or low.size > 1 or not np.isfinite(low) else float(low)


def assert_measured(t: TensorStatistics, values: list[Array], size: int, least: float, label: str) -> None:
    """Statistics of one tensor against numpy on its values for every `size` images."""
    moved = [np.moveaxis(v.astype(np.float64), t.axis, 0).reshape(v.shape[t.axis], -1) for v in values]
    rows, scale = np.concatenate(moved, 1), max(float(max(np.abs(v).max() for v in values)), 1e-6)

    def close(found: Array, wanted: Array, tolerance: float) -> None:
        np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance, err_msg=label)

    assert {v.ndim for v in values} == {t.rank}, label
    assert (t.images, t.count) == (size * len(values), rows.shape[1]), label
    close(t.low, np.minimum(rows.min(1), least), 1e-4 * scale)
    close(t.high, rows.max(1), 1e-4 * scale)
    close(t.total / t.count, rows.mean(1), 1e-4 * scale)
    close(t.square / t.count, np.square(rows).mean(1), 1e-4 * scale**2)
    each = [part for v in values for part in (np.split(v, size) if len(v) % size == 0 else [v] * size)]
    assert_counted(t.lows, np.array([min(v.min(), least) for v in each]), scale, label)
    assert_counted(t.highs, np.array([v.max() for v in each]), scale, label)
    if t.values is not None:
        assert_counted(t.values, rows.ravel(), scale, label)


def assert_counted(h: Histogram, values: Array, scale: float, label: str) -> None:
    """All values are counted: in order, each lies in its bin, up to what rounding does to it."""
    assert h.counts.sum() == values.size, label
    centres = np.repeat((h.edges[1:] + h.edges[:-1]) / 2, h.counts)
    tolerance = 0.51 * 2.0**h.exponent + 1e-4 * scale
    np.testing.assert_allclose(centres, np.sort(values), rtol=0, atol=tolerance, err_msg=label)


def check(graph: Graph, feeds: list[Feed], histograms: bool = True, batch: int = 4, size: int = 1) -> Statistics:
    """Statistics of a network, all of them compared with numpy's."""
    found = collect(graph, Samples.of(feeds), histograms=histograms, batch=batch)
    values = tapped(graph, feeds, found.tensors, size)
    assert found.images == size * len(values)
    for name, t in found.tensors.items():
        assert_measured(t, [v[name] for v in values], size, floor(graph, name), name)
        assert (t.values is not None) == histograms
    return found


def folded(proto: ModelProto) -> Graph:
    return FoldBatchnorm()(read(proto)).graph


def drawn(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


# Every tensor


KEPT = {"Reshape", "Flatten", "Transpose", "Slice", "Split", "Pad", "Concat", "Identity", "Squeeze", "Unsqueeze"}


@pytest.mark.slow
@settings(max_examples=40)
@given(networks(calibrated=True), st.integers(1, 7), st.integers(1, 4), st.booleans())
def test_random_networks(proto: ModelProto, count: int, batch: int, histograms: bool) -> None:
    """All that a quantizer rounds anew is measured; what it never sees is not."""
    graph = folded(proto)
    found = check(graph, [sample(proto, count)], histograms, batch).tensors.keys()
    stored = {n for tied in place(graph).classes for n in tied if (graph.rank(n) or 0) > 1}
    assert {n for n in stored if n in graph.inputs or graph.producer[n].op not in KEPT} <= found
    assert not place(graph).merged & found


W, V = normal(4, 3, 3, 3), normal(4, 5)
LAST = "t = Transpose <perm = [0, 2, 3, 1]> (x) m = MatMul(t, v) r = Relu(m) y = MatMul(r, u)"
ROWS = "a = Conv(x, w) t = Transpose <perm = [0, 2, 3, 1]> (a) r = Reshape(t, s)"
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "rank 2": ("[N,3,8,8]", "f = Flatten(x) a = Gemm(f, w) r = Relu(a) y = Gemm(r, v)", {"w": normal(192, 4), "v": V}),
    "features": ("[N,3]", "y = MatMul(x, w)", {"w": normal(3, 4)}),
    "channels last": ("[N,4,6,6]", LAST, {"v": V, "u": normal(5, 2)}),
    "channels last, opset 18": ("[N,4,6,6]", LAST, {"v": V, "u": normal(5, 2), "opset": 18}),
    "channels last, opset 21": ("[N,4,6,6]", LAST, {"v": V, "u": normal(5, 2), "opset": 21, "ir": 10}),
    "tokens": ("[N,5,6]", "m = MatMul(x, w) y = Softmax(m)", {"w": normal(6, 4)}),
    "weight first": ("[N,6,5]", "y = MatMul(w, x)", {"w": normal(4, 6)}),
    "one dimension": ("[N,3,9]", "a = Conv(x, w) r = Relu(a) y = GlobalAveragePool(r)", {"w": normal(4, 3, 3)}),
    "three dimensions": ("[N,3,4,5,6]", "a = Conv(x, w) y = Relu(a)", {"w": normal(4, 3, 2, 2, 2)}),
    "above a floor": ("[N,3,8,8]", "a = Conv(x, w) y = Clip(a, low, high)", {"w": W, "low": -0.2, "high": 0.3}),
    "below a bound": ("[N,3,8,8]", "a = Conv(x, w) y = Clip(a, , high)", {"w": W, "high": 0.1}),
    "any size": ("[N,3,H,W]", "a = Conv(x, w) r = Relu(a) y = Conv(r, v)", {"w": W, "v": normal(2, 4, 1, 1)}),
    "one image": ("[1,3,8,8]", "a = Conv(x, w) r = Relu(a) y = Conv(r, v)", {"w": W, "v": normal(2, 4, 1, 1)}),
    "one image of any size": ("[1,3,H,W]", "a = Conv(x, w) y = Relu(a)", {"w": W}),
    "two images": ("[2,3,8,8]", "a = Conv(x, w) y = Relu(a)", {"w": W}),
    "three images": ("[3,3,8,8]", "a = Conv(x, w) t = Transpose <perm = [1, 0, 2, 3]> (a) y = Sigmoid(t)", {"w": W}),
    "rows of all images": ("[N,3,8,8]", f"{ROWS} m = Gemm(r, v) y = Softmax(m)", {"w": W, "v": V, "s": [-1, 4]}),
    "rows of one image": ("[1,3,8,8]", f"{ROWS} m = Gemm(r, v) y = Softmax(m)", {"w": W, "v": V, "s": [-1, 4]}),
    "more images than there were": ("[N,3,8,8]", f"{ROWS} y = Sigmoid(r)", {"w": W, "s": [-1, 2, 6, 6]}),
    "boxes": ("[N,3,8,8]", f"{ROWS} y = Softmax <axis = 2> (r)", {"w": W, "s": [0, -1, 2]}),
}


@pytest.mark.slow
@pytest.mark.parametrize("histograms", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_layouts(case: str, histograms: bool) -> None:
    shape, body, consts = CASES[case]
    graph = folded(network(body, inputs=f"float{shape} x", output="float[] y", **consts))
    sizes = [n if isinstance(n, int) else 10 for n in graph.shapes["x"][1:]]
    size = next((n for n in graph.shapes["x"] if isinstance(n, int)), 1) if shape[1] != "N" else 1
    found = check(graph, [drawn(6, *sizes)], histograms, size=size)
    assert {"x", "y"} <= found.tensors.keys()


def test_sizes_that_vary() -> None:
    proto = network("a = Conv(x, w) r = Relu(a) y = Conv(r, v)", inputs="float[N,3,H,W] x", w=W, v=normal(2, 4, 1, 1))
    check(folded(proto), [drawn(2, 3, 8, 8), drawn(3, 3, 5, 9, seed=1), drawn(1, 3, 20, 4, seed=2)])


def test_several_inputs() -> None:
    body = "a = Conv(x, w) g = Gemm(z, v) e = Unsqueeze(g, k) p = Add(a, e) c = Cast <to = 1> (i) y = Mul(p, c)"
    inputs = "float[N,3,8,8] x, float[N,2] z, int64[N,1,1,1] i"
    graph = folded(network(body, inputs=inputs, w=W, v=normal(2, 4), k=[2, 3]))
    feeds: list[Feed] = [
        {"i": np.full((n, 1, 1, 1), 3), "z": drawn(n, 2, seed=n), "x": drawn(n, 3, 8, 8)} for n in (5, 2)
    ]
    found = check(graph, feeds)
    assert {"x", "z", "g", "p", "y"} <= found.tensors.keys()
    assert "i" not in found.tensors


@pytest.mark.slow
@pytest.mark.parametrize("histograms", [False, True])
@pytest.mark.parametrize("count", [1, 3, 4, 5, 13])
@pytest.mark.parametrize("shape", ["[2,3,8,8]", "[2,3,H,W]", "[5,3,8,8]"])
def test_batches_that_do_not_fill_a_fixed_one(shape: str, count: int, histograms: bool) -> None:
    """As a network for any batch measures them; whether its images stay images or become rows."""
    bodies = {"a = Conv(x, w) r = Clip(a, low, high) y = Sigmoid(r)": {"w": W, "low": -0.2, "high": 0.3}}
    bodies |= {} if "H" in shape else {f"{ROWS} m = Gemm(r, v) y = Softmax(m)": {"w": W, "v": V, "s": [-1, 4]}}
    for body, consts in bodies.items():
        options: dict[str, Any] = {"output": "float[] y", **consts}
        fixed = folded(network(body, inputs=f"float{shape} x", **options))
        free = folded(network(body, inputs=f"float[N{shape[2:]} x", **options))
        x = Samples.of(drawn(count, 3, 8, 8))
        found, wanted = (collect(graph, x, histograms=histograms) for graph in (fixed, free))
        assert found.tensors.keys() <= wanted.tensors.keys()  # rows of a free batch are measured beside
        assert_same(found, replace(wanted, tensors={n: wanted.tensors[n] for n in found.tensors}), 1e-5)


def test_channel_axes() -> None:
    body = """a = Conv(x, w) r = Relu(a) t = Transpose <perm = [0, 2, 3, 1]> (r) m = MatMul(t, v) s = Sigmoid(m)
              q = Add(s, m) p = MatMul(q, u) f = Flatten(p) y = MatMul(f, h)"""
    consts: dict[str, Any] = {"w": W, "v": V, "u": normal(5, 2), "h": normal(72, 3)}
    axes = channel_axes(folded(network(body, output="float[] y", **consts)))
    assert axes == {"x": 1, "a": 1, "r": 1, "t": 3, "m": 3, "s": 3, "q": 3, "p": 3, "f": 1, "y": 1}
    first = network("y = MatMul(w, x)", inputs="float[N,6,5] x", output="float[] y", w=normal(4, 6))
    assert channel_axes(folded(first)) == {"x": 1, "y": 1}
    tokens = network("y = MatMul(x, w)", inputs="float[N,6,5] x", output="float[] y", w=normal(5, 4))
    assert channel_axes(folded(tokens)) == {"x": 2, "y": 2}


def test_histograms_of_large_tensors_in_small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "VALUES", 1)
    check(folded(random_network(1)), [sample(random_network(1), 5)])
    monkeypatch.setattr(running, "PENDING", 2)
    check(folded(random_network(2)), [sample(random_network(2), 7)], batch=1)


def test_progress() -> None:
    seen: list[int] = []
    collect(folded(network("y = Conv(x, w)", w=W)), Samples.of(drawn(10, 3, 8, 8)), progress=seen.append)
    assert seen == [4, 8, 10]


# Whoever does it


def saved(found: Statistics, path: Path) -> bytes:
    found.save(path)
    return path.read_bytes()


@pytest.mark.parametrize("shape", ["N,3,8,8", "3,3,8,8"])
def test_spans_by_others_give_the_same_bytes(shape: str, tmp_path: Path) -> None:
    graph, images = (
        folded(network("y = Conv(x, w)", inputs=f"float[{shape}] x", w=W)),
        Samples.of(drawn(2 * SPAN + 44, 3, 8, 8)),
    )
    alone = saved(collect(graph, images, histograms=True), tmp_path / "a.npz")
    told = list[int]()
    shared = collect(graph, images, histograms=True, crew=Backwards(), progress=told.append)
    assert saved(shared, tmp_path / "b.npz") == alone
    assert told == [SPAN, 2 * SPAN, 2 * SPAN + 44]
    first = collect(graph, images.first(SPAN), histograms=True, resume=tmp_path / "c.npz")
    assert first.images == SPAN
    for crew in (Backwards(), Alone()):
        path = tmp_path / f"{type(crew).__name__}.npz"
        path.write_bytes((tmp_path / "c.npz").read_bytes())
        assert saved(collect(graph, images, histograms=True, resume=path, crew=crew), tmp_path / "d.npz") == alone
        assert path.read_bytes() == alone


# PulledPlugError and resumed


class PulledPlugError(Exception):
    pass


def broken(x: Array, size: int, after: int) -> Iterator[Array]:
    """Batches until there was something wrong with the disk."""
    for k in range(0, len(x), size):
        if k >= after * size:
            raise PulledPlugError
        yield x[k : k + size]


def assert_same(a: Statistics, b: Statistics, tolerance: float) -> None:
    """Sums up to a tolerance; where it is small, all else to the last bit."""
    assert (a.images, a.network, a.tensors.keys()) == (b.images, b.network, b.tensors.keys())
    for name, mine in a.tensors.items():
        other, scale = b.tensors[name], float(np.maximum(np.abs(mine.low), np.abs(mine.high)).max())
        for field in fields(TensorStatistics):
            found, wanted = getattr(mine, field.name), getattr(other, field.name)
            if field.name in ("total", "square"):
                at = tolerance * scale * mine.count * (scale if field.name == "square" else 1)
                np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=at)
            elif isinstance(found, Histogram):
                assert found.counts.sum() == wanted.counts.sum()
                if tolerance < 1e-8:
                    assert (found.exponent, found.first) == (wanted.exponent, wanted.first)
                    np.testing.assert_array_equal(found.counts, wanted.counts)
            elif found is not None:
                np.testing.assert_allclose(found, wanted, rtol=0, atol=0 if tolerance < 1e-8 else tolerance * scale)


@pytest.mark.slow
@settings(max_examples=15)
@given(proto=networks(count=(1, 3)), cut=st.integers(0, 4), again=st.integers(0, 4), histograms=st.booleans())
def test_an_interrupted_run_goes_on(
    tmp_path_factory: pytest.TempPathFactory, proto: ModelProto, cut: int, again: int, histograms: bool
) -> None:
    """Even when interrupted twice, it measures what one run does."""
    graph, x, path = folded(proto), sample(proto, 15), tmp_path_factory.mktemp("s") / "s.npz"
    whole = collect(graph, Samples.of(x, size=3), histograms=histograms)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibrate, "SAVE_EVERY", 0.0)
        for after in (cut, cut + again):
            if after < 5:
                with pytest.raises(PulledPlugError):
                    collect(graph, Samples(lambda n=after: broken(x, 3, n)), histograms=histograms, resume=path)  # type: ignore[misc]
                assert not after or Statistics.load(path).images == 3 * after
        found = collect(graph, Samples.of(x, size=3), histograms=histograms, resume=path)
    assert_same(found, whole, 1e-9)
    assert_same(Statistics.load(path), found, 0.0)


def test_resumed_within_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "SAVE_EVERY", 0.0)
    proto, path = random_network(4), tmp_path / "s.npz"
    graph, x = folded(proto), sample(proto, 11)
    with pytest.raises(PulledPlugError):
        collect(graph, Samples(lambda: broken(x, 5, 1)), resume=path)
    assert Statistics.load(path).images == 5
    seen: list[int] = []
    found = collect(graph, Samples.of(x), resume=path, progress=seen.append)
    assert seen == [8, 11]
    assert_same(found, collect(graph, Samples.of(x)), 1e-5)


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    graph, path = folded(network("y = Conv(x, w)", w=W)), tmp_path / "s.npz"
    first, seen = collect(graph, Samples.of(drawn(6, 3, 8, 8)), resume=path), list[int]()
    assert_same(collect(graph, Samples.of(drawn(6, 3, 8, 8)), resume=path, progress=seen.append), first, 0.0)
    assert not seen
    more = collect(graph, Samples.of(drawn(9, 3, 8, 8)), resume=path)
    assert_same(more, collect(graph, Samples.of(drawn(9, 3, 8, 8))), 1e-5)


# What is refused


def refused(graph: Graph, images: Samples, *parts: str, **options: Any) -> None:
    with pytest.raises(EquintError) as error:
        collect(graph, images, **options)
    message = str(error.value)
    assert "\n" not in message
    assert all(part in message for part in parts), message


def test_statistics_that_do_not_fit(tmp_path: Path) -> None:
    graph, path, x = folded(network("y = Conv(x, w)", w=W)), tmp_path / "s.npz", Samples.of(drawn(3, 3, 8, 8))
    collect(graph, x, resume=path)
    refused(folded(network("y = Conv(x, w)", w=2 * W)), x, str(path), "another network", resume=path)
    refused(folded(network("y = Conv <pads = [1, 1, 1, 1]> (x, w)", w=W)), x, "another network", resume=path)
    refused(graph, x, str(path), "without histograms", resume=path, histograms=True)
    path.write_bytes(path.read_bytes()[:200])
    refused(graph, x, str(path), "not a readable .npz", resume=path)
    refused(graph, x, "no such folder", resume=tmp_path / "none" / "s.npz")


@pytest.mark.parametrize("shape", [(2, 4, 8, 8), (2, 3, 8), (2, 3, 2, 2), (6,)])
def test_images_of_a_wrong_shape(shape: tuple[int, ...]) -> None:
    graph = folded(network("y = Conv(x, w)", w=W))
    refused(graph, Samples.of([drawn(*shape)]), "does not run on this input", str(shape[1:] or "(4,)")[1:])


def test_inputs_that_are_missing() -> None:
    graph = folded(network("y = Add(x, z)", inputs="float[N,3] x, float[N,3] z", output="float[N,3] y"))
    refused(graph, Samples.of(drawn(2, 3)), "does not run on this input")
    refused(graph, Samples.of([{"x": drawn(2, 3)}]), "does not run on this input")


@pytest.mark.slow
@pytest.mark.parametrize("histograms", [False, True])
@pytest.mark.parametrize(
    ("body", "name"),
    [
        ("a = Log(x) y = Conv(a, w)", "a"),
        ("b = Conv(x, w) a = Sqrt(b) r = Relu(a) y = Conv(r, v)", "a"),
        ("b = Conv(x, w) c = Mul(b, big) a = Exp(c) y = Conv(a, v)", "a"),
        ("f = Flatten(x) a = Log(f) y = MatMul(a, u)", "a"),
        ("b = Conv(x, w) d = Relu(b) a = Div(d, d) y = Conv(a, v)", "a"),
    ],
)
def test_values_that_are_not_finite(body: str, name: str, histograms: bool) -> None:
    consts: dict[str, Any] = {"w": W, "v": normal(2, 4, 1, 1), "u": normal(192, 2), "big": 1e3}
    used = {n: c for n, c in consts.items() if f", {n})" in body}
    graph = folded(network(body, output="float[] y", **used))
    x = drawn(6, 3, 8, 8)
    x[:5] = np.abs(x[:5]) if "Log" in body else x[:5]  # only the last image makes it
    refused(graph, Samples.of(x), f"tensor {name} ", "not finite", histograms=histograms)


@pytest.mark.parametrize("position", [0, 1, 7, 36, 63])
def test_a_single_value_that_is_no_number(position: int) -> None:
    graph = folded(network("a = Sqrt(x) y = Conv(a, w)", w=W))
    x = np.abs(drawn(2, 3, 8, 8))
    x[1, 2].flat[position] = -1
    refused(graph, Samples.of(x), "tensor a ", "not finite")


def test_no_images() -> None:
    refused(folded(network("y = Conv(x, w)", w=W)), Samples.of([]), "empty")


def test_nothing_of_known_shape() -> None:
    refused(Graph((), {}, (), ()), Samples.of(drawn(2, 3)), "nothing to measure")


@pytest.mark.parametrize("samples", ["N", "6"])
def test_channels_that_lie_first_are_measured_as_a_whole(samples: str) -> None:
    """Behind a Transpose of rows; as many samples as channels must not be taken for them."""
    proto = network(
        "m = MatMul (x, w) t = Transpose <perm = [1, 0]> (m) y = Exp (t)",
        inputs=f"float[{samples},5] x",
        output="float[A,B] y",
        w=normal(5, 6, scale=1),
    )
    x = normal(6, 5, seed=1, scale=1)
    found = collect(read(proto).graph, Samples.of(x)).tensors["y"]
    (y,) = execute(proto, x)
    np.testing.assert_allclose((found.low.min(), found.high.max()), (y.min(), y.max()), rtol=1e-5)
    np.testing.assert_allclose(found.total.sum() / np.sum(found.count), y.mean(), rtol=1e-5)
