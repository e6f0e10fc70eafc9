"""Fields are read along one axis, and collapsed where they do not vary."""

from math import prod

import numpy as np
from numpy.typing import NDArray

from equint.ir.fields import aligned, collapsed, per_channel


def numbered(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A field with another number everywhere, none of them 0."""
    return np.arange(1, prod(shape) + 1, dtype=np.float32).reshape(shape)


def test_per_channel_reads_only_what_varies_along_one_axis() -> None:
    field = numbered((1, 3, 1, 1))
    found = per_channel(field, -3, 3)
    assert found is not None
    assert found.tolist() == [1, 2, 3]
    assert per_channel(field, 1, 4) is None
    assert per_channel(field, 2, 4) is None
    assert aligned(np.arange(3), -2, 3).shape == (1, 3, 1)


def test_collapsed_drops_only_constant_axes() -> None:
    field = np.broadcast_to(numbered((1, 3, 1, 2)), (4, 3, 5, 2))
    np.testing.assert_array_equal(collapsed(field), numbered((1, 3, 1, 2)))
