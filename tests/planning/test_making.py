"""What was measured of samples in parts is what would be measured of all at once; what plans share is made once."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pytest

from equint.ir.model import Model
from equint.onnx.reader import read as read_onnx
from equint.passes import Keeps, Stage
from equint.planning.making import Collector, Making
from equint.runtime.collect import collect
from equint.samples.images import Samples
from handwritten import Array, network, normal

BODY = "a = Conv <pads = [1, 1, 1, 1]> (x, w) r = Relu(a) c = Conv(r, v) q = Relu(c) y = Conv(q, u)"
PROTO = network(BODY, w=normal(6, 3, 3, 3), v=normal(6, 6, 3, 3), u=normal(4, 6, 1, 1))


def images(count: int, seed: int) -> Array:
    return normal(count, 3, 8, 8, seed=seed, scale=0.3)


@pytest.mark.parametrize("histograms", [False, True])
def test_what_was_measured_of_a_part_is_not_measured_again(histograms: bool) -> None:
    """Sums of both parts are those of all samples at once, and each part is read once."""
    read, x, graph = list[int](), images(21, seed=5), read_onnx(PROTO).graph

    def part(name: int) -> Samples:
        def batches() -> Iterator[Array]:
            read.append(name)
            yield x[name::2]

        return Samples(batches)

    every, half, told = Samples.of(x), part(0), list[int]()
    measure = Collector({every: (half, part(1))})
    first, both = (measure(graph, s, histograms=histograms, progress=told.append) for s in (half, every))
    assert (read, first.images, both.images, told[-1]) == ([0, 1], 11, 21, 21)
    whole = collect(graph, Samples.of(x), histograms=histograms)
    assert both.tensors.keys() == whole.tensors.keys()
    for name, found in both.tensors.items():
        wanted = whole.tensors[name]
        np.testing.assert_array_equal((found.low, found.high), (wanted.low, wanted.high))
        np.testing.assert_allclose((found.total, found.square), (wanted.total, wanted.square), 1e-5)
        for kind in ("lows", "highs", *(["values"] if histograms else [])):
            np.testing.assert_array_equal(getattr(found, kind).counts, getattr(wanted, kind).counts)
    assert (both.tensors["y"].values is None) is not histograms


@dataclass(frozen=True)
class Noting:
    """A pass that changes nothing and notes its name where it runs."""

    name: str
    ran: list[str] = field(compare=False)
    keeps: ClassVar = Keeps.FLOATS
    stage: ClassVar = Stage.BEFORE

    def __call__(self, model: Model) -> Model:
        self.ran.append(self.name)
        return model


def test_what_no_plan_begins_with_is_dropped() -> None:
    """The start that plans to come share is kept and not run again; what others made is let go."""
    ran = list[str]()
    begin, one, other = (Noting(name, ran) for name in ("begin", "one", "other"))
    making = Making(read_onnx(PROTO), [[begin, one], [begin, other]], Collector({}), None)
    making([begin, one])
    making.keep([[begin, other]])
    assert [steps for steps, _ in making.made] == [[], [begin]]
    making([begin, other])
    assert ran == ["begin", "one", "other"]
