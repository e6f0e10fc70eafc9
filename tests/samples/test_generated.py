"""Samples that are made up: how many, by their size."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from equint.ir.model import Graph, Model, Moments, Range
from equint.samples.generated import _kept, generated, made_up
from equint.samples.images import length


def model_of(*shape: int) -> Model:
    """A network of one input of standard normal values."""
    one = np.ones((1,) * len(shape))
    known = {"x": Moments(0 * one, one)}, {"x": Range(-4 * one, 4 * one)}
    return Model(Graph((), {}, ("x",), (), {"x": ("N", *shape[1:])}), *known)


@pytest.mark.parametrize(("size", "count"), [((8, 320), 128), ((320, 320), 128), ((416, 416), 80), ((608, 800), 32)])
def test_large_pictures_are_fewer(size: tuple[int, int], count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as have the pixels of 128 of 320²; a picture is a number here, as drawing them takes long."""
    monkeypatch.setattr("equint.samples.generated.pictures", lambda n, h, w, c, seed: np.full((n, c, 1, 1), seed))
    found = list(generated(model_of(1, 3, *size), (3, *size)))
    assert sum(map(length, found)) == count


@pytest.mark.parametrize(("values", "count"), [(9, 64), (2**16, 64), (2**17, 32), (2**20, 16)])
def test_large_samples_are_fewer(values: int, count: int) -> None:
    made = made_up(model_of(1, values))
    assert made is not None
    assert sum(map(length, made)) == count


def test_threads_see_the_pictures_that_one_sees() -> None:
    """More threads than pictures are kept for, on a size that nothing was drawn of before."""
    model = model_of(1, 3, 40, 56)

    def sums(_: int) -> list[float]:
        return [float(np.asarray(batch).sum(dtype=np.float64)) for batch in generated(model, (3, 40, 56))]

    with ThreadPoolExecutor(4) as pool:
        several = list(pool.map(sums, range(4)))
    _kept.cache_clear()
    assert several == [sums(0)] * 4
