"""Samples as networks take them: cut by the inputs' own sizes, refused where they contradict them, never turned."""

from typing import Any

import numpy as np
import pytest

from equint.errors import EquintError, UnreadableModel
from equint.ir.model import Graph, Shape
from equint.samples.images import Run, Samples
from equint.samples.presented import Shapes, entries, fixed_batch, inputs_of_both, presented


def reader(**inputs: Shape) -> Graph:
    return Graph((), {}, tuple(inputs), (), inputs)


@pytest.mark.parametrize(
    ("inputs", "each", "batch"),
    [
        ({"x": ("N", 3, 8, 8)}, {"x": 1}, None),
        ({"x": (1, 3, 8, 8)}, {"x": 1}, 1),
        ({"x": (4, 3), "z": (4, 5)}, {"x": 1, "z": 1}, 4),
        ({"x": ("N", 3), "id": ("N",)}, {"x": 1, "id": 1}, None),
        ({"x": ("N", 3), "id": (1,)}, {"x": 1, "id": 1}, 1),
        ({"x": ("N", 9), "state": (2, "N", 4), "rate": ()}, {"x": 1, "state": 2, "rate": 0}, 1),
        ({"x": (1, 9), "state": (2, 1, 4)}, {"x": 1, "state": 2}, 1),
    ],
)
def test_what_belongs_to_one_sample(inputs: dict[str, Shape], each: dict[str, int], batch: int | None) -> None:
    assert entries(reader(**inputs)) == each
    assert fixed_batch(reader(**inputs)) == batch


def test_states_are_cut_by_their_own_size_and_scalars_repeat() -> None:
    x, state = np.arange(6.0).reshape(3, 2), np.arange(24.0).reshape(6, 1, 4)
    graph = reader(x=("N", 2), state=(2, "N", 4), rate=())
    runs = list(presented(Samples.of({"x": x, "state": state, "rate": np.array(16000)}), graph))
    assert all(isinstance(run, Run) for run in runs)
    for k, run in enumerate(runs):
        assert isinstance(run, Run)
        np.testing.assert_array_equal(run["x"], x[k : k + 1])
        np.testing.assert_array_equal(run["state"], state[2 * k : 2 * k + 2])
        assert run["rate"].shape == ()
        assert int(run["rate"]) == 16000
    assert len(runs) == 3


def test_lists_of_feeds_are_cut_alike() -> None:
    feed = {"x": np.ones((1, 2)), "state": np.ones((2, 1, 4)), "rate": 8000}
    runs = list(presented(Samples.of([feed] * 5), reader(x=("N", 2), state=(2, "N", 4), rate=())))
    assert [{name: value.shape for name, value in run.items()} for run in runs if isinstance(run, Run)] == [
        {"x": (1, 2), "state": (2, 1, 4), "rate": ()}
    ] * 5


@pytest.mark.parametrize(
    ("inputs", "data", "parts"),
    [
        ({"x": ("N", 3, 8, 9)}, np.ones((4, 8, 9, 3)), ("channels first", "x.transpose(0, 3, 1, 2)")),
        ({"x": ("N", 5, 9)}, np.ones((4, 9, 5)), ("the last two axes the other way", "x.transpose(0, 2, 1)")),
        ({"x": ("N", 8, 9, 3)}, np.ones((4, 3, 8, 9)), ("channels last", "x.transpose(0, 2, 3, 1)")),
        ({"x": ("N", 3, "H", "W")}, np.ones((4, 8, 9, 3)), ("channels first", "(N, 3, H, W)")),
        ({"x": ("N", 3, 8, 8)}, np.ones((3, 8, 8)), ("samples come first", "(1, 3, 8, 8)")),
        ({"x": ("N", 3, 8, 8)}, np.ones((4, 3, 8, 7)), ("(4, 3, 8, 7)", "prepare the samples")),
        ({"x": ("N", 3, 8, 8)}, np.ones((20, 3, 8, 7)), ("(20, 3, 8, 7)",)),
        ({"x": ("N", 3), "z": ("N", 2)}, np.ones((4, 3)), ("2 inputs", "by name (x, z)")),
        ({"x": ("N", 3), "z": ("N", 2)}, {"x": np.ones((4, 3))}, ("nothing for input z",)),
        ({"x": ("N", 3), "z": ("N", 2)}, {"x": np.ones((4, 3)), "z": np.ones((3, 2))}, ("x 4, z 3",)),
        ({"x": ("N", 3), "s": (2, 4)}, {"x": np.ones((2, 3)), "s": np.ones((3, 4))}, ("each sample has 2",)),
    ],
)
def test_contradictions_are_refused_with_what_to_do(
    inputs: dict[str, Shape], data: Any, parts: tuple[str, ...]
) -> None:
    with pytest.raises(EquintError) as error:
        list(presented(Samples.of(data, "mine"), reader(**inputs)))
    assert "\n" not in str(error.value)
    assert all(part in str(error.value) for part in ("mine", *parts)), str(error.value)


def test_single_samples_are_put_together() -> None:
    """A list of rows is the stream that their array is; other sizes stay apart."""
    x = np.arange(60.0).reshape(20, 3)
    for data in (x, [x[k : k + 1] for k in range(20)]):
        shown = list(presented(Samples.of(data), reader(x=("N", 3))))
        assert [len(batch) for batch in shown] == [8, 8, 4]
        np.testing.assert_array_equal(np.concatenate(shown), x)  # type: ignore[arg-type]
    sizes = [np.zeros((1, n)) for n in (3, 3, 5, 3)]
    assert [batch.shape for batch in presented(Samples.of(sizes), reader(x=("N", "W")))] == [(2, 3), (1, 5), (1, 3)]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "other",
    [{"image": ("N", 3, 8, 9)}, {"image": ("N", 3, 8)}, {"x": ("N", 4, 8, 8), "rate": ()}],
)
def test_networks_of_two_inputs_are_not_compared(other: Shapes) -> None:
    first: Shapes = {"x": ("N", 3, 8, 8)}
    with pytest.raises(UnreadableModel, match=r"input x is of two shapes, \(N, 3, 8, 8\) and .* two forms of one"):
        inputs_of_both(first, other)
    assert inputs_of_both(first, {"image": (1, 3, None, 8)}) == first
