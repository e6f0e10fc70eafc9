"""Statistics add up: parts, in any order, saved or not, make the whole."""

import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import assume, given, settings

from equint.errors import EquintError
from equint.ir.model import Array, Graph, Node
from equint.ops.layers import tiny_graph
from equint.samples.statistics import (
    BINS,
    FINEST,
    Histogram,
    Statistics,
    TensorStatistics,
    fingerprint,
    is_statistics,
    merged,
)

HUGE = float(np.float32(3e38))
SPECIAL = [0.0, -0.0, 1.0, -1.0, 2048.0, 1e-45, -1e-45, 1e-30, -1e-30, HUGE, -HUGE, 6.0]
small = st.one_of(st.floats(-HUGE, HUGE, width=32), st.floats(-8, 8, width=32), st.sampled_from(SPECIAL))


@st.composite
def values(draw: st.DrawFn, least: int = 0) -> Array:
    """Few or many floats: any, or as activations have them."""
    if draw(st.booleans()):
        return draw(hnp.arrays(np.float32, st.integers(least, 40), elements=small))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    scale, shift = 10.0 ** draw(st.integers(-30, 30)), draw(st.sampled_from([0, 0, 3, -50]))
    found = rng.normal(shift, 1, draw(st.integers(least, 5000))) * scale
    return np.asarray(np.maximum(found, 0) if draw(st.booleans()) else found, np.float32)


def counted(h: Histogram) -> dict[tuple[float, float], int]:
    """Counts by the ends of their bins."""
    rows = zip(h.edges[:-1].tolist(), h.edges[1:].tolist(), h.counts.tolist(), strict=True)
    return {(lo, hi): n for lo, hi, n in rows if n}


def same(a: Histogram, b: Histogram) -> bool:
    return (a.exponent, a.first, a.counts.tolist()) == (b.exponent, b.first, b.counts.tolist())


# Histograms


@pytest.mark.slow
@given(values())
def test_every_value_lies_in_the_bin_that_counts_it(x: Array) -> None:
    """One by one, in exact arithmetic of doubles."""
    h = Histogram.of(x)
    edges, wanted = h.edges, dict[tuple[float, float], int]()
    for v in x.astype(np.float64):
        k = int(np.searchsorted(edges, v, "right")) - 1
        wanted[edges[k], edges[k + 1]] = wanted.get((edges[k], edges[k + 1]), 0) + 1
    assert counted(h) == wanted


@given(values(1))
def test_the_width_is_the_smallest_power_of_two_that_serves(x: Array) -> None:
    h, largest = Histogram.of(x), float(np.abs(x).max())
    assert h.counts[0] > 0 < h.counts[-1]
    assert h.counts.size <= BINS
    if largest > 0:
        finer = 2.0 ** (h.exponent - 1)
        lo, hi = (np.floor(float(e) / finer) for e in (x.min(), x.max()))
        assert hi - lo >= BINS or finer <= largest * 2.0**-FINEST


@pytest.mark.slow
@settings(max_examples=200)
@given(values(), values(), values())
def test_histograms_are_a_monoid(x: Array, y: Array, z: Array) -> None:
    a, b, c = map(Histogram.of, (x, y, z))
    whole = Histogram.of(np.concatenate([x, y, z]))
    for sum_ in ((a + b) + c, a + (b + c), c + a + b):
        assert same(sum_, whole)
    assert whole.counts.sum() == x.size + y.size + z.size
    empty = Histogram.of(np.zeros(0))
    assert same(a + empty, a)
    assert same(empty + a, a)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=8), st.integers(0, 8))
def test_doubles_of_any_size_add_up(x: list[float], cut: int) -> None:
    a, b = (Histogram.of(np.array(part, np.float64)) for part in (x[:cut], x[cut:]))
    assert same(a + b, Histogram.of(np.array(x, np.float64)))


@given(st.floats(-HUGE, HUGE, width=32), st.integers(1, 5))
def test_a_constant_has_one_bin(value: float, count: int) -> None:
    h = Histogram.of(np.full(count, value, np.float32))
    assert h.counts.tolist() == [count]
    lo, hi = h.edges.tolist()
    assert lo <= value < hi
    assert hi - lo <= max(abs(value) * 2.0 ** (1 - FINEST), 1e-300)


@pytest.mark.slow
@given(values(1), st.integers(0, 6))
def test_coarser_bins_hold_the_finer_ones(x: Array, steps: int) -> None:
    h = Histogram.of(x)
    found = h.at(h.exponent + steps)
    width = 2.0**found.exponent
    assert found.exponent == h.exponent + steps
    wanted = dict[tuple[float, float], int]()
    for (lo, _), n in counted(h).items():
        k = float(np.floor(lo / width))
        wanted[k * width, (k + 1) * width] = wanted.get((k * width, (k + 1) * width), 0) + n
    assert counted(found) == wanted


