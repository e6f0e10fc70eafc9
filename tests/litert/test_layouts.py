"""Orders of axes, against arrays that NumPy moves."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from equint.litert.layouts import channels_last, moves_nothing, reshaped, stored, transposed, without


@given(st.permutations(range(4)), st.permutations(range(4)))
def test_a_transpose_renames_the_axes_of_the_same_memory(order: list[int], perm: list[int]) -> None:
    x = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    memory = x.transpose(order)
    renamed = transposed(tuple(order), perm)
    np.testing.assert_array_equal(memory, x.transpose(perm).transpose(renamed))


@given(st.permutations(range(4)), st.sets(st.integers(0, 3), max_size=3))
def test_axes_that_go_leave_the_others_in_order(order: list[int], axes: set[int]) -> None:
    x = np.random.default_rng(0).random((2, 3, 4, 5))
    memory = x.transpose(order).sum(tuple(order.index(a) for a in axes))
    np.testing.assert_allclose(memory, x.sum(tuple(axes)).transpose(without(tuple(order), sorted(axes))))


SHAPES = [
    ((1, 8, 4, 4), (1, 2, 4, 4, 4)),
    ((1, 2, 4, 4, 4), (1, 8, 4, 4)),
    ((1, 8, 4, 4), (1, 8, 16)),
    ((1, 8, 4, 4), (1, 128)),
    ((1, 8, 1, 1), (1, 8)),
    ((1, 8), (1, 8, 1, 1)),
    ((2, 6, 4, 1), (2, 6, 4)),
    ((1, 6, 4, 4), (1, 3, 2, 16)),
    ((4, 1, 6), (4, 6)),
]


@pytest.mark.parametrize(("before", "after"), SHAPES)
@pytest.mark.parametrize("last", [False, True])
def test_a_reshape_of_the_memory_is_one_of_the_tensor(
    before: tuple[int, ...], after: tuple[int, ...], last: bool
) -> None:
    x = np.arange(np.prod(before)).reshape(before)
    order = channels_last(len(before)) if last else tuple(range(len(before)))
    found = reshaped(before, after, order)
    assert last or found is not None
    if found is not None:
        memory = x.transpose(order).reshape(stored(after, found))
        np.testing.assert_array_equal(memory, x.reshape(after).transpose(found))


def test_what_must_move_is_told() -> None:
    assert reshaped((1, 8, 4, 4), (1, 128), channels_last(4)) is None
    assert reshaped((1, 8, 4, 4), (1, 32, 4), channels_last(4)) is None


@pytest.mark.parametrize("shape", [(1, 8, 1, 1), (1, 8, 2, 1), (1, 1, 4, 4), (3, 2, 1, 2)])
def test_nothing_moves_where_memory_is_alike(shape: tuple[int, ...]) -> None:
    x = np.arange(np.prod(shape)).reshape(shape)
    alike = np.array_equal(x.ravel(), x.transpose(channels_last(4)).ravel())
    assert moves_nothing(shape, (0, 1, 2, 3), channels_last(4)) == alike
