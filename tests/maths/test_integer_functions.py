"""Tables and Newton's method against the functions that they stand for, in Python's integers and floats."""

import math

import numpy as np
import pytest

from equint.maths.integer_functions import ROOTS, exponentials, reciprocal_roots, root_table


def test_reciprocal_roots_of_all_magnitudes() -> None:
    """Whole powers of four and their neighbours, all small numbers, and random ones up to 2^62."""
    powers = 4 ** np.arange(1, 31, dtype=np.int64)
    random = (2 ** np.random.default_rng(0).uniform(0, 62, 20_000)).astype(np.int64)
    w = np.unique(np.concatenate([np.arange(1, 3000), powers - 1, powers, powers + 1, random, [2**62 - 1]]))
    r, e = reciprocal_roots(w, root_table())
    for value, root, places in zip(w.tolist(), r.tolist(), e.tolist(), strict=True):
        assert 4**places <= value < 4 ** (places + 1)
        exact = math.isqrt(2 ** (2 * (23 + places + 30)) // value)  # 2^(53+e)/√w, rounded down
        assert -(2**-15) < (root * 2**30 - exact) / exact < 2**-28


def test_the_table_of_roots_is_that_of_the_middles() -> None:
    table = root_table()
    assert len(table) == ROOTS
    assert table.tolist() == [round(2**15 / math.sqrt((64 + k + 0.5) / 64)) for k in range(ROOTS)]


@pytest.mark.parametrize("bits", [8, 22])
def test_exponentials(bits: int) -> None:
    table = exponentials(0.07, 256, bits)
    assert table[0] == 1 << bits
    assert table.tolist() == [round(2**bits * math.exp(-0.07 * d)) for d in range(256)]