@pytest.mark.slow
@given(values(2), st.floats(0, 1))
def test_quantiles_within_a_bin(x: Array, share: float) -> None:
    """Where the cumulated counts reach a share is within one bin of where the sorted values do."""
    h = Histogram.of(x)
    found = np.interp(share * x.size, np.concatenate([[0], np.cumsum(h.counts)]), h.edges)
    ordered, k = np.sort(x.astype(np.float64)), share * x.size
    lo, hi = ordered[max(int(np.ceil(k)) - 1, 0)], ordered[min(int(np.floor(k)), x.size - 1)]
    width = 2.0**h.exponent
    assert lo - width <= found <= hi + width


# Statistics


def measured(x: Array, y: Array, histograms: bool = True, network: str = "net") -> Statistics:
    """Statistics of two tensors (N, C, …) of a network, in plain numpy."""

    def one(v: Array) -> TensorStatistics:
        rows, others = v.reshape(len(v), -1), (0, *range(2, v.ndim))
        exact = v.astype(np.float64)
        return TensorStatistics(
            axis=1,
            rank=v.ndim,
            images=len(v),
            count=v.size // v.shape[1],
            low=exact.min(others),
            high=exact.max(others),
            total=exact.sum(others),
            square=np.square(exact).sum(others),
            lows=Histogram.of(rows.min(1)),
            highs=Histogram.of(rows.max(1)),
            values=Histogram.of(v) if histograms else None,
        )

    return Statistics({"x": one(x), "y/0": one(y)}, len(x), network)


def drawn(n: int, seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    wide = rng.normal(size=(n, 3, 2, 2)) * [[[1e-3]], [[1.0]], [[1e3]]]
    return wide.astype(np.float32), np.maximum(rng.normal(size=(n, 5)), 0).astype(np.float32)


def assert_equal(a: Statistics, b: Statistics, tolerance: float = 0.0) -> None:
    """Equal number by number, sums up to a relative tolerance."""
    assert (a.images, a.network, list(a.tensors)) == (b.images, b.network, list(b.tensors))
    for name, mine in a.tensors.items():
        for field in fields(TensorStatistics):
            found, wanted = (getattr(t, field.name) for t in (mine, b.tensors[name]))
            if isinstance(found, Histogram):
                assert same(found, wanted), (name, field.name)
            elif field.name in ("total", "square"):
                np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance * np.abs(wanted).max())
            else:
                np.testing.assert_array_equal(found, wanted)


@pytest.mark.slow
@given(st.integers(0, 2**16), st.integers(1, 9), st.integers(1, 9), st.booleans())
def test_two_halves_make_the_whole(seed: int, n: int, m: int, histograms: bool) -> None:
    x, y = drawn(n + m, seed)
    whole = measured(x, y, histograms)
    parts = [measured(x[:n], y[:n], histograms), measured(x[n:], y[n:], histograms)]
    assert_equal(parts[0] + parts[1], whole, 1e-9)
    assert_equal(merged(parts[::-1]), whole, 1e-9)


@pytest.mark.parametrize("histograms", [False, True])
def test_saved_and_loaded(tmp_path: Path, histograms: bool) -> None:
    whole, path = measured(*drawn(6), histograms), tmp_path / "any.npz"
    assert not is_statistics(path)
    whole.save(path)
    assert is_statistics(path)
    assert_equal(Statistics.load(path), whole)
    other = measured(*drawn(4, 1), histograms)
    assert_equal(Statistics.load(path) + other, whole + other)
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_measured_is_refused(tmp_path: Path) -> None:
    Statistics({}, 3, "net").save(tmp_path / "a.npz")
    with pytest.raises(EquintError, match="it lists none"):
        Statistics.load(tmp_path / "a.npz")


def test_moments() -> None:
    x, y = drawn(40)
    for v, t in zip((x, y), measured(x, y).tensors.values(), strict=True):
        others = (0, *range(2, v.ndim))
        assert t.moments.origin == "calibration"
        np.testing.assert_allclose(t.moments.mean, v.mean(others, np.float64, keepdims=True)[:1], rtol=1e-9)
        np.testing.assert_allclose(t.moments.std, v.std(others, np.float64, keepdims=True)[:1], rtol=1e-6)


def test_a_constant_has_no_negative_variance() -> None:
    one = np.full((3, 1), 0.1, np.float32)
    assert measured(one, one).tensors["x"].moments.std.item() == pytest.approx(0, abs=1e-8)


