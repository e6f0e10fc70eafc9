"""Samples in spans: wherever reading begins, batches are those of one reading from the start."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from equint.ir.model import Array
from equint.samples.card import Card
from equint.samples.data import batches, feeds, images
from equint.samples.images import SPAN, Feed, Samples, length, split
from equint.samples.presented import inputs_alone, presented
from equint.samples.spans import Continued, Span, cut, spans

COUNT = 2 * SPAN + 90


def flat(feed: Feed) -> Array:
    (value,) = feed.values() if isinstance(feed, dict) else (feed,)
    return np.asarray(value)


def assert_since_is_the_rest(samples: Samples, taken: int) -> None:
    """Batches from the start of a span on are those that one reading has behind it."""
    whole = list(split(samples, taken))
    assert sum(map(length, whole)) == COUNT
    at = np.cumsum([0, *map(length, whole)]).tolist()
    assert {k * SPAN for k in range(3)} <= set(at), "a batch reaches across the end of a span"
    for start in (SPAN, 2 * SPAN):
        rest = list(split(samples, taken, start=start))
        wanted = whole[at.index(start) :]
        assert [length(f) for f in rest] == [length(f) for f in wanted]
        for found, own in zip(rest, wanted, strict=True):
            np.testing.assert_array_equal(flat(found), flat(own))


@settings(max_examples=30)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    batch=st.sampled_from([None, 1, 2, 3, 7]),
    taken=st.integers(1, 9),
)
def test_batches_of_any_size(sizes: list[int], batch: int | None, taken: int) -> None:
    x = np.arange(COUNT, dtype=np.float32).reshape(-1, 1)

    def stream() -> Iterator[Array]:
        at, number = 0, 0
        while at < COUNT:
            yield x[at : at + sizes[number % len(sizes)]]
            at, number = at + sizes[number % len(sizes)], number + 1

    shape = {"x": ("N" if batch is None else batch, 1)}
    assert_since_is_the_rest(presented(Samples(stream), inputs_alone(shape)), taken)
    assert_since_is_the_rest(presented(Samples.of(x), inputs_alone(shape)), taken)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of two sizes, and the same pixels in arrays."""
    place = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(1)
    x = rng.integers(0, 256, (COUNT, 4, 4, 3), np.uint8)
    np.savez(place / "plain.npz", x=x, y=np.arange(COUNT) % 7)
    np.savez_compressed(place / "packed.npz", x=x, y=np.arange(COUNT) % 7)
    np.save(place / "alone.npy", x)
    (place / "pictures").mkdir()
    rows = [f"{k:04}.png,{k % 7}" for k in range(COUNT)]
    (place / "pictures" / "labels.csv").write_text("\n".join(["file,label", *rows]))
    for k, pixels in enumerate(x):
        Image.fromarray(pixels).save(place / "pictures" / f"{k:04}.png", compress_level=0)
    return place


@pytest.mark.parametrize("size", [(4, 4), None])
@pytest.mark.parametrize("source", ["plain.npz", "packed.npz", "alone.npy", "pictures"])
def test_files(source: str, size: tuple[int, int] | None, folder: Path) -> None:
    card = Card("rgb", (0.0,), (1.0,), size)
    graph = inputs_alone({"x": ("N", 3, 4, 4)})
    samples = presented(images(folder / source, card), graph)
    assert samples.total == samples.count() == COUNT
    assert_since_is_the_rest(samples, 4)
    for start in (1, SPAN, 400):
        found = [x for x, _ in batches(folder / source, card, 32, None, (), start)]
        whole = np.concatenate([x for x, _ in batches(folder / source, card)])
        np.testing.assert_array_equal(np.concatenate(found), whole[start:])
        if source != "alone.npy":
            labels = [y for _, y in feeds(folder / source, card, {"x": ("N", 3, 4, 4)}, start=start, limit=500)]
            np.testing.assert_array_equal(np.concatenate(labels), np.arange(COUNT)[start:500] % 7)  # type: ignore[arg-type]


def test_first_ends_where_it_should_wherever_it_begins() -> None:
    images = Samples.of(np.arange(20).reshape(-1, 1)).first(11)
    assert [f[:, 0].tolist() for f in map(flat, images.since(9))] == [[9, 10]]
    assert list(images.since(11)) == []
    assert (images.total, images.count()) == (11, 11)


def test_what_only_comes_in_a_row_is_skipped() -> None:
    images = Samples(lambda: [np.arange(k, k + 3).reshape(-1, 1) for k in (0, 3, 6)])
    assert [f[:, 0].tolist() for f in map(flat, images.since(4))] == [[4, 5], [6, 7, 8]]
    assert images.total is None
    assert images.count() == 9


def test_a_stream_in_spans_is_read_once() -> None:
    started = list[int]()

    def since(start: int) -> Iterator[list[int]]:
        started.append(start)
        return ([k, k + 1] for k in range(start, 10, 2))

    stream = Continued[Any](since, len)
    assert [list(stream.span(Span(a, a + 4))) for a in (0, 4, 8)] == [[[0, 1], [2, 3]], [[4, 5], [6, 7]], [[8, 9]]]
    assert started == [0]
    assert list(stream.span(Span(4, 6))) == [[4, 5]]
    assert started == [0, 4]
    assert list(stream.span(Span(20, 24))) == []


def test_spans() -> None:
    assert [(s.start, s.stop) for s in spans(COUNT)] == [(0, SPAN), (SPAN, 2 * SPAN), (2 * SPAN, COUNT)]
    assert next(spans(None, SPAN)) == Span(SPAN, 2 * SPAN)
    assert [length(f) for f in cut([np.zeros(10), np.zeros(10)], SPAN - 15)] == [10, 5, 5]
