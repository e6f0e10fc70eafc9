"""Streams of images: whatever they are made of, they can be read twice; what is no stream of images is refused."""

from collections.abc import Callable, Iterable, Iterator
from itertools import count, pairwise
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from equint.errors import EquintError
from equint.ir.model import Array
from equint.samples.images import Feed, Samples, length, split

X = np.random.default_rng(0).normal(size=(20, 3, 2, 2)).astype(np.float32)
PARTS = [X[:7], X[7:8], X[8:]]


class Tensor:
    """What torch's tensors do here: they must be detached and brought home before numpy takes them."""

    def __init__(self, values: Array, detached: bool = False, home: bool = False) -> None:
        self.values, self.detached, self.home = values, detached, home

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def detach(self) -> "Tensor":
        return Tensor(self.values, True, self.home)

    def cpu(self) -> "Tensor":
        return Tensor(self.values, self.detached, True)

    def __iter__(self) -> Iterator["Tensor"]:
        return (Tensor(v) for v in self.values)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if not (self.detached and self.home):
            raise TypeError("can't convert to numpy")
        return np.asarray(self.values, dtype)


class Loader:
    """An iterable that starts anew each time, and counts."""

    def __init__(self, *batches: Any) -> None:
        self.batches, self.starts = batches, 0

    def __iter__(self) -> Iterator[Any]:
        self.starts += 1
        return iter(self.batches)


def joined(images: Iterable[Feed]) -> Array:
    return np.concatenate([b for b in images if isinstance(b, np.ndarray)])


def generated(parts: Iterable[Any]) -> Iterator[Any]:
    yield from parts


SOURCES: dict[str, Callable[[], Any]] = {
    "array": lambda: X,
    "images": lambda: Samples.of(X),
    "list": lambda: PARTS,
    "loader": lambda: Loader(*PARTS),
    "generator": lambda: generated(PARTS),
    "iterator": lambda: iter(PARTS),
    "nested lists": lambda: [p.tolist() for p in PARTS],
    "labelled pairs": lambda: [(p, np.arange(len(p))) for p in PARTS],
    "labelled lists": lambda: [[Tensor(p), Tensor(np.arange(len(p)))] for p in PARTS],
    "lists of two samples": lambda: [[a, b] for a, b in X.reshape(10, 2, 3, 2, 2)],
    "tensor": lambda: Tensor(X),
    "tensors": lambda: [Tensor(p) for p in PARTS],
    "generated tensors": lambda: generated([(Tensor(p), None) for p in PARTS]),
    "doubles": lambda: X.astype(np.float64),
    "empty batches between": lambda: [X[:0], X[:7], X[7:7], X[7:]],
}


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.integers(1, 4))
def test_every_sample_belongs_to_one_stream(sizes: list[int], step: int) -> None:
    numbers = np.arange(float(sum(sizes)))[:, None]
    ends = np.cumsum([0, *sizes])
    images = Samples(lambda: [numbers[a:b] for a, b in pairwise(ends)])
    for start in range(min(step, len(numbers))):
        found = np.concatenate(list(images.every(step, start)))
        assert found[:, 0].tolist() == list(range(start, len(numbers), step))


@pytest.mark.parametrize("kind", SOURCES)
def test_every_source_can_be_read_twice(kind: str) -> None:
    images = Samples.of(SOURCES[kind]())
    for _ in range(2):
        found = joined(images)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, X)


def test_an_array_comes_in_batches() -> None:
    assert [len(b) for b in Samples.of(X)] == [8, 8, 4]
    assert [len(b) for b in Samples.of(X, size=20)] == [20]
    assert Samples.of(X, "calib.npy").label == "calib.npy"


def test_pixels_become_floats_and_other_integers_stay() -> None:
    for dtype, wanted in ((np.uint8, np.float32), (np.float16, np.float32), (np.int64, np.int64), (np.bool_, np.bool_)):
        (batch,) = Samples.of(np.ones((2, 3), dtype))
        assert isinstance(batch, np.ndarray)
        assert batch.dtype == wanted


def named(k: int, n: int) -> dict[str, Array]:
    return {"x": X[k : k + n], "file": np.arange(k, k + n), "a/b": X[k : k + n, 0]}