def refused(call: Callable[[], object], *parts: str) -> None:
    with pytest.raises(EquintError) as error:
        call()
    message = str(error.value)
    assert "\n" not in message
    assert all(part in message for part in parts), message


def test_different_networks_do_not_add_up() -> None:
    a = measured(*drawn(3))
    x, y = drawn(3)
    refused(lambda: a + measured(x, y, network="other"), "different networks")
    refused(lambda: a + replace(a, tensors={"x": a.tensors["x"]}), "different networks")
    refused(lambda: a + measured(x[:, :2], y), "different shapes")
    refused(lambda: a + measured(x[..., 0], y), "different shapes")
    refused(lambda: merged([]), "no statistics")


def test_a_missing_histogram_is_missing_in_the_sum() -> None:
    both = measured(*drawn(3)) + measured(*drawn(3), histograms=False)
    assert all(t.values is None and t.images == 6 for t in both.tensors.values())


def stored(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def single(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


def packed(value: object) -> Array:
    return np.frombuffer(json.dumps(value).encode(), np.uint8)


FOREIGN: dict[str, Callable[[Path], object]] = {
    "absent": lambda p: None,
    "empty": lambda p: p.write_bytes(b""),
    "text": lambda p: p.write_text("statistics"),
    "folder": lambda p: p.mkdir(),
    "array": single,
    "images": lambda p: stored(p, x=np.zeros((2, 3))),
    "header alone": lambda p: stored(p, header=packed({"images": 1, "network": "a", "tensors": [["x"]]})),
    "another header": lambda p: stored(p, header=packed([1, 2]), low=np.zeros(1)),
    "no text in the header": lambda p: stored(p, header=np.zeros(3), low=np.zeros(1)),
    "objects": lambda p: stored(p, header=np.array([{}], object), low=np.zeros(1)),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_files(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "s.npz"
    FOREIGN[kind](path)
    refused(lambda: Statistics.load(path), str(path))
    if kind not in ("another header", "no text in the header", "objects"):
        assert not is_statistics(path)


@settings(max_examples=30)
@given(st.floats(0, 1), st.booleans())
def test_damaged_files(tmp_path_factory: pytest.TempPathFactory, at: float, cut: bool) -> None:
    """Cut short, or with one byte changed: refused, or, where the byte meant nothing, read as it was."""
    path, whole = tmp_path_factory.mktemp("s") / "s.npz", measured(*drawn(6))
    whole.save(path)
    content = bytearray(path.read_bytes())
    k = int(at * (len(content) - 1))
    assume(not cut or k < len(content) - 1)
    content[k] ^= 0x55
    path.write_bytes(content[:k] if cut else content)
    try:
        found = Statistics.load(path)
    except EquintError:
        refused(lambda: Statistics.load(path), str(path))
    else:
        assert not cut
        assert_equal(found, whole)


def test_lengths_that_do_not_agree(tmp_path: Path) -> None:
    path = tmp_path / "s.npz"
    measured(*drawn(3)).save(path)
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    refused(lambda: Statistics.load(stored(path, **{**arrays, "low": arrays["low"][:-1]})), str(path), "lengths")


def test_unwritable(tmp_path: Path) -> None:
    refused(lambda: measured(*drawn(2)).save(tmp_path / "none" / "s.npz"), "no such folder")
    refused(lambda: measured(*drawn(2)).save(tmp_path), "is a folder")


# Fingerprints


def changed(graph: Graph, kind: str) -> Graph:
    node = graph.nodes[0]
    consts = {"w": graph.consts["w"].copy()}
    if kind == "weight":
        consts["w"][0, 0, 0, 0] += 1e-6
    elif kind == "layout of a weight":
        consts["w"] = consts["w"].reshape(4, 3, 3, 1)
    elif kind == "operator":
        node = replace(node, op="ConvTranspose")
    elif kind == "attribute":
        node = replace(node, attrs={**node.attrs, "strides": [2, 2]})
    elif kind == "name":
        node = replace(node, outputs=("z",))
    return replace(graph, nodes=(node,), consts=consts)


@pytest.mark.parametrize("kind", ["weight", "layout of a weight", "operator", "attribute", "name"])
def test_networks_are_told_apart(kind: str) -> None:
    assert fingerprint(changed(tiny_graph(), kind)) != fingerprint(tiny_graph())


def test_the_order_of_attributes_is_no_difference() -> None:
    graph = tiny_graph()
    turned = Node(graph.nodes[0].op, ("x", "w"), ("y",), dict(sorted(graph.nodes[0].attrs.items())))
    assert fingerprint(replace(graph, nodes=(turned,))) == fingerprint(graph)
