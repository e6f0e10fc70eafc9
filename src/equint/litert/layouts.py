"""Orders in which a tensor's axes are stored: ONNX has channels second, LiteRT's kernels read them last.

An order lists a tensor's axes as they lie in memory: (0, 2, 3, 1) is channels last. Transposing costs nothing but
another order; only what reads its input in a certain order asks for it to be moved.
"""

from __future__ import annotations

from collections.abc import Sequence

Order = tuple[int, ...]


def channels_last(rank: int) -> Order:
    """Batch, spatial axes, channels.

    Example:
        >>> channels_last(4), channels_last(2)
        ((0, 2, 3, 1), (0, 1))
    """
    return (0, *range(2, rank), 1) if rank > 1 else tuple(range(rank))


def as_written(rank: int) -> Order:
    """All axes as ONNX has them."""
    return tuple(range(rank))


def stored(shape: Sequence[int], order: Order) -> tuple[int, ...]:
    """A shape as it lies in memory."""
    return tuple(shape[axis] for axis in order)


def transposed(order: Order, perm: Sequence[int]) -> Order:
    """The order of the same memory once its axes are called as a Transpose says.

    Example:
        >>> transposed((0, 2, 3, 1), (0, 2, 3, 1))
        (0, 1, 2, 3)
    """
    return tuple(list(perm).index(axis) for axis in order)


def without(order: Order, axes: Sequence[int]) -> Order:
    """The order once some axes are gone.

    Example:
        >>> without((0, 2, 3, 1), (2, 3))
        (0, 1)
    """
    left = [axis for axis in range(len(order)) if axis not in axes]
    return tuple(left.index(axis) for axis in order if axis not in axes)


def moves_nothing(shape: Sequence[int], before: Order, after: Order) -> bool:
    """Whether a tensor lies in memory alike in both orders: they differ in axes of size 1 alone.

    Example:
        >>> [moves_nothing((1, 8, height, 1), (0, 2, 3, 1), (0, 1, 2, 3)) for height in (1, 2)]
        [True, False]
    """
    return [a for a in before if shape[a] != 1] == [a for a in after if shape[a] != 1]


def reshaped(before: Sequence[int], after: Sequence[int], order: Order) -> Order | None:
    """The order of the same memory once it is reshaped; None where values would have to move for that.

    Axes that are split, or taken together, must lie side by side in memory.

    Example:
        >>> reshaped((1, 8, 4, 4), (1, 2, 4, 4, 4), (0, 2, 3, 1))  # channels in groups
        (0, 3, 4, 1, 2)
        >>> reshaped((1, 8, 4, 4), (1, 128), (0, 2, 3, 1))
    """
    blocks, made, rest = _blocks(before, after), list[int](), list(order)
    while rest:
        found = next((pair for pair in blocks if pair[0] and list(pair[0]) == rest[: len(pair[0])]), None)
        if found is None:
            return None
        made += found[1]
        rest = rest[len(found[0]) :]
    return (*made, *(axis for ins, outs in blocks if not ins for axis in outs))


def _blocks(before: Sequence[int], after: Sequence[int]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Runs of axes, and the runs of as many values that they become."""
    blocks, i, j = list[tuple[tuple[int, ...], tuple[int, ...]]](), 0, 0
    while i < len(before) and j < len(after):
        ins, outs, a, b = [i], [j], before[i], after[j]
        i, j = i + 1, j + 1
        while a != b:
            if a < b and i < len(before):
                ins, a, i = [*ins, i], a * before[i], i + 1
            elif j < len(after):
                outs, b, j = [*outs, j], b * after[j], j + 1
            else:
                break
        blocks.append((tuple(ins), tuple(outs)))
    blocks += [((k,), ()) for k in range(i, len(before))]
    blocks += [((), (k,)) for k in range(j, len(after))]
    return blocks
