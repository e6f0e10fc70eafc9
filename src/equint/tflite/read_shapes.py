"""What gives tensors other shapes and orders, pads and repeats them."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from ..ir.model import Name
from .call import Call, reads
from .content import Dims
from .draft import Axes, Value, channels_first, plain, preferred, without
from .read_layers import flat

_END = np.iinfo(np.int64).max


@reads("RESHAPE")
def _reshape(call: Call) -> None:
    x = call.value(0)
    target = call.value(1).data if call.has(1) else np.asarray(call.option("new_shape", []))
    if target is None:
        return call.give(call.add("Reshape", call.plain(0), call.indices(1)))
    shape = [int(n) for n in target.reshape(-1)]
    if sum(n < 0 for n in shape) > 1 or any(n < -1 for n in shape):
        call.refuse(f"reshapes to {shape}")
    if x.data is not None:
        return call.give_data(_reshaped(call, x, shape))
    open_ = None if None in x.dims else prod(n or 0 for n in x.dims) // max(prod(n for n in shape if n >= 0), 1)
    sizes = [open_ if n < 0 else n for n in shape]
    axes = with_other_ones(x.axes, x.dims, sizes)
    if axes is None:
        return call.give(flat(call, x, shape), plain(len(shape)))
    wanted = [-1 if sizes[axis] is None else shape[axis] for axis in axes]
    return call.give(call.add("Reshape", call.own(x), call.const(wanted, "shape")), axes)


def with_other_ones(axes: Axes, dims: Dims, sizes: Sequence[int | None]) -> Axes | None:
    """The order in which a value goes on to hold its axes in a shape that has others of size 1; None for other shapes.

    Example:
        >>> with_other_ones((0, 3, 1, 2), (2, 1, 9, 5), [2, 9, 5])  # rows of pictures: channels stay first
        (0, 2, 1)
        >>> with_other_ones((0, 3, 1, 2), (2, 3, 3, 5), [2, 9, 5]) is None
        True
    """
    before, after = ([axis for axis, n in enumerate(each) if n != 1] for each in (dims, sizes))
    if [dims[axis] for axis in before] != [sizes[axis] for axis in after] or 0 in sizes:
        return None
    named = dict(zip(before, after, strict=True))
    order = [named[axis] for axis in axes if axis in named]
    usual = [channels_first(len(sizes)), plain(len(sizes))]
    for wanted in reversed(usual) if axes == plain(len(axes)) else usual:
        if [axis for axis in wanted if axis in after] == order:
            return wanted
    return (*(axis for axis in range(len(sizes)) if axis not in after), *order)


def _reshaped(call: Call, x: Value, shape: Sequence[int]) -> np.ndarray:
    try:
        return np.asarray(x.data).reshape(shape)
    except ValueError:
        call.refuse(f"reshapes {list(x.dims)} to {list(shape)}")


@reads("TRANSPOSE")
def _transpose(call: Call) -> None:
    """No operator at all: the value's dimensions are other axes of what comes out."""
    x = call.value(0)
    perm = [call.axis(axis, x.rank) for axis in call.ints(1)]
    if sorted(perm) != list(range(x.rank)):
        call.refuse(f"orders {x.rank} axes as {perm}")
    if x.data is not None:
        return call.give_data(x.data.transpose(perm))
    return call.same(x, tuple(perm.index(axis) for axis in x.axes))


@reads("EXPAND_DIMS")
def _expand_dims(call: Call) -> None:
    x = call.value(0)
    axis = call.axis(call.ints(1)[0], x.rank + 1)
    if x.data is not None:
        return call.give_data(np.expand_dims(x.data, axis))
    name, axes = inserted(call, x, axis)
    return call.give(name, axes)


def inserted(call: Call, x: Value, axis: int) -> tuple[Name, Axes]:
    """A value with a new axis of size 1, where it leads to fewest Transposes."""
    moved = tuple(a + (a >= axis) for a in x.axes)
    orders: list[Axes] = [(*moved[:k], axis, *moved[k:]) for k in range(x.rank + 1)]
    k = preferred(orders)
    return call.add("Unsqueeze", call.own(x), call.const([k], "axes")), orders[k]


@reads("SQUEEZE")
def _squeeze(call: Call) -> None:
    x = call.value(0)
    gone = sorted({call.axis(int(a), x.rank) for a in call.option("squeeze_dims", ())})
    gone = gone or [axis for axis, n in enumerate(x.dims) if n == 1]
    if x.data is not None:
        return call.give_data(_reshaped(call, x, [n for a, n in enumerate(x.data.shape) if a not in gone]))
    return call.give(squeezed(call, x, gone), without(x.axes, gone))


def squeezed(call: Call, x: Value, gone: Sequence[int]) -> Name:
    """A value without some of its axes, which have size 1."""
    return (
        call.add("Squeeze", call.own(x), call.const(sorted(x.at(axis) for axis in gone), "axes"))
        if gone
        else call.own(x)
    )


