import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from equint.errors import EquintError
from equint.npu.sparse import Sparse, pack, pack_bits, unpack, unpack_bits, width


def bits_of(integers: list[int], bits: int) -> bytes:
    """The packing written as a loop over bits of one large integer."""
    word = 0
    for k, value in enumerate(integers):
        word |= (value & ((1 << bits) - 1)) << (k * bits)
    return word.to_bytes(-(-len(integers) * bits // 8), "little")


@st.composite
def integers_of(draw: st.DrawFn) -> tuple[list[int], int, bool]:
    """Integers, their width, and whether they are signed."""
    bits, signed = draw(st.integers(1, 16)), draw(st.booleans())
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    return draw(st.lists(st.integers(low, high), max_size=40)), bits, signed


@settings(max_examples=150)
@given(integers_of())
def test_bits_are_packed_as_one_large_integer_would_be(case: tuple[list[int], int, bool]) -> None:
    integers, bits, signed = case
    packed = pack_bits(np.array(integers, np.int32), bits)
    assert packed.dtype == np.uint8
    assert packed.tobytes() == bits_of(integers, bits)
    assert unpack_bits(packed, bits, len(integers), signed).tolist() == integers


def test_the_width_is_the_least_that_holds_them() -> None:
    for bits in range(1, 17):
        assert width(np.array([0, (1 << bits) - 1])) == bits
        assert width(np.array([-(1 << (bits - 1)), (1 << (bits - 1)) - 1])) == bits
    assert width(np.zeros(0, np.uint8)) == 1
    assert width(np.array([-1], np.int8)) == 1
    with pytest.raises(EquintError, match="16 bits"):
        width(np.array([1 << 16]))


@settings(max_examples=100)
@given(integers_of(), st.sampled_from([0.0, 0.2, 0.9, 1.0]), st.integers(0, 999))
def test_weights_come_back_as_they_were(case: tuple[list[int], int, bool], share: float, seed: int) -> None:
    integers, bits, signed = case
    weight = np.array(integers, np.int16 if signed else np.uint16)
    zero = int(weight[0]) if weight.size else 0
    weight[np.random.default_rng(seed).random(weight.size) < share] = zero
    sparse = pack(weight, zero, bits)
    again = unpack(sparse)
    assert again.dtype == weight.dtype
    np.testing.assert_array_equal(again, weight)
    kept = int(np.sum(weight != zero))
    assert sparse.mask.nbytes == -(-weight.size // 8)
    assert sparse.size == -(-kept * bits // 8)
    assert sparse.nbytes == sparse.mask.nbytes + sparse.size + 4


def test_a_zero_point_per_channel() -> None:
    weight = np.array([[[1, 5]], [[2, 5]]], np.uint8)
    sparse = pack(weight, np.array([1, 5]).reshape(2, 1, 1))
    assert sparse.mask.tolist() == [0b0110]
    assert sparse.values.tolist() == [5, 2]
    np.testing.assert_array_equal(unpack(sparse), weight)


def test_any_layout_in_memory_packs_the_same() -> None:
    weight = np.arange(24, dtype=np.uint8).reshape(2, 3, 4).transpose(2, 0, 1)
    sparse, plain = pack(weight, 3), pack(np.ascontiguousarray(weight), 3)
    assert sparse.mask.tobytes() == plain.mask.tobytes()
    assert sparse.values.tobytes() == plain.values.tobytes()
    assert pack_bits(weight, 5).tobytes() == pack_bits(np.ascontiguousarray(weight), 5).tobytes()


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(EquintError, match="4 bits"):
        pack_bits(np.array([16]), 4)
    with pytest.raises(EquintError, match="4 bits"):
        pack(np.array([-9]), 0, 4)
    with pytest.raises(EquintError, match="3 integers"):
        unpack_bits(np.zeros(1, np.uint8), 4, 3)
    with pytest.raises(EquintError, match="9 weights"):
        unpack(Sparse(np.zeros(1, np.uint8), np.zeros(0, np.uint8), np.asarray(0), (9,)))
    with pytest.raises(EquintError, match="2 integers"):
        unpack(Sparse(np.array([3], np.uint8), np.zeros(1, np.uint8), np.asarray(0), (2,)))