@pytest.mark.parametrize("once", [False, True])
@pytest.mark.parametrize("labelled", [False, True])
def test_mappings(once: bool, labelled: bool) -> None:
    """For networks of several inputs, whatever these are called."""
    batches: list[Any] = [named(0, 5), named(5, 3)]
    batches = [(b, np.zeros(1)) for b in batches] if labelled else batches
    images = Samples.of(iter(batches) if once else batches)
    for _ in range(2):
        found = list(images)
        assert [length(b) for b in found] == [5, 3]
        for batch, wanted in zip(found, [named(0, 5), named(5, 3)], strict=True):
            assert isinstance(batch, dict)
            assert batch.keys() == wanted.keys()
            for name, value in wanted.items():
                np.testing.assert_array_equal(batch[name], value)
    (part,) = images.first(2)
    assert isinstance(part, dict)
    np.testing.assert_array_equal(part["a/b"], X[:2, 0])


def test_iterators_are_read_no_further_than_asked() -> None:
    asked = 0

    def endless() -> Iterator[Array]:
        nonlocal asked
        for k in count():
            asked += 1
            yield np.full((4, 2), k, np.float32)

    images = Samples.of(endless()).first(10)
    assert asked == 0
    for _ in range(2):
        assert joined(images)[:, 0].tolist() == [0] * 4 + [1] * 4 + [2] * 2
    assert asked == 3


def test_two_readers_of_one_iterator() -> None:
    images = Samples.of(generated(PARTS))
    pairs = list(zip(images, images, strict=True))
    assert len(pairs) == 3
    for (a, b), wanted in zip(pairs, PARTS, strict=True):
        np.testing.assert_array_equal(np.asarray(a), wanted)
        np.testing.assert_array_equal(np.asarray(b), wanted)


@given(st.lists(st.integers(0, 5), max_size=8), st.integers(1, 30), st.integers(1, 9))
def test_first_and_split(sizes: list[int], limit: int, size: int) -> None:
    """Both cut a stream anywhere: the samples and their order stay."""
    ends = np.cumsum([0, *sizes])
    values = np.arange(ends[-1], dtype=np.float32)[:, None]
    images = Samples.of([values[a:b] for a, b in pairwise(ends)])
    if not values.size:
        with pytest.raises(EquintError, match="empty"):
            list(images.first(limit))
        return
    np.testing.assert_array_equal(joined(images.first(limit)), values[:limit])
    parts = list(split(images, size))
    np.testing.assert_array_equal(joined(parts), values)
    assert all(0 < len(p) <= size for p in parts)
    np.testing.assert_array_equal(joined(split(images.first(limit), size)), values[:limit])


def refused(call: Callable[[], object], *parts: str) -> None:
    with pytest.raises(EquintError) as error:
        call()
    message = str(error.value)
    assert "\n" not in message
    assert all(part in message for part in parts), message


@pytest.mark.parametrize(
    ("source", "part"),
    [
        (3, "a int"),
        (None, "a NoneType"),
        ("calib", "a str"),
        (b"calib", "a bytes"),
        (np.zeros(5), "shape (5,)"),
        (np.zeros(()), "shape ()"),
        (Tensor(np.zeros(5)), "shape (5,)"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_no_stream(source: object, part: str) -> None:
    refused(lambda: Samples.of(source, "mine"), "mine", part)


def at(index: tuple[int, ...], value: float, dtype: type = np.float32) -> Array:
    found: Array = X.astype(dtype)
    found[index] = value
    return found


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ([], "empty"),
        (X[:0], "empty"),
        ([X[:0], X[:0]], "empty"),
        ([{}], "empty"),
        (at((13, 2, 0, 1), np.nan), "not finite"),
        (at((0, 0, 0, 0), -np.inf), "not finite"),
        (at((0, 0, 0, 0), 1e60, np.float64), "not finite"),
        ([{"x": X, "z": at((3, 0, 0, 0), np.nan)}], "not finite"),
        ([3.0, 4.0], "single number"),
        (["one", "two"], "no array of numbers"),
        ([[[1.0, 2.0], [3.0]]], "no array of numbers"),
        ([[object(), object()]], "no array of numbers"),
        ([X, None], "it holds None"),
        ([X.astype(np.complex64)], "no array of numbers"),
        ([(X, X, X[0])], "no array of numbers"),
    ],
)
@pytest.mark.parametrize("once", [False, True])
def test_bad_batches(source: Any, part: str, once: bool) -> None:
    images = Samples.of(iter([source] if isinstance(source, np.ndarray) else source) if once else source, "mine")
    refused(lambda: list(images), "mine", part)


@pytest.mark.parametrize("limit", [0, -1])
def test_no_samples_wanted(limit: int) -> None:
    refused(lambda: Samples.of(X, "mine").first(limit), "mine", str(limit))