@reads("PAD", "PADV2", "MIRROR_PAD")
def _pad(call: Call) -> None:
    x, kind = call.value(0), call.operator.kind
    order = x.axes if x.data is None else plain(x.rank)
    if call.value(1).data is None:
        if kind == "MIRROR_PAD":
            call.refuse("computes how much it pads")
        flipped = call.add("Transpose", call.indices(1), perm=[1, 0])
        widths, order = call.add("Reshape", flipped, call.const([-1], "flat")), plain(x.rank)
    else:
        pairs = np.asarray(call.data(1), np.int64)
        if pairs.shape != (x.rank, 2) or pairs.min(initial=0) < 0:
            call.refuse(f"pads {x.rank} axes by {pairs.tolist()}")
        if kind == "MIRROR_PAD" and call.option("mode") == "SYMMETRIC":
            return _symmetric(call, x, pairs)
        widths = call.const(pairs[list(order)].T.reshape(-1), "pads")
    fill: tuple[Name, ...] = ()
    if kind == "PADV2" and call.has(2):
        value = call.value(2).data
        fill = (call.const(value, "value", x.dtype) if value is not None else call.plain(2),)
    made = call.add("Pad", call.placed(x, order), widths, *fill, mode="reflect" if kind == "MIRROR_PAD" else "constant")
    return call.give(made, order)


def _symmetric(call: Call, x: Value, pairs: np.ndarray) -> None:
    """Mirrored with the edge itself: parts turned round in front and behind."""
    name = call.own(x)
    for axis, (front, behind) in enumerate(pairs.tolist()):
        at = call.const([x.at(axis)], "axes")
        back = call.const([-1], "back")
        parts = [name]
        if front:
            ends = [call.const([n], "from") for n in (front - 1, -_END)]
            parts.insert(0, call.add("Slice", name, *ends, at, back))
        if behind:
            ends = [call.const([n], "to") for n in (-1, -behind - 1)]
            parts.append(call.add("Slice", name, *ends, at, back))
        name = call.add("Concat", *parts, axis=x.at(axis)) if len(parts) > 1 else name
    call.give(name if name != x.name else call.add("Identity", name), x.axes)


@reads("TILE")
def _tile(call: Call) -> None:
    call.give(call.add("Tile", call.plain(0), call.indices(1)))


@reads("FILL")
def _fill(call: Call) -> None:
    call.give(call.add("Expand", call.plain(1), call.indices(0)))


@reads("BROADCAST_TO")
def _broadcast_to(call: Call) -> None:
    call.give(call.add("Expand", call.plain(0), call.indices(1)))


@reads("RANGE")
def _range(call: Call) -> None:
    call.give(call.add("Range", *(call.plain(k) for k in range(3))))


@reads("SPACE_TO_BATCH_ND")
def _space_to_batch(call: Call) -> None:
    """Padded, and cut into as many pictures as a block has places, which come in front of the batch."""
    x, block, pads = call.value(0), call.ints(1), np.asarray(call.data(2), np.int64)
    count = len(block)
    pairs = np.zeros((x.rank, 2), np.int64)
    pairs[1 : count + 1] = pads
    sizes = [None if n is None else n + int(p.sum()) for n, p in zip(x.dims, pairs, strict=True)]
    name = call.plain(0)
    if pairs.any():
        name = call.add("Pad", name, call.const(pairs.T.reshape(-1), "pads"), mode="constant")
    inner, rest = _known(call, sizes[1 : count + 1]), _known(call, sizes[count + 1 :])
    if any(n % b for n, b in zip(inner, block, strict=True)):
        call.refuse(f"cuts {inner} into blocks of {block}")
    shape = [-1, *(v for n, b in zip(inner, block, strict=True) for v in (n // b, b)), *rest]
    spread = call.add("Reshape", name, call.const(shape, "split"))
    perm = [*(2 + 2 * k for k in range(count)), 0, *(1 + 2 * k for k in range(count))]
    perm += range(1 + 2 * count, 1 + 2 * count + len(rest))
    moved = call.add("Transpose", spread, perm=perm)
    shape = [-1, *(n // b for n, b in zip(inner, block, strict=True)), *rest]
    call.give(call.add("Reshape", moved, call.const(shape, "joined")))


@reads("BATCH_TO_SPACE_ND")
def _batch_to_space(call: Call) -> None:
    """The way back: pictures become places of blocks, and what was padded is cut off."""
    x, block, crops = call.value(0), call.ints(1), np.asarray(call.data(2), np.int64)
    count = len(block)
    inner, rest = _known(call, x.dims[1 : count + 1]), _known(call, x.dims[count + 1 :])
    spread = call.add("Reshape", call.plain(0), call.const([*block, -1, *inner, *rest], "split"))
    perm = [count, *(v for k in range(count) for v in (count + 1 + k, k))]
    perm += range(1 + 2 * count, 1 + 2 * count + len(rest))
    moved = call.add("Transpose", spread, perm=perm)
    sizes = [n * b for n, b in zip(inner, block, strict=True)]
    joined = call.add("Reshape", moved, call.const([-1, *sizes, *rest], "joined"))
    if not crops.any():
        return call.give(joined)
    ends = [n - int(behind) for n, (_, behind) in zip(sizes, crops, strict=True)]
    names = [call.const(v, what) for v, what in ((crops[:, 0], "from"), (ends, "to"), (range(1, count + 1), "axes"))]
    return call.give(call.add("Slice", joined, *names))


def _known(call: Call, sizes: Sequence[int | None]) -> list[int]:
    if any(n is None for n in sizes):
        call.refuse("takes sizes that are not known")
    return [n for n in sizes if n is not None]


@reads("BROADCAST_ARGS")
def _broadcast_args(call: Call) -> None:
    """The shape of what two shapes broadcast to."""
    a, b = call.data(0), call.data(1)
    call.give_data(np.array(np.broadcast_shapes(tuple(a.tolist()), tuple(b.tolist()))))
