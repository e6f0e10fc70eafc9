"""Integers packed to the bit, and the sparse form of weights: a mask, the weights that are not zero, their size."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..errors import UnreadableModel
from ..integers.program import Program
from ..integers.steps import LAYERS
from ..ir.model import Array

SIZE_BYTES = 4
"""Of the integer that says how large the packed weights are."""


@dataclass(frozen=True)
class Sparse:
    """Weights as Oh et al. (2020) store pruned ones; a weight is zero where its integer equals the zero point.

    `mask` holds one bit a weight, 1 where it is not zero: `(ceil(size/8),)` uint8; `values` those weights, `bits` wide,
    one behind the other. `zero_point` broadcasts against the weights; `signed` and `dtype` are of the integers.
    """

    mask: Array
    values: Array
    zero_point: Array
    shape: tuple[int, ...]
    bits: int = 8
    signed: bool = False
    dtype: str = "uint8"

    @property
    def size(self) -> int:
        """Bytes of the packed weights: the integer that hardware reads beside the mask."""
        return int(self.values.nbytes)

    @property
    def nbytes(self) -> int:
        """Everything that is stored: mask, weights and the integer with their size."""
        return int(self.mask.nbytes) + self.size + SIZE_BYTES


def pack(integers: Array, zero_point: Array | int, bits: int = 8) -> Sparse:
    """The sparse form of integer weights, `bits` wide; the zero point broadcasts against them.

    Raises:
        EquintError: an integer that is not zero does not fit.

    Example:
        >>> sparse = pack(np.array([[7, 7, 9], [7, 2, 7]], np.uint8), 7)
        >>> sparse.mask.tolist(), sparse.values.tolist(), sparse.nbytes
        ([20], [9, 2], 7)
    """
    kept = integers != zero_point
    values = integers[kept]
    signed = bool(values.min(initial=0) < 0)
    mask = np.packbits(kept.reshape(-1), bitorder="little")
    packed = pack_bits(values, bits)
    return Sparse(mask, packed, np.asarray(zero_point), integers.shape, bits, signed, str(integers.dtype))


def unpack(sparse: Sparse) -> Array:
    """The integers again, of the same shape and type.

    Raises:
        EquintError: the mask's size is not the shape's, or the packed weights are not as many as its ones.

    Example:
        >>> unpack(pack(np.array([3, 0, 5], np.int8), 0)).tolist()
        [3, 0, 5]
    """
    size = math.prod(sparse.shape)
    if sparse.mask.shape != (-(-size // 8),):
        raise UnreadableModel(f"a mask of {sparse.mask.size} bytes is none of {size} weights")
    kept = np.unpackbits(sparse.mask, count=size, bitorder="little").astype(bool).reshape(sparse.shape)
    integers = np.empty(sparse.shape, sparse.dtype)
    integers[...] = sparse.zero_point
    integers[kept] = unpack_bits(sparse.values, sparse.bits, int(kept.sum()), sparse.signed)
    return integers


def weight_bits(program: Program) -> int:
    """The fewest bits that hold all layers' weights; an error where those are more than 16."""
    layers = [step for step in program.steps if step.op in LAYERS]
    roles = ("weight", "weight_zero_point")
    ends = [end(s.arrays[r], initial=0) for s in layers for r in roles for end in (np.min, np.max)]
    return width(np.array(ends, np.int64))


def width(integers: Array) -> int:
    """The fewest bits, 1 to 16, that hold every integer: in two's complement where one is negative.

    Raises:
        EquintError: more than 16 would be needed.
    """
    low, high = int(integers.min(initial=0)), int(integers.max(initial=0))
    bits = max(high.bit_length(), (-low - 1).bit_length()) + 1 if low < 0 else max(high.bit_length(), 1)
    if bits > 16:
        raise UnreadableModel(f"integers from {low} to {high} do not fit into 16 bits")
    return bits


def pack_bits(integers: Array, bits: int) -> Array:
    """Integers of 1 to 16 bits one behind the other, the first in the lowest bits: uint8, the last byte filled with 0.

    Negative ones in two's complement. Two of four bits share a byte.

    Raises:
        EquintError: an integer does not fit.

    Example:
        >>> [hex(byte) for byte in pack_bits(np.array([1, 2, 15]), 4)]
        ['0x21', '0xf']
    """
    if width(integers) > bits:
        low, high = int(integers.min(initial=0)), int(integers.max(initial=0))
        raise UnreadableModel(f"integers from {low} to {high} do not fit into {bits} bits")
    codes = np.ascontiguousarray(integers).reshape(-1).astype("<u2" if bits > 8 else np.uint8)
    if bits in (8, 16):
        return codes.view(np.uint8)
    wide = np.unpackbits(codes.view(np.uint8).reshape(codes.size, codes.itemsize), axis=1, bitorder="little")
    return np.packbits(wide[:, :bits], bitorder="little")


def unpack_bits(packed: Array, bits: int, count: int, signed: bool = False) -> Array:
    """The integers that `pack_bits` packed: `(count,)` int32.

    Raises:
        EquintError: the bytes are not those of `count` integers.

    Example:
        >>> unpack_bits(np.array([0x21, 0x0F], np.uint8), 4, 3).tolist()
        [1, 2, 15]
        >>> unpack_bits(np.array([0x21, 0x0F], np.uint8), 4, 3, signed=True).tolist()
        [1, 2, -1]
    """
    if packed.shape != (-(-count * bits // 8),):
        raise UnreadableModel(f"{packed.size} bytes are not {count} integers of {bits} bits")
    if bits in (8, 16):
        codes = packed.view("<u2" if bits == 16 else np.uint8).astype(np.int32)
    else:
        narrow = np.unpackbits(packed, count=count * bits, bitorder="little").reshape(count, bits)
        wide = np.zeros((count, 16), np.uint8)
        wide[:, :bits] = narrow
        codes = np.packbits(wide, axis=1, bitorder="little").view("<u2").reshape(count).astype(np.int32)
    return codes - (codes >> (bits - 1) << bits) if signed else codes
